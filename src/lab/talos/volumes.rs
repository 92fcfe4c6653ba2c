//! Partitions and volumes of a node: what is found on its disks, what its configuration makes of that, where it is mounted.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::hardware::{links_of, named, pretty, system};
use super::node::{Disk, Node, Partition, Run, Wiped};
use super::resources::Spec;
use crate::base::cel;
use crate::lab::World;

/// A volume that a configuration asks for on a partition of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The label of its partition, and its id: `u-media`, `r-scratch`.
    pub label: String,
    /// Which disks it may be made on; empty: it is not made.
    pub on: String,
    /// The file system that it gets; empty: none.
    pub filesystem: String,
    /// At most so many bytes; none: all that is free.
    pub at_most: Option<u64>,
}

impl Wanted {
    /// Where it is mounted; a raw one is not.
    fn target(&self) -> Option<String> {
        self.label.strip_prefix("u-").map(|name| format!("/var/mnt/{name}"))
    }
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
/// Room that is taken by the table itself.
const TABLE: u64 = 2 << 20;

/// Whether an installed node has a volume of this name.
pub(super) fn is_volume(node: &Node, label: &str) -> bool {
    let known = PARTITIONS.iter().any(|(_, known, ..)| *known == label) || node.etcd_volume && label == ETCD;
    node.disks.iter().any(|disk| disk.system) && known
}

fn partition(disk: &str, number: u32) -> String {
    if disk.starts_with("nvme") { format!("{disk}p{number}") } else { format!("{disk}{number}") }
}

/// A uuid of a partition, or of the file system in it: made up once, when it was made.
fn made_uuid(disk: &Disk, what: &str, number: u32) -> String {
    let digest = Sha256::digest(format!("{what} {} {} {number} {}", disk.model, disk.serial, disk.wipes));
    let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default().to_owned();
    [part(0, 8), part(8, 12), format!("4{}", part(13, 16)), format!("a{}", part(17, 20)), part(20, 32)].join("-")
}

/// The uuid of the partition that a machine is booted from.
pub(super) fn boot_partition(disk: &Disk) -> String {
    made_uuid(disk, "partition", 1)
}

/// A partition as it is found.
struct Found<'a> {
    number: u32,
    label: &'a str,
    name: &'a str,
    content: &'a str,
    size: u64,
    uuid: String,
}

/// All partitions of a disk.
fn parts(disk: &Disk) -> Vec<Found<'_>> {
    let installed = disk.system || disk.installed.is_some();
    let own = PARTITIONS.iter().filter(|_| installed).map(|(number, label, content, size)| Found {
        number: *number,
        label,
        name: label,
        content,
        size: if *size == 0 { disk.size / 100 * 98 } else { *size },
        uuid: made_uuid(disk, "partition", *number),
    });
    // The fifth is that of etcd, if it is anything.
    let first = if installed { 6 } else { 1 };
    let others = disk.partitions.iter().zip(first..).map(|(part, number)| Found {
        number,
        label: &part.label,
        name: &part.name,
        content: &part.holds,
        size: part.size,
        uuid: if part.uuid.is_empty() { made_uuid(disk, "partition", number) } else { part.uuid.clone() },
    });
    own.chain(others).collect()
}

/// `DiscoveredVolumes`
pub(super) fn discovered(node: &Node, run: &Run) -> Vec<Spec> {
    let mut all = Vec::new();
    for (name, disk) in named(node, run) {
        let parts = parts(disk);
        let found = match (parts.is_empty(), &disk.live) {
            (false, _) => "gpt",
            (true, Some(_)) => "iso9660",
            (true, None) => disk.holds.as_str(),
        };
        let uuid = if found.is_empty() { String::new() } else { made_uuid(disk, "disk", 0) };
        let spec = json!({ "dev_path": format!("/dev/{name}"), "type": "disk", "parent": "", "size": disk.size,
            "pretty_size": pretty(disk.size), "sector_size": 512, "name": found, "uuid": uuid });
        all.push((name.clone(), spec));
        for part in parts {
            let id = partition(name, part.number);
            let uuid = match part.content {
                "" | "talosmeta" => String::new(),
                _ => made_uuid(disk, "content", part.number),
            };
            let spec = json!({
                "dev_path": format!("/dev/{id}"), "type": "partition", "parent": name,
                "parent_dev_path": format!("/dev/{name}"), "size": part.size, "pretty_size": pretty(part.size),
                "sector_size": 512, "name": part.content, "uuid": uuid, "label": part.name, "partition_uuid": part.uuid,
                "partition_label": part.label, "partition_index": part.number,
            });
            all.push((id, spec));
        }
    }
    all
}

/// A partition with this label, on the disk that is found first.
fn located<'a>(node: &'a Node, run: &'a Run, label: &str) -> Option<(&'a String, &'a Disk, Found<'a>)> {
    let mut disks: Vec<_> = named(node, run).collect();
    disks.sort_by_key(|(name, _)| *name);
    disks.into_iter().find_map(|(name, disk)| {
        let part = parts(disk).into_iter().find(|part| part.label == label)?;
        Some((name, disk, part))
    })
}

/// `VolumeStatuses`
pub(super) fn volumes(node: &Node, run: &Run) -> Vec<Spec> {
    let Some((name, disk)) = system(node, run) else { return Vec::new() };
    let one = |(number, label, found, size): &(u32, &str, &str, u64)| {
        let size = if *size == 0 { disk.size / 100 * 98 } else { *size };
        let spec = json!({
            "phase": "ready", "type": "partition", "location": format!("/dev/{}", partition(name, *number)),
            "parentLocation": format!("/dev/{name}"), "partitionIndex": number, "size": size,
            "partitionUUID": made_uuid(disk, "partition", *number),
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
    all.extend(run.wants.volumes.iter().map(|wanted| (wanted.label.clone(), wanted_status(node, run, wanted))));
    all
}

/// One that the configuration asks for. Where its partition is nowhere it is made anew; where no disk fits that fails
/// (siderolabs/talos `internal/app/machined/pkg/controllers/block/internal/volumes/locate_provision.go`).
fn wanted_status(node: &Node, run: &Run, wanted: &Wanted) -> Value {
    match located(node, run, &wanted.label) {
        Some((name, _, part)) => json!({
            "phase": "ready", "type": "partition", "location": format!("/dev/{}", partition(name, part.number)),
            "parentLocation": format!("/dev/{name}"), "partitionIndex": part.number, "partitionUUID": part.uuid,
            "size": part.size, "prettySize": pretty(part.size), "mountLocation": wanted.target().unwrap_or_default(),
            "filesystem": if part.content.is_empty() { "none" } else { part.content },
        }),
        None if wanted.on.is_empty() => json!({ "phase": "missing", "type": "partition" }),
        None => json!({
            "phase": "failed", "type": "partition", "preFailPhase": "waiting",
            "errorMessage": "no disks matched for volume",
        }),
    }
}

/// `MountStatuses`
pub(super) fn mounts(node: &Node, run: &Run) -> Vec<Spec> {
    let Some((name, _)) = system(node, run) else { return Vec::new() };
    let spec = |id: &str, target: &str, source: &str, filesystem: &str, parent: &str| {
        json!({
            "spec": { "volumeID": id, "parentID": parent, "requesters": ["sequencer"], "readOnly": false },
            "target": target, "source": source, "filesystem": filesystem,
            "readOnly": false, "projectQuotaSupport": id == "EPHEMERAL", "detached": false,
        })
    };
    let one = |(number, id, target): &(u32, &str, &str)| {
        let source = format!("/dev/{}", partition(name, *number));
        ((*id).to_owned(), spec(id, target, &source, "xfs", ""))
    };
    let wanted = run.wants.volumes.iter().filter_map(|wanted| {
        let (disk, _, part) = located(node, run, &wanted.label)?;
        let source = format!("/dev/{}", partition(disk, part.number));
        Some((wanted.label.clone(), spec(&wanted.label, &wanted.target()?, &source, part.content, "EPHEMERAL")))
    });
    // User volumes of the type `directory` (from 1.12 on) are mounted too, and have no device (`block/mount.go`).
    let names: BTreeSet<&str> =
        node.data.keys().filter_map(|path| path.strip_prefix("/var/mnt/")?.split('/').next()).collect();
    let directory = |name: &str| {
        let id = format!("u-{name}");
        let spec = spec(&id, &format!("/var/mnt/{name}"), "", "none", "EPHEMERAL");
        (id, spec)
    };
    let directories = names.into_iter().filter(|name| located(node, run, &format!("u-{name}")).is_none());
    let own = [(3, "STATE", "/system/state"), (4, "EPHEMERAL", "/var")];
    own.iter().map(one).chain(wanted).chain(directories.map(directory)).collect()
}

/// What an expression of a volume's may ask of a disk.
fn field(name: &str, disk: &Disk, what: &str) -> Option<cel::Value> {
    let text = |text: &str| Some(cel::Value::Text(text.to_owned()));
    match what {
        "disk.dev_path" => text(&format!("/dev/{name}")),
        "disk.size" => Some(cel::Value::Uint(disk.size)),
        "disk.model" => text(&disk.model),
        "disk.serial" => text(&disk.serial),
        "disk.wwid" => text(&disk.wwid),
        "disk.bus_path" => text(&disk.bus_path),
        "disk.transport" => text(&disk.transport),
        "disk.rotational" => Some(cel::Value::Bool(disk.rotational)),
        "disk.readonly" | "disk.cdrom" => Some(cel::Value::Bool(false)),
        "disk.symlinks" => Some(cel::Value::List(links_of(disk).into_iter().map(cel::Value::Text).collect())),
        "system_disk" => Some(cel::Value::Bool(disk.system)),
        _ => None,
    }
}

/// How much room for a partition a disk has: a blank one, or one with a table.
fn room(disk: &Disk) -> u64 {
    let taken = disk.system || disk.installed.is_some() || disk.live.is_some() || !disk.holds.is_empty();
    let used: u64 = disk.partitions.iter().map(|part| part.size).sum();
    if taken { 0 } else { disk.size.saturating_sub(used + TABLE) }
}

/// Bytes that a drive writes and reads in a second, where the world says nothing of it.
fn speed(disk: &Disk) -> (u64, u64) {
    match (disk.speed, disk.transport.as_str()) {
        ((0, 0), "nvme") => (1_900 * 1_000_000, 3_100 * 1_000_000),
        ((0, 0), _) => (430 * 1_000_000, 510 * 1_000_000),
        ((write, read), _) => (write * 1_000_000, read * 1_000_000),
    }
}

impl Node {
    /// Where file systems of its own are mounted, with the bytes that each writes and reads in a second.
    pub(in crate::lab) fn mounted(&self) -> Vec<(String, (u64, u64))> {
        let Some(run) = self.run.as_ref().filter(|run| !run.maintenance) else { return Vec::new() };
        let own = system(self, run).map(|(_, disk)| ("/var".to_owned(), speed(disk)));
        let wanted = run.wants.volumes.iter().filter_map(|wanted| {
            let (_, disk, _) = located(self, run, &wanted.label)?;
            Some((wanted.target()?, speed(disk)))
        });
        own.into_iter().chain(wanted).collect()
    }

    /// Its disks by their names below `/dev`, with their sizes.
    pub(in crate::lab) fn links(&self) -> BTreeMap<String, u64> {
        let Some(run) = &self.run else { return BTreeMap::new() };
        let links = |(name, disk): (&String, &Disk)| {
            let size = disk.size;
            let all = links_of(&self.shown(disk)).into_iter().chain([format!("/dev/{name}")]);
            all.map(move |link| (link, size)).collect::<Vec<_>>()
        };
        named(self, run).flat_map(links).collect()
    }
}

impl World {
    /// Volumes that a node's configuration asks for and that are nowhere are made, each on the first disk that fits.
    pub(super) fn talos_provision(&mut self, name: &str) {
        let now = self.now;
        let Some(node) = self.talos.nodes.get(name) else { return };
        let Some(run) = node.answering(now).filter(|run| !run.maintenance && run.going.is_none()) else { return };
        let nowhere: Vec<Wanted> =
            run.wants.volumes.iter().filter(|wanted| located(node, run, &wanted.label).is_none()).cloned().collect();
        for wanted in nowhere {
            let Some(node) = self.talos.nodes.get_mut(name) else { return };
            let Some(run) = &node.run else { return };
            // Less than this is no volume (siderolabs/talos `block.MinUserVolumeSize`).
            let fits = |name: &String, disk: &Disk| {
                let shown = node.shown(disk);
                let read = cel::Cel::read(&wanted.on);
                room(disk) >= 100 << 20
                    && read.is_ok_and(|read| read.holds(&|what| field(name, &shown, what)) == Ok(true))
            };
            let mut disks: Vec<(&String, usize)> = run.names.iter().map(|(at, name)| (name, *at)).collect();
            disks.sort();
            let first = disks.into_iter().find(|(name, at)| node.disks.get(*at).is_some_and(|disk| fits(name, disk)));
            let Some(at) = first.map(|(_, at)| at) else { continue };
            let Some(disk) = node.disks.get_mut(at) else { continue };
            let size = wanted.at_most.unwrap_or(u64::MAX).min(room(disk));
            if !disk.pool.is_empty() {
                // Nothing that Talos knows is on the disk of a pool.
                let held = vec![format!("pool {}", std::mem::take(&mut disk.pool))];
                let lost = Wiped { node: name.to_owned(), serial: disk.serial.clone(), by: "volume", held };
                self.talos.wiped.push(lost);
            }
            let part = Partition { label: wanted.label, holds: wanted.filesystem, size, ..Partition::default() };
            disk.partitions.push(part);
        }
    }
}
