//! What a checked site file says, resolved: paths are absolute, references between sections hold.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::drives::Slot;
use crate::base::fault::{Effect, Fault};
use crate::base::names::{UsbId, UsbPort};
use crate::base::tls::{Fingerprint, Trust};

use super::document::{Document, Invalid, Location, Problem, join};
use super::fields::{Item, Sink};
use super::secret::SecretRef;
use super::slots::OutOfBand;
use super::values::Places;

/// A checked site file.
#[derive(Debug, Clone)]
pub struct Site {
    /// The site's name, for journals and lock files.
    pub name: String,
    /// SHA-256 of the file's bytes, in hex.
    pub digest: String,
    /// The file, absolute.
    pub path: PathBuf,
    /// Where journals are kept, where neither the command line nor the environment says.
    pub state: Option<PathBuf>,
    /// How long to wait for somebody else's lock.
    pub patience: Duration,
    /// Proxmox clusters by name.
    pub proxmox: BTreeMap<String, Proxmox>,
    /// Kubernetes clusters by name.
    pub kubernetes: BTreeMap<String, Kubernetes>,
    /// Git checkouts by name.
    pub checkouts: BTreeMap<String, Checkout>,
    /// VMs that are Kubernetes nodes, by name.
    pub nodes: BTreeMap<String, Node>,
    /// Talos clusters by name.
    pub talos: BTreeMap<String, TalosCluster>,
    /// Devices by name.
    pub devices: BTreeMap<String, Device>,
    /// Migrations by name.
    pub migrations: BTreeMap<String, Migration>,
    /// The names of all nodes of the file: more than in `nodes` where [`Site::inspect`] found problems in some.
    pub node_names: Vec<String>,
    /// The names of all Talos nodes of the file, likewise.
    pub talos_node_names: Vec<String>,
    /// The names of all devices of the file, likewise.
    pub device_names: Vec<String>,
    pub(super) document: Document,
    pub(super) places: Places,
}

/// A Proxmox cluster.
#[derive(Debug, Clone)]
pub struct Proxmox {
    /// Base URLs with their ports, without a slash at the end; any of them answers for the whole cluster.
    pub urls: Vec<String>,
    /// What the certificates are held against.
    pub trust: TrustSource,
    /// Who we are.
    pub auth: ProxmoxAuth,
    /// The hosts by their Proxmox node names.
    pub hosts: BTreeMap<String, Host>,
}

/// What a server's certificate is held against, before the authority file is read.
#[derive(Debug, Clone)]
pub enum TrustSource {
    /// An authority file in PEM form.
    Ca(PathBuf),
    /// Exactly these certificates.
    Pins(Vec<Fingerprint>),
}

impl TrustSource {
    /// Reads the authority file where there is one.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn load(&self) -> std::io::Result<Trust> {
        match self {
            Self::Ca(path) => std::fs::read(path).map(Trust::Ca),
            Self::Pins(pins) => Ok(Trust::Pins(pins.clone())),
        }
    }
}

/// Credentials for the Proxmox API.
#[derive(Debug, Clone)]
pub enum ProxmoxAuth {
    /// User and password; the API gives a ticket for them.
    Ticket {
        /// `root@pam`.
        user: String,
        /// The password.
        password: SecretRef,
    },
    /// An API token.
    Token {
        /// `root@pam!pvemig`.
        id: String,
        /// The token's secret.
        secret: SecretRef,
    },
}

/// A Proxmox host.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// How to log in, where that is possible.
    pub ssh: Option<Ssh>,
    /// Its slots for drives, in the order of the file.
    pub slots: Vec<Slot>,
}

/// How to log in over ssh.
#[derive(Debug, Clone)]
pub struct Ssh {
    /// Name or address.
    pub address: String,
    /// The port.
    pub port: u16,
    /// The user.
    pub user: String,
    /// The private key.
    pub key: SecretRef,
    /// The file with the host's public key.
    pub known_hosts: PathBuf,
}

/// A Kubernetes cluster.
#[derive(Debug, Clone)]
pub struct Kubernetes {
    /// The kubeconfig file.
    pub kubeconfig: PathBuf,
    /// The context in it.
    pub context: String,
    /// What puts the cluster's objects there, if anything does.
    pub gitops: Option<Gitops>,
}

/// What puts a cluster's objects there.
#[derive(Debug, Clone)]
pub struct Gitops {
    /// Which program.
    pub kind: GitopsKind,
    /// The checkout of this site that it follows.
    pub checkout: String,
    /// Namespace of the source object (Flux: `GitRepository`).
    pub namespace: String,
    /// Name of the source object.
    pub name: String,
}

/// A GitOps program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GitopsKind {
    /// Flux 2.
    Flux,
}

/// A git checkout.
#[derive(Debug, Clone)]
pub struct Checkout {
    /// The person's own checkout.
    pub path: PathBuf,
    /// The remote in it.
    pub remote: String,
    /// The branch that is deployed.
    pub branch: String,
    /// Whether pvemig may push.
    pub push: bool,
    /// Who pvemig's commits are by.
    pub author: Author,
}

/// Author and committer of commits.
#[derive(Debug, Clone)]
pub struct Author {
    /// The name.
    pub name: String,
    /// The mail address.
    pub email: String,
}

/// A VM that is a Kubernetes node.
#[derive(Debug, Clone)]
pub struct Node {
    /// The Proxmox cluster of this site.
    pub proxmox: String,
    /// The VM's id there.
    pub vmid: u32,
    /// The Kubernetes cluster of this site.
    pub kubernetes: String,
    /// The node's name there.
    pub node_name: String,
    /// How to log in, where that is possible.
    pub ssh: Option<Ssh>,
    /// The routes into the guest, in the order in which they are tried; at least one.
    pub access: Vec<Access>,
}

/// A route into a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// ssh to the guest itself.
    Ssh,
    /// The QEMU guest agent through the Proxmox API.
    Agent,
    /// The guest agent through `qm guest exec` on the host, over ssh.
    HostSsh,
}

impl Access {
    /// The word for it in the site file.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ssh => "ssh",
            Self::Agent => "agent",
            Self::HostSsh => "host-ssh",
        }
    }
}

/// A Talos cluster.
#[derive(Debug, Clone)]
pub struct TalosCluster {
    /// The talosconfig file.
    pub talosconfig: PathBuf,
    /// The context in it; None: the file's current one.
    pub context: Option<String>,
    /// The Kubernetes cluster of this site that its nodes are.
    pub kubernetes: String,
    /// The nodes by name, at least one; a name is unique over all Talos clusters and [`Site::nodes`].
    pub nodes: BTreeMap<String, TalosNode>,
}

/// A Talos node.
#[derive(Debug, Clone)]
pub struct TalosNode {
    /// Where its API is, as [`TalosAddress`](crate::base::names::TalosAddress) reads it.
    pub address: String,
    /// The name or address that its certificate has, where `address` is not in it (a forwarded port).
    pub tls_name: Option<String>,
    /// The node's name in Kubernetes.
    pub node_name: String,
    /// The VM that it runs in; None: a machine of its own.
    pub vm: Option<VmRef>,
    /// Its slots for drives, in the order of the file; of a VM those are its host's.
    pub slots: Vec<Slot>,
    /// The second way to see whether it is on; of a VM that is Proxmox.
    pub out_of_band: Option<OutOfBand>,
}

/// A VM of the site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmRef {
    /// The Proxmox cluster of this site.
    pub proxmox: String,
    /// The VM's id there.
    pub vmid: u32,
}

/// A USB device.
#[derive(Debug, Clone)]
pub struct Device {
    /// The ids that it shows, at least one (a Coral shows another one after its firmware is loaded).
    pub ids: Vec<UsbId>,
    /// Its serial number, where it has one.
    pub serial: Option<String>,
    /// The speed in Mbit/s that the guest must see at least.
    pub min_speed: Option<u32>,
    /// Where it is plugged in, by Proxmox node name.
    pub ports: BTreeMap<String, PortPair>,
    /// The cluster-wide USB mapping that stands for it.
    pub mapping: Option<String>,
}

/// A socket: the port and the same socket on the other bus.
#[derive(Debug, Clone)]
pub struct PortPair {
    /// The port.
    pub port: UsbPort,
    /// The same socket as the other bus (USB2 or USB3) numbers it.
    pub sibling: Option<UsbPort>,
}

/// A named use of a blueprint.
#[derive(Debug, Clone)]
pub struct Migration {
    /// The blueprint's name; whether there is one of that name the caller knows.
    pub blueprint: String,
    /// Its parameters, an object; the blueprint parses them.
    pub params: serde_json::Value,
}

/// Why there is no site.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// The file cannot be read.
    #[error("the site file {} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file has problems; `render` shows them.
    #[error("{0}")]
    Invalid(Box<Invalid>),
}

impl Fault for SiteError {
    fn effect(&self) -> Effect {
        Effect::None
    }

    fn help(&self) -> Option<String> {
        Some(match self {
            Self::Unreadable { .. } => "name the file with `--site FILE`; `pvemig site example` prints one".into(),
            Self::Invalid(_) => "`pvemig site check` shows every problem".into(),
        })
    }
}

impl Site {
    /// The place of a key path in the file: `migrations.frigate-coral.params.device`.
    pub fn locate(&self, key_path: &str) -> Option<Location> {
        self.document.locate(key_path)
    }

    /// A problem as plain text: what, where, the line with a caret, help.
    pub fn render(&self, problem: &Problem, width: usize) -> String {
        self.document.render(problem, width)
    }

    /// The parameters of a migration, to be read item by item; problems go into the sink with their key paths.
    pub fn params<'a>(&'a self, migration: &str, sink: &'a Sink) -> Option<Item<'a>> {
        let found = self.migrations.get(migration)?;
        let path = join(&join(&join("", "migrations"), migration), "params");
        Some(Item::new(&found.params, path, sink))
    }

    /// The problems that were collected while a blueprint read its parameters, as one error.
    pub fn invalid(&self, mut problems: Vec<Problem>) -> SiteError {
        self.document.sort(&mut problems);
        SiteError::Invalid(Box::new(Invalid { problems, document: self.document.clone() }))
    }

    /// False where a node or a device is not known as its part of the file has problems.
    pub fn is_whole(&self) -> bool {
        self.nodes.len() == self.node_names.len()
            && self.talos.values().map(|cluster| cluster.nodes.len()).sum::<usize>() == self.talos_node_names.len()
            && self.devices.len() == self.device_names.len()
    }

    /// A Talos node by its name, with the name of its Talos cluster.
    pub fn talos_node(&self, name: &str) -> Option<(&str, &TalosNode)> {
        self.talos.iter().find_map(|(cluster, found)| Some((cluster.as_str(), found.nodes.get(name)?)))
    }

    /// A path of a migration's parameters, absolute: relative ones start at the site file, `~/` at home.
    pub fn place(&self, item: &Item<'_>) -> Option<PathBuf> {
        self.places.path(item)
    }

    /// The file's directory.
    pub fn dir(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }
}
