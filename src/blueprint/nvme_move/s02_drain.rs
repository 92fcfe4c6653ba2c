//! 02: nothing that can run elsewhere runs on the node when it is switched off for its drives.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::Check;
use crate::base::fault::Failure;
use crate::base::permit::{Permit, System};
use crate::blueprint::cordon::{Drain, PATIENCE};
use crate::blueprint::machine::Machine;
use crate::engine::step::{Outlook, Risk, Seen, Step};
use crate::estate::Estate;

use super::on;
use crate::blueprint::cordon::Former as Before;

/// Cordons and drains the node until 08.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DrainNode {
    /// The node.
    pub machine: Machine,
}

impl Step<Estate> for DrainNode {
    const ID: &'static str = "02-drain";
    const RISK: Risk = Risk::Reverts;
    const HOLDS_UNTIL: Option<&'static str> = Some(on::UNCORDON);
    type Before = Before;

    fn title(&self) -> String {
        format!("node {} is cordoned and drained", self.machine.node.name)
    }

    fn why(&self) -> Vec<String> {
        let node = &self.machine.node.name;
        vec![
            "The machine is off for as long as somebody works on it. An eviction lets what runs end, and asks the budgets first; \
             a shutdown kills it."
                .into(),
            "A shutdown of Talos does drain by itself, and then waits for a budget that nobody sees: 03 has nothing left to \
             drain."
                .into(),
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
        let otherwise = "; data of a local volume is away with its drive until 08";
        Drain { otherwise, ..Drain::of(&self.machine.node) }
    }
}
