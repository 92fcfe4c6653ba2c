//! How a machine that is to become a node is written in the parameters of a migration.

use std::path::PathBuf;

use crate::base::names::TalosAddress;
use crate::base::tls::KeyFingerprint;
use crate::blueprint::machine::Machine;
use crate::blueprint::param::{Param, keys};
use crate::site::Site;
use crate::site::fields::Item;
use crate::talos::patch::Patch;

use super::{Bare, Source};

/// How it is written.
pub const NODE: &[Param] = &[
    Param::need("node", "its name, a node of that Talos cluster under `talos:`", "talos-mac"),
    Param::need(
        "config",
        "its machine configuration, a file of talosctl or talhelper, made with the secrets of the cluster",
        "./controlplane.yaml",
    ),
    Param::need(
        "disk",
        "the disk to install on, by its serial number (`talosctl get disks --insecure -n ADDRESS` shows it); what is on it is \
         gone, and asked for by `--destroy disk/SERIAL`",
        "S2ZRNYAH500751",
    ),
    Param::may(
        "patches",
        "what is merged into the configuration: `kernel-module`, `sysctl`, `node-label`, `install-image`, `hostname`, \
         `addresses`, `user-volume`, `kubelet-mount`",
        "[{ addresses: { link: eth0, addresses: [192.168.4.49/24] } }]",
        "nothing",
    ),
    Param::may(
        "at",
        "the address at which it waits for its configuration (its console shows it)",
        "192.168.4.77",
        "its address under `talos:`",
    ),
    Param::may(
        "fingerprint",
        "the fingerprint of its key, which its console shows while it waits",
        "SHA256:..",
        "whoever waits there is given the configuration",
    ),
];

/// A command, whose paths start at the site file as all others there do.
pub fn command(site: &Site, item: &Item<'_>) -> Option<Vec<String>> {
    let texts = item.texts()?;
    let path = |text: &str| ["./", "../", "~/"].iter().any(|start| text.starts_with(start));
    let items = item.list()?;
    let resolved = items.iter().zip(texts).map(|(item, text)| match path(&text) {
        true => site.place(item).map(|place| place.display().to_string()),
        false => Some(text),
    });
    resolved.collect::<Vec<_>>().into_iter().collect()
}

/// The file of a machine configuration, with what decrypts it. It holds the secrets of the cluster.
pub fn config(site: &Site, item: &Item<'_>, decrypt: &[String]) -> Option<PathBuf> {
    let path = site.place(item)?;
    item.names(&path, decrypt.is_empty());
    Some(path)
}

/// Reads one; what is wrong goes into the item's sink. `heir_of`: the node whose address it may take over.
pub fn node(
    site: &Site,
    item: &Item<'_>,
    cluster: Option<&str>,
    decrypt: &[String],
    heir_of: Option<&str>,
) -> Option<Bare> {
    let fields = item.fields(&keys(NODE));
    let name = fields.need("node", "name a node of that Talos cluster").and_then(|i| {
        let nodes = &site.talos.get(cluster?)?.nodes;
        i.name_of("a node of that Talos cluster", nodes.keys().map(String::as_str))
    });
    let file = fields
        .need("config", "name its machine configuration, a file of talosctl or talhelper")
        .and_then(|i| config(site, &i, decrypt));
    let disk = fields.need("disk", "name the disk to install on by its serial number").and_then(|i| {
        let text = i.text()?;
        if text.starts_with('/') || text.contains("disk/by-") {
            let help = "a device path is another disk after the next boot: name the serial number (`talosctl get disks --insecure \
                        -n ADDRESS` shows it)";
            i.problem(format!("`{text}` is a device path"), help);
            return None;
        }
        Some(text.to_owned())
    });
    let own = fields.get("node").and_then(|i| i.value().as_str().map(str::to_owned));
    let heirs = [own.as_deref(), heir_of];
    let patches = fields.get("patches").map_or(Some(Vec::new()), |i| patches(site, &i, &heirs));
    let (at, fingerprint) = (at(fields.get("at").as_ref()), fingerprint(fields.get("fingerprint").as_ref()));
    let machine = Machine::of(site, &name?)?;
    let source = Source { file: file?, decrypt: decrypt.to_owned(), patches: patches? };
    Some(Bare { machine, source, disk: disk?, at: at?, fingerprint: fingerprint? })
}

/// What is merged into a configuration; `heirs`: the nodes whose addresses it may have.
pub fn patches(site: &Site, item: &Item<'_>, heirs: &[Option<&str>]) -> Option<Vec<Patch>> {
    let list = item.list()?;
    let taken = |address: &str| owner(site, address).filter(|node| !heirs.contains(&Some(*node)));
    let read: Vec<Patch> =
        list.iter().filter_map(|item| patch(item).filter(|patch| fits(item, patch, taken))).collect();
    (read.len() == list.len()).then_some(read)
}

/// The address at which a machine waits; None within: it is not said.
pub fn at(item: Option<&Item<'_>>) -> Option<Option<String>> {
    let Some(item) = item else { return Some(None) };
    item.parse::<TalosAddress>("write the address at which it waits for its configuration")?;
    Some(item.text().map(str::to_owned))
}

/// The fingerprint that its console shows while it waits; None within: it is not said.
pub fn fingerprint(item: Option<&Item<'_>>) -> Option<Option<String>> {
    let Some(item) = item else { return Some(None) };
    let pin: KeyFingerprint = item.parse("the console of the machine shows it while it waits")?;
    Some(Some(pin.to_string()))
}

/// The node of the site that has this address.
fn owner<'s>(site: &'s Site, address: &str) -> Option<&'s str> {
    let address: std::net::IpAddr = address.parse().ok()?;
    let has = |text: &str| {
        text.parse::<TalosAddress>().is_ok_and(|at| at.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip == address))
    };
    let nodes = site.talos.values().flat_map(|cluster| &cluster.nodes);
    let mut of = nodes.filter(|(_, node)| has(&node.address) || node.tls_name.as_deref().is_some_and(has));
    of.next().map(|(name, _)| name.as_str())
}

/// What no machine would refuse by itself before it is too late: an address without its prefix, or of another node, and the
/// name of a kernel parameter that can be none.
fn fits<'s>(item: &Item<'_>, patch: &Patch, taken: impl Fn(&str) -> Option<&'s str>) -> bool {
    let problem = match patch {
        Patch::Addresses { addresses, .. } => addresses.iter().find_map(|text| {
            let (address, prefix) = text.split_once('/').unwrap_or((text, ""));
            let longest = match address.parse() {
                Ok(std::net::IpAddr::V4(_)) => 32,
                Ok(std::net::IpAddr::V6(_)) => 128,
                Err(_) => 0,
            };
            if !prefix.parse::<u8>().is_ok_and(|prefix| prefix > 0 && prefix <= longest) {
                let text = format!("`{text}` is no address with the length of its prefix");
                return Some((text, "write it as `192.168.4.30/24`"));
            }
            let node = taken(address)?;
            Some((format!("`{text}` is the address of node {node}"), "give each node an address of its own"))
        }),
        Patch::Sysctl { name, .. } => {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "._-/*:@".contains(c);
            let good = name.chars().all(allowed) && name.contains(['.', '/']);
            (!good).then(|| {
                (
                    format!("`{name}` is no name of a kernel parameter"),
                    "write it as `sysctl -a` does: `vm.nr_hugepages`",
                )
            })
        }
        _ => None,
    };
    if let Some((text, help)) = &problem {
        item.problem(text, *help);
    }
    problem.is_none()
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
