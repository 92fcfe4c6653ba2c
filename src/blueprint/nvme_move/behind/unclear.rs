//! What would keep the drives of a VM from being followed: asked by the preflight, before anything goes off.

use std::collections::BTreeMap;

use crate::base::drives::{Inventory, Plan, name};
use crate::base::fault::{Failure, Fault};
use crate::blueprint::machine::Machine;
use crate::blueprint::quorum::Peer;
use crate::blueprint::vm::Vm;
use crate::estate::Estate;

use super::super::sight::unasked;
use super::beside::beside;
use super::{Given, Host, Lines, given, mend, neighbours, slots, view};

/// The path of all guests.
const GUESTS: &str = "/vms";

/// What is behind a VM.
pub(in super::super) struct Behind {
    /// Its host.
    pub(in super::super) host: String,
    /// Why its drives could not be followed, each with what helps.
    pub(in super::super) unclear: Vec<(String, String)>,
    /// The other nodes of its cluster that are on the same host.
    pub(in super::super) peers: Vec<String>,
    /// The other guests that run there.
    pub(in super::super) beside: Vec<String>,
    /// The slots in which a drive is that no plan of this VM has, a line each.
    pub(in super::super) strangers: Vec<String>,
}

/// Asks Proxmox, the host, and the guest's drives.
///
/// # Errors
/// What keeps Proxmox or the node from answering.
pub(in super::super) async fn behind(
    cx: &Estate,
    machine: &Machine,
    vm: &Vm,
    plan: &Plan,
    peers: &[Peer],
) -> Result<Behind, Failure> {
    let lines = Lines::read(cx, vm).await?;
    let host = lines.at.node.clone();
    let mut unclear: Vec<(String, String)> = lines.unclear.iter().map(|text| (text.clone(), mend(vm.vmid))).collect();
    unclear.extend(of_plan(plan));
    unclear.extend(of_site(cx, vm, plan, &host));
    // Without root's own ticket a line with an address can be neither changed nor put back.
    let token = !lines.pve.is_root();
    let mut drives = BTreeMap::new();
    if lines.status.is_running() {
        let live = Box::pin(cx.inventory(&machine.name)).await?;
        for (name, drive) in named(plan, &live)? {
            let shown = drive.shown();
            let Some(of) = given(&lines, drive) else {
                let text = if drive.transport == "nvme" {
                    format!(
                        "{name} ({shown}) is at {} in vm {}, where no hostpci line of it puts anything",
                        drive.bus_path, vm.vmid
                    )
                } else {
                    format!("{name} ({shown}) is a virtual disk of vm {}: it has no slot", vm.vmid)
                };
                unclear.push((text, mend(vm.vmid)));
                continue;
            };
            drives.insert(of, name);
        }
    }
    if token {
        unclear.extend(of_root_alone(&lines, &drives));
    }
    // With less, Proxmox lists those alone that it may be asked about.
    if token && !lines.pve.permissions(Some(GUESTS)).await?.has(GUESTS, "VM.Audit") {
        let text = format!(
            "{} lacks VM.Audit on {GUESTS}: which other guests {host} has is not known, and what they are given",
            lines.pve.caller()
        );
        unclear.push((text, format!("give it a role with VM.Audit on {GUESTS} (`pvemig privileges` prints it)")));
    }
    let (others, mut strangers) = (beside(cx, vm).await?, Vec::new());
    // What is no drive has to be told apart too, before the next start.
    let there: Vec<String> = match lines.pve.pci_devices(&host).await {
        Ok(devices) => devices.into_iter().map(|device| device.id).collect(),
        Err(error) => {
            let help = error.help().unwrap_or_else(|| "it takes Sys.Audit on /".into());
            unclear.push((format!("what is on the PCI of {host} Proxmox does not tell: {error}"), help));
            others.iter().flat_map(|one| &one.claims).map(|claim| claim.place.address()).collect()
        }
    };
    match view(cx, &vm.cluster, &host).await {
        Ok(Host::Shown(shown)) => {
            let of =
                lines.all.iter().flat_map(|line| line.places.iter().map(move |place| (&line.key, place.address())));
            // A port that no slot of the site file has: what is there cannot be told from what is meant.
            for (key, address) in of {
                let Some(port) = shown.port(&address) else { continue };
                if !plan.slots.iter().any(|slot| slot.port.as_ref() == Some(&port)) {
                    let text = format!(
                        "{key} of vm {} has what is at {address} of {host}, and no slot of the site file has the port {port}",
                        vm.vmid
                    );
                    unclear.push((text, format!("give the slot of {host} that it is in `port: \"{port}\"`")));
                }
            }
            unclear.extend(slots::of_others((&lines, &drives), &shown, plan, &others, &there));
            unclear.extend(slots::taken(&lines, &shown, plan, &others));
            strangers = slots::strangers(&shown, plan);
        }
        Ok(Host::Silent(why)) => {
            let text = format!("{host}, which has the drives of vm {}, does not answer by ssh: {why}", vm.vmid);
            unclear.push((text, format!("see that `ssh` to {host} works: where a drive is only its kernel tells")));
        }
        Err(failure) => {
            let help = failure.fault().help().unwrap_or_else(|| format!("see that `ssh` to {host} works"));
            unclear.push((format!("{host}, which has the drives of vm {}, cannot be asked: {failure}", vm.vmid), help));
        }
    }
    let (peers, beside) =
        neighbours(cx, vm).await?.into_iter().partition(|one| peers.iter().any(|peer| peer.name == *one));
    Ok(Behind { host, unclear, peers, beside, strangers })
}

/// The lines that name an address, which may be another one of each after the move: also of a drive that stays in its slot,
/// and of what is none.
fn of_root_alone(lines: &Lines, drives: &BTreeMap<Given, String>) -> Vec<(String, String)> {
    let vmid = lines.at.vmid;
    let mut out = Vec::new();
    for line in lines.all.iter().filter(|line| line.mapping.is_none()) {
        let key = &line.key;
        let what = line.places.iter().enumerate().map(|(index, place)| {
            let name = drives.get(&Given { key: key.clone(), index });
            name.cloned().unwrap_or_else(|| format!("what is at {}", place.address()))
        });
        let what = what.collect::<Vec<_>>().join(" and ");
        out.push((
            format!("{key} of vm {vmid} has {what} by its address, which root@pam alone may change"),
            format!(
                "`auth: ticket` with root@pam in the site file, or a mapping: `qm set {vmid} --{key} mapping=NAME`"
            ),
        ));
    }
    out
}

fn named<'l>(plan: &Plan, live: &'l Inventory) -> Result<BTreeMap<String, &'l crate::base::drives::Drive>, Failure> {
    let sight = name(plan, live).map_err(unasked)?;
    Ok(sight.found.into_iter().filter_map(|found| Some((found.name, live.drives.get(found.at)?))).collect())
}

/// What a plan may not ask of a VM.
fn of_plan(plan: &Plan) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for (name, wanted) in &plan.drives {
        let serial = wanted.serial.trim();
        let same = plan.drives.values().filter(|other| other.serial.trim() == serial).count();
        if serial.is_empty() || same > 1 {
            let text =
                format!("{name} has no serial number of its own, and a host tells the drives of a VM by nothing else");
            out.push((text, format!("write `serial:` of {name}; two of one number are moved by hand")));
        }
        let slots = (Plan::slot_of(&plan.current, name), Plan::slot_of(&plan.target, name));
        match slots {
            (Some(_), Some(_)) => {}
            (None, _) => out.push((
                format!("{name} comes new, and no hostpci line hands it on"),
                "put it in and pass it through by hand first, then name it in `current`".into(),
            )),
            (Some(_), None) => out.push((
                format!("{name} leaves, and its hostpci line would stay, to whatever comes to that address"),
                "take its line out and the drive by hand, and leave it out of the plan".into(),
            )),
        }
    }
    for slot in plan.slots.iter().filter(|slot| slot.port.is_none()) {
        let of = format!("slot {} has no `port:`, and of the drives of a VM that is not learned", slot.name);
        out.push((
            of,
            "`pvemig survey --hardware HOST` shows the ports of what is in them; the board's manual has the rest"
                .into(),
        ));
    }
    out
}

/// The slots are those of the host that the VM is on.
fn of_site(cx: &Estate, vm: &Vm, plan: &Plan, host: &str) -> Option<(String, String)> {
    let settings = cx.site().proxmox.get(&vm.cluster)?.hosts.get(host);
    if settings.is_some_and(|settings| settings.slots == plan.slots) && !plan.slots.is_empty() {
        return None;
    }
    let text =
        format!("vm {} is on {host}, and the slots of the plan are not those of {host} in the site file", vm.vmid);
    Some((text, format!("give host {host} of `proxmox: {}:` its `slots:`, with position and port of each", vm.cluster)))
}
