//! `node-reboot-test`: every node of a Talos cluster is drained, mended where its image or modules are wrong, rebooted
//! through its firmware, and looked at until all of it is up again; one at a time, the less important ones first.
//!
//! The steps are those of one node, again and again: a step's instance is the node's name in the site file.

mod alone;
mod fold_back;
mod installer;
mod mend_image;
mod on;
pub mod params;
mod repair;
mod rights;
mod s00_preflight;
mod s01_quorum_gate;
mod s02_drain;
mod s03_repair;
mod s04_reboot;
mod s05_verify_boot;
mod s06_uncordon;
mod sight;

use super::{Blueprint, BoxedStep, Row};
use crate::site::Site;
use crate::site::fields::Item;

use params::Params;

pub use s00_preflight::Preflight;
pub use s01_quorum_gate::QuorumGate;
pub use s02_drain::DrainNode;
pub use s03_repair::RepairNode;
pub use s04_reboot::RebootNode;
pub use s05_verify_boot::VerifyBoot;
pub use s06_uncordon::UncordonNode;

/// The blueprint.
pub const BLUEPRINT: Blueprint = Blueprint {
    name: "node-reboot-test",
    version: 1,
    summary: "reboot the nodes of a Talos cluster one by one, and prove that each comes back whole",
    world: "talos-three",
    rows: ROWS,
    findings: s00_preflight::known::ALL,
    params: params::PARAMS,
    build,
    alone: alone::step,
    fold_back: fold_back::fold_back,
    rights: |site, item| Some(rights::of(&Params::read(site, item)?)),
    usually: |_, _| None,
};

const NODE: super::Flag = ("node", "/machine/name", "the node, by its name in the site file");

/// The list of one node, behind the preflight of all.
const ROWS: &[Row] = &[
    Row::of::<Preflight>(&[], &[]),
    Row::of::<QuorumGate>(&[], &[NODE]).stays(),
    Row::of::<DrainNode>(&[], &[NODE]),
    Row::of::<RepairNode>(&[], &[NODE]),
    Row::of::<RebootNode>(&[], &[NODE]).stays(),
    Row::of::<VerifyBoot>(&[], &[NODE]),
    Row::of::<UncordonNode>(&[], &[NODE]),
];

fn build(site: &Site, item: &Item<'_>) -> Option<Vec<BoxedStep>> {
    let p = Params::read(site, item)?;
    let mut steps: Vec<BoxedStep> = vec![Box::new(Preflight::from(&p))];
    for machine in &p.nodes {
        let (machine, peers) = (machine.clone(), p.peers.clone());
        let image = p.images.get(&machine.name).cloned();
        steps.push(Box::new(QuorumGate { machine: machine.clone(), peers: peers.clone() }));
        steps.push(Box::new(DrainNode { machine: machine.clone() }));
        steps.push(Box::new(RepairNode { machine: machine.clone(), peers: peers.clone(), repair: p.repair, image }));
        steps.push(Box::new(RebootNode { machine: machine.clone(), peers: peers.clone(), staged: p.staged }));
        steps.push(Box::new(VerifyBoot { machine: machine.clone(), peers }));
        steps.push(Box::new(UncordonNode { machine }));
    }
    Some(steps)
}
