//! Deployments: one ReplicaSet per template, kept; rollouts by Recreate or, simplified, by RollingUpdate (the new set
//! in full, then the old ones away).

use std::sync::Arc;

use serde_json::{Value, json};

use super::Round;
use super::pods::template_hash;
use crate::lab::kube::fields::Writer;
use crate::lab::kube::json::{self, int, text};
use crate::lab::kube::kinds;

const NAME: &str = "deployment-controller";
const REVISION: &str = "deployment.kubernetes.io/revision";
const HASH: &str = "pod-template-hash";

impl Round<'_> {
    pub(super) fn deployments(&mut self) {
        for deployment in self.kube.store.all(kinds::deployments()) {
            if !json::deleting(&deployment) {
                self.deployment(&deployment);
            }
        }
    }

    fn deployment(&mut self, deployment: &Value) {
        let hash = template_hash(deployment);
        let sets = self.owned(kinds::replicasets(), deployment);
        let (current, old): (Vec<_>, Vec<_>) = sets.into_iter().partition(|s| json::label(s, HASH) == Some(&hash));
        let wanted = Self::replicas(deployment);
        let paused = json::flag(deployment, "/spec/paused");
        let old_left: usize = old.iter().map(|s| self.owned(kinds::pods(), s).len()).sum();
        let Some(current) = current.first() else {
            if !paused {
                let recreate = text(deployment, "/spec/strategy/type") == "Recreate";
                if recreate && old_left > 0 {
                    self.scale_down(deployment, &old);
                } else {
                    self.new_set(deployment, &hash, wanted);
                }
            }
            return self.deployment_status(deployment, None);
        };
        if Self::replicas(current) != wanted {
            self.scale_set(deployment, current, wanted);
        }
        let ready = usize::try_from(int(current, "/status/readyReplicas").unwrap_or_default()).unwrap_or_default();
        if !paused && (ready >= wanted || wanted == 0) {
            self.scale_down(deployment, &old);
        }
        self.deployment_status(deployment, Some(current));
    }

    fn new_set(&mut self, deployment: &Value, hash: &str, replicas: usize) {
        let sets = self.owned(kinds::replicasets(), deployment);
        let last = sets.iter().filter_map(|s| json::annotation(s, REVISION)?.parse::<u32>().ok()).max().unwrap_or(0);
        let revision = (last + 1).to_string();
        let mut template = deployment.pointer("/spec/template").cloned().unwrap_or_default();
        json::set(&mut template, &["metadata", "labels", HASH], hash);
        let mut selector = deployment.pointer("/spec/selector").cloned().unwrap_or_default();
        json::set(&mut selector, &["matchLabels", HASH], hash);
        let labels = template.pointer("/metadata/labels").cloned().unwrap_or_default();
        let name = format!("{}-{hash}", json::name(deployment));
        let set = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {
                "name": name, "namespace": json::namespace(deployment), "labels": labels,
                "annotations": { REVISION: revision, "deployment.kubernetes.io/desired-replicas": replicas.to_string() },
                "ownerReferences": [json::owner(deployment)],
            },
            "spec": { "replicas": replicas, "selector": selector, "template": template },
        });
        self.kube.store.insert(kinds::replicasets(), set, Writer::new("k3s"));
        self.kube.store.edit(kinds::deployments(), deployment, Writer::new("k3s"), |d| {
            json::set(d, &["metadata", "annotations", REVISION], revision);
        });
        let message = format!("Scaled up replica set {name} from 0 to {replicas}");
        self.note(deployment, NAME, "Normal", "ScalingReplicaSet", &message);
    }

    fn scale_down(&mut self, deployment: &Value, sets: &[Arc<Value>]) {
        for set in sets {
            if Self::replicas(set) > 0 {
                self.scale_set(deployment, set, 0);
            }
        }
    }

    fn scale_set(&mut self, deployment: &Value, set: &Value, replicas: usize) {
        let from = Self::replicas(set);
        self.kube.store.edit(kinds::replicasets(), set, Writer::new("k3s"), |s| {
            json::set(s, &["spec", "replicas"], replicas);
        });
        let way = if replicas > from { "up" } else { "down" };
        let message = format!("Scaled {way} replica set {} from {from} to {replicas}", json::name(set));
        self.note(deployment, NAME, "Normal", "ScalingReplicaSet", &message);
    }

    fn deployment_status(&mut self, deployment: &Value, current: Option<&Arc<Value>>) {
        let key =
            |s: &Arc<Value>| self.kube.store.get(kinds::replicasets(), json::namespace(s), json::name(s)).cloned();
        let current = current.and_then(key);
        let sets = self.owned(kinds::replicasets(), deployment);
        let sum = |field: &str| -> i64 { sets.iter().filter_map(|s| int(s, &format!("/status/{field}"))).sum() };
        let (total, ready) = (sum("replicas"), sum("readyReplicas"));
        let updated = current.as_ref().and_then(|s| int(s, "/status/replicas")).unwrap_or_default();
        let wanted = i64::try_from(Self::replicas(deployment)).unwrap_or_default();
        let name = current.as_ref().map_or(String::new(), |s| json::name(s).to_owned());
        let done = current.is_some() && updated == wanted && total == updated && ready == wanted;
        let now = self.kube.store.now.clone();
        // As much as may be missing by maxUnavailable, 25% rounded down.
        let enough = wanted - wanted / 4;
        self.set_status(kinds::deployments(), deployment, |d| {
            let generation = int(d, "/metadata/generation").unwrap_or_default();
            json::set(d, &["status", "observedGeneration"], generation);
            for (field, value) in [
                ("replicas", total),
                ("updatedReplicas", updated),
                ("readyReplicas", ready),
                ("availableReplicas", ready),
                ("unavailableReplicas", (wanted - ready).max(0)),
            ] {
                if value == 0 {
                    json::unset(d, &["status", field]);
                } else {
                    json::set(d, &["status", field], value);
                }
            }
            let (status, reason, message) = if ready >= enough {
                ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
            } else {
                ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
            };
            json::set_condition(d, "Available", status, reason, message, &now);
            let (reason, message) = if done {
                ("NewReplicaSetAvailable", format!("ReplicaSet \"{name}\" has successfully progressed."))
            } else {
                ("ReplicaSetUpdated", format!("ReplicaSet \"{name}\" is progressing."))
            };
            json::set_condition(d, "Progressing", "True", reason, &message, &now);
            if let Some(conditions) = d.pointer_mut("/status/conditions").and_then(Value::as_array_mut) {
                for condition in conditions {
                    if condition.get("lastUpdateTime").is_none() {
                        json::set(condition, &["lastUpdateTime"], now.as_str());
                    }
                }
            }
        });
    }
}
