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

impl MachineConfig {
    /// The schematic that the image names: the 64 hexadecimal digits before its tag.
    pub fn schematic(&self) -> Option<&str> {
        let path = self.image.as_deref()?.rsplit_once('/')?.1;
        let id = path.split([':', '@']).next()?;
        (id.len() == 64 && id.chars().all(|c| c.is_ascii_hexdigit())).then_some(id)
    }

    /// It is a control plane's.
    pub fn is_control_plane(&self) -> bool {
        matches!(self.machine_type.as_str(), "controlplane" | "init")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schematic_is_what_stands_before_the_tag() {
        let id = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba";
        for (image, wanted) in [
            (format!("factory.talos.dev/metal-installer/{id}:v1.11.5"), Some(id)),
            (format!("factory.talos.dev/installer/{id}@sha256:{id}"), Some(id)),
            (format!("factory.lan:5000/nocloud-installer-secureboot/{id}:v1.13.0"), Some(id)),
            ("ghcr.io/siderolabs/installer:v1.11.5".to_owned(), None),
            ("installer".to_owned(), None),
        ] {
            let config = MachineConfig { image: Some(image.clone()), ..MachineConfig::default() };
            assert_eq!(config.schematic(), wanted, "{image}");
        }
        assert_eq!(MachineConfig::default().schematic(), None);
    }
}
