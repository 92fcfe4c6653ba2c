//! The node, its slots, and the plan of its drives.

use std::collections::BTreeMap;

use crate::base::drives::{Plan, Purpose, Scenario, Slot, Wanted};
use crate::blueprint::machine::Machine;
use crate::blueprint::param::keys;
use crate::site::fields::{Fields, Item};
use crate::site::{Site, TalosNode};

use super::table::DRIVE;

/// What is to become of the drives of a node, as one migration has it.
pub(super) struct Core {
    pub(super) machine: Machine,
    pub(super) plan: Plan,
}

/// The node and its plan. What is wrong with the plan as a whole is said only where each part of it could be read.
pub(super) fn core(site: &Site, fields: &Fields<'_>) -> Option<Core> {
    let name = fields.need("node", "name a Talos node of `talos:`").and_then(|i| {
        let known = site.talos.values().flat_map(|cluster| cluster.nodes.keys().map(String::as_str));
        i.name_of("a Talos node", known.collect::<Vec<_>>().into_iter())
    });
    let words = [Scenario::Data, Scenario::SystemMoved, Scenario::SystemReplaced].map(|one| (one.word(), one));
    let scenario =
        fields.need("scenario", "write `data`, `system-moved` or `system-replaced`").and_then(|i| i.one_of(&words));
    let drives = fields
        .need("drives", "add a line for each drive, `sys: { serial: .., purpose: system }`")
        .and_then(|i| all(&i, wanted));
    let layout = |key: &str| {
        let help = "say which drive is in which slot, `{ M2_1: sys }`";
        fields.need(key, help).and_then(|i| all(&i, |i| i.text().map(str::to_owned)))
    };
    let (current, target) = (layout("current"), layout("target"));
    let machine = Machine::of(site, &name?)?;
    let (_, node) = site.talos_node(&machine.name)?;
    let plan =
        Plan { slots: slots(site, node), drives: drives?, current: current?, target: target?, scenario: scenario? };
    if machine.vm.is_some()
        && let Some((text, help)) = of_a_vm(&machine.name, &plan)
    {
        match fields.get("scenario") {
            Some(item) => item.problem(text, help),
            None => fields.problem(text, help),
        }
        return None;
    }
    let problems = plan.problems();
    for wrong in &problems {
        match at(fields, &wrong.at) {
            Some(item) => item.problem(wrong.text.clone(), wrong.help.clone()),
            None => fields.problem(wrong.text.clone(), wrong.help.clone()),
        }
    }
    problems.is_empty().then_some(Core { machine, plan })
}

/// What cannot be done with the system disk of a VM, and what leads there instead.
fn of_a_vm(name: &str, plan: &Plan) -> Option<(String, String)> {
    let word = plan.scenario.word();
    let in_a_slot = plan.drives.values().any(|wanted| wanted.purposes.contains(&Purpose::System));
    match plan.scenario {
        Scenario::Data => None,
        Scenario::SystemMoved if in_a_slot => None,
        Scenario::SystemMoved => Some((
            format!(
                "{name} is a VM, and no drive of the plan is its system disk: a virtual disk is in no slot, and is not moved"
            ),
            "write `scenario: data`; a virtual disk goes to another storage by `qm disk move`".into(),
        )),
        Scenario::SystemReplaced => Some((
            format!(
                "{name} is a VM: `{word}` boots a machine from a stick, and a drive that comes new no hostpci line hands on"
            ),
            "move its drives with `scenario: data`; a VM is installed anew by the blueprint `node-replace`".into(),
        )),
    }
}

/// The slots of a node; those of a VM are its host's, where the site file has slots of one host alone.
fn slots(site: &Site, node: &TalosNode) -> Vec<Slot> {
    let Some(vm) = node.vm.as_ref().filter(|_| node.slots.is_empty()) else { return node.slots.clone() };
    let hosts = site.proxmox.get(&vm.proxmox).into_iter().flat_map(|cluster| cluster.hosts.values());
    let with: Vec<&Vec<Slot>> = hosts.map(|host| &host.slots).filter(|slots| !slots.is_empty()).collect();
    match with.as_slice() {
        [only] => (*only).clone(),
        _ => Vec::new(),
    }
}

/// All entries of a mapping; each that is wrong is said.
fn all<T>(item: &Item<'_>, read: impl Fn(&Item<'_>) -> Option<T>) -> Option<BTreeMap<String, T>> {
    let entries = item.entries();
    let count = entries.len();
    let read: BTreeMap<String, T> =
        entries.iter().filter_map(|(name, item)| Some(((*name).to_owned(), read(item)?))).collect();
    (read.len() == count && item.value().is_object()).then_some(read)
}

/// What is at a key path below the parameters. Names may have dots in them.
fn at<'a>(fields: &Fields<'a>, path: &str) -> Option<Item<'a>> {
    let (first, mut rest) = path.split_once('.').unwrap_or((path, ""));
    let mut item = fields.get(first)?;
    while !rest.is_empty() {
        let below = |key: &str| rest == key || rest.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'));
        let Some((key, next)) = entries(&item).into_iter().find(|(key, _)| below(key)) else { break };
        rest = rest.get(key.len()..)?.trim_start_matches('.');
        item = next;
    }
    Some(item)
}

fn entries<'a>(item: &Item<'a>) -> Vec<(&'a str, Item<'a>)> {
    // Where it is none that has been said.
    if item.value().is_object() { item.entries() } else { Vec::new() }
}

/// What may be left out: nothing where it is wrong.
pub(super) fn transpose<T>(value: Option<Option<T>>) -> Option<Option<T>> {
    match value {
        None => Some(None),
        Some(read) => read.map(Some),
    }
}

fn wanted(item: &Item<'_>) -> Option<Wanted> {
    let fields = item.fields(&keys(DRIVE));
    let text = |key: &str| fields.get(key).map_or(Some(String::new()), |i| i.text().map(str::to_owned));
    let (serial, model) = (text("serial"), text("model"));
    let size = fields.get("size").map(|i| number(&i, "its size in bytes, as `talosctl get disks -o yaml` has it"));
    let partition = fields.get("partition").map(|i| i.text().map(str::to_owned));
    let new = fields.get("new").map_or(Some(false), |i| i.flag());
    let purposes = fields.need("purpose", "say what it is for: `system`, `user-volume NAME`, `mayastor POOL`, `spare`");
    let purposes = purposes.and_then(|i| {
        let help =
            "a purpose is `system`, `user-volume NAME`, `raw-volume NAME`, `mayastor POOL`, `local VOLUME` or `spare`";
        if !i.value().is_array() {
            return Some(vec![i.parse::<Purpose>(help)?]);
        }
        let list = i.list()?;
        if list.is_empty() {
            i.problem("`purpose` is an empty list", "write `spare` where nothing is on it");
            return None;
        }
        let read: Vec<Option<Purpose>> = list.iter().map(|one| one.parse(help)).collect();
        read.into_iter().collect()
    });
    Some(Wanted {
        serial: serial?.trim().to_owned(),
        model: model?.trim().to_owned(),
        size: transpose(size)?,
        partition: transpose(partition)?,
        purposes: purposes?,
        new: new?,
    })
}

pub(super) fn number(item: &Item<'_>, what: &str) -> Option<u64> {
    let number = item.value().as_u64().filter(|number| *number > 0);
    if number.is_none() {
        item.problem("it is to be a whole number of bytes", format!("write {what}"));
    }
    number
}
