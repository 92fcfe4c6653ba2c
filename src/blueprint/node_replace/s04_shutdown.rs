//! 04: the old machine is off, and that is shown.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Change, Check, Problem};
use crate::base::fault::Failure;
use crate::base::permit::{Permit, System};
use crate::blueprint::quorum::{Etcd, Said, look, votes};
use crate::engine::step::{Outlook, Risk, RunInfo, Seen, Step};
use crate::estate::Estate;

use super::local;
use super::on;
use super::s03_leave_or_remove::off_or_on;
use super::shell::{kubectl, starts_again};
use super::sight::{Life, is_in, life};
use super::swap::Swap;
use super::word::{self, SHUT};

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
        format!("{} is off, by what is seen of it or by your word", self.swap.goer())
    }

    fn why(&self) -> Vec<String> {
        vec![
            "As long as it runs, what runs on it runs beside its successors: its Node object is not deleted before it is off.".into(),
            "Of a VM Proxmox says that it is off. A machine that Talos and its kubelet are silent of (for longer than the 40 seconds that \
             Kubernetes bears) may be cut off, and run on: both go over the same cable. It is taken to be off where it took its \
             shutdown from this run, else by the word of a person alone."
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
            words: vec![self.swap.off()],
            // Its disks, and the volumes on them, go with it; a word that is void is given anew, with what was seen.
            may_destroy: &["pv", "off"],
            stays: Some(format!("{} as it is by then: who switched it off switches it on", self.swap.goer())),
            ..Outlook::changes(System::Talos, [format!("{} goes off, where it is on", self.swap.goer())])
        }
        .stops_until(self.swap.old.as_a_whole(), on::JOIN)
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let name = self.swap.goer();
        let begun = seen.since.is_some();
        let life = life(cx, &self.swap).await?;
        if life.is_down() && (matches!(life, Life::Replaced) || self.is_over(cx).await?) {
            return Ok(Check::not_needed(format!("{} is in its place", self.swap.comer())));
        }
        if life.is_down() {
            let mut problems: Vec<Problem> = life.unsure(&self.swap, seen.run).into_iter().collect();
            problems.extend(starts_again(cx, &self.swap).await?);
            problems.extend(local::unconsented(cx, &self.swap, seen.run).await?);
            if !problems.is_empty() {
                return Ok(Check::blocked(problems));
            }
        }
        Ok(match life {
            Life::Replaced => Check::done(),
            Life::Waits => Check::done().note(format!(
                "{name} itself waits for a configuration at its address: nothing of its installation runs"
            )),
            Life::Off(how) => Check::done().note(format!("{name} is off: {how}")).note(self.must_stay_off()),
            Life::Silent(silence) => {
                let by = silence.by(&self.swap, seen.run).unwrap_or_default();
                let check = Check::done().note(format!("{name} is silent: {}; {by}", silence.how));
                check.notes(silence.keep_off(&self.swap)).note(self.must_stay_off())
            }
            Life::Going => Check::waiting(format!("{name} is going down")),
            Life::Unknown(why) if begun => Check::waiting(format!("{name} goes off: {why}")),
            Life::Unknown(why) => Check::blocked(vec![Problem::new(
                format!("whether {name} is off is not known: {why}"),
                off_or_on(&self.swap),
            )]),
            Life::Alive(_) => {
                let etcd = look(cx, &self.swap.old.cluster, &self.swap.peers).await;
                if let Some(why) = self.untold(&etcd) {
                    return Ok(Check::waiting(why));
                }
                let problems = self.in_the_way(cx, &etcd, seen.run).await?;
                if !problems.is_empty() {
                    return Ok(Check::blocked(problems));
                }
                Check::todo(vec![Change::act(format!("{name} shuts down, and stays off"))], Before {})
            }
        })
    }

    async fn apply(&self, cx: &Estate, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let life = life(cx, &self.swap).await?;
        let Life::Alive(talos) = &life else { return Ok(()) };
        let etcd = look(cx, &self.swap.old.cluster, &self.swap.peers).await;
        if let Some(why) = self.untold(&etcd) {
            return Err(Failure::plain(why, None));
        }
        if let Some(problem) = self.in_the_way(cx, &etcd, seen.run).await?.into_iter().next() {
            return Err(Failure::plain(problem.text, Some(problem.help)));
        }
        word::keep(&life, &self.swap, seen.run, permit).await?;
        let boot = talos.this_boot().await?;
        // It is drained; Talos need not do it again, and its own API server is gone with its etcd.
        talos.shutdown_for_good(permit).await?;
        // It has taken it: the silence of this boot from here on is its end, and not a cut cable.
        permit.file(SHUT, boot.as_bytes())?;
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
}

impl ShutDown {
    fn must_stay_off(&self) -> String {
        format!(
            "it must stay off: wipe its disk before it is started again, else it comes back as a node of {}",
            self.swap.old.cluster
        )
    }

    /// Another one is in its place, and neither etcd nor Kubernetes has anything of it left.
    async fn is_over(&self, cx: &Estate) -> Result<bool, Failure> {
        if self.swap.same_name() || !is_in(cx, &self.swap).await? || self.swap.old.node.find(cx).await?.is_ok() {
            return Ok(false);
        }
        let etcd = look(cx, &self.swap.old.cluster, &self.swap.peers).await;
        Ok(votes(&etcd).is_some() && !etcd.members().iter().any(|name| name == self.swap.host()))
    }

    /// Why it is not known whether it has a vote. What nobody tells is not no.
    fn untold(&self, etcd: &Etcd) -> Option<String> {
        let worker = matches!(etcd.said_by(self.swap.old()), Some(Said::Worker));
        (!worker && votes(etcd).is_none())
            .then(|| format!("whether {} has a vote is not known: nobody tells the members of etcd", self.swap.goer()))
    }

    /// What has to be so before it may go: no vote in etcd, no pods that could run elsewhere, and no data but what may go.
    async fn in_the_way(&self, cx: &Estate, etcd: &Etcd, run: &RunInfo) -> Result<Vec<Problem>, Failure> {
        let host = self.swap.host();
        let node = self.swap.old.node.find(cx).await;
        let mut problems = Vec::new();
        if etcd.members().iter().any(|name| name == host) {
            let text = format!("{host} is a member of etcd: switched off, it counts as a voter that does not answer");
            problems.push(Problem::new(text, "let it leave first").mended_by(on::LEAVE));
        }
        if let Ok(node) = node?
            && !node.unschedulable
        {
            let text = format!("node {host} is not cordoned: what runs on it would be killed");
            problems.push(
                Problem::new(text, kubectl(cx, &self.swap, &format!("drain {host} --ignore-daemonsets")))
                    .mended_by(on::DRAIN),
            );
        }
        problems.extend(starts_again(cx, &self.swap).await?);
        problems.extend(local::unconsented(cx, &self.swap, run).await?);
        Ok(problems)
    }
}
