//! Static pods of Talos's control planes: the kubelet runs them from files and shows each as a mirror pod (kubelet
//! `pkg/kubelet/pod/mirror_client.go`; labels and requests as in siderolabs/talos `controllers/k8s/control_plane_static_pod.go`).

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Round;
use crate::lab::kube::fields::Writer;
use crate::lab::kube::json;
use crate::lab::kube::kinds;
use crate::lab::kube::write;

/// Programs with what they ask for.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("kube-apiserver", "200m", "512Mi"),
    ("kube-controller-manager", "50m", "256Mi"),
    ("kube-scheduler", "10m", "64Mi"),
];

impl Round<'_> {
    /// A mirror pod that is deleted through the API is there again at once.
    pub(super) fn static_pods(&mut self) {
        let facts = self.facts;
        for name in facts.machines.iter().filter(|(_, machine)| machine.control_plane).map(|(name, _)| name) {
            let Some(node) = self.kube.store.get(kinds::nodes(), "", name).cloned() else { continue };
            if !self.alive(name) {
                continue;
            }
            for (program, cpu, memory) in PROGRAMS {
                let pod = format!("{program}-{name}");
                if self.kube.store.get(kinds::pods(), "kube-system", &pod).is_none() {
                    let mut mirror = self.mirror(&node, &pod, program, json!({ "cpu": cpu, "memory": memory }));
                    let made = write::insert(
                        self.kube,
                        kinds::pods(),
                        Some("kube-system"),
                        &mut mirror,
                        Writer::new("kubelet"),
                    );
                    if let Err(refusal) = made {
                        tracing::debug!(pod, "no mirror pod: {}", refusal.message());
                    }
                }
            }
        }
    }

    fn mirror(&self, node: &Value, pod: &str, program: &str, requests: Value) -> Value {
        let name = json::name(node);
        let hash: String = Sha256::digest(pod).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": pod, "namespace": "kube-system",
                "labels": { "tier": "control-plane", "k8s-app": program, "component": program },
                "annotations": {
                    "kubernetes.io/config.hash": hash, "kubernetes.io/config.mirror": hash,
                    "kubernetes.io/config.seen": self.kube.store.now, "kubernetes.io/config.source": "file",
                },
                "ownerReferences": [{
                    "apiVersion": "v1", "kind": "Node", "name": name, "uid": json::uid(node), "controller": true,
                }],
            },
            "spec": {
                "nodeName": name, "hostNetwork": true, "priorityClassName": "system-cluster-critical",
                "tolerations": [{ "operator": "Exists", "effect": "NoExecute" }],
                "containers": [{
                    "name": program, "image": format!("registry.k8s.io/{program}:{}", self.kube.version),
                    "resources": { "requests": requests },
                }],
            },
        })
    }
}
