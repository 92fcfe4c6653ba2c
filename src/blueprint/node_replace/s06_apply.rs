//! 06: the new machine is given its configuration, which has it install itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Answer, Check, Problem};
use crate::base::fault::Failure;
use crate::base::names::StepKey;
use crate::base::permit::Permit;
use crate::blueprint::install::{Apply, apply};
use crate::engine::step::{Outlook, Risk, Seen, Step};
use crate::estate::Estate;

use super::on;
use super::s03_leave_or_remove::is_back;
use super::sight::{Life, life};
use super::swap::Swap;

use crate::blueprint::install::apply::Before;

/// Gives the new machine its configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApplyConfig {
    /// What goes and what comes.
    pub swap: Swap,
}

impl Step<Estate> for ApplyConfig {
    const ID: &'static str = "06-apply";
    const RISK: Risk = Risk::Destroys;
    type Before = Before;

    fn title(&self) -> String {
        format!("{} has its machine configuration", self.swap.comer())
    }

    fn why(&self) -> Vec<String> {
        let typed = format!("{} {}", apply::by_hand(&self.swap.new), apply::reset(&self.swap.new));
        [apply::why(&self.swap.new), vec![typed]].concat()
    }

    fn limit(&self) -> Duration {
        apply::LIMIT
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        apply::outlook(&self.swap.new)
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        // Under one name the old machine would pass for the new one.
        if self.swap.same_name()
            && seen.since.is_none()
            && let Life::Alive(_) = life(cx, &self.swap).await?
        {
            let text = format!("{} is still there: it is not given the configuration of the new one", self.swap.goer());
            return Ok(Check::blocked(vec![Problem::new(text, "let it be swapped first").mended_by(on::SWAP)]));
        }
        let run = seen.run;
        let mut check = self.core().check(cx, seen).await?;
        // Nobody joins beside one that has come back.
        if !self.swap.same_name()
            && matches!(check.answer, Answer::Blocked { .. } | Answer::Todo { .. })
            && let Some(problem) = is_back(cx, &self.swap, run).await
        {
            match &mut check.answer {
                Answer::Blocked { problems } => problems.insert(0, problem),
                _ => return Ok(Check::blocked(vec![problem])),
            }
        }
        Ok(check)
    }

    async fn apply(&self, cx: &Estate, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        self.core().apply(cx, seen, permit).await
    }

    async fn back(&self, cx: &Estate, before: &Before, seen: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        self.core().back(cx, before, seen).await
    }
}

impl ApplyConfig {
    fn core(&self) -> Apply<'_> {
        let key = StepKey::new(<Self as Step<Estate>>::ID, None);
        Apply { key, bare: &self.swap.new, peers: &self.swap.peers, first: false, others: &[], way_back: None }
    }
}
