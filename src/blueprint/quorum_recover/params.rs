//! The parameters of a `quorum-recover`, read from the site file and resolved.

use std::collections::BTreeMap;

use crate::blueprint::machine::Machine;
use crate::blueprint::param::{Param, keys};
use crate::site::Site;
use crate::site::fields::{Fields, Item};

use super::Planes;
use super::copies::Copies;

/// All of it.
#[derive(Debug, Clone)]
pub struct Params {
    /// The control planes.
    pub planes: Planes,
    /// Where copies come from and go to.
    pub copies: Copies,
}

/// How they are written.
pub const PARAMS: &[Param] = &[
    Param::need("talos", "the Talos cluster, by its name under `talos:`", "homelab"),
    Param::need(
        "from",
        "the control plane whose etcd is kept and on which it begins again: it answers, and has its data; of several the one \
         that has the most",
        "talos-nuc",
    ),
    Param::may(
        "nodes",
        "the other control planes that answer: their etcd is copied and wiped, and they join the new one",
        "[talos-mac]",
        "none",
    ),
    Param::may(
        "lost",
        "the control planes that are gone and never come back with their old disk; each control plane is in one of `from`, \
         `nodes` and `lost`",
        "[talos-vm]",
        "none",
    ),
    Param::may(
        "snapshot",
        "a snapshot of etcd, or a raw `db` file, that it begins from in place of what `from` has",
        "./etcd-homelab.snapshot",
        "what `from` has",
    ),
    Param::may("saves", "a directory that gets the copies of 01 too", "./safe", "the run's own files alone"),
];

impl Params {
    /// Reads the parameters; what is wrong goes into the item's sink.
    pub fn read(site: &Site, item: &Item<'_>) -> Option<Self> {
        let fields = item.fields(&keys(PARAMS));
        let cluster = fields
            .need("talos", "name a Talos cluster of `talos:`")
            .and_then(|i| i.name_of("a Talos cluster", site.talos.keys().map(String::as_str)));
        let mut said = BTreeMap::new();
        let mut node = |item: &Item<'_>, key: &'static str| {
            let nodes = &site.talos.get(cluster.as_deref()?)?.nodes;
            let name = item.name_of("a node of that Talos cluster", nodes.keys().map(String::as_str))?;
            if let Some(former) = said.insert(name.clone(), key) {
                let help = "each control plane is in one of `from`, `nodes` and `lost`";
                item.problem(format!("`{name}` is in `{former}` already"), help);
                return None;
            }
            Machine::of(site, &name)
        };
        let from = fields
            .need("from", "name the control plane whose etcd is kept, and on which it begins again")
            .and_then(|item| node(&item, "from"));
        let nodes = several(&fields, "nodes", &mut node);
        let lost = several(&fields, "lost", &mut node);
        let file = |key: &str| match fields.get(key) {
            None => Some(None),
            Some(item) => site.place(&item).map(Some),
        };
        let (snapshot, saves) = (file("snapshot"), file("saves"));
        let cluster = cluster?;
        let peers = Machine::peers(site, &cluster);
        Some(Self {
            planes: Planes { cluster, from: from?, nodes: nodes?, lost: lost?, peers },
            copies: Copies { snapshot: snapshot?, saves: saves? },
        })
    }
}

fn several(
    fields: &Fields<'_>,
    key: &'static str,
    node: &mut impl FnMut(&Item<'_>, &'static str) -> Option<Machine>,
) -> Option<Vec<Machine>> {
    let Some(item) = fields.get(key) else { return Some(Vec::new()) };
    let list = item.list()?;
    let read: Vec<Machine> = list.iter().filter_map(|item| node(item, key)).collect();
    (read.len() == list.len()).then_some(read)
}
