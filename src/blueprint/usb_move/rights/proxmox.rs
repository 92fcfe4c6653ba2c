//! What is needed of a user or token in Proxmox.
//!
//! Which call takes which privilege is in the `permissions` of each API method (qemu-server `PVE/API2/Qemu.pm` and
//! `Qemu/Agent.pm`, pve-manager `PVE/API2/Cluster/Mapping/USB.pm`, `Hardware/PCI.pm` beside it, `PVE/API2/Cluster.pm`).

use crate::blueprint::rights::{Privilege, PveNeed, Weight};
use crate::site::{Access, Site};

use super::super::device::Attach;
use super::super::{Preflight, on};

/// To read a VM's config and state.
pub(in super::super) const AUDIT: Privilege = Privilege::same("VM.Audit");
/// To set and delete `usbN` by a mapping.
const HARDWARE: Privilege = Privilege::same("VM.Config.HWType");
/// To start, shut down, stop and reboot.
const POWER: Privilege = Privilege::same("VM.PowerMgmt");
/// To run a program through the guest agent.
pub(in super::super) const AGENT: Privilege = Privilege { old: "VM.Monitor", new: "VM.GuestAgent.Unrestricted" };
/// To name a mapping in a VM's config.
const USE: Privilege = Privilege::same("Mapping.Use");
/// To make, change and delete mappings.
const MODIFY: Privilege = Privilege::same("Mapping.Modify");
/// To see whether the cluster has quorum, and other people's pve tasks.
const SYSTEM: Privilege = Privilege::same("Sys.Audit");
/// To read a host's USB list.
pub(in super::super) const BUS: Privilege = Privilege::same("Sys.Modify");

/// The routes into the two guests.
pub(in super::super) struct Routes {
    /// Into that of the VM that has the device.
    pub(in super::super) source: Vec<Access>,
    /// Into that of the VM that gets it.
    pub(in super::super) target: Vec<Access>,
}

impl Routes {
    /// As the site file names them.
    pub(in super::super) fn of(site: &Site, p: &Preflight) -> Self {
        let of = |node: &str| site.nodes.get(node).map(|node| node.access.clone()).unwrap_or_default();
        Self { source: of(&p.source.node), target: of(&p.vm.node) }
    }
}

/// What was seen of the estate. Nothing of it: what the site file tells.
#[derive(Default)]
pub(in super::super) struct Known {
    /// How the source VM has the device; None: not known.
    pub(in super::super) source: Option<Has>,
    /// Whether the mapping that the site names is there; None: not known.
    pub(in super::super) exists: Option<bool>,
}

/// How a VM has the device.
pub(in super::super) struct Has {
    /// By raw entries, which are root@pam's alone: no privilege helps there.
    pub(in super::super) raw: bool,
    /// By these mappings.
    pub(in super::super) mappings: Vec<String>,
}

/// Every privilege that a step needs, with the path.
pub(in super::super) fn needs(p: &Preflight, routes: &Routes, known: &Known) -> Vec<PveNeed> {
    let mut all = Vec::new();
    let mut add = |steps: &[&'static str], path: &str, privilege: Privilege, purpose: String, weight: Weight| {
        all.push(PveNeed { steps: steps.to_vec(), path: path.to_owned(), privilege, purpose, weight });
    };
    let lost = |text: &str| Weight::Optional(text.to_owned());
    let (from, to) = (p.source.vmid, p.vm.vmid);
    let (source, target) = (format!("/vms/{from}"), format!("/vms/{to}"));
    let own = p.device.mapping.as_ref().filter(|_| p.attach == Attach::Mapping);
    let has = known.source.as_ref();
    add(
        &[on::REMOVE, on::PREFLIGHT, on::ADD],
        &source,
        AUDIT,
        format!("reading the config of vm {from}"),
        Weight::Needed,
    );
    let after = [on::ADD, on::PREFLIGHT, on::HOST, on::DRAIN, on::REBOOT, on::WAIT, on::GUEST];
    add(&after, &target, AUDIT, format!("reading the config of vm {to}"), Weight::Needed);
    add(&[on::REBOOT], &target, POWER, format!("the power cycle of vm {to}"), Weight::Needed);
    if has.is_none_or(|has| !has.raw) {
        add(&[on::REMOVE], &source, HARDWARE, format!("taking the device from vm {from}"), Weight::Needed);
    }
    let by = has.map_or_else(|| own.cloned().into_iter().collect(), |has| has.mappings.clone());
    for name in &by {
        let path = format!("/mapping/usb/{name}");
        add(&[on::REMOVE], &path, USE, format!("taking mapping {name} from vm {from}"), Weight::Needed);
        // By then the device may show its other id, and the mapping with the former one would give the VM nothing.
        if own != Some(name) {
            let why = format!("giving the device back to vm {from} by mapping {name} at an undo");
            add(&[on::REMOVE], &path, MODIFY, why, Weight::Needed);
        }
    }
    if let Some(name) = own {
        let path = format!("/mapping/usb/{name}");
        add(&[on::ADD], &target, HARDWARE, format!("passing the device to vm {to}"), Weight::Needed);
        add(&[on::ADD], &path, USE, format!("passing mapping {name} to vm {to}"), Weight::Needed);
        // Which id the device shows changes with its use, so the entry is written now and refreshed by 05.
        let why = format!("writing mapping {name} for the host of vm {to}");
        add(&[on::ADD, on::REBOOT, on::REMOVE], &path, MODIFY, why, Weight::Needed);
        let making = match known.exists {
            Some(true) => None,
            Some(false) => Some(Weight::Needed),
            None => Some(Weight::If(format!("there is no mapping {name} yet"))),
        };
        if let Some(weight) = making {
            add(
                &[on::ADD],
                "/mapping/usb",
                MODIFY,
                format!("making mapping {name}, and deleting it at an undo"),
                weight,
            );
        }
    }
    let without = lost("whether the cluster has quorum is not known beforehand, nor who holds the lock of a VM");
    add(&[on::PREFLIGHT], "/", SYSTEM, "the state of the cluster".into(), without);
    let without = lost("the check of the mapping, or ssh to the host, has to serve instead");
    let looks = [on::HOST, on::PREFLIGHT, on::REMOVE, on::ADD, on::REBOOT];
    add(&looks, "/", BUS, "the USB lists of the hosts".into(), without);
    let without = lost("another VM that passes the device too is not seen");
    add(&[on::PREFLIGHT], "/vms", AUDIT, "the configs of the other VMs".into(), without);
    if routes.target.contains(&Access::Agent) {
        let only = routes.target.iter().all(|route| *route == Access::Agent);
        let without = lost("only the other routes of the site file lead into that guest");
        let weight = if only { Weight::Needed } else { without };
        let steps = [on::WAIT, on::PREFLIGHT, on::GUEST, on::DRIVERS, on::CLAIMS];
        add(&steps, &target, AGENT, format!("the guest agent of vm {to} as a way in"), weight);
    }
    if routes.source.contains(&Access::Agent) {
        let without = lost(&format!("how much is on the volumes that stay is not told where ssh to vm {from} fails"));
        add(&[on::PREFLIGHT], &source, AGENT, format!("the guest agent of vm {from} as a way in"), without);
    }
    all
}
