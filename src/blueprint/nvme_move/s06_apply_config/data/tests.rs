use super::*;
use crate::base::drives::{By as FoundBy, Found, Layout, Part, Scenario, Sight, Wanted};
use crate::blueprint::nvme_move::sight::Known;

fn disk(id: &str, serial: &str) -> Disk {
    let (id, dev_path) = (id.to_owned(), format!("/dev/{id}"));
    Disk { id, dev_path, serial: serial.into(), transport: "nvme".into(), size: 7, ..Disk::default() }
}

fn part(label: &str) -> Part {
    Part { label: label.into(), index: 1, uuid: format!("uuid-{label}"), ..Part::default() }
}

fn drive(id: &str, serial: &str, labels: &[&str]) -> Drive {
    Drive {
        id: id.into(),
        serial: serial.into(),
        transport: "nvme".into(),
        parts: Layer::Known(labels.iter().map(|label| part(label)).collect()),
        ..Drive::default()
    }
}

/// `sys`, `media` with its volume, and `fresh`, on which `scratch` is to be made.
fn drives() -> Drives {
    let wanted = |serial: &str, purpose| Wanted { serial: serial.into(), purposes: vec![purpose], ..Wanted::default() };
    let all = [
        ("sys", wanted("S", Purpose::System)),
        ("media", wanted("D", Purpose::UserVolume("media".into()))),
        ("fresh", Wanted { new: true, ..wanted("N", Purpose::UserVolume("scratch".into())) }),
    ];
    let target: Layout = ["sys", "media", "fresh"].iter().map(|n| (format!("slot of {n}"), (*n).to_owned())).collect();
    let plan = Plan {
        slots: Vec::new(),
        drives: all.map(|(name, wanted)| (name.to_owned(), wanted)).into(),
        current: Layout::new(),
        target,
        scenario: Scenario::Data,
    };
    let mut sys = drive("nvme0n1", "S", &["META", "EPHEMERAL"]);
    sys.purposes = vec![Purpose::System];
    let live = Inventory {
        drives: vec![sys, drive("nvme1n1", "D", &["u-media"]), drive("nvme2n1", "N", &[])],
        ..Inventory::default()
    };
    let found =
        |(at, name): (usize, &str)| Found { name: name.into(), at, by: FoundBy::Serial, slot: None, notes: Vec::new() };
    let found = ["sys", "media", "fresh"].into_iter().enumerate().map(found).collect();
    let known = Known { plan, before: Inventory::default(), guessed: false };
    Drives { known, live, sight: Sight { found, odd: Vec::new() } }
}

fn look(volumes: &[(&str, &str)], install: &str, drives: &Drives) -> Judged {
    let mut text = format!("version: v1alpha1\nmachine:\n  type: worker\n  install: {install}\n");
    for (name, expression) in volumes {
        text += &format!(
            "---\napiVersion: v1alpha1\nkind: UserVolumeConfig\nname: {name}\nprovisioning:\n  diskSelector:\n    match: '{expression}'\n"
        );
    }
    let disks = [disk("nvme0n1", "S"), disk("nvme1n1", "D"), disk("nvme2n1", "N")];
    let system = Layer::Known(SystemDisk { id: "nvme0n1".into(), dev_path: "/dev/nvme0n1".into() });
    judge(&drives.known.plan, &read_config(&text).unwrap(), (&system, &disks), drives)
}

const BY_S: &str = "{ diskSelector: { serial: S } }";

#[test]
fn a_selector_that_goes_by_place_or_means_none_several_or_another_is_refused() {
    type Volumes = &'static [(&'static str, &'static str)];
    let cases: [(Volumes, &str, &str); 8] = [
        (&[("media", "disk.dev_path == \"/dev/nvme1n1\"")], BY_S, "goes by place"),
        (&[], "{ disk: /dev/nvme0n1 }", "machine.install.disk: /dev/nvme0n1 goes by place"),
        (&[("scratch", "!system_disk")], BY_S, "means 2 drives: nvme1n1 (D), nvme2n1 (N)"),
        (&[("scratch", "disk.serial == \"X\"")], BY_S, "means no drive, and the plan has u-scratch on fresh"),
        (&[("scratch", "disk.serial == \"D\"")], BY_S, "means nvme1n1 (D), and the plan has u-scratch on fresh"),
        (&[("media", "disk.serial == \"S\"")], BY_S, "means nvme0n1 (S), and the plan has u-media on media"),
        (&[("scratch", "disk.nonsense == 1u")], BY_S, "cannot be told"),
        // Of a volume that the plan does not have Talos would make one all the same.
        (
            &[("other", "disk.serial == \"N\"")],
            BY_S,
            "means fresh (nvme2n1 (N)) alone, and the plan has u-other on no drive",
        ),
    ];
    let mut refused = 0;
    for (volumes, install, words) in cases {
        let judged = look(volumes, install, &drives());
        assert_eq!(judged.problems.len(), 1, "{words}: {judged:#?}");
        assert!(judged.problems[0].text.contains(words), "{words}: {judged:#?}");
        refused += 1;
    }
    assert_eq!(refused, 8);
    let good = [("media", "disk.serial == \"D\""), ("scratch", "disk.serial == \"N\"")];
    let judged = look(&good, BY_S, &drives());
    assert_eq!((judged.problems.as_slice(), judged.unknown.as_ref(), judged.notes.len()), (&[][..], None, 2));
    assert!(judged.notes[1].contains("means fresh (N) alone, and that is blank"), "{judged:#?}");
    // A drive that reports another serial number: its volume is found by its label.
    let judged = look(&[("media", "disk.serial == \"OLD\"")], BY_S, &drives());
    assert!(judged.problems.is_empty() && judged.notes[0].contains("means no drive any more"), "{judged:#?}");
    // One that is none of the plan's is none of ours.
    assert!(look(&[("other", "disk.serial == \"OLD\"")], BY_S, &drives()).problems.is_empty());
}

#[test]
fn nothing_is_made_on_a_drive_with_something_on_it_or_of_which_that_is_not_known() {
    let scratch = [("scratch", "disk.serial == \"N\"")];
    let on = |edit: &dyn Fn(&mut Drives)| {
        let mut drives = drives();
        edit(&mut drives);
        look(&scratch, BY_S, &drives)
    };
    let fresh = |drives: &mut Drives, with: Drive| drives.live.drives[2] = with;
    let held = [
        (on(&|d| fresh(d, drive("nvme2n1", "N", &["u-old"]))), "which holds the volume u-old"),
        (
            on(&|d| fresh(d, Drive { purposes: vec![Purpose::Mayastor("p".into())], ..drive("nvme2n1", "N", &[]) })),
            "which holds mayastor p",
        ),
        (
            on(&|d| {
                fresh(
                    d,
                    Drive {
                        parts: Layer::Known(vec![Part { content: "ntfs".into(), ..Part::default() }]),
                        ..drive("nvme2n1", "N", &[])
                    },
                )
            }),
            "which holds ntfs without a label",
        ),
    ];
    assert_eq!(held.len(), 3);
    for (judged, words) in held {
        assert!(judged.problems.len() == 1 && judged.problems[0].text.contains(words), "{words}: {judged:#?}");
    }
    let unknown = [
        on(&|d| fresh(d, Drive { parts: Layer::unknown("refused"), ..drive("nvme2n1", "N", &[]) })),
        on(&|d| d.live.not_asked.push("the pools of Mayastor: no answer".into())),
    ];
    for judged in unknown {
        assert!(judged.problems.is_empty() && judged.unknown.is_some(), "{judged:#?}");
    }
    // Once it is there, it is what belongs on it.
    let judged = on(&|d| fresh(d, drive("nvme2n1", "N", &["u-scratch"])));
    assert!(judged.problems.is_empty() && judged.unknown.is_none(), "{judged:#?}");
}
