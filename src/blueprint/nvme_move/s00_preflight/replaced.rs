//! What is found of an installation on another system disk, before anything is switched off.

use crate::base::check::Problem;
use crate::base::drives::{Drive, Purpose, name, predicted};
use crate::base::permit::{System, Thing};
use crate::blueprint::finding::{Finding, Findings, asked};
use crate::blueprint::install::Wanted;
use crate::blueprint::quorum::{Said, judge};
use crate::engine::step::RunInfo;
use crate::estate::Estate;

use super::super::anew::{Anew, forgotten, in_use, selectors};
use super::super::{known, on};
use super::Preflight;
use super::ask::{Facts, Seen};

pub(super) async fn look(p: &Preflight, cx: &Estate, facts: &Facts, run: &RunInfo) -> Vec<Finding> {
    let Some(anew) = &p.anew else { return Vec::new() };
    let mut out = Findings::of(System::Talos);
    // What keeps the drives from being told has a line of its own.
    let Ok(seen) = &facts.seen else { return Vec::new() };
    // Once it is installed nothing is to be done.
    let runs = |drive: &&Drive| drive.purposes.contains(&Purpose::System) && drive.serial() == anew.bare.disk;
    if seen.live.drives.iter().any(|drive| runs(&drive)) {
        return Vec::new();
    }
    consent(anew, seen, run, &mut out);
    voters(p, facts, &mut out);
    let wanted = asked(anew.bare.wanted().await);
    let what = format!("the configuration that {} is installed with", p.machine.name);
    if let Some(wanted) = out.need(on::APPLY, &what, &wanted) {
        config(p, cx, (anew, wanted), (seen, facts), &mut out);
    }
    out.all
}

/// What 06a would ask for with the machine open and drained.
fn consent(anew: &Anew, seen: &Seen, run: &RunInfo, out: &mut Findings) {
    let (name, thing) = (anew.bare.name(), Thing::disk(&anew.bare.disk));
    let disk = &anew.bare.disk;
    // One that is in use has a line of its own: no consent gives it.
    if run.consents.contains(&thing) || !in_use(name, disk, &[&seen.live]).is_empty() {
        return;
    }
    let holds = match seen.live.drives.iter().find(|drive| drive.serial() == disk) {
        None => "which is not in the machine yet: what is on it is looked at once it is in".to_owned(),
        Some(drive) => match drive.parts.known().map(Vec::as_slice) {
            None => format!("on which Talos does not tell what is: {}", drive.shown()),
            Some([]) => format!("on which Talos recognises nothing: {}", drive.shown()),
            Some(parts) => format!("which has {} partitions: {}", parts.len(), drive.shown()),
        },
    };
    let migration = run.migration.as_deref().unwrap_or("MIGRATION");
    out.problem(
        &known::CONSENT,
        on::INSTALL,
        format!("an installation of {name} wipes disk {disk}, {holds}"),
        format!("where all of that may be lost: `pvemig run {migration} --destroy {thing}`; else name another disk"),
    );
}

/// It leaves etcd for a while: what is left must be two voters that are well.
fn voters(p: &Preflight, facts: &Facts, out: &mut Findings) {
    let name = &p.machine.name;
    let verdict = judge(name, &facts.etcd);
    let besides = judge(name, &facts.etcd).without_majority();
    for problem in verdict.problems.into_iter().filter(|problem| p.without_api && !besides.contains(problem)) {
        let help = format!("{}; or move the system disk as it is (`scenario: system-moved`)", problem.help);
        let text = format!("{} (it leaves etcd, and joins as a new member)", problem.text);
        out.borrowed(&known::QUORUM, on::LEAVE, Problem { text, help, ..problem });
    }
}

/// The configuration, on the drives that will be there.
fn config(
    p: &Preflight,
    cx: &Estate,
    (anew, wanted): (&Anew, &Wanted),
    (seen, facts): (&Seen, &Facts),
    out: &mut Findings,
) {
    let (machine, shown) = (&p.machine.name, anew.bare.source.shown());
    let mut problems = forgotten(machine, &shown, &wanted.facts, &p.plan, &seen.live);
    if let (Ok(talos), Ok(named)) = (&facts.talos, name(&p.plan, &seen.live)) {
        let then = predicted(&p.plan, &named, &seen.live, &talos.disks);
        problems.extend(selectors(&shown, &wanted.facts, &anew.bare.disk, &then));
    }
    let votes = match facts.etcd.said_by(machine) {
        Some(Said::Worker) => Some(false),
        Some(Said::View(_)) => Some(true),
        Some(Said::Silent(_)) | None => None,
    };
    if let Some(votes) = votes.filter(|votes| *votes != wanted.is_control_plane()) {
        let (is, of) = if votes { ("a control plane", "a worker") } else { ("a worker", "a control plane") };
        let text = format!("{machine} is {is}, and {shown} is the configuration of {of}");
        problems.push(Problem::new(text, "name the configuration that is made for such a node"));
    }
    let ours = cx
        .talosconfig(&p.machine.cluster)
        .is_ok_and(|context| wanted.ca.as_deref().is_some_and(|ca| context.is_of(ca)));
    if !ours {
        let text = format!("{shown} names no authority that the talosconfig of {} is of", p.machine.cluster);
        problems.push(Problem::new(text, "take the configuration that was made from the secrets of this cluster"));
    }
    problems.into_iter().for_each(|problem| out.borrowed(&known::CONFIG, on::APPLY, problem));
}
