//! 06a: the target node takes pods again, where it was this migration that closed it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::Check;
use crate::base::fault::Failure;
use crate::base::permit::Permit;
use crate::engine::step::{Risk, Seen, Step};
use crate::estate::Estate;

use super::cordon::{Closing, closing, release};
use super::params::KubeNode;
use super::s04a_drain_node::DrainNode;

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
