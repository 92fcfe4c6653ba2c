//! The parameters of a `cluster-build`, read from the site file and resolved.

use std::collections::BTreeSet;

use crate::blueprint::install::{Bare, NODE, command, node};
use crate::blueprint::machine::Machine;
use crate::blueprint::param::{Param, keys};
use crate::blueprint::quorum::Peer;
use crate::site::Site;
use crate::site::fields::Item;

use super::keep::{KEEP, Keep};

/// All of it.
#[derive(Debug, Clone)]
pub struct Params {
    /// The Talos cluster's name in the site file.
    pub cluster: String,
    /// The machines, in the order in which they become nodes; the first one is where etcd begins.
    pub machines: Vec<Bare>,
    /// All nodes of the cluster.
    pub peers: Vec<Peer>,
    /// What is to be kept, and where.
    pub keep: Option<Keep>,
}

/// How they are written.
pub const PARAMS: &[Param] = &[
    Param::need("talos", "the Talos cluster, by its name under `talos:`", "homelab"),
    Param::need(
        "nodes",
        "the machines in the order in which they become nodes, a control plane first: etcd begins on it",
        "[{ node: talos-nuc, config: ./controlplane.yaml, disk: SERIAL }]",
    )
    .of(NODE),
    Param::may(
        "decrypt",
        "the command that prints a configuration decrypted; the file's name comes behind it",
        "[sops, --decrypt]",
        "the files are read as they are",
    ),
    Param::may(
        "keep",
        "what must not be lost, which 08 looks at",
        "{ to: ./safe }",
        "only what the site file names is looked for",
    )
    .of(KEEP),
];

impl Params {
    /// Reads the parameters; what is wrong goes into the item's sink.
    pub fn read(site: &Site, item: &Item<'_>) -> Option<Self> {
        let fields = item.fields(&keys(PARAMS));
        let cluster = fields
            .need("talos", "name a Talos cluster of `talos:`")
            .and_then(|i| i.name_of("a Talos cluster", site.talos.keys().map(String::as_str)));
        let decrypt = fields.get("decrypt").map_or(Some(Vec::new()), |i| command(site, &i));
        let keep = fields.get("keep").map_or(Some(None), |i| Keep::read(site, &i).map(Some));
        let help = "a list of its nodes, a control plane first: `{ node: talos-20, config: ./controlplane.yaml, disk: SERIAL }`";
        let nodes = fields.need("nodes", help).and_then(|i| {
            let list = i.list()?;
            if list.is_empty() {
                i.problem("`nodes` is an empty list", help);
                return None;
            }
            let read = list
                .iter()
                .map(|item| node(site, item, cluster.as_deref(), decrypt.as_deref().unwrap_or_default(), None));
            let read: Vec<Option<Bare>> = read.collect();
            let mut said = (BTreeSet::new(), BTreeSet::new());
            for (item, bare) in list.iter().zip(&read) {
                let Some(bare) = bare else { continue };
                if !said.0.insert(bare.name().to_owned()) {
                    item.problem(format!("node `{}` is named twice", bare.name()), "each machine becomes one node");
                }
                if !said.1.insert(bare.disk.clone()) {
                    item.problem(
                        format!("the disk {} is named twice", bare.disk),
                        "each node has a disk of its own: `talosctl get disks --insecure -n ADDRESS` shows them",
                    );
                }
            }
            read.into_iter().collect::<Option<Vec<Bare>>>()
        });
        let cluster = cluster?;
        let peers = Machine::peers(site, &cluster);
        decrypt?;
        Some(Self { cluster, machines: nodes?, peers, keep: keep? })
    }

    /// The machine on which etcd begins.
    pub fn first(&self) -> Option<&Bare> {
        self.machines.first()
    }
}
