//! What a Talos node does to its own Node object and its pods (siderolabs/talos `pkg/kubernetes`, and its controller
//! `k8s/node_apply.go`).

use serde_json::Value;

use super::Kube;
use super::evict::evict_pod;
use super::fields::Writer;
use super::json::{self, flag, text};
use super::kinds;

/// siderolabs/talos pkg/machinery/constants, `AnnotationCordonedKey`; its value is `true`.
const CORDONED: &str = "talos.dev/cordoned";
const TALOS: Writer<'static> = Writer::new("talos");
/// Talos labels its control planes with it.
const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";
/// How long a pod may take to end.
const GRACE: i64 = 60;

impl Kube {
    /// Cordons a node in Talos's name; one that is cordoned already stays whose it is. False where there is no such
    /// node.
    pub(in crate::lab) fn talos_cordon(&mut self, name: &str) -> bool {
        let Some(node) = self.store.get(kinds::nodes(), "", name).cloned() else { return false };
        if !flag(&node, "/spec/unschedulable") {
            self.store.edit(kinds::nodes(), &node, TALOS, |n| {
                json::set(n, &["spec", "unschedulable"], true);
                json::set(n, &["metadata", "annotations", CORDONED], "true");
            });
        }
        true
    }

    /// Takes a cordon of Talos's own back; true where there was one.
    pub(in crate::lab) fn talos_uncordon(&mut self, name: &str) -> bool {
        let Some(node) = self.store.get(kinds::nodes(), "", name).cloned() else { return false };
        let own = flag(&node, "/spec/unschedulable") && json::annotation(&node, CORDONED).is_some();
        if own {
            self.store.edit(kinds::nodes(), &node, TALOS, |n| {
                json::unset(n, &["spec", "unschedulable"]);
                json::unset(n, &["metadata", "annotations", CORDONED]);
            });
        }
        own
    }

    /// A node that is a worker is not labelled as one of the control plane.
    pub(in crate::lab) fn talos_worker(&mut self, name: &str) {
        let Some(node) = self.store.get(kinds::nodes(), "", name).cloned() else { return };
        if json::label(&node, CONTROL_PLANE).is_some() {
            self.store.edit(kinds::nodes(), &node, TALOS, |n| {
                json::unset(n, &["metadata", "labels", CONTROL_PLANE]);
            });
        }
    }

    /// Evicts what can be evicted from a node: all but static pods, pods of DaemonSets, and pods of nobody. How many of
    /// them are still there.
    pub(in crate::lab) fn talos_evict(&mut self, name: &str) -> usize {
        let goes = |pod: &Value| {
            let owner = json::controller(pod).map(|owner| text(owner, "/kind"));
            text(pod, "/spec/nodeName") == name && !matches!(owner, None | Some("DaemonSet" | "Node"))
        };
        let pods: Vec<_> = self.store.list(kinds::pods(), None).filter(|pod| goes(pod)).cloned().collect();
        for pod in pods.iter().filter(|pod| !json::deleting(pod)) {
            // A budget that keeps one is asked again.
            let _gone = evict_pod(self, pod, GRACE);
        }
        pods.len()
    }
}
