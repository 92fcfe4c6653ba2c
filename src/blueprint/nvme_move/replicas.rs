//! What Mayastor keeps on the node is elsewhere too: asked by 00, and once more by 03 right before the machine goes off.

use crate::base::check::Problem;
use crate::base::fault::Failure;
use crate::blueprint::Known;
use crate::blueprint::finding::{Asked, asked};
use crate::blueprint::machine::Machine;
use crate::estate::Estate;
use crate::k8s::mayastor::{DiskPool, MayastorVolume};

use super::known;

/// What Mayastor says.
pub(super) struct Mayastor {
    pub(super) pools: Vec<DiskPool>,
    pub(super) volumes: Asked<Vec<MayastorVolume>>,
}

/// Asks for it; None: the cluster has none.
///
/// # Errors
/// What keeps Kubernetes from telling.
pub(super) async fn ask(cx: &Estate, machine: &Machine) -> Result<Option<Mayastor>, Failure> {
    let kube = cx.kubernetes(&machine.node.cluster).await?;
    let Some(pools) = kube.disk_pools().await? else { return Ok(None) };
    let Some(first) = pools.first() else { return Ok(None) };
    let volumes = asked(kube.mayastor_volumes(&first.namespace).await);
    Ok(Some(Mayastor { pools, volumes }))
}

/// Why a node must not go off, by the volumes.
pub(super) fn amiss(node: &str, volumes: &[MayastorVolume]) -> Vec<(&'static Known, Problem)> {
    let mut out: Vec<(&'static Known, Problem)> = Vec::new();
    for volume in volumes {
        if volume.rebuilds() {
            let text = format!("volume {} of Mayastor is being rebuilt", volume.uuid);
            let help = "wait for its end (`kubectl mayastor get rebuild-history`), and look again";
            out.push((&known::REBUILD, Problem::new(text, help)));
        }
        if volume.may_be_on(node) && volume.sound_elsewhere(node).next().is_none() {
            let text = format!("volume {} of Mayastor has no sound replica on another node than {node}", volume.uuid);
            let help = "add a replica on another node, and let it be rebuilt: `kubectl mayastor scale volume UUID 2`";
            out.push((&known::REPLICAS, Problem::new(text, help)));
        }
    }
    out
}
