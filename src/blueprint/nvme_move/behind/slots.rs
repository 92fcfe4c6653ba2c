//! Who has what is in the slots of a VM's host: the VM's drives, another guest's, or the host's own.

use std::collections::BTreeMap;

use crate::base::drives::{Drive, Plan, Port, Slot, pci_address};
use crate::proxmox::PciPlace;

use super::beside::{Beside, Claim};
use super::{Given, Lines, View, mend};

/// Who is in the way: what is so, and what helps.
type Said = (String, String);

/// What other guests are given that a drive of the plan is at, or a slot that the plan is about, or nothing yet.
pub(super) fn of_others(
    (lines, drives): (&Lines, &BTreeMap<Given, String>),
    view: &View,
    plan: &Plan,
    others: &[Beside],
    there: &[String],
) -> Vec<Said> {
    let (host, vmid) = (&view.host, lines.at.vmid);
    let place = |of: &Given| lines.all.iter().find(|line| line.key == of.key)?.places.get(of.index);
    let own: Vec<&PciPlace> = drives.keys().filter_map(place).collect();
    let mut out = Vec::new();
    for one in others {
        let help = format!(
            "`qm config {}` shows its lines: take that one out, or `qm set {} --onboot 0` and shut it down",
            one.vmid, one.vmid
        );
        out.extend(one.unclear.iter().map(|text| (text.clone(), help.clone())));
        for claim in &one.claims {
            let address = claim.place.address();
            let names = format!("{} of {} names {address} of {host}", claim.key, one.name);
            let ours = own.iter().any(|place| meet(place, &claim.place));
            let slot = view.port(&address).and_then(|port| of_plan(plan, &port));
            let text = if ours {
                Some(format!("{names}, which is a drive of vm {vmid}"))
            } else if let Some(slot) = slot {
                Some(format!("{names}, which is in {slot}"))
            } else if !there.contains(&address) {
                Some(format!("{names}, at which nothing is: a drive may be there once they were moved"))
            } else {
                None
            };
            out.extend(text.map(|text| (text, help.clone())));
        }
    }
    out
}

/// Two places have a function in common.
fn meet(one: &PciPlace, other: &PciPlace) -> bool {
    one.means(&other.address()) || other.means(&one.address())
}

/// The slot of `current` or `target` that has this port.
fn of_plan<'p>(plan: &'p Plan, port: &Port) -> Option<&'p str> {
    let is = |name: &str| plan.current.contains_key(name) || plan.target.contains_key(name);
    let mut all = plan.slots.iter().filter(|slot| is(&slot.name));
    all.find(|slot| slot.port.as_ref() == Some(port)).map(|slot| slot.name.as_str())
}

/// Whether a drive of the host is one of the plan's, by its serial number.
fn is_planned(plan: &Plan, drive: &Drive) -> bool {
    plan.drives.values().any(|wanted| !wanted.serial.is_empty() && wanted.serial.trim() == drive.serial.trim())
}

/// The slots of the plan in which its host shows a drive that the plan does not have.
pub(super) fn strangers(view: &View, plan: &Plan) -> Vec<String> {
    let of = |slot: &Slot| {
        let port = slot.port.as_ref()?;
        let own = view.inventory.drives.iter().filter(|drive| drive.port().as_ref() == Some(port));
        own.filter(|drive| !is_planned(plan, drive)).map(|drive| (drive.model.trim().to_owned(), drive.shown())).next()
    };
    let line = |slot: &Slot| {
        let (model, shown) = of(slot)?;
        Some(format!("{} of {} is not free: {model} ({shown}) is in it", slot.name, view.host))
    };
    plan.slots.iter().filter_map(line).collect()
}

/// Slots that a drive goes into and that somebody else's is in.
pub(super) fn taken(lines: &Lines, view: &View, plan: &Plan, others: &[Beside]) -> Vec<Said> {
    let host = &view.host;
    let ours = |address: &str| lines.all.iter().flat_map(|line| &line.places).any(|place| place.means(address));
    let mut out = Vec::new();
    for (slot, name) in &plan.target {
        let Some(port) = plan.slots.iter().find(|one| one.name == *slot).and_then(|one| one.port.as_ref()) else {
            continue;
        };
        let into = format!("{slot} of {host}, which {name} is to go into, has");
        let shown = view.inventory.drives.iter().filter(|drive| drive.port().as_ref() == Some(port));
        for drive in shown.filter(|drive| !is_planned(plan, drive)) {
            let mine = pci_address(&drive.bus_path).is_some_and(|address| ours(&address));
            let help =
                if mine { mend(lines.at.vmid) } else { format!("choose another slot in `target`, or empty {slot}") };
            out.push((format!("{into} {} ({}) in it", drive.model.trim(), drive.shown()), help));
        }
        let hidden = view.inventory.controllers_without_a_disk.iter().filter(|one| one.port.as_ref() == Some(port));
        for controller in hidden.filter(|one| !ours(&one.address)) {
            let has = |claim: &&Claim| claim.place.means(&controller.address);
            let owner = others.iter().find_map(|one| Some((one, one.claims.iter().find(has)?)));
            let text = match owner {
                Some((one, claim)) => format!("{into} what {} is given ({}) in it", one.name, claim.key),
                None => format!(
                    "{into} a drive in it that {host} does not show ({}): a VM has it or had it, vfio-pci is set to take it, or it \
                     is dead",
                    controller.address
                ),
            };
            out.push((text, format!("choose another slot in `target`, or empty {slot}")));
        }
    }
    out
}
