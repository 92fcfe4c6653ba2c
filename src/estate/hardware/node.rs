//! What a Talos node tells of its hardware.

use std::collections::BTreeMap;

use futures::future::join_all;

use super::kubernetes::Uses;
use super::pci::{self, Pci};
use super::{Why, told};
use crate::base::drives::sheet::{Bays, Board, Cpu, Machine, Memory, Module, Row, Told, seats};
use crate::base::drives::{Drive, Link, Part, Purpose, Slot, Uses as InUse, assign};
use crate::base::survey::Layer;
use crate::talos::kind::{self, DiscoveredVolume, Disk, MemoryModule, Processor};
use crate::talos::{Error, Resource, Talos};

/// Where Talos mounts them, each by its name.
const USER_VOLUMES: &str = "/var/mnt/";

type All<T> = Result<Vec<Resource<T>>, Error>;
type One<T> = Result<Option<Resource<T>>, Error>;

/// What was asked, and what came of it.
pub(super) struct Look {
    version: String,
    board: One<kind::SystemInformation>,
    cpu: All<Processor>,
    modules: All<MemoryModule>,
    memory: Result<u64, Error>,
    pub(super) drives: Drives,
}

/// The same of its drives.
pub(super) struct Drives {
    disks: All<Disk>,
    system_disk: One<kind::SystemDisk>,
    volumes: All<DiscoveredVolume>,
    mounts: All<kind::Mount>,
    managed: All<kind::VolumeStatus>,
    /// By the disk's id.
    firmware: BTreeMap<String, Told<String>>,
    links: BTreeMap<String, Told<Link>>,
    pci: Pci,
}

/// Asks a node; what its version is first: where there is no answer nothing else is asked.
pub(super) async fn look(talos: &Talos) -> Result<Look, Error> {
    let version = talos.version().await?.tag;
    let (drives, board, cpu, modules, memory) = futures::join!(
        Box::pin(drives(talos)),
        talos.single(&kind::SYSTEM_INFORMATION),
        talos.list(&kind::PROCESSORS),
        talos.list(&kind::MEMORY_MODULES),
        talos.memory(),
    );
    let memory = memory.map(|memory| memory.total);
    Ok(Look { version, board, cpu, modules, memory, drives })
}

/// Asks a node for its drives. A machine that waits for its configuration answers these too, but for files of its kernel.
pub(super) async fn drives(talos: &Talos) -> Drives {
    let (disks, system_disk, volumes, mounts, managed, devices) = futures::join!(
        talos.list(&kind::DISKS),
        talos.single(&kind::SYSTEM_DISK),
        talos.list(&kind::DISCOVERED_VOLUMES),
        talos.list(&kind::MOUNTS),
        talos.list(&kind::VOLUME_STATUSES),
        talos.list(&kind::PCI_DEVICES),
    );
    let known: &[Resource<Disk>] = disks.as_deref().unwrap_or_default();
    let nvme: Vec<&Resource<Disk>> = known.iter().filter(|disk| disk.spec.transport == "nvme").collect();
    let each = join_all(nvme.iter().map(|disk| async move {
        let (firmware, link) = futures::join!(firmware(talos, disk), pci::link(talos, disk));
        ((disk.id.clone(), firmware), (disk.id.clone(), link))
    }));
    let (each, pci) = futures::join!(Box::pin(each), Box::pin(pci::look(talos, devices, &nvme)));
    let (firmware, links) = each.into_iter().unzip();
    Drives { disks, system_disk, volumes, mounts, managed, firmware, links, pci }
}

/// The version of a drive's firmware. Before 1.14 the resource has none, and the kernel's file takes os:admin.
async fn firmware(talos: &Talos, disk: &Resource<Disk>) -> Told<String> {
    if !disk.spec.firmware_version.is_empty() {
        return Told::Is(disk.spec.firmware_version.trim().to_owned());
    }
    told(pci::line(talos, &format!("/sys/block/{}/device/firmware_rev", disk.id)).await)
}

impl Look {
    pub(super) fn machine(self, slots: &[Slot], uses: Option<&Uses>, node: &str) -> Machine {
        let board = |spec: kind::SystemInformation| Board {
            manufacturer: spec.manufacturer,
            product: spec.product_name,
            version: spec.version,
            serial: spec.serialnumber,
            uuid: spec.uuid.to_lowercase(),
        };
        let cpu = |all: Vec<Resource<Processor>>| all.into_iter().map(|one| processor(one.spec)).collect();
        let modules = |all: Vec<Resource<MemoryModule>>| all.into_iter().map(|one| module(one.spec)).collect();
        Machine {
            talos: self.version,
            board: match self.board {
                Ok(Some(found)) => Told::Is(board(found.spec)),
                Ok(None) => Told::not("its firmware tells nothing"),
                Err(error) => told(Err(error)),
            },
            cpu: told(self.cpu.map(cpu)),
            memory: Memory { bytes: told(self.memory), modules: told(self.modules.map(modules)) },
            bays: self.drives.bays(slots, uses, node),
        }
    }
}

impl Drives {
    /// The same where the disks could be asked.
    ///
    /// # Errors
    /// Why they could not: Talos' own error, which knows what may be asked again.
    pub(super) fn answered(self) -> Result<Self, Error> {
        Ok(Self { disks: Ok(self.disks?), ..self })
    }

    /// The slots and drives, with what each is for as the Kubernetes of the node tells it by its name there.
    pub(super) fn bays(self, slots: &[Slot], uses: Option<&Uses>, node: &str) -> Bays {
        let Self { disks, system_disk, volumes, mounts, managed, mut firmware, mut links, pci } = self;
        let mut not_asked = Vec::new();
        let system = ask(system_disk, "which disk it is installed on", &mut not_asked);
        let system = system.flatten().map(|found| found.spec.disk_id);
        let mounts = ask(mounts, "what is mounted", &mut not_asked);
        let mounts = mounts.map(|all| {
            all.into_iter().map(|one| (one.spec.source, one.spec.target)).collect::<Vec<(String, String)>>()
        });
        let managed = ask(managed, "which volumes it has", &mut not_asked).unwrap_or_default();
        let parts = layer(volumes);
        if let Some(reason) = parts.reason() {
            not_asked.push(format!("what is on the drives: {reason}"));
        }
        let (mut local, mut pools) = (Vec::new(), Vec::new());
        if let Some(uses) = uses {
            (local, pools) = uses.of(node, &mut not_asked);
        }
        if mounts.is_none() {
            // Where a directory is cannot be told then, and that it is on no drive neither.
            local.retain(|(_, directory)| directory.starts_with("/dev/"));
        }
        let mounts = mounts.unwrap_or_default();
        let mut on_no_drive = Vec::new();
        // A volume that is a directory has no device of its own: it is on the drive of what is above it.
        let devices: Vec<(String, String)> = mounts.iter().filter(|(source, _)| !source.is_empty()).cloned().collect();
        local.retain(|(name, directory)| match not_mounted(directory, &managed, &mounts) {
            Some(why) => {
                on_no_drive.push(format!("{}: {directory} ({why})", Purpose::Local(name.clone())));
                false
            }
            None => true,
        });
        let drives = told(disks).map(|all| {
            let all = all.into_iter().filter(|disk| disk.spec.is_hardware());
            let mut drives: Vec<Drive> = all.map(|disk| drive(disk, &parts)).collect();
            let uses = InUse { system: system.as_deref(), mounts: &devices, local: &local, pools: &pools };
            let homeless = assign(&mut drives, &uses);
            on_no_drive.extend(homeless.into_iter().map(|one| format!("{}: {}", one.purpose, one.at)));
            if !not_asked.is_empty() {
                drives.iter_mut().for_each(|drive| drive.purposes.retain(|purpose| *purpose != Purpose::Spare));
            }
            let row = |drive: Drive| {
                let (firmware, link) = (firmware.remove(&drive.id), links.remove(&drive.id));
                Row::of(drive, firmware, link)
            };
            drives.into_iter().map(row).collect::<Vec<Row>>()
        });
        let (controllers_without_a_disk, no_ports) = pci.idle();
        let slots = seats(slots, &drives, &controllers_without_a_disk, no_ports.as_deref());
        Bays { slots, drives, controllers_without_a_disk, no_ports, not_asked, on_no_drive }
    }
}

/// Why a directory is on no drive although it is below one that is mounted: it is of a user volume that is not. What is seen
/// at its place is then an empty directory of another drive.
fn not_mounted(
    directory: &str,
    managed: &[Resource<kind::VolumeStatus>],
    mounts: &[(String, String)],
) -> Option<String> {
    let name = directory.strip_prefix(USER_VOLUMES)?.split('/').next()?;
    let volume = managed.iter().find(|volume| volume.id.strip_prefix("u-") == Some(name))?;
    let is_its = |target: &str| target.trim_end_matches('/').strip_prefix(USER_VOLUMES) == Some(name);
    let mounted = mounts.iter().any(|(_, target)| is_its(target));
    (!mounted).then(|| format!("the user volume {name} is not mounted: {}", volume.spec.phase))
}

/// What was asked of what drives are for; why not is said.
fn ask<T>(answer: Result<T, Error>, what: &str, not_asked: &mut Vec<String>) -> Option<T> {
    answer.map_err(|error| not_asked.push(format!("{what}: {}", Why::from(error).reason))).ok()
}

fn layer<T>(answer: Result<T, Error>) -> Layer<T> {
    told(answer).into()
}

fn processor(spec: Processor) -> Cpu {
    let Processor { socket, product_name, core_count, thread_count, .. } = spec;
    Cpu { socket, product: product_name.trim().to_owned(), cores: core_count, threads: thread_count }
}

fn module(spec: MemoryModule) -> Module {
    Module {
        slot: spec.device_locator,
        size_mib: spec.size_mib,
        speed: spec.speed,
        product: spec.product_name.trim().to_owned(),
        serial: spec.serial_number.trim().to_owned(),
    }
}

fn drive(disk: Resource<Disk>, volumes: &Layer<Vec<Resource<DiscoveredVolume>>>) -> Drive {
    let parts = volumes.clone().map(|all| parts(&disk.id, &all));
    let spec = disk.spec;
    Drive {
        id: disk.id,
        model: spec.model,
        serial: spec.serial,
        wwid: spec.wwid,
        uuid: spec.uuid,
        firmware: String::new(),
        size: spec.size,
        transport: spec.transport,
        bus_path: spec.bus_path,
        symlinks: spec.symlinks,
        parts,
        link: None,
        purposes: Vec::new(),
    }
}

/// What is on a drive: its partitions, or what takes the whole of it, where that is no partition table.
fn parts(disk: &str, volumes: &[Resource<DiscoveredVolume>]) -> Vec<Part> {
    let part = |volume: &Resource<DiscoveredVolume>| {
        let spec = &volume.spec;
        let whole = volume.id == disk;
        if whole && matches!(spec.name.as_str(), "" | "gpt" | "dos" | "mbr") || !whole && spec.parent != disk {
            return None;
        }
        let (uuid, label) =
            if whole { (&spec.uuid, &spec.label) } else { (&spec.partition_uuid, &spec.partition_label) };
        Some(Part {
            uuid: uuid.to_lowercase(),
            label: label.clone(),
            index: spec.partition_index,
            size: spec.size,
            content: spec.name.clone(),
        })
    };
    let mut all: Vec<Part> = volumes.iter().filter_map(part).collect();
    all.sort_by_key(|part| part.index);
    all
}
