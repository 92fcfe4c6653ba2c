//! Claims: read, cleaned for making anew, made, deleted, and who holds them.

use k8s_openapi::api::core::v1 as core;
use serde_json::{Value, json};

use super::api::Kubernetes;
use super::error::KubeError;
use super::meta::{Meta, quantities};
use super::pod::Pod;
use super::resource::CLAIM;
use super::volume::Volume;
use crate::base::hold::MARK;
use crate::base::permit::{Permit, Thing};

/// The annotation that makes a provisioner act for a node without any pod.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// A claim.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// Name, uid, labels. A claim that is being deleted keeps its phase: look at `meta.deleting`.
    pub meta: Meta,
    /// `Pending`, `Bound` or `Lost` (its volume vanished).
    pub phase: String,
    /// The volume that it names; `None` where none yet.
    pub volume: Option<String>,
    /// The storage class; `None` where the default one was asked for and not yet filled in.
    pub class: Option<String>,
    /// The size asked for.
    pub requested: String,
    /// `ReadWriteOnce`, ...
    pub access_modes: Vec<String>,
    /// The object as it was read: what the claim is made from again.
    pub raw: Value,
}

impl Claim {
    #[doc(hidden)]
    pub fn from_api(value: Value) -> Result<Self, serde_json::Error> {
        let meta = Meta::of(&value);
        let raw = value.clone();
        let claim: core::PersistentVolumeClaim = serde_json::from_value(value)?;
        let spec = claim.spec.unwrap_or_default();
        let requests = spec.resources.and_then(|r| r.requests);
        Ok(Self {
            meta,
            phase: claim.status.and_then(|s| s.phase).unwrap_or_default(),
            volume: spec.volume_name.filter(|name| !name.is_empty()),
            class: spec.storage_class_name,
            requested: quantities(requests).remove("storage").unwrap_or_default(),
            access_modes: spec.access_modes.unwrap_or_default(),
            raw,
        })
    }

    /// True where it is bound and stays so.
    pub fn is_bound(&self) -> bool {
        self.phase == "Bound" && self.meta.deleting.is_none()
    }

    /// The node for which its volume is or was asked for.
    pub fn selected_node(&self) -> Option<&str> {
        self.meta.annotations.get(SELECTED_NODE).map(String::as_str)
    }
}

/// A recorded claim as a manifest for a new one whose volume is made on `node`.
///
/// Identity, status, binding and owner references go; labels and foreign annotations stay, so that Flux and Helm
/// know it as theirs. Owner references go because the garbage collector removes what names an owner that is gone;
/// a StatefulSet puts its own back.
pub fn fresh_manifest(recorded: &Value, node: &str) -> Value {
    let mut manifest = cleaned(recorded);
    manifest["metadata"]["annotations"][SELECTED_NODE] = json!(node);
    manifest
}

/// A recorded claim as a manifest for a new one that is bound to an existing volume.
pub fn rebinding_manifest(recorded: &Value, volume: &str) -> Value {
    let mut manifest = cleaned(recorded);
    manifest["spec"]["volumeName"] = json!(volume);
    manifest
}

fn cleaned(recorded: &Value) -> Value {
    let meta = Meta::of(recorded);
    let foreign = |key: &String| {
        let domain = key.split_once('/').map_or("", |(domain, _)| domain);
        let binding =
            domain == "pv.kubernetes.io" || (domain.starts_with("volume.") && domain.ends_with("kubernetes.io"));
        !binding && key != MARK
    };
    let annotations: serde_json::Map<String, Value> =
        meta.annotations.into_iter().filter(|(key, _)| foreign(key)).map(|(k, v)| (k, json!(v))).collect();
    let mut spec = recorded.get("spec").cloned().unwrap_or_else(|| json!({}));
    if let Some(spec) = spec.as_object_mut() {
        spec.shift_remove("volumeName");
    }
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": meta.name, "namespace": meta.namespace, "labels": meta.labels, "annotations": annotations,
        },
        "spec": spec,
    })
}

/// A pod that keeps a claim from going.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The pod's name.
    pub pod: String,
    /// The pod's uid.
    pub uid: String,
    /// The pod's phase; a finished pod holds as well.
    pub phase: String,
    /// True where the pod is being deleted.
    pub deleting: bool,
    /// True where the pod is bound to a node: only those hold the claim, the others only name it.
    pub blocks: bool,
    /// The pod's controller, `Job/backup-123`; `None` for a bare pod.
    pub owner: Option<String>,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = if self.deleting { "Terminating" } else { &self.phase };
        write!(f, "pod {} ({state}", self.pod)?;
        if let Some(owner) = &self.owner { write!(f, ", of {owner})") } else { f.write_str(")") }
    }
}

/// The pods, of the claim's namespace, that mount a claim. The protection of claims counts every pod object that is
/// bound to a node, Completed and Terminating ones included (pvc_protection_controller.go).
pub fn holders(claim: &str, pods: &[Pod]) -> Vec<Holder> {
    let uses = |pod: &&Pod| pod.claims.iter().any(|c| c.claim == claim);
    let holder = |pod: &Pod| Holder {
        pod: pod.meta.name.clone(),
        uid: pod.meta.uid.clone(),
        phase: pod.phase.clone(),
        deleting: pod.meta.deleting.is_some(),
        blocks: pod.node.is_some(),
        owner: pod.meta.controller().map(|o| format!("{}/{}", o.kind, o.name)),
    };
    pods.iter().filter(uses).map(holder).collect()
}

impl Kubernetes {
    /// A claim by name; `None` where there is none.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn claim(&self, namespace: &str, name: &str) -> Result<Option<Claim>, KubeError> {
        let value: Option<Value> = self.get(&CLAIM, namespace, name).await?;
        value.map(|v| self.shape(&CLAIM.name_of(namespace, name), Claim::from_api(v))).transpose()
    }

    /// The claims of a namespace, or of all.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn claims(&self, namespace: Option<&str>) -> Result<Vec<Claim>, KubeError> {
        let all: Vec<Value> = self.list(&CLAIM, namespace, &[]).await?;
        all.into_iter().map(|v| self.shape("persistentvolumeclaims", Claim::from_api(v))).collect()
    }

    /// The claims of a namespace, and then all volumes: in this order, so that the volume of a claim that is bound is
    /// among them. Side by side a claim could seem to be bound to a volume that is not there.
    ///
    /// # Errors
    /// Each for itself: what keeps the API from answering.
    pub async fn claims_and_volumes(
        &self,
        namespace: &str,
    ) -> (Result<Vec<Claim>, KubeError>, Result<Vec<Volume>, KubeError>) {
        let claims = self.claims(Some(namespace)).await;
        (claims, self.volumes().await)
    }

    /// The pods that mount a claim.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn claim_holders(&self, namespace: &str, name: &str) -> Result<Vec<Holder>, KubeError> {
        Ok(holders(name, &self.pods_in(namespace).await?))
    }

    /// Makes a claim from a manifest ([`fresh_manifest`], [`rebinding_manifest`]); gives its uid.
    ///
    /// # Errors
    /// What keeps the API from doing it; [`KubeError::Exists`] where one of that name is there (a claim that is
    /// being deleted counts).
    pub async fn create_claim(&self, permit: &Permit, manifest: &Value) -> Result<Claim, KubeError> {
        let meta = Meta::of(manifest);
        let note = match (manifest.pointer("/spec/volumeName"), meta.annotations.get(SELECTED_NODE)) {
            (Some(volume), _) => format!("on volume {}", volume.as_str().unwrap_or_default()),
            (None, Some(node)) => format!("for node {node}"),
            (None, None) => String::new(),
        };
        let made = self.create(permit, &CLAIM, (&meta.namespace, &meta.name), manifest, &note).await?;
        let call = self.call("POST", CLAIM.name_of(&meta.namespace, &meta.name), true);
        Claim::from_api(made).map_err(|e| KubeError::BadAnswer { call, text: format!("{:?} error", e.classify()) })
    }

    /// Deletes the claim with this uid. With `loses_data` (its volume's policy is `Delete`, or the volume has no
    /// other way back) the operator must have named it. "Accepted", not "gone": pods may hold it.
    ///
    /// # Errors
    /// What keeps the API from doing it; [`KubeError::Replaced`] where the claim is another one by now. Nothing
    /// happens where it is gone already.
    pub async fn delete_claim(
        &self,
        permit: &Permit,
        claim: (&str, &str),
        uid: &str,
        loses_data: bool,
    ) -> Result<(), KubeError> {
        if loses_data {
            permit.may_destroy(&Thing::claim(claim.0, claim.1))?;
        }
        self.delete(permit, &CLAIM, claim, uid).await
    }
}
