//! What Proxmox is asked, once.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use tokio::sync::oneshot;

use crate::base::fault::Failure;
use crate::blueprint::rights::PveNeed;
use crate::estate::Estate;
use crate::proxmox::{
    ClusterStatus, Pending, Permissions, Proxmox, Resource, TaskRow, UsbMapping, Version, VmRef, VmStatus, usb_hotplugs,
};

use super::super::device::{Attach, Place, Sight, Vm};
use super::super::rights::proxmox::{self, Known, Routes};
use super::super::s05_reboot_vm::{Cycle, stale};
use super::finding::{Asked, Unknown, asked};
use super::{Preflight, pve_rights};

/// What Proxmox says.
pub(super) struct ProxmoxFacts {
    /// As whom it sees us.
    pub(super) caller: String,
    /// Whether that is root@pam itself.
    pub(super) root: bool,
    /// The version of the node that answered.
    pub(super) version: Version,
    /// Quorum and members.
    pub(super) status: Asked<ClusterStatus>,
    /// The VM that has the device.
    pub(super) source: Machine,
    /// The VM that gets it.
    pub(super) target: Machine,
    /// Whether the target's process runs what is configured.
    pub(super) cycle: Asked<Cycle>,
    /// What has to be allowed.
    pub(super) needs: Vec<PveNeed>,
    /// What these credentials may do, on the paths of what has to be allowed and on the hosts.
    pub(super) rights: Asked<Permissions>,
    /// The USB mappings that these credentials may see.
    pub(super) mappings: Asked<Vec<UsbMapping>>,
    /// Where the device is to be seen, by host.
    pub(super) hosts: BTreeMap<String, Asked<Sight>>,
    /// The hosts that were not looked at, as they are not online, with their state.
    pub(super) unseen: Asked<Vec<(String, String)>>,
    /// The other VMs of the hosts on which it is or will be.
    pub(super) others: Vec<(Resource, Asked<Pending>)>,
}

/// One of the two VMs.
pub(super) struct Machine {
    /// Its name.
    pub(super) vm: Vm,
    /// Its row in the cluster's list; None: it is not in it.
    pub(super) row: Option<Resource>,
    /// Its config and state; None where it is not there.
    pub(super) state: Option<Asked<State>>,
}

/// A VM's config and state.
pub(super) struct State {
    /// What is configured.
    pub(super) config: Pending,
    /// What it is.
    pub(super) status: VmStatus,
    /// The pve tasks that work on it, where it is locked.
    pub(super) tasks: Vec<TaskRow>,
}

impl Machine {
    /// Its config and state, where both are known.
    pub(super) fn known(&self) -> Option<&State> {
        self.state.as_ref()?.as_ref().ok()
    }

    /// Its host; empty where it is not there.
    pub(super) fn host(&self) -> &str {
        self.row.as_ref().map(|row| row.node.as_str()).unwrap_or_default()
    }
}

/// What becomes of the target's power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Power {
    /// It is off and will be started.
    Off,
    /// It waits for a power cycle already.
    Due,
    /// 04 will make one necessary.
    Coming,
    /// What 04 adds is plugged into the running guest.
    Stays,
    /// Nobody can tell.
    Unknown,
}

impl Power {
    /// The step to protect from a problem with the power cycle: before 04, 04a and 05 have nothing to do yet.
    pub(super) fn guards(self, step: &'static str) -> Option<&'static str> {
        match self {
            Self::Due => Some(step),
            Self::Coming => Some(super::on::ADD),
            Self::Off | Self::Stays | Self::Unknown => None,
        }
    }

    /// The steps to protect from a right that is lacking for the power cycle. A hot-plug may still fail: then what 04
    /// wrote waits for a power cycle, and by then it is too late. 05 has nothing to do before 04, so its own name alone
    /// would let the problem be dropped.
    pub(super) fn needs_right(self, step: &'static str) -> Vec<&'static str> {
        match self {
            Self::Off | Self::Due => vec![step],
            Self::Coming | Self::Stays => vec![super::on::ADD],
            Self::Unknown => vec![super::on::ADD, step],
        }
    }
}

impl ProxmoxFacts {
    /// The mappings, as far as they are known.
    pub(super) fn mappings(&self) -> &[UsbMapping] {
        self.mappings.as_deref().unwrap_or_default()
    }

    /// Where the device shows on a host.
    pub(super) fn places(&self, host: &str) -> &[Place] {
        self.hosts.get(host).and_then(|sight| sight.as_ref().ok()).map(Sight::places).unwrap_or_default()
    }

    /// The slots of a VM that name the device, with their values.
    pub(super) fn slots(&self, p: &Preflight, machine: &Machine) -> Vec<(String, String)> {
        let Some(state) = machine.known() else { return Vec::new() };
        p.device.slots_in(&state.config, machine.host(), self.places(machine.host()), self.mappings())
    }

    /// What becomes of the target's power.
    pub(super) fn power(&self, p: &Preflight) -> Power {
        match (&self.cycle, self.target.known()) {
            (_, Some(state)) if !state.status.is_running() => Power::Off,
            (Ok(Cycle::Start(_)), _) => Power::Off,
            (Ok(Cycle::Restart(_)), _) => Power::Due,
            (Ok(Cycle::NotNeeded), Some(state)) => {
                let of = |key: &str| state.config.configured(key);
                let plugs = usb_hotplugs(state.status.running_machine.as_deref(), of("ostype"), of("hotplug"));
                let there = self.slots(p, &self.target).len() >= p.slots_wanted(self.target.host());
                if plugs || there { Power::Stays } else { Power::Coming }
            }
            (Err(_), _) | (_, None) => Power::Unknown,
        }
    }
}

impl Preflight {
    /// How many `usbN` keys the device takes on a host.
    pub(super) fn slots_wanted(&self, host: &str) -> usize {
        match self.attach {
            Attach::Id => self.device.ids.len(),
            Attach::Port => 1 + usize::from(self.device.sockets.get(host).is_some_and(|s| s.sibling.is_some())),
            Attach::Mapping => 1,
        }
    }
}

/// Asks everything of Proxmox, and tells whether the target is off as soon as that is known.
///
/// # Errors
/// It does not answer at all, or not to these credentials.
pub(super) async fn ask(p: &Preflight, cx: &Estate, tell: oneshot::Sender<bool>) -> Result<ProxmoxFacts, Failure> {
    let pve = cx.proxmox(&p.vm.cluster).await?;
    let (version, rows) = futures::try_join!(pve.version(), pve.resources())?;
    let host = |vm: &Vm| rows.iter().find(|r| r.vmid == vm.vmid).map(|r| r.node.clone()).unwrap_or_default();
    let (from, to) = (host(&p.source), host(&p.vm));
    let routes = Routes::of(cx.site(), p);
    let likely = proxmox::needs(p, &routes, &Known::default());
    let nodes = [&from, &to].into_iter().filter(|host| !host.is_empty()).map(|host| format!("/nodes/{host}"));
    let paths: BTreeSet<String> = likely.into_iter().map(|need| need.path).chain(nodes).collect();
    let look = |host: String| async move {
        let sight = asked(p.device.look(cx, &p.vm.cluster, &host).await);
        (host, sight)
    };
    // A host that is off is not asked; the two that count always are.
    let both: BTreeSet<String> = [from.clone(), to.clone()].into_iter().filter(|h| !h.is_empty()).collect();
    let (status, nodes, mappings, held, source, target, runs, seen) = futures::join!(
        pve.cluster_status(),
        pve.nodes(),
        pve.usb_mappings(None),
        rights(&pve, paths),
        machine(&pve, &p.source, &rows),
        async {
            let target = machine(&pve, &p.vm, &rows).await;
            // Who would be told may have no use for it.
            let _heard = tell.send(target.known().is_some_and(|state| !state.status.is_running()));
            target
        },
        runs(&pve, &p.vm, &rows),
        join_all(both.iter().cloned().map(look)),
    );
    let cycle = cycle(&target, runs);
    let nodes = asked(nodes);
    let (online, off): (Vec<_>, Vec<_>) =
        nodes.as_deref().unwrap_or_default().iter().partition(|node| node.status == "online");
    let others = online.into_iter().map(|node| &node.node).filter(|host| !both.contains(*host));
    let mut hosts: BTreeMap<String, Asked<Sight>> = seen.into_iter().collect();
    hosts.extend(join_all(others.cloned().map(look)).await);
    let off: Vec<(String, String)> = off
        .into_iter()
        .filter(|node| !both.contains(&node.node))
        .map(|node| {
            let status = if node.status.is_empty() { "in a state that is not told" } else { &node.status };
            (node.node.clone(), status.to_owned())
        })
        .collect();
    let unseen = nodes.as_ref().map(|_| off).map_err(Clone::clone);
    let concerns = |row: &Resource| {
        let seen = hosts.get(&row.node).and_then(|s| s.as_ref().ok()).is_some_and(|s| !s.places().is_empty());
        let there = row.node == from || row.node == to || seen;
        let third = row.vmid != p.source.vmid && row.vmid != p.vm.vmid;
        row.kind == "qemu" && !row.template && third && there
    };
    let others: Vec<Resource> = rows.into_iter().filter(concerns).collect();
    let config = |row: Resource| {
        let pve = &pve;
        async move {
            let config = asked(pve.pending(&VmRef { node: row.node.clone(), vmid: row.vmid }).await);
            (row, config)
        }
    };
    let others = join_all(others.into_iter().map(config)).await;
    let mut facts = ProxmoxFacts {
        caller: pve.caller().to_owned(),
        root: pve.is_root(),
        version,
        status: asked(status),
        source,
        target,
        cycle,
        needs: Vec::new(),
        rights: asked(held),
        mappings: asked(mappings),
        hosts,
        unseen,
        others,
    };
    let own = |mappings: &Vec<UsbMapping>| mappings.iter().any(|m| Some(&m.id) == p.device.mapping.as_ref());
    let exists = facts.mappings.as_ref().ok().map(own);
    facts.needs = pve_rights::needs(p, &routes, &facts.slots(p, &facts.source), exists);
    if let Ok(known) = &mut facts.rights {
        // The source VM may have the device by a mapping of which the site file knows nothing.
        let paths: BTreeSet<String> =
            facts.needs.iter().map(|n| n.path.clone()).filter(|path| !known.0.contains_key(path)).collect();
        match rights(&pve, paths).await {
            Ok(more) => known.0.extend(more.0),
            Err(error) => facts.rights = Err(Failure::from(error).into()),
        }
    }
    Ok(facts)
}

/// What a VM's process was given; None where it is not there.
async fn runs(pve: &Proxmox, vm: &Vm, rows: &[Resource]) -> Option<Asked<BTreeMap<String, String>>> {
    let row = rows.iter().find(|row| row.vmid == vm.vmid && row.kind == "qemu")?;
    Some(asked(pve.running_config(&VmRef { node: row.node.clone(), vmid: row.vmid }).await))
}

/// Whether the target's process runs what is configured.
fn cycle(target: &Machine, runs: Option<Asked<BTreeMap<String, String>>>) -> Asked<Cycle> {
    let (Some(state), Some(runs)) = (&target.state, runs) else {
        return Err(Unknown { text: format!("there is no vm {}", target.vm.vmid), help: None });
    };
    let state = state.as_ref().map_err(Clone::clone)?;
    let stale = if state.status.is_running() { stale(target.vm.vmid, &state.config, &runs?) } else { Vec::new() };
    Ok(Cycle::of(&state.status, stale))
}

/// What is held on each of the paths; nothing is an answer too.
async fn rights(pve: &Proxmox, paths: BTreeSet<String>) -> Result<Permissions, crate::proxmox::Error> {
    let one = |path: &String| {
        let path = path.clone();
        async move { pve.permissions(Some(&path)).await }
    };
    let answers = join_all(paths.iter().map(one)).await;
    let mut all = Permissions(paths.iter().map(|path| (path.clone(), BTreeMap::new())).collect());
    for answer in answers {
        all.0.extend(answer?.0);
    }
    Ok(all)
}

async fn machine(pve: &Proxmox, vm: &Vm, rows: &[Resource]) -> Machine {
    let row = rows.iter().find(|row| row.vmid == vm.vmid).cloned();
    let state = match &row {
        Some(row) if row.kind == "qemu" => {
            let at = VmRef { node: row.node.clone(), vmid: row.vmid };
            Some(asked(state(pve, &at).await))
        }
        _ => None,
    };
    Machine { vm: vm.clone(), row, state }
}

async fn state(pve: &Proxmox, at: &VmRef) -> Result<State, crate::proxmox::Error> {
    let (config, mut status) = futures::try_join!(pve.pending(at), pve.status(at))?;
    let mut tasks = Vec::new();
    if let Some(lock) = &status.lock {
        tasks = pve.at_work_on(at, lock).await?;
        if tasks.is_empty() {
            // What held it may have ended between the two questions, and the next one begun.
            status = pve.status(at).await?;
            if let Some(lock) = &status.lock {
                tasks = pve.at_work_on(at, lock).await?;
            }
        }
    }
    Ok(State { config, status, tasks })
}

#[cfg(test)]
mod tests {
    use super::super::on;
    use super::*;

    #[test]
    fn a_right_for_the_power_cycle_is_asked_for_before_there_is_no_way_back() {
        let table = [
            (Power::Off, vec![on::REBOOT]),
            (Power::Due, vec![on::REBOOT]),
            (Power::Coming, vec![on::ADD]),
            (Power::Stays, vec![on::ADD]),
            (Power::Unknown, vec![on::ADD, on::REBOOT]),
        ];
        for (power, steps) in table {
            assert_eq!(power.needs_right(on::REBOOT), steps, "{power:?}");
        }
    }
}
