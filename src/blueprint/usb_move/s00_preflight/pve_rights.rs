//! What these credentials may do in Proxmox, held against every later call.

use crate::base::permit::System;
use crate::proxmox::{Permissions, UsbSource, UsbValue};
use crate::site::Access;

use super::super::device::{Attach, Sight};
use super::Preflight;
use super::ask_proxmox::ProxmoxFacts;
use super::finding::{Findings, on};
use super::known;
use super::machine::first_write;

/// A need: the step, the path, the privileges of which one will do, and for what.
type Need = (&'static str, String, &'static [&'static str], String);

pub(super) fn find(p: &Preflight, f: &ProxmoxFacts) -> Findings {
    let mut out = Findings::of(System::Proxmox);
    raw_values(p, f, &mut out);
    if f.root {
        return out;
    }
    let what = format!("what {} may do in cluster {}", f.caller, p.vm.cluster);
    let Some(rights) = out.need(first_write(p, f), &what, &f.rights) else { return out };
    let held = |need: &Need| need.2.iter().any(|privilege| rights.has(&need.1, privilege));
    for (step, path, any, purpose) in needs(p, f).into_iter().filter(|need| !held(need)) {
        out.problem(
            &known::PRIVILEGE,
            step,
            format!("{} lacks {} on {path}, for {purpose}", f.caller, any.join(" or ")),
            format!(
                "give it a role with {} on {path}; a token with privilege separation needs it itself",
                any.join(" or ")
            ),
        );
    }
    hardware(p, f, rights, &mut out);
    agent(p, f, rights, &mut out);
    out
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
                "set `auth: {{ ticket: {{ user: root@pam, .. }} }}` in the site file, or `qm set {source} --delete {slots}` \
                 on {}, then run again",
                f.source.host()
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

fn needs(p: &Preflight, f: &ProxmoxFacts) -> Vec<Need> {
    let (source, target) = (format!("/vms/{}", p.source.vmid), format!("/vms/{}", p.vm.vmid));
    let power = f.power(p);
    let mut needs: Vec<Need> = vec![
        (on::REMOVE, source.clone(), &["VM.Audit"], format!("reading the config of vm {}", p.source.vmid)),
        (on::ADD, target.clone(), &["VM.Audit"], format!("reading the config of vm {}", p.vm.vmid)),
        (
            // A VM that is off is started by 05; one that takes the device while it runs needs nothing.
            power.guards(on::REBOOT).unwrap_or(on::REBOOT),
            target.clone(),
            &["VM.PowerMgmt"],
            format!("the power cycle of vm {}", p.vm.vmid),
        ),
    ];
    // Raw entries are root@pam's alone, and no privilege helps there.
    let slots = f.slots(p, &f.source);
    if !slots.iter().any(|(_, value)| is_raw(value)) {
        let why = format!("taking the device from vm {}", p.source.vmid);
        needs.push((on::REMOVE, source, &["VM.Config.HWType"], why));
    }
    let mapped = |value: &str| match value.parse::<UsbValue>().map(|v| v.source) {
        Ok(UsbSource::Mapping(name)) => Some(name),
        _ => None,
    };
    for name in slots.iter().filter_map(|(_, value)| mapped(value)) {
        let path = format!("/mapping/usb/{name}");
        let why = format!("taking mapping {name} from vm {}", p.source.vmid);
        needs.push((on::REMOVE, path.clone(), &["Mapping.Use"], why));
        // By then the device may show its other id, and the mapping with the former one would give the VM nothing.
        if p.attach != Attach::Mapping || p.device.mapping.as_ref() != Some(&name) {
            let why = format!("giving the device back to vm {} by mapping {name} at an undo", p.source.vmid);
            needs.push((on::REMOVE, path, &["Mapping.Modify"], why));
        }
    }
    if let (Attach::Mapping, Some(name)) = (p.attach, &p.device.mapping) {
        let why = format!("passing the device to vm {}", p.vm.vmid);
        needs.push((on::ADD, target, &["VM.Config.HWType"], why));
        let path = format!("/mapping/usb/{name}");
        needs.push((on::ADD, path.clone(), &["Mapping.Use"], format!("passing mapping {name} to vm {}", p.vm.vmid)));
        let exists = f.mappings().iter().any(|m| m.id == *name);
        // Which id the device shows changes with its use, so the entry is written now and refreshed by 05.
        let path = if exists { path } else { "/mapping/usb".to_owned() };
        needs.push((on::ADD, path, &["Mapping.Modify"], format!("writing mapping {name} for {}", f.target.host())));
    }
    needs
}

/// Without Sys.Modify the hardware list is closed; there are two other ways of looking.
fn hardware(p: &Preflight, f: &ProxmoxFacts, rights: &Permissions, out: &mut Findings) {
    let host = f.target.host();
    if rights.has("/", "Sys.Modify") || host.is_empty() {
        return;
    }
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

/// To run a program through the guest agent takes VM.Monitor before version 9 and a right of its own since.
fn agent(p: &Preflight, f: &ProxmoxFacts, rights: &Permissions, out: &mut Findings) {
    let any: &[&str] = match f.version.major() {
        Some(..=8) => &["VM.Monitor"],
        Some(_) => &["VM.GuestAgent.Unrestricted"],
        None => &["VM.GuestAgent.Unrestricted", "VM.Monitor"],
    };
    let path = format!("/vms/{}", p.vm.vmid);
    if !f.routes.contains(&Access::Agent) || any.iter().any(|privilege| rights.has(&path, privilege)) {
        return;
    }
    let any = any.join(" or ");
    let text = format!("{} lacks {any} on {path}: the guest agent of vm {} is no way in", f.caller, p.vm.vmid);
    if f.routes.iter().all(|route| *route == Access::Agent) {
        let help = format!("give it a role with {any} on {path}, or add ssh of node {} to the site file", p.vm.node);
        out.problem(&known::AGENT_REFUSED, on::WAIT, text, help);
    } else {
        out.note(on::WAIT, text);
    }
}
