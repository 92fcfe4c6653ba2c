//! Where the VMs are: remembered, and held against what the answers say.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::api::Proxmox;
use super::cluster::Resource;
use super::error::Error;
use super::vm::VmRef;

/// The node of each VM by its number, as far as it is known. Nothing else of a VM is kept.
///
/// Every call about a VM goes to `/nodes/{node}/qemu/{vmid}/..`, and a node on which it is not any more refuses it
/// (qemu-server loads `nodes/{node}/qemu-server/{vmid}.conf` first): so use tells whether a place still holds. What a
/// node says of itself (its USB list, its pve tasks) does not tell: who puts it together with a VM asks about the VM as
/// well.
#[derive(Debug, Default)]
pub(super) struct Places {
    now: Mutex<BTreeMap<u32, String>>,
    /// As the last list said, whatever was heard since.
    last: Mutex<BTreeMap<u32, String>>,
}

fn of(places: &Mutex<BTreeMap<u32, String>>, vmid: u32) -> Option<VmRef> {
    let places = places.lock().ok()?;
    places.get(&vmid).map(|node| VmRef { node: node.clone(), vmid })
}

impl Places {
    fn of(&self, vmid: u32) -> Option<VmRef> {
        of(&self.now, vmid)
    }

    /// What the cluster's whole list says.
    pub(super) fn learn(&self, rows: &[Resource]) {
        let said: BTreeMap<u32, String> =
            rows.iter().filter(|row| row.kind == "qemu").map(|row| (row.vmid, row.node.clone())).collect();
        for places in [&self.now, &self.last] {
            if let Ok(mut places) = places.lock() {
                places.clone_from(&said);
            }
        }
    }

    /// What a refused call says: a VM that is not there, a node that is gone or does not answer (high availability
    /// starts its VMs elsewhere) are no place any more.
    pub(super) fn hear(&self, vm: Option<&VmRef>, error: &Error) {
        let lost = matches!(
            error,
            Error::NoSuchVm { .. } | Error::NoSuchNode { .. } | Error::NoAnswer { .. } | Error::LostAnswer { .. }
        );
        if let (true, Some(vm), Ok(mut places)) = (lost, vm, self.now.lock())
            && places.get(&vm.vmid) == Some(&vm.node)
        {
            places.remove(&vm.vmid);
        }
    }
}

impl Proxmox {
    /// On which node a VM is: where it was seen last, and else by the cluster's list. A VM that the caller may not see
    /// is not found either.
    ///
    /// It may have moved since. A call about the VM says so ([`Error::NoSuchVm`]), and [`Proxmox::moved`] then says
    /// where it is. What is not asked of the VM itself takes [`Proxmox::locate_now`].
    ///
    /// # Errors
    /// [`Error::NoSuchVm`], and those of any question.
    pub async fn locate(&self, vmid: u32) -> Result<VmRef, Error> {
        match self.places.of(vmid) {
            Some(at) => Ok(at),
            None => self.locate_now(vmid).await,
        }
    }

    /// As [`Proxmox::locate`], by the cluster's list of this moment.
    ///
    /// # Errors
    /// As [`Proxmox::locate`].
    pub async fn locate_now(&self, vmid: u32) -> Result<VmRef, Error> {
        let found = self.resources().await?.into_iter().find(|r| r.kind == "qemu" && r.vmid == vmid);
        found
            .map(|r| VmRef { node: r.node, vmid })
            .ok_or_else(|| Error::NoSuchVm { at: self.at(&format!("vm {vmid}")) })
    }

    /// Where a VM was by the last list, whatever was heard since; nothing is asked. For who finds out there whether it
    /// still holds, and needs no API for that.
    pub fn last_seen(&self, vmid: u32) -> Option<VmRef> {
        of(&self.places.last, vmid)
    }

    /// Where a VM is that was not where it was last seen, for a question to be asked there once more.
    ///
    /// # Errors
    /// The question's own error, where that is another one or the VM is nowhere else; and as [`Proxmox::locate`].
    pub async fn moved(&self, from: &VmRef, error: Error) -> Result<VmRef, Error> {
        if !matches!(error, Error::NoSuchVm { .. }) {
            return Err(error);
        }
        let now = self.locate_now(from.vmid).await?;
        if now == *from { Err(error) } else { Ok(now) }
    }
}
