//! Writing a VM's config and switching it, each as one noted call that is waited for.

use std::time::Duration;

use crate::base::check::{Change, Check, Problem};
use crate::base::fault::Failure;
use crate::base::permit::Permit;
use crate::engine::step::Got;
use crate::proxmox::{ConfigChange, Error, HIBERNATED, Proxmox, TaskRow, Upid, VmRef};

/// A guest that drains and syncs may take long; the API's own default of 60 s is too short for a Kubernetes node.
pub const SHUTDOWN: Duration = Duration::from_secs(300);
/// How long a shutdown and a start may take together, with what is written in between: where the guest does not shut
/// down it is stopped, which has its own minute.
pub const CYCLE: Duration = Duration::from_secs(330 + 60 + 60 + 180);
const CONFIG: Duration = Duration::from_secs(60);
const START: Duration = Duration::from_secs(180);

/// The answer for a VM that somebody else has locked: it is waited for, and named where these credentials may see it. A
/// hibernated one is not on its way anywhere.
///
/// # Errors
/// The pve tasks of its node cannot be read.
pub async fn locked<B>(pve: &Proxmox, at: &VmRef, lock: &str) -> Result<Check<B>, Failure> {
    let by: Vec<_> = pve.at_work_on(at, lock).await?.iter().map(worker).collect();
    if lock == HIBERNATED && by.is_empty() {
        return Ok(Check::blocked(vec![hibernated(at.vmid)]));
    }
    let by = if by.is_empty() { String::new() } else { format!(" by {}", by.join(", ")) };
    Ok(Check::waiting_for_lock(format!("vm {} is locked ({lock}){by}", at.vmid)))
}

/// The answer of a `back` that has something to restore, unless somebody else has the VM locked just then.
///
/// # Errors
/// Those of [`locked`], and the VM's state cannot be read.
pub async fn unless_locked(pve: &Proxmox, at: &VmRef, check: Check<()>) -> Result<Check<()>, Failure> {
    match pve.status(at).await?.lock {
        Some(lock) => locked(pve, at, &lock).await,
        None => Ok(check),
    }
}

/// What a hibernated VM needs first: its lock is what its saved memory hangs on.
pub fn hibernated(vmid: u32) -> Problem {
    Problem::new(
        format!("vm {vmid} is hibernated (locked: {HIBERNATED})"),
        format!("`qm resume {vmid}` (or start it) first: it goes on from its saved memory, which hangs on that lock"),
    )
}

/// A pve task and whose it is.
pub fn worker(row: &TaskRow) -> String {
    let perhaps = if row.is_nameless() { " (perhaps: it names no guest)" } else { "" };
    format!("{} of {}{perhaps}", row.upid.kind, row.upid.user)
}

/// Waits for a pve task and shows its log lines.
///
/// # Errors
/// The pve task failed, or its end cannot be seen.
pub async fn finish(pve: &Proxmox, upid: &Upid, limit: Duration, permit: &Permit) -> Result<(), Failure> {
    let end = pve.wait_task(upid, limit, &|line| permit.progress(line)).await?;
    if let Some(warnings) = end.warnings {
        permit.progress(&format!("{} ended with {warnings}", upid.kind));
    }
    Ok(())
}

/// A note for each pve task of a step that ended with warnings: its display line is gone with the terminal.
pub async fn warned(pve: &Proxmox, got: &[Got]) -> Vec<String> {
    let mut notes = Vec::new();
    for upid in got.iter().filter(|got| got.handle.kind == "upid").map(|got| got.handle.value.parse::<Upid>()) {
        match upid {
            Ok(upid) => match pve.task_warnings(&upid).await {
                Ok(warnings) => notes.extend(warnings.map(|w| format!("{} ended with {w}", upid.kind))),
                Err(error) => notes.push(format!("whether {} ended with warnings cannot be seen: {error}", upid.kind)),
            },
            Err(error) => notes.push(format!("a pve task of this step cannot be asked for: {error}")),
        }
    }
    notes
}

/// Writes a config. A change that is stored and that the running guest did not take is no failure here: the check sees
/// that it is pending, and the next power cycle applies it.
///
/// # Errors
/// The change was refused or its outcome is unknown.
pub async fn write_config(pve: &Proxmox, at: &VmRef, change: &ConfigChange, permit: &Permit) -> Result<(), Failure> {
    let Some(upid) = pve.set_config(at, change, permit).await? else { return Ok(()) };
    match pve.wait_task(&upid, CONFIG, &|line| permit.progress(line)).await {
        Ok(_) => Ok(()),
        Err(error @ Error::PendingKept { .. }) => {
            permit.progress(&error.to_string());
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Starts a VM and waits for the pve task.
///
/// # Errors
/// The start was refused or failed.
pub async fn start(pve: &Proxmox, at: &VmRef, permit: &Permit) -> Result<(), Failure> {
    let upid = pve.start(at, permit).await?;
    finish(pve, &upid, START, permit).await
}

/// The answer of a `back` for a VM that ran before and is off: it starts. Where the last that the step did to it was a
/// start that went well, somebody else has switched it off since, and that stays.
///
/// # Errors
/// What became of the step's own start cannot be asked.
pub async fn start_again(pve: &Proxmox, at: &VmRef, got: &[Got]) -> Result<Check<()>, Failure> {
    let vmid = at.vmid;
    let starts = || Ok(Check::todo(vec![Change::act(format!("vm {vmid} starts"))], ()));
    let Some(last) = got.last().filter(|got| got.handle.kind == "upid") else { return starts() };
    let upid = last.handle.value.parse::<Upid>();
    let upid = upid.map_err(|e| Failure::plain(format!("the journal names a broken pve task: {e}"), None))?;
    // High availability only takes the request down (`hastart`).
    if upid.kind != "qmstart" {
        return starts();
    }
    let exit = match pve.task_status(&upid).await {
        Err(Error::NoSuchTask { .. }) => {
            let text =
                format!("vm {vmid} ran, this run started it anew, and now it is off; how that start ended is gone");
            return Ok(Check::blocked(vec![Problem::new(text, format!("where it should run: `qm start {vmid}`"))]));
        }
        other => other?.exitstatus.unwrap_or_default(),
    };
    if exit != "OK" && !exit.starts_with("WARNINGS") {
        return starts();
    }
    Ok(Check::done().stays([format!(
        "vm {vmid} ran, this run started it anew, and now it is off: somebody else switched it off since, and that stays"
    )]))
}

/// Shuts a VM down, never by force, and waits until it is off.
///
/// # Errors
/// The guest did not power off in time (it may do so later), or the call failed.
pub async fn shutdown(pve: &Proxmox, at: &VmRef, permit: &Permit) -> Result<(), Failure> {
    let upid = pve.shutdown(at, SHUTDOWN, permit).await?;
    finish(pve, &upid, SHUTDOWN + Duration::from_secs(30), permit).await
}
