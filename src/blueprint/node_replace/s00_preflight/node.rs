//! What Kubernetes has of the old node, and what becomes of it.

use crate::blueprint::cordon::{LETS, sort};
use crate::blueprint::finding::Findings;
use crate::blueprint::hold::{Held, held};
use crate::engine::step::RunInfo;
use crate::k8s::Node;
use crate::k8s::drain::plan;

use super::super::s08_node_object::unconsented as node_unconsented;
use super::super::sight::Life;
use super::super::swap::Swap;
use super::super::{known, local, on};
use super::ask::{Facts, Kube};
use super::find::old_node;

/// Labels that the kubelet, Talos or its configuration set again.
const OWN: [&str; 5] = [
    "kubernetes.io/",
    "beta.kubernetes.io/",
    "node-role.kubernetes.io/",
    "node.kubernetes.io/",
    "extensions.talos.dev/",
];

/// What these credentials may not do: all of it, also where a question is refused for that.
pub(super) fn rights(swap: &Swap, facts: &Facts, out: &mut Findings) {
    // Whoever does not answer at all is told of once.
    if facts.lacking.is_err() && facts.kube.is_err() {
        return;
    }
    let lacking = out.need(on::DRAIN, "what these credentials may do", &facts.lacking);
    if let Some(lacking) = lacking.filter(|lacking| !lacking.is_empty()) {
        let said: Vec<String> = lacking.iter().map(ToString::to_string).collect();
        out.problem(
            &known::RIGHT_KUBERNETES,
            on::DRAIN,
            format!("the kubeconfig of cluster {} may not {}", swap.old.node.cluster, said.join("; ")),
            "give its user a role with these verbs (`pvemig privileges` prints them), or name another context in the site file",
        );
    }
}

/// What Kubernetes has of the old node, and what becomes of it.
pub(super) fn findings(swap: &Swap, facts: &Facts, kube: &Kube, run: &RunInfo, out: &mut Findings) {
    let host = swap.host();
    volumes(swap, kube, run, out);
    for attachment in &kube.attached {
        out.note(on::NODE, format!("attached to {host}: {attachment}"));
    }
    let Some(node) = old_node(swap, kube) else {
        return out.note(on::NODE, format!("kubernetes has no node {host}"));
    };
    match held(&format!("node {host}"), &node.meta, run) {
        Ok(Held::Theirs(_, problem)) | Err(problem) => out.borrowed(&known::NODE_HELD, on::DRAIN, problem),
        Ok(Held::No) if node.unschedulable => out.note(on::DRAIN, format!("node {host} is cordoned already")),
        Ok(_) => {}
    }
    if !swap.same_name() {
        if !run.consents.contains(&swap.node()) {
            out.borrowed(&known::CONSENT, on::NODE, node_unconsented(swap));
        }
        let labels = by_hand(node);
        if !labels.is_empty() {
            let text = format!(
                "labels of node {host} that its configuration may not have are lost with it: {}",
                labels.join(", ")
            );
            out.note(on::NODE, format!("{text}; {} sets them", facts.labels));
        }
    }
    let plans = plan(host, &kube.pods, &kube.round, LETS);
    if matches!(facts.life, Ok(Life::Off(_) | Life::Silent(_) | Life::Waits)) {
        let own = kube.pods.iter().filter(|pod| !pod.is_of_the_node() && !pod.is_finished()).count();
        if own > 0 {
            out.note(on::DRAIN, format!("{own} pods on {host} cannot be evicted: nobody is there to end them"));
        }
        let left = sort(&kube.pods, plans, "");
        for problem in left.refuses {
            out.note(on::NODE, format!("{}: nothing makes it anew once {host} is gone", problem.text));
        }
        return;
    }
    let left = sort(&kube.pods, plans, "");
    left.notes.into_iter().for_each(|line| out.note(on::DRAIN, line));
    left.waits
        .into_iter()
        .for_each(|wait| out.note(on::DRAIN, format!("pod {wait}: evicted as soon as that allows it")));
    left.refuses.into_iter().for_each(|problem| out.borrowed(&known::POD_STAYS, on::DRAIN, problem));
}

/// Volumes whose data is on the disks of the old machine: it goes with them.
fn volumes(swap: &Swap, kube: &Kube, run: &RunInfo, out: &mut Findings) {
    for (thing, text) in local::volumes(swap, &kube.round) {
        if run.consents.contains(&thing) {
            out.note(on::SHUTDOWN, format!("{text}, by your consent"));
        } else {
            out.problem(&known::LOCAL, on::SHUTDOWN, text, local::help(&thing));
        }
    }
}

/// Labels that neither the kubelet nor Talos sets.
fn by_hand(node: &Node) -> Vec<String> {
    let own = |key: &str| {
        let domain = key.split('/').next().unwrap_or_default();
        OWN.iter().any(|own| key.starts_with(own))
            || domain.ends_with(".kubernetes.io") && !domain.starts_with("topology")
    };
    let talos = |key: &str| node.label_owners(key).iter().any(|owner| owner.manager.contains("talos"));
    let all = node.meta.labels.iter().filter(|(key, _)| !own(key) && !talos(key));
    all.map(|(key, value)| format!("{key}={value}")).collect()
}
