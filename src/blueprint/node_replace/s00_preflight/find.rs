//! The findings, drawn from what was asked.

use crate::base::permit::{System, Thing};
use crate::blueprint::cordon::{LETS, sort};
use crate::blueprint::finding::{Finding, Findings};
use crate::blueprint::hold::{Held, held};
use crate::blueprint::install::asked::unconsented as disk_unconsented;
use crate::blueprint::quorum::{Leave, Votes, leave, votes};
use crate::engine::step::RunInfo;
use crate::k8s::Node;
use crate::k8s::drain::plan;

use super::super::s03_leave_or_remove::{off_or_on, unconsented as member_unconsented};
use super::super::s04_shutdown::managed;
use super::super::s08_node_object::unconsented as node_unconsented;
use super::super::sight::Life;
use super::super::swap::Swap;
use super::super::{known, local, on, rights};
use super::ask::{Facts, Kube, New};

/// Labels that the kubelet, Talos or its configuration set again.
const OWN: [&str; 5] = [
    "kubernetes.io/",
    "beta.kubernetes.io/",
    "node-role.kubernetes.io/",
    "node.kubernetes.io/",
    "extensions.talos.dev/",
];

pub(super) fn all(swap: &Swap, facts: &Facts, run: &RunInfo) -> Vec<Finding> {
    let mut out = Findings::of(System::Talos);
    source(swap, facts, &mut out);
    machine(swap, facts, run, &mut out);
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
    beside(swap, facts, &mut out);
    kept(swap, facts, &mut out);
    quorum(swap, facts, run, &mut out);
    let mut all = out.all;
    let mut out = Findings::of(System::Kubernetes);
    match &facts.kube {
        Ok(kube) => kubernetes(swap, facts, kube, run, &mut out),
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

fn old_node<'k>(swap: &Swap, kube: &'k Kube) -> Option<&'k Node> {
    kube.round.nodes.iter().find(|node| node.meta.name == swap.host())
}

/// The configuration, and who may send it.
fn source(swap: &Swap, facts: &Facts, out: &mut Findings) {
    let name = swap.new.name();
    let wanted = match &facts.wanted {
        Ok(wanted) => wanted,
        Err(why) => {
            let help = why.help.clone().unwrap_or_else(|| "correct `config` of `new`".into());
            return out.problem(&known::SOURCE, on::APPLY, format!("{name}: {}", why.text), help);
        }
    };
    let taken = swap.new.machine.dial.host == swap.old.dial.host;
    if let Some(endpoint) =
        wanted.endpoint.as_deref().filter(|endpoint| host_of(endpoint) == swap.old.dial.host && !taken)
    {
        out.problem(
            &known::ENDPOINT,
            on::SHUTDOWN,
            format!("the control plane's endpoint is {endpoint}, which is {} itself: every kubelet and kubeconfig points there", swap.goer()),
            format!(
                "give `new` that address too, or move the endpoint to a name or a virtual address first, in the configurations of all \
                 nodes ({})",
                swap.old.talosctl("patch machineconfig")
            ),
        );
    }
    match &facts.ours {
        Err(why) => out.unknown(on::APPLY, &format!("the talosconfig of {}", swap.old.cluster), why),
        Ok((roles, same)) => {
            if *same == Some(false) {
                out.problem(
                    &known::AUTHORITY,
                    on::APPLY,
                    format!(
                        "the talosconfig of {} is of another authority than the configuration of {name}",
                        swap.old.cluster
                    ),
                    "take the configuration that was made with the secrets of this cluster",
                );
            }
            if !roles.iter().any(|role| role == rights::ROLE) {
                out.problem(
                    &known::ROLE,
                    on::LEAVE,
                    format!(
                        "the talosconfig's certificate has the roles {}, and {} is needed",
                        roles.join(", "),
                        rights::ROLE
                    ),
                    "name a talosconfig with that role in the site file (`pvemig privileges` says what for)",
                );
            }
        }
    }
}

/// `192.168.4.20` of `https://192.168.4.20:6443`.
fn host_of(endpoint: &str) -> &str {
    let rest = endpoint.trim_start_matches("https://").trim_end_matches('/');
    match rest.strip_prefix('[') {
        Some(inner) => inner.split(']').next().unwrap_or(inner),
        None => rest.rsplit_once(':').map_or(rest, |(host, _)| host),
    }
}

/// The new machine.
fn machine(swap: &Swap, facts: &Facts, run: &RunInfo, out: &mut Findings) {
    let bare = &swap.new;
    let Some(new) = out.need(on::SWAP, &format!("{} how it stands", swap.comer()), &facts.new) else { return };
    let given = run.consents.contains(&Thing::disk(&bare.disk));
    let consent = |out: &mut Findings| {
        if !given {
            let text =
                format!("the disk {} of {} is wiped by its installation, whatever is on it", bare.disk, bare.name());
            out.problem(
                &known::CONSENT,
                on::APPLY,
                text,
                format!("add `--destroy {}` where it may be", Thing::disk(&bare.disk)),
            );
        }
    };
    match new {
        New::In(_) => {}
        New::Away => {
            consent(out);
            out.note(on::SWAP, format!("{} does not answer yet: 05 asks for it", swap.comer()));
        }
        New::Elsewhere(disk) => out.problem(
            &known::ELSEWHERE,
            on::SWAP,
            format!("{} is a node already, and runs from {disk}, not from disk {}", bare.name(), bare.disk),
            "take another machine; only where this one is no node yet, correct `disk` of `new`",
        ),
        New::Foreign(problem) => out.borrowed(&known::ELSEWHERE, on::SWAP, problem.clone()),
        New::Waits(waits) => {
            for problem in &waits.another {
                out.borrowed(&known::ANOTHER, on::SWAP, problem.clone());
            }
            match &waits.disk {
                Err(problem) => out.borrowed(&known::DISK, on::SWAP, problem.clone()),
                Ok(chosen) => {
                    let lacks = disk_unconsented(bare, chosen, |thing| run.consents.contains(thing));
                    lacks.into_iter().for_each(|problem| out.borrowed(&known::CONSENT, on::APPLY, problem));
                }
            }
            if let Some(problem) = &waits.image {
                out.borrowed(&known::IMAGE, on::APPLY, problem.clone());
            }
            match &waits.trial {
                Ok(warnings) => {
                    warnings.iter().for_each(|line| out.note(on::APPLY, format!("{}: {line}", bare.name())))
                }
                Err(why) => out.problem(
                    &known::REFUSED,
                    on::APPLY,
                    format!("{} would not take its configuration: {why}", bare.name()),
                    format!("correct {}", bare.source.shown()),
                ),
            }
        }
    }
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
        Life::Silent(how) => match life.unsure(swap, run) {
            Some(problem) => out.borrowed(&known::CONSENT, on::SHUTDOWN, problem),
            None => out.note(on::SHUTDOWN, format!("{name} is silent: {how}; that it is off is your word")),
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
fn guarded(swap: &Swap, facts: &Facts) -> &'static str {
    let member = facts.etcd.members().iter().any(|name| name == swap.host());
    if member || votes(&facts.etcd).is_none() { on::LEAVE } else { on::SHUTDOWN }
}

/// What comes must not be a part of the cluster already that is counted on, nor what goes.
fn beside(swap: &Swap, facts: &Facts, out: &mut Findings) {
    let (name, key) = (swap.new.name(), guarded(swap, facts));
    let members = facts.etcd.members();
    let is_member = |name: &str| members.iter().any(|member| member == name);
    if let Ok(New::In(differs)) = &facts.new
        && !swap.same_name()
    {
        let lives = matches!(facts.life, Ok(Life::Alive(_) | Life::Going | Life::Unknown(_)));
        if is_member(swap.host()) || lives {
            let text = if is_member(&swap.new.machine.node.name) {
                let left = members.iter().filter(|member| *member != swap.host()).count();
                format!(
                    "{name} is a voter of {} already: with {} gone {left} are left",
                    swap.old.cluster, swap.old.name
                )
            } else {
                format!(
                    "{name} is a node of {} already: nothing comes in the place of {}",
                    swap.old.cluster, swap.old.name
                )
            };
            out.problem(&known::PART, key, text, "take another machine as `new`, one that is no node yet");
        }
        if let Some(problem) = differs {
            out.borrowed(&known::PART, key, problem.clone());
        }
    }
    for owner in &facts.disk_of {
        out.problem(
            &known::PART,
            key,
            format!("{} is a disk of {owner}, not of the machine that comes", swap.new.disk),
            "correct `disk` of `new` in the parameters: the serial number of a disk of the new machine",
        );
    }
}

/// Whether its VM would be started again.
fn kept(swap: &Swap, facts: &Facts, out: &mut Findings) {
    let (Some(vm), Some(kept)) = (&swap.old.vm, &facts.kept) else { return };
    if out.need(on::SHUTDOWN, &format!("vm {}", vm.vmid), kept) == Some(&true) {
        out.borrowed(&known::KEPT_UP, on::SHUTDOWN, managed(vm.vmid));
    }
}

/// The votes now, without the old one, and with the new one.
fn quorum(swap: &Swap, facts: &Facts, run: &RunInfo, out: &mut Findings) {
    let up = matches!(facts.life, Ok(Life::Alive(_) | Life::Going));
    let comes = facts.wanted.as_ref().ok().map(|wanted| wanted.is_control_plane());
    let was_worker =
        || facts.kube.as_ref().ok().and_then(|kube| old_node(swap, kube)).is_some_and(|node| !node.is_control_plane());
    let voter = match leave(swap.old(), swap.host(), up, &facts.etcd) {
        Leave::NoCluster => {
            let why: Vec<String> = facts.etcd.silent().map(|(name, why)| format!("{name}: {why}")).collect();
            out.problem(
                &known::QUORUM,
                on::LEAVE,
                format!("no control plane tells the members of etcd ({})", why.join("; ")),
                "let one of them answer; where they are gone for good, `pvemig explain quorum-recover`",
            );
            return;
        }
        Leave::NoMember => {
            let (now, more) = (votes(&facts.etcd), comes == Some(true) && !matches!(facts.new, Ok(New::In(_))));
            if let Some(now) = now.filter(|_| more) {
                let more = Votes { voters: now.voters + 1, healthy: now.healthy + 1 };
                out.note(
                    on::LEAVE,
                    format!("etcd has {now}, and none is {}; with {} {more}", swap.goer(), swap.comer()),
                );
            }
            let node = facts.kube.as_ref().map(|kube| old_node(swap, kube).is_some());
            if node == Ok(false)
                && matches!(&facts.life, Ok(life) if life.is_down())
                && matches!(facts.new, Ok(New::Away | New::Waits(_)))
                && now.is_some()
            {
                out.problem(
                    &known::NOTHING,
                    on::APPLY,
                    format!(
                        "{} is no node and no member of {} any more: there is nothing to replace",
                        swap.goer(),
                        swap.old.cluster
                    ),
                    "a machine that comes beside the others is a node of a `cluster-build`; after an abandoned run of this too",
                );
            }
            false
        }
        Leave::Shut(problems) => {
            problems.into_iter().for_each(|problem| out.borrowed(&known::QUORUM, on::LEAVE, problem));
            true
        }
        Leave::Open { sum, then, .. } => {
            let more = Votes { voters: then.voters + 1, healthy: then.healthy + 1 };
            let more = if comes == Some(true) { format!("; with {} {more}", swap.comer()) } else { String::new() };
            out.note(on::LEAVE, format!("{sum}{more}"));
            if !run.consents.contains(&swap.member()) {
                out.borrowed(&known::CONSENT, on::LEAVE, member_unconsented(swap));
            }
            true
        }
    };
    if comes == Some(false) && voter || comes == Some(true) && !voter && was_worker() {
        let (was, is) = if voter { ("a control plane", "a worker") } else { ("a worker", "a control plane") };
        out.problem(
            &known::KIND,
            on::APPLY,
            format!("{} is {was}, and the configuration of {} is that of {is}", swap.goer(), swap.new.name()),
            "name the configuration of the same kind; another kind of node is added by a `cluster-build`",
        );
    }
}

/// What Kubernetes has of the old node, and what becomes of it.
fn kubernetes(swap: &Swap, facts: &Facts, kube: &Kube, run: &RunInfo, out: &mut Findings) {
    let host = swap.host();
    let lacking = out.need(on::DRAIN, "what these credentials may do", &kube.lacking);
    if let Some(lacking) = lacking.filter(|lacking| !lacking.is_empty()) {
        let said: Vec<String> = lacking.iter().map(ToString::to_string).collect();
        out.problem(
            &known::RIGHT_KUBERNETES,
            on::DRAIN,
            format!("the kubeconfig of cluster {} may not {}", swap.old.node.cluster, said.join("; ")),
            "give its user a role with these verbs (`pvemig privileges` prints them), or name another context in the site file",
        );
    }
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
            out.note(
                on::NODE,
                format!("{text}; `kubectl label node {} KEY=VALUE` sets them", swap.new.machine.node.name),
            );
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_held_against_an_address() {
        let cases = [
            ("https://192.168.4.20:6443", "192.168.4.20"),
            ("https://[fd00::20]:6443", "fd00::20"),
            ("https://cluster.lan:6443/", "cluster.lan"),
            ("https://cluster.lan", "cluster.lan"),
        ];
        assert_eq!(cases.len(), 4);
        for (endpoint, host) in cases {
            assert_eq!(host_of(endpoint), host);
        }
    }
}
