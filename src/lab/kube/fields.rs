//! Who set which field: `metadata.managedFields`.
//!
//! Paths are lists of segments in the form of `FieldsV1`: `f:NAME`, `k:{"name":"x"}`, `v:"x"`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::json::{self, text};
use super::schema::{ListKind, Manner, atomic_map, key_of, list_kind};

/// A field, from the root.
pub(crate) type Path = Vec<String>;
/// Fields.
pub(crate) type Fields = BTreeSet<Path>;

/// Who writes, and through which door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Writer<'a> {
    /// Field manager.
    pub manager: &'a str,
    /// `status`, `scale`; none: the object itself.
    pub part: Option<&'a str>,
}

impl<'a> Writer<'a> {
    /// Writes objects.
    pub const fn new(manager: &'a str) -> Self {
        Self { manager, part: None }
    }

    /// Writes through the status subresource.
    pub const fn status(manager: &'a str) -> Self {
        Self { manager, part: Some("status") }
    }
}

/// What nobody owns: identity, and what the server sets.
const UNOWNED: &[&str] = &[
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
    "generateName",
];

/// The leaves of an object with their values. The item of a keyed list is a leaf of its own with the value null.
pub(crate) fn leaves(custom: bool, object: &Value) -> BTreeMap<Path, Value> {
    let mut out = BTreeMap::new();
    for (key, value) in object.as_object().into_iter().flatten() {
        match key.as_str() {
            "apiVersion" | "kind" => {}
            "metadata" => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    if !UNOWNED.contains(&key.as_str()) {
                        collect(custom, key, value, &["f:metadata".to_owned(), format!("f:{key}")], &mut out);
                    }
                }
            }
            key => collect(custom, key, value, &[format!("f:{key}")], &mut out),
        }
    }
    out
}

fn collect(custom: bool, field: &str, value: &Value, at: &[String], out: &mut BTreeMap<Path, Value>) {
    let down = |segment: String| {
        let mut path = at.to_vec();
        path.push(segment);
        path
    };
    match value {
        Value::Object(map) if !map.is_empty() && !atomic_map(custom, field) => {
            for (key, value) in map {
                collect(custom, key, value, &down(format!("f:{key}")), out);
            }
        }
        Value::Array(items) if !items.is_empty() => match list_kind(custom, Manner::Apply, field, items) {
            ListKind::Atomic => {
                out.insert(at.to_vec(), value.clone());
            }
            ListKind::Set => {
                for item in items {
                    out.insert(down(format!("v:{item}")), Value::Null);
                }
            }
            ListKind::Keyed(keys) => {
                for item in items {
                    let path = down(item_segment(item, keys));
                    out.insert(path.clone(), Value::Null);
                    for (key, value) in item.as_object().into_iter().flatten() {
                        let mut path = path.clone();
                        path.push(format!("f:{key}"));
                        collect(custom, key, value, &path, out);
                    }
                }
            }
        },
        other => {
            out.insert(at.to_vec(), other.clone());
        }
    }
}

/// The segment by which an item of a keyed list is named.
pub(crate) fn item_segment(item: &Value, keys: &[&str]) -> String {
    let found: Map<String, Value> = keys.iter().filter_map(|k| key_of(item, k).map(|v| ((*k).to_owned(), v))).collect();
    format!("k:{}", Value::Object(found))
}

/// One manager's entry.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) manager: String,
    /// `Apply` or `Update`.
    pub(crate) operation: String,
    pub(crate) part: String,
    pub(crate) api_version: String,
    pub(crate) time: String,
    pub(crate) fields: Fields,
}

impl Entry {
    pub(crate) fn is(&self, operation: &str, writer: Writer<'_>) -> bool {
        self.operation == operation && self.manager == writer.manager && self.part == writer.part.unwrap_or_default()
    }
}

/// The entries of an object.
pub(crate) fn entries(object: &Value) -> Vec<Entry> {
    json::list(object, "/metadata/managedFields")
        .iter()
        .map(|e| {
            let mut fields = Fields::new();
            decode(e.get("fieldsV1").unwrap_or(&Value::Null), &mut Vec::new(), &mut fields);
            Entry {
                manager: text(e, "/manager").to_owned(),
                operation: text(e, "/operation").to_owned(),
                part: text(e, "/subresource").to_owned(),
                api_version: text(e, "/apiVersion").to_owned(),
                time: text(e, "/time").to_owned(),
                fields,
            }
        })
        .collect()
}

fn decode(tree: &Value, at: &mut Path, out: &mut Fields) {
    let Some(map) = tree.as_object() else { return };
    for (key, below) in map {
        if key == "." {
            out.insert(at.clone());
            continue;
        }
        at.push(key.clone());
        if below.as_object().is_none_or(Map::is_empty) {
            out.insert(at.clone());
        } else {
            decode(below, at, out);
        }
        at.pop();
    }
}

fn encode(fields: &Fields) -> Value {
    let mut root = json!({});
    for path in fields {
        let mut at = &mut root;
        for segment in path {
            let Some(map) = at.as_object_mut() else { break };
            at = map.entry(segment.clone()).or_insert_with(|| json!({}));
        }
    }
    // A field that is a member and has members below it says so with a dot.
    for path in fields {
        let mut at = Some(&mut root);
        for segment in path {
            at = at.and_then(|v| v.get_mut(segment));
        }
        if let Some(map) = at.and_then(Value::as_object_mut)
            && !map.is_empty()
        {
            map.insert(".".into(), json!({}));
        }
    }
    root
}

/// Writes the entries into an object; empty ones go.
pub(crate) fn write(object: &mut Value, entries: Vec<Entry>) {
    let all: Vec<Value> = entries
        .into_iter()
        .filter(|e| !e.fields.is_empty())
        .map(|e| {
            let mut value = json!({
                "manager": e.manager, "operation": e.operation, "apiVersion": e.api_version, "time": e.time,
                "fieldsType": "FieldsV1", "fieldsV1": encode(&e.fields),
            });
            if !e.part.is_empty() {
                json::set(&mut value, &["subresource"], e.part);
            }
            value
        })
        .collect();
    if all.is_empty() {
        json::unset(object, &["metadata", "managedFields"]);
    } else {
        json::set(object, &["metadata", "managedFields"], all);
    }
}

/// Books an ordinary write: what is new or other in `new` is now the writer's, what is gone is nobody's.
pub(crate) fn book(custom: bool, old: &Value, new: &mut Value, writer: Writer<'_>, now: &str) {
    let (before, after) = (leaves(custom, old), leaves(custom, new));
    let touched: Fields = after.iter().filter(|(p, v)| before.get(*p) != Some(*v)).map(|(p, _)| p.clone()).collect();
    let gone: Fields = before.keys().filter(|p| !after.contains_key(*p)).cloned().collect();
    let mut all = entries(old);
    for entry in &mut all {
        entry.fields.retain(|f| !gone.contains(f) && (!touched.contains(f) || entry.manager == writer.manager));
    }
    if !touched.is_empty() {
        let api_version = text(new, "/apiVersion").to_owned();
        match all.iter_mut().find(|e| e.is("Update", writer)) {
            Some(own) => {
                own.fields.extend(touched);
                now.clone_into(&mut own.time);
                own.api_version = api_version;
            }
            None => all.push(Entry {
                manager: writer.manager.to_owned(),
                operation: "Update".into(),
                part: writer.part.unwrap_or_default().to_owned(),
                api_version,
                time: now.to_owned(),
                fields: touched,
            }),
        }
    }
    write(new, all);
}

/// A path as refusals print it: `.spec.template.spec.containers[name="frigate"].image`.
pub(crate) fn shown(path: &[String]) -> String {
    let mut out = String::new();
    for segment in path {
        match segment.split_once(':') {
            Some(("f", name)) => {
                out.push('.');
                out.push_str(name);
            }
            Some(("k", keys)) => {
                let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                let parts: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
                out.push_str(&format!("[{}]", parts.join(",")));
            }
            Some((_, value)) => out.push_str(&format!("[={value}]")),
            None => out.push_str(segment),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_survive_being_written_and_read() {
        let object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "labels": {"x": "1"}},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": {"spec": {"containers": [
                {"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]}}},
        });
        let fields: Fields = leaves(false, &object).into_keys().collect();
        let shown: Vec<String> = fields.iter().map(|p| super::shown(p)).collect();
        assert!(shown.contains(&".spec.template.spec.containers[name=\"c\"].image".to_owned()), "{shown:?}");
        assert!(shown.contains(&".spec.selector".to_owned()), "{shown:?}");
        assert_eq!(shown.len(), 8, "{shown:?}");
        let mut back = Fields::new();
        decode(&encode(&fields), &mut Vec::new(), &mut back);
        assert_eq!(back, fields);
    }

    #[test]
    fn a_field_belongs_to_who_changed_it_last() {
        let old = json!({});
        let mut one = json!({"metadata": {"name": "a"}, "spec": {"suspend": false, "path": "x"}});
        book(true, &old, &mut one, Writer::new("flux"), "t1");
        let mut two = one.clone();
        json::set(&mut two, &["spec", "suspend"], true);
        book(true, &one, &mut two, Writer::new("kubectl-patch"), "t2");
        let owners: Vec<(String, usize)> = entries(&two).into_iter().map(|e| (e.manager, e.fields.len())).collect();
        assert_eq!(owners, [("flux".to_owned(), 1), ("kubectl-patch".to_owned(), 1)]);
    }
}
