//! 05: the target VM runs what is configured.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Answer, Change, Check, Problem};
use crate::base::fault::Failure;
use crate::base::permit::Permit;
use crate::engine::step::{Outlook, Risk, Seen, Step};
use crate::estate::Estate;
use crate::proxmox::{MapEntry, Pending, Proxmox, VmRef, VmStatus, usb_slot};

use super::device::{Attach, Device, Sight, Vm, same_usb};
use super::fault::refusal;
use super::power::{CYCLE, SHUTDOWN, finish, locked, shutdown, start, start_again, warned};
use super::s04_add_usb::set_entry;

/// Power-cycles a VM where its process does not run what is configured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RebootVm {
    /// The VM.
    pub vm: Vm,
    /// The device, whose mapping must name its present id when the VM starts.
    pub device: Device,
    /// By id, port or mapping.
    pub attach: Attach,
    /// Pull the plug where the guest does not power off in time. Only by `--force-off`.
    #[serde(default)]
    pub force_off: bool,
}

/// The VM's process as it was.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {
    /// Whether it ran.
    pub ran: bool,
    /// Its process.
    pub pid: Option<u32>,
}

impl Step<Estate> for RebootVm {
    const ID: &'static str = "05-reboot-vm";
    const RISK: Risk = Risk::Reverts;
    type Before = Before;

    fn title(&self) -> String {
        format!("vm {} ({}) runs what is configured", self.vm.vmid, self.vm.node)
    }

    fn why(&self) -> Vec<String> {
        vec![
            "Only a new QEMU process applies what is pending: a reboot inside the guest is a reset of the old one."
                .into(),
            "Where the device was hot-plugged nothing has to be done.".into(),
            "By hand: `qm shutdown VMID --timeout 300 && qm start VMID`; the default of 60 s is short for a node."
                .into(),
            "A guest whose shutdown timed out may still power off later, and then stays off: this step starts it."
                .into(),
        ]
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(300)
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        let cycle = "is power-cycled, where its running guest does not take the device";
        Outlook::default().maybe(format!("vm {} {cycle}", self.vm.vmid)).longest(CYCLE).hits()
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let (pve, at, (status, stale)) = self.vm.there(cx, process).await?;
        // A lock is in the way only where there is something to do: a backup of a finished estate is none of ours.
        let todo = async |changes| match &status.lock {
            Some(lock) => locked(&pve, &at, lock).await,
            None => Ok(Check::todo(changes, Before { ran: status.is_running(), pid: status.pid })),
        };
        if !status.is_running() {
            let what = format!("vm {} starts (it is {})", self.vm.vmid, status.status);
            return todo(vec![Change::act(what)]).await;
        }
        let same_start = seen.since.is_some_and(|since| since.ran && since.pid == status.pid);
        if stale.is_empty() && !same_start {
            return Ok(Check::done().notes(warned(&pve, seen.got).await));
        }
        if stale.is_empty() {
            // Begun, and then hot-plugged by somebody: what is configured runs, so there is nothing left to reboot for.
            return Ok(Check::done().note("everything configured runs without the reboot"));
        }
        if let Err(problem) = self.fresh_entry(cx, &pve, &at).await? {
            return Ok(Check::blocked(vec![problem]));
        }
        let mut changes = vec![Change::act(format!("vm {} shuts down and starts", self.vm.vmid))];
        changes.extend(stale);
        todo(changes).await
    }

    async fn apply(&self, cx: &Estate, _seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let (pve, at, (status, stale)) = self.vm.there(cx, process).await?;
        if status.is_running() {
            if stale.is_empty() {
                return Ok(());
            }
            if status.is_ha_managed() {
                // High availability would put a stopped VM back up at once: the reboot is one request to it.
                self.refresh_mapping(cx, &pve, &at, permit).await?;
                let upid = pve.reboot(&at, SHUTDOWN, permit).await?;
                return finish(&pve, &upid, SHUTDOWN + Duration::from_secs(30), permit).await;
            }
            // What would keep it from starting is found while it still runs.
            self.fresh_entry(cx, &pve, &at).await?.map_err(refusal)?;
            self.switch_off(&pve, &at, permit).await?;
        }
        self.refresh_mapping(cx, &pve, &at, permit).await?;
        start(&pve, &at, permit).await
    }

    async fn back(&self, cx: &Estate, before: &Before, seen: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        let (pve, at, status) = self.vm.status(cx).await?;
        let check = match (before.ran, status.is_running()) {
            (true, false) => start_again(&pve, &at, seen.got).await?,
            (false, true) => Check::todo(vec![Change::act(format!("vm {} shuts down", self.vm.vmid))], ()),
            _ => return Ok(Check::done()),
        };
        match &status.lock {
            Some(lock) if !check.is_done() => locked(&pve, &at, lock).await,
            _ => Ok(check),
        }
    }

    async fn undo(&self, cx: &Estate, before: &Before, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let (pve, at, status) = self.vm.status(cx).await?;
        match (before.ran, status.is_running()) {
            (true, false) => {
                if !matches!(start_again(&pve, &at, seen.got).await?.answer, Answer::Todo { .. }) {
                    return Ok(());
                }
                self.refresh_mapping(cx, &pve, &at, permit).await?;
                start(&pve, &at, permit).await
            }
            (false, true) => shutdown(&pve, &at, permit).await,
            _ => Ok(()),
        }
    }
}

impl RebootVm {
    async fn switch_off(&self, pve: &Proxmox, at: &VmRef, permit: &Permit) -> Result<(), Failure> {
        let Err(failure) = shutdown(pve, at, permit).await else { return Ok(()) };
        let timed_out = matches!(failure.downcast_ref(), Some(crate::proxmox::Error::ShutdownTimedOut { .. }));
        if !(timed_out && self.force_off) {
            return Err(failure);
        }
        let upid = pve.stop(at, permit).await?;
        finish(pve, &upid, Duration::from_secs(60), permit).await
    }

    /// A VM whose mapping names another id than the device shows does not start, and the id changes with use.
    async fn refresh_mapping(&self, cx: &Estate, pve: &Proxmox, at: &VmRef, permit: &Permit) -> Result<(), Failure> {
        let Some(fresh) = self.fresh_entry(cx, pve, at).await?.map_err(refusal)? else { return Ok(()) };
        let Some(name) = &self.device.mapping else { return Ok(()) };
        set_entry(pve, name, &at.node, &fresh, true, permit).await
    }

    /// The mapping's entry as it has to be for the VM to start; None where it is so, or where the VM gets the device in
    /// another way. The problem: a mapped device that is not there, or that nobody can tell from another one.
    async fn fresh_entry(
        &self,
        cx: &Estate,
        pve: &Proxmox,
        at: &VmRef,
    ) -> Result<Result<Option<MapEntry>, Problem>, Failure> {
        let (Attach::Mapping, Some(name)) = (self.attach, &self.device.mapping) else { return Ok(Ok(None)) };
        let mappings = pve.usb_mappings(None).await?;
        let entry = mappings.iter().find(|m| m.id == *name).and_then(|m| m.entry(&at.node));
        let Some(entry) = entry else { return Ok(Ok(None)) };
        let sight = self.device.look(cx, &self.vm.cluster, &at.node).await?;
        if let Sight::Absent(_, by) = &sight {
            let text = format!(
                "{} is not at {} ({by}): vm {}, which has it by mapping {name}, would not start again",
                self.device.title(),
                at.node,
                self.vm.vmid
            );
            let help = format!("plug it in; `pvemig step 03-check-host-hardware --vmid {}` waits for it", self.vm.vmid);
            return Ok(Err(Problem::new(text, help).mended_by("03-check-host-hardware")));
        }
        let place = match self.device.place_for(Some(entry), &at.node, sight.places()) {
            Ok(Some(place)) => place,
            Ok(None) => return Ok(Ok(None)),
            Err(problem) => return Ok(Err(problem)),
        };
        let is = entry.id() == Some(place.id) && entry.path().as_ref() == Some(&place.port);
        Ok(Ok((!is).then(|| MapEntry::new(&at.node, place.id, Some(&place.port)))))
    }
}

/// Whether a VM has to be started or power-cycled to run what is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cycle {
    /// It runs what is configured.
    NotNeeded,
    /// It does not run; its state, as `stopped`.
    Start(String),
    /// It runs something else: these changes wait for the next power cycle.
    Restart(Vec<Change>),
}

/// The question of this step, for those that prepare for it or are told by it what is wrong.
///
/// # Errors
/// The API does not answer.
pub(super) async fn needs_power_cycle(pve: &Proxmox, at: &VmRef) -> Result<Cycle, Failure> {
    let (status, stale) = process(pve, at).await?;
    Ok(Cycle::of(&status, stale))
}

/// A VM's state, and why its running process is not what is configured.
///
/// # Errors
/// The API does not answer.
async fn process(pve: &Proxmox, at: &VmRef) -> Result<(VmStatus, Vec<Change>), Failure> {
    let (status, config, running) = futures::join!(pve.status(at), pve.pending(at), pve.running_config(at));
    let status = status?;
    let stale = if status.is_running() { stale(at.vmid, &config?, &running?) } else { Vec::new() };
    Ok((status, stale))
}

impl Cycle {
    /// By the VM's state, and what its process lacks where it runs.
    pub(super) fn of(status: &VmStatus, stale: Vec<Change>) -> Self {
        match (status.is_running(), stale.is_empty()) {
            (false, _) => Self::Start(status.status.clone()),
            (true, true) => Self::NotNeeded,
            (true, false) => Self::Restart(stale),
        }
    }
}

/// Why the running process is not what is configured; USB keys only, others are the preflight's findings.
pub(super) fn stale(vmid: u32, config: &Pending, running: &BTreeMap<String, String>) -> Vec<Change> {
    let what = |slot: &str| format!("vm {vmid} {slot}");
    let mut changes = Vec::new();
    for (slot, key) in config.usb() {
        let slot = format!("usb{slot}");
        let (now, then) = (running.get(&slot).map(String::as_str), key.configured());
        match (same_usb(now, then) && !key.is_pending(), now, then) {
            (true, ..) => {}
            (false, Some(now), Some(then)) => changes.push(Change::set(what(&slot), now, then)),
            (false, None, Some(then)) => changes.push(Change::add(what(&slot), then)),
            (false, Some(now), None) => changes.push(Change::remove(what(&slot), now)),
            (false, None, None) => {}
        }
    }
    for (slot, value) in running.iter().filter(|(key, _)| usb_slot(key).is_some() && !config.keys.contains_key(*key)) {
        changes.push(Change::remove(what(slot), value));
    }
    changes
}
