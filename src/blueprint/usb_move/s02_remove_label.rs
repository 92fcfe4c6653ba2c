//! 02: the source node loses the label that the workload selects.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::Check;
use crate::base::fault::Failure;
use crate::base::permit::{Permit, System};
use crate::engine::step::{Outlook, Risk, Seen, Step};
use crate::estate::Estate;

use super::label::{Before, Wanted};
use super::params::KubeNode;

/// Takes a label off a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemoveLabel {
    /// The node.
    pub node: KubeNode,
    /// The label's key; None where the site names no label.
    pub key: Option<String>,
}

impl Step<Estate> for RemoveLabel {
    const ID: &'static str = "02-remove-label";
    const RISK: Risk = Risk::Reverts;
    type Before = Before;

    fn title(&self) -> String {
        format!("node {} has no label {}", self.node.name, self.key.as_deref().unwrap_or("for the device"))
    }

    fn why(&self) -> Vec<String> {
        let key = self.key.as_deref().unwrap_or("KEY");
        vec![
            "As long as the old node has the label, the scheduler may put the workload back to where the device is \
             no longer."
                .into(),
            format!("By hand: `kubectl label node {} {key}-`.", self.node.name),
            "A label that k3s, Talos or node-feature-discovery declares comes back by itself: it is taken out there."
                .into(),
        ]
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(30)
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        Outlook::changes(System::Kubernetes, self.key.iter().map(|_| format!("node {}", self.node.name)))
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

impl RemoveLabel {
    fn wanted(&self) -> Option<Wanted<'_>> {
        Some(Wanted { node: &self.node, key: self.key.as_deref()?, value: None })
    }
}
