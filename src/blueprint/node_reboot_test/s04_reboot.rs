//! 04: the machine is switched off and on, once in this run.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Answer, Change, Check, Problem};
use crate::base::fault::Failure;
use crate::base::names::StepKey;
use crate::base::permit::{Permit, System};
use crate::base::wait::{Backoff, show};
use crate::blueprint::configs::configs;
use crate::blueprint::drained;
use crate::blueprint::machine::{Boot, Machine};
use crate::blueprint::power::{SHUTDOWN, finish, locked, start, start_again};
use crate::blueprint::quorum::{self, Peer, judge, look};
use crate::blueprint::vm::Vm;
use crate::engine::step::{Outlook, Risk, Seen, Step};
use crate::estate::Estate;
use crate::proxmox::{Pending, Proxmox, VmRef, VmStatus};
use crate::talos::{Error, RebootMode, Talos};

use super::on;
use super::sight::{Sight, begun, deaf, sight};
use crate::blueprint::own_vm;
use crate::blueprint::stand::goes_down;

/// How long a machine may take from the call to its own answer: firmware of servers takes minutes.
const LIMIT: Duration = Duration::from_secs(900);
/// The least that it is waited for a VM to go off, however fast the clock.
const QUICKEST: Duration = Duration::from_secs(15);
/// How long a node may take to say that it has begun.
pub(super) const BEGINS: Duration = Duration::from_secs(10);
/// The run file with what was booted before, for 05.
pub(super) const BOOT: &str = "boot.json";

/// Reboots a node through its firmware, and a VM with a new process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RebootNode {
    /// The node.
    pub machine: Machine,
    /// All nodes of its cluster.
    pub peers: Vec<Peer>,
    /// `staged:` of the site: a machine configuration that waits on the node's disk may come into effect.
    #[serde(default)]
    pub staged: bool,
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
            Some(vm) => format!("{}, then `qm start {}`", self.machine.talosctl("shutdown"), vm.vmid),
            None => self.machine.talosctl("reboot --mode powercycle"),
        };
        vec![
            "This step reboots its node once in a run, and never twice: after a crash the boot id tells whether it did. (Up \
             to Talos 1.12 the node boots into another image by itself, so that 03 has rebooted it once before.)"
                .into(),
            "By kexec, which is Talos's own way, neither firmware nor boot order are gone through, and a VM keeps its old \
             process: that proves nothing about the disk it boots from, and applies no pending config."
                .into(),
            "The quorum is asked for again right before the call, and the leadership of etcd handed over.".into(),
            "By itself it drains nobody, and goes down by force: that the node is cordoned and nothing is left on it is \
             looked at first."
                .into(),
            "A VM is switched only where its uuid is the one that the node sees: by a wrong number in the site file the \
             node would go down, and another machine would be started."
                .into(),
            "A boot puts the machine configuration on the disk into effect, also one that somebody has staged there: that is \
             shown, and refused unless the site file has `staged: true`."
                .into(),
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
        let what = self.machine.as_a_whole();
        let longest = if self.machine.vm.is_some() { SHUTDOWN } else { Duration::ZERO };
        Outlook {
            changes,
            stays: Some("each reboot as it was: it cannot be taken back, and need not be".into()),
            ..Outlook::default()
        }
        .longest(longest)
        .stops_until(what, on::VERIFY)
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let Some(since) = seen.since else { return self.ahead(cx, &seen).await };
        let sight = match sight(&*self.machine.open(cx).await?, since).await {
            Err(failure) if !seen.got.is_empty() && is_another(&failure) => {
                return Ok(Check::blocked(vec![self.another()]));
            }
            other => other?,
        };
        Ok(match sight {
            Sight::Gone(id) => Check::done().note(format!("boot {id}; before it {}", since.boot.id)),
            Sight::Going => Check::waiting(format!("{} is going down", self.machine.name)),
            // Nothing is sent yet: what has to hold before must hold still.
            Sight::There if seen.got.is_empty() => return self.ahead(cx, &seen).await,
            Sight::There => Check::todo(self.changes(), since.clone()),
            Sight::Silent(why) => match self.off(cx).await? {
                Some(off) => Check::todo(vec![Change::act(format!("{off} starts"))], since.clone()),
                None if seen.got.is_empty() => Check::waiting(why.to_string()),
                None => Check::waiting(format!("{why}; what it boots, says its console")),
            },
        })
    }

    async fn apply(&self, cx: &Estate, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let Some(since) = seen.since else { return Ok(()) };
        let known = serde_json::to_vec(since).map_err(|e| Failure::plain(format!("{BOOT}: {e}"), None))?;
        permit.file(BOOT, &known)?;
        let permit = &permit.in_boot(&since.boot.id);
        let talos = self.machine.open(cx).await?;
        match &self.machine.vm {
            Some(vm) => self.cycle_vm(cx, (&talos, vm), (&seen, since), permit).await,
            None => match sight(&talos, since).await? {
                Sight::There => {
                    self.gate(cx, &seen, permit).await?;
                    let actor = talos.reboot(permit, RebootMode::PowerCycle).await?;
                    begun(&talos, &actor).await
                }
                Sight::Silent(why) if seen.got.is_empty() => Err(self.untold(&why, "reboot")),
                Sight::Going | Sight::Gone(_) | Sight::Silent(_) => Ok(()),
            },
        }
    }

    async fn back(&self, cx: &Estate, before: &Before, seen: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        if let (Some(vm), Some(_)) = (&self.machine.vm, before.pid) {
            let (pve, at, status) = vm.status(cx).await?;
            if !status.is_running() {
                return start_again(&pve, &at, seen.got).await;
            }
        }
        let falling = self.falling(cx, before, &seen).await?;
        Ok(falling.unwrap_or_else(|| {
            Check::done()
                .stays([format!("the reboot of {}: it cannot be taken back, and need not be", self.machine.name)])
        }))
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
    /// Before anything was sent: what would be, unless etcd, what runs on it, another's VM, or a lock is in the way.
    async fn ahead(&self, cx: &Estate, seen: &Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let etcd = async { judge(&self.machine.name, &look(cx, &self.machine.cluster, &self.peers).await) };
        let (verdict, pods, own, at_boot) =
            futures::join!(etcd, drained::look(cx, &self.machine, seen.run), self.own(cx), self.at_boot(cx));
        let (mut problems, mut unasked) = (verdict.problems, Vec::new());
        let mut comes = None;
        match at_boot {
            Ok(Ok(note)) => comes = note,
            Ok(Err((problem, note))) => {
                problems.push(problem);
                comes = note;
            }
            Err(failure) => unasked.push(failure),
        }
        let pods = pods.map_err(|failure| unasked.push(failure)).unwrap_or_default();
        let own = own.map_err(|failure| unasked.push(failure)).unwrap_or_default();
        problems.extend(pods.problems);
        problems.extend(own.iter().flat_map(|own| own.problems.clone()));
        if !problems.is_empty() {
            return Ok(Check::blocked(problems).notes(unasked.iter().map(ToString::to_string)).notes(comes));
        }
        if let Some(failure) = unasked.into_iter().next() {
            return Err(failure);
        }
        if let Some((own, lock)) = own.as_ref().and_then(|own| Some((own, own.status.lock.as_ref()?))) {
            return locked(&own.pve, &own.at, lock).await;
        }
        if !pods.going.is_empty() {
            return Ok(Check::waiting(format!("still on {}: {}", self.machine.node.name, pods.going.join(", "))));
        }
        let before = match seen.since {
            Some(since) => since.clone(),
            None => {
                let pid = own.as_ref().and_then(|own| own.status.pid);
                Before { boot: self.machine.boot(cx).await?, pid }
            }
        };
        // A new process takes up what waits in the VM's config, whoever wrote it there.
        let mut changes = self.changes();
        if let Some(own) = &own {
            let change = |(key, now, then): (String, Option<String>, Option<String>)| Change {
                from: now.or_else(|| Some("not set".to_owned())),
                ..Change::set(
                    format!("vm {} {key}, which waits in its config", own.at.vmid),
                    "",
                    then.unwrap_or_else(|| "not set".to_owned()),
                )
            };
            changes.extend(own.config.waiting().into_iter().map(change));
        }
        Ok(Check::todo(changes, before).notes(comes))
    }

    fn changes(&self) -> Vec<Change> {
        let name = &self.machine.name;
        vec![match &self.machine.vm {
            Some(vm) => Change::act(format!("{name} shuts down, and vm {} starts", vm.vmid)),
            None => Change::act(format!("{name} reboots through its firmware")),
        }]
    }

    /// What of the machine configuration comes into effect with the boot, if that is wanted; else why not, and what it is.
    async fn at_boot(&self, cx: &Estate) -> Result<AtBoot, Failure> {
        let configs = configs(&self.machine, &*self.machine.open(cx).await?).await?;
        Ok(configs
            .with_a_boot(&self.machine, Some(self.staged))
            .map_err(|problem| (problem, configs.staged(&self.machine))))
    }

    /// The VM, and whether it is the node's own; None: a machine of its own.
    async fn own(&self, cx: &Estate) -> Result<Option<Own>, Failure> {
        let Some(vm) = &self.machine.vm else { return Ok(None) };
        let talos = self.machine.open(cx).await?;
        let node = async { Ok(own_vm::of_node(&talos).await?) };
        let vm_side = vm.state_and_config(cx);
        let (node, (pve, at, (status, config))) = futures::try_join!(node, vm_side)?;
        let uuid = own_vm::of_vm(&config);
        let problems = own_vm::amiss(&self.machine, vm.vmid, status.is_running(), uuid.as_deref(), node.as_deref());
        Ok(Some(Own { pve, at, status, config, problems }))
    }

    /// The last questions before the call that takes it down. Whether it is drained the check has just asked, unless an
    /// earlier call of this step was refused.
    async fn gate(&self, cx: &Estate, seen: &Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let own = self.own(cx).await?;
        let mut problems = own.as_ref().map(|own| own.problems.clone()).unwrap_or_default();
        // Off, it could not be started again.
        let lock = own.as_ref().and_then(|own| Some((own.at.vmid, own.status.lock.as_ref()?)));
        problems.extend(lock.map(|(vmid, lock)| {
            let help = "wait until it is let go of; `pvemig resume` asks again";
            Problem::new(format!("vm {vmid} is locked ({lock}), and could not be started again"), help)
        }));
        problems.extend(self.at_boot(cx).await?.err().map(|(problem, _)| problem));
        if !seen.got.is_empty() {
            problems.extend(drained::look(cx, &self.machine, seen.run).await?.problems);
        }
        refuse(&self.machine.name, problems)?;
        quorum::pass(cx, &self.machine.cluster, &self.machine.name, &self.peers, permit).await
    }

    /// It went down as ours, and came up as somebody else.
    fn another(&self) -> Problem {
        let name = &self.machine.name;
        Problem::new(
            format!(
                "{name} shows a certificate that is not this cluster's: it is in maintenance mode, or has booted another \
                 installation"
            ),
            format!(
                "see the boot order of its firmware, and what else is plugged in: `talosctl get disks --insecure -n {name}`"
            ),
        )
    }

    /// A node that does not answer, and was not told anything either.
    fn untold(&self, why: &Failure, what: &str) -> Failure {
        let name = &self.machine.name;
        let help = match &self.machine.vm {
            Some(vm) => format!("see the console of vm {}; `pvemig resume` goes on once {name} answers", vm.vmid),
            None => format!("see its console; `pvemig resume` goes on once {name} answers"),
        };
        Failure::plain(format!("{name} does not answer, and was not told to {what}: {why}"), Some(help))
    }

    /// Why it may still go off by what this step sent, so that it is not let go of yet. How it is otherwise does not
    /// matter here: a VM with another process has been started, and a machine that is down comes up by itself.
    async fn falling(
        &self,
        cx: &Estate,
        before: &Before,
        seen: &Seen<'_, Before>,
    ) -> Result<Option<Check<()>>, Failure> {
        let mut old = None;
        if let Some(vm) = &self.machine.vm {
            let (_, _, status) = vm.status(cx).await?;
            if status.pid != before.pid {
                return Ok(None);
            }
            old = Some((vm.vmid, status));
        }
        let talos = self.machine.open(cx).await?;
        Ok(match goes_down(&talos).await {
            Ok(true) => Some(Check::waiting(format!("{} is going down", self.machine.name))),
            Ok(false) => None,
            Err(error) if error.is_down() => {
                // What was sent without an answer leaves nothing here; but nothing is sent before this is written.
                let key = StepKey::new(Self::ID, Some(&self.machine.name));
                let told = !seen.got.is_empty() || !matches!(seen.run.file(&key, BOOT), Ok(None));
                old.map(|(vmid, status)| deaf(&self.machine, vmid, &status, told, &error.into()))
            }
            Err(error) => return Err(error.into()),
        })
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
        (talos, vm): (&Talos, &Vm),
        (seen, since): (&Seen<'_, Before>, &Before),
        permit: &Permit,
    ) -> Result<(), Failure> {
        let (pve, at, status) = vm.status(cx).await?;
        // Another process: it has been started since.
        if status.is_running() && status.pid != since.pid {
            return Ok(());
        }
        let stands = sight(talos, since).await?;
        if !status.is_running() {
            return match stands {
                // It answers, so it runs elsewhere.
                Sight::There => refuse(&self.machine.name, vec![own_vm::off(&self.machine.name, vm.vmid)]),
                Sight::Gone(_) => Ok(()),
                Sight::Going | Sight::Silent(_) => start(&pve, &at, permit).await,
            };
        }
        let told = match stands {
            Sight::Gone(_) => return Ok(()),
            Sight::Silent(why) if seen.got.is_empty() => return Err(self.untold(&why, "shut down")),
            Sight::Silent(_) => true,
            Sight::Going => !seen.got.is_empty(),
            Sight::There => {
                self.gate(cx, seen, permit).await?;
                if status.is_ha_managed() {
                    // High availability would put a stopped VM back up at once: the cycle is one request to it.
                    let upid = pve.reboot(&at, SHUTDOWN, permit).await?;
                    return finish(&pve, &upid, SHUTDOWN + Duration::from_secs(30), permit).await;
                }
                // It is drained; Talos need not do it again.
                let actor = talos.shutdown(permit, true).await?;
                begun(talos, &actor).await?;
                true
            }
        };
        // By the estate's own clock, as a machine of the lab goes off at the lab's speed.
        let patience = cx.clock().scaled(SHUTDOWN).max(QUICKEST);
        let began = cx.clock().instant();
        let mut pauses = Backoff::poll(cx.clock());
        loop {
            let now = pve.status(&at).await?;
            if !now.is_running() {
                return start(&pve, &at, permit).await;
            }
            if now.pid != since.pid {
                return Ok(());
            }
            if began.elapsed() > patience {
                return Err(not_off(&self.machine.name, vm.vmid, told));
            }
            permit.go_on()?;
            pauses.pause().await;
        }
    }
}

/// A note of what comes into effect with a boot, or why it must not, with that note.
type AtBoot = Result<Option<String>, (Problem, Option<String>)>;

/// Whether the certificate is of another authority than the cluster's.
fn is_another(failure: &Failure) -> bool {
    failure.downcast_ref::<Error>().is_some_and(|error| matches!(error, Error::UnknownIssuer { .. }))
}

/// A VM that stays on. Only one that this step told to go off is stopped by hand.
fn not_off(name: &str, vmid: u32, told: bool) -> Failure {
    let (limit, on) = (show(SHUTDOWN), "see its console; `pvemig resume` goes on once it is off");
    if told {
        let text = format!("vm {vmid} is not off {limit} after Talos was told to shut down");
        return Failure::plain(text, Some(format!("{on}, or `qm stop {vmid}`")));
    }
    let text = format!("{name} goes down, by whom is not known, and vm {vmid} is not off after {limit}");
    Failure::plain(text, Some(on.to_owned()))
}

/// The VM of a node, as it is.
struct Own {
    pve: Arc<Proxmox>,
    at: VmRef,
    status: VmStatus,
    config: Pending,
    /// Why it is not to be switched.
    problems: Vec<Problem>,
}

fn refuse(name: &str, problems: Vec<Problem>) -> Result<(), Failure> {
    let Some(help) = problems.first().map(|problem| problem.help.clone()) else { return Ok(()) };
    let texts: Vec<String> = problems.into_iter().map(|problem| problem.text).collect();
    Err(Failure::plain(format!("{name} must not go down now: {}", texts.join("; ")), Some(help)))
}
