//! Who else holds the claims that are made anew: a claim goes only when no scheduled pod names it, finished ones
//! included.

use crate::base::permit::System;
use crate::k8s::claim::holders;

use super::super::params::ClaimFate;
use super::Preflight;
use super::ask_kubernetes::KubeFacts;
use super::finding::{Findings, on};
use super::known;

pub(super) fn find(p: &Preflight, f: &KubeFacts) -> Findings {
    let mut out = Findings::of(System::Kubernetes);
    let namespace = &p.work.namespace;
    let Some(pods) = out.need(on::CLAIMS, &format!("the pods of namespace {namespace}"), &f.pods) else { return out };
    let own = match f.workload().map(|w| &w.own) {
        Some(Ok(own)) => own.as_slice(),
        Some(Err(why)) => {
            out.unknown(on::SCALE, &format!("the pods of {}", p.work), why);
            return out;
        }
        None => return out,
    };
    let nodes = f.nodes.as_deref().unwrap_or_default();
    for name in f.claim_names(p) {
        let serves = f.claim(&name).is_some_and(|(claim, volume)| {
            volume.is_some_and(|v| v.placement_for(Some(claim), nodes).serves(&p.node.name))
        });
        let goes = p.claims.get(&name) == Some(&ClaimFate::Recreate) && !serves;
        for holder in holders(&name, pods) {
            let finished = matches!(holder.phase.as_str(), "Succeeded" | "Failed");
            let ours = own.iter().any(|pod| pod.meta.uid == holder.uid);
            // The workload's own pods go with 00d, but for those that have ended: nothing takes them away.
            if ours && !finished {
                continue;
            }
            let text = format!("claim {namespace}/{name} is held by {holder}");
            if !(goes && holder.blocks) {
                out.note(on::CLAIMS, text);
                continue;
            }
            let delete = format!("`kubectl delete pod -n {namespace} {}`", holder.pod);
            let help = match (&holder.owner, finished) {
                (_, true) => format!("{delete}: it has ended, and as long as it is there the claim does not go"),
                (Some(owner), false) => format!("wait for {owner} or scale it to 0; it uses the same data"),
                (None, false) => format!("{delete} once it may end; nothing makes it anew"),
            };
            out.problem(&known::CLAIM_HELD, on::CLAIMS, text, help);
        }
    }
    out
}
