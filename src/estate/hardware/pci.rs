//! What the kernel of a Talos node has about PCI below `/sys`: links, and NVMe controllers that have brought up no drive.

use std::collections::{BTreeMap, BTreeSet};

use super::told;
use crate::base::drives::sheet::Told;
use crate::base::drives::{Controller, Link, Port, pci_address};
use crate::base::fault::Effect;
use crate::talos::kind::{Disk, PciDevice};
use crate::talos::{Entry, Error, Resource, Talos};

/// Each PCI device, as a symbolic link to its place.
const DEVICES: &str = "/sys/bus/pci/devices";

/// The NVMe controllers that have brought up no drive.
pub(super) struct Pci {
    idle: Told<BTreeSet<String>>,
    /// Where each device is plugged in, by its address. Asked only where it is of use.
    paths: Told<BTreeMap<String, String>>,
}

/// A file of one line, without the blanks around it. Nothing in it is nothing told.
pub(super) async fn line(talos: &Talos, path: &str) -> Result<String, Error> {
    let text = String::from_utf8_lossy(&talos.file(path).await?).trim().to_owned();
    let empty =
        || Error::BadAnswer { at: talos.node().name.clone(), why: format!("{path} is empty"), effect: Effect::None };
    if text.is_empty() { Err(empty()) } else { Ok(text) }
}

/// How fast a drive's link goes now. Takes os:admin.
pub(super) async fn link(talos: &Talos, disk: &Resource<Disk>) -> Told<Link> {
    let Some(address) = pci_address(&disk.spec.bus_path) else {
        return Told::not(format!("{} does not tell where it is plugged in", disk.id));
    };
    let path = |name: &str| format!("{DEVICES}/{address}/current_link_{name}");
    let (speed, width) = (path("speed"), path("width"));
    let (speed, width) = futures::join!(line(talos, &speed), line(talos, &width));
    match (speed, width) {
        (Ok(speed), Ok(width)) => match width.parse() {
            Ok(width) => Told::Is(Link { speed, width }),
            Err(_) => Told::not(format!("{}: the width of the link of {address} is no number", talos.node().name)),
        },
        (Err(error), _) | (_, Err(error)) => told(Err(error)),
    }
}

/// Finds the NVMe controllers without a drive among all PCI devices, and where they are.
pub(super) async fn look(
    talos: &Talos,
    devices: Result<Vec<Resource<PciDevice>>, Error>,
    nvme: &[&Resource<Disk>],
) -> Pci {
    let idle = told(devices);
    let idle = match idle {
        Told::Not(why) => Told::Not(why),
        Told::Is(all) => without_a_drive(&all, nvme),
    };
    let paths = match &idle {
        Told::Is(idle) if !idle.is_empty() => told(talos.dir(DEVICES).await),
        _ => Told::Is(Vec::new()),
    };
    let path = |link: &str| Some(link.split_once("devices/")?.1.to_owned());
    let by_address = |all: Vec<Entry>| {
        all.into_iter().filter_map(|entry| Some((entry.name.to_lowercase(), path(&entry.link)?))).collect()
    };
    Pci { idle, paths: paths.map(by_address) }
}

fn without_a_drive(devices: &[Resource<PciDevice>], nvme: &[&Resource<Disk>]) -> Told<BTreeSet<String>> {
    let is_nvme = |device: &&Resource<PciDevice>| device.spec.class_id == "0x01" && device.spec.subclass_id == "0x08";
    let mut idle: BTreeSet<String> = devices.iter().filter(is_nvme).map(|device| device.id.to_lowercase()).collect();
    let mut placeless = None;
    for disk in nvme {
        match pci_address(&disk.spec.bus_path) {
            Some(address) => {
                idle.remove(&address);
            }
            None => placeless = Some(&disk.id),
        }
    }
    match placeless {
        // It may be that of any of them.
        Some(disk) if !idle.is_empty() => {
            let idle: Vec<_> = idle.into_iter().collect();
            Told::not(format!("{disk} does not tell where it is plugged in, and may be that of {}", idle.join(", ")))
        }
        _ => Told::Is(idle),
    }
}

impl Pci {
    /// The controllers, and why the ports of them are not known.
    pub(super) fn idle(self) -> (Told<Vec<Controller>>, Option<String>) {
        let (paths, why) = match self.paths {
            Told::Is(paths) => (paths, None),
            Told::Not(why) => (BTreeMap::new(), Some(why.unknown)),
        };
        let port = |address: &String| Port::of(paths.get(address)?);
        let of = |address: String| Controller { port: port(&address), address };
        (self.idle.map(|all| all.into_iter().map(of).collect()), why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource<T>(id: &str, spec: T) -> Resource<T> {
        let (version, phase) = ("1".into(), "running".into());
        Resource { id: id.into(), version, phase, labels: BTreeMap::new(), annotations: BTreeMap::new(), spec }
    }

    #[test]
    fn a_controller_is_without_a_drive_only_where_every_drive_tells_its_own() {
        let device = |id: &str, class: &str, subclass: &str| {
            resource(id, PciDevice { class_id: class.into(), subclass_id: subclass.into(), ..PciDevice::default() })
        };
        let disk = |bus: &str| resource("nvme0n1", Disk { bus_path: bus.into(), ..Disk::default() });
        let devices = [
            device("0000:04:00.0", "0x01", "0x08"),
            device("0000:02:00.0", "0x01", "0x08"),
            // A SATA controller, and something else of that subclass.
            device("0000:00:17.0", "0x01", "0x06"),
            device("0000:00:14.3", "0x02", "0x08"),
        ];
        let told = |bus: &[&str]| {
            let disks: Vec<_> = bus.iter().map(|bus| disk(bus)).collect();
            match without_a_drive(&devices, &disks.iter().collect::<Vec<_>>()) {
                Told::Is(idle) => idle.into_iter().collect::<Vec<_>>().join(" "),
                Told::Not(why) => format!("? {}", why.unknown),
            }
        };
        let (own, other) = ("/pci0000:00/0000:00:1d.0/0000:04:00.0/nvme", "/pci0000:00/0000:00:06.0/0000:02:00.0/nvme");
        assert_eq!(told(&[own]), "0000:02:00.0");
        assert_eq!(told(&[own, other]), "");
        assert_eq!(told(&[]), "0000:02:00.0 0000:04:00.0");
        let unsure = told(&[own, "/virtual/nvme-subsystem/nvme-subsys0"]);
        assert_eq!(unsure, "? nvme0n1 does not tell where it is plugged in, and may be that of 0000:02:00.0");
        assert_eq!(told(&[own, other, "/virtual/nvme-subsystem/nvme-subsys0"]), "");
    }
}
