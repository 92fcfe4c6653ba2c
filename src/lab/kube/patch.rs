//! Merge patches, strategic merge patches and JSON patches.

use serde_json::{Map, Value};

use super::json::text;
use super::schema::{ListKind, Manner, list_kind, same_item};
use super::status::{Outcome, Refusal};

/// RFC 7396.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(map) = target.as_object_mut() else { return };
    for (key, value) in patch {
        if value.is_null() {
            map.shift_remove(key);
        } else {
            merge(map.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// A strategic merge patch, with its directives `$patch`, `$retainKeys`, `$setElementOrder/..` and
/// `$deleteFromPrimitiveList/..`.
pub(crate) fn strategic(target: &mut Value, patch: &Value) -> Outcome<()> {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return Ok(());
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(map) = target.as_object_mut() else { return Ok(()) };
    match patch.get("$patch").and_then(Value::as_str) {
        Some("replace") => {
            *map = patch.iter().filter(|(k, _)| !k.starts_with('$')).map(|(k, v)| (k.clone(), v.clone())).collect();
            return Ok(());
        }
        Some("delete") => {
            map.clear();
            return Ok(());
        }
        Some("merge") | None => {}
        Some(other) => return Err(Refusal::bad(format!("unknown patch directive \"{other}\""))),
    }
    if let Some(kept) = patch.get("$retainKeys").and_then(Value::as_array) {
        map.retain(|key, _| kept.iter().any(|k| k.as_str() == Some(key)));
    }
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix("$deleteFromPrimitiveList/") {
            if let Some(list) = map.get_mut(field).and_then(Value::as_array_mut) {
                list.retain(|item| !value.as_array().is_some_and(|gone| gone.contains(item)));
            }
        } else if !key.starts_with('$') {
            merge_field(map, key, value)?;
        }
    }
    Ok(())
}

fn merge_field(map: &mut Map<String, Value>, key: &str, value: &Value) -> Outcome<()> {
    if value.is_null() {
        map.shift_remove(key);
        return Ok(());
    }
    let Some(items) = value.as_array() else {
        return strategic(map.entry(key.to_owned()).or_insert(Value::Null), value);
    };
    let present = map.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let both: Vec<Value> = present.iter().chain(items).cloned().collect();
    let merged = match list_kind(false, Manner::Strategic, key, &both) {
        ListKind::Atomic => items.clone(),
        ListKind::Set => {
            let mut merged = present;
            for item in items {
                if !merged.contains(item) {
                    merged.push(item.clone());
                }
            }
            merged
        }
        ListKind::Keyed(keys) => merge_items(present, items, keys.get(..1).unwrap_or_default())?,
    };
    map.insert(key.to_owned(), Value::Array(merged));
    Ok(())
}

fn merge_items(mut merged: Vec<Value>, items: &[Value], keys: &[&str]) -> Outcome<Vec<Value>> {
    if items.iter().any(|i| text(i, "/$patch") == "replace") {
        return Ok(items.iter().filter(|i| i.get("$patch").is_none()).cloned().collect());
    }
    for item in items {
        if text(item, "/$patch") == "delete" {
            merged.retain(|m| !same_item(m, item, keys));
            continue;
        }
        if keys.iter().any(|k| item.get(k).is_none()) {
            let wanted = keys.join(",");
            return Err(Refusal::bad(format!("map: {item} does not contain declared merge key: {wanted}")));
        }
        match merged.iter_mut().find(|m| same_item(m, item, keys)) {
            Some(present) => strategic(present, item)?,
            None => {
                let mut new = Value::Null;
                strategic(&mut new, item)?;
                merged.push(new);
            }
        }
    }
    Ok(merged)
}

/// RFC 6902.
pub(crate) fn json_patch(target: &mut Value, patch: &Value) -> Outcome<()> {
    let steps = patch.as_array().ok_or_else(|| Refusal::bad("a JSON patch is a list"))?;
    for step in steps {
        json_step(target, step)?;
    }
    Ok(())
}

fn json_step(target: &mut Value, step: &Value) -> Outcome<()> {
    let refuse = |why: &str| Refusal::new(422, "Invalid", format!("the server rejected our request: {why}: {step}"));
    let path = step.get("path").and_then(Value::as_str).ok_or_else(|| refuse("no path"))?;
    let value = || step.get("value").cloned().ok_or_else(|| refuse("no value"));
    let from = || step.get("from").and_then(Value::as_str).ok_or_else(|| refuse("no from"));
    match text(step, "/op") {
        "add" => add(target, path, value()?).ok_or_else(|| refuse("add operation does not apply: doc is missing path")),
        "remove" => {
            take(target, path).map(|_| ()).ok_or_else(|| refuse("remove operation does not apply: doc is missing key"))
        }
        "replace" => {
            let new = value()?;
            let place = target
                .pointer_mut(path)
                .ok_or_else(|| refuse("replace operation does not apply: doc is missing key"))?;
            *place = new;
            Ok(())
        }
        "move" => {
            let moved = take(target, from()?).ok_or_else(|| refuse("move operation does not apply"))?;
            add(target, path, moved).ok_or_else(|| refuse("move operation does not apply"))
        }
        "copy" => {
            let copied = target.pointer(from()?).cloned().ok_or_else(|| refuse("copy operation does not apply"))?;
            add(target, path, copied).ok_or_else(|| refuse("copy operation does not apply"))
        }
        "test" => {
            let wanted = step.get("value").cloned().unwrap_or(Value::Null);
            let present = target.pointer(path).cloned().unwrap_or(Value::Null);
            if present == wanted { Ok(()) } else { Err(refuse("testing value failed")) }
        }
        other => Err(refuse(&format!("unknown operation `{other}`"))),
    }
}

fn split(path: &str) -> Option<(&str, String)> {
    let (parent, last) = path.rsplit_once('/')?;
    Some((parent, last.replace("~1", "/").replace("~0", "~")))
}

fn add(target: &mut Value, path: &str, value: Value) -> Option<()> {
    if path.is_empty() {
        *target = value;
        return Some(());
    }
    let (parent, last) = split(path)?;
    match target.pointer_mut(parent)? {
        Value::Object(map) => {
            map.insert(last, value);
        }
        Value::Array(items) => {
            let index = if last == "-" { items.len() } else { last.parse().ok()? };
            if index > items.len() {
                return None;
            }
            items.insert(index, value);
        }
        _ => return None,
    }
    Some(())
}

fn take(target: &mut Value, path: &str) -> Option<Value> {
    let (parent, last) = split(path)?;
    match target.pointer_mut(parent)? {
        Value::Object(map) => map.shift_remove(&last),
        Value::Array(items) => {
            let index: usize = last.parse().ok()?;
            (index < items.len()).then(|| items.remove(index))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn merge_follows_the_rfc() {
        for (target, patch, result) in [
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": {"b": 1}}), json!({"a": {"c": 2}}), json!({"a": {"b": 1, "c": 2}})),
            (json!({"a": [1, 2]}), json!({"a": [3]}), json!({"a": [3]})),
            (json!({}), json!({"a": {"b": {"c": null}}}), json!({"a": {"b": {}}})),
        ] {
            let mut got = target.clone();
            merge(&mut got, &patch);
            assert_eq!(got, result, "{target} + {patch}");
        }
    }

    #[test]
    fn strategic_merges_lists_by_key() {
        let mut pod = json!({"spec": {"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]},
            {"name": "b", "image": "2"}], "taints": [{"key": "k", "effect": "NoSchedule"}]}});
        let patch = json!({"spec": {"$setElementOrder/containers": [{"name": "a"}],
            "containers": [{"name": "a", "env": [{"name": "Y", "value": "2"}]}, {"name": "b", "$patch": "delete"}],
            "taints": [{"key": "n", "effect": "NoExecute"}]}});
        strategic(&mut pod, &patch).unwrap();
        assert_eq!(
            pod,
            json!({"spec": {"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"},
                {"name": "Y", "value": "2"}]}], "taints": [{"key": "n", "effect": "NoExecute"}]}})
        );
    }

    #[test]
    fn json_patch_changes_or_refuses() {
        let mut object = json!({"a": {"b/c": [1, 2]}});
        let patch = json!([{"op": "test", "path": "/a/b~1c/0", "value": 1}, {"op": "add", "path": "/a/b~1c/-", "value": 3},
            {"op": "remove", "path": "/a/b~1c/0"}, {"op": "add", "path": "/d", "value": null}]);
        json_patch(&mut object, &patch).unwrap();
        assert_eq!(object, json!({"a": {"b/c": [2, 3]}, "d": null}));
        for bad in [
            json!([{"op": "test", "path": "/d", "value": 1}]),
            json!([{"op": "remove", "path": "/x"}]),
            json!([{"op": "replace", "path": "/x/y", "value": 1}]),
            json!({"op": "add"}),
        ] {
            assert!(json_patch(&mut object.clone(), &bad).is_err(), "{bad}");
        }
    }
}
