//! How the old machine stands: alive, off, or not known. What does not answer is not called dead for that alone.

use std::sync::Arc;

use crate::base::check::Problem;
use crate::base::fault::Failure;
use crate::blueprint::install::asked::runs_from;
use crate::blueprint::own_vm;
use crate::engine::step::RunInfo;
use crate::estate::Estate;
use crate::k8s::Node;
use crate::talos::kind::{self, Stage};
use crate::talos::{Error, Talos};

use super::shell::{Power, power};
use super::swap::Swap;
use super::word::{Sign, Silence};

/// How the old machine stands.
pub(super) enum Life {
    /// It answers as a node of the cluster.
    Alive(Arc<Talos>),
    /// It answers, and is on its way down.
    Going,
    /// Its place is taken: the machine that answers under its name has the new disk.
    Replaced,
    /// Its VM waits for a configuration at its address, as its uuid tells, and its kubelet is silent.
    Waits,
    /// It is off: its VM does not run. How that is known.
    Off(String),
    /// Nothing is heard of it. A machine that is cut off, and runs on, looks the same from here.
    Silent(Silence),
    /// It does not answer, and something says that it runs, or it could not be told.
    Unknown(String),
}

impl Life {
    /// Nobody is there who could end its pods, or let its member leave; whether it is off is another question.
    pub(super) fn is_down(&self) -> bool {
        matches!(self, Self::Waits | Self::Off(_) | Self::Silent(_) | Self::Replaced)
    }

    /// Why a machine that is silent is not taken to be off.
    pub(super) fn unsure(&self, swap: &Swap, run: &RunInfo) -> Option<Problem> {
        match self {
            Self::Silent(silence) => silence.unsure(swap, run),
            _ => None,
        }
    }
}

/// How it stands. Talos is asked first; of who is silent his VM tells whether he runs, else nobody does.
///
/// # Errors
/// What else keeps Talos, Kubernetes or Proxmox from answering.
pub(super) async fn life(cx: &Estate, swap: &Swap) -> Result<Life, Failure> {
    let talos = swap.old.open(cx).await?;
    let status = async {
        let status = talos.single(&kind::MACHINE_STATUS).await?;
        let new = swap.same_name() && has_the_disk(&talos, &swap.new.disk).await?;
        Ok((status.map(|status| status.spec.stage).unwrap_or_default(), new))
    };
    let (why, waits) = match status.await {
        Ok((_, true)) => return Ok(Life::Replaced),
        Ok((Stage::ShuttingDown | Stage::Rebooting | Stage::Resetting, _)) => return Ok(Life::Going),
        Ok(_) => return Ok(Life::Alive(talos)),
        // Whoever answers there now: whether it is the old machine its uuid tells.
        Err(error @ Error::UnknownIssuer { .. }) => (error.to_string(), Some(waiting(cx, swap).await?)),
        Err(error @ (Error::Unreachable { .. } | Error::NoAnswer { .. })) => (error.to_string(), None),
        // It says so itself, so it is not off.
        Err(error) if error.is_down() => return Ok(Life::Unknown(error.to_string())),
        Err(error) => return Err(error.into()),
    };
    let (mut signs, mut stopped) = (vec![format!("Talos does not answer ({why})")], None);
    let waits = waits.unwrap_or_default();
    let (mut own, mut host) = (None, None);
    if let Some(vm) = &swap.old.vm {
        match power(cx, vm).await? {
            Power::On(of) if same(of.as_deref(), waits.uuid.as_deref()) => own = of,
            Power::On(_) => {
                return Ok(Life::Unknown(format!("vm {} runs, and Talos does not answer in it: {why}", vm.vmid)));
            }
            Power::Off(sign, uuid) => {
                signs.push(sign);
                stopped = uuid;
            }
            Power::NotKnown(sign, hosts) => {
                signs.push(sign);
                host = Some(hosts);
            }
        }
    }
    let kube = cx.kubernetes(&swap.old.node.cluster).await?;
    let (node, lease) = futures::try_join!(kube.node(swap.host()), kube.node_lease(swap.host()))?;
    let sign = Sign::of(node.as_ref(), lease.as_ref());
    let heard = Some(sign.renewed.as_str()).filter(|at| !at.is_empty());
    let heard = heard.map(|at| format!(", its lease was renewed last at {at}")).unwrap_or_default();
    match &node {
        None => signs.push(format!("kubernetes has no node {}{heard}", swap.host())),
        Some(node) if is_silent(node) => signs.push(format!("its kubelet is silent{heard}")),
        Some(node) => {
            let said = node.ready.as_ref().map_or("it has no condition Ready".to_owned(), ToString::to_string);
            return Ok(Life::Unknown(format!("{}, and its kubelet was heard lately: {said}{heard}", signs.join(", "))));
        }
    }
    let how = signs.join(", ");
    // A VM that is not shown to be the one that the node ran in says nothing of it: the number may be another's.
    let ran_in = node.as_ref().map(|node| node.system_uuid.as_str());
    Ok(match () {
        () if same(ran_in, own.as_deref()) => Life::Waits,
        () if same(ran_in, stopped.as_deref()) => Life::Off(how),
        () => {
            let waits = same(ran_in, waits.uuid.as_deref()).then_some(waits.disks);
            Life::Silent(Silence { how, sign, waits, host })
        }
    })
}

/// What waits at the old one's address.
#[derive(Default)]
struct Waiting {
    /// None where it tells none.
    uuid: Option<String>,
    /// The serial numbers of its disks.
    disks: Vec<String>,
}

async fn waiting(cx: &Estate, swap: &Swap) -> Result<Waiting, Failure> {
    let talos = cx.talos_in_maintenance(&swap.old.name, None, None)?;
    // Who asks for a certificate does not wait: another cluster's node shows nothing of the old one.
    let uuid = own_vm::of_node(&talos).await.unwrap_or_default();
    let disks = talos.list(&kind::DISKS).await.unwrap_or_default();
    // Many a disk (a loop device, a CD drive) tells no serial number: by that it is nobody's.
    let serials = disks.into_iter().map(|disk| disk.spec.serial).filter(|serial| !serial.is_empty());
    Ok(Waiting { uuid, disks: serials.collect() })
}

fn same(one: Option<&str>, other: Option<&str>) -> bool {
    matches!((one, other), (Some(one), Some(other)) if one.eq_ignore_ascii_case(other))
}

/// Whether the control plane has not heard a kubelet for longer than its grace period: nobody but it writes `Unknown`.
fn is_silent(node: &Node) -> bool {
    node.ready.as_ref().is_some_and(|ready| ready.status == "Unknown")
}

/// Whether a machine runs from the disk with this serial number, or has it where it does not tell yet what it runs from.
async fn has_the_disk(talos: &Talos, serial: &str) -> Result<bool, Error> {
    match runs_from(talos).await? {
        Some((_, of)) => Ok(of == serial),
        None => Ok(talos.list(&kind::DISKS).await?.iter().any(|disk| disk.spec.serial == serial)),
    }
}

/// Whether the new machine is installed where it is to be: then there is nothing left to be done to it.
///
/// # Errors
/// What keeps it from answering, other than that it does not.
pub(super) async fn is_in(cx: &Estate, swap: &Swap) -> Result<bool, Failure> {
    use crate::blueprint::install::Stand;
    Ok(match swap.new.stand(cx).await? {
        Stand::Ours(talos) => runs_from(&talos).await?.is_some_and(|(_, serial)| serial == swap.new.disk),
        Stand::Waits(_) | Stand::Foreign | Stand::Silent(_) => false,
    })
}
