//! 04: the machine is switched off and on, once in this run.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Answer, Change, Check};
use crate::base::fault::Failure;
use crate::base::permit::{Permit, System};
use crate::base::wait::{Backoff, show};
use crate::blueprint::machine::{Boot, Machine, boot_id};
use crate::blueprint::power::{SHUTDOWN, finish, locked, start, start_again};
use crate::blueprint::quorum::{self, Peer, judge, look};
use crate::blueprint::vm::Vm;
use crate::engine::step::{Outlook, Risk, Seen, Step};
use crate::estate::Estate;
use crate::talos::{RebootMode, Talos};

use super::stand::{is_on_its_way, may_pass, up_again};

/// How long a machine may take from the call to its own answer: firmware of servers takes minutes.
const LIMIT: Duration = Duration::from_secs(900);
/// How long a node may take to say that it has begun.
const BEGINS: Duration = Duration::from_secs(10);
/// The run file with what was booted before, for 05.
pub(super) const BOOT: &str = "boot.json";

/// Reboots a node through its firmware, and a VM with a new process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RebootNode {
    /// The node.
    pub machine: Machine,
    /// All nodes of its cluster.
    pub peers: Vec<Peer>,
}

/// What ran before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// What was booted.
    pub boot: Boot,
    /// The process of its VM.
    pub pid: Option<u32>,
}

impl Step<Estate> for RebootNode {
    const ID: &'static str = "04-reboot";
    const RISK: Risk = Risk::Reverts;
    type Before = Before;

    fn instance(&self) -> Option<String> {
        Some(self.machine.name.clone())
    }

    fn title(&self) -> String {
        match &self.machine.vm {
            Some(vm) => format!("{} (vm {}) is shut down and started", self.machine.name, vm.vmid),
            None => format!("{} is power-cycled", self.machine.name),
        }
    }

    fn why(&self) -> Vec<String> {
        let by_hand = match &self.machine.vm {
            Some(vm) => format!("`talosctl -n {} shutdown`, then `qm start {}`", self.machine.name, vm.vmid),
            None => format!("`talosctl -n {} reboot --mode powercycle`", self.machine.name),
        };
        vec![
            "Each run reboots each node once, and never twice: after a crash the boot id tells whether it did.".into(),
            "By kexec, which is Talos's own way, neither firmware nor boot order are gone through, and a VM keeps its old \
             process: that proves nothing about the disk it boots from, and applies no pending config."
                .into(),
            "The quorum is asked for again right before the call, and the leadership of etcd handed over.".into(),
            "Talos answers before it begins; that another sequence holds its lock is told in its events alone.".into(),
            format!("By hand: {by_hand}."),
            "There is nothing to take back of a reboot. An undo in the middle of one starts the VM again, \
             unless somebody else switched it off since."
                .into(),
        ]
    }

    fn limit(&self) -> Duration {
        LIMIT
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        let mut changes = vec![(System::Talos, format!("node {} reboots", self.machine.name))];
        changes.extend(self.machine.vm.iter().map(|vm| (System::Proxmox, format!("vm {}", vm.vmid))));
        let longest = if self.machine.vm.is_some() { SHUTDOWN } else { Duration::ZERO };
        Outlook { changes, stays: Some("a reboot cannot be taken back, and need not be".into()), ..Outlook::default() }
            .longest(longest)
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let Some(since) = seen.since else { return self.ahead(cx).await };
        let talos = self.machine.open(cx).await?;
        Ok(match boot_id(&talos).await {
            Ok(id) if id != since.boot.id => Check::done().note(format!("boot {id}; before it {}", since.boot.id)),
            Ok(_) if is_on_its_way(&talos).await? => Check::waiting(format!("{} is going down", self.machine.name)),
            Ok(_) => Check::todo(self.changes(), since.clone()),
            Err(error) if error.is_down() => match self.off(cx).await? {
                Some(off) => Check::todo(vec![Change::act(format!("{off} starts"))], since.clone()),
                None => Check::waiting(Failure::from(error).to_string()),
            },
            Err(error) => return Err(error.into()),
        })
    }

    async fn apply(&self, cx: &Estate, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let Some(since) = seen.since else { return Ok(()) };
        let known = serde_json::to_vec(since).map_err(|e| Failure::plain(format!("{BOOT}: {e}"), None))?;
        permit.file(BOOT, &known)?;
        let talos = self.machine.open(cx).await?;
        match &self.machine.vm {
            Some(vm) => self.cycle_vm(cx, &talos, vm, since, permit).await,
            None if self.left(&talos, since).await? => Ok(()),
            None => {
                self.gate(cx, permit).await?;
                let actor = talos.reboot(permit, RebootMode::PowerCycle).await?;
                begun(&talos, &actor).await
            }
        }
    }

    async fn back(&self, cx: &Estate, before: &Before, seen: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        if let (Some(vm), Some(_)) = (&self.machine.vm, before.pid) {
            let (pve, at, status) = vm.status(cx).await?;
            if !status.is_running() {
                return start_again(&pve, &at, seen.got).await;
            }
        }
        Ok(match up_again(cx, &self.machine, &self.peers).await {
            Ok(None) => Check::done().note("a reboot cannot be taken back, and need not be"),
            Ok(Some(why)) => Check::waiting(why),
            Err(failure) if may_pass(&failure) => Check::waiting(failure.to_string()),
            Err(failure) => return Err(failure),
        })
    }

    async fn undo(&self, cx: &Estate, before: &Before, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let (Some(vm), Some(_)) = (&self.machine.vm, before.pid) else { return Ok(()) };
        let (pve, at, status) = vm.status(cx).await?;
        if status.is_running() || !matches!(start_again(&pve, &at, seen.got).await?.answer, Answer::Todo { .. }) {
            return Ok(());
        }
        start(&pve, &at, permit).await
    }
}

impl RebootNode {
    /// Before anything was done: what would be, unless etcd or a lock is in the way.
    async fn ahead(&self, cx: &Estate) -> Result<Check<Before>, Failure> {
        let verdict = judge(&self.machine.name, &look(cx, &self.machine.cluster, &self.peers).await);
        if !verdict.problems.is_empty() {
            return Ok(Check::blocked(verdict.problems));
        }
        let boot = self.machine.boot(cx).await?;
        let Some(vm) = &self.machine.vm else {
            return Ok(Check::todo(self.changes(), Before { boot, pid: None }));
        };
        let (pve, at, status) = vm.status(cx).await?;
        if let Some(lock) = &status.lock {
            return locked(&pve, &at, lock).await;
        }
        let config = pve.pending(&at).await?;
        let waits: Vec<&str> =
            config.keys.iter().filter(|(_, key)| key.is_pending()).map(|(name, _)| name.as_str()).collect();
        let note = (!waits.is_empty()).then(|| format!("applies what waits in its config: {}", waits.join(", ")));
        Ok(Check::todo(self.changes(), Before { boot, pid: status.pid }).notes(note))
    }

    fn changes(&self) -> Vec<Change> {
        let name = &self.machine.name;
        vec![match &self.machine.vm {
            Some(vm) => Change::act(format!("{name} shuts down, and vm {} starts", vm.vmid)),
            None => Change::act(format!("{name} reboots through its firmware")),
        }]
    }

    async fn gate(&self, cx: &Estate, permit: &Permit) -> Result<(), Failure> {
        quorum::pass(cx, &self.machine.cluster, &self.machine.name, &self.peers, permit).await
    }

    /// Whether it has gone, or is going: then nothing is sent. What cannot be asked is on its way, and the check waits.
    async fn left(&self, talos: &Talos, since: &Before) -> Result<bool, Failure> {
        match boot_id(talos).await {
            Ok(id) if id != since.boot.id => Ok(true),
            Ok(_) => Ok(is_on_its_way(talos).await?),
            Err(error) if error.is_down() => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// The VM where it is switched off.
    async fn off(&self, cx: &Estate) -> Result<Option<String>, Failure> {
        let Some(vm) = &self.machine.vm else { return Ok(None) };
        let (_, _, status) = vm.status(cx).await?;
        Ok((!status.is_running()).then(|| format!("vm {}", vm.vmid)))
    }

    async fn cycle_vm(
        &self,
        cx: &Estate,
        talos: &Talos,
        vm: &Vm,
        since: &Before,
        permit: &Permit,
    ) -> Result<(), Failure> {
        let (pve, at, status) = vm.status(cx).await?;
        if status.is_running() {
            // Another process: it has been started since.
            if status.pid != since.pid {
                return Ok(());
            }
            if !self.left(talos, since).await? {
                self.gate(cx, permit).await?;
                if status.is_ha_managed() {
                    // High availability would put a stopped VM back up at once: the cycle is one request to it.
                    let upid = pve.reboot(&at, SHUTDOWN, permit).await?;
                    return finish(&pve, &upid, SHUTDOWN + Duration::from_secs(30), permit).await;
                }
                // 02 has drained it; Talos need not do it again.
                let actor = talos.shutdown(permit, true).await?;
                begun(talos, &actor).await?;
            }
            let began = cx.clock().instant();
            let mut pauses = Backoff::poll(cx.clock());
            while pve.status(&at).await?.is_running() {
                if began.elapsed() > SHUTDOWN {
                    let text =
                        format!("vm {} is not off {} after Talos was told to shut down", vm.vmid, show(SHUTDOWN));
                    let help =
                        format!("see its console; `pvemig resume` goes on once it is off, or `qm stop {}`", vm.vmid);
                    return Err(Failure::plain(text, Some(help)));
                }
                permit.go_on()?;
                pauses.pause().await;
            }
        }
        start(&pve, &at, permit).await
    }
}

/// Waits until the node says that it has begun. Where it goes away before it says so, the check sees what came of it.
pub(super) async fn begun(talos: &Talos, actor: &str) -> Result<(), Failure> {
    match talos.sequence_began(actor, BEGINS).await {
        Err(error) if !error.is_down() => Err(error.into()),
        _ => Ok(()),
    }
}
