//! What the drives of a machine are for, put together from what Talos and Kubernetes tell.

use super::{Drive, Purpose};
use crate::base::survey::Layer;

/// What is known of a machine that says what its drives are for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Uses<'a> {
    /// The kernel's name of the disk that it is installed on.
    pub system: Option<&'a str>,
    /// What is mounted where: device and directory (`/dev/nvme1n1p1`, `/var/mnt/media`).
    pub mounts: &'a [(String, String)],
    /// Local persistent volumes that are bound to this node: name and directory, as the kubelet sees it.
    pub local: &'a [(String, String)],
    /// Pools of Mayastor on this node: name and device, by any name of it.
    pub pools: &'a [(String, String)],
}

/// Something that is in use, and on none of the drives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Homeless {
    /// What it is.
    pub purpose: Purpose,
    /// The device or directory that it has.
    pub at: String,
}

/// Fills in what each drive is for. Where it is not known what is on a drive, and nothing else tells, it gets no purpose:
/// spare is only what is known to be empty, and nothing where a device is in use by a name that no drive is known by.
///
/// A user or raw volume is the partition with its name behind `u-` or `r-` (Talos, `VolumeStatus`: the partition's label is
/// the volume's id). A local volume is where the innermost mount over its directory is.
pub fn assign(drives: &mut [Drive], uses: &Uses<'_>) -> Vec<Homeless> {
    let mut homeless = Vec::new();
    for drive in drives.iter_mut() {
        drive.purposes.clear();
        if uses.system == Some(drive.id.as_str()) {
            drive.purposes.push(Purpose::System);
        }
        for part in drive.parts.known().into_iter().flatten() {
            if let Some(name) = part.label.strip_prefix("u-").filter(|name| !name.is_empty()) {
                drive.purposes.push(Purpose::UserVolume(name.to_owned()));
            } else if let Some(name) = part.label.strip_prefix("r-").filter(|name| !name.is_empty()) {
                drive.purposes.push(Purpose::RawVolume(name.to_owned()));
            }
        }
    }
    for (name, device) in uses.pools {
        let purpose = Purpose::Mayastor(name.clone());
        match drives.iter_mut().find(|drive| is_or_has(drive, device)) {
            Some(drive) => drive.purposes.push(purpose),
            None => homeless.push(Homeless { purpose, at: device.clone() }),
        }
    }
    for (name, directory) in uses.local {
        let purpose = Purpose::Local(name.clone());
        // A volume may be a device itself.
        if is_device(directory) {
            match drives.iter_mut().find(|drive| is_or_has(drive, directory)) {
                Some(drive) => drive.purposes.push(purpose),
                None => homeless.push(Homeless { purpose, at: directory.clone() }),
            }
            continue;
        }
        let over = uses.mounts.iter().filter(|(_, target)| is_below(directory, target));
        let device = over.max_by_key(|(_, target)| target.trim_end_matches('/').len()).map(|(device, _)| device);
        match device.and_then(|device| drives.iter_mut().find(|drive| has_device(drive, device))) {
            Some(drive) => drive.purposes.push(purpose),
            None => homeless.push(Homeless { purpose, at: directory.clone() }),
        }
    }
    let lost = homeless.iter().any(|one| is_device(path_of(&one.at)));
    for drive in drives.iter_mut() {
        drive.purposes.sort();
        drive.purposes.dedup();
        let empty = matches!(&drive.parts, Layer::Known(parts) if parts.is_empty());
        if drive.purposes.is_empty() && empty && !lost {
            drive.purposes.push(Purpose::Spare);
        }
    }
    homeless
}

/// The path of a pool's device, which may be written `aio:///dev/sdb` or `uring:///dev/sdb`, with parameters.
fn path_of(device: &str) -> &str {
    let device = device.split_once("://").map_or(device, |(_, path)| path);
    device.split_once('?').map_or(device, |(path, _)| path)
}

fn is_device(path: &str) -> bool {
    path.starts_with("/dev/")
}

/// The drive, or a partition of it, has this name.
fn is_or_has(drive: &Drive, device: &str) -> bool {
    let device = path_of(device);
    // udev calls partitions by the name of the drive with `-part1` behind.
    let whole = device.rsplit_once("-part").filter(|(_, number)| number.chars().all(|c| c.is_ascii_digit()));
    let whole = whole.map_or(device, |(whole, _)| whole);
    has_device(drive, device) || drive.symlinks.iter().any(|link| link == device || link == whole)
}

/// The device is the drive or a partition of it: the kernel puts a `p` between where the name ends with a digit.
fn has_device(drive: &Drive, device: &str) -> bool {
    let Some(rest) = device.strip_prefix("/dev/").and_then(|name| name.strip_prefix(drive.id.as_str())) else {
        return false;
    };
    let digit = |text: &str| text.ends_with(|c: char| c.is_ascii_digit());
    let number = if digit(&drive.id) && !rest.is_empty() { rest.strip_prefix('p') } else { Some(rest) };
    number.is_some_and(|number| rest.is_empty() || (!number.is_empty() && number.chars().all(|c| c.is_ascii_digit())))
}

fn is_below(path: &str, of: &str) -> bool {
    let of = of.trim_end_matches('/');
    path == of || path.strip_prefix(of).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::super::Part;
    use super::*;

    fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
        all.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    fn drive(id: &str, labels: &[&str]) -> Drive {
        let part = |label: &&str| Part { label: (*label).to_owned(), index: 1, ..Part::default() };
        Drive {
            id: id.into(),
            symlinks: vec![format!("/dev/disk/by-id/nvme-{id}")],
            parts: Layer::Known(labels.iter().map(part).collect()),
            ..Drive::default()
        }
    }

    #[test]
    fn each_drive_has_what_is_on_it() {
        let unread = Drive { parts: Layer::unknown("it does not answer"), ..drive("nvme3n1", &[]) };
        let mut drives = [
            drive("nvme0n1", &["EFI", "META", "STATE", "EPHEMERAL", "u-small"]),
            drive("nvme1n1", &["u-media", "r-raw"]),
            drive("nvme2n1", &[]),
            unread,
            drive("nvme1n10", &[]),
            drive("sda", &["other"]),
        ];
        let uses = Uses {
            system: Some("nvme0n1"),
            mounts: &pairs(&[
                ("/dev/nvme0n1p4", "/var"),
                ("/dev/nvme1n1p1", "/var/mnt/media/"),
                ("/dev/sda1", "/var/mnt/old"),
                ("tmpfs", "/var/mnt/gone"),
            ]),
            local: &pairs(&[
                ("pv-a", "/var/mnt/media/a"),
                ("pv-b", "/var/mnt/mediate"),
                ("pv-c", "/var/local/c"),
                ("pv-d", "/var/mnt/old"),
                ("pv-e", "/var/mnt/gone/e"),
                ("pv-f", "/mnt/f"),
                ("pv-g", "/dev/disk/by-id/nvme-nvme2n1-part1"),
                ("pv-h", "/dev/nvme1n10p2"),
            ]),
            pools: &pairs(&[
                ("pool-1", "aio:///dev/disk/by-id/nvme-nvme2n1?blk_size=4096"),
                ("pool-2", "/dev/nvme1n10"),
                ("pool-3", "/dev/disk/by-id/gone"),
            ]),
        };
        let homeless = assign(&mut drives, &uses);
        let said: Vec<String> = drives
            .iter()
            .map(|drive| drive.purposes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
            .collect();
        assert_eq!(
            said,
            [
                "system, user-volume small, local pv-b, local pv-c",
                "user-volume media, raw-volume raw, local pv-a",
                "mayastor pool-1, local pv-g",
                "",
                "mayastor pool-2, local pv-h",
                "local pv-d",
            ]
        );
        let lost: Vec<String> = homeless.iter().map(|one| format!("{} at {}", one.purpose, one.at)).collect();
        assert_eq!(
            lost,
            ["mayastor pool-3 at /dev/disk/by-id/gone", "local pv-e at /var/mnt/gone/e", "local pv-f at /mnt/f"]
        );
        // Again: the same.
        let before = drives.clone();
        assign(&mut drives, &uses);
        assert_eq!(drives, before);
        let mut empty = [drive("nvme0n1", &[])];
        assign(&mut empty, &Uses::default());
        assert_eq!(empty[0].purposes, [Purpose::Spare]);
        // It may be the one that is in use by a name that nobody knows; a directory that is nowhere says nothing of it.
        assign(&mut empty, &Uses { pools: &pairs(&[("pool-3", "uring:///dev/disk/by-id/gone")]), ..Uses::default() });
        assert_eq!(empty[0].purposes, []);
        assign(&mut empty, &Uses { local: &pairs(&[("pv-i", "/dev/mapper/gone")]), ..Uses::default() });
        assert_eq!(empty[0].purposes, []);
        assign(&mut empty, &Uses { local: &pairs(&[("pv-f", "/mnt/f")]), ..Uses::default() });
        assert_eq!(empty[0].purposes, [Purpose::Spare]);
    }

    #[test]
    fn a_partition_is_its_drives() {
        let cases = [
            ("sda", "/dev/sda", true),
            ("sda", "/dev/sda12", true),
            ("sda", "/dev/sdaa1", false),
            ("nvme0n1", "/dev/nvme0n1p1", true),
            ("nvme0n1", "/dev/nvme0n11", false),
            ("nvme0n1", "/dev/nvme0n1", true),
            ("nvme0n1", "/dev/nvme0n1p", false),
            ("sda", "sda1", false),
        ];
        assert_eq!(cases.len(), 8);
        for (id, device, expected) in cases {
            assert_eq!(has_device(&drive(id, &[]), device), expected, "{device}");
        }
    }
}
