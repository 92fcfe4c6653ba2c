//! What is needed of the kubeconfig's user in Kubernetes.
//!
//! Rules narrow by name where a request names its object. A `create` and the requests for lists of a namespace do not
//! (kubernetes.io, "Using RBAC Authorization", "Referring to resources").

use std::borrow::Cow;

use crate::blueprint::rights::{KubeNeed, Weight};
use crate::k8s::access::Right;
use crate::k8s::flux::{FluxKind, FluxObject};
use crate::k8s::{Resource, kind_by_name};

use super::super::params::ClaimFate;
use super::super::{Preflight, on};

const KUSTOMIZE: &str = "kustomize.toolkit.fluxcd.io";
const IMAGE: &str = "image.toolkit.fluxcd.io";
const SOURCE: &str = "source.toolkit.fluxcd.io";
const HELM: &str = "helm.toolkit.fluxcd.io";

/// What was seen of the cluster. Nothing of it: what the site file tells.
#[derive(Default)]
pub(in super::super) struct Known<'k> {
    /// The workload's kind.
    pub(in super::super) work: Option<&'k Resource>,
    /// What of Flux is concerned.
    pub(in super::super) flux: Option<Flux<'k>>,
}

/// What of Flux is concerned.
pub(in super::super) struct Flux<'k> {
    /// The owners.
    pub(in super::super) owners: &'k [FluxObject],
    /// The source that the site names.
    pub(in super::super) source: Option<&'k FluxObject>,
    /// The kinds of which the cluster serves the lists that are read.
    pub(in super::super) served: &'k [FluxKind],
}

/// Which objects.
#[derive(Clone, Copy)]
enum At<'a> {
    /// All of the cluster, or of a kind without namespaces.
    Cluster,
    /// All of a namespace.
    Space(&'a str),
    /// These, of a namespace or (where it is empty) of a kind without.
    Named(&'a str, &'a [&'a str]),
}

#[derive(Default)]
struct List(Vec<KubeNeed>);

impl List {
    fn add(&mut self, steps: &[&'static str], verbs: &[&str], kind: (&str, &str), at: At<'_>, why: (&str, Weight)) {
        let one = |verb: &str, namespace: &str, name: &str| KubeNeed {
            steps: steps.to_vec(),
            right: Right::new(verb, kind.0, kind.1, namespace).named(name),
            purpose: why.0.to_owned(),
            weight: why.1.clone(),
        };
        match at {
            At::Cluster => self.0.extend(verbs.iter().map(|verb| one(verb, "", ""))),
            At::Space(namespace) => self.0.extend(verbs.iter().map(|verb| one(verb, namespace, ""))),
            At::Named(namespace, names) => {
                self.0.extend(
                    names
                        .iter()
                        .flat_map(|name| verbs.iter().map(move |v| (name, v)))
                        .map(|(n, v)| one(v, namespace, n)),
                );
            }
        }
    }

    fn need(&mut self, steps: &[&'static str], verbs: &[&str], kind: (&str, &str), at: At<'_>, why: &str) {
        self.add(steps, verbs, kind, at, (why, Weight::Needed));
    }
}

/// What is lost without a watch.
fn slower() -> Weight {
    Weight::Optional("a wait asks again and again instead of being told".to_owned())
}

/// Every right that a step needs. What a site file does not tell goes into the notes.
pub(in super::super) fn needs(p: &Preflight, known: &Known<'_>, notes: &mut Vec<String>) -> Vec<KubeNeed> {
    let mut list = List::default();
    volumes(p, &mut list);
    nodes(p, &mut list);
    workload(p, known.work, notes, &mut list);
    flux(p, known.flux.as_ref(), notes, &mut list);
    list.0
}

fn volumes(p: &Preflight, list: &mut List) {
    let space = At::Space(&p.work.namespace);
    let (volumes, claims) = (("", "persistentvolumes"), ("", "persistentvolumeclaims"));
    let steps = [on::RETAIN, on::PREFLIGHT, on::DRAIN, on::CLAIMS];
    list.need(&steps, &["get", "list"], volumes, At::Cluster, "where the volumes are");
    list.need(&[on::RETAIN], &["patch"], volumes, At::Cluster, "keeping the volumes that stay behind");
    let steps = [on::RETAIN, on::PREFLIGHT, on::SUSPEND, on::CLAIMS];
    list.need(&steps, &["get", "list"], claims, space, "the claims of the workload");
    let recreated: Vec<&str> =
        p.claims.iter().filter(|(_, fate)| **fate == ClaimFate::Recreate).map(|(name, _)| name.as_str()).collect();
    if recreated.is_empty() {
        return;
    }
    let named = At::Named(&p.work.namespace, &recreated);
    list.need(&[on::CLAIMS], &["create"], claims, space, "making claims anew, here and at an undo");
    list.need(&[on::CLAIMS], &["delete"], claims, named, "making claims anew, here and at an undo");
    list.need(&[on::CLAIMS], &["patch"], volumes, At::Cluster, "giving a claim its old volume back at an undo");
    list.need(&[on::CLAIMS], &["delete"], volumes, At::Cluster, "taking the new volumes away at an undo");
    let class = ("storage.k8s.io", "storageclasses");
    list.need(&[on::CLAIMS, on::PREFLIGHT], &["get"], class, At::Cluster, "who makes the new volumes");
    list.add(&[on::CLAIMS], &["watch"], claims, named, ("being told that a claim is gone", slower()));
    list.add(&[on::CLAIMS], &["watch"], volumes, At::Cluster, ("being told that a volume is gone", slower()));
}

fn nodes(p: &Preflight, list: &mut List) {
    let (node, source) = (p.node.name.as_str(), p.source_node.name.as_str());
    let kind = ("", "nodes");
    let steps = [on::RETAIN, on::PREFLIGHT, on::DRAIN, on::CLAIMS];
    list.need(&steps, &["list"], kind, At::Cluster, "which node can use a volume");
    let steps = [on::SUSPEND, on::UNLABEL, on::DRAIN, on::WAIT, on::UNCORDON, on::LABEL, on::DEPLOY];
    list.need(&steps, &["get"], kind, At::Named("", &[source, node]), "the state of the two nodes");
    if p.label.is_some() {
        list.need(&[on::UNLABEL], &["patch"], kind, At::Named("", &[source]), "the label of the node that loses it");
    }
    if p.drain {
        list.need(&[on::DRAIN, on::UNCORDON], &["patch"], kind, At::Named("", &[node]), "the cordon");
        list.need(&[on::DRAIN], &["create"], ("", "pods/eviction"), At::Cluster, "the drain");
    }
    list.add(&[on::WAIT], &["watch"], kind, At::Named("", &[node]), ("being told that the node is Ready", slower()));
    if p.label.is_some() {
        list.need(&[on::LABEL], &["patch"], kind, At::Named("", &[node]), "the label of the node that gets it");
    }
    let gone = ("being told that a pod is gone or Ready", slower());
    if p.drain {
        list.add(&[on::DRAIN, on::DEPLOY], &["watch"], ("", "pods"), At::Cluster, gone);
    } else {
        list.add(&[on::DEPLOY], &["watch"], ("", "pods"), At::Space(&p.work.namespace), gone);
    }
    let lost = "which pods end with the power cycle is not said beforehand";
    let weight = if p.drain { Weight::Needed } else { Weight::Optional(lost.to_owned()) };
    let steps = if p.drain { &[on::DRAIN, on::PREFLIGHT][..] } else { &[on::PREFLIGHT][..] };
    for kind in
        [("", "pods"), ("", "persistentvolumeclaims"), ("policy", "poddisruptionbudgets"), ("apps", "daemonsets")]
    {
        list.add(
            steps,
            &["list"],
            kind,
            At::Cluster,
            ("what runs on the node, and what a drain would do to it", weight.clone()),
        );
    }
}

fn workload(p: &Preflight, known: Option<&Resource>, notes: &mut Vec<String>, list: &mut List) {
    let (space, name) = (p.work.namespace.as_str(), [p.work.name.as_str()]);
    let kind = known.cloned().unwrap_or_else(|| kind(&p.work.kind, notes));
    let of = (kind.group.as_ref(), kind.plural.as_ref());
    let steps = [on::SCALE, on::PREFLIGHT, on::RETAIN, on::SUSPEND, on::CLAIMS, on::DEPLOY];
    list.need(&steps, &["get"], of, At::Named(space, &name), "the workload");
    list.need(
        &[on::SCALE, on::DEPLOY],
        &["patch"],
        of,
        At::Named(space, &name),
        "the workload's replicas, and the hold's mark",
    );
    if !kind.replicas_in_spec {
        let scale = format!("{}/scale", kind.plural);
        list.need(
            &[on::SCALE, on::DEPLOY],
            &["get", "patch"],
            (of.0, &scale),
            At::Named(space, &name),
            "the workload's replicas",
        );
    }
    let steps = [on::SCALE, on::PREFLIGHT, on::SUSPEND, on::CLAIMS, on::DEPLOY];
    list.need(&steps, &["list"], ("", "pods"), At::Space(space), "the workload's pods, and those that hold its claims");
    let scales = "whether something would scale the workload up again";
    let scalers = ("autoscaling", "horizontalpodautoscalers");
    list.need(&[on::SCALE, on::PREFLIGHT], &["list"], scalers, At::Space(space), scales);
    let steps = [on::DEPLOY, on::SUSPEND, on::CLAIMS];
    list.need(&steps, &["list"], ("", "events"), At::Space(space), "why a pod or a claim is not well");
    let steps = [on::DEPLOY, on::PREFLIGHT];
    list.need(&steps, &["get"], ("", "configmaps"), At::Space(space), "whether there is what the pods name");
    let lost = "a secret that the pods name and that is missing is not found beforehand".to_owned();
    list.add(
        &steps,
        &["get"],
        ("", "secrets"),
        At::Space(space),
        ("whether there is what the pods name", Weight::Optional(lost)),
    );
    let runtime = ("node.k8s.io", "runtimeclasses");
    if let Some(class) = &p.needs.runtime_class {
        list.need(&steps, &["get"], runtime, At::Named("", &[class]), "the runtime that the workload needs");
    }
    if p.verify.is_some() {
        // The streams of an exec come by GET, and from 1.35 on the server asks for create as well.
        list.need(&[on::DEPLOY], &["get", "create"], ("", "pods/exec"), At::Space(space), "the proof in the pod");
    }
    if known.is_some() {
        return;
    }
    edited(p, notes, list);
    let keda = Weight::If("KEDA is in the cluster".to_owned());
    list.add(&[on::SCALE, on::PREFLIGHT], &["list"], ("keda.sh", "scaledobjects"), At::Space(space), (scales, keda));
    let names = Weight::If("the workload's pods name a runtime class".to_owned());
    list.add(&steps, &["get"], runtime, At::Cluster, ("whether the node has that runtime", names));
    let argo = Weight::If("Argo CD is in the cluster, and the objects bear its label".to_owned());
    let apps = ("argoproj.io", "applications");
    list.add(
        &[on::SUSPEND, on::PREFLIGHT],
        &["list"],
        apps,
        At::Cluster,
        ("whether Argo CD would put back what is changed", argo),
    );
}

/// The objects of the declared values. Which API each is of, only its file tells: of the known kinds it is known.
fn edited(p: &Preflight, notes: &mut Vec<String>, list: &mut List) {
    for object in p.edits.iter().map(|edit| &edit.object) {
        let own = object.kind == p.work.kind.split('.').next().unwrap_or_default();
        let known = if own { Some(kind(&p.work.kind, &mut Vec::new())) } else { kind_by_name(&object.kind) };
        let Some(kind) = known else {
            notes.push(format!(
                "`get` of {object}, too: under which API it is served, only its file tells (`kubectl api-resources` has \
                 the plural)."
            ));
            continue;
        };
        let space = object.namespace.as_deref().unwrap_or(&p.work.namespace);
        let at = At::Named(if kind.namespaced { space } else { "" }, &[&object.name]);
        list.need(&[on::DEPLOY], &["get"], (&kind.group, &kind.plural), at, "whether what was pushed has arrived");
    }
}

/// The workload's kind. Of one that only the cluster knows the plural is the usual one.
fn kind(kind: &str, notes: &mut Vec<String>) -> Resource {
    let (name, group) = kind.split_once('.').unwrap_or((kind, ""));
    if let (Some(resource), "") = (kind_by_name(name), group) {
        return resource;
    }
    let lower = name.to_lowercase();
    // As apimachinery guesses it (`pkg/api/meta`, `UnsafeGuessKindToResource`).
    let plural = match (lower.strip_suffix('y'), lower.ends_with('s')) {
        (Some(stem), _) => format!("{stem}ies"),
        (None, true) => format!("{lower}es"),
        (None, false) => format!("{lower}s"),
    };
    notes.push(format!("That {kind} is served as {plural} is a guess: `kubectl api-resources` tells."));
    Resource {
        group: Cow::Owned(group.to_owned()),
        version: Cow::Borrowed("v1"),
        plural: Cow::Owned(plural),
        kind: Cow::Owned(name.to_owned()),
        namespaced: true,
        replicas_in_spec: false,
    }
}

fn flux(p: &Preflight, known: Option<&Flux<'_>>, notes: &mut Vec<String>, list: &mut List) {
    let finding = "what of Flux would put back what is changed";
    let (owners, images) = ((KUSTOMIZE, "kustomizations"), (IMAGE, "imageupdateautomations"));
    let (finders, keepers) = ([on::SUSPEND, on::PREFLIGHT, on::CLAIMS, on::DEPLOY], [on::SUSPEND, on::DEPLOY]);
    let lists = [(FluxKind::Kustomization, owners), (FluxKind::ImageUpdateAutomation, images)];
    let served = |kind: &FluxKind| known.is_none_or(|flux| flux.served.contains(kind));
    let holding = "holding Flux's owners, and letting them go";
    let asking = "asking the source to fetch what was pushed";
    match (&p.gitops, known) {
        (None, None) => {
            let flux = Weight::If("Flux is in the cluster".to_owned());
            list.add(&finders, &["list"], owners, At::Cluster, (finding, flux));
        }
        (None, Some(_)) => {}
        (Some(_), _) => {
            for (_, kind) in lists.iter().filter(|(kind, _)| served(kind)) {
                list.need(&finders, &["list"], *kind, At::Cluster, finding);
            }
        }
    }
    match (&p.gitops, known) {
        (_, Some(flux)) => {
            for owner in flux.owners {
                let at = At::Named(&owner.meta.namespace, &[&owner.meta.name]);
                list.need(&keepers, &["get", "patch"], (&owner.resource.group, &owner.resource.plural), at, holding);
            }
            if let Some(source) = flux.source {
                let at = At::Named(&source.meta.namespace, &[&source.meta.name]);
                let kind = (source.resource.group.as_ref(), source.resource.plural.as_ref());
                list.need(&[on::DEPLOY, on::SUSPEND], &["get", "patch"], kind, at, asking);
            }
        }
        (Some(gitops), None) => {
            let at = At::Named(&gitops.namespace, &[&gitops.name]);
            list.need(&[on::DEPLOY, on::SUSPEND], &["get", "patch"], (SOURCE, "gitrepositories"), at, asking);
            for kind in [owners, images] {
                list.need(&keepers, &["get", "patch"], kind, At::Space(&gitops.namespace), holding);
            }
            let helm = Weight::If(format!("a HelmRelease applies {}", p.work));
            for space in [p.work.namespace.as_str(), gitops.namespace.as_str()] {
                let kind = (HELM, "helmreleases");
                list.add(&keepers, &["get", "patch"], kind, At::Space(space), (holding, helm.clone()));
            }
            notes.push(format!(
                "Flux's objects are taken to be in {}; where one is in another namespace, or applies what another \
                 source has, 00-preflight names the right.",
                gitops.namespace
            ));
        }
        (None, None) => {}
    }
}
