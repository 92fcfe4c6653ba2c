//! What an object must be, and what of it may change.

use serde_json::Value;

use super::json::{self, list, map, text};
use super::kinds::Kind;
use super::quantity;
use super::select::label_selector;
use super::status::{Outcome, Refusal};

type Problem = (String, &'static str, String);

fn problem(field: &str, text: impl Into<String>) -> Problem {
    (field.to_owned(), "FieldValueInvalid", format!("Invalid value: {}", text.into()))
}

fn forbidden(field: &str, text: impl Into<String>) -> Problem {
    (field.to_owned(), "FieldValueForbidden", format!("Forbidden: {}", text.into()))
}

fn required(field: &str) -> Problem {
    (field.to_owned(), "FieldValueRequired", "Required value".into())
}

fn settle(kind: &Kind, object: &Value, problems: &[Problem]) -> Outcome<()> {
    if problems.is_empty() { Ok(()) } else { Err(Refusal::invalid(kind, json::name(object), problems)) }
}

/// What holds for every object of a kind, new or changed.
pub(crate) fn object(kind: &'static Kind, object: &Value) -> Outcome<()> {
    let mut problems = Vec::new();
    for field in ["labels", "annotations"] {
        for (key, value) in map(object, &format!("/metadata/{field}")).into_iter().flatten() {
            let Some(value) = value.as_str() else {
                return Err(Refusal::bad(format!(
                    "cannot unmarshal {value} into Go struct field ObjectMeta.metadata.{field} of type string"
                )));
            };
            if !good_key(key) || (field == "labels" && !good_label(value)) {
                problems.push(problem(&format!("metadata.{field}"), format!("\"{key}: {value}\"")));
            }
        }
    }
    if kind.custom {
        return settle(kind, object, &problems);
    }
    match kind.resource {
        "deployments" | "replicasets" | "statefulsets" | "daemonsets" => {
            if object.pointer("/spec/selector").is_none() {
                problems.push(required("spec.selector"));
            } else if !label_selector(
                object.pointer("/spec/selector"),
                object.pointer("/spec/template").unwrap_or(&Value::Null),
            ) {
                problems.push(problem(
                    "spec.template.metadata.labels",
                    format!(
                        "{}: `selector` does not match template `labels`",
                        object.pointer("/spec/template/metadata/labels").unwrap_or(&Value::Null)
                    ),
                ));
            }
            if json::int(object, "/spec/replicas").is_some_and(|n| n < 0) {
                problems.push(problem("spec.replicas", "must be greater than or equal to 0"));
            }
            if let Some(spec) = object.pointer("/spec/template/spec") {
                // What a StatefulSet's claim templates bring is mounted as a volume of the pod is.
                let claims = list(object, "/spec/volumeClaimTemplates").iter().map(json::name).collect();
                pod_spec(spec, "spec.template.spec", claims, &mut problems);
            }
        }
        "pods" => match object.get("spec") {
            Some(spec) => pod_spec(spec, "spec", Vec::new(), &mut problems),
            None => problems.push(required("spec.containers")),
        },
        "persistentvolumeclaims" => {
            if list(object, "/spec/accessModes").is_empty() {
                problems.push((
                    "spec.accessModes".into(),
                    "FieldValueRequired",
                    "Required value: at least 1 access mode is required".into(),
                ));
            }
            if object.pointer("/spec/resources/requests/storage").is_none() {
                problems.push(required("spec.resources[storage]"));
            }
        }
        "persistentvolumes" => {
            if object.pointer("/spec/capacity/storage").is_none() {
                problems.push(required("spec.capacity"));
            }
            if list(object, "/spec/accessModes").is_empty() {
                problems.push(required("spec.accessModes"));
            }
            let policy = text(object, "/spec/persistentVolumeReclaimPolicy");
            if !["Retain", "Delete", "Recycle"].contains(&policy) {
                let text =
                    format!("Unsupported value: \"{policy}\": supported values: \"Delete\", \"Recycle\", \"Retain\"");
                problems.push(("spec.persistentVolumeReclaimPolicy".into(), "FieldValueNotSupported", text));
            }
        }
        _ => {}
    }
    settle(kind, object, &problems)
}

fn pod_spec<'a>(spec: &'a Value, at: &str, mut volumes: Vec<&'a str>, problems: &mut Vec<Problem>) {
    let containers = list(spec, "/containers");
    if containers.is_empty() {
        problems.push(required(&format!("{at}.containers")));
    }
    volumes.extend(list(spec, "/volumes").iter().map(|v| text(v, "/name")));
    for (i, container) in containers.iter().enumerate() {
        for field in ["name", "image"] {
            if text(container, &format!("/{field}")).is_empty() {
                problems.push(required(&format!("{at}.containers[{i}].{field}")));
            }
        }
        for (j, mount) in list(container, "/volumeMounts").iter().enumerate() {
            let name = text(mount, "/name");
            if !volumes.contains(&name) {
                let field = format!("{at}.containers[{i}].volumeMounts[{j}].name");
                problems.push((field, "FieldValueNotFound", format!("Not found: \"{name}\"")));
            }
        }
    }
}

fn good_key(key: &str) -> bool {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(p, n)| (Some(p), n));
    !name.is_empty() && name.len() <= 63 && good_label(name) && prefix.is_none_or(|p| !p.is_empty() && !p.contains('/'))
}

fn good_label(value: &str) -> bool {
    let edge = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    value.len() <= 63
        && value.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        && edge(value.chars().next())
        && edge(value.chars().next_back())
}

/// What holds for a change of an object.
pub(crate) fn change(kind: &'static Kind, old: &Value, new: &Value) -> Outcome<()> {
    object(kind, new)?;
    if kind.custom {
        return Ok(());
    }
    let mut problems = Vec::new();
    let differs = |pointer: &str| old.pointer(pointer) != new.pointer(pointer);
    let immutable = |at: &str, problems: &mut Vec<Problem>| {
        problems.push(problem(
            at,
            format!(
                "{}: field is immutable",
                new.pointer(&format!("/{}", at.replace('.', "/"))).unwrap_or(&Value::Null)
            ),
        ));
    };
    if matches!(kind.resource, "rolebindings" | "clusterrolebindings") && differs("/roleRef") {
        let text = format!("{}: cannot change roleRef", new.pointer("/roleRef").unwrap_or(&Value::Null));
        problems.push(problem("roleRef", text));
    }
    match kind.resource {
        "deployments" | "replicasets" | "daemonsets" if differs("/spec/selector") => {
            immutable("spec.selector", &mut problems);
        }
        "statefulsets" if others_differ(old, new, STATEFUL) => {
            let text = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                        'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                        'minReadySeconds' are forbidden";
            problems.push(forbidden("spec", text));
        }
        "persistentvolumeclaims" => claim(old, new, &mut problems),
        "persistentvolumes" => {
            let source = |v: &Value| -> Vec<Value> {
                ["hostPath", "local", "csi", "nfs"]
                    .iter()
                    .map(|k| v["spec"].get(*k).cloned().unwrap_or_default())
                    .collect()
            };
            if source(old) != source(new) {
                let text = "spec.persistentvolumesource is immutable after creation";
                problems.push(forbidden("spec.persistentvolumesource", text));
            }
            let had = old.pointer("/spec/nodeAffinity").is_some_and(|a| !a.is_null());
            if had && differs("/spec/nodeAffinity") {
                immutable("spec.nodeAffinity", &mut problems);
            }
            if differs("/spec/volumeMode") {
                immutable("spec.volumeMode", &mut problems);
            }
        }
        "pods"
            if others_differ(
                old,
                new,
                &["containers", "tolerations", "activeDeadlineSeconds", "nodeName", "terminationGracePeriodSeconds"],
            ) =>
        {
            let text = "pod updates may not change fields other than `spec.containers[*].image`,\
                        `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions \
                        to existing tolerations),`spec.terminationGracePeriodSeconds`";
            problems.push(forbidden("spec", text));
        }
        "configmaps" | "secrets" if super::admit::frozen(old) && differs("/data") => {
            problems.push(forbidden("data", "field is immutable when `immutable` is set"));
        }
        "storageclasses" => {
            for field in ["provisioner", "parameters", "reclaimPolicy", "volumeBindingMode"] {
                if differs(&format!("/{field}")) {
                    problems.push(forbidden(field, format!("updates to {field} are forbidden.")));
                }
            }
        }
        "runtimeclasses" if differs("/handler") => immutable("handler", &mut problems),
        _ => {}
    }
    settle(kind, new, &problems)
}

const STATEFUL: &[&str] = &[
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

fn others_differ(old: &Value, new: &Value, free: &[&str]) -> bool {
    let rest = |v: &Value| {
        let mut spec = v.get("spec").cloned().unwrap_or_default();
        for field in free {
            json::unset(&mut spec, &[field]);
        }
        spec
    };
    rest(old) != rest(new)
}

/// A claim's spec is immutable, but for `volumeName` where it is empty, and a bound claim's size, which may grow.
fn claim(old: &Value, new: &Value, problems: &mut Vec<Problem>) {
    let bound = text(old, "/status/phase") == "Bound";
    let mut free = vec![];
    if text(old, "/spec/volumeName").is_empty() {
        free.push("volumeName");
    }
    if old.pointer("/spec/storageClassName").is_none() {
        free.push("storageClassName");
    }
    let size = |v: &Value| quantity::bytes(text(v, "/spec/resources/requests/storage")).unwrap_or_default();
    if bound {
        free.push("resources");
        if size(new) < size(old) {
            let text = "field can not be less than status.capacity";
            problems.push(forbidden("spec.resources.requests.storage", text));
        } else if size(new) > size(old) {
            let text = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc \
                        must support resize";
            problems.push(forbidden("spec.resources.requests.storage", text));
        }
    }
    if others_differ(old, new, &free) {
        let text =
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        problems.push(forbidden("spec", text));
    }
}
