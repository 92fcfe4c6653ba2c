//! A cluster is whole: every node for Talos, for its kubelet and for etcd.

use std::collections::BTreeSet;

use futures::future::join_all;

use crate::base::fault::Failure;
use crate::blueprint::machine::Machine;
use crate::blueprint::quorum::{Peer, amiss, apart, look, unwell, votes};
use crate::blueprint::stand::{kubelet, may_pass, missing};
use crate::estate::Estate;
use crate::talos::kind;

/// What is missing, a line each, and the votes of etcd.
///
/// # Errors
/// What keeps a node from telling, where that does not pass.
pub async fn lacking(
    cx: &Estate,
    cluster: &str,
    machines: &[Machine],
    peers: &[Peer],
) -> Result<(Vec<String>, Option<String>), Failure> {
    let etcd = look(cx, cluster, peers).await;
    let each = join_all(machines.iter().map(|machine| of_one(cx, machine))).await;
    let mut lines = Vec::new();
    for (machine, found) in machines.iter().zip(each) {
        match found {
            Ok(found) => lines.extend(found),
            Err(failure) if may_pass(&failure) => lines.push(failure.to_string()),
            Err(failure) => return Err(failure),
        }
        lines.extend(amiss(&machine.name, &etcd).map(|problem| problem.text));
    }
    lines.extend(apart(&etcd).into_iter().map(|problem| problem.text));
    lines.extend(unwell(&etcd));
    lines.extend(etcd.alarms());
    let mut said = BTreeSet::new();
    lines.retain(|line| said.insert(line.clone()));
    let votes = votes(&etcd).map(|votes| format!("etcd has {votes}"));
    Ok((lines, votes))
}

/// What one node misses.
async fn of_one(cx: &Estate, machine: &Machine) -> Result<Vec<String>, Failure> {
    let talos = machine.open(cx).await?;
    let (status, services, boot) =
        futures::try_join!(talos.single(&kind::MACHINE_STATUS), talos.services(), talos.this_boot())?;
    let status = status.map(|status| status.spec).unwrap_or_default();
    let mut lines = missing(machine, &status, &services);
    let node = cx.kubernetes(&machine.node.cluster).await?.node(&machine.node.name).await?;
    lines.extend(kubelet(machine, node.as_ref(), &boot));
    Ok(lines)
}
