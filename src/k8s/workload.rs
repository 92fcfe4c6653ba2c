//! Workloads that can be scaled: Deployment, StatefulSet, and any kind with the subresource `scale`.

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::{Value, json};

use super::api::{Kubernetes, Verb};
use super::error::KubeError;
use super::meta::{Meta, Owner};
use super::needs::{Needs, needs_of};
use super::pod::Pod;
use super::resource::{DEPLOYMENT, REPLICA_SET, Resource, STATEFUL_SET};
use super::select::Selector;
use crate::base::hold::{MARK, Mark};
use crate::base::permit::Permit;

/// A workload.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// Where objects of its kind are.
    pub resource: Resource,
    /// Name, uid, annotations, owners.
    pub meta: Meta,
    /// How many pods are asked for; an absent `spec.replicas` means 1.
    pub replicas: i64,
    /// How many there are, terminating ones not counted: 0 does not say that they are gone.
    pub current: i64,
    /// How many are ready.
    pub ready: i64,
    /// The generation that its controller has seen.
    pub observed_generation: i64,
    /// The label selector of its pods, in query form.
    pub selector: String,
    /// What its pods name: claims, secrets, config maps, runtime class, paths; `None` for a kind without template.
    pub needs: Option<Needs>,
    /// The object as it was read.
    pub raw: Value,
}

impl Workload {
    #[doc(hidden)]
    pub fn from_api(resource: Resource, value: Value) -> Result<Self, serde_json::Error> {
        let number = |pointer: &str| value.pointer(pointer).and_then(Value::as_i64);
        let selector = value.pointer("/spec/selector").cloned().unwrap_or_default();
        // Kinds outside of apps/v1 may have a selector of another shape; theirs comes from `scale`.
        let selector: LabelSelector = match serde_json::from_value(selector) {
            Err(error) if resource.replicas_in_spec => return Err(error),
            parsed => parsed.unwrap_or_default(),
        };
        let template = value.pointer("/spec/template/spec").cloned();
        let template: Option<core::PodSpec> = template.map(serde_json::from_value).transpose()?;
        Ok(Self {
            meta: Meta::of(&value),
            replicas: number("/spec/replicas").unwrap_or(1),
            current: number("/status/replicas").unwrap_or(0),
            ready: number("/status/readyReplicas").unwrap_or(0),
            observed_generation: number("/status/observedGeneration").unwrap_or(0),
            selector: Selector::from(selector).to_query(),
            needs: template.map(|spec| needs_of(&spec)),
            raw: value,
            resource,
        })
    }

    /// The same workload as another manifest of it would make it.
    ///
    /// # Errors
    /// The manifest has another shape than the API says.
    pub fn with_manifest(&self, raw: Value) -> Result<Self, serde_json::Error> {
        let made = Self::from_api(self.resource.clone(), raw)?;
        Ok(Self { needs: made.needs, selector: self.selector.clone(), raw: made.raw, ..self.clone() })
    }

    /// A pod as its template makes it, bound to no node; `None` for a kind without template.
    ///
    /// # Errors
    /// The template has another shape than the API says.
    pub fn pod(&self) -> Result<Option<Pod>, serde_json::Error> {
        let Some(template) = self.raw.pointer("/spec/template").filter(|t| t.get("spec").is_some()) else {
            return Ok(None);
        };
        Pod::from_api(template.clone()).map(Some)
    }

    /// `Deployment frigate/frigate`.
    pub fn title(&self) -> String {
        format!("{} {}", self.resource.kind, self.meta.full_name())
    }

    /// The claims of its pods: those in the template, and for a StatefulSet those that it makes for `replicas` pods.
    pub fn claims(&self, replicas: i64) -> Vec<String> {
        let mut claims = self.needs.as_ref().map(|needs| needs.claims.clone()).unwrap_or_default();
        let first = self.raw.pointer("/spec/ordinals/start").and_then(Value::as_i64).unwrap_or(0);
        let templates = self.raw.pointer("/spec/volumeClaimTemplates").and_then(Value::as_array);
        for template in templates.into_iter().flatten() {
            let name = template.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            claims.extend((first..first + replicas).map(|i| format!("{name}-{}-{i}", self.meta.name)));
        }
        claims
    }

    /// Whether the workload's own controller makes a claim of this name where there is none: by a template of a
    /// StatefulSet, of any ordinal.
    pub fn makes_claim(&self, claim: &str) -> bool {
        let templates = self.raw.pointer("/spec/volumeClaimTemplates").and_then(Value::as_array);
        templates.into_iter().flatten().any(|template| {
            let name = template.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            let ordinal = claim.strip_prefix(&format!("{name}-{}-", self.meta.name));
            ordinal.is_some_and(|o| !o.is_empty() && o.chars().all(|c| c.is_ascii_digit()))
        })
    }

    /// True for a StatefulSet whose claims are deleted when it is scaled down.
    pub fn scaling_deletes_claims(&self) -> bool {
        let policy = self.raw.pointer("/spec/persistentVolumeClaimRetentionPolicy/whenScaled");
        policy.is_some_and(|p| p == "Delete")
    }

    /// The owner that would put a changed count back (an operator's resource).
    pub fn operator(&self) -> Option<&Owner> {
        self.meta.controller()
    }
}

/// What scales a workload by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scaler {
    /// `HorizontalPodAutoscaler` or `ScaledObject`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its lower bound, where it says.
    pub min: Option<i64>,
    /// True where it leaves a count of 0 alone: a plain autoscaler does, KEDA only while it is paused.
    pub respects_zero: bool,
}

impl Kubernetes {
    /// A workload by kind and name; `None` where there is none. Kinds outside of apps/v1 are named with their
    /// group, `Rollout.argoproj.io`, and read through `scale` too.
    ///
    /// # Errors
    /// [`KubeError::NoKind`] for an unknown kind, and what keeps the API from answering.
    pub async fn workload(&self, kind: &str, namespace: &str, name: &str) -> Result<Option<Workload>, KubeError> {
        let resource = match (kind, kind.split_once('.')) {
            ("Deployment", _) => DEPLOYMENT,
            ("StatefulSet", _) => STATEFUL_SET,
            ("ReplicaSet", _) => REPLICA_SET,
            (_, Some((kind, group))) => self.served(group, kind).await?,
            (_, None) => self.served("", kind).await?,
        };
        let Some(value) = self.get::<Value>(&resource, namespace, name).await? else { return Ok(None) };
        let what = resource.name_of(namespace, name);
        let mut workload = self.shape(&what, Workload::from_api(resource, value))?;
        if !workload.resource.replicas_in_spec {
            // Where such a kind keeps its count, only its `scale` knows.
            let path = format!("{}/scale", workload.resource.path(namespace, name));
            let what = format!("{}/scale", workload.resource.name_of(namespace, name));
            let scale: Value = self.read(self.call("GET", what, false), http::Method::GET, path, None).await?;
            let number = |pointer: &str| scale.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
            workload.replicas = number("/spec/replicas");
            workload.current = number("/status/replicas");
            if let Some(selector) = scale.pointer("/status/selector").and_then(Value::as_str) {
                workload.selector = selector.to_owned();
            }
        }
        Ok(Some(workload))
    }

    /// Scales to 0 and puts the hold's mark up, in one patch. A kind outside of apps/v1 gets its mark first and is
    /// then scaled through `scale`: two requests.
    ///
    /// # Errors
    /// What keeps the API from doing it; [`KubeError::Replaced`] where it is another object
    /// by now.
    pub async fn scale_to_zero(&self, permit: &Permit, workload: &Workload, mark: &Mark) -> Result<(), KubeError> {
        let annotations = json!({MARK: mark.to_annotation()});
        let uid = &workload.meta.uid;
        let at = (workload.meta.namespace.as_str(), workload.meta.name.as_str());
        if workload.resource.replicas_in_spec {
            let body = json!({"metadata": {"uid": uid, "annotations": annotations}, "spec": {"replicas": 0}});
            let note = format!("replicas {} -> 0", workload.replicas);
            self.patch(permit, &workload.resource, at, &body, &note).await?;
            return Ok(());
        }
        let body = json!({"metadata": {"uid": uid, "annotations": annotations}});
        self.patch(permit, &workload.resource, at, &body, "mark").await?;
        self.patch_scale(permit, workload, 0).await
    }

    /// Sets the count back and takes the mark off, in one patch; for a kind outside of apps/v1 in two requests, the
    /// mark last.
    ///
    /// # Errors
    /// As for [`Kubernetes::scale_to_zero`].
    pub async fn restore_replicas(&self, permit: &Permit, workload: &Workload, replicas: i64) -> Result<(), KubeError> {
        let at = (workload.meta.namespace.as_str(), workload.meta.name.as_str());
        let metadata = json!({"uid": workload.meta.uid, "annotations": {MARK: null}});
        if workload.resource.replicas_in_spec {
            let body = json!({"metadata": metadata, "spec": {"replicas": replicas}});
            let note = format!("replicas {} -> {replicas}", workload.replicas);
            self.patch(permit, &workload.resource, at, &body, &note).await?;
            return Ok(());
        }
        self.patch_scale(permit, workload, replicas).await?;
        self.patch(permit, &workload.resource, at, &json!({"metadata": metadata}), "remove mark").await?;
        Ok(())
    }

    /// Takes the mark off and leaves the count alone (somebody else has scaled it by now).
    ///
    /// # Errors
    /// As for [`Kubernetes::scale_to_zero`].
    pub async fn remove_workload_mark(&self, permit: &Permit, workload: &Workload) -> Result<(), KubeError> {
        let body = json!({"metadata": {"uid": workload.meta.uid, "annotations": {MARK: null}}});
        let at = (workload.meta.namespace.as_str(), workload.meta.name.as_str());
        self.patch(permit, &workload.resource, at, &body, "remove mark").await?;
        Ok(())
    }

    async fn patch_scale(&self, permit: &Permit, workload: &Workload, replicas: i64) -> Result<(), KubeError> {
        let (namespace, name) = (workload.meta.namespace.as_str(), workload.meta.name.as_str());
        let target = format!("{}/scale", workload.resource.name_of(namespace, name));
        let path = format!("{}/scale", workload.resource.path(namespace, name));
        let body = json!({"spec": {"replicas": replicas}});
        let note = format!("replicas {} -> {replicas}", workload.replicas);
        self.change(permit, Verb::MergePatch, (&target, path), &body, &note).await?;
        Ok(())
    }

    /// All pods that the workload's selector chooses, terminating ones included: while this is not empty, something
    /// may still write to its volumes.
    ///
    /// # Errors
    /// What keeps the API from answering; [`KubeError::BadAnswer`] where the workload has no selector, which would
    /// choose every pod of the namespace.
    pub async fn workload_pods(&self, workload: &Workload) -> Result<Vec<Pod>, KubeError> {
        if workload.selector.is_empty() {
            let name = workload.resource.name_of(&workload.meta.namespace, &workload.meta.name);
            let text = "it has no label selector for its pods".into();
            return Err(KubeError::BadAnswer { call: self.call("GET", name, false), text });
        }
        self.pods_matching(&workload.meta.namespace, &workload.selector).await
    }

    /// The autoscalers and KEDA objects that scale a workload.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn scalers(&self, workload: &Workload) -> Result<Vec<Scaler>, KubeError> {
        let mut found = Vec::new();
        let mut kinds = vec![(super::resource::AUTOSCALER, "minReplicas", true)];
        kinds.extend(self.resource("keda.sh", "ScaledObject").await?.map(|r| (r, "minReplicaCount", false)));
        for (resource, min, respects_zero) in kinds {
            let all: Vec<Value> = self.list(&resource, Some(&workload.meta.namespace), &[]).await?;
            for scaler in all {
                let target = |key: &str| scaler.pointer(&format!("/spec/scaleTargetRef/{key}")).and_then(Value::as_str);
                // KEDA's reference means a Deployment where it names no kind.
                let kind = target("kind").unwrap_or("Deployment");
                if kind == workload.resource.kind && target("name") == Some(&workload.meta.name) {
                    let meta = Meta::of(&scaler);
                    found.push(Scaler {
                        kind: resource.kind.to_string(),
                        min: scaler.pointer(&format!("/spec/{min}")).and_then(Value::as_i64),
                        respects_zero: respects_zero || paused(&meta),
                        name: meta.name,
                    });
                }
            }
        }
        Ok(found)
    }
}

/// Whether a ScaledObject leaves its workload at 0: paused as it is, or at a count of 0. A count wins over the other
/// annotation (KEDA, "Pausing autoscaling").
fn paused(meta: &Meta) -> bool {
    let annotation = |name: &str| meta.annotations.get(&format!("autoscaling.keda.sh/{name}")).map(String::as_str);
    annotation("paused-replicas").map_or(annotation("paused") == Some("true"), |count| count == "0")
}
