//! The firmware's variables about what is booted, as `efivarfs` has them (UEFI specification, 3.1 and 10.3).

use std::collections::BTreeMap;

use super::firmware::{Entry, EntryPath};
use super::node::{Disk, Node};
use super::volumes;

/// Where they are.
pub(super) const FOLDER: &str = "/sys/firmware/efi/efivars";
/// Whose they are: those of the specification itself.
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// What Talos enters, from 1.11 on (siderolabs/talos `sdboot/efivars.go`).
const TITLE: &str = "Talos Linux UKI";
const SINCE: u32 = 11;
const FILE: &str = "\\EFI\\BOOT\\BOOTX64.EFI";

/// All of them by their paths; none without UEFI.
pub(super) fn files(node: &Node) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    if !node.uefi {
        return all;
    }
    let system = node.disks.iter().find(|disk| disk.system);
    let own = Entry { number: 1, name: TITLE.into(), by: EntryPath::Partition };
    let entries = match (node.boot_entries.as_slice(), system) {
        ([], Some(_)) if node.slots.values().any(|image| image.since(SINCE)) => vec![own],
        (entries, _) => entries.to_vec(),
    };
    let path = |name: &str| format!("{FOLDER}/{name}-{GLOBAL}");
    let order: Vec<u8> = entries.iter().flat_map(|entry| entry.number.to_le_bytes()).collect();
    all.insert(path("BootOrder"), variable(order));
    for entry in &entries {
        all.insert(path(&format!("Boot{:04X}", entry.number)), variable(option(node, system, entry)));
    }
    all
}

/// With its attributes before it: kept over a power cycle, for boot services and for those who run later.
fn variable(data: Vec<u8>) -> Vec<u8> {
    let mut all = 7_u32.to_le_bytes().to_vec();
    all.extend(data);
    all
}

/// `EFI_LOAD_OPTION`.
fn option(node: &Node, system: Option<&Disk>, entry: &Entry) -> Vec<u8> {
    let mut path = Vec::new();
    if let EntryPath::Bay(bay) = &entry.by {
        path.extend(way(node.bays.get(bay).map_or("", |bay| bay.bus.as_str())));
    }
    path.extend(system.map(partition).unwrap_or_default());
    path.extend(one(4, 4, &text(FILE)));
    path.extend(one(0x7F, 0xFF, &[]));
    let mut all = 1_u32.to_le_bytes().to_vec();
    all.extend(u16::try_from(path.len()).unwrap_or(u16::MAX).to_le_bytes());
    all.extend(text(&entry.name));
    all.extend(path);
    all
}

/// A node of a device path.
fn one(kind: u8, sub: u8, data: &[u8]) -> Vec<u8> {
    let mut all = vec![kind, sub];
    all.extend(u16::try_from(data.len() + 4).unwrap_or(u16::MAX).to_le_bytes());
    all.extend(data);
    all
}

/// UCS-2 with its end.
fn text(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// The root of PCI by its ACPI name, then device and function of each bridge, then the first namespace behind them.
fn way(bus: &str) -> Vec<u8> {
    // PNP0A03, number 0.
    let mut all = one(2, 1, &[0xD0, 0x41, 0x03, 0x0A, 0, 0, 0, 0]);
    for address in bus.split('/').filter(|part| part.matches(':').count() == 2) {
        let last = address.rsplit_once(':').map_or("", |(_, last)| last);
        let (device, function) = last.split_once('.').unwrap_or(("0", "0"));
        let hex = |text: &str| u8::from_str_radix(text, 16).unwrap_or_default();
        all.extend(one(1, 1, &[hex(function), hex(device)]));
    }
    let mut namespace = 1_u32.to_le_bytes().to_vec();
    namespace.extend([0; 8]);
    all.extend(one(3, 0x17, &namespace));
    all
}

/// The boot partition of a disk, by its uuid.
fn partition(disk: &Disk) -> Vec<u8> {
    let uuid = volumes::boot_partition(disk);
    let hex: Vec<u8> = uuid.split('-').flat_map(bytes).collect();
    let mut data = 1_u32.to_le_bytes().to_vec();
    data.extend(2_048_u64.to_le_bytes());
    data.extend(4_302_848_u64.to_le_bytes());
    // The first three groups of a GUID have their bytes the other way round.
    for (from, to) in [(0, 4), (4, 6), (6, 8)] {
        data.extend(hex.get(from..to).unwrap_or_default().iter().rev());
    }
    data.extend(hex.get(8..).unwrap_or_default());
    // A GPT, and a GUID as its signature.
    data.extend([2, 2]);
    one(4, 1, &data)
}

/// The bytes of a group of hexadecimal digits.
fn bytes(group: &str) -> Vec<u8> {
    let pair = |at: usize| group.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
    (0..group.len()).step_by(2).filter_map(pair).collect()
}
