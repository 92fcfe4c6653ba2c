//! `node-replace`: another machine becomes the node in the place of one, which is alive or dead, a control plane or a
//! worker; under a name of its own, or under the same.
//!
//! The order is that of votes: the old member is out of etcd, with its majority proven before, when the new one joins.

mod known;
mod local;
mod on;
pub mod params;
mod rights;
mod s00_preflight;
mod s01_snapshot;
mod s02_drain;
mod s03_leave_or_remove;
mod s04_shutdown;
mod s05_swap;
mod s06_apply;
mod s07_join;
mod s08_node_object;
mod s09_uncordon;
mod s10_verify;
mod shell;
mod sight;
mod swap;
mod word;

use super::{Blueprint, BoxedStep, Given, Row};
use crate::site::Site;
use crate::site::fields::Item;

use params::Params;

pub use s00_preflight::Preflight;
pub use s01_snapshot::TakeSnapshot;
pub use s02_drain::DrainNode;
pub use s03_leave_or_remove::LeaveEtcd;
pub use s04_shutdown::ShutDown;
pub use s05_swap::SwapMachine;
pub use s06_apply::ApplyConfig;
pub use s07_join::JoinCluster;
pub use s08_node_object::SettleNode;
pub use s09_uncordon::UncordonNode;
pub use s10_verify::VerifyCluster;
pub use swap::Swap;

/// The blueprint.
pub const BLUEPRINT: Blueprint = Blueprint {
    name: "node-replace",
    version: 1,
    summary: "put another machine in the place of a node of a Talos cluster",
    world: "talos-dead-node",
    rows: ROWS,
    findings: known::ALL,
    params: params::PARAMS,
    build,
    alone,
    fold_back: |_, _| Vec::new(),
    rights: |site, item| Some(rights::of(&Params::read(site, item)?.swap)),
    usually: |_, _| None,
};

const ROWS: &[Row] = &[
    Row::of::<Preflight>(&[], &[]),
    Row::of::<TakeSnapshot>(&[], &[]).stays(),
    Row::of::<DrainNode>(&[], &[]),
    Row::of::<LeaveEtcd>(&[], &[]),
    Row::of::<ShutDown>(&[], &[]).stays(),
    Row::of::<SwapMachine>(&[], &[]).asks(),
    Row::of::<ApplyConfig>(&[], &[]),
    Row::of::<JoinCluster>(&[], &[]),
    Row::of::<SettleNode>(&[], &[]),
    Row::of::<UncordonNode>(&[], &[]),
    Row::of::<VerifyCluster>(&[], &[]),
];

fn build(site: &Site, item: &Item<'_>) -> Option<Vec<BoxedStep>> {
    let p = Params::read(site, item)?;
    let swap = || p.swap.clone();
    Some(vec![
        Box::new(Preflight { swap: swap() }),
        Box::new(TakeSnapshot { swap: swap() }),
        Box::new(DrainNode { swap: swap() }),
        Box::new(LeaveEtcd { swap: swap() }),
        Box::new(ShutDown { swap: swap() }),
        Box::new(SwapMachine { swap: swap() }),
        Box::new(ApplyConfig { swap: swap() }),
        Box::new(JoinCluster { swap: swap() }),
        Box::new(SettleNode { swap: swap() }),
        Box::new(UncordonNode { swap: swap() }),
        Box::new(VerifyCluster { swap: swap(), machines: p.machines.clone() }),
    ])
}

fn alone(_: &Site, _: &str, _: &Given) -> Result<BoxedStep, Vec<String>> {
    Err(vec!["it needs more than flags can say: a migration in the site file".into()])
}
