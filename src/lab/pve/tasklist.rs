//! Pve tasks: lists, status, log.

use serde_json::{Value, json};

use super::front::{Call, Data, No};
use super::params::split_list;
use super::tasks::PveTask;
use crate::lab::world::World;

fn fields(task: &PveTask) -> Value {
    let mut row = json!({ "upid": task.upid, "node": task.node, "pid": task.pid, "pstart": task.pstart,
        "starttime": task.starttime, "type": task.kind, "id": task.id, "user": task.user });
    if let (Some(map), Some((user, token))) = (row.as_object_mut(), task.user.split_once('!')) {
        map.insert("user".into(), user.into());
        map.insert("tokenid".into(), token.into());
    }
    row
}

fn list_row(task: &PveTask) -> Value {
    let mut row = fields(task);
    if let Some(map) = row.as_object_mut() {
        match &task.end {
            Some((end, status)) => {
                map.insert("endtime".into(), (*end).into());
                map.insert("status".into(), status.as_str().into());
            }
            None => {
                map.insert("status".into(), "RUNNING".into());
            }
        }
    }
    row
}

fn sees(world: &World, who: &str, task: &PveTask) -> bool {
    task.user == who || world.access.may(who, &format!("/nodes/{}", task.node), &["Sys.Audit"])
}

/// `GET /nodes/{n}/tasks`, newest first
pub(super) fn list(call: &Call, node: &str) -> Result<Data, No> {
    call.proxy(node)?;
    let p = &call.params;
    p.accept(
        &[],
        &["source", "vmid", "typefilter", "statusfilter", "since", "until", "start", "limit", "userfilter", "errors"],
    )?;
    let source = p.text("source").unwrap_or_else(|| "archive".into());
    if !["archive", "active", "all"].contains(&source.as_str()) {
        let text = format!("value '{source}' does not have a value in the enumeration 'archive, active, all'");
        return Err(No::param("source", text));
    }
    let (since, until) = (p.integer("since")?, p.integer("until")?);
    let start = p.integer("start")?.and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    let limit = p.integer("limit")?.and_then(|n| usize::try_from(n).ok()).unwrap_or(50);
    let errors = p.flag("errors")?.unwrap_or(false);
    let (vmid, kind, user) = (p.text("vmid"), p.text("typefilter"), p.text("userfilter"));
    let statuses = p.text("statusfilter").map(|s| split_list(&s));
    let word = |t: &PveTask| match &t.end {
        None => "unknown",
        Some((_, s)) if s == "OK" => "ok",
        Some((_, s)) if s.starts_with("WARNINGS") => "warning",
        Some(_) => "error",
    };
    let rows: Vec<Value> = call.shared.read(|w| {
        w.tasks
            .iter()
            .rev()
            .filter(|t| t.node == node && sees(w, &call.caller.who, t))
            .filter(|t| source == "all" || (source == "active") == t.end.is_none())
            .filter(|t| vmid.as_ref().is_none_or(|v| t.id == *v))
            .filter(|t| kind.as_ref().is_none_or(|k| t.kind.contains(k.as_str())))
            .filter(|t| user.as_ref().is_none_or(|u| t.user.contains(u.as_str())))
            .filter(|t| since.is_none_or(|s| t.starttime >= s) && until.is_none_or(|u| t.starttime <= u))
            .filter(|t| statuses.as_ref().is_none_or(|s| s.iter().any(|s| s == word(t))))
            .filter(|t| !errors || matches!(word(t), "error" | "warning"))
            .map(list_row)
            .collect()
    });
    let total = rows.len();
    let limit = if limit == 0 { usize::MAX } else { limit };
    Ok(Data { data: rows.into_iter().skip(start).take(limit).collect(), total: Some(total) })
}

/// `GET /cluster/tasks`
pub(super) fn cluster(call: &Call) -> Result<Data, No> {
    call.params.accept(&[], &[])?;
    let rows: Vec<Value> = call
        .shared
        .read(|w| w.tasks.iter().rev().filter(|t| sees(w, &call.caller.who, t)).take(100).map(list_row).collect());
    Ok(Value::Array(rows).into())
}

/// The task of a UPID, as a copy; the node of the path must have it.
fn find(call: &Call, node: &str, upid: &str) -> Result<PveTask, No> {
    call.proxy(node)?;
    if !upid.starts_with("UPID:") || upid.split(':').count() != 9 {
        return Err(No::param("upid", "unable to parse worker upid"));
    }
    let found = call
        .shared
        .read(|w| w.task(upid).filter(|t| t.node == node).map(|t| (t.clone(), sees(w, &call.caller.who, t))));
    match found {
        None => Err(No::param("upid", "no such task")),
        Some((_, false)) => Err(No::Says(403, format!("Permission check failed (/nodes/{node}, Sys.Audit)"))),
        Some((task, true)) => Ok(task),
    }
}

/// `GET .../tasks/{upid}/status`
pub(super) fn status(call: &Call, node: &str, upid: &str) -> Result<Data, No> {
    let task = find(call, node, upid)?;
    call.params.accept(&[], &[])?;
    let mut row = fields(&task);
    if let Some(map) = row.as_object_mut() {
        map.insert("status".into(), if task.end.is_some() { "stopped" } else { "running" }.into());
        if let Some((_, status)) = &task.end {
            map.insert("exitstatus".into(), status.as_str().into());
        }
    }
    Ok(row.into())
}

/// `GET .../tasks/{upid}/log`
pub(super) fn log(call: &Call, node: &str, upid: &str) -> Result<Data, No> {
    let task = find(call, node, upid)?;
    call.params.accept(&[], &["start", "limit", "download"])?;
    let start = call.params.integer("start")?.and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    let limit = match call.params.integer("limit")?.and_then(|n| usize::try_from(n).ok()) {
        Some(0) => usize::MAX,
        limit => limit.unwrap_or(50),
    };
    let mut lines = task.lines();
    let total = lines.len();
    if lines.is_empty() {
        lines.push("no content".into());
    }
    let rows =
        lines.into_iter().enumerate().skip(start).take(limit).map(|(i, t)| json!({ "n": i + 1, "t": t })).collect();
    Ok(Data { data: Value::Array(rows), total: Some(total.max(1)) })
}

/// `DELETE .../tasks/{upid}`
pub(super) fn stop(call: &Call, node: &str, upid: &str) -> Result<Data, No> {
    let task = find(call, node, upid)?;
    if task.user != call.caller.who {
        call.need(&format!("/nodes/{node}"), &["Sys.Modify"])?;
    }
    call.params.accept(&[], &[])?;
    call.shared.change(|w| {
        if task.end.is_none() {
            if let Some(id) = task.id.parse().ok().filter(|_| matches!(task.kind.as_str(), "qmshutdown" | "qmreboot")) {
                w.interrupt_shutdown(id);
            }
            w.end_task(upid, Err("received interrupt".into()));
        }
    });
    Ok(Value::Null.into())
}
