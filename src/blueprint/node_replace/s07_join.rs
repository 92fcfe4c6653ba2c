//! 07: the new machine is part of the cluster.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Check, Problem};
use crate::base::fault::Failure;
use crate::blueprint::install::asked::runs_from;
use crate::blueprint::install::{Stand, installed, join};
use crate::blueprint::stand::may_pass;
use crate::engine::step::{Risk, Seen, Step};
use crate::estate::Estate;

use super::on;
use super::swap::Swap;

/// Waits until the new machine is part of the cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JoinCluster {
    /// What goes and what comes.
    pub swap: Swap,
}

/// Nothing is owed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {}

impl Step<Estate> for JoinCluster {
    const ID: &'static str = "07-join";
    const RISK: Risk = Risk::Reads;
    type Before = Before;

    fn title(&self) -> String {
        format!(
            "{} runs from disk {}, as a part of {}",
            self.swap.new.name(),
            self.swap.new.disk,
            self.swap.old.cluster
        )
    }

    fn why(&self) -> Vec<String> {
        join::why(&self.swap.new)
    }

    /// It installs itself, goes through its firmware, and joins.
    fn limit(&self) -> Duration {
        join::LIMIT + Duration::from_secs(300)
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
        let (new, name) = (&self.swap.new, self.swap.new.name());
        let talos = match new.stand(cx).await? {
            Stand::Ours(talos) => talos,
            Stand::Silent(why) => return Ok(Check::waiting(format!("{name} comes up: {why}"))),
            Stand::Foreign => return Ok(Check::blocked(vec![new.foreign()])),
            Stand::Waits(_) => {
                let text = format!("{name} waits for a configuration");
                let help = "where it has been given one, its firmware started the stick again, or the installation failed: its \
                            console says which; put its disk first in the boot order, or take the stick out";
                return Ok(Check::blocked(vec![Problem::new(text, help).mended_by(on::APPLY)]));
            }
        };
        match installed::elsewhere(new, runs_from(&talos).await?.as_ref()) {
            None => join::check(cx, new, &self.swap.peers).await,
            Some(elsewhere) => Ok(elsewhere),
        }
    }
}
