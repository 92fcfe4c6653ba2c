//! kustomize-controller: builds, applies, prunes.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::build::{build, into_namespace};
use super::interval;
use crate::lab::kube::call::Target;
use crate::lab::kube::control::Round;
use crate::lab::kube::fields::{self, Entry, Writer};
use crate::lab::kube::json::{self, flag, list, text};
use crate::lab::kube::kinds;
use crate::lab::kube::store::{Key, add_finalizer, drop_finalizer, finalizers};
use crate::lab::kube::write::{self, Deletion};

const ME: &str = "kustomize-controller";
const FINALIZER: &str = "finalizers.fluxcd.io";
const GROUP: &str = "kustomize.toolkit.fluxcd.io";
/// From the beginning of a run to its end.
const RUN: Duration = Duration::from_millis(1_500);
/// `--requeue-dependency`
const DEPENDENCY: Duration = Duration::from_secs(5);

/// Why a run failed: a condition's reason and message.
type Failed = (&'static str, String);

impl Round<'_> {
    pub(super) fn kustomization(&mut self, object: &Value) {
        let uid = json::uid(object).to_owned();
        // A run that has begun is finished, also when the object is suspended meanwhile.
        if self.kube.flux.running.contains_key(&uid) {
            if self.held(&format!("flux-run/{uid}"), RUN) {
                self.kube.flux.running.remove(&uid);
                self.ran(object);
                self.finish(object);
            }
            return;
        }
        if json::deleting(object) {
            return self.end(object);
        }
        if flag(object, "/spec/suspend") {
            return;
        }
        if !finalizers(object).contains(&FINALIZER) {
            self.kube.store.edit(kinds::kustomizations(), object, Writer::new("gotk-kustomize-controller"), |k| {
                add_finalizer(k, FINALIZER);
            });
            return;
        }
        let failed = json::condition(object, "Ready").is_some_and(|c| text(c, "/status") == "False");
        let waits = json::condition(object, "Ready").is_some_and(|c| text(c, "/reason") == "DependencyNotReady");
        let every = match (waits, failed && object.pointer("/spec/retryInterval").is_some()) {
            (true, _) => DEPENDENCY,
            (_, true) => interval(object, "/spec/retryInterval"),
            _ => interval(object, "/spec/interval"),
        };
        let asked = self.trigger(object, every).is_some();
        let revision = self.artifact(object).unwrap_or_default();
        let newer = !revision.is_empty() && revision != text(object, "/status/lastAttemptedRevision");
        if !asked && !newer {
            return;
        }
        self.kube.flux.running.insert(uid, true);
        let now = self.kube.store.now.clone();
        self.kube.store.edit(kinds::kustomizations(), object, Writer::status(ME), |k| {
            let message = format!("Building manifests for revision {revision} with a timeout of 5m0s");
            json::set_condition(k, "Reconciling", "True", "Progressing", &message, &now);
            json::set_condition(k, "Ready", "Unknown", "Progressing", "Reconciliation in progress", &now);
        });
    }

    /// The revision of the artifact of a Kustomization's source.
    fn artifact(&self, object: &Value) -> Option<String> {
        let own = json::namespace(object);
        let space = match text(object, "/spec/sourceRef/namespace") {
            "" => own,
            space => space,
        };
        let source = self.kube.store.get(kinds::repositories(), space, text(object, "/spec/sourceRef/name"))?;
        source.pointer("/status/artifact/revision").and_then(Value::as_str).map(str::to_owned)
    }

    fn finish(&mut self, object: &Value) {
        let Some(present) =
            self.kube.store.get(kinds::kustomizations(), json::namespace(object), json::name(object)).cloned()
        else {
            return;
        };
        let revision = self.artifact(&present);
        let outcome = self.apply_all(&present, revision.as_deref());
        let revision = revision.unwrap_or_default();
        self.flux_status(kinds::kustomizations(), &present, ME, |k, now| {
            json::drop_condition(k, "Reconciling");
            if !revision.is_empty() {
                json::set(k, &["status", "lastAttemptedRevision"], revision.as_str());
            }
            match outcome {
                Ok(entries) => {
                    json::set(k, &["status", "lastAppliedRevision"], revision.as_str());
                    json::set(k, &["status", "inventory", "entries"], entries);
                    let message = format!("Applied revision: {revision}");
                    json::set_condition(k, "Ready", "True", "ReconciliationSucceeded", &message, now);
                }
                Err((reason, message)) => json::set_condition(k, "Ready", "False", reason, &message, now),
            }
        });
    }

    fn apply_all(&mut self, object: &Value, revision: Option<&str>) -> Result<Vec<Value>, Failed> {
        let tree = revision.and_then(|r| self.kube.flux.trees.get(r).cloned());
        let Some(tree) = tree else {
            return Err(("ArtifactFailed", "Source artifact not found, retrying in 30s".into()));
        };
        self.dependencies(object, revision.unwrap_or_default())?;
        let mut objects = build(&tree, text(object, "/spec/path")).map_err(|text| ("BuildFailed", text))?;
        let space = text(object, "/spec/targetNamespace");
        for built in &mut objects {
            if !space.is_empty() {
                into_namespace(built, space);
            }
            for (key, value) in [("name", json::name(object)), ("namespace", json::namespace(object))] {
                json::set(built, &["metadata", "labels", &format!("{GROUP}/{key}")], value);
            }
        }
        // Namespaces and definitions come before what needs them.
        objects.sort_by_key(|o| !["Namespace", "CustomResourceDefinition", "StorageClass"].contains(&text(o, "/kind")));
        let mut entries = Vec::new();
        for built in objects {
            entries.push(self.apply_one(object, built)?);
        }
        self.prune(object, &entries);
        Ok(entries)
    }

    fn dependencies(&self, object: &Value, revision: &str) -> Result<(), Failed> {
        for dependency in list(object, "/spec/dependsOn") {
            let space = match text(dependency, "/namespace") {
                "" => json::namespace(object),
                space => space,
            };
            let name = text(dependency, "/name");
            let found = self.kube.store.get(kinds::kustomizations(), space, name);
            let ready =
                found.is_some_and(|d| json::holds(d, "Ready") && text(d, "/status/lastAppliedRevision") == revision);
            if !ready {
                return Err(("DependencyNotReady", format!("dependency '{space}/{name}' is not ready")));
            }
        }
        Ok(())
    }

    /// Applies one object; returns its entry in the inventory.
    fn apply_one(&mut self, owner: &Value, built: Value) -> Result<Value, Failed> {
        let shown = format!("{}/{}/{}", text(&built, "/kind"), json::namespace(&built), json::name(&built));
        let failed = |text: &str| ("ReconciliationFailed", format!("{shown} dry-run failed: {text}"));
        let (version, what) = (text(&built, "/apiVersion").to_owned(), text(&built, "/kind").to_owned());
        let kind = kinds::of(&version, &what)
            .filter(|k| !self.kube.absent.contains(k.group))
            .ok_or_else(|| failed(&format!("no matches for kind \"{what}\" in version \"{version}\"")))?;
        let (space, name) = (json::namespace(&built).to_owned(), json::name(&built).to_owned());
        let entry = json!({
            "id": format!("{}_{name}_{}_{what}", if kind.namespaced { space.as_str() } else { "" }, kind.group),
            "v": kind.version,
        });
        let live = self.kube.store.get(kind, &space, &name).cloned();
        let off = |o: &Value, key: &str, value: &str| {
            let key = format!("{GROUP}/{key}");
            [json::annotation(o, &key), json::label(o, &key)].iter().flatten().any(|v| v.eq_ignore_ascii_case(value))
        };
        if let Some(live) = &live {
            let ignored = off(live, "reconcile", "disabled") || off(&built, "reconcile", "disabled");
            if ignored || off(&built, "ssa", "IfNotPresent") || off(&built, "ssa", "Ignore") {
                return Ok(entry);
            }
            self.take_over(kind, live);
        }
        let writer = Writer::new(ME);
        match write::applied(self.kube, kind, built.clone(), writer, true) {
            Ok(_) => Ok(entry),
            Err(refusal) if refusal.code == 422 && (flag(owner, "/spec/force") || off(&built, "force", "enabled")) => {
                let target = Target { kind, namespace: Some(space), name: Some(name), part: None };
                let gone = write::remove(self.kube, &target, &Deletion::default());
                gone.and_then(|_| write::applied(self.kube, kind, built, writer, true))
                    .map(|_| entry)
                    .map_err(|r| failed(r.message()))
            }
            Err(refusal) => Err(failed(refusal.message())),
        }
    }

    /// Takes the fields of those managers that Flux does not tolerate: its next apply drops what Git does not declare.
    fn take_over(&mut self, kind: &'static kinds::Kind, live: &Arc<Value>) {
        let foreign = |e: &Entry| {
            let named = e.manager.starts_with("kubectl") || e.manager == "before-first-apply";
            e.part.is_empty() && (named || (e.manager == ME && e.operation == "Update"))
        };
        let (taken, mut kept): (Vec<Entry>, Vec<Entry>) = fields::entries(live).into_iter().partition(foreign);
        if taken.is_empty() {
            return;
        }
        let writer = Writer::new(ME);
        if !kept.iter().any(|e| e.is("Apply", writer)) {
            kept.insert(
                0,
                Entry {
                    manager: ME.into(),
                    operation: "Apply".into(),
                    part: String::new(),
                    api_version: kind.api_version(),
                    time: self.kube.store.now.clone(),
                    fields: fields::Fields::new(),
                },
            );
        }
        if let Some(own) = kept.iter_mut().find(|e| e.is("Apply", writer)) {
            own.fields.extend(taken.into_iter().flat_map(|e| e.fields));
        }
        let mut new = Value::clone(live);
        fields::write(&mut new, kept);
        self.kube.store.replace(kind, new, None);
    }

    /// Deletes what the inventory had and the new one has not.
    fn prune(&mut self, object: &Value, entries: &[Value]) {
        if !flag(object, "/spec/prune") {
            return;
        }
        let ids: Vec<&str> = entries.iter().map(|e| text(e, "/id")).collect();
        for old in list(object, "/status/inventory/entries") {
            let id = text(old, "/id");
            if !ids.contains(&id) {
                self.prune_one(object, id);
            }
        }
    }

    fn prune_one(&mut self, owner: &Value, id: &str) {
        let Some(key) = inventory_key(id) else { return };
        let Some(live) = self.kube.store.at(&key).cloned() else { return };
        let own = json::label(&live, &format!("{GROUP}/name")) == Some(json::name(owner));
        let kept = ["prune", "reconcile"].iter().any(|what| {
            let key = format!("{GROUP}/{what}");
            [json::annotation(&live, &key), json::label(&live, &key)]
                .iter()
                .flatten()
                .any(|v| v.eq_ignore_ascii_case("disabled"))
        });
        if own && !kept {
            self.kube.store.delete(&key, 0);
        }
    }

    /// A Kustomization is deleted: what it applied goes with it, unless it is suspended.
    fn end(&mut self, object: &Value) {
        if !finalizers(object).contains(&FINALIZER) {
            return;
        }
        let orphan = text(object, "/spec/deletionPolicy") == "Orphan";
        if flag(object, "/spec/prune") && !flag(object, "/spec/suspend") && !orphan {
            for entry in list(object, "/status/inventory/entries") {
                self.prune_one(object, text(entry, "/id"));
            }
        }
        self.kube.store.edit(kinds::kustomizations(), object, Writer::new("gotk-kustomize-controller"), |k| {
            drop_finalizer(k, FINALIZER);
        });
    }
}

/// The object that an inventory entry names: `NAMESPACE_NAME_GROUP_KIND`.
fn inventory_key(id: &str) -> Option<Key> {
    let mut parts = id.split('_');
    let (space, name, group, what) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let kind = kinds::KINDS.iter().find(|k| k.group == group && k.kind == what)?;
    Some(Key::new(kind, space, name))
}
