use super::*;
use crate::base::drives::{By, Found, Layout, Part, Scenario};
use crate::base::survey::Layer;
use crate::k8s::mayastor::Health;

fn drive(id: &str, serial: &str, parts: &[(&str, &str)]) -> Drive {
    let part = |(label, uuid): &(&str, &str)| Part {
        label: (*label).into(),
        uuid: (*uuid).into(),
        index: 1,
        ..Part::default()
    };
    Drive {
        id: id.into(),
        model: "M".into(),
        serial: serial.into(),
        size: 7,
        transport: "nvme".into(),
        parts: Layer::Known(parts.iter().map(part).collect()),
        ..Drive::default()
    }
}

fn plan() -> Plan {
    let wanted = |serial: &str, purpose| Wanted { serial: serial.into(), purposes: vec![purpose], ..Wanted::default() };
    let all = [
        ("sys", wanted("S", Purpose::System)),
        ("media", wanted("D", Purpose::UserVolume("media".into()))),
        ("old", wanted("O", Purpose::UserVolume("old".into()))),
        ("fresh", Wanted { new: true, ..wanted("N", Purpose::UserVolume("scratch".into())) }),
        ("pool", Wanted { new: true, ..wanted("P", Purpose::Mayastor("p2".into())) }),
    ];
    let at = |pairs: &[(&str, &str)]| -> Layout {
        pairs.iter().map(|(slot, name)| ((*slot).to_owned(), (*name).to_owned())).collect()
    };
    Plan {
        slots: Vec::new(),
        drives: all.map(|(name, wanted)| (name.to_owned(), wanted)).into(),
        current: at(&[("1", "sys"), ("2", "media"), ("3", "old")]),
        target: at(&[("1", "sys"), ("3", "media"), ("2", "fresh"), ("4", "pool")]),
        scenario: Scenario::Data,
    }
}

fn before() -> Inventory {
    let mut sys = drive("nvme0n1", "S", &[("EFI", "e"), ("META", "m"), ("EPHEMERAL", "p")]);
    sys.purposes = vec![Purpose::System];
    let drives = vec![sys, drive("nvme1n1", "D", &[("u-media", "d")]), drive("nvme2n1", "O", &[("u-old", "o")])];
    Inventory { drives, ..Inventory::default() }
}

fn mounts() -> Vec<Mounted> {
    let of = |id: &str, target: &str, source: &str| Mounted {
        id: id.into(),
        target: target.into(),
        source: source.into(),
        read_only: false,
    };
    let one = |id: &str, target: &str| of(id, target, "");
    vec![
        one("EPHEMERAL", "/var"),
        one("u-media", "/var/mnt/media"),
        one("u-old", "/var/mnt/old"),
        one("u-folder", "/var/mnt/folder"),
        one("opt", "/opt"),
        // Of `machine.disks`: one on a drive that stays, one on a drive that leaves.
        of("/dev/nvme1n1-2", "/var/lib/longhorn", "/dev/nvme1n1p2"),
        of("/dev/nvme2n1-1", "/var/lib/old", "/dev/nvme2n1p1"),
    ]
}

/// As it is afterwards: `media` is `nvme0n1` now, and `fresh` is there.
fn drives() -> Drives {
    let mut sys = drive("nvme2n1", "S", &[("EFI", "e"), ("META", "m"), ("EPHEMERAL", "p")]);
    sys.purposes = vec![Purpose::System];
    let all = vec![
        drive("nvme0n1", "D", &[("u-media", "d")]),
        drive("nvme1n1", "N", &[("u-scratch", "n")]),
        sys,
        Drive { symlinks: vec!["/dev/disk/by-id/nvme-P".into()], ..drive("nvme3n1", "P", &[]) },
    ];
    let found =
        |(at, name): (usize, &str)| Found { name: name.into(), at, by: By::Serial, slot: None, notes: Vec::new() };
    let found = ["media", "fresh", "sys", "pool"].into_iter().enumerate().map(found).collect();
    let live = Inventory { drives: all, ..Inventory::default() };
    Drives {
        known: Known { plan: plan(), before: before(), guessed: false },
        live,
        sight: Sight { found, odd: Vec::new() },
    }
}

fn status(phase: &str, location: &str, parent: &str) -> VolumeStatus {
    VolumeStatus {
        phase: phase.into(),
        location: location.into(),
        parent_location: parent.into(),
        ..VolumeStatus::default()
    }
}

fn now() -> Now {
    let ready = |location: &str, parent: &str| status("ready", location, parent);
    let statuses = [
        ("META", ready("/dev/nvme2n1p2", "/dev/nvme2n1")),
        ("EPHEMERAL", ready("/dev/nvme2n1p4", "/dev/nvme2n1")),
        ("u-media", ready("/dev/nvme0n1p1", "/dev/nvme0n1")),
        ("u-scratch", ready("/dev/nvme1n1p1", "/dev/nvme1n1")),
    ];
    let mount = |id: &str, target: &str| (id.to_owned(), Mount { target: target.into(), ..Mount::default() });
    Now {
        booted: true,
        statuses: statuses.map(|(id, status)| (id.to_owned(), status)).into(),
        mounts: vec![
            mount("EPHEMERAL", "/var"),
            mount("u-media", "/var/mnt/media"),
            mount("u-folder", "/var/mnt/folder"),
            mount("/dev/nvme0n1-2", "/var/lib/longhorn"),
            mount("u-scratch", "/var/mnt/scratch"),
        ],
    }
}

fn look(now: &Now, drives: &Drives) -> Judged {
    let former = staying(&plan(), &before(), mounts()).unwrap();
    judge(&former, &["scratch".to_owned()], now, drives, &|rest| format!("`talosctl {rest}`"))
}

#[test]
fn what_leaves_with_its_drive_is_not_waited_for() {
    let former = staying(&plan(), &before(), mounts()).unwrap();
    let ids: Vec<&str> = former.volumes.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(ids, ["META", "EPHEMERAL", "u-media"]);
    assert_eq!(former.notes, ["the volume u-old has left with O"]);
    let mounted: Vec<&str> = former.mounts.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(mounted, ["EPHEMERAL", "u-media", "u-folder", "/dev/nvme1n1-2"]);
    let judged = look(&now(), &drives());
    assert_eq!((judged.problems.as_slice(), judged.waits.as_slice()), (&[][..], &[][..] as &[String]));
    assert!(judged.notes.iter().any(|note| note == "u-media is ready on D"), "{judged:#?}");
    assert!(judged.notes.iter().any(|note| note.starts_with("u-scratch is new")), "{judged:#?}");
}

#[test]
fn what_was_not_ready_before_is_said_and_not_waited_for() {
    let ready =
        |ids: &[&str]| Readiness { volumes: ids.iter().map(|id| (*id).to_owned()).collect(), ..Readiness::default() };
    let mut missing = now();
    missing.statuses.remove("u-media");
    missing.mounts.retain(|(id, _)| id != "u-media");
    let of = |ids: &[&str]| {
        let mut former = staying(&plan(), &before(), mounts()).unwrap();
        former.mounts.retain(|mount| mount.id != "u-media");
        former.ready = Some(ready(ids));
        judge(&former, &[], &missing, &drives(), &|rest| rest.to_owned())
    };
    let judged = of(&["META", "EPHEMERAL"]);
    assert_eq!((judged.problems.len(), judged.waits.len()), (0, 0), "{judged:#?}");
    let words = "u-media on D is not ready (unknown to Talos), and was not before";
    assert!(judged.notes.iter().any(|note| note == words), "{judged:#?}");
    assert_eq!(of(&["META", "EPHEMERAL", "u-media"]).waits.len(), 1);
}

#[test]
fn what_can_still_come_is_waited_for_and_what_cannot_is_refused() {
    type Edit = fn(&mut Now, &mut Drives);
    let waits: [(Edit, &str); 9] = [
        (
            |now, _| now.statuses.get_mut("u-media").unwrap().phase = "waiting".into(),
            "u-media is waiting; its partition is on D",
        ),
        (|now, _| now.statuses.get_mut("u-media").unwrap().phase = "failed".into(), "u-media is failed"),
        (|now, _| drop(now.statuses.remove("u-media")), "u-media is unknown to Talos"),
        (|now, _| now.mounts.retain(|(id, _)| id != "u-media"), "u-media is not mounted at /var/mnt/media"),
        (|now, _| now.mounts.retain(|(id, _)| id != "u-folder"), "u-folder is not mounted at /var/mnt/folder"),
        (
            |now, _| now.mounts.retain(|(_, mount)| mount.target != "/var/lib/longhorn"),
            "/dev/nvme1n1-2 is not mounted at /var/lib/longhorn",
        ),
        (|now, _| drop(now.statuses.remove("u-scratch")), "Talos does not know u-scratch yet"),
        (
            |now, drives| {
                now.booted = false;
                drives.live.drives[0].parts = Layer::Known(Vec::new());
            },
            "its partition is on no drive",
        ),
        (|_, drives| drives.live.drives[0].parts = Layer::unknown("refused"), "what is on D is not known: refused"),
    ];
    let mut waited = 0;
    for (edit, words) in waits {
        let (mut now, mut drives) = (now(), drives());
        edit(&mut now, &mut drives);
        let judged = look(&now, &drives);
        assert!(
            judged.problems.is_empty() && judged.waits.iter().any(|one| one.contains(words)),
            "{words}: {judged:#?}"
        );
        waited += 1;
    }
    assert_eq!(waited, 9);
    let refused: [(Edit, &str); 6] = [
        (
            |_, drives| drives.live.drives[0].parts = Layer::Known(Vec::new()),
            "its partition is on no drive of the machine; it was on D",
        ),
        (
            |_, drives| {
                let parts = drives.live.drives[0].parts.clone();
                drives.live.drives[3].parts = parts;
            },
            "the partition of u-media is on 2 drives: D, P",
        ),
        (
            |_, drives| {
                let parts = std::mem::replace(&mut drives.live.drives[0].parts, Layer::Known(Vec::new()));
                drives.live.drives[3].parts = parts;
            },
            "u-media is on P, and was on D",
        ),
        (
            |now, _| *now.statuses.get_mut("u-media").unwrap() = status("ready", "/dev/nvme3n1p1", "/dev/nvme3n1"),
            "u-media is /dev/nvme3n1, and its partition is on D",
        ),
        (|now, _| now.mounts[1].1.read_only = true, "u-media at /var/mnt/media is mounted read-only"),
        (
            |now, _| *now.statuses.get_mut("u-scratch").unwrap() = status("ready", "/dev/nvme3n1p1", ""),
            "and the plan has it on fresh",
        ),
    ];
    let mut count = 0;
    for (edit, words) in refused {
        let (mut now, mut drives) = (now(), drives());
        edit(&mut now, &mut drives);
        let judged = look(&now, &drives);
        assert!(judged.problems.iter().any(|one| one.text.contains(words)), "{words}: {judged:#?}");
        count += 1;
    }
    assert_eq!(count, 6);
}

#[test]
fn a_partition_is_below_its_own_disk_alone() {
    for (path, disk, expected) in [
        ("/dev/nvme0n1", "nvme0n1", true),
        ("/dev/nvme0n1p12", "nvme0n1", true),
        ("/dev/nvme0n12p1", "nvme0n1", false),
        ("/dev/nvme1n1p1", "nvme0n1", false),
        ("/dev/sda4", "sda", true),
        ("/dev/sdaa", "sda", false),
        ("", "sda", false),
    ] {
        assert_eq!(is_below(path, disk), expected, "{path} {disk}");
    }
}

#[test]
fn pools_of_the_node_are_online_or_waited_for() {
    let pool = |name: &str, node: &str, health: Health| DiskPool {
        namespace: "openebs".into(),
        name: name.into(),
        node: node.into(),
        disks: vec!["/dev/disk/by-id/x".into()],
        health,
        created: true,
        capacity: 7,
        going: false,
    };
    let unknown = || Health::Other("Unknown".into());
    let judged = of_pools(&[pool("a", "n1", Health::Online), pool("b", "n2", unknown())], "n1", &drives(), None);
    assert_eq!(judged.waits, Vec::<String>::new());
    assert!(judged.notes.iter().any(|note| note == "pool a is Online"), "{judged:#?}");
    let made = "nothing makes the pool p2 yet: a DiskPool with /dev/disk/by-id/nvme-P on n1 does";
    assert!(judged.notes.iter().any(|note| note == made), "{judged:#?}");
    let judged = of_pools(&[pool("a", "n1", unknown()), pool("p2", "n1", Health::Online)], "n1", &drives(), None);
    assert_eq!((judged.waits.as_slice(), judged.notes.len()), (&["pool a of Mayastor is Unknown".to_owned()][..], 1));
    // One that did not serve before is not waited for; one that did is.
    let both = [pool("a", "n1", unknown()), pool("p2", "n1", unknown())];
    let ready = Readiness { pools: ["p2".to_owned()].into(), ..Readiness::default() };
    let judged = of_pools(&both, "n1", &drives(), Some(&ready));
    assert_eq!(judged.waits, ["pool p2 of Mayastor is Unknown"]);
    assert_eq!(judged.notes, ["pool a of Mayastor is Unknown, and was not Online before"]);
}
