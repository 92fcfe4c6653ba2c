//! 03: the machine is off, and two ways show it, until its drives are where they belong.

use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::base::check::{Change, Check, Hands, Problem};
use crate::base::drives::Plan;
use crate::base::fault::Failure;
use crate::base::permit::{Permit, System, Thing};
use crate::blueprint::backup::kept;
use crate::blueprint::configs::configs;
use crate::blueprint::drained;
use crate::blueprint::machine::Machine;
use crate::blueprint::off::{Off, Second, second, two_ways};
use crate::blueprint::own_vm;
use crate::blueprint::power::{SHUTDOWN, shutdown, start, start_again, write_config};
use crate::blueprint::quorum::{Etcd, Peer, amiss, judge, look, votes};
use crate::blueprint::vm::Vm;
use crate::engine::step::{Outlook, Risk, RunInfo, Seen, Step};
use crate::estate::Estate;
use crate::proxmox::ConfigChange;
use crate::talos::Talos;

use super::anew::Anew;
use super::behind::{self, PASSED};
use super::on;
use super::remembered::{
    PEERS, answering, ended_boot, layout_file, layouts, off_file, on_file, seen_last, times, went_off,
};
use super::replicas;
use super::s01_backup::{has_snapshot, snapshot_at};
use super::s02a_leave_etcd::gone;
use super::sight::layout_now;
use super::way_out::GRACE;

/// After this long the snapshot of the only voter is no way back any more.
const STALE: SignedDuration = SignedDuration::from_hours(24);

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
        self.let_go(cx, &talos, &etcd, seen.run, permit).await?;
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
        let (pve, at, config) = vm.config(cx).await?;
        if config.configured("onboot") == Some("1") {
            // Its host would start it with the drive at the old address.
            write_config(&pve, &at, &onboot(false, &config.digest), permit).await?;
        }
        let count = times(seen.run)?;
        permit.file(&on_file(count), boot.as_bytes())?;
        shutdown(&pve, &at, permit).await?;
        permit.file(&off_file(count), boot.as_bytes())?;
        Ok(())
    }

    async fn back(&self, cx: &Estate, before: &Before, seen: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        let name = &self.machine.name;
        if let Some(vm) = &self.machine.vm {
            let (pve, at, (status, config)) =
                vm.there(cx, async |pve, at| Ok(futures::try_join!(pve.status(at), pve.pending(at))?)).await?;
            if !status.is_running() {
                let problems = behind::in_the_way_of_a_start(cx, &self.machine, &self.plan, seen.run).await?;
                if !problems.is_empty() {
                    return Ok(Check::blocked(problems));
                }
            }
            if before.onboot && config.configured("onboot") != Some("1") {
                return Ok(Check::todo(vec![Change::set(format!("vm {} onboot", vm.vmid), "0", "1")], ()));
            }
            return if status.is_running() { Ok(Check::done()) } else { start_again(&pve, &at, seen.got).await };
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
        let Some(vm) = &self.machine.vm else { return Ok(()) };
        let (pve, at, (status, config)) =
            vm.there(cx, async |pve, at| Ok(futures::try_join!(pve.status(at), pve.pending(at))?)).await?;
        if !status.is_running() {
            // Neither by this step nor by its host.
            let problems = behind::in_the_way_of_a_start(cx, &self.machine, &self.plan, seen.run).await?;
            if !problems.is_empty() {
                return Err(Failure::barred(problems));
            }
        }
        if before.onboot && config.configured("onboot") != Some("1") {
            write_config(&pve, &at, &onboot(true, &config.digest), permit).await?;
        }
        if status.is_running() || start_again(&pve, &at, seen.got).await?.is_done() {
            return Ok(());
        }
        start(&pve, &at, permit).await
    }
}

/// Its host is about to be switched off and on, and must not start it.
async fn not_with_its_host(cx: &Estate, vm: &Vm, permit: &Permit) -> Result<(), Failure> {
    let (pve, at, (status, config)) =
        vm.there(cx, async |pve, at| Ok(futures::try_join!(pve.status(at), pve.pending(at))?)).await?;
    if !status.is_running() && config.configured("onboot") == Some("1") {
        write_config(&pve, &at, &onboot(false, &config.digest), permit).await?;
    }
    Ok(())
}

fn of_ha(vmid: u32) -> Problem {
    let text = format!("vm {vmid} is managed by high availability, which would start it again");
    Problem::new(text, format!("`ha-manager remove vm:{vmid}` first"))
}

fn onboot(on: bool, digest: &str) -> ConfigChange {
    let value = if on { "1" } else { "0" };
    ConfigChange {
        set: vec![("onboot".into(), value.into())],
        digest: Some(digest.to_owned()),
        ..ConfigChange::default()
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

    /// A VM that this run was to switch off, and its host is silent. Where the run has seen it go off, somebody is at its
    /// drives, as he was asked to be; else the host has to answer first. None: it is none, or its host answers.
    async fn with_its_host(&self, cx: &Estate, seen: &Seen<'_, Before>) -> Result<Option<Check<Before>>, Failure> {
        let (Some(vm), Some(_), Some(passed)) = (&self.machine.vm, seen.since, behind::passed(seen.run)?) else {
            return Ok(None);
        };
        let (name, host) = (&self.machine.name, &passed.host);
        let behind::Host::Silent(why) = behind::view(cx, &vm.cluster, host).await? else { return Ok(None) };
        let error = match self.machine.open(cx).await?.version().await {
            Err(error @ (crate::talos::Error::Unreachable { .. } | crate::talos::Error::NoAnswer { .. })) => error,
            Ok(_) | Err(_) => return Ok(None),
        };
        if went_off(seen.run)? {
            let how = format!("{name} does not answer ({error}), nor does its host {host}: {why}");
            return Ok(Some(Check::done().note(how)));
        }
        Ok(Some(Check::waiting(format!(
            "whether vm {} went off is not known: {host} does not answer ({why}), and this run has not seen it off; let {host} answer \
             first",
            vm.vmid
        ))))
    }

    /// It is off. A VM has to stay so while its host is switched off and on, and it has to be known which line had which drive.
    async fn stays_off(&self, cx: &Estate, seen: &Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let Some(vm) = &self.machine.vm else { return Ok(Check::done()) };
        let (vmid, passed) = (vm.vmid, behind::passed(seen.run)?);
        let (Some(since), Some(_)) = (seen.since, passed) else {
            return Ok(Check::blocked(vec![Problem::new(
                format!(
                    "vm {vmid} is off, and this run has not seen it on: which of its hostpci lines has which drive is not known"
                ),
                format!(
                    "`qm start {vmid}` with its drives where they were, then `pvemig resume`; where they were moved already: {}",
                    behind::mend(vmid)
                ),
            )]));
        };
        let (_, _, (status, config)) =
            vm.there(cx, async |pve, at| Ok(futures::try_join!(pve.status(at), pve.pending(at))?)).await?;
        if status.is_ha_managed() {
            return Ok(Check::blocked(vec![of_ha(vmid)]));
        }
        if config.configured("onboot") == Some("1") {
            return Ok(Check::todo(vec![Change::set(format!("vm {vmid} onboot"), "1", "0")], since.clone()));
        }
        Ok(Check::done())
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
                    let (_, _, (status, config)) =
                        vm.there(cx, async |pve, at| Ok(futures::try_join!(pve.status(at), pve.pending(at))?)).await?;
                    (pid, starts) = (status.pid, config.configured("onboot") == Some("1"));
                }
                Before { boot: talos.this_boot().await?, pid, onboot: starts }
            }
        };
        Ok(Check::todo(vec![Change::set(format!("{name} until its drives are moved"), "on", "off")], before))
    }

    /// Why it must not go off: everything at once.
    async fn in_the_way(&self, cx: &Estate, talos: &Talos, seen: &Seen<'_, Before>) -> Result<Vec<Problem>, Failure> {
        let machine = &self.machine;
        let mut problems = drained::look(cx, machine, seen.run).await?.problems;
        problems.extend(self.of_etcd(cx, seen).await?);
        // A boot takes what is on its disk into effect.
        problems.extend(configs(machine, talos).await?.with_a_boot(machine, false).err());
        if let Some(vm) = &machine.vm {
            let (_, _, (status, config)) =
                vm.there(cx, async |pve, at| Ok(futures::try_join!(pve.status(at), pve.pending(at))?)).await?;
            let (its, own) = (own_vm::of_vm(&config), own_vm::of_node(talos).await?);
            problems.extend(own_vm::amiss(machine, vm.vmid, status.is_running(), its.as_deref(), own.as_deref()));
            if status.is_ha_managed() {
                problems.push(of_ha(vm.vmid));
            }
            return Ok(problems);
        }
        // It answers: what sees its power must say so too, else it will not tell when it is off.
        problems.extend(second_way(machine, second(cx, machine).await?, self.at_the_machine(cx)));
        Ok(problems)
    }

    /// What 00 has asked, once more: the drain may have taken hours.
    async fn of_mayastor(&self, cx: &Estate) -> Result<Vec<Problem>, Failure> {
        let Some(mayastor) = replicas::ask(cx, &self.machine).await? else { return Ok(Vec::new()) };
        let volumes = mayastor.volumes.map_err(|why| Failure::plain(why.text, why.help))?;
        let amiss = replicas::amiss(&self.machine.node.name, &volumes);
        Ok(amiss.into_iter().map(|(_, problem)| problem).collect())
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
        let text = format!(
            "{name} is silent, and this run has not switched it off: with its cable out it would be silent too"
        );
        let help = format!(
            "look at it: where it is off, `pvemig resume --destroy {word}` goes on; else put the cable in first"
        );
        Ok(Some(Problem::new(text, help)))
    }

    fn at_the_machine(&self, cx: &Estate) -> bool {
        let node = cx.site().talos_node(&self.machine.name).map(|(_, node)| node);
        matches!(node.and_then(|node| node.out_of_band.as_ref()), Some(crate::site::OutOfBand::AtTheMachine(_)))
    }

    /// What etcd has against it. A majority that is lost for as long as it is off may be borne; the data may not be lost.
    async fn of_etcd(&self, cx: &Estate, seen: &Seen<'_, Before>) -> Result<Vec<Problem>, Failure> {
        let (name, run) = (&self.machine.name, seen.run);
        let etcd = look(cx, &self.machine.cluster, &self.peers).await;
        let verdict = judge(name, &etcd);
        if verdict.worker {
            return Ok(Vec::new());
        }
        if self.anew.is_some() {
            if gone(&self.machine, &etcd).is_some() {
                return Ok(Vec::new());
            }
            if seen.since.is_none() {
                let text = format!("{name} has a member of etcd, and its system disk is about to go");
                let help = format!("it leaves first, and joins again at each boot: `pvemig step {}`", on::LEAVE);
                return Ok(vec![Problem::new(text, help).mended_by(on::LEAVE)]);
            }
            // One that was booted in between, for a drive in the wrong place or on the way back, leaves once more.
            return Ok(verdict.problems);
        }
        if seen.since.is_some() && self.is_idle(&etcd, run)? {
            return Ok(Vec::new());
        }
        let only = etcd.by_vote().0.len() == 1;
        if only && !has_snapshot(run)? {
            let text = format!("{name} is the only voter of etcd, and this run has no snapshot of it");
            return Ok(vec![
                Problem::new(text, "`pvemig run` takes one first; `pvemig etcd snapshot` takes one for another place")
                    .mended_by(on::BACKUP),
            ]);
        }
        if only
            && seen.since.is_none()
            && let Some(at) = snapshot_at(run)?.filter(|at| cx.clock().now().duration_since(*at) > STALE)
        {
            let text = format!(
                "{name} is the only voter of etcd, and the snapshot of this run is of {at:.0}: what came since is not in it"
            );
            return Ok(vec![Problem::new(
                text,
                "`pvemig undo` this run, and begin another one, which takes a new one",
            )]);
        }
        Ok(if self.without_api { verdict.without_majority() } else { verdict.problems })
    }

    /// This run had it off already, and its etcd has not come back: the others have gone on without it, and it is no loss to
    /// them that it goes off once more for a drive that is in the wrong place.
    pub(super) fn is_idle(&self, etcd: &Etcd, run: &RunInfo) -> Result<bool, Failure> {
        if seen_last(run)?.is_none() || amiss(&self.machine.name, etcd).is_none() {
            return Ok(false);
        }
        Ok(self.without_api || votes(etcd).is_some_and(|votes| votes.left().is_some()))
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

/// What is wrong with the second way, of a machine that answers.
fn second_way(machine: &Machine, second: Second, at_the_machine: bool) -> Option<Problem> {
    let name = &machine.name;
    let help = format!("correct `out_of_band` of {name} in the site file, and try its command by hand");
    match second {
        Second::On(_) => None,
        // Its kubelet is heard: that is what has to end.
        Second::Unknown(_) if at_the_machine => None,
        Second::Off(sign) if at_the_machine => {
            Some(Problem::new(format!("{name} answers, and {sign}"), "let it come up first: `kubectl get nodes`"))
        }
        Second::Off(sign) => {
            Some(Problem::new(format!("{name} answers, and {sign}: that is another machine's power"), help))
        }
        Second::Unknown(why) => {
            Some(Problem::new(format!("nothing would show that {name} is off but its silence: {why}"), help))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::names::Dial;
    use crate::blueprint::node::KubeNode;

    #[test]
    fn the_second_way_must_see_the_machine_that_answers() {
        let node = KubeNode { cluster: "k".into(), name: "n1".into() };
        let machine = Machine { cluster: "c".into(), name: "n1".into(), node, vm: None, dial: Dial::default() };
        let said = |second: Second, there: bool| second_way(&machine, second, there).map(|problem| problem.text);
        assert_eq!(said(Second::On("x".into()), false), None);
        assert_eq!(said(Second::Unknown("its kubelet was heard lately".into()), true), None);
        let cases = [
            (Second::Off("`ipmitool` says that it is off".into()), false, "that is another machine's power"),
            (Second::Off("its kubelet is silent".into()), true, "n1 answers, and its kubelet is silent"),
            (
                Second::Unknown("the site file has no `out_of_band` of n1".into()),
                false,
                "but its silence: the site file has",
            ),
        ];
        assert_eq!(cases.len(), 3);
        for (second, there, part) in cases {
            assert!(said(second, there).unwrap().contains(part), "{part}");
        }
    }
}
