//! One step from flags alone, for a site that has no migration for it.

use crate::blueprint::machine::Machine;
use crate::blueprint::{BoxedStep, Given};
use crate::site::Site;

use super::{DrainNode, QuorumGate, RebootNode, UncordonNode, VerifyBoot};

/// Builds the step.
///
/// # Errors
/// Everything that is missing or wrong, a line each.
pub(super) fn step(site: &Site, id: &str, given: &Given) -> Result<BoxedStep, Vec<String>> {
    let Some(name) = &given.node else { return Err(vec!["--node is missing".into()]) };
    let Some(machine) = Machine::of(site, name) else {
        let known: Vec<_> = site.talos.values().flat_map(|cluster| cluster.nodes.keys()).map(String::as_str).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(vec![format!("the site has no Talos node {name}; there is {known}")]);
    };
    let peers = Machine::peers(site, &machine.cluster);
    Ok(match id {
        "01-quorum-gate" => Box::new(QuorumGate { machine, peers }),
        "02-drain" => Box::new(DrainNode { machine }),
        "04-reboot" => Box::new(RebootNode { machine, peers, staged: false }),
        "05-verify-boot" => Box::new(VerifyBoot { machine, peers }),
        "06-uncordon" => Box::new(UncordonNode { machine }),
        _ => return Err(vec!["it needs more than flags can say: a migration in the site file".into()]),
    })
}
