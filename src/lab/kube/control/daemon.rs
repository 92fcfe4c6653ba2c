//! DaemonSets: a pod on every node that it may run on.

use serde_json::{Value, json};

use super::Round;
use super::node::tolerates;
use super::pods::template_hash;
use super::schedule::affine;
use crate::lab::kube::json::{self, list, text};
use crate::lab::kube::kinds;

const NAME: &str = "daemonset-controller";
const REVISION: &str = "controller-revision-hash";

/// Taints that every daemon pod tolerates.
const TOLERATED: &[(&str, &str)] = &[
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
    ("node.kubernetes.io/not-ready", "NoSchedule"),
    ("node.kubernetes.io/unreachable", "NoSchedule"),
];

impl Round<'_> {
    pub(super) fn daemon_sets(&mut self) {
        for set in self.kube.store.all(kinds::daemonsets()) {
            if !json::deleting(&set) {
                self.daemon_set(&set);
            }
        }
    }

    fn daemon_set(&mut self, set: &Value) {
        let hash = template_hash(set);
        let mut template = set.get("spec").and_then(|s| s.get("template")).cloned().unwrap_or_default();
        let mut tolerations = list(&template, "/spec/tolerations").to_vec();
        for (key, effect) in TOLERATED {
            tolerations.push(json!({ "key": key, "operator": "Exists", "effect": effect }));
        }
        json::set(&mut template, &["spec", "tolerations"], tolerations.clone());
        let nodes: Vec<String> = self
            .kube
            .store
            .list(kinds::nodes(), None)
            .filter(|n| affine(&template, n))
            .filter(|n| list(n, "/spec/taints").iter().all(|t| tolerations.iter().any(|x| tolerates(x, t))))
            .map(|n| json::name(n).to_owned())
            .collect();
        let pods = self.owned(kinds::pods(), set);
        let home = |p: &Value| {
            let field = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchFields/0/values/0";
            text(p, field).to_owned()
        };
        for node in &nodes {
            if !pods.iter().any(|p| home(p) == *node) {
                let (tolerations, hash) = (tolerations.clone(), hash.clone());
                self.make_pod(set, NAME, |pod| {
                    let term =
                        json!({ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": [node] }] });
                    let required = json!({ "nodeSelectorTerms": [term] });
                    let way = ["spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution"];
                    json::set(pod, &way, required);
                    json::set(pod, &["spec", "tolerations"], tolerations);
                    json::set(pod, &["metadata", "labels", REVISION], hash);
                });
            }
        }
        for pod in &pods {
            let stray = !nodes.contains(&home(pod));
            let outdated =
                json::label(pod, REVISION) != Some(&hash) && text(set, "/spec/updateStrategy/type") == "RollingUpdate";
            let others_well = pods.iter().all(|p| json::holds(p, "Ready"));
            if !json::deleting(pod) && (stray || (outdated && others_well)) {
                self.end_pod(set, NAME, pod);
                break;
            }
        }
        let pods = self.owned(kinds::pods(), set);
        let ready = pods.iter().filter(|p| json::holds(p, "Ready")).count();
        let updated = pods.iter().filter(|p| json::label(p, REVISION) == Some(&hash)).count();
        self.set_status(kinds::daemonsets(), set, |s| {
            let generation = json::int(s, "/metadata/generation").unwrap_or_default();
            json::set(s, &["status", "observedGeneration"], generation);
            for (field, value) in [
                ("desiredNumberScheduled", nodes.len()),
                ("currentNumberScheduled", pods.len()),
                ("numberReady", ready),
                ("numberAvailable", ready),
                ("updatedNumberScheduled", updated),
                ("numberMisscheduled", 0),
            ] {
                json::set(s, &["status", field], value);
            }
        });
    }
}
