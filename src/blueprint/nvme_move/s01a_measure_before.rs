//! 01a: how fast the drives are before anything is moved, so that 10 has something to compare with.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::Check;
use crate::base::fault::Failure;
use crate::base::permit::Permit;
use crate::blueprint::machine::Machine;
use crate::engine::step::{Outlook, Risk, Seen, Step};
use crate::estate::Estate;

use super::measure::{Before, Measuring};
use super::params::Measure;

/// Measures how fast the drives are before they are moved.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MeasureBefore {
    /// The node.
    pub machine: Machine,
    /// How; None: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measure: Option<Measure>,
}

impl Step<Estate> for MeasureBefore {
    const ID: &'static str = "01a-measure-before";
    const RISK: Risk = Risk::Reverts;
    type Before = Before;

    fn title(&self) -> String {
        format!("how fast the drives of {} are before the move is known", self.machine.name)
    }

    fn why(&self) -> Vec<String> {
        let own = "In another slot a drive may have fewer lanes, or share them; whether it is as fast as before only a measurement before tells.";
        std::iter::once(own.to_owned()).chain(self.measuring().why()).collect()
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(120)
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        self.measuring().outlook()
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        self.measuring().check(cx, seen).await
    }

    async fn apply(&self, cx: &Estate, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        Box::pin(self.measuring().apply(cx, seen, permit)).await
    }

    async fn back(&self, cx: &Estate, _: &Before, seen: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        self.measuring().back(cx, seen).await
    }

    async fn undo(&self, cx: &Estate, _: &Before, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        self.measuring().remove(cx, seen.run, permit).await
    }
}

impl MeasureBefore {
    fn measuring(&self) -> Measuring<'_> {
        Measuring { machine: &self.machine, how: &self.measure, id: Self::ID, than: None }
    }
}
