//! The other guests of the host of a VM: they go off with it, and what they are given may be elsewhere as well once drives
//! were moved.

use std::collections::BTreeSet;

use futures::future::try_join_all;

use crate::base::fault::Failure;
use crate::blueprint::vm::Vm;
use crate::estate::Estate;
use crate::proxmox::{HostPci, PciMapping, PciPlace, PciSource, Pending, Resource, VmRef, hostpci_slot};

/// The other guests on the host of a VM, as Proxmox lists them.
async fn others(cx: &Estate, vm: &Vm) -> Result<Vec<Resource>, Failure> {
    let all = cx.proxmox(&vm.cluster).await?.resources().await?;
    let host = all.iter().find(|one| one.vmid == vm.vmid).map(|one| one.node.clone());
    let is = |one: &Resource| Some(&one.node) == host.as_ref() && one.vmid != vm.vmid && !one.template;
    Ok(all.into_iter().filter(is).collect())
}

fn runs(one: &Resource) -> bool {
    one.status != "stopped"
}

/// The other guests that run on the host of a VM: those that are Talos nodes of the site by their names, others as Proxmox
/// calls them.
///
/// # Errors
/// What keeps Proxmox from answering.
pub(in super::super) async fn neighbours(cx: &Estate, vm: &Vm) -> Result<Vec<String>, Failure> {
    let node = |vmid: u32| {
        let all = cx.site().talos.values().flat_map(|cluster| &cluster.nodes);
        let mut all =
            all.filter(|(_, node)| node.vm.as_ref().is_some_and(|of| of.proxmox == vm.cluster && of.vmid == vmid));
        all.next().map(|(name, _)| name.clone())
    };
    let running = others(cx, vm).await?.into_iter().filter(runs);
    Ok(running
        .map(|one| node(one.vmid).unwrap_or_else(|| format!("{} {}", one.vmid, one.name.unwrap_or_default())))
        .collect())
}

/// A place on the host's PCI that another VM is given.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    /// `hostpci0`.
    pub(super) key: String,
    /// The place.
    pub(super) place: PciPlace,
    /// The line names it by itself, and not by a mapping.
    pub(super) raw: bool,
}

/// Another VM of the host that runs, or starts with it.
pub(super) struct Beside {
    /// `vm 224 films`.
    pub(super) name: String,
    /// Its number.
    pub(super) vmid: u32,
    /// It starts with its host.
    pub(super) starts: bool,
    /// What it is given now, and after its next start.
    pub(super) claims: BTreeSet<Claim>,
    /// Why that is not clear.
    pub(super) unclear: Vec<String>,
}

/// What the other VMs of the host are given that run there, or start with it.
///
/// # Errors
/// What keeps Proxmox from answering.
pub(super) async fn beside(cx: &Estate, vm: &Vm) -> Result<Vec<Beside>, Failure> {
    let pve = cx.proxmox(&vm.cluster).await?;
    let all: Vec<Resource> = others(cx, vm).await?.into_iter().filter(|one| one.kind == "qemu").collect();
    let configs = all.iter().map(|one| {
        let (pve, at) = (&pve, VmRef { node: one.node.clone(), vmid: one.vmid });
        async move { pve.pending(&at).await }
    });
    let configs = try_join_all(configs).await?;
    let mapped = configs.iter().flat_map(texts).any(|(_, text)| text.contains("mapping="));
    let mappings = if mapped { pve.pci_mappings().await? } else { Vec::new() };
    let mut out = Vec::new();
    for (one, config) in all.iter().zip(&configs) {
        let starts = config.configured("onboot") == Some("1");
        if !starts && !runs(one) {
            continue;
        }
        let name = format!("vm {} {}", one.vmid, one.name.as_deref().unwrap_or_default()).trim_end().to_owned();
        let (claims, unclear) = claims(&name, &one.node, config, &mappings);
        out.push(Beside { name, vmid: one.vmid, starts, claims, unclear });
    }
    Ok(out)
}

/// The values of the hostpci lines of a config, now and after the next start.
fn texts(config: &Pending) -> Vec<(&str, &str)> {
    let lines = config.keys.iter().filter(|(key, _)| hostpci_slot(key).is_some());
    lines
        .flat_map(|(key, value)| {
            let all: BTreeSet<&str> = value.value.as_deref().into_iter().chain(value.configured()).collect();
            all.into_iter().map(move |text| (key.as_str(), text))
        })
        .collect()
}

/// What the lines of a config are about, and why others cannot be read. Of a mapping with several entries any may be given.
fn claims(name: &str, host: &str, config: &Pending, mappings: &[PciMapping]) -> (BTreeSet<Claim>, Vec<String>) {
    let (mut all, mut unclear) = (BTreeSet::new(), Vec::new());
    for (key, text) in texts(config) {
        let claim = |raw: bool| move |place: PciPlace| Claim { key: key.to_owned(), place, raw };
        let Ok(value) = text.parse::<HostPci>() else {
            unclear.push(format!("{key} of {name} cannot be read: {text}"));
            continue;
        };
        let of = match value.source() {
            PciSource::Places(places) => {
                all.extend(places.into_iter().map(claim(true)));
                continue;
            }
            PciSource::Mapping(of) => of,
        };
        let Some(mapping) = mappings.iter().find(|mapping| mapping.id == of) else {
            unclear.push(format!("{key} of {name} goes by the mapping {of}, which is not there, or not to be seen"));
            continue;
        };
        for entry in mapping.entries(host) {
            match entry.places() {
                Ok(places) => all.extend(places.into_iter().map(claim(false))),
                Err(error) => unclear.push(format!("mapping {of}, of {key} of {name}: {error}")),
            }
        }
    }
    (all, unclear)
}

/// Those that start with the host and are given what is at an address then, whatever that is by then: a line each.
///
/// # Errors
/// As [`beside`].
pub(in super::super) async fn start_with_it(cx: &Estate, vm: &Vm, host: &str) -> Result<Vec<String>, Failure> {
    let line = |one: Beside| {
        let raw: Vec<&Claim> = one.claims.iter().filter(|claim| claim.raw).collect();
        if !one.starts || raw.is_empty() {
            return None;
        }
        let given: Vec<String> = raw.iter().map(|claim| claim.place.address()).collect();
        let keys: BTreeSet<&str> = raw.iter().map(|claim| claim.key.as_str()).collect();
        Some(format!(
            "{} starts with {host}, and is given what is at {} then ({}): addresses may be others' once drives were moved. \
             `qm set {} --onboot 0` first, and see its lines before its start",
            one.name,
            given.join(", "),
            keys.into_iter().collect::<Vec<_>>().join(", "),
            one.vmid
        ))
    };
    Ok(beside(cx, vm).await?.into_iter().filter_map(line).collect())
}
