//! The workload: who else decides about its pods, and what its pods name.

use crate::base::permit::System;
use crate::engine::step::RunInfo;

use super::super::hold::{Held, held};
use super::Preflight;
use super::ask_kubernetes::{KubeFacts, WorkFacts};
use super::finding::{Findings, on};
use super::known;

pub(super) fn find(p: &Preflight, f: &KubeFacts, run: &RunInfo) -> Findings {
    let mut out = Findings::of(System::Kubernetes);
    out.note(on::RETAIN, format!("Kubernetes cluster {} {}", p.work.cluster, f.version));
    let what = format!("Kubernetes cluster {} for {}", p.work.cluster, p.work);
    match out.need(on::SCALE, &what, &f.work) {
        None => {}
        Some(None) => out.borrowed(&known::WORKLOAD_MISSING, on::RETAIN, p.work.missing()),
        Some(Some(work)) => {
            scaling(p, work, run, &mut out);
            scalers(p, work, &mut out);
            names(p, f, work, &mut out);
        }
    }
    out
}

/// `1 replica`, `2 replicas`.
fn replicas(count: i64) -> String {
    format!("{count} replica{}", if count == 1 { "" } else { "s" })
}

fn scaling(p: &Preflight, work: &WorkFacts, run: &RunInfo, out: &mut Findings) {
    let now = &work.now;
    match held(&p.work.to_string(), &now.meta, run) {
        Ok(Held::No) if now.replicas == 0 => {
            out.note(on::DEPLOY, format!("{} has no replicas, and gets none by this: scale it up afterwards", p.work));
        }
        Ok(Held::No) => out.note(on::SCALE, format!("{} has {}", p.work, replicas(now.replicas))),
        Ok(Held::Ours(mark) | Held::Left(mark)) => {
            out.note(on::SCALE, format!("{} is held by run {}, which 00d takes over", p.work, mark.run));
        }
        Ok(Held::Theirs(_, problem)) | Err(problem) => out.borrowed(&known::HELD_ELSEWHERE, on::SCALE, problem),
    }
    if now.scaling_deletes_claims() {
        out.problem(
            &known::SCALING_DELETES,
            on::SCALE,
            format!("{} deletes its claims when it is scaled down (whenScaled: Delete)", p.work),
            "set `persistentVolumeClaimRetentionPolicy.whenScaled: Retain` first; otherwise its data goes",
        );
    }
    if let Some(owner) = now.operator() {
        out.problem(
            &known::OPERATED,
            on::SCALE,
            format!("{} belongs to {} {}, which puts its replicas back", p.work, owner.kind, owner.name),
            format!(
                "name {}.GROUP {} as the workload if it has `scale`, or stop its operator first",
                owner.kind, owner.name
            ),
        );
    }
}

fn scalers(p: &Preflight, work: &WorkFacts, out: &mut Findings) {
    let Some(scalers) = out.need(on::SCALE, &format!("what scales {}", p.work), &work.scalers) else { return };
    for scaler in scalers {
        let name = format!("{} {}/{}", scaler.kind, p.work.namespace, scaler.name);
        let min = scaler.min.map(|min| format!(", at least {min}")).unwrap_or_default();
        if scaler.respects_zero {
            out.note(on::SCALE, format!("{name} scales {}{min}; it rests while there are 0 replicas", p.work));
        } else {
            out.problem(
                &known::SCALER, on::SCALE,
                format!("{name} scales {}{min}, and would scale it up again", p.work),
                format!(
                    "`kubectl annotate {} -n {} {} autoscaling.keda.sh/paused=true` first, in git if it comes from there; \
                     take it off afterwards",
                    scaler.kind.to_lowercase(),
                    p.work.namespace,
                    scaler.name
                ),
            );
        }
    }
}

fn names(p: &Preflight, f: &KubeFacts, work: &WorkFacts, out: &mut Findings) {
    let Some(needs) = &work.after.needs else { return };
    let kinds = [
        ("secrets", "secrets", needs.secrets.keys(), &work.secrets),
        ("config maps", "configmaps", needs.config_maps.keys(), &work.config_maps),
    ];
    let mut whole = Vec::new();
    for (kind, resource, names, missing) in kinds {
        let named = names.map(String::as_str).collect::<Vec<_>>().join(", ");
        // That they may not be read is said with the rights.
        if named.is_empty() || (missing.is_err() && f.lacks("get", resource, &p.work.namespace)) {
            continue;
        }
        let Some(missing) = out.need(on::DEPLOY, &format!("the {kind} of {}", p.work), missing) else { continue };
        if missing.is_empty() {
            whole.push(format!("{kind} {named}"));
        }
        for lacking in missing {
            out.problem(
                &known::NAME_MISSING,
                on::DEPLOY,
                format!("{lacking}: a new pod of {} would not start", p.work),
                "make it, or correct its name in the manifest",
            );
        }
    }
    if !whole.is_empty() {
        out.note(on::DEPLOY, format!("{} has what it names: {}", p.work, whole.join("; ")));
    }
}
