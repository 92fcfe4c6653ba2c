//! 03: why the machine must not go off, everything at once.

use jiff::SignedDuration;

use crate::base::check::Problem;
use crate::base::fault::Failure;
use crate::blueprint::configs::configs;
use crate::blueprint::drained;
use crate::blueprint::machine::Machine;
use crate::blueprint::off::{Second, second};
use crate::blueprint::own_vm;
use crate::blueprint::quorum::{Etcd, amiss, judge, look, votes};
use crate::engine::step::{RunInfo, Seen};
use crate::estate::Estate;
use crate::talos::Talos;

use super::on;
use super::remembered::seen_last;
use super::replicas;
use super::s01_backup::{has_snapshot, snapshot_at};
use super::s02a_leave_etcd::gone;
use super::s03_of_a_vm::of_ha;
use super::s03_shutdown::{Before, ShutDown};

/// After this long the snapshot of the only voter is no way back any more.
const STALE: SignedDuration = SignedDuration::from_hours(24);

impl ShutDown {
    /// Why it must not go off: everything at once.
    pub(super) async fn in_the_way(
        &self,
        cx: &Estate,
        talos: &Talos,
        seen: &Seen<'_, Before>,
    ) -> Result<Vec<Problem>, Failure> {
        let machine = &self.machine;
        let mut problems = drained::look(cx, machine, seen.run).await?.problems;
        problems.extend(self.of_etcd(cx, seen).await?);
        // A boot takes what is on its disk into effect.
        problems.extend(configs(machine, talos).await?.with_a_boot(machine, None).err());
        if let Some(vm) = &machine.vm {
            let (_, _, (status, config)) = vm.state_and_config(cx).await?;
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
    pub(super) async fn of_mayastor(&self, cx: &Estate) -> Result<Vec<Problem>, Failure> {
        let Some(mayastor) = replicas::ask(cx, &self.machine).await? else { return Ok(Vec::new()) };
        let volumes = mayastor.volumes.map_err(|why| Failure::plain(why.text, why.help))?;
        let amiss = replicas::amiss(&self.machine.node.name, &volumes);
        Ok(amiss.into_iter().map(|(_, problem)| problem).collect())
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
            // One that was booted since it left, by whomever, leaves once more: what 02a has asked for stands.
            if seen.since.is_none() && !has_snapshot(run)? {
                let text = format!("{name} has a member of etcd, and its system disk is about to go");
                let help = format!("it leaves first, and joins again at each boot: `pvemig step {}`", on::LEAVE);
                return Ok(vec![Problem::new(text, help).mended_by(on::LEAVE)]);
            }
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
            && let at = snapshot_at(run)?
            && at.is_none_or(|at| cx.clock().now().duration_since(at) > STALE)
        {
            let at = at.map_or_else(|| "a time that is not known".to_owned(), |at| format!("{at:.0}"));
            let text = format!(
                "{name} is the only voter of etcd, and the snapshot of this run is of {at}: what came since is not in it"
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
