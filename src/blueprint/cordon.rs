//! A node that is cordoned and drained over a reboot: the hold. How it is let go is in `uncordon`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Change, Check, Problem, with_node};
use crate::base::fault::Failure;
use crate::base::permit::Permit;
use crate::base::wait::{Backoff, pause};
use crate::engine::step::{RunInfo, Seen};
use crate::estate::Estate;
use crate::k8s::drain::{Fate, Lets, PodName, PodPlan, plan};
use crate::k8s::{KubeError, Kubernetes, Node, Pod};

use super::fault::StepFault;
use super::hold::{Held, held, mark, was};
use super::node::KubeNode;

/// How long a budget is asked again and again.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// What `kubectl drain --ignore-daemonsets --delete-emptydir-data` lets go: that is what people type before a reboot.
pub const LETS: Lets = Lets { empty_dir_data: true, bare_pods: false };

/// Whether the node was cordoned. Also the state in the mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    /// `spec.unschedulable`.
    pub unschedulable: bool,
}

/// The pods of a node, by what becomes of them.
#[derive(Debug, Default)]
pub struct Left {
    /// To be evicted.
    pub evict: Vec<PodName>,
    /// Held up by a budget, each with its reason.
    pub waits: Vec<String>,
    /// Those that will not go.
    pub refuses: Vec<Problem>,
    /// On their way already, each with what there is to know.
    pub going: Vec<String>,
    /// What there is to know of those that go.
    pub notes: Vec<String>,
}

/// A node that is to be cordoned and drained.
#[derive(Debug, Clone, Copy)]
pub struct Drain<'a> {
    /// The node.
    pub node: &'a KubeNode,
    /// What else helps with a pod that will not go: the end of a sentence.
    pub otherwise: &'a str,
    /// Its machine is off: it is cordoned alone, as nobody is there who could end its pods.
    pub dead: bool,
}

impl<'a> Drain<'a> {
    /// Of a node that is up.
    pub fn of(node: &'a KubeNode) -> Self {
        Self { node, otherwise: "", dead: false }
    }
}

impl Drain<'_> {
    /// Whether it is cordoned by this run, and nothing is left on it that can go.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn check(&self, cx: &Estate, seen: &Seen<'_, Former>) -> Result<Check<Former>, Failure> {
        let node = match self.node.find(cx).await? {
            Ok(node) => node,
            Err(missing) => return Ok(Check::blocked(vec![missing])),
        };
        let (before, ours) = match self.former(&node, seen) {
            Ok(former) => former,
            Err(problem) => return Ok(Check::blocked(vec![problem])),
        };
        let up = ours && node.unschedulable;
        let left = self.left(&*cx.kubernetes(&self.node.cluster).await?).await?;
        if !left.refuses.is_empty() {
            return Ok(Check::blocked(left.refuses).notes(left.notes));
        }
        let mut changes = Vec::new();
        if !up {
            changes.push(Change::act(format!("node {} is cordoned", self.node.name)));
        }
        changes.extend(left.evict.iter().map(|pod| Change::act(format!("pod {pod} is evicted"))));
        // What is only held up by a budget needs the apply, which asks again; what is going needs nobody.
        let waits = left.waits.iter().map(|why| Change::act(format!("pod {why}: evicted as soon as that allows it")));
        changes.extend(waits);
        if !changes.is_empty() {
            let check = Check::todo(changes, before).notes(left.notes);
            let fallen = seen.since.filter(|_| !node.unschedulable);
            return Ok(check.notes(fallen.map(|_| cordon_writer(&node))));
        }
        Ok(if left.going.is_empty() {
            Check::done()
        } else {
            Check::waiting(format!("still on {}: {}", self.node.name, left.going.join("; ")))
        }
        .notes(left.notes))
    }

    /// Ends when a pod has left the node.
    ///
    /// # Errors
    /// What keeps the API from telling.
    pub async fn stir(&self, cx: &Estate) -> Result<(), Failure> {
        Ok(cx.kubernetes(&self.node.cluster).await?.stir_of_pods_on(&self.node.name).await?)
    }

    /// Cordons it and asks for each eviction as long as budgets take.
    ///
    /// # Errors
    /// [`StepFault::NotDrained`], and what keeps the API from doing it.
    pub async fn apply(&self, cx: &Estate, seen: &Seen<'_, Former>, permit: &Permit) -> Result<(), Failure> {
        let k8s = cx.kubernetes(&self.node.cluster).await?;
        let Ok(node) = self.node.find(cx).await? else { return Ok(()) };
        let Ok((now, ours)) = self.former(&node, seen) else { return Ok(()) };
        if !(ours && node.unschedulable) {
            k8s.cordon(permit, &self.node.name, &mark(seen.run, seen.since.unwrap_or(&now))?).await?;
        }
        let start = cx.clock().instant();
        let mut pauses = Backoff::new(cx.clock(), Duration::from_secs(1), Duration::from_secs(5));
        loop {
            let mut left = self.left(&k8s).await?;
            for pod in std::mem::take(&mut left.evict) {
                match k8s.evict(permit, &pod, None).await {
                    Ok(_) => permit.progress(&format!("pod {pod} is evicted")),
                    Err(KubeError::DisruptionBudget { text, .. }) => left.waits.push(format!("{pod}: {text}")),
                    Err(KubeError::Throttled { retry_after, .. }) => {
                        left.waits.push(format!("{pod}: the API server throttles"));
                        let rest = PATIENCE.saturating_sub(start.elapsed());
                        pause(cx.clock(), Duration::from_secs(retry_after.into()).min(rest)).await;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            // Pods that are going are waited for by the check, and those that refuse are its problem.
            if left.waits.is_empty() {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                let why = left.waits;
                return Err(StepFault::NotDrained { node: self.node.name.clone(), limit: PATIENCE, why }.into());
            }
            permit.progress(&format!("waiting for {}", left.waits.join("; ")));
            permit.go_on()?;
            pauses.pause().await;
        }
    }

    /// Whether the hold is off.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn back(&self, cx: &Estate, before: &Former, run: &RunInfo) -> Result<Check<()>, Failure> {
        let node = match self.node.find(cx).await? {
            Ok(node) => node,
            Err(missing) => return Ok(Check::blocked(vec![missing])),
        };
        Ok(match held(&self.title(), &node.meta, run) {
            Ok(Held::Ours(_) | Held::Left(_)) => Check::todo(release(&self.node.name, &node, before.unschedulable), ()),
            Ok(Held::Theirs(_, problem)) | Err(problem) => Check::blocked(vec![problem]),
            Ok(Held::No) if node.unschedulable && !before.unschedulable => Check::done().stays([format!(
                "node {} is cordoned without our mark: that is somebody else's, and stays; {}",
                self.node.name,
                cordon_writer(&node)
            )]),
            Ok(Held::No) => Check::done(),
        })
    }

    /// Takes the hold off.
    ///
    /// # Errors
    /// What keeps the API from doing it.
    pub async fn undo(&self, cx: &Estate, before: &Former, run: &RunInfo, permit: &Permit) -> Result<(), Failure> {
        let Ok(node) = self.node.find(cx).await? else { return Ok(()) };
        if let Ok(Held::Ours(_) | Held::Left(_)) = held(&self.title(), &node.meta, run) {
            let k8s = cx.kubernetes(&self.node.cluster).await?;
            k8s.release_node(permit, &self.node.name, before.unschedulable).await?;
        }
        Ok(())
    }

    fn title(&self) -> String {
        format!("node {}", self.node.name)
    }

    /// The cordon to go back to, and whether this run's mark is up.
    fn former(&self, node: &Node, seen: &Seen<'_, Former>) -> Result<(Former, bool), Problem> {
        let what = self.title();
        match held(&what, &node.meta, seen.run)? {
            Held::No => Ok((Former { unschedulable: node.unschedulable }, false)),
            Held::Ours(mark) => Ok((was(&what, &mark)?, true)),
            Held::Left(mark) => Ok((was(&what, &mark)?, false)),
            Held::Theirs(_, problem) => Err(problem),
        }
    }

    async fn left(&self, k8s: &Kubernetes) -> Result<Left, Failure> {
        let pods = k8s.pods_on(&self.node.name).await?;
        if self.dead {
            let own = pods.iter().filter(|pod| !pod.is_of_the_node() && !pod.is_finished()).count();
            let note = format!("{own} pods on {} cannot be evicted: nobody is there to end them", self.node.name);
            return Ok(Left { notes: (own > 0).then_some(note).into_iter().collect(), ..Left::default() });
        }
        let round = k8s.surroundings().await?;
        Ok(sort(&pods, plan(&self.node.name, &pods, &round, LETS), self.otherwise))
    }
}

/// Sorts the plans of pods by what has to be done about them. `otherwise` ends the help for one that will not go.
pub fn sort(pods: &[Pod], plans: Vec<PodPlan>, otherwise: &str) -> Left {
    let mut left = Left::default();
    for (pod, plan) in pods.iter().zip(plans) {
        let reasons = plan.reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        if pod.meta.deleting.is_some() {
            if plan.fate != Fate::Stays {
                left.going.push(format!("{}: {reasons}", plan.pod));
            }
            continue;
        }
        // A finished pod loses nothing by a power-off, and its log would go with it.
        if pod.is_finished() {
            continue;
        }
        match plan.fate {
            Fate::Stays => {}
            Fate::Refuses => left.refuses.push(Problem::new(
                format!("pod {} will not go: {reasons}", plan.pod),
                format!("let it go by hand (scale its workload down, or delete it){otherwise}"),
            )),
            Fate::Waits => left.waits.push(format!("{}: {reasons}", plan.pod)),
            Fate::GoesForGood => {
                left.notes.push(with_node(&plan.pod, &reasons));
                left.evict.push(plan.pod);
            }
            Fate::Goes => {
                if !reasons.is_empty() {
                    left.notes.push(format!("pod {}: {reasons}", plan.pod));
                }
                left.evict.push(plan.pod);
            }
        }
    }
    left
}

/// What a release of the hold changes.
pub fn release(name: &str, node: &Node, unschedulable: bool) -> Vec<Change> {
    vec![Change::act(if node.unschedulable && !unschedulable {
        format!("node {name} is schedulable again")
    } else {
        format!("node {name}: the hold's mark goes")
    })]
}

/// Who wrote `spec.unschedulable`, for a cordon that is not as we left it.
pub fn cordon_writer(node: &Node) -> String {
    match node.cordon_owners().first() {
        Some(owner) => format!("`spec.unschedulable` was last written by {owner}"),
        None => "who wrote `spec.unschedulable` is not recorded".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::k8s::drain::Reason;
    use crate::k8s::meta::Meta;

    fn pod(name: &str, phase: &str, deleting: bool) -> Pod {
        Pod {
            meta: Meta {
                namespace: "default".into(),
                name: name.into(),
                deleting: deleting.then(|| "2025-01-01T00:00:00Z".to_owned()),
                ..Meta::default()
            },
            node: Some("n".into()),
            phase: phase.into(),
            why: String::new(),
            started: String::new(),
            conditions: Vec::new(),
            containers: Vec::new(),
            claims: Vec::new(),
            empty_dirs: Vec::new(),
            host_paths: Vec::new(),
            node_selector: Default::default(),
            node_affinity: None,
            tolerations: Vec::new(),
            runtime_class: None,
            devices: Default::default(),
        }
    }

    #[test]
    fn each_pod_is_evicted_or_waited_for_or_named_with_its_reason() {
        let cases = [
            ("web", "Running", false, Fate::Goes, vec![]),
            ("cache", "Running", false, Fate::Goes, vec![Reason::EmptyDir(vec!["tmp".into()])]),
            ("db", "Running", false, Fate::GoesForGood, vec![Reason::NoOtherNode("a (cordoned)".into())]),
            ("agent", "Running", false, Fate::Stays, vec![Reason::DaemonSet("kube-system/agent".into())]),
            ("api", "Running", false, Fate::Waits, vec![Reason::BudgetBlocks("budget default/api".into())]),
            ("bare", "Running", false, Fate::Refuses, vec![Reason::Bare]),
            ("old", "Running", true, Fate::Goes, vec![Reason::Going(vec!["x/y".into()])]),
            ("finished", "Succeeded", false, Fate::Goes, vec![Reason::Finished("Succeeded".into())]),
        ];
        let pods: Vec<Pod> = cases.iter().map(|(name, phase, deleting, ..)| pod(name, phase, *deleting)).collect();
        let plans = cases.iter().zip(&pods).map(|((_, _, _, fate, reasons), pod)| PodPlan {
            pod: PodName::of(pod),
            fate: *fate,
            reasons: reasons.clone(),
        });
        let left = sort(&pods, plans.collect(), ", or else");
        let names: Vec<_> = left.evict.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["web", "cache", "db"]);
        assert_eq!(left.waits, ["default/api: budget default/api"]);
        assert_eq!(left.refuses.len(), 1);
        assert!(left.refuses[0].text.contains("default/bare") && left.refuses[0].text.contains("bare pod"));
        assert!(left.going.len() == 1 && left.going[0].contains("x/y"), "{:?}", left.going);
        assert!(left.notes.iter().any(|n| n.contains("emptyDir tmp")), "{:?}", left.notes);
        assert!(left.notes.iter().any(|n| n.contains("default/db comes back with this node only")));
    }
}
