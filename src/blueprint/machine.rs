//! A Talos machine as steps name it, and how it stands.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::base::fault::Failure;
use crate::base::names::Dial;
use crate::base::schematic;
use crate::estate::Estate;
use crate::site::{Site, TalosNode};
use crate::talos::kind::Disk;
use crate::talos::{Error, Talos, kind};

use super::node::KubeNode;
use super::quorum::Peer;
use super::vm::Vm;

/// A Talos machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The Talos cluster's name in the site file.
    pub cluster: String,
    /// Its name in the site file.
    pub name: String,
    /// As a node of Kubernetes.
    pub node: KubeNode,
    /// The VM that it runs in; None: a machine of its own.
    pub vm: Option<Vm>,
    /// How `talosctl` gets to it, for what a person types.
    #[serde(default)]
    pub dial: Dial,
}

/// What a machine has booted, and from where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// The kernel's boot id.
    pub id: String,
    /// The version that runs, `v1.11.5`.
    pub version: String,
    /// The image factory's schematic that runs; None where the image is not of the factory.
    pub schematic: Option<String>,
    /// The disk that it is installed on, by what does not move from boot to boot; None where it runs from an image.
    pub disk: Option<String>,
    /// The boot loader's entry; None under GRUB, which names none.
    pub entry: Option<String>,
    /// The uid of the Node object; None where there is none.
    pub uid: Option<String>,
}

impl Boot {
    /// Whether this image is what was booted.
    pub fn runs(&self, image: &str) -> bool {
        schematic::names(image, self.schematic.as_deref(), &self.version)
    }

    /// What was booted, in words.
    pub fn image(&self) -> String {
        format!("{} ({})", self.version, of_schematic(self.schematic.as_deref()))
    }
}

fn of_schematic(schematic: Option<&str>) -> String {
    schematic.map_or_else(|| "no schematic".to_owned(), |schematic| format!("schematic {schematic}"))
}

/// The image that runs, as it tells of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// `v1.11.5`
    pub version: String,
    /// `metal`, `nocloud`, ...
    pub platform: String,
    /// The image factory's schematic; None where the image is not of the factory.
    pub schematic: Option<String>,
    /// Its extensions.
    pub extensions: Vec<String>,
}

impl Running {
    /// Whether it is this image.
    pub fn is(&self, image: &str) -> bool {
        schematic::names(image, self.schematic.as_deref(), &self.version)
    }
}

impl Machine {
    /// A Talos node of the site.
    pub fn of(site: &Site, name: &str) -> Option<Self> {
        let (cluster, settings) = site.talos_node(name)?;
        let kubernetes = site.talos.get(cluster)?.kubernetes.clone();
        let vm = settings.vm.as_ref();
        Some(Self {
            cluster: cluster.to_owned(),
            name: name.to_owned(),
            node: KubeNode { cluster: kubernetes, name: settings.node_name.clone() },
            vm: vm.map(|vm| Vm { cluster: vm.proxmox.clone(), vmid: vm.vmid, node: name.to_owned() }),
            dial: Dial::to(&settings.address, settings.tls_name.as_deref()),
        })
    }

    /// A command to it that can be pasted, in back-quotes.
    pub fn talosctl(&self, rest: &str) -> String {
        self.dial.talosctl(&self.name, rest)
    }

    /// All nodes of a Talos cluster of the site.
    pub fn peers(site: &Site, cluster: &str) -> Vec<Peer> {
        let nodes = site.talos.get(cluster).into_iter().flat_map(|cluster| &cluster.nodes);
        let peer = |(name, node): (&String, &TalosNode)| Peer {
            name: name.clone(),
            node_name: node.node_name.clone(),
            dial: Dial::to(&node.address, node.tls_name.as_deref()),
        };
        nodes.map(peer).collect()
    }

    /// Its API.
    ///
    /// # Errors
    /// The talosconfig or the address cannot be used.
    pub async fn open(&self, cx: &Estate) -> Result<Arc<Talos>, Failure> {
        cx.talos(&self.name).await
    }

    /// What it has booted.
    ///
    /// # Errors
    /// What keeps it, or Kubernetes, from answering.
    pub async fn boot(&self, cx: &Estate) -> Result<Boot, Failure> {
        let talos = self.open(cx).await?;
        let kube = cx.kubernetes(&self.node.cluster).await?;
        let (id, running, disk, entry) =
            futures::try_join!(boot_id(&talos), running(&talos), disk(&talos), entry(&talos))?;
        let node = kube.node(&self.node.name).await?;
        Ok(Boot {
            id,
            version: running.version,
            schematic: running.schematic,
            disk,
            entry,
            uid: node.map(|node| node.meta.uid),
        })
    }
}

/// The kernel's boot id. To read the file takes os:admin, the resource (from 1.14 on) does not.
///
/// # Errors
/// What keeps the node from answering.
pub async fn boot_id(talos: &Talos) -> Result<String, Error> {
    let denied = match talos.boot_id().await {
        Err(error @ Error::Denied { .. }) => error,
        other => return other,
    };
    match talos.single(&kind::BOOT_ID).await {
        Ok(Some(boot)) => Ok(boot.spec.boot_id),
        Ok(None) | Err(Error::NoSuchKind { .. }) => Err(denied),
        Err(error) => Err(error),
    }
}

/// The image that runs.
///
/// # Errors
/// What keeps the node from answering.
pub async fn running(talos: &Talos) -> Result<Running, Error> {
    let (version, extensions) = futures::try_join!(talos.version(), talos.list(&kind::EXTENSIONS))?;
    let (own, others): (Vec<_>, Vec<_>) =
        extensions.into_iter().map(|e| e.spec.metadata).partition(|m| m.name == "schematic");
    Ok(Running {
        version: version.tag,
        platform: version.platform,
        schematic: own.into_iter().next().map(|m| m.version),
        extensions: others.into_iter().map(|m| m.name).collect(),
    })
}

/// The disk that it is installed on. Its kernel name moves from boot to boot, so it is named by the first thing that stays
/// and that no other of its disks has.
async fn disk(talos: &Talos) -> Result<Option<String>, Error> {
    let Some(system) = talos.single(&kind::SYSTEM_DISK).await?.map(|system| system.spec) else { return Ok(None) };
    let disks = talos.list(&kind::DISKS).await?;
    let Some(disk) = disks.iter().find(|disk| disk.id == system.disk_id) else { return Ok(Some(system.dev_path)) };
    type Of = fn(&Disk) -> &String;
    let names: [(&str, Of); 4] =
        [("serial", |d| &d.serial), ("wwid", |d| &d.wwid), ("uuid", |d| &d.uuid), ("bus path", |d| &d.bus_path)];
    let alone = |of: Of| {
        let value = of(&disk.spec);
        !value.is_empty() && disks.iter().filter(|other| of(&other.spec) == value).count() == 1
    };
    let named = names.into_iter().find(|(_, of)| alone(*of)).map(|(what, of)| (what, of(&disk.spec)));
    Ok(Some(named.map_or(system.dev_path, |(what, value)| format!("{} ({what} {value})", disk.spec.model))))
}

/// The boot loader's entry.
async fn entry(talos: &Talos) -> Result<Option<String>, Error> {
    match talos.single(&kind::BOOTED_ENTRY).await {
        Ok(entry) => Ok(entry.map(|entry| entry.spec.booted_entry).filter(|entry| !entry.is_empty())),
        // The version before it had the kind tells nothing of it.
        Err(Error::NoSuchKind { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
