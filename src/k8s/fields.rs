//! Who wrote a field, from `metadata.managedFields`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A writer of a field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldOwner {
    /// The field manager, `kubectl-label`, `k3s`, `kustomize-controller`.
    pub manager: String,
    /// `Apply` or `Update`.
    pub operation: String,
    /// When it wrote last, RFC 3339; empty where it does not say.
    pub time: String,
}

impl std::fmt::Display for FieldOwner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.manager)?;
        if self.time.is_empty() { Ok(()) } else { write!(f, " at {}", self.time) }
    }
}

/// The managers that own the field at a path of `fieldsV1` keys (`f:spec`, `f:suspend`), newest first.
pub fn owners_of(managed: &[Value], path: &[&str]) -> Vec<FieldOwner> {
    let text = |entry: &Value, key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut owners: Vec<FieldOwner> = managed
        .iter()
        .filter(|entry| {
            let root = entry.get("fieldsV1");
            path.iter().try_fold(root.unwrap_or(&Value::Null), |at, key| at.get(*key)).is_some()
        })
        .map(|entry| FieldOwner {
            manager: text(entry, "manager"),
            operation: text(entry, "operation"),
            time: text(entry, "time"),
        })
        .collect();
    owners.sort_by(|a, b| b.time.cmp(&a.time));
    owners
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_owners_of_a_field_newest_first() {
        let managed = [
            json!({"manager": "k3s", "operation": "Update", "time": "2025-01-01T00:00:00Z",
                   "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:coral": {}}}}}),
            json!({"manager": "kubectl-label", "operation": "Update", "time": "2025-02-01T00:00:00Z",
                   "fieldsV1": {"f:metadata": {"f:labels": {"f:coral": {}, "f:disk": {}}}}}),
            json!({"manager": "other", "operation": "Apply", "fieldsV1": {"f:spec": {}}}),
        ];
        let names = |path: &[&str]| owners_of(&managed, path).into_iter().map(|o| o.manager).collect::<Vec<_>>();
        assert_eq!(names(&["f:metadata", "f:labels", "f:coral"]), ["kubectl-label", "k3s"]);
        assert_eq!(names(&["f:metadata", "f:labels", "f:disk"]), ["kubectl-label"]);
        assert!(names(&["f:metadata", "f:labels", "f:none"]).is_empty());
    }
}
