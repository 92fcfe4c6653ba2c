//! Pve tasks: the server's own long-running pieces of work, each with a UPID.

use std::time::Duration;

use serde::Deserialize;

use crate::base::fault::{Effect, Fault};
use crate::base::wait::{Backoff, show};

use super::api::Proxmox;
use super::error::Error;
use super::lenient;
use super::refusal::by_text;
use super::upid::Upid;
use super::vm::VmRef;
use super::wire::{Call, seg};

/// How far our clock and a node's may differ when a lost pve task is searched by time.
const SKEW: u64 = 300;
/// How many lines of a failed pve task's log go into the error.
const TAIL: u64 = 10;

/// How many of its last lines are searched for what it warned of.
const WARNED: u64 = 200;

/// A pve task's state.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TaskStatus {
    /// `running` or `stopped`.
    pub status: String,
    /// `OK`, `WARNINGS: n`, `unexpected status`, or an error text; only when stopped.
    #[serde(default)]
    pub exitstatus: Option<String>,
}

/// How a pve task ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskEnd {
    /// `WARNINGS: n`, where there were any.
    pub warnings: Option<String>,
}

/// A line of a pve task's log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LogLine {
    /// Its number, from 1.
    #[serde(deserialize_with = "lenient::number")]
    pub n: u64,
    /// The line.
    #[serde(default, deserialize_with = "lenient::text")]
    pub t: String,
}

/// Which pve tasks to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskFilter {
    /// Those of one guest.
    pub vmid: Option<u32>,
    /// Those that started at or after this second of the node's clock.
    pub since: Option<u64>,
    /// Those that still run.
    pub active_only: bool,
}

/// A pve task in a list.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TaskRow {
    /// Its name.
    pub upid: Upid,
    /// As [`TaskStatus::exitstatus`]; `RUNNING` or None while it runs.
    #[serde(default)]
    pub status: Option<String>,
    /// When it ended; None while it runs.
    #[serde(default, deserialize_with = "lenient::number_opt")]
    pub endtime: Option<u64>,
}

impl TaskRow {
    /// True while it runs.
    pub fn is_running(&self) -> bool {
        self.endtime.is_none() && self.status.as_deref().is_none_or(|s| s == "RUNNING")
    }

    /// True where it says of no guest that it works on it.
    pub fn is_nameless(&self) -> bool {
        self.upid.id.is_empty()
    }
}

fn call(upid: &Upid, rest: &str) -> Call {
    Call::get(format!("/nodes/{}/tasks/{}/{rest}", seg(&upid.node), seg(&upid.to_string())), target(upid))
}

fn target(upid: &Upid) -> String {
    if upid.id.bytes().all(|b| b.is_ascii_digit()) && !upid.id.is_empty() {
        format!("vm {} on {}", upid.id, upid.node)
    } else {
        format!("node {}", upid.node)
    }
}

impl Proxmox {
    /// `GET /nodes/{node}/tasks`. A token sees its own pve tasks only, without Sys.Audit on the node.
    ///
    /// # Errors
    /// Those of any question.
    pub async fn tasks(&self, node: &str, filter: &TaskFilter) -> Result<Vec<TaskRow>, Error> {
        let mut call = Call::get(format!("/nodes/{}/tasks", seg(node)), format!("node {node}"))
            .query("source", if filter.active_only { "active" } else { "all" })
            .query("limit", "500");
        if let Some(vmid) = filter.vmid {
            call = call.query("vmid", vmid.to_string());
        }
        if let Some(since) = filter.since {
            call = call.query("since", since.to_string());
        }
        self.read(&call).await
    }

    /// The pve tasks that may hold this lock of a guest now, on its node. A backup of several guests is one pve task with
    /// an empty id (pve-manager API2/VZDump.pm), so any such one may hold a lock `backup`, and no other
    /// ([`TaskRow::is_nameless`]). A token sees its own only, without Sys.Audit there.
    ///
    /// # Errors
    /// Those of any question.
    pub async fn at_work_on(&self, vm: &VmRef, lock: &str) -> Result<Vec<TaskRow>, Error> {
        let filter = TaskFilter { vmid: None, since: None, active_only: true };
        let mut rows = self.tasks(&vm.node, &filter).await?;
        let id = vm.vmid.to_string();
        rows.retain(|row| {
            let perhaps = row.is_nameless() && row.upid.kind == "vzdump" && lock == "backup";
            row.is_running() && (row.upid.id == id || perhaps)
        });
        Ok(rows)
    }

    /// The newest pve task of this kind that we started for the guest since `since`; for a call whose answer was lost.
    ///
    /// `since` is our clock's; a node's clock may be five minutes behind, so an older one of ours may be found. That is
    /// the harmless way round: the state is read afterwards in any case, whereas one that is missed is sent twice.
    /// Under high availability a request has a kind of its own (`hastart` for `qmstart`), which is found too.
    ///
    /// # Errors
    /// Those of any question.
    pub async fn find_task(
        &self,
        node: &str,
        vmid: u32,
        kind: &str,
        since: jiff::Timestamp,
    ) -> Result<Option<Upid>, Error> {
        let since = u64::try_from(since.as_second()).unwrap_or_default().saturating_sub(SKEW);
        let rows = self.tasks(node, &TaskFilter { vmid: Some(vmid), since: Some(since), active_only: false }).await?;
        let queued = match kind {
            "qmstart" => "hastart",
            "qmstop" | "qmshutdown" => "hastop",
            _ => kind,
        };
        let id = vmid.to_string();
        let ours = |u: &Upid| {
            (u.kind == kind || u.kind == queued) && u.id == id && u.user == self.caller() && u.started >= since
        };
        Ok(rows.into_iter().map(|row| row.upid).filter(ours).max_by_key(|upid| upid.started))
    }

    /// `GET status` of a pve task, from its own node.
    ///
    /// # Errors
    /// [`Error::NoSuchTask`], and those of any question.
    pub async fn task_status(&self, upid: &Upid) -> Result<TaskStatus, Error> {
        self.read(&call(upid, "status")).await
    }

    /// `GET log` of a pve task, from its own node: up to `limit` lines from number `start` (counted from 0), and how
    /// many there are.
    ///
    /// # Errors
    /// [`Error::NoSuchTask`], and those of any question.
    pub async fn task_log(&self, upid: &Upid, start: u64, limit: u64) -> Result<(Vec<LogLine>, u64), Error> {
        let call = call(upid, "log").query("start", start.to_string()).query("limit", limit.to_string());
        let answer = self.ask(&call).await?;
        let lines: Vec<LogLine> = self.shape(&call, answer.data, Effect::None)?;
        let total = answer.total.unwrap_or(start + lines.len() as u64);
        Ok((lines, total))
    }

    /// Waits for a pve task's end. `progress` gets its log lines once it takes longer than a moment.
    ///
    /// A node that does not answer meanwhile is asked again until `limit`.
    ///
    /// # Errors
    /// The cause, where its text is a known one ([`Error::RootOnly`], [`Error::PendingKept`], [`Error::Locked`], ...);
    /// else [`Error::TaskFailed`] with the tail of its log. [`Error::TaskUnknown`] where its worker died,
    /// [`Error::TaskTooLong`] after `limit`, [`Error::TaskUnasked`] where it cannot be asked for.
    pub async fn wait_task(
        &self,
        upid: &Upid,
        limit: Duration,
        progress: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<TaskEnd, Error> {
        let start = self.clock.instant();
        let mut backoff = Backoff::by_age(self.clock, Duration::from_millis(50), Duration::from_secs(1));
        let (mut shown, mut polls, mut unknown) = (0, 0_u32, 0_u32);
        loop {
            let silent = match self.task_status(upid).await {
                Ok(status) if status.status == "stopped" => match status.exitstatus.as_deref() {
                    // The last line of the log is written after the worker is gone: look a little longer.
                    None | Some("unexpected status") if unknown < 3 => {
                        unknown += 1;
                        None
                    }
                    None | Some("unexpected status") => {
                        return Err(Error::TaskUnknown { at: self.at(&target(upid)), upid: Box::new(upid.clone()) });
                    }
                    Some("OK") => return Ok(TaskEnd { warnings: None }),
                    Some(text) if text.starts_with("WARNINGS") => {
                        return Ok(TaskEnd { warnings: Some(text.to_owned()) });
                    }
                    Some(exit) => return Err(self.failed(upid, exit).await),
                },
                Ok(_) => None,
                Err(error) if error.retryable() => Some(error),
                Err(error @ Error::NoSuchTask { .. }) => return Err(error),
                Err(error) => {
                    let (at, upid, source) = (self.at(&target(upid)), Box::new(upid.clone()), Box::new(error));
                    return Err(Error::TaskUnasked { at, upid, source });
                }
            };
            if start.elapsed() >= limit {
                let (at, upid) = (self.at(&target(upid)), Box::new(upid.clone()));
                return Err(match silent {
                    // That it did not end is more than anybody knows.
                    Some(error) => Error::TaskUnasked { at, upid, source: Box::new(error) },
                    None => Error::TaskTooLong { at, upid, limit: show(limit), why: "it still runs".into() },
                });
            }
            polls += 1;
            if let Some(why) = silent {
                progress(&why.to_string());
            } else if polls > 10 {
                shown = self.show_log(upid, shown, progress).await;
            }
            backoff.pause().await;
        }
    }

    /// What a pve task warned of, where it ended so: `WARNINGS: n` and the log's own lines.
    ///
    /// # Errors
    /// As [`Proxmox::task_status`] and [`Proxmox::task_log`].
    pub async fn task_warnings(&self, upid: &Upid) -> Result<Option<String>, Error> {
        let status = self.task_status(upid).await?;
        let Some(exit) = status.exitstatus.filter(|exit| exit.starts_with("WARNINGS")) else { return Ok(None) };
        let (_, total) = self.task_log(upid, 0, 1).await?;
        let (lines, _) = self.task_log(upid, total.saturating_sub(WARNED), WARNED).await?;
        let said: Vec<&str> = lines.iter().filter_map(|line| line.t.strip_prefix("WARN: ")).collect();
        Ok(Some(if said.is_empty() { exit } else { format!("{exit} ({})", said.join("; ")) }))
    }

    /// Shows the lines after number `shown`; returns how many were shown in all.
    async fn show_log(&self, upid: &Upid, shown: u64, progress: &(dyn Fn(&str) + Send + Sync)) -> u64 {
        match self.task_log(upid, shown, 50).await {
            Ok((lines, _)) => {
                lines.iter().filter(|line| line.n > shown && line.t != "no content").fold(shown, |_, line| {
                    progress(&line.t);
                    line.n
                })
            }
            Err(error) => {
                progress(&error.to_string());
                shown
            }
        }
    }

    /// The error of a pve task that ended with `exit`.
    async fn failed(&self, upid: &Upid, exit: &str) -> Error {
        let at = self.at(&target(upid));
        if let Some(known) = by_text(&at, exit) {
            let vm = upid.id.parse().ok().map(|vmid| VmRef { node: upid.node.clone(), vmid });
            self.places.hear(vm.as_ref(), &known);
            return known;
        }
        let tail = async {
            let (_, total) = self.task_log(upid, 0, 1).await?;
            self.task_log(upid, total.saturating_sub(TAIL), TAIL).await
        };
        let tail = match tail.await {
            Ok((lines, _)) => lines.into_iter().map(|line| line.t).collect(),
            Err(error) => vec![format!("(its log cannot be read: {error})")],
        };
        Error::TaskFailed { at, upid: Box::new(upid.clone()), exit: exit.to_owned(), tail }
    }
}
