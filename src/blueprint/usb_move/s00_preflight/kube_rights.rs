//! What these credentials may do in Kubernetes, held against every later call by access reviews.

use std::collections::BTreeMap;

use crate::base::permit::System;
use crate::k8s::access::Right;

use super::Preflight;
use super::ask_kubernetes::KubeFacts;
use super::ask_proxmox::Power;
use super::finding::{Findings, on};
use super::known;

pub(super) fn find(p: &Preflight, f: &KubeFacts, power: Power) -> Findings {
    let mut out = Findings::of(System::Kubernetes);
    let what = format!("Kubernetes cluster {} what these credentials may do", p.work.cluster);
    let Some(lacking) = out.need(on::RETAIN, &what, &f.lacking) else { return out };
    let mut by_step: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    for (step, right) in needed(p, f).into_iter().filter(|(_, right)| lacking.contains(right)) {
        by_step.entry(step).or_default().push(right.to_string());
    }
    for (object, said) in &f.edited {
        let what = format!("Kubernetes cluster {} whether {object} may be read", p.work.cluster);
        let lacking = out.need(on::DEPLOY, &what, said).and_then(Option::as_ref).map(ToString::to_string);
        let rights = by_step.entry(on::DEPLOY).or_default();
        rights.extend(lacking.filter(|right| !rights.contains(right)));
    }
    by_step.retain(|_, rights| !rights.is_empty());
    for (step, rights) in by_step {
        let step = if step == on::DRAIN { power.guards(step).unwrap_or(step) } else { step };
        out.problem(
            &known::RIGHT_KUBERNETES,
            step,
            format!("the kubeconfig of cluster {} may not {}", p.work.cluster, rights.join("; ")),
            "give its user a role with these verbs, or name another context in the site file",
        );
    }
    out
}

/// Every right that a step needs, with the first step that needs it.
pub(super) fn needed(p: &Preflight, f: &KubeFacts) -> Vec<(&'static str, Right)> {
    const KUSTOMIZE: &str = "kustomize.toolkit.fluxcd.io";
    let namespace = p.work.namespace.as_str();
    let mut all = Vec::new();
    let mut add = |step, verbs: &[&str], group: &str, resource: &str, namespace: &str| {
        all.extend(verbs.iter().map(|verb| (step, Right::new(verb, group, resource, namespace))));
    };
    add(on::RETAIN, &["get", "list", "patch"], "", "persistentvolumes", "");
    add(on::RETAIN, &["get", "list"], "", "nodes", "");
    add(on::RETAIN, &["get"], "", "persistentvolumeclaims", namespace);
    if let Ok(flux) = &f.flux {
        let mut kinds: Vec<(&str, &str, &str)> = flux
            .owners
            .iter()
            .map(|o| (o.resource.group.as_ref(), o.resource.plural.as_ref(), o.meta.namespace.as_str()))
            .collect();
        kinds.sort_unstable();
        kinds.dedup();
        for (group, plural, namespace) in kinds {
            add(on::SUSPEND, &["get", "patch"], group, plural, namespace);
        }
        if !flux.owners.is_empty() {
            add(on::SUSPEND, &["list"], KUSTOMIZE, "kustomizations", "");
        }
        if let Some(source) = &flux.source {
            let plural = source.resource.plural.as_ref();
            add(on::DEPLOY, &["get", "patch"], &source.resource.group, plural, &source.meta.namespace);
        }
    }
    if let Some(work) = f.workload() {
        let kind = &work.now.resource;
        add(on::SCALE, &["get", "patch"], &kind.group, &kind.plural, namespace);
        if !kind.replicas_in_spec {
            add(on::SCALE, &["get", "patch"], &kind.group, &format!("{}/scale", kind.plural), namespace);
        }
    }
    add(on::SCALE, &["list"], "", "pods", namespace);
    add(if p.label.is_some() { on::UNLABEL } else { on::DRAIN }, &["patch"], "", "nodes", "");
    if p.drain {
        add(on::DRAIN, &["list"], "", "pods", "");
        add(on::DRAIN, &["create"], "", "pods/eviction", "");
        add(on::DRAIN, &["list"], "policy", "poddisruptionbudgets", "");
        add(on::DRAIN, &["list"], "apps", "daemonsets", "");
    }
    if !p.claims.is_empty() {
        add(on::CLAIMS, &["list", "create", "delete"], "", "persistentvolumeclaims", namespace);
        add(on::CLAIMS, &["delete"], "", "persistentvolumes", "");
        add(on::CLAIMS, &["get"], "storage.k8s.io", "storageclasses", "");
    }
    add(on::DEPLOY, &["list"], "", "events", namespace);
    if p.verify.is_some() {
        // The streams of an exec come by GET, and newer servers ask for create as well.
        add(on::DEPLOY, &["get", "create"], "", "pods/exec", namespace);
    }
    all
}
