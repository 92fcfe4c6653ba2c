//! 08: the node takes pods again, where it was this run that closed it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::Check;
use crate::base::fault::Failure;
use crate::base::permit::{Permit, System};
use crate::blueprint::machine::Machine;
use crate::blueprint::stand::may_pass;
use crate::blueprint::uncordon::Closer;
use crate::engine::step::{Outlook, Risk, Seen, Step};
use crate::estate::Estate;

use super::DrainNode;

use crate::blueprint::cordon::Former as Before;

/// Takes the hold of 02 back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UncordonNode {
    /// The node.
    pub machine: Machine,
}

impl Step<Estate> for UncordonNode {
    const ID: &'static str = "08-uncordon";
    const RISK: Risk = Risk::Reverts;
    type Before = Before;

    fn title(&self) -> String {
        format!("node {} is as schedulable as before", self.machine.node.name)
    }

    fn why(&self) -> Vec<String> {
        vec![
            format!("By hand: `kubectl uncordon {}`, if it was you who cordoned it.", self.machine.node.name),
            "Talos cordons by itself at a shutdown and an upgrade, and takes back only what it cordoned itself; what \
             somebody else cordoned before stays so."
                .into(),
        ]
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(600)
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        Outlook::changes(System::Kubernetes, [format!("node {}", self.machine.node.name)])
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        match self.hold().check(cx, &seen).await {
            // The API server may run on this very machine.
            Err(failure) if may_pass(&failure) => Ok(Check::waiting(failure.to_string())),
            other => other,
        }
    }

    async fn apply(&self, cx: &Estate, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        self.hold().apply(cx, &seen, permit).await
    }

    async fn back(&self, _: &Estate, _: &Before, _: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        Ok(Check::done()
            .note("how the node was before is for 02 to bring back: of this run, or of the one that held it"))
    }
}

impl UncordonNode {
    fn hold(&self) -> Closer<'_> {
        Closer { node: &self.machine.node, holder: DrainNode::ID }
    }
}
