//! What the kernel tells of drives in bays: lines of its log, and files below `/sys`.

use super::node::{Disk, Node, Run};

/// Lines about each controller (Linux `drivers/nvme/host/{pci,core}.c`).
pub(super) fn kernel_lines(node: &Node, run: &Run) -> Vec<String> {
    let mut lines = Vec::new();
    for (number, at) in node.found_in_order().into_iter().filter(|at| on_pci(node, *at).is_some()).enumerate() {
        let Some((disk, address)) = on_pci(node, at) else { continue };
        lines.push(format!("kern:    info: nvme nvme{number}: pci function {address}"));
        match run.names.get(&at) {
            Some(name) => lines.push(format!("kern:    info: nvme nvme{number}: {} is {name}", disk.model)),
            None => lines
                .push(format!("kern:     err: nvme nvme{number}: Device not ready; aborting initialisation, CSTS=0x0")),
        }
    }
    lines
}

/// The drive at a place of the list, with its address, where it is in a bay and on PCI.
fn on_pci(node: &Node, at: usize) -> Option<(&Disk, &str)> {
    let disk = node.disks.get(at).filter(|disk| disk.is_there())?;
    let bay = node.bay_of(disk).filter(|bay| !bay.off)?;
    Some((disk, bay.address()))
}

/// A file below `/sys` about a drive.
pub(super) fn file(node: &Node, run: &Run, path: &str) -> Option<String> {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match parts.as_slice() {
        ["sys", "block", name, "device", what] => {
            let (at, _) = run.names.iter().find(|(_, known)| known == name)?;
            let disk = node.disks.get(*at)?;
            let text = match *what {
                "firmware_rev" if disk.transport == "nvme" => format!("{:<8}", disk.firmware),
                "serial" if disk.transport == "nvme" => format!("{:<20}", node.shown(disk).serial),
                "model" => format!("{:<40}", disk.model),
                _ => return None,
            };
            Some(format!("{text}\n"))
        }
        ["sys", "bus", "pci", "devices", address, what] => {
            let at = (0..node.disks.len()).find(|at| on_pci(node, *at).is_some_and(|(_, known)| known == *address))?;
            let bay = node.bay_of(node.disks.get(at)?)?;
            match *what {
                "current_link_speed" | "max_link_speed" => Some("8.0 GT/s PCIe\n".to_owned()),
                "current_link_width" if bay.lanes > 0 => Some(format!("{}\n", bay.lanes)),
                "current_link_width" | "max_link_width" => Some("4\n".to_owned()),
                _ => None,
            }
        }
        _ => None,
    }
}
