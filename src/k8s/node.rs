//! Nodes: what is known of one, its labels, and whether pods may be scheduled to it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::api::{Kubernetes, Verb};
use super::error::KubeError;
use super::fields::{FieldOwner, owners_of};
use super::meta::{Condition, Meta, Taint, quantities};
use super::resource::{NODE, RUNTIME_CLASS};
use crate::base::hold::{MARK, Mark};
use crate::base::permit::Permit;

/// A node. By default nothing is known of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Node {
    /// Name, uid, labels, annotations.
    pub meta: Meta,
    /// True where it is cordoned.
    pub unschedulable: bool,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// The condition `Ready`; `None` where the kubelet never told.
    pub ready: Option<Condition>,
    /// The other conditions.
    pub conditions: Vec<Condition>,
    /// The kernel's boot id as the kubelet told it last; empty where unknown.
    pub boot_id: String,
    /// The uuid of the firmware of the machine that the kubelet runs on; empty where unknown.
    pub system_uuid: String,
    /// The operating system in words, `Talos (v1.11.5)`.
    pub os_image: String,
    /// The kubelet's version.
    pub kubelet: String,
    /// What pods may ask for, by resource name, as quantities (`1`, `2Gi`).
    pub allocatable: BTreeMap<String, String>,
    /// What there is; 1 here and 0 in `allocatable` means that a device plugin is sick.
    pub capacity: BTreeMap<String, String>,
    /// The handlers that its container runtime has; `None` where the kubelet does not tell (before 1.30).
    pub runtime_handlers: Option<Vec<String>>,
}

impl Node {
    /// Reads a core/v1 Node.
    #[doc(hidden)]
    pub fn from_api(value: Value) -> Result<Self, serde_json::Error> {
        let meta = Meta::of(&value);
        let node: core::Node = serde_json::from_value(value)?;
        let spec = node.spec.unwrap_or_default();
        let status = node.status.unwrap_or_default();
        let info = status.node_info.unwrap_or_default();
        let all: Vec<Condition> = status
            .conditions
            .unwrap_or_default()
            .into_iter()
            .map(|c| Condition {
                kind: c.type_,
                status: c.status,
                reason: c.reason.unwrap_or_default(),
                message: c.message.unwrap_or_default(),
                last_transition_time: c.last_transition_time.map(|at| at.0.to_string()),
                observed_generation: None,
            })
            .collect();
        let (ready, conditions): (Vec<_>, Vec<_>) = all.into_iter().partition(|c| c.kind == "Ready");
        Ok(Self {
            meta,
            unschedulable: spec.unschedulable.unwrap_or(false),
            taints: spec.taints.unwrap_or_default().into_iter().map(Taint::from).collect(),
            ready: ready.into_iter().next(),
            conditions,
            boot_id: info.boot_id,
            system_uuid: info.system_uuid,
            os_image: info.os_image,
            kubelet: info.kubelet_version,
            allocatable: quantities(status.allocatable),
            capacity: quantities(status.capacity),
            runtime_handlers: status
                .runtime_handlers
                .map(|handlers| handlers.into_iter().map(|h| h.name.unwrap_or_default()).collect()),
        })
    }

    /// True where the kubelet says Ready. It stays so for up to 50 s after a power-off: compare `boot_id` too.
    pub fn is_ready(&self) -> bool {
        self.ready.as_ref().is_some_and(|c| c.status == "True")
    }

    /// True where the control plane runs on it.
    pub fn is_control_plane(&self) -> bool {
        ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"]
            .iter()
            .any(|key| self.meta.labels.contains_key(*key))
    }

    /// Who wrote a label, from `managedFields`: several where several agree on it, none where nobody says.
    pub fn label_owners(&self, key: &str) -> Vec<FieldOwner> {
        owners_of(&self.meta.managed_fields, &["f:metadata", "f:labels", &format!("f:{key}")])
    }

    /// Who wrote `spec.unschedulable`.
    pub fn cordon_owners(&self) -> Vec<FieldOwner> {
        owners_of(&self.meta.managed_fields, &["f:spec", "f:unschedulable"])
    }
}

/// A RuntimeClass: the name in pods and the handler that a node must have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeClass {
    /// Its name.
    pub name: String,
    /// The handler in the node's container runtime.
    pub handler: String,
}

impl Kubernetes {
    /// A node by name; `None` where there is none.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn node(&self, name: &str) -> Result<Option<Node>, KubeError> {
        let value: Option<Value> = self.get(&NODE, "", name).await?;
        value.map(|v| self.shape(&format!("nodes/{name}"), Node::from_api(v))).transpose()
    }

    /// All nodes.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn nodes(&self) -> Result<Vec<Node>, KubeError> {
        let all: Vec<Value> = self.list(&NODE, None, &[]).await?;
        all.into_iter().map(|v| self.shape("nodes", Node::from_api(v))).collect()
    }

    /// A RuntimeClass by name.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn runtime_class(&self, name: &str) -> Result<Option<RuntimeClass>, KubeError> {
        let value: Option<Value> = self.get(&RUNTIME_CLASS, "", name).await?;
        Ok(value.map(|v| RuntimeClass {
            name: name.to_owned(),
            handler: v.get("handler").and_then(Value::as_str).unwrap_or_default().to_owned(),
        }))
    }

    /// Sets a label of a node.
    ///
    /// # Errors
    /// What keeps the API from doing it.
    pub async fn set_node_label(&self, permit: &Permit, node: &str, key: &str, value: &str) -> Result<(), KubeError> {
        let body = json!({"metadata": {"labels": {key: value}}});
        self.patch(permit, &NODE, ("", node), &body, &format!("label {key}={value}")).await?;
        Ok(())
    }

    /// Removes a label of a node; nothing happens where it has none.
    ///
    /// # Errors
    /// What keeps the API from doing it.
    pub async fn remove_node_label(&self, permit: &Permit, node: &str, key: &str) -> Result<(), KubeError> {
        let body = json!({"metadata": {"labels": {key: null}}});
        self.patch(permit, &NODE, ("", node), &body, &format!("remove label {key}")).await?;
        Ok(())
    }

    /// Cordons a node and puts the hold's mark on it, in one patch.
    ///
    /// # Errors
    /// What keeps the API from doing it.
    pub async fn cordon(&self, permit: &Permit, node: &str, mark: &Mark) -> Result<(), KubeError> {
        let body = json!({
            "metadata": {"annotations": {MARK: mark.to_annotation()}},
            "spec": {"unschedulable": true},
        });
        self.patch(permit, &NODE, ("", node), &body, "cordon").await?;
        Ok(())
    }

    /// Takes the mark off and sets `spec.unschedulable` to what it was before, in one patch.
    ///
    /// # Errors
    /// What keeps the API from doing it.
    pub async fn release_node(&self, permit: &Permit, node: &str, unschedulable: bool) -> Result<(), KubeError> {
        let was = if unschedulable { json!(true) } else { Value::Null };
        let body = json!({"metadata": {"annotations": {MARK: null}}, "spec": {"unschedulable": was}});
        let note = if unschedulable { "remove mark, stays cordoned" } else { "uncordon" };
        let name = NODE.name_of("", node);
        let target = (name.as_str(), NODE.path("", node));
        let (id, answer) = self.change(permit, Verb::MergePatch, target, &body, note).await?;
        // Its step has to know later whether it was this that let the node go.
        self.keep_uid(permit, id, ("PATCH", &name), &answer)
    }

    /// Gives an answer that does not have the expected shape its error.
    pub(super) fn shape<T>(&self, what: &str, parsed: Result<T, serde_json::Error>) -> Result<T, KubeError> {
        parsed.map_err(|e| KubeError::BadAnswer {
            call: self.call("GET", what.to_owned(), false),
            text: format!("a field has another type than the API says ({:?} error)", e.classify()),
        })
    }
}
