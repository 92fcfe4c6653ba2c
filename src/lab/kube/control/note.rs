//! Events: what controllers say about objects.

use serde_json::{Value, json};

use super::Round;
use crate::lab::kube::fields::Writer;
use crate::lab::kube::json::{self, int, text};
use crate::lab::kube::kinds;

impl Round<'_> {
    /// Says something about an object; not the same twice.
    pub(crate) fn note(&mut self, about: &Value, component: &str, kind: &str, reason: &str, message: &str) {
        let space = match json::namespace(about) {
            "" => "default",
            space => space,
        }
        .to_owned();
        let same = self.kube.store.list(kinds::events(), Some(&space)).any(|e| {
            text(e, "/involvedObject/uid") == json::uid(about)
                && text(e, "/reason") == reason
                && text(e, "/message") == message
        });
        if same {
            return;
        }
        let now = self.kube.store.now.clone();
        let name = format!("{}.{}", json::name(about), self.kube.store.suffix(16));
        let mut reference = json!({
            "kind": text(about, "/kind"), "name": json::name(about), "uid": json::uid(about),
            "apiVersion": text(about, "/apiVersion"), "resourceVersion": text(about, "/metadata/resourceVersion"),
        });
        if !json::namespace(about).is_empty() {
            reference["namespace"] = json::namespace(about).into();
        }
        let event = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": { "name": name, "namespace": space },
            "involvedObject": reference, "reason": reason, "message": message, "type": kind, "count": 1,
            "firstTimestamp": now, "lastTimestamp": now, "eventTime": null, "source": { "component": component },
            "reportingComponent": component, "reportingInstance": "",
        });
        self.kube.store.insert(kinds::events(), event, Writer::new(component));
        self.forget_old(&space);
    }

    /// Keeps the newest events of a namespace.
    fn forget_old(&mut self, space: &str) {
        const KEPT: usize = 300;
        if self.kube.store.list(kinds::events(), Some(space)).count() <= KEPT {
            return;
        }
        let mut all: Vec<(u64, crate::lab::kube::store::Key)> = self
            .kube
            .store
            .list(kinds::events(), Some(space))
            .filter_map(|e| {
                let key = crate::lab::kube::store::Key::of(e)?;
                text(e, "/metadata/resourceVersion").parse().ok().map(|v| (v, key))
            })
            .collect();
        all.sort();
        for (_, key) in all.iter().take(all.len().saturating_sub(KEPT)) {
            self.kube.store.remove(key);
        }
    }

    /// The replicas that a workload is to have.
    pub(crate) fn replicas(object: &Value) -> usize {
        usize::try_from(int(object, "/spec/replicas").unwrap_or(1)).unwrap_or_default()
    }
}
