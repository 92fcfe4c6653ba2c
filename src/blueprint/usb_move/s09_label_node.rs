//! 09: the target node gets the label that the workload selects.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::Check;
use crate::base::fault::Failure;
use crate::base::permit::{Permit, System};
use crate::engine::step::{Outlook, Risk, Seen, Step};
use crate::estate::Estate;

use super::label::{Before, Wanted};
use super::params::{KubeNode, Label};

/// Labels a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LabelNode {
    /// The node.
    pub node: KubeNode,
    /// The label; None where the site names none.
    pub label: Option<Label>,
}

impl Step<Estate> for LabelNode {
    const ID: &'static str = "09-label-node";
    const RISK: Risk = Risk::Reverts;
    type Before = Before;

    fn title(&self) -> String {
        match &self.label {
            Some(label) => format!("node {} has label {}={}", self.node.name, label.key, label.value),
            None => format!("node {} needs no label", self.node.name),
        }
    }

    fn why(&self) -> Vec<String> {
        let label = self.label.as_ref().map_or_else(|| "KEY=VALUE".into(), |l| format!("{}={}", l.key, l.value));
        vec![
            "The workload's node selector finds the node by this label; without it the pod stays Pending.".into(),
            format!("By hand: `kubectl label node {} {label}`.", self.node.name),
        ]
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(30)
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        Outlook::changes(System::Kubernetes, self.label.iter().map(|_| format!("node {}", self.node.name)))
    }

    async fn check(&self, cx: &Estate, _seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        Wanted::check(self.wanted(), cx).await
    }

    async fn apply(&self, cx: &Estate, _seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        Wanted::apply(self.wanted(), cx, permit).await
    }

    async fn back(&self, cx: &Estate, before: &Before, _seen: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        Wanted::back(self.wanted(), cx, before).await
    }

    async fn undo(&self, cx: &Estate, before: &Before, _: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        Wanted::undo(self.wanted(), cx, before, permit).await
    }
}

impl LabelNode {
    fn wanted(&self) -> Option<Wanted<'_>> {
        let label = self.label.as_ref()?;
        Some(Wanted { node: &self.node, key: &label.key, value: Some(&label.value) })
    }
}
