//! A machine that is said to be gone: whether it is.

use crate::base::fault::Failure;
use crate::blueprint::machine::Machine;
use crate::estate::Estate;
use crate::proxmox;
use crate::talos::{Error, kind};

/// How a machine stands that is said to be gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Gone {
    /// It does not answer.
    Silent,
    /// It waits for its first configuration: what it had is not there any more.
    Waits,
    /// It answers, with a configuration or without anybody knowing, and how that is known.
    There(String),
}

/// What Proxmox says of the VM that it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shell {
    /// It is no VM, or its VM is gone.
    None,
    /// It is there, and off.
    Off(u32),
    /// It runs.
    Runs(u32),
    /// Proxmox did not tell.
    Unknown(u32, String),
}

/// Asks the machine.
pub(super) async fn stand(cx: &Estate, machine: &Machine) -> Gone {
    asked(cx, machine).await.unwrap_or_else(|failure| Gone::There(failure.to_string()))
}

async fn asked(cx: &Estate, machine: &Machine) -> Result<Gone, Failure> {
    match machine.open(cx).await?.single(&kind::MACHINE_STATUS).await {
        Ok(_) => return Ok(Gone::There("it has its configuration".into())),
        Err(Error::UnknownIssuer { .. }) => {}
        // A clock that is wrong says nothing of the machine but that it is there.
        Err(error) if error.is_down() && !matches!(error, Error::OutOfDate { .. }) => return Ok(Gone::Silent),
        Err(error) => return Err(error.into()),
    }
    match cx.talos_in_maintenance(&machine.name, None, None)?.single(&kind::MACHINE_STATUS).await {
        Ok(_) => Ok(Gone::Waits),
        Err(error) => Ok(Gone::There(error.to_string())),
    }
}

/// Asks Proxmox.
pub(super) async fn shell(cx: &Estate, machine: &Machine) -> Shell {
    let Some(vm) = &machine.vm else { return Shell::None };
    match vm.status(cx).await {
        Ok((_, _, status)) if status.pid.is_some() => Shell::Runs(vm.vmid),
        Ok(_) => Shell::Off(vm.vmid),
        Err(failure) if matches!(failure.downcast_ref(), Some(proxmox::Error::NoSuchVm { .. })) => Shell::None,
        Err(failure) => Shell::Unknown(vm.vmid, failure.to_string()),
    }
}
