//! A node that is a VM: its drives are in its host, and what Proxmox hands on goes along with them.

use super::*;
use crate::harness::scene::Scenes;
use pvemig::engine::run::{Ended, Why};

pub(super) const VM: &str = "talos-vm";
pub(super) const MEDIA: &str = "23381C804455";
const SCRATCH: &str = "S4EWNX0R998877";
const WORLDS: [&str; 2] = ["nvme-data-vm", "nvme-data-vm-mapped"];

pub(super) async fn rig_with(world: &str, change: impl FnOnce(&mut World), edit: impl FnOnce(&mut Value)) -> Rig {
    let mut world = at_rest(world);
    change(&mut world);
    // Measuring makes pods in each run, and has tests of its own.
    let unmeasured = |site: &mut Value| {
        crate::harness::story::unmeasured(site);
        edit(site);
    };
    Rig::of(world, unmeasured).await
}

pub(super) async fn rig(world: &str) -> Rig {
    rig_with(world, |_| {}, |_| {}).await
}

/// The drives in the host's slots, and what the VM is given of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stands {
    pub(super) slots: BTreeMap<String, String>,
    pub(super) lines: [String; 2],
    mapping: Vec<String>,
    /// It runs, its host is on, and it starts with it.
    pub(super) on: (bool, bool, bool),
}

pub(super) fn stands(rig: &Rig) -> Stands {
    rig.lab.shared().read(|w| {
        assert_eq!(w.misgiven, Vec::<String>::new(), "a VM was given what is not its own");
        let vm = &w.vms[&223];
        let line = |key: &str| vm.config.get(key).cloned().unwrap_or_default();
        let seated = w.talos.nodes[VM].disks.iter();
        Stands {
            slots: seated.filter_map(|disk| Some((disk.in_host.clone()?, disk.serial.clone()))).collect(),
            lines: [line("hostpci0"), line("hostpci1")],
            mapping: w.pci_mappings.get("media").map(|mapping| mapping.map.clone()).unwrap_or_default(),
            on: (vm.running.is_some(), w.hosts["pve"].online, line("onboot") == "1"),
        }
    })
}

pub(super) fn moved(mapped: bool) -> Stands {
    let texts = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect();
    Stands {
        slots: in_bays(&[("M2_3", MEDIA), ("M2_2", SCRATCH)]),
        lines: [
            if mapped { "mapping=media,pcie=1" } else { "0000:02:00.0,pcie=1,rombar=0" }.into(),
            "04:00,pcie=1".into(),
        ],
        mapping: if mapped {
            texts(&[
                "node=far-away,path=0000:01:00.0,id=15b7:5017",
                "node=pve,path=0000:02:00.0,id=15b7:5017,iommugroup=16,subsystem-id=15b7:5017",
            ])
        } else {
            Vec::new()
        },
        on: (true, true, true),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_vm_is_given_goes_along_with_its_drives() {
    for (world, mapped) in WORLDS.into_iter().zip([false, true]) {
        let rig = rig(world).await;
        let (first, picture) = (stands(&rig), rig.picture().await);
        let run = rig.forward(None, &How::default()).await;
        assert_done(&run, world);
        assert_eq!(stands(&rig), moved(mapped), "{world}");
        // A slot with a drive of nobody's plan is not drawn as a free one.
        let drawn = notes(&run, "00-preflight");
        assert!(drawn.contains("M2_4 of pve is not free: CT500P3SSD8 (2310E6A1B2C3) is in it"), "{drawn}");
        assert_eq!((calls(&run.records), asked(&run, "04-move-drives")), (rig.changes(), 1), "{world}");
        let known = notes(&run, "05-verify-disks");
        assert!(known.contains(&format!("media is {MEDIA} in M2_3, by its serial number")), "{known}");
        let whole = rig.picture().await;

        let before = rig.changes();
        let again = rig.forward(None, &How::default()).await;
        assert_done(&again, world);
        assert_eq!((calls(&again.records), rig.changes(), asked(&again, "04-move-drives")), (0, before, 0), "{world}");
        assert_same(&rig.picture().await, &whole, world);

        let back = rig.backward(&run.id, &How::default()).await;
        assert_undone(&back, world);
        assert_eq!((stands(&rig), asked(&back, "04-move-drives")), (first, 1), "{world}");
        assert_same(&rig.picture().await, &picture, world);
    }
}

/// Two that change places: each line goes along with its drive, in the form that it had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_change_places_keep_their_lines() {
    let swap = |site: &mut Value| {
        site["migrations"]["vm-drives"]["params"]["target"] = json!({"M2_1": "scratch", "M2_2": "media"})
    };
    let rig = rig_with("nvme-data-vm", |_| {}, swap).await;
    let run = rig.forward(None, &How::default()).await;
    assert_done(&run, "swap");
    let there = stands(&rig);
    assert_eq!(there.slots, in_bays(&[("M2_1", SCRATCH), ("M2_2", MEDIA)]));
    assert_eq!(there.lines, ["0000:04:00.0,pcie=1,rombar=0", "0000:03:00,pcie=1"]);
    let again = rig.forward(None, &How::default()).await;
    assert_done(&again, "once more");
    assert_eq!((calls(&again.records), stands(&rig)), (0, there));
}

/// The VM boots from a drive that it is handed: it goes with its line, with no reset and nothing applied.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_that_boots_from_a_drive_of_its_host_goes_with_it() {
    let boots_from_it = |w: &mut World| {
        let disks = &mut w.talos.nodes.get_mut(VM).unwrap().disks;
        disks.retain(|disk| disk.in_host.is_some());
        let own = disks.iter_mut().find(|disk| disk.serial == SCRATCH).unwrap();
        own.system = true;
        let vm = w.vms.get_mut(&223).unwrap();
        vm.config.insert("boot".into(), "order=hostpci1".into());
    };
    let plan = |site: &mut Value| {
        let params = &mut site["migrations"]["vm-drives"]["params"];
        params["scenario"] = json!("system-moved");
        params["medium"] = json!({ "version": "v1.11.5" });
        params["drives"]["scratch"]["purpose"] = json!("system");
        params["target"] = json!({ "M2_1": "media", "M2_3": "scratch" });
    };
    let rig = rig_with("nvme-data-vm", boots_from_it, plan).await;
    let (first, picture) = (stands(&rig), rig.picture().await);
    let run = rig.forward(None, &How::default()).await;
    assert_done(&run, "there");
    let there = stands(&rig);
    assert_eq!(there.slots, in_bays(&[("M2_1", MEDIA), ("M2_3", SCRATCH)]));
    assert_eq!(there.lines, ["0000:03:00.0,pcie=1,rombar=0", "0000:02:00,pcie=1"]);
    assert_eq!((there.on, asked(&run, "04-move-drives")), ((true, true, true), 1));
    let again = rig.forward(None, &How::default()).await;
    assert_done(&again, "once more");
    assert_eq!(calls(&again.records), 0);
    let back = rig.backward(&run.id, &How::default()).await;
    assert_undone(&back, "back");
    assert_eq!(stands(&rig), first);
    assert_same(&rig.picture().await, &picture, "back");
}

/// The steps with which the VM goes off, and comes back.
const BETWEEN: [&str; 4] = ["03-shutdown", "04-move-drives", "04a-follow-passthrough", "05-verify-disks"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_cut_at_a_vm_is_finished_or_undone() {
    for (world, mapped) in WORLDS.into_iter().zip([false, true]) {
        let mut rig = rig(world).await;
        let first = stands(&rig);
        let (run, scenes): (Run, Scenes) = rig.watched(None, &How::default()).await;
        assert_done(&run, world);
        let (mut resumed, mut undone) = (0, 0);
        for (point, scene) in scenes.points.iter().filter(|(point, _)| BETWEEN.contains(&point.key.as_str())) {
            let what = format!("{world}: {} {} {:?}", point.key, point.event, point.side);
            rig.go_back(scene);
            assert_done(&rig.forward(Some(&run.id), &How::default()).await, &what);
            assert_eq!(stands(&rig), moved(mapped), "{what}");
            resumed += 1;
            rig.go_back(scene);
            assert_undone(&rig.backward(&run.id, &How::default()).await, &what);
            assert_eq!(stands(&rig), first, "{what}");
            undone += 1;
        }
        println!("{world}: {resumed} resumed, {undone} undone");
        assert!(resumed > 12, "{world}: {resumed}");
    }
}

/// The run has stopped for a person: the VM is off.
#[expect(clippy::panic, reason = "a test may panic")]
pub(super) async fn off(rig: &Rig) -> Run {
    let run = rig.forward(None, &How { no_hands: true, ..How::default() }).await;
    let Ok(Ended::Stopped(stop)) = &run.ended else { panic!("{:#?}", run.ended) };
    let Why::Manual { ask, .. } = &stop.why else { panic!("{:#?}", stop.why) };
    assert_eq!(stop.key.as_str(), "04-move-drives");
    assert_eq!(
        ask,
        "talos-vm is off: switch its host pve off, move media (23381C804455) from M2_1 (beside the processor, under the heat sink) to M2_3 \
         (on the riser), then switch that on"
    );
    assert_eq!(stands(rig).on, (false, true, false));
    run
}

/// Nobody was at the host yet: it stays on, with all that runs there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undo_before_anybody_was_there_leaves_the_host_on() {
    let mut done = 0;
    for world in WORLDS {
        let rig = rig(world).await;
        let (first, picture) = (stands(&rig), rig.picture().await);
        let run = off(&rig).await;
        let back = rig.backward(&run.id, &How { no_hands: true, ..How::default() }).await;
        assert_undone(&back, world);
        assert_eq!((stands(&rig), asked(&back, "04-move-drives")), (first, 0), "{world}");
        assert_same(&rig.picture().await, &picture, world);
        done += 1;
    }
    assert_eq!(done, 2);
}

/// A VM that a run has off is nobody's to start: a plan names that run, and what is to be seen to first where it is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_told_to_start_a_vm_that_a_run_holds_off() {
    let mut rig = rig("nvme-data-vm").await;
    rig.bench.blueprint = "nvme-move".into();
    let run = off(&rig).await;
    let of_the_plan = async |rig: &Rig| {
        let info = rig.bench.store.info("", "here").unwrap();
        let held = BTreeMap::new();
        let seen = pvemig::engine::step::Seen { since: None, got: &[], held: &held, run: &info };
        format!("{:#?}", rig.steps[0].check(&rig.estate, seen).await.unwrap())
    };
    let said = of_the_plan(&rig).await;
    let (held, resume) =
        (format!("talos-vm is held off by run {}, which is open", run.id), format!("`pvemig resume {}`", run.id));
    assert!(said.contains(&held) && said.contains(&resume) && !said.contains("qm start"), "{said}");
    rig.bench.abandon(&run.id);
    let said = of_the_plan(&rig).await;
    let held = format!("talos-vm does not answer, and by its journal run {}, which is over, has left it off", run.id);
    let first = "put each drive where the hostpci lines of vm 223 have it (`qm config 223`; ";
    assert!(said.contains(&held) && said.contains(first), "{said}");
    assert!(!said.contains("is to be talos-vm, does not run"), "{said}");
    // And so does a run.
    let stopped = rig.forward(None, &How::default()).await;
    let (key, text) = why(&stopped);
    assert!(key == "00-preflight" && text.contains(&held) && text.contains(first), "{key}: {text}");
}

pub(super) fn hands(rig: &Rig, to: &str) {
    rig.lab.press_button("pve").unwrap();
    rig.lab.move_drive(MEDIA, to).unwrap();
    rig.lab.press_button("pve").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drive_in_another_slot_of_the_host_is_asked_for_once_more() {
    let rig = rig("nvme-data-vm").await;
    let run = off(&rig).await;
    rig.lab.move_drive(MEDIA, "M2_3").unwrap_err();
    hands(&rig, "bench");
    let before = rig.changes();
    let stopped = rig.forward(Some(&run.id), &How { no_hands: true, ..How::default() }).await;
    let Ok(Ended::Stopped(stop)) = &stopped.ended else { panic!("{:#?}", stopped.ended) };
    let Why::Manual { hint, .. } = &stop.why else { panic!("{:#?}", stop.why) };
    let hint = hint.as_deref().unwrap();
    assert!(hint.starts_with("media (23381C804455) is not seen in pve\n"), "{hint}");
    assert_eq!(rig.changes(), before);
    hands(&rig, "M2_3");
    assert_done(&rig.forward(Some(&run.id), &How::default()).await, "resumed");
    assert_eq!(stands(&rig), moved(false));
}

/// Its host is off, and so is Proxmox: the run can be gone on with all the same, and asks again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resume_while_the_host_is_off_asks_again() {
    let rig = rig("nvme-data-vm").await;
    let run = off(&rig).await;
    rig.lab.press_button("pve").unwrap();
    let stopped = rig.forward(Some(&run.id), &How { no_hands: true, ..How::default() }).await;
    let Ok(Ended::Stopped(stop)) = &stopped.ended else { panic!("{:#?}", stopped.ended) };
    let Why::Manual { hint, .. } = &stop.why else { panic!("{:#?}", stop.why) };
    assert!(hint.as_deref().unwrap().starts_with("pve does not answer: "), "{hint:?}");
    rig.lab.move_drive(MEDIA, "M2_3").unwrap();
    rig.lab.press_button("pve").unwrap();
    assert_done(&rig.forward(Some(&run.id), &How::default()).await, "resumed");
    assert_eq!(stands(&rig), moved(false));
}

/// Somebody else has given the VM the host's own drive meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_else_has_changed_is_not_written_over() {
    let theirs = |rig: &Rig| {
        rig.lab.shared().change(|w| {
            let config = &mut w.vms.get_mut(&223).unwrap().config;
            config.insert("hostpci0".into(), "0000:05:00.0,pcie=1".into());
        });
    };
    let rig = rig("nvme-data-vm").await;
    let run = off(&rig).await;
    hands(&rig, "M2_3");
    theirs(&rig);
    let before = rig.changes();
    let stopped = rig.forward(Some(&run.id), &How::default()).await;
    let (key, text) = why(&stopped);
    assert_eq!((key, rig.changes()), ("04a-follow-passthrough", before), "{text}");
    let words =
        "hostpci0 of vm 223 was 0000:03:00.0 when it went off, is 0000:05:00.0 now, and would have to be 0000:02:00.0";
    assert!(text.contains(words), "{text}");
    assert_eq!(stands(&rig).on, (false, true, false));

    // Nor is it started so, by the way back or by the step alone.
    let back = rig.backward(&run.id, &How::default()).await;
    let (_, text) = why(&back);
    assert!(text.contains("hostpci0 would give vm 223 what is at 0000:05:00.0 of pve: that is"), "{text}");
    assert!(text.contains("which is none of its drives"), "{text}");
    assert_eq!(stands(&rig).on, (false, true, false));

    // A whole run, and a line that is neither as it was nor as the run wrote it.
    let rig = self::rig("nvme-data-vm").await;
    let run = rig.forward(None, &How::default()).await;
    assert_done(&run, "forwards");
    theirs(&rig);
    let back = rig.backward(&run.id, &How::default()).await;
    let (key, text) = why(&back);
    assert_eq!(key, "04a-follow-passthrough", "{text}");
    for part in
        ["was `0000:03:00.0,pcie=1,rombar=0`", "wrote `0000:02:00.0,pcie=1,rombar=0`", "is `0000:05:00.0,pcie=1`"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_is_not_started_with_an_address_that_is_another_drive() {
    let mut rig = rig("nvme-data-vm").await;
    off(&rig).await;
    // The drives change places, and nobody tells Proxmox.
    rig.lab.press_button("pve").unwrap();
    rig.lab.move_drive(MEDIA, "bench").unwrap();
    rig.lab.move_drive(SCRATCH, "M2_1").unwrap();
    rig.lab.move_drive(MEDIA, "M2_4").unwrap_err();
    rig.lab.shared().change(|w| w.hosts.get_mut("pve").unwrap().drives[0].bay = "M2_2".into());
    rig.lab.press_button("pve").unwrap();
    rig.steps.retain(|step| step.id() == "05-verify-disks");
    let before = rig.changes();
    let run = rig.forward(None, &How::default()).await;
    let (key, text) = why(&run);
    assert_eq!((key, rig.changes()), ("05-verify-disks", before), "{text}");
    for part in
        ["hostpci1 would give vm 223 what is at 0000:04:00.0 of pve: that is", "2310E6A1B2C3", "none of its drives"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!stands(&rig).on.0);
}

/// What is not clear is said before anything goes off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_followed_is_refused_beforehand() {
    type Change = fn(&mut World);
    type Edit = fn(&mut Value);
    fn params(site: &mut Value) -> &mut Value {
        &mut site["migrations"]["vm-drives"]["params"]
    }
    fn config(world: &mut World, key: &str, value: &str) {
        world.vms.get_mut(&223).unwrap().config.insert(key.into(), value.into());
    }
    let same: Edit = |_| {};
    let cases: [(&str, Change, Edit, &str); 8] = [
        (
            "nvme-data-vm",
            |_| {},
            |site| {
                drop(site["proxmox"]["home"]["hosts"]["pve"]["slots"]["M2_3"].as_object_mut().unwrap().remove("port"))
            },
            "slot M2_3 has no `port:`",
        ),
        (
            "nvme-data-vm",
            |_| {},
            |site| drop(site["proxmox"]["home"]["hosts"]["pve"].as_object_mut().unwrap().remove("ssh")),
            "pve",
        ),
        (
            "nvme-data-vm",
            |_| {},
            |site| {
                let params = params(site);
                params["drives"]["scratch"]["new"] = json!(true);
                params["drives"]["scratch"]["size"] = json!(1_000_204_886_016_u64);
                params["current"] = json!({"M2_1": "media"});
            },
            "scratch comes new, and no hostpci line hands it on",
        ),
        (
            "nvme-data-vm",
            |_| {},
            |site| params(site)["target"] = json!({"M2_3": "media"}),
            "scratch leaves, and its hostpci line would stay",
        ),
        ("nvme-data-vm", |w| config(w, "hostpci1", "04:00"), same, "no hostpci line"),
        (
            "nvme-data-vm-mapped",
            |w| w.pci_mappings.get_mut("media").unwrap().map.push("node=pve,path=0000:05:00.0,id=1cc1:8201".into()),
            same,
            "has 2 entries for pve: which one a start takes is not known",
        ),
        (
            "nvme-data-vm",
            |w| config(w, "smbios1", "uuid=11111111-2222-4333-8444-555555555555"),
            same,
            "vm 223 has the uuid 11111111-2222-4333-8444-555555555555",
        ),
        (
            "nvme-data-vm",
            |w| drop(w.vms.get_mut(&223).unwrap().pending.insert("hostpci1".into(), "0000:05:00.0,pcie=1".into())),
            same,
            "hostpci1 of vm 223 on pve is about to change",
        ),
    ];
    let mut refused = 0;
    for (world, change, edit, words) in cases {
        let rig = rig_with(world, change, edit).await;
        let run = rig.forward(None, &How::default()).await;
        let (key, text) = why(&run);
        assert_eq!((key, rig.changes()), ("00-preflight", 0), "{words}: {text}");
        assert!(text.contains(words), "{words}: {text}");
        assert!(stands(&rig).on.0, "{words}");
        refused += 1;
    }
    assert_eq!(refused, 8);
}
