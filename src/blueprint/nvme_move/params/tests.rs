use std::path::{Path, PathBuf};

use super::*;

const SITE: &str = include_str!("../../../../fixtures/site/slots.yaml");
const DATA: &str = "\
node: talos-nuc
scenario: data
drives:
  sys: { serial: S5GXNF0R601234, model: Samsung SSD 980 PRO 1TB, purpose: system }
  media: { serial: 22471A806001, purpose: [user-volume media, local pv-media] }
  fresh: { serial: S676NF0W712345, model: SAMSUNG MZVL21T0, size: 1024209543168, purpose: user-volume scratch, new: true }
current: { M2_1: sys, M2_2: media }
target: { M2_1: sys, M2_3: media, M2_2: fresh }
volumes:
  scratch: { on: fresh, else_by_model: true, min_size: 1GiB }
";

fn site(params: &[&str]) -> Site {
    let mut text = format!("{SITE}migrations:\n");
    for (n, params) in params.iter().enumerate() {
        let lines: String = params.lines().map(|line| format!("      {line}\n")).collect();
        text.push_str(&format!("  m{n}:\n    blueprint: nvme-move\n    params:\n{lines}"));
    }
    Site::parse(&text, Path::new("/etc/pvemig/site.yaml"), Some(PathBuf::from("/root"))).unwrap()
}

fn read(params: &[&str]) -> (Option<Params>, Vec<String>) {
    let (site, sink) = (site(params), Sink::new());
    let read = Params::read(&site, &site.params("m0", &sink).unwrap());
    let problems = sink.into_problems();
    assert!(problems.iter().all(|problem| !problem.help.is_empty()));
    let path = |path: &str| path.trim_start_matches("migrations.m0.params").trim_start_matches('.').to_owned();
    (read, problems.iter().map(|problem| format!("{}: {}", path(&problem.path), problem.text)).collect())
}

#[test]
fn a_plan_is_read_with_the_slots_of_its_node() {
    let (read, problems) = read(&[DATA]);
    assert_eq!(problems, Vec::<String>::new());
    let p = read.unwrap();
    let slots: Vec<_> = p.plan.slots.iter().map(|slot| slot.name.as_str()).collect();
    assert_eq!(slots, ["M2_3", "M2_1", "M2_2"]);
    assert_eq!((p.machine.name.as_str(), p.peers.len(), p.others.len()), ("talos-nuc", 3, 0));
    assert_eq!(p.plan.drives["media"].purposes.len(), 2);
    assert_eq!((p.without_api, p.first, p.measure), (false, false, Some(Measure::usual())));
    let [Patch::UserVolume { name, disk, min_size, grow: None, .. }] = p.volumes.as_slice() else { panic!() };
    assert_eq!((name.as_str(), min_size.as_deref()), ("scratch", Some("1GiB")));
    assert_eq!(*disk, fallback("S676NF0W712345", "SAMSUNG MZVL21T0", 1_024_209_543_168));
}

#[test]
fn everything_that_is_wrong_is_said_at_once_and_in_its_place() {
    let wrong = "\
node: talos-nuc
scenario: date
drives:
  sys: { serial: S1, purpose: sytem }
  media: { serial: S2, size: big }
current: { M2_1: sys }
target: [sys]
measure: { bytes: 0 }
recipients: [age1nobody]
medium: { version: 1.11 }
wihtout_api: true
";
    let (read, problems) = read(&[wrong]);
    assert!(read.is_none());
    let at: Vec<&str> = problems.iter().map(|line| line.split(": ").next().unwrap()).collect();
    let expected = [
        "wihtout_api",
        "scenario",
        "drives.media.size",
        "drives.media",
        "drives.sys.purpose",
        "target",
        "medium.version",
        "measure.bytes",
        "recipients[0]",
    ];
    for path in expected {
        assert!(at.contains(&path), "{path}: {problems:#?}");
    }
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
}

#[test]
fn what_is_wrong_with_a_plan_has_its_place() {
    let cases = [
        ("M2_3: media", "M2_9: media", "target.M2_9: `M2_9` is no slot of the node"),
        ("M2_3: media", "M2_3: medai", "target.M2_3: `medai` is no drive of the plan"),
        ("scenario: data", "scenario: system-replaced", "scenario: the system disk sys stays where it is"),
        ("M2_1: sys, M2_3: media", "M2_3: sys, M2_1: media", "scenario: the system disk sys goes from M2_1 to M2_3"),
        ("on: fresh", "on: media", "volumes.scratch: the drive of volume scratch has another purpose"),
        ("on: fresh", "on: frehs", "volumes.scratch.on: `frehs` is not a drive of `drives`"),
        ("volumes:", "config: ./a.yaml\nvolumes:", "config: `data` installs nothing"),
    ];
    assert_eq!(cases.len(), 7);
    for (from, to, expected) in cases {
        assert!(DATA.contains(from), "{from}");
        let (read, problems) = read(&[&DATA.replacen(from, to, 1)]);
        assert!(problems.iter().any(|line| line.starts_with(expected)), "{expected}: {problems:#?}");
        assert!(read.is_none() || expected.starts_with("config"), "{expected}");
    }
    // What only changes its slot is not wiped, and the two other scenarios ask for what they need.
    let moved = DATA.replacen("M2_1: sys, M2_3: media", "M2_3: sys, M2_1: media", 1);
    let (_, problems) = read(&[&moved.replacen("scenario: data", "scenario: system-replaced", 1)]);
    assert_eq!(problems, ["scenario: sys only changes its slot: nothing has to be wiped"]);
    let (_, problems) = read(&[&moved.replacen("scenario: data", "scenario: system-moved", 1)]);
    assert_eq!(problems.len(), 1);
    assert!(problems[0].contains("there is no `medium`"), "{problems:?}");
}

#[test]
fn other_migrations_of_the_cluster_are_known_and_may_be_wrong() {
    let mac = "\
node: talos-mac
scenario: data
drives: { sys: { serial: M1, purpose: system }, more: { serial: M2, model: M, size: 7, purpose: spare, new: true } }
current: { SSD: sys }
target: { SSD: more }
";
    let good = mac.replacen("purpose: spare", "purpose: system", 1).replacen("data", "system-replaced", 1);
    for (text, count) in [(mac, 0), (good.as_str(), 1)] {
        let (read, problems) = read(&[DATA, text]);
        assert_eq!((read.unwrap().others.len(), problems), (count, Vec::new()), "{text}");
    }
}

#[test]
fn an_installation_is_read_as_that_of_a_new_node() {
    let replaced = format!(
        "{}config: ./a.yaml
medium: {{ version: v1.11.5 }}
at: 192.168.4.77
patches: [{{ user-volume: {{ name: media, disk: 'disk.serial == \"D\"' }} }}, {{ addresses: {{ link: eth0, addresses: [192.168.4.20/24] }} }}]
",
        "\
node: talos-nuc
scenario: system-replaced
drives: { sys: { serial: S1, purpose: system }, fresh: { serial: S2, model: M, size: 7, purpose: system, new: true } }
current: { M2_1: sys }
target: { M2_1: fresh }
"
    );
    let (one, problems) = read(&[&replaced]);
    assert_eq!(problems, Vec::<String>::new());
    let anew = one.unwrap().anew.unwrap();
    let bare = &anew.bare;
    assert_eq!((anew.medium.as_str(), bare.disk.as_str(), bare.at.as_deref()), ("v1.11.5", "S2", Some("192.168.4.77")));
    assert_eq!((bare.source.file.to_str(), bare.source.patches.len()), (Some("/etc/pvemig/a.yaml"), 2));
    let cases = [
        ("at: 192.168.4.77", "fingerprint: nonsense", "fingerprint: "),
        ("192.168.4.20/24", "192.168.4.20", "patches[1]: `192.168.4.20` is no address with"),
        ("user-volume", "user-volumes", "patches[0]: this is no patch"),
        ("serial: S2, ", "", "drives.fresh: fresh becomes the system disk, and has no serial number"),
    ];
    assert_eq!(cases.len(), 4);
    for (from, to, expected) in cases {
        let (one, problems) = read(&[&replaced.replacen(from, to, 1)]);
        assert!(one.is_none() && problems.iter().any(|line| line.starts_with(expected)), "{expected}: {problems:#?}");
    }
    // What belongs to it alone is no other's.
    for key in ["patches: []", "at: 192.168.4.77"] {
        let (_, problems) = read(&[&format!("{DATA}{key}\n")]);
        assert!(problems.len() == 1 && problems[0].contains("`data` installs nothing"), "{key}: {problems:?}");
    }
}

#[test]
fn the_system_disk_of_a_vm_is_no_business_of_this() {
    let of = |scenario: &str, purpose: &str| {
        format!(
            "node: talos-vm\nscenario: {scenario}\ndrives: {{ a: {{ serial: S1, purpose: {purpose} }} }}\n\
             current: {{ M2A: a }}\ntarget: {{ M2A: a }}\nmedium: {{ version: v1.11.5 }}\nconfig: ./a.yaml\n"
        )
    };
    let cases = [
        ("system-moved", "spare", "talos-vm is a VM, and no drive of the plan is its system disk"),
        ("system-replaced", "system", "talos-vm is a VM: `system-replaced` boots a machine from a stick"),
        // Its drives may be moved, and its system disk too where that is one of them.
        ("system-moved", "system", "`current` and `target` are the same"),
    ];
    assert_eq!(cases.len(), 3);
    for (scenario, purpose, words) in cases {
        let (read, problems) = read(&[&of(scenario, purpose)]);
        assert!(read.is_none(), "{scenario} {purpose}");
        let found: Vec<_> = problems.iter().filter(|line| line.starts_with("scenario: ")).collect();
        assert!(found.len() == 1 && found[0].contains(words), "{words}: {problems:#?}");
    }
}
