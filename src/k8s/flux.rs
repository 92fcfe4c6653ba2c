//! Flux: what its objects say, holding them, and asking them to reconcile.

use serde_json::{Value, json};

use super::api::{Kubernetes, Verb};
use super::error::KubeError;
use super::fields::{FieldOwner, owners_of};
use super::meta::{Condition, Meta};
use super::resource::Resource;
use crate::base::hold::{MARK, Mark};
use crate::base::permit::{Handle, Permit};

/// The annotation whose value asks for a reconciliation; any new value does.
pub const REQUESTED_AT: &str = "reconcile.fluxcd.io/requestedAt";

/// The kinds that pvemig deals with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FluxKind {
    /// A git source.
    GitRepository,
    /// An OCI source.
    OciRepository,
    /// An object-store source.
    Bucket,
    /// What applies manifests of a source.
    Kustomization,
    /// What installs a chart.
    HelmRelease,
    /// What commits new image tags to a git source.
    ImageUpdateAutomation,
}

impl FluxKind {
    /// The API group and the kind.
    pub fn api(self) -> (&'static str, &'static str) {
        match self {
            Self::GitRepository => ("source.toolkit.fluxcd.io", "GitRepository"),
            Self::OciRepository => ("source.toolkit.fluxcd.io", "OCIRepository"),
            Self::Bucket => ("source.toolkit.fluxcd.io", "Bucket"),
            Self::Kustomization => ("kustomize.toolkit.fluxcd.io", "Kustomization"),
            Self::HelmRelease => ("helm.toolkit.fluxcd.io", "HelmRelease"),
            Self::ImageUpdateAutomation => ("image.toolkit.fluxcd.io", "ImageUpdateAutomation"),
        }
    }

    /// The kind by the name that `sourceRef` and `before` records use.
    pub fn parse(kind: &str) -> Option<Self> {
        use FluxKind::{Bucket, GitRepository, HelmRelease, ImageUpdateAutomation, Kustomization, OciRepository};
        let all = [GitRepository, OciRepository, Bucket, Kustomization, HelmRelease, ImageUpdateAutomation];
        all.into_iter().find(|k| k.api().1 == kind)
    }
}

/// An object of Flux.
#[derive(Debug, Clone, PartialEq)]
pub struct FluxObject {
    /// What it is.
    pub kind: FluxKind,
    /// Where objects of its kind are, in the version that the cluster prefers.
    pub resource: Resource,
    /// Name, uid, generation, labels, annotations.
    pub meta: Meta,
    /// `spec.suspend` as written; absent means false.
    pub suspend: Option<bool>,
    /// The source that it follows, where it follows one.
    pub source: Option<SourceRef>,
    /// The generation that its controller has seen.
    pub observed_generation: i64,
    /// `Ready`, `Reconciling`, `Stalled`, `Healthy`.
    pub conditions: Vec<Condition>,
    /// The revision that is applied (`main@sha1:..`); empty where none.
    pub last_applied: String,
    /// The revision that was tried last; another than the applied one: that try failed.
    pub last_attempted: String,
    /// A source's artifact revision; empty where none.
    pub artifact: String,
    /// The request that was handled last.
    pub last_handled: String,
    /// The object as it was read.
    pub raw: Value,
}

/// What an object follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceRef {
    /// `GitRepository`, ...
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// How far a requested reconciliation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// It was handled, and the object is Ready in its present generation.
    Yes {
        /// False where not our request was handled but a later one of somebody else, which serves as well.
        ours: bool,
    },
    /// On its way.
    NotYet(String),
    /// Handled, and it failed; it tries again at its interval.
    Failed(String),
    /// It will not be handled: suspended or stalled.
    Never(String),
}

impl FluxObject {
    pub(super) fn from_api(kind: FluxKind, resource: Resource, value: Value) -> Self {
        let meta = Meta::of(&value);
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        // A HelmRelease names its source inside of its chart template, or a chart in `chartRef`.
        let places = ["/spec/sourceRef", "/spec/chart/spec/sourceRef", "/spec/chartRef"];
        let source = places.iter().find_map(|place| {
            let field = |key: &str| value.pointer(&format!("{place}/{key}")).and_then(Value::as_str);
            Some(SourceRef {
                // An ImageUpdateAutomation may leave the kind out.
                kind: field("kind").unwrap_or("GitRepository").to_owned(),
                namespace: field("namespace").unwrap_or(&meta.namespace).to_owned(),
                name: field("name")?.to_owned(),
            })
        });
        Self {
            kind,
            resource,
            suspend: value.pointer("/spec/suspend").and_then(Value::as_bool),
            source,
            observed_generation: value.pointer("/status/observedGeneration").and_then(Value::as_i64).unwrap_or(0),
            conditions: Condition::all_of(&value),
            last_applied: text("/status/lastAppliedRevision"),
            last_attempted: text("/status/lastAttemptedRevision"),
            artifact: text("/status/artifact/revision"),
            last_handled: text("/status/lastHandledReconcileAt"),
            raw: value,
            meta,
        }
    }

    /// `Kustomization flux-system/apps`.
    pub fn title(&self) -> String {
        format!("{} {}", self.kind.api().1, self.meta.full_name())
    }

    /// True where it is suspended.
    pub fn is_suspended(&self) -> bool {
        self.suspend == Some(true)
    }

    /// A condition by its type.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|c| c.kind == kind)
    }

    /// True where its present generation is seen and Ready, and nothing runs or is stuck.
    pub fn is_ready(&self) -> bool {
        self.observed_generation == self.meta.generation
            && self.condition("Ready").is_some_and(Condition::is_true)
            && !self.is_busy()
            && !self.condition("Stalled").is_some_and(Condition::is_true)
    }

    /// True while a reconciliation runs: suspending does not stop it.
    pub fn is_busy(&self) -> bool {
        self.condition("Reconciling").is_some_and(Condition::is_true)
    }

    /// Who wrote `spec.suspend`, newest first.
    pub fn suspended_by(&self) -> Vec<FieldOwner> {
        owners_of(&self.meta.managed_fields, &["f:spec", "f:suspend"])
    }

    /// The one line that says how it is.
    pub fn summary(&self) -> String {
        let state = match (self.is_suspended(), self.condition("Stalled"), self.condition("Ready")) {
            (true, ..) => "suspended".to_owned(),
            (_, Some(stalled), _) if stalled.is_true() => stalled.to_string(),
            (_, _, Some(ready)) => ready.to_string(),
            _ => "has no condition Ready".to_owned(),
        };
        format!("{}: {state}", self.title())
    }

    /// How far the request `token` is; `before` is what was handled when it was made.
    ///
    /// Somebody's later request overwrites ours, which is then never handled. A handled one that is neither ours nor
    /// the one before came after ours and serves as well.
    pub fn settled(&self, token: &str, before: &str) -> Settled {
        if self.is_suspended() {
            return Settled::Never(format!("{} is suspended", self.title()));
        }
        let ours = self.last_handled == token;
        let later = !ours && !self.last_handled.is_empty() && self.last_handled != before;
        if !ours && !later {
            let asked = self.meta.annotations.get(REQUESTED_AT).map_or("none", String::as_str);
            let text = format!("{}: request {token} not yet handled (last asked {asked})", self.title());
            return Settled::NotYet(text);
        }
        if self.observed_generation < self.meta.generation {
            return Settled::NotYet(format!("{}: its present spec is not yet seen", self.title()));
        }
        if self.is_ready() {
            return Settled::Yes { ours };
        }
        match (self.condition("Stalled"), self.condition("Ready")) {
            (Some(stalled), _) if stalled.is_true() => Settled::Never(self.summary()),
            (_, Some(ready)) if ready.status == "False" && !self.is_busy() => Settled::Failed(self.summary()),
            _ => Settled::NotYet(self.summary()),
        }
    }
}

impl Kubernetes {
    /// An object of Flux; `None` where there is none, or where Flux (or this part of it) is not installed.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn flux(&self, kind: FluxKind, namespace: &str, name: &str) -> Result<Option<FluxObject>, KubeError> {
        let (group, api_kind) = kind.api();
        let Some(resource) = self.resource(group, api_kind).await? else { return Ok(None) };
        let value: Option<Value> = self.get(&resource, namespace, name).await?;
        Ok(value.map(|value| FluxObject::from_api(kind, resource, value)))
    }

    /// All objects of a kind; empty where Flux (or this part of it) is not installed.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn flux_all(&self, kind: FluxKind) -> Result<Vec<FluxObject>, KubeError> {
        let (group, api_kind) = kind.api();
        let Some(resource) = self.resource(group, api_kind).await? else { return Ok(Vec::new()) };
        let all: Vec<Value> = self.list(&resource, None, &[]).await?;
        Ok(all.into_iter().map(|value| FluxObject::from_api(kind, resource.clone(), value)).collect())
    }

    /// The owners of an object up to the root, each before its own, by the labels that Flux puts on what it applies:
    /// both where a Kustomization and a HelmRelease do. Empty where it has none. Only those that are not among the
    /// `listed` are asked for.
    ///
    /// # Errors
    /// [`KubeError::NotFound`] where a label names an owner that is not there: something else than what the labels
    /// say is true, and nobody should act on it. And what keeps the API from answering.
    pub async fn flux_owners(&self, meta: &Meta, listed: &[FluxObject]) -> Result<Vec<FluxObject>, KubeError> {
        let (mut met, mut owners) = (Vec::new(), Vec::new());
        let mut open = vec![(None, meta.full_name(), owners_by_labels(meta))];
        while let Some((_, of, left)) = open.last_mut() {
            let Some((kind, namespace, name)) = left.pop() else {
                owners.extend(open.pop().and_then(|(owner, ..)| owner));
                continue;
            };
            // The root applies itself.
            if met.contains(&(kind, namespace.clone(), name.clone())) {
                continue;
            }
            let is = |o: &&FluxObject| o.kind == kind && o.meta.namespace == namespace && o.meta.name == name;
            let owner = match listed.iter().find(is) {
                Some(owner) => Some(owner.clone()),
                None => self.flux(kind, &namespace, &name).await?,
            };
            let Some(owner) = owner else {
                let (_, kind) = kind.api();
                let call = self.call("GET", format!("{kind} {namespace}/{name}"), false);
                return Err(KubeError::NotFound { call, text: format!("{of} names it as its owner") });
            };
            met.push((kind, namespace, name));
            let (of, left) = (owner.meta.full_name(), owners_by_labels(&owner.meta));
            open.push((Some(owner), of, left));
        }
        owners.reverse();
        Ok(owners)
    }

    /// The automations that commit to a source.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn flux_automations(&self, source: &SourceRef) -> Result<Vec<FluxObject>, KubeError> {
        let all = self.flux_all(FluxKind::ImageUpdateAutomation).await?;
        Ok(all.into_iter().filter(|a| a.source.as_ref() == Some(source)).collect())
    }

    /// Suspends and puts the hold's mark up, in one patch. What runs is not stopped: wait until it is not busy.
    ///
    /// # Errors
    /// What keeps the API from doing it; [`KubeError::Replaced`] where it is another object
    /// by now.
    pub async fn flux_suspend(&self, permit: &Permit, object: &FluxObject, mark: &Mark) -> Result<(), KubeError> {
        let body = json!({
            "metadata": {"uid": object.meta.uid, "annotations": {MARK: mark.to_annotation()}},
            "spec": {"suspend": true},
        });
        self.patch(permit, &object.resource, at(object), &body, "suspend").await?;
        Ok(())
    }

    /// Sets `spec.suspend` to what it was (`None`: absent) and takes the mark off, in one patch.
    ///
    /// # Errors
    /// As for [`Kubernetes::flux_suspend`].
    pub async fn flux_release(
        &self,
        permit: &Permit,
        object: &FluxObject,
        suspend: Option<bool>,
    ) -> Result<(), KubeError> {
        let body = json!({
            "metadata": {"uid": object.meta.uid, "annotations": {MARK: null}},
            "spec": {"suspend": suspend},
        });
        let note = if suspend == Some(true) { "remove mark, stays suspended" } else { "resume" };
        self.patch(permit, &object.resource, at(object), &body, note).await?;
        Ok(())
    }

    /// Asks for a reconciliation with a token, which is kept as the call's handle.
    ///
    /// # Errors
    /// What keeps the API from doing it.
    pub async fn flux_request(&self, permit: &Permit, object: &FluxObject, token: &str) -> Result<(), KubeError> {
        let body = json!({"metadata": {"annotations": {REQUESTED_AT: token}}});
        let (namespace, name) = at(object);
        let target = (object.resource.name_of(namespace, name), object.resource.path(namespace, name));
        let note = format!("reconcile, token {token}");
        let (id, _) = self.change(permit, Verb::MergePatch, (&target.0, target.1), &body, &note).await?;
        let call = self.call("PATCH", target.0, true);
        permit.got(id, &Handle::new("token", token)).map_err(|source| KubeError::NotRecorded { call, source })
    }

    /// Waits until the request `token` was handled and the object is Ready. A failed try is waited through: the
    /// controller tries again.
    ///
    /// # Errors
    /// [`KubeError::Hopeless`] where it is suspended, stalled or gone; [`KubeError::Deadline`] with what it says.
    pub async fn flux_wait(
        &self,
        object: &FluxObject,
        token: &str,
        limit: std::time::Duration,
    ) -> Result<FluxObject, KubeError> {
        use super::wait::Seen;
        let what = format!("{} reconciled", object.title());
        self.until(&object.resource, at(object), &what, limit, |value| {
            let Some(value) = value else { return Seen::Never(format!("{} is gone", object.title())) };
            let now = FluxObject::from_api(object.kind, object.resource.clone(), value.clone());
            match now.settled(token, &object.last_handled) {
                Settled::Yes { .. } => Seen::Now(now),
                Settled::NotYet(text) | Settled::Failed(text) => Seen::NotYet(text),
                Settled::Never(why) => Seen::Never(why),
            }
        })
        .await
    }
}

fn at(object: &FluxObject) -> (&str, &str) {
    (&object.meta.namespace, &object.meta.name)
}

/// The nearest owners that an object's labels name.
fn owners_by_labels(meta: &Meta) -> Vec<(FluxKind, String, String)> {
    let kinds =
        [(FluxKind::Kustomization, "kustomize.toolkit.fluxcd.io"), (FluxKind::HelmRelease, "helm.toolkit.fluxcd.io")];
    let named = |(kind, group): (FluxKind, &str)| {
        let name = meta.labels.get(&format!("{group}/name"))?;
        let namespace = meta.labels.get(&format!("{group}/namespace"))?;
        Some((kind, namespace.clone(), name.clone()))
    };
    kinds.into_iter().filter_map(named).collect()
}
