//! 01: what etcd has is kept before its members change.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Change, Check, Problem};
use crate::base::fault::Failure;
use crate::base::permit::Permit;
use crate::blueprint::backup::{kept, place, snapshot, voter};
use crate::blueprint::quorum::{Etcd, look, votes};
use crate::engine::step::{Outlook, Risk, Seen, Step};
use crate::estate::Estate;

use super::sight::{is_in, life};
use super::swap::Swap;
use super::word;

/// The run file.
pub(super) const FILE: &str = "etcd.db";

/// Keeps a snapshot of etcd.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TakeSnapshot {
    /// What goes and what comes.
    pub swap: Swap,
}

/// There was none in this run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {}

impl Step<Estate> for TakeSnapshot {
    const ID: &'static str = "01-snapshot";
    const RISK: Risk = Risk::Reverts;
    type Before = Before;

    fn title(&self) -> String {
        format!("a snapshot of etcd of {} is kept", self.swap.old.cluster)
    }

    fn why(&self) -> Vec<String> {
        vec![
            "Whatever goes wrong with its members, everything that Kubernetes knows is in etcd: its Secrets too, so the file is \
             for its owner alone."
                .into(),
            "It is taken from a voter that is well, and counts only where the digest at its end is that of its content. It stays \
             with the run (`pvemig report` names it)."
                .into(),
            format!(
                "By hand: `talosctl etcd snapshot FILE`; for a place of its own, or encrypted: `pvemig etcd snapshot {} --to \
                 DIR`.",
                self.swap.old.cluster
            ),
        ]
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(600)
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        Outlook { stays: Some("the snapshot of etcd, with the run".into()), ..Outlook::default() }
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        if let Some(bytes) = kept(seen.run, Self::ID, FILE, "the snapshot")? {
            let place = place(seen.run, Self::ID, FILE);
            return Ok(Check::done().note(format!("{} bytes in {place}, digest verified", bytes.len())));
        }
        if seen.since.is_none() && self.is_over(cx).await? {
            return Ok(Check::not_needed(format!("{} is replaced already", self.swap.goer())));
        }
        let etcd = look(cx, &self.swap.old.cluster, &self.swap.peers).await;
        Ok(match self.whom(&etcd) {
            Some(node) => Check::todo(vec![Change::act(format!("a snapshot of etcd is taken from {node}"))], Before {}),
            None => Check::blocked(vec![Problem::new(
                format!("no voter of etcd {} is well: there is nobody to take a snapshot from", self.swap.old.cluster),
                "`pvemig survey` shows its members, and what is wrong with them",
            )]),
        })
    }

    async fn apply(&self, cx: &Estate, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        // What a word of a person is of is what was seen first.
        word::keep(&life(cx, &self.swap).await?, &self.swap, seen.run, permit).await?;
        let etcd = look(cx, &self.swap.old.cluster, &self.swap.peers).await;
        let Some(node) = self.whom(&etcd) else {
            return Err(Failure::plain("no voter of etcd is well any more", Some("`pvemig survey` shows them".into())));
        };
        let (taken, bytes) = snapshot(cx, &node, FILE).await?;
        permit.file(FILE, &bytes)?;
        permit.progress(&format!("{} bytes from {node}, sha256 {}", taken.size, taken.sha256));
        Ok(())
    }

    async fn back(&self, _: &Estate, _: &Before, _: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        Ok(Check::done().stays(["the snapshot of etcd stays with the run".to_owned()]))
    }
}

impl TakeSnapshot {
    /// The new machine is in, and nothing of the old one is left that a step would change.
    async fn is_over(&self, cx: &Estate) -> Result<bool, Failure> {
        if !is_in(cx, &self.swap).await? {
            return Ok(false);
        }
        if self.swap.same_name() {
            return Ok(true);
        }
        let kube = cx.kubernetes(&self.swap.old.node.cluster).await?;
        if kube.node(self.swap.host()).await?.is_some() {
            return Ok(false);
        }
        let etcd = look(cx, &self.swap.old.cluster, &self.swap.peers).await;
        let member = etcd.members().iter().any(|name| name == self.swap.host());
        Ok(!member && votes(&etcd).is_some() && life(cx, &self.swap).await?.is_down())
    }

    /// Whose snapshot it is to be.
    fn whom(&self, etcd: &Etcd) -> Option<String> {
        voter(etcd, &self.swap.peers, self.swap.old())
    }
}
