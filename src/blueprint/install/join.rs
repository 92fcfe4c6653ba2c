//! A node is part of the cluster: with a vote in etcd where it is a control plane, and booted through.

use std::time::Duration;

use crate::base::check::Check;
use crate::base::fault::Failure;
use crate::blueprint::quorum::{Peer, amiss, apart, look, votes};
use crate::blueprint::stand::missing;
use crate::estate::Estate;
use crate::talos::kind;

use super::Bare;

/// How long a boot and a join may take.
pub const LIMIT: Duration = Duration::from_secs(900);

/// Lines for `explain`.
pub fn why(bare: &Bare) -> Vec<String> {
    vec![
            "A control plane joins etcd as a learner, and gets its vote when it has caught up. Until then the next one is not \
             begun: etcd takes one learner at a time, and two half-joined members are how a majority is lost."
                .into(),
            "Talos calls a node running when its services and static pods are; the kubelet alone says Ready much earlier.".into(),
            format!(
                "By hand: {}, {}.",
                bare.machine.talosctl("etcd members"),
                bare.machine.talosctl("get machinestatus")
            ),
        ]
}

/// Whether one node is part of the cluster.
///
/// # Errors
/// What keeps it from telling.
pub async fn check<B>(cx: &Estate, bare: &Bare, peers: &[Peer]) -> Result<Check<B>, Failure> {
    let (name, machine) = (bare.name(), &bare.machine);
    let talos = machine.open(cx).await?;
    let asked = futures::try_join!(talos.single(&kind::MACHINE_STATUS), talos.services());
    let (status, services) = match asked {
        Err(error) if error.is_down() => return Ok(Check::waiting(error.to_string())),
        other => other?,
    };
    let etcd = look(cx, &machine.cluster, peers).await;
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
