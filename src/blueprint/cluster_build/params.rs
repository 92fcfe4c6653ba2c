//! The parameters of a `cluster-build`, read from the site file and resolved.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::base::names::TalosAddress;
use crate::base::tls::KeyFingerprint;
use crate::blueprint::machine::Machine;
use crate::blueprint::quorum::Peer;
use crate::site::Site;
use crate::site::fields::Item;
use crate::talos::patch::Patch;

use super::bare::Bare;
use super::source::Source;

/// All of it.
#[derive(Debug, Clone)]
pub struct Params {
    /// The Talos cluster's name in the site file.
    pub cluster: String,
    /// The machines, in the order in which they become nodes; the first one is where etcd begins.
    pub machines: Vec<Bare>,
    /// All nodes of the cluster.
    pub peers: Vec<Peer>,
}

const KEYS: &[&str] = &["talos", "nodes", "decrypt"];
const NODE: &[&str] = &["node", "config", "disk", "patches", "at", "fingerprint"];

impl Params {
    /// Reads the parameters; what is wrong goes into the item's sink.
    pub fn read(site: &Site, item: &Item<'_>) -> Option<Self> {
        let fields = item.fields(KEYS);
        let cluster = fields
            .need("talos", "name a Talos cluster of `talos:`")
            .and_then(|i| i.name_of("a Talos cluster", site.talos.keys().map(String::as_str)));
        let decrypt = fields.get("decrypt").map_or(Some(Vec::new()), |i| i.texts());
        let help = "a list of its nodes, a control plane first: `{ node: talos-20, config: ./controlplane.yaml, disk: SERIAL }`";
        let nodes = fields.need("nodes", help).and_then(|i| {
            let list = i.list()?;
            if list.is_empty() {
                i.problem("`nodes` is an empty list", help);
                return None;
            }
            let read =
                list.iter().map(|item| node(site, item, cluster.as_deref(), decrypt.as_deref().unwrap_or_default()));
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
        Some(Self { cluster, machines: nodes?, peers })
    }

    /// The machine on which etcd begins.
    pub fn first(&self) -> Option<&Bare> {
        self.machines.first()
    }
}

fn node(site: &Site, item: &Item<'_>, cluster: Option<&str>, decrypt: &[String]) -> Option<Bare> {
    let fields = item.fields(NODE);
    let name = fields.need("node", "name a node of that Talos cluster").and_then(|i| {
        let nodes = &site.talos.get(cluster?)?.nodes;
        i.name_of("a node of that Talos cluster", nodes.keys().map(String::as_str))
    });
    let file: Option<PathBuf> = fields
        .need("config", "name its machine configuration, a file of talosctl or talhelper")
        .and_then(|i| site.place(&i));
    let disk = fields.need("disk", "name the disk to install on by its serial number").and_then(|i| {
        let text = i.text()?;
        if text.starts_with("/dev/") {
            let help = "a device path is another disk after the next boot: name the serial number (`talosctl get disks --insecure \
                        -n ADDRESS` shows it)";
            i.problem(format!("`{text}` is a device path"), help);
            return None;
        }
        Some(text.to_owned())
    });
    let patches = fields.get("patches").map_or(Some(Vec::new()), |i| {
        let list = i.list()?;
        let read: Vec<Patch> = list.iter().filter_map(patch).collect();
        (read.len() == list.len()).then_some(read)
    });
    let at = fields.get("at").map_or(Some(None), |i| {
        i.parse::<TalosAddress>("write the address at which it waits for its configuration")?;
        Some(i.text().map(str::to_owned))
    });
    let fingerprint = fields.get("fingerprint").map_or(Some(None), |i| {
        let pin: KeyFingerprint = i.parse("the console of the machine shows it while it waits")?;
        Some(Some(pin.to_string()))
    });
    let machine = Machine::of(site, &name?)?;
    let source = Source { file: file?, decrypt: decrypt.to_owned(), patches: patches? };
    Some(Bare { machine, source, disk: disk?, at: at?, fingerprint: fingerprint? })
}

/// One thing that is merged in.
fn patch(item: &Item<'_>) -> Option<Patch> {
    match serde_json::from_value::<Patch>(item.value().clone()) {
        Ok(Patch::InstallDisk(_)) => {
            item.problem("`install-disk` is said by `disk` of the node", "leave it out");
            None
        }
        Ok(patch) => Some(patch),
        Err(error) => {
            let help = "one of `kernel-module`, `sysctl`, `node-label`, `install-image`, `hostname`, `addresses`, `user-volume`, \
                        `kubelet-mount`: `{ install-image: factory.talos.dev/metal-installer/SCHEMATIC:v1.11.5 }`";
            item.problem(format!("this is no patch: {error}"), help);
            None
        }
    }
}
