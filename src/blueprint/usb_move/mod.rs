//! `usb-move`: a USB device and its workload move from one VM to another, on another host.
//!
//! The order is that of the phases, not of the numbers: 11 before 10 (a pod waits as long as its claims are bound to
//! the old node), and 09a before 11 (a wait for somebody's push must not fall between taking a claim away and bringing
//! it back). 00c is kept free for a copy of the data made ahead.

mod alone;
mod carried;
pub mod claims;
mod claims_back;
pub mod deploy;
pub mod device;
mod fold_back;
mod label;
pub mod live;
pub mod manifests;
mod on;
pub mod owners;
pub mod params;
pub mod release;
mod rights;
mod s00_preflight;
mod s00a_retain_volumes;
mod s00b_suspend_gitops;
mod s00d_scale_down;
mod s01_remove_usb;
mod s02_remove_label;
mod s03_check_host_hardware;
mod s04_add_usb;
mod s04a_drain_node;
mod s05_reboot_vm;
mod s06_wait_for_vm;
mod s06a_uncordon_node;
mod s07_check_vm_hardware;
mod s08_install_drivers;
mod s09_label_node;
mod s09a_update_manifests;
mod s10_deploy_and_verify;
pub mod s11_recreate_pvcs;
mod stranded;
pub mod vm;

use super::{Blueprint, BoxedStep, Row, cordon, fault, hold, power, uncordon};
use crate::site::Site;
use crate::site::fields::Item;

use device::{Device, Vm};
use params::Params;

pub use s00_preflight::Preflight;
pub use s00a_retain_volumes::RetainVolumes;
pub use s00b_suspend_gitops::SuspendGitops;
pub use s00d_scale_down::ScaleDown;
pub use s01_remove_usb::RemoveUsb;
pub use s02_remove_label::RemoveLabel;
pub use s03_check_host_hardware::CheckHostHardware;
pub use s04_add_usb::AddUsb;
pub use s04a_drain_node::DrainNode;
pub use s05_reboot_vm::RebootVm;
pub use s06_wait_for_vm::WaitForVm;
pub use s06a_uncordon_node::UncordonNode;
pub use s07_check_vm_hardware::CheckVmHardware;
pub use s08_install_drivers::InstallDrivers;
pub use s09_label_node::LabelNode;
pub use s09a_update_manifests::UpdateManifests;
pub use s10_deploy_and_verify::DeployAndVerify;
pub use s11_recreate_pvcs::RecreatePvcs;

/// The blueprint.
pub const BLUEPRINT: Blueprint = Blueprint {
    name: "usb-move",
    version: 1,
    summary: "move a USB device and its workload from one VM to another",
    world: "usb-move",
    rows: ROWS,
    findings: s00_preflight::known::ALL,
    params: params::PARAMS,
    build,
    alone: alone::step,
    fold_back: fold_back::fold_back,
    rights: |site, item| Some(rights::of(site, &Params::read(site, item)?)),
    usually: |_, _| None,
};

const VM: super::Flag = ("vmid", "/vm/vmid", "the VM of this step");
const DEVICE: super::Flag = ("device", "/device/name", "the device, by its name in the site file");
const NODE: super::Flag = ("node", "/node/name", "the node, by its name in Kubernetes");
const NAMESPACE: super::Flag = ("namespace", "/work/namespace", "the workload's namespace");
const WORKLOAD: super::Flag = ("workload", "/work/name", "the workload's name");
const FROM: super::Flag = ("from", "/source/vmid", "the VM that had the device");
const FORCE_OFF: super::Flag = ("force-off", "/force_off", "pull the plug where the guest does not power off in time");
const ATTACH: super::Flag = ("attach", "/attach", "how the VM gets it: id, port or mapping");

/// The list: order, aliases, flags. Holds are in the steps (`HOLDS_UNTIL`).
const ROWS: &[Row] = &[
    Row::of::<Preflight>(&["00-preflight-checks"], &[VM, DEVICE, NAMESPACE, WORKLOAD]),
    Row::of::<RetainVolumes>(&[], &[NAMESPACE, WORKLOAD]),
    Row::of::<SuspendGitops>(&[], &[NAMESPACE, WORKLOAD]),
    Row::of::<ScaleDown>(&[], &[NAMESPACE, WORKLOAD]),
    Row::of::<RemoveUsb>(&["01-remove-usb-from-source"], &[VM, DEVICE]),
    Row::of::<RemoveLabel>(&["02-remove-source-label"], &[NODE, ("label", "/key", "the label's key")]),
    Row::of::<CheckHostHardware>(&["03-check-hardware-on-host"], &[VM, DEVICE, FROM]).asks(),
    Row::of::<AddUsb>(&["04-add-usb-passthrough"], &[VM, DEVICE, ATTACH, FROM]),
    Row::of::<DrainNode>(&[], &[VM, NODE]),
    Row::of::<RebootVm>(&["05-reboot-target-vm"], &[VM, DEVICE, ATTACH]).switches(&[FORCE_OFF]),
    Row::of::<WaitForVm>(&["06-wait-for-vm-ready"], &[VM, NODE]),
    Row::of::<UncordonNode>(&[], &[NODE]),
    Row::of::<CheckVmHardware>(&["07-check-hardware-in-vm"], &[VM, DEVICE]),
    Row::of::<InstallDrivers>(&[], &[VM]),
    Row::of::<LabelNode>(&["09-label-target-node"], &[NODE, ("label", "/label", "the label, KEY=VALUE")]),
    Row::of::<UpdateManifests>(&[], &[NAMESPACE, WORKLOAD]).asks(),
    Row::of::<RecreatePvcs>(&[], &[NAMESPACE, WORKLOAD]),
    Row::of::<DeployAndVerify>(&[], &[NAMESPACE, WORKLOAD]),
];

fn build(site: &Site, item: &Item<'_>) -> Option<Vec<BoxedStep>> {
    let p = Params::read(site, item)?;
    let (vm, source, device): (Vm, Vm, Device) = (p.target.clone(), p.source.clone(), p.device.clone());
    let (work, node, key) = (p.work.clone(), p.target_node.clone(), p.label.as_ref().map(|l| l.key.clone()));
    let claims: Vec<String> = p.claims.keys().cloned().collect();
    let nodes = vec![p.source_node.name.clone(), node.name.clone()];
    Some(vec![
        Box::new(Preflight::from(&p)),
        Box::new(RetainVolumes { work: work.clone(), claims: claims.clone(), target: node.clone() }),
        Box::new(SuspendGitops {
            work: work.clone(),
            gitops: p.gitops.clone(),
            claims: claims.clone(),
            nodes: nodes.clone(),
            edits: p.edits.clone(),
        }),
        Box::new(ScaleDown { work: work.clone() }),
        Box::new(RemoveUsb { vm: source.clone(), device: device.clone() }),
        Box::new(RemoveLabel { node: p.source_node.clone(), key }),
        Box::new(CheckHostHardware { vm: vm.clone(), source: source.clone(), device: device.clone() }),
        Box::new(AddUsb { vm: vm.clone(), source: source.clone(), device: device.clone(), attach: p.attach }),
        Box::new(DrainNode { vm: vm.clone(), node: node.clone(), drain: p.drain }),
        Box::new(RebootVm { vm: vm.clone(), device: device.clone(), attach: p.attach, force_off: false }),
        Box::new(WaitForVm { vm: vm.clone(), node: node.clone() }),
        Box::new(UncordonNode { node: node.clone() }),
        Box::new(CheckVmHardware { vm: vm.clone(), device, paths: p.needs.paths }),
        Box::new(InstallDrivers { vm: vm.clone(), drivers: p.drivers }),
        Box::new(LabelNode { node: node.clone(), label: p.label }),
        Box::new(UpdateManifests {
            work: work.clone(),
            node: node.clone(),
            gitops: p.gitops.clone(),
            edits: p.edits.clone(),
        }),
        Box::new(RecreatePvcs { work: work.clone(), node: node.clone(), guest: vm.node, claims: p.claims }),
        Box::new(DeployAndVerify { work, node, gitops: p.gitops, edits: p.edits, claims, nodes, verify: p.verify }),
    ])
}
