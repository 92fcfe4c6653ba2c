//! The findings, drawn from what was asked.

use std::path::Path;

use crate::base::check::Problem;
use crate::base::drives::{Plan, Scenario};
use crate::base::permit::System;
use crate::blueprint::cordon::{LETS, sort};
use crate::blueprint::finding::{Asked, Finding, Findings};
use crate::blueprint::hold::{Held, held};
use crate::blueprint::off::Second;
use crate::blueprint::own_vm;
use crate::blueprint::quorum::{Etcd, Said, judge};
use crate::blueprint::rights::{KubeNeed, Weight};
use crate::blueprint::stand::missing;
use crate::engine::step::RunInfo;
use crate::k8s::drain::plan;
use crate::site::OutOfBand;

use super::super::behind::Behind;
use super::super::left_off::LeftOff;
use super::super::replicas::{self, Mayastor};
use super::super::{known, on, rights};
use super::Preflight;
use super::ask::{Facts, KubeFacts, TalosFacts, VmFacts};
use super::drives::{drives, selectors, told_apart};
use super::firmware::firmware;
use super::safe::way_back;

/// What is known without asking the estate.
pub(super) struct Here<'h> {
    pub(super) out_of_band: Option<&'h OutOfBand>,
    /// Where the runs of this site are.
    pub(super) runs: &'h Path,
    /// This run has its snapshot of etcd already.
    pub(super) kept: bool,
    /// Another run has the machine off.
    pub(super) held: Option<&'h LeftOff>,
}

pub(super) fn all(p: &Preflight, facts: &Facts, run: &RunInfo, here: &Here<'_>) -> Vec<Finding> {
    let mut all = Vec::new();
    let name = &p.machine.name;
    let (held, mut out) = (here.held.filter(|_| facts.talos.is_err() && !facts.vm_runs()), Findings::of(System::Talos));
    if let Some(held) = held {
        out.borrowed(&known::HELD_OFF, on::BACKUP, held.problem());
    }
    all.extend(out.all);
    all.extend(node(p, &facts.talos).all);
    let mut seen = Findings::of(System::Talos);
    if let Some(of) = seen.need(on::MOVE, &format!("{name} its drives"), &facts.seen) {
        // By the ports that are known, and with what the site file says of now.
        let plan = Plan { current: p.plan.current.clone(), ..of.known.plan.clone() };
        let of_drives = drives(name, &plan, &of.known.before, &of.live).all.into_iter().map(|mut finding| {
            // What an open run is about is its own to put right.
            let elsewhere = finding.known.is_some_and(|known| known.name == known::ELSEWHERE.name);
            if let Some(goes_on) = here.held.and_then(LeftOff::goes_on).filter(|_| elsewhere) {
                finding.help = Some(goes_on);
            }
            finding
        });
        all.extend(of_drives);
        all.extend(of.told.iter().flat_map(|told| told_apart(told, &of.live).all));
        all.extend(firmware(p, facts, of).all);
        if let (Ok(talos), Some(config)) = (&facts.talos, facts.talos.as_ref().ok().and_then(TalosFacts::config)) {
            let what = format!("{name} which disks its machine configuration names");
            if let Some(config) = seen.need(on::SHUTDOWN, &what, &config) {
                all.extend(selectors(&p.plan, &of.live, config, &talos.system, &talos.disks).all);
            }
        }
    }
    all.extend(seen.all);
    all.extend(quorum(p, &facts.etcd).all);
    all.extend(way_back(name, &p.peers, &facts.etcd, &facts.room, here.runs, here.kept).all);
    match &facts.kube {
        Ok(kube) => all.extend(kubernetes(p, kube, run).all),
        Err(why) => {
            let mut out = Findings::of(System::Kubernetes);
            out.unknown(on::DRAIN, &format!("Kubernetes cluster {}", p.machine.node.cluster), why);
            all.extend(out.all);
        }
    }
    all.extend(mayastor(p, &facts.mayastor).all);
    all.extend(power(p, &facts.power, here.out_of_band, &facts.etcd).all);
    if let Some(vm) = &facts.vm {
        all.extend(virtual_machine(p, vm, &facts.talos, held.is_some()).all);
    }
    all.extend(less_critical(p, &facts.etcd, &facts.others).all);
    all
}

/// What the node says of itself.
fn node(p: &Preflight, talos: &Asked<TalosFacts>) -> Findings {
    let mut out = Findings::of(System::Talos);
    let name = &p.machine.name;
    let Some(f) = out.need(on::BACKUP, &format!("Talos node {name}"), talos) else { return out };
    if f.roles.iter().any(|role| role == rights::ROLE) {
        let what = format!("{name} its machine configuration");
        if let Some(configs) = out.need(on::SHUTDOWN, &what, &f.configs)
            && let Err(problem) = configs.with_a_boot(&p.machine, None)
        {
            out.borrowed(&known::CONFIG_WAITS, on::SHUTDOWN, problem);
        }
    } else {
        let roles = if f.roles.is_empty() { "none".to_owned() } else { f.roles.join(", ") };
        out.problem(
            &known::ROLE,
            on::BACKUP,
            format!("the talosconfig's certificate has the roles {roles} on {name}, and {} is needed", rights::ROLE),
            "name a talosconfig with that role in the site file (`pvemig privileges` says what for)",
        );
    }
    let lines = missing(&p.machine, &f.status, &f.services);
    if !lines.is_empty() {
        let help = format!(
            "mend that first: `pvemig survey {name}` names the cause, {} what waits",
            p.machine.talosctl("services")
        );
        out.problem(&known::NOT_WHOLE, on::SHUTDOWN, lines.join("; "), help);
    }
    if let Some(medium) = p.medium.as_ref().filter(|medium| medium.version != f.version) {
        out.problem(
            &known::MEDIUM,
            on::MOVE,
            format!("the medium has Talos {}, and {name} runs {}", medium.version, f.version),
            "make a medium of the version that runs (https://factory.talos.dev), and write its version in `medium`",
        );
    }
    out
}

/// Whether etcd can do without it for as long as somebody works on it.
fn quorum(p: &Preflight, etcd: &Etcd) -> Findings {
    let mut out = Findings::of(System::Talos);
    let name = &p.machine.name;
    let verdict = judge(name, etcd);
    // The only voter leads, and has nobody to hand that to.
    if verdict.leads && etcd.by_vote().0.len() > 1 {
        out.note(on::SHUTDOWN, format!("{name} leads etcd, and hands that over before it goes off"));
    }
    if p.plan.scenario == Scenario::SystemReplaced && etcd.knows(name) && etcd.by_vote().0.len() == 1 {
        out.problem(
            &known::ONLY_VOTER,
            on::LEAVE,
            format!("{name} is the only voter of etcd: installed anew it has nobody to join, and the cluster is gone"),
            "add a control plane first; or keep its disk (`scenario: system-moved`). From a snapshot alone `quorum-recover` leads out",
        );
    }
    let all = verdict.problems.clone();
    let besides = verdict.without_majority();
    for problem in all {
        if besides.contains(&problem) {
            out.borrowed(&known::QUORUM, on::SHUTDOWN, problem);
        } else if p.without_api {
            out.note(
                on::SHUTDOWN,
                format!("the Kubernetes API is away for as long as {name} is off: {}", problem.text),
            );
        } else {
            let help = format!("{}; or, where the API may be away for so long, `without_api: true`", problem.help);
            out.borrowed(&known::API_AWAY, on::SHUTDOWN, Problem { help, ..problem });
        }
    }
    out
}

/// The node in Kubernetes, and what a drain does to what runs on it.
fn kubernetes(p: &Preflight, kube: &KubeFacts, run: &RunInfo) -> Findings {
    let mut out = Findings::of(System::Kubernetes);
    let name = &p.machine.node.name;
    if let Some(lacking) = out.need(on::DRAIN, "what these credentials may do in Kubernetes", &kube.lacking) {
        let needed = |need: &&KubeNeed| need.weight == Weight::Needed && lacking.contains(&need.right);
        for need in rights::kubernetes(&p.machine, p.measure.as_ref()).iter().filter(needed) {
            let step = need.steps.first().copied().unwrap_or(on::DRAIN);
            out.problem(
                &known::RIGHT_KUBERNETES,
                step,
                format!(
                    "these credentials may not {} in `{}`, for {}",
                    need.right, p.machine.node.cluster, need.purpose
                ),
                "give them a role with that; `pvemig privileges` prints all that is needed",
            );
        }
    }
    let Some(found) = out.need(on::DRAIN, &format!("node {name}"), &kube.node) else { return out };
    let Some(node) = found else {
        let text = format!("kubernetes `{}` has no node {name}", p.machine.node.cluster);
        let help =
            format!("`kubectl get nodes` shows the names; `node_name` of {} in the site file sets it", p.machine.name);
        out.problem(&known::NODE_MISSING, on::DRAIN, text, help);
        return out;
    };
    match held(&format!("node {name}"), &node.meta, run) {
        Ok(Held::Theirs(_, problem)) | Err(problem) => out.borrowed(&known::NODE_HELD, on::DRAIN, problem),
        Ok(Held::No) if node.unschedulable => {
            out.note(on::DRAIN, format!("node {name} is cordoned already, and stays so afterwards"));
        }
        Ok(_) => {}
    }
    let pods = out.need(on::DRAIN, &format!("what runs on node {name}"), &kube.pods);
    let round = out.need(on::DRAIN, "what is around the pods", &kube.round);
    let (Some(pods), Some(round)) = (pods, round) else { return out };
    let left = sort(pods, plan(name, pods, round, LETS), "");
    for line in left.notes {
        out.note(on::DRAIN, line);
    }
    for wait in left.waits {
        out.note(on::DRAIN, format!("pod {wait}: evicted as soon as that allows it"));
    }
    for problem in left.refuses {
        out.borrowed(&known::POD_STAYS, on::DRAIN, problem);
    }
    out
}

/// What Mayastor keeps on the node is elsewhere too, and nothing of it is being rebuilt.
fn mayastor(p: &Preflight, asked: &Asked<Option<Mayastor>>) -> Findings {
    let mut out = Findings::of(System::Kubernetes);
    let name = &p.machine.node.name;
    let Some(Some(mayastor)) = out.need(on::SHUTDOWN, "the pools of Mayastor", asked) else { return out };
    for pool in mayastor.pools.iter().filter(|pool| pool.node == *name) {
        let by_place = |device: &&str| device.starts_with("/dev/nvme") || device.starts_with("/dev/disk/by-path/");
        for device in pool.devices().filter(by_place) {
            out.problem(
                &known::POOL,
                on::SHUTDOWN,
                format!("pool {} names its disk by {device}, which may be another drive after the move", pool.name),
                "make the pool with the drive's name below /dev/disk/by-id, once its volumes are elsewhere",
            );
        }
    }
    let Some(volumes) = out.need(on::SHUTDOWN, "the volumes of Mayastor", &mayastor.volumes) else { return out };
    for (known, problem) in replicas::amiss(name, volumes) {
        out.borrowed(known, on::SHUTDOWN, problem);
    }
    out
}

/// Something else than its own API tells whether the machine is on, and tells it rightly now.
fn power(p: &Preflight, power: &Asked<Second>, out_of_band: Option<&OutOfBand>, etcd: &Etcd) -> Findings {
    let mut out = Findings::of(if p.machine.vm.is_some() { System::Proxmox } else { System::Talos });
    let name = &p.machine.name;
    if let (None, None) = (&p.machine.vm, out_of_band) {
        out.problem(
            &known::SECOND_WAY,
            on::SHUTDOWN,
            format!("nothing but Talos tells whether {name} is on: what is silent alone may be cut off, and run on"),
            format!(
                "add `out_of_band:` to {name} in the site file: `power:` with the command of its management controller, or \
                 `at_the_machine:` where somebody stands before it"
            ),
        );
        return out;
    }
    // Who hears its kubelet goes off with it, or cannot write that down.
    let verdict = judge(name, etcd);
    let all = verdict.problems.clone();
    let besides = verdict.without_majority();
    let lost = all.iter().any(|problem| !besides.contains(problem));
    if let (true, Some(OutOfBand::AtTheMachine(_))) = (lost, out_of_band) {
        out.problem(
            &known::SECOND_WAY,
            on::SHUTDOWN,
            format!(
                "with {name} off etcd has no majority, and nobody is left who would hear that its kubelet is silent"
            ),
            format!(
                "name something else that sees its power: `out_of_band: {{ power: .. }}` of {name} in the site file"
            ),
        );
        return out;
    }
    let Some(second) = out.need(on::SHUTDOWN, &format!("whether {name} is on"), power) else { return out };
    match (second, out_of_band) {
        // A VM that does not run has a line of its own; a kubelet tells only that it was not heard.
        (Second::On(_), _) => {}
        (_, Some(OutOfBand::AtTheMachine(place))) => {
            out.note(on::SHUTDOWN, format!("whether {name} is off somebody has to see before it: {place}"));
        }
        (Second::Off(sign), Some(_)) => out.problem(
            &known::SECOND_WAY,
            on::SHUTDOWN,
            format!("{sign}, and {name} is on: it tells of another machine, or its words are the wrong way round"),
            "correct `out_of_band` of the node in the site file",
        ),
        (Second::Unknown(why), Some(_)) => out.problem(
            &known::SECOND_WAY,
            on::SHUTDOWN,
            format!("whether {name} is on the second way does not tell: {why}"),
            "try the command of its `out_of_band` by hand, and correct it in the site file",
        ),
        (Second::Off(_) | Second::Unknown(_), None) => {}
    }
    out
}

/// The VM that the node runs in.
fn virtual_machine(p: &Preflight, vm: &Asked<VmFacts>, talos: &Asked<TalosFacts>, held: bool) -> Findings {
    let mut out = Findings::of(System::Proxmox);
    let Some(vmid) = p.machine.vm.as_ref().map(|vm| vm.vmid) else { return out };
    let Some(f) = out.need(on::SHUTDOWN, &format!("vm {vmid}"), vm) else { return out };
    // A node that does not answer has a line of its own.
    let problems = match talos {
        Ok(talos) => own_vm::amiss(&p.machine, vmid, f.runs, f.uuid.as_deref(), talos.uuid.as_deref()),
        Err(_) if f.runs || held => Vec::new(),
        Err(_) => vec![own_vm::off(&p.machine.name, vmid)],
    };
    for problem in problems {
        out.borrowed(&known::VM_AMISS, on::SHUTDOWN, problem);
    }
    out.all.extend(given(p, vmid, &f.behind).all);
    let Some(may) = &f.may else { return out };
    let what = format!("what {} may do with vm {vmid}", f.caller);
    let Some(held) = out.need(on::SHUTDOWN, &what, may) else { return out };
    for need in rights::proxmox(vmid) {
        let any = need.privilege.names(None);
        if !any.iter().any(|name| held.has(&need.path, name)) {
            let any = any.join(" or ");
            out.problem(
                &known::PRIVILEGE,
                need.steps.first().copied().unwrap_or(on::SHUTDOWN),
                format!("{} lacks {any} on {}, for {}", f.caller, need.path, need.purpose),
                format!(
                    "give it a role with {any} on {} (`pvemig privileges` prints it); a token with privilege separation needs it itself",
                    need.path
                ),
            );
        }
    }
    out
}

/// What the VM is given of its host, and who goes off with that.
fn given(p: &Preflight, vmid: u32, behind: &Asked<Behind>) -> Findings {
    let mut out = Findings::of(System::Proxmox);
    let Some(behind) = out.need(on::SHUTDOWN, &format!("what vm {vmid} is given of its host"), behind) else {
        return out;
    };
    let host = &behind.host;
    for (text, help) in &behind.unclear {
        out.problem(&known::PASSTHROUGH, on::SHUTDOWN, text, help);
    }
    for peer in &behind.peers {
        out.problem(
            &known::WITH_ITS_HOST,
            on::MOVE,
            format!("{peer} runs on {host} too, which has to be switched off for the drives of {}", p.machine.name),
            format!("migrate it to another host first, or have it shut down: `pvemig survey {peer}`"),
        );
    }
    if !behind.beside.is_empty() {
        out.note(on::MOVE, format!("{host} has to be switched off, and these with it: {}", behind.beside.join(", ")));
    }
    out
}

/// A worker with drives to move comes before a control plane.
fn less_critical(p: &Preflight, etcd: &Etcd, done: &[Asked<bool>]) -> Findings {
    let mut out = Findings::of(System::Talos);
    let is_worker = |name: &str| matches!(etcd.said_by(name), Some(Said::Worker));
    if p.first || !etcd.knows(&p.machine.name) {
        return out;
    }
    for (other, done) in p.others.iter().zip(done).filter(|(other, _)| is_worker(&other.machine.name)) {
        let name = &other.machine.name;
        match done {
            Ok(true) => {}
            Ok(false) => out.problem(
                &known::LESS_CRITICAL,
                on::SHUTDOWN,
                format!(
                    "{name} is a worker, and its drives are not moved yet ({}): {} has a vote in etcd",
                    other.migration, p.machine.name
                ),
                format!("`pvemig run {}` first; or `first: true` in this migration", other.migration),
            ),
            Err(why) => out.note(
                on::SHUTDOWN,
                format!("whether the drives of worker {name} are moved already cannot be told: {}", why.text),
            ),
        }
    }
    out
}
