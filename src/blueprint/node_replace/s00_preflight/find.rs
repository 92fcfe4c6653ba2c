//! The findings, drawn from what was asked: what the steps are held against comes first, then the old machine itself.

use crate::base::permit::System;
use crate::blueprint::finding::{Finding, Findings};
use crate::blueprint::quorum::votes;
use crate::engine::step::RunInfo;
use crate::k8s::Node;

use super::super::s03_leave_or_remove::off_or_on;
use super::super::sight::Life;
use super::super::swap::Swap;
use super::super::{known, on};
use super::ask::{Facts, Kube, New};
use super::{comer, endpoint, node, source, voters};

pub(super) fn all(swap: &Swap, facts: &Facts, run: &RunInfo) -> Vec<Finding> {
    let mut out = Findings::of(System::Talos);
    source::findings(swap, facts, &mut out);
    endpoint::findings(swap, facts, &mut out);
    comer::machine(swap, facts, run, &mut out);
    if is_over(swap, facts) {
        out.note(on::LEAVE, format!("{} is replaced already: {} is in its place", swap.goer(), swap.comer()));
        if swap.same_name() {
            out.note(
                on::LEAVE,
                format!(
                    "where disk {} is the old one's own: a machine is installed anew by {} and a `cluster-build`",
                    swap.new.disk,
                    swap.old.talosctl("reset")
                ),
            );
        }
        return out.all;
    }
    alive(swap, facts, run, &mut out);
    comer::beside(swap, facts, &mut out);
    kept(swap, facts, &mut out);
    voters::findings(swap, facts, run, &mut out);
    let mut all = out.all;
    let mut out = Findings::of(System::Kubernetes);
    node::rights(swap, facts, &mut out);
    match &facts.kube {
        Ok(kube) => node::findings(swap, facts, kube, run, &mut out),
        Err(why) => out.unknown(on::DRAIN, &format!("Kubernetes cluster {}", swap.old.node.cluster), why),
    }
    all.extend(out.all);
    all
}

/// The new machine is in, and the old one is nowhere.
fn is_over(swap: &Swap, facts: &Facts) -> bool {
    let node = || facts.kube.as_ref().is_ok_and(|kube| old_node(swap, kube).is_none());
    let member = || facts.etcd.members().iter().any(|name| name == swap.host());
    let off = || facts.life.as_ref().is_ok_and(Life::is_down);
    matches!(facts.new, Ok(New::In(_)))
        && (swap.same_name() || node() && !member() && off() && votes(&facts.etcd).is_some())
}

/// The Node object of the old machine.
pub(super) fn old_node<'k>(swap: &Swap, kube: &'k Kube) -> Option<&'k Node> {
    kube.round.nodes.iter().find(|node| node.meta.name == swap.host())
}

/// Whether the old one is alive.
fn alive(swap: &Swap, facts: &Facts, run: &RunInfo, out: &mut Findings) {
    let name = swap.goer();
    let Some(life) = out.need(guarded(swap, facts), &format!("whether {name} is alive"), &facts.life) else { return };
    match life {
        Life::Alive(_) => out.note(on::SHUTDOWN, format!("{name} is alive: it is drained, leaves, and is shut down")),
        Life::Going => out.note(on::SHUTDOWN, format!("{name} is going down, by whom is not known")),
        Life::Replaced => {}
        Life::Waits => out.note(on::SHUTDOWN, format!("{name} itself waits for a configuration at its address")),
        Life::Off(how) => out.note(on::SHUTDOWN, format!("{name} is off: {how}")),
        Life::Silent(silence) => match silence.unsure(swap, run) {
            Some(problem) => out.borrowed(&known::CONSENT, on::SHUTDOWN, problem),
            None => {
                let by = silence.by(swap, run).unwrap_or_default();
                out.note(on::SHUTDOWN, format!("{name} is silent: {}; {by}", silence.how));
            }
        },
        Life::Unknown(why) => out.problem(
            &known::NOT_KNOWN,
            guarded(swap, facts),
            format!("whether {name} is alive is not known: {why}"),
            off_or_on(swap),
        ),
    }
}

/// The first step that must not be begun where the swap is not what it should be: who has no vote has nothing to lose in 03.
pub(super) fn guarded(swap: &Swap, facts: &Facts) -> &'static str {
    let member = facts.etcd.members().iter().any(|name| name == swap.host());
    if member || votes(&facts.etcd).is_none() { on::LEAVE } else { on::SHUTDOWN }
}

/// Whether its VM would be started again.
fn kept(swap: &Swap, facts: &Facts, out: &mut Findings) {
    let (Some(vm), Some(kept)) = (&swap.old.vm, &facts.kept) else { return };
    for problem in out.need(on::SHUTDOWN, &format!("vm {}", vm.vmid), kept).into_iter().flatten() {
        out.borrowed(&known::KEPT_UP, on::SHUTDOWN, problem.clone());
    }
}
