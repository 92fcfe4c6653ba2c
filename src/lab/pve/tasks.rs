//! Pve tasks: what a UPID stands for.

use serde::{Deserialize, Serialize};

use crate::lab::clock::LabTime;
use crate::lab::world::World;

/// A pve task.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PveTask {
    /// `UPID:node:pid:pstart:starttime:type:id:user:`
    pub upid: String,
    /// Node of the worker.
    pub node: String,
    /// Worker's process id.
    pub pid: u32,
    /// Worker's start in the kernel's ticks.
    pub pstart: u64,
    /// Unix seconds.
    pub starttime: i64,
    /// `qmstart`
    pub kind: String,
    /// Mostly the machine's id.
    pub id: String,
    /// `root@pam` or `root@pam!token`.
    pub user: String,
    /// Unix seconds and exit status, once it has ended.
    pub end: Option<(i64, String)>,
    /// Log lines without the last one.
    pub log: Vec<String>,
    /// What the worker is to do, by kind: the config change of a `qmconfig`, the limit of a `qmshutdown`.
    pub order: serde_json::Value,
}

impl PveTask {
    /// The log with the line that ends it.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = self.log.clone();
        match &self.end {
            Some((_, status)) if status == "OK" => lines.push("TASK OK".into()),
            Some((_, status)) if status.starts_with("WARNINGS") => lines.push(format!("TASK {status}")),
            Some((_, status)) => lines.push(format!("TASK ERROR: {status}")),
            None => {}
        }
        lines
    }
}

impl World {
    /// The wall-clock second of a lab time.
    pub fn unix(&self, at: LabTime) -> i64 {
        self.zero + at.as_secs().cast_signed()
    }

    /// A process id that nothing else had.
    pub fn new_pid(&mut self) -> u32 {
        self.counter += 1;
        20_000 + self.counter * 7
    }

    /// Records a pve task that begins now; returns its UPID.
    pub fn begin_task(&mut self, node: &str, kind: &str, id: &str, user: &str, order: serde_json::Value) -> String {
        let pid = self.new_pid();
        let starttime = self.unix(self.now);
        let pstart = u64::try_from(self.now.as_millis() / 10).unwrap_or_default();
        let upid = format!("UPID:{node}:{pid:08X}:{pstart:08X}:{starttime:08X}:{kind}:{id}:{user}:");
        self.tasks.push(PveTask {
            upid: upid.clone(),
            node: node.to_owned(),
            pid,
            pstart,
            starttime,
            kind: kind.to_owned(),
            id: id.to_owned(),
            user: user.to_owned(),
            end: None,
            log: Vec::new(),
            order,
        });
        upid
    }

    /// A task by UPID.
    pub fn task(&self, upid: &str) -> Option<&PveTask> {
        self.tasks.iter().rev().find(|t| t.upid == upid)
    }

    /// Adds a line to a task's log.
    pub fn log_task(&mut self, upid: &str, line: impl Into<String>) {
        if let Some(task) = self.tasks.iter_mut().rev().find(|t| t.upid == upid) {
            task.log.push(line.into());
        }
    }

    /// Ends a task with `OK` or the text of its error; a second end is ignored.
    pub fn end_task(&mut self, upid: &str, outcome: Result<(), String>) {
        let at = self.unix(self.now);
        if let Some(task) = self.tasks.iter_mut().rev().find(|t| t.upid == upid && t.end.is_none()) {
            task.end = Some((at, outcome.err().map_or_else(|| "OK".to_owned(), |text| text.replace('\n', " "))));
        }
    }
}
