//! What could put back what is changed: who of Flux applies the workload, its claims and its nodes, up to the root,
//! who commits to the same source, and who else applies them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::check::Problem;
use crate::base::fault::Failure;
use crate::k8s::Kubernetes;
use crate::k8s::appliers::Applier;
use crate::k8s::flux::{FluxKind, FluxObject};
use crate::k8s::meta::Meta;

use super::params::Work;

/// An object that Flux may apply.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Its API group; empty for the core.
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Its name and labels.
    pub meta: Meta,
}

/// An object of Flux by name, with what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerWas {
    /// `Kustomization`, `HelmRelease` or `ImageUpdateAutomation`.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `spec.suspend` as it was written; None: absent.
    pub suspend: Option<bool>,
    /// False where it said that it is not Ready; such a one is not waited for afterwards.
    pub ready: bool,
}

impl OwnerWas {
    /// An object as it is, with another former state of `suspend` where a mark tells it.
    pub fn of(object: &FluxObject, suspend: Option<bool>) -> Self {
        Self {
            kind: object.kind.api().1.to_owned(),
            namespace: object.meta.namespace.clone(),
            name: object.meta.name.clone(),
            suspend,
            ready: object.condition("Ready").is_none_or(|c| c.status != "False"),
        }
    }

    /// Whether this is the record of an object.
    pub fn is(&self, object: &FluxObject) -> bool {
        self.kind == object.kind.api().1 && self.namespace == object.meta.namespace && self.name == object.meta.name
    }

    /// True where it was suspended already.
    pub fn was_suspended(&self) -> bool {
        self.suspend == Some(true)
    }

    /// Its kind in a command line of `flux`.
    pub fn command(&self) -> String {
        if self.kind == "ImageUpdateAutomation" { "image update".into() } else { self.kind.to_lowercase() }
    }

    /// `Kustomization flux-system/apps`.
    pub fn title(&self) -> String {
        format!("{} {}/{}", self.kind, self.namespace, self.name)
    }

    /// The object as it is now; None where it is gone.
    ///
    /// # Errors
    /// What keeps the API from answering, or a kind that this version does not know.
    pub async fn read(&self, kube: &Kubernetes) -> Result<Option<FluxObject>, Failure> {
        let kind = FluxKind::parse(&self.kind)
            .ok_or_else(|| Failure::plain(format!("{} is of no kind that pvemig suspends", self.title()), None))?;
        Ok(kube.flux(kind, &self.namespace, &self.name).await?)
    }
}

/// The workload, the claims and the nodes that a migration changes, as far as they are there.
///
/// # Errors
/// What keeps the API from answering.
pub async fn subjects(
    kube: &Kubernetes,
    work: &Work,
    claims: &[String],
    nodes: &[String],
) -> Result<Vec<Subject>, Failure> {
    let mut all = Vec::new();
    let mut names = claims.to_vec();
    if let Some(workload) = kube.workload(&work.kind, &work.namespace, &work.name).await? {
        names.extend(workload.claims(workload.replicas.max(1)));
        let (group, kind) = (workload.resource.group.to_string(), workload.resource.kind.to_string());
        all.push(Subject { group, kind, meta: workload.meta });
    }
    names.sort();
    names.dedup();
    for name in names {
        if let Some(claim) = kube.claim(&work.namespace, &name).await? {
            all.push(Subject { group: String::new(), kind: "PersistentVolumeClaim".into(), meta: claim.meta });
        }
    }
    for name in nodes {
        if let Some(node) = kube.node(name).await? {
            all.push(Subject { group: String::new(), kind: "Node".into(), meta: node.meta });
        }
    }
    Ok(all)
}

/// Everything of Flux that could put the subjects back, in the order in which it is to be suspended: image
/// automations first (a commit of theirs starts a reconciliation), then from the root to the leaves. A parent that
/// runs applies its children's manifests, so a child that is suspended before its parent can be resumed by it.
///
/// # Errors
/// What keeps the API from answering; a label that names an owner which is not there.
pub async fn find(kube: &Kubernetes, subjects: &[Subject]) -> Result<Vec<FluxObject>, Failure> {
    let mut owners: Vec<FluxObject> = Vec::new();
    let inventories = kube.flux_all(FluxKind::Kustomization).await?;
    for subject in subjects {
        let mut chain = kube.flux_owners(&subject.meta).await?;
        // Where the labels were taken off, the owner's list of what it applied still names the object.
        if chain.is_empty()
            && let Some(owner) = inventories.iter().find(|k| in_inventory(&k.raw, subject))
        {
            chain = with_parents(kube, owner.clone()).await?;
        }
        add(&mut owners, chain);
    }
    let mut sources: Vec<_> = owners.iter().filter_map(|o| o.source.clone()).collect();
    sources.dedup();
    let mut automations: Vec<FluxObject> = Vec::new();
    for source in &sources {
        for automation in kube.flux_automations(source).await? {
            // Whoever applies the automation could resume it.
            add(&mut owners, kube.flux_owners(&automation.meta).await?);
            add(&mut automations, vec![automation]);
        }
    }
    automations.extend(owners);
    Ok(automations)
}

/// Whoever else applies the subjects, with what that means for them: a problem where it would put back what is changed
/// by itself, else a note.
///
/// # Errors
/// What keeps the API from answering.
pub async fn others(kube: &Kubernetes, subjects: &[Subject]) -> Result<Vec<Result<String, Problem>>, Failure> {
    let mut by: BTreeMap<Applier, Vec<String>> = BTreeMap::new();
    for subject in subjects {
        for applier in kube.appliers(&subject.meta).await? {
            by.entry(applier).or_default().push(format!("{} {}", subject.kind, subject.meta.full_name()));
        }
    }
    Ok(by.into_iter().map(|(applier, what)| stand(&applier, &what.join(", "))).collect())
}

fn stand(applier: &Applier, what: &str) -> Result<String, Problem> {
    match applier {
        Applier::Argo { name, automated: Some(true) } => Err(Problem::new(
            format!("{applier} applies {what} and syncs by itself: it would put back what is changed"),
            format!(
                "`argocd app set {name} --sync-policy none`, in git where it comes from there; set it back afterwards"
            ),
        )),
        Applier::Argo { automated: Some(false), .. } => {
            Ok(format!("{applier} applies {what}, not by itself: the next sync brings what its source says"))
        }
        Applier::Argo { automated: None, .. } => Ok(format!(
            "{applier}, which this cluster does not have, applies {what}: see that it does not sync by itself meanwhile"
        )),
        Applier::Addon(name) => Ok(format!(
            "{applier} applies {what}, again at each start of a k3s server: an empty file {name}.yaml.skip beside its \
             manifest, on every server, keeps it from that"
        )),
        Applier::Helm(_) => Ok(format!("{applier} made {what}: the next upgrade brings what its chart and values say")),
    }
}

/// Whether a reconciliation runs. One that failed keeps `Reconciling` with this reason until its next try, and a
/// suspended object has none (kustomize-controller and helm-controller, when they finish with an error).
pub fn runs(object: &FluxObject) -> bool {
    let waits_to_retry = object.condition("Reconciling").is_some_and(|c| c.reason == "ProgressingWithRetry");
    object.is_busy() && !(object.is_suspended() && waits_to_retry)
}

async fn with_parents(kube: &Kubernetes, owner: FluxObject) -> Result<Vec<FluxObject>, Failure> {
    let mut chain = vec![owner.clone()];
    for parent in kube.flux_owners(&owner.meta).await? {
        if !chain.iter().any(|known| same(known, &parent)) {
            chain.push(parent);
        }
    }
    Ok(chain)
}

/// Adds a chain (nearest first) from its root on; every chain has all of its ancestors, so parents come first.
fn add(list: &mut Vec<FluxObject>, chain: Vec<FluxObject>) {
    for object in chain.into_iter().rev() {
        if !list.iter().any(|known| same(known, &object)) {
            list.push(object);
        }
    }
}

fn same(a: &FluxObject, b: &FluxObject) -> bool {
    a.kind == b.kind && a.meta.namespace == b.meta.namespace && a.meta.name == b.meta.name
}

/// Whether `status.inventory` names an object: `NAMESPACE_NAME_GROUP_KIND`.
fn in_inventory(owner: &Value, subject: &Subject) -> bool {
    let id = format!("{}_{}_{}_{}", subject.meta.namespace, subject.meta.name, subject.group, subject.kind);
    let entries = owner.pointer("/status/inventory/entries").and_then(Value::as_array);
    entries.into_iter().flatten().any(|entry| entry.get("id").and_then(Value::as_str) == Some(&id))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::k8s::Resource;
    use crate::k8s::meta::Condition;
    use serde_json::json;
    use std::borrow::Cow;

    /// A Kustomization as the client would read it.
    pub(crate) fn kustomization(name: &str, suspend: Option<bool>, annotations: &Value) -> FluxObject {
        let raw = json!({"metadata": {
            "namespace": "flux-system", "name": name, "uid": "u", "generation": 1, "annotations": annotations,
        }});
        FluxObject {
            kind: FluxKind::Kustomization,
            resource: Resource {
                group: Cow::Borrowed("kustomize.toolkit.fluxcd.io"),
                version: Cow::Borrowed("v1"),
                plural: Cow::Borrowed("kustomizations"),
                kind: Cow::Borrowed("Kustomization"),
                namespaced: true,
                replicas_in_spec: false,
            },
            meta: Meta::of(&raw),
            suspend,
            source: None,
            observed_generation: 1,
            conditions: vec![Condition { kind: "Ready".into(), status: "True".into(), ..Condition::default() }],
            last_applied: "main@sha1:a".into(),
            last_attempted: "main@sha1:a".into(),
            artifact: String::new(),
            last_handled: String::new(),
            raw,
        }
    }

    #[test]
    fn parents_come_before_children_whatever_the_chains() {
        let one = |name: &str| kustomization(name, None, &json!({}));
        let mut list = Vec::new();
        add(&mut list, vec![one("apps"), one("root")]);
        add(&mut list, vec![one("storage"), one("apps"), one("root")]);
        add(&mut list, vec![one("infra"), one("root")]);
        let names: Vec<_> = list.iter().map(|o| o.meta.name.as_str()).collect();
        assert_eq!(names, ["root", "apps", "storage", "infra"]);
    }

    #[test]
    fn an_inventory_names_what_it_applied() {
        let meta = Meta::of(&json!({"metadata": {"namespace": "frigate", "name": "frigate"}}));
        let subject = Subject { group: "apps".into(), kind: "Deployment".into(), meta };
        let owner = |id: &str| json!({"status": {"inventory": {"entries": [{"id": id, "v": "v1"}]}}});
        assert!(in_inventory(&owner("frigate_frigate_apps_Deployment"), &subject));
        assert!(!in_inventory(&owner("frigate_frigate__Service"), &subject));
        assert!(!in_inventory(&json!({}), &subject));
    }

    #[test]
    fn a_failed_try_does_not_run_once_it_is_suspended() {
        let mut object = kustomization("apps", Some(true), &json!({}));
        let reconciling = |reason: &str| Condition {
            kind: "Reconciling".into(),
            status: "True".into(),
            reason: reason.into(),
            ..Condition::default()
        };
        assert!(!runs(&object));
        object.conditions.push(reconciling("Progressing"));
        assert!(runs(&object));
        object.conditions.pop();
        object.conditions.push(reconciling("ProgressingWithRetry"));
        assert!(!runs(&object));
        object.suspend = None;
        assert!(runs(&object));
    }
}
