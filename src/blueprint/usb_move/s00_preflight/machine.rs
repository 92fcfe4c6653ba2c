//! The two VMs: where they are, who works on them, what their next power cycle brings, and room for the device.

use crate::base::check::Change;
use crate::base::permit::System;
use crate::proxmox::{HIBERNATED, PendingKey, UsbSource, UsbStyle, UsbValue, free_usb_slots, usb_hotplugs, usb_slot};

use super::super::device::Attach;
use super::super::power::{hibernated, worker};
use super::Preflight;
use super::ask_proxmox::{Machine, Power, ProxmoxFacts, State};
use super::finding::{Findings, on};
use super::known;

pub(super) fn find(p: &Preflight, f: &ProxmoxFacts) -> Findings {
    let mut out = Findings::of(System::Proxmox);
    out.note(on::RETAIN, format!("Proxmox cluster {} {} as {}", p.vm.cluster, f.version.version, f.caller));
    quorum(p, f, &mut out);
    for (machine, step) in [(&f.source, on::REMOVE), (&f.target, on::ADD)] {
        there(p, f, machine, step, &mut out);
    }
    if let Some(state) = f.target.known() {
        room(p, f, state, &mut out);
        pending(p, f, state, &mut out);
        if let (Power::Unknown, Err(why)) = (f.power(p), &f.cycle) {
            out.unknown(on::REBOOT, &format!("whether vm {} runs what is configured", p.vm.vmid), why);
        }
    }
    out
}

/// The first step that writes to Proxmox.
pub(super) fn first_write(p: &Preflight, f: &ProxmoxFacts) -> &'static str {
    if f.slots(p, &f.source).is_empty() { on::ADD } else { on::REMOVE }
}

fn quorum(p: &Preflight, f: &ProxmoxFacts, out: &mut Findings) {
    let step = first_write(p, f);
    match &f.status {
        // It is not ours to be told; a write without quorum is refused and nothing happens.
        Err(why) => {
            out.note(step, format!("whether cluster {} has quorum cannot be asked: {}", p.vm.cluster, why.text))
        }
        Ok(status) if !status.quorate => {
            let off: Vec<_> = status.nodes.iter().filter(|n| !n.online).map(|n| n.name.as_str()).collect();
            out.problem(
                &known::NO_QUORUM,
                step,
                format!(
                    "cluster {} has no quorum: {} of {} hosts are online, {} not",
                    p.vm.cluster,
                    status.nodes.len() - off.len(),
                    status.nodes.len(),
                    off.join(", ")
                ),
                "bring a host back (`pvecm status` on a host shows the votes); until then no config can be written",
            );
        }
        Ok(_) => {}
    }
}

fn there(p: &Preflight, f: &ProxmoxFacts, machine: &Machine, step: &'static str, out: &mut Findings) {
    let (vmid, name) = (machine.vm.vmid, machine.vm.node.as_str());
    let Some(row) = &machine.row else {
        let text = format!("vm {vmid} ({name}) is not in cluster {}, or {} may not see it", p.vm.cluster, f.caller);
        let help = format!("correct `vmid` of node {name} in the site file; to see a VM takes VM.Audit on /vms/{vmid}");
        return out.problem(&known::VM_MISSING, step, text, help);
    };
    if row.kind != "qemu" || row.template {
        let what = if row.template { "a template" } else { "a container" };
        let text = format!("{vmid} ({name}) on {} is {what}, not a VM", row.node);
        return out.problem(&known::NOT_A_VM, step, text, format!("correct `vmid` of node {name} in the site file"));
    }
    let Some(asked) = &machine.state else { return };
    let Some(state) = out.need(step, &format!("vm {vmid} ({name}) on {}", row.node), asked) else { return };
    let managed = if state.status.is_ha_managed() {
        ", under high availability: it is restarted by one request, never stopped"
    } else {
        ""
    };
    out.note(step, format!("vm {vmid} ({name}) is on {}, {}{managed}", row.node, state.status.status));
    lock(f, state, (vmid, &row.node), step, out);
}

fn lock(f: &ProxmoxFacts, state: &State, (vmid, host): (u32, &str), step: &'static str, out: &mut Findings) {
    let Some(lock) = &state.status.lock else { return };
    if !state.tasks.is_empty() {
        let who = state.tasks.iter().map(worker).collect::<Vec<_>>();
        let text = format!("vm {vmid} is locked ({lock}) by {}: {step} waits for the lock", who.join(", "));
        return out.note(step, text);
    }
    if lock == HIBERNATED {
        return out.borrowed(&known::HIBERNATED, step, hibernated(vmid));
    }
    let sees_all = f.root || f.rights.as_ref().is_ok_and(|r| r.has(&format!("/nodes/{host}"), "Sys.Audit"));
    if sees_all {
        out.problem(
            &known::LOCK_LEFT,
            step,
            format!("vm {vmid} is locked ({lock}) and no pve task works on it: the lock was left behind"),
            format!("see what became of that {lock} (`qm config {vmid}` on {host}), then `qm unlock {vmid}` there"),
        );
    } else {
        let text = format!("vm {vmid} is locked ({lock}); who works on it {} may not see", f.caller);
        out.note(step, format!("{text}: {step} waits for the lock"));
    }
}

fn room(p: &Preflight, f: &ProxmoxFacts, state: &State, out: &mut Findings) {
    let of = |key: &str| state.config.configured(key);
    let (machine, ostype) = (of("machine"), of("ostype"));
    let vmid = p.vm.vmid;
    let free = free_usb_slots(state.config.keys.keys().map(String::as_str), machine, ostype);
    let style = UsbStyle::of(machine, ostype);
    let plugs = usb_hotplugs(state.status.running_machine.as_deref(), ostype, of("hotplug"));
    let how = match (style, plugs && state.status.is_running()) {
        (UsbStyle::Modern, true) => "USB is plugged into the running guest",
        (UsbStyle::Modern, false) => "USB takes a power cycle",
        (UsbStyle::Old, _) => "usb3=1 decides the controller, and USB takes a power cycle",
    };
    out.note(
        on::ADD,
        format!(
            "vm {vmid}: machine {}, ostype {}, {} USB slots, {} free; {how}",
            machine.unwrap_or("the default"),
            ostype.unwrap_or("the default (other)"),
            style.slots(),
            free.len()
        ),
    );
    let slots = f.slots(p, &f.target);
    let (fit, odd): (Vec<_>, Vec<_>) = slots.iter().partition(|(_, value)| fits(p, value));
    for (slot, value) in odd {
        out.problem(
            &known::OTHER_FORM,
            on::ADD,
            format!("vm {vmid} passes the device already in another form: {slot} is `{value}`"),
            format!("take {slot} out of vm {vmid}, or set `attach` in the site file to that form"),
        );
    }
    let missing = p.slots_wanted(f.target.host()).saturating_sub(fit.len());
    if free.len() < missing {
        out.problem(
            &known::NO_SLOT,
            on::ADD,
            format!("vm {vmid} has {} free USB slots and {missing} are needed", free.len()),
            "free a slot, or raise the VM's machine version to 7.1 or later for 14 slots",
        );
    }
}

/// Whether an entry has the form that the site asks for.
fn fits(p: &Preflight, value: &str) -> bool {
    match (p.attach, value.parse::<UsbValue>().map(|v| v.source)) {
        (Attach::Id, Ok(UsbSource::Id(_))) | (Attach::Port, Ok(UsbSource::Port(_))) => true,
        (Attach::Mapping, Ok(UsbSource::Mapping(name))) => p.device.mapping.as_ref() == Some(&name),
        _ => false,
    }
}

/// What else the next power cycle of the target applies: nobody should be surprised by it.
fn pending(p: &Preflight, f: &ProxmoxFacts, state: &State, out: &mut Findings) {
    let ours: Vec<String> = f.slots(p, &f.target).into_iter().map(|(slot, _)| slot).collect();
    let other = |(key, _): &(&str, &PendingKey)| usb_slot(key).is_none() || !ours.iter().any(|slot| slot == key);
    let show = |(key, value): (&str, &PendingKey)| {
        match (&value.value, value.configured()) {
            (Some(from), Some(to)) => Change::set(key, from, to),
            (None, Some(to)) => Change::add(key, to),
            (from, None) => Change::remove(key, from.as_deref().unwrap_or_default()),
        }
        .to_string()
    };
    let changes: Vec<String> = state.config.changed().filter(other).map(show).collect();
    if !changes.is_empty() {
        out.note(
            on::REBOOT,
            format!("the next power cycle of vm {} applies as well: {}", p.vm.vmid, changes.join(", ")),
        );
    }
}
