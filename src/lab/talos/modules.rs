//! Kernel modules of a node, and the files that extensions wait for.

use std::collections::BTreeSet;

use super::disk::Pci;
use super::node::Node;

impl Node {
    /// The kernel modules that can be loaded: those that the configuration asks for, that the image has, and whose
    /// hardware is there, beside those that the kernel loads by itself.
    pub fn loadable(&self) -> BTreeSet<String> {
        let Some(run) = &self.run else { return BTreeSet::new() };
        let image = self.image();
        let mut loaded: BTreeSet<String> = OWN.iter().map(|m| (*m).to_owned()).collect();
        for module in run.wants.modules.keys().map(|m| m.replace('-', "_")) {
            let there = if NVIDIA.contains(&module.as_str()) {
                let driver = image.has("nvidia-open-gpu-kernel-modules") || image.has("nonfree-kmod-nvidia");
                driver && self.pci.values().any(Pci::is_nvidia)
            } else {
                KNOWN.contains(&module.as_str())
            };
            if there {
                loaded.insert(module);
            }
        }
        loaded
    }

    /// Whether a file exists that an extension's service waits for.
    pub fn has_file(&self, path: &str, agent_port: bool) -> bool {
        match path {
            NVIDIA_DRIVER => self.run.as_ref().is_some_and(|run| run.loaded.contains("nvidia")),
            AGENT_PORT => agent_port,
            _ => false,
        }
    }
}

/// The sign that NVIDIA's driver is at work.
pub(super) const NVIDIA_DRIVER: &str = "/sys/bus/pci/drivers/nvidia";
/// The guest agent's channel.
pub(super) const AGENT_PORT: &str = "/dev/virtio-ports/org.qemu.guest_agent.0";

/// Modules of NVIDIA's extensions.
const NVIDIA: &[&str] = &["nvidia", "nvidia_uvm", "nvidia_drm", "nvidia_modeset"];
/// Modules that are loaded without being asked for.
const OWN: &[&str] = &["virtio_pci", "nvme", "e1000e", "sd_mod", "xfs"];
/// Modules that every image has.
const KNOWN: &[&str] = &[
    "nvme_tcp",
    "br_netfilter",
    "vfio_pci",
    "dm_thin_pool",
    "dm_snapshot",
    "zram",
    "iscsi_tcp",
    "rbd",
    "drbd",
    "uvcvideo",
];
