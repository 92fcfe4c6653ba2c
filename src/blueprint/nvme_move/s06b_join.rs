//! 06b: the node is part of its cluster again, with a new member of etcd where it is a control plane.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Check, Problem};
use crate::base::fault::Failure;
use crate::blueprint::install::asked::runs_from;
use crate::blueprint::install::{Stand, installed, join};
use crate::blueprint::quorum::Peer;
use crate::blueprint::stand::may_pass;
use crate::engine::step::{Risk, Seen, Step};
use crate::estate::Estate;

use super::anew::Anew;
use super::on;
use super::s02_drain::DrainNode;

/// Waits until the node is part of its cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JoinCluster {
    /// What it is installed anew with.
    pub anew: Anew,
    /// All nodes of its cluster.
    pub peers: Vec<Peer>,
}

/// Nothing is owed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {}

impl Step<Estate> for JoinCluster {
    const ID: &'static str = "06b-join";
    const RISK: Risk = Risk::Reads;
    /// It only looks, and asks no hold; its API may be down by our own doing all the same.
    const BLIND_TO: &'static [&'static str] = &[<DrainNode as Step<Estate>>::ID];
    type Before = Before;

    fn title(&self) -> String {
        let bare = &self.anew.bare;
        format!("{} runs from disk {}, as a part of {}", bare.name(), bare.disk, bare.machine.cluster)
    }

    fn why(&self) -> Vec<String> {
        join::why(&self.anew.bare)
    }

    fn limit(&self) -> Duration {
        join::LIMIT
    }

    async fn check(&self, cx: &Estate, _: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        match self.look(cx).await {
            Err(failure) if may_pass(&failure) => Ok(Check::waiting(failure.to_string())),
            other => other,
        }
    }
}

impl JoinCluster {
    async fn look(&self, cx: &Estate) -> Result<Check<Before>, Failure> {
        let (bare, name) = (&self.anew.bare, self.anew.bare.name());
        let talos = match bare.stand(cx).await? {
            Stand::Ours(talos) => talos,
            Stand::Silent(why) => return Ok(Check::waiting(format!("{name} comes up: {why}"))),
            Stand::Foreign => return Ok(Check::blocked(vec![bare.foreign()])),
            Stand::Waits(_) => {
                let text = format!("{name} waits for a configuration");
                let help = "its firmware started the stick again, or the installation failed: its console says which; take the stick \
                            out, or put its disk first in the boot order";
                return Ok(Check::blocked(vec![Problem::new(text, help).mended_by(on::INSTALL)]));
            }
        };
        match installed::elsewhere(bare, runs_from(&talos).await?.as_ref()) {
            None => join::check(cx, bare, &self.peers).await,
            Some(elsewhere) => Ok(elsewhere),
        }
    }
}
