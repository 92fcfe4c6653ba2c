//! A node as it was surveyed against how it is: pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::base::check::Problem;
use crate::base::drives::{Inventory, Plan, Scenario, name};
use crate::base::survey::{Disk, EtcdSeat, Kubelet, Layer, Node, Talos};

use super::super::volumes::Judged;
use super::{has_local, local_of};

/// What is not held against the survey, with the reason: only time changes it, or a rule of its own looks at it. Paths as in
/// the file, without `known`; `*` is any one part.
const NOT_HELD: &[(&str, &str)] = &[
    ("talos/boot-id", "each boot has one of its own"),
    ("kubelet/boot-id", "each boot has one of its own"),
    ("talos/ahead-s", "it is measured anew each time"),
    (
        "talos/memory",
        "programs take of it as they go, and the kernel keeps a little more or less at each boot; its sum has a rule",
    ),
    ("talos/disks", "the kernel's names go by the order in which drives answer; each drive has a rule"),
    ("talos/system-disk", "a name of the kernel's; its installation has a rule"),
    ("talos/volumes", "below names of the kernel's; each volume has a rule"),
    ("talos/pci", "bus numbers move when a neighbouring slot is filled; what is plugged in has a rule"),
    ("talos/config/volumes", "06 looks at each of them"),
    ("talos/version/tag", "it has a rule"),
    ("talos/schematic", "it has a rule"),
    ("talos/system-uuid", "it has a rule"),
    ("kubelet/registered", "it has a rule"),
    ("kubelet/uid", "it has a rule"),
    ("talos/stage", "it is asked for by itself"),
    ("talos/ready", "it is asked for by itself"),
    ("talos/unmet", "it is asked for by itself"),
    ("talos/services", "each is asked for by itself; what it said last changes as it goes"),
    ("kubelet/ready", "it is asked for by itself"),
    ("kubelet/reason", "it is asked for by itself"),
    ("kubelet/unheard-since", "it is asked for by itself"),
    ("kubelet/allocatable", "the kubelet reckons it anew at each start"),
    ("etcd/id", "it has a rule"),
    ("etcd/seat", "the leadership was handed over"),
    ("etcd/leader", "the leadership was handed over"),
    ("etcd/raft-term", "it counts elections"),
    ("etcd/raft-index", "it counts what is written"),
    ("etcd/raft-applied", "it counts what is written"),
    ("etcd/db-size", "it grows with what is written, and a member that joins anew begins small"),
    ("etcd/db-in-use", "it grows with what is written"),
    ("etcd/answered-ms", "it is measured anew each time"),
    ("etcd/members", "it has a rule"),
];
/// How much less memory is a module that has come loose: a sixteenth; the kernel's own share changes by less.
const LESS: u64 = 16;

/// A node that was taken apart and put together again.
pub(super) fn node(plan: &Plan, then: &Node, now: &Node) -> Judged {
    let mut out = Judged::default();
    let replaced = plan.scenario == Scenario::SystemReplaced;
    if let Some((then, now)) = both("Talos", &then.talos, &now.talos, &mut out) {
        talos(replaced, then, now, &mut out);
    }
    if let Some((then, now)) = both("the kubelet", &then.kubelet, &now.kubelet, &mut out) {
        kubelet(then, now, &mut out);
    }
    if let Some((then, now)) = both("its member of etcd", &then.etcd, &now.etcd, &mut out) {
        etcd(replaced, then, now, &mut out);
    }
    rest(then, now, &mut out);
    out
}

/// What can be held against each other. What was known and is not now is waited for.
fn both<'n, T>(what: &str, then: &'n Layer<T>, now: &'n Layer<T>, out: &mut Judged) -> Option<(&'n T, &'n T)> {
    match (then, now) {
        (Layer::Known(then), Layer::Known(now)) => return Some((then, now)),
        (Layer::Known(_), Layer::Unknown { reason, .. }) => {
            out.waits.push(format!("{what} was known before, and is not now: {reason}"));
        }
        (Layer::Known(_), Layer::Absent) => out.waits.push(format!("{what} was there before, and is not now")),
        (Layer::Unknown { reason, .. }, _) => {
            out.notes.push(format!("{what} was not known before ({reason}), and is held against nothing"));
        }
        (Layer::Absent, _) => {}
    }
    None
}

fn talos(replaced: bool, then: &Talos, now: &Talos, out: &mut Judged) {
    let mut refuse = |text: String, help: &str| out.problems.push(Problem::new(text, help));
    let other = "see the boot order of its firmware, and what else is plugged in";
    let uuids = (then.system_uuid.known(), now.system_uuid.known());
    if let (Some(was), Some(is)) = uuids
        && was != is
    {
        refuse(
            format!("the firmware had the uuid {was}, and has {is}: that is another machine"),
            "correct `address` in the site file, or put its name back to the machine that it was",
        );
    }
    let show = |talos: &Talos| {
        let schematic = talos.schematic.known().map(|id| format!(" of schematic {}", id.get(..8).unwrap_or(id)));
        format!("{}{}", talos.version.tag, schematic.unwrap_or_default())
    };
    let images = (then.schematic.known(), now.schematic.known());
    if then.version.tag != now.version.tag || matches!(images, (Some(was), Some(is)) if was != is) {
        let text = format!("it ran Talos {}, and runs {}", show(then), show(now));
        if replaced { out.notes.push(text) } else { refuse(text, other) }
    }
    if !replaced
        && let (Some(was), Some(is)) = (meta(then), meta(now))
        && was != is
    {
        out.problems.push(Problem::new(
            format!("it ran from the installation with the partition META {was}, and runs from another one, {is}"),
            other,
        ));
    }
    if let Some((was, is)) = both("its memory", &then.memory, &now.memory, out)
        && is.total < was.total - was.total / LESS
    {
        out.notes.push(format!(
            "its memory was {}, and is {}: a module may have come loose",
            crate::base::check::bytes(was.total),
            crate::base::check::bytes(is.total)
        ));
    }
    if let Some((was, is)) = both("its disks", &then.disks, &now.disks, out) {
        disks((then, was), (now, is), out);
    }
    if let Some((was, is)) = both("what is on PCI", &then.pci, &now.pci, out) {
        let mut left: Vec<(&str, &str)> =
            is.iter().map(|one| (one.vendor_id.as_str(), one.product_id.as_str())).collect();
        // Drives have come and gone.
        for one in was.iter().filter(|one| one.class_id != "0x01") {
            match left.iter().position(|ids| *ids == (one.vendor_id.as_str(), one.product_id.as_str())) {
                Some(at) => drop(left.swap_remove(at)),
                None => {
                    out.notes.push(format!("{} {} was on PCI, and is not now: is it seated?", one.vendor, one.product))
                }
            }
        }
    }
}

/// The uuid of META's partition on the disk that it is installed on.
fn meta(talos: &Talos) -> Option<&str> {
    let system = talos.system_disk.known()?;
    let volumes = talos.volumes.known()?;
    let found = volumes.iter().find(|one| one.partition_label == "META" && one.disk() == system.id)?;
    Some(found.partition_uuid.as_str()).filter(|uuid| !uuid.is_empty())
}

/// The disks that are in no slot. For those of NVMe the matching of drives answers, a stranger among them too.
fn disks((then, was): (&Talos, &[Disk]), (now, is): (&Talos, &[Disk]), out: &mut Judged) {
    let marks = |talos: &Talos, disk: &Disk| -> BTreeSet<String> {
        let on = talos.volumes.known().into_iter().flatten().filter(|one| one.disk() == disk.id);
        on.map(|one| one.partition_uuid.to_lowercase()).filter(|uuid| !uuid.is_empty()).collect()
    };
    let shown = |disk: &Disk| format!("{} {}", disk.model.trim(), disk.serial.trim());
    let in_no_slot = |disk: &&Disk| disk.transport != "nvme";
    let mut left: Vec<&Disk> = is.iter().filter(in_no_slot).collect();
    for disk in was.iter().filter(in_no_slot) {
        let on = marks(then, disk);
        let same = |other: &&Disk| {
            let named = (disk.serial.trim(), disk.model.trim(), disk.size);
            let by_name =
                !disk.serial.trim().is_empty() && named == (other.serial.trim(), other.model.trim(), other.size);
            let by_marks = !on.is_empty() && on == marks(now, other);
            by_marks || by_name || (on.is_empty() && named == (other.serial.trim(), other.model.trim(), other.size))
        };
        match left.iter().position(same) {
            Some(at) => drop(left.swap_remove(at)),
            // A stick with an image has done its work.
            None if disk.transport == "usb" => out.notes.push(format!("{} is not plugged in any more", shown(disk))),
            None => out.problems.push(Problem::new(
                format!("{} was in the machine, is none that is moved, and is not there any more", shown(disk)),
                "see its cables: nothing was to be done with it; `talosctl get disks` shows it once it is back",
            )),
        }
    }
    out.notes.extend(left.into_iter().map(|disk| format!("{} is in the machine, and was not", shown(disk))));
}

fn kubelet(then: &Kubelet, now: &Kubelet, out: &mut Judged) {
    if !now.registered {
        out.waits.push("Kubernetes has no such node".into());
    } else if !then.uid.is_empty() && then.uid != now.uid {
        out.problems.push(Problem::new(
            format!("the node has another uid than before ({}, and was {}): somebody made it anew", now.uid, then.uid),
            "see what was lost with it: labels, annotations, volumes that name it",
        ));
    }
}

fn etcd(replaced: bool, then: &EtcdSeat, now: &EtcdSeat, out: &mut Judged) {
    let voters = |seat: &EtcdSeat| {
        let members = seat.members.known()?;
        Some(members.iter().filter(|member| !member.learner).count())
    };
    if let (Some(was), Some(is)) = (voters(then), voters(now))
        && is < was
    {
        out.waits.push(format!("etcd had {was} voters, and has {is}"));
    }
    let is_member = |id: &str| now.members.known().is_some_and(|all| all.iter().any(|member| member.id == id));
    if then.id == now.id {
        return;
    }
    if !replaced {
        out.problems.push(Problem::new(
            format!("its member of etcd was {}, and is {}: it has joined anew", then.id, now.id),
            "its data was lost in between: see that its system disk is the one of before",
        ));
    } else if is_member(&then.id) {
        out.waits.push(format!("its former member of etcd, {}, is still one", then.id));
    } else {
        out.notes.push(format!("its member of etcd was {}, and is {}", then.id, now.id));
    }
}

/// Everything else that differs, for a person to look at.
fn rest(then: &Node, now: &Node, out: &mut Judged) {
    let (was, is) = (flat(then), flat(now));
    let paths: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
    for path in paths.into_iter().filter(|path| !NOT_HELD.iter().any(|(pattern, _)| covers(pattern, path))) {
        let show = |value: Option<&String>| value.map_or("not there", String::as_str).to_owned();
        let (was, is) = (show(was.get(path)), show(is.get(path)));
        if was != is {
            out.notes.push(format!("{path} was {was}, and is {is}"));
        }
    }
}

/// What Talos, the kubelet and etcd tell, by its path in the file.
fn flat(node: &Node) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let value = |name: &str, value: Result<Value, serde_json::Error>, out: &mut BTreeMap<String, String>| {
        walk(name, &value.unwrap_or_default(), out);
    };
    value("talos", serde_json::to_value(&node.talos), &mut out);
    value("kubelet", serde_json::to_value(&node.kubelet), &mut out);
    value("etcd", serde_json::to_value(&node.etcd), &mut out);
    out
}

fn walk(path: &str, value: &Value, out: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(map) if map.len() == 1 && map.contains_key("known") => {
            map.values().for_each(|value| walk(path, value, out));
        }
        Value::Object(map) if map.contains_key("unknown") => drop(out.insert(path.to_owned(), "not known".into())),
        Value::Object(map) => map.iter().for_each(|(key, value)| walk(&format!("{path}/{key}"), value, out)),
        Value::Array(list) => {
            for (at, value) in list.iter().enumerate() {
                let named = ["id", "name", "member"].iter().find_map(|key| value.get(*key)?.as_str());
                match (named, value) {
                    (Some(name), _) => walk(&format!("{path}/{name}"), value, out),
                    (None, Value::Object(_) | Value::Array(_)) => walk(&format!("{path}/{at}"), value, out),
                    (None, scalar) => drop(out.insert(format!("{path}/{}", text(scalar)), "there".into())),
                }
            }
        }
        scalar => drop(out.insert(path.to_owned(), text(scalar))),
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn covers(pattern: &str, path: &str) -> bool {
    let mut parts = path.split('/');
    pattern.split('/').all(|wanted| parts.next().is_some_and(|part| wanted == "*" || wanted == part))
}

/// Local volumes on the drives that they were on. `there`: those that Kubernetes has by now.
pub(super) fn local(plan: &Plan, before: &Inventory, live: &Inventory, there: &[&str]) -> Judged {
    let mut out = Judged::default();
    // Which is which 05 has answered; a drive that this cannot name is known by its serial number and what is on it.
    let known = |inventory: &Inventory| name(plan, inventory).unwrap_or_default();
    let (then, now) = (known(before), known(live));
    for (at, drive) in before.drives.iter().enumerate() {
        let own = then.found.iter().find(|found| found.at == at).map(|found| found.name.as_str());
        let leaves = own.is_some_and(|own| Plan::slot_of(&plan.target, own).is_none());
        for volume in local_of(drive) {
            let was = own.map_or_else(|| drive.shown(), str::to_owned);
            if leaves {
                out.notes.push(format!("local volume {volume} has left with {was}"));
                continue;
            }
            if !there.contains(&volume) {
                out.notes.push(format!("local volume {volume}, which was on {was}, is deleted"));
                continue;
            }
            let Some(on) = has_local(live, volume) else {
                let why = live.not_asked.first().map(|why| format!(": {why}")).unwrap_or_default();
                out.waits.push(format!("local volume {volume} was on {was}, and is on no drive that is mounted{why}"));
                continue;
            };
            let at = live.drives.iter().position(|drive| drive.id == on.id);
            let is = now.found.iter().find(|found| Some(found.at) == at).map(|found| found.name.as_str());
            let same = match (own, is) {
                (Some(was), Some(is)) => was == is,
                _ => drive.marks() == on.marks() || drive.serial() == on.serial(),
            };
            if same {
                out.notes.push(format!("local volume {volume} is on {was}, as before"));
            } else {
                out.problems.push(Problem::new(
                    format!("local volume {volume} was on {was}, and its directory is on {} now", on.shown()),
                    "what is mounted at its path is another volume: `talosctl mounts`; let no pod write there",
                ));
            }
        }
    }
    out
}
