//! GitOps: who could put back what is changed, whether they are well, and who else holds them.

use crate::base::permit::System;
use crate::engine::step::RunInfo;
use crate::k8s::flux::{FluxKind, FluxObject};

use super::super::hold::{Held, held};
use super::Preflight;
use super::ask_kubernetes::{FluxFacts, KubeFacts};
use super::finding::{Findings, on};
use super::known;

pub(super) fn find(p: &Preflight, f: &KubeFacts, run: &RunInfo) -> Findings {
    let mut out = Findings::of(System::Kubernetes);
    let what = format!("Flux of cluster {}", p.work.cluster);
    let Some(flux) = out.need(on::SUSPEND, &what, &f.flux) else { return out };
    for other in f.others.iter().flatten() {
        match other {
            Ok(note) => out.note(on::SUSPEND, note),
            Err(problem) => out.borrowed(&known::OTHER_APPLIER, on::SUSPEND, problem.clone()),
        }
    }
    if p.gitops.is_none() {
        undeclared(p, flux, &mut out);
        return out;
    }
    let mut well = Vec::new();
    for owner in &flux.owners {
        match held(&owner.title(), &owner.meta, run) {
            Ok(Held::Theirs(_, problem)) | Err(problem) => out.borrowed(&known::HELD_ELSEWHERE, on::SUSPEND, problem),
            Ok(Held::Ours(mark) | Held::Left(mark)) => {
                let text = format!("{} is held by run {}, which 00b takes over", owner.title(), mark.run);
                out.note(on::SUSPEND, format!("{text} and 10 takes back"));
            }
            Ok(Held::No) if owner.is_suspended() => suspended(p, flux, owner, &mut out),
            Ok(Held::No) if owner.is_ready() => well.push(owner.title()),
            Ok(Held::No) => unwell(p, flux, owner, &mut out),
        }
    }
    if !well.is_empty() {
        out.note(on::SUSPEND, format!("Flux is well, and 00b suspends it until 10: {}", well.join(", ")));
    }
    if p.edits.is_empty() {
        return out;
    }
    if flux.applies.is_empty() && f.workload().is_some() {
        out.problem(
            &known::NOTHING_APPLIES,
            on::DEPLOY,
            format!("nothing of Flux applies {}: what is pushed would not reach it", p.work),
            "correct `workload`, or take `manifests` out of the migration and change the workload by hand",
        );
    }
    source(p, flux, &mut out);
    out
}

/// Without `gitops:` in the site file nothing may own the workload.
fn undeclared(p: &Preflight, flux: &FluxFacts, out: &mut Findings) {
    if flux.owners.is_empty() {
        return out.note(on::SUSPEND, format!("the site file names no GitOps for {}", p.work.cluster));
    }
    let owners = flux.owners.iter().map(FluxObject::title).collect::<Vec<_>>().join(", ");
    out.problem(
        &known::GITOPS_UNDECLARED,
        on::SUSPEND,
        format!("{owners} could put back what is changed, and the site file names no GitOps for {}", p.work.cluster),
        format!("add `gitops: {{ kind: flux, checkout: NAME, source: .. }}` to kubernetes.{}", p.work.cluster),
    );
}

/// Whether what is pushed reaches the workload by this owner.
fn carries(p: &Preflight, flux: &FluxFacts, owner: &FluxObject) -> bool {
    !p.edits.is_empty() && flux.applies.contains(&owner.title())
}

fn suspended(p: &Preflight, flux: &FluxFacts, owner: &FluxObject, out: &mut Findings) {
    let by = owner.suspended_by().first().map(|by| format!(" by {by}")).unwrap_or_default();
    let text = format!("{} is suspended{by}, not by pvemig, and stays so", owner.title());
    if carries(p, flux, owner) {
        let kind = owner.kind.api().1.to_lowercase();
        let help = format!("`flux resume {kind} {} -n {}`, where that may be", owner.meta.name, owner.meta.namespace);
        out.problem(
            &known::OWNER_SUSPENDED,
            on::DEPLOY,
            format!("{text}: what is pushed would not reach {}", p.work),
            help,
        );
    } else {
        out.note(on::SUSPEND, text);
    }
}

fn unwell(p: &Preflight, flux: &FluxFacts, owner: &FluxObject, out: &mut Findings) {
    let stalled = owner.condition("Stalled").is_some_and(|c| c.is_true());
    // A health check fails because the workload is not well, which the migration may be the cure for.
    let failed = owner.condition("Ready").is_some_and(|c| c.status == "False" && c.reason != "HealthCheckFailed");
    if (stalled || failed) && carries(p, flux, owner) {
        let help = format!(
            "`flux get all -n {}` says more; as it is, what is pushed would not reach {}",
            owner.meta.namespace, p.work
        );
        out.problem(&known::OWNER_UNWELL, on::DEPLOY, owner.summary(), help);
    } else {
        out.note(on::SUSPEND, owner.summary());
    }
}

fn source(p: &Preflight, flux: &FluxFacts, out: &mut Findings) {
    let Some(gitops) = &p.gitops else { return };
    let title = format!("{} {}/{}", FluxKind::GitRepository.api().1, gitops.namespace, gitops.name);
    let Some(source) = &flux.source else {
        let help = "correct `gitops.source` of the cluster in the site file";
        return out.problem(&known::SOURCE_MISSING, on::DEPLOY, format!("{title} is not there"), help);
    };
    if source.is_suspended() {
        let help = format!("`flux resume source git {} -n {}`", gitops.name, gitops.namespace);
        let text = format!("{title} is suspended at {}: what is pushed would not arrive", source.artifact);
        return out.problem(&known::SOURCE_SUSPENDED, on::DEPLOY, text, help);
    }
    if source.artifact.is_empty() || source.condition("Ready").is_some_and(|c| c.status == "False") {
        let help = format!("`flux get sources git {} -n {}` says more", gitops.name, gitops.namespace);
        return out.problem(&known::SOURCE_UNWELL, on::DEPLOY, source.summary(), help);
    }
    for owner in flux.owners.iter().filter(|o| o.kind == FluxKind::Kustomization) {
        if !owner.is_suspended() && owner.last_applied != source.artifact {
            let text = format!("{} has applied {}", owner.title(), or_nothing(&owner.last_applied));
            out.note(on::SUSPEND, format!("{text}; {title} is at {}", source.artifact));
        }
    }
}

fn or_nothing(revision: &str) -> &str {
    if revision.is_empty() { "nothing yet" } else { revision }
}
