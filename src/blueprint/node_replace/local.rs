//! Volumes whose data is on the disks of the old machine: it goes with them.

use crate::base::check::Problem;
use crate::base::fault::Failure;
use crate::base::permit::Thing;
use crate::engine::step::RunInfo;
use crate::estate::Estate;
use crate::k8s::drain::Surroundings;
use crate::k8s::volume::DataAt;

use super::swap::Swap;

/// All of them: what they are called, and a line for each.
pub(super) fn volumes(swap: &Swap, round: &Surroundings) -> Vec<(Thing, String)> {
    let mut all = Vec::new();
    for volume in &round.volumes {
        let claim = volume.claim.as_ref().and_then(|of| {
            round.claims.iter().find(|claim| claim.meta.namespace == of.namespace && claim.meta.name == of.name)
        });
        let DataAt::Nodes(nodes) = volume.placement_for(claim, &round.nodes).data else { continue };
        if !nodes.iter().any(|node| node == swap.host()) {
            continue;
        }
        let name = &volume.meta.name;
        let of = volume.claim.as_ref().map(|of| format!(", of claim {}/{}", of.namespace, of.name)).unwrap_or_default();
        let text =
            format!("volume {name}{of} ({}) is on the disks of {}, and goes with them", volume.capacity, swap.goer());
        all.push((Thing::volume(name), text));
    }
    all
}

/// What to do about one that nobody gave.
pub(super) fn help(thing: &Thing) -> String {
    format!("copy its data to another volume first; add `--destroy {thing}` where it may be lost")
}

/// Those that nobody said may be lost.
///
/// # Errors
/// What keeps Kubernetes from answering.
pub(super) async fn unconsented(cx: &Estate, swap: &Swap, run: &RunInfo) -> Result<Vec<Problem>, Failure> {
    let round = cx.kubernetes(&swap.old.node.cluster).await?.surroundings().await?;
    let all = volumes(swap, &round).into_iter().filter(|(thing, _)| !run.consents.contains(thing));
    Ok(all.map(|(thing, text)| Problem::new(text, help(&thing))).collect())
}
