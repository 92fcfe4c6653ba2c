//! Nodes: what kubelets report, and what the node lifecycle controller makes of silence.

use std::time::Duration;

use serde_json::{Value, json};

use super::Round;
use super::facts::Machine;
use crate::lab::kube::fields::Writer;
use crate::lab::kube::json::{self, flag, list, text};
use crate::lab::kube::kinds;
use crate::lab::kube::store::Key;

/// From user space to the kubelet's first word.
pub(super) const KUBELET: Duration = Duration::from_secs(5);
/// `--node-monitor-grace-period`
const GRACE: Duration = Duration::from_secs(40);
/// How long a volume stays attached to a node that is gone.
const DETACH: Duration = Duration::from_secs(360);
/// How soon the lifecycle controller mirrors `spec.unschedulable` as a taint.
const TAINT: Duration = Duration::from_millis(500);

const CONTROLLER: Writer<'static> = Writer::new("k3s");
pub(super) const KUBELET_STATUS: Writer<'static> = Writer::status("k3s");

impl Round<'_> {
    pub(super) fn nodes(&mut self) {
        let facts = self.facts;
        self.register();
        for node in self.kube.store.all(kinds::nodes()) {
            let name = json::name(&node).to_owned();
            let machine = facts.machines.get(&name);
            match machine.and_then(|m| m.boot.as_ref().map(|b| (m, b))) {
                Some((machine, boot)) if self.held(&format!("kubelet/{name}/{boot}"), KUBELET) => {
                    self.kube.control.alive.insert(name.clone());
                    self.report(&node, boot, machine);
                }
                _ => {
                    if self.kube.control.alive.remove(&name) {
                        self.last_words(&name);
                    }
                    if self.held(&format!("silent/{name}"), GRACE) {
                        self.lost(&node);
                    }
                }
            }
            self.taints(&name);
        }
    }

    /// The kubelet's status update; written where it says something new.
    fn report(&mut self, node: &Value, boot: &str, machine: &Machine) {
        let name = json::name(node).to_owned();
        let ready = json::holds(node, "Ready");
        let known = text(node, "/status/nodeInfo/bootID").to_owned();
        if ready && known == boot || self.lacks_network(&name) {
            self.lease(&name);
            return;
        }
        let (boot, ip) = (boot.to_owned(), machine.ip.clone());
        // Another machine under the same name says so.
        let uuid = machine.registers.as_ref().map(|registers| registers.uuid.clone());
        // Counted when it starts, and never again.
        let pages = machine.pages.filter(|_| known != boot).map(pages_of);
        let now = self.kube.store.now.clone();
        self.kube.store.edit(kinds::nodes(), node, KUBELET_STATUS, |n| {
            json::set(n, &["status", "nodeInfo", "bootID"], boot.as_str());
            if let Some(uuid) = uuid.as_ref().filter(|uuid| !uuid.is_empty()) {
                json::set(n, &["status", "nodeInfo", "systemUUID"], uuid.as_str());
                json::set(n, &["status", "nodeInfo", "machineID"], uuid.replace('-', ""));
            }
            let addresses = json!([{ "type": "InternalIP", "address": ip }, { "type": "Hostname", "address": name }]);
            json::set(n, &["status", "addresses"], addresses);
            for part in ["capacity", "allocatable"] {
                if let Some(pages) = &pages {
                    json::set(n, &["status", part, "hugepages-2Mi"], pages.as_str());
                }
            }
            for (kind, status, reason, message) in CONDITIONS {
                json::set_condition(n, kind, status, reason, message, &now);
            }
        });
        if !known.is_empty() && known != boot {
            let message = format!("Node {name} has been rebooted, boot id: {boot}");
            self.note(node, "kubelet", "Warning", "Rebooted", &message);
        }
        if !ready {
            let message = format!("Node {name} status is now: NodeReady");
            self.note(node, "kubelet", "Normal", "NodeReady", &message);
        }
        self.lease(&name);
    }

    /// The lease that the kubelet renews; see [`super::State::presented`].
    fn lease(&mut self, name: &str) {
        if self.kube.store.get(kinds::leases(), "kube-node-lease", name).is_some() {
            return;
        }
        let now = self.stamp();
        // It goes with its Node object (kubernetes `pkg/kubelet/kubelet.go`, `SetNodeOwnerFunc`).
        let Some(node) = self.kube.store.get(kinds::nodes(), "", name) else { return };
        let owner = json!({ "apiVersion": "v1", "kind": "Node", "name": name, "uid": json::uid(node) });
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": { "name": name, "namespace": "kube-node-lease", "ownerReferences": [owner] },
            "spec": { "holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": now },
        });
        self.kube.store.insert(kinds::leases(), lease, CONTROLLER);
    }

    /// What the lease said last, before the kubelet fell silent.
    fn last_words(&mut self, name: &str) {
        let Some(lease) = self.kube.store.get(kinds::leases(), "kube-node-lease", name).cloned() else { return };
        let now = self.stamp();
        self.kube.store.edit(kinds::leases(), &lease, CONTROLLER, |l| json::set(l, &["spec", "renewTime"], now));
    }

    fn stamp(&self) -> String {
        self.kube.store.now.replace('Z', ".000000Z")
    }

    fn lost(&mut self, node: &Value) {
        if json::condition(node, "Ready").is_none_or(|c| text(c, "/status") == "Unknown") {
            return;
        }
        let now = self.kube.store.now.clone();
        self.kube.store.edit(kinds::nodes(), node, KUBELET_STATUS, |n| {
            for (kind, ..) in CONDITIONS {
                let message = "Kubelet stopped posting node status.";
                json::set_condition(n, kind, "Unknown", "NodeStatusUnknown", message, &now);
            }
        });
        let message = format!("Node {} status is now: NodeNotReady", json::name(node));
        self.note(node, "node-controller", "Normal", "NodeNotReady", &message);
    }

    /// The taints that the lifecycle controller keeps.
    fn taints(&mut self, name: &str) {
        let Some(node) = self.kube.store.get(kinds::nodes(), "", name).cloned() else { return };
        let ready = json::condition(&node, "Ready").map(|c| text(c, "/status").to_owned());
        let cordoned = flag(&node, "/spec/unschedulable");
        let wanted: &[(&str, &str, bool)] = &[
            ("node.kubernetes.io/unschedulable", "NoSchedule", cordoned),
            ("node.kubernetes.io/unreachable", "NoSchedule", ready.as_deref() == Some("Unknown")),
            ("node.kubernetes.io/unreachable", "NoExecute", ready.as_deref() == Some("Unknown")),
            ("node.kubernetes.io/not-ready", "NoSchedule", ready.as_deref() == Some("False")),
            ("node.kubernetes.io/not-ready", "NoExecute", ready.as_deref() == Some("False")),
        ];
        let old = list(&node, "/spec/taints").to_vec();
        let mut new = old.clone();
        for (key, effect, on) in wanted {
            let is = |t: &Value| text(t, "/key") == *key && text(t, "/effect") == *effect;
            if !on {
                new.retain(|t| !is(t));
            } else if !new.iter().any(is) {
                let now = self.kube.store.now.clone();
                new.push(json!({ "key": key, "effect": effect, "timeAdded": now }));
            }
        }
        if new == old || !self.held(&format!("taint/{name}"), TAINT) {
            return;
        }
        self.kube.store.edit(kinds::nodes(), &node, CONTROLLER, |n| {
            if new.is_empty() {
                json::unset(n, &["spec", "taints"]);
            } else {
                json::set(n, &["spec", "taints"], new);
            }
        });
    }

    /// Volumes that are attached to a node that is no more are detached after a while (kubernetes
    /// `pkg/controller/volume/attachdetach`, `ReconcilerMaxWaitForUnmountDuration`).
    pub(super) fn detach(&mut self) {
        for attachment in self.kube.store.all(kinds::attachments()) {
            let node = text(&attachment, "/spec/nodeName");
            let gone = self.kube.store.get(kinds::nodes(), "", node).is_none();
            if gone && self.held(&format!("detach/{}", json::uid(&attachment)), DETACH) {
                self.kube.store.remove(&Key::new(kinds::attachments(), "", json::name(&attachment)));
            }
        }
    }

    /// Pods on nodes that nobody hears: not ready, and after their toleration's time deleted.
    pub(super) fn abandoned(&mut self) {
        for pod in self.kube.store.all(kinds::pods()) {
            let node = text(&pod, "/spec/nodeName");
            if node.is_empty() {
                continue;
            }
            let key = Key::new(kinds::pods(), json::namespace(&pod), json::name(&pod));
            let Some(on) = self.kube.store.get(kinds::nodes(), "", node).cloned() else {
                // Pod garbage collection: the node is gone for good.
                if self.held(&format!("orphan/{}", json::uid(&pod)), GRACE) {
                    self.kube.store.remove(&key);
                }
                continue;
            };
            if json::condition(&on, "Ready").is_some_and(|c| text(c, "/status") != "True") && json::holds(&pod, "Ready")
            {
                let now = self.kube.store.now.clone();
                self.kube.store.edit(kinds::pods(), &pod, Writer::status("k3s"), |p| {
                    json::set_condition(p, "Ready", "False", "", "", &now);
                });
            }
            let Some(after) = list(&on, "/spec/taints").iter().find_map(|t| evicts(t, &pod)) else { continue };
            if !json::deleting(&pod) && self.held(&format!("taint-eviction/{}", json::uid(&pod)), after) {
                let message = format!("Marking for deletion Pod {}/{}", json::namespace(&pod), json::name(&pod));
                self.note(&pod, "taint-eviction-controller", "Normal", "TaintManagerEviction", &message);
                let grace = json::int(&pod, "/spec/terminationGracePeriodSeconds").unwrap_or(30);
                self.kube.store.delete(&key, grace);
            }
        }
    }
}

/// Huge pages of 2 MiB as a quantity, in its canonical form.
pub(super) fn pages_of(pages: u64) -> String {
    match pages.saturating_mul(2) {
        0 => "0".to_owned(),
        mib if mib % 1_024 == 0 => format!("{}Gi", mib / 1_024),
        mib => format!("{mib}Mi"),
    }
}

/// How long a pod stays in spite of a `NoExecute` taint; none: for ever.
fn evicts(taint: &Value, pod: &Value) -> Option<Duration> {
    if text(taint, "/effect") != "NoExecute" {
        return None;
    }
    let Some(toleration) = list(pod, "/spec/tolerations").iter().find(|t| tolerates(t, taint)) else {
        return Some(Duration::ZERO);
    };
    let seconds = json::int(toleration, "/tolerationSeconds")?;
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or_default()))
}

/// Whether a toleration covers a taint.
pub(super) fn tolerates(toleration: &Value, taint: &Value) -> bool {
    let (key, effect) = (text(toleration, "/key"), text(toleration, "/effect"));
    let key_fits = key.is_empty() && text(toleration, "/operator") == "Exists" || key == text(taint, "/key");
    let value_fits = text(toleration, "/operator") == "Exists" || text(toleration, "/value") == text(taint, "/value");
    key_fits && value_fits && (effect.is_empty() || effect == text(taint, "/effect"))
}

/// Type, status, reason and message of a kubelet that is well.
pub(super) const CONDITIONS: &[(&str, &str, &str, &str)] = &[
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
];
