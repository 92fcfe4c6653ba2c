//! create, update, patch, delete.

use std::sync::Arc;

use serde_json::{Value, json};

use super::call::{Call, Target};
use super::fields::Writer;
use super::json::{self, text};
use super::kinds::{self, Kind};
use super::status::{Outcome, Refusal};
use super::store::{Key, add_finalizer};
use super::{Kube, admit, apply, patch, scale, valid};

/// The HTTP status and the object.
pub(crate) type Written = (u16, Value);

/// Answers a create.
pub(crate) fn create(kube: &mut Kube, target: &Target, call: &Call) -> Outcome<Written> {
    let mut object = call.json()?;
    if !object.is_object() {
        return Err(Refusal::bad("the body holds no object"));
    }
    made(kube, target, &mut object, Writer::new(call.manager())).map(|o| (201, o))
}

fn made(kube: &mut Kube, target: &Target, object: &mut Value, writer: Writer<'_>) -> Outcome<Value> {
    if target.kind.namespaced && target.namespace.is_none() {
        return Err(Refusal::no_method());
    }
    json::unset(object, &["metadata", "managedFields"]);
    insert(kube, target.kind, target.namespace.as_deref(), object, writer)
}

/// Makes an object through admission.
pub(crate) fn insert(
    kube: &mut Kube,
    kind: &'static Kind,
    namespace: Option<&str>,
    object: &mut Value,
    writer: Writer<'_>,
) -> Outcome<Value> {
    if kind.has("status") {
        json::unset(object, &["status"]);
    }
    admit::create(kube, kind, namespace, object)?;
    Ok(Value::clone(&kube.store.insert(kind, object.take(), writer)))
}

/// Answers an update.
pub(crate) fn update(kube: &mut Kube, target: &Target, call: &Call) -> Outcome<Written> {
    let body = call.json()?;
    let old = Arc::unwrap_or_clone(super::read::find(kube, target)?);
    if target.part.as_deref() == Some("scale") {
        return scale::put(kube, target, &old, &body, call.manager());
    }
    let writer = Writer { manager: call.manager(), part: target.part.as_deref() };
    replace(kube, target, &old, body, writer).map(|o| (200, o))
}

/// Puts `new` in the place of `old`, within what the door allows.
fn replace(kube: &mut Kube, target: &Target, old: &Value, mut new: Value, writer: Writer<'_>) -> Outcome<Value> {
    let (kind, name) = (target.kind, json::name(old).to_owned());
    if !new.is_object() {
        return Err(Refusal::bad("the body holds no object"));
    }
    if json::name(&new) != name || (kind.namespaced && json::namespace(&new) != json::namespace(old)) {
        let text = format!("the name of the object ({}) does not match the name on the URL ({name})", json::name(&new));
        return Err(Refusal::bad(text));
    }
    for field in ["apiVersion", "kind"] {
        if new.get(field).is_some_and(|v| Some(v) != old.get(field)) {
            return Err(Refusal::bad(format!("the {field} in the data does not match the expected one")));
        }
        json::set(&mut new, &[field], text(old, &format!("/{field}")));
    }
    let version = text(&new, "/metadata/resourceVersion");
    if !version.is_empty() && version != text(old, "/metadata/resourceVersion") {
        return Err(Refusal::modified(kind, &name));
    }
    let uid = json::uid(&new);
    if !uid.is_empty() && uid != json::uid(old) {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", json::uid(old));
        return Err(Refusal::conflict(kind, &name, &why));
    }
    match writer.part {
        Some("status") => {
            let status = new.get("status").cloned();
            new = old.clone();
            match status {
                Some(status) => json::set(&mut new, &["status"], status),
                None => {
                    json::unset(&mut new, &["status"]);
                }
            }
        }
        _ => {
            if kind.has("status") {
                match old.get("status") {
                    Some(status) => json::set(&mut new, &["status"], status.clone()),
                    None => {
                        json::unset(&mut new, &["status"]);
                    }
                }
            }
            admit::defaults(kind, &mut new);
            valid::change(kind, old, &new)?;
        }
    }
    let new = kube.store.replace(kind, new, Some(writer)).ok_or_else(|| Refusal::not_found(kind, &name))?;
    Ok(Value::clone(&new))
}

/// Answers a patch.
pub(crate) fn patch(kube: &mut Kube, target: &Target, call: &Call) -> Outcome<Written> {
    let kind = call.header(http::header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim().to_owned();
    if kind == "application/apply-patch+yaml" {
        return server_side_apply(kube, target, call);
    }
    let body = call.json()?;
    let old = Arc::unwrap_or_clone(super::read::find(kube, target)?);
    let scaled = target.part.as_deref() == Some("scale");
    let mut new = if scaled { scale::of(&old) } else { old.clone() };
    match kind.as_str() {
        "application/merge-patch+json" => patch::merge(&mut new, &body),
        "application/json-patch+json" => patch::json_patch(&mut new, &body)?,
        "application/strategic-merge-patch+json" if !target.kind.custom => patch::strategic(&mut new, &body)?,
        other => {
            return Err(Refusal::media(format!(
                "the body of the request was in an unknown format - accepted media types include: \
                 application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml: {other}"
            )));
        }
    }
    if scaled {
        return scale::put(kube, target, &old, &new, call.manager());
    }
    // A patch that does not speak of the version is one about what is there now.
    let writer = Writer { manager: call.manager(), part: target.part.as_deref() };
    replace(kube, target, &old, new, writer).map(|o| (200, o))
}

fn server_side_apply(kube: &mut Kube, target: &Target, call: &Call) -> Outcome<Written> {
    let mut config = call.json()?;
    let manager = call.query("fieldManager").ok_or_else(|| {
        Refusal::new(
            422,
            "Invalid",
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        )
    })?;
    let name = json::name(&config);
    if name != target.name() && !name.is_empty() {
        return Err(Refusal::bad(format!("metadata.name {name} does not match {}", target.name())));
    }
    if config.pointer("/metadata/managedFields").is_some_and(|m| !m.is_null()) {
        return Err(Refusal::bad("metadata.managedFields must be nil"));
    }
    if let Some(namespace) = &target.namespace {
        json::set(&mut config, &["metadata", "namespace"], namespace.as_str());
    }
    json::set(&mut config, &["metadata", "name"], target.name());
    let writer = Writer { manager, part: target.part.as_deref() };
    applied(kube, target.kind, config, writer, call.is_set("force"))
}

/// Applies a manifest for a manager: 201 where the object is new.
pub(crate) fn applied(
    kube: &mut Kube,
    kind: &'static Kind,
    mut config: Value,
    writer: Writer<'_>,
    force: bool,
) -> Outcome<Written> {
    if text(&config, "/apiVersion") != kind.api_version() || text(&config, "/kind") != kind.kind {
        return Err(Refusal::bad("apiVersion and kind must be those of the resource"));
    }
    if kind.has("status") && writer.part.is_none() {
        json::unset(&mut config, &["status"]);
    }
    let (namespace, name) = (json::namespace(&config).to_owned(), json::name(&config).to_owned());
    let now = kube.store.now.clone();
    match kube.store.get(kind, &namespace, &name).cloned() {
        None if writer.part.is_some() => Err(Refusal::not_found(kind, &name)),
        None => {
            if let Some(uid) = config.pointer("/metadata/uid").and_then(Value::as_str) {
                let why =
                    format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
                return Err(Refusal::conflict(kind, &name, &why));
            }
            let mut object = apply::apply(kind.custom, &json!({}), &config, writer, force, &now)?;
            for field in ["apiVersion", "kind"] {
                json::set(&mut object, &[field], text(&config, &format!("/{field}")));
            }
            insert(kube, kind, kind.namespaced.then_some(namespace.as_str()), &mut object, writer).map(|o| (201, o))
        }
        Some(old) => {
            let new = apply::apply(kind.custom, &old, &config, writer, force, &now)?;
            let mut checked = new.clone();
            if writer.part.is_none() {
                admit::defaults(kind, &mut checked);
                valid::change(kind, &old, &checked)?;
            }
            let version = text(&config, "/metadata/resourceVersion");
            if !version.is_empty() && version != text(&old, "/metadata/resourceVersion") {
                return Err(Refusal::modified(kind, &name));
            }
            let new = kube.store.replace(kind, checked, None).ok_or_else(|| Refusal::not_found(kind, &name))?;
            Ok((200, Value::clone(&new)))
        }
    }
}

/// How an object is to be deleted.
#[derive(Debug, Default)]
pub(crate) struct Deletion {
    pub(crate) grace: Option<i64>,
    pub(crate) uid: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) propagation: Option<String>,
}

impl Deletion {
    /// From `DeleteOptions` and the query.
    pub(crate) fn of(options: &Value, call: Option<&Call>) -> Self {
        let asked = |key: &str| call.and_then(|c| c.query(key)).map(str::to_owned);
        let said = |pointer: &str| Some(text(options, pointer).to_owned()).filter(|t| !t.is_empty());
        Self {
            grace: json::int(options, "/gracePeriodSeconds")
                .or_else(|| asked("gracePeriodSeconds").and_then(|g| g.parse().ok()))
                .filter(|g| *g >= 0),
            uid: said("/preconditions/uid"),
            version: said("/preconditions/resourceVersion"),
            propagation: said("/propagationPolicy").or_else(|| asked("propagationPolicy")),
        }
    }
}

/// Answers a delete.
pub(crate) fn delete(kube: &mut Kube, target: &Target, call: &Call) -> Outcome<Written> {
    let options = call.json()?;
    remove(kube, target, &Deletion::of(&options, Some(call)))
}

/// Deletes an object, or begins to.
pub(crate) fn remove(kube: &mut Kube, target: &Target, deletion: &Deletion) -> Outcome<Written> {
    let (kind, name) = (target.kind, target.name());
    let old = super::read::find(kube, target)?;
    if let Some(uid) = deletion.uid.as_deref().filter(|u| *u != json::uid(&old)) {
        return Err(Refusal::precondition(kind, name, "UID", (uid, json::uid(&old))));
    }
    let present = text(&old, "/metadata/resourceVersion");
    if let Some(version) = deletion.version.as_deref().filter(|v| *v != present) {
        return Err(Refusal::precondition(kind, name, "ResourceVersion", (version, present)));
    }
    let finalizer = match deletion.propagation.as_deref() {
        Some("Foreground") => Some("foregroundDeletion"),
        Some("Orphan") => Some("orphan"),
        Some("Background") | None => None,
        Some(other) => return Err(Refusal::bad(format!("propagationPolicy: Unsupported value: \"{other}\""))),
    };
    if let Some(finalizer) = finalizer {
        let mut marked = Value::clone(&old);
        add_finalizer(&mut marked, finalizer);
        kube.store.replace(kind, marked, None);
    }
    let grace = if kind == kinds::pods() { grace(&old, deletion.grace) } else { 0 };
    let key = Key::new(kind, target.space(), name);
    let last = kube.store.delete(&key, grace).ok_or_else(|| Refusal::not_found(kind, name))?;
    if kube.store.at(&key).is_some() || kind == kinds::pods() {
        return Ok((200, Value::clone(&last)));
    }
    let mut done = super::status::success(200);
    json::unset(&mut done, &["code"]);
    let mut details = json!({ "name": name, "kind": kind.resource, "uid": json::uid(&old) });
    if !kind.group.is_empty() {
        details["group"] = kind.group.into();
    }
    done["details"] = details;
    Ok((200, done))
}

/// The seconds that a pod's containers get.
fn grace(pod: &Value, asked: Option<i64>) -> i64 {
    let over = matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
    if text(pod, "/spec/nodeName").is_empty() || over {
        return 0;
    }
    asked.or_else(|| json::int(pod, "/spec/terminationGracePeriodSeconds")).unwrap_or(30)
}
