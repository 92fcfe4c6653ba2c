//! Talos' own account of a node. Its parts are asked one by one: versions and roles differ in what they tell.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Layer, MachineConfig};

/// A Talos node that answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Talos {
    /// What runs.
    pub version: TalosVersion,
    /// How far it is: `running` is booted, `booting` goes on for as long as one service does not come up.
    pub stage: Layer<Stage>,
    /// Nothing is missing; of use in the stages `booting` and `running` alone.
    pub ready: bool,
    /// What is missing.
    pub unmet: Vec<Unmet>,
    /// All services.
    pub services: Layer<Vec<Service>>,
    /// The system extensions of its image, without the schematic.
    pub extensions: Layer<Vec<Extension>>,
    /// The image factory's schematic that its image was made from, 64 hexadecimal digits; absent where it was not.
    pub schematic: Layer<String>,
    /// The kernel modules that its configuration asks for.
    pub modules_configured: Layer<Vec<String>>,
    /// The kernel modules that are there. Built-in ones are among them from 1.14 on only.
    pub modules_loaded: Layer<Vec<Module>>,
    /// Disks that can be written to, without loop devices and CD drives.
    pub disks: Layer<Vec<Disk>>,
    /// The disk that it is installed on; absent where it runs from an image.
    pub system_disk: Layer<SystemDisk>,
    /// What is found on disks and their partitions.
    pub volumes: Layer<Vec<Volume>>,
    /// PCI devices.
    pub pci: Layer<Vec<PciDevice>>,
    /// Memory and huge pages.
    pub memory: Layer<Memory>,
    /// A few fields of the machine configuration that holds; takes os:admin.
    pub config: Layer<MachineConfig>,
    /// What the node itself finds wrong, a line each.
    pub diagnostics: Layer<Vec<String>>,
    /// Its clock is set.
    pub time_synced: Layer<bool>,
    /// By how much its clock is ahead of that of this machine, in seconds, beyond what the time that the answer took
    /// explains; exact to two. It takes os:admin.
    pub ahead_s: Layer<i64>,
    /// The kernel's boot id.
    pub boot_id: Layer<String>,
    /// The uuid of its firmware, in lower case.
    pub system_uuid: Layer<String>,
}

/// What runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TalosVersion {
    /// `v1.11.5`.
    pub tag: String,
    /// `metal`, `nocloud`, ...
    pub platform: String,
    /// `amd64`.
    pub arch: String,
}

impl TalosVersion {
    /// Major and minor number; None for a tag that has none.
    pub fn minor(&self) -> Option<(u32, u32)> {
        let mut parts = self.tag.strip_prefix('v').unwrap_or(&self.tag).split(['.', '-', '+']);
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }
}

/// How far a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "they are Talos' own words")]
pub enum Stage {
    Booting,
    Installing,
    Maintenance,
    Running,
    Rebooting,
    ShuttingDown,
    Resetting,
    Upgrading,
    Unknown,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Booting => "booting",
            Self::Installing => "installing",
            Self::Maintenance => "maintenance",
            Self::Running => "running",
            Self::Rebooting => "rebooting",
            Self::ShuttingDown => "shutting down",
            Self::Resetting => "resetting",
            Self::Upgrading => "upgrading",
            Self::Unknown => "unknown stage",
        })
    }
}

/// One thing that is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unmet {
    /// `time`, `network`, `services`, `staticPods` or `nodeReady`.
    pub name: String,
    /// In the node's words.
    pub reason: String,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// `kubelet`, `ext-nvidia-persistenced`, ...
    pub id: String,
    /// `Running`, `Waiting`, `Finished`, `Failed`, ...
    pub state: String,
    /// None where it has no health check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy: Option<bool>,
    /// What it said last: of one that waits, for what.
    pub message: String,
}

impl Service {
    /// It keeps the node from being booted.
    pub fn is_pending(&self) -> bool {
        !matches!(self.state.as_str(), "Running" | "Finished" | "Skipped")
    }
}

/// A system extension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    /// `qemu-guest-agent`, without `siderolabs/`.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// A kernel module that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Its name, as the kernel has it (`nvme_tcp`).
    pub name: String,
    /// It can be used.
    pub live: bool,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Disk {
    /// The kernel's name, which moves from boot to boot: `sda`.
    pub id: String,
    /// `/dev/sda`.
    pub dev_path: String,
    /// In bytes.
    pub size: u64,
    /// The model.
    pub model: String,
    /// The serial number; empty where it has none.
    pub serial: String,
    /// The World Wide Name.
    pub wwid: String,
    /// The NVMe uuid.
    pub uuid: String,
    /// Where it is plugged in.
    pub bus_path: String,
    /// nvme, sata, scsi, virtio, usb or mmc.
    pub transport: String,
    /// It has platters.
    pub rotational: bool,
    /// Its names below `/dev/disk`.
    pub symlinks: Vec<String>,
}

/// The disk that a node is installed on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SystemDisk {
    /// `sda`.
    pub id: String,
    /// `/dev/sda`.
    pub dev_path: String,
}

/// What is found on a disk or partition.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Volume {
    /// `sda1`.
    pub id: String,
    /// `/dev/sda1`.
    pub dev_path: String,
    /// The disk's name, of a partition; empty for a whole disk.
    pub parent: String,
    /// In bytes.
    pub size: u64,
    /// What is on it: xfs, ext4, gpt, lvm2-pv, zfs_member; empty where nothing is known.
    pub content: String,
    /// The file system's label.
    pub label: String,
    /// The file system's uuid; empty where it has none.
    #[serde(default)]
    pub uuid: String,
    /// The partition's label: `STATE`, `EPHEMERAL`, `u-data`.
    pub partition_label: String,
    /// The partition's own uuid, which stays with it wherever its disk is.
    #[serde(default)]
    pub partition_uuid: String,
    /// The partition's number; 0 for a whole disk.
    #[serde(default)]
    pub partition_index: u32,
}

impl Volume {
    /// The disk that it is on.
    pub fn disk(&self) -> &str {
        if self.parent.is_empty() { &self.id } else { &self.parent }
    }
}

/// A PCI device.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PciDevice {
    /// `0000:01:00.0`.
    pub address: String,
    /// Its class in words: `Display controller`.
    pub class: String,
    /// Who made it, in words.
    pub vendor: String,
    /// What it is, in words.
    pub product: String,
    /// Its class: `0x01` is storage.
    #[serde(default)]
    pub class_id: String,
    /// Its kind within the class: `0x08` of storage is NVMe.
    #[serde(default)]
    pub subclass_id: String,
    /// `0x10de`.
    pub vendor_id: String,
    /// `0x1f82`.
    pub product_id: String,
    /// The driver that is bound to it; empty where none is.
    pub driver: String,
}

impl PciDevice {
    /// A device of NVIDIA's that shows or computes; its sound device is none.
    pub fn is_nvidia_gpu(&self) -> bool {
        self.vendor_id == "0x10de"
            && (self.class.contains("isplay") || self.class.contains("3D") || self.class.contains("rocessing"))
    }
}

/// Memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Memory {
    /// All of it, in bytes.
    pub total: u64,
    /// What programs can still have, in bytes.
    pub available: u64,
    /// How many huge pages there are.
    pub huge_pages: u64,
    /// How many of them are free.
    pub huge_pages_free: u64,
    /// The size of one, in bytes.
    pub huge_page_size: u64,
}

/// A client certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// `os:admin`, `os:reader`, ...
    pub roles: Vec<String>,
    /// To when it holds.
    pub until: Timestamp,
}

impl Talos {
    /// Booted, and nothing unmet.
    pub fn is_settled(&self) -> bool {
        self.stage.known() == Some(&Stage::Running) && self.ready
    }

    /// The services that keep it from being booted.
    pub fn pending_services(&self) -> impl Iterator<Item = &Service> {
        self.services.known().into_iter().flatten().filter(|service| service.is_pending())
    }

    /// An extension of this name is in its image.
    pub fn has_extension(&self, name: &str) -> bool {
        self.extensions.known().into_iter().flatten().any(|extension| extension.name == name)
    }

    /// What is not as it should be.
    pub fn wrong(&self) -> Vec<String> {
        let mut lines = Vec::new();
        match self.stage.known() {
            Some(Stage::Running) | None => {}
            Some(stage) => lines.push(stage.to_string()),
        }
        if !self.ready && matches!(self.stage.known(), Some(Stage::Booting | Stage::Running)) {
            if self.unmet.is_empty() {
                lines.push("not ready".into());
            }
            lines.extend(self.unmet.iter().map(|unmet| format!("{}: {}", unmet.name, unmet.reason)));
        }
        for service in self.services.known().into_iter().flatten() {
            if service.is_pending() {
                lines.push(format!("{} {}: {}", service.id, service.state.to_lowercase(), service.message));
            } else if service.healthy == Some(false) {
                lines.push(format!("{} not healthy: {}", service.id, service.message));
            }
        }
        if self.time_synced.known() == Some(&false) {
            lines.push("its clock is not set".into());
        }
        lines.extend(self.diagnostics.known().into_iter().flatten().cloned());
        lines
    }
}

impl Talos {
    /// The parts that are not known, by name, with the reason and what to do.
    pub fn unknown(&self) -> Vec<(&'static str, &str, Option<&str>)> {
        fn of<'a, T>(name: &'static str, layer: &'a Layer<T>) -> Option<(&'static str, &'a str, Option<&'a str>)> {
            match layer {
                Layer::Unknown { reason, help } => Some((name, reason, help.as_deref())),
                Layer::Known(_) | Layer::Absent => None,
            }
        }
        [
            of("stage", &self.stage),
            of("services", &self.services),
            of("extensions", &self.extensions),
            of("schematic", &self.schematic),
            of("configured modules", &self.modules_configured),
            of("loaded modules", &self.modules_loaded),
            of("disks", &self.disks),
            of("system disk", &self.system_disk),
            of("volumes", &self.volumes),
            of("PCI devices", &self.pci),
            of("memory", &self.memory),
            of("machine configuration", &self.config),
            of("diagnostics", &self.diagnostics),
            of("time", &self.time_synced),
            of("clock", &self.ahead_s),
            of("boot id", &self.boot_id),
            of("system uuid", &self.system_uuid),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_on_its_parent_or_is_the_disk() {
        let part = Volume { id: "sda3".into(), parent: "sda".into(), ..Volume::default() };
        let disk = Volume { id: "sdb".into(), ..Volume::default() };
        assert_eq!((part.disk(), disk.disk()), ("sda", "sdb"));
    }

    #[test]
    fn stages_have_one_word_in_json_and_talos_words_for_people() {
        assert_eq!(serde_json::to_string(&Stage::ShuttingDown).unwrap(), "\"shutting-down\"");
        assert_eq!(Stage::ShuttingDown.to_string(), "shutting down");
    }
}
