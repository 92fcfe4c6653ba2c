//! 07: the cluster is whole: every node for Talos, for its kubelet and for etcd.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::Check;
use crate::base::fault::Failure;
use crate::blueprint::install::whole;
use crate::blueprint::machine::Machine;
use crate::blueprint::quorum::Peer;
use crate::engine::step::{Risk, Seen, Step};
use crate::estate::Estate;

/// Looks at all nodes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VerifyCluster {
    /// The Talos cluster's name in the site file.
    pub cluster: String,
    /// The nodes.
    pub machines: Vec<Machine>,
    /// All nodes of the cluster.
    pub peers: Vec<Peer>,
}

/// Nothing is owed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {}

impl Step<Estate> for VerifyCluster {
    const ID: &'static str = "07-verify";
    const RISK: Risk = Risk::Reads;
    type Before = Before;

    fn title(&self) -> String {
        format!("{} is whole, on {}", self.cluster, self.names().join(", "))
    }

    fn why(&self) -> Vec<String> {
        vec![
            "Stage, readiness, services and static pods of each node by Talos; Ready by its kubelet, for the boot that it is in; a \
             vote in etcd, no alarm, and one leader that all of them know."
                .into(),
            "That each node comes back from a reboot is what `node-reboot-test` shows: a migration of its own.".into(),
            "By hand: `talosctl health`, `kubectl get nodes`, `talosctl etcd status`; or `pvemig survey`, which shows all of it."
                .into(),
        ]
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(600)
    }

    async fn check(&self, cx: &Estate, _: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let (lines, votes) = whole::lacking(cx, &self.cluster, &self.machines, &self.peers).await?;
        Ok(if lines.is_empty() { Check::done().notes(votes) } else { Check::waiting(lines.join("; ")) })
    }
}

impl VerifyCluster {
    fn names(&self) -> Vec<&str> {
        self.machines.iter().map(|machine| machine.name.as_str()).collect()
    }
}
