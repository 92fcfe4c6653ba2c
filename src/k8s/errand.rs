//! A pod that does one thing on a node and ends.

use std::time::Duration;

use serde_json::{Value, json};

use super::api::Kubernetes;
use super::error::KubeError;
use super::pod::Pod;
use super::resource::POD;
use crate::base::permit::Permit;

/// The label with the run that a pod belongs to.
pub const RUN: &str = "pvemig.io/run";

/// A pod that runs to its end on one node. What it has to tell it writes to `/dev/termination-log`, up to 4 KiB; that is
/// read from the state of its container ([`State::Ended`]) and needs no right to read logs.
///
/// [`State::Ended`]: super::pod::State::Ended
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errand {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The run that it belongs to.
    pub run: String,
    /// The node.
    pub node: String,
    /// The image.
    pub image: String,
    /// The command with its arguments; no shell is involved unless it is one.
    pub command: Vec<String>,
    /// Directories of the node, which must be there, and where the container sees them.
    pub directories: Vec<(String, String)>,
    /// How long it may run.
    pub limit: Duration,
}

impl Errand {
    fn manifest(&self) -> Value {
        let volume = |(at, (host, _)): (usize, &(String, String))| {
            // Otherwise the kubelet would make what is not there, on another disk.
            json!({"name": format!("d{at}"), "hostPath": {"path": host, "type": "Directory"}})
        };
        let mount =
            |(at, (_, inside)): (usize, &(String, String))| json!({"name": format!("d{at}"), "mountPath": inside});
        let container = json!({
            "name": "errand",
            "image": self.image,
            "imagePullPolicy": "IfNotPresent",
            "command": self.command,
            "volumeMounts": self.directories.iter().enumerate().map(mount).collect::<Vec<_>>(),
            "securityContext": {
                "runAsUser": 0,
                "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        });
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"namespace": self.namespace, "name": self.name, "labels": {RUN: self.run}},
            "spec": {
                // Past the scheduler, which leaves a cordoned node out, and whatever the node's taints.
                "nodeName": self.node,
                "tolerations": [{"operator": "Exists"}],
                "restartPolicy": "Never",
                "activeDeadlineSeconds": self.limit.as_secs().max(1),
                "terminationGracePeriodSeconds": 5,
                "automountServiceAccountToken": false,
                "enableServiceLinks": false,
                "containers": [container],
                "volumes": self.directories.iter().enumerate().map(volume).collect::<Vec<_>>(),
            },
        })
    }
}

impl Kubernetes {
    /// Creates the pod; its uid. One of this name that the same run has made before is taken for it.
    ///
    /// # Errors
    /// What keeps the API from doing it; [`KubeError::Exists`] where a pod of this name is somebody else's.
    pub async fn run_pod(&self, permit: &Permit, errand: &Errand) -> Result<String, KubeError> {
        let (namespace, name) = (errand.namespace.as_str(), errand.name.as_str());
        let note = format!("on {} for run {}", errand.node, errand.run);
        match self.create(permit, &POD, (namespace, name), &errand.manifest(), &note).await {
            Ok(answer) => Ok(super::meta::Meta::of(&answer).uid),
            Err(error @ KubeError::Exists { .. }) => {
                let ours = |pod: &Pod| pod.meta.labels.get(RUN) == Some(&errand.run) && pod.meta.deleting.is_none();
                match self.pod(namespace, name).await?.filter(ours) {
                    Some(pod) => Ok(pod.meta.uid),
                    None => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Deletes the pod with this uid.
    ///
    /// # Errors
    /// What keeps the API from doing it; [`KubeError::Replaced`] where it is another one by now. Nothing happens where it
    /// is gone already.
    pub async fn delete_pod(
        &self,
        permit: &Permit,
        (namespace, name): (&str, &str),
        uid: &str,
    ) -> Result<(), KubeError> {
        self.delete(permit, &POD, (namespace, name), uid).await
    }
}
