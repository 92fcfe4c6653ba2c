//! 02: nothing that can run elsewhere runs on the node when it goes down.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::Check;
use crate::base::fault::Failure;
use crate::base::permit::{Permit, System};
use crate::blueprint::cordon::{Drain, PATIENCE};
use crate::blueprint::machine::Machine;
use crate::engine::step::{Outlook, Risk, Seen, Step};
use crate::estate::Estate;

use crate::blueprint::cordon::Former as Before;

/// Cordons and drains the node until 06.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DrainNode {
    /// The node.
    pub machine: Machine,
}

impl Step<Estate> for DrainNode {
    const ID: &'static str = "02-drain";
    const RISK: Risk = Risk::Reverts;
    const HOLDS_UNTIL: Option<&'static str> = Some("06-uncordon");
    type Before = Before;

    fn instance(&self) -> Option<String> {
        Some(self.machine.name.clone())
    }

    fn title(&self) -> String {
        format!("node {} is cordoned and drained", self.machine.node.name)
    }

    fn why(&self) -> Vec<String> {
        let node = &self.machine.node.name;
        vec![
            "A reboot of Talos neither cordons nor drains: it kills what runs. An eviction lets it end, and asks the \
             budgets first."
                .into(),
            "A shutdown and an upgrade do drain by themselves, and then wait for a budget that nobody sees.".into(),
            "Each pod that will not go is named with its reason: nothing makes it anew, two budgets count it, its budget \
             can never allow it."
                .into(),
            format!("By hand: `kubectl drain {node} --ignore-daemonsets --delete-emptydir-data`."),
            "Data in emptyDir volumes goes with their pods; pods that nothing makes anew are not touched.".into(),
        ]
    }

    fn limit(&self) -> Duration {
        PATIENCE
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        Outlook::changes(System::Kubernetes, [format!("node {}", self.machine.node.name)]).longest(PATIENCE)
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        self.hold().check(cx, &seen).await
    }

    async fn stir(&self, cx: &Estate, _seen: Seen<'_, Before>) -> Result<(), Failure> {
        self.hold().stir(cx).await
    }

    async fn apply(&self, cx: &Estate, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        self.hold().apply(cx, &seen, permit).await
    }

    async fn back(&self, cx: &Estate, before: &Before, seen: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        self.hold().back(cx, before, seen.run).await
    }

    async fn undo(&self, cx: &Estate, before: &Before, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        self.hold().undo(cx, before, seen.run, permit).await
    }
}

impl DrainNode {
    fn hold(&self) -> Drain<'_> {
        let otherwise = ", or leave this node out of `nodes` in the site file";
        Drain { otherwise, ..Drain::of(&self.machine.node) }
    }
}
