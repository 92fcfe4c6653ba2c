//! StatefulSets: ordinals in order, claims by template, one pod replaced at a time.

use serde_json::{Value, json};

use super::Round;
use super::pods::template_hash;
use crate::lab::kube::fields::Writer;
use crate::lab::kube::json::{self, int, list, text};
use crate::lab::kube::kinds;
use crate::lab::kube::store::Key;
use crate::lab::kube::write;

const NAME: &str = "statefulset-controller";
const REVISION: &str = "controller-revision-hash";

impl Round<'_> {
    pub(super) fn stateful_sets(&mut self) {
        for set in self.kube.store.all(kinds::statefulsets()) {
            if json::deleting(&set) {
                continue;
            }
            self.stateful_set(&set);
            self.stateful_status(&set);
        }
    }

    fn stateful_set(&mut self, set: &Value) {
        let first = usize::try_from(int(set, "/spec/ordinals/start").unwrap_or_default()).unwrap_or_default();
        let (wanted, ordered) = (Self::replicas(set), text(set, "/spec/podManagementPolicy") != "Parallel");
        let revision = format!("{}-{}", json::name(set), template_hash(set));
        let ordinal = |p: &Value| json::name(p).rsplit('-').next().and_then(|n| n.parse::<usize>().ok());
        let mut pods = self.owned(kinds::pods(), set);
        pods.sort_by_key(|p| ordinal(p));
        for at in first..first + wanted {
            let name = format!("{}-{at}", json::name(set));
            match pods.iter().find(|p| json::name(p) == name) {
                None => {
                    self.template_claims(set, at);
                    let revision = revision.clone();
                    self.make_pod(set, NAME, |pod| ordinal_pod(pod, &name, at, &revision));
                    if ordered {
                        return;
                    }
                }
                Some(pod) if matches!(text(pod, "/status/phase"), "Succeeded" | "Failed") => {
                    self.end_pod(set, NAME, pod);
                    return;
                }
                // A lower ordinal that is not ready, or on its way out, holds up the higher ones.
                Some(pod) if ordered && (!json::holds(pod, "Ready") || json::deleting(pod)) => {
                    if json::label(pod, REVISION) != Some(&revision) && !json::deleting(pod) {
                        self.end_pod(set, NAME, pod);
                    }
                    return;
                }
                Some(_) => {}
            }
        }
        if let Some(pod) = pods.iter().rev().find(|p| ordinal(p).is_some_and(|n| n >= first + wanted || n < first)) {
            if !json::deleting(pod) {
                self.end_pod(set, NAME, pod);
                if text(set, "/spec/persistentVolumeClaimRetentionPolicy/whenScaled") == "Delete" {
                    self.drop_claims(set, ordinal(pod).unwrap_or_default());
                }
            }
            return;
        }
        let outdated = |p: &&std::sync::Arc<Value>| json::label(p, REVISION) != Some(revision.as_str());
        if text(set, "/spec/updateStrategy/type") == "RollingUpdate"
            && let Some(pod) = pods.iter().rev().find(outdated)
            && !json::deleting(pod)
        {
            self.end_pod(set, NAME, pod);
        }
    }

    fn claim_name(template: &Value, set: &Value, ordinal: usize) -> String {
        format!("{}-{}-{ordinal}", json::name(template), json::name(set))
    }

    fn template_claims(&mut self, set: &Value, ordinal: usize) {
        for template in list(set, "/spec/volumeClaimTemplates") {
            let (name, space) = (Self::claim_name(template, set, ordinal), json::namespace(set).to_owned());
            if self.kube.store.get(kinds::claims(), &space, &name).is_some() {
                continue;
            }
            let mut claim = json!({
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": { "name": name, "labels": set.pointer("/spec/selector/matchLabels") },
                "spec": template.get("spec"),
            });
            let made = write::insert(self.kube, kinds::claims(), Some(&space), &mut claim, Writer::new("k3s"));
            let (kind, reason, message) = match made {
                Ok(_) => ("Normal", "SuccessfulCreate", format!("create Claim {name} success")),
                Err(refusal) => ("Warning", "FailedCreate", format!("create Claim {name}: {}", refusal.message())),
            };
            self.note(set, NAME, kind, reason, &message);
        }
    }

    fn drop_claims(&mut self, set: &Value, ordinal: usize) {
        for template in list(set, "/spec/volumeClaimTemplates") {
            let name = Self::claim_name(template, set, ordinal);
            self.kube.store.delete(&Key::new(kinds::claims(), json::namespace(set), &name), 0);
        }
    }

    fn stateful_status(&mut self, set: &Value) {
        let revision = format!("{}-{}", json::name(set), template_hash(set));
        let pods = self.owned(kinds::pods(), set);
        let ready = pods.iter().filter(|p| json::holds(p, "Ready") && !json::deleting(p)).count();
        let updated = pods.iter().filter(|p| json::label(p, REVISION) == Some(&revision)).count();
        self.set_status(kinds::statefulsets(), set, |s| {
            let generation = int(s, "/metadata/generation").unwrap_or_default();
            json::set(s, &["status", "observedGeneration"], generation);
            for (field, value) in [
                ("replicas", pods.len()),
                ("readyReplicas", ready),
                ("availableReplicas", ready),
                ("currentReplicas", updated),
                ("updatedReplicas", updated),
            ] {
                json::set(s, &["status", field], value);
            }
            for field in ["currentRevision", "updateRevision"] {
                json::set(s, &["status", field], revision.as_str());
            }
        });
    }
}

/// Gives a pod of a stateful set its identity and its claims.
fn ordinal_pod(pod: &mut Value, name: &str, ordinal: usize, revision: &str) {
    json::unset(pod, &["metadata", "generateName"]);
    json::set(pod, &["metadata", "name"], name);
    for (key, value) in [
        ("statefulset.kubernetes.io/pod-name", name.to_owned()),
        ("apps.kubernetes.io/pod-index", ordinal.to_string()),
        (REVISION, revision.to_owned()),
    ] {
        json::set(pod, &["metadata", "labels", key], value);
    }
    json::set(pod, &["spec", "hostname"], name);
    // Every mount that no volume of the template backs is one of a claim template.
    let known: Vec<String> = list(pod, "/spec/volumes").iter().map(|v| text(v, "/name").to_owned()).collect();
    let mut volumes = list(pod, "/spec/volumes").to_vec();
    for mount in list(pod, "/spec/containers").iter().flat_map(|c| list(c, "/volumeMounts")) {
        let volume = text(mount, "/name");
        if !known.iter().any(|k| k == volume) && !volumes.iter().any(|v| text(v, "/name") == volume) {
            let claim = format!("{volume}-{name}");
            volumes.push(json!({ "name": volume, "persistentVolumeClaim": { "claimName": claim } }));
        }
    }
    json::set(pod, &["spec", "volumes"], volumes);
}
