//! The parameters of a `quorum-recover`, read from the site file and resolved.

use std::collections::BTreeMap;

use crate::blueprint::machine::Machine;
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

const KEYS: &[&str] = &["talos", "from", "nodes", "lost", "snapshot", "saves"];

impl Params {
    /// Reads the parameters; what is wrong goes into the item's sink.
    pub fn read(site: &Site, item: &Item<'_>) -> Option<Self> {
        let fields = item.fields(KEYS);
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
