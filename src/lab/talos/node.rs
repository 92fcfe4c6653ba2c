//! The Talos side of the model: plain data, as a world file writes it and as the front changes it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::config::Wants;
use super::etcd::Etcd;
use super::event::Log;
use super::lost::Loss;
use super::made::Made;
use super::reset::Wiping;
use crate::lab::clock::LabTime;

pub use super::bay::Bay;
pub use super::disk::{Disk, Installation, Partition, Pci, Wiped};
pub use super::firmware::{Entry, EntryPath};

/// All Talos nodes of a world and what they share.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Talos {
    /// The cluster's name.
    pub cluster: String,
    /// Nodes by host name, which is their name in Kubernetes too.
    pub nodes: BTreeMap<String, Node>,
    /// What the image factory knows: extensions by schematic.
    pub schematics: BTreeMap<String, Vec<String>>,
    /// The image factory that knows them, where it is one of their own; empty: `factory.talos.dev`.
    pub factory: String,
    /// Versions whose images do not come up on these machines.
    pub broken: BTreeSet<String>,
    /// etcd.
    pub etcd: Etcd,
    /// Other clusters of etcd beside it, which nobody wanted: each came of a second bootstrap.
    #[serde(skip)]
    pub others: Vec<Etcd>,
    /// What befell nodes of it shortly before it begins.
    pub lost: BTreeMap<String, Loss>,
    /// Machines that lie ready to come in the place of a node, by its name: hands put them there.
    pub spares: BTreeMap<String, Node>,
    /// What `talosctl gen config` wrote into the lab's folder for nodes that have no configuration yet.
    pub made: Option<Made>,
    /// The disks that lost what was on them, in order.
    #[serde(skip)]
    pub wiped: Vec<Wiped>,
    /// The certificate of the lab's own authority, as a machine configuration writes it.
    #[serde(skip)]
    pub authority: String,
    /// How long things take.
    pub timing: Timing,
}

/// A Talos node.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// Its address on the estate's network.
    pub ip: String,
    /// The MAC of its NIC.
    pub mac: String,
    /// The VM that it runs in; none: a machine of its own.
    pub vmid: Option<u32>,
    /// `metal` or `nocloud`.
    pub platform: String,
    /// Maker and model, as the firmware tells.
    pub model: (String, String),
    /// The uuid of its firmware.
    pub uuid: String,
    /// It boots through systemd-boot; else through GRUB, which names no entry.
    pub uefi: bool,
    /// Its firmware starts signed images only, and those of the factory for that are signed with a key that it knows.
    pub secure_boot: bool,
    /// The two places of an installed image.
    pub slots: BTreeMap<Slot, Image>,
    /// The one that the boot loader takes next.
    pub boots: Slot,
    /// Disks in the order in which the kernel finds them; those in bays come in the order of their bus paths.
    pub disks: Vec<Disk>,
    /// The sockets of its board that drives are moved between, by the names that are printed beside them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub bays: BTreeMap<String, Bay>,
    /// PCI devices by address.
    pub pci: BTreeMap<String, Pci>,
    /// Processors; 0: four.
    pub cores: u32,
    /// Memory in kB.
    pub memory: u64,
    /// How many huge pages the boot that the world begins with has memory in one piece for; none: as many as are asked for.
    pub huge_pages: Option<u64>,
    /// The machine configuration on its disk, byte for byte.
    pub config: String,
    /// A real etcd is the node's: its clients reach it there, and calls about etcd are handed on to it.
    pub etcd_at: Option<SocketAddr>,
    /// What is on its EPHEMERAL besides what Talos and the kubelet keep there: size by path.
    pub data: BTreeMap<String, u64>,
    /// etcd has a volume of its own, as from 1.14 on it may.
    pub etcd_volume: bool,
    /// The member of etcd whose data it has; none where it has never joined.
    pub member: Option<u64>,
    /// It is not plugged in, or switched off; of a VM its process counts.
    pub off: bool,
    /// How far an installation is that it does by itself, and what is wrong with that: said as it stands, nothing follows.
    pub unattended: Option<(String, String)>,
    /// Images that were pulled, by name.
    pub images: BTreeSet<String>,
    /// What its firmware boots first: serial numbers of disks and sticks, and `medium`. What is installed comes next, then
    /// what else is there. A VM has the order of its Proxmox config.
    pub boot_order: Vec<String>,
    /// The image in its CD drive, or that it gets by the net.
    pub medium: Option<Image>,
    /// What its firmware was told to boot (UEFI); none: what the installation entered, by the uuid of its partition.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub boot_entries: Vec<Entry>,
    /// It has a management controller, whose word on whether it is on is in the lab's `bmc/NAME`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub bmc: bool,
    /// What that says whatever is so: `on` or `off`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub bmc_lies: String,
    /// What its screen shows where nothing comes up that could be asked.
    #[serde(skip)]
    pub screen: String,
    /// Its present boot.
    #[serde(skip)]
    pub run: Option<Run>,
    /// How often its kernel was started, for who counts reboots.
    #[serde(skip)]
    pub starts: u32,
}

/// One of the two places of an image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// The first.
    #[default]
    A,
    /// The second.
    B,
}

impl Slot {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// An installed image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Image {
    /// `1.11.5`
    pub version: String,
    /// The image factory's schematic; empty: none.
    pub schematic: String,
    /// Its system extensions, without `siderolabs/`.
    pub extensions: Vec<String>,
    /// It does not come up: the boot loader falls back to the other one.
    pub broken: bool,
    /// It is signed for SecureBoot.
    pub signed: bool,
}

impl Image {
    /// Major and minor number.
    pub fn minor(&self) -> (u32, u32) {
        let mut parts = self.version.split(['.', '-']).map(|p| p.parse().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    }

    /// Whether it is of 1.`minor` or later.
    pub fn since(&self, minor: u32) -> bool {
        self.minor() >= (1, minor)
    }

    /// Whether an extension whose name begins so is in it.
    pub fn has(&self, prefix: &str) -> bool {
        self.extensions.iter().any(|e| e.starts_with(prefix))
    }
}

/// One boot of a node.
#[derive(Debug, Clone)]
pub struct Run {
    /// The kernel's boot id.
    pub boot_id: String,
    /// When the kernel started.
    pub since: LabTime,
    /// When apid answers.
    pub api_at: LabTime,
    /// When etcd and the extensions' services start.
    pub services_at: LabTime,
    /// When the kubelet is at work.
    pub kubelet_at: LabTime,
    /// What was booted.
    pub slot: Slot,
    /// It was started by the running kernel: the firmware was not gone through.
    pub kexec: bool,
    /// Where that came from.
    pub source: Source,
    /// It has no configuration, and waits for one.
    pub maintenance: bool,
    /// The kernel's names of the disks, by their place in the list.
    pub names: BTreeMap<usize, String>,
    /// The sequence `boot` has ended well.
    pub booted: bool,
    /// What it is about to do.
    pub going: Option<Going>,
    /// The machine configuration in effect.
    pub active: String,
    /// What follows from that.
    pub wants: Wants,
    /// The kernel modules that are loaded; none is ever unloaded.
    pub loaded: BTreeSet<String>,
    /// How often the configuration in effect was set.
    pub generation: u64,
    /// Whose try it is that ends by itself.
    pub trying: Option<u64>,
    /// The image that an upgrade writes, and whether it comes up by kexec.
    pub writing: Option<(Image, bool)>,
    /// Its pods are going first, until then at most; its services still run.
    pub draining: Option<LabTime>,
    /// What a reset takes away.
    pub wiping: Option<Wiping>,
    /// etcd was told to leave the cluster: it stays down until the next boot.
    pub left_etcd: bool,
    /// A snapshot that etcd is to be started from.
    pub recovery: Option<Vec<u8>>,
    /// Why etcd did not start from it.
    pub etcd_error: Option<String>,
    /// What it told of itself.
    pub log: Log,
}

/// Where the image that runs was booted from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Source {
    /// The node's own installation.
    #[default]
    Slot,
    /// A CD, or the net.
    Medium,
    /// The disk at this place of the list.
    Disk(usize),
}

impl Run {
    /// Its services stop, or have.
    pub fn stops(&self) -> bool {
        self.going.is_some() && self.draining.is_none() && self.going != Some(Going::Installing)
    }
}

/// What a node is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Going {
    /// Up again.
    Rebooting {
        /// By the running kernel.
        kexec: bool,
    },
    /// Off.
    ShuttingDown,
    /// Writing an image, then up again.
    Upgrading,
    /// Writing its first image, then up again.
    Installing,
    /// Losing what it has, then up again or off.
    Resetting,
}

/// How long things take, in lab milliseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timing {
    /// From the request to the end of apid.
    pub stop: u64,
    /// From there to the new kernel, by kexec.
    pub kexec: u64,
    /// From there to the new kernel, through the firmware.
    pub firmware: u64,
    /// From the kernel to apid.
    pub api: u64,
    /// From the kernel to etcd and the extensions' services.
    pub services: u64,
    /// From the kernel to the kubelet.
    pub kubelet: u64,
    /// Pulling an image.
    pub pull: u64,
    /// Writing an image to the disk.
    pub write: u64,
    /// From a learner's start to its vote.
    pub learn: u64,
    /// How long `startAllServices` waits before it gives up and the node reboots.
    pub stuck: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            stop: 8_000,
            kexec: 3_000,
            firmware: 25_000,
            api: 6_000,
            services: 9_000,
            kubelet: 12_000,
            pull: 15_000,
            write: 12_000,
            learn: 5_000,
            stuck: 70 * 60_000,
        }
    }
}

impl Node {
    /// The image that runs, or that would be booted next.
    pub fn image(&self) -> Image {
        let next = if self.slots.is_empty() { Source::Medium } else { Source::Slot };
        let (source, slot) = self.run.as_ref().map_or((next, self.boots), |run| (run.source, run.slot));
        self.image_of(source, slot)
    }

    /// The image that is booted from there.
    pub fn image_of(&self, source: Source, slot: Slot) -> Image {
        let image = match source {
            Source::Slot => self.slots.get(&slot),
            Source::Medium => self.medium.as_ref(),
            Source::Disk(at) => self.disks.get(at).and_then(Disk::image),
        };
        image.cloned().unwrap_or_default()
    }

    /// The huge pages of 2 MiB that the kernel has made.
    pub fn pages(&self) -> Option<u64> {
        let asked = self.run.as_ref()?.wants.sysctls.get("vm.nr_hugepages").and_then(|n| n.parse().ok()).unwrap_or(0);
        Some(self.huge_pages.map_or(asked, |room| room.min(asked)))
    }

    /// The boot of a node whose apid answers.
    pub fn answering(&self, now: LabTime) -> Option<&Run> {
        self.run.as_ref().filter(|run| now >= run.api_at)
    }

    /// The kernel's names as it gives them at a boot: each kind counts on its own, in the order of discovery.
    pub fn name_disks(&self) -> BTreeMap<usize, String> {
        let mut names = BTreeMap::new();
        self.name_more(&mut names, 0);
        names
    }

    /// Gives the disks that are plugged in and have none the next free names; `up`: how long the kernel is, in ms.
    pub fn name_more(&self, names: &mut BTreeMap<usize, String>, up: u64) {
        for at in self.found_in_order().into_iter().filter(|at| self.disks.get(*at).is_some_and(|d| d.slow <= up)) {
            self.name_one(names, at);
        }
    }

    /// Gives the disk at a place the next free name, where it is plugged in and has none.
    fn name_one(&self, names: &mut BTreeMap<usize, String>, at: usize) {
        let Some(disk) = self.disks.get(at).filter(|d| self.sees(d) && !names.contains_key(&at)) else { return };
        let name = |n: u8| match disk.transport.as_str() {
            "nvme" => format!("nvme{n}n1"),
            "virtio" => format!("vd{}", char::from(b'a' + n)),
            _ => format!("sd{}", char::from(b'a' + n)),
        };
        let free = (0..26).map(name).find(|name| !names.values().any(|taken| taken == name));
        if let Some(name) = free {
            names.insert(at, name);
        }
    }

    /// Whether an installation is there, with its configuration.
    pub fn is_installed(&self) -> bool {
        let plugged = |disk: &Disk| disk.system && self.sees(disk);
        !self.slots.is_empty() && (self.disks.iter().any(plugged) || !self.disks.iter().any(|disk| disk.system))
    }

    /// Whether it can start a kernel from the running one: the loader of its disk says which, and the kernel may be told
    /// to load none (siderolabs/talos `KexecPrepare`).
    pub fn can_kexec(&self) -> bool {
        let off = |run: &Run| run.wants.sysctls.get("kernel.kexec_load_disabled").is_some_and(|value| value == "1");
        self.is_installed() && self.run.as_ref().is_some_and(|run| !off(run))
    }
}
