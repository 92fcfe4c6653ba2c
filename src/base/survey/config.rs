//! What is told of a machine configuration.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A few fields of a machine configuration, of either form (v1alpha1 or documents of their own). No secret is among them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct MachineConfig {
    /// `controlplane` or `worker`.
    pub machine_type: String,
    /// The install disk.
    pub install: InstallDisk,
    /// The image that it is installed from (`factory.talos.dev/metal-installer/SCHEMATIC:v1.11.5`). An upgrade does not
    /// change it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The kernel modules that it asks for.
    pub modules: Vec<String>,
    /// `vm.nr_hugepages`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub huge_pages: Option<u64>,
    /// Device paths of `machine.disks`.
    pub disks: Vec<String>,
    /// Disk selectors of volume documents (`UserVolumeConfig`, `RawVolumeConfig`, `VolumeConfig`, ...).
    pub volumes: Vec<NamedSelector>,
    /// The kubelet's image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubelet_image: Option<String>,
}

/// How a configuration names the disk to install to. A selector wins over a path.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct InstallDisk {
    /// `machine.install.disk`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<String>,
    /// `machine.install.diskSelector`: all have to hold. Keys as in the configuration (`size`, `model`, `busPath`, ...).
    pub selector: BTreeMap<String, String>,
    /// The expression of an `UnattendedInstallConfig`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expression: Option<String>,
}

/// The disk selector of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedSelector {
    /// The document's kind: `UserVolumeConfig`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The expression (CEL).
    pub expression: String,
}
