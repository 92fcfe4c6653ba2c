//! 03: the machine is off, and two ways show it, until its drives are where they belong.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Change, Check, Hands, Problem};
use crate::base::drives::Plan;
use crate::base::fault::Failure;
use crate::base::permit::{Permit, System, Thing};
use crate::blueprint::backup::kept;
use crate::blueprint::drained;
use crate::blueprint::machine::Machine;
use crate::blueprint::off::{Off, two_ways};
use crate::blueprint::power::SHUTDOWN;
use crate::blueprint::quorum::{Peer, look};
use crate::engine::step::{Outlook, Risk, RunInfo, Seen, Step};
use crate::estate::Estate;
use crate::talos::Talos;

use super::anew::Anew;
use super::behind::{self, PASSED};
use super::on;
use super::remembered::{PEERS, answering, ended_boot, layout_file, layouts, off_file, on_file, times};
use super::s03_of_a_vm::{not_with_its_host, vm_off};
use super::sight::layout_now;
use super::way_out::GRACE;

/// Switches the machine off, and keeps it so until 05.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShutDown {
    /// The node.
    pub machine: Machine,
    /// All nodes of its cluster.
    pub peers: Vec<Peer>,
    /// What is to become of its drives.
    pub plan: Plan,
    /// The Kubernetes API may be away for as long as it is off.
    #[serde(default)]
    pub without_api: bool,
    /// What it is installed anew with, where its system disk is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anew: Option<Anew>,
}

/// It was on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// The boot that it was in.
    pub boot: String,
    /// The process of its VM.
    pub pid: Option<u32>,
    /// Its VM starts with its host.
    #[serde(default)]
    pub onboot: bool,
}

impl Step<Estate> for ShutDown {
    const ID: &'static str = "03-shutdown";
    const RISK: Risk = Risk::Reverts;
    const HOLDS_UNTIL: Option<&'static str> = Some(on::VERIFY);
    type Before = Before;

    fn title(&self) -> String {
        format!("{} is off, as two ways show", self.machine.as_a_whole())
    }

    fn why(&self) -> Vec<String> {
        let name = &self.machine.name;
        vec![
            "A drive that is pulled out of a machine that runs loses what was not written, and M.2 is not made for it.".into(),
            "Talos that does not answer may be a cable: off is it where what sees its power says so too. Of a VM that is Proxmox, of a \
             machine the command of `out_of_band` in the site file, which is run each time, or its kubelet, where somebody stands \
             before it (`at_the_machine`)."
                .into(),
            "Right before the call etcd is asked for its majority, and its leadership handed over; where the node is the only voter, \
             nothing is switched off without a snapshot of this run."
                .into(),
            "Votes are those of `talosctl etcd members`: `talosctl get members` is what discovery knows, workers with them, and says nothing \
             of votes."
                .into(),
            "A VM must not come up with its host while its drives are elsewhere: `onboot` is taken away until 05 knows them again."
                .into(),
            "Where 04 finds a drive in the wrong place, `pvemig resume` switches the machine off again.".into(),
            format!("By hand: {}.", self.machine.talosctl("shutdown --force")),
            format!("An undo has {name} switched on: a VM by itself, a machine by its power button."),
        ]
    }

    /// The shutdown; on the way back, firmware and boot.
    fn limit(&self) -> Duration {
        Duration::from_secs(600)
    }

    fn outlook(&self, cx: &Estate) -> Outlook {
        let longest = if self.machine.vm.is_some() { SHUTDOWN } else { Duration::ZERO };
        let mut changes = vec![(System::Talos, format!("{} goes off", self.machine.name))];
        if let Some(vm) = &self.machine.vm {
            changes = vec![(System::Proxmox, format!("vm {}", vm.vmid))];
        }
        let words = if self.at_the_machine(cx) { vec![Thing::off(&self.machine.name)] } else { Vec::new() };
        let outlook =
            Outlook { changes, words, ..Outlook::default() }.longest(longest).stops(self.machine.as_a_whole());
        if self.machine.vm.is_some() { outlook } else { outlook.asks_back(self.button()) }
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let name = &self.machine.name;
        if let Some(check) = self.with_its_host(cx, &seen).await? {
            return Ok(check);
        }
        let ways = two_ways(cx, &self.machine).await?;
        if !matches!(ways, Off::On(..) | Off::Between(_))
            && let Some(waits) = self.waits(cx).await?
        {
            return self.by_hand(cx, &waits, &seen).await;
        }
        Ok(match ways {
            Off::Off(how) => match self.only_silent(cx, &seen).await? {
                Some(problem) => Check::blocked(vec![problem]),
                None => self.stays_off(cx, &seen).await?.note(format!("{name} is off: {how}")),
            },
            Off::On(talos, _) => self.ahead(cx, &talos, &seen).await?,
            Off::Between(why) | Off::Silent(why) => Check::waiting(format!("{name}: {why}")),
            Off::Deaf(why) => Check::waiting(format!("{name} is not off: {why}"))
                .late(GRACE, format!("if it stays in its firmware or its boot, {}", self.by_force())),
            Off::Other(why) => Check::blocked(vec![Problem::new(
                format!("{name} runs, and not as a node of {}: {why}", self.machine.cluster),
                format!("switch it off by hand; `pvemig resume` asks {name} again"),
            )]),
        })
    }

    async fn apply(&self, cx: &Estate, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let Off::On(talos, _) = two_ways(cx, &self.machine).await? else {
            if let Some(vm) = &self.machine.vm {
                return not_with_its_host(cx, vm, permit).await;
            }
            // It is switched off by hand; where its drives are cannot be asked any more then.
            return match self.waits(cx).await? {
                Some(waits) => self.remember(cx, seen.run, Some(&waits), permit).await,
                None => Ok(()),
            };
        };
        let problems = self.in_the_way(cx, &talos, &seen).await?;
        if !problems.is_empty() {
            return Err(Failure::barred(problems));
        }
        self.remember(cx, seen.run, None, permit).await?;
        let boot = talos.this_boot().await?;
        let etcd = look(cx, &self.machine.cluster, &self.peers).await;
        self.let_go(cx, (&talos, &boot), &etcd, seen.run, permit).await?;
        let permit = &permit.in_boot(&boot);
        let Some(vm) = &self.machine.vm else {
            // It is drained; Talos need not do it again.
            let count = times(seen.run)?;
            let alone = self.at_the_machine(cx);
            if alone {
                permit.file(&on_file(count), boot.as_bytes())?;
            }
            talos.shutdown_for_good(permit).await?;
            if alone {
                permit.file(&off_file(count), boot.as_bytes())?;
            }
            return Ok(());
        };
        vm_off(cx, vm, (&boot, times(seen.run)?), permit).await
    }

    async fn back(&self, cx: &Estate, before: &Before, seen: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        let name = &self.machine.name;
        if let Some(vm) = &self.machine.vm {
            return self.vm_back(cx, vm, before, &seen).await;
        }
        Ok(match two_ways(cx, &self.machine).await? {
            Off::On(..) => Check::done(),
            Off::Between(why) | Off::Deaf(why) => Check::waiting(format!("{name}: {why}")),
            Off::Silent(why) => {
                Check::waiting(format!("{name}: {why}")).late(GRACE, format!("where it is off, {}", self.button()))
            }
            Off::Other(why) => Check::blocked(vec![Problem::new(
                format!("{name} runs, and not as a node of {}: {why}", self.machine.cluster),
                "see its screen, and the boot order of its firmware; `pvemig undo` asks it again",
            )]),
            Off::Off(_) => {
                let hands = Hands::Drives { node: name.clone(), moves: Vec::new(), medium: None, on: true };
                Check::manual(self.button(), None, Some(hands))
            }
        })
    }

    async fn undo(&self, cx: &Estate, before: &Before, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        match &self.machine.vm {
            Some(vm) => self.vm_on(cx, vm, before, &seen, permit).await,
            None => Ok(()),
        }
    }
}

impl ShutDown {
    /// What a person does where it does not go off by itself.
    fn by_force(&self) -> String {
        match &self.machine.vm {
            Some(vm) => format!("look at its console, and `qm stop {}`", vm.vmid),
            None => "hold its power button until it is off".into(),
        }
    }

    fn button(&self) -> String {
        format!("press the power button of {}", self.machine.name)
    }

    /// It is on: what would be, unless something is in the way.
    async fn ahead(&self, cx: &Estate, talos: &Talos, seen: &Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let name = &self.machine.name;
        let problems = self.in_the_way(cx, talos, seen).await?;
        if !problems.is_empty() {
            return Ok(Check::blocked(problems));
        }
        // Nothing of it was switched off by this run yet: afterwards its replicas here are known to be away.
        if seen.since.is_none() {
            let problems = self.of_mayastor(cx).await?;
            if !problems.is_empty() {
                return Ok(Check::blocked(problems));
            }
        }
        let pods = drained::look(cx, &self.machine, seen.run).await?;
        if !pods.going.is_empty() {
            return Ok(Check::waiting(format!("still on {}: {}", self.machine.node.name, pods.going.join(", "))));
        }
        let before = match seen.since {
            Some(since) => since.clone(),
            None => {
                let (mut pid, mut starts) = (None, false);
                if let Some(vm) = &self.machine.vm {
                    let (_, _, (status, config)) = vm.state_and_config(cx).await?;
                    (pid, starts) = (status.pid, config.configured("onboot") == Some("1"));
                }
                Before { boot: talos.this_boot().await?, pid, onboot: starts }
            }
        };
        Ok(Check::todo(vec![Change::set(format!("{name} until its drives are moved"), "on", "off")], before))
    }

    /// Talos and the kubelet are heard over one cable: silence of both shows that it is off only where it is that of the very
    /// boot that this run has ended, or a person has looked.
    async fn only_silent(&self, cx: &Estate, seen: &Seen<'_, Before>) -> Result<Option<Problem>, Failure> {
        let name = &self.machine.name;
        let word = Thing::off(name);
        if !self.at_the_machine(cx) || seen.run.consents.contains(&word) {
            return Ok(None);
        }
        // A kubelet tells its boot as soon as it is up.
        if let (Some(ended), Ok(node)) = (ended_boot(seen.run)?, self.machine.node.find(cx).await?)
            && ended == node.boot_id
        {
            return Ok(None);
        }
        let told = if times(seen.run)? > 0 && ended_boot(seen.run)?.is_none() {
            "whether this run has switched it off is not known, as it was cut there"
        } else {
            "this run has not switched it off"
        };
        let text = format!("{name} is silent, and {told}: with its cable out it would be silent too");
        let help = format!(
            "look at it: where it is off, `pvemig resume --destroy {word}` goes on; else put the cable in first"
        );
        Ok(Some(Problem::new(text, help)))
    }

    pub(super) fn at_the_machine(&self, cx: &Estate) -> bool {
        let node = cx.site().talos_node(&self.machine.name).map(|(_, node)| node);
        matches!(node.and_then(|node| node.out_of_band.as_ref()), Some(crate::site::OutOfBand::AtTheMachine(_)))
    }

    /// Where the drives are, and who else is up, for who is asked what to do and cannot ask the machine any more.
    async fn remember(
        &self,
        cx: &Estate,
        run: &RunInfo,
        waits: Option<&Talos>,
        permit: &Permit,
    ) -> Result<(), Failure> {
        let (count, last) = layouts(run)?;
        let now = layout_now(cx, &self.machine, &self.plan, run, waits).await?;
        let json = |name: &str, value: Result<Vec<u8>, serde_json::Error>| {
            value.map_err(|error| Failure::plain(format!("{name}: {error}"), None))
        };
        if last.as_ref() != Some(&now) {
            let name = layout_file(count);
            permit.file(&name, &json(&name, serde_json::to_vec(&now))?)?;
        }
        if let Some(vm) = &self.machine.vm
            && kept(run, Self::ID, PASSED, PASSED)?.is_none()
        {
            let passed = behind::passed_now(cx, &self.machine, vm, &self.plan).await?;
            permit.file(PASSED, &json(PASSED, serde_json::to_vec(&passed))?)?;
        }
        if kept(run, Self::ID, PEERS, PEERS)?.is_none() {
            let names: Vec<String> = self.peers.iter().map(|peer| peer.name.clone()).collect();
            let mut up = answering(cx, &names, &self.machine.name).await?;
            if let Some(vm) = &self.machine.vm {
                // What is on the same host goes off with it.
                let with_it = behind::neighbours(cx, vm).await?;
                up.retain(|peer| !with_it.iter().any(|other| other == peer));
            }
            permit.file(PEERS, &json(PEERS, serde_json::to_vec(&up))?)?;
        }
        Ok(())
    }
}
