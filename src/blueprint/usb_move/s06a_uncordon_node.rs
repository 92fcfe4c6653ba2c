//! 06a: the target node takes pods again, where it was this migration that closed it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::Check;
use crate::base::fault::Failure;
use crate::base::permit::Permit;
use crate::engine::step::{Risk, Seen, Step};
use crate::estate::Estate;

use super::params::KubeNode;
use super::s04a_drain_node::DrainNode;
use super::uncordon::Closer;

/// The node when it was released; undo does not touch it.
use super::cordon::Former as Before;

/// Takes the hold of 04a back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UncordonNode {
    /// The node.
    pub node: KubeNode,
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
        self.hold().check(cx, &seen).await
    }

    async fn apply(&self, cx: &Estate, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        self.hold().apply(cx, &seen, permit).await
    }

    async fn back(&self, _: &Estate, _: &Before, _: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        Ok(Check::done().note("04a looks after how the node was before"))
    }
}

impl UncordonNode {
    fn hold(&self) -> Closer<'_> {
        Closer { node: &self.node, holder: DrainNode::ID }
    }
}
