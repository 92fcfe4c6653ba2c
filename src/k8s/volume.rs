//! Volumes and storage classes: where a volume's data is, and which nodes may use it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::storage::v1::StorageClass as ApiClass;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::api::{Kubernetes, Verb};
use super::claim::Claim;
use super::error::KubeError;
use super::meta::{Meta, quantities};
use super::node::Node;
use super::resource::{CLASS, VOLUME};
use super::select::{Term, terms};
use crate::base::permit::{Permit, Thing};

/// The node for which rancher's local-path provisioner made a volume (its own annotation).
const LOCAL_PATH_NODE: &str = "local.path.provisioner/selected-node";

/// CSI drivers whose volumes are on the node's own disks.
const NODE_LOCAL_DRIVERS: &[&str] = &[
    "topolvm.io",
    "topolvm.cybozu.com",
    "local.csi.openebs.io",
    "zfs.csi.openebs.io",
    "rawfile.csi.openebs.io",
    "lvm.csi.metal-stack.io",
];

/// A persistent volume.
#[derive(Debug, Clone, PartialEq)]
pub struct Volume {
    /// Name, uid, annotations.
    pub meta: Meta,
    /// `Available`, `Bound`, `Released`, `Failed`, `Pending`.
    pub phase: String,
    /// `Retain`, `Delete` or `Recycle`.
    pub reclaim_policy: String,
    /// The storage class; empty where none.
    pub class: String,
    /// The size that it says it has. Local-path does not enforce it: this says nothing about bytes used.
    pub capacity: String,
    /// The claim that it is bound to or kept for.
    pub claim: Option<ClaimRef>,
    /// Where its data is kept.
    pub source: Source,
    /// `spec.nodeAffinity.required`; `None` where there is none. The terms are alternatives.
    pub affinity: Option<Vec<Term>>,
    /// The object as it was read.
    pub raw: Value,
}

/// The claim in a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimRef {
    /// The claim's namespace.
    pub namespace: String,
    /// The claim's name.
    pub name: String,
    /// The claim's uid; `None` where the volume is only kept for a claim of that name.
    pub uid: Option<String>,
}

/// Where a volume's data is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A directory of a node; made where it does not exist, without any error.
    HostPath(String),
    /// A directory or disk of a node.
    Local(String),
    /// A CSI driver, by name.
    Csi(String),
    /// `SERVER:PATH`.
    Nfs(String),
    /// Any other kind, by its field name in the API.
    Other(String),
}

/// Which nodes may use a volume, as the scheduler sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// Every node.
    Free,
    /// Some of them.
    Zonal,
    /// This one alone.
    Pinned(String),
    /// None: the node is gone, or was relabelled.
    Orphaned,
}

/// Where the bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataAt {
    /// Not on a node's own disks.
    Shared,
    /// On these nodes' disks, or one of them where several are named.
    Nodes(Vec<String>),
    /// On some node's disks, and nothing says which.
    Unknown,
}

/// A volume seen against the nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The nodes to which a pod with this volume may be scheduled.
    pub eligible: Vec<String>,
    /// The same as a word.
    pub reach: Reach,
    /// Where the bytes are.
    pub data: DataAt,
    /// True where the affinity has `matchFields`, which tell where the data is and hold no pod.
    pub not_enforced: bool,
}

impl Placement {
    /// Whether a pod on this node finds the volume's data.
    pub fn serves(&self, node: &str) -> bool {
        let there = match &self.data {
            DataAt::Shared => true,
            // Of several nodes only one has it, and which one nobody says.
            DataAt::Nodes(nodes) => matches!(nodes.as_slice(), [only] if only == node),
            DataAt::Unknown => false,
        };
        there && self.admits(node)
    }

    /// Whether a pod with this volume may be scheduled to this node, data or not.
    pub fn admits(&self, node: &str) -> bool {
        self.eligible.iter().any(|n| n == node)
    }

    /// True where a pod may start on a node that does not have the data: it finds an empty directory and no error.
    pub fn can_start_empty(&self) -> bool {
        match &self.data {
            DataAt::Shared => false,
            DataAt::Nodes(nodes) => self.eligible.iter().any(|n| !nodes.contains(n) || nodes.len() > 1),
            DataAt::Unknown => self.eligible.len() > 1,
        }
    }
}

impl Volume {
    #[doc(hidden)]
    pub fn from_api(value: Value) -> Result<Self, serde_json::Error> {
        let meta = Meta::of(&value);
        let raw = value.clone();
        let volume: core::PersistentVolume = serde_json::from_value(value)?;
        let spec = volume.spec.unwrap_or_default();
        let source = match (&spec.host_path, &spec.local, &spec.csi, &spec.nfs) {
            (Some(host_path), ..) => Source::HostPath(host_path.path.clone()),
            (_, Some(local), ..) => Source::Local(local.path.clone()),
            (_, _, Some(csi), _) => Source::Csi(csi.driver.clone()),
            (_, _, _, Some(nfs)) => Source::Nfs(format!("{}:{}", nfs.server, nfs.path)),
            _ => Source::Other(other_source(&raw)),
        };
        Ok(Self {
            meta,
            phase: volume.status.and_then(|s| s.phase).unwrap_or_default(),
            reclaim_policy: spec.persistent_volume_reclaim_policy.unwrap_or_default(),
            class: spec.storage_class_name.unwrap_or_default(),
            capacity: quantities(spec.capacity).remove("storage").unwrap_or_default(),
            claim: spec.claim_ref.map(|r| ClaimRef {
                namespace: r.namespace.unwrap_or_default(),
                name: r.name.unwrap_or_default(),
                uid: r.uid.filter(|uid| !uid.is_empty()),
            }),
            source,
            affinity: spec.node_affinity.and_then(|a| a.required).map(terms),
            raw,
        })
    }

    /// True where its bytes are on a node's own disks.
    pub fn is_node_local(&self) -> bool {
        match &self.source {
            Source::HostPath(_) | Source::Local(_) => true,
            Source::Csi(driver) => NODE_LOCAL_DRIVERS.contains(&driver.as_str()),
            Source::Nfs(_) | Source::Other(_) => false,
        }
    }

    /// The affinity in words; `none` where there is none.
    pub fn affinity_text(&self) -> String {
        match &self.affinity {
            None => "none".into(),
            Some(terms) if terms.is_empty() => "no term (meets no node)".into(),
            Some(terms) => terms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", or "),
        }
    }

    /// Evaluates the volume's affinity against the nodes.
    pub fn placement(&self, nodes: &[Node]) -> Placement {
        let names = |admits: &dyn Fn(&Node) -> bool| -> Vec<String> {
            nodes.iter().filter(|n| admits(n)).map(|n| n.meta.name.clone()).collect()
        };
        let Some(terms) = &self.affinity else {
            return Placement {
                eligible: names(&|_| true),
                reach: Reach::Free,
                data: self.data_at(None),
                not_enforced: false,
            };
        };
        let eligible = names(&|n| terms.iter().any(|t| t.admits_by_labels(&n.meta.labels)));
        let meant = names(&|n| terms.iter().any(|t| t.admits(&n.meta.name, &n.meta.labels)));
        let reach = match eligible.as_slice() {
            [] => Reach::Orphaned,
            all if all.len() == nodes.len() && nodes.len() > 1 => Reach::Free,
            [only] => Reach::Pinned(only.clone()),
            _ => Reach::Zonal,
        };
        let not_enforced = terms.iter().any(|t| !t.fields.is_empty());
        let tells = meant.len() < nodes.len() || nodes.len() == 1;
        Placement { eligible, reach, data: self.data_at(tells.then_some(meant)), not_enforced }
    }

    /// The same with the claim that it is bound to: where nothing of the volume tells where its data is, the node that
    /// the claim was made for does. That annotation stays on a claim after it was bound.
    pub fn placement_for(&self, claim: Option<&Claim>, nodes: &[Node]) -> Placement {
        let mut placement = self.placement(nodes);
        let claim = claim.filter(|claim| claim.volume.as_ref() == Some(&self.meta.name));
        let Some(node) = claim.and_then(Claim::selected_node) else { return placement };
        let one_of = |nodes: &[String]| nodes.len() > 1 && nodes.iter().any(|n| n == node);
        if matches!(&placement.data, DataAt::Unknown) || matches!(&placement.data, DataAt::Nodes(n) if one_of(n)) {
            placement.data = DataAt::Nodes(vec![node.to_owned()]);
        }
        placement
    }

    /// Where the bytes are: by an affinity that names one node, else by the provisioner's annotation.
    fn data_at(&self, meant: Option<Vec<String>>) -> DataAt {
        if !self.is_node_local() {
            return DataAt::Shared;
        }
        let made_on = self.meta.annotations.get(LOCAL_PATH_NODE);
        match (meant.unwrap_or_default(), made_on) {
            (nodes, Some(node)) if nodes.is_empty() || (nodes.len() > 1 && nodes.contains(node)) => {
                DataAt::Nodes(vec![node.clone()])
            }
            (nodes, _) if nodes.is_empty() => DataAt::Unknown,
            (nodes, _) => DataAt::Nodes(nodes),
        }
    }
}

/// The name of the field of `spec` that is none of the general ones.
fn other_source(raw: &Value) -> String {
    const GENERAL: &[&str] = &[
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    ];
    let spec = raw.get("spec").and_then(Value::as_object);
    let key = spec.and_then(|spec| spec.keys().find(|key| !GENERAL.contains(&key.as_str())));
    key.cloned().unwrap_or_else(|| "unknown".into())
}

/// A storage class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageClass {
    /// Its name.
    pub name: String,
    /// Who makes its volumes, `rancher.io/local-path`.
    pub provisioner: String,
    /// The policy that its volumes get.
    pub reclaim_policy: String,
    /// True where a claim waits for a pod (or for the annotation `selected-node`).
    pub waits_for_consumer: bool,
    /// Its parameters.
    pub parameters: BTreeMap<String, String>,
}

impl Kubernetes {
    /// A volume by name; `None` where there is none.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn volume(&self, name: &str) -> Result<Option<Volume>, KubeError> {
        let value: Option<Value> = self.get(&VOLUME, "", name).await?;
        value.map(|v| self.shape(&VOLUME.name_of("", name), Volume::from_api(v))).transpose()
    }

    /// All volumes, the unbound ones too: those may hold data that can still be had.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn volumes(&self) -> Result<Vec<Volume>, KubeError> {
        let all: Vec<Value> = self.list(&VOLUME, None, &[]).await?;
        all.into_iter().map(|v| self.shape("persistentvolumes", Volume::from_api(v))).collect()
    }

    /// A storage class by name; `None` where there is none.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn storage_class(&self, name: &str) -> Result<Option<StorageClass>, KubeError> {
        let class: Option<ApiClass> = self.get(&CLASS, "", name).await?;
        Ok(class.map(|class| StorageClass {
            name: name.to_owned(),
            provisioner: class.provisioner,
            reclaim_policy: class.reclaim_policy.unwrap_or_else(|| "Delete".into()),
            waits_for_consumer: class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"),
            parameters: class.parameters.unwrap_or_default(),
        }))
    }

    /// Sets the reclaim policy of a volume. Any other than `Retain` only if the volume is as it was read: should it be
    /// Released meanwhile, the provisioner wipes it at once, so only call it with `Delete` on one that is Bound.
    ///
    /// # Errors
    /// What keeps the API from doing it; [`KubeError::Replaced`] where the volume is another one by now.
    pub async fn set_reclaim_policy(&self, permit: &Permit, volume: &Volume, policy: &str) -> Result<(), KubeError> {
        let mut metadata = json!({"uid": volume.meta.uid});
        let version = volume.raw.pointer("/metadata/resourceVersion");
        if let (Some(version), true) = (version, policy != "Retain") {
            metadata["resourceVersion"] = version.clone();
        }
        let body = json!({"metadata": metadata, "spec": {"persistentVolumeReclaimPolicy": policy}});
        self.patch(permit, &VOLUME, ("", &volume.meta.name), &body, &format!("reclaim policy {policy}")).await?;
        Ok(())
    }

    /// Keeps a Released or Available volume for a claim of this name: `claimRef` without uid. The volume becomes
    /// Available and is taken by that claim alone, also by one that GitOps makes without `volumeName`.
    ///
    /// # Errors
    /// What keeps the API from doing it; [`KubeError::Replaced`] where the volume is another one by now.
    pub async fn reserve_volume(
        &self,
        permit: &Permit,
        name: &str,
        uid: &str,
        claim: (&str, &str),
    ) -> Result<(), KubeError> {
        let reference = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.0, "name": claim.1,
            "uid": null, "resourceVersion": null,
        });
        let body = json!({"metadata": {"uid": uid}, "spec": {"claimRef": reference}});
        self.patch(permit, &VOLUME, ("", name), &body, &format!("keep for {}/{}", claim.0, claim.1)).await?;
        Ok(())
    }

    /// Deletes the volume object with this uid. With `loses_data` the operator must have named it.
    ///
    /// # Errors
    /// What keeps the API from doing it; nothing happens where it is gone already.
    pub async fn delete_volume(
        &self,
        permit: &Permit,
        name: &str,
        uid: &str,
        loses_data: bool,
    ) -> Result<(), KubeError> {
        if loses_data {
            permit.may_destroy(&Thing::volume(name))?;
        }
        self.delete(permit, &VOLUME, ("", name), uid).await
    }

    /// Deletes one object if it still has this uid. "Accepted", not "gone": finalizers may hold it.
    pub(super) async fn delete(
        &self,
        permit: &Permit,
        resource: &super::resource::Resource,
        (namespace, name): (&str, &str),
        uid: &str,
    ) -> Result<(), KubeError> {
        let body = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}});
        let target = (resource.name_of(namespace, name), resource.path(namespace, name));
        match self.change(permit, Verb::Delete, (&target.0, target.1), &body, &format!("uid {uid}")).await {
            Ok(_) | Err(KubeError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
