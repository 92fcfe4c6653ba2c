//! 05: a node is part of the cluster: with a vote in etcd where it is a control plane, and booted through.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::Check;
use crate::base::fault::Failure;
use crate::blueprint::install::{Bare, join};
use crate::blueprint::quorum::Peer;
use crate::engine::step::{Risk, Seen, Step};
use crate::estate::Estate;

/// Waits until one node is part of the cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JoinCluster {
    /// The machine.
    pub bare: Bare,
    /// All nodes of its cluster.
    pub peers: Vec<Peer>,
}

/// Nothing is owed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {}

impl Step<Estate> for JoinCluster {
    const ID: &'static str = "05-join";
    const RISK: Risk = Risk::Reads;
    type Before = Before;

    fn instance(&self) -> Option<String> {
        Some(self.bare.name().to_owned())
    }

    fn title(&self) -> String {
        format!("{} is part of {}", self.bare.name(), self.bare.machine.cluster)
    }

    fn why(&self) -> Vec<String> {
        join::why(&self.bare)
    }

    fn limit(&self) -> Duration {
        join::LIMIT
    }

    async fn check(&self, cx: &Estate, _: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        join::check(cx, &self.bare, &self.peers).await
    }
}
