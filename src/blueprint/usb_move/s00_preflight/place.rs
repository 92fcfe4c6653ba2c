//! Where the device is: at the source and nowhere else, plugged in as well as named by configs.

use crate::base::permit::System;

use super::super::device::{Attach, Place, Sight};
use super::Preflight;
use super::ask_proxmox::ProxmoxFacts;
use super::finding::{Findings, on};
use super::known;

pub(super) fn find(p: &Preflight, f: &ProxmoxFacts) -> Findings {
    let mut out = Findings::of(System::Proxmox);
    plugged(p, f, &mut out);
    named(p, f, &mut out);
    if let Err(why) = &f.mappings {
        out.note(on::ADD, format!("USB mappings cannot be read: {}", why.text));
    }
    out
}

fn list(places: &[&Place]) -> String {
    places.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

fn plugged(p: &Preflight, f: &ProxmoxFacts, out: &mut Findings) {
    let (source, target) = (f.source.host(), f.target.host());
    let all: Vec<&Place> = f.hosts.keys().flat_map(|host| f.places(host)).collect();
    let mut unseen = Vec::new();
    for (host, sight) in &f.hosts {
        match sight {
            // 03 would stop there; what others lack for it is told with their rights.
            Ok(Sight::CannotSee(why)) if host == target && f.root => out.problem(
                &known::HOST_UNSEEN,
                on::HOST,
                format!("whether {} is at {host} cannot be seen: {}", p.device.title(), why.join("; ")),
                format!("mend one of these ways, or add a mapping with the port of {} at {host}", p.device.name),
            ),
            Ok(Sight::CannotSee(why)) => unseen.push((host, why.join("; "))),
            Err(why) if host == target => out.unknown(on::HOST, &format!("the USB devices of {host}"), why),
            Err(why) => unseen.push((host, why.text.clone())),
            Ok(Sight::Here(..) | Sight::Absent(..)) => {}
        }
    }
    if all.is_empty() {
        let hosts: Vec<_> = f.hosts.keys().filter(|h| !unseen.iter().any(|(u, _)| u == h)).cloned().collect();
        if !hosts.is_empty() {
            let text = format!("{} is plugged into none of {}", p.device.title(), hosts.join(", "));
            out.note(on::HOST, format!("{text}: 03 asks for it"));
        }
    } else {
        out.note(on::HOST, format!("{}: {}", p.device.title(), list(&all)));
    }
    for (host, why) in unseen {
        out.note(on::HOST, format!("whether {} is at {host} cannot be seen: {why}", p.device.name));
    }
    elsewhere(p, f, out);
    let of = |host: &str| all.iter().copied().filter(|place| place.host == host).collect::<Vec<_>>();
    let (there, here) = (of(source), of(target));
    // What is at the source is carried to the target: with one that is there already, or with both of the source.
    let met = if source == target { here.len() } else { here.len() + usize::from(!there.is_empty()) };
    // By port or mapping only the socket that the site names tells 03 and 04 which of them is meant.
    if met > 1 && (p.attach == Attach::Id || !p.device.sockets.contains_key(target)) {
        let places = if source == target { here.clone() } else { here.iter().chain(&there).copied().collect() };
        let text = format!("{target} would have {met} equal devices ({})", list(&places));
        let vmid = p.vm.vmid;
        match p.attach {
            Attach::Id => out.problem(
                &known::EQUAL_DEVICES,
                on::ADD,
                format!("{text}: by id vm {vmid} takes any"),
                format!(
                    "set `attach: port`, and the port of the device at {target} under its `ports` in the site file"
                ),
            ),
            Attach::Port | Attach::Mapping => out.problem(
                &known::SOCKET_UNNAMED,
                on::ADD,
                format!("{text}, and nothing names the socket of the one for vm {vmid}"),
                format!(
                    "name it: `ports: {{ {target}: {{ port: BUS-PORT }} }}` of device {} in the site file",
                    p.device.name
                ),
            ),
        }
    } else if all.len() > 1 {
        let text = format!("{} equal devices: make sure that the one at {source} is carried", all.len());
        let wanted = p.device.sockets.get(source).map(|s| format!(", port {}", s.port)).unwrap_or_default();
        out.note(on::HOST, format!("{text}{wanted}"));
    }
}

/// The hosts that were not looked at: "nowhere else" is not said of them.
fn elsewhere(p: &Preflight, f: &ProxmoxFacts, out: &mut Findings) {
    let name = &p.device.name;
    match &f.unseen {
        Err(why) => {
            let known: Vec<&str> = f.hosts.keys().map(String::as_str).collect();
            let text = format!("hosts besides {} could not be listed", known.join(" and "));
            out.note(on::HOST, format!("{text}: whether {name} is at another one is not known: {}", why.text));
        }
        Ok(hosts) if !hosts.is_empty() => {
            let hosts: Vec<String> = hosts.iter().map(|(host, status)| format!("{host} is {status}")).collect();
            out.note(on::HOST, format!("{}: whether {name} is there is not known", hosts.join(", ")));
        }
        Ok(_) => {}
    }
}

/// Other VMs that name the device, in whatever form, on a host where it is or will be.
fn named(p: &Preflight, f: &ProxmoxFacts, out: &mut Findings) {
    for (row, config) in &f.others {
        let vm = format!("vm {} on {}", row.vmid, row.node);
        let config = match config {
            Ok(config) => config,
            Err(why) => {
                out.note(on::ADD, format!("whether {vm} passes the device too cannot be read: {}", why.text));
                continue;
            }
        };
        for (slot, value) in p.device.slots_in(config, &row.node, f.places(&row.node), f.mappings()) {
            let help = format!("`qm set {} --delete {slot}` on {}, where it may go", row.vmid, row.node);
            if row.node == f.target.host() {
                let text = format!("{vm} passes the device too ({slot}: {value}): whichever VM is first takes it");
                out.problem(&known::PASSED_AT_TARGET, on::ADD, text, help);
            } else if row.node == f.source.host() {
                let text = format!("{vm} passes the device too ({slot}: {value})");
                let text = format!("{text}: it takes it as soon as vm {} lets go of it", p.source.vmid);
                out.problem(&known::PASSED_AT_SOURCE, on::REMOVE, text, help);
            } else {
                out.note(on::HOST, format!("{vm} passes such a device too ({slot}: {value})"));
            }
        }
    }
}
