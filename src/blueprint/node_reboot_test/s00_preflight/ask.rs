//! What the preflight asks, all of it side by side.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;

use crate::base::fault::Failure;
use crate::blueprint::configs::{Configs, configs};
use crate::blueprint::finding::{Asked, asked};
use crate::blueprint::machine::Machine;
use crate::blueprint::quorum::{Etcd, look};
use crate::blueprint::vm::Vm;
use crate::estate::Estate;
use crate::k8s::access::Right;
use crate::k8s::drain::Surroundings;
use crate::k8s::{Kubernetes, Node, Pod};
use crate::proxmox::Permissions;
use crate::talos::Service;
use crate::talos::kind::{self, MachineStatus};

use super::super::repair::{self, Facts as RepairFacts};
use super::super::rights;
use super::Preflight;
use crate::blueprint::own_vm;

/// Everything that was asked.
pub(super) struct Facts {
    /// In the order of the nodes.
    pub(super) talos: Vec<Asked<TalosFacts>>,
    pub(super) etcd: Etcd,
    pub(super) kube: Asked<KubeFacts>,
    /// By node; only those in VMs.
    pub(super) vms: BTreeMap<String, Asked<VmFacts>>,
}

/// What a node says of itself.
pub(super) struct TalosFacts {
    pub(super) roles: Vec<String>,
    pub(super) status: MachineStatus,
    pub(super) services: Vec<Service>,
    /// The uuid of its firmware, where it tells one.
    pub(super) uuid: Option<String>,
    /// What it has booted with, and what it boots with.
    pub(super) configs: Asked<Configs>,
    /// None where nothing is to be mended.
    pub(super) repair: Option<Asked<RepairFacts>>,
}

/// What Kubernetes says.
pub(super) struct KubeFacts {
    /// By name.
    pub(super) nodes: BTreeMap<String, Node>,
    /// By node.
    pub(super) pods: BTreeMap<String, Asked<Vec<Pod>>>,
    pub(super) round: Asked<Surroundings>,
    /// Rights that are missing.
    pub(super) lacking: Asked<Vec<Right>>,
}

/// What Proxmox says of a VM.
pub(super) struct VmFacts {
    pub(super) runs: bool,
    /// The uuid that its process has, where there is one.
    pub(super) uuid: Option<String>,
    /// What these credentials may do with it; None: everything.
    pub(super) may: Option<Asked<Permissions>>,
    /// The name of these credentials.
    pub(super) caller: String,
}

pub(super) async fn gather(p: &Preflight, cx: &Estate) -> Facts {
    let machines = || p.nodes.iter();
    let (talos, etcd, kube, vms) = futures::join!(
        join_all(machines().map(|machine| talos(cx, machine, p.repair))),
        look(cx, &p.cluster, &p.peers),
        kubernetes(cx, p),
        join_all(machines().filter_map(|machine| {
            let vm = machine.vm.as_ref()?;
            Some(async move { (machine.name.clone(), asked(virtual_machine(cx, vm).await)) })
        })),
    );
    Facts { talos: talos.into_iter().map(asked).collect(), etcd, kube: asked(kube), vms: vms.into_iter().collect() }
}

async fn talos(cx: &Estate, machine: &Machine, repair: bool) -> Result<TalosFacts, Failure> {
    let talos = machine.open(cx).await?;
    let (status, services, uuid) =
        futures::try_join!(talos.single(&kind::MACHINE_STATUS), talos.services(), own_vm::of_node(&talos))?;
    let repair = if repair { Some(asked(repair::facts(cx, machine).await)) } else { None };
    Ok(TalosFacts {
        roles: talos.roles().to_vec(),
        status: status.map(|status| status.spec).unwrap_or_default(),
        services,
        uuid,
        configs: asked(configs(machine, &talos).await),
        repair,
    })
}

async fn kubernetes(cx: &Estate, p: &Preflight) -> Result<KubeFacts, Failure> {
    let Some(first) = p.nodes.first() else { return Err(Failure::plain("there is no node in the plan", None)) };
    let kube = cx.kubernetes(&first.node.cluster).await?;
    let names: BTreeSet<&String> = p.nodes.iter().map(|machine| &machine.node.name).collect();
    let pods = async {
        let one = |name: &String| {
            let (kube, name) = (kube.clone(), name.clone());
            async move { (name.clone(), asked(kube.pods_on(&name).await)) }
        };
        join_all(names.iter().map(|name| one(name))).await
    };
    let (round, pods, lacking) = futures::join!(kube.surroundings(), pods, lacking(&kube, p));
    let round = asked(round);
    // A list of all nodes may be refused where one by its name is not.
    let mut nodes = BTreeMap::new();
    for name in names {
        let listed = round.as_ref().ok().and_then(|round| round.nodes.iter().find(|node| node.meta.name == *name));
        let node = match listed {
            Some(node) => Some(node.clone()),
            None if round.is_ok() => None,
            None => kube.node(name).await?,
        };
        nodes.extend(node.map(|node| (name.clone(), node)));
    }
    Ok(KubeFacts { nodes, pods: pods.into_iter().collect(), round, lacking })
}

async fn lacking(kube: &Kubernetes, p: &Preflight) -> Asked<Vec<Right>> {
    if kube.may_do_all().await {
        return Ok(Vec::new());
    }
    let rights: Vec<Right> = rights::kubernetes(&p.nodes).into_iter().map(|need| need.right).collect();
    asked(kube.missing_rights(&rights).await)
}

async fn virtual_machine(cx: &Estate, vm: &Vm) -> Result<VmFacts, Failure> {
    let (pve, _, (status, config)) = vm.state_and_config(cx).await?;
    let may = if pve.is_root() { None } else { Some(asked(pve.permissions(Some(&format!("/vms/{}", vm.vmid))).await)) };
    Ok(VmFacts { runs: status.is_running(), uuid: own_vm::of_vm(&config), may, caller: pve.caller().to_owned() })
}
