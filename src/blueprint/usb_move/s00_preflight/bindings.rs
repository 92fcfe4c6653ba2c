//! `needs:` of the migration that a node has or has not: a runtime's handler, resources.

use crate::base::permit::System;
use crate::k8s::meta::whole;

use super::Preflight;
use super::ask_kubernetes::KubeFacts;
use super::finding::{Findings, on};
use super::known;

pub(super) fn find(p: &Preflight, f: &KubeFacts) -> Findings {
    let mut out = Findings::of(System::Kubernetes);
    let Some(node) = f.target(p) else { return out };
    let name = &node.meta.name;
    for (class, said) in &f.runtimes {
        let asked_by =
            if p.needs.runtime_class.as_ref() == Some(class) { "`needs`" } else { "the workload's template" };
        let help = format!(
            "install that runtime on {name}, or take `spec.template.spec.runtimeClassName` out under `manifests` \
             (`remove`): a pod is scheduled all the same and never starts"
        );
        match out.need(on::DEPLOY, &format!("runtime class {class}"), said) {
            None => {}
            Some(None) => out.problem(
                &known::RUNTIME_MISSING,
                on::DEPLOY,
                format!("there is no runtime class {class}, which {asked_by} names"),
                help,
            ),
            Some(Some(class)) => match &node.runtime_handlers {
                Some(handlers) if handlers.contains(&class.handler) => {
                    out.note(on::DEPLOY, format!("node {name} has runtime handler {}", class.handler));
                }
                Some(handlers) => {
                    let has: Vec<&str> = handlers.iter().map(String::as_str).filter(|h| !h.is_empty()).collect();
                    let text = format!("node {name} has no runtime handler {}, which {asked_by} names", class.handler);
                    out.problem(
                        &known::HANDLER_MISSING,
                        on::DEPLOY,
                        format!("{text}; it has {}", has.join(", ")),
                        help,
                    );
                }
                None => out.note(
                    on::DEPLOY,
                    format!(
                        "whether node {name} has runtime handler {} its kubelet does not tell ({})",
                        class.handler, node.kubelet
                    ),
                ),
            },
        }
    }
    for (resource, wanted) in &p.needs.allocatable {
        let has = node.allocatable.get(resource).map_or("0", String::as_str);
        if whole(has).is_none_or(|has| has < u128::from(*wanted)) {
            out.problem(
                &known::RESOURCE_LACKING,
                on::DEPLOY,
                format!("node {name} has {has} of {wanted} {resource} to give"),
                format!("see its device plugin (`kubectl describe node {name}`), or correct `needs.allocatable`"),
            );
        } else {
            out.note(on::DEPLOY, format!("node {name} has {has} {resource} to give"));
        }
    }
    out
}
