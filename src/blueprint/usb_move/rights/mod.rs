//! What a `usb-move` has to be allowed, forwards and at an undo: the one list for the preflight and for the operator.

pub(super) mod kubernetes;
pub(super) mod proxmox;

use crate::blueprint::rights::{Rights, merged, merged_pve};
use crate::site::Site;

use super::Preflight;
use super::device::Attach;
use super::params::Params;
use proxmox::Routes;

/// How root@pam takes raw entries out by hand: what works with the device loses it at once.
pub(super) fn by_root(vmid: u32, slots: &str) -> String {
    format!(
        "note the value (`qm config {vmid}`), bring the workload to 0 (`pvemig step 00b-suspend-gitops`, then `pvemig step \
         00d-scale-down`), and only then `qm set {vmid} --delete {slots}`: it pulls the device from whatever runs with it, \
         and no undo puts it back"
    )
}

/// What the migration needs, as far as its parameters tell: of Proxmox that is the way by a mapping, the only one that
/// is open to tokens.
pub(super) fn of(site: &Site, p: &Params) -> Rights {
    let mut asked = Preflight::from(p);
    let mut pve_notes = Vec::new();
    if asked.attach != Attach::Mapping {
        asked.attach = Attach::Mapping;
        let form = if p.attach == Attach::Id { "id" } else { "port" };
        pve_notes.push(format!(
            "`attach: {form}` is root@pam's alone, by password: Proxmox lets no token set or delete a raw USB entry. \
             What follows is for `attach: mapping`."
        ));
    }
    let mapping = asked.device.mapping.get_or_insert_with(|| p.device.name.clone()).clone();
    if p.device.mapping.is_none() {
        pve_notes.push(format!("Device {} needs `mapping: {mapping}` (or another name) for that.", p.device.name));
    }
    let source = p.source.vmid;
    pve_notes.push(format!(
        "Where vm {source} has the device by a raw entry (`host=..`), root@pam takes it out once: {}. Where it \
         has it by another mapping than {mapping}, the same is needed on /mapping/usb/THAT.",
        by_root(source, "usbN")
    ));
    let pve = proxmox::needs(&asked, &Routes::of(site, &asked), &proxmox::Known::default());
    let mut kube_notes = Vec::new();
    let kube = kubernetes::needs(&asked, &kubernetes::Known::default(), &mut kube_notes);
    Rights {
        proxmox: Some(p.target.cluster.clone()),
        pve: merged_pve(pve),
        pve_notes,
        kubernetes: p.work.cluster.clone(),
        namespace: p.work.namespace.clone(),
        kube: merged(kube),
        kube_notes,
        talos: None,
    }
}
