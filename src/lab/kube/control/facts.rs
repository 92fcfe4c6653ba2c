//! What the controllers can know of the machines.

use std::collections::{BTreeMap, BTreeSet};

use crate::lab::World;
use crate::lab::talos::node::Node;
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
    /// What the kubelet of a Talos node says of itself where there is no Node object for it.
    pub(crate) registers: Option<Registers>,
    /// It sees a Coral whose firmware is not loaded.
    pub(crate) fresh_coral: bool,
}

/// What a Node object is made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Registers {
    pub(crate) cores: u32,
    /// In kB.
    pub(crate) memory: u64,
    /// Talos's version.
    pub(crate) version: String,
    pub(crate) uuid: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// Nobody's pods may run there unless they say so.
    pub(crate) tainted: bool,
}

impl Registers {
    fn of(node: &Node) -> Option<Self> {
        let wants = &node.run.as_ref()?.wants;
        Some(Self {
            cores: if node.cores == 0 { 4 } else { node.cores },
            memory: node.memory,
            version: node.image().version,
            uuid: node.uuid.clone(),
            labels: wants.labels.clone(),
            tainted: wants.control_plane && !wants.schedulable,
        })
    }
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
                registers: None,
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
                registers: Registers::of(node),
                ..Machine::default()
            };
            (world.talos_host(name).to_owned(), machine)
        });
        let mut all: BTreeMap<String, Machine> = machines.collect();
        for (name, machine) in talos {
            // Of two machines with one name the one that runs counts.
            if machine.boot.is_some() || !all.contains_key(&name) {
                all.insert(name, machine);
            }
        }
        Self { machines: all }
    }
}
