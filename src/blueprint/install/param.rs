//! How a machine that is to become a node is written in the parameters of a migration.

use std::path::PathBuf;

use crate::base::names::TalosAddress;
use crate::base::tls::KeyFingerprint;
use crate::blueprint::machine::Machine;
use crate::site::Site;
use crate::site::fields::Item;
use crate::talos::patch::Patch;

use super::{Bare, Source};

const NODE: &[&str] = &["node", "config", "disk", "patches", "at", "fingerprint"];

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

/// Reads one; what is wrong goes into the item's sink.
pub fn node(site: &Site, item: &Item<'_>, cluster: Option<&str>, decrypt: &[String]) -> Option<Bare> {
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
