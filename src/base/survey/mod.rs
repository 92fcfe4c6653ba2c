//! A survey: everything that was observed of an estate at one moment, as plain values.
//!
//! It is filled by `estate`, judged by `lint` and shown by `cli`. What could not be asked is [`Layer::Unknown`] with the
//! reason, never a value: unknown is not no. No secret is in it, and of a machine configuration only a few named fields.

mod ballot;
mod cluster;
mod config;
mod etcd;
mod kubernetes;
mod machine;
mod presence;
mod talos;
mod votes;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use ballot::{BEHIND, NO_LEADER, NOT_HEALTHY};
pub use cluster::{Budget, KubernetesCluster, ProxmoxCluster, Stranger, TalosCluster, renewal};
pub use config::{InstallDisk, MachineConfig, NamedSelector};
pub use etcd::{EtcdAlarm, EtcdMember, EtcdSeat, Seat};
pub use kubernetes::{Earlier, Kubelet, NotReady, Workload, Workloads};
pub use machine::{Agent, Fact, Guest, PendingChange, Vm};
pub use presence::{Presence, Waiting};
pub use talos::{
    Certificate, Disk, Extension, Memory, Module, PciDevice, Service, Stage, SystemDisk, Talos, TalosVersion, Unmet,
    Volume,
};
pub use votes::{Ballot, Majority, Member, Voice, Votes};

/// One part of what is known of a thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer<T> {
    /// It was asked, and this is the answer.
    Known(T),
    /// It could not be asked, or the answer was of no use.
    Unknown {
        /// Why, with the name of what was asked.
        reason: String,
        /// What to do about it, in one line.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        help: Option<String>,
    },
    /// There is no such part: a node that is no VM has no power state, a worker no seat in etcd.
    Absent,
}

impl<T> Layer<T> {
    /// Unknown for this reason, without help.
    pub fn unknown(reason: impl Into<String>) -> Self {
        Self::Unknown { reason: reason.into(), help: None }
    }

    /// The answer, where there is one.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown { .. } | Self::Absent => None,
        }
    }

    /// Why it is not known; None where it is, and where there is nothing to know.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Unknown { reason, .. } => Some(reason),
            Self::Known(_) | Self::Absent => None,
        }
    }

    /// True where it could not be asked.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }

    /// Another help where it could not be asked.
    pub fn instead(&mut self, why: &str) {
        if let Self::Unknown { help, .. } = self {
            *help = Some(why.to_owned());
        }
    }

    /// True where there is no such part.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// The same with another kind of answer.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Layer<U> {
        match self {
            Self::Known(value) => Layer::Known(f(value)),
            Self::Unknown { reason, help } => Layer::Unknown { reason, help },
            Self::Absent => Layer::Absent,
        }
    }
}

/// Everything that was observed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Survey {
    /// The site's name.
    pub site: String,
    /// When the first question was asked, by the clock of this machine.
    pub at: Timestamp,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// Every node that was asked for, by name.
    pub nodes: Vec<Node>,
    /// The Proxmox clusters that they are on.
    pub proxmox: Vec<ProxmoxCluster>,
    /// The Kubernetes clusters that they belong to.
    pub kubernetes: Vec<KubernetesCluster>,
    /// The Talos clusters that they belong to.
    pub talos: Vec<TalosCluster>,
    /// True where only some of the site's nodes were asked for: what is said of whole clusters is then said of those.
    #[serde(default)]
    pub partial: bool,
}

/// A node across all layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Node {
    /// Its name in the site file.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Its address in the site file; of a Talos node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The name or address that its certificate has, where that one is not in it (a forwarded port).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_name: Option<String>,
    /// Its Proxmox cluster in the site file, and its number there; None for a machine of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// Its Kubernetes cluster in the site file.
    pub kubernetes: String,
    /// Its name in Kubernetes.
    pub node_name: String,
    /// Its Talos cluster in the site file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub talos_cluster: Option<String>,
    /// Its VM; absent for a machine of its own.
    pub vm: Layer<Vm>,
    /// The guest agent of its VM; absent without a VM, and where the VM does not run.
    pub agent: Layer<Agent>,
    /// Its guest by the site's routes; absent for Talos, which has no shell, and where the VM does not run.
    pub guest: Layer<Guest>,
    /// Talos' own account; absent where it is no Talos node, and where it waits for its first configuration.
    pub talos: Layer<Talos>,
    /// What it says of itself where it waits for its first configuration, at its own address. Then there is neither a
    /// kubelet nor an etcd on it, whatever Kubernetes and the other members know by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// Talos was asked and nothing answered at all: refused, or silent to the end. False where it answered with a no (a
    /// certificate, a right), and where it could not be asked.
    #[serde(default)]
    pub talos_silent: bool,
    /// It is off, or silent, and a run of this site that is open, or was left, holds it off: which one, and what is next. The
    /// estate does not tell; it is filled in by whoever knows the runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_off: Option<String>,
    /// The kubelet as Kubernetes tells of it.
    pub kubelet: Layer<Kubelet>,
    /// Its seat in etcd; absent on a worker, and where etcd is none of Talos'.
    pub etcd: Layer<EtcdSeat>,
    /// What runs on it.
    pub workloads: Layer<Workloads>,
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A VM of the site's `nodes`.
    Vm,
    /// A Talos node in a VM.
    TalosVm,
    /// A Talos node on a machine of its own.
    TalosMetal,
}

/// Where a VM is in the site.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The Proxmox cluster.
    pub proxmox: String,
    /// The VM's number.
    pub vmid: u32,
}

impl Survey {
    /// A node by its name in the site file.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// The nodes of a Talos cluster.
    pub fn talos_nodes<'a>(&'a self, cluster: &'a str) -> impl Iterator<Item = &'a Node> {
        self.nodes.iter().filter(move |node| node.talos_cluster.as_deref() == Some(cluster))
    }

    /// What helps where the API of a Kubernetes cluster could not be asked, once it is known why.
    pub fn without_an_api(&mut self, kubernetes: &str, why: &str) {
        for node in self.nodes.iter_mut().filter(|node| node.kubernetes == kubernetes) {
            node.kubelet.instead(why);
            node.workloads.instead(why);
        }
        for of in self.kubernetes.iter_mut().filter(|of| of.name == kubernetes) {
            of.version.instead(why);
            of.strangers.instead(why);
            of.never_met.instead(why);
            of.unscheduled.instead(why);
        }
    }

    /// The nodes of a Kubernetes cluster.
    pub fn kubernetes_nodes<'a>(&'a self, cluster: &'a str) -> impl Iterator<Item = &'a Node> {
        self.nodes.iter().filter(move |node| node.kubernetes == cluster)
    }
}

impl Node {
    /// True for a Talos node.
    pub fn is_talos(&self) -> bool {
        self.kind != Kind::Vm
    }

    /// Talos' own account, where it is known.
    pub fn talos(&self) -> Option<&Talos> {
        self.talos.known()
    }

    /// The VM, where it is known.
    pub fn vm(&self) -> Option<&Vm> {
        self.vm.known()
    }

    /// The kubelet, where it is known.
    pub fn kubelet(&self) -> Option<&Kubelet> {
        self.kubelet.known()
    }

    /// The seat in etcd, where it is known.
    pub fn seat(&self) -> Option<&EtcdSeat> {
        self.etcd.known()
    }

    /// Everything that is not as it should be, as far as one layer alone tells; a line each, with the layer's name.
    pub fn wrong(&self) -> Vec<(&'static str, String)> {
        let mut all = Vec::new();
        let mut add = |layer, lines: Option<Vec<String>>| {
            all.extend(lines.unwrap_or_default().into_iter().map(|line| (layer, line)));
        };
        add("vm", self.vm.known().map(Vm::wrong));
        // An image to install from has no agent.
        add("agent", self.agent.known().filter(|_| self.waiting.is_none()).map(Agent::wrong));
        add("talos", self.talos.known().map(Talos::wrong));
        // One that waits is no node yet.
        let no_node_yet = |kubelet: &&Kubelet| self.waiting.is_none() || kubelet.registered;
        add("kubelet", self.kubelet.known().filter(no_node_yet).map(Kubelet::wrong));
        add("etcd", self.etcd.known().map(EtcdSeat::wrong));
        add("workloads", self.workloads.known().map(Workloads::wrong));
        all
    }

    /// What is not known, with the reason and what to do; a line each, with the layer's name.
    pub fn unknown(&self) -> Vec<(&'static str, &str, Option<&str>)> {
        fn of<T>(layer: &Layer<T>) -> Option<(&str, Option<&str>)> {
            match layer {
                Layer::Unknown { reason, help } => Some((reason, help.as_deref())),
                Layer::Known(_) | Layer::Absent => None,
            }
        }
        let right = |reason: &str| reason.contains("the privilege ").then_some(RIGHT);
        // An agent's answer may be known in part.
        let agent = self.agent.known().map(Agent::unknown).unwrap_or_default();
        [
            ("vm", of(&self.vm)),
            ("agent", of(&self.agent)),
            ("guest", of(&self.guest)),
            ("talos", of(&self.talos)),
            ("kubelet", of(&self.kubelet)),
            ("etcd", of(&self.etcd)),
            ("workloads", of(&self.workloads)),
        ]
        .into_iter()
        .filter_map(|(layer, why)| why.map(|(reason, help)| (layer, reason, help)))
        .chain(agent.into_iter().map(|reason| ("agent", reason, right(reason))))
        .collect()
    }
}

/// What helps where a privilege of Proxmox' is missing.
const RIGHT: &str = "`pvemig privileges` prints the commands that give what a run takes";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_layer_says_by_its_key_whether_it_is_known() {
        let known: Layer<bool> = Layer::Known(false);
        let unknown: Layer<bool> = Layer::unknown("no answer within 5 s");
        let helped: Layer<bool> = Layer::Unknown { reason: "refused".into(), help: Some("ask again".into()) };
        for (layer, form) in [
            (known, json!({ "known": false })),
            (unknown, json!({ "unknown": { "reason": "no answer within 5 s" } })),
            (helped, json!({ "unknown": { "reason": "refused", "help": "ask again" } })),
            (Layer::Absent, json!("absent")),
        ] {
            assert_eq!(serde_json::to_value(&layer).unwrap(), form);
            assert_eq!(serde_json::from_value::<Layer<bool>>(form).unwrap(), layer);
        }
    }

    #[test]
    fn a_stopped_vm_is_wrong_and_one_that_is_paused_too() {
        let vm =
            |power: &str, qemu: Option<&str>| Vm { power: power.into(), qemu: qemu.map(Into::into), ..Vm::default() };
        assert_eq!(vm("running", Some("running")).wrong(), Vec::<String>::new());
        assert_eq!(vm("running", Some("io-error")).wrong(), ["io-error"]);
        assert_eq!(vm("stopped", Some("stopped")).wrong(), ["stopped"]);
        let pending = PendingChange { key: "usb0".into(), now: None, then: Some("host=1a6e:089a".into()) };
        let waiting = Vm { pending: vec![pending], ..vm("running", None) };
        assert_eq!(waiting.wrong(), ["pending until its next power cycle: usb0"]);
    }
}
