//! A VM and its host, as the steps ask about the device.

use std::sync::Arc;

use crate::base::fault::Failure;
use crate::blueprint::vm::moved;
use crate::estate::Estate;
use crate::proxmox::{Pending, Proxmox, UsbMapping, VmRef};

use super::device::{Device, Sight};

pub use crate::blueprint::vm::Vm;

/// A VM's config, what its host shows of the device, and the mappings: all of one place.
#[derive(Debug)]
pub struct View {
    /// The API of its cluster.
    pub pve: Arc<Proxmox>,
    /// Where it is.
    pub at: VmRef,
    /// What is configured.
    pub config: Pending,
    /// The device at its host.
    pub sight: Sight,
    /// The cluster's mappings.
    pub mappings: Vec<UsbMapping>,
}

impl Device {
    /// What decides about a VM's entries for the device.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn view(&self, cx: &Estate, vm: &Vm) -> Result<View, Failure> {
        let pve = cx.proxmox(&vm.cluster).await?;
        let at = pve.locate(vm.vmid).await?;
        match self.view_at(cx, &pve, &at).await {
            Ok(view) => Ok(view),
            Err(failure) => self.view_at(cx, &pve, &moved(&pve, &at, failure).await?).await,
        }
    }

    /// Asked side by side: where the VM is not there, its config says so.
    async fn view_at(&self, cx: &Estate, pve: &Arc<Proxmox>, at: &VmRef) -> Result<View, Failure> {
        let look = self.look(cx, pve.cluster(), &at.node);
        let (config, sight, mappings) = futures::join!(pve.pending(at), look, pve.usb_mappings(None));
        Ok(View { pve: pve.clone(), at: at.clone(), config: config?, sight: sight?, mappings: mappings? })
    }

    /// Where a VM is, and what its host shows of the device.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn look_at_host_of(&self, cx: &Estate, vm: &Vm) -> Result<(VmRef, Sight), Failure> {
        let pve = cx.proxmox(&vm.cluster).await?;
        let at = pve.locate(vm.vmid).await?;
        match self.look_at(cx, &pve, &at).await {
            Ok(sight) => Ok((at, sight)),
            Err(failure) => {
                let now = moved(&pve, &at, failure).await?;
                let sight = self.look_at(cx, &pve, &now).await?;
                Ok((now, sight))
            }
        }
    }

    /// A host says nothing of the VM: that it is still there its state tells.
    async fn look_at(&self, cx: &Estate, pve: &Proxmox, at: &VmRef) -> Result<Sight, Failure> {
        let (status, sight) = futures::join!(pve.status(at), self.look(cx, pve.cluster(), &at.node));
        status?;
        sight
    }
}
