//! 01: etcd has its majority without this node, is whole besides, and is not led from it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Change, Check};
use crate::base::fault::Failure;
use crate::base::permit::{Permit, System};
use crate::blueprint::machine::Machine;
use crate::blueprint::quorum::{self, Peer, judge, look};
use crate::engine::step::{Outlook, Risk, Seen, Step};
use crate::estate::Estate;

/// Asks etcd whether a node may go down, and has it hand the leadership over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QuorumGate {
    /// The node.
    pub machine: Machine,
    /// All nodes of its cluster.
    pub peers: Vec<Peer>,
}

/// Nothing is owed: who leads is etcd's own affair.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {}

impl Step<Estate> for QuorumGate {
    const ID: &'static str = "01-quorum-gate";
    const RISK: Risk = Risk::Reverts;
    type Before = Before;

    fn instance(&self) -> Option<String> {
        Some(self.machine.name.clone())
    }

    fn title(&self) -> String {
        format!("etcd can do without {}", self.machine.name)
    }

    fn why(&self) -> Vec<String> {
        vec![
            "Of two voters none may go: one alone is no majority, and Kubernetes takes no change until it is back.".into(),
            "A learner, an unhealthy or lagging member, an alarm, or a member without a machine is mended first: with the \
             node away there is nothing left to lose."
                .into(),
            "A leader that goes down leaves etcd without one for seconds; it hands that over before, and who leads \
             afterwards is left to etcd: nothing of it is taken back."
                .into(),
            "04 asks the same again right before its call: a drain takes its time.".into(),
            format!(
                "By hand: {}, `etcd members`, `etcd alarm list`, and {}.",
                self.machine.talosctl("etcd status"),
                self.machine.talosctl("etcd forfeit-leadership")
            ),
        ]
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        Outlook::changes(System::Talos, []).maybe(hands_over(&self.machine.name))
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let verdict = judge(&self.machine.name, &look(cx, &self.machine.cluster, &self.peers).await);
        Ok(if verdict.electing && seen.since.is_some() {
            // By our own doing: it was told to hand over.
            Check::waiting(verdict.problems.into_iter().map(|p| p.text).collect::<Vec<_>>().join("; "))
        } else if !verdict.problems.is_empty() {
            Check::blocked(verdict.problems)
        } else if verdict.leads {
            Check::todo(vec![Change::act(hands_over(&self.machine.name))], Before {})
        } else {
            Check::done().notes(verdict.notes)
        })
    }

    async fn apply(&self, cx: &Estate, _seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        quorum::pass(cx, &self.machine.cluster, &self.machine.name, &self.peers, permit).await
    }

    async fn back(&self, _: &Estate, _: &Before, _: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        Ok(Check::done().stays(["the leadership of etcd stays where it is by now".to_owned()]))
    }
}

/// What it does where the node leads.
pub(super) fn hands_over(name: &str) -> String {
    format!("{name} hands the leadership of etcd over")
}
