//! 00: everything that can be known beforehand to keep a machine from taking the place of another.

mod ask;
mod comer;
mod endpoint;
mod find;
mod node;
mod source;
mod voters;

use serde::{Deserialize, Serialize};

use crate::base::check::Check;
use crate::base::fault::Failure;
use crate::blueprint::finding;
use crate::engine::step::{Risk, Seen, Step};
use crate::estate::Estate;

use super::swap::Swap;

/// Looks at everything that the steps need.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Preflight {
    /// What goes and what comes.
    pub swap: Swap,
}

/// Nothing is owed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {}

impl Step<Estate> for Preflight {
    const ID: &'static str = "00-preflight";
    const RISK: Risk = Risk::Reads;
    type Before = Before;

    fn title(&self) -> String {
        format!("nothing is in the way of putting {} in the place of {}", self.swap.comer(), self.swap.goer())
    }

    fn why(&self) -> Vec<String> {
        vec![
            "The votes are counted as they are, without the old member, and with the new one: what would leave etcd without a \
             majority is refused here, while nothing is changed."
                .into(),
            "A machine is dead where Talos does not answer, its kubelet has been silent for long, and its VM does not run. What does \
             not answer for another reason is not called dead."
                .into(),
            "What goes with the old machine is named: volumes on its disks, labels that somebody set by hand, pods that nothing makes \
             anew."
                .into(),
            "All consents are asked for before the first change: a run that stops half-way for one leaves etcd a voter short.".into(),
        ]
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let facts = ask::gather(&self.swap, cx).await;
        Ok(finding::check(find::all(&self.swap, &facts, seen.run)))
    }
}
