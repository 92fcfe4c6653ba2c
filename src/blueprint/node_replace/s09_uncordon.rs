//! 09: the node takes pods, where it was this run that closed it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::Check;
use crate::base::fault::Failure;
use crate::base::permit::{Permit, System};
use crate::blueprint::uncordon::Closer;
use crate::engine::step::{Outlook, Risk, Seen, Step};
use crate::estate::Estate;

use super::DrainNode;
use super::swap::Swap;

use crate::blueprint::cordon::Former as Before;

/// Takes the hold of 02 back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UncordonNode {
    /// What goes and what comes.
    pub swap: Swap,
}

impl Step<Estate> for UncordonNode {
    const ID: &'static str = "09-uncordon";
    const RISK: Risk = Risk::Reverts;
    type Before = Before;

    fn title(&self) -> String {
        format!("node {} takes pods as the old one did", self.swap.new.machine.node.name)
    }

    fn why(&self) -> Vec<String> {
        vec![
            "Under a name of its own the new node was never cordoned, and the cordon of the old one is gone with its Node object."
                .into(),
            format!("By hand: `kubectl uncordon {}`, if it was you who cordoned it.", self.swap.host()),
        ]
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        if self.swap.same_name() {
            Outlook::changes(System::Kubernetes, [format!("node {}", self.swap.host())])
        } else {
            Outlook::default()
        }
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        if self.swap.old.node.find(cx).await?.is_ok() {
            return self.hold().check(cx, &seen).await;
        }
        let name = &self.swap.new.machine.node.name;
        let cordoned = match self.swap.new.machine.node.find(cx).await? {
            Ok(node) if node.unschedulable => Some(format!("node {name} is cordoned, and not by this run: that stays")),
            _ => None,
        };
        let gone = format!("the cordon of {} is gone with its Node object", self.swap.host());
        Ok(Check::not_needed(gone).notes(cordoned))
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
        Closer { node: &self.swap.old.node, holder: DrainNode::ID }
    }
}
