//! The steps of `nvme-move` on the lab: a machine goes off, its drives are moved, and each is known again.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod at_the_machine;
mod back;
mod findings;
mod least;
mod least_with_mayastor;
mod measure;
mod measured_by_shell;
mod preflight;
mod refused;
mod replaced;
mod replaced_proven;
mod single;
mod stops;
mod system;
mod vm;
mod vm_again;
mod vm_host;
mod whole;

use std::collections::BTreeMap;
use std::sync::Arc;

use pvemig::base::check::Hands;
use pvemig::base::drives::{Layout, Plan, Port, Purpose, Scenario, Wanted};
use pvemig::blueprint::BoxedStep;
use pvemig::blueprint::machine::Machine;
use pvemig::blueprint::nvme_move::{Backup, DrainNode, MoveDrives, ShutDown, UncordonNode, VerifyDisks};
use pvemig::engine::event::Event;
use pvemig::lab::World;
use pvemig::site::Site;
use serde_json::{Value, json};

use crate::harness::estate::{Rig, at_rest, at_rest_after};
use crate::harness::same::{assert_done, assert_same, assert_undone};
use crate::harness::{How, Run, calls, notes, why};

const NUC: &str = "talos-nuc";
const SYS: &str = "S5GXNF0R601234";
const DATA: &str = "22471A806001";
const NEW: &str = "S676NF0W712345";

/// `M2_1=sys M2_3=media`.
fn layout(text: &str) -> Layout {
    text.split(' ').filter_map(|p| p.split_once('=')).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
}

/// The data drive goes to the riser, and a new one into its place.
fn plan(site: &Site) -> Plan {
    let wanted = |serial: &str, purpose| Wanted { serial: serial.into(), purposes: vec![purpose], ..Wanted::default() };
    let new = Wanted {
        model: "SAMSUNG MZVL21T0HCLR-00B00".into(),
        size: Some(1_024_209_543_168),
        new: true,
        ..wanted(NEW, Purpose::Spare)
    };
    let drives = [
        ("sys", wanted(SYS, Purpose::System)),
        ("media", wanted(DATA, Purpose::UserVolume("media".into()))),
        ("pool", new),
    ];
    let plan = Plan {
        slots: site.talos_node(NUC).unwrap().1.slots.clone(),
        drives: drives.map(|(name, of)| (name.to_owned(), of)).into(),
        current: layout("M2_1=sys M2_2=media"),
        target: layout("M2_1=sys M2_3=media M2_2=pool"),
        scenario: Scenario::Data,
    };
    assert_eq!(plan.problems(), []);
    plan
}

/// The steps that there are, of this plan.
fn steps(site: &Site, plan: &Plan) -> Vec<BoxedStep> {
    let machine = || Machine::of(site, NUC).unwrap();
    let (peers, plan) = (|| Machine::peers(site, &machine().cluster), || plan.clone());
    vec![
        Box::new(Backup { machine: machine(), peers: peers(), plan: plan(), recipients: Vec::new() }),
        Box::new(DrainNode { machine: machine(), plan: Some(plan()) }),
        Box::new(ShutDown { machine: machine(), peers: peers(), plan: plan(), without_api: false, anew: None }),
        Box::new(MoveDrives {
            machine: machine(),
            peers: peers(),
            plan: plan(),
            medium: None,
            anew: None,
            seen: Arc::default(),
        }),
        Box::new(VerifyDisks { machine: machine(), plan: plan(), anew: None }),
        Box::new(UncordonNode { machine: machine() }),
    ]
}

/// A world with these steps in the place of a blueprint's.
async fn rig_of(world: World, edit: impl FnOnce(&mut Value)) -> Rig {
    let mut rig = Rig::of(world, |site| {
        site["migrations"] =
            json!({"reboots": {"blueprint": "node-reboot-test", "params": {"talos": "homelab", "nodes": [NUC]}}});
        edit(site);
    })
    .await;
    rig.steps = steps(&rig.site, &plan(&rig.site));
    rig
}

async fn rig(world: &str) -> Rig {
    rig_of(at_rest(world), |_| {}).await
}

/// The serial numbers in the slots, and how often the machine was started.
fn bays(rig: &Rig) -> (BTreeMap<String, String>, u32) {
    rig.lab.shared().read(|w| {
        let node = &w.talos.nodes[NUC];
        let there = node.disks.iter().filter(|disk| !disk.unplugged && !disk.bay.is_empty());
        (there.map(|disk| (disk.bay.clone(), disk.serial.clone())).collect(), node.starts)
    })
}

fn in_bays(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(slot, serial)| ((*slot).to_owned(), (*serial).to_owned())).collect()
}

fn first() -> BTreeMap<String, String> {
    in_bays(&[("M2_1", SYS), ("M2_2", DATA)])
}

fn target() -> BTreeMap<String, String> {
    in_bays(&[("M2_1", SYS), ("M2_2", NEW), ("M2_3", DATA)])
}

/// A run with a person who does something else than what is asked for, and does it once.
async fn with_a_person(rig: &Rig, does: impl Fn() + Send + Sync + 'static) -> Run {
    let met = std::sync::atomic::AtomicBool::new(false);
    let hands = move |_: &Hands| {
        if !met.swap(true, std::sync::atomic::Ordering::SeqCst) {
            does();
        }
    };
    rig.bench.go(&rig.estate, &rig.steps, None, false, &How::default(), hands).await
}

/// How often a person was asked by a step.
fn asked(run: &Run, step: &str) -> usize {
    let is = |event: &Event| matches!(event, Event::Asked { key, .. } if key.as_str() == step);
    run.records.iter().filter(|record| is(&record.event)).count()
}

async fn cordoned(rig: &Rig) -> bool {
    let kube = rig.estate.kubernetes(rig.site.kubernetes.keys().next().unwrap()).await.unwrap();
    kube.node(NUC).await.unwrap().unwrap().unschedulable
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drives_are_moved_with_the_machine_off_and_each_is_known_again() {
    let rig = rig("nvme-data").await;
    let starts = bays(&rig).1;
    let run = rig.forward(None, &How::default()).await;
    assert_done(&run, "forwards");
    assert_eq!((bays(&rig), cordoned(&rig).await), ((target(), starts + 1), false));
    assert_eq!((calls(&run.records), asked(&run, "04-move-drives")), (rig.changes(), 1));
    // Off is what both ways say.
    let off = notes(&run, "03-shutdown");
    assert!(off.contains("Talos does not answer") && off.contains("`cat` says that it is off"), "{off}");
    let known = notes(&run, "05-verify-disks");
    for line in [
        &format!("sys is {SYS} in M2_1, by its serial number"),
        &format!("media is {DATA} in M2_3, by its serial number"),
        &format!("pool is {NEW} in M2_2, by its serial number"),
        "M2_3 is the slot at 0000:00:06.0: nothing was seen in it before",
        "the site file has no port of these slots: ",
        "M2_3 is at `port: \"0000:00:06.0\"`",
    ] {
        assert!(known.contains(line), "{line}: {known}");
    }
    let files = rig.bench.store.info(&run.id, "here").unwrap().files.unwrap();
    let kept: Vec<String> = {
        let mut all: Vec<String> = std::fs::read_dir(files.join("01-backup"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        all.sort();
        all
    };
    let expected = [
        "etcd.snapshot",
        "inventory.yaml",
        "machineconfig.yaml",
        "mounts.json",
        "ready.json",
        "slots.json",
        "snapshot.json",
        "survey.json",
    ];
    assert_eq!(kept, expected);
    let whole = rig.picture().await;

    // Once more: the site file has no ports, and the machine is not taken for one that nobody has touched.
    let before = rig.changes();
    let again = rig.forward(None, &How::default()).await;
    assert_done(&again, "once more");
    assert_eq!((calls(&again.records), rig.changes(), asked(&again, "04-move-drives")), (0, before, 0));
    assert_eq!(bays(&rig), (target(), starts + 1));
    assert_same(&rig.picture().await, &whole, "once more");
}

/// Two that change places look alike before and after: what the first run has learned tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_run_does_not_change_places_back() {
    let mut rig = rig("nvme-data").await;
    let mut slots = plan(&rig.site).slots;
    // Else nobody could tell the first time.
    slots[0].port = Some("0000:00:1b.0".parse().unwrap());
    let swap = Plan {
        slots,
        current: layout("M2_1=sys M2_2=media"),
        target: layout("M2_1=media M2_2=sys"),
        scenario: Scenario::SystemMoved,
        drives: plan(&rig.site).drives.into_iter().filter(|(name, _)| name != "pool").collect(),
    };
    assert_eq!(swap.problems(), []);
    rig.steps = steps(&rig.site, &swap);
    let run = rig.forward(None, &How::default()).await;
    assert_done(&run, "forwards");
    let (there, starts) = bays(&rig);
    assert_eq!(there, in_bays(&[("M2_1", DATA), ("M2_2", SYS)]));
    let again = rig.forward(None, &How::default()).await;
    assert_done(&again, "once more");
    assert_eq!((calls(&again.records), bays(&rig)), (0, (there, starts)));
    let learned = rig.bench.store.info(&again.id, "here").unwrap().files.unwrap().join("01-backup/slots.json");
    let learned: Value = serde_json::from_slice(&std::fs::read(learned).unwrap()).unwrap();
    assert_eq!(learned["layout"], json!({"M2_1": "media", "M2_2": "sys"}));
    let port: Port = "0000:00:1b.0".parse().unwrap();
    assert_eq!(learned["ports"]["M2_1"], json!(port));
}
