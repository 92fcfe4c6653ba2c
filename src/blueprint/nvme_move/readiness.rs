//! What served before anything was moved: what did not is not asked for afterwards.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::base::fault::Failure;
use crate::blueprint::backup::kept;
use crate::blueprint::machine::Machine;
use crate::engine::step::RunInfo;
use crate::estate::Estate;
use crate::talos::kind;

use super::on;

/// The file of 01.
pub(super) const READY: &str = "ready.json";

/// The volumes and pools of a node that served.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Readiness {
    /// The volumes that Talos called ready, by their ids.
    pub(super) volumes: BTreeSet<String>,
    /// The pools of Mayastor that were online, by their names.
    pub(super) pools: BTreeSet<String>,
}

/// Asks Talos, and where the cluster has Mayastor that.
///
/// # Errors
/// What keeps either from telling.
pub(super) async fn readiness(cx: &Estate, machine: &Machine) -> Result<Readiness, Failure> {
    let statuses = machine.open(cx).await?.list(&kind::VOLUME_STATUSES).await?;
    let pools = cx.kubernetes(&machine.node.cluster).await?.disk_pools().await?.unwrap_or_default();
    Ok(Readiness {
        volumes: statuses.into_iter().filter(|one| one.spec.phase == "ready").map(|one| one.id).collect(),
        pools: pools.into_iter().filter(|p| p.node == machine.node.name && p.is_online()).map(|p| p.name).collect(),
    })
}

/// What this run has kept of it; None: nothing, and all of it is asked for.
///
/// # Errors
/// It is there and cannot be read.
pub(super) fn former(run: &RunInfo) -> Result<Option<Readiness>, Failure> {
    let Some(bytes) = kept(run, on::BACKUP, READY, READY)? else { return Ok(None) };
    let read = serde_json::from_slice(&bytes);
    read.map(Some).map_err(|error| Failure::plain(format!("{READY} of this run cannot be read: {error}"), None))
}
