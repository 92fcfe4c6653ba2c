//! Reading and writing places in JSON objects by JSON pointer.

use serde_json::{Map, Value};

/// The text at `pointer`; empty where there is none.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The whole number at `pointer`.
pub(crate) fn int(value: &Value, pointer: &str) -> Option<i64> {
    value.pointer(pointer).and_then(Value::as_i64)
}

/// Whether `true` stands at `pointer`.
pub(crate) fn flag(value: &Value, pointer: &str) -> bool {
    value.pointer(pointer).and_then(Value::as_bool).unwrap_or_default()
}

/// The list at `pointer`; empty where there is none.
pub(crate) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The map at `pointer`, where there is one.
pub(crate) fn map<'a>(value: &'a Value, pointer: &str) -> Option<&'a Map<String, Value>> {
    value.pointer(pointer).and_then(Value::as_object)
}

/// A label's value.
pub(crate) fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    map(object, "/metadata/labels")?.get(key)?.as_str()
}

/// An annotation's value.
pub(crate) fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    map(object, "/metadata/annotations")?.get(key)?.as_str()
}

/// The object's name.
pub(crate) fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

/// The object's namespace; empty where it has none.
pub(crate) fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

/// The object's uid.
pub(crate) fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

/// Whether the object is being deleted.
pub(crate) fn deleting(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some_and(|t| !t.is_null())
}

/// Sets the value at a path of map keys; makes the maps on the way. What is no map on the way becomes one.
pub(crate) fn set(object: &mut Value, path: &[&str], value: impl Into<Value>) {
    let mut at = object;
    for key in path {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        let Some(map) = at.as_object_mut() else { return };
        at = map.entry((*key).to_owned()).or_insert(Value::Null);
    }
    *at = value.into();
}

/// Removes the entry at a path of map keys; true where there was one.
pub(crate) fn unset(object: &mut Value, path: &[&str]) -> bool {
    let Some((last, way)) = path.split_last() else { return false };
    let mut at = object;
    for key in way {
        let Some(next) = at.get_mut(*key) else { return false };
        at = next;
    }
    at.as_object_mut().is_some_and(|map| map.shift_remove(*last).is_some())
}

/// A condition of a status.
pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    list(object, "/status/conditions").iter().find(|c| text(c, "/type") == kind)
}

/// Whether a condition is `True`.
pub(crate) fn holds(object: &Value, kind: &str) -> bool {
    condition(object, kind).is_some_and(|c| text(c, "/status") == "True")
}

/// Sets a condition in place; its transition time moves only with its status.
pub(crate) fn set_condition(object: &mut Value, kind: &str, status: &str, reason: &str, message: &str, now: &str) {
    let since = condition(object, kind)
        .filter(|c| text(c, "/status") == status)
        .map_or(now, |c| text(c, "/lastTransitionTime"))
        .to_owned();
    let mut new = serde_json::json!({ "type": kind, "status": status, "lastTransitionTime": since });
    for (key, value) in [("reason", reason), ("message", message)] {
        if !value.is_empty() {
            set(&mut new, &[key], value);
        }
    }
    let mut all = list(object, "/status/conditions").to_vec();
    match all.iter_mut().find(|c| text(c, "/type") == kind) {
        Some(old) => {
            // What a kind adds of its own (observedGeneration, heartbeat) stays.
            for (key, value) in new.as_object().into_iter().flatten() {
                set(old, &[key], value.clone());
            }
            for key in ["reason", "message"] {
                if new.get(key).is_none() {
                    unset(old, &[key]);
                }
            }
        }
        None => all.push(new),
    }
    set(object, &["status", "conditions"], all);
}

/// Removes a condition.
pub(crate) fn drop_condition(object: &mut Value, kind: &str) {
    let left: Vec<Value> =
        list(object, "/status/conditions").iter().filter(|c| text(c, "/type") != kind).cloned().collect();
    if object.pointer("/status/conditions").is_some() {
        set(object, &["status", "conditions"], left);
    }
}

/// The reference by which `object` is controlled.
pub(crate) fn controller(object: &Value) -> Option<&Value> {
    list(object, "/metadata/ownerReferences").iter().find(|r| flag(r, "/controller"))
}

/// A reference that says: controlled by `owner`.
pub(crate) fn owner(owner: &Value) -> Value {
    serde_json::json!({
        "apiVersion": text(owner, "/apiVersion"), "kind": text(owner, "/kind"), "name": name(owner),
        "uid": uid(owner), "controller": true, "blockOwnerDeletion": true,
    })
}
