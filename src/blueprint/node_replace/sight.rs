//! How the old machine stands: alive, off, or not known. What does not answer is not called dead for that alone.

use std::sync::Arc;

use crate::base::check::Problem;
use crate::base::fault::Failure;
use crate::blueprint::install::asked::runs_from;
use crate::blueprint::own_vm;
use crate::blueprint::vm::Vm;
use crate::engine::step::RunInfo;
use crate::estate::Estate;
use crate::k8s::Node;
use crate::talos::kind::{self, Stage};
use crate::talos::{Error, Talos};

use super::on;
use super::swap::Swap;

/// How the old machine stands.
pub(super) enum Life {
    /// It answers as a node of the cluster.
    Alive(Arc<Talos>),
    /// It answers, and is on its way down.
    Going,
    /// Its place is taken: the machine that answers under its name has the new disk.
    Replaced,
    /// It is the machine that waits for a configuration at its address, as its uuid tells, and its kubelet is silent.
    Waits,
    /// It is off: its VM does not run. How that is known.
    Off(String),
    /// Nothing is heard of it. A machine that is cut off, and runs on, looks the same from here.
    Silent(String),
    /// It does not answer, and something says that it runs, or it could not be told.
    Unknown(String),
}

impl Life {
    /// Nobody is there who could end its pods, or let its member leave; whether it is off is another question.
    pub(super) fn is_down(&self) -> bool {
        matches!(self, Self::Waits | Self::Off(_) | Self::Silent(_) | Self::Replaced)
    }

    /// Why a machine that is silent is not taken to be off: this run did not switch it off, and nobody said that it is.
    pub(super) fn unsure(&self, swap: &Swap, run: &RunInfo) -> Option<Problem> {
        let Self::Silent(how) = self else { return None };
        if run.consents.contains(&swap.off()) || was_shut_down(run) {
            return None;
        }
        Some(Problem::new(
            format!("{} is silent: {how}. A machine that is only cut off looks the same, and runs on", swap.goer()),
            format!(
                "go and look at it: where it is off, and stays off, add `--destroy {}`; what runs on it would run twice",
                swap.off()
            ),
        ))
    }
}

/// The run file that tells that the old machine has taken its shutdown.
pub(super) const SHUT: &str = "taken";

/// Whether this run has switched it off, which it said that it does.
fn was_shut_down(run: &RunInfo) -> bool {
    run.files.as_ref().is_some_and(|files| files.join(on::SHUTDOWN).join(SHUT).exists())
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
        Err(error @ Error::UnknownIssuer { .. }) => (error.to_string(), waiting_uuid(cx, swap).await?),
        Err(error @ (Error::Unreachable { .. } | Error::NoAnswer { .. })) => (error.to_string(), None),
        // It says so itself, so it is not off.
        Err(error) if error.is_down() => return Ok(Life::Unknown(error.to_string())),
        Err(error) => return Err(error.into()),
    };
    let (mut signs, mut stopped) = (vec![format!("Talos does not answer ({why})")], None);
    let mut uuid = None;
    if let Some(vm) = &swap.old.vm {
        match power(cx, vm).await? {
            Power::On(of) if waits.is_some() && same(of.as_deref(), waits.as_deref()) => uuid = of,
            Power::On(_) => {
                return Ok(Life::Unknown(format!("vm {} runs, and Talos does not answer in it: {why}", vm.vmid)));
            }
            Power::Off(sign, uuid) => {
                signs.push(sign);
                stopped = uuid;
            }
            Power::NotKnown(why) => return Ok(Life::Unknown(why)),
        }
    }
    let kube = cx.kubernetes(&swap.old.node.cluster).await?;
    let (node, lease) = futures::try_join!(kube.node(swap.host()), kube.node_lease(swap.host()))?;
    let heard = lease.map(|lease| lease.renewed).filter(|at| !at.is_empty());
    let heard = heard.map(|at| format!(", its lease was renewed last at {at}")).unwrap_or_default();
    match &node {
        None => signs.push(format!("kubernetes has no node {}{heard}", swap.host())),
        Some(node) if is_silent(node) => signs.push(format!("its kubelet is silent{heard}")),
        Some(node) => {
            let said = node.ready.as_ref().map_or("it has no condition Ready".to_owned(), ToString::to_string);
            return Ok(Life::Unknown(format!("{}, and its kubelet was heard lately: {said}{heard}", signs.join(", "))));
        }
    }
    let known = uuid.as_deref().or(node.as_ref().map(|node| node.system_uuid.as_str()));
    let signs = signs.join(", ");
    // A VM that is off, and not shown to be the one that the node ran in, says nothing of it: the number may be another's.
    let ran_in = node.as_ref().map(|node| node.system_uuid.as_str());
    Ok(match () {
        () if same(known, waits.as_deref()) => Life::Waits,
        () if same(ran_in, stopped.as_deref()) => Life::Off(signs),
        () => Life::Silent(signs),
    })
}

/// Whether its VM runs.
enum Power {
    /// It does, with this uuid.
    On(Option<String>),
    /// It is off, or not to be seen: what is said of it, and the uuid that it has.
    Off(String, Option<String>),
    NotKnown(String),
}

async fn power(cx: &Estate, vm: &Vm) -> Result<Power, Failure> {
    use crate::proxmox::Error;
    let said = vm.there(cx, async |pve, at| Ok(futures::try_join!(pve.pending(at), pve.status(at))?)).await;
    let failure = match said {
        Ok((_, _, (config, status))) if status.is_running() => return Ok(Power::On(own_vm::of_vm(&config))),
        Ok((_, _, (config, _))) => {
            return Ok(Power::Off(format!("vm {} does not run", vm.vmid), own_vm::of_vm(&config)));
        }
        Err(failure) => failure,
    };
    match failure.downcast_ref() {
        // A token that may not see it gets the same answer.
        Some(Error::NoSuchVm { .. }) => Ok(Power::Off(format!("no vm {} is to be seen", vm.vmid), None)),
        Some(Error::NoAnswer { .. } | Error::LostAnswer { .. } | Error::NoSuchNode { .. }) => {
            Ok(Power::NotKnown(format!(
                "whether vm {} runs is not known: {failure}. Where its host is gone for good, take the VM off it first (`pvecm \
                 delnode`, or move its config to another host), and its node is told by that",
                vm.vmid
            )))
        }
        _ => Err(failure),
    }
}

/// The uuid of the machine that waits at the old one's address. None where what answers there tells none.
async fn waiting_uuid(cx: &Estate, swap: &Swap) -> Result<Option<String>, Failure> {
    let waiting = cx.talos_in_maintenance(&swap.old.name, None, None)?;
    // Who asks for a certificate does not wait: another cluster's node shows nothing of the old one.
    Ok(own_vm::of_node(&waiting).await.unwrap_or_default())
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
