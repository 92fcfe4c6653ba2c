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
    /// The disks of a Talos node, by their names below `/dev/disk`: their sizes.
    pub(crate) disks: BTreeMap<String, u64>,
    /// Where a Talos node has file systems of its own mounted, and how fast each is; none: it is no Talos node.
    pub(crate) mounts: Option<BTreeMap<String, Speed>>,
}

/// What a measurement of a file system comes to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Speed {
    /// Bytes in a second.
    pub(crate) write: u64,
    /// Bytes in a second.
    pub(crate) read: u64,
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

/// Where Talos mounts user volumes.
const VOLUMES: &str = "/var/mnt/";

impl Machine {
    /// Whether a folder can be there: below the place of a user volume of Talos only where that is mounted.
    pub(crate) fn has_folder(&self, path: &str) -> bool {
        let Some(name) = path.strip_prefix(VOLUMES).and_then(|rest| rest.split('/').next()) else { return true };
        self.mounts.as_ref().is_none_or(|mounts| mounts.contains_key(&format!("{VOLUMES}{name}")))
    }

    /// How fast what is below a path is.
    pub(crate) fn speed_of(&self, path: &str) -> Option<Speed> {
        let mounts = self.mounts.as_ref()?;
        let below = |mount: &&String| path == *mount || path.starts_with(&format!("{mount}/"));
        mounts.keys().filter(below).max_by_key(|mount| mount.len()).and_then(|mount| mounts.get(mount)).copied()
    }
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
                disks: BTreeMap::new(),
                mounts: None,
                fresh_coral: !fresh.is_empty() && world.guest_usb(*vmid).iter().any(|d| fresh.contains(&d.id.as_str())),
            };
            Some((node, machine))
        });
        let talos = world.talos.nodes.iter().map(|(name, node)| {
            let mounts = node.mounted();
            let speed = |(path, (write, read)): (String, (u64, u64))| (path, Speed { write, read });
            let machine = Machine {
                vmid: node.vmid.unwrap_or_default(),
                boot: world.talos_kubelet(name),
                disks: node.links(),
                paths: mounts.iter().map(|(path, _)| path.clone()).collect(),
                mounts: Some(mounts.into_iter().map(speed).collect()),
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
