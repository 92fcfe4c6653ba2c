//! What these credentials may do in Proxmox, held against every later call.

use crate::base::permit::System;
use crate::blueprint::rights::{PveNeed, Weight};
use crate::proxmox::{UsbSource, UsbValue};

use super::super::device::{Attach, Sight};
use super::super::rights::by_root;
use super::super::rights::proxmox::{self, AGENT, BUS, Has, Known, Routes};
use super::Preflight;
use super::ask_proxmox::ProxmoxFacts;
use super::finding::{Findings, on};
use super::known;
use super::machine::first_write;

pub(super) fn find(p: &Preflight, f: &ProxmoxFacts) -> Findings {
    let mut out = Findings::of(System::Proxmox);
    raw_values(p, f, &mut out);
    if f.root {
        return out;
    }
    let what = format!("what {} may do in cluster {}", f.caller, p.vm.cluster);
    let Some(rights) = out.need(first_write(p, f), &what, &f.rights) else { return out };
    let any = |need: &PveNeed| need.privilege.names(f.version.major());
    let held = |need: &PveNeed| any(need).iter().any(|privilege| rights.has(&need.path, privilege));
    for need in f.needs.iter().filter(|need| !held(need)) {
        let (path, any) = (&need.path, any(need).join(" or "));
        let text = format!("{} lacks {any} on {path}, for {}", f.caller, need.purpose);
        match &need.weight {
            Weight::If(_) => {}
            // Where the device is can be seen in two other ways.
            Weight::Optional(_) if need.privilege == BUS => hardware(p, f, &mut out),
            Weight::Optional(lost) => out.note(need.steps[0], format!("{text}: without it, {lost}")),
            Weight::Needed => {
                let steps = match need.steps[0] {
                    on::REBOOT => f.power(p).needs_right(on::REBOOT),
                    step => vec![step],
                };
                let other = if need.privilege == AGENT {
                    format!(", or add ssh of node {} to the site file", p.vm.node)
                } else {
                    "; a token with privilege separation needs it itself".to_owned()
                };
                let known = if need.privilege == AGENT { &known::AGENT_REFUSED } else { &known::PRIVILEGE };
                for step in steps {
                    out.problem(known, step, text.clone(), format!("give it a role with {any} on {path}{other}"));
                }
            }
        }
    }
    out
}

/// Everything that is needed, as far as the estate is known by now.
pub(super) fn needs(p: &Preflight, routes: &Routes, source: &[(String, String)], exists: Option<bool>) -> Vec<PveNeed> {
    let mapped = |value: &str| match value.parse::<UsbValue>().map(|v| v.source) {
        Ok(UsbSource::Mapping(name)) => Some(name),
        _ => None,
    };
    let has = Has {
        raw: source.iter().any(|(_, value)| is_raw(value)),
        mappings: source.iter().filter_map(|(_, value)| mapped(value)).collect(),
    };
    proxmox::needs(p, routes, &Known { source: Some(has), exists })
}

/// An entry by raw id or port is set, changed and deleted by root@pam with a password only (qemu-server
/// `check_vm_modify_config_perm`).
fn raw_values(p: &Preflight, f: &ProxmoxFacts, out: &mut Findings) {
    if f.root {
        return;
    }
    let raw: Vec<(String, String)> = f.slots(p, &f.source).into_iter().filter(|(_, value)| is_raw(value)).collect();
    let source = p.source.vmid;
    if !raw.is_empty() {
        let slots = raw.iter().map(|(slot, _)| slot.as_str()).collect::<Vec<_>>().join(",");
        let values = raw.iter().map(|(slot, value)| format!("{slot}: {value}")).collect::<Vec<_>>().join("; ");
        out.problem(
            &known::RAW_USB, on::REMOVE,
            format!("{} may not take raw USB entries out of vm {source} ({values}): root@pam alone may", f.caller),
            format!(
                "set `auth: {{ ticket: {{ user: root@pam, .. }} }}` in the site file, or as root on {}: {}; then run again",
                f.source.host(),
                by_root(source, &slots)
            ),
        );
    }
    let wanted = p.slots_wanted(f.target.host());
    if p.attach != Attach::Mapping && f.slots(p, &f.target).len() < wanted {
        let form = if p.attach == Attach::Id { "id" } else { "port" };
        out.problem(
            &known::RAW_USB, on::ADD,
            format!("{} may not pass a device by {form} to vm {}: root@pam alone may", f.caller, p.vm.vmid),
            "set `auth: { ticket: { user: root@pam, .. } }` in the site file, or `attach: mapping` with a `mapping` of the \
             device: that is open to tokens",
        );
    }
}

fn is_raw(value: &str) -> bool {
    matches!(value.parse::<UsbValue>().map(|v| v.source), Ok(UsbSource::Id(_) | UsbSource::Port(_)))
}

/// Without Sys.Modify the hardware list is closed; there are two other ways of looking.
fn hardware(p: &Preflight, f: &ProxmoxFacts, out: &mut Findings) {
    let host = f.target.host();
    match f.hosts.get(host) {
        Some(Ok(Sight::Here(_, by) | Sight::Absent(_, by))) => out.note(
            on::HOST,
            format!(
                "{} may not read the USB list of {host} (Sys.Modify on / is missing): {by} serves instead",
                f.caller
            ),
        ),
        Some(Ok(Sight::CannotSee(why))) => out.problem(
            &known::HOST_UNSEEN,
            on::HOST,
            format!("whether {} is at {host} cannot be seen: {}", p.device.title(), why.join("; ")),
            format!(
                "give {} Sys.Modify on /, or add ssh of host {host} to the site file, or a mapping with its port",
                f.caller
            ),
        ),
        Some(Err(_)) | None => {}
    }
}
