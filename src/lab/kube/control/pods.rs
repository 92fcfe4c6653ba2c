//! What controllers of pods share: whose a pod is, making one from a template, taking one away.

use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Round;
use crate::lab::kube::fields::Writer;
use crate::lab::kube::json::{self, text};
use crate::lab::kube::kinds;
use crate::lab::kube::store::Key;
use crate::lab::kube::write;

impl Round<'_> {
    /// The objects of a kind that `owner` controls, in its namespace.
    pub(super) fn owned(&self, kind: &'static kinds::Kind, owner: &Value) -> Vec<Arc<Value>> {
        self.kube
            .store
            .list(kind, Some(json::namespace(owner)))
            .filter(|o| json::controller(o).is_some_and(|r| text(r, "/uid") == json::uid(owner)))
            .cloned()
            .collect()
    }

    /// Makes a pod from the template of its owner. `edit` gives it its name and what else is its own.
    pub(super) fn make_pod(&mut self, owner: &Value, component: &str, edit: impl FnOnce(&mut Value)) {
        let template = owner.pointer("/spec/template").cloned().unwrap_or_default();
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "generateName": format!("{}-", json::name(owner)),
                "labels": template.pointer("/metadata/labels").cloned().unwrap_or_else(|| json!({})),
                "ownerReferences": [json::owner(owner)],
            },
            "spec": template.get("spec").cloned().unwrap_or_default(),
        });
        if let Some(annotations) = template.pointer("/metadata/annotations") {
            json::set(&mut pod, &["metadata", "annotations"], annotations.clone());
        }
        edit(&mut pod);
        let space = json::namespace(owner).to_owned();
        match write::insert(self.kube, kinds::pods(), Some(&space), &mut pod, Writer::new("k3s")) {
            Ok(made) => {
                let message = format!("Created pod: {}", json::name(&made));
                self.note(owner, component, "Normal", "SuccessfulCreate", &message);
            }
            Err(refusal) => {
                let message = format!("Error creating: {}", refusal.message());
                self.note(owner, component, "Warning", "FailedCreate", &message);
            }
        }
    }

    /// Deletes a pod with the grace of its own spec.
    pub(super) fn end_pod(&mut self, owner: &Value, component: &str, pod: &Value) {
        let key = Key::new(kinds::pods(), json::namespace(pod), json::name(pod));
        let placed = !text(pod, "/spec/nodeName").is_empty();
        let grace = json::int(pod, "/spec/terminationGracePeriodSeconds").unwrap_or(30);
        self.kube.store.delete(&key, if placed { grace } else { 0 });
        let message = format!("Deleted pod: {}", json::name(pod));
        self.note(owner, component, "Normal", "SuccessfulDelete", &message);
    }

    /// Writes a status where it differs.
    pub(super) fn set_status(&mut self, kind: &'static kinds::Kind, object: &Value, change: impl FnOnce(&mut Value)) {
        self.kube.store.edit(kind, object, Writer::status("k3s"), change);
    }
}

/// Neither finished nor being deleted.
pub(super) fn active(pod: &Value) -> bool {
    !json::deleting(pod) && !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// A short name for a pod template.
pub(super) fn template_hash(owner: &Value) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut text = String::new();
    plain(owner.pointer("/spec/template").unwrap_or(&Value::Null), &mut text);
    Sha256::digest(text)
        .iter()
        .take(10)
        .map(|b| char::from(LETTERS.get(usize::from(*b) % LETTERS.len()).copied().unwrap_or(b'x')))
        .collect()
}

/// A value as text, map keys in order: the same template is the same text however it was written.
fn plain(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            out.push('{');
            for key in keys {
                out.push_str(key);
                out.push(':');
                plain(map.get(key).unwrap_or(&Value::Null), out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for item in items {
                plain(item, out);
                out.push(',');
            }
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}
