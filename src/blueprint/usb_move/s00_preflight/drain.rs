//! What runs on the target node besides, and what a drain would do to it.

use crate::base::permit::System;
use crate::k8s::Pod;
use crate::k8s::drain::{Fate, Surroundings, plan};

use super::super::cordon::{LETS, sort};
use super::super::s04a_drain_node::OTHERWISE;
use super::Preflight;
use super::ask_kubernetes::KubeFacts;
use super::ask_proxmox::Power;
use super::finding::{Findings, on};
use super::known;

pub(super) fn find(p: &Preflight, f: &KubeFacts, power: Power) -> Findings {
    let mut out = Findings::of(System::Kubernetes);
    let name = p.node.name.as_str();
    let (pods, round) = match (&f.drain, power.guards(on::DRAIN)) {
        (Ok((pods, round)), _) => (pods, round),
        (Err(why), Some(step)) if p.drain => {
            out.unknown(step, &format!("what runs on node {name}"), why);
            return out;
        }
        (Err(why), _) => {
            out.note(on::DRAIN, format!("what runs on node {name} cannot be asked: {}", why.text));
            return out;
        }
    };
    let others = others(f, pods);
    let running = others.iter().filter(|pod| !pod.is_finished()).count();
    match power {
        Power::Off => out.note(on::DRAIN, format!("the VM of node {name} is off: nothing on it has to be drained")),
        Power::Stays => out.note(
            on::DRAIN,
            format!("node {name} has {running} other pods; the device is plugged into the running VM, so they stay"),
        ),
        Power::Unknown => {
            out.note(on::DRAIN, format!("node {name} has {running} other pods; whether it is drained is not known"));
        }
        Power::Due | Power::Coming if !p.drain => {
            let names: Vec<String> =
                others.iter().filter(|pod| !pod.is_finished()).map(|pod| pod.meta.full_name()).collect();
            let text = format!("`drain: false`: the power cycle of node {name} ends its pods");
            out.note(on::DRAIN, format!("{text} ({})", names.join(", ")));
        }
        Power::Due | Power::Coming => drained(name, &others, round, power, &mut out),
    }
    out
}

/// The pods of the node without the workload's own: those are gone by then.
fn others(f: &KubeFacts, pods: &[Pod]) -> Vec<Pod> {
    let own = f.workload().and_then(|w| w.own.as_deref().ok()).unwrap_or_default();
    pods.iter().filter(|pod| !own.iter().any(|o| o.meta.uid == pod.meta.uid)).cloned().collect()
}

/// What a power cycle of the node ends.
#[derive(Debug, Default)]
pub(super) struct Ends {
    /// After a drain: what comes back with this node only.
    pub(super) drained: Vec<String>,
    /// Without one: everything that runs there but what belongs to the node itself.
    pub(super) not_drained: Vec<String>,
}

/// Nothing where it cannot be asked: that is said by [`find`].
pub(super) fn ends(p: &Preflight, f: &KubeFacts) -> Ends {
    let Ok((pods, round)) = &f.drain else { return Ends::default() };
    let others = others(f, pods);
    let mut ends = Ends::default();
    for (pod, plan) in others.iter().zip(plan(&p.node.name, &others, round, LETS)) {
        if pod.is_finished() || plan.fate == Fate::Stays {
            continue;
        }
        if plan.fate == Fate::GoesForGood {
            ends.drained.push(plan.pod.to_string());
        }
        ends.not_drained.push(plan.pod.to_string());
    }
    ends
}

fn drained(name: &str, pods: &[Pod], round: &Surroundings, power: Power, out: &mut Findings) {
    let left = sort(pods, plan(name, pods, round, LETS), OTHERWISE);
    let evict: Vec<String> = left.evict.iter().map(ToString::to_string).collect();
    let evict = if evict.is_empty() { "no pod".to_owned() } else { evict.join(", ") };
    out.note(on::DRAIN, format!("a drain of node {name} moves {evict}"));
    for line in left.notes {
        out.note(on::DRAIN, line);
    }
    for wait in left.waits {
        out.note(on::DRAIN, format!("pod {wait}: evicted as soon as that allows it"));
    }
    for going in left.going {
        out.note(on::DRAIN, format!("pod {going}"));
    }
    for problem in left.refuses {
        out.borrowed(&known::POD_STAYS, power.guards(on::DRAIN).unwrap_or(on::DRAIN), problem);
    }
}
