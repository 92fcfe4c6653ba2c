//! 00: everything that can be known beforehand to keep a drive from going into another slot, or to make one be mistaken for
//! another.

mod ask;
mod drives;
mod find;
mod firmware;
mod installation;
mod replaced;
mod safe;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::base::check::Check;
use crate::base::drives::{Plan, drawing};
use crate::base::fault::Failure;
use crate::base::permit::System;
use crate::blueprint::finding::{self, Findings};
use crate::blueprint::machine::Machine;
use crate::blueprint::quorum::Peer;
use crate::engine::step::{Risk, Seen, Step};
use crate::estate::Estate;
use crate::site::OutOfBand;

use super::anew::Anew;
use super::left_off::left_off;
use super::params::{Measure, Medium, Other, Params};
use super::s01_backup::has_snapshot;
use super::sight::seats;
use super::{known, on};
use ask::VmFacts;
use find::Here;

/// Looks at everything that the steps need.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Preflight {
    /// The node.
    pub machine: Machine,
    /// All nodes of its cluster.
    pub peers: Vec<Peer>,
    /// What is to become of its drives.
    pub plan: Plan,
    /// What it boots from, where nothing on its drives boots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub medium: Option<Medium>,
    /// The Kubernetes API may be away for as long as the node is off.
    #[serde(default)]
    pub without_api: bool,
    /// It has its turn although a less important node has drives to move too.
    #[serde(default)]
    pub first: bool,
    /// What it is installed anew with, where its system disk is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anew: Option<Anew>,
    /// How the drives are measured; None: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measure: Option<Measure>,
    /// The other migrations of this blueprint in its cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Other>,
}

/// Nothing is owed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {}

impl From<&Params> for Preflight {
    fn from(p: &Params) -> Self {
        Self {
            machine: p.machine.clone(),
            peers: p.peers.clone(),
            plan: p.plan.clone(),
            medium: p.medium.clone(),
            without_api: p.without_api,
            first: p.first,
            anew: p.anew.clone(),
            measure: p.measure.clone(),
            others: p.others.clone(),
        }
    }
}

impl Preflight {
    fn out_of_band<'c>(&self, cx: &'c Estate) -> Option<&'c OutOfBand> {
        cx.site().talos_node(&self.machine.name)?.1.out_of_band.as_ref()
    }
}

impl Step<Estate> for Preflight {
    const ID: &'static str = "00-preflight";
    const RISK: Risk = Risk::Reads;
    type Before = Before;

    fn title(&self) -> String {
        format!("nothing is in the way of moving the drives of {}", self.machine.name)
    }

    fn why(&self) -> Vec<String> {
        vec![
            "What is found half-way is found with the machine open, and a drive in the hand.".into(),
            "Each drive of the machine is held against the plan, by its serial number or by what is on it; so is each selector of \
             the machine configuration, on the drives of now and on those that will be there."
                .into(),
            "Talos has no `machine.volumes`, and `talosctl` no `write`, `execute` or `rm`: volumes are documents (`UserVolumeConfig`), \
             and what is on the node is looked at through `talosctl get disks`, `discoveredvolumes` and `volumestatus`."
                .into(),
            "Nothing is changed: rights are asked for by reviews, and no eviction is tried.".into(),
        ]
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let facts = ask::gather(self, cx, seen.run).await;
        let held = left_off(cx, &self.machine, seen.run)?;
        if let (Err(talos), Err(kube)) = (&facts.talos, &facts.kube) {
            let text = format!("neither Talos nor Kubernetes can be asked: {}; {}", talos.text, kube.text);
            if let Some(held) = held.filter(|_| !facts.vm_runs()) {
                let mut out = Findings::of(System::Talos);
                out.borrowed(&known::HELD_OFF, on::BACKUP, held.problem());
                return Ok(finding::check(out.all).note(text));
            }
            return Err(Failure::plain(text, talos.help.clone().or(kube.help.clone())));
        }
        let kept = has_snapshot(seen.run)?;
        let here = Here { out_of_band: self.out_of_band(cx), runs: cx.journals(), kept, held: held.as_ref() };
        let mut found = find::all(self, &facts, seen.run, &here);
        found.extend(replaced::look(self, cx, &facts, seen.run).await);
        let check = finding::check(found);
        let (plan, of) = (&self.plan, "its slots, and what is");
        let now = facts.seen.as_ref().map(|seen| seats(&seen.known, &plan.target, &seen.live).ok());
        let (from, of) = match now {
            Err(_) => (
                &plan.current,
                format!("by the site file alone, as its drives could not be asked, {of} to be in them:"),
            ),
            Ok(Some(now)) if now == plan.target => {
                let told = facts.seen.as_ref().ok().and_then(|seen| seen.told.as_ref());
                let has_port = |told: &Plan, slot: &str| told.slots.iter().any(|s| s.name == slot && s.port.is_some());
                let sure = told.is_none_or(|told| plan.target.keys().all(|slot| has_port(told, slot)));
                (&plan.target, format!("{of} in them{}:", if sure { "" } else { ", as far as can be told" }))
            }
            Ok(Some(now)) if now == plan.current => (&plan.current, format!("{of} to be in them:")),
            Ok(_) => (&plan.current, format!("by the site file, and not as its drives are now, {of} to be in them:")),
        };
        let mut lines = drawing(&self.machine.name, plan, from, &plan.target, 76, true);
        // A drive that is no part of the plan has no row: its slot is not free for that.
        if let Some(Ok(VmFacts { behind: Ok(behind), .. })) = &facts.vm {
            lines.extend(behind.strangers.iter().cloned());
        }
        Ok(check.note(format!("{of}\n{}", lines.join("\n"))))
    }
}
