//! What is plugged into a node: disks and what can be booted from them, PCI devices.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::node::{Image, Slot};

/// An installation of Talos that is not the node's own: from before, or of another machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Installation {
    /// Its two places of an image.
    pub slots: BTreeMap<Slot, Image>,
    /// The one that is booted.
    pub boots: Slot,
    /// Its machine configuration; none: the same as the node's, empty: it waits for one.
    pub config: Option<String>,
    /// The member of etcd whose data it has.
    pub member: Option<u64>,
}

/// A disk.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Disk {
    /// `nvme`, `sata`, `scsi`, `virtio` or `usb`.
    pub transport: String,
    /// The model.
    pub model: String,
    /// The serial number; may be empty.
    pub serial: String,
    /// The World Wide Name; may be empty.
    pub wwid: String,
    /// Where it is plugged in; of one in a bay the bay says it.
    pub bus_path: String,
    /// The bay that it is in; empty: it has a place that nobody changes, or lies on the bench.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub bay: String,
    /// Of a VM's: the slot of its host that it is in, empty where it lies beside; none: a virtual disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_host: Option<String>,
    /// The version of its firmware; may be empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub firmware: String,
    /// In bytes.
    pub size: u64,
    /// It has platters.
    pub rotational: bool,
    /// Talos is installed on it.
    pub system: bool,
    /// It lies in a drawer.
    pub unplugged: bool,
    /// It was plugged in after the boot that the world begins with.
    pub late: bool,
    /// How long after its start a kernel has found it, in ms; 0: with the others.
    #[serde(skip_serializing_if = "is_none")]
    pub slow: u64,
    /// It can be booted, to install from it: a stick with an image of Talos.
    pub live: Option<Image>,
    /// Another installation than the node's own is on it.
    pub installed: Option<Installation>,
    /// The file system that is found on it; of the system disk nothing needs to be said.
    pub holds: String,
    /// Partitions that are none of the node's: data, or what is left of another installation.
    pub partitions: Vec<Partition>,
    /// What it writes and reads in a second, in MB; zeros: what its kind does.
    #[serde(skip_serializing_if = "is_usual")]
    pub speed: (u64, u64),
    /// The pool of Mayastor that has all of it: nothing that Talos would know.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pool: String,
    /// How often it was wiped: its partitions have other uuids afterwards.
    #[serde(skip)]
    pub wipes: u32,
}

fn is_usual(speed: &(u64, u64)) -> bool {
    *speed == (0, 0)
}

fn is_none(slow: &u64) -> bool {
    *slow == 0
}

/// A partition of somebody else's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Partition {
    /// Its name in the partition table; may be empty.
    pub label: String,
    /// The file system that is found in it; empty: nothing that is known.
    pub holds: String,
    /// The name of that file system; may be empty.
    pub name: String,
    /// In bytes.
    pub size: u64,
    /// Its own uuid; empty: it follows from the drive.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uuid: String,
}

/// A disk that lost what was on it, for who asks afterwards whether anybody had agreed to that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wiped {
    /// The machine.
    pub node: String,
    /// The disk's serial number.
    pub serial: String,
    /// `install`, `reset`, or `volume` where a volume was made over what nobody sees on it.
    pub by: &'static str,
    /// What was on it; nothing where it was blank.
    pub held: Vec<String>,
}

impl Disk {
    /// The machine has it at a boot.
    pub fn is_there(&self) -> bool {
        !self.unplugged && !self.late
    }

    /// What can be booted from it, beside the node's own installation.
    pub fn image(&self) -> Option<&Image> {
        let installed = self.installed.as_ref().and_then(|other| other.slots.get(&other.boots));
        installed.or(self.live.as_ref())
    }

    /// Nothing is on it any more.
    pub fn wipe(&mut self) {
        (self.live, self.installed) = (None, None);
        self.holds.clear();
        self.partitions.clear();
        self.pool.clear();
        self.wipes += 1;
    }

    /// What is on it, in words.
    pub fn held(&self) -> Vec<String> {
        let version = |image: Option<&Image>| image.map(|image| image.version.clone()).unwrap_or_default();
        let mut all = Vec::new();
        if self.system {
            all.push("Talos".to_owned());
        }
        if let Some(other) = &self.installed {
            all.push(format!("Talos {}", version(other.slots.get(&other.boots))));
        }
        if self.live.is_some() {
            all.push(format!("an image of Talos {}", version(self.live.as_ref())));
        }
        all.extend(Some(self.holds.clone()).filter(|found| !found.is_empty()));
        all.extend(Some(format!("pool {}", self.pool)).filter(|_| !self.pool.is_empty()));
        let named = |part: &Partition| format!("{} {}", part.label, part.holds).trim().to_owned();
        all.extend(self.partitions.iter().map(named));
        all
    }
}

/// A PCI device.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pci {
    /// `0x10de`
    pub vendor_id: String,
    /// `0x1f82`
    pub product_id: String,
    /// `0x03`
    pub class_id: String,
    /// Who made it.
    pub vendor: String,
    /// What it is.
    pub product: String,
    /// Its class in words.
    pub class: String,
    /// The driver of the plain kernel; an NVIDIA GPU has the one of the extension.
    pub driver: String,
}

impl Pci {
    /// True for what NVIDIA's kernel modules drive.
    pub fn is_nvidia(&self) -> bool {
        self.vendor_id.eq_ignore_ascii_case("0x10de")
    }
}
