//! What a machine's firmware boots, by which order; and which installation a kernel goes on with.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::node::{Disk, Image, Installation, Node, Source};
use crate::lab::chassis::guest_bus;
use crate::lab::world::Vm;

/// What Talos repeats where an installer's image was booted on a machine that has an installation
/// (siderolabs/talos `haltIfInstalled`; the imager puts the parameter into images to install from since 1.8).
pub const HALTS: &str = "Talos is already installed to disk but booted from another media and talos.halt_if_installed \
                         kernel parameter is set. Please reboot from the disk.";
const HALTS_SINCE: u32 = 8;
/// What a firmware says that finds nothing.
pub const NOTHING: &str = "No bootable device.";
/// The word for [`Node::medium`] in a boot order.
const MEDIUM: &str = "medium";

/// An entry that somebody made in the firmware of a machine, and that is still there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its number: `Boot0001`.
    pub number: u16,
    /// What its menu shows.
    pub name: String,
    /// What it goes by.
    pub by: EntryPath,
}

/// What an entry goes by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryPath {
    /// The uuid of the installation's boot partition, wherever that is.
    Partition,
    /// The way to this bay.
    Bay(String),
}

/// What is tried, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tried {
    /// The disk at this place of the list.
    Disk(usize),
    /// A CD, or the net.
    Medium,
}

/// What a boot comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// This is booted.
    Boots(Source),
    /// Nothing that could be asked comes up, and the screen says why.
    Stays(&'static str),
}

impl Node {
    /// What the firmware boots.
    pub(super) fn boot_by_firmware(&mut self, vm: Option<&Vm>) -> Outcome {
        let Some(source) = self.first_bootable(vm) else { return Outcome::Stays(NOTHING) };
        match self.live(source) {
            None => Outcome::Boots(self.comes_up(source)),
            Some(image) if image.since(HALTS_SINCE) && self.first_installation().is_some() => Outcome::Stays(HALTS),
            Some(_) => Outcome::Boots(source),
        }
    }

    /// A kernel from there comes up, by the firmware or by the kernel before it. Which installation it goes on with does
    /// not depend on where it came from: Talos knows the partitions by their labels, and takes those of the first disk that
    /// has them, in the order of the names (siderolabs/talos `VolumeConfigController`, `metaMatch`).
    pub(super) fn comes_up(&mut self, source: Source) -> Source {
        let Some(own) = self.disks.iter().position(|disk| disk.system) else { return source };
        let Some(found) = self.first_installation() else { return source };
        let at = if let Source::Disk(at) = source { at } else { own };
        if found != own {
            self.take_installation(found, own);
        }
        if found == at { Source::Slot } else { Source::Disk(at) }
    }

    /// Whether an image that Talos is installed from runs from there.
    fn live(&self, source: Source) -> Option<&Image> {
        match source {
            Source::Slot => None,
            Source::Medium => self.medium.as_ref(),
            Source::Disk(at) => self.disks.get(at)?.live.as_ref(),
        }
    }

    fn first_bootable(&self, vm: Option<&Vm>) -> Option<Source> {
        let mut order = vm.and_then(|vm| self.order_of_vm(vm)).unwrap_or_else(|| self.order_of_metal());
        // An installation in a world that says nothing of its disk.
        if !self.slots.is_empty() && !self.disks.iter().any(|disk| disk.system) {
            return Some(Source::Slot);
        }
        order.retain(|entry| match entry {
            Tried::Disk(at) => self.disks.get(*at).is_some_and(|disk| self.sees(disk)),
            Tried::Medium => true,
        });
        order.into_iter().find_map(|entry| {
            let Tried::Disk(at) = entry else {
                return self.medium.as_ref().filter(|image| self.starts(image)).map(|_| Source::Medium);
            };
            let disk = self.disks.get(at)?;
            let own = disk.system && self.slots.values().any(|image| self.starts(image));
            let other = disk.image().is_some_and(|image| self.starts(image));
            match (own, other) {
                (true, _) => Some(Source::Slot),
                (false, true) => Some(Source::Disk(at)),
                (false, false) => None,
            }
        })
    }

    /// Whether the firmware, or the boot loader, starts an image.
    pub(super) fn starts(&self, image: &Image) -> bool {
        !image.broken && (image.signed || !self.secure_boot)
    }

    /// What the world says first; then the installation, whose loader enters itself at the top, other disks, and what
    /// else there is.
    fn order_of_metal(&self) -> Vec<Tried> {
        let named = self.boot_order.iter().filter_map(|name| match name.as_str() {
            MEDIUM => Some(Tried::Medium),
            serial => self.disks.iter().position(|disk| disk.serial == serial).map(Tried::Disk),
        });
        let of = |is: fn(&Disk) -> bool| {
            self.disks.iter().enumerate().filter(move |(_, disk)| is(disk)).map(|(at, _)| Tried::Disk(at))
        };
        let rest =
            of(|disk| disk.system).chain(of(|disk| disk.installed.is_some())).chain(of(|disk| disk.live.is_some()));
        let mut all: Vec<Tried> = named.chain(rest).chain([Tried::Medium]).collect();
        all.retain(|tried| match tried {
            Tried::Disk(at) => self.disks.get(*at).is_none_or(|disk| self.is_entered(disk)),
            Tried::Medium => true,
        });
        all
    }

    /// Whether an entry of the firmware leads to an installation; nobody needs one to boot a stick.
    fn is_entered(&self, disk: &Disk) -> bool {
        let leads = |entry: &Entry| match &entry.by {
            EntryPath::Partition => true,
            EntryPath::Bay(bay) => *bay == disk.bay,
        };
        disk.bay.is_empty() || self.boot_entries.is_empty() || self.boot_entries.iter().any(leads)
    }

    /// `boot: order=scsi0;hostpci1;net0`. Nothing else is booted then. A drive is the disk with its `serial=`.
    fn order_of_vm(&self, vm: &Vm) -> Option<Vec<Tried>> {
        let order = vm.config.get("boot")?.split(',').find_map(|part| part.trim().strip_prefix("order="))?;
        let drives = self.drives(vm);
        let entry = |key: &str| {
            let line = vm.config.get(key)?;
            if key.starts_with("net") || line.contains("media=cdrom") && !line.starts_with("none") {
                return Some(Tried::Medium);
            }
            let passed = || self.passed_by(key.strip_prefix("hostpci")?.parse().ok()?);
            drives.get(key).copied().or_else(passed).map(Tried::Disk)
        };
        Some(order.split(';').filter_map(|key| entry(key.trim())).collect())
    }

    /// Which drive of its host a `hostpciN` line has handed to a VM that starts.
    fn passed_by(&self, index: u32) -> Option<usize> {
        let ways = [true, false].map(|express| guest_bus(index, 0, express));
        let is = |disk: &Disk| disk.in_host.is_some() && !disk.unplugged && ways.contains(&disk.bus_path);
        self.disks.iter().position(is)
    }

    /// Which disk a drive line is; of several with the same serial number they come one by one.
    fn drives<'v>(&self, vm: &'v Vm) -> BTreeMap<&'v str, usize> {
        let mut drives = BTreeMap::new();
        let is_drive = |key: &str| {
            let bus = ["scsi", "virtio", "sata", "ide"].iter().find_map(|bus| key.strip_prefix(bus));
            bus.is_some_and(|n| n.parse::<u8>().is_ok())
        };
        for (key, line) in vm.config.iter().filter(|(key, line)| is_drive(key) && !line.contains("media=cdrom")) {
            let serial = line.split(',').find_map(|part| part.strip_prefix("serial=")).unwrap_or_default();
            let taken = |at: usize| drives.values().any(|other| *other == at);
            let place = self.disks.iter().enumerate().position(|(at, disk)| disk.serial == serial && !taken(at));
            if let Some(at) = place {
                drives.insert(key.as_str(), at);
            }
        }
        drives
    }

    /// The disk whose installation Talos finds.
    fn first_installation(&self) -> Option<usize> {
        let names = self.name_disks();
        let mut named: Vec<(&String, usize)> = names.iter().map(|(at, name)| (name, *at)).collect();
        named.sort();
        let has = |disk: &Disk| disk.system && !self.slots.is_empty() || disk.installed.is_some();
        named.into_iter().map(|(_, at)| at).find(|at| self.disks.get(*at).is_some_and(has))
    }

    /// What is installed goes with its drive: where that was taken out of its bay there is nothing, and where one comes with
    /// an installation that is the node's.
    pub(super) fn follow_drives(&mut self) {
        if self.bays.is_empty() {
            return;
        }
        let own = self.disks.iter().position(|disk| disk.system);
        if let Some(own) = own.filter(|own| self.disks.get(*own).is_some_and(|disk| !self.sees(disk))) {
            let installed = Installation {
                slots: std::mem::take(&mut self.slots),
                boots: std::mem::take(&mut self.boots),
                config: Some(std::mem::take(&mut self.config)),
                member: self.member.take(),
            };
            if let Some(disk) = self.disks.get_mut(own) {
                (disk.system, disk.installed) = (false, Some(installed));
            }
        }
        if !self.slots.is_empty() || self.disks.iter().any(|disk| disk.system) {
            return;
        }
        let Some(disk) = self.first_installation().and_then(|found| self.disks.get_mut(found)) else { return };
        let Some(found) = disk.installed.take() else { return };
        disk.system = true;
        (self.slots, self.boots, self.member) = (found.slots, found.boots, found.member);
        self.config = found.config.unwrap_or_else(|| std::mem::take(&mut self.config));
    }

    /// The installation of the disk at `found` is the node's from now on; what was is kept with its own disk.
    fn take_installation(&mut self, found: usize, own: usize) {
        let Some(mut other) = self.disks.get_mut(found).and_then(|disk| disk.installed.take()) else { return };
        let config = other.config.take().unwrap_or_else(|| self.config.clone());
        std::mem::swap(&mut self.slots, &mut other.slots);
        std::mem::swap(&mut self.boots, &mut other.boots);
        std::mem::swap(&mut self.member, &mut other.member);
        other.config = Some(std::mem::replace(&mut self.config, config));
        if let Some(disk) = self.disks.get_mut(own) {
            (disk.system, disk.installed) = (false, Some(other));
        }
        if let Some(disk) = self.disks.get_mut(found) {
            disk.system = true;
        }
    }
}
