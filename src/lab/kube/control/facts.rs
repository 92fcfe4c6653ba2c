//! What the controllers can know of the machines.

use std::collections::{BTreeMap, BTreeSet};

use crate::lab::World;
use crate::lab::world::{Firmware, StickState};

/// The machines that are Kubernetes nodes, by node name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) machines: BTreeMap<String, Machine>,
}

/// A machine as the kubelet on it sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) vmid: u32,
    /// The boot id; none while the guest is not in user space.
    pub(crate) boot: Option<String>,
    pub(crate) ip: String,
    /// Paths that exist: device nodes, folders.
    pub(crate) paths: BTreeSet<String>,
    /// Bytes below a path.
    pub(crate) used: BTreeMap<String, u64>,
    /// It is a Talos node that runs the programs of the control plane.
    pub(crate) control_plane: bool,
    /// The huge pages of 2 MiB of a Talos node.
    pub(crate) pages: Option<u64>,
    /// It sees a Coral whose firmware is not loaded.
    pub(crate) fresh_coral: bool,
}

impl Facts {
    pub(crate) fn of(world: &World) -> Self {
        let fresh: Vec<&str> = world
            .sticks
            .values()
            .filter(|s| s.state == StickState::Boot)
            .filter_map(|s| match &s.firmware {
                Firmware::Coral { boot, .. } => Some(boot.as_str()),
                Firmware::Plain { .. } => None,
            })
            .collect();
        let machines = world.vms.iter().filter_map(|(vmid, vm)| {
            let node = vm.guest.node.clone()?;
            let machine = Machine {
                vmid: *vmid,
                boot: world.boot_id(*vmid),
                ip: vm.guest.ip.clone(),
                paths: vm.guest.paths.clone(),
                used: vm.guest.used.clone(),
                control_plane: false,
                pages: None,
                fresh_coral: !fresh.is_empty() && world.guest_usb(*vmid).iter().any(|d| fresh.contains(&d.id.as_str())),
            };
            Some((node, machine))
        });
        let talos = world.talos.nodes.iter().map(|(name, node)| {
            let machine = Machine {
                vmid: node.vmid.unwrap_or_default(),
                boot: world.talos_kubelet(name),
                ip: node.ip.clone(),
                control_plane: node.run.as_ref().is_some_and(|run| run.wants.control_plane),
                pages: node.pages(),
                ..Machine::default()
            };
            (name.clone(), machine)
        });
        Self { machines: machines.chain(talos).collect() }
    }
}
