//! The scheduler: filters as in the default profile, in its order, with its words.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::Round;
use super::node::tolerates;
use crate::lab::kube::fields::Writer;
use crate::lab::kube::json::{self, flag, list, text};
use crate::lab::kube::quantity;
use crate::lab::kube::select::{node_term, volume_fits};
use crate::lab::kube::{kinds, store};

const NAME: &str = "default-scheduler";
const SELECTED: &str = "volume.kubernetes.io/selected-node";

/// What a pod's claims demand.
#[derive(Default)]
struct Claims {
    /// Volumes that are bound.
    volumes: Vec<Arc<Value>>,
    /// Claims whose volume is made where the pod goes.
    delayed: Vec<Arc<Value>>,
}

impl Round<'_> {
    pub(super) fn schedule(&mut self) {
        for pod in self.kube.store.all(kinds::pods()) {
            let unplaced = text(&pod, "/spec/nodeName").is_empty() && super::pods::active(&pod);
            if unplaced && text(&pod, "/spec/schedulerName") == NAME {
                self.place(&pod);
            }
        }
    }

    fn place(&mut self, pod: &Value) {
        let nodes = self.kube.store.all(kinds::nodes());
        let total = nodes.len();
        let claims = match self.demands(pod) {
            Ok(claims) => claims,
            Err(why) => {
                let after = format!(
                    "preemption: 0/{total} nodes are available: {total} Preemption is not helpful for scheduling."
                );
                return self.unschedulable(pod, &format!("0/{total} nodes are available: {why}. {after}"));
            }
        };
        let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
        let mut fitting = Vec::new();
        let mut short = 0;
        for node in &nodes {
            let found = self.refusals(pod, node, &claims);
            if found.is_empty() {
                fitting.push(node.clone());
            }
            short += usize::from(found.iter().any(|r| r.starts_with("Insufficient")));
            for reason in found {
                *reasons.entry(reason).or_default() += 1;
            }
        }
        // The least loaded one, then by name.
        let load = |node: &Value| {
            let here = |p: &&Arc<Value>| text(p, "/spec/nodeName") == json::name(node);
            self.kube.store.list(kinds::pods(), None).filter(here).count()
        };
        let Some(node) = fitting.iter().min_by_key(|n| load(n)).cloned() else {
            let said: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            let mut after = Vec::new();
            if short > 0 {
                after.push(format!("{short} No preemption victims found for incoming pod"));
            }
            if total > short {
                after.push(format!("{} Preemption is not helpful for scheduling", total - short));
            }
            let message = format!(
                "0/{total} nodes are available: {}. preemption: 0/{total} nodes are available: {}.",
                said.join(", "),
                after.join(", ")
            );
            return self.unschedulable(pod, &message);
        };
        if claims.delayed.is_empty() {
            self.bind(pod, json::name(&node));
            return;
        }
        for claim in &claims.delayed {
            if json::annotation(claim, SELECTED).is_none() {
                let node = json::name(&node).to_owned();
                self.kube.store.edit(kinds::claims(), claim, Writer::new("k3s"), |c| {
                    json::set(c, &["metadata", "annotations", SELECTED], node);
                });
            }
        }
    }

    fn bind(&mut self, pod: &Value, node: &str) {
        let now = self.kube.store.now.clone();
        self.kube.store.edit(kinds::pods(), pod, Writer::new("k3s"), |p| {
            json::set(p, &["spec", "nodeName"], node);
            json::set_condition(p, "PodScheduled", "True", "", "", &now);
        });
        let message = format!("Successfully assigned {}/{} to {node}", json::namespace(pod), json::name(pod));
        self.note(pod, NAME, "Normal", "Scheduled", &message);
    }

    fn unschedulable(&mut self, pod: &Value, message: &str) {
        let now = self.kube.store.now.clone();
        self.kube.store.edit(kinds::pods(), pod, Writer::status("k3s"), |p| {
            json::set_condition(p, "PodScheduled", "False", "Unschedulable", message, &now);
        });
        self.note(pod, NAME, "Warning", "FailedScheduling", message);
    }

    /// What the pod's claims demand, or why no node can do.
    fn demands(&self, pod: &Value) -> Result<Claims, String> {
        let mut claims = Claims::default();
        let store = &self.kube.store;
        for name in claim_names(pod) {
            let claim = store
                .get(kinds::claims(), json::namespace(pod), name)
                .ok_or_else(|| format!("persistentvolumeclaim \"{name}\" not found"))?;
            if json::deleting(claim) {
                return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
            }
            if text(claim, "/status/phase") == "Lost" {
                let volume = text(claim, "/spec/volumeName");
                return Err(format!(
                    "persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{volume}\""
                ));
            }
            if json::annotation(claim, "pv.kubernetes.io/bind-completed").is_some() {
                let volume = text(claim, "/spec/volumeName");
                let volume = store.get(kinds::volumes(), "", volume);
                claims.volumes.push(volume.cloned().ok_or_else(|| format!("persistentvolume \"{name}\" not found"))?);
                continue;
            }
            let class = store.get(kinds::classes(), "", text(claim, "/spec/storageClassName"));
            if class.is_some_and(|c| text(c, "/volumeBindingMode") == "WaitForFirstConsumer") {
                claims.delayed.push(claim.clone());
            } else {
                return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
            }
        }
        Ok(claims)
    }

    /// Why a pod cannot go to a node: what the first filter that refuses says.
    fn refusals(&self, pod: &Value, node: &Value, claims: &Claims) -> Vec<String> {
        let tolerated = |taint: &Value| list(pod, "/spec/tolerations").iter().any(|t| tolerates(t, taint));
        let cordon = json!({ "key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule" });
        if flag(node, "/spec/unschedulable") && !tolerated(&cordon) {
            return vec!["node(s) were unschedulable".into()];
        }
        let hard = |t: &&Value| matches!(text(t, "/effect"), "NoSchedule" | "NoExecute");
        if let Some(taint) = list(node, "/spec/taints").iter().filter(hard).find(|t| !tolerated(t)) {
            return vec![format!(
                "node(s) had untolerated taint {{{}: {}}}",
                text(taint, "/key"),
                text(taint, "/value")
            )];
        }
        if !affine(pod, node) {
            return vec!["node(s) didn't match Pod's node affinity/selector".into()];
        }
        let lacking = self.lacking(pod, node);
        if !lacking.is_empty() {
            return lacking;
        }
        if claims.volumes.iter().any(|v| !volume_fits(v, node)) {
            return vec!["node(s) had volume node affinity conflict".into()];
        }
        let elsewhere = |c: &Arc<Value>| json::annotation(c, SELECTED).is_some_and(|n| n != json::name(node));
        if claims.delayed.iter().any(elsewhere) {
            return vec!["node(s) didn't find available persistent volumes to bind".into()];
        }
        Vec::new()
    }

    /// Resources of which a node has too little left.
    fn lacking(&self, pod: &Value, node: &Value) -> Vec<String> {
        let mut lacking = Vec::new();
        let here = |p: &&Arc<Value>| text(p, "/spec/nodeName") == json::name(node) && super::pods::active(p);
        let others: Vec<Arc<Value>> = self.kube.store.list(kinds::pods(), None).filter(here).cloned().collect();
        let have = |name: &str| node.pointer("/status/allocatable").and_then(|a| a.get(name)).map_or(0, quantity::of);
        let room = have("pods") / 1_000;
        if room > 0 && i128::try_from(others.len()).unwrap_or_default() >= room {
            lacking.push("Too many pods".into());
        }
        for (name, wanted) in requests(pod) {
            let used: i128 = others.iter().filter_map(|p| requests(p).remove(&name)).sum();
            if wanted > 0 && used + wanted > have(&name) {
                lacking.push(format!("Insufficient {name}"));
            }
        }
        lacking
    }
}

/// What a pod asks for, in thousandths, by resource; a limit without a request counts as one.
fn requests(pod: &Value) -> BTreeMap<String, i128> {
    let mut all: BTreeMap<String, i128> = BTreeMap::new();
    for container in list(pod, "/spec/containers") {
        let mut own: BTreeMap<String, i128> = BTreeMap::new();
        for part in ["limits", "requests"] {
            for (name, value) in json::map(container, &format!("/resources/{part}")).into_iter().flatten() {
                own.insert(name.clone(), quantity::of(value));
            }
        }
        for (name, value) in own {
            *all.entry(name).or_default() += value;
        }
    }
    all
}

/// The names of the claims that a pod mounts.
pub(super) fn claim_names(pod: &Value) -> Vec<&str> {
    list(pod, "/spec/volumes")
        .iter()
        .map(|v| text(v, "/persistentVolumeClaim/claimName"))
        .filter(|n| !n.is_empty())
        .collect()
}

/// Whether a pod's (or a template's) selector and required affinity let it on a node.
pub(super) fn affine(pod: &Value, node: &Value) -> bool {
    let selected = json::map(pod, "/spec/nodeSelector")
        .into_iter()
        .flatten()
        .all(|(key, value)| json::label(node, key) == value.as_str());
    let required = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    let demanded = pod.pointer(required).is_none() || list(pod, required).iter().any(|t| node_term(t, node, true));
    selected && demanded
}

/// The key of a pod.
pub(super) fn pod_key(pod: &Value) -> store::Key {
    store::Key::new(kinds::pods(), json::namespace(pod), json::name(pod))
}
