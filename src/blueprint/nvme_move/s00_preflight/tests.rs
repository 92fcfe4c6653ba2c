use super::drives::{drives, selectors, told_apart};
use crate::base::drives::{Drive, Inventory, Layout, Part, Plan, Purpose, Scenario, Slot, Wanted};
use crate::base::survey::{Disk, InstallDisk, Layer, MachineConfig, NamedSelector, SystemDisk};
use crate::blueprint::finding::Findings;

/// `M2_1=sys M2_2=media`.
fn layout(text: &str) -> Layout {
    text.split_whitespace().filter_map(|pair| pair.split_once('=')).map(|(a, b)| (a.into(), b.into())).collect()
}

fn media() -> Purpose {
    Purpose::UserVolume("media".into())
}

fn plan(current: &str, target: &str) -> Plan {
    let slot = |name: &str| Slot { name: name.into(), position: String::new(), port: None };
    let old = |serial: &str, purpose| Wanted { serial: serial.into(), purposes: vec![purpose], ..Wanted::default() };
    let new = Wanted { new: true, model: "M3".into(), size: Some(3), ..old("S3", Purpose::Mayastor("pool".into())) };
    let all = [("sys", old("S1", Purpose::System)), ("media", old("S2", media())), ("pool", new)];
    let (current, target) = (layout(current), layout(target));
    let named = |name: &str| current.values().chain(target.values()).any(|drive| drive == name);
    Plan {
        slots: ["M2_1", "M2_2", "M2_3"].map(slot).to_vec(),
        drives: all.into_iter().filter(|(name, _)| named(name)).map(|(name, of)| (name.to_owned(), of)).collect(),
        current,
        target,
        scenario: Scenario::Data,
    }
}

fn data() -> Plan {
    plan("M2_1=sys M2_2=media", "M2_1=sys M2_3=media M2_2=pool")
}

/// The nth drive, in the nth slot.
fn drive(n: usize, serial: &str, purposes: &[Purpose]) -> Drive {
    let part = Part { uuid: format!("uuid-{serial}"), index: 1, size: 1, ..Part::default() };
    Drive {
        id: format!("nvme{n}n1"),
        serial: serial.into(),
        transport: "nvme".into(),
        bus_path: format!("/pci0000:00/0000:00:1{n}.0/0000:0{n}:00.0/nvme"),
        parts: Layer::Known(vec![part]),
        purposes: purposes.to_vec(),
        ..Drive::default()
    }
}

fn machine() -> Inventory {
    let drives = vec![drive(1, "S1", &[Purpose::System]), drive(2, "S2", &[media()])];
    Inventory { drives, ..Inventory::default() }
}

/// Name and text of each problem, and the notes.
fn said(findings: Findings) -> (Vec<String>, Vec<String>) {
    let (problems, notes): (Vec<_>, Vec<_>) = findings.all.into_iter().partition(|one| one.known.is_some());
    assert!(problems.iter().all(|one| one.help.as_deref().is_some_and(|help| !help.is_empty())));
    let problem = |one: crate::blueprint::finding::Finding| format!("{}: {}", one.known.unwrap().name, one.text);
    (problems.into_iter().map(problem).collect(), notes.into_iter().map(|one| one.text).collect())
}

#[test]
fn a_machine_as_the_plan_has_it_has_nothing_in_the_way() {
    let none = (Vec::<String>::new(), Vec::<String>::new());
    assert_eq!(said(drives("n1", &data(), &machine(), &machine())), none);
    // In the slots of the target, too: whoever has moved them already.
    let mut live = machine();
    live.drives[1].bus_path = "/pci0000:00/0000:00:13.0/0000:03:00.0/nvme".into();
    live.drives.push(drive(2, "S3", &[]));
    live.drives[2].model = "M3".into();
    live.drives[2].size = 3;
    assert_eq!(said(drives("n1", &data(), &machine(), &live)), none);
}

#[test]
fn each_drive_is_accounted_for_once() {
    type Change = fn(&mut Inventory);
    let cases: &[(Change, &[&str])] = &[
        (|live| live.drives.push(drive(3, "S9", &[])), &["drives-unaccounted: nvme3n1 (S9) is in no plan"]),
        (|live| live.drives.truncate(1), &["drives-unaccounted: media (S2) is not in the machine"]),
        // Whoever comes early is known.
        (|live| live.drives.push(Drive { model: "M3".into(), size: 3, ..drive(3, "S3", &[]) }), &[]),
        // A disk that is on no PCI slot is none of the plan's business.
        (|live| live.drives.push(Drive { transport: "sata".into(), ..drive(3, "S9", &[]) }), &[]),
        (
            |live| live.drives[1].purposes = vec![Purpose::UserVolume("other".into())],
            &[
                "purpose-differs: media (S2) is for user-volume other, and the plan says user-volume media",
                "purpose-differs: media (S2) is to be for user-volume media, and is not",
            ],
        ),
    ];
    assert_eq!(cases.len(), 5);
    for (change, expected) in cases {
        let mut live = machine();
        change(&mut live);
        let before = live.clone();
        assert_eq!(said(drives("n1", &data(), &before, &live)).0, *expected);
    }
}

#[test]
fn drives_that_cannot_be_told_apart_are_not_moved() {
    let mut plan = data();
    for drive in plan.drives.values_mut().filter(|drive| !drive.new) {
        drive.serial = "0001".into();
    }
    let mut live = machine();
    for drive in &mut live.drives {
        (drive.serial, drive.parts) = ("0001".into(), Layer::Known(Vec::new()));
    }
    let (problems, _) = said(drives("n1", &plan, &live, &live));
    let alike: Vec<_> = problems.iter().filter(|line| line.starts_with("drives-look-alike: ")).collect();
    assert!(alike.len() == 1 && alike[0].contains("0001"), "{problems:?}");
    // What is on one is not known, and the answer hangs on it.
    live.drives[0].parts = Layer::unknown("it does not answer");
    let (problems, _) = said(drives("n1", &plan, &live, &live));
    assert!(problems.len() == 1 && problems[0].starts_with("cannot-ask: "), "{problems:?}");
}

#[test]
fn a_drive_is_where_the_plan_has_it_before_or_after() {
    let mut live = machine();
    live.drives.swap(0, 1);
    let (a, b) = (live.drives[0].bus_path.clone(), live.drives[1].bus_path.clone());
    (live.drives[0].bus_path, live.drives[1].bus_path) = (b, a);
    let (problems, _) = said(drives("n1", &data(), &machine(), &live));
    let expected = [
        "drive-elsewhere: media is in M2_1, and the plan has it in M2_2 or M2_3",
        "drive-elsewhere: sys is in M2_2, and the plan has it in M2_1",
    ];
    for line in expected {
        assert!(problems.iter().any(|problem| problem == line), "{line}: {problems:?}");
    }
    assert_eq!(problems.len(), 2);
    let (problems, _) = said(drives("n1", &data(), &Inventory::default(), &live));
    assert!(problems.len() == 1 && problems[0].starts_with("drive-elsewhere: the drives are neither"), "{problems:?}");
}

#[test]
fn what_leaves_takes_nothing_along_and_local_volumes_are_told() {
    let (problems, _) = said(drives("n1", &plan("M2_1=sys M2_2=media", "M2_1=sys"), &machine(), &machine()));
    assert_eq!(problems, ["drive-leaves-with-data: media (S2) leaves the machine with user-volume media"]);
    let mut live = machine();
    live.drives[1].purposes.push(Purpose::Local("pv-a".into()));
    let (problems, notes) = said(drives("n1", &data(), &machine(), &live));
    assert_eq!(
        (problems.len(), notes.as_slice()),
        (0, &["media has local pv-a: away for as long as the node is off".to_owned()][..])
    );
    // What could not be asked may be the rest of it.
    live.drives[1].purposes.clear();
    live.not_asked = vec!["the pools of Mayastor: refused".into()];
    let (problems, notes) = said(drives("n1", &data(), &machine(), &live));
    assert_eq!((problems.len(), notes.len()), (0, 2), "{notes:?}");
}

#[test]
fn selectors_are_asked_of_the_drives_of_now_and_of_then() {
    let disk = |n: usize, serial: &str| Disk {
        id: format!("nvme{n}n1"),
        dev_path: format!("/dev/nvme{n}n1"),
        serial: serial.into(),
        transport: "nvme".into(),
        ..Disk::default()
    };
    let disks = [disk(1, "S1"), disk(2, "S2")];
    let system = Layer::Known(SystemDisk { id: "nvme1n1".into(), dev_path: "/dev/nvme1n1".into() });
    let volume = |expression: &str| MachineConfig {
        volumes: vec![NamedSelector {
            kind: "UserVolumeConfig".into(),
            name: "media".into(),
            expression: expression.into(),
        }],
        ..MachineConfig::default()
    };
    let legacy = MachineConfig { disks: vec!["/dev/nvme2n1".into()], ..MachineConfig::default() };
    let bus = MachineConfig {
        install: InstallDisk {
            selector: [("busPath".to_owned(), "/pci0000:00/*".to_owned())].into(),
            ..InstallDisk::default()
        },
        ..MachineConfig::default()
    };
    let cases = [
        (volume("disk.serial == \"S2\""), None),
        (legacy, Some("selector-goes-by-place: machine.disks: /dev/nvme2n1 goes by place")),
        (bus, Some("selector-goes-by-place: machine.install.diskSelector: {busPath: ")),
        (volume("disk.dev_path == \"/dev/nvme2n1\""), Some("selector-goes-by-place: UserVolumeConfig media: ")),
        (
            volume("disk.transport == \"nvme\" && !system_disk"),
            Some(
                "selector-matches-several: UserVolumeConfig media would mean 2 drives once pool is in M2_2: nvme2n1 (S2), pool \
                 (S3)",
            ),
        ),
        (
            volume("disk.transport == \"nvme\""),
            Some("selector-matches-several: UserVolumeConfig media means 3 drives: "),
        ),
        (volume("disk.serial =="), Some("cannot-ask: which disks UserVolumeConfig media")),
    ];
    assert_eq!(cases.len(), 7);
    for (config, expected) in cases {
        let (problems, _) = said(selectors(&data(), &machine(), &config, &system, &disks));
        assert_eq!(problems.len(), usize::from(expected.is_some()), "{expected:?}: {problems:?}");
        assert!(expected.is_none_or(|start| problems[0].starts_with(start)), "{expected:?}: {problems:?}");
    }
}

#[test]
fn a_layout_that_looks_the_same_after_the_move_takes_a_port() {
    let swap = plan("M2_1=sys M2_2=media", "M2_1=media M2_2=sys");
    let (problems, _) = said(told_apart(&swap, &machine()));
    assert!(problems.len() == 1 && problems[0].starts_with("slots-not-told-apart: "), "{problems:?}");
    let help = told_apart(&swap, &machine()).all.remove(0).help.unwrap();
    assert!(help.contains("if sys is in M2_1, add `port: \"0000:00:11.0\"` to M2_1"), "{help}");
    // A slot that was empty is one of them; the port of one that stays as it is tells nothing.
    let mut along = plan("M2_1=sys M2_2=media", "M2_1=sys M2_3=media");
    along.slots[0].port = Some("0000:00:11.0".parse().unwrap());
    assert_eq!(said(told_apart(&along, &machine())).0.len(), 1);
    along.slots[2].port = Some("0000:00:13.0".parse().unwrap());
    assert_eq!(said(told_apart(&along, &machine())).0, Vec::<String>::new());
    // Whoever comes tells it, and so does who leaves.
    assert_eq!(said(told_apart(&data(), &machine())).0, Vec::<String>::new());
    let leaves = plan("M2_1=sys M2_2=media", "M2_1=sys");
    assert_eq!(said(told_apart(&leaves, &machine())).0, Vec::<String>::new());
    let mut no_drives = machine();
    no_drives.drives.clear();
    assert!(told_apart(&swap, &no_drives).all[0].help.as_deref().unwrap().contains("`pvemig survey --hardware`"));
}
