//! 02: nothing that can run elsewhere runs on the node when it goes for good.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::Check;
use crate::base::fault::Failure;
use crate::base::permit::{Permit, System};
use crate::blueprint::cordon::{Drain, PATIENCE};
use crate::engine::step::{Outlook, Risk, Seen, Step};
use crate::estate::Estate;

use super::sight::{Life, life};
use super::swap::Swap;

use crate::blueprint::cordon::Former as Before;

/// Cordons and drains the node until 09.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DrainNode {
    /// What goes and what comes.
    pub swap: Swap,
}

impl Step<Estate> for DrainNode {
    const ID: &'static str = "02-drain";
    const RISK: Risk = Risk::Reverts;
    const HOLDS_UNTIL: Option<&'static str> = Some("09-uncordon");
    type Before = Before;

    fn title(&self) -> String {
        format!("node {} is cordoned and drained", self.swap.host())
    }

    fn why(&self) -> Vec<String> {
        let node = self.swap.host();
        vec![
            "An eviction lets a pod end, and asks the budgets first; a shutdown kills what runs.".into(),
            "A node that is dead is cordoned alone: nobody is there who could end its pods. Kubernetes forgets them with its \
             Node object (08), or when the new machine answers under its name."
                .into(),
            "Under the same name the cordon stays on the Node object until the new machine is a part of the cluster: nothing is \
             put on it while it is half there."
                .into(),
            format!("By hand: `kubectl drain {node} --ignore-daemonsets --delete-emptydir-data`."),
            "Data in emptyDir volumes goes with their pods; pods that nothing makes anew are not touched.".into(),
        ]
    }

    fn limit(&self) -> Duration {
        PATIENCE
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        Outlook::changes(System::Kubernetes, [format!("node {}", self.swap.host())]).longest(PATIENCE)
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        if self.swap.old.node.find(cx).await?.is_err() {
            return Ok(Check::not_needed(format!("kubernetes has no node {} any more", self.swap.host())));
        }
        let life = life(cx, &self.swap).await?;
        let mut check = self.hold(&life).check(cx, &seen).await?;
        if matches!(life, Life::Replaced) {
            // What is said of pods is said of a machine that is off.
            check.notes.clear();
        }
        Ok(check)
    }

    async fn stir(&self, cx: &Estate, _seen: Seen<'_, Before>) -> Result<(), Failure> {
        Ok(cx.kubernetes(&self.swap.old.node.cluster).await?.stir_of_pods_on(self.swap.host()).await?)
    }

    async fn apply(&self, cx: &Estate, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        self.hold(&life(cx, &self.swap).await?).apply(cx, &seen, permit).await
    }

    async fn back(&self, cx: &Estate, before: &Before, seen: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        if self.swap.old.node.find(cx).await?.is_err() {
            return Ok(Check::done().note(format!("kubernetes has no node {} any more", self.swap.host())));
        }
        Drain::of(&self.swap.old.node).back(cx, before, seen.run).await
    }

    async fn undo(&self, cx: &Estate, before: &Before, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        Drain::of(&self.swap.old.node).undo(cx, before, seen.run, permit).await
    }
}

impl DrainNode {
    /// What still stands on the Node object of a machine that is gone cannot be evicted; the new machine, under the same name,
    /// is not drained.
    fn hold(&self, life: &Life) -> Drain<'_> {
        Drain { dead: life.is_down(), ..Drain::of(&self.swap.old.node) }
    }
}
