//! The slots of Proxmox hosts: the drives in them, which of them a VM gets, what the host's kernel shows, and the hands that
//! move them.
//!
//! A drive that a VM gets is one of its Talos node's disks ([`Disk::in_host`]); the host has others of its own.

use std::collections::{BTreeMap, BTreeSet};

use super::passthrough::properties;
use super::talos::node::{Bay, Disk};
use super::{LabError, World};
use crate::base::check::DriveMove;

/// A drive in a slot of a host.
pub struct Seated<'a> {
    /// The slot.
    pub bay: &'a Bay,
    /// The drive.
    pub disk: &'a Disk,
    /// The Talos node whose it is, and its place in that node's list; none: the host's own.
    pub of: Option<(&'a str, usize)>,
}

/// What a VM's process was given of its host's drives.
pub(super) struct Passed {
    /// The function on the host's PCI, `0000:04:00.0`.
    address: String,
    /// Where its guest has it.
    bus: String,
}

/// The whole addresses of a `hostpciN` or mapping path: `04:00` is all functions, of which a drive is the first.
fn addresses(list: &str) -> Vec<String> {
    let whole = |one: &str| {
        let lower = one.to_ascii_lowercase();
        let domain = if lower.matches(':').count() == 1 { format!("0000:{lower}") } else { lower };
        if domain.contains('.') { domain } else { format!("{domain}.0") }
    };
    list.split(';').map(whole).collect()
}

/// Where QEMU puts it (qemu-server `PVE/QemuServer/PCI.pm`).
pub(super) fn guest_bus(index: u32, function: usize, express: bool) -> String {
    match (express, index) {
        (true, _) => format!("/pci0000:00/0000:00:1c.{index}/0000:{:02x}:00.{function}/nvme", index + 1),
        (false, 0 | 1) => format!("/pci0000:00/0000:00:{:02x}.{function}/nvme", 0x10 + index),
        (false, _) => format!("/pci0000:00/0000:00:{:02x}.{function}/nvme", 0x19 + index),
    }
}

/// Vendor and device of a model.
pub(super) fn ids(model: &str) -> (&'static str, &'static str) {
    match model.split(' ').next().unwrap_or_default() {
        "Samsung" | "SAMSUNG" => ("0x144d", "0xa80a"),
        "WD_BLACK" => ("0x15b7", "0x5017"),
        _ => ("0x1cc1", "0x8201"),
    }
}

impl World {
    /// The drives in a host's slots, in the order in which its kernel finds them.
    pub fn seated(&self, host: &str) -> Vec<Seated<'_>> {
        let Some(chassis) = self.hosts.get(host) else { return Vec::new() };
        let bay = |slot: &str| chassis.bays.get(slot).filter(|bay| !bay.off);
        let own = chassis.drives.iter().filter(|disk| !disk.unplugged);
        let own = own.filter_map(|disk| Some(Seated { bay: bay(&disk.bay)?, disk, of: None }));
        let vms = self.talos.nodes.iter().filter(|(_, node)| self.host_of(node.vmid) == Some(host));
        let theirs = vms.flat_map(|(name, node)| {
            let all = node.disks.iter().enumerate();
            all.filter_map(|(at, disk)| {
                let bay = bay(disk.in_host.as_deref()?)?;
                Some(Seated { bay, disk, of: Some((name.as_str(), at)) })
            })
        });
        let mut all: Vec<Seated<'_>> = own.chain(theirs).collect();
        all.sort_by(|a, b| a.bay.bus.cmp(&b.bay.bus));
        all
    }

    fn host_of(&self, vmid: Option<u32>) -> Option<&str> {
        Some(self.vms.get(&vmid?)?.node.as_str())
    }

    /// The group of the IOMMU that a slot is in.
    pub(super) fn iommu_group(&self, host: &str, address: &str) -> usize {
        let bays = self.hosts.get(host).map(|host| host.bays.values().position(|bay| bay.address() == address));
        14 + bays.flatten().unwrap_or_default()
    }

    /// What a config's `hostpciN` lines give a process that starts, or why it cannot start.
    ///
    /// # Errors
    /// The text of the pve task's error (qemu-server `PVE/QemuServer/PCI.pm`, pve-guest-common `PVE/Mapping/PCI.pm`).
    pub(super) fn passed(&self, vmid: u32) -> Result<Vec<Passed>, String> {
        let Some(vm) = self.vms.get(&vmid) else { return Ok(Vec::new()) };
        let q35 = vm.config.get("machine").is_some_and(|machine| machine.contains("q35"));
        let mut all = Vec::new();
        for (key, line) in &vm.config {
            let Some(index) = key.strip_prefix("hostpci").and_then(|n| n.parse::<u32>().ok()) else { continue };
            let props = properties(line);
            let list = match props.get("mapping") {
                Some(name) => self.mapped(&vm.node, name)?,
                None => {
                    let bare = line.split(',').find(|part| !part.contains('='));
                    props.get("host").map(String::as_str).or(bare).unwrap_or_default().to_owned()
                }
            };
            let express = q35 && props.get("pcie").is_some_and(|flag| flag == "1");
            for (function, address) in addresses(&list).into_iter().enumerate() {
                if !self.seated(&vm.node).iter().any(|one| one.bay.address() == address) {
                    return Err(format!("no pci device info for device '{address}'"));
                }
                let holder = self.vms.iter().find(|(other, vm)| {
                    let holds = vm.running.as_ref().is_some_and(|run| run.pci.contains(&address));
                    **other != vmid && holds
                });
                if let Some((other, _)) = holder {
                    return Err(format!("PCI device '{address}' already in use by VMID '{other}'"));
                }
                all.push(Passed { bus: guest_bus(index, function, express), address });
            }
        }
        Ok(all)
    }

    /// The path of a mapping's entry, where the hardware is as it says.
    fn mapped(&self, host: &str, name: &str) -> Result<String, String> {
        let entries = self.pci_mappings.get(name).map(|mapping| mapping.map.as_slice()).unwrap_or_default();
        let entry = entries.iter().map(|e| properties(e)).find(|e| e.get("node").is_some_and(|node| node == host));
        let entry = entry.ok_or_else(|| format!("PCI device mapping not found for '{name}'"))?;
        let path = entry.get("path").cloned().unwrap_or_default();
        let bad = |why: String| format!("PCI device mapping invalid (hardware probably changed): {why}");
        for address in addresses(&path) {
            let all = self.seated(host);
            let there = all.iter().find(|one| one.bay.address() == address);
            let there = there.ok_or_else(|| bad(format!("pci device '{address}' not found")))?;
            let (vendor, device) = ids(&there.disk.model);
            let is = format!("{}:{}", vendor.trim_start_matches("0x"), device.trim_start_matches("0x"));
            let group = self.iommu_group(host, &address).to_string();
            for (key, is) in [("id", is), ("iommugroup", group)] {
                if let Some(said) = entry.get(key).filter(|said| **said != is) {
                    return Err(bad(format!("'{key}' does not match for '{name}' ({is} != {said})")));
                }
            }
        }
        Ok(path)
    }

    /// A process has started with these: its guest has them from now on, and the host's kernel no more.
    pub(super) fn hand_on(&mut self, vmid: u32, passed: &[Passed]) {
        let Some(host) = self.vms.get(&vmid).map(|vm| vm.node.clone()) else { return };
        let name = self.talos_in(vmid);
        let mut foreign = Vec::new();
        let mut own = BTreeMap::new();
        for one in self.seated(&host) {
            let Some(given) = passed.iter().find(|given| given.address == one.bay.address()) else { continue };
            match one.of.filter(|(node, _)| name.as_deref() == Some(*node)) {
                Some((_, at)) => drop(own.insert(at, given.bus.clone())),
                None => foreign.push(format!("vm {vmid}: {}", one.disk.serial)),
            }
        }
        self.misgiven.extend(foreign);
        let addresses: BTreeSet<String> = passed.iter().map(|given| given.address.clone()).collect();
        if let Some(host) = self.hosts.get_mut(&host) {
            host.vfio.extend(addresses.iter().cloned());
        }
        if let Some(run) = self.vms.get_mut(&vmid).and_then(|vm| vm.running.as_mut()) {
            run.pci = addresses;
        }
        let Some(node) = name.and_then(|name| self.talos.nodes.get_mut(&name)) else { return };
        for (at, disk) in node.disks.iter_mut().enumerate().filter(|(_, disk)| disk.in_host.is_some()) {
            disk.unplugged = !own.contains_key(&at);
            disk.bus_path = own.remove(&at).unwrap_or_default();
        }
    }

    /// What a host's kernel shows of its drives below `/sys`. One that a VM has had since the host's boot stays with vfio.
    pub(super) fn host_drives(&self, name: &str) -> BTreeMap<String, String> {
        let (mut files, mut number) = (BTreeMap::new(), 0);
        let Some(host) = self.hosts.get(name) else { return files };
        let boot = format!("{:08x}-7f3a-4b1c-8d2e-{:012x}\n", name.len(), host.boots);
        files.insert("/proc/sys/kernel/random/boot_id".to_owned(), boot);
        for Seated { bay, disk, .. } in self.seated(name) {
            let (address, at) = (bay.address(), format!("/sys/devices{}", bay.bus));
            files.insert(format!("{}/class", at.trim_end_matches("/nvme")), "0x010802\n".to_owned());
            for (leaf, text) in [("speed", "16.0 GT/s PCIe\n"), ("width", "4\n")] {
                files.insert(format!("/sys/bus/pci/devices/{address}/current_link_{leaf}"), text.to_owned());
            }
            if host.vfio.contains(address) || bay.dead.as_ref() == Some(&disk.serial) {
                continue;
            }
            let serial = bay.renames.get(&disk.serial).unwrap_or(&disk.serial);
            let texts = [
                ("serial".to_owned(), format!("{serial:20}")),
                ("model".to_owned(), format!("{:40}", disk.model)),
                ("firmware_rev".to_owned(), format!("{:8}", disk.firmware)),
                (format!("nvme{number}n1/size"), (disk.size / 512).to_string()),
                (format!("nvme{number}n1/wwid"), disk.wwid.clone()),
            ];
            let texts =
                texts.into_iter().map(|(leaf, text)| (format!("{at}/nvme{number}/{leaf}"), format!("{text}\n")));
            files.extend(texts);
            number += 1;
        }
        files
    }

    /// Somebody presses the power button of a host: its machines go down with it, and those that start with it come up.
    /// What came of it, in words; none: there is no such host.
    pub(super) fn press_host(&mut self, name: &str) -> Option<String> {
        let on = !self.hosts.get(name)?.online;
        self.power_host(name, on);
        Some(format!("{name} is switched {}", if on { "on" } else { "off" }))
    }

    /// Whether a host was switched.
    fn power_host(&mut self, name: &str, on: bool) -> bool {
        let Some(host) = self.hosts.get_mut(name).filter(|host| host.online != on) else { return false };
        host.online = on;
        if on {
            host.boots += 1;
            host.vfio.clear();
        }
        let here: Vec<u32> = self.vms.iter().filter(|(_, vm)| vm.node == name).map(|(id, _)| *id).collect();
        for vmid in here {
            let vm = self.vms.get(&vmid);
            let starts = vm.is_some_and(|vm| vm.config.get("onboot").is_some_and(|flag| flag == "1"));
            match on {
                true if starts => drop(self.fork("qmstart", vmid, "root@pam", serde_json::json!({}))),
                true => {}
                false => self.power_off(vmid),
            }
        }
        true
    }

    /// Moves drives of a VM between its host's slots and the bench, all out before one goes in.
    pub(super) fn move_in_host(&mut self, node: &str, moves: &[DriveMove]) -> Result<(), String> {
        let vmid = self.talos.nodes.get(node).and_then(|node| node.vmid);
        let host = self.host_of(vmid).ok_or(format!("`{node}` runs on no host"))?.to_owned();
        let chassis = self.hosts.get(&host).ok_or(format!("there is no host `{host}`"))?;
        if chassis.online {
            return Err(format!("`{host}` is on: drives are moved with the power off"));
        }
        let slots = chassis.bays.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        if let Some(slot) =
            moves.iter().filter_map(|one| one.to.as_ref()).find(|slot| !chassis.bays.contains_key(*slot))
        {
            return Err(format!("`{host}` has no slot `{slot}`; it has: {slots}"));
        }
        let disks = self.talos.nodes.get(node).map(|node| node.disks.as_slice()).unwrap_or_default();
        let mut after: BTreeMap<usize, String> = BTreeMap::new();
        for one in moves {
            let from = one.from.clone().unwrap_or_default();
            let is = |disk: &Disk| disk.serial == one.serial && disk.in_host.as_ref() == Some(&from);
            let place = if from.is_empty() { "beside it".to_owned() } else { format!("in {host}:{from}") };
            let at = disks.iter().position(is).ok_or(format!("`{}` is not {place}", one.serial))?;
            after.insert(at, one.to.clone().unwrap_or_default());
        }
        let mut taken = BTreeSet::new();
        let of_host = chassis.drives.iter().filter(|disk| !disk.unplugged).map(|disk| (&disk.serial, &disk.bay));
        let theirs = disks.iter().enumerate().filter_map(|(at, disk)| {
            let slot = after.get(&at).or(disk.in_host.as_ref())?;
            Some((&disk.serial, slot))
        });
        for (serial, slot) in of_host.chain(theirs).filter(|(_, slot)| !slot.is_empty()) {
            if !taken.insert(slot) {
                return Err(format!("two drives would be in {host}:{slot}, `{serial}` is one"));
            }
        }
        if let Some(node) = self.talos.nodes.get_mut(node) {
            for (at, slot) in after {
                if let Some(disk) = node.disks.get_mut(at) {
                    disk.in_host = Some(slot);
                }
            }
        }
        Ok(())
    }

    /// What a run asks of a person about a VM's drives: its host off, the drives moved, and the host on.
    pub(super) fn hands_on_host(&mut self, node: &str, moves: &[DriveMove], on: bool) -> Result<String, LabError> {
        let vmid = self.talos.nodes.get(node).and_then(|node| node.vmid);
        let host = self.host_of(vmid).unwrap_or_default().to_owned();
        let runs = |(_, vm): &(&u32, &super::world::Vm)| vm.node == host && vm.running.is_some();
        if let Some((vmid, _)) = self.vms.iter().find(runs) {
            return Err(LabError::Hands(format!("vm {vmid} runs on `{host}`: it would lose its power")));
        }
        let mut done = Vec::new();
        if self.power_host(&host, false) {
            done.push("switched off".to_owned());
        }
        self.move_in_host(node, moves).map_err(LabError::Hands)?;
        let place = |slot: &Option<String>| slot.clone().unwrap_or_else(|| "bench".to_owned());
        let moved = moves.iter().map(|one| format!("{} from {} to {}", one.serial, place(&one.from), place(&one.to)));
        done.extend(moved);
        if on && self.power_host(&host, true) {
            done.push("switched on".to_owned());
        }
        Ok(format!("{host}: {}", done.join(", ")))
    }
}
