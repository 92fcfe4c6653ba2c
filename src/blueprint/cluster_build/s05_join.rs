//! 05: a node is part of the cluster: with a vote in etcd where it is a control plane, and booted through.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::Check;
use crate::base::fault::Failure;
use crate::blueprint::quorum::{Peer, amiss, apart, look, votes};
use crate::blueprint::stand::missing;
use crate::engine::step::{Risk, Seen, Step};
use crate::estate::Estate;
use crate::talos::kind;

use super::bare::Bare;

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
        vec![
            "A control plane joins etcd as a learner, and gets its vote when it has caught up. Until then the next one is not \
             begun: etcd takes one learner at a time, and two half-joined members are how a majority is lost."
                .into(),
            "Talos calls a node running when its services and static pods are; the kubelet alone says Ready much earlier.".into(),
            format!(
                "By hand: {}, {}.",
                self.bare.machine.talosctl("etcd members"),
                self.bare.machine.talosctl("get machinestatus")
            ),
        ]
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(900)
    }

    async fn check(&self, cx: &Estate, _: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let (name, machine) = (self.bare.name(), &self.bare.machine);
        let talos = machine.open(cx).await?;
        let asked = futures::try_join!(talos.single(&kind::MACHINE_STATUS), talos.services());
        let (status, services) = match asked {
            Err(error) if error.is_down() => return Ok(Check::waiting(error.to_string())),
            other => other?,
        };
        let etcd = look(cx, &machine.cluster, &self.peers).await;
        if let Some(problem) = amiss(name, &etcd) {
            return Ok(Check::waiting(problem.text));
        }
        if let Some(problem) = apart(&etcd).into_iter().next() {
            return Ok(Check::waiting(problem.text));
        }
        let mut status = status.map(|status| status.spec).unwrap_or_default();
        // A node is Ready once it has a network, and whoever brings his own (Cilium) needs the kubeconfig first: 07 asks.
        status.status.unmet_conditions.retain(|condition| condition.name != "nodeReady");
        status.status.ready |= status.status.unmet_conditions.is_empty();
        let lines = missing(machine, &status, &services);
        if !lines.is_empty() {
            return Ok(Check::waiting(lines.join("; ")));
        }
        Ok(Check::done().notes(votes(&etcd).map(|votes| format!("etcd has {votes}"))))
    }
}
