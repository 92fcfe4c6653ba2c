//! Pod disruption budgets: what may be evicted.

use serde_json::{Map, Value};

use super::Round;
use super::pods::active;
use crate::lab::kube::json::{self, int, text};
use crate::lab::kube::kinds;
use crate::lab::kube::select::label_selector;

impl Round<'_> {
    pub(super) fn budgets(&mut self) {
        for budget in self.kube.store.all(kinds::budgets()) {
            self.budget(&budget);
        }
    }

    fn budget(&mut self, budget: &Value) {
        let selector = budget.pointer("/spec/selector");
        let pods: Vec<_> = self
            .kube
            .store
            .list(kinds::pods(), Some(json::namespace(budget)))
            .filter(|p| label_selector(selector, p))
            .cloned()
            .collect();
        let (least, most) = (budget.pointer("/spec/minAvailable"), budget.pointer("/spec/maxUnavailable"));
        let by_owner = most.is_some() || least.is_some_and(Value::is_string);
        let count = i64::try_from(pods.len()).unwrap_or_default();
        let expected = if by_owner { self.expected(&pods) } else { count };
        let desired = match (least, most) {
            (_, Some(most)) => (expected - portion(most, expected)).max(0),
            (Some(least), _) => portion(least, expected),
            _ => 0,
        };
        let mut disrupted = json::map(budget, "/status/disruptedPods").cloned().unwrap_or_default();
        disrupted.retain(|name, _| pods.iter().any(|p| json::name(p) == name && !json::deleting(p)));
        let healthy = pods
            .iter()
            .filter(|p| active(p) && json::holds(p, "Ready") && !disrupted.contains_key(json::name(p)))
            .count();
        let healthy = i64::try_from(healthy).unwrap_or_default();
        let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
        let now = self.kube.store.now.clone();
        self.set_status(kinds::budgets(), budget, |b| {
            let generation = int(b, "/metadata/generation").unwrap_or_default();
            for (field, value) in [
                ("observedGeneration", generation),
                ("currentHealthy", healthy),
                ("desiredHealthy", desired),
                ("expectedPods", expected),
                ("disruptionsAllowed", allowed),
            ] {
                json::set(b, &["status", field], value);
            }
            if disrupted.is_empty() {
                json::unset(b, &["status", "disruptedPods"]);
            } else {
                json::set(b, &["status", "disruptedPods"], Map::clone(&disrupted));
            }
            let (status, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
            json::set_condition(b, "DisruptionAllowed", status, reason, "", &now);
        });
    }

    /// What the owners of the pods want to have in all.
    fn expected(&self, pods: &[std::sync::Arc<Value>]) -> i64 {
        let mut owners: Vec<(String, i64)> = Vec::new();
        for pod in pods {
            let Some(owner) = json::controller(pod) else { continue };
            let uid = text(owner, "/uid").to_owned();
            if owners.iter().any(|(known, _)| *known == uid) {
                continue;
            }
            let kind = match text(owner, "/kind") {
                "ReplicaSet" => kinds::replicasets(),
                "StatefulSet" => kinds::statefulsets(),
                _ => continue,
            };
            let owner = self.kube.store.get(kind, json::namespace(pod), text(owner, "/name"));
            owners.push((uid, owner.and_then(|o| int(o, "/spec/replicas")).unwrap_or_default()));
        }
        owners.iter().map(|(_, n)| n).sum()
    }
}

/// A number, or a percentage of `of` rounded up.
fn portion(value: &Value, of: i64) -> i64 {
    match value {
        Value::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or_default();
            (of * percent + 99) / 100
        }
        other => other.as_i64().unwrap_or_default(),
    }
}
