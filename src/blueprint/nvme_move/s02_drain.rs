//! 02: nothing that can run elsewhere runs on the node when it is switched off for its drives.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Answer, Check};
use crate::base::drives::Plan;
use crate::base::fault::Failure;
use crate::base::permit::{Permit, System};
use crate::blueprint::cordon::{Drain, PATIENCE};
use crate::blueprint::machine::Machine;
use crate::blueprint::stand::may_pass;
use crate::engine::step::{Outlook, Risk, RunInfo, Seen, Step};
use crate::estate::Estate;

use super::on;
use super::remembered::seen_last;
use super::sight::{facts, known};
use super::volumes;
use crate::blueprint::cordon::Former as Before;

/// Cordons and drains the node until 08.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DrainNode {
    /// The node.
    pub machine: Machine,
    /// What is to become of its drives; on the way back each volume must be ready on its own before pods are let on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
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
            "An undo lets pods back on once each volume is ready on its own drive again, as 07 has it on the way forth.".into(),
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
        let check = self.hold().back(cx, before, seen.run).await?;
        if before.unschedulable || !matches!(check.answer, Answer::Todo { .. }) {
            return Ok(check);
        }
        let ready = self.ready(cx, seen.run).await?;
        if ready.is_done() { Ok(check.notes(ready.notes)) } else { Ok(ready) }
    }

    async fn undo(&self, cx: &Estate, before: &Before, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let ready = if before.unschedulable { Check::done() } else { self.ready(cx, seen.run).await? };
        match ready.answer {
            Answer::Done => self.hold().undo(cx, before, seen.run, permit).await,
            Answer::Blocked { problems } => Err(Failure::barred(problems)),
            Answer::Waiting { reason, .. } => Err(Failure::plain(reason, None)),
            Answer::Todo { .. } | Answer::Manual { .. } => Ok(()),
        }
    }
}

impl DrainNode {
    fn hold(&self) -> Drain<'_> {
        let otherwise = "; data of a local volume is away with its drive until 08";
        Drain { otherwise, ..Drain::of(&self.machine.node) }
    }

    /// Whether each volume that this run has kept is ready on its own drive, with the drives where they were: a pod that is let
    /// on before writes into the empty directory below it. It is what 07 asks on the way forth.
    async fn ready(&self, cx: &Estate, run: &RunInfo) -> Result<Check<()>, Failure> {
        let Some(plan) = &self.plan else { return Ok(Check::done()) };
        // It was not about to switch the machine off, or has nothing to hold them against.
        if seen_last(run)?.is_none() || facts(&self.machine, run)?.is_none() {
            return Ok(Check::done());
        }
        let was = known(cx, &self.machine, plan, run, None)?.plan.current;
        let back = Plan { target: was, ..plan.clone() };
        match Box::pin(volumes::look(cx, &self.machine, &back, &[], run)).await {
            Err(failure) if may_pass(&failure) => Ok(Check::waiting(failure.to_string())),
            other => Ok(other?.check()),
        }
    }
}
