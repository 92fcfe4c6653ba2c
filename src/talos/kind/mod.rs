//! The kinds of resources that are read, with what they say.
//!
//! Names, namespaces and keys are those of siderolabs/talos pkg/machinery/resources (v1.11 to v1.14). Keys that are not
//! named are passed over, those that are missing are empty: versions differ.

mod board;
mod disk;
mod install;
mod network;

use serde::{Deserialize, Deserializer};

pub use board::{MemoryModule, PciDevice, Processor, SystemInformation};
pub use disk::{DiscoveredVolume, Disk, Mount, SystemDisk, VolumeStatus};
pub use install::{InstallPhase, UnattendedInstall};
pub use network::{Address, Hostname, Link};

use super::resource::{Kind, Single};

/// How far a node's boot is, and whether it is what it should be.
pub const MACHINE_STATUS: Single<MachineStatus> =
    Kind::new("runtime", "MachineStatuses.runtime.talos.dev").one("machine");
/// The disk that it was installed to; none on a node that runs from an image.
pub const SYSTEM_DISK: Single<SystemDisk> = Kind::new("runtime", "SystemDisks.block.talos.dev").one("system-disk");
/// All disks, loop devices and CD drives with them.
pub const DISKS: Kind<Disk> = Kind::new("runtime", "Disks.block.talos.dev");
/// What is found on disks and their partitions.
pub const DISCOVERED_VOLUMES: Kind<DiscoveredVolume> = Kind::new("runtime", "DiscoveredVolumes.block.talos.dev");
/// The volumes that the node manages.
pub const VOLUME_STATUSES: Kind<VolumeStatus> = Kind::new("runtime", "VolumeStatuses.block.talos.dev");
/// What is mounted. There is another kind with the same short name.
pub const MOUNTS: Kind<Mount> = Kind::new("runtime", "MountStatuses.block.talos.dev");
/// The cluster's nodes as discovery sees them, workers with them; it says nothing of votes.
pub const MEMBERS: Kind<Member> = Kind::new("cluster", "Members.cluster.talos.dev");
/// The node's own member id in etcd; none on a worker.
pub const ETCD_MEMBER: Single<EtcdMemberId> = Kind::new("etcd", "EtcdMembers.etcd.talos.dev").one("local");
/// The kernel modules that the machine configuration asks for.
pub const MODULE_SPECS: Kind<ModuleSpec> = Kind::new("runtime", "KernelModuleSpecs.runtime.talos.dev");
/// The kernel modules that are loaded; built-in ones are not among them.
pub const LOADED_MODULES: Kind<LoadedModule> = Kind::new("runtime", "LoadedKernelModules.runtime.talos.dev");
/// The kernel modules that are there, built-in ones with them (1.14 and later).
pub const MODULE_STATUSES: Kind<LoadedModule> = Kind::new("runtime", "KernelModuleStatuses.runtime.talos.dev");
/// The system extensions of the image; the image factory's schematic is one of them by the name `schematic`.
pub const EXTENSIONS: Kind<Extension> = Kind::new("runtime", "ExtensionStatuses.runtime.talos.dev");
/// Network links.
pub const LINKS: Kind<Link> = Kind::new("network", "LinkStatuses.net.talos.dev");
/// Addresses on links.
pub const ADDRESSES: Kind<Address> = Kind::new("network", "AddressStatuses.net.talos.dev");
/// The node's host name.
pub const HOSTNAME: Single<Hostname> = Kind::new("network", "HostnameStatuses.net.talos.dev").one("hostname");
/// PCI devices with the drivers that are bound to them.
pub const PCI_DEVICES: Kind<PciDevice> = Kind::new("hardware", "PCIDevices.hardware.talos.dev");
/// Who made the machine; its uuid is the one of the VM's SMBIOS.
pub const SYSTEM_INFORMATION: Single<SystemInformation> =
    Kind::new("hardware", "SystemInformations.hardware.talos.dev").one("systeminformation");
/// Its processors, one a socket, as the firmware tells (SMBIOS); a VM's too.
pub const PROCESSORS: Kind<Processor> = Kind::new("hardware", "Processors.hardware.talos.dev");
/// Its memory modules, as the firmware tells; sockets without one are among them, with a size of 0.
pub const MEMORY_MODULES: Kind<MemoryModule> = Kind::new("hardware", "MemoryModules.hardware.talos.dev");
/// What the node itself finds wrong.
pub const DIAGNOSTICS: Kind<Diagnostic> = Kind::new("runtime", "Diagnostics.runtime.talos.dev");
/// The kernel's boot id (1.14 and later); it differs after every boot.
pub const BOOT_ID: Single<BootId> = Kind::new("runtime", "BootIDs.runtime.talos.dev").one("boot-id");
/// The entry of systemd-boot that was booted; none under GRUB.
pub const BOOTED_ENTRY: Single<BootedEntry> = Kind::new("runtime", "BootedEntries.talos.dev").one("bootedentry");
/// How it was booted, and what is checked at that.
pub const SECURITY_STATE: Single<SecurityState> = Kind::new("runtime", "SecurityStates.talos.dev").one("securitystate");
/// The running version; the one way to it in maintenance mode before 1.13.
pub const VERSION: Single<RunningVersion> = Kind::new("runtime", "Versions.runtime.talos.dev").one("version");
/// How far a machine is that installs itself (1.14 and later); none where no `UnattendedInstallConfig` has it do so.
pub const UNATTENDED_INSTALL: Single<UnattendedInstall> =
    Kind::new("runtime", "UnattendedInstallStatuses.runtime.talos.dev").one("unattended-install");
/// Whether the clock is set.
pub const TIME: Single<TimeStatus> = Kind::new("runtime", "TimeStatuses.v1alpha1.talos.dev").one("node");
/// What the kubelet tells of this node; by its Kubernetes name.
pub const NODE_STATUSES: Kind<NodeStatus> = Kind::new("k8s", "NodeStatuses.kubernetes.talos.dev");

/// Null counts as missing.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(value: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or_default())
}

/// How far a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Booting: also for as long as one service does not come up, for 70 minutes, and then it reboots.
    Booting,
    /// Being installed.
    Installing,
    /// Waiting for a configuration.
    Maintenance,
    /// Booted.
    Running,
    /// Going down to come up again.
    Rebooting,
    /// Going down.
    #[serde(rename = "shutting down", alias = "shutting-down", alias = "shuttingDown")]
    ShuttingDown,
    /// Being reset.
    Resetting,
    /// Being upgraded.
    Upgrading,
    /// Anything else.
    #[default]
    #[serde(other)]
    Unknown,
}

/// A machine's status.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct MachineStatus {
    /// How far it is.
    pub stage: Stage,
    /// Of use in the stages booting and running only: in all others it is always ready.
    pub status: Readiness,
}

impl MachineStatus {
    /// Booted, and nothing unmet.
    pub fn is_settled(&self) -> bool {
        self.stage == Stage::Running && self.status.ready
    }
}

/// Whether a machine is ready, and what is missing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Readiness {
    /// Nothing is missing.
    pub ready: bool,
    /// What is.
    #[serde(deserialize_with = "or_default")]
    pub unmet_conditions: Vec<UnmetCondition>,
}

/// One thing that is missing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct UnmetCondition {
    /// `time`, `network`, `services`, `staticPods` or `nodeReady`.
    pub name: String,
    /// In the node's words.
    pub reason: String,
}

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Member {
    /// Discovery's id.
    pub node_id: String,
    /// Its addresses.
    #[serde(deserialize_with = "or_default")]
    pub addresses: Vec<String>,
    /// Its host name.
    pub hostname: String,
    /// `controlplane`, `worker` or `init`.
    pub machine_type: String,
    /// `Talos (v1.11.5)`.
    pub operating_system: String,
}

/// A node's own id in etcd.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct EtcdMemberId {
    /// In 16 hexadecimal digits.
    #[serde(rename = "memberID")]
    pub member_id: String,
}

/// A kernel module that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct ModuleSpec {
    /// Its name.
    pub name: String,
    /// Its parameters.
    #[serde(deserialize_with = "or_default")]
    pub parameters: Vec<String>,
}

/// A kernel module.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct LoadedModule {
    /// `Live`, `live`, `loading`, `unloading` or `built-in`.
    pub state: String,
    /// `builtin` or `dynamic`; empty before 1.14.
    #[serde(rename = "type")]
    pub kind: String,
}

impl LoadedModule {
    /// It can be used.
    pub fn is_live(&self) -> bool {
        self.state.eq_ignore_ascii_case("live") || self.state == "built-in"
    }
}

/// A layer of the image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Extension {
    /// The container image that it is from.
    pub image: String,
    /// What it is.
    pub metadata: ExtensionMetadata,
}

/// What an extension is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct ExtensionMetadata {
    /// `qemu-guest-agent`, or `schematic` for the image factory's id.
    pub name: String,
    /// Its version; of `schematic` the id.
    pub version: String,
}

/// Something that the node finds wrong.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Diagnostic {
    /// In one line.
    pub message: String,
    /// In more.
    #[serde(deserialize_with = "or_default")]
    pub details: Vec<String>,
}

/// The kernel's boot id.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct BootId {
    /// A uuid.
    #[serde(rename = "bootID")]
    pub boot_id: String,
}

/// What was booted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct BootedEntry {
    /// The name of the file.
    #[serde(rename = "bootedEntry")]
    pub booted_entry: String,
}

/// How it was booted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct SecurityState {
    /// Its firmware starts signed images only; None where it does not say.
    #[serde(rename = "secureBoot")]
    pub secure_boot: Option<bool>,
}

/// What runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct RunningVersion {
    /// `v1.11.5`.
    pub version: String,
}

/// The clock.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct TimeStatus {
    /// It is set.
    pub synced: bool,
}

/// What the kubelet tells.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    /// The node's name in Kubernetes.
    pub nodename: String,
    /// The kubelet's Ready.
    #[serde(rename = "nodeReady")]
    pub node_ready: bool,
    /// It is cordoned.
    pub unschedulable: bool,
}
