//! The Kubernetes side of a world as it is compared with another.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::flux;
use super::json::{self as at, text};
use crate::lab::world::World;

/// What is left out, with the reason.
pub const LEFT_OUT: &[(&str, &str)] = &[
    ("metadata.{uid,resourceVersion,generation,creationTimestamp,managedFields,ownerReferences}", "set by the server"),
    ("status.observedGeneration, conditions but type and status", "generations, times and texts with names in them"),
    ("annotations of binding, provisioning, revisions and requests", "set by controllers, or tokens"),
    ("spec.volumeName, names of volumes", "made from uids; compared as the claim and the node that they are for"),
    ("claimRef.{uid,resourceVersion}", "set by the server"),
    ("nodeInfo.bootID", "another one at each boot"),
    ("taints[].timeAdded", "a time that the node controller sets"),
    ("taints of node.kubernetes.io", "a controller's, with their times, by the cordon and the conditions, which count"),
    ("replicasets, controllerrevisions, endpointslices", "history and bookkeeping of controllers"),
    ("pods", "compared by labels, phase and readiness, and how many there are: where one lands is the scheduler's"),
    ("events, leases", "a log, and a heartbeat"),
    ("Flux artifacts, revisions, inventories, handled requests", "the tree at the branch's tip is compared instead"),
];

const KINDS: &[&str] = &["Event", "Lease", "ReplicaSet", "ControllerRevision", "EndpointSlice", "Endpoints"];

const ANNOTATIONS: &[&str] = &[
    "pv.kubernetes.io/bind-completed",
    "pv.kubernetes.io/bound-by-controller",
    "volume.kubernetes.io/selected-node",
    "volume.kubernetes.io/storage-provisioner",
    "volume.beta.kubernetes.io/storage-provisioner",
    "local.path.provisioner/selected-node",
    "deployment.kubernetes.io/revision",
    "reconcile.fluxcd.io/requestedAt",
];

const STATUS: &[&str] = &[
    "observedGeneration",
    "lastHandledReconcileAt",
    "lastAppliedRevision",
    "lastAttemptedRevision",
    "artifact",
    "history",
    "inventory",
    "lastPushTime",
    "lastPushCommit",
    "collisionCount",
    "startTime",
    "lastPhaseTransitionTime",
    "podIP",
    "podIPs",
];

/// Every volume's name and what stands for it in a comparison: further ones of one claim on one node are counted.
pub(super) fn volume_names(world: &World) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    let mut known: BTreeMap<String, u32> = BTreeMap::new();
    let volumes = world.kube.store.everything().filter(|(_, o)| text(o, "/kind") == "PersistentVolume");
    let mut volumes: Vec<_> = volumes.map(|(_, volume)| volume).collect();
    volumes.sort_by_key(|volume| text(volume, "/status/phase"));
    for volume in volumes {
        let claim = format!("{}/{}", text(volume, "/spec/claimRef/namespace"), text(volume, "/spec/claimRef/name"));
        let terms = at::list(volume, "/spec/nodeAffinity/required/nodeSelectorTerms");
        let node = terms.first().map_or("", |t| text(t, "/matchExpressions/0/values/0"));
        let plain = format!("volume of {claim} at {node}");
        let nth = known.entry(plain.clone()).or_default();
        *nth += 1;
        let plain = if *nth == 1 { plain } else { format!("{plain}, number {nth}") };
        names.insert(at::name(volume).to_owned(), plain);
    }
    names
}

/// See [`super::compared`].
pub(super) fn compared(world: &World) -> Value {
    let mut objects: BTreeMap<String, Value> = BTreeMap::new();
    let mut pods: BTreeMap<String, u64> = BTreeMap::new();
    for (_, object) in world.kube.store.everything() {
        let kind = text(object, "/kind");
        if kind == "Pod" {
            *pods.entry(pod(object)).or_default() += 1;
        } else if !KINDS.contains(&kind) {
            let key = format!("{kind} {}/{}", at::namespace(object), at::name(object));
            objects.insert(key, bare(object));
        }
    }
    let replicas = super::mayastor::compared(world);
    json!({ "objects": objects, "pods": pods, "tree": flux::tip(&world.kube.flux), "replicas": replicas })
}

/// A pod by what it is for.
fn pod(object: &Value) -> String {
    let labels: Map<String, Value> = at::map(object, "/metadata/labels").cloned().unwrap_or_default();
    let mut labels: Vec<String> = labels
        .iter()
        .filter(|(key, _)| !key.ends_with("-hash"))
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    labels.sort();
    format!(
        "{} [{}] {}{}",
        at::namespace(object),
        labels.join(","),
        text(object, "/status/phase"),
        if at::holds(object, "Ready") { " ready" } else { "" }
    )
}

fn bare(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(meta) = object.pointer_mut("/metadata").and_then(Value::as_object_mut) {
        for key in ["uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "ownerReferences"] {
            meta.remove(key);
        }
        let empty = meta.get_mut("annotations").and_then(Value::as_object_mut).is_some_and(|annotations| {
            ANNOTATIONS.iter().for_each(|key| drop(annotations.remove(*key)));
            annotations.is_empty()
        });
        if empty {
            meta.remove("annotations");
        }
    }
    if let Some(status) = object.pointer_mut("/status").and_then(Value::as_object_mut) {
        STATUS.iter().for_each(|key| drop(status.remove(*key)));
        if let Some(Value::Array(conditions)) = status.get("conditions") {
            let short = |c: &Value| (text(c, "/type").to_owned(), Value::from(text(c, "/status")));
            let short: Map<String, Value> = conditions.iter().map(short).collect();
            status.insert("conditions".into(), short.into());
        }
        if let Some(info) = status.get_mut("nodeInfo").and_then(Value::as_object_mut) {
            info.remove("bootID");
        }
    }
    for taint in object.pointer_mut("/spec/taints").and_then(Value::as_array_mut).into_iter().flatten() {
        at::unset(taint, &["timeAdded"]);
    }
    if let Some(spec) = object.pointer_mut("/spec").and_then(Value::as_object_mut)
        && let Some(Value::Array(taints)) = spec.get_mut("taints")
    {
        taints.retain(|taint| !text(taint, "/key").starts_with("node.kubernetes.io/"));
        if taints.is_empty() {
            spec.remove("taints");
        }
    }
    for reference in ["uid", "resourceVersion"] {
        at::unset(&mut object, &["spec", "claimRef", reference]);
    }
    object
}
