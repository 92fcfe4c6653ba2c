//! What is known by now of what the steps will do: for the short end of a plan.

use crate::base::check::Likely;
use crate::base::names::StepKey;
use crate::blueprint::cordon::LETS;
use crate::blueprint::machine::Machine;
use crate::blueprint::quorum::judge;
use crate::k8s::drain::{Fate, plan};
use crate::talos::reboots_for_an_image;

use super::super::on;
use super::super::repair::{self, Facts as RepairFacts, Repair};
use super::super::s01_quorum_gate::hands_over;
use super::Preflight;
use super::ask::{Facts, KubeFacts};

/// What cannot be asked is left as it is: something may be done.
pub(super) fn all(p: &Preflight, facts: &Facts) -> Vec<(String, Likely)> {
    let mut all = Vec::new();
    for (machine, talos) in p.nodes.iter().zip(&facts.talos) {
        let mut add = |id: &str, likely: Option<Likely>| {
            all.extend(likely.map(|likely| (StepKey::new(id, Some(&machine.name)).to_string(), likely)));
        };
        let repair = talos.as_ref().ok().and_then(|talos| talos.repair.as_ref()?.as_ref().ok());
        add(on::GATE, judge(&machine.name, &facts.etcd).leads.then(|| leads(machine)));
        add(on::REPAIR, repair.and_then(|facts| repaired(p, machine, facts)));
        add(on::DRAIN, facts.kube.as_ref().ok().and_then(|kube| drained(machine, kube)));
    }
    all
}

/// Who does not lead now may by then.
fn leads(machine: &Machine) -> Likely {
    Likely { what: hands_over(&machine.name), sure: true, ..Likely::default() }
}

fn repaired(p: &Preflight, machine: &Machine, facts: &RepairFacts) -> Option<Likely> {
    let name = &machine.name;
    let repair = repair::judge(machine, facts, p.images.get(name).map(String::as_str)).ok()?;
    // A configuration is taken back as it was set, and so is what was not needed.
    let back = matches!(repair, Repair::Image(_))
        .then(|| format!("drains {name} and reboots it into the image that it runs now"));
    let what = match repair {
        Repair::Nothing(_) => String::new(),
        Repair::Config(_) => format!("{name} gets NVIDIA's kernel modules, without a reboot"),
        Repair::Image(image) if reboots_for_an_image(&facts.running.version) => {
            format!("{name} gets {} and reboots for it by itself, before its own reboot in 04", image.to)
        }
        Repair::Image(image) => format!("{name} gets {}, which 04 boots", image.to),
    };
    Some(Likely { what, sure: true, back, ..Likely::default() })
}

/// What comes back with its node only.
fn drained(machine: &Machine, kube: &KubeFacts) -> Option<Likely> {
    let name = &machine.node.name;
    let (pods, round) = (kube.pods.get(name)?.as_ref().ok()?, kube.round.as_ref().ok()?);
    let plans = pods.iter().zip(plan(name, pods, round, LETS));
    let ends = plans.filter(|(pod, plan)| !pod.is_finished() && plan.fate == Fate::GoesForGood);
    let ends = ends.map(|(_, plan)| plan.pod.to_string()).collect();
    Some(Likely { sure: true, ends, ..Likely::default() })
}
