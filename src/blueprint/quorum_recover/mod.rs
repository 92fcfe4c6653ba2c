//! `quorum-recover`: etcd of a Talos cluster has lost its majority for good. It begins again on one control plane from what
//! that one has, and the others join it.
//!
//! The steps 02 and 04 are those of one control plane, with its name in the site file as instance.

mod copies;
mod facts;
mod given;
mod judge;
mod known;
mod local;
mod lost;
mod on;
pub mod params;
mod rights;
mod s00_preflight;
mod s01_save_copy;
mod s02_wipe_etcd;
mod s03_recover;
mod s04_join;
mod s05_verify;

use serde::{Deserialize, Serialize};

use super::machine::Machine;
use super::quorum::Peer;
use super::{Blueprint, BoxedStep, Given, Row};
use crate::base::permit::Thing;
use crate::site::Site;
use crate::site::fields::Item;

use params::Params;

pub use copies::Copies;
pub use s00_preflight::Preflight;
pub use s01_save_copy::SaveCopy;
pub use s02_wipe_etcd::WipeEtcd;
pub use s03_recover::Recover;
pub use s04_join::Rejoin;
pub use s05_verify::VerifyRecovery;

/// The blueprint.
pub const BLUEPRINT: Blueprint = Blueprint {
    name: "quorum-recover",
    version: 1,
    summary: "lead a Talos cluster out of a lost etcd quorum, from what a survivor has",
    world: "talos-deadlock",
    rows: ROWS,
    findings: known::ALL,
    params: params::PARAMS,
    build,
    alone,
    fold_back: |_, _| Vec::new(),
    rights: |site, item| Some(rights::of(&Params::read(site, item)?.planes)),
    usually: |_, _| None,
};

const NODE: super::Flag = ("node", "/machine/name", "the control plane, by its name in the site file");

const ROWS: &[Row] = &[
    Row::of::<Preflight>(&[], &[]),
    Row::of::<SaveCopy>(&[], &[]).stays(),
    Row::of::<WipeEtcd>(&[], &[NODE]),
    Row::of::<Recover>(&[], &[]).stays(),
    Row::of::<Rejoin>(&[], &[NODE]),
    Row::of::<VerifyRecovery>(&[], &[]),
];

/// The control planes of a cluster, by what is to become of each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planes {
    /// The Talos cluster's name in the site file.
    pub cluster: String,
    /// The one whose etcd is kept, and on which it begins again.
    pub from: Machine,
    /// Those that join it.
    pub nodes: Vec<Machine>,
    /// Those that are gone.
    pub lost: Vec<Machine>,
    /// All nodes of the cluster.
    pub peers: Vec<Peer>,
}

impl Planes {
    /// That each of the lost machines never comes back with its disk, which a person may have to vouch for.
    fn vouched(&self) -> Vec<Thing> {
        self.lost.iter().map(|lost| Thing::gone(&lost.name)).collect()
    }

    /// Those that stay: the one that etcd begins on last, so that it has its data for as long as anything may fail.
    fn stay(&self) -> impl Iterator<Item = &Machine> {
        self.nodes.iter().chain([&self.from])
    }
}

fn names<'m>(machines: impl IntoIterator<Item = &'m Machine>) -> String {
    machines.into_iter().map(|machine| machine.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// All are wiped before etcd begins anew on one. While one of them had its old data, a machine that comes back would make
/// the majority of the old etcd with it, beside the new one.
fn build(site: &Site, item: &Item<'_>) -> Option<Vec<BoxedStep>> {
    let Params { planes, copies } = Params::read(site, item)?;
    let mut steps: Vec<BoxedStep> = vec![
        Box::new(Preflight { planes: planes.clone(), copies: copies.clone() }),
        Box::new(SaveCopy { planes: planes.clone(), copies: copies.clone() }),
    ];
    for machine in planes.stay() {
        steps.push(Box::new(WipeEtcd { machine: machine.clone(), planes: planes.clone() }));
    }
    steps.push(Box::new(Recover { planes: planes.clone() }));
    for machine in &planes.nodes {
        steps.push(Box::new(Rejoin { machine: machine.clone(), planes: planes.clone() }));
    }
    steps.push(Box::new(VerifyRecovery { planes }));
    Some(steps)
}

fn alone(_: &Site, _: &str, _: &Given) -> Result<BoxedStep, Vec<String>> {
    Err(vec!["it needs more than flags can say: a migration in the site file".into()])
}
