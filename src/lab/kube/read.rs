//! get and list.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::call::{Call, Form, Target};
use super::json::text;
use super::kinds::Kind;
use super::select::{Fields, Labels};
use super::status::{Outcome, Refusal};
use super::store::Key;
use super::{Kube, table};

/// What a list or a watch selects.
#[derive(Debug, Clone)]
pub(crate) struct Choice {
    pub(crate) kind: &'static Kind,
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    labels: Labels,
    fields: Fields,
}

impl Choice {
    pub(crate) fn of(target: &Target, call: &Call) -> Outcome<Self> {
        Ok(Self {
            kind: target.kind,
            namespace: target.namespace.clone(),
            name: target.name.clone(),
            labels: Labels::parse(call.query("labelSelector").unwrap_or_default())?,
            fields: Fields::parse(target.kind, call.query("fieldSelector").unwrap_or_default())?,
        })
    }

    /// Whether a key can be chosen.
    pub(crate) fn covers(&self, key: &Key) -> bool {
        key.group == self.kind.group
            && key.resource == self.kind.resource
            && self.namespace.as_ref().is_none_or(|n| *n == key.namespace)
            && self.name.as_ref().is_none_or(|n| *n == key.name)
    }

    /// Whether an object is chosen.
    pub(crate) fn takes(&self, object: &Value) -> bool {
        self.labels.matches(object) && self.fields.matches(object)
    }
}

/// An object by its path.
pub(crate) fn find(kube: &Kube, target: &Target) -> Outcome<Arc<Value>> {
    kube.store
        .get(target.kind, target.space(), target.name())
        .cloned()
        .ok_or_else(|| Refusal::not_found(target.kind, target.name()))
}

/// Answers a get.
pub(crate) fn get(kube: &Kube, target: &Target, call: &Call) -> Outcome<Value> {
    let object = kube.presented(&find(kube, target)?, call.now);
    Ok(match call.form() {
        Form::Whole => Value::clone(&object),
        Form::Metadata => partial(&object),
        Form::Table => table::render(target.kind, &[object], call, true),
    })
}

/// The metadata of an object alone.
pub(crate) fn partial(object: &Value) -> Value {
    json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object.get("metadata") })
}

/// Answers a list.
pub(crate) fn list(kube: &Kube, target: &Target, call: &Call) -> Outcome<Value> {
    let choice = Choice::of(target, call)?;
    let (revision, after) = match call.query("continue") {
        Some(token) => page(token)?,
        None => (kube.store.revision(), None),
    };
    let old = || Refusal::expired("The provided continue parameter is too old to display a consistent list result.");
    let mut all = snapshot(kube, &choice, revision).ok_or_else(old)?;
    if let Some((namespace, name)) = after {
        all.retain(|o| (super::json::namespace(o), super::json::name(o)) > (namespace.as_str(), name.as_str()));
    }
    let limit = call.query("limit").and_then(|l| l.parse::<usize>().ok()).filter(|l| *l > 0);
    let mut metadata = json!({ "resourceVersion": revision.to_string() });
    if let Some(limit) = limit
        && all.len() > limit
    {
        let left = all.len() - limit;
        all.truncate(limit);
        if let Some(last) = all.last() {
            let token = json!([revision, super::json::namespace(last), super::json::name(last)]);
            metadata["continue"] = URL_SAFE_NO_PAD.encode(token.to_string()).into();
        }
        if call.query("labelSelector").is_none() && call.query("fieldSelector").is_none() {
            metadata["remainingItemCount"] = left.into();
        }
    }
    let all: Vec<Arc<Value>> = all.iter().map(|o| kube.presented(o, call.now)).collect();
    Ok(match call.form() {
        Form::Table => {
            let mut table = table::render(target.kind, &all, call, true);
            table["metadata"] = metadata;
            table
        }
        Form::Metadata => json!({
            "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
            "items": all.iter().map(|o| partial(o)).collect::<Vec<_>>(),
        }),
        Form::Whole => json!({
            "kind": format!("{}List", target.kind.kind), "apiVersion": target.kind.api_version(), "metadata": metadata,
            "items": all.iter().map(|o| Value::clone(o)).collect::<Vec<_>>(),
        }),
    })
}

type Position = (String, String);

fn page(token: &str) -> Outcome<(u64, Option<Position>)> {
    let bad = || Refusal::bad("continue key is not valid");
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| bad())?;
    let token: Value = serde_json::from_slice(&bytes).map_err(|_| bad())?;
    let revision = token.get(0).and_then(Value::as_u64).ok_or_else(bad)?;
    Ok((revision, Some((text(&token, "/1").to_owned(), text(&token, "/2").to_owned()))))
}

/// What a choice held at a resource version, by namespace and name; `None` where that is forgotten.
pub(crate) fn snapshot(kube: &Kube, choice: &Choice, revision: u64) -> Option<Vec<Arc<Value>>> {
    let mut held: BTreeMap<Position, Arc<Value>> = kube
        .store
        .list(choice.kind, choice.namespace.as_deref())
        .map(|o| ((super::json::namespace(o).to_owned(), super::json::name(o).to_owned()), o.clone()))
        .collect();
    let later: Vec<_> = kube.store.since(revision)?.filter(|c| choice.covers(&c.key)).collect();
    for change in later.into_iter().rev() {
        let position = (change.key.namespace.clone(), change.key.name.clone());
        match &change.before {
            Some(before) => held.insert(position, before.clone()),
            None => held.remove(&position),
        };
    }
    Some(held.into_values().filter(|o| choice.takes(o)).collect())
}
