//! The parameters of a `usb-move`, read from the site file and resolved: every later question has a definite subject.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::Problem;
use crate::base::wait::limit;
use crate::blueprint::param::{Param, keys};
use crate::checkout::Edit;
use crate::site::Site;
use crate::site::fields::{Fields, Item};

use super::device::{Attach, Device, Socket, Vm};

pub use crate::blueprint::node::KubeNode;

/// The workload that uses the device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// The Kubernetes cluster's name in the site file.
    pub cluster: String,
    /// Its namespace.
    pub namespace: String,
    /// `Deployment`, `StatefulSet`, or `Kind.group`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// What puts the cluster's objects there: a checkout, and the source object that follows its remote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gitops {
    /// The checkout's name in the site file.
    pub checkout: String,
    /// Namespace of the source object (Flux: `GitRepository`).
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Work {
    /// The problem that there is no such workload.
    pub fn missing(&self) -> Problem {
        let text = format!("kubernetes `{}` has no {self}", self.cluster);
        Problem::new(text, "see `workload` of the migration in the site file: namespace, kind and name")
    }
}

/// What becomes of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClaimFate {
    /// A new, empty volume on the target; the old one is kept.
    Recreate,
    /// It stays as it is.
    Leave,
}

/// A label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// A command that the site declares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Twice is the same as once.
    pub repeatable: bool,
    /// How long it may run, in seconds.
    pub limit: u64,
}

impl Declared {
    /// How long it may run.
    pub fn limit(&self) -> Duration {
        Duration::from_secs(self.limit)
    }
}

/// The drivers of the device in the target's guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drivers {
    /// Exits with 0 where they are there; changes nothing.
    pub check: Declared,
    /// Installs them.
    pub install: Declared,
    /// Removes them.
    pub remove: Option<Declared>,
}

/// The command that proves the device in the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verify {
    /// Program and arguments; changes nothing.
    pub command: Vec<String>,
    /// The container; None: the pod's only or first one.
    pub container: Option<String>,
    /// What its output must contain.
    pub expect: Option<String>,
}

/// What the workload needs of the target besides the device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// Paths that must exist in the guest.
    pub paths: Vec<String>,
    /// A RuntimeClass whose handler the node must have.
    pub runtime_class: Option<String>,
    /// Resources that the node must have to give, by name, at least so many.
    pub allocatable: BTreeMap<String, u32>,
}

/// All of it.
#[derive(Debug, Clone)]
pub struct Params {
    /// The device.
    pub device: Device,
    /// The VM that has it.
    pub source: Vm,
    /// The VM that gets it.
    pub target: Vm,
    /// The node that loses the label.
    pub source_node: KubeNode,
    /// The node that gets it.
    pub target_node: KubeNode,
    /// How it is passed.
    pub attach: Attach,
    /// The workload.
    pub work: Work,
    /// What puts the cluster's objects there, if anything does.
    pub gitops: Option<Gitops>,
    /// The node label that the workload selects.
    pub label: Option<Label>,
    /// Claims by name; those that are not named stay.
    pub claims: BTreeMap<String, ClaimFate>,
    /// Whether the target node is drained before its reboot.
    pub drain: bool,
    /// What the workload needs.
    pub needs: Needs,
    /// The drivers.
    pub drivers: Option<Drivers>,
    /// The values that the checkout's files are to have.
    pub edits: Vec<Edit>,
    /// The proof.
    pub verify: Option<Verify>,
}

/// How they are written.
pub const PARAMS: &[Param] = &[
    Param::need("device", "the device, by its name under `devices:`", "coral"),
    Param::need("from", "the node that has it, by its name under `nodes:`", "k3s-vm-pumped-piglet"),
    Param::need("to", "the node that gets it", "k3s-vm-still-fawn"),
    Param::may("attach", "how it is passed: by its `id`, by a `port` of the host, or by a `mapping`", "id", "id"),
    Param::may("label", "the node label that goes with it", "{ key: coral, value: \"true\" }", "none").of(LABEL),
    Param::need("workload", "what uses it", "{ namespace: frigate, kind: Deployment, name: frigate }").of(WORK),
    Param::may(
        "claims",
        "what becomes of the workload's claims: `recreate` (new and empty, the old volume is kept) or `leave`",
        "{ frigate-config: recreate }",
        "leave, each",
    ),
    Param::may("drain", "whether the target node is drained before its power cycle", "true", "true"),
    Param::may("needs", "what the workload needs of the target besides", "{ paths: [\"/dev/dri\"] }", "nothing")
        .of(NEEDS),
    Param::may("drivers", "commands for its drivers in the target's guest", "see below", "none").of(DRIVERS),
    Param::may("manifests", "what is to change in the files that Flux or Argo CD applies", "see below", "nothing")
        .of(super::manifests::MANIFEST),
    Param::may("verify", "a command in the pod that shows that it works", "see below", "none").of(VERIFY),
];

const LABEL: &[Param] =
    &[Param::need("key", "its key", "coral"), Param::need("value", "its value, in quotes", "\"true\"")];

const WORK: &[Param] = &[
    Param::need("namespace", "its namespace", "frigate"),
    Param::need("kind", "`Deployment`, `StatefulSet`, or `Kind.group` of a resource with `scale`", "Deployment"),
    Param::need("name", "its name", "frigate"),
];

const NEEDS: &[Param] = &[
    Param::may("paths", "paths that must exist in the guest", "[\"/dev/dri\"]", "none"),
    Param::may("runtime_class", "a RuntimeClass whose handler the node must have", "nvidia", "none"),
    Param::may("allocatable", "resources that the node must have to give", "{ nvidia.com/gpu: 1 }", "none"),
];

const DRIVERS: &[Param] = &[
    Param::need("check", "exits with 0 where they are there", "{ command: [..], reads: true }").of(CHECKS),
    Param::need("install", "installs them", "{ command: [..], repeatable: true }").of(COMMAND),
    Param::may("remove", "removes them, for an undo", "{ command: [..] }", "an undo leaves them").of(COMMAND),
];

const RUNS: Param = Param::need("command", "a list: program and arguments, no shell", "[\"/usr/bin/dpkg\", \"-s\", x]");
const READS: Param = Param::need("reads", "that it changes nothing", "true");
const LIMIT: Param = Param::may("limit", "how long it may run, in seconds", "300", "the usual limit of a command");

const CHECKS: &[Param] = &[RUNS, READS, LIMIT];

const COMMAND: &[Param] = &[RUNS, Param::may("repeatable", "that twice is the same as once", "true", "false"), LIMIT];

const VERIFY: &[Param] = &[
    RUNS,
    Param::may("container", "the container", "frigate", "the pod's only or first one"),
    Param::may("expect", "what its output must contain", "usb", "its exit code alone counts"),
    READS,
];

impl Params {
    /// Reads the parameters; what is wrong goes into the item's sink.
    pub fn read(site: &Site, item: &Item<'_>) -> Option<Self> {
        let fields = item.fields(&keys(PARAMS));
        let device = fields.need("device", "name a device of `devices:`").and_then(|i| device(site, &i));
        let from = fields.need("from", "name the node that has the device").and_then(|i| node(site, &i));
        let to = fields.need("to", "name the node that gets the device").and_then(|i| node(site, &i));
        if let (Some(from), Some(to)) = (&from, &to) {
            if from.0 == to.0 {
                fields.problem("`from` and `to` are the same VM", "name two different nodes");
            } else if from.1.cluster != to.1.cluster || from.0.cluster != to.0.cluster {
                fields.problem(
                    "`from` and `to` are not in the same Proxmox cluster and the same Kubernetes cluster",
                    "this blueprint moves a device within one of each",
                );
            }
        }
        let words = [("id", Attach::Id), ("port", Attach::Port), ("mapping", Attach::Mapping)];
        let attach = fields.get("attach").map_or(Some(Attach::Id), |i| i.one_of(&words));
        if let (Some(Attach::Mapping), Some(Device { mapping: None, name, .. })) = (attach, &device) {
            fields.problem(
                format!("`attach: mapping` needs a mapping, and device `{name}` names none"),
                "add `mapping: NAME` to the device",
            );
        }
        let label = fields.get("label").map_or(Some(None), |i| label(&i).map(Some));
        let workload = fields.need("workload", "`{ namespace: .., kind: Deployment, name: .. }`");
        let cluster = to.as_ref().map(|t| t.1.cluster.clone()).unwrap_or_default();
        let work = workload.and_then(|i| work(&i, cluster));
        let claims = fields.get("claims").map_or(Some(BTreeMap::new()), |i| claims(&i));
        let drain = fields.get("drain").map_or(Some(true), |i| i.flag());
        let needs = fields.get("needs").map_or(Some(Needs::default()), |i| needs(&i));
        let drivers = fields.get("drivers").map_or(Some(None), |i| drivers(&i).map(Some));
        let edits = fields.get("manifests").map_or(Some(Vec::new()), |i| super::manifests::read(&i));
        let verify = fields.get("verify").map_or(Some(None), |i| verify(&i).map(Some));
        let ((source, source_node), (target, target_node)) = (from?, to?);
        let gitops = site.kubernetes.get(&target_node.cluster).and_then(|k| k.gitops.as_ref()).map(|g| Gitops {
            checkout: g.checkout.clone(),
            namespace: g.namespace.clone(),
            name: g.name.clone(),
        });
        let known = site.kubernetes.contains_key(&target_node.cluster);
        if known && gitops.is_none() && edits.as_ref().is_some_and(|edits| !edits.is_empty()) {
            fields.problem(
                format!("`manifests` needs a checkout, and kubernetes.{} has no `gitops`", target_node.cluster),
                "add `gitops: { kind: flux, checkout: NAME, source: { namespace: .., name: .. } }` there",
            );
        }
        Some(Self {
            device: device?,
            source,
            target,
            source_node,
            target_node,
            attach: attach?,
            work: work?,
            gitops,
            label: label?,
            claims: claims?,
            drain: drain?,
            needs: needs?,
            drivers: drivers?,
            edits: edits?,
            verify: verify?,
        })
    }
}

fn device(site: &Site, item: &Item<'_>) -> Option<Device> {
    device_named(site, item.name_of("a device", site.device_names.iter().map(String::as_str))?)
}

/// A device of the site.
pub(super) fn device_named(site: &Site, name: String) -> Option<Device> {
    let d = site.devices.get(&name)?;
    let socket = |pair: &crate::site::PortPair| Socket { port: pair.port.clone(), sibling: pair.sibling.clone() };
    Some(Device {
        name,
        ids: d.ids.clone(),
        serial: d.serial.clone(),
        min_speed: d.min_speed,
        sockets: d.ports.iter().map(|(host, pair)| (host.clone(), socket(pair))).collect(),
        mapping: d.mapping.clone(),
    })
}

fn node(site: &Site, item: &Item<'_>) -> Option<(Vm, KubeNode)> {
    node_named(site, item.name_of("a node", site.node_names.iter().map(String::as_str))?)
}

/// A node of the site, as a VM and as a node of Kubernetes.
pub(super) fn node_named(site: &Site, name: String) -> Option<(Vm, KubeNode)> {
    let n = site.nodes.get(&name)?;
    let kube = KubeNode { cluster: n.kubernetes.clone(), name: n.node_name.clone() };
    Some((Vm { cluster: n.proxmox.clone(), vmid: n.vmid, node: name }, kube))
}

fn label(item: &Item<'_>) -> Option<Label> {
    let fields = item.fields(&keys(LABEL));
    let key = fields.need("key", "the label's key, as `coral`").and_then(|i| i.text().map(str::to_owned));
    let value =
        fields.need("value", "the label's value in quotes, as `\"true\"`").and_then(|i| i.text().map(str::to_owned));
    Some(Label { key: key?, value: value? })
}

fn work(item: &Item<'_>, cluster: String) -> Option<Work> {
    let fields = item.fields(&keys(WORK));
    let text = |key: &str, help: &str| fields.need(key, help).and_then(|i| i.text().map(str::to_owned));
    let namespace = text("namespace", "the workload's namespace");
    let kind = text("kind", "`Deployment`, `StatefulSet`, or `Kind.group` of a resource with `scale`");
    let name = text("name", "the workload's name");
    Some(Work { cluster, namespace: namespace?, kind: kind?, name: name? })
}

fn claims(item: &Item<'_>) -> Option<BTreeMap<String, ClaimFate>> {
    let words = [("recreate", ClaimFate::Recreate), ("leave", ClaimFate::Leave)];
    let entries = item.entries();
    let read: BTreeMap<_, _> =
        entries.iter().filter_map(|(name, i)| Some(((*name).to_owned(), i.one_of(&words)?))).collect();
    (read.len() == entries.len()).then_some(read)
}

fn needs(item: &Item<'_>) -> Option<Needs> {
    let fields = item.fields(&keys(NEEDS));
    let paths = fields.get("paths").map_or(Some(Vec::new()), |i| i.texts());
    let class = fields.get("runtime_class").map_or(Some(None), |i| i.text().map(|t| Some(t.to_owned())));
    let mut allocatable = BTreeMap::new();
    for (name, amount) in fields.get("allocatable").map(|i| i.entries()).unwrap_or_default() {
        allocatable.insert(name.to_owned(), amount.number(1..=u32::MAX)?);
    }
    Some(Needs { paths: paths?, runtime_class: class?, allocatable })
}

fn drivers(item: &Item<'_>) -> Option<Drivers> {
    let fields = item.fields(&keys(DRIVERS));
    let check = fields.need("check", "a command that exits with 0 where the drivers are there").and_then(|i| {
        let read = i.fields(&keys(CHECKS));
        must_read(&read)?;
        declared(&read)
    });
    let command = |i: Item<'_>| declared(&i.fields(&keys(COMMAND)));
    let install = fields.need("install", "the command that installs the drivers").and_then(command);
    let remove = fields.get("remove").map_or(Some(None), |i| command(i).map(Some));
    Some(Drivers { check: check?, install: install?, remove: remove? })
}

/// A command that a check runs must be declared to change nothing.
fn must_read(fields: &Fields<'_>) -> Option<()> {
    match fields.get("reads").map(|i| i.flag()) {
        Some(Some(true)) => Some(()),
        Some(None) => None,
        Some(Some(false)) | None => {
            fields.problem("a checking command must be one that changes nothing", "if that is so, add `reads: true`");
            None
        }
    }
}

fn declared(fields: &Fields<'_>) -> Option<Declared> {
    let command = fields.need("command", "a list: program and arguments, no shell").and_then(|i| i.texts());
    let repeatable = fields.get("repeatable").map_or(Some(false), |i| i.flag());
    let usual = u32::try_from(limit::COMMAND.as_secs()).unwrap_or(u32::MAX);
    let seconds = fields.get("limit").map_or(Some(usual), |i| i.number(1..=86_400));
    Some(Declared { command: command?, repeatable: repeatable?, limit: seconds?.into() })
}

fn verify(item: &Item<'_>) -> Option<Verify> {
    let fields = item.fields(&keys(VERIFY));
    must_read(&fields)?;
    let command = fields.need("command", "a list: program and arguments, no shell").and_then(|i| i.texts());
    let text = |key: &str| fields.get(key).map_or(Some(None), |i| i.text().map(|t| Some(t.to_owned())));
    let (container, expect) = (text("container"), text("expect"));
    Some(Verify { command: command?, container: container?, expect: expect? })
}
