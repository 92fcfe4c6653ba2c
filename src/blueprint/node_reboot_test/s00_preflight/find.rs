//! The findings, drawn from what was asked.

use crate::base::names::StepKey;
use crate::base::permit::System;
use crate::blueprint::cordon::{LETS, sort};
use crate::blueprint::finding::{Asked, Finding, Findings};
use crate::blueprint::hold::{Held, held};
use crate::blueprint::machine::Machine;
use crate::blueprint::quorum::{Etcd, Said, judge};
use crate::engine::step::RunInfo;
use crate::k8s::drain::plan;

use super::super::repair::{self, Refused, Repair};
use super::super::{on, rights};
use super::ask::{Facts, KubeFacts, TalosFacts, VmFacts};
use super::{Preflight, known};
use crate::blueprint::own_vm;
use crate::blueprint::stand::missing;

pub(super) fn all(p: &Preflight, facts: &Facts, run: &RunInfo) -> Vec<Finding> {
    let mut all = Vec::new();
    for (machine, talos) in p.nodes.iter().zip(&facts.talos) {
        all.extend(node(p, machine, talos).all);
        all.extend(quorum(machine, facts).all);
        match &facts.kube {
            Ok(kube) => all.extend(kubernetes(machine, kube, run).all),
            Err(why) => {
                let mut out = Findings::of(System::Kubernetes);
                out.unknown(at(on::DRAIN, machine), &format!("Kubernetes cluster {}", machine.node.cluster), why);
                all.extend(out.all);
            }
        }
        if let Some(vm) = facts.vms.get(&machine.name) {
            all.extend(virtual_machine(machine, vm, talos).all);
        }
    }
    if let (Some(first), Ok(kube)) = (p.nodes.first(), &facts.kube) {
        all.extend(may(p, first, kube).all);
    }
    all.extend(order(&p.nodes, &facts.etcd).all);
    all
}

fn at(id: &str, machine: &Machine) -> StepKey {
    StepKey::new(id, Some(&machine.name))
}

/// What a node says of itself, and what 03 would do about it.
fn node(p: &Preflight, machine: &Machine, talos: &Asked<TalosFacts>) -> Findings {
    let mut out = Findings::of(System::Talos);
    let name = &machine.name;
    let Some(f) = out.need(at(on::GATE, machine), &format!("Talos node {name}"), talos) else { return out };
    if !f.roles.iter().any(|role| role == rights::ROLE) {
        let roles = if f.roles.is_empty() { "none".to_owned() } else { f.roles.join(", ") };
        out.problem(
            &known::ROLE,
            at(on::GATE, machine),
            format!("the talosconfig's certificate has the roles {roles} on {name}, and {} is needed", rights::ROLE),
            "name a talosconfig with that role in the site file (`pvemig privileges` says what for)",
        );
    }
    let (mut mends, mut waits) = (false, false);
    match &f.repair {
        None => {}
        Some(Err(why)) => out.unknown(at(on::REPAIR, machine), &format!("{name} what has to be mended"), why),
        Some(Ok(facts)) => match repair::judge(machine, facts, p.images.get(name).map(String::as_str)) {
            Ok(Repair::Nothing(_)) => {}
            Ok(Repair::Config(_)) => {
                mends = true;
                out.note(
                    at(on::REPAIR, machine),
                    format!("{name}: 03 adds NVIDIA's kernel modules to its configuration"),
                );
            }
            Ok(Repair::Image(image)) => {
                mends = true;
                let lost = match &image.loses {
                    Some((lost, _)) if !lost.is_empty() => format!(", and loses {}", lost.join(", ")),
                    Some(_) => String::new(),
                    None => ", and which extensions it loses cannot be told".to_owned(),
                };
                out.note(at(on::REPAIR, machine), format!("{}: 03 gives it {}{lost}", image.why, image.to));
            }
            Err(Refused::Untold(problem)) => out.borrowed(&known::NO_IMAGE, at(on::REPAIR, machine), problem),
            Err(Refused::Waits(problem)) => {
                waits = true;
                out.borrowed(&known::CONFIG_WAITS, at(on::REPAIR, machine), problem);
            }
        },
    }
    at_boot(p, machine, f, waits, &mut out);
    let lines = missing(machine, &f.status, &f.services);
    if lines.is_empty() {
        return out;
    }
    let text = lines.join("; ");
    if mends {
        out.note(at(on::REBOOT, machine), text);
    } else {
        // What that is and what mends it the rules of a survey know; here is what follows from it.
        let first = format!("mend that first: `pvemig survey {name}` names the cause");
        let help = if p.repair {
            format!("{first}, {} what waits; or leave {name} out of `nodes`", machine.talosctl("services"))
        } else {
            format!("{first}; or try `repair: true`, or leave {name} out of `nodes`")
        };
        out.problem(&known::NOT_WHOLE, at(on::REBOOT, machine), text, help);
    }
    out
}

/// What of its machine configuration comes into effect with the reboot: seen before, whether or not that is wanted.
/// `said`: that it is there is said of 03 already.
fn at_boot(p: &Preflight, machine: &Machine, f: &TalosFacts, said: bool, out: &mut Findings) {
    // Without the role it is not told, and that has a line of its own.
    if !f.roles.iter().any(|role| role == rights::ROLE) {
        return;
    }
    let reboot = at(on::REBOOT, machine);
    let what = format!("{} its machine configuration", machine.name);
    let Some(configs) = out.need(reboot.clone(), &what, &f.configs) else { return };
    if let Some(note) = configs.staged(machine) {
        out.note(reboot.clone(), note);
    }
    if let (Err(problem), false) = (configs.with_a_boot(machine, Some(p.staged)), said) {
        out.borrowed(&known::CONFIG_WAITS, reboot, problem);
    }
}

fn quorum(machine: &Machine, facts: &Facts) -> Findings {
    let mut out = Findings::of(System::Talos);
    let verdict = judge(&machine.name, &facts.etcd);
    if verdict.leads {
        out.note(at(on::GATE, machine), format!("{} leads etcd, and hands that over before its turn", machine.name));
    }
    for problem in verdict.problems {
        out.borrowed(&known::QUORUM, at(on::GATE, machine), problem);
    }
    out
}

/// The node in Kubernetes, and what a drain does to what runs on it.
fn kubernetes(machine: &Machine, kube: &KubeFacts, run: &RunInfo) -> Findings {
    let mut out = Findings::of(System::Kubernetes);
    let name = &machine.node.name;
    let drain = at(on::DRAIN, machine);
    let Some(node) = kube.nodes.get(name) else {
        let text = format!("kubernetes `{}` has no node {name}", machine.node.cluster);
        out.problem(
            &known::NODE_MISSING,
            drain,
            text,
            format!("`kubectl get nodes` shows the names; `node_name` of {} in the site file sets it", machine.name),
        );
        return out;
    };
    match held(&format!("node {name}"), &node.meta, run) {
        Ok(Held::Theirs(_, problem)) | Err(problem) => out.borrowed(&known::NODE_HELD, drain.clone(), problem),
        Ok(Held::No) if node.unschedulable => {
            out.note(drain.clone(), format!("node {name} is cordoned already, and stays so afterwards"));
        }
        Ok(_) => {}
    }
    let asked = kube.pods.get(name);
    let pods = asked.and_then(|pods| out.need(drain.clone(), &format!("what runs on node {name}"), pods));
    let round = out.need(drain.clone(), "what is around the pods", &kube.round);
    let (Some(pods), Some(round)) = (pods, round) else { return out };
    let left = sort(pods, plan(name, pods, round, LETS), ", or leave this node out of `nodes` in the site file");
    for line in left.notes {
        out.note(drain.clone(), line);
    }
    for wait in left.waits {
        out.note(drain.clone(), format!("pod {wait}: evicted as soon as that allows it"));
    }
    for problem in left.refuses {
        out.borrowed(&known::POD_STAYS, drain.clone(), problem);
    }
    out
}

/// Rights in Kubernetes, told of the first step of the first node that takes them.
fn may(p: &Preflight, first: &Machine, kube: &KubeFacts) -> Findings {
    let mut out = Findings::of(System::Kubernetes);
    let cluster = &first.node.cluster;
    let what = format!("Kubernetes cluster {cluster} what these credentials may do");
    let Some(lacking) = out.need(at(on::DRAIN, first), &what, &kube.lacking) else { return out };
    let needs = rights::kubernetes(&p.nodes);
    let said: Vec<String> =
        needs.iter().filter(|need| lacking.contains(&need.right)).map(|need| need.right.to_string()).collect();
    if !said.is_empty() {
        out.problem(
            &known::RIGHT_KUBERNETES,
            at(on::DRAIN, first),
            format!("the kubeconfig of cluster {cluster} may not {}", said.join("; ")),
            "give its user a role with these verbs (`pvemig privileges` prints them), or name another context in the \
             site file",
        );
    }
    out
}

/// The VM that is switched must be the one that the node runs in.
fn virtual_machine(machine: &Machine, vm: &Asked<VmFacts>, talos: &Asked<TalosFacts>) -> Findings {
    let mut out = Findings::of(System::Proxmox);
    let Some(vmid) = machine.vm.as_ref().map(|vm| vm.vmid) else { return out };
    let reboot = at(on::REBOOT, machine);
    let Some(f) = out.need(reboot.clone(), &format!("vm {vmid}"), vm) else { return out };
    // A node that does not answer has a line of its own.
    let problems = match talos {
        Ok(talos) => own_vm::amiss(machine, vmid, f.runs, f.uuid.as_deref(), talos.uuid.as_deref()),
        Err(_) if f.runs => Vec::new(),
        Err(_) => vec![own_vm::off(&machine.name, vmid)],
    };
    for problem in problems {
        out.borrowed(&known::VM_AMISS, reboot.clone(), problem);
    }
    let Some(may) = &f.may else { return out };
    let Some(held) = out.need(reboot.clone(), &format!("what {} may do with vm {vmid}", f.caller), may) else {
        return out;
    };
    for need in rights::proxmox_needs(vmid) {
        let privilege = need.privilege.names(None);
        if !privilege.iter().any(|name| held.has(&need.path, name)) {
            let any = privilege.join(" or ");
            out.problem(
                &known::PRIVILEGE,
                reboot.clone(),
                format!("{} lacks {any} on {}, for {}", f.caller, need.path, need.purpose),
                format!(
                    "give it a role with {any} on {}; a token with privilege separation needs it itself",
                    need.path
                ),
            );
        }
    }
    out
}

/// Less important nodes come first. What a silent node is nobody knows, and it has a line of its own.
fn order(nodes: &[Machine], etcd: &Etcd) -> Findings {
    let mut out = Findings::of(System::Talos);
    let mut control_plane: Option<&Machine> = None;
    for machine in nodes {
        match (etcd.said_by(&machine.name), control_plane) {
            (Some(Said::Worker), Some(earlier)) => {
                out.problem(
                    &known::ORDER,
                    at(on::REBOOT, earlier),
                    format!("{} is of the control plane, and comes before worker {}", earlier.name, machine.name),
                    format!("put {} before {} in `nodes`", machine.name, earlier.name),
                );
                return out;
            }
            (Some(Said::View(_)), None) => control_plane = Some(machine),
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::names::Dial;
    use crate::blueprint::node::KubeNode;
    use crate::blueprint::quorum::{Peer, View};
    use crate::talos::EtcdStatus;

    #[test]
    fn a_silent_node_is_neither_worker_nor_control_plane() {
        let status = EtcdStatus {
            member: 1,
            leader: 1,
            is_learner: false,
            raft_term: 7,
            raft_index: 5,
            raft_applied: 5,
            size: 1,
            size_in_use: 1,
            errors: Vec::new(),
            version: "3.6.5".into(),
        };
        let voter = || Said::View(View { members: Vec::new(), status: status.clone(), alarms: Vec::new() });
        let silent = || Said::Silent("no route".into());
        let said = |all: Vec<Said>| -> Vec<String> {
            let names = ["a", "b", "c"];
            let machine = |name: &&str| Machine {
                cluster: "c".into(),
                name: (*name).into(),
                node: KubeNode { cluster: "k".into(), name: (*name).into() },
                vm: None,
                dial: Dial::default(),
            };
            let peer = |name: &str| Peer { name: name.into(), node_name: name.into(), dial: Dial::default() };
            let said = names.iter().map(|name| peer(name)).zip(all).collect();
            let nodes: Vec<Machine> = names.iter().map(machine).collect();
            order(&nodes, &Etcd { cluster: "c".into(), said }).all.into_iter().map(|found| found.text).collect()
        };
        let none = Vec::<String>::new();
        assert_eq!(said(vec![silent(), Said::Worker, voter()]), none);
        assert_eq!(said(vec![Said::Worker, silent(), voter()]), none);
        let wrong = "a is of the control plane, and comes before worker c";
        assert_eq!(said(vec![voter(), silent(), Said::Worker]), [wrong]);
    }
}
