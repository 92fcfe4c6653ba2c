//! Disks, what is found on them, and what the node makes of that.

use serde::Deserialize;

use super::or_default;

/// The disk of the installation.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct SystemDisk {
    /// The kernel's name, `sda`.
    #[serde(rename = "diskID")]
    pub disk_id: String,
    /// `/dev/sda`.
    #[serde(rename = "devPath")]
    pub dev_path: String,
}

/// A disk. Its id is the kernel's name, which moves from boot to boot.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Disk {
    /// `/dev/sda`.
    pub dev_path: String,
    /// In bytes.
    pub size: u64,
    /// It cannot be written.
    pub readonly: bool,
    /// It is a CD drive.
    pub cdrom: bool,
    /// The model.
    pub model: String,
    /// The serial number.
    pub serial: String,
    /// The World Wide Name.
    pub wwid: String,
    /// The NVMe uuid.
    pub uuid: String,
    /// Where it is plugged in.
    pub bus_path: String,
    /// nvme, sata, scsi, virtio, usb, mmc; empty for what is no hardware.
    pub transport: String,
    /// It has platters.
    pub rotational: bool,
    /// The version of its firmware (1.14 and later).
    pub firmware_version: String,
    /// Its names below `/dev/disk`.
    #[serde(deserialize_with = "or_default")]
    pub symlinks: Vec<String>,
    /// The disks below it, of a device mapper's.
    #[serde(deserialize_with = "or_default")]
    pub secondary_disks: Vec<String>,
}

impl Disk {
    /// A disk in a person's sense: hardware that can be written to.
    pub fn is_hardware(&self) -> bool {
        !self.transport.is_empty() && !self.cdrom && !self.readonly
    }
}

/// What is found on a disk or partition.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct DiscoveredVolume {
    /// `/dev/sda1`.
    pub dev_path: String,
    /// `disk` or `partition`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The disk's name, of a partition.
    pub parent: String,
    /// In bytes.
    pub size: u64,
    /// What is on it: xfs, ext4, gpt, lvm2-pv, zfs_member; empty where nothing is known.
    pub name: String,
    /// The file system's uuid.
    pub uuid: String,
    /// The file system's label.
    pub label: String,
    /// The partition's uuid.
    pub partition_uuid: String,
    /// The partition's label: `STATE`, `EPHEMERAL`, `u-data`.
    pub partition_label: String,
    /// The partition's number.
    pub partition_index: u32,
}

/// A volume that the node manages.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct VolumeStatus {
    /// waiting, failed, missing, located, provisioned, prepared, ready or closed.
    pub phase: String,
    /// partition, disk, tmpfs, directory, symlink, overlay or external.
    #[serde(rename = "type")]
    pub kind: String,
    /// `/dev/sda4`.
    pub location: String,
    /// `/dev/sda`.
    pub parent_location: String,
    /// In bytes.
    pub size: u64,
    /// Its file system.
    pub filesystem: String,
    /// What went wrong.
    pub error_message: String,
}

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Mount {
    /// Where.
    pub target: String,
    /// What.
    pub source: String,
    /// Its file system.
    pub filesystem: String,
    /// It cannot be written.
    pub read_only: bool,
}
