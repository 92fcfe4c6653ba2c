//! `usb-move`: a USB device and its workload move from one VM to another, on another host.
//!
//! The order is that of the phases, not of the numbers: 11 before 10 (a pod waits as long as its claims are bound to
//! the old node), and 09a before 11 (a wait for somebody's push must not fall between taking a claim away and bringing
//! it back). 00c is kept free for a copy of the data made ahead.

pub mod claims;
pub mod device;
pub mod mark;
pub mod owners;
pub mod params;
pub mod power;
pub mod release;
mod s00b_suspend_gitops;
mod s01_remove_usb;
mod s03_check_host_hardware;
mod s04_add_usb;
mod s05_reboot_vm;
pub mod s11_recreate_pvcs;

use super::{Blueprint, BoxedStep, Row};
use crate::site::Site;
use crate::site::fields::Item;

use device::{Device, Vm};
use params::Params;

pub use s00b_suspend_gitops::SuspendGitops;
pub use s01_remove_usb::RemoveUsb;
pub use s03_check_host_hardware::CheckHostHardware;
pub use s04_add_usb::AddUsb;
pub use s05_reboot_vm::RebootVm;
pub use s11_recreate_pvcs::RecreatePvcs;

/// The blueprint.
pub const BLUEPRINT: Blueprint = Blueprint {
    name: "usb-move",
    version: 1,
    summary: "move a USB device and its workload from one VM to another",
    rows: ROWS,
    build,
};

const VM: super::Flag = ("vmid", "/vm/vmid", "the VM of this step");
const DEVICE: super::Flag = ("device", "/device/name", "the device, by its name in the site file");
const NAMESPACE: super::Flag = ("namespace", "/work/namespace", "the workload's namespace");
const WORKLOAD: super::Flag = ("workload", "/work/name", "the workload's name");

/// The list: order, aliases, flags. Holds are in the steps (`HOLDS_UNTIL`).
const ROWS: &[Row] = &[
    Row::of::<SuspendGitops>(&[], &[NAMESPACE, WORKLOAD]),
    Row::of::<RemoveUsb>(&["01-remove-usb-from-source"], &[VM, DEVICE]),
    Row::of::<CheckHostHardware>(&["03-check-hardware-on-host"], &[VM, DEVICE]),
    Row::of::<AddUsb>(&["04-add-usb-passthrough"], &[VM, DEVICE]),
    Row::of::<RebootVm>(&["05-reboot-target-vm"], &[VM, DEVICE]),
    Row::of::<RecreatePvcs>(&[], &[NAMESPACE, WORKLOAD]),
];

fn build(site: &Site, item: &Item<'_>) -> Option<Vec<BoxedStep>> {
    let p = Params::read(site, item)?;
    let (vm, source, device): (Vm, Vm, Device) = (p.target.clone(), p.source.clone(), p.device.clone());
    let recreated = p.claims.iter().filter(|(_, fate)| **fate == params::ClaimFate::Recreate);
    let recreated: Vec<String> = recreated.map(|(name, _)| name.clone()).collect();
    let nodes = vec![p.source_node.name.clone(), p.target_node.name.clone()];
    Some(vec![
        Box::new(SuspendGitops { work: p.work.clone(), gitops: p.gitops.clone(), claims: recreated, nodes }),
        Box::new(RemoveUsb { vm: source.clone(), device: device.clone() }),
        Box::new(CheckHostHardware { vm: vm.clone(), source: source.clone(), device: device.clone() }),
        Box::new(AddUsb { vm: vm.clone(), source: source.clone(), device: device.clone(), attach: p.attach }),
        Box::new(RebootVm { vm: vm.clone(), device: device.clone(), attach: p.attach, force_off: false }),
        Box::new(RecreatePvcs {
            work: p.work.clone(),
            node: p.target_node.clone(),
            guest: vm.node.clone(),
            claims: p.claims.clone(),
        }),
    ])
}
