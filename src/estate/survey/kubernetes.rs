//! The layers of Kubernetes: kubelets, what runs on the nodes, and what is said of the whole cluster.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{OnceCell, Semaphore};

use super::super::Estate;
use super::{Why, layer};
use crate::base::fault::Fault;
use crate::base::redact;
use crate::base::survey::{
    Budget, Earlier, Kubelet, KubernetesCluster, Layer, NotReady, Stranger, Workload, Workloads,
};
use crate::k8s::{Kubernetes, Node, Pod, budget};

/// Questions for the pods of nodes in flight at a time.
const AT_ONCE: usize = 8;

/// A cluster whose list of nodes is asked for once, and first: where there is no answer nothing else is asked.
pub(super) struct Cluster {
    listed: OnceCell<Result<Listed, Why>>,
    turns: Semaphore,
    /// Why a question for the pods of a node has run into its deadline: those that wait for their turn give up then.
    tired: OnceCell<Why>,
}

impl Default for Cluster {
    fn default() -> Self {
        Self { listed: OnceCell::new(), turns: Semaphore::new(AT_ONCE), tired: OnceCell::new() }
    }
}

struct Listed {
    kubernetes: Arc<Kubernetes>,
    nodes: BTreeMap<String, Node>,
}

impl Cluster {
    async fn listed(&self, estate: &Estate, name: &str) -> Result<&Listed, Why> {
        let ask = async {
            let work = async {
                let kubernetes = estate.kubernetes(name).await.map_err(|failure| Why::of(&failure))?;
                let nodes = kubernetes.nodes().await?.into_iter().map(|node| (node.meta.name.clone(), node)).collect();
                Ok(Listed { kubernetes, nodes })
            };
            estate.bounded(&format!("Kubernetes cluster {name}"), work).await.and_then(|done| done)
        };
        self.listed.get_or_init(|| ask).await.as_ref().map_err(Clone::clone)
    }

    /// A kubelet, and what runs there.
    pub(super) async fn node(&self, estate: &Estate, cluster: &str, name: &str) -> (Layer<Kubelet>, Layer<Workloads>) {
        let listed = match self.listed(estate, cluster).await {
            Ok(listed) => listed,
            Err(why) => return (why.layer(), why.layer()),
        };
        let Some(node) = listed.nodes.get(name) else {
            return (Layer::Known(Kubelet::default()), Layer::Absent);
        };
        (Layer::Known(kubelet(node)), layer(self.pods(estate, &listed.kubernetes, node).await))
    }

    /// What runs on a node. All are asked for the same list: where one is not answered in time the ones behind it are not.
    async fn pods(&self, estate: &Estate, kubernetes: &Kubernetes, node: &Node) -> Result<Workloads, Why> {
        // Nobody closes it.
        let _turn = self.turns.acquire().await.ok();
        if let Some(Why { reason, help }) = self.tired.get() {
            return Err(Why {
                reason: format!("not asked, as the API was too slow for others: {reason}"),
                help: help.clone(),
            });
        }
        let name = &node.meta.name;
        let asked = estate.bounded(&format!("pods of node {name}"), kubernetes.pods_on(name)).await;
        // What may pass was asked again until there was no time left.
        let late = asked.as_ref().map_or(true, |asked| asked.as_ref().is_err_and(Fault::retryable));
        let told = asked.and_then(|asked| Ok(workloads(node, &asked?)));
        if let (true, Err(why)) = (late, &told) {
            // The first reason is as good as any.
            self.tired.set(why.clone()).ok();
        }
        told
    }

    /// What is said of the whole cluster. `known` are the names of its nodes that the site has.
    pub(super) async fn facts(&self, estate: &Estate, name: &str, known: Vec<&str>) -> KubernetesCluster {
        let name = name.to_owned();
        let of = estate.site.kubernetes.get(&name);
        let kubeconfig = of.map(|of| of.kubeconfig.display().to_string()).unwrap_or_default();
        let context = of.map(|of| of.context.clone()).unwrap_or_default();
        let listed = match self.listed(estate, &name).await {
            Ok(listed) => listed,
            Err(why) => {
                let (version, strangers) = (why.layer(), why.layer());
                return KubernetesCluster {
                    name,
                    kubeconfig,
                    context,
                    version,
                    strangers,
                    never_met: why.layer(),
                    unscheduled: why.layer(),
                };
            }
        };
        let kubernetes = &listed.kubernetes;
        let what = format!("Kubernetes cluster {name}");
        let (version, budgets, pods) = futures::join!(
            estate.bounded(&what, kubernetes.version()),
            estate.bounded(&what, kubernetes.budgets()),
            estate.bounded(&what, kubernetes.pods_on_no_node()),
        );
        let strangers = listed.nodes.values().filter(|node| !known.contains(&node.meta.name.as_str()));
        let strangers = strangers.map(stranger).collect();
        let never = |all: Vec<budget::Budget>| -> Vec<Budget> {
            let never = all.iter().filter(|budget| budget.expected > 0 && budget.can_never_allow());
            never.map(never_met).collect()
        };
        let waiting = |pods: Vec<Pod>| pods.iter().filter_map(not_ready).collect();
        KubernetesCluster {
            version: layer(version.and_then(|done| Ok(done?))),
            strangers: Layer::Known(strangers),
            never_met: layer(budgets.and_then(|done| Ok(done?)).map(never)),
            unscheduled: layer(pods.and_then(|done| Ok(done?)).map(waiting)),
            name,
            kubeconfig,
            context,
        }
    }
}

fn stranger(node: &Node) -> Stranger {
    let system_uuid = node.system_uuid.to_lowercase();
    Stranger { name: node.meta.name.clone(), ready: node.is_ready(), system_uuid }
}

fn kubelet(node: &Node) -> Kubelet {
    let ready = node.ready.as_ref();
    let why = ready.map_or_else(
        || "the kubelet has never told".to_owned(),
        |c| if c.message.is_empty() { c.reason.clone() } else { c.message.clone() },
    );
    let pressure = |c: &&crate::k8s::meta::Condition| c.kind.ends_with("Pressure") && c.status == "True";
    Kubelet {
        registered: true,
        ready: node.is_ready(),
        reason: if node.is_ready() { String::new() } else { redact::text(&why) },
        unheard_since: ready
            .filter(|c| c.status == "Unknown")
            .and_then(|c| c.last_transition_time.as_deref()?.parse().ok()),
        cordoned: node.unschedulable,
        cordon_mark: cordon_mark(node).filter(|_| node.unschedulable),
        uid: node.meta.uid.clone(),
        created: node.meta.created.parse().ok(),
        version: node.kubelet.clone(),
        os: node.os_image.clone(),
        system_uuid: node.system_uuid.to_lowercase(),
        boot_id: node.boot_id.clone(),
        control_plane: node.is_control_plane(),
        pressures: node.conditions.iter().filter(pressure).map(|c| c.kind.clone()).collect(),
        capacity: node.capacity.clone(),
        allocatable: node.allocatable.clone(),
    }
}

/// Talos says so of a cordon of its own (siderolabs/talos pkg/machinery/constants, AnnotationCordonedKey).
const CORDONED_BY_TALOS: &str = "talos.dev/cordoned";

/// Who put his name to a cordon.
fn cordon_mark(node: &Node) -> Option<String> {
    match node.meta.mark() {
        Ok(Some(mark)) => Some(format!("run {} on {}", mark.run, mark.host)),
        // A mark that cannot be read is somebody's all the same.
        Err(_) => Some("a run whose mark cannot be read".into()),
        Ok(None) if node.meta.annotations.contains_key(CORDONED_BY_TALOS) => Some("Talos".into()),
        Ok(None) => None,
    }
}

fn workloads(node: &Node, pods: &[Pod]) -> Workloads {
    let there: Vec<&Pod> = pods.iter().filter(|pod| !pod.is_finished()).collect();
    Workloads {
        pods: there.len(),
        not_ready: there.iter().filter_map(|pod| not_ready(pod)).collect(),
        earlier: there.iter().filter_map(|pod| earlier(node, pod)).collect(),
    }
}

/// By so much the clocks of a node and of the API server may differ.
const SKEW: SignedDuration = SignedDuration::from_mins(5);
/// The API's copy of a static pod, which the kubelet starts before there is a Node (kubernetes
/// `pkg/kubelet/pod/mirror_client.go`); it names the Node as its owner.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// A pod that cannot have come by the Node object that is there: it names another one as its owner, or was at work
/// before that one was made. Nothing is bound to a Node that is not there.
fn earlier(node: &Node, pod: &Pod) -> Option<Earlier> {
    let of_a_node = pod.meta.owners.iter().find(|owner| owner.kind == "Node");
    let owner = of_a_node.map(|owner| owner.uid.clone()).filter(|uid| *uid != node.meta.uid);
    let mirror = of_a_node.is_some() || pod.meta.annotations.contains_key(MIRROR);
    let began = || {
        let created: Timestamp = node.meta.created.parse().ok()?;
        let began: Timestamp = pod.started.parse().ok()?;
        (created.duration_since(began) > SKEW).then_some(began)
    };
    let began = if mirror { None } else { began() };
    (owner.is_some() || began.is_some()).then(|| Earlier { pod: pod.meta.full_name(), owner, began })
}

/// A pod that has not ended and is not ready.
fn not_ready(pod: &Pod) -> Option<NotReady> {
    if pod.is_finished() || pod.is_ready() {
        return None;
    }
    let owner = match pod.meta.controller() {
        Some(owner) => (owner.kind.clone(), owner.name.clone()),
        None => ("Pod".to_owned(), pod.meta.name.clone()),
    };
    let owner = Workload { namespace: pod.meta.namespace.clone(), kind: owner.0, name: owner.1 };
    let why = redact::text(&pod.trouble().join("; "));
    Some(NotReady { owner, pod: pod.meta.name.clone(), why })
}

fn never_met(budget: &budget::Budget) -> Budget {
    let whole = budget.to_string();
    // `budget NAMESPACE/NAME (FIGURES)`
    let figures = whole.split_once(" (").map_or(whole.as_str(), |(_, rest)| rest.trim_end_matches(')'));
    Budget { namespace: budget.meta.namespace.clone(), name: budget.meta.name.clone(), figures: figures.to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node() -> Node {
        let meta = json!({ "name": "n1", "uid": "new", "creationTimestamp": "2026-11-22T02:00:00Z" });
        Node::from_api(json!({ "metadata": meta })).unwrap()
    }

    fn pod(began: &str, owner: Value, annotations: Value) -> Pod {
        let owners: Vec<Value> = Some(owner).filter(|owner| !owner.is_null()).into_iter().collect();
        let meta = json!({ "namespace": "x", "name": "y", "ownerReferences": owners, "annotations": annotations });
        let status = if began.is_empty() { json!({}) } else { json!({ "startTime": began }) };
        Pod::from_api(json!({ "metadata": meta, "spec": { "containers": [] }, "status": status })).unwrap()
    }

    #[test]
    fn a_pod_from_before_the_node_object_is_told_but_not_one_that_the_kubelet_starts_by_itself() {
        let by = |uid: &str| json!({ "apiVersion": "v1", "kind": "Node", "name": "n1", "uid": uid });
        let set = json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "y", "uid": "z", "controller": true });
        let (none, mirror) = (json!({}), json!({ MIRROR: "0a" }));
        let (long, just, after) = ("2026-11-01T00:00:00Z", "2026-11-22T01:56:00Z", "2026-11-22T02:00:09Z");
        let cases = [
            (pod(long, set.clone(), none.clone()), None, Some(long)),
            (pod(long, Value::Null, none.clone()), None, Some(long)),
            (pod(long, by("old"), mirror.clone()), Some("old"), None),
            (pod(after, by("old"), none.clone()), Some("old"), None),
            // Clocks differ; the kubelet starts static pods before it has a Node; what has not begun tells nothing.
            (pod(just, set.clone(), none.clone()), None, None),
            (pod(after, set.clone(), none.clone()), None, None),
            (pod(long, by("new"), none.clone()), None, None),
            (pod(long, Value::Null, mirror), None, None),
            (pod("", set, none), None, None),
        ];
        assert_eq!(cases.len(), 9);
        for (n, (pod, owner, began)) in cases.into_iter().enumerate() {
            let found = earlier(&node(), &pod).map(|it| (it.pod, it.owner, it.began.map(|at| at.to_string())));
            let told = owner.is_some() || began.is_some();
            let wanted = told.then(|| ("x/y".to_owned(), owner.map(str::to_owned), began.map(str::to_owned)));
            assert_eq!(found, wanted, "{n}");
        }
    }
}
