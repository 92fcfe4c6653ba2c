//! The kinds of resources, as siderolabs/talos `pkg/machinery/resources` defines them.

/// A kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// The full name.
    pub name: &'static str,
    /// Where its resources are.
    pub namespace: &'static str,
    /// Only `os:admin` may read it.
    pub sensitive: bool,
    /// The minor version that brought it.
    pub since: u32,
}

const fn kind(name: &'static str, namespace: &'static str) -> Kind {
    Kind { name, namespace, sensitive: false, since: 0 }
}

/// All kinds that the lab has.
pub const KINDS: &[Kind] = &[
    kind("MachineStatuses.runtime.talos.dev", "runtime"),
    kind("SystemDisks.block.talos.dev", "runtime"),
    kind("Disks.block.talos.dev", "runtime"),
    kind("DiscoveredVolumes.block.talos.dev", "runtime"),
    kind("VolumeStatuses.block.talos.dev", "runtime"),
    kind("MountStatuses.block.talos.dev", "runtime"),
    kind("Members.cluster.talos.dev", "cluster"),
    kind("EtcdMembers.etcd.talos.dev", "etcd"),
    kind("NodeStatuses.kubernetes.talos.dev", "k8s"),
    kind("Nodenames.kubernetes.talos.dev", "k8s"),
    kind("Services.v1alpha1.talos.dev", "runtime"),
    Kind { name: "MachineConfigs.config.talos.dev", namespace: "config", sensitive: true, since: 0 },
    kind("MachineTypes.config.talos.dev", "config"),
    kind("KernelModuleSpecs.runtime.talos.dev", "runtime"),
    Kind { name: "LoadedKernelModules.runtime.talos.dev", namespace: "runtime", sensitive: false, since: 11 },
    Kind { name: "KernelModuleStatuses.runtime.talos.dev", namespace: "runtime", sensitive: false, since: 14 },
    kind("KernelParamStatuses.runtime.talos.dev", "runtime"),
    kind("ExtensionStatuses.runtime.talos.dev", "runtime"),
    kind("LinkStatuses.net.talos.dev", "network"),
    kind("AddressStatuses.net.talos.dev", "network"),
    kind("HostnameStatuses.net.talos.dev", "network"),
    kind("NetworkStatuses.net.talos.dev", "network"),
    kind("PCIDevices.hardware.talos.dev", "hardware"),
    kind("SystemInformations.hardware.talos.dev", "hardware"),
    kind("Processors.hardware.talos.dev", "hardware"),
    kind("MemoryModules.hardware.talos.dev", "hardware"),
    kind("Diagnostics.runtime.talos.dev", "runtime"),
    Kind { name: "BootIDs.runtime.talos.dev", namespace: "runtime", sensitive: false, since: 14 },
    Kind { name: "UnattendedInstallStatuses.runtime.talos.dev", namespace: "runtime", sensitive: false, since: 14 },
    kind("BootedEntries.talos.dev", "runtime"),
    kind("SecurityStates.talos.dev", "runtime"),
    kind("Versions.runtime.talos.dev", "runtime"),
    kind("TimeStatuses.v1alpha1.talos.dev", "runtime"),
];

/// Kinds that a node has and the lab has not.
pub const MISSING: &[&str] = &[
    "BlockDevices.block.talos.dev",
    "VolumeConfigs.block.talos.dev",
    "MountStatuses.runtime.talos.dev",
    "Affiliates.cluster.talos.dev",
    "Identities.cluster.talos.dev",
    "Infos.cluster.talos.dev",
    "EtcdSpecs.etcd.talos.dev",
    "StaticPodStatuses.kubernetes.talos.dev",
    "KubeletSpecs.kubernetes.talos.dev",
    "NodeLabelSpecs.kubernetes.talos.dev",
    "KernelCmdlines.runtime.talos.dev",
    "MetaKeys.runtime.talos.dev",
    "PlatformMetadatas.talos.dev",
    "NodeAddresses.net.talos.dev",
    "RouteStatuses.net.talos.dev",
    "ResolverStatuses.net.talos.dev",
    "ResourceDefinitions.meta.cosi.dev",
];

/// The namespaces of a node.
pub const NAMESPACES: &[&str] =
    &["runtime", "cluster", "etcd", "k8s", "config", "network", "hardware", "secrets", "meta", "perf", "files", "cri"];

/// A kind by its exact name (the server itself compares in lower case).
pub fn find(name: &str, minor: u32) -> Option<&'static Kind> {
    KINDS.iter().find(|k| k.name.eq_ignore_ascii_case(name) && minor >= k.since)
}
