//! 06a: the machine is given its configuration, installs itself on its new system disk, and runs from it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Answer, Check, Problem};
use crate::base::drives::Plan;
use crate::base::fault::Failure;
use crate::base::names::StepKey;
use crate::base::permit::Permit;
use crate::blueprint::install::{Apply, apply, installed};
use crate::blueprint::quorum::Peer;
use crate::engine::step::{Outlook, Risk, RunInfo, Seen, Step};
use crate::estate::Estate;

use super::anew::Anew;
use super::on;
use super::s02_drain::DrainNode;
use super::sight::{Stand, stand};

use crate::blueprint::install::apply::Before;

/// What leads back: a reset may wipe the drives that stay.
const WAY_BACK: &str = "the system disk that came out is the way back";

/// Installs the node on its new system disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InstallNode {
    /// What it is installed anew with.
    pub anew: Anew,
    /// All nodes of its cluster.
    pub peers: Vec<Peer>,
    /// What is to become of its drives.
    pub plan: Plan,
}

impl Step<Estate> for InstallNode {
    const ID: &'static str = "06a-install";
    const RISK: Risk = Risk::Destroys;
    /// Its API may be down by our own doing.
    const BLIND_TO: &'static [&'static str] = &[<DrainNode as Step<Estate>>::ID];
    type Before = Before;

    fn title(&self) -> String {
        format!("{} is installed on disk {}", self.anew.bare.name(), self.anew.bare.disk)
    }

    fn why(&self) -> Vec<String> {
        let mut why = apply::why(&self.anew.bare);
        why.push(apply::by_hand(&self.anew.bare));
        why.push(
            "What is on the disk is gone: it takes its consent. A disk that holds a volume, a pool or the former installation is not \
             wiped by any consent."
                .into(),
        );
        why.push(
            "The former system disk stays out of the machine: of two installations Talos takes the one that it finds first, and the \
             old one is the way back. No reset of the node is: it has other drives, with volumes that stay."
                .into(),
        );
        why
    }

    fn limit(&self) -> Duration {
        apply::LIMIT
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        apply::outlook(&self.anew.bare)
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let run = seen.run;
        let mut check = self.core().check(cx, seen).await?;
        if check.is_done() {
            return installed::check(cx, &self.anew.bare).await;
        }
        if !matches!(check.answer, Answer::Todo { .. } | Answer::Blocked { .. }) {
            return Ok(check);
        }
        let barred = self.barred(cx, run).await?;
        match (&mut check.answer, barred) {
            (Answer::Blocked { problems }, Some(barred)) => drop(problems.splice(0..0, barred)),
            (_, Some(barred)) if !barred.is_empty() => return Ok(Check::blocked(barred).notes(check.notes)),
            (Answer::Todo { .. }, None) => {
                let name = self.anew.bare.name();
                return Ok(Check::waiting(format!(
                    "{name} waits for its configuration, and does not tell its drives yet"
                )));
            }
            _ => {}
        }
        Ok(check)
    }

    async fn apply(&self, cx: &Estate, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        // From here on there is no way back: nothing is sent to a machine whose drives were not looked at right before.
        match self.barred(cx, seen.run).await? {
            Some(barred) if barred.is_empty() => self.core().apply(cx, seen, permit).await,
            Some(barred) => Err(Failure::barred(barred)),
            None => Ok(()),
        }
    }

    async fn back(&self, cx: &Estate, before: &Before, seen: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        self.core().back(cx, before, seen).await
    }
}

impl InstallNode {
    fn core(&self) -> Apply<'_> {
        let key = StepKey::new(<Self as Step<Estate>>::ID, None);
        Apply { key, bare: &self.anew.bare, peers: &self.peers, first: false, others: &[], way_back: Some(WAY_BACK) }
    }

    /// Why a machine that waits is not installed, whatever anybody has consented to; None: it does not wait, or its drives
    /// could not be looked at.
    async fn barred(&self, cx: &Estate, run: &RunInfo) -> Result<Option<Vec<Problem>>, Failure> {
        let (bare, target) = (&self.anew.bare, &self.plan.target);
        let Stand::Waits(talos, mut problems, _) =
            stand(cx, &bare.machine, &self.plan, run, target, Some(&self.anew)).await?
        else {
            return Ok(None);
        };
        let live = Box::pin(cx.inventory_waiting(bare.name(), &talos)).await?;
        let mends = |problem: Problem| problem.mended_by(on::MOVE);
        problems = problems.into_iter().map(mends).collect();
        problems.extend(self.anew.in_use(run, &live)?);
        Ok(Some(problems))
    }
}
