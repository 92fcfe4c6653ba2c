//! What these credentials may do in Kubernetes, held against every later call by access reviews.

use std::collections::BTreeMap;

use crate::base::permit::System;
use crate::blueprint::rights::{KubeNeed, Weight};
use crate::k8s::access::Right;
use crate::k8s::flux::FluxKind;

use super::super::rights::kubernetes::{self, Flux, Known};
use super::Preflight;
use super::ask_kubernetes::KubeFacts;
use super::ask_proxmox::Power;
use super::finding::{Findings, on};
use super::known;

pub(super) fn find(p: &Preflight, f: &KubeFacts, power: Power) -> Findings {
    let mut out = Findings::of(System::Kubernetes);
    let what = format!("Kubernetes cluster {} what these credentials may do", p.work.cluster);
    let Some(lacking) = out.need(on::RETAIN, &what, &f.lacking) else { return out };
    let may_not = format!("the kubeconfig of cluster {} may not", p.work.cluster);
    let mut by_step: BTreeMap<&'static str, Vec<Right>> = BTreeMap::new();
    let mut add = |step, right: &Right| {
        let rights = by_step.entry(step).or_default();
        if !rights.contains(right) {
            rights.push(right.clone());
        }
    };
    for need in f.needs.iter().filter(|need| lacking.contains(&need.right)) {
        match (&need.weight, need.steps.as_slice()) {
            (Weight::Needed, [step, ..]) => add(*step, &need.right),
            (Weight::Optional(lost), [step, ..]) => {
                out.note(*step, format!("{may_not} {}, for {}: without it, {lost}", need.right, need.purpose));
            }
            (Weight::If(_), _) | (_, []) => {}
        }
    }
    for (object, said) in &f.edited {
        let what = format!("Kubernetes cluster {} whether {object} may be read", p.work.cluster);
        if let Some(Some(right)) = out.need(on::DEPLOY, &what, said) {
            add(on::DEPLOY, right);
        }
    }
    for (step, rights) in by_step {
        let steps = if step == on::DRAIN { power.needs_right(step) } else { vec![step] };
        // Who may do it to no object of the kind need not be told of each one.
        let of_all = |right: &&Right| !right.name.is_empty() && rights.contains(&(*right).clone().named(""));
        let said: Vec<String> = rights.iter().filter(|right| !of_all(right)).map(ToString::to_string).collect();
        for step in steps {
            out.problem(
                &known::RIGHT_KUBERNETES,
                step,
                format!("{may_not} {}", said.join("; ")),
                "give its user a role with these verbs (`pvemig privileges` prints them), or name another context in the \
                 site file",
            );
        }
    }
    out
}

/// Every right that a step needs, as far as the cluster is known by now.
pub(super) fn needed(p: &Preflight, f: &KubeFacts, served: &[FluxKind]) -> Vec<KubeNeed> {
    let flux = f.flux.as_ref().ok().map(|flux| Flux { owners: &flux.owners, source: flux.source.as_ref(), served });
    let known = Known { work: f.workload().map(|work| &work.now.resource), flux };
    // What the cluster has not shown is told by what could not be asked.
    kubernetes::needs(p, &known, &mut Vec::new())
        .into_iter()
        .filter(|need| !matches!(need.weight, Weight::If(_)))
        .collect()
}
