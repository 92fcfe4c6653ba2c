//! What is found of the drives, and of whoever names them: from what was asked, without asking.

use std::collections::BTreeMap;

use crate::base::drives::{Drive, Inventory, Odd, Plan, Purpose, Scenario, Sight, Slot, name, ports, predicted};
use crate::base::permit::System;
use crate::base::selector::{self, Selector};
use crate::base::survey::{Disk, Layer, MachineConfig, SystemDisk};
use crate::blueprint::finding::{Findings, Unknown};

use super::super::stands::{changing, look_alike, stands};
use super::super::{known, on};
use super::installation::installations;

/// The drives of the machine against the plan: each once, where it is to be, and for what the plan says. `before` is how
/// they were when `plan.current` held; empty where that cannot be told.
pub(super) fn drives(node: &str, plan: &Plan, before: &Inventory, live: &Inventory) -> Findings {
    let mut out = Findings::of(System::Talos);
    let sight = match name(plan, live) {
        Ok(sight) => sight,
        Err(why) => {
            let help = "the node may still be booting; look again".to_owned();
            out.unknown(on::MOVE, "which drive is which", &Unknown { text: why.to_string(), help: Some(help) });
            return out;
        }
    };
    for odd in &sight.odd {
        let known = match odd {
            Odd::Alike { .. } | Odd::TwoOfOne { .. } => &known::ALIKE,
            _ => &known::UNACCOUNTED,
        };
        out.problem(known, on::MOVE, odd.text(plan, live), odd.help(plan));
    }
    places(plan, &sight, before, live, &mut out);
    installations(node, plan, &sight, live, &mut out);
    for line in &live.not_asked {
        out.note(on::MOVE, format!("what the drives are for is not known as a whole: {line}"));
    }
    for found in &sight.found {
        let Some(drive) = live.drives.get(found.at) else { continue };
        purposes(plan, &found.name, drive, live.not_asked.is_empty(), &mut out);
        leaves(plan, &found.name, drive, &mut out);
    }
    out
}

/// Each drive is in its slot of before, or already in the new one.
fn places(plan: &Plan, sight: &Sight, before: &Inventory, live: &Inventory, out: &mut Findings) {
    // A drive that is missing has a line of its own.
    if before.drives.is_empty() && sight.odd.is_empty() {
        out.problem(
            &known::ELSEWHERE,
            on::MOVE,
            "the drives are neither as in `current` nor as in `target`, by what is known of the slots",
            "`pvemig survey --hardware` shows which is where; correct `current`, or the `port:` of the slots",
        );
        return;
    }
    let ports = match name(plan, before) {
        Ok(then) => ports(plan, &then, before),
        Err(_) => return,
    };
    for found in &sight.found {
        let Some(port) = live.drives.get(found.at).and_then(Drive::port) else { continue };
        let Some((slot, _)) = ports.iter().find(|(_, of)| **of == port) else { continue };
        let belongs = [Plan::slot_of(&plan.current, &found.name), Plan::slot_of(&plan.target, &found.name)];
        if belongs.contains(&Some(slot.as_str())) {
            continue;
        }
        let mut of: Vec<&str> = belongs.into_iter().flatten().collect();
        of.dedup();
        let of = if of.is_empty() { "no slot".to_owned() } else { of.join(" or ") };
        out.problem(
            &known::ELSEWHERE,
            on::MOVE,
            format!("{} is in {slot}, and the plan has it in {of}", found.name),
            "correct `current` in the site file, or put it where the plan has it",
        );
    }
}

/// Whether it can be told that the drives were not moved already. `plan`: with the ports that the site file or an earlier
/// run has, and no others.
pub(super) fn told_apart(plan: &Plan, live: &Inventory) -> Findings {
    let mut out = Findings::of(System::Talos);
    let Ok(placed) = stands(plan, &BTreeMap::new(), live) else { return out };
    let alike = look_alike(plan) && changing(plan).next().is_some();
    if !placed.guessed && !alike {
        return out;
    }
    let Ok(sight) = name(plan, live) else { return out };
    // Those of which one port would tell, or of which it takes each.
    let layout = if alike { &plan.current } else { &plan.target };
    let changing: Vec<&Slot> = changing(plan).filter(|slot| slot.port.is_none()).collect();
    let filled = changing.iter().find_map(|slot| {
        let drive = layout.get(&slot.name)?;
        let port = live.drives.get(sight.of(drive)?.at)?.port()?;
        Some((slot, drive, port))
    });
    let help = match filled {
        Some((slot, drive, port)) => format!(
            "look into the machine: if {drive} is in {0}, add `port: \"{1}\"` to {0} in the site file, and else to the slot that it is in",
            slot.name,
            port.as_str()
        ),
        None => {
            "add `port:` to one of these slots in the site file; `pvemig survey --hardware` shows that of each drive"
                .into()
        }
    };
    let names: Vec<&str> = changing.iter().map(|slot| slot.name.as_str()).collect();
    let why = if alike {
        "`current` and `target` have the same ones"
    } else {
        "each one of `target` is in the machine, in whatever slot"
    };
    out.problem(
        &known::NO_PORT,
        on::MOVE,
        format!(
            "whether the drives were moved already cannot be told: {why}, and of {} no port is known",
            names.join(", ")
        ),
        help,
    );
    out
}

/// What a drive is for. Local volumes that the plan does not name are told: they go down and come up with what they are on.
fn purposes(plan: &Plan, name: &str, drive: &Drive, asked: bool, out: &mut Findings) {
    let Some(wanted) = plan.drives.get(name).filter(|wanted| !wanted.new) else { return };
    // What it is to be only once it is installed: what it has on it until then has a line of its own.
    let becomes = plan.scenario == Scenario::SystemReplaced && Plan::slot_of(&plan.target, name).is_some();
    if becomes && wanted.purposes.contains(&Purpose::System) {
        return;
    }
    let is = |purpose: &Purpose| drive.purposes.contains(purpose);
    let said = |purpose: &Purpose| wanted.purposes.contains(purpose);
    let list = |all: Vec<&Purpose>| all.into_iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let spare = said(&Purpose::Spare);
    let (mut more, mut local) = (Vec::new(), Vec::new());
    for purpose in drive.purposes.iter().filter(|purpose| **purpose != Purpose::Spare && !said(purpose)) {
        let told = matches!(purpose, Purpose::Local(_)) && !spare;
        if told { local.push(purpose) } else { more.push(purpose) }
    }
    let less: Vec<&Purpose> =
        wanted.purposes.iter().filter(|purpose| **purpose != Purpose::Spare && !is(purpose)).collect();
    let help =
        "correct `purpose` of the drive, or its serial number: `pvemig survey --hardware` shows what each is for";
    if !more.is_empty() {
        let text = format!(
            "{name} ({}) is for {}, and the plan says {}",
            drive.shown(),
            list(more),
            list(wanted.purposes.iter().collect())
        );
        out.problem(&known::PURPOSE, on::MOVE, text, help);
    }
    if !less.is_empty() {
        let text = format!("{name} ({}) is to be for {}, and is not", drive.shown(), list(less));
        if asked {
            out.problem(&known::PURPOSE, on::MOVE, text, help);
        } else {
            out.note(on::MOVE, format!("{text}, as far as could be asked"));
        }
    }
    if !local.is_empty() {
        out.note(on::DRAIN, format!("{name} has {}: away for as long as the node is off", list(local)));
    }
}

/// A drive that leaves takes nothing with it that is in use. The old system disk of a replacement is meant to go.
fn leaves(plan: &Plan, name: &str, drive: &Drive, out: &mut Findings) {
    if Plan::slot_of(&plan.target, name).is_some() {
        return;
    }
    let lost: Vec<String> = drive
        .purposes
        .iter()
        .filter(|purpose| !matches!(purpose, Purpose::Spare | Purpose::System))
        .map(ToString::to_string)
        .collect();
    if !lost.is_empty() {
        out.problem(
            &known::LEAVES,
            on::MOVE,
            format!("{name} ({}) leaves the machine with {}", drive.shown(), lost.join(", ")),
            "move that to another drive first, or give this one a slot in `target`",
        );
    }
}

/// Each selector of the machine configuration, on the drives of now and on those that will be there.
pub(super) fn selectors(
    plan: &Plan,
    live: &Inventory,
    config: &MachineConfig,
    system: &Layer<SystemDisk>,
    disks: &[Disk],
) -> Findings {
    let mut out = Findings::of(System::Talos);
    // Which is which has lines of its own.
    let Ok(named) = name(plan, live) else { return out };
    let then = predicted(plan, &named, live, disks);
    for selector in selector::all(config) {
        if selector.moves() {
            out.problem(
                &known::BY_PLACE,
                on::SHUTDOWN,
                format!("{} goes by place, and may mean another drive after the move", selector.shown()),
                "name the drive by what goes with it, `disk.serial == \"..\"` (`diskSelector: { serial: .. }` where it installs): \
                 `talosctl edit machineconfig`",
            );
            continue;
        }
        several(&selector, (system, live), disks, &then, plan, &mut out);
    }
    out
}

/// A volume that nothing has yet would be made on a drive that comes for something else.
fn made_there(selector: &Selector<'_>, will: &[&Disk], live: &Inventory, plan: &Plan, out: &mut Findings) {
    let ([only], Some(label)) = (will, &selector.volume) else { return };
    let exists = |drive: &Drive| drive.parts.known().into_iter().flatten().any(|part| part.label == *label);
    let Some((name, wanted)) = plan.drives.get_key_value(&only.id).filter(|(_, wanted)| wanted.new) else { return };
    let is_for_it = wanted.purposes.iter().any(|purpose| purpose.label().as_ref() == Some(label));
    if !selector.makes_a_volume() || is_for_it || live.drives.iter().any(exists) {
        return;
    }
    let purposes: Vec<String> = wanted.purposes.iter().map(ToString::to_string).collect();
    let text = format!(
        "{} means nothing now, and would mean {name} once that is in the machine: Talos makes {label} on it at once, and the plan has it \
         for {}",
        selector.shown(),
        purposes.join(", ")
    );
    let help = "name another drive by `disk.serial == \"..\"`, or take the document out: `talosctl edit machineconfig`; or correct \
                `purpose` in the site file";
    out.problem(&known::MADE_THERE, on::SHUTDOWN, text, help);
}

fn several(
    selector: &Selector<'_>,
    (system, live): (&Layer<SystemDisk>, &Inventory),
    now: &[Disk],
    then: &[Disk],
    plan: &Plan,
    out: &mut Findings,
) {
    let help = "add a condition that one drive alone has, `disk.serial == \"..\"`: `talosctl edit machineconfig`";
    let (is, will) = match (selector.means_of(system, now), selector.means_of(system, then)) {
        (Ok(is), Ok(will)) => (is, will),
        (Err(why), _) | (_, Err(why)) => {
            let text = format!("which disks {} means cannot be told: {why}", selector.shown());
            out.problem(&known::CANNOT_ASK, on::SHUTDOWN, text, help);
            return;
        }
    };
    if is.is_empty() {
        made_there(selector, &will, live, plan, out);
    }
    // The disk of an installation is the first that fits, and it is installed.
    if selector.volume.is_none() && is.len() == will.len() {
        return;
    }
    let list = |all: &[&Disk]| {
        let shown = |disk: &&Disk| {
            let serial = if disk.serial.is_empty() { "no serial number" } else { disk.serial.as_str() };
            format!("{} ({serial})", disk.id)
        };
        all.iter().map(shown).collect::<Vec<_>>().join(", ")
    };
    let new: Vec<String> = plan
        .drives
        .iter()
        .filter(|(name, wanted)| wanted.new && will.iter().any(|disk| disk.id == **name))
        .filter_map(|(name, _)| Some(format!("{name} is in {}", Plan::slot_of(&plan.target, name)?)))
        .collect();
    if will.len() > 1 {
        let once = if is.len() > 1 || new.is_empty() { String::new() } else { format!(" once {}", new.join(" and ")) };
        let verb = if is.len() > 1 { "means" } else { "would mean" };
        let text = format!("{} {verb} {} drives{once}: {}", selector.place, will.len(), list(&will));
        out.problem(&known::SEVERAL, on::SHUTDOWN, text, help);
    } else if let ([], [was]) = (will.as_slice(), is.as_slice()) {
        out.note(on::SHUTDOWN, format!("{} means no drive any more: {} leaves", selector.shown(), list(&[*was])));
    }
}
