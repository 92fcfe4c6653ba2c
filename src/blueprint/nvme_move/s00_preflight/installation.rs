//! What is found of installations: which drive has one, which is to have one, and what would be lost with it.

use crate::base::drives::{Drive, Inventory, Plan, Purpose, Scenario, Sight};
use crate::base::survey::Layer;
use crate::blueprint::finding::{Findings, Unknown};

use super::super::{known, on};

/// The label of the partition by which Talos finds its installation (siderolabs/talos `block/system_disk.go`).
const META: &str = "META";

/// Another installation that stays in the machine; and where another drive becomes the system disk, what that has on it.
pub(super) fn installations(node: &str, plan: &Plan, sight: &Sight, live: &Inventory, out: &mut Findings) {
    let to_be = plan.drives.iter().find(|(name, wanted)| {
        wanted.purposes.contains(&Purpose::System) && Plan::slot_of(&plan.target, name).is_some()
    });
    let Some((to_be, _)) = to_be else { return };
    for found in &sight.found {
        let Some(drive) = live.drives.get(found.at) else { continue };
        if found.name == *to_be {
            if plan.scenario == Scenario::SystemReplaced {
                wiped(node, plan, (to_be, drive), sight, live, out);
            }
        } else if let Some(slot) = Plan::slot_of(&plan.target, &found.name)
            && is_installed(drive)
        {
            out.problem(
                &known::OLD_SYSTEM,
                on::MOVE,
                format!(
                    "{} ({}) has an installation of Talos on it, and is to be in {slot} beside {to_be}: which of the two comes up goes \
                     by the kernel's names",
                    found.name,
                    drive.shown()
                ),
                "leave it out of `target`, so that it leaves the machine; wipe it elsewhere before it comes back",
            );
        }
    }
}

fn is_installed(drive: &Drive) -> bool {
    let meta = drive.parts.known().is_some_and(|parts| parts.iter().any(|part| part.label == META));
    meta || drive.purposes.contains(&Purpose::System)
}

/// What the drive that the node is to be installed on has already.
fn wiped(node: &str, plan: &Plan, (name, drive): (&str, &Drive), sight: &Sight, live: &Inventory, out: &mut Findings) {
    if drive.purposes.contains(&Purpose::System) {
        // Once it is through, the former one is out.
        let former = |other: &str| {
            let system = plan.drives.get(other).is_some_and(|wanted| wanted.purposes.contains(&Purpose::System));
            other != name && system && sight.of(other).is_some()
        };
        if plan.current.values().any(|other| former(other)) {
            out.problem(
                &known::NEEDLESS_WIPE,
                on::INSTALL,
                format!("{node} runs from {name} ({}) already: nothing has to be wiped", drive.shown()),
                "correct `purpose` of the drives (`pvemig survey --hardware` shows what each is for), and write `scenario: data`, or \
                 `scenario: system-moved` where it changes its slot",
            );
        }
        return;
    }
    let lost = holds(drive);
    if !lost.is_empty() {
        out.problem(
            &known::WIPED,
            on::INSTALL,
            format!("disk {}, which {node} is to be installed on, holds {}", drive.shown(), lost.join(", ")),
            "move that to another drive first, or have the node installed on one that is empty; no consent gives it",
        );
    } else if let Layer::Unknown { reason, .. } = &drive.parts {
        let help = Some("the node may still be booting; look again".to_owned());
        out.unknown(on::INSTALL, &format!("what is on {name}"), &Unknown { text: reason.clone(), help });
    } else if let Some(line) = live.not_asked.first() {
        let help = Some("mend that, and look again: what is on it would be lost".to_owned());
        out.unknown(on::INSTALL, &format!("what {name} is for"), &Unknown { text: line.clone(), help });
    }
}

/// What a drive holds that somebody knows by a name.
pub(super) fn holds(drive: &Drive) -> Vec<String> {
    let mut all: Vec<String> = drive
        .purposes
        .iter()
        .filter_map(|purpose| match purpose {
            Purpose::System | Purpose::Spare => None,
            Purpose::UserVolume(name) => Some(format!("the volume {name} (u-{name})")),
            Purpose::RawVolume(name) => Some(format!("the raw volume {name} (r-{name})")),
            Purpose::Mayastor(pool) => Some(format!("the pool {pool} of Mayastor")),
            Purpose::Local(volume) => Some(format!("the local volume {volume}")),
        })
        .collect();
    // One that Talos does not have in use now.
    for part in drive.parts.known().into_iter().flatten() {
        let label = &part.label;
        let of_talos = label.starts_with("u-") || label.starts_with("r-");
        if of_talos && !all.iter().any(|line| line.ends_with(&format!("({label})"))) {
            all.push(format!("the partition {label}"));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::drives::{Layout, Part, Wanted, name};
    use crate::base::permit::System;

    fn layout(text: &str) -> Layout {
        text.split_whitespace().filter_map(|pair| pair.split_once('=')).map(|(a, b)| (a.into(), b.into())).collect()
    }

    fn plan(scenario: Scenario, current: &str, target: &str) -> Plan {
        let wanted =
            |serial: &str, purpose| Wanted { serial: serial.into(), purposes: vec![purpose], ..Wanted::default() };
        let replaced = scenario == Scenario::SystemReplaced;
        let second = if replaced { Purpose::System } else { Purpose::Spare };
        let drives = [("sys", wanted("S1", Purpose::System)), ("two", wanted("S2", second))];
        let drives = drives.map(|(name, of)| (name.to_owned(), of)).into();
        Plan { slots: Vec::new(), drives, current: layout(current), target: layout(target), scenario }
    }

    fn drive(serial: &str, labels: &[&str], purposes: &[Purpose]) -> Drive {
        let part = |label: &&str| Part { label: (*label).into(), uuid: format!("{serial}-{label}"), ..Part::default() };
        Drive {
            serial: serial.into(),
            transport: "nvme".into(),
            parts: Layer::Known(labels.iter().map(part).collect()),
            purposes: purposes.to_vec(),
            ..Drive::default()
        }
    }

    fn said(plan: &Plan, live: &Inventory) -> Vec<String> {
        let mut out = Findings::of(System::Talos);
        installations("n1", plan, &name(plan, live).unwrap(), live, &mut out);
        out.all.into_iter().map(|one| format!("{}: {}", one.known.unwrap().name, one.text)).collect()
    }

    fn live(drives: Vec<Drive>) -> Inventory {
        Inventory { drives, ..Inventory::default() }
    }

    #[test]
    fn of_two_installations_the_names_would_decide() {
        let sys = || drive("S1", &["EFI", "META"], &[Purpose::System]);
        let moved = plan(Scenario::SystemMoved, "1=sys 2=two", "1=two 2=sys");
        assert_eq!(said(&moved, &live(vec![sys(), drive("S2", &["u-a"], &[])])), Vec::<String>::new());
        let both = live(vec![sys(), drive("S2", &["EFI", "META"], &[])]);
        let lines = said(&moved, &both);
        let words = "old-system-disk-stays: two (S2) has an installation of Talos on it, and is to be in 1 beside sys";
        assert!(lines.len() == 1 && lines[0].starts_with(words), "{lines:?}");
        // One that leaves is not beside it.
        assert_eq!(said(&plan(Scenario::SystemMoved, "1=sys 2=two", "2=sys"), &both), Vec::<String>::new());
        // Another one than the plan has is the system disk.
        let lines = said(&moved, &live(vec![drive("S1", &[], &[]), drive("S2", &[], &[Purpose::System])]));
        assert!(lines.len() == 1 && lines[0].starts_with("old-system-disk-stays: two (S2)"), "{lines:?}");
    }

    #[test]
    fn what_is_to_be_wiped_must_be_nobodys() {
        let replaced = plan(Scenario::SystemReplaced, "1=sys 2=two", "1=two");
        let sys = || drive("S1", &["META"], &[Purpose::System]);
        let two = |labels: &[&str], purposes: &[Purpose]| live(vec![sys(), drive("S2", labels, purposes)]);
        let volume = Purpose::UserVolume("media".into());
        let begins = "wiped-disk-holds-a-volume: disk S2, which n1 is to be installed on, holds ";
        let cases = [
            (two(&[], &[]), None),
            (two(&["boot"], &[Purpose::Spare]), None),
            (two(&["u-media"], &[volume]), Some("the volume media (u-media)")),
            (two(&["u-media", "r-raw"], &[]), Some("the partition u-media, the partition r-raw")),
            (two(&[], &[Purpose::Mayastor("p".into())]), Some("the pool p of Mayastor")),
            (
                two(&[], &[Purpose::Local("pv-a".into()), Purpose::RawVolume("b".into())]),
                Some("the local volume pv-a, the raw volume b (r-b)"),
            ),
        ];
        assert_eq!(cases.len(), 6);
        for (live, lost) in cases {
            let expected: Vec<String> = lost.iter().map(|lost| format!("{begins}{lost}")).collect();
            assert_eq!(said(&replaced, &live), expected);
        }
        // Unknown is not empty.
        let mut unknown = two(&[], &[]);
        unknown.drives[1].parts = Layer::unknown("it does not answer");
        assert_eq!(said(&replaced, &unknown), ["cannot-ask: cannot ask what is on two: it does not answer"]);
        let mut unknown = two(&[], &[]);
        unknown.not_asked = vec!["the pools of Mayastor: refused".into()];
        assert_eq!(
            said(&replaced, &unknown),
            ["cannot-ask: cannot ask what two is for: the pools of Mayastor: refused"]
        );
    }

    #[test]
    fn nothing_is_wiped_where_the_node_runs_from_it_already() {
        let replaced = plan(Scenario::SystemReplaced, "1=sys 2=two", "1=two");
        let two = || drive("S2", &["META"], &[Purpose::System]);
        let lines = said(&replaced, &live(vec![drive("S1", &[], &[]), two()]));
        assert_eq!(lines, ["needless-wipe: n1 runs from two (S2) already: nothing has to be wiped"]);
        // Done: the former one is out.
        assert_eq!(said(&replaced, &live(vec![two()])), Vec::<String>::new());
    }
}
