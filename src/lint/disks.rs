//! Disks: how a configuration names them, and what is on those that it means.

use crate::base::selector::{self, By, Selector};
use crate::base::survey::{Disk, Layer, MachineConfig, Node, Talos};

use super::{Explain, Out, Rule, each, quoted, talosctl};

pub(super) const RULES: &[Rule] = &[
    Rule {
        number: "L06",
        title: "a configuration names a disk by the kernel's name or by its socket",
        explain: Explain {
            wrong: "`/dev/sda` is whatever the firmware finds first: with a stick in a USB socket it is the stick, with two NVMe \
                    disks it is the one that answered first. Nothing happens until the node is installed anew or a volume \
                    is made; then it is made on the wrong disk.",
            shows: "Not at all, until it is too late. `talosctl get disks` after a boot with something else plugged in.",
            by_hand: "`talosctl get disks -o yaml` first, to see which disk is meant; then `talosctl patch mc --mode=no-reboot` with its \
                      name below /dev/disk/by-id/, or a selector by serial or wwid. It changes what the next installation takes, and \
                      nothing before; so it comes before a node is installed anew, and after a lost majority of etcd is mended.",
            source: "siderolabs/talos issues 14228, 4766, 11288; siderolabs/omni issue 1090",
        },
        silences: &[],
        look: |survey, out| each(survey, out, |node, out| judge(node, out, moving)),
    },
    Rule {
        number: "L07",
        title: "a disk selector matches no disk",
        explain: Explain {
            wrong: "The installation fails and the node tries again and reboots; a volume stays in `waiting`, and what mounts \
                    it does not start.",
            shows: "`talosctl dmesg`: `no disks matched the expression`; `talosctl get volumestatus`: `waiting` or `failed`.",
            by_hand: "`talosctl get disks -o yaml`, and a selector that fits one of them.",
            source: "siderolabs/talos installer, `MatchDisks`",
        },
        silences: &[],
        look: |survey, out| each(survey, out, |node, out| judge(node, out, none)),
    },
    Rule {
        number: "L08",
        title: "a disk selector matches several disks",
        explain: Explain {
            wrong: "Talos takes the first in its own order and says nothing of the others. `type: ssd` has wiped a data disk in \
                    this way.",
            shows: "Not at all: the installation succeeds.",
            by_hand: "`talosctl get disks -o yaml`, and a selector by serial or wwid.",
            source: "siderolabs/talos issue 12370; installer, the first of `MatchDisks`",
        },
        silences: &[],
        look: |survey, out| each(survey, out, |node, out| judge(node, out, several)),
    },
    Rule {
        number: "L09",
        title: "a disk selector matches a disk that holds something else",
        explain: Explain {
            wrong: "An installation formats the disk that it is given, whatever is on it; a volume is not made on one that is \
                    not empty.",
            shows: "`talosctl get discoveredvolumes` shows file systems or partitions on the disk that is meant.",
            by_hand: "`talosctl patch mc` with the disk that is meant. `talosctl wipe disk` only for one whose data somebody has looked at \
                      and may be lost: a disk of an old node may hold the last copy of its etcd or of a local volume.",
            source: "siderolabs/talos installer and `block.VolumeManagerController`",
        },
        silences: &[],
        look: |survey, out| each(survey, out, |node, out| judge(node, out, occupied)),
    },
    Rule {
        number: "L10",
        title: "two disks of a node have the same serial number",
        explain: Explain {
            wrong: "Nothing tells them apart by serial: a selector means both, and the names below /dev/disk/by-id go to \
                    whichever came last. Cheap enclosures give all their disks one serial.",
            shows: "`talosctl get disks` has a serial twice.",
            by_hand: "Choose them by wwid or model; in a VM give each drive line a `serial=` of its own.",
            source: "udev 60-persistent-storage.rules; qemu-server, drive option `serial`",
        },
        silences: &[],
        look: |survey, out| each(survey, out, same_serial),
    },
];

/// What is known of one selector.
struct Case<'a> {
    node: &'a Node,
    talos: &'a Talos,
    selector: &'a Selector<'a>,
    /// The disks that it means now.
    means: Result<Vec<&'a Disk>, String>,
    disks: &'a [Disk],
}

/// Looks at each selector of a node's configuration.
fn judge(node: &Node, out: &mut Out, one: impl Fn(&Case<'_>, &mut Out) -> Option<()>) -> Option<()> {
    let talos = out.need(&node.name, &node.talos)?;
    let config: &MachineConfig = out.need(&node.name, &talos.config)?;
    let disks = out.part(&node.name, &talos.disks, "disks")?;
    for selector in &selector::all(config) {
        let case = Case { node, talos, selector, means: selector.means(talos, disks), disks };
        let _ = one(&case, out);
    }
    Some(())
}

impl<'a> Case<'a> {
    /// The system disk, where there is one.
    fn system(&self) -> Option<&'a Disk> {
        let id = &self.talos.system_disk.known()?.id;
        self.disks.iter().find(|disk| disk.id == *id)
    }

    fn is_system(&self, disk: &Disk) -> bool {
        self.talos.system_disk.known().is_some_and(|system| system.id == disk.id)
    }

    /// A disk by what a person knows it by.
    fn named(&self, disk: &Disk) -> String {
        let serial = if disk.serial.is_empty() { String::new() } else { format!(" {}", disk.serial) };
        let system = if self.is_system(disk) { ", the disk that it runs from" } else { "" };
        format!("{} ({}{serial}{system})", disk.id, disk.model)
    }

    /// The disks that it means where it will be asked again: a volume that is made is found by its label.
    fn matched(&self, out: &mut Out) -> Option<&[&'a Disk]> {
        if self.selector.moves() || self.selector.volume.as_ref().is_some_and(String::is_empty) {
            return None;
        }
        if let Some(label) = &self.selector.volume {
            let volumes = out.part(&self.node.name, &self.talos.volumes, "volumes")?;
            if volumes.iter().any(|volume| volume.partition_label == *label || volume.label == *label) {
                return None;
            }
        }
        match &self.means {
            Ok(disks) => Some(disks),
            Err(why) => {
                out.cannot(&self.node.name, format!("{} cannot be told here: {why}", self.selector.shown()));
                None
            }
        }
    }

    /// A disk for what the selector is for: the one that it runs from, else none.
    fn patch(&self, disk: Option<&Disk>) -> String {
        let stable = disk.and_then(|disk| {
            // The name with the serial in it says most.
            let mut links: Vec<&String> = disk.symlinks.iter().filter(|l| l.starts_with("/dev/disk/by-id/")).collect();
            links.sort_by_key(|link| (disk.serial.is_empty() || !link.contains(&disk.serial), link.len()));
            links.first().map(|link| link.as_str())
        });
        match (&self.selector.by, stable) {
            (By::Path(_), Some(link)) if self.selector.volume.is_none() => {
                let patch = format!(r#"{{"machine":{{"install":{{"disk":"{link}"}}}}}}"#);
                talosctl(self.node, &format!("patch mc --mode=no-reboot --patch '{patch}'"))
            }
            _ => {
                let what = disk.filter(|_| self.selector.volume.is_none()).map_or_else(
                    || "the serial or wwid of the disk that is meant (`talosctl get disks`)".to_owned(),
                    |disk| match (disk.serial.as_str(), disk.wwid.as_str()) {
                        ("", "") => "what nothing else has (it has neither serial nor wwid)".to_owned(),
                        ("", wwid) => format!("wwid {wwid}"),
                        (serial, _) => format!("serial {serial}"),
                    },
                );
                format!("name it by {what}: {}", talosctl(self.node, "edit mc --mode=no-reboot"))
            }
        }
    }
}

fn moving(case: &Case<'_>, out: &mut Out) -> Option<()> {
    if !case.selector.moves() {
        return None;
    }
    let mut text =
        format!("its configuration has `{}`, which may be another disk after the next boot", case.selector.shown());
    match &case.means {
        Ok(disks) => match disks.as_slice() {
            [] => text.push_str("; now it is none"),
            [disk] => text.push_str(&format!("; now it is {}", case.named(disk))),
            several => {
                let named: Vec<String> = several.iter().map(|disk| case.named(disk)).collect();
                text.push_str(&format!("; now it is any of {}", named.join(", ")));
            }
        },
        Err(why) => text.push_str(&format!("; what it is now cannot be told ({why})")),
    }
    if let (Some(system), None) = (case.system(), &case.selector.volume)
        && case.means.as_ref().is_ok_and(|disks| !disks.iter().any(|disk| case.is_system(disk)))
    {
        text.push_str(&format!("; it runs from {}", case.named(system)));
    }
    out.find(&case.node.name, text, case.patch(case.system()));
    Some(())
}

fn none(case: &Case<'_>, out: &mut Out) -> Option<()> {
    if !case.matched(out)?.is_empty() {
        return None;
    }
    let what =
        if case.selector.volume.is_none() { "an installation from it fails" } else { "its volume cannot be made" };
    let text = format!("`{}` matches none of its {} disks: {what}", case.selector.shown(), case.disks.len());
    out.find(&case.node.name, text, case.patch(case.system()));
    Some(())
}

fn several(case: &Case<'_>, out: &mut Out) -> Option<()> {
    let disks = case.matched(out)?;
    let (first, others) = disks.split_first()?;
    // Disks that nothing tells apart are another rule's.
    let alike = !first.serial.is_empty() && others.iter().all(|disk| disk.serial == first.serial);
    if others.is_empty() || alike {
        return None;
    }
    let named: Vec<String> = disks.iter().map(|disk| case.named(disk)).collect();
    let text = format!(
        "`{}` matches {} disks, and Talos takes the first that comes: {}",
        case.selector.shown(),
        disks.len(),
        named.join(", ")
    );
    out.find(&case.node.name, text, case.patch(case.system()));
    Some(())
}

fn occupied(case: &Case<'_>, out: &mut Out) -> Option<()> {
    let [disk] = case.matched(out)? else { return None };
    if let Layer::Unknown { reason, .. } = &case.talos.system_disk {
        out.cannot(&case.node.name, reason.as_str());
        return None;
    }
    if case.is_system(disk) {
        return None;
    }
    let volumes = out.part(&case.node.name, &case.talos.volumes, "volumes")?;
    let held = volumes.iter().filter(|volume| volume.disk() == disk.id).filter(|volume| {
        // An installation takes the whole disk; a volume takes what is free beside the partitions.
        let whole = volume.parent.is_empty();
        match case.selector.volume {
            None => !(volume.content.is_empty() || whole && volume.content == "gpt"),
            Some(_) => whole && !matches!(volume.content.as_str(), "" | "gpt"),
        }
    });
    let held: Vec<String> = held
        .map(|volume| {
            let label = if volume.partition_label.is_empty() { &volume.label } else { &volume.partition_label };
            let label = if label.is_empty() { String::new() } else { format!(" {label}") };
            format!("{} ({}{label})", volume.id, volume.content)
        })
        .collect();
    if held.is_empty() {
        return None;
    }
    let what =
        if case.selector.volume.is_none() { "an installation would format it" } else { "no volume is made on it" };
    let text = format!("`{}` means {}, which holds {}: {what}", case.selector.shown(), case.named(disk), quoted(&held));
    out.find(&case.node.name, text, case.patch(case.system()));
    Some(())
}

fn same_serial(node: &Node, out: &mut Out) -> Option<()> {
    let talos = out.need(&node.name, &node.talos)?;
    let disks = out.part(&node.name, &talos.disks, "disks")?;
    let mut told: Vec<&str> = Vec::new();
    for disk in disks.iter().filter(|disk| !disk.serial.is_empty() && !disk.transport.is_empty()) {
        let same: Vec<&Disk> = disks.iter().filter(|other| other.serial == disk.serial).collect();
        if same.len() < 2 || told.contains(&disk.serial.as_str()) {
            continue;
        }
        told.push(&disk.serial);
        let ids: Vec<&str> = same.iter().map(|disk| disk.id.as_str()).collect();
        let mut wwids: Vec<&str> = same.iter().map(|disk| disk.wwid.as_str()).filter(|wwid| !wwid.is_empty()).collect();
        wwids.sort_unstable();
        wwids.dedup();
        let text = format!("{} have the same serial number {}", quoted(&ids), disk.serial);
        let help = if wwids.len() == same.len() {
            format!("choose between them by wwid: {}", talosctl(node, "get disks -o yaml"))
        } else if node.vm().is_some() {
            super::qm(node, "qm config {} | grep -E '^(scsi|virtio|sata|ide)[0-9]+:'")
                + ", then give each line a `serial=` of its own"
        } else {
            format!("choose between them by model and size: {}", talosctl(node, "get disks -o yaml"))
        };
        out.find(&node.name, text, help);
    }
    Some(())
}
