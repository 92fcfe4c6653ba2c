//! What a drain would do to each pod of a node, and why; the eviction itself.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::api::{Kubernetes, Verb, parse};
use super::budget::{Budget, Ruling};
use super::claim::Claim;
use super::error::KubeError;
use super::meta::Meta;
use super::node::Node;
use super::pod::Pod;
use super::resource::{DAEMON_SET, POD};
use super::volume::Volume;
use crate::base::permit::Permit;

/// What the operator lets go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lets {
    /// Data in `emptyDir` volumes.
    pub empty_dir_data: bool,
    /// Pods that nobody makes anew.
    pub bare_pods: bool,
}

/// What is round a node: read once, judged without further questions.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// All nodes, the drained one too.
    pub nodes: Vec<Node>,
    /// All budgets.
    pub budgets: Vec<Budget>,
    /// All claims.
    pub claims: Vec<Claim>,
    /// All volumes.
    pub volumes: Vec<Volume>,
    /// The DaemonSets that exist, `NAMESPACE/NAME`.
    pub daemon_sets: BTreeSet<String>,
}

/// What would become of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodPlan {
    /// The pod.
    pub pod: PodName,
    /// In one word.
    pub fate: Fate,
    /// Why, and what else there is to know; never empty for a pod that does not go or does not come back.
    pub reasons: Vec<Reason>,
}

/// A pod by identity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodName {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The uid: a pod of the same name with another one is another pod.
    pub uid: String,
}

impl PodName {
    /// The identity of a pod.
    pub fn of(pod: &Pod) -> Self {
        Self { namespace: pod.meta.namespace.clone(), name: pod.meta.name.clone(), uid: pod.meta.uid.clone() }
    }
}

impl std::fmt::Display for PodName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What would become of a pod, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It will not go as things are.
    Refuses,
    /// It will not go now; a budget may let it later.
    Waits,
    /// It goes, and its successor stays Pending.
    GoesForGood,
    /// It goes and comes back elsewhere, or has nothing to come back for.
    Goes,
    /// It belongs to the node and stays there.
    Stays,
}

/// A fact about a pod and a drain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// A DaemonSet would put it back at once.
    #[error("belongs to DaemonSet {0}, which would put it back at once")]
    DaemonSet(String),
    /// Its DaemonSet is gone, so nothing would put it back.
    #[error("its DaemonSet {0} does not exist any more: nothing makes it anew")]
    DaemonSetGone(String),
    /// The kubelet runs it from a file.
    #[error("static pod: the kubelet runs it from a file")]
    Static,
    /// Data goes with it.
    #[error("data in emptyDir {} is lost", .0.join(", "))]
    EmptyDir(Vec<String>),
    /// Nobody makes it anew.
    #[error("bare pod: nothing makes it anew")]
    Bare,
    /// A budget says not now.
    #[error("{0}")]
    BudgetBlocks(String),
    /// A budget can never allow it.
    #[error("{0}: can never allow it; scale to 0, or change the budget")]
    BudgetNever(String),
    /// Two budgets count it; the API then refuses for good.
    #[error("counted by more than one budget ({}): the API never evicts such a pod", .0.join(", "))]
    BudgetsOverlap(Vec<String>),
    /// Its volume holds it here.
    #[error("claim {claim} is bound to volume {volume} (affinity: {affinity}), which no other fitting node may use")]
    VolumeHere {
        /// The claim.
        claim: String,
        /// The volume.
        volume: String,
        /// The volume's affinity in words.
        affinity: String,
    },
    /// Its volume does not hold it, and its data is only here.
    #[error(
        "claim {claim}: volume {volume} has its data on this node alone and nothing keeps the pod from starting elsewhere with an empty directory"
    )]
    StartsEmpty {
        /// The claim.
        claim: String,
        /// The volume.
        volume: String,
    },
    /// Where its data is cannot be told.
    #[error(
        "claim {claim}: {what} is not in the cluster's list, so nobody knows whether its data would be found elsewhere"
    )]
    Unseen {
        /// The claim.
        claim: String,
        /// What is not in its list: the claim itself, or the volume that it is bound to.
        what: String,
    },
    /// No other node would take it.
    #[error("no other node takes it: {0}")]
    NoOtherNode(String),
    /// It is finished.
    #[error("finished ({0})")]
    Finished(String),
    /// It is going already.
    #[error("already being deleted{}", if .0.is_empty() { String::new() } else { format!(", held by finalizers {}", .0.join(", ")) })]
    Going(Vec<String>),
}

/// What a drain of `node` would do to each of `pods`.
pub fn plan(node: &str, pods: &[Pod], round: &Surroundings, lets: Lets) -> Vec<PodPlan> {
    pods.iter().map(|pod| judge(node, pod, round, lets)).collect()
}

fn judge(node: &str, pod: &Pod, round: &Surroundings, lets: Lets) -> PodPlan {
    let mut reasons = Vec::new();
    let mut fate = Fate::Goes;
    let mut add = |reason, worst: Fate| {
        reasons.push(reason);
        fate = fate.min(worst);
    };
    let stays = |reason| PodPlan { pod: PodName::of(pod), fate: Fate::Stays, reasons: vec![reason] };
    let controller = pod.meta.controller();
    if pod.is_mirror() {
        return stays(Reason::Static);
    }
    if pod.is_finished() {
        add(Reason::Finished(pod.phase.clone()), Fate::Goes);
        return PodPlan { pod: PodName::of(pod), fate, reasons };
    }
    let daemon_set = pod.daemon_set();
    if let Some(owner) = daemon_set {
        let name = format!("{}/{}", pod.meta.namespace, owner.name);
        if round.daemon_sets.contains(&name) {
            return stays(Reason::DaemonSet(name));
        }
        add(Reason::DaemonSetGone(name), if lets.bare_pods { Fate::GoesForGood } else { Fate::Refuses });
    }
    if pod.meta.deleting.is_some() {
        add(Reason::Going(pod.meta.finalizers.clone()), Fate::Goes);
        return PodPlan { pod: PodName::of(pod), fate, reasons };
    }
    if !pod.empty_dirs.is_empty() {
        let worst = if lets.empty_dir_data { Fate::Goes } else { Fate::Refuses };
        add(Reason::EmptyDir(pod.empty_dirs.clone()), worst);
    }
    if controller.is_none() {
        add(Reason::Bare, if lets.bare_pods { Fate::GoesForGood } else { Fate::Refuses });
    }
    let budgets: Vec<&Budget> = round.budgets.iter().filter(|b| b.counts(pod)).collect();
    match budgets.as_slice() {
        [] => {}
        // A pod that is Pending or going is deleted without any look at budgets.
        _ if pod.phase == "Pending" => {}
        [only] => match only.rules(pod) {
            Ruling::Allows => {}
            Ruling::NotNow(text) => add(Reason::BudgetBlocks(text), Fate::Waits),
            Ruling::Never(text) => add(Reason::BudgetNever(text), Fate::Refuses),
        },
        several => {
            let names = several.iter().map(|b| b.meta.full_name()).collect();
            add(Reason::BudgetsOverlap(names), Fate::Refuses);
        }
    }
    if controller.is_some() && daemon_set.is_none() {
        for reason in no_way_back(node, pod, round) {
            let unsafe_to_go = matches!(reason, Reason::StartsEmpty { .. } | Reason::Unseen { .. });
            let worst = if unsafe_to_go { Fate::Refuses } else { Fate::GoesForGood };
            add(reason, worst);
        }
    }
    PodPlan { pod: PodName::of(pod), fate, reasons }
}

/// Why a pod's successor would stay Pending, or would start without its data.
fn no_way_back(node: &str, pod: &Pod, round: &Surroundings) -> Vec<Reason> {
    let others: Vec<&Node> = round.nodes.iter().filter(|n| n.meta.name != node).collect();
    let fitting: Vec<&Node> = others.iter().copied().filter(|n| pod.misfits(n).is_empty()).collect();
    if fitting.is_empty() {
        let why: Vec<String> =
            others.iter().map(|n| format!("{} ({})", n.meta.name, pod.misfits(n).join(", "))).collect();
        let why = if why.is_empty() { "there is none".to_owned() } else { why.join("; ") };
        return vec![Reason::NoOtherNode(why)];
    }
    let mut reasons = Vec::new();
    for used in pod.claims.iter().filter(|c| !c.ephemeral) {
        let claim = round.claims.iter().find(|c| c.meta.namespace == pod.meta.namespace && c.meta.name == used.claim);
        let unseen = |what: String| Reason::Unseen { claim: used.claim.clone(), what };
        let Some(claim) = claim else {
            reasons.push(unseen("it".into()));
            continue;
        };
        // One that is not bound yet has no data.
        let Some(name) = &claim.volume else { continue };
        let Some(volume) = round.volumes.iter().find(|v| v.meta.name == *name) else {
            reasons.push(unseen(format!("its volume {name}")));
            continue;
        };
        let placement = volume.placement(&round.nodes);
        let (claim, name) = (used.claim.clone(), volume.meta.name.clone());
        if !fitting.iter().any(|n| placement.admits(&n.meta.name)) {
            reasons.push(Reason::VolumeHere { claim, volume: name, affinity: volume.affinity_text() });
        } else if !fitting.iter().any(|n| placement.serves(&n.meta.name)) {
            reasons.push(Reason::StartsEmpty { claim, volume: name });
        }
    }
    reasons
}

/// How an eviction was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evicted {
    /// The deletion is accepted; the pod is still there for its grace period.
    Accepted,
    /// The pod was gone, or a pod of another uid has its name.
    Gone,
}

impl Kubernetes {
    /// Reads all that [`plan`] needs to know besides the pods, which are read before: what a list names is in one that
    /// is read after it.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn surroundings(&self) -> Result<Surroundings, KubeError> {
        let (nodes, round) = futures::try_join!(self.nodes(), self.round())?;
        Ok(Surroundings { nodes, volumes: self.volumes().await?, ..round })
    }

    /// As [`Kubernetes::surroundings`], for who has nodes and volumes: without them.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn round(&self) -> Result<Surroundings, KubeError> {
        let kind = DAEMON_SET;
        let (budgets, claims, daemon_sets) =
            futures::try_join!(self.budgets(), self.claims(None), self.list::<Value>(&kind, None, &[]))?;
        let daemon_sets = daemon_sets.iter().map(|d| Meta::of(d).full_name()).collect();
        Ok(Surroundings { budgets, claims, daemon_sets, ..Surroundings::default() })
    }

    /// Asks for the eviction of the pod with this uid. `grace`: seconds; `None` keeps the pod's own.
    ///
    /// # Errors
    /// [`KubeError::DisruptionBudget`] where a budget says not now, [`KubeError::Throttled`] where the API server
    /// is busy, [`KubeError::Refused`] where two budgets count the pod, and the rest.
    pub async fn evict(&self, permit: &Permit, pod: &PodName, grace: Option<u32>) -> Result<Evicted, KubeError> {
        let (target, path, body) = eviction(pod, grace, false);
        let note = format!("uid {}", pod.uid);
        let answer = self.change(permit, Verb::Create, (&target, path), &body, &note).await.map(|(_, answer)| answer);
        self.judge_eviction(&target, true, answer)
    }

    /// Asks whether the eviction would be allowed now, by a dry run: budgets are looked at and not used up.
    ///
    /// # Errors
    /// As for [`Kubernetes::evict`].
    pub async fn may_evict(&self, pod: &PodName) -> Result<Evicted, KubeError> {
        let (target, path, body) = eviction(pod, None, true);
        let path = super::api::with_query(path, &[("dryRun", "All")]);
        let call = self.call("POST", format!("{target} (dry run)"), false);
        let answer: Result<Value, KubeError> = self.read(call, http::Method::POST, path, Some(&body)).await;
        self.judge_eviction(&target, false, answer)
    }

    fn judge_eviction(
        &self,
        target: &str,
        changing: bool,
        answer: Result<Value, KubeError>,
    ) -> Result<Evicted, KubeError> {
        match answer {
            // Two budgets are told as a Failure under a code of success: only the body's word counts.
            Ok(answer) => {
                let call = self.call("POST", target.to_owned(), changing);
                let bytes = bytes::Bytes::from(answer.to_string());
                let status: super::classify::Status = parse(&call, &bytes)?;
                match status.status.as_str() {
                    "Success" => Ok(Evicted::Accepted),
                    "Failure" => Err(super::classify::by_status(call, 500, status)),
                    _ => Err(KubeError::BadAnswer { call, text: "neither Success nor Failure".into() }),
                }
            }
            Err(KubeError::NotFound { .. }) => Ok(Evicted::Gone),
            Err(KubeError::Replaced { .. }) => Ok(Evicted::Gone),
            Err(error) => Err(error),
        }
    }
}

/// The eviction of a pod, as policy/v1 writes it.
fn eviction(pod: &PodName, grace: Option<u32>, dry_run: bool) -> (String, String, Value) {
    let mut options = json!({"preconditions": {"uid": pod.uid}});
    if let Some(seconds) = grace {
        options["gracePeriodSeconds"] = json!(seconds);
    }
    if dry_run {
        options["dryRun"] = json!(["All"]);
    }
    let body = json!({
        "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": pod.name, "namespace": pod.namespace},
        "deleteOptions": options,
    });
    let target = format!("{}/eviction", POD.name_of(&pod.namespace, &pod.name));
    (target, format!("{}/eviction", POD.path(&pod.namespace, &pod.name)), body)
}
