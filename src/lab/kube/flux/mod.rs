//! Flux: source-controller, kustomize-controller and what stands beside them.
//!
//! As in flux2 2.5: what triggers a run, what a run writes, which managers' fields are taken away.

mod build;
mod git;
mod kustomize;
mod tree;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::control::Round;
use super::fields::Writer;
use super::json::{self, flag, int, text};
use super::kinds::{self, Kind};
pub(crate) use git::{push, push_from};
pub(crate) use tree::create;

/// The token by which a run is asked for.
const REQUESTED: &str = "reconcile.fluxcd.io/requestedAt";
/// Fetching a source.
const FETCH: Duration = Duration::from_secs(1);

/// What Flux's controllers remember.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    /// The bare repository.
    pub(crate) bare: Option<PathBuf>,
    /// Files by revision.
    trees: BTreeMap<String, Arc<git::Tree>>,
    /// How often an object has been reconciled, by uid.
    runs: BTreeMap<String, u64>,
    /// Kustomizations whose run has begun.
    running: BTreeMap<String, bool>,
}

/// Lets Flux's controllers work.
pub(crate) fn reconcile(round: &mut Round<'_>) {
    for source in round.kube.store.all(kinds::repositories()) {
        round.source(&source);
    }
    for kustomization in round.kube.store.all(kinds::kustomizations()) {
        round.kustomization(&kustomization);
    }
    for kind in kinds::KINDS.iter().filter(|k| k.custom && k.group.ends_with("toolkit.fluxcd.io")) {
        if ["gitrepositories", "kustomizations"].contains(&kind.resource) {
            continue;
        }
        for object in round.kube.store.all(kind) {
            round.beside(kind, &object);
        }
    }
}

/// The files at the tip of `main`; empty where there is no repository.
pub(crate) fn tip(state: &State) -> git::Tree {
    let read = |bare: &PathBuf| git::read(bare, &git::tip(bare, "main").ok()?).ok();
    state.bare.as_ref().and_then(read).unwrap_or_default()
}

/// `1m30s`, `10m`, `1h` as a duration.
fn interval(object: &Value, pointer: &str) -> Duration {
    let (mut total, mut number) = (0_u64, 0_u64);
    for c in text(object, pointer).chars() {
        match (c, c.to_digit(10)) {
            (_, Some(digit)) => number = number * 10 + u64::from(digit),
            ('h', _) => (total, number) = (total + number * 3_600, 0),
            ('m', _) => (total, number) = (total + number * 60, 0),
            ('s', _) => (total, number) = (total + number, 0),
            _ => {}
        }
    }
    Duration::from_secs(if total == 0 { 60 } else { total })
}

impl Round<'_> {
    /// Why an object is to be reconciled now, if it is.
    fn trigger(&mut self, object: &Value, every: Duration) -> Option<String> {
        let generation = int(object, "/metadata/generation").unwrap_or_default();
        let token = json::annotation(object, REQUESTED).unwrap_or_default();
        let runs = self.kube.flux.runs.get(json::uid(object)).copied().unwrap_or_default();
        let (uid, timer) = (json::uid(object), format!("flux-interval/{}/{runs}", json::uid(object)));
        let rested = self.held(&timer, every);
        if int(object, "/status/observedGeneration") != Some(generation) {
            Some(format!("{uid}/generation/{generation}"))
        } else if token != text(object, "/status/lastHandledReconcileAt") {
            Some(format!("{uid}/token/{token}"))
        } else {
            rested.then(|| format!("{uid}/interval/{runs}"))
        }
    }

    /// Counts a run; the time to the next one starts with the next look at the object.
    fn ran(&mut self, object: &Value) {
        *self.kube.flux.runs.entry(json::uid(object).to_owned()).or_default() += 1;
    }

    /// Counts a run that may leave no trace in the object: the time to the next one starts now.
    fn ran_quietly(&mut self, object: &Value) {
        self.ran(object);
        let runs = self.kube.flux.runs.get(json::uid(object)).copied().unwrap_or_default();
        self.held(&format!("flux-interval/{}/{runs}", json::uid(object)), interval(object, "/spec/interval"));
    }

    /// Writes a Flux status: the handled token, the generation, and what `change` adds.
    fn flux_status(
        &mut self,
        kind: &'static Kind,
        object: &Value,
        manager: &str,
        change: impl FnOnce(&mut Value, &str),
    ) {
        let now = self.kube.store.now.clone();
        self.kube.store.edit(kind, object, Writer::status(manager), |o| {
            let generation = int(o, "/metadata/generation").unwrap_or_default();
            json::set(o, &["status", "observedGeneration"], generation);
            if let Some(token) = json::annotation(o, REQUESTED).map(str::to_owned) {
                json::set(o, &["status", "lastHandledReconcileAt"], token);
            }
            change(o, &now);
            for condition in o.pointer_mut("/status/conditions").and_then(Value::as_array_mut).into_iter().flatten() {
                json::set(condition, &["observedGeneration"], generation);
            }
        });
    }

    fn source(&mut self, source: &Value) {
        const ME: &str = "source-controller";
        if flag(source, "/spec/suspend") || json::deleting(source) {
            return;
        }
        let Some(why) = self.trigger(source, interval(source, "/spec/interval")) else { return };
        if !self.held(&format!("flux-fetch/{why}"), FETCH) {
            return;
        }
        self.ran_quietly(source);
        let branch = match text(source, "/spec/ref/branch") {
            "" => "main",
            branch => branch,
        };
        let found = self.fetch(branch);
        let (space, name) = (json::namespace(source).to_owned(), json::name(source).to_owned());
        self.flux_status(kinds::repositories(), source, ME, |s, now| match found {
            Ok((revision, digest)) => {
                if text(s, "/status/artifact/revision") != revision {
                    let short = revision.rsplit(':').next().unwrap_or_default().to_owned();
                    let path = format!("gitrepository/{space}/{name}/{short}.tar.gz");
                    let url = format!("http://source-controller.{space}.svc.cluster.local./{path}");
                    let artifact = json!({ "revision": revision, "digest": digest, "path": path, "url": url,
                        "lastUpdateTime": now });
                    json::set(s, &["status", "artifact"], artifact);
                }
                let message = format!("stored artifact for revision '{revision}'");
                json::set_condition(s, "Ready", "True", "Succeeded", &message, now);
                json::set_condition(s, "ArtifactInStorage", "True", "Succeeded", &message, now);
                json::drop_condition(s, "FetchFailed");
            }
            Err(text) => {
                let message = format!("failed to checkout and determine revision: {text}");
                json::set_condition(s, "Ready", "False", "GitOperationFailed", &message, now);
                json::set_condition(s, "FetchFailed", "True", "GitOperationFailed", &message, now);
            }
        });
    }

    /// The branch's revision and a digest of its files; the files are kept for those who build them.
    fn fetch(&mut self, branch: &str) -> Result<(String, String), String> {
        let bare = self.kube.flux.bare.clone().ok_or("there is no repository")?;
        let commit = git::tip(&bare, branch)?;
        let revision = format!("{branch}@sha1:{commit}");
        if !self.kube.flux.trees.contains_key(&revision) {
            let tree = git::read(&bare, &commit)?;
            self.kube.flux.trees.insert(revision.clone(), Arc::new(tree));
        }
        let digest: String = Sha256::digest(&revision).iter().map(|b| format!("{b:02x}")).collect();
        Ok((revision, format!("sha256:{digest}")))
    }

    /// Kinds whose controllers do nothing here but say that they are well: they handle requests and honour `suspend`.
    fn beside(&mut self, kind: &'static Kind, object: &Value) {
        if flag(object, "/spec/suspend") || json::deleting(object) {
            return;
        }
        let Some(why) = self.trigger(object, interval(object, "/spec/interval")) else { return };
        if !self.held(&format!("flux-beside/{why}"), FETCH) {
            return;
        }
        self.ran_quietly(object);
        let manager = match kind.group {
            "helm.toolkit.fluxcd.io" => "helm-controller",
            "image.toolkit.fluxcd.io" => "image-automation-controller",
            _ => "source-controller",
        };
        let message = match kind.resource {
            "helmreleases" => "Helm upgrade succeeded",
            "imageupdateautomations" => "repository up-to-date",
            _ => "reconciliation succeeded",
        };
        self.flux_status(kind, object, manager, |o, now| {
            json::set_condition(o, "Ready", "True", "Succeeded", message, now);
        });
    }
}
