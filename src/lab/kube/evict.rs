//! Evictions, as in the registry's `pod/storage/eviction.go`.

use serde_json::Value;
use std::sync::Arc;

use super::Kube;
use super::call::{Call, Target};
use super::fields::Writer;
use super::json::{self, int, text};
use super::kinds;
use super::select::label_selector;
use super::status::{Outcome, Refusal, success};
use super::store::Key;
use super::write::{Deletion, Written, remove};

/// Answers an eviction.
pub(crate) fn evict(kube: &mut Kube, target: &Target, call: &Call) -> Outcome<Written> {
    let body = call.json()?;
    if text(&body, "/kind") != "Eviction" && !text(&body, "/kind").is_empty() {
        return Err(Refusal::bad(format!("not an Eviction: {}", text(&body, "/kind"))));
    }
    let name = json::name(&body);
    if name != target.name() {
        return Err(Refusal::bad(format!("name in URL does not match name in Eviction object: {name}")));
    }
    let said = !json::list(&body, "/deleteOptions/dryRun").is_empty();
    let asked = call.query("dryRun").is_some();
    if asked && body.pointer("/deleteOptions/dryRun").is_some() && !said {
        return Err(Refusal::bad("Non-matching dry-run options in request and content"));
    }
    let options = body.get("deleteOptions").cloned().unwrap_or_default();
    let pod = super::read::find(kube, target)?;
    let deletion = Deletion::of(&options, None);
    if let Some(uid) = deletion.uid.as_deref().filter(|u| *u != json::uid(&pod)) {
        return Err(Refusal::precondition(target.kind, target.name(), "UID", (uid, json::uid(&pod))));
    }
    let free = matches!(text(&pod, "/status/phase"), "Succeeded" | "Failed" | "Pending") || json::deleting(&pod);
    if !free {
        let budgets = budgets(kube, &pod);
        if budgets.len() > 1 {
            // The handler returns this object as its result; it travels under the code of a success.
            let text =
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Ok((201, Refusal::new(500, "InternalError", text).body));
        }
        if let Some(budget) = budgets.first() {
            disrupt(kube, &pod, budget)?;
        }
    }
    remove(kube, target, &deletion)?;
    Ok((201, success(201)))
}

/// Evicts a pod from within, with the time that it may take to end; false where a budget keeps it.
pub(super) fn evict_pod(kube: &mut Kube, pod: &Value, grace: i64) -> bool {
    let free = matches!(text(pod, "/status/phase"), "Succeeded" | "Failed" | "Pending");
    let budgets = if free { Vec::new() } else { budgets(kube, pod) };
    let allowed = match budgets.as_slice() {
        [] => true,
        [budget] => disrupt(kube, pod, budget).is_ok(),
        [..] => false,
    };
    let key = Key::new(kinds::pods(), json::namespace(pod), json::name(pod));
    allowed && kube.store.delete(&key, grace).is_some()
}

/// The budgets that a pod falls under.
pub(crate) fn budgets(kube: &Kube, pod: &Value) -> Vec<Arc<Value>> {
    let selects = |b: &Value| {
        let selector = b.pointer("/spec/selector").filter(|s| s.as_object().is_some_and(|m| !m.is_empty()));
        label_selector(selector, pod)
    };
    kube.store.list(kinds::budgets(), Some(json::namespace(pod))).filter(|b| selects(b)).cloned().collect()
}

fn disrupt(kube: &mut Kube, pod: &Value, budget: &Value) -> Outcome<()> {
    let status = |field: &str| int(budget, &format!("/status/{field}")).unwrap_or_default();
    let (healthy, desired) = (status("currentHealthy"), status("desiredHealthy"));
    if !json::holds(pod, "Ready") {
        let always = text(budget, "/spec/unhealthyPodEvictionPolicy") == "AlwaysAllow";
        if always || (healthy >= desired && desired > 0) {
            return Ok(());
        }
    }
    let name = json::name(budget);
    let refused = "Cannot evict pod as it would violate the pod's disruption budget.";
    if status("observedGeneration") < int(budget, "/metadata/generation").unwrap_or_default() {
        let cause = format!("The disruption budget {name} is still being processed by the server.");
        return Err(Refusal::budget(refused, &cause, 10));
    }
    let allowed = status("disruptionsAllowed");
    if allowed < 0 {
        return Err(Refusal::forbidden(kinds::budgets(), name, "pdb disruptions allowed is negative"));
    }
    if json::map(budget, "/status/disruptedPods").is_some_and(|m| m.len() > 2_000) {
        return Err(Refusal::forbidden(
            kinds::budgets(),
            name,
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        ));
    }
    if allowed == 0 {
        let cause = format!("The disruption budget {name} needs {desired} healthy pods and has {healthy} currently");
        return Err(Refusal::budget(refused, &cause, 0));
    }
    let now = kube.store.now.clone();
    kube.store.edit(kinds::budgets(), budget, Writer::status("k3s"), |b| {
        json::set(b, &["status", "disruptionsAllowed"], allowed - 1);
        json::set(b, &["status", "disruptedPods", json::name(pod)], now);
    });
    Ok(())
}
