//! The scale subresource.

use serde_json::{Value, json};

use super::Kube;
use super::call::Target;
use super::fields::Writer;
use super::json::{self, int, text};
use super::status::{Outcome, Refusal};
use super::write::Written;

/// A workload as a `Scale`.
pub(crate) fn of(object: &Value) -> Value {
    let pairs: Vec<String> = json::map(object, "/spec/selector/matchLabels")
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect();
    // A custom resource keeps it as one string, at its definition's `labelSelectorPath`.
    let selector = object.pointer("/status/selector").and_then(Value::as_str).map_or(pairs.join(","), str::to_owned);
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": json::name(object), "namespace": json::namespace(object), "uid": json::uid(object),
            "resourceVersion": text(object, "/metadata/resourceVersion"),
            "creationTimestamp": text(object, "/metadata/creationTimestamp"),
        },
        "spec": { "replicas": int(object, "/spec/replicas").unwrap_or(1) },
        "status": { "replicas": int(object, "/status/replicas").unwrap_or(0), "selector": selector },
    })
}

/// Writes the replicas of a `Scale` into its workload.
pub(crate) fn put(kube: &mut Kube, target: &Target, old: &Value, scale: &Value, manager: &str) -> Outcome<Written> {
    let name = json::name(old);
    let version = text(scale, "/metadata/resourceVersion");
    if !version.is_empty() && version != text(old, "/metadata/resourceVersion") {
        return Err(Refusal::modified(target.kind, name));
    }
    let replicas = match scale.pointer("/spec/replicas") {
        None | Some(Value::Null) => 0,
        Some(value) => value.as_i64().ok_or_else(|| Refusal::bad("spec.replicas is not a number"))?,
    };
    if replicas < 0 {
        let text = format!("Invalid value: {replicas}: must be greater than or equal to 0");
        return Err(Refusal::invalid(target.kind, name, &[("spec.replicas".into(), "FieldValueInvalid", text)]));
    }
    let mut new = old.clone();
    json::set(&mut new, &["spec", "replicas"], replicas);
    let writer = Writer { manager, part: Some("scale") };
    let new =
        kube.store.replace(target.kind, new, Some(writer)).ok_or_else(|| Refusal::not_found(target.kind, name))?;
    Ok((200, of(&new)))
}
