//! A machine that is to become a node, and how it stands.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::base::check::Problem;
use crate::base::fault::Failure;
use crate::blueprint::machine::Machine;
use crate::blueprint::own_vm;
use crate::estate::Estate;
use crate::talos::kind::{self, Stage};
use crate::talos::{Error, Talos};

use super::source::{Source, Wanted};

/// A machine that is to become a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bare {
    /// The node that it is to be.
    pub machine: Machine,
    /// Its machine configuration.
    pub source: Source,
    /// The serial number of the disk that it is installed on.
    pub disk: String,
    /// Where it answers before it has its configuration, where that is not its own address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// The fingerprint that its console shows while it waits; None: whoever answers there is given the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

/// How a machine stands.
pub enum Stand {
    /// It waits for its first configuration.
    Waits(Arc<Talos>),
    /// It has one, and its certificate is of the cluster's authority.
    Ours(Arc<Talos>),
    /// It has one of another cluster.
    Foreign,
    /// It does not answer: it is off, on its way, or somewhere else.
    Silent(Failure),
}

impl Bare {
    /// Its name in the site file.
    pub fn name(&self) -> &str {
        &self.machine.name
    }

    /// The configuration that it is to have.
    ///
    /// # Errors
    /// The file cannot be read, or is none.
    pub async fn wanted(&self) -> Result<Wanted, Failure> {
        self.source.wanted(&self.machine.node.name, &self.disk).await
    }

    /// The address at which it is looked for as long as it waits.
    pub fn waits_at(&self) -> &str {
        self.at.as_deref().unwrap_or(&self.machine.dial.host)
    }

    /// How it stands. Who has no certificate of the cluster's authority is asked whether it waits; a node that has its
    /// configuration asks for a client certificate, one that waits asks for none (siderolabs/talos
    /// `internal/app/maintenance`).
    ///
    /// # Errors
    /// What is wrong with the talosconfig, the address or the fingerprint, and what else it answers.
    pub async fn stand(&self, cx: &Estate) -> Result<Stand, Failure> {
        let ours = self.machine.open(cx).await?;
        let silent = match ours.single(&kind::MACHINE_STATUS).await {
            Ok(_) => return Ok(Stand::Ours(ours)),
            Err(Error::UnknownIssuer { .. }) => None,
            // A clock that is wrong, or a certificate that has ended, says nothing of the machine.
            Err(error @ Error::OutOfDate { .. }) => return Err(error.into()),
            Err(error) if error.is_down() => Some(error),
            Err(error) => return Err(error.into()),
        };
        // It is not at its own address, and no other one is known.
        if let (Some(error), None) = (&silent, &self.at) {
            return Ok(Stand::Silent(Failure::plain(error.to_string(), None)));
        }
        let pin = self.fingerprint.as_deref().map(str::parse).transpose();
        let pin = pin.map_err(|why: crate::base::names::BadName| Failure::plain(why.to_string(), None))?;
        let waiting = cx.talos_in_maintenance(self.name(), self.at.as_deref(), pin)?;
        match waiting.single(&kind::MACHINE_STATUS).await {
            Ok(_) => Ok(Stand::Waits(Arc::new(waiting))),
            Err(Error::ClientRefused { certain: true, .. }) if silent.is_none() => Ok(has_one(ours).await?),
            Err(error) if error.is_down() => Ok(Stand::Silent(error.into())),
            Err(error) => Err(error.into()),
        }
    }

    /// Why a machine that waits is not the one that is meant, where it is to be a VM: whoever answers is sent the secrets of
    /// the cluster.
    ///
    /// # Errors
    /// What keeps it, or Proxmox, from answering.
    pub async fn is_another(&self, cx: &Estate, talos: &Talos) -> Result<Vec<Problem>, Failure> {
        let Some(vm) = &self.machine.vm else { return Ok(Vec::new()) };
        let (own, (_, _, (config, status))) = futures::try_join!(
            async { Ok::<_, Failure>(own_vm::of_node(talos).await?) },
            vm.there(cx, async |pve, at| Ok(futures::try_join!(pve.pending(at), pve.status(at))?)),
        )?;
        let uuid = own_vm::of_vm(&config);
        Ok(own_vm::amiss(&self.machine, vm.vmid, status.pid.is_some(), uuid.as_deref(), own.as_deref()))
    }

    /// What to do where it does not answer before it has a configuration.
    pub fn start_it(&self) -> (String, String) {
        let name = self.name();
        let ask = match &self.machine.vm {
            Some(vm) => format!("start vm {} ({name}) from a Talos ISO", vm.vmid),
            None => format!("start {name} from a Talos stick or ISO"),
        };
        (ask, format!("where {name} is installed already, just switch it on; else {}", self.looked_for()))
    }

    /// Where it is looked for before it has a configuration.
    pub fn looked_for(&self) -> String {
        format!(
            "its console shows `maintenance` and an address when it waits: it is looked for at {}, and another address is named by \
             `at:` of the node in the parameters",
            self.waits_at()
        )
    }

    /// What to do where its firmware starts something else than the disk that it is installed on.
    pub fn boot_its_disk(&self) -> String {
        let name = self.name();
        match &self.machine.vm {
            Some(vm) => format!(
                "have vm {} ({name}) boot from its disk: `qm set {} --boot order=DISK`, and restart it",
                vm.vmid, vm.vmid
            ),
            None => format!("take the stick out of {name}, or put its disk first in the boot order, and restart it"),
        }
    }

    /// What to do where another cluster's configuration is on it.
    pub fn foreign(&self) -> Problem {
        let name = self.name();
        Problem::new(
            format!("{name} has a configuration already, and its certificate is not of this cluster's authority"),
            format!(
                "where the talosconfig of the site is the right one, that machine is another cluster's: `talosctl reset` with \
                 the talosconfig of that cluster makes {name} wait again, or start it from a stick with its disk out"
            ),
        )
    }
}

/// A machine that asks who we are has a configuration. It may have got that between the two questions, and is another
/// cluster's only where its certificate is still not of ours.
async fn has_one(ours: Arc<Talos>) -> Result<Stand, Error> {
    match ours.single(&kind::MACHINE_STATUS).await {
        Ok(_) => Ok(Stand::Ours(ours)),
        Err(Error::UnknownIssuer { .. }) => Ok(Stand::Foreign),
        Err(error) if error.is_down() => Ok(Stand::Silent(error.into())),
        Err(error) => Err(error),
    }
}

/// Whether a node of the site file waits for a configuration at its address.
///
/// # Errors
/// What keeps it from telling, other than that it does not answer.
pub async fn waits(cx: &Estate, machine: &Machine) -> Result<bool, Failure> {
    match machine.open(cx).await?.single(&kind::MACHINE_STATUS).await {
        Err(Error::UnknownIssuer { .. }) => {}
        // What else it says is asked, and told, where it is looked at.
        _ => return Ok(false),
    }
    match still_waits(&cx.talos_in_maintenance(&machine.name, None, None)?).await {
        Ok(waits) => Ok(waits),
        // It has a configuration, of another cluster.
        Err(Error::ClientRefused { .. }) => Ok(false),
        Err(error) if error.is_down() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether a machine that answers without asking who we are still waits.
///
/// # Errors
/// What keeps it from answering.
pub async fn still_waits(talos: &Talos) -> Result<bool, Error> {
    let status = talos.single(&kind::MACHINE_STATUS).await?;
    Ok(status.is_none_or(|status| matches!(status.spec.stage, Stage::Maintenance | Stage::Unknown)))
}
