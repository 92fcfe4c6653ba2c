//! A Talos machine as steps name it, and how it stands.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::base::fault::Failure;
use crate::base::names::Dial;
use crate::base::schematic;
use crate::estate::Estate;
use crate::site::{Site, TalosCluster, TalosNode};
use crate::talos::kind::Disk;
use crate::talos::{Error, Talos, kind};

use super::node::KubeNode;
use super::quorum::Peer;
use super::vm::Vm;

/// Where a disk is plugged in: it moves with the disk's socket.
const PLACE: &str = "bus path";

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
    /// What no other of its disks has of that one: `serial`, `wwid`, `uuid`, `bus path`. Empty in what former versions wrote.
    #[serde(default)]
    pub marks: BTreeMap<String, String>,
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

    /// Whether both run from the same disk. Another disk may have come that shares one of its marks, so those that both
    /// know count; where it is plugged in only where they have nothing else in common.
    pub fn is_on_the_disk_of(&self, other: &Self) -> bool {
        let mut common: Vec<_> = self.marks.iter().filter(|(what, _)| other.marks.contains_key(*what)).collect();
        if common.iter().any(|(what, _)| *what != PLACE) {
            common.retain(|(what, _)| *what != PLACE);
        }
        match common.as_slice() {
            [] => self.disk == other.disk,
            all => all.iter().all(|(what, value)| other.marks.get(*what) == Some(*value)),
        }
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

/// The way to a node that whoever pastes a command is to take.
fn dial(cluster: &TalosCluster, node: &TalosNode) -> Dial {
    let talosconfig = cluster.talosconfig.display().to_string();
    Dial::to(&node.address, node.tls_name.as_deref()).by(&talosconfig, cluster.context.as_deref())
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
            dial: dial(site.talos.get(cluster)?, settings),
        })
    }

    /// How what goes down with it is called.
    pub fn as_a_whole(&self) -> String {
        self.vm.as_ref().map_or_else(|| self.name.clone(), |vm| format!("{} (vm {})", self.name, vm.vmid))
    }

    /// A command to it that can be pasted, in back-quotes.
    pub fn talosctl(&self, rest: &str) -> String {
        self.dial.talosctl(&self.name, rest)
    }

    /// All nodes of a Talos cluster of the site.
    pub fn peers(site: &Site, cluster: &str) -> Vec<Peer> {
        let Some(cluster) = site.talos.get(cluster) else { return Vec::new() };
        let peer = |(name, node): (&String, &TalosNode)| Peer {
            name: name.clone(),
            node_name: node.node_name.clone(),
            dial: dial(cluster, node),
        };
        cluster.nodes.iter().map(peer).collect()
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
        let (id, running, (disk, marks), entry) =
            futures::try_join!(talos.this_boot(), running(&talos), disk(&talos), entry(&talos))?;
        let node = kube.node(&self.node.name).await?;
        Ok(Boot {
            id,
            version: running.version,
            schematic: running.schematic,
            disk,
            marks,
            entry,
            uid: node.map(|node| node.meta.uid),
        })
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

/// The disk that it is installed on, with what no other of its disks has of it. Its kernel name moves from boot to boot, so
/// it is named by the first of those.
async fn disk(talos: &Talos) -> Result<(Option<String>, BTreeMap<String, String>), Error> {
    let none = BTreeMap::new();
    let Some(system) = talos.single(&kind::SYSTEM_DISK).await?.map(|system| system.spec) else {
        return Ok((None, none));
    };
    let disks = talos.list(&kind::DISKS).await?;
    let Some(disk) = disks.iter().find(|disk| disk.id == system.disk_id) else {
        return Ok((Some(system.dev_path), none));
    };
    type Of = fn(&Disk) -> &String;
    let names: [(&str, Of); 4] =
        [("serial", |d| &d.serial), ("wwid", |d| &d.wwid), ("uuid", |d| &d.uuid), (PLACE, |d| &d.bus_path)];
    let alone = |of: Of| {
        let value = of(&disk.spec);
        !value.is_empty() && disks.iter().filter(|other| of(&other.spec) == value).count() == 1
    };
    let own: Vec<_> =
        names.into_iter().filter(|(_, of)| alone(*of)).map(|(what, of)| (what, of(&disk.spec).clone())).collect();
    let named = own.first().map(|(what, value)| format!("{} ({what} {value})", disk.spec.model));
    let marks = own.into_iter().map(|(what, value)| (what.to_owned(), value)).collect();
    Ok((Some(named.unwrap_or(system.dev_path)), marks))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_the_same_by_what_both_boots_know_of_it() {
        let boot = |disk: &str, marks: &[(&str, &str)]| Boot {
            id: String::new(),
            version: String::new(),
            schematic: None,
            disk: Some(disk.to_owned()),
            marks: marks.iter().map(|(what, value)| ((*what).to_owned(), (*value).to_owned())).collect(),
            entry: None,
            uid: None,
        };
        let cases: &[(&[_], &[_], bool)] = &[
            // A stick with its serial number came: the other mark is left.
            (&[("serial", "S"), ("wwid", "W"), (PLACE, "1")], &[("wwid", "W"), (PLACE, "1")], true),
            (&[("serial", "S"), ("wwid", "W")], &[("serial", "S"), ("wwid", "X")], false),
            // It moved to another socket.
            (&[("serial", "S"), (PLACE, "1")], &[("serial", "S"), (PLACE, "2")], true),
            (&[(PLACE, "1")], &[(PLACE, "2")], false),
            (&[("serial", "S"), (PLACE, "1")], &[(PLACE, "1")], true),
            // Written by a former version.
            (&[], &[("serial", "S")], false),
        ];
        for (then, now, same) in cases {
            assert_eq!(boot("a", then).is_on_the_disk_of(&boot("b", now)), *same, "{then:?} {now:?}");
        }
        assert!(boot("a", &[]).is_on_the_disk_of(&boot("a", &[("serial", "S")])));
        assert_eq!(cases.len(), 6);
    }
}
