//! What the preflight asks, all of it side by side.

use futures::future::join_all;

use crate::base::drives::{Inventory, Plan, Scenario};
use crate::base::fault::Failure;
use crate::base::survey::{Disk, Layer, MachineConfig, SystemDisk};
use crate::blueprint::backup::kept;
use crate::blueprint::configs::{Configs, configs};
use crate::blueprint::finding::{Asked, Unknown, asked};
use crate::blueprint::off::{Second, second};
use crate::blueprint::own_vm;
use crate::blueprint::quorum::{Etcd, look};
use crate::blueprint::vm::Vm;
use crate::engine::step::RunInfo;
use crate::estate::{Estate, read_config, surveyed};
use crate::k8s::access::Right;
use crate::k8s::drain::Surroundings;
use crate::k8s::{KubeError, Node, Pod};
use crate::proxmox::Permissions;
use crate::talos::kind::{self, MachineStatus};
use crate::talos::{Service, Talos};

use super::super::behind::{self, Behind};
use super::super::params::Other;
use super::super::replicas::{self, Mayastor};
use super::super::s01_backup::STANDS;
use super::super::sight::{Known, known, learned};
use super::super::stands::{stands, with_ports};
use super::super::{on, rights};
use super::Preflight;
use super::firmware::{Entry, entries};
use super::safe::room;

/// Everything that was asked.
pub(super) struct Facts {
    pub(super) talos: Asked<TalosFacts>,
    pub(super) seen: Asked<Seen>,
    pub(super) etcd: Etcd,
    pub(super) kube: Asked<KubeFacts>,
    /// None where the cluster knows no Mayastor.
    pub(super) mayastor: Asked<Option<Mayastor>>,
    pub(super) power: Asked<Second>,
    /// The room where the runs of this site are, in bytes.
    pub(super) room: Asked<u64>,
    /// Only of one in a VM.
    pub(super) vm: Option<Asked<VmFacts>>,
    /// Of the other migrations, in their order: whether their drives are where they belong already.
    pub(super) others: Vec<Asked<bool>>,
}

impl Facts {
    /// The node's VM is known to run: nobody holds that off.
    pub(super) fn vm_runs(&self) -> bool {
        matches!(&self.vm, Some(Ok(vm)) if vm.runs)
    }
}

/// What the node says of itself.
pub(super) struct TalosFacts {
    pub(super) version: String,
    pub(super) roles: Vec<String>,
    pub(super) status: MachineStatus,
    pub(super) services: Vec<Service>,
    pub(super) uuid: Option<String>,
    pub(super) configs: Asked<Configs>,
    pub(super) disks: Vec<Disk>,
    pub(super) system: Layer<SystemDisk>,
    /// What its firmware boots; None: it has no UEFI, or it was not asked.
    pub(super) boot: Asked<Option<Vec<Entry>>>,
}

impl TalosFacts {
    /// The few fields of the machine configuration that are looked at.
    pub(super) fn config(&self) -> Option<Asked<MachineConfig>> {
        let configs = self.configs.as_ref().ok()?;
        Some(read_config(configs.active.expose()).map_err(|text| Unknown { text, help: None }))
    }
}

/// The drives, and how they were.
pub(super) struct Seen {
    pub(super) known: Known,
    pub(super) live: Inventory,
    /// The plan with the ports that the site file or an earlier run has; None where this run knows how they were.
    pub(super) told: Option<Plan>,
}

/// What Kubernetes says.
pub(super) struct KubeFacts {
    pub(super) node: Asked<Option<Node>>,
    pub(super) pods: Asked<Vec<Pod>>,
    pub(super) round: Asked<Surroundings>,
    /// Rights that are missing.
    pub(super) lacking: Asked<Vec<Right>>,
}

/// What Proxmox says of the VM.
pub(super) struct VmFacts {
    pub(super) runs: bool,
    pub(super) uuid: Option<String>,
    /// What these credentials may do with it; None: everything.
    pub(super) may: Option<Asked<Permissions>>,
    /// The name of these credentials.
    pub(super) caller: String,
    pub(super) behind: Asked<Behind>,
}

pub(super) async fn gather(p: &Preflight, cx: &Estate, run: &RunInfo) -> Facts {
    let vm = async {
        match &p.machine.vm {
            Some(vm) => Some(asked(virtual_machine(p, cx, vm).await)),
            None => None,
        }
    };
    let (talos, seen, etcd, kube, mayastor, power, vm, others) = futures::join!(
        Box::pin(talos(p, cx)),
        Box::pin(drives(p, cx, run)),
        look(cx, &p.machine.cluster, &p.peers),
        kubernetes(p, cx),
        replicas::ask(cx, &p.machine),
        second(cx, &p.machine),
        vm,
        join_all(p.others.iter().map(|other| async move { asked(is_done(other, cx, run).await) })),
    );
    Facts {
        talos: asked(talos),
        seen: asked(seen),
        etcd,
        kube: asked(kube),
        mayastor: asked(mayastor),
        power: asked(power),
        room: asked(room(cx.journals())),
        vm,
        others,
    }
}

async fn talos(p: &Preflight, cx: &Estate) -> Result<TalosFacts, Failure> {
    let talos = p.machine.open(cx).await?;
    let (version, status, services, uuid, disks, system) = futures::try_join!(
        talos.version(),
        talos.single(&kind::MACHINE_STATUS),
        talos.services(),
        own_vm::of_node(&talos),
        talos.list(&kind::DISKS),
        talos.single(&kind::SYSTEM_DISK),
    )?;
    let system = system.map_or(Layer::Absent, |found| {
        Layer::Known(SystemDisk { id: found.spec.disk_id, dev_path: found.spec.dev_path })
    });
    let boot = match p.plan.scenario {
        Scenario::SystemMoved => asked(entries(&talos).await),
        Scenario::Data | Scenario::SystemReplaced => Ok(None),
    };
    let hardware = disks.into_iter().filter(|disk| disk.spec.is_hardware());
    Ok(TalosFacts {
        version: version.tag,
        roles: talos.roles().to_vec(),
        status: status.map(|status| status.spec).unwrap_or_default(),
        services,
        uuid,
        configs: config(p, &talos).await,
        disks: hardware.map(surveyed).collect(),
        system,
        boot,
    })
}

async fn config(p: &Preflight, talos: &Talos) -> Asked<Configs> {
    asked(configs(&p.machine, talos).await)
}

async fn drives(p: &Preflight, cx: &Estate, run: &RunInfo) -> Result<Seen, Failure> {
    let live = behind::inventory(cx, &p.machine).await?;
    let known = known(cx, &p.machine, &p.plan, run, Some(&live))?;
    let told = match kept(run, on::BACKUP, STANDS, "the inventory")? {
        Some(_) => None,
        None => Some(with_ports(&p.plan, &learned(cx, &p.machine, run)?)),
    };
    Ok(Seen { known, live, told })
}

async fn kubernetes(p: &Preflight, cx: &Estate) -> Result<KubeFacts, Failure> {
    let kube = cx.kubernetes(&p.machine.node.cluster).await?;
    let name = &p.machine.node.name;
    let lacking = async {
        if kube.may_do_all().await {
            return Ok(Vec::new());
        }
        let rights: Vec<Right> =
            rights::kubernetes(&p.machine, p.measure.as_ref()).into_iter().map(|need| need.right).collect();
        asked(kube.missing_rights(&rights).await)
    };
    let (node, pods, round, lacking) =
        futures::join!(kube.node(name), kube.pods_on(name), kube.surroundings(), lacking);
    // Who may not ask for it may lack more: that has a line of its own.
    let node = match node {
        Err(error) if !matches!(error, KubeError::Forbidden { .. }) => return Err(error.into()),
        other => asked(other),
    };
    Ok(KubeFacts { node, pods: asked(pods), round: asked(round), lacking })
}

async fn virtual_machine(p: &Preflight, cx: &Estate, vm: &Vm) -> Result<VmFacts, Failure> {
    let (pve, _, (status, config)) = vm.state_and_config(cx).await?;
    let may = if pve.is_root() { None } else { Some(asked(pve.permissions(Some(&format!("/vms/{}", vm.vmid))).await)) };
    let behind = asked(behind::behind(cx, &p.machine, vm, &p.plan, &p.peers).await);
    let (runs, caller) = (status.is_running(), pve.caller().to_owned());
    Ok(VmFacts { runs, uuid: own_vm::of_vm(&config), may, caller, behind })
}

/// The drives of another migration are where they belong.
async fn is_done(other: &Other, cx: &Estate, run: &RunInfo) -> Result<bool, Failure> {
    let live = behind::inventory(cx, &other.machine).await?;
    let learned = learned(cx, &other.machine, run)?;
    let placed = stands(&other.plan, &learned, &live).map_err(super::super::sight::unasked)?;
    if placed.guessed && placed.layout == other.plan.target {
        let text = format!("no port tells the slots of {}", other.machine.name);
        return Err(Failure::plain(text, Some("`pvemig plan` of its migration says which one is needed".into())));
    }
    Ok(placed.layout == other.plan.target)
}
