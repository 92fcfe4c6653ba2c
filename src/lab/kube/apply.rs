//! Server-side apply.

use serde_json::{Map, Value};

use super::fields::{self, Entry, Fields, Path, Writer, leaves, shown};
use super::json::text;
use super::schema::{ListKind, Manner, atomic_map, key_of, list_kind, same_item};
use super::status::{Outcome, Refusal};

/// What applying `config` makes of `live`: the new object, its `managedFields` already booked.
///
/// # Errors
/// 409 with every field that another manager owns with another value, unless `force`.
pub(crate) fn apply(
    custom: bool,
    live: &Value,
    config: &Value,
    writer: Writer<'_>,
    force: bool,
    now: &str,
) -> Outcome<Value> {
    let wanted = leaves(custom, config);
    let present = leaves(custom, live);
    let own: Fields = wanted.keys().cloned().collect();
    let mut all = fields::entries(live);

    let differs = |path: &Path| present.get(path) != wanted.get(path);
    let mut conflicts = Vec::new();
    for entry in all.iter().filter(|e| !e.is("Apply", writer)) {
        for path in entry.fields.intersection(&own).filter(|p| differs(p)) {
            let how = if entry.operation == "Apply" {
                format!("\"{}\"", entry.manager)
            } else {
                let part =
                    if entry.part.is_empty() { String::new() } else { format!(" with subresource \"{}\"", entry.part) };
                format!("\"{}\"{part} using {}", entry.manager, entry.api_version)
            };
            conflicts.push((how, shown(path)));
        }
    }
    if !conflicts.is_empty() && !force {
        return Err(Refusal::owned_elsewhere(&conflicts));
    }

    let mut new = live.clone();
    lay(custom, &mut new, config, "");

    // What this manager applied before and applies no longer goes, where nobody else owns it.
    let before: Fields = all.iter().filter(|e| e.is("Apply", writer)).flat_map(|e| e.fields.iter().cloned()).collect();
    let others: Fields = all.iter().filter(|e| !e.is("Apply", writer)).flat_map(|e| e.fields.iter().cloned()).collect();
    for path in before.difference(&own).filter(|p| !others.contains(*p)) {
        // An item of a keyed list goes only when nobody has anything in it.
        let inside = |set: &Fields| set.iter().any(|p| p.len() > path.len() && p.starts_with(path));
        if !inside(&others) && !inside(&own) {
            remove(&mut new, path);
        }
    }

    for entry in &mut all {
        if !entry.is("Apply", writer) {
            entry.fields.retain(|p| !own.contains(p) || !differs(p));
        }
    }
    let unchanged = all.iter().find(|e| e.is("Apply", writer) && e.fields == own).map(|e| e.time.clone());
    let mine = Entry {
        manager: writer.manager.to_owned(),
        operation: "Apply".into(),
        part: writer.part.unwrap_or_default().to_owned(),
        api_version: text(config, "/apiVersion").to_owned(),
        time: unchanged.unwrap_or_else(|| now.to_owned()),
        fields: own,
    };
    match all.iter_mut().find(|e| e.is("Apply", writer)) {
        Some(old) => *old = mine,
        None => all.insert(0, mine),
    }
    // Fields that are gone belong to nobody.
    let left = leaves(custom, &new);
    for entry in &mut all {
        entry.fields.retain(|p| left.contains_key(p));
    }
    fields::write(&mut new, all);
    Ok(new)
}

/// Lays `config` over `target`: maps field by field, keyed lists item by item, everything else as a whole.
fn lay(custom: bool, target: &mut Value, config: &Value, field: &str) {
    match config {
        Value::Object(map) if !atomic_map(custom, field) => {
            if !target.is_object() {
                *target = Value::Object(Map::new());
            }
            let Some(into) = target.as_object_mut() else { return };
            for (key, value) in map {
                lay(custom, into.entry(key.clone()).or_insert(Value::Null), value, key);
            }
        }
        Value::Array(items) => {
            let present = target.as_array().cloned().unwrap_or_default();
            let both: Vec<Value> = present.iter().chain(items).cloned().collect();
            let merged = match list_kind(custom, Manner::Apply, field, &both) {
                ListKind::Atomic => items.clone(),
                ListKind::Set => {
                    let mut merged = present;
                    merged.extend(items.iter().filter(|i| !both_has(&merged, i)).cloned().collect::<Vec<_>>());
                    merged
                }
                ListKind::Keyed(keys) => {
                    let mut merged = present;
                    for item in items {
                        match merged.iter_mut().find(|m| same_item(m, item, keys)) {
                            Some(old) => lay(custom, old, item, ""),
                            None => merged.push(item.clone()),
                        }
                    }
                    merged
                }
            };
            *target = Value::Array(merged);
        }
        other => *target = other.clone(),
    }
}

fn both_has(list: &[Value], item: &Value) -> bool {
    list.contains(item)
}

/// Removes what stands at a path of `FieldsV1` segments, and maps that become empty by it.
pub(crate) fn remove(target: &mut Value, path: &[String]) {
    let Some((segment, rest)) = path.split_first() else { return };
    match segment.split_once(':') {
        Some(("f", name)) => {
            let Some(map) = target.as_object_mut() else { return };
            if rest.is_empty() {
                map.shift_remove(name);
            } else if let Some(below) = map.get_mut(name) {
                remove(below, rest);
                if below.as_object().is_some_and(Map::is_empty) || below.as_array().is_some_and(Vec::is_empty) {
                    map.shift_remove(name);
                }
            }
        }
        Some(("k", keys)) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let Some(items) = target.as_array_mut() else { return };
            let fits = |item: &Value| keys.iter().all(|(k, v)| key_of(item, k).as_ref() == Some(v));
            if rest.is_empty() {
                items.retain(|i| !fits(i));
            } else if let Some(item) = items.iter_mut().find(|i| fits(i)) {
                remove(item, rest);
            }
        }
        Some(("v", value)) => {
            let Ok(value) = serde_json::from_str::<Value>(value) else { return };
            if let Some(items) = target.as_array_mut() {
                items.retain(|i| *i != value);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const FLUX: Writer<'static> = Writer::new("kustomize-controller");
    const HAND: Writer<'static> = Writer::new("kubectl");

    fn config(spec: Value) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": spec})
    }

    #[test]
    fn a_field_that_is_no_longer_applied_goes_unless_somebody_else_has_it() {
        let first = config(json!({"replicas": 1, "template": {"spec": {"runtimeClassName": "nvidia",
            "containers": [{"name": "c", "image": "i", "env": [{"name": "A", "value": "1"}]}]}}}));
        let live = apply(false, &json!({}), &first, FLUX, true, "t").unwrap();
        let second =
            config(json!({"replicas": 1, "template": {"spec": {"containers": [{"name": "c", "image": "j"}]}}}));
        let live = apply(false, &live, &second, FLUX, true, "t").unwrap();
        assert_eq!(
            live["spec"],
            json!({"replicas": 1, "template": {"spec": {"containers": [{"name": "c", "image": "j"}]}}})
        );
    }

    #[test]
    fn another_owner_is_a_conflict_unless_forced() {
        let live = apply(false, &json!({}), &config(json!({"replicas": 1})), FLUX, false, "t").unwrap();
        let refusal = apply(false, &live, &config(json!({"replicas": 2})), HAND, false, "t").unwrap_err();
        assert_eq!(refusal.code, 409);
        assert_eq!(
            refusal.message(),
            "Apply failed with 1 conflict: conflict with \"kustomize-controller\": .spec.replicas"
        );
        // The same value is shared, not fought over.
        let shared = apply(false, &live, &config(json!({"replicas": 1})), HAND, false, "t").unwrap();
        assert_eq!(fields::entries(&shared).len(), 2);
        let forced = apply(false, &live, &config(json!({"replicas": 2})), HAND, true, "t").unwrap();
        let owners: Vec<String> = fields::entries(&forced).into_iter().map(|e| e.manager).collect();
        assert_eq!(owners, ["kubectl"]);
    }

    #[test]
    fn applying_the_same_again_changes_nothing() {
        let first = config(json!({"replicas": 1, "template": {"metadata": {"labels": {"a": "b"}}}}));
        let once = apply(false, &json!({}), &first, FLUX, true, "t1").unwrap();
        assert_eq!(apply(false, &once, &first, FLUX, true, "t2").unwrap(), once);
    }
}
