//! The board: processors and memory modules, as the firmware of a machine or of QEMU tells them (SMBIOS, types 4 and 17), and
//! where its PCI devices hang.

use futures::{StreamExt, stream};
use serde_json::json;

use super::hardware;
use super::node::{Node, Run};
use super::resources::Spec;
use super::server::Streamed;
use crate::talos::proto::machine::FileInfo;

/// Where the kernel has a symbolic link to each PCI device.
pub(super) const PCI: &str = "/sys/bus/pci/devices";

/// `Processors`. A machine has one with all cores; a VM has one socket as QEMU makes it.
pub(super) fn processors(node: &Node) -> Vec<Spec> {
    let cores = if node.cores == 0 { 4 } else { node.cores };
    let spec = if node.vmid.is_some() {
        json!({ "socket": "CPU 0", "manufacturer": "QEMU", "productName": "pc-q35-9.2", "coreCount": cores,
            "coreEnabled": cores, "threadCount": cores })
    } else {
        json!({ "socket": "U3E1", "manufacturer": "Intel(R) Corporation", "productName": "Intel(R) Core(TM) i7",
            "maxSpeedMhz": 4_500, "bootSpeedMhz": 2_600, "status": 65, "coreCount": cores, "coreEnabled": cores,
            "threadCount": cores * 2 })
    };
    vec![("CPU-0".into(), spec)]
}

/// `MemoryModules`. The kernel keeps a part of the memory for itself: the modules are a little larger than what it counts.
pub(super) fn memory_modules(node: &Node) -> Vec<Spec> {
    let all = (node.memory / 1_024).next_multiple_of(1_024);
    if node.vmid.is_some() {
        let spec = json!({ "sizeMiB": all, "deviceLocator": "DIMM 0", "manufacturer": "QEMU" });
        return vec![("DIMM-0".into(), spec)];
    }
    let one = |(number, channel): (u32, &str)| {
        let spec = json!({
            "sizeMiB": all / 2, "deviceLocator": format!("SODIMM{number}"), "bankLocator": format!("CHANNEL {channel}"),
            "speed": 2_666, "manufacturer": "Kingston", "serialNumber": format!("{}0{number}", node.mac.replace(':', "")),
            "productName": "KHX2666C15S4/16G",
        });
        (format!("SODIMM{number}"), spec)
    };
    [(1, "A"), (2, "B")].map(one).into()
}

/// What is listed there. The way to what is no drive is not known: it hangs on the root.
pub(super) fn listed(node: &Node, run: &Run, now: i64) -> Streamed<FileInfo> {
    let entry = |relative: &str, link: String| FileInfo {
        metadata: None,
        name: if relative == "." { PCI.to_owned() } else { format!("{PCI}/{relative}") },
        size: 0,
        modified: now,
        is_dir: relative == ".",
        error: String::new(),
        link,
        relative_name: relative.to_owned(),
    };
    let there = node.disks.iter().filter(|disk| disk.is_there());
    let ways: Vec<String> = there.map(|disk| node.shown(disk).bus_path.clone()).collect();
    let mut all = vec![Ok(entry(".", String::new()))];
    for (address, _) in hardware::pci(node, run) {
        let way = |bus: &String| Some(bus.get(..bus.find(&address)? + address.len())?.to_owned());
        let way = ways.iter().find_map(way).unwrap_or_else(|| format!("/pci0000:00/{address}"));
        all.push(Ok(entry(&address, format!("../../../devices{way}"))));
    }
    stream::iter(all).boxed()
}
