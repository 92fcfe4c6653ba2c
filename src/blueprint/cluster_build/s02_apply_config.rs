//! 02: a machine that waits is given its configuration, which has it install itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::Check;
use crate::base::fault::Failure;
use crate::base::names::StepKey;
use crate::base::permit::Permit;
use crate::blueprint::install::{Apply, Bare, apply};
use crate::blueprint::quorum::Peer;
use crate::engine::step::{Outlook, Risk, Seen, Step};
use crate::estate::Estate;

use crate::blueprint::install::apply::Before;

/// Gives one machine its configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApplyConfig {
    /// The machine.
    pub bare: Bare,
    /// All nodes of its cluster.
    pub peers: Vec<Peer>,
    /// It is the one on which etcd begins: before it there is none to join, which all others have to show.
    pub first: bool,
    /// The other machines of this migration.
    pub others: Vec<Bare>,
}

impl Step<Estate> for ApplyConfig {
    const ID: &'static str = "02-apply-config";
    const RISK: Risk = Risk::Destroys;
    type Before = Before;

    fn instance(&self) -> Option<String> {
        Some(self.bare.name().to_owned())
    }

    fn title(&self) -> String {
        format!("{} has its machine configuration", self.bare.name())
    }

    fn why(&self) -> Vec<String> {
        let typed = format!("{} {}", apply::by_hand(&self.bare), apply::reset(&self.bare));
        [apply::why(&self.bare), vec![typed]].concat()
    }

    fn limit(&self) -> Duration {
        apply::LIMIT
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        apply::outlook(&self.bare)
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        self.core().check(cx, seen).await
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
        let key = StepKey::new(<Self as Step<Estate>>::ID, Some(self.bare.name()));
        Apply { key, bare: &self.bare, peers: &self.peers, first: self.first, others: &self.others, way_back: None }
    }
}
