//! The parameters of a `node-reboot-test`, read from the site file and resolved.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::schematic::FactoryImage;
use crate::blueprint::machine::Machine;
use crate::blueprint::param::{Param, keys};
use crate::blueprint::quorum::Peer;
use crate::site::Site;
use crate::site::fields::Item;

/// All of it.
#[derive(Debug, Clone)]
pub struct Params {
    /// The Talos cluster's name in the site file.
    pub cluster: String,
    /// The nodes, in the order in which they are rebooted.
    pub nodes: Vec<Machine>,
    /// All nodes of the cluster.
    pub peers: Vec<Peer>,
    /// Whether what is wrong with a node's image and modules is mended.
    pub repair: bool,
    /// Whether a machine configuration that is staged on a node may come into effect with its reboot.
    pub staged: bool,
    /// Installer images by node, for those that need another one.
    pub images: BTreeMap<String, String>,
}

/// How they are written.
pub const PARAMS: &[Param] = &[
    Param::need("talos", "the Talos cluster, by its name under `talos:`", "homelab"),
    Param::need(
        "nodes",
        "the nodes in the order of their reboots: the less important ones first, workers before control planes",
        "[talos-mac, talos-vm, talos-nuc]",
    ),
    Param::may("repair", "whether what is wrong with a node's image and kernel modules is mended", "true", "false"),
    Param::may(
        "staged",
        "whether a machine configuration that is staged on a node may come into effect with its reboot",
        "true",
        "false",
    ),
    Param::may(
        "images",
        "installer images by node, for those that need another one than their configuration names",
        "{ talos-vm: factory.talos.dev/nocloud-installer/SCHEMATIC:v1.11.5 }",
        "what each configuration names",
    ),
];

impl Params {
    /// Reads the parameters; what is wrong goes into the item's sink.
    pub fn read(site: &Site, item: &Item<'_>) -> Option<Self> {
        let fields = item.fields(&keys(PARAMS));
        let cluster = fields
            .need("talos", "name a Talos cluster of `talos:`")
            .and_then(|i| i.name_of("a Talos cluster", site.talos.keys().map(String::as_str)));
        let known = || {
            let cluster = cluster.as_ref().and_then(|name| site.talos.get(name));
            cluster.into_iter().flat_map(|cluster| cluster.nodes.keys().map(String::as_str))
        };
        let name_of = |item: &Item<'_>| {
            // Where the cluster is wrong, nothing can be said of its nodes.
            cluster.as_ref()?;
            item.name_of("a node of that Talos cluster", known().collect::<Vec<_>>().into_iter())
        };
        let nodes = fields.need("nodes", "a list of its nodes, the less important ones first").and_then(|i| {
            let list = i.list()?;
            if list.is_empty() {
                i.problem("`nodes` is an empty list", "name the nodes that are to be rebooted");
                return None;
            }
            let names: Vec<Option<String>> = list.iter().map(name_of).collect();
            let mut said = BTreeSet::new();
            for (item, name) in list.iter().zip(&names) {
                if let Some(name) = name.as_ref().filter(|name| !said.insert((*name).clone())) {
                    item.problem(format!("node `{name}` is named twice"), "each node is rebooted once: name it once");
                }
            }
            names.into_iter().collect::<Option<Vec<String>>>()
        });
        let repair = fields.get("repair").map_or(Some(false), |i| i.flag());
        let staged = fields.get("staged").map_or(Some(false), |i| i.flag());
        let images = fields.get("images").map_or(Some(BTreeMap::new()), |i| {
            let entries = i.entries();
            let image = |(name, item): &(&str, Item<'_>)| {
                let wanted = nodes.as_ref().is_none_or(|nodes| nodes.iter().any(|node| node == name));
                if !wanted {
                    item.problem(format!("`{name}` is none of `nodes`"), "an image is for a node of this migration");
                }
                let text = item.text()?;
                if text.rsplit_once(":v").is_none() {
                    item.problem(
                        format!("`{text}` names no version"),
                        "write `factory.talos.dev/metal-installer/SCHEMATIC:v1.11.5`",
                    );
                    return None;
                }
                if text.starts_with("factory.") && FactoryImage::of(text).is_none() {
                    item.problem(
                        format!("`{text}` names no schematic"),
                        "a factory's image has 64 hex digits before its version: https://factory.talos.dev makes them",
                    );
                    return None;
                }
                Some(((*name).to_owned(), text.to_owned()))
            };
            let read: BTreeMap<String, String> = entries.iter().filter_map(image).collect();
            (read.len() == entries.len()).then_some(read)
        });
        if images.as_ref().is_some_and(|images| !images.is_empty()) && repair == Some(false) {
            fields.problem(
                "`images` are for a repair, and `repair` is not true",
                "add `repair: true`, or leave them out",
            );
        }
        let cluster = cluster?;
        let nodes = nodes?.iter().map(|name| Machine::of(site, name)).collect::<Option<Vec<_>>>()?;
        let peers = Machine::peers(site, &cluster);
        Some(Self { cluster, nodes, peers, repair: repair?, staged: staged?, images: images? })
    }
}
