//! How the old machine stands: alive, off, or not known. What does not answer is not called dead for that alone.

use std::sync::Arc;

use crate::base::fault::Failure;
use crate::blueprint::install::asked::runs_from;
use crate::estate::Estate;
use crate::k8s::Node;
use crate::talos::kind::{self, Stage};
use crate::talos::{Error, Talos};

use super::swap::Swap;

/// How the old machine stands.
pub(super) enum Life {
    /// It answers as a node of the cluster.
    Alive(Arc<Talos>),
    /// It answers, and is on its way down.
    Going,
    /// Its place is taken: the machine that answers under its name has the new disk.
    Replaced,
    /// What answers at its address is not of the cluster (it waits for a configuration), and its kubelet is silent.
    Waits,
    /// It is off, as far as that can be told from here, and how that is known.
    Off(String),
    /// It does not answer, and nothing shows that it is off.
    Unknown(String),
}

impl Life {
    /// Nothing of the old installation runs.
    pub(super) fn is_down(&self) -> bool {
        matches!(self, Self::Waits | Self::Off(_) | Self::Replaced)
    }
}

/// How it stands. Talos is asked first; who is silent is dead only where his kubelet has been silent for long too, and his
/// VM does not run.
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
    let (why, another) = match status.await {
        Ok((_, true)) => return Ok(Life::Replaced),
        Ok((Stage::ShuttingDown | Stage::Rebooting | Stage::Resetting, _)) => return Ok(Life::Going),
        Ok(_) => return Ok(Life::Alive(talos)),
        // Whoever answers there now: whether the old installation runs elsewhere, its kubelet tells.
        Err(error @ Error::UnknownIssuer { .. }) => (error.to_string(), true),
        Err(error) if error.is_down() => (error.to_string(), false),
        Err(error) => return Err(error.into()),
    };
    let mut signs = Vec::new();
    if let Some(vm) = swap.old.vm.as_ref().filter(|_| !another) {
        let (_, _, status) = vm.status(cx).await?;
        if status.is_running() {
            return Ok(Life::Unknown(format!("vm {} runs, and Talos does not answer in it: {why}", vm.vmid)));
        }
        signs.push(format!("vm {} does not run", vm.vmid));
    }
    let kube = cx.kubernetes(&swap.old.node.cluster).await?;
    let (node, lease) = futures::try_join!(kube.node(swap.host()), kube.node_lease(swap.host()))?;
    let heard = lease.map(|lease| lease.renewed).filter(|at| !at.is_empty());
    let heard = heard.map(|at| format!(", its lease was renewed last at {at}")).unwrap_or_default();
    Ok(match node {
        _ if another && node.as_ref().is_none_or(is_silent) => Life::Waits,
        None => {
            signs.push(format!("kubernetes has no node {}", swap.host()));
            Life::Off(format!("Talos does not answer, {}", signs.join(", ")))
        }
        Some(node) if is_silent(&node) => {
            signs.push(format!("its kubelet is silent{heard}"));
            Life::Off(format!("Talos does not answer, {}", signs.join(", ")))
        }
        Some(node) => {
            let said = node.ready.map_or("it has no condition Ready".to_owned(), |ready| ready.to_string());
            Life::Unknown(format!("Talos does not answer ({why}), and its kubelet was heard lately: {said}{heard}"))
        }
    })
}

/// Whether the control plane has not heard a kubelet for longer than its grace period: nobody but it writes `Unknown`.
fn is_silent(node: &Node) -> bool {
    node.ready.as_ref().is_none_or(|ready| ready.status == "Unknown")
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
