//! Garbage collection by owner references, and the end of namespaces.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Round;
use crate::lab::kube::fields::Writer;
use crate::lab::kube::json::{self, flag, list, text};
use crate::lab::kube::kinds;
use crate::lab::kube::store::{Key, drop_finalizer, finalizers};

impl Round<'_> {
    pub(super) fn collect(&mut self) {
        let all: Vec<(Key, std::sync::Arc<Value>)> =
            self.kube.store.everything().map(|(k, v)| (k.clone(), v.clone())).collect();
        let living: BTreeSet<&str> = all.iter().map(|(_, o)| json::uid(o)).collect();
        for (key, object) in &all {
            let owners = list(object, "/metadata/ownerReferences");
            let orphaned = !owners.is_empty() && owners.iter().all(|o| !living.contains(text(o, "/uid")));
            if orphaned && !json::deleting(object) {
                self.let_go(key, object);
            }
        }
        for (key, object) in all.iter().filter(|(_, o)| json::deleting(o)) {
            let dependents = || {
                all.iter().filter(|(_, o)| {
                    list(o, "/metadata/ownerReferences").iter().any(|r| text(r, "/uid") == json::uid(object))
                })
            };
            let Some(kind) = kinds::find(key.group, key.resource) else { continue };
            if finalizers(object).contains(&"orphan") {
                for (other, dependent) in dependents() {
                    let Some(kind) = kinds::find(other.group, other.resource) else { continue };
                    self.kube.store.edit(kind, dependent, Writer::new("k3s"), |d| {
                        let left: Vec<Value> = list(d, "/metadata/ownerReferences")
                            .iter()
                            .filter(|r| text(r, "/uid") != json::uid(object))
                            .cloned()
                            .collect();
                        json::set(d, &["metadata", "ownerReferences"], left);
                    });
                }
                self.kube.store.edit(kind, object, Writer::new("k3s"), |o| drop_finalizer(o, "orphan"));
            }
            if finalizers(object).contains(&"foregroundDeletion") {
                let mut blocked = false;
                for (other, dependent) in dependents() {
                    if self.kube.store.at(other).is_some() {
                        let blocks = |r: &Value| text(r, "/uid") == json::uid(object) && flag(r, "/blockOwnerDeletion");
                        blocked |= list(dependent, "/metadata/ownerReferences").iter().any(blocks);
                        if !json::deleting(dependent) {
                            self.let_go(other, dependent);
                        }
                    }
                }
                if !blocked {
                    self.kube.store.edit(kind, object, Writer::new("k3s"), |o| drop_finalizer(o, "foregroundDeletion"));
                }
            }
        }
        self.namespaces(&all);
    }

    fn let_go(&mut self, key: &Key, object: &Value) {
        let placed = !text(object, "/spec/nodeName").is_empty() && key.resource == "pods";
        let grace = json::int(object, "/spec/terminationGracePeriodSeconds").unwrap_or(30);
        self.kube.store.delete(key, if placed { grace } else { 0 });
    }

    fn namespaces(&mut self, all: &[(Key, std::sync::Arc<Value>)]) {
        for space in self.kube.store.all(kinds::namespaces()).iter().filter(|n| json::deleting(n)) {
            let inside = || all.iter().filter(|(k, _)| k.namespace == json::name(space));
            for (key, object) in inside() {
                if !json::deleting(object) {
                    self.let_go(key, object);
                }
            }
            if inside().count() == 0 {
                self.kube.store.remove(&Key::new(kinds::namespaces(), "", json::name(space)));
            }
        }
    }
}
