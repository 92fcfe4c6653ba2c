//! 06a: the target node takes pods again, where it was this migration that closed it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::check::{Check, Problem};
use crate::base::fault::Failure;
use crate::base::hold::MARK;
use crate::base::permit::Permit;
use crate::engine::step::{Risk, RunInfo, Seen, Step};
use crate::estate::Estate;
use crate::k8s::Node;

use super::params::KubeNode;
use super::release::known;
use super::s04a_drain_node::{Before as Former, DrainNode, cordon_writer, release};

/// Takes the hold of 04a back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UncordonNode {
    /// The node.
    pub node: KubeNode,
}

/// The node when it was released; undo does not touch it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {
    /// `spec.unschedulable`.
    pub unschedulable: bool,
}

/// What is to be done about the cordon.
#[derive(Debug, PartialEq, Eq)]
enum Closing {
    /// Nothing.
    Nothing,
    /// Nothing: the cordon is not ours, and why that is known.
    NotOurs(String),
    /// The mark goes and this `spec.unschedulable` comes back.
    Release(bool),
    /// The mark is of a run that is not known here.
    Blocked(Problem),
}

impl Step<Estate> for UncordonNode {
    const ID: &'static str = "06a-uncordon-node";
    const RISK: Risk = Risk::Reverts;
    type Before = Before;

    fn title(&self) -> String {
        format!("node {} is as schedulable as before", self.node.name)
    }

    fn why(&self) -> Vec<String> {
        vec![
            format!("By hand: `kubectl uncordon {}`, if it was you who cordoned it.", self.node.name),
            "A node that somebody else had cordoned stays so: then the workload has nowhere to go, and 10 says it."
                .into(),
        ]
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(30)
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let node = match self.node.find(cx).await? {
            Ok(node) => node,
            Err(missing) => return Ok(Check::blocked(vec![missing])),
        };
        Ok(match closing(&node, seen.held.get(DrainNode::ID), seen.since.is_some(), seen.run) {
            Closing::Nothing => Check::done(),
            Closing::NotOurs(why) => Check::not_needed(why),
            Closing::Blocked(problem) => Check::blocked(vec![problem]),
            Closing::Release(to) => {
                Check::todo(release(&self.node.name, &node, to), Before { unschedulable: node.unschedulable })
            }
        })
    }

    async fn apply(&self, cx: &Estate, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let Ok(node) = self.node.find(cx).await? else { return Ok(()) };
        // Begun already, and the mark is gone: it was this step that took it off. Only a first try may go without.
        let begun = seen.since.is_some() && !node.unschedulable;
        if let Closing::Release(to) = closing(&node, seen.held.get(DrainNode::ID), begun, seen.run) {
            let k8s = cx.kubernetes(&self.node.cluster).await?;
            k8s.release_node(permit, &self.node.name, to).await?;
        }
        Ok(())
    }

    async fn back(&self, _: &Estate, _: &Before, _: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        Ok(Check::done().note("04a looks after how the node was before"))
    }
}

/// Whose the cordon is: the mark says it, else what this run remembers of 04a, as long as this step has not begun.
fn closing(node: &Node, holder: Option<&Value>, begun: bool, run: &RunInfo) -> Closing {
    let remembered = holder.and_then(|v| Former::deserialize(v).ok());
    let name = &node.meta.name;
    match known(&format!("node {name}"), &node.meta, run) {
        Ok(Some(mark)) => {
            match remembered.filter(|_| mark.run == run.id).or_else(|| Former::deserialize(&mark.was).ok()) {
                Some(former) => Closing::Release(former.unschedulable),
                None => Closing::Blocked(Problem::new(
                    format!("the hold's mark on node {name} does not say how it was before"),
                    format!(
                        "`kubectl uncordon {name}` where it may take pods, then `kubectl annotate node {name} {MARK}-`"
                    ),
                )),
            }
        }
        Err(problem) => Closing::Blocked(problem),
        Ok(None) if !node.unschedulable => Closing::Nothing,
        Ok(None) => match remembered {
            Some(Former { unschedulable: false }) if !begun => Closing::Release(false),
            _ => Closing::NotOurs(format!(
                "node {name} is cordoned, and not by this run: that stays; {}",
                cordon_writer(node)
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::base::hold::Mark;
    use crate::engine::step::Standing;
    use crate::k8s::meta::Meta;

    fn node(mark: Option<(&str, bool)>, unschedulable: bool) -> Node {
        let annotation = mark.map(|(run, was)| {
            let mark = Mark { run: run.into(), host: "h".into(), was: json!({"unschedulable": was}) };
            (MARK.to_owned(), mark.to_annotation())
        });
        Node {
            meta: Meta { name: "n".into(), annotations: annotation.into_iter().collect(), ..Meta::default() },
            unschedulable,
            taints: Vec::new(),
            ready: None,
            conditions: Vec::new(),
            boot_id: String::new(),
            kubelet: String::new(),
            allocatable: Default::default(),
            capacity: Default::default(),
            runtime_handlers: None,
        }
    }

    #[test]
    fn only_our_own_cordon_is_taken_back() {
        let run =
            RunInfo { id: "me".into(), others: [("single".to_owned(), Standing::Closed)].into(), ..RunInfo::default() };
        let held = json!({"unschedulable": false});
        let ask = |node: &Node, held: Option<&Value>, begun| closing(node, held, begun, &run);
        assert_eq!(ask(&node(Some(("me", false)), true), Some(&held), false), Closing::Release(false));
        // Cordoned before by somebody else: the mark goes, the cordon stays.
        assert_eq!(ask(&node(Some(("single", true)), true), None, false), Closing::Release(true));
        // Uncordoned by somebody while our mark is up: the mark goes.
        assert_eq!(ask(&node(Some(("me", false)), false), Some(&held), false), Closing::Release(false));
        let Closing::Blocked(problem) = ask(&node(Some(("foreign", false)), true), None, false) else { panic!() };
        assert!(problem.text.contains("foreign on h"), "{problem:?}");
        assert_eq!(ask(&node(None, false), Some(&held), true), Closing::Nothing);
        assert!(matches!(ask(&node(None, true), None, false), Closing::NotOurs(_)));
        // The mark was taken off by something else; this run remembers.
        assert_eq!(ask(&node(None, true), Some(&held), false), Closing::Release(false));
        // Released by this step, and cordoned anew by somebody else.
        assert!(matches!(ask(&node(None, true), Some(&held), true), Closing::NotOurs(_)));
    }
}
