//! What could put back what is changed: who of Flux applies the workload, its claims and its nodes, up to the root,
//! who commits to the same source, and who else applies them.

use std::collections::BTreeMap;

use futures::future::try_join_all;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::check::Problem;
use crate::base::fault::Failure;
use crate::k8s::appliers::Applier;
use crate::k8s::flux::{FluxKind, FluxObject, SourceRef};
use crate::k8s::meta::Meta;
use crate::k8s::{Claim, Kubernetes, Node, Workload};

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

    /// As [`OwnerWas::read`], for who has just read others: only what is not among them is asked for.
    ///
    /// # Errors
    /// As [`OwnerWas::read`].
    pub async fn among(&self, found: &[FluxObject], kube: &Kubernetes) -> Result<Option<FluxObject>, Failure> {
        match found.iter().find(|object| self.is(object)) {
            Some(object) => Ok(Some(object.clone())),
            None => self.read(kube).await,
        }
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

/// What a migration changes, and what of Flux could put it back.
#[derive(Debug)]
pub struct Survey {
    /// The workload; None where it is not there.
    pub workload: Option<Workload>,
    /// The workload, its claims and the nodes, as far as they are there.
    pub subjects: Vec<Subject>,
    /// As [`find`] says.
    pub owners: Vec<FluxObject>,
}

/// Reads it all side by side.
///
/// # Errors
/// As for [`subjects`] and [`find`].
pub async fn survey(kube: &Kubernetes, work: &Work, claims: &[String], nodes: &[String]) -> Result<Survey, Failure> {
    let (subjects, lists) = futures::join!(subjects(kube, work, claims, nodes), Lists::read(kube));
    let (workload, subjects) = subjects?;
    let owners = find(kube, &lists?, &subjects).await?;
    Ok(Survey { workload, subjects, owners })
}

/// The workload, and with it the claims and the nodes that a migration changes, as far as they are there.
///
/// # Errors
/// What keeps the API from answering.
pub async fn subjects(
    kube: &Kubernetes,
    work: &Work,
    claims: &[String],
    nodes: &[String],
) -> Result<(Option<Workload>, Vec<Subject>), Failure> {
    let (workload, all, nodes) = futures::join!(
        kube.workload(&work.kind, &work.namespace, &work.name),
        kube.claims(Some(&work.namespace)),
        try_join_all(nodes.iter().map(|name| kube.node(name))),
    );
    let (workload, all) = (workload?, all?);
    let nodes: Vec<Node> = nodes?.into_iter().flatten().collect();
    let subjects = subjects_of(workload.as_ref(), claims, &all, &nodes);
    Ok((workload, subjects))
}

/// The subjects among what was read.
pub fn subjects_of(workload: Option<&Workload>, claims: &[String], all: &[Claim], nodes: &[Node]) -> Vec<Subject> {
    let mut names = claims.to_vec();
    let mut subjects = Vec::new();
    if let Some(workload) = workload {
        names.extend(workload.claims(workload.replicas.max(1)));
        let (group, kind) = (workload.resource.group.to_string(), workload.resource.kind.to_string());
        subjects.push(Subject { group, kind, meta: workload.meta.clone() });
    }
    let of = |kind: &str, meta: &Meta| Subject { group: String::new(), kind: kind.into(), meta: meta.clone() };
    let named = all.iter().filter(|claim| names.contains(&claim.meta.name));
    subjects.extend(named.map(|claim| of("PersistentVolumeClaim", &claim.meta)));
    subjects.extend(nodes.iter().map(|node| of("Node", &node.meta)));
    subjects
}

/// What of Flux may own something, read once for everything that it may own.
#[derive(Debug)]
pub struct Lists {
    kustomizations: Vec<FluxObject>,
    /// None where they cannot be listed: that matters where something is owned.
    automations: Option<Vec<FluxObject>>,
}

impl Lists {
    /// Reads them.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn read(kube: &Kubernetes) -> Result<Self, Failure> {
        let (kustomizations, automations) =
            futures::join!(kube.flux_all(FluxKind::Kustomization), kube.flux_all(FluxKind::ImageUpdateAutomation));
        Ok(Self { kustomizations: kustomizations?, automations: automations.ok() })
    }

    async fn automations(&self, kube: &Kubernetes, source: &SourceRef) -> Result<Vec<FluxObject>, Failure> {
        let Some(all) = &self.automations else { return Ok(kube.flux_automations(source).await?) };
        Ok(all.iter().filter(|automation| automation.source.as_ref() == Some(source)).cloned().collect())
    }
}

/// Everything of Flux that could put the subjects back, in the order in which it is to be suspended: image
/// automations first (a commit of theirs starts a reconciliation), then from the root to the leaves. A parent that
/// runs applies its children's manifests, so a child that is suspended before its parent can be resumed by it.
///
/// # Errors
/// What keeps the API from answering; a label that names an owner which is not there.
pub async fn find(kube: &Kubernetes, lists: &Lists, subjects: &[Subject]) -> Result<Vec<FluxObject>, Failure> {
    let listed = lists.kustomizations.as_slice();
    let mut owners: Vec<FluxObject> = Vec::new();
    for subject in subjects {
        let mut chain = kube.flux_owners(&subject.meta, listed).await?;
        // Where the labels were taken off, the owner's list of what it applied still names the object.
        if chain.is_empty()
            && let Some(owner) = listed.iter().find(|k| in_inventory(&k.raw, subject))
        {
            chain = with_parents(kube, owner.clone(), listed).await?;
        }
        add(&mut owners, chain);
    }
    let mut sources: Vec<_> = owners.iter().filter_map(|o| o.source.clone()).collect();
    sources.dedup();
    let mut automations: Vec<FluxObject> = Vec::new();
    for source in &sources {
        for automation in lists.automations(kube, source).await? {
            // Whoever applies the automation could resume it.
            add(&mut owners, kube.flux_owners(&automation.meta, listed).await?);
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

async fn with_parents(kube: &Kubernetes, owner: FluxObject, listed: &[FluxObject]) -> Result<Vec<FluxObject>, Failure> {
    let mut chain = vec![owner.clone()];
    for parent in kube.flux_owners(&owner.meta, listed).await? {
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
