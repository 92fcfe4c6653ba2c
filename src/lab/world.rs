//! The one model behind all fronts: plain data, as a world file writes it and as the fronts change it.
//!
//! What follows from a change is in `physics`; what a guest's programs say is in `programs`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::agenda::Agenda;
use super::clock::LabTime;
use super::kube::Kube;
use super::kube::mayastor::Mayastor;
use super::pve::access::Access;
use super::pve::tasks::PveTask;
use super::talos::Talos;
use super::talos::node::{Bay, Disk};

pub use super::machine::{AgentExec, AgentManner, Answer, Attached, Guest, Plug, Running, Shutdown, SshManner, Vm};
pub use super::nvme::NvmeDrive;

/// An estate.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct World {
    /// The world's name: `usb-move`.
    pub name: String,
    /// One line for `lab worlds`.
    pub about: String,
    /// Proxmox nodes by name.
    pub hosts: BTreeMap<String, Host>,
    /// USB devices that hands can move, by name.
    pub sticks: BTreeMap<String, Stick>,
    /// Virtual machines by id.
    pub vms: BTreeMap<u32, Vm>,
    /// Cluster-wide USB mappings by id.
    pub mappings: BTreeMap<String, UsbMapping>,
    /// Cluster-wide PCI mappings by id.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pci_mappings: BTreeMap<String, UsbMapping>,
    /// Pve tasks, oldest first.
    pub tasks: Vec<PveTask>,
    /// Users, tokens, roles and access control lists.
    pub access: Access,
    /// Virtual machines that Proxmox HA keeps: id to requested state.
    pub ha: BTreeMap<u32, String>,
    /// True where the Proxmox cluster has lost its quorum.
    pub no_quorum: bool,
    /// How long things take.
    pub timing: Timing,
    /// Commands that a site declared as reading, by prefix.
    pub reading_commands: Vec<Vec<String>>,
    /// The part of the site file that is this world's own; merged into what [`super::files`] writes.
    pub site: serde_json::Value,
    /// The cluster that runs in it, by the name of its file `worlds/NAME.kube.yaml`.
    pub cluster: Option<String>,
    /// Whom the kubeconfig's token stands for there, `system:serviceaccount:NAMESPACE:NAME` or a user's name; none: an
    /// administrator. The other one has the context `admin` then.
    pub cluster_user: Option<String>,
    /// Talos nodes and their etcd.
    pub talos: Talos,
    /// Mayastor in the cluster.
    pub mayastor: Mayastor,
    /// Kubernetes.
    #[serde(skip)]
    pub kube: Kube,
    /// The bare repository that Flux follows.
    #[serde(skip)]
    pub git: Option<PathBuf>,
    /// What is due later.
    #[serde(skip)]
    pub agenda: Agenda,
    /// It has been brought to life.
    #[serde(skip)]
    pub(super) begun: bool,
    /// Drives that a VM was started with although they are none of its own, for who asks afterwards.
    #[serde(skip)]
    pub misgiven: Vec<String>,
    /// The lab time of the last [`World::tick`].
    pub now: LabTime,
    /// Unix seconds of lab time zero.
    pub zero: i64,
    /// Counts what needs a number of its own: pids, boot ids.
    pub counter: u32,
}

/// A Proxmox node.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Host {
    /// False: off or cut off; other nodes answer 595 for it.
    pub online: bool,
    /// Its address on the estate's network; for display.
    pub ip: String,
    /// `pve-manager` version.
    pub version: String,
    /// USB sockets that take sticks.
    pub sockets: Vec<Socket>,
    /// USB devices that nobody moves.
    pub fixed: Vec<FixedUsb>,
    /// The slots of its board for drives, by the names that are printed beside them.
    pub bays: BTreeMap<String, Bay>,
    /// The drives in them that are its own; those that a VM gets are the disks of its Talos node.
    pub drives: Vec<Disk>,
    /// The ssh server.
    pub ssh: SshManner,
    /// Files by path.
    pub files: BTreeMap<String, String>,
    /// Paths that exist without content: device nodes, folders.
    pub paths: BTreeSet<String>,
    /// The highest USB device number given out so far, by bus.
    pub devnum: BTreeMap<u8, u32>,
    /// The functions on PCI that a VM was given since its boot: vfio keeps them.
    #[serde(skip)]
    pub vfio: BTreeSet<String>,
    /// How often it was switched on.
    #[serde(skip)]
    pub boots: u32,
}

/// One socket in a chassis: USB 3 sockets have a port on each of two root hubs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Socket {
    /// Port on the 480 Mbit/s root hub, `1-3`.
    pub high_speed: String,
    /// Port on the super-speed root hub, `2-3`; none in a USB 2 socket.
    #[serde(default)]
    pub super_speed: Option<String>,
}

/// A soldered or never touched USB device.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FixedUsb {
    /// `1-7`
    pub port: String,
    /// `8087:0a2b`
    pub id: String,
    /// Product string; may be empty.
    #[serde(default)]
    pub product: String,
    /// Mbit/s.
    pub speed: u32,
}

/// A USB device that hands move.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stick {
    /// What it shows itself as.
    pub firmware: Firmware,
    /// Serial number, where it has one.
    #[serde(default)]
    pub serial: Option<String>,
    /// The fastest that it can, Mbit/s.
    pub max_speed: u32,
    /// Where it is plugged in; none: in somebody's hand.
    #[serde(default)]
    pub at: Option<Place>,
    /// Of a Coral: whether firmware is loaded.
    #[serde(default)]
    pub state: StickState,
    /// False while it is off the bus between two identities.
    #[serde(default = "yes")]
    pub present: bool,
    /// Device number on the host's bus; given at each enumeration.
    #[serde(default)]
    pub devnum: u32,
}

/// How a stick shows itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Firmware {
    /// A Coral accelerator: `boot` until its first use, `run` from then until it loses power.
    Coral {
        /// Boot loader identity, `1a6e:089a`.
        boot: String,
        /// Identity with firmware, `18d1:9302`.
        run: String,
    },
    /// One identity for good.
    Plain {
        /// `VID:PID`
        id: String,
        /// Product string.
        product: String,
    },
}

/// Whether a stick's firmware is loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StickState {
    /// As after power-up.
    #[default]
    Boot,
    /// Firmware loaded.
    Run,
}

/// A socket on a host, by the name of one of its two ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Proxmox node.
    pub host: String,
    /// `2-3`: plugged in properly; `1-3`: same socket, but through a USB 2 cable.
    pub port: String,
}

/// A cluster-wide USB mapping.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UsbMapping {
    /// Free text.
    pub description: Option<String>,
    /// Property strings `node=..,id=..,path=..`.
    pub map: Vec<String>,
}

/// How long things take, in lab milliseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timing {
    /// From a pve task's beginning to the start or stop of the process.
    pub process: u64,
    /// From the process start to user space.
    pub boot: u64,
    /// From user space to sshd.
    pub ssh: u64,
    /// From user space to the agent.
    pub agent: u64,
    /// From a shutdown request to power-off.
    pub shutdown: u64,
    /// From the power-off in a reboot to the start that follows.
    pub restart: u64,
    /// How long a Coral is off the bus when it changes its identity.
    pub reenumerate: u64,
    /// Installing or removing a package.
    pub install: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            process: 1_000,
            boot: 12_000,
            ssh: 2_000,
            agent: 4_000,
            shutdown: 6_000,
            restart: 3_000,
            reenumerate: 1_200,
            install: 9_000,
        }
    }
}

impl Default for Host {
    fn default() -> Self {
        Self {
            online: true,
            ip: "192.168.4.2".into(),
            version: "9.1.4".into(),
            sockets: Vec::new(),
            fixed: Vec::new(),
            ssh: SshManner::default(),
            files: BTreeMap::new(),
            paths: BTreeSet::new(),
            devnum: BTreeMap::new(),
            bays: BTreeMap::new(),
            drives: Vec::new(),
            vfio: BTreeSet::new(),
            boots: 0,
        }
    }
}

fn yes() -> bool {
    true
}

impl Stick {
    /// The identity that it shows now.
    pub fn id(&self) -> &str {
        match (&self.firmware, self.state) {
            (Firmware::Coral { boot, .. }, StickState::Boot) => boot,
            (Firmware::Coral { run, .. }, StickState::Run) => run,
            (Firmware::Plain { id, .. }, _) => id,
        }
    }

    /// The product string; a Coral has none before its firmware is loaded.
    pub fn product(&self) -> &str {
        match (&self.firmware, self.state) {
            (Firmware::Coral { .. }, StickState::Boot) => "",
            (Firmware::Coral { .. }, StickState::Run) => "Google Inc.",
            (Firmware::Plain { product, .. }, _) => product,
        }
    }
}
