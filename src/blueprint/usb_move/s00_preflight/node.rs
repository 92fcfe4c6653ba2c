//! The target node: does it take the pod as it will be, and does the cluster live without it for a moment?

use crate::base::permit::System;
use crate::engine::step::RunInfo;
use crate::k8s::Node;
use crate::k8s::meta::Condition;

use super::super::hold::{Held, held};
use super::super::label::put_back_by;
use super::Preflight;
use super::ask_kubernetes::KubeFacts;
use super::ask_proxmox::Power;
use super::finding::{Findings, on};
use super::known;

pub(super) fn find(p: &Preflight, f: &KubeFacts, power: Power, run: &RunInfo) -> Findings {
    let mut out = Findings::of(System::Kubernetes);
    let Ok(nodes) = &f.nodes else { return out };
    let name = p.node.name.as_str();
    let Some(node) = f.target(p) else {
        let text = format!("kubernetes `{}` has no node {name}", p.node.cluster);
        let help = "`kubectl get nodes` shows the names; `node_name` of the node in the site file sets it";
        out.problem(&known::NODE_MISSING, on::WAIT, text, help);
        return out;
    };
    ready(node, power, &mut out);
    cordoned(node, run, &mut out);
    fits(p, f, node, nodes, &mut out);
    if node.is_control_plane() {
        quorum(node, nodes, power, &mut out);
    }
    label(p, nodes, &mut out);
    out
}

fn ready(node: &Node, power: Power, out: &mut Findings) {
    let name = &node.meta.name;
    match (&node.ready, power) {
        (Some(ready), _) if ready.status == "True" => out.note(on::WAIT, format!("node {name} is Ready")),
        (_, Power::Off) => out.note(on::WAIT, format!("node {name} is not Ready: its VM is off")),
        (ready, _) => {
            let how = ready.as_ref().map_or_else(|| "its kubelet never told".to_owned(), Condition::to_string);
            let help =
                format!("`kubectl describe node {name}`, and the kubelet's log on it (k3s: `journalctl -u k3s-agent`)");
            out.problem(
                &known::NODE_NOT_READY,
                on::WAIT,
                format!("node {name} is not Ready though its VM runs: {how}"),
                help,
            );
        }
    }
    for pressure in node.conditions.iter().filter(|c| c.is_true()) {
        out.note(on::DEPLOY, format!("node {name}: {pressure}"));
    }
}

fn cordoned(node: &Node, run: &RunInfo, out: &mut Findings) {
    let what = format!("node {}", node.meta.name);
    match held(&what, &node.meta, run) {
        Ok(Held::Ours(mark) | Held::Left(mark)) => {
            out.note(on::DRAIN, format!("{what} is held by run {}, which 04a takes over and 06a takes back", mark.run));
        }
        Ok(Held::Theirs(_, problem)) | Err(problem) => out.borrowed(&known::HELD_ELSEWHERE, on::DEPLOY, problem),
        Ok(Held::No) if node.unschedulable => {
            let by = node.cordon_owners().first().map(|by| format!(" by {by}")).unwrap_or_default();
            out.problem(
                &known::NODE_CORDONED,
                on::DEPLOY,
                format!("{what} was cordoned{by}, not by pvemig, and stays so: a new pod there would stay Pending"),
                format!("`kubectl uncordon {}`, where that may be", node.meta.name),
            );
        }
        Ok(Held::No) => {}
    }
}

/// The node as it will be when the pod is started: schedulable and Ready.
fn later(node: &Node) -> Node {
    let passing =
        ["node.kubernetes.io/unschedulable", "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
    let mut node = node.clone();
    node.unschedulable = false;
    node.taints.retain(|taint| !passing.contains(&taint.key.as_str()));
    node.ready = Some(Condition { kind: "Ready".into(), status: "True".into(), ..Condition::default() });
    node
}

fn fits(p: &Preflight, f: &KubeFacts, node: &Node, nodes: &[Node], out: &mut Findings) {
    let name = &node.meta.name;
    let Some(work) = f.workload() else { return };
    let Some(pod) = &work.pod else {
        return out.note(on::DEPLOY, format!("{} has no template to hold against node {name}", p.work));
    };
    let mut target = later(node);
    if let Some(label) = &p.label
        && target.meta.labels.insert(label.key.clone(), label.value.clone()).as_ref() != Some(&label.value)
    {
        out.note(on::LABEL, format!("node {name} gets label {}={} by 09", label.key, label.value));
    }
    let why = pod.misfits(&target);
    if !why.is_empty() {
        let declared = if p.edits.is_empty() { "" } else { " with the declared values" };
        out.problem(
            &known::NODE_MISFIT,
            on::DEPLOY,
            format!("node {name} does not take a pod of {}{declared}: {}", p.work, why.join("; ")),
            "declare what has to change under `manifests` in the site file (`remove`, `set`), or change the node",
        );
    }
    let takes = |n: &Node| {
        let mut other = later(n);
        if let (Some(label), true) = (&p.label, n.meta.name == p.source_node.name) {
            other.meta.labels.remove(&label.key);
        }
        pod.misfits(&other).is_empty()
    };
    let others: Vec<&str> =
        nodes.iter().filter(|n| n.meta.name != *name && takes(n)).map(|n| n.meta.name.as_str()).collect();
    if !others.is_empty() {
        let text = format!("nothing in {} keeps its pod on {name}: it fits {} as well", p.work, others.join(", "));
        out.note(on::DEPLOY, text);
    }
}

/// What remains of the control plane while the node is away.
fn quorum(node: &Node, nodes: &[Node], power: Power, out: &mut Findings) {
    let name = &node.meta.name;
    let all: Vec<&Node> = nodes.iter().filter(|n| n.is_control_plane()).collect();
    let (needed, off): (usize, Vec<&&Node>) =
        (all.len() / 2 + 1, all.iter().filter(|n| n.meta.name != *name && !n.is_ready()).collect());
    let left = all.len() - 1 - off.len();
    let text = format!("node {name} is one of {} control-plane nodes; without it {left} are Ready", all.len());
    match power.guards(on::REBOOT) {
        Some(step) if left < needed && !off.is_empty() => {
            let off: Vec<&str> = off.iter().map(|n| n.meta.name.as_str()).collect();
            out.problem(
                &known::ETCD_QUORUM,
                step,
                format!("{text} and etcd needs {needed}: the cluster would stand still ({} not Ready)", off.join(", ")),
                format!("bring {} back first", off.join(" and ")),
            );
        }
        Some(_) if left < needed => {
            out.note(on::REBOOT, format!("{text}: the Kubernetes API is away until the VM is back"));
        }
        Some(_) => out.note(on::REBOOT, format!("{text}, enough for etcd ({needed})")),
        None if power == Power::Unknown => out.note(
            on::REBOOT,
            format!("{text}, and etcd needs {needed}; whether its VM is power-cycled while it runs is not known"),
        ),
        None => out.note(on::REBOOT, format!("{text}; its VM is not power-cycled while it runs")),
    }
}

/// Who would put the label back on the source.
fn label(p: &Preflight, nodes: &[Node], out: &mut Findings) {
    let Some(label) = &p.label else {
        return out.note(on::LABEL, "the site names no label: the manifests alone choose the node");
    };
    let Some(source) = nodes.iter().find(|n| n.meta.name == p.source_node.name) else {
        return out.note(on::UNLABEL, format!("there is no node {} (any more)", p.source_node.name));
    };
    for line in put_back_by(&source.meta, &label.key) {
        out.note(on::UNLABEL, line);
    }
}
