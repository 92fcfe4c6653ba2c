//! Pods: where they run, what they hold, and why they do not start.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;
use serde_json::Value;

use super::api::Kubernetes;
use super::error::KubeError;
use super::meta::{Condition, Meta, Owner, Toleration, not_tolerated, quantities};
use super::node::Node;
use super::resource::POD;
use super::select::{Term, terms};

/// A pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Pod {
    /// Name, uid, labels, owners.
    pub meta: Meta,
    /// The node that it is bound to; `None` while it is not scheduled.
    pub node: Option<String>,
    /// `Pending`, `Running`, `Succeeded`, `Failed`, `Unknown`.
    pub phase: String,
    /// Why it is in that phase, where the node says so for the whole pod: `DeadlineExceeded: Pod was active ..`; else empty.
    pub why: String,
    /// When the kubelet first saw it, RFC 3339; empty before.
    pub started: String,
    /// Its conditions.
    pub conditions: Vec<Condition>,
    /// Its containers, the init containers first.
    pub containers: Vec<Container>,
    /// The claims that it mounts.
    pub claims: Vec<ClaimUse>,
    /// The names of its `emptyDir` volumes: their data goes with the pod.
    pub empty_dirs: Vec<String>,
    /// The paths of its `hostPath` volumes.
    pub host_paths: Vec<String>,
    /// `spec.nodeSelector`.
    pub node_selector: BTreeMap<String, String>,
    /// The required node affinity; alternatives. `None` where there is none.
    pub node_affinity: Option<Vec<Term>>,
    /// Its tolerations.
    pub tolerations: Vec<Toleration>,
    /// Its runtime class.
    pub runtime_class: Option<String>,
    /// What its containers ask for besides cpu and memory (`nvidia.com/gpu`), summed.
    pub devices: BTreeMap<String, i64>,
}

/// A claim in a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimUse {
    /// The claim's name; `POD-VOLUME` for an ephemeral one.
    pub claim: String,
    /// True for a generic ephemeral volume, whose claim goes with the pod.
    pub ephemeral: bool,
}

/// A container and its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// True for an init container.
    pub init: bool,
    /// The image as asked for.
    pub image: String,
    /// The image as it runs, with digest; empty before.
    pub image_id: String,
    /// True where it is ready (an init container: where it is done).
    pub ready: bool,
    /// How often it was restarted.
    pub restarts: i32,
    /// Its state.
    pub state: State,
}

/// What a container does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// The kubelet has not told.
    Unknown,
    /// Not started: reason (`ContainerCreating`, `CrashLoopBackOff`, `ErrImagePull`) and text.
    Waiting {
        /// One word.
        reason: String,
        /// A sentence; may be empty.
        message: String,
    },
    /// It runs.
    Running,
    /// It ended.
    Ended {
        /// The exit code; 137 is a kill at the end of the grace period.
        code: i32,
        /// One word.
        reason: String,
        /// A sentence; may be empty.
        message: String,
    },
}

impl Pod {
    /// Reads a core/v1 Pod.
    #[doc(hidden)]
    pub fn from_api(value: Value) -> Result<Self, serde_json::Error> {
        let meta = Meta::of(&value);
        let conditions = Condition::all_of(&value);
        let pod: core::Pod = serde_json::from_value(value)?;
        let spec = pod.spec.unwrap_or_default();
        let status = pod.status.unwrap_or_default();
        let mut devices = BTreeMap::new();
        for container in &spec.containers {
            let resources = container.resources.clone().unwrap_or_default();
            let mut asked = quantities(resources.limits);
            asked.extend(quantities(resources.requests));
            for (key, value) in asked.into_iter().filter(|(key, _)| key.contains('/')) {
                *devices.entry(key).or_insert(0) += value.parse::<i64>().unwrap_or(1);
            }
        }
        let inits = spec.init_containers.unwrap_or_default();
        let mut containers = Vec::new();
        for (init, list, states) in
            [(true, inits, status.init_container_statuses), (false, spec.containers, status.container_statuses)]
        {
            let states = states.unwrap_or_default();
            for container in list {
                let state = states.iter().find(|s| s.name == container.name);
                containers.push(Container {
                    init,
                    image: container.image.unwrap_or_default(),
                    image_id: state.map(|s| s.image_id.clone()).unwrap_or_default(),
                    ready: state.is_some_and(|s| s.ready),
                    restarts: state.map_or(0, |s| s.restart_count),
                    state: state.and_then(|s| s.state.clone()).map_or(State::Unknown, State::from_api),
                    name: container.name,
                });
            }
        }
        let volumes = spec.volumes.unwrap_or_default();
        let claims = claims_of(&meta.name, &volumes);
        let affinity = spec.affinity.and_then(|a| a.node_affinity);
        Ok(Self {
            node: spec.node_name.filter(|n| !n.is_empty()),
            phase: status.phase.unwrap_or_default(),
            why: [status.reason, status.message].into_iter().flatten().collect::<Vec<_>>().join(": "),
            started: status.start_time.map(|t| t.0.to_string()).unwrap_or_default(),
            conditions,
            containers,
            claims,
            empty_dirs: volumes.iter().filter(|v| v.empty_dir.is_some()).map(|v| v.name.clone()).collect(),
            host_paths: volumes.iter().filter_map(|v| v.host_path.as_ref().map(|h| h.path.clone())).collect(),
            node_selector: spec.node_selector.unwrap_or_default(),
            node_affinity: affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution).map(terms),
            tolerations: spec.tolerations.unwrap_or_default().into_iter().map(Toleration::from).collect(),
            runtime_class: spec.runtime_class_name,
            devices,
            meta,
        })
    }

    /// True where the condition `Ready` is true and it is not being deleted.
    pub fn is_ready(&self) -> bool {
        self.meta.deleting.is_none() && self.condition("Ready").is_some_and(Condition::is_true)
    }

    /// True for phase Succeeded or Failed.
    pub fn is_finished(&self) -> bool {
        matches!(self.phase.as_str(), "Succeeded" | "Failed")
    }

    /// The DaemonSet that makes it.
    pub fn daemon_set(&self) -> Option<&Owner> {
        self.meta.controller().filter(|owner| owner.kind == "DaemonSet" && owner.api_version == "apps/v1")
    }

    /// True where it belongs to its node and stays there whatever is drained.
    pub fn is_of_the_node(&self) -> bool {
        self.is_mirror() || self.daemon_set().is_some()
    }

    /// True for a static pod's mirror, which cannot be deleted through the API.
    pub fn is_mirror(&self) -> bool {
        self.meta.annotations.contains_key("kubernetes.io/config.mirror")
    }

    /// A condition by its type.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|c| c.kind == kind)
    }

    /// Why the scheduler would not put it on a node now; empty where it would. Volumes are not looked at here, and
    /// of resources only whether the node has so many of a device at all.
    pub fn misfits(&self, node: &Node) -> Vec<String> {
        let mut why = Vec::new();
        if !node.is_ready() {
            why.push("not Ready".to_owned());
        }
        if node.unschedulable {
            why.push("cordoned".to_owned());
        }
        // The taint that goes with a cordon is said already.
        for taint in not_tolerated(&node.taints, &self.tolerations) {
            if !(node.unschedulable && taint.key == "node.kubernetes.io/unschedulable") {
                why.push(format!("taint {taint}"));
            }
        }
        for (key, value) in &self.node_selector {
            if node.meta.labels.get(key) != Some(value) {
                why.push(format!("no label {key}={value}"));
            }
        }
        if let Some(terms) = &self.node_affinity
            && !terms.iter().any(|term| term.admits(&node.meta.name, &node.meta.labels))
        {
            why.push("outside of its node affinity".to_owned());
        }
        for (device, count) in &self.devices {
            let has = node.allocatable.get(device).and_then(|q| q.parse::<i64>().ok()).unwrap_or(0);
            if has < *count {
                why.push(format!("{has} of {count} {device}"));
            }
        }
        why
    }

    /// What the pod itself says about not being ready: not scheduled, a container that waits or fell, a sandbox
    /// that does not come up. Empty for a pod that is ready or finished well.
    pub fn trouble(&self) -> Vec<String> {
        if self.is_ready() || self.phase == "Succeeded" {
            return Vec::new();
        }
        let mut lines = Vec::new();
        match self.condition("PodScheduled") {
            Some(c) if !c.is_true() => lines.push(format!("not scheduled: {} ({})", c.message, c.reason)),
            None if self.node.is_none() => lines.push("not scheduled, and the scheduler says nothing".to_owned()),
            _ => {}
        }
        if self.meta.deleting.is_some() {
            let held = if self.meta.finalizers.is_empty() {
                String::new()
            } else {
                format!(", held by finalizers {}", self.meta.finalizers.join(", "))
            };
            lines.push(format!("being deleted{held}"));
        }
        for container in &self.containers {
            let name = &container.name;
            match &container.state {
                State::Waiting { reason, .. } if reason == "PodInitializing" => {}
                State::Waiting { reason, message } if message.is_empty() => lines.push(format!("{name}: {reason}")),
                State::Waiting { reason, message } => lines.push(format!("{name}: {reason}: {message}")),
                State::Ended { code: 0, .. } => {}
                State::Ended { code, reason, .. } => lines.push(format!("{name}: ended with {code} ({reason})")),
                State::Running if !container.ready && !container.init => {
                    lines.push(format!("{name}: runs and is not ready"));
                }
                State::Running | State::Unknown => {}
            }
        }
        if lines.is_empty()
            && let Some(node) = &self.node
        {
            // The node controller takes Ready away from pods of a node that is silent, and leaves the rest as the kubelet told it.
            let given_up = self.phase == "Running" && self.condition("Ready").is_some_and(|c| !c.is_true());
            lines.push(if given_up {
                format!("on {node}, which no longer reports")
            } else {
                format!("scheduled to {node}, phase {}, the kubelet says nothing yet", self.phase)
            });
        }
        lines
    }
}

impl State {
    fn from_api(state: core::ContainerState) -> Self {
        if let Some(waiting) = state.waiting {
            return Self::Waiting {
                reason: waiting.reason.unwrap_or_default(),
                message: waiting.message.unwrap_or_default(),
            };
        }
        if let Some(ended) = state.terminated {
            return Self::Ended {
                code: ended.exit_code,
                reason: ended.reason.unwrap_or_default(),
                message: ended.message.unwrap_or_default(),
            };
        }
        if state.running.is_some() { Self::Running } else { Self::Unknown }
    }
}

/// The claims among volumes; an ephemeral one is named after its pod.
pub(super) fn claims_of(pod: &str, volumes: &[core::Volume]) -> Vec<ClaimUse> {
    let one = |volume: &core::Volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => Some(ClaimUse { claim: claim.claim_name.clone(), ephemeral: false }),
        (None, Some(_)) => Some(ClaimUse { claim: format!("{pod}-{}", volume.name), ephemeral: true }),
        (None, None) => None,
    };
    volumes.iter().filter_map(one).collect()
}

impl Kubernetes {
    /// A pod by name; `None` where there is none.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn pod(&self, namespace: &str, name: &str) -> Result<Option<Pod>, KubeError> {
        let value: Option<Value> = self.get(&POD, namespace, name).await?;
        value.map(|v| self.shape(&POD.name_of(namespace, name), Pod::from_api(v))).transpose()
    }

    /// All pods of a node, of all namespaces.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn pods_on(&self, node: &str) -> Result<Vec<Pod>, KubeError> {
        let field = format!("spec.nodeName={node}");
        self.pods_by(None, &[("fieldSelector", &field)]).await
    }

    /// The pods that are on no node, of all namespaces.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn pods_on_no_node(&self) -> Result<Vec<Pod>, KubeError> {
        self.pods_by(None, &[("fieldSelector", "spec.nodeName=")]).await
    }

    /// All pods of a namespace, the finished and the terminating ones too.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn pods_in(&self, namespace: &str) -> Result<Vec<Pod>, KubeError> {
        self.pods_by(Some(namespace), &[]).await
    }

    /// The pods of a namespace that a label selector in query form (`app=frigate`) chooses.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn pods_matching(&self, namespace: &str, selector: &str) -> Result<Vec<Pod>, KubeError> {
        self.pods_by(Some(namespace), &[("labelSelector", selector)]).await
    }

    async fn pods_by(&self, namespace: Option<&str>, query: &[(&str, &str)]) -> Result<Vec<Pod>, KubeError> {
        let all: Vec<Value> = self.list(&POD, namespace, query).await?;
        all.into_iter().map(|v| self.shape("pods", Pod::from_api(v))).collect()
    }
}
