//! What is behind the drives of a node that is a VM: the functions on its host's PCI that Proxmox hands on to it, and what the
//! host's kernel shows of them.
//!
//! A host does not see a drive that it has handed on since its boot: vfio keeps the function. So which drive is at which
//! address is asked of the guest as long as the VM runs (Proxmox has a place of its own on the guest's PCI for each
//! `hostpciN`), and of the host once it was switched off and on.

mod beside;
mod given;
mod slots;
mod unclear;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::check::Problem;
use crate::base::drives::{Inventory, Plan, name};
use crate::base::fault::Failure;
use crate::blueprint::machine::Machine;
use crate::blueprint::vm::Vm;
use crate::engine::step::RunInfo;
use crate::estate::Estate;
use crate::proxmox::{
    HostPci, PciEntry, PciMapping, PciPlace, PciSource, Pending, Proxmox, VmRef, VmStatus, hostpci_slot,
};

pub(super) use beside::{neighbours, start_with_it};
pub(super) use given::{Given, PASSED, Passed, given, passed};
pub(super) use unclear::{Behind, behind};
pub(super) use view::{Host, View, view};

use super::sight::unasked;

/// A `hostpciN` key of a VM.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    /// `hostpci0`.
    pub(super) key: String,
    /// `0`.
    pub(super) slot: u8,
    /// Its value.
    pub(super) value: HostPci,
    /// What it hands on, by itself or by its mapping.
    pub(super) places: Vec<PciPlace>,
    /// Its mapping, and the entry in it that counts.
    pub(super) mapping: Option<(PciMapping, PciEntry)>,
}

/// What Proxmox says of a VM.
pub(super) struct Lines {
    pub(super) pve: Arc<Proxmox>,
    pub(super) at: VmRef,
    pub(super) status: VmStatus,
    pub(super) config: Pending,
    /// Those that can be read.
    pub(super) all: Vec<Line>,
    /// Why others cannot.
    pub(super) unclear: Vec<String>,
}

impl Lines {
    /// Asks Proxmox.
    ///
    /// # Errors
    /// What keeps it from answering.
    pub(super) async fn read(cx: &Estate, vm: &Vm) -> Result<Self, Failure> {
        let (pve, at, (status, config)) = vm.state_and_config(cx).await?;
        let mapped = config.keys.iter().any(|(key, value)| {
            hostpci_slot(key).is_some() && value.configured().is_some_and(|text| text.contains("mapping="))
        });
        let mappings = if mapped { pve.pci_mappings().await? } else { Vec::new() };
        let (all, unclear) = lines(&at, &config, &mappings);
        Ok(Self { pve, at, status, config, all, unclear })
    }

    /// The same, where all of them can be read.
    ///
    /// # Errors
    /// As [`Lines::read`], and what cannot be read.
    pub(super) async fn whole(cx: &Estate, vm: &Vm) -> Result<Self, Failure> {
        let lines = Self::read(cx, vm).await?;
        if lines.unclear.is_empty() {
            return Ok(lines);
        }
        let problems = lines.unclear.iter().map(|text| Problem::new(text.clone(), mend(vm.vmid)));
        Err(Failure::barred(problems.collect()))
    }

    /// The machine type of the next start.
    pub(super) fn machine(&self) -> Option<&str> {
        self.config.configured("machine")
    }

    /// What each line hands on.
    pub(super) fn places(&self) -> BTreeMap<String, Vec<PciPlace>> {
        self.all.iter().map(|line| (line.key.clone(), line.places.clone())).collect()
    }
}

/// What a person does about lines that are not clear.
pub(super) fn mend(vmid: u32) -> String {
    format!(
        "`qm config {vmid}` and `qm pending {vmid}` show its hostpci lines, `pvesh get /cluster/mapping/pci` the mappings"
    )
}

/// The lines of a config, and why others cannot be read.
fn lines(at: &VmRef, config: &Pending, mappings: &[PciMapping]) -> (Vec<Line>, Vec<String>) {
    let (mut all, mut unclear) = (Vec::new(), Vec::new());
    for (key, value) in &config.keys {
        let Some(slot) = hostpci_slot(key) else { continue };
        if value.is_pending() {
            unclear.push(format!("{key} of {at} is about to change: it has another value after the next start"));
            continue;
        }
        let Some(text) = value.configured() else { continue };
        let Ok(value) = text.parse::<HostPci>() else {
            unclear.push(format!("{key} of {at} cannot be read: {text}"));
            continue;
        };
        let name = match value.source() {
            PciSource::Places(places) => {
                all.push(Line { key: key.clone(), slot, value, places, mapping: None });
                continue;
            }
            PciSource::Mapping(name) => name,
        };
        let Some(mapping) = mappings.iter().find(|mapping| mapping.id == name) else {
            unclear.push(format!("{key} of {at} goes by the mapping {name}, which is not there, or not to be seen"));
            continue;
        };
        let entries: Vec<&PciEntry> = mapping.entries(&at.node).collect();
        match entries.as_slice() {
            [entry] => match entry.places() {
                Ok(places) => {
                    let mapping = Some((mapping.clone(), (*entry).clone()));
                    all.push(Line { key: key.clone(), slot, value, places, mapping });
                }
                Err(error) => unclear.push(format!("mapping {name}, of {key} of {at}: {error}")),
            },
            many => unclear.push(format!(
                "mapping {name}, of {key} of {at}, has {} entries for {}: which one a start takes is not known",
                many.len(),
                at.node
            )),
        }
    }
    (all, unclear)
}

/// The drives of a node, where a person finds them: those of a VM in the slots of its host.
///
/// # Errors
/// What keeps the node, Proxmox or the host from answering, and where it is not clear what is handed on.
pub(super) async fn inventory(cx: &Estate, machine: &Machine) -> Result<Inventory, Failure> {
    let live = Box::pin(cx.inventory(&machine.name)).await?;
    let Some(vm) = &machine.vm else { return Ok(live) };
    in_host(cx, vm, live).await
}

/// What a VM's guest says, with each drive where it is in the host.
///
/// # Errors
/// As [`inventory`].
pub(super) async fn in_host(cx: &Estate, vm: &Vm, live: Inventory) -> Result<Inventory, Failure> {
    let lines = Lines::whole(cx, vm).await?;
    let shown = match view(cx, &vm.cluster, &lines.at.node).await? {
        Host::Shown(shown) => shown,
        Host::Silent(why) => {
            let text = format!("{} does not answer, and its drives are in it: {why}", lines.at.node);
            return Err(Failure::plain(text, Some(format!("see that `ssh` to {} works", lines.at.node))));
        }
    };
    given::seated(&lines, &shown, live).map_err(|text| Failure::plain(text, Some(mend(vm.vmid))))
}

/// What a run has to know of a VM before it goes off: which line has which drive.
///
/// # Errors
/// As [`inventory`], and where a drive of the plan is handed on by no line.
pub(super) async fn passed_now(cx: &Estate, machine: &Machine, vm: &Vm, plan: &Plan) -> Result<Passed, Failure> {
    let live = Box::pin(cx.inventory(&machine.name)).await?;
    let lines = Lines::whole(cx, vm).await?;
    let host = lines.at.node.clone();
    let boot = match view(cx, &vm.cluster, &host).await? {
        Host::Shown(shown) => shown.boot,
        Host::Silent(why) => return Err(Failure::plain(format!("{host} does not answer: {why}"), None)),
    };
    let named = name(plan, &live).map_err(unasked)?;
    let mut drives = BTreeMap::new();
    for found in &named.found {
        let Some(drive) = live.drives.get(found.at) else { continue };
        let Some(of) = given(&lines, drive) else {
            let text = format!("{} ({}) is handed on to vm {} by no hostpci line", found.name, drive.shown(), vm.vmid);
            return Err(Failure::plain(text, Some(mend(vm.vmid))));
        };
        drives.insert(found.name.clone(), of);
    }
    let ids = ids_of_others(&lines, &drives).await?;
    Ok(Passed { host, boot, drives, was: lines.places(), ids })
}

/// What is at the places that are no drive of the plan, a graphics card perhaps: their addresses may change as well where a
/// drive comes or goes.
async fn ids_of_others(lines: &Lines, drives: &BTreeMap<String, Given>) -> Result<BTreeMap<String, String>, Failure> {
    let is_drive = |key: &str, index: usize| drives.values().any(|of| of.key == key && of.index == index);
    let all = lines.all.iter().flat_map(|line| line.places.iter().enumerate().map(move |(n, place)| (line, n, place)));
    let others: Vec<String> =
        all.filter(|(line, n, _)| !is_drive(&line.key, *n)).map(|(_, _, place)| place.address()).collect();
    if others.is_empty() {
        return Ok(BTreeMap::new());
    }
    let devices = lines.pve.pci_devices(&lines.at.node).await?;
    let ids = devices.iter().filter_map(|device| Some((device.id.clone(), device.vendor_device()?)));
    Ok(ids.filter(|(address, _)| others.contains(address)).collect())
}

/// Why a VM must not be started: it would be given something else than its own drives. Nothing: it may.
///
/// # Errors
/// What keeps Proxmox from answering, and what was kept cannot be read.
pub(super) async fn in_the_way_of_a_start(
    cx: &Estate,
    machine: &Machine,
    plan: &Plan,
    run: &RunInfo,
) -> Result<Vec<Problem>, Failure> {
    let Some(vm) = &machine.vm else { return Ok(Vec::new()) };
    let lines = Lines::whole(cx, vm).await?;
    let before = passed(run)?;
    let host = &lines.at.node;
    if let Some(passed) = before.as_ref().filter(|passed| passed.host != *host) {
        let text = format!("vm {} is on {host}, and its drives are in {}", vm.vmid, passed.host);
        return Ok(vec![Problem::new(text, format!("bring it back: `qm migrate {} {}`", vm.vmid, passed.host))]);
    }
    let shown = match view(cx, &vm.cluster, host).await? {
        Host::Shown(shown) => shown,
        Host::Silent(why) => {
            let text = format!("what vm {} would be given is not known: {host} does not answer: {why}", vm.vmid);
            return Ok(vec![Problem::new(text, format!("see that `ssh` to {host} works, then `pvemig resume`"))]);
        }
    };
    let mut ids = BTreeMap::new();
    if before.as_ref().is_some_and(|passed| !passed.ids.is_empty()) {
        let devices = lines.pve.pci_devices(host).await?;
        ids.extend(devices.iter().filter_map(|device| Some((device.id.clone(), device.vendor_device()?))));
    }
    Ok(given::amiss((&lines.at, &lines.all), before.as_ref(), plan, &shown, &ids))
}
