//! The kubelet, and what runs on a node.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A kubelet as Kubernetes tells of it. Ready stays for up to 50 s after a power-off: compare the boot ids too.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Kubelet {
    /// The Node object is there. Without one nothing else here says anything.
    pub registered: bool,
    /// Ready.
    pub ready: bool,
    /// Why not, in Kubernetes' words; empty where it is ready.
    pub reason: String,
    /// Since when Kubernetes has not heard of it (Ready is Unknown); None where it reports, of whatever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unheard_since: Option<Timestamp>,
    /// It is cordoned.
    pub cordoned: bool,
    /// Whose mark the cordon bears: `run 7k2 on box` for a hold of ours, `Talos` where Talos does it and takes it back by
    /// itself; None for a cordon that nobody put his name to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cordon_mark: Option<String>,
    /// The Node object's uid.
    pub uid: String,
    /// When the Node object was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// The kubelet's version, `v1.34.1`.
    pub version: String,
    /// The operating system in words, `Talos (v1.11.5)`.
    pub os: String,
    /// The uuid of the firmware of the machine that it runs on, in lower case.
    pub system_uuid: String,
    /// The kernel's boot id as the kubelet told it last.
    pub boot_id: String,
    /// The control plane runs on it.
    pub control_plane: bool,
    /// Conditions that say that it is short of something: `MemoryPressure`, `DiskPressure`, `PIDPressure`.
    pub pressures: Vec<String>,
    /// What there is, by resource name, as quantities (`1`, `31848Mi`).
    pub capacity: BTreeMap<String, String>,
    /// What pods may ask for.
    pub allocatable: BTreeMap<String, String>,
}

impl Kubelet {
    /// What is not as it should be.
    pub fn wrong(&self) -> Vec<String> {
        if !self.registered {
            return vec!["Kubernetes has no such node".into()];
        }
        let mut lines = Vec::new();
        if !self.ready {
            lines.push(if self.reason.is_empty() { "not Ready".into() } else { format!("not Ready: {}", self.reason) });
        }
        if self.cordoned {
            let by = self.cordon_mark.as_ref().map(|mark| format!(" by {mark}")).unwrap_or_default();
            lines.push(format!("cordoned{by}"));
        }
        lines.extend(self.pressures.iter().cloned());
        lines
    }
}

/// What runs on a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Workloads {
    /// Pods on it that have not ended.
    pub pods: usize,
    /// Those that are not healthy.
    pub not_ready: Vec<NotReady>,
    /// Those of an earlier Node object of the same name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Earlier>,
}

/// A pod that was on the node before the Node object that is there now was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Earlier {
    /// `NAMESPACE/NAME`.
    pub pod: String,
    /// The uid of the Node that it names as its owner, where that is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// When the kubelet took it in, where that was before the Node object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<Timestamp>,
}

/// A pod that is not healthy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotReady {
    /// What it is a pod of.
    pub owner: Workload,
    /// The pod's name.
    pub pod: String,
    /// Why, in Kubernetes' words.
    pub why: String,
}

/// What has pods.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Workload {
    /// Its namespace.
    pub namespace: String,
    /// `ReplicaSet`, `StatefulSet`, `DaemonSet`, `Job`; `Pod` where nothing owns it.
    pub kind: String,
    /// Its name.
    pub name: String,
}

impl Workloads {
    /// What is not as it should be.
    pub fn wrong(&self) -> Vec<String> {
        self.not_ready.iter().map(|pod| format!("{}/{}: {}", pod.owner.namespace, pod.pod, pod.why)).collect()
    }
}
