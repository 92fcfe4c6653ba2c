//! The parameters of a `node-replace`, read from the site file and resolved.

use crate::blueprint::install::{NODE, node};
use crate::blueprint::machine::Machine;
use crate::blueprint::param::{Param, keys};
use crate::site::Site;
use crate::site::fields::Item;

use super::swap::Swap;

/// All of it.
#[derive(Debug, Clone)]
pub struct Params {
    /// What goes and what comes.
    pub swap: Swap,
    /// All nodes of the cluster in the site file, but for the one that is not there any more in the end.
    pub machines: Vec<Machine>,
}

/// How they are written.
pub const PARAMS: &[Param] = &[
    Param::need("talos", "the Talos cluster, by its name under `talos:`", "homelab"),
    Param::need("old", "the node that goes, a control plane or a worker, alive or dead", "talos-mac"),
    Param::need(
        "new",
        "the machine that comes, by a node of `talos:` too: of another name, or the same where it takes name and address over",
        "{ node: talos-mac, config: ./controlplane.yaml, disk: SERIAL }",
    )
    .of(NODE),
    Param::may(
        "decrypt",
        "the command that prints a configuration decrypted; the file's name comes behind it",
        "[sops, --decrypt]",
        "the files are read as they are",
    ),
];

impl Params {
    /// Reads the parameters; what is wrong goes into the item's sink.
    pub fn read(site: &Site, item: &Item<'_>) -> Option<Self> {
        let fields = item.fields(&keys(PARAMS));
        let cluster = fields
            .need("talos", "name a Talos cluster of `talos:`")
            .and_then(|i| i.name_of("a Talos cluster", site.talos.keys().map(String::as_str)));
        let decrypt = fields.get("decrypt").map_or(Some(Vec::new()), |i| i.texts());
        let old = fields.need("old", "name the node that goes, one of that Talos cluster").and_then(|i| {
            let nodes = &site.talos.get(cluster.as_deref()?)?.nodes;
            i.name_of("a node of that Talos cluster", nodes.keys().map(String::as_str))
        });
        let help = "the node that comes, a node of the site file too: `{ node: talos-21, config: ./controlplane.yaml, disk: \
                    SERIAL }`; the same name as `old` where it takes that over";
        let new = fields
            .need("new", help)
            .and_then(|i| node(site, &i, cluster.as_deref(), decrypt.as_deref().unwrap_or_default(), old.as_deref()));
        let (cluster, old) = (cluster?, Machine::of(site, &old?)?);
        decrypt?;
        let new = new?;
        let swap = Swap { peers: Machine::peers(site, &cluster), worker: new.source.is_of_a_worker(), new, old };
        let goes = |name: &str| name == swap.old.name && !swap.same_name();
        let names = site.talos.get(&cluster)?.nodes.keys().filter(|name| !goes(name));
        let machines = names.filter_map(|name| Machine::of(site, name)).collect();
        Some(Self { swap, machines })
    }
}
