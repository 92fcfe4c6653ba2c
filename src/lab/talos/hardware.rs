//! Resources about hardware: disks, volumes, PCI devices, links.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::node::{Disk, Node, Run};
use super::resources::Spec;

pub(super) fn pretty(size: u64) -> String {
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
pub(super) fn named<'a>(node: &'a Node, run: &'a Run) -> impl Iterator<Item = (&'a String, &'a Disk)> {
    run.names.iter().filter_map(|(at, name)| Some((name, node.disks.get(*at)?)))
}

pub(super) fn system<'a>(node: &'a Node, run: &'a Run) -> Option<(&'a String, &'a Disk)> {
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
    let one = |(name, disk): (&String, &Disk)| {
        let mut spec = spec(name, &node.shown(disk), false);
        if node.image().since(14) {
            spec["firmware_version"] = json!(disk.firmware);
        }
        (name.clone(), spec)
    };
    let mut all: Vec<Spec> = named(node, run).map(one).collect();
    all.push(("loop0".into(), spec("loop0", &rootfs, true)));
    all
}

/// `SystemDisks`
pub(super) fn system_disk(node: &Node, run: &Run) -> Vec<Spec> {
    let spec = |name: &String| json!({ "diskID": name, "devPath": format!("/dev/{name}") });
    system(node, run).map(|(name, _)| ("system-disk".into(), spec(name))).into_iter().collect()
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
    node.pci.iter().map(one).chain(controllers(node)).collect()
}

/// What is in a bay and has lanes is on PCI, also where no disk comes of it.
fn controllers(node: &Node) -> impl Iterator<Item = Spec> {
    let inside = node.disks.iter().filter_map(|disk| Some((disk, node.bay_of(disk)?)));
    inside.filter(|(disk, bay)| disk.is_there() && !bay.off).map(|(disk, bay)| {
        let (vendor, vendor_id, product) = maker(&disk.model);
        let spec = json!({
            "class": "Mass storage controller", "subclass": "Non-Volatile memory controller", "vendor": vendor,
            "product": product, "class_id": "0x01", "subclass_id": "0x08", "vendor_id": vendor_id, "product_id": "0x0001",
            "driver": if node.sees(disk) { "nvme" } else { "" },
        });
        (bay.address().to_owned(), spec)
    })
}

/// Vendor, its id and the product as the database of PCI ids has them, roughly.
fn maker(model: &str) -> (&'static str, &'static str, Cow<'_, str>) {
    let (vendor, id) = match model.split([' ', '_']).next().unwrap_or_default().to_ascii_uppercase().as_str() {
        "SAMSUNG" => ("Samsung Electronics Co Ltd", "0x144d"),
        "WD" => ("Sandisk Corp", "0x15b7"),
        _ => ("", "0x1e4b"),
    };
    (vendor, id, Cow::Borrowed(model))
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
