//! Drives held against a layout, and the words for what is odd.

use super::super::super::{Controller, Inventory, Layout, Link, Plan, Scenario, Slot, Wanted, name, placed};
use super::super::Found;
use super::{drives, short};

fn layout(text: &str) -> Layout {
    text.split_whitespace().filter_map(|p| p.split_once('=')).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
}

/// Three slots; `sys`, `media` and the new `pool`.
fn plan() -> Plan {
    let slot = |name: &str| Slot { name: name.into(), position: format!("at {name}"), port: None };
    let wanted = |serial: &str, new| Wanted {
        serial: serial.into(),
        model: "M".into(),
        size: Some(1000),
        new,
        ..Wanted::default()
    };
    let all = [("sys", wanted("S", false)), ("media", wanted("D", false)), ("pool", wanted("N", true))];
    Plan {
        slots: ["M1", "M2", "M3"].map(slot).into(),
        drives: all.map(|(name, wanted)| (name.to_owned(), wanted)).into(),
        current: layout("M1=sys M2=media"),
        target: layout("M1=sys M3=media M2=pool"),
        scenario: Scenario::Data,
    }
}

fn inventory(all: &[&str]) -> Inventory {
    Inventory { drives: drives(all), ..Inventory::default() }
}

/// Where each is, and what is odd, in a person's words.
fn told(plan: &Plan, layout: &Layout, live: &Inventory) -> (Vec<String>, Vec<String>) {
    let before = inventory(&["S p1 @1d.0", "D p2 @1b.0"]);
    let sight = placed(plan, layout, &before, live).unwrap();
    assert!(sight.odd.iter().all(|odd| !odd.help(plan).is_empty()));
    let place = |found: &Found| format!("{}={}", found.slot.as_deref().unwrap_or("?"), found.name);
    (sight.found.iter().map(place).collect(), sight.odd.iter().map(|odd| odd.text(plan, live)).collect())
}

#[test]
fn drives_are_held_against_a_layout() {
    let plan = plan();
    let target = plan.target.clone();
    let dead = |port: &str| Inventory {
        controllers_without_a_disk: vec![Controller {
            address: "0000:02:00.0".into(),
            port: Some(port.parse().unwrap()),
        }],
        ..inventory(&["S p1 @1d.0", "N @1b.0"])
    };
    let cases: &[(&Layout, Inventory, &[&str], &[&str])] = &[
        // Nothing was ever seen in M3: it is learned.
        (&target, inventory(&["D p2 @06.0", "S p1 @1d.0", "N @1b.0"]), &["M3=media", "M2=pool", "M1=sys"], &[]),
        (&plan.current, inventory(&["D p2 @1b.0", "S p1 @1d.0"]), &["M2=media", "M1=sys"], &[]),
        // The wrong way round, and not moved at all.
        (
            &target,
            inventory(&["S p1 @1d.0", "D p2 @1b.0", "N @06.0"]),
            &["M2=media", "?=pool", "M1=sys"],
            &[
                "media (D) is in M2 and belongs into M3",
                "pool (N) is in the slot at 0000:00:06.0 (perhaps M3) and belongs into M2",
            ],
        ),
        // On the bench.
        (
            &target,
            inventory(&["S p1 @1d.0", "N @1b.0"]),
            &["M2=pool", "M1=sys"],
            &["media (D) is nowhere: it is not in the machine, or is not seen in M3"],
        ),
        (
            &target,
            inventory(&["S p1 @1d.0", "D p2 @06.0"]),
            &["M3=media", "M1=sys"],
            &["pool (N) is nowhere: M2 is empty, and nothing is on its PCI port"],
        ),
        (
            &plan.current,
            inventory(&["S p1 @1d.0", "N @1b.0"]),
            &["M2=pool", "M1=sys"],
            &["media (D) is nowhere: in M2 is pool", "pool (N) is still in M2 and belongs out of it"],
        ),
        // Dead after the move; a controller somewhere else says nothing.
        (
            &target,
            dead("0000:00:06.0"),
            &["M2=pool", "M1=sys"],
            &["media (D) does not come up in M3: its controller 0000:02:00.0 is there without a disk"],
        ),
        (
            &target,
            dead("0000:00:1d.0"),
            &["M2=pool", "M1=sys"],
            &["media (D) is nowhere: it is not in the machine, or is not seen in M3"],
        ),
        // Emptied, and one too many.
        (
            &target,
            inventory(&["S p1 @1d.0", "D @06.0", "N @1b.0", "X @1c.0"]),
            &["M3=media", "M2=pool", "M1=sys"],
            &["media (D) is nvme1n1 (D), and none of its partitions is on it any more", "nvme3n1 (X) is in no plan"],
        ),
        // The kernel hides the way to it.
        (
            &target,
            inventory(&["S p1", "D p2 @06.0", "N @1b.0"]),
            &["M3=media", "M2=pool", "?=sys"],
            &["in which slot sys (S) is cannot be told: the kernel gives nothing as its place"],
        ),
    ];
    assert_eq!(cases.len(), 10);
    for (layout, live, found, odd) in cases {
        let (mut places, texts) = told(&plan, layout, live);
        places.sort_by_key(|place| place.split('=').nth(1).map(str::to_owned));
        assert_eq!(places, *found, "{live:?}");
        assert_eq!(texts, *odd, "{live:?}");
    }
}

#[test]
fn a_slot_that_the_site_names_is_not_learned() {
    let mut plan = plan();
    plan.slots[2].port = Some("0000:00:1c.0".parse().unwrap());
    let (_, odd) = told(&plan, &plan.target, &inventory(&["S p1 @1d.0", "N @1b.0", "D p2 @06.0"]));
    assert_eq!(odd, ["media (D) is in the slot at 0000:00:06.0 and belongs into M3"]);
    let (places, odd) = told(&plan, &plan.target, &inventory(&["S p1 @1d.0", "N @1b.0", "D p2 @1c.0"]));
    assert_eq!((places.len(), odd.len()), (3, 0));
}

#[test]
fn what_a_slot_is_taken_for_is_said() {
    let mut plan = plan();
    let live = Inventory { drives: drives(&["S p1 @1d.0", "N @1b.0", "D p2 @06.0"]), ..Inventory::default() };
    let before = inventory(&["S p1 @1d.0", "D p2 @1b.0"]);
    let notes = |plan: &Plan, before: &Inventory, live: &Inventory| {
        placed(plan, &plan.target, before, live).unwrap().of("media").unwrap().notes.clone()
    };
    assert_eq!(
        notes(&plan, &before, &live),
        ["M3 is the slot at 0000:00:06.0: nothing was seen in it before, and it is the only one of these"]
    );
    plan.slots.push(Slot { name: "M4".into(), position: String::new(), port: None });
    assert_eq!(
        notes(&plan, &before, &live),
        [
            "M3 is taken to be the slot at 0000:00:06.0; which of M3 and M4 it is cannot be told, as nothing was seen in them \
         before"
        ]
    );
    // A slower link.
    let link = |mut inventory: Inventory, speed: &str, width| {
        for drive in &mut inventory.drives {
            drive.link = Some(Link { speed: speed.into(), width });
        }
        inventory
    };
    let (before, live) = (link(before, "8.0 GT/s PCIe", 4), link(live, "8.0 GT/s PCIe", 2));
    assert_eq!(
        notes(&plan, &before, &live).first().unwrap(),
        "its link has 2 lanes at 8.0 GT/s PCIe, and had 4 at 8.0 GT/s PCIe"
    );
    assert_eq!(notes(&plan, &before, &link(live.clone(), "16.0 GT/s PCIe", 4)).len(), 1);
}

#[test]
fn a_plan_names_what_is_there() {
    let plan = plan();
    let of = |plan: &Plan, all: &[&str]| short(&name(plan, &inventory(all)).unwrap());
    assert_eq!(of(&plan, &["D p2", "S p1"]), ["media: serial 0", "sys: serial 1"]);
    assert_eq!(of(&plan, &["D p2", "S p1", "X"]), ["media: serial 0", "sys: serial 1", "stranger 2 None"]);
    assert_eq!(of(&plan, &["D p2", "N"]), ["media: serial 0", "pool: serial 1", "sys missing"]);
    // Two with one serial number: by the partition that the plan names, whatever its case.
    let mut cheap = plan.clone();
    for (name, uuid) in [("sys", "P1"), ("media", "P2")] {
        let drive = cheap.drives.get_mut(name).unwrap();
        drive.serial = "1".into();
        drive.partition = Some(uuid.into());
    }
    assert_eq!(of(&cheap, &["1 p2", "1 p1"]), ["media: partitions `1` 0", "sys: partitions `1` 1"]);
    cheap.drives.get_mut("sys").unwrap().partition = None;
    assert_eq!(of(&cheap, &["1 p2", "1 p1"]), ["media: partitions `1` 0", "sys: serial 1"]);
    cheap.drives.get_mut("media").unwrap().partition = None;
    let sight = name(&cheap, &inventory(&["1 p2", "1 p1"])).unwrap();
    let texts: Vec<String> = sight.odd.iter().map(|odd| odd.text(&cheap, &inventory(&["1", "1"]))).collect();
    assert_eq!(
        texts,
        ["media and sys cannot be told apart: both have the serial number 1, and nothing that is known is on them"]
    );
    let unknown = name(&plan, &inventory(&["D ?", "S ?"])).unwrap();
    assert_eq!(short(&unknown), ["media: serial 0", "sys: serial 1"]);
}
