//! Resources about hardware: disks, volumes, PCI devices, links.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::node::{Disk, Node, Run};
use super::resources::Spec;

fn pretty(size: u64) -> String {
    let (mut value, mut unit) = (size, "B");
    for next in ["kB", "MB", "GB", "TB"] {
        if value < 1_000 {
            break;
        }
        (value, unit) = (value / 1_000, next);
    }
    format!("{value} {unit}")
}

/// The disks that are plugged in, by the kernel's names.
fn named<'a>(node: &'a Node, run: &'a Run) -> impl Iterator<Item = (&'a String, &'a Disk)> {
    run.names.iter().filter_map(|(at, name)| Some((name, node.disks.get(*at)?)))
}

fn system<'a>(node: &'a Node, run: &'a Run) -> Option<(&'a String, &'a Disk)> {
    named(node, run).find(|(_, disk)| disk.system)
}

/// udev's names below `/dev/disk` (60-persistent-storage.rules). QEMU's SCSI disks have its name as their vendor's, and
/// the kind of their identifier before that; virtio's have nothing but their serial number.
pub(super) fn links_of(disk: &Disk) -> Vec<String> {
    let model = disk.model.replace(' ', "_");
    let mut links = Vec::new();
    if !disk.serial.is_empty() {
        let id = match disk.transport.as_str() {
            "scsi" => format!("scsi-0QEMU_{model}_{}", disk.serial),
            "virtio" => format!("virtio-{}", disk.serial),
            "sata" => format!("ata-{model}_{}", disk.serial),
            other => format!("{other}-{model}_{}", disk.serial),
        };
        links.push(format!("/dev/disk/by-id/{id}"));
    }
    if !disk.wwid.is_empty() {
        links.push(format!("/dev/disk/by-id/{}", disk.wwid.replace("naa.", "wwn-0x").replace("eui.", "nvme-eui.")));
    }
    if !disk.bus_path.is_empty() {
        links.push(format!("/dev/disk/by-path/{}", disk.bus_path.trim_matches('/').replace('/', "-")));
    }
    links
}

/// `Disks`, the loop device of the root file system with them.
pub(super) fn disks(node: &Node, run: &Run) -> Vec<Spec> {
    let spec = |name: &str, disk: &Disk, readonly: bool| {
        json!({
            "dev_path": format!("/dev/{name}"), "size": disk.size, "pretty_size": pretty(disk.size), "io_size": 512,
            "sector_size": 512, "readonly": readonly, "cdrom": false, "model": disk.model, "serial": disk.serial,
            "modalias": "", "wwid": disk.wwid, "uuid": "", "bus_path": disk.bus_path, "sub_system": "/sys/class/block",
            "transport": disk.transport, "rotational": disk.rotational, "symlinks": links_of(disk),
        })
    };
    let rootfs = Disk { size: 77_594_624, ..Disk::default() };
    let mut all: Vec<Spec> = named(node, run).map(|(name, disk)| (name.clone(), spec(name, disk, false))).collect();
    all.push(("loop0".into(), spec("loop0", &rootfs, true)));
    all
}

/// `SystemDisks`
pub(super) fn system_disk(node: &Node, run: &Run) -> Vec<Spec> {
    let spec = |name: &String| json!({ "diskID": name, "devPath": format!("/dev/{name}") });
    system(node, run).map(|(name, _)| ("system-disk".into(), spec(name))).into_iter().collect()
}

/// The partitions of an installation: number, label, file system, size.
const PARTITIONS: &[(u32, &str, &str, u64)] = &[
    (1, "EFI", "vfat", 2_203_058_176),
    (2, "META", "talosmeta", 1_048_576),
    (3, "STATE", "xfs", 104_857_600),
    (4, "EPHEMERAL", "xfs", 0),
];

/// The volume of its own that etcd may have; else a directory of EPHEMERAL by that name (from 1.14 on).
const ETCD: &str = "ETCD";

/// Whether an installed node has a volume of this name.
pub(super) fn is_volume(node: &Node, label: &str) -> bool {
    let known = PARTITIONS.iter().any(|(_, known, ..)| *known == label) || node.etcd_volume && label == ETCD;
    node.disks.iter().any(|disk| disk.system) && known
}

fn partition(disk: &str, number: u32) -> String {
    if disk.starts_with("nvme") { format!("{disk}p{number}") } else { format!("{disk}{number}") }
}

/// `DiscoveredVolumes`
pub(super) fn discovered(node: &Node, run: &Run) -> Vec<Spec> {
    let mut all = Vec::new();
    for (name, disk) in named(node, run) {
        let installed = disk.system || disk.installed.is_some();
        let found = match (installed || !disk.partitions.is_empty(), &disk.live) {
            (true, _) => "gpt",
            (false, Some(_)) => "iso9660",
            (false, None) => disk.holds.as_str(),
        };
        let spec = json!({ "dev_path": format!("/dev/{name}"), "type": "disk", "parent": "", "size": disk.size,
            "pretty_size": pretty(disk.size), "sector_size": 512, "name": found });
        all.push((name.clone(), spec));
        for (number, label, found, size) in PARTITIONS.iter().filter(|_| installed) {
            let (part, size) = (partition(name, *number), if *size == 0 { disk.size / 100 * 98 } else { *size });
            let spec = json!({
                "dev_path": format!("/dev/{part}"), "type": "partition", "parent": name,
                "parent_dev_path": format!("/dev/{name}"), "size": size, "pretty_size": pretty(size), "sector_size": 512,
                "name": found, "label": label, "partition_label": label, "partition_index": number,
            });
            all.push((part, spec));
        }
        for (part, number) in disk.partitions.iter().zip(1_u32..) {
            let id = partition(name, number);
            let spec = json!({
                "dev_path": format!("/dev/{id}"), "type": "partition", "parent": name,
                "parent_dev_path": format!("/dev/{name}"), "size": part.size, "pretty_size": pretty(part.size),
                "sector_size": 512, "name": part.holds, "label": part.name, "partition_label": part.label,
                "partition_index": number,
            });
            all.push((id, spec));
        }
    }
    all
}

/// `VolumeStatuses`
pub(super) fn volumes(node: &Node, run: &Run) -> Vec<Spec> {
    let Some((name, disk)) = system(node, run) else { return Vec::new() };
    let one = |(number, label, found, size): &(u32, &str, &str, u64)| {
        let size = if *size == 0 { disk.size / 100 * 98 } else { *size };
        let spec = json!({
            "phase": "ready", "type": "partition", "location": format!("/dev/{}", partition(name, *number)),
            "parentLocation": format!("/dev/{name}"), "partitionIndex": number, "size": size,
            "prettySize": pretty(size), "filesystem": if *label == "META" { "none" } else { found },
        });
        ((*label).to_owned(), spec)
    };
    let mut all: Vec<Spec> = PARTITIONS.iter().skip(1).map(one).collect();
    if node.etcd_volume {
        all.push(one(&(5, ETCD, "xfs", 10_737_418_240)));
    } else if node.image().minor().1 >= 14 {
        all.push((ETCD.to_owned(), json!({ "phase": "ready", "type": "directory", "parentID": "EPHEMERAL" })));
    }
    all
}

/// `MountStatuses`
pub(super) fn mounts(node: &Node, run: &Run) -> Vec<Spec> {
    let Some((name, _)) = system(node, run) else { return Vec::new() };
    let one = |(number, id, target): &(u32, &str, &str)| {
        let spec = json!({
            "spec": { "volumeID": id, "parentID": "", "requesters": ["sequencer"], "readOnly": false },
            "target": target, "source": format!("/dev/{}", partition(name, *number)), "filesystem": "xfs",
            "readOnly": false, "projectQuotaSupport": *id == "EPHEMERAL", "detached": false,
        });
        ((*id).to_owned(), spec)
    };
    // User volumes of the type `directory` (from 1.12 on) are mounted too, and have no device (`block/mount.go`).
    let names: BTreeSet<&str> =
        node.data.keys().filter_map(|path| path.strip_prefix("/var/mnt/")?.split('/').next()).collect();
    let directory = |name: &str| {
        let spec = json!({
            "spec": { "volumeID": format!("u-{name}"), "parentID": "EPHEMERAL", "requesters": ["sequencer"], "readOnly": false },
            "target": format!("/var/mnt/{name}"), "source": "", "filesystem": "none", "readOnly": false,
            "projectQuotaSupport": false, "detached": false,
        });
        (format!("u-{name}"), spec)
    };
    let own = [(3, "STATE", "/system/state"), (4, "EPHEMERAL", "/var")];
    own.iter().map(one).chain(names.into_iter().map(directory)).collect()
}

/// `PCIDevices`
pub(super) fn pci(node: &Node, run: &Run) -> Vec<Spec> {
    let one = |(at, device): (&String, &super::node::Pci)| {
        let driver = match device.is_nvidia() {
            true if run.loaded.contains("nvidia") => "nvidia",
            true => "",
            false => &device.driver,
        };
        let spec = json!({
            "class": device.class, "subclass": "", "vendor": device.vendor, "product": device.product,
            "class_id": device.class_id, "subclass_id": "0x00", "vendor_id": device.vendor_id,
            "product_id": device.product_id, "driver": driver,
        });
        (at.clone(), spec)
    };
    node.pci.iter().map(one).collect()
}

/// `SystemInformations`
pub(super) fn system_of(node: &Node) -> Value {
    let (manufacturer, product) = &node.model;
    json!({ "manufacturer": manufacturer, "productName": product, "version": "", "serialnumber": "", "uuid": node.uuid })
}

/// `LinkStatuses`
pub(super) fn links(node: &Node) -> Vec<Spec> {
    let driver = if node.vmid.is_some() { "virtio_net" } else { "e1000e" };
    let ether = json!({
        "index": 8, "type": "ether", "linkIndex": 0, "flags": "UP,BROADCAST,RUNNING,MULTICAST,LOWER_UP",
        "hardwareAddr": node.mac, "permanentAddr": node.mac, "broadcastAddr": "ff:ff:ff:ff:ff:ff", "mtu": 1_500,
        "queueDisc": "pfifo_fast", "operationalState": "up", "kind": "", "slaveKind": "", "driver": driver,
        "linkState": true, "speedMbit": 1_000, "port": "TwistedPair", "duplex": "Full",
    });
    let lo = json!({
        "index": 1, "type": "loopback", "linkIndex": 0, "flags": "UP,LOOPBACK,RUNNING,LOWER_UP",
        "hardwareAddr": "00:00:00:00:00:00", "mtu": 65_536, "operationalState": "unknown", "kind": "", "slaveKind": "",
        "linkState": true,
    });
    vec![("eth0".into(), ether), ("lo".into(), lo)]
}

/// `AddressStatuses`
pub(super) fn addresses(node: &Node) -> Vec<Spec> {
    let one = |link: &str, address: &str, scope: &str| {
        let spec = json!({ "address": address, "linkName": link, "family": "inet4", "scope": scope, "flags": "permanent",
            "priority": 0 });
        (format!("{link}/{address}"), spec)
    };
    vec![one("eth0", &format!("{}/24", node.ip), "global"), one("lo", "127.0.0.1/8", "host")]
}
