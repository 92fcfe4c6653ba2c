//! What belongs to a node beside its Node object, and what goes with a machine that is gone: its lease, and volumes that
//! are still attached to it.

use k8s_openapi::api::coordination::v1 as coordination;
use k8s_openapi::api::storage::v1 as storage;
use serde_json::{Value, json};

use super::api::Kubernetes;
use super::error::KubeError;
use super::meta::Meta;
use super::node::Node;
use super::resource::{ATTACHMENT, LEASE, NODE};
use crate::base::permit::{Permit, Thing};

/// Where kubelets have their leases.
pub const LEASES: &str = "kube-node-lease";

/// The lease that a kubelet renews every ten seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its name, which is the node's.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// When the kubelet was heard last; empty where it never was.
    pub renewed: String,
    /// The uids of what it goes with.
    pub owners: Vec<String>,
}

/// A volume that a driver has attached to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Its name.
    pub name: String,
    /// The driver.
    pub attacher: String,
    /// The node's name.
    pub node: String,
    /// The volume; empty where it is written into the attachment itself.
    pub volume: String,
    /// The driver says that it is attached.
    pub attached: bool,
    /// Somebody has deleted it, and the driver has not let go of it yet.
    pub going: bool,
}

impl Lease {
    fn from_api(value: Value) -> Result<Self, serde_json::Error> {
        let lease: coordination::Lease = serde_json::from_value(value)?;
        let owners = lease.metadata.owner_references.unwrap_or_default();
        let renewed = lease.spec.and_then(|spec| spec.renew_time);
        Ok(Self {
            name: lease.metadata.name.unwrap_or_default(),
            uid: lease.metadata.uid.unwrap_or_default(),
            renewed: renewed.map(|at| format!("{:.0}", at.0)).unwrap_or_default(),
            owners: owners.into_iter().map(|owner| owner.uid).collect(),
        })
    }
}

impl Attachment {
    fn from_api(value: Value) -> Result<Self, serde_json::Error> {
        let meta = Meta::of(&value);
        let attachment: storage::VolumeAttachment = serde_json::from_value(value)?;
        let spec = attachment.spec;
        Ok(Self {
            name: meta.name,
            attacher: spec.attacher,
            node: spec.node_name,
            volume: spec.source.persistent_volume_name.unwrap_or_default(),
            attached: attachment.status.is_some_and(|status| status.attached),
            going: meta.deleting.is_some(),
        })
    }
}

impl std::fmt::Display for Attachment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let volume = if self.volume.is_empty() { "a volume of its own" } else { &self.volume };
        write!(f, "VolumeAttachment {} ({volume}, {})", self.name, self.attacher)
    }
}

impl Kubernetes {
    /// The lease of a node's kubelet; None where there is none.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn node_lease(&self, node: &str) -> Result<Option<Lease>, KubeError> {
        let value: Option<Value> = self.get(&LEASE, LEASES, node).await?;
        value.map(|v| self.shape(&LEASE.name_of(LEASES, node), Lease::from_api(v))).transpose()
    }

    /// The volumes that are attached to a node.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn attachments_of(&self, node: &str) -> Result<Vec<Attachment>, KubeError> {
        let all: Vec<Value> = self.list(&ATTACHMENT, None, &[]).await?;
        let all: Vec<Attachment> = all
            .into_iter()
            .map(|v| self.shape("volumeattachments", Attachment::from_api(v)))
            .collect::<Result<_, _>>()?;
        Ok(all.into_iter().filter(|attachment| attachment.node == node).collect())
    }

    /// Deletes the Node object with this uid, and with it what Kubernetes knows of the pods on it: where that machine is
    /// only cut off, they go on running beside their successors. The operator must have named it.
    ///
    /// # Errors
    /// What keeps the API from doing it; [`KubeError::Replaced`] where it is another one by now. Nothing happens where it
    /// is gone already.
    pub async fn delete_node(&self, permit: &Permit, name: &str, uid: &str) -> Result<(), KubeError> {
        permit.may_destroy(&Thing::node(name))?;
        self.delete(permit, &NODE, ("", name), uid).await
    }

    /// Deletes the lease of a kubelet that is gone for good.
    ///
    /// # Errors
    /// As [`Kubernetes::delete_node`].
    pub async fn delete_lease(&self, permit: &Permit, lease: &Lease) -> Result<(), KubeError> {
        self.delete(permit, &LEASE, (LEASES, &lease.name), &lease.uid).await
    }

    /// Takes the taints with these keys off a node, only if it is as it was read: taints are one list, and others write it.
    ///
    /// # Errors
    /// What keeps the API from doing it.
    pub async fn remove_taints(&self, permit: &Permit, node: &Node, keys: &[&str]) -> Result<(), KubeError> {
        let name = &node.meta.name;
        let Some(now): Option<Value> = self.get(&NODE, "", name).await? else { return Ok(()) };
        let taints = now.pointer("/spec/taints").and_then(Value::as_array).cloned().unwrap_or_default();
        let goes = |taint: &Value| taint["key"].as_str().is_some_and(|key| keys.contains(&key));
        if now.pointer("/metadata/uid").and_then(Value::as_str) != Some(node.meta.uid.as_str())
            || !taints.iter().any(goes)
        {
            return Ok(());
        }
        let left: Vec<&Value> = taints.iter().filter(|taint| !goes(taint)).collect();
        let taints = if left.is_empty() { Value::Null } else { json!(left) };
        let version = now.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
        let body = json!({"metadata": {"uid": node.meta.uid, "resourceVersion": version}, "spec": {"taints": taints}});
        self.patch(permit, &NODE, ("", name), &body, &format!("remove taint {}", keys.join(", "))).await?;
        Ok(())
    }
}
