//! The disk that a machine is installed on: found by its serial number, and what is on it.

use crate::base::check::{Problem, bytes};
use crate::talos::Resource;
use crate::talos::kind::{DiscoveredVolume, Disk};

/// A disk of a machine, and what is on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// `Samsung SSD 980 PRO 1TB, 1.0 TB, nvme0n1`
    pub named: String,
    /// What is found on it, a line each; none: nothing that Talos knows, which is not the same as nothing.
    pub holds: Vec<String>,
}

/// The disk with a serial number among those that the machine has now.
///
/// # Errors
/// There is none, there are several, or nothing can be installed on it.
pub fn choose(
    name: &str,
    serial: &str,
    disks: &[Resource<Disk>],
    volumes: &[Resource<DiscoveredVolume>],
) -> Result<Chosen, Problem> {
    let found: Vec<&Resource<Disk>> = disks.iter().filter(|disk| disk.spec.serial == serial).collect();
    let list = |of: &[&Resource<Disk>]| of.iter().map(|disk| known(disk)).collect::<Vec<_>>().join("; ");
    let disk = match found.as_slice() {
        [disk] => *disk,
        [] => {
            let all: Vec<_> = disks.iter().filter(|disk| disk.spec.is_hardware()).collect();
            let there =
                if all.is_empty() { "it sees no disk at all".to_owned() } else { format!("it has {}", list(&all)) };
            return Err(Problem::new(
                format!("{name} has no disk with the serial number {serial}"),
                format!("{there}; correct `disk` of the node, or plug that disk in"),
            ));
        }
        several => {
            return Err(Problem::new(
                format!("{name} has {} disks with the serial number {serial}: {}", several.len(), list(several)),
                "an installation would take the first of them; take the others out for as long as it takes (in a VM: give \
                 each drive line a `serial=` of its own)",
            ));
        }
    };
    if !disk.spec.is_hardware() {
        let what = if disk.spec.cdrom { "a CD drive" } else { "not a disk that can be written" };
        return Err(Problem::new(
            format!("{name}: {} is {what}", known(disk)),
            "name the serial number of the disk that is to boot",
        ));
    }
    if disk.spec.transport == "usb" {
        return Err(Problem::new(
            format!("{name}: {} is a stick or a disk on USB: a node that runs from it is gone with it", known(disk)),
            "name the serial number of a disk inside the machine",
        ));
    }
    Ok(Chosen { named: known(disk), holds: holds(&disk.id, volumes) })
}

/// A disk by what a person knows it by.
fn known(disk: &Resource<Disk>) -> String {
    let serial = if disk.spec.serial.is_empty() { "no serial number".to_owned() } else { disk.spec.serial.clone() };
    format!("{} ({}, {}, {serial})", disk.id, disk.spec.model, bytes(disk.spec.size))
}

/// What is on a disk: its partitions, or what takes the whole of it.
pub fn holds(id: &str, volumes: &[Resource<DiscoveredVolume>]) -> Vec<String> {
    let mut parts: Vec<&Resource<DiscoveredVolume>> = volumes.iter().filter(|v| v.spec.parent == id).collect();
    parts.sort_by_key(|part| part.spec.partition_index);
    let mut lines: Vec<String> = parts.iter().map(|part| said(part)).collect();
    if lines.is_empty() {
        // A table without partitions is nothing that could be missed.
        let whole = volumes.iter().filter(|v| v.id == id && !v.spec.name.is_empty() && v.spec.name != "gpt");
        lines.extend(whole.map(said));
    }
    lines
}

fn said(volume: &Resource<DiscoveredVolume>) -> String {
    let of = &volume.spec;
    let labels = [&of.partition_label, &of.label].into_iter().find(|label| !label.is_empty());
    let label = labels.map(|label| format!(" {label}")).unwrap_or_default();
    let what = if of.name.is_empty() { "nothing that is known" } else { &of.name };
    format!("{}{label}: {what}, {}", volume.id, bytes(of.size))
}

/// The disks with the data of an installation, and their serial numbers: two of them on one machine, and nobody knows which
/// one Talos finds by its label.
pub fn with_data(disks: &[Resource<Disk>], volumes: &[Resource<DiscoveredVolume>]) -> Vec<(String, String)> {
    let data = |disk: &&Resource<Disk>| {
        let labels = |v: &Resource<DiscoveredVolume>| matches!(v.spec.partition_label.as_str(), "EPHEMERAL" | "ETCD");
        volumes.iter().any(|v| v.spec.parent == disk.id && labels(v))
    };
    disks.iter().filter(data).map(|disk| (known(disk), disk.spec.serial.clone())).collect()
}

/// Whether all that is on a disk are partitions as an installation of Talos makes them.
pub fn is_talos(holds: &[String]) -> bool {
    const OWN: [&str; 6] = ["EFI", "BIOS", "BOOT", "META", "STATE", "EPHEMERAL"];
    holds.iter().all(|line| {
        let label = line.split(':').next().and_then(|head| head.split(' ').nth(1));
        label.is_some_and(|label| OWN.contains(&label))
    })
}

/// Other disks from which the firmware may boot: those with an EFI system partition.
pub fn also_boot(own: &str, disks: &[Resource<Disk>], volumes: &[Resource<DiscoveredVolume>]) -> Vec<String> {
    let boots = |disk: &&Resource<Disk>| {
        let efi =
            |v: &Resource<DiscoveredVolume>| v.spec.parent == disk.id && v.spec.partition_label.starts_with("EFI");
        disk.spec.is_hardware() && disk.id != own && volumes.iter().any(efi)
    };
    disks.iter().filter(boots).map(known).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<T>(id: &str, spec: T) -> Resource<T> {
        let (labels, annotations) = Default::default();
        Resource { id: id.into(), version: "1".into(), phase: "running".into(), labels, annotations, spec }
    }

    fn disk(id: &str, serial: &str, transport: &str) -> Resource<Disk> {
        let spec = Disk {
            serial: serial.into(),
            transport: transport.into(),
            size: 64_000_000_000,
            model: "M".into(),
            ..Disk::default()
        };
        of(id, spec)
    }

    fn part(id: &str, parent: &str, label: &str, name: &str) -> Resource<DiscoveredVolume> {
        let spec = DiscoveredVolume {
            parent: parent.into(),
            partition_label: label.into(),
            name: name.into(),
            size: 1_000_000_000,
            ..DiscoveredVolume::default()
        };
        of(id, spec)
    }

    #[test]
    fn a_disk_is_taken_only_where_it_is_the_one() {
        let disks =
            [disk("sda", "S1", "sata"), disk("sdb", "S1", "sata"), disk("sdc", "U1", "usb"), disk("sdd", "S2", "sata")];
        let refused = [
            ("S9", "no disk with the serial number S9", "sda (M, "),
            ("S1", "2 disks with the serial number S1", "take the others out"),
            ("U1", "on USB", "inside the machine"),
        ];
        assert_eq!(refused.len(), 3);
        for (serial, text, help) in refused {
            let problem = choose("n1", serial, &disks, &[]).unwrap_err();
            assert!(problem.text.contains(text) && problem.help.contains(help), "{problem:?}");
        }
        let cd = [Resource { spec: Disk { cdrom: true, ..disk("sr0", "C", "sata").spec }, ..disk("sr0", "C", "sata") }];
        assert!(choose("n1", "C", &cd, &[]).unwrap_err().text.contains("a CD drive"));
        assert!(choose("n1", "S9", &[], &[]).unwrap_err().help.contains("no disk at all"));
        assert_eq!(choose("n1", "S2", &disks, &[]).unwrap().holds, Vec::<String>::new());
    }

    #[test]
    fn what_is_on_a_disk_is_named() {
        let volumes = [
            part("sda", "", "", "gpt"),
            part("sda2", "sda", "STATE", "xfs"),
            part("sda1", "sda", "EFI", "vfat"),
            part("sdb", "", "", "zfs_member"),
            part("sdc", "", "", "gpt"),
            part("sdd1", "sdd", "EFI", "vfat"),
        ];
        assert_eq!(holds("sda", &volumes).len(), 2);
        assert!(holds("sda", &volumes).iter().any(|line| line.starts_with("sda2 STATE: xfs, ")));
        assert_eq!(holds("sdb", &volumes).len(), 1);
        assert_eq!(holds("sdc", &volumes), Vec::<String>::new());
        let disks = [disk("sda", "S1", "sata"), disk("sdd", "S2", "sata"), disk("sdb", "S3", "sata")];
        assert_eq!(also_boot("sda", &disks, &volumes), ["sdd (M, 59.6 GiB, S2)"]);
    }
}
