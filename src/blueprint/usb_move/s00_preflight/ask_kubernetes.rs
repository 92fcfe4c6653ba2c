//! What Kubernetes is asked, once: lists rather than single objects, however many there are.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;

use crate::base::check::Problem;
use crate::base::fault::Failure;
use crate::base::wait::{Elapsed, limit, within};
use crate::blueprint::rights::KubeNeed;
use crate::checkout::Object;
use crate::estate::Estate;
use crate::k8s::access::Right;
use crate::k8s::drain::Surroundings;
use crate::k8s::flux::{FluxKind, FluxObject};
use crate::k8s::needs::Needs;
use crate::k8s::node::RuntimeClass;
use crate::k8s::volume::{DataAt, Source, StorageClass};
use crate::k8s::workload::Scaler;
use crate::k8s::{Claim, Kubernetes, Node, Pod, Volume, Workload};

use super::super::owners::{self, Lists, Subject};
use super::super::release;
use super::finding::{Asked, Unknown, asked};
use super::{Preflight, kube_rights};

/// What Kubernetes says.
pub(super) struct KubeFacts {
    /// The server's version.
    pub(super) version: String,
    /// All nodes.
    pub(super) nodes: Asked<Vec<Node>>,
    /// All volumes.
    pub(super) volumes: Asked<Vec<Volume>>,
    /// The claims of the workload's namespace.
    pub(super) claims: Asked<Vec<Claim>>,
    /// The pods of the workload's namespace.
    pub(super) pods: Asked<Vec<Pod>>,
    /// The workload; None: there is none.
    pub(super) work: Asked<Option<WorkFacts>>,
    /// The pods of the target node and what is round it.
    pub(super) drain: Asked<(Vec<Pod>, Surroundings)>,
    /// What of Flux is concerned.
    pub(super) flux: Asked<FluxFacts>,
    /// Who else applies what is changed, a note or a problem each.
    pub(super) others: Asked<Vec<Result<String, Problem>>>,
    /// Whether these credentials may do everything.
    pub(super) all: bool,
    /// The rights that are needed.
    pub(super) needs: Vec<KubeNeed>,
    /// Those of them that these credentials lack.
    pub(super) lacking: Asked<Vec<Right>>,
    /// The objects of the declared values, each with the right to read it where these credentials lack that.
    pub(super) edited: Vec<(String, Asked<Option<Right>>)>,
    /// The runtime classes that are named.
    pub(super) runtimes: BTreeMap<String, Asked<Option<RuntimeClass>>>,
    /// The storage classes of the claims.
    pub(super) classes: BTreeMap<String, Asked<Option<StorageClass>>>,
    /// How many bytes are on a volume, by its name, or why nobody can tell.
    pub(super) bytes: BTreeMap<String, Asked<u64>>,
}

/// The workload.
pub(super) struct WorkFacts {
    /// As it is.
    pub(super) now: Workload,
    /// As it will be with the declared values.
    pub(super) after: Workload,
    /// A pod of it then; None for a kind without template.
    pub(super) pod: Option<Pod>,
    /// The pods that its selector chooses.
    pub(super) own: Asked<Vec<Pod>>,
    /// What scales it.
    pub(super) scalers: Asked<Vec<Scaler>>,
    /// The secrets that it will need and the namespace lacks.
    pub(super) secrets: Asked<Vec<String>>,
    /// The config maps that it will need and the namespace lacks.
    pub(super) config_maps: Asked<Vec<String>>,
}

/// What of Flux is concerned.
#[derive(Default)]
pub(super) struct FluxFacts {
    /// Everything that could put back what is changed, in the order in which it is suspended.
    pub(super) owners: Vec<FluxObject>,
    /// The owners of the workload itself, the nearest first, by title.
    pub(super) applies: Vec<String>,
    /// The source that the site names.
    pub(super) source: Option<FluxObject>,
}

impl KubeFacts {
    /// Whether these credentials lack a right on the objects of a kind in a namespace.
    pub(super) fn lacks(&self, verb: &str, resource: &str, namespace: &str) -> bool {
        let right = Right::new(verb, "", resource, namespace);
        self.lacking.as_ref().is_ok_and(|lacking| lacking.contains(&right))
    }

    /// The workload, where it is known and there.
    pub(super) fn workload(&self) -> Option<&WorkFacts> {
        self.work.as_ref().ok()?.as_ref()
    }

    /// The target node, where it is known and there.
    pub(super) fn target(&self, p: &Preflight) -> Option<&Node> {
        self.nodes.as_ref().ok()?.iter().find(|n| n.meta.name == p.node.name)
    }

    /// The names of the workload's claims and of those that the site declares.
    pub(super) fn claim_names(&self, p: &Preflight) -> BTreeSet<String> {
        let own = self.workload().map(|w| w.after.claims(w.after.replicas.max(1))).unwrap_or_default();
        own.into_iter().chain(p.claims.keys().cloned()).collect()
    }

    /// A claim of the namespace, with its volume.
    pub(super) fn claim(&self, name: &str) -> Option<(&Claim, Option<&Volume>)> {
        let claim = self.claims.as_ref().ok()?.iter().find(|c| c.meta.name == name)?;
        let volume = claim.volume.as_ref();
        let volume = volume.and_then(|v| self.volumes.as_ref().ok()?.iter().find(|known| known.meta.name == *v));
        Some((claim, volume))
    }
}

/// Asks everything of Kubernetes.
///
/// # Errors
/// It does not answer at all, or not to these credentials.
pub(super) async fn ask(p: &Preflight, cx: &Estate) -> Result<KubeFacts, Failure> {
    let kube = &*cx.kubernetes(&p.work.cluster).await?;
    let namespace = p.work.namespace.as_str();
    // A list that names what is in another one is read before that: else a claim could be bound to a volume that was not
    // there yet.
    let pods_claims_volumes = async {
        let (here, claims) = futures::join!(kube.pods_on(&p.node.name), kube.claims(Some(namespace)));
        let round = kube.round().await;
        (claims, here.and_then(|here| Ok((here, round?))), kube.volumes().await)
    };
    let lists = async {
        let all = futures::join!(
            kube.nodes(),
            pods_claims_volumes,
            kube.pods_in(namespace),
            work(p, kube),
            Lists::read(kube),
            source(p, kube),
            kube.may_do_all(),
        );
        Ok(all)
    };
    // Without a version there is nobody to wait for.
    let (version, (nodes, (claims, round, volumes), pods, work, lists, source, all)) =
        futures::try_join!(kube.version(), lists)?;
    let (nodes, volumes) = (asked(nodes), asked(volumes));
    let drain = match (&nodes, &volumes, round) {
        (Ok(nodes), Ok(volumes), Ok((pods, round))) => {
            Ok((pods, Surroundings { nodes: nodes.clone(), volumes: volumes.clone(), ..round }))
        }
        (_, _, Err(error)) => asked(Err(error)),
        (_, Err(why), _) | (Err(why), _, _) => Err(why.clone()),
    };
    let mut facts = KubeFacts {
        version,
        nodes,
        volumes,
        claims: asked(claims),
        pods: asked(pods),
        work: asked(work),
        drain,
        flux: Ok(FluxFacts::default()),
        others: Ok(Vec::new()),
        all,
        needs: Vec::new(),
        lacking: Ok(Vec::new()),
        edited: Vec::new(),
        runtimes: BTreeMap::new(),
        classes: BTreeMap::new(),
        bytes: BTreeMap::new(),
    };
    (facts.flux, facts.others) = match asked(owned(p, kube, &facts, lists, source).await) {
        Ok((flux, others)) => (Ok(flux), Ok(others)),
        Err(why) => (Err(why.clone()), Err(why)),
    };
    facts.needs = kube_rights::needed(p, &facts, &served(p, kube).await);
    let rights: BTreeSet<Right> = facts.needs.iter().map(|need| need.right.clone()).collect();
    let rights: Vec<Right> = if facts.all { Vec::new() } else { rights.into_iter().collect() };
    let names = facts.claim_names(p);
    let (lacking, runtimes, classes, bytes) = futures::join!(
        kube.missing_rights(&rights),
        runtimes(p, kube, &facts),
        classes(kube, &facts, &names),
        sizes(cx, &facts, &names),
    );
    facts.lacking = asked(lacking);
    (facts.runtimes, facts.classes, facts.bytes) = (runtimes, classes, bytes);
    Ok(facts)
}

/// Which kinds of Flux's lists the cluster serves; where that cannot be asked, something else says so.
async fn served(p: &Preflight, kube: &Kubernetes) -> Vec<FluxKind> {
    let mut served = Vec::new();
    if p.gitops.is_some() {
        for kind in [FluxKind::Kustomization, FluxKind::ImageUpdateAutomation] {
            let (group, name) = kind.api();
            if let Ok(Some(_)) = kube.resource(group, name).await {
                served.push(kind);
            }
        }
    }
    served
}

async fn work(p: &Preflight, kube: &Kubernetes) -> Result<Option<WorkFacts>, Failure> {
    let Some(now) = kube.workload(&p.work.kind, &p.work.namespace, &p.work.name).await? else { return Ok(None) };
    let mut raw = now.raw.clone();
    for edit in p.edits.iter().filter(|e| e.is_of(&now.resource.kind, &p.work.namespace, &p.work.name)) {
        raw = edit.made_in(&raw);
    }
    let odd = |error: serde_json::Error| {
        let text = format!("{} with the declared values is no {}: {error}", p.work, p.work.kind);
        Failure::plain(text, Some("correct `manifests` of the migration in the site file".into()))
    };
    let after = now.with_manifest(raw).map_err(odd)?;
    let pod = after.pod().map_err(odd)?;
    let named = after.needs.clone().unwrap_or_default();
    // Side by side: who may read no secrets may read config maps.
    let secrets = Needs { secrets: named.secrets, ..Needs::default() };
    let maps = Needs { config_maps: named.config_maps, ..Needs::default() };
    let (own, scalers, secrets, maps) = futures::join!(
        kube.workload_pods(&now),
        kube.scalers(&now),
        kube.missing_names(&p.work.namespace, &secrets),
        kube.missing_names(&p.work.namespace, &maps),
    );
    let (secrets, config_maps) = (asked(secrets), asked(maps));
    Ok(Some(WorkFacts { own: asked(own), scalers: asked(scalers), secrets, config_maps, now, after, pod }))
}

type Owned = (FluxFacts, Vec<Result<String, Problem>>);

async fn owned(
    p: &Preflight,
    kube: &Kubernetes,
    facts: &KubeFacts,
    lists: Result<Lists, Failure>,
    source: Result<Option<FluxObject>, Failure>,
) -> Result<Owned, Failure> {
    let claims: Vec<String> = p.claims.keys().cloned().collect();
    let names = [p.source_node.name.clone(), p.node.name.clone()];
    let subjects = match (&facts.work, &facts.claims, &facts.nodes) {
        (Ok(work), Ok(all), Ok(nodes)) => {
            let nodes: Vec<Node> = nodes.iter().filter(|node| names.contains(&node.meta.name)).cloned().collect();
            owners::subjects_of(work.as_ref().map(|work| &work.now), &claims, all, &nodes)
        }
        // What was asked for among other things may be had by itself.
        _ => owners::subjects(kube, &p.work, &claims, &names).await?.1,
    };
    let lists = lists?;
    let (owners, others) = futures::try_join!(owners::find(kube, &lists, &subjects), owners::others(kube, &subjects))?;
    let workload: Vec<Subject> =
        subjects.into_iter().filter(|s| s.kind != "Node" && s.meta.name == p.work.name).collect();
    let applies = owners::find(kube, &lists, &workload).await?;
    let applies = applies.iter().filter(|o| o.kind != FluxKind::ImageUpdateAutomation);
    let applies = applies.map(FluxObject::title).collect();
    Ok((FluxFacts { owners, applies, source: source? }, others))
}

async fn source(p: &Preflight, kube: &Kubernetes) -> Result<Option<FluxObject>, Failure> {
    match &p.gitops {
        Some(gitops) => release::source(kube, gitops).await,
        None => Ok(None),
    }
}

async fn runtimes(
    p: &Preflight,
    kube: &Kubernetes,
    facts: &KubeFacts,
) -> BTreeMap<String, Asked<Option<RuntimeClass>>> {
    let template = facts.workload().and_then(|w| w.after.needs.as_ref()?.runtime_class.clone());
    let names: BTreeSet<String> = p.needs.runtime_class.iter().cloned().chain(template).collect();
    let one = |name: String| async move {
        let class = asked(kube.runtime_class(&name).await);
        (name, class)
    };
    join_all(names.into_iter().map(one)).await.into_iter().collect()
}

async fn classes(
    kube: &Kubernetes,
    facts: &KubeFacts,
    names: &BTreeSet<String>,
) -> BTreeMap<String, Asked<Option<StorageClass>>> {
    let names: BTreeSet<String> = names.iter().filter_map(|name| facts.claim(name)?.0.class.clone()).collect();
    let one = |name: String| async move {
        let class = asked(kube.storage_class(&name).await);
        (name, class)
    };
    join_all(names.into_iter().map(one)).await.into_iter().collect()
}

/// Which of the edited objects these credentials may not read: 10 looks at each of them. `apis` has the API of each;
/// `all`: they may do everything.
pub(super) async fn edited(
    p: &Preflight,
    cx: &Estate,
    (all, apis): (bool, &[(String, Object)]),
) -> Vec<(String, Asked<Option<Right>>)> {
    let one = |(api, object): &(String, Object)| {
        let (api, object) = (api.clone(), object.clone());
        async move {
            let right = async {
                let kube = cx.kubernetes(&p.work.cluster).await?;
                let group = api.split_once('/').map_or("", |(group, _)| group);
                let kind = kube.served(group, &object.kind).await?;
                let namespace = object.namespace.as_ref().unwrap_or(&p.work.namespace);
                let namespace = if kind.namespaced { namespace.as_str() } else { "" };
                let right = Right::new("get", &kind.group, &kind.plural, namespace).named(&object.name);
                Ok::<_, Failure>(if all || kube.may(&right).await? { None } else { Some(right) })
            };
            (object.to_string(), asked(right.await))
        }
    };
    join_all(apis.iter().map(one)).await
}

/// How many bytes are on the volumes, asked side by side of the guests that have them, each with a short deadline.
async fn sizes(cx: &Estate, facts: &KubeFacts, names: &BTreeSet<String>) -> BTreeMap<String, Asked<u64>> {
    let nodes = facts.nodes.as_deref().unwrap_or_default();
    let volumes = names.iter().filter_map(|name| facts.claim(name)).filter_map(|(claim, v)| Some((claim, v?)));
    let measure = volumes.map(|(claim, volume)| async move {
        let size = match directory(cx, claim, volume, nodes) {
            Ok((site, path)) => {
                let look = async move {
                    let guest = cx.guest(site).await?;
                    Ok::<u64, Failure>(guest.disk_use(path).await?.value)
                };
                let late = |elapsed: Elapsed| Err(Unknown { text: elapsed.to_string(), help: None });
                within(limit::MEASURE, look).await.map_or_else(late, asked)
            }
            Err(text) => Err(Unknown { text, help: None }),
        };
        (volume.meta.name.clone(), size)
    });
    join_all(measure).await.into_iter().collect()
}

/// The node of the site, and the directory in its guest, that hold a volume's bytes; else why nobody can be asked.
fn directory<'a>(
    cx: &'a Estate,
    claim: &Claim,
    volume: &'a Volume,
    nodes: &[Node],
) -> Result<(&'a str, &'a str), String> {
    let (Source::HostPath(path) | Source::Local(path)) = &volume.source else {
        return Err("it is no directory of a node".to_owned());
    };
    let at = match volume.placement_for(Some(claim), nodes).data {
        DataAt::Nodes(at) => at,
        DataAt::Shared => return Err("it is on no node's own disks".to_owned()),
        DataAt::Unknown => return Err("nothing tells which node has it".to_owned()),
    };
    let [node] = at.as_slice() else { return Err(format!("it may be on any of {}", at.join(", "))) };
    let site = cx.site().nodes.iter().find(|(_, known)| known.node_name == *node);
    let (site, _) = site.ok_or_else(|| format!("node {node} is not in the site file"))?;
    Ok((site, path))
}
