//! Which lists are merged by which keys, and which values are one piece.
//!
//! As in the API types' `patchMergeKey`, `listType` and `mapType` markers. Custom resources here declare none: their
//! lists are one piece each.

use serde_json::Value;

/// How a list is merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListKind {
    /// One piece.
    Atomic,
    /// Plain values, each at most once.
    Set,
    /// Objects told apart by these keys; the first is the strategic merge key.
    Keyed(&'static [&'static str]),
}

/// What is asked: for server-side apply or for a strategic merge patch. The two differ in a few places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Server-side apply.
    Apply,
    /// Strategic merge.
    Strategic,
}

/// How the list in `field` below `parent` is merged; `items` tells container ports from service ports.
pub(crate) fn list_kind(custom: bool, manner: Manner, field: &str, items: &[Value]) -> ListKind {
    if field == "finalizers" {
        return ListKind::Set;
    }
    if field == "ownerReferences" {
        return ListKind::Keyed(&["uid"]);
    }
    if custom {
        return ListKind::Atomic;
    }
    match field {
        "containers" | "initContainers" | "ephemeralContainers" | "env" | "volumes" | "imagePullSecrets" => {
            ListKind::Keyed(&["name"])
        }
        "secrets" => ListKind::Keyed(&["name"]),
        "volumeMounts" => ListKind::Keyed(&["mountPath"]),
        "volumeDevices" => ListKind::Keyed(&["devicePath"]),
        "hostAliases" => ListKind::Keyed(&["ip"]),
        "conditions" => ListKind::Keyed(&["type"]),
        "addresses" if manner == Manner::Strategic => ListKind::Keyed(&["type"]),
        // `spec.taints` is one piece in both manners: kubectl sends the whole list.
        "topologySpreadConstraints" => ListKind::Keyed(&["topologyKey", "whenUnsatisfiable"]),
        "ports" => {
            let container = items.iter().any(|i| i.get("containerPort").is_some());
            match (container, manner) {
                (true, Manner::Apply) => ListKind::Keyed(&["containerPort", "protocol"]),
                (true, Manner::Strategic) => ListKind::Keyed(&["containerPort"]),
                (false, Manner::Apply) => ListKind::Keyed(&["port", "protocol"]),
                (false, Manner::Strategic) => ListKind::Keyed(&["port"]),
            }
        }
        _ => ListKind::Atomic,
    }
}

/// Whether a map is one piece for server-side apply.
pub(crate) fn atomic_map(custom: bool, field: &str) -> bool {
    !custom
        && matches!(
            field,
            "selector" | "nodeSelector" | "claimRef" | "labelSelector" | "involvedObject" | "required" | "fieldRef"
        )
}

/// The value of a merge key in a list item; ports have a default protocol.
pub(crate) fn key_of(item: &Value, key: &str) -> Option<Value> {
    item.get(key).cloned().or_else(|| (key == "protocol").then(|| Value::from("TCP")))
}

/// Whether two items of a keyed list are the same one.
pub(crate) fn same_item(a: &Value, b: &Value, keys: &[&str]) -> bool {
    keys.iter().all(|key| {
        let (a, b) = (key_of(a, key), key_of(b, key));
        a.is_some() && a == b
    })
}
