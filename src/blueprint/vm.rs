//! A VM as the steps ask about it: by a place that is held against what the VM itself says.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::base::fault::Failure;
use crate::estate::Estate;
use crate::proxmox::{Error, Pending, Proxmox, VmRef, VmStatus};

/// A VM as the steps name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vm {
    /// The Proxmox cluster's name in the site file.
    pub cluster: String,
    /// The VM's number.
    pub vmid: u32,
    /// The node's name in the site file.
    pub node: String,
}

impl Vm {
    /// The API of its cluster, where the VM is, and what was asked of it there. `ask` asks the VM itself among others:
    /// where it is not any more where it was last seen, that tells, and all of it is asked once more where it is now.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn there<T>(
        &self,
        cx: &Estate,
        ask: impl AsyncFn(&Proxmox, &VmRef) -> Result<T, Failure>,
    ) -> Result<(Arc<Proxmox>, VmRef, T), Failure> {
        let pve = cx.proxmox(&self.cluster).await?;
        let at = pve.locate(self.vmid).await?;
        let failure = match ask(&pve, &at).await {
            Ok(said) => return Ok((pve, at, said)),
            Err(failure) => failure,
        };
        let now = moved(&pve, &at, failure).await?;
        let said = ask(&pve, &now).await?;
        Ok((pve, now, said))
    }

    /// The API of its cluster, where it is, and its config.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn config(&self, cx: &Estate) -> Result<(Arc<Proxmox>, VmRef, Pending), Failure> {
        self.there(cx, async |pve, at| Ok(pve.pending(at).await?)).await
    }

    /// The API of its cluster, where it is, and its state.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn status(&self, cx: &Estate) -> Result<(Arc<Proxmox>, VmRef, VmStatus), Failure> {
        self.there(cx, async |pve, at| Ok(pve.status(at).await?)).await
    }

    /// The API of its cluster, where it is, its state and its config.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn state_and_config(&self, cx: &Estate) -> Result<(Arc<Proxmox>, VmRef, (VmStatus, Pending)), Failure> {
        self.there(cx, async |pve, at| Ok(futures::try_join!(pve.status(at), pve.pending(at))?)).await
    }
}

/// Where a VM is by now that was not where it was asked about.
///
/// # Errors
/// What it was asked, where it failed for another reason, or the VM is nowhere else.
pub async fn moved(pve: &Proxmox, at: &VmRef, failure: Failure) -> Result<VmRef, Failure> {
    if !matches!(failure.downcast_ref(), Some(Error::NoSuchVm { .. })) {
        return Err(failure);
    }
    let now = pve.locate_now(at.vmid).await?;
    if now == *at { Err(failure) } else { Ok(now) }
}
