//! 07: the cluster is whole: every node for Talos, for its kubelet and for etcd.

use std::time::Duration;

use futures::future::join_all;
use serde::{Deserialize, Serialize};

use crate::base::check::Check;
use crate::base::fault::Failure;
use crate::blueprint::machine::Machine;
use crate::blueprint::quorum::{Peer, amiss, apart, look, votes};
use crate::blueprint::stand::{kubelet, may_pass, missing};
use crate::engine::step::{Risk, Seen, Step};
use crate::estate::Estate;
use crate::talos::kind;

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
        let etcd = look(cx, &self.cluster, &self.peers).await;
        let each = join_all(self.machines.iter().map(|machine| lacking(cx, machine))).await;
        let mut lines = Vec::new();
        for (machine, found) in self.machines.iter().zip(each) {
            match found {
                Ok(found) => lines.extend(found),
                Err(failure) if may_pass(&failure) => lines.push(failure.to_string()),
                Err(failure) => return Err(failure),
            }
            lines.extend(amiss(&machine.name, &etcd).map(|problem| problem.text));
        }
        lines.extend(apart(&etcd).into_iter().map(|problem| problem.text));
        lines.extend(etcd.alarms());
        if lines.is_empty() {
            let votes = votes(&etcd).map(|votes| format!("etcd has {votes}"));
            return Ok(Check::done().notes(votes));
        }
        Ok(Check::waiting(lines.join("; ")))
    }
}

impl VerifyCluster {
    fn names(&self) -> Vec<&str> {
        self.machines.iter().map(|machine| machine.name.as_str()).collect()
    }
}

/// What one node misses.
async fn lacking(cx: &Estate, machine: &Machine) -> Result<Vec<String>, Failure> {
    let talos = machine.open(cx).await?;
    let (status, services, boot) =
        futures::try_join!(talos.single(&kind::MACHINE_STATUS), talos.services(), talos.this_boot())?;
    let status = status.map(|status| status.spec).unwrap_or_default();
    let mut lines = missing(machine, &status, &services);
    let node = cx.kubernetes(&machine.node.cluster).await?.node(&machine.node.name).await?;
    lines.extend(kubelet(machine, node.as_ref(), &boot));
    Ok(lines)
}
