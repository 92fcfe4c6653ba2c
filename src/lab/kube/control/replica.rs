//! ReplicaSets.

use serde_json::Value;

use super::Round;
use super::pods::active;
use crate::lab::kube::json;
use crate::lab::kube::kinds;

const NAME: &str = "replicaset-controller";

impl Round<'_> {
    pub(super) fn replica_sets(&mut self) {
        for set in self.kube.store.all(kinds::replicasets()) {
            if json::deleting(&set) {
                continue;
            }
            let mut pods = self.owned(kinds::pods(), &set);
            pods.retain(|p| active(p));
            let wanted = Self::replicas(&set);
            if pods.len() < wanted {
                for _ in pods.len()..wanted {
                    self.make_pod(&set, NAME, |_| {});
                }
            } else if pods.len() > wanted {
                // Those that are least along go first.
                pods.sort_by_key(|p| (json::holds(p, "Ready"), !json::text(p, "/spec/nodeName").is_empty()));
                for pod in pods.iter().take(pods.len() - wanted) {
                    self.end_pod(&set, NAME, pod);
                }
            }
            self.replica_status(&set);
        }
    }

    fn replica_status(&mut self, set: &Value) {
        let pods = self.owned(kinds::pods(), set);
        let live = pods.iter().filter(|p| active(p)).count();
        let ready = pods.iter().filter(|p| active(p) && json::holds(p, "Ready")).count();
        self.set_status(kinds::replicasets(), set, |s| {
            json::set(s, &["status", "replicas"], live);
            json::set(s, &["status", "fullyLabeledReplicas"], live);
            json::set(s, &["status", "readyReplicas"], ready);
            json::set(s, &["status", "availableReplicas"], ready);
            let generation = json::int(s, "/metadata/generation").unwrap_or_default();
            json::set(s, &["status", "observedGeneration"], generation);
        });
    }
}
