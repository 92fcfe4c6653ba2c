//! Nodes that nobody knows yet: the kubelet makes its Node object, and is Ready once there is a network for pods.

use serde_json::{Value, json};

use super::Round;
use super::facts::{Machine, Registers};
use super::node::{CONDITIONS, KUBELET, KUBELET_STATUS, pages_of};
use crate::lab::kube::fields::Writer;
use crate::lab::kube::json::{self, list, text};
use crate::lab::kube::kinds;

/// What pods that make the network are labelled with.
const NETWORKS: &[&str] = &["flannel", "cilium", "calico-node", "kube-router"];
/// A label and a taint of control planes.
const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

impl Round<'_> {
    /// A kubelet makes its Node object when it starts, and not again in the same boot (kubernetes
    /// `pkg/kubelet/kubelet_node_status.go`, `registerWithAPIServer`).
    pub(super) fn register(&mut self) {
        let facts = self.facts;
        for (name, machine) in &facts.machines {
            let (Some(registers), Some(boot)) = (&machine.registers, &machine.boot) else { continue };
            let known = self.kube.control.registered.get(name) == Some(boot);
            if self.kube.store.get(kinds::nodes(), "", name).is_some() {
                if !known {
                    self.kube.control.registered.insert(name.clone(), boot.clone());
                }
            } else if !known && self.held(&format!("register/{name}/{boot}"), KUBELET) {
                self.kube.control.registered.insert(name.clone(), boot.clone());
                self.kube.control.unwired.insert(name.clone());
                let node = self.node_of(name, boot, machine, registers);
                self.kube.store.insert(kinds::nodes(), node, KUBELET_STATUS);
            }
        }
    }

    fn node_of(&self, name: &str, boot: &str, machine: &Machine, registers: &Registers) -> Value {
        let (now, version) = (&self.kube.store.now, &self.kube.version);
        let mut labels = json!({
            "beta.kubernetes.io/arch": "amd64", "beta.kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
            "kubernetes.io/os": "linux", "kubernetes.io/hostname": name,
        });
        let mut taints =
            vec![json!({ "key": "node.kubernetes.io/not-ready", "effect": "NoSchedule", "timeAdded": now })];
        if machine.control_plane {
            // Talos's own controller adds both (siderolabs/talos `controllers/k8s/node_label_spec.go`).
            json::set(&mut labels, &[CONTROL_PLANE], "");
        }
        if registers.tainted {
            taints.push(json!({ "key": CONTROL_PLANE, "effect": "NoSchedule" }));
        }
        for (key, value) in &registers.labels {
            json::set(&mut labels, &[key], value.as_str());
        }
        let pages = pages_of(machine.pages.unwrap_or_default());
        let memory = registers.memory / 1_024;
        let has = |memory: u64, disk: &str| {
            json!({ "cpu": registers.cores.to_string(), "memory": format!("{memory}Mi"), "hugepages-2Mi": pages,
                "ephemeral-storage": disk, "pods": "110" })
        };
        let reserved = 512 + machine.pages.unwrap_or_default() * 2;
        let mut node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": { "name": name, "labels": labels },
            "spec": { "taints": taints },
            "status": {
                "addresses": [{ "type": "InternalIP", "address": machine.ip }, { "type": "Hostname", "address": name }],
                "capacity": has(memory, "60Gi"), "allocatable": has(memory.saturating_sub(reserved), "50Gi"),
                "nodeInfo": {
                    "architecture": "amd64", "bootID": boot, "containerRuntimeVersion": "containerd://2.1.4",
                    "kernelVersion": "6.12.57-talos", "kubeProxyVersion": version, "kubeletVersion": version,
                    "machineID": registers.uuid.replace('-', ""), "operatingSystem": "linux",
                    "osImage": format!("Talos (v{})", registers.version), "systemUUID": registers.uuid,
                },
                "runtimeHandlers": [{ "name": "" }, { "name": "runc" }],
            },
        });
        let range = self.free_range();
        json::set(&mut node, &["spec", "podCIDR"], range.as_str());
        json::set(&mut node, &["spec", "podCIDRs"], json!([range]));
        for (kind, status, reason, message) in CONDITIONS {
            match *kind {
                "Ready" => {
                    let message = "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady \
                                   message:Network plugin returns error: cni plugin not initialized";
                    json::set_condition(&mut node, kind, "False", "KubeletNotReady", message, now);
                }
                kind => json::set_condition(&mut node, kind, status, reason, message, now),
            }
        }
        node
    }

    /// The first range of pod addresses that no node has.
    fn free_range(&self) -> String {
        let taken: Vec<String> =
            self.kube.store.list(kinds::nodes(), None).map(|node| text(node, "/spec/podCIDR").to_owned()).collect();
        let range = |n: u32| format!("10.244.{n}.0/24");
        (0..255).map(range).find(|range| !taken.contains(range)).unwrap_or_default()
    }

    /// Whether a node has never had a network for its pods: one that had it keeps its configuration on its disk.
    pub(super) fn lacks_network(&mut self, name: &str) -> bool {
        if !self.kube.control.unwired.contains(name) {
            return false;
        }
        let wires = |pod: &Value| {
            let kind = json::label(pod, "k8s-app").or_else(|| json::label(pod, "app.kubernetes.io/name"));
            let runs = list(pod, "/status/containerStatuses").iter().any(|c| c.pointer("/state/running").is_some());
            text(pod, "/spec/nodeName") == name && kind.is_some_and(|kind| NETWORKS.contains(&kind)) && runs
        };
        let lacks = !self.kube.store.list(kinds::pods(), None).any(|pod| wires(pod));
        if !lacks {
            self.kube.control.unwired.remove(name);
        }
        lacks
    }
}

/// What Talos puts into a cluster that has just been bootstrapped (siderolabs/talos `controllers/k8s/manifest_apply.go`).
pub(super) fn manifests(kube: &mut crate::lab::kube::Kube) {
    for mut object in kube.manifests.clone() {
        let Some(kind) = kinds::of(text(&object, "/apiVersion"), text(&object, "/kind")) else { continue };
        let space = kind.namespaced.then(|| json::namespace(&object).to_owned());
        let made = crate::lab::kube::write::insert(kube, kind, space.as_deref(), &mut object, Writer::new("talos"));
        if let Err(refusal) = made {
            tracing::warn!("a manifest of the cluster does not fit: {}", refusal.message());
        }
    }
}
