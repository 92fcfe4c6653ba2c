//! `cluster-build`: machines that wait for their first configuration become the nodes of a Talos cluster; one of them
//! begins etcd, the others join it one at a time.
//!
//! The steps 01 to 03 and 05 are those of one machine, with its name in the site file as instance.

mod keep;
mod known;
mod kubeconfig;
mod on;
mod own_file;
pub mod params;
mod rights;
mod s00_preflight;
mod s01_check_disks;
mod s02_apply_config;
mod s03_wait_installed;
mod s04_bootstrap;
mod s05_join;
mod s06_kubeconfig;
mod s07_verify;
mod s08_safekeeping;
mod talosconfig;

use super::{Blueprint, BoxedStep, Given, Row};
use crate::site::Site;
use crate::site::fields::Item;

use params::Params;

pub use super::install::{Bare, Source};
pub use keep::Keep;
pub use s00_preflight::Preflight;
pub use s01_check_disks::CheckDisks;
pub use s02_apply_config::ApplyConfig;
pub use s03_wait_installed::WaitInstalled;
pub use s04_bootstrap::Bootstrap;
pub use s05_join::JoinCluster;
pub use s06_kubeconfig::MergeKubeconfig;
pub use s07_verify::VerifyCluster;
pub use s08_safekeeping::Safekeeping;
pub use talosconfig::Addresses;

/// The blueprint.
pub const BLUEPRINT: Blueprint = Blueprint {
    name: "cluster-build",
    version: 1,
    summary: "make a Talos cluster of machines that wait for their first configuration",
    world: "talos-fresh",
    rows: ROWS,
    findings: known::ALL,
    params: params::PARAMS,
    build,
    alone,
    fold_back: |_, _| Vec::new(),
    rights: |site, item| Some(rights::of(&Params::read(site, item)?)),
    usually: |_, _| None,
};

const NODE: super::Flag = ("node", "/bare/machine/name", "the node, by its name in the site file");

const ROWS: &[Row] = &[
    Row::of::<Preflight>(&[], &[]),
    Row::of::<CheckDisks>(&[], &[NODE]).asks(),
    Row::of::<ApplyConfig>(&[], &[NODE]),
    Row::of::<WaitInstalled>(&[], &[NODE]).asks(),
    Row::of::<Bootstrap>(&[], &[]).stays(),
    Row::of::<JoinCluster>(&[], &[NODE]),
    Row::of::<MergeKubeconfig>(&[], &[]),
    Row::of::<VerifyCluster>(&[], &[]),
    Row::of::<Safekeeping>(&[], &[]).asks(),
];

/// All disks are looked at before anything is written to one. Then the first machine becomes a cluster of one, and each
/// other one joins it before the next is begun: etcd has room for one learner.
fn build(site: &Site, item: &Item<'_>) -> Option<Vec<BoxedStep>> {
    let p = Params::read(site, item)?;
    let first = p.first()?.clone();
    let to = site.kubernetes.get(&site.talos.get(&p.cluster)?.kubernetes)?;
    let files = vec![to.kubeconfig.clone(), site.talos.get(&p.cluster)?.talosconfig.clone()];
    let mut steps: Vec<BoxedStep> = vec![Box::new(Preflight { files, ..Preflight::from(&p) })];
    for bare in &p.machines {
        steps.push(Box::new(CheckDisks { bare: bare.clone() }));
    }
    for bare in &p.machines {
        let (peers, first) = (p.peers.clone(), *bare == first);
        let others: Vec<Bare> = p.machines.iter().filter(|other| first && *other != bare).cloned().collect();
        let (apply, others) = (others.clone(), others);
        steps.push(Box::new(ApplyConfig { bare: bare.clone(), peers: peers.clone(), first, others: apply }));
        steps.push(Box::new(WaitInstalled { bare: bare.clone() }));
        if first {
            steps.push(Box::new(Bootstrap { bare: bare.clone(), others, peers: peers.clone() }));
        }
        steps.push(Box::new(JoinCluster { bare: bare.clone(), peers }));
        // Whoever brings his own network to the cluster needs it early.
        if first {
            let (file, context) = (to.kubeconfig.clone(), to.context.clone());
            let talosconfig = Addresses {
                file: site.talos.get(&p.cluster)?.talosconfig.clone(),
                machines: p.machines.clone(),
                peers: p.peers.clone(),
            };
            let talosconfig = Some(talosconfig);
            steps.push(Box::new(MergeKubeconfig { machine: bare.machine.clone(), file, context, talosconfig }));
        }
    }
    let machines = p.machines.iter().map(|bare| bare.machine.clone()).collect();
    steps.push(Box::new(VerifyCluster { cluster: p.cluster.clone(), machines, peers: p.peers.clone() }));
    steps.push(Box::new(Safekeeping {
        cluster: p.cluster.clone(),
        site: site.path.clone(),
        talosconfig: site.talos.get(&p.cluster)?.talosconfig.clone(),
        kubeconfig: (to.kubeconfig.clone(), to.context.clone()),
        machines: p.machines.clone(),
        peers: p.peers.clone(),
        keep: p.keep.clone(),
    }));
    Some(steps)
}

/// The kubeconfigs that migrations of a site make, by the names of their Kubernetes clusters: until then they need not be
/// there.
pub fn makes(site: &Site) -> Vec<&str> {
    let build = |migration: &&crate::site::Migration| migration.blueprint == BLUEPRINT.name;
    let cluster = |params: &serde_json::Value| params.get("talos")?.as_str().and_then(|name| site.talos.get(name));
    let migrations = site.migrations.values().filter(build);
    migrations.filter_map(|migration| Some(cluster(&migration.params)?.kubernetes.as_str())).collect()
}

fn alone(_: &Site, _: &str, _: &Given) -> Result<BoxedStep, Vec<String>> {
    Err(vec!["it needs more than flags can say: a migration in the site file".into()])
}
