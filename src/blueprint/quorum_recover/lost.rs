//! A machine that is said to be gone: whether it is.

use crate::base::fault::Failure;
use crate::blueprint::install::disk::with_data;
use crate::blueprint::machine::Machine;
use crate::blueprint::own_vm;
use crate::estate::Estate;
use crate::proxmox;
use crate::talos::bolt::Content;
use crate::talos::{Error, Talos, kind};

/// How a machine stands that is said to be gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Gone {
    /// It does not answer.
    Silent,
    /// It waits for its first configuration, and none of its disks has anything of an installation.
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
    Off(Off),
    /// It runs.
    Runs(u32),
    /// Proxmox did not tell.
    Unknown(u32, String),
}

impl Shell {
    /// What keeps a VM from coming back with its old disk, command by command; None of what is none.
    pub(super) fn keep_off(&self) -> Option<String> {
        let (vmid, starts) = match self {
            Self::Off(off) => {
                let ha = off.kept.then(|| format!("`ha-manager remove vm:{}`", off.vmid));
                let boot = (off.onboot != Some(false)).then(|| format!("`qm set {} --onboot 0`", off.vmid));
                (off.vmid, ha.into_iter().chain(boot).collect::<Vec<_>>())
            }
            Self::Runs(vmid) => (*vmid, vec![format!("`qm stop {vmid}`"), format!("`qm set {vmid} --onboot 0`")]),
            Self::Unknown(vmid, _) => (*vmid, vec![format!("`qm set {vmid} --onboot 0`")]),
            Self::None => return None,
        };
        let first = if starts.is_empty() {
            String::new()
        } else {
            format!("{} keeps it from starting by itself, and ", starts.join(" and "))
        };
        Some(format!("vm {vmid}: {first}its disk is wiped or taken away (`qm config {vmid}`) before `qm start {vmid}`"))
    }
}

/// A VM that is off, and what would start it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Off {
    pub(super) vmid: u32,
    /// High availability has it, and may start it at any moment.
    pub(super) kept: bool,
    /// It starts with its host; None where that could not be asked.
    pub(super) onboot: Option<bool>,
    /// Its uuid, as its config has it.
    uuid: Option<String>,
    /// Why it is not shown to be the one that the node ran in: a number in the site file may be another's. None: it is shown.
    pub(super) unshown: Option<String>,
}

impl Off {
    /// Compares its uuid with what etcd had of the node.
    pub(super) fn compare(&mut self, node: &str, had: Result<&[Content], &String>) {
        let Some(uuid) = &self.uuid else { return };
        self.unshown = match had {
            Ok(all) if all.iter().any(|content| content.node_says(node, uuid)) => None,
            Ok(all) if all.iter().any(|content| content.nodes.contains_key(node)) => {
                Some(format!("the Node {node} has another uuid than it ({uuid})"))
            }
            Ok(_) => Some(format!("etcd has no Node {node} that its uuid could be compared with")),
            Err(why) => Some(why.clone()),
        };
    }
}

/// Asks the machine.
pub(super) async fn stand(cx: &Estate, machine: &Machine) -> Gone {
    asked(cx, machine).await.unwrap_or_else(|failure| Gone::There(failure.to_string()))
}

async fn asked(cx: &Estate, machine: &Machine) -> Result<Gone, Failure> {
    match machine.open(cx).await?.single(&kind::MACHINE_STATUS).await {
        Ok(_) => return Ok(Gone::There("it has its configuration".into())),
        Err(Error::UnknownIssuer { .. }) => {}
        // Whatever else is said somebody says: a machine that boots is there, and one whose clock is wrong too.
        Err(Error::Unreachable { .. } | Error::NoAnswer { .. }) => return Ok(Gone::Silent),
        Err(error) => return Err(error.into()),
    }
    let talos = cx.talos_in_maintenance(&machine.name, None, None)?;
    talos.single(&kind::MACHINE_STATUS).await?;
    let (disks, volumes) = futures::try_join!(talos.list(&kind::DISKS), talos.list(&kind::DISCOVERED_VOLUMES))?;
    if let Some((disk, _)) = with_data(&disks, &volumes).into_iter().next() {
        let text = format!("it waits for a configuration, and has the data of an installation on {disk}");
        return Ok(Gone::There(text));
    }
    Ok(match another(cx, machine, &talos).await? {
        Some(text) => Gone::There(text),
        None => Gone::Waits,
    })
}

/// Why what waits at a VM's address is not known to be that VM.
async fn another(cx: &Estate, machine: &Machine, talos: &Talos) -> Result<Option<String>, Failure> {
    let Some(vm) = &machine.vm else { return Ok(None) };
    let (own, (_, _, config)) =
        futures::try_join!(async { Ok::<_, Failure>(own_vm::of_node(talos).await?) }, vm.config(cx))?;
    Ok(match (own, own_vm::of_vm(&config)) {
        (Some(own), Some(of_vm)) if own.eq_ignore_ascii_case(&of_vm) => None,
        (own, of_vm) => Some(format!(
            "a machine with the uuid {} waits at its address for a configuration, and vm {} has {}",
            own.as_deref().unwrap_or("?"),
            vm.vmid,
            of_vm.as_deref().unwrap_or("none that is known")
        )),
    })
}

/// Asks Proxmox.
pub(super) async fn shell(cx: &Estate, machine: &Machine) -> Shell {
    let Some(vm) = &machine.vm else { return Shell::None };
    match vm.status(cx).await {
        Ok((_, _, status)) if status.is_running() => Shell::Runs(vm.vmid),
        Ok((_, _, status)) => {
            let config = vm.config(cx).await.map(|(_, _, config)| config);
            let onboot = config.as_ref().ok().map(|config| config.value("onboot") == Some("1"));
            let uuid = config.as_ref().ok().and_then(own_vm::of_vm);
            let unshown = match &config {
                Ok(_) if uuid.is_some() => "its uuid was compared with nothing".to_owned(),
                Ok(_) => "it has no uuid in its config (smbios1)".to_owned(),
                Err(failure) => failure.to_string(),
            };
            Shell::Off(Off { vmid: vm.vmid, kept: status.is_ha_managed(), onboot, uuid, unshown: Some(unshown) })
        }
        Err(failure) if matches!(failure.downcast_ref(), Some(proxmox::Error::NoSuchVm { .. })) => Shell::None,
        Err(failure) => Shell::Unknown(vm.vmid, failure.to_string()),
    }
}
