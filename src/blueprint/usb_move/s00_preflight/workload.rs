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
            names(p, work, &mut out);
        }
    }
    out
}

fn scaling(p: &Preflight, work: &WorkFacts, run: &RunInfo, out: &mut Findings) {
    let now = &work.now;
    match held(&p.work.to_string(), &now.meta, run) {
        Ok(Held::No) if now.replicas == 0 => {
            out.note(on::DEPLOY, format!("{} has no replicas, and gets none by this: scale it up afterwards", p.work));
        }
        Ok(Held::No) => out.note(on::SCALE, format!("{} has {} replicas", p.work, now.replicas)),
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

fn names(p: &Preflight, work: &WorkFacts, out: &mut Findings) {
    let what = format!("the secrets and config maps of {}", p.work);
    for lacking in out.need(on::DEPLOY, &what, &work.missing).into_iter().flatten() {
        out.problem(
            &known::NAME_MISSING,
            on::DEPLOY,
            format!("{lacking}: a new pod of {} would not start", p.work),
            "make it, or correct its name in the manifest",
        );
    }
    let Some(needs) = &work.after.needs else { return };
    let named = |map: &std::collections::BTreeMap<String, _>| map.keys().cloned().collect::<Vec<_>>().join(", ");
    if work.missing.as_ref().is_ok_and(Vec::is_empty) && needs.secrets.len() + needs.config_maps.len() > 0 {
        let all: Vec<String> = [("secrets", named(&needs.secrets)), ("config maps", named(&needs.config_maps))]
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(kind, names)| format!("{kind} {names}"))
            .collect();
        out.note(on::DEPLOY, format!("{} has what it names: {}", p.work, all.join("; ")));
    }
}
