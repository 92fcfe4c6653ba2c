//! The table of cases, and what holds of any set of drives.

mod placed;

use proptest::prelude::*;

use super::super::{Drive, Odd, Part, Purpose};
use super::*;

/// `S1 p1 p2 @1d.0`: serial number (`-` for none), partitions, place; `m=` model, `z=` size, `w=` wwid.
fn drive(at: usize, text: &str) -> Drive {
    let mut drive = Drive {
        id: format!("nvme{at}n1"),
        model: "M".into(),
        size: 1000,
        transport: "nvme".into(),
        ..Drive::default()
    };
    let mut parts = Vec::new();
    for (index, word) in text.split_whitespace().enumerate() {
        match word.split_at(1) {
            _ if index == 0 => drive.serial = word.replace('-', "").replace('_', " "),
            ("@", place) => drive.bus_path = format!("/pci0000:00/0000:00:{place}/0000:0{}:00.0/nvme", at + 3),
            ("p", _) => parts.push(Part { uuid: word.into(), index: 1, ..Part::default() }),
            ("m", model) => drive.model = model.replace('=', ""),
            ("z", size) => drive.size = size.replace('=', "").parse().unwrap(),
            ("w", wwid) => drive.wwid = wwid.replace('=', ""),
            ("?", _) => parts.clear(),
            other => panic!("{other:?}"),
        }
    }
    drive.parts = if text.contains('?') { Layer::unknown("it does not answer") } else { Layer::Known(parts) };
    drive
}

fn drives(all: &[&str]) -> Vec<Drive> {
    all.iter().enumerate().map(|(at, text)| drive(at, text)).collect()
}

/// What is found and what is odd, in short: `A: serial 0`.
fn seen(known: &[&str], live: &[&str]) -> Vec<String> {
    let known_drives = drives(known);
    let names: Vec<String> =
        (0..known.len()).map(|at| char::from(b'A' + u8::try_from(at).unwrap()).to_string()).collect();
    let known: Vec<Known<'_>> = names
        .iter()
        .zip(&known_drives)
        .map(|(name, drive)| Known { name, drive, new: false, ports: drive.port().into_iter().collect() })
        .collect();
    match recognise(&known, &drives(live)) {
        Ok(sight) => short(&sight),
        Err(error) => vec![error.to_string()],
    }
}

fn short(sight: &Sight) -> Vec<String> {
    let by = |by: &By| match by {
        By::Serial => "serial".to_owned(),
        By::Partitions { said } => format!("partitions `{said}`"),
        By::Wwid => "wwid".to_owned(),
        By::Kind => "kind".to_owned(),
        By::Place => "place".to_owned(),
    };
    let found = sight.found.iter().map(|found| format!("{}: {} {}", found.name, by(&found.by), found.at));
    let odd = sight.odd.iter().map(|odd| match odd {
        Odd::Missing { name, .. } => format!("{name} missing"),
        Odd::Alike { names, live } => format!("{names:?} alike {live:?}"),
        Odd::Wiped { name, live } => format!("{name} wiped {live}"),
        Odd::Stranger { live, parts_of } => format!("stranger {live} {parts_of:?}"),
        Odd::TwoOfOne { name, live } => format!("{name} twice {live:?}"),
        other => panic!("{other:?}"),
    });
    found.chain(odd).collect()
}

#[test]
fn each_case_of_the_table() {
    let cases: &[(&[&str], &[&str], &[&str])] = &[
        (&["S1", "S2"], &["S2", "S1"], &["A: serial 1", "B: serial 0"]),
        // Serial numbers with blanks.
        (&["_S1_"], &["S1"], &["A: serial 0"]),
        // Another serial number in another slot.
        (&["S1", "S2 p1 p2"], &["S1", "U1 p1 p2 p3"], &["A: serial 0", "B: partitions `U1` 1"]),
        (&["S2 p1"], &["U1 p1 z=999"], &["A missing", "stranger 0 Some(\"A\")"]),
        (&["S2 p1"], &["U1 p1 m=N"], &["A missing", "stranger 0 Some(\"A\")"]),
        // Not all of it is there.
        (&["S2 p1 p2"], &["U1 p1"], &["A missing", "stranger 0 Some(\"A\")"]),
        // Equal serial numbers.
        (&["1 p1", "1 p2"], &["1 p2", "1 p1"], &["A: partitions `1` 1", "B: partitions `1` 0"]),
        (&["1", "1"], &["1", "1"], &["[\"A\", \"B\"] alike [0, 1]"]),
        (&["1 p1", "1"], &["1", "1 p1"], &["A: partitions `1` 1", "B: serial 0"]),
        (&["1 p1", "1"], &["1 p9", "1 p1"], &["A: partitions `1` 1", "[\"B\"] alike [0]"]),
        (&["1 p1", "1 p2"], &["1 p9", "1 p1"], &["A: partitions `1` 1", "B: serial 0", "B wiped 0"]),
        (&["1 p1", "1 p2"], &["1 p1"], &["A: partitions `1` 0", "B missing"]),
        (&["1", "1"], &["1"], &["[\"A\", \"B\"] alike [0]"]),
        (&["1"], &["1", "1"], &["[\"A\"] alike [0, 1]"]),
        (&["1 p1"], &["1", "1 p1"], &["A: partitions `1` 1", "stranger 0 None"]),
        // Two makers count from 1.
        (&["1", "1 m=N"], &["1 m=N", "1"], &["[\"A\"] alike [1]", "[\"B\"] alike [0]"]),
        (&["1"], &["1 m=N"], &["A missing", "stranger 0 None"]),
        // Emptied.
        (&["S1 p1"], &["S1"], &["A: serial 0", "A wiped 0"]),
        (&["S1 p1 p2"], &["S1 p2"], &["A: serial 0"]),
        // Copies.
        (&["S1 p1"], &["S1 p1", "E p1"], &["A: serial 0", "stranger 1 None"]),
        (&["- p1"], &["- p1", "- p1"], &["A twice [0, 1]"]),
        (&["- p1", "E p1"], &["E p1", "- p1"], &["A: partitions `` 1", "B: serial 0"]),
        // Not there, and there without a name.
        (&["S1"], &[], &["A missing"]),
        (&["S1"], &["S1", "F"], &["A: serial 0", "stranger 1 None"]),
        (&["S1"], &["S2"], &["A missing", "stranger 0 None"]),
        // No serial number.
        (&["- p1"], &["- p1"], &["A: partitions `` 0"]),
        (&["- p1"], &["-"], &["[\"A\"] alike [0]"]),
        // World Wide Names: not those that the kernel makes of the serial number.
        (&["1 weui.1", "1 weui.2"], &["1 weui.2", "1 weui.1"], &["A: wwid 1", "B: wwid 0"]),
        (&["S1 weui.1"], &["U1 weui.1"], &["A: wwid 0"]),
        (&["S1 weui.1"], &["U1 weui.1 z=1"], &["A missing", "stranger 0 None"]),
        (&["S1 weui.1 p1"], &["U1 weui.1"], &["A: wwid 0", "A wiped 0"]),
        (&["1 wnvme.1", "1 wnvme.2"], &["1 wnvme.2", "1 wnvme.1"], &["[\"A\", \"B\"] alike [0, 1]"]),
        // Where nothing else is left, the place.
        (&["S1 @1d.0"], &["U1 @1d.0"], &["A: place 0"]),
        (&["S1 @1d.0"], &["U1 @1b.0"], &["A missing", "stranger 0 None"]),
        (&["S1 p1 @1d.0"], &["U1 @1d.0"], &["A missing", "stranger 0 None"]),
        // What is on a drive is not known: of no matter where serial numbers tell it, and nothing was on it.
        (&["S1"], &["S1 ?"], &["A: serial 0"]),
        (&["S1 p1"], &["S1 ?"], &["what is on nvme0n1 is not known: it does not answer"]),
        (&["S1 p1"], &["U1 ?"], &["what is on nvme0n1 is not known: it does not answer"]),
        (&["S1 ?"], &["U1 p1"], &["what is on A is not known: it does not answer"]),
        (&["S1 ?"], &["S1 p1"], &["A: serial 0"]),
    ];
    assert_eq!(cases.len(), 40);
    for (known, live, expected) in cases {
        assert_eq!(seen(known, live), *expected, "{known:?} > {live:?}");
    }
}

#[test]
fn what_was_recognised_by_less_is_said() {
    let known = [drive(0, "S1 p1"), drive(1, "S2"), drive(2, "S3")];
    let live = drives(&["U1 p1", "S2", "U3 p1 z=7"]);
    let of = |at: usize, name| Known { name, drive: &known[at], new: false, ports: Vec::new() };
    // The copy is of another size: whichever of the two it is, nothing tells.
    let sight = recognise(&[of(0, "a"), of(1, "b")], &live).unwrap();
    assert_eq!(short(&sight), ["b: serial 1", "a twice [0, 2]"]);
    let sight = recognise(&[of(0, "a"), of(1, "b")], &live[..2]).unwrap();
    assert_eq!(sight.found[0].notes, ["was S1 and reports U1: recognised by its 1 partition, model and size"]);
    let live = drives(&["S1 p1", "X p1"]);
    let sight = recognise(&[of(0, "a")], &live).unwrap();
    assert_eq!(sight.found[0].notes, ["nvme1n1 has partitions with the same uuids: a copy"]);
    // A pool of Mayastor looks empty.
    let pool = Drive { purposes: vec![Purpose::Mayastor("p".into())], ..drive(0, "S1 @1d.0") };
    let known = [Known { name: "pool", drive: &pool, new: false, ports: pool.port().into_iter().collect() }];
    assert_eq!(short(&recognise(&known, &drives(&["U1 @1d.0"])).unwrap()), ["pool missing", "stranger 0 None"]);
    // A new one without a serial number.
    let new = drive(0, "-");
    let known = [Known { name: "new", drive: &new, new: true, ports: Vec::new() }];
    assert_eq!(short(&recognise(&known, &drives(&["N1"])).unwrap()), ["new: kind 0"]);
    assert_eq!(short(&recognise(&known, &drives(&["N1 p1"])).unwrap()), ["new missing", "stranger 0 None"]);
    assert_eq!(short(&recognise(&known, &drives(&["N1", "N2"])).unwrap()).len(), 3);
    // What is on USB or SATA is in no slot.
    let stick = Drive { transport: "usb".into(), ..drive(0, "U") };
    assert_eq!(recognise(&[], &[stick]).unwrap(), Sight::default());
}

/// A drive of an identity of its own: what is on it is its alone, its serial number may be another's.
fn any_drives() -> impl Strategy<Value = Vec<Drive>> {
    prop::collection::vec((0..4_u8, 0..3_usize, 0..2_u8, 0..2_u64), 1..6).prop_map(|all| {
        let of = |(at, (serial, parts, model, size)): (usize, (u8, usize, u8, u64))| {
            let serial = match serial {
                0 => String::new(),
                1 => "0001".into(),
                _ => format!("S{at}"),
            };
            let part = |n| Part { uuid: format!("p{at}-{n}"), index: 1, ..Part::default() };
            Drive {
                id: format!("nvme{at}n1"),
                serial,
                model: format!("M{model}"),
                size: 1000 + size,
                transport: "nvme".into(),
                parts: Layer::Known((0..parts).map(part).collect()),
                ..Drive::default()
            }
        };
        all.into_iter().enumerate().map(of).collect()
    })
}

proptest! {
    /// However they are mixed, renamed by the kernel, taken out and joined by strangers: none is taken for another, none is
    /// taken twice, and each is either recognised or odd.
    #[test]
    fn no_drive_is_taken_for_another(
        all in any_drives(),
        order in Just((0..6_usize).collect::<Vec<_>>()).prop_shuffle(),
        gone in prop::collection::vec(prop::bool::weighted(0.2), 6),
        renamed in prop::collection::vec(prop::bool::weighted(0.2), 6),
        strangers in 0..2_usize,
    ) {
        let names: Vec<String> = all.iter().map(|drive| drive.id.clone()).collect();
        let known: Vec<Known<'_>> = names
            .iter()
            .zip(&all)
            .map(|(name, drive)| Known { name, drive, new: false, ports: Vec::new() })
            .collect();
        let mut live: Vec<(Option<usize>, Drive)> = order
            .iter()
            .filter(|at| **at < all.len() && !gone[**at])
            .map(|at| {
                let mut drive = all[*at].clone();
                if renamed[*at] {
                    drive.serial = format!("BRIDGE{at}");
                }
                (Some(*at), drive)
            })
            .collect();
        live.extend((0..strangers).map(|n| (None, Drive { serial: format!("X{n}"), ..all[0].clone() })));
        for (_, drive) in live.iter_mut().filter(|(of, _)| of.is_none()) {
            drive.parts = Layer::Known(Vec::new());
        }
        let drives: Vec<Drive> = live
            .iter()
            .enumerate()
            .map(|(at, (_, drive))| Drive { id: format!("nvme{at}n1"), ..drive.clone() })
            .collect();
        let sight = recognise(&known, &drives).unwrap();
        let odd: Vec<&str> = sight.odd.iter().flat_map(Odd::names).collect();
        let mut taken = std::collections::BTreeSet::new();
        for found in &sight.found {
            prop_assert!(taken.insert(found.at), "taken twice: {:?}", sight);
            // One drive of several with one serial number came alone: what was on it tells, or it is odd.
            let own = names.iter().position(|name| *name == found.name);
            prop_assert!(live[found.at].0 == own || odd.contains(&found.name.as_str()), "{:?}", sight);
        }
        for name in &names {
            prop_assert!(sight.of(name).is_some() || odd.contains(&name.as_str()), "{:?}", sight);
        }
        // The other way: what was recognised forwards is recognised backwards as well.
        let back_names: Vec<String> = (0..drives.len()).map(|at| at.to_string()).collect();
        let back: Vec<Known<'_>> = back_names
            .iter()
            .zip(&drives)
            .map(|(name, drive)| Known { name, drive, new: false, ports: Vec::new() })
            .collect();
        let reverse = recognise(&back, &all).unwrap();
        for found in sight.found.iter().filter(|found| !odd.contains(&found.name.as_str())) {
            let same = reverse.of(&found.at.to_string()).map(|other| names[other.at].clone());
            prop_assert_eq!(same.as_deref(), Some(found.name.as_str()), "{:?}\n{:?}", sight, reverse);
        }
    }

    /// The order in which drives answer decides nothing.
    #[test]
    fn the_order_of_drives_does_not_matter(
        all in any_drives(),
        live in any_drives(),
        by in Just((0..6_usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let names: Vec<String> = all.iter().map(|drive| drive.id.clone()).collect();
        let known: Vec<Known<'_>> = names
            .iter()
            .zip(&all)
            .map(|(name, drive)| Known { name, drive, new: false, ports: Vec::new() })
            .collect();
        let order: Vec<usize> = by.into_iter().filter(|at| *at < live.len()).collect();
        let mixed: Vec<Drive> = order.iter().map(|at| live[*at].clone()).collect();
        let pairs = |sight: &Sight, of: &dyn Fn(usize) -> usize| -> Vec<(String, usize)> {
            sight.found.iter().map(|found| (found.name.clone(), of(found.at))).collect()
        };
        let (a, b) = (recognise(&known, &live).unwrap(), recognise(&known, &mixed).unwrap());
        prop_assert_eq!(pairs(&a, &|at| at), pairs(&b, &|at| order[at]));
        prop_assert_eq!(a.odd.len(), b.odd.len());
    }
}
