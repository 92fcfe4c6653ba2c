//! What Proxmox says of the VM that the old node runs in.

use crate::base::check::Problem;
use crate::base::fault::Failure;
use crate::blueprint::own_vm;
use crate::blueprint::vm::Vm;
use crate::estate::Estate;
use crate::proxmox::Error;

use super::swap::Swap;

/// Whether a VM runs.
pub(super) enum Power {
    /// It does, with this uuid.
    On(Option<String>),
    /// It is off, or not to be seen: what is said of it, and the uuid that it has.
    Off(String, Option<String>),
    /// Its host does not answer: what is said of it, the host, and one that answers.
    NotKnown(String, (String, String)),
}

/// Asks.
///
/// # Errors
/// What else keeps Proxmox from answering.
pub(super) async fn power(cx: &Estate, vm: &Vm) -> Result<Power, Failure> {
    let said = vm.there(cx, async |pve, at| Ok(futures::try_join!(pve.pending(at), pve.status(at))?)).await;
    let failure = match said {
        Ok((_, _, (config, status))) if status.is_running() => return Ok(Power::On(own_vm::of_vm(&config))),
        Ok((_, _, (config, _))) => {
            return Ok(Power::Off(format!("vm {} does not run", vm.vmid), own_vm::of_vm(&config)));
        }
        Err(failure) => failure,
    };
    // A token that may not see it gets the same answer.
    if let Some(Error::NoSuchVm { .. }) = failure.downcast_ref() {
        return Ok(Power::Off(format!("no vm {} is to be seen", vm.vmid), None));
    }
    if !is_of_a_host(&failure) {
        return Err(failure);
    }
    let pve = cx.proxmox(&vm.cluster).await?;
    // Without a list there is no host that answers, and nothing is known of the one that does not.
    let nodes = pve.nodes().await?;
    let host = pve.last_seen(vm.vmid).map_or_else(|| "HOST".to_owned(), |at| at.node);
    let other = nodes.into_iter().find(|node| node.status == "online" && node.node != host);
    let other = other.map_or_else(|| "OTHER".to_owned(), |node| node.node);
    Ok(Power::NotKnown(format!("whether vm {} runs is not known: {failure}", vm.vmid), (host, other)))
}

/// A host of the cluster does not answer, and not the cluster itself.
fn is_of_a_host(failure: &Failure) -> bool {
    matches!(failure.downcast_ref(), Some(Error::NoAnswer { .. } | Error::LostAnswer { .. } | Error::NoSuchNode { .. }))
}

/// What would start the old VM again, which is to stay off; started with its host, a VM that is installed anew is what
/// comes. Of a host that does not answer nothing can be said: whoever vouches for
/// it is told so.
///
/// # Errors
/// What else keeps Proxmox from answering.
pub(super) async fn starts_again(cx: &Estate, swap: &Swap) -> Result<Vec<Problem>, Failure> {
    let Some(vm) = &swap.old.vm else { return Ok(Vec::new()) };
    let (vmid, comes) = (vm.vmid, swap.new.machine.vm.as_ref() == Some(vm));
    let said = vm.there(cx, async |pve, at| Ok(futures::try_join!(pve.pending(at), pve.status(at))?)).await;
    let (config, status) = match said {
        Ok((_, _, said)) => said,
        // There is none any more.
        Err(failure) if matches!(failure.downcast_ref(), Some(Error::NoSuchVm { .. })) => return Ok(Vec::new()),
        Err(failure) if is_of_a_host(&failure) => return Ok(Vec::new()),
        Err(failure) => return Err(failure),
    };
    let mut problems = Vec::new();
    if status.is_ha_managed() {
        let text = format!("vm {vmid} is managed by high availability, which would start it again");
        problems.push(Problem::new(text, format!("`ha-manager remove vm:{vmid}` first")));
    }
    if !comes && config.value("onboot") == Some("1") {
        let text = format!("vm {vmid} starts with its host (onboot), beside what comes in its place");
        problems.push(Problem::new(text, format!("`qm set {vmid} --onboot 0` first")));
    }
    Ok(problems)
}

/// A command to the cluster's Kubernetes, in back-quotes: with the kubeconfig and context of the site file, else it would be
/// whatever cluster is the current one of whoever pastes it.
pub(super) fn kubectl(cx: &Estate, swap: &Swap, rest: &str) -> String {
    match cx.site().kubernetes.get(&swap.old.node.cluster) {
        Some(at) => format!("`kubectl --kubeconfig {} --context {} {rest}`", at.kubeconfig.display(), at.context),
        None => format!("`kubectl {rest}`"),
    }
}
