//! 04: the old machine is off, and that is shown.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Change, Check, Problem};
use crate::base::fault::Failure;
use crate::base::permit::{Permit, System};
use crate::blueprint::quorum::look;
use crate::engine::step::{Outlook, Risk, Seen, Step};
use crate::estate::Estate;

use super::on;
use super::s03_leave_or_remove::off_or_on;
use super::sight::{Life, life};
use super::swap::Swap;

/// Switches the old machine off.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShutDown {
    /// What goes and what comes.
    pub swap: Swap,
}

/// It was on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {}

impl Step<Estate> for ShutDown {
    const ID: &'static str = "04-shutdown";
    const RISK: Risk = Risk::Reverts;
    type Before = Before;

    fn title(&self) -> String {
        format!("{} is off", self.swap.goer())
    }

    fn why(&self) -> Vec<String> {
        vec![
            "As long as it runs, what runs on it runs beside its successors: its Node object is not deleted before it is off.".into(),
            "That it is off is shown by two ways: Talos does not answer, and its kubelet is silent for longer than Kubernetes bears (40 \
             seconds); of a VM Proxmox says it too. What only does not answer may be cut off, and run on."
                .into(),
            "It must stay off: with its old disk it would come back as a member and a node of the cluster at its next boot. Wipe \
             that disk before it is started again: from a Talos stick, with `talosctl reset`, or in another machine."
                .into(),
            format!("By hand: {}.", self.swap.old.talosctl("shutdown --force")),
            "An undo does not start it: its power button does.".into(),
        ]
    }

    /// The shutdown, and the time until Kubernetes calls the kubelet silent.
    fn limit(&self) -> Duration {
        Duration::from_secs(600)
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        Outlook {
            stays: Some(format!("{} as it is by then: who switched it off switches it on", self.swap.goer())),
            ..Outlook::changes(System::Talos, [format!("{} goes off", self.swap.goer())])
        }
        .stops_until(self.swap.old.as_a_whole(), on::JOIN)
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let name = self.swap.goer();
        let begun = seen.since.is_some();
        Ok(match life(cx, &self.swap).await? {
            Life::Replaced => Check::not_needed(format!("{} is in its place", self.swap.comer())),
            Life::Waits => Check::done().note(format!(
                "what answers at the address of {name} waits for a configuration: nothing of its installation runs"
            )),
            Life::Off(how) => Check::done().note(format!("{name} is off: {how}")).note(format!(
                "it must stay off: wipe its disk before it is started again, else it comes back as a node of {}",
                self.swap.old.cluster
            )),
            Life::Going => Check::waiting(format!("{name} is going down")),
            Life::Unknown(why) if begun => Check::waiting(format!("{name} goes off: {why}")),
            Life::Unknown(why) => Check::blocked(vec![Problem::new(
                format!("whether {name} is off is not known: {why}"),
                off_or_on(&self.swap),
            )]),
            Life::Alive(_) => {
                let problems = self.in_the_way(cx).await?;
                if !problems.is_empty() {
                    return Ok(Check::blocked(problems));
                }
                Check::todo(vec![Change::act(format!("{name} shuts down, and stays off"))], Before {})
            }
        })
    }

    async fn apply(&self, cx: &Estate, _: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let Life::Alive(talos) = life(cx, &self.swap).await? else { return Ok(()) };
        if let Some(problem) = self.in_the_way(cx).await?.into_iter().next() {
            return Err(Failure::plain(problem.text, Some(problem.help)));
        }
        // It is drained; Talos need not do it again, and its own API server is gone with its etcd.
        talos.shutdown_for_good(permit).await?;
        Ok(())
    }

    async fn back(&self, cx: &Estate, _: &Before, _: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        let name = self.swap.goer();
        Ok(match life(cx, &self.swap).await? {
            Life::Alive(_) => Check::done(),
            Life::Going => Check::waiting(format!("{name} is going down")),
            _ => Check::done().stays([match &self.swap.old.vm {
                Some(vm) => format!("{name} stays off: `qm start {}` starts it", vm.vmid),
                None => format!("{name} stays off: its power button starts it"),
            }]),
        })
    }

    fn takes_down(&self, _: &Before) -> Option<String> {
        Some(self.swap.old.as_a_whole())
    }
}

/// A VM that does not stay off.
pub(super) fn managed(vmid: u32) -> Problem {
    let text = format!("vm {vmid} is managed by high availability, which would start it again");
    Problem::new(text, format!("`ha-manager remove vm:{vmid}` first"))
}

impl ShutDown {
    /// What has to be so before it may go: no vote in etcd, and no pods that could run elsewhere.
    async fn in_the_way(&self, cx: &Estate) -> Result<Vec<Problem>, Failure> {
        let host = self.swap.host();
        let (etcd, node) =
            futures::join!(look(cx, &self.swap.old.cluster, &self.swap.peers), self.swap.old.node.find(cx));
        let mut problems = Vec::new();
        if etcd.members().iter().any(|name| name == host) {
            let text = format!("{host} is a member of etcd: switched off, it counts as a voter that does not answer");
            problems.push(Problem::new(text, "let it leave first").mended_by(on::LEAVE));
        }
        if let Ok(node) = node?
            && !node.unschedulable
        {
            let text = format!("node {host} is not cordoned: what runs on it would be killed");
            problems.push(Problem::new(text, format!("`kubectl drain {host}`")).mended_by(on::DRAIN));
        }
        if let Some(vm) = &self.swap.old.vm
            && vm.status(cx).await?.2.is_ha_managed()
        {
            problems.push(managed(vm.vmid));
        }
        Ok(problems)
    }
}
