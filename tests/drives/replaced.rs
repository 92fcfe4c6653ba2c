//! Another drive becomes the system disk of a control plane: it leaves etcd, is opened, installed from a stick, and joins
//! again; at every moment one etcd with its majority, and no disk wiped but the one that was given.

use std::collections::BTreeSet;

use pvemig::engine::run::{Ended, Why};
use pvemig::lab::{FaultEffect, FaultRule, Front};

use super::*;

pub(super) const WORLD: &str = "nvme-system-replaced";

pub(super) fn consenting() -> How {
    How { consents: vec![format!("disk/{NEW}")], ..How::default() }
}

/// Measuring makes pods in each run, and has tests of its own.
pub(super) async fn fresh() -> Rig {
    Rig::of(at_rest(WORLD), crate::harness::story::unmeasured).await
}

/// The names of all voters; none may be a learner.
fn voters(rig: &Rig) -> BTreeSet<String> {
    rig.lab.shared().read(|w| {
        let members = &w.talos.etcd.members;
        assert!(members.iter().all(|m| !m.learner), "{members:?}");
        members.iter().map(|m| m.name.clone()).collect()
    })
}

fn all_three() -> BTreeSet<String> {
    ["talos-nuc", "talos-vm", "talos-mac"].map(str::to_owned).into()
}

/// What must hold at every moment; whether something is destroyed by now.
pub(super) fn assert_safe(rig: &Rig, what: &str) -> bool {
    let (clusters, led, wiped) =
        rig.lab.shared().read(|w| (w.etcd_clusters(), w.talos.etcd.leader.is_some(), w.talos.wiped.clone()));
    assert_eq!((clusters, led), (1, true), "{what}");
    assert!(wiped.iter().all(|w| w.serial == NEW && w.held.is_empty()) && wiped.len() <= 1, "{what}: {wiped:#?}");
    !wiped.is_empty()
}

pub(super) async fn assert_replaced(rig: &Rig, what: &str) {
    assert!(assert_safe(rig, what), "{what}");
    assert_eq!(bays(rig).0, in_bays(&[("M2_1", NEW), ("M2_2", DATA)]), "{what}");
    assert_eq!(voters(rig), all_three(), "{what}");
    let (system, stick) = rig.lab.shared().read(|w| {
        let disks = &w.talos.nodes[NUC].disks;
        let system = disks.iter().find(|disk| disk.system).map(|disk| disk.serial.clone());
        (system, disks.iter().any(|disk| disk.live.is_some() && !disk.unplugged))
    });
    assert_eq!((system.as_deref(), stick), (Some(NEW), true), "{what}");
    let kube = rig.estate.kubernetes(rig.site.kubernetes.keys().next().unwrap()).await.unwrap();
    let node = kube.node(NUC).await.unwrap().unwrap();
    assert!(node.is_ready() && !node.unschedulable && node.meta.mark().unwrap().is_none(), "{what}: {node:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_drive_becomes_the_system_disk_and_a_second_run_changes_nothing() {
    let rig = fresh().await;
    let starts = bays(&rig).1;
    let ids: Vec<&str> = rig.steps.iter().map(|step| step.id()).collect();
    let own = ["02a-leave-etcd", "06-apply-config", "06a-install", "06b-join", "06c-remove-old-member"];
    assert!(own.iter().all(|id| ids.contains(id)) && ids.is_sorted(), "{ids:?}");
    let run = rig.forward(None, &consenting()).await;
    assert_done(&run, "forwards");
    assert_replaced(&rig, "forwards").await;
    // From the stick, and from its disk.
    assert_eq!((calls(&run.records), asked(&run, "04-move-drives")), (rig.changes(), 1));
    assert_eq!(bays(&rig).1, starts + 2);
    let told = |step: &str, words: &str| {
        let notes = notes(&run, step);
        assert!(notes.contains(words), "{step}: {words}: {notes}");
    };
    told("02a-leave-etcd", "etcd has 3 voters, 3 healthy, 2 needed: 1 to spare; without talos-nuc 2 voters, 2 healthy");
    told("05-verify-disks", &format!("fresh is {NEW} in M2_1, by its serial number"));
    told("06-apply-config", &format!("fits: talos-nuc is to be installed on disk {NEW}"));
    told("06b-join", "etcd has 3 voters, 3 healthy");
    told("06c-remove-old-member", "not needed: etcd has no such member");
    let (whole, before) = (rig.picture().await, rig.changes());
    let again = rig.forward(None, &How::default()).await;
    assert_done(&again, "once more");
    assert_eq!((calls(&again.records), rig.changes(), bays(&rig).1), (0, before, starts + 2));
    assert_same(&rig.picture().await, &whole, "once more");
}

/// The ask names the stick, and what is on it; hands get the same as data.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_is_told_of_the_stick_and_an_undo_before_it_votes_again() {
    let rig = fresh().await;
    let picture = rig.picture().await;
    let run = rig.forward(None, &How { no_hands: true, ..consenting() }).await;
    let Ok(Ended::Stopped(stop)) = &run.ended else { panic!("{:#?}", run.ended) };
    let Why::Manual { ask, hint, hands } = &stop.why else { panic!("{:#?}", stop.why) };
    assert_eq!(stop.key.as_str(), "04-move-drives");
    assert!(ask.ends_with("then plug the stick with Talos v1.11.5 in, and boot it from that"), "{ask}");
    let hint = hint.as_deref().unwrap();
    assert!(hint.contains("and have talos-nuc boot from it") && hint.contains("is the way back"), "{hint}");
    let hands = serde_json::to_value(hands).unwrap();
    assert_eq!((&hands["medium"], &hands["on"]), (&json!("v1.11.5"), &json!(true)), "{hands}");
    assert_eq!(voters(&rig).len(), 2);
    let back = rig.backward(&run.id, &How::default()).await;
    assert_undone(&back, "backwards");
    assert_eq!(voters(&rig), all_three());
    assert_same(&rig.picture().await, &picture, "backwards");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undo_stops_at_the_installation_and_past_it_the_old_drive_votes_again() {
    let rig = fresh().await;
    let run = rig.forward(None, &consenting()).await;
    assert_done(&run, "forwards");
    let before = rig.changes();
    let back = rig.backward(&run.id, &How::default()).await;
    let Ok(Ended::Stopped(stop)) = &back.ended else { panic!("{:#?}", back.ended) };
    assert!(stop.key.as_str() == "06a-install" && matches!(stop.why, Why::Consent { .. }), "{stop:#?}");
    assert_eq!(rig.changes(), before);
    let past = How { past: vec!["06a-install".into()], ..How::default() };
    assert_undone(&rig.backward(&run.id, &past).await, "past it");
    rig.picture().await;
    assert!(assert_safe(&rig, "past it"));
    assert_eq!((bays(&rig).0, voters(&rig)), (first(), all_three()));
    assert!(!cordoned(&rig).await);
}

/// Without the step that says it first, and with every consent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_with_a_known_volume_is_not_wiped_by_any_consent() {
    let words = format!("disk {DATA}, which talos-nuc is to be installed on, holds the volume media (u-media)");
    let all = Rig::of(at_rest("nvme-replaced-known-volume"), |_| {}).await;
    let run = all.forward(None, &How { consents: vec![format!("disk/{DATA}")], ..How::default() }).await;
    let (key, text) = why(&run);
    assert!(key == "00-preflight" && text.contains(&words) && all.changes() == 0, "{key}: {text}");
    for without in [&["00-preflight"][..], &["00-preflight", "06-apply-config"]] {
        let mut rig = Rig::of(at_rest("nvme-replaced-known-volume"), |_| {}).await;
        rig.steps.retain(|step| !without.contains(&step.id()));
        let how = How { consents: vec![format!("disk/{DATA}")], ..How::default() };
        let run = rig.forward(None, &how).await;
        let (key, text) = why(&run);
        let at = if without.len() == 1 { "06-apply-config" } else { "06a-install" };
        assert_eq!(key, at, "{text}");
        assert!(text.contains(&words), "{text}");
        assert!(rig.lab.shared().read(|w| w.talos.wiped.is_empty()));
        assert_undone(&rig.backward(&run.id, &How::default()).await, "back");
        assert_eq!((bays(&rig).0, voters(&rig)), (first(), all_three()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_installed_without_its_consent_nor_forgets_a_volume() {
    let rig = fresh().await;
    let (before, starts) = (rig.changes(), bays(&rig).1);
    let run = rig.forward(None, &How::default()).await;
    let (key, text) = why(&run);
    let (wipes, flag) = (format!("wipes disk {NEW}, "), format!("`pvemig run test --destroy disk/{NEW}`"));
    assert!(key == "00-preflight" && text.contains(&wipes) && text.contains(&flag), "{key}: {text}");
    assert_eq!((rig.changes(), bays(&rig).1), (before, starts), "nothing is drained nor switched off for it");
    // Nor is it wiped without the step that says it first.
    let mut rig = fresh().await;
    rig.steps.retain(|step| step.id() != "00-preflight");
    let run = rig.forward(None, &How::default()).await;
    let (key, text) = why(&run);
    assert!(key == "06a-install" && text.contains(&format!("add `--destroy disk/{NEW}`")), "{key}: {text}");
    assert!(rig.lab.shared().read(|w| w.talos.wiped.is_empty()));
    assert_done(&rig.forward(Some(&run.id), &consenting()).await, "with it");
    assert_replaced(&rig, "with it").await;

    let params = "/migrations/nuc-drives/params";
    type Edit = fn(&mut Value);
    let cases: [(Edit, &str); 2] = [
        (
            |patches| drop(patches.as_array_mut().unwrap().pop()),
            "has no UserVolumeConfig media, and talos-nuc has that volume on 22471A806001",
        ),
        (
            |patches| {
                let all = patches.as_array_mut().unwrap();
                all.last_mut().unwrap()["user-volume"]["disk"] = json!("disk.transport == \"nvme\"");
            },
            "UserVolumeConfig media: disk.transport == \"nvme\" of ",
        ),
    ];
    let mut met = 0;
    for (edit, words) in cases {
        let change = |site: &mut Value| edit(&mut site.pointer_mut(params).unwrap()["patches"]);
        let mut rig = Rig::of(at_rest(WORLD), change).await;
        let run = rig.forward(None, &consenting()).await;
        let (key, text) = why(&run);
        assert!(key == "00-preflight" && text.contains(words) && rig.changes() == 0, "{key}: {text}");
        rig.steps.retain(|step| step.id() != "00-preflight");
        let run = rig.forward(None, &consenting()).await;
        let (key, text) = why(&run);
        assert!(key == "06-apply-config" && text.contains(words), "{key}: {text}");
        met += 1;
    }
    assert_eq!(met, 2);
}

/// Another version on the stick, drives the wrong way round, another machine at the address: each is told, and gone on from.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_machine_that_waits_is_told() {
    let older = |world: &mut World| {
        let disks = &mut world.talos.nodes.get_mut(NUC).unwrap().disks;
        disks.iter_mut().filter_map(|disk| disk.live.as_mut()).for_each(|live| live.version = "1.11.3".into());
    };
    for (case, befell) in [("older", true), ("another schematic", true), ("wrong slot", false)] {
        let rig = Rig::of(
            at_rest_after(WORLD, case, |w| {
                if case == "older" {
                    older(w)
                }
            }),
            |site| {
                if case == "another schematic" {
                    site["migrations"]["nuc-drives"]["params"]["medium"]["schematic"] =
                        json!("376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba");
                }
            },
        )
        .await;
        let lab = rig.lab.clone();
        let met = std::sync::atomic::AtomicBool::new(false);
        let hands = move |_: &Hands| {
            if !met.swap(true, std::sync::atomic::Ordering::SeqCst) {
                lab.move_drive(SYS, "bench").unwrap();
                lab.move_drive(NEW, if befell { "talos-nuc:M2_1" } else { "talos-nuc:M2_3" }).unwrap();
                lab.move_drive("4C530001281205115020", NUC).unwrap();
                lab.press_button(NUC).unwrap();
            }
        };
        let run = rig.bench.go(&rig.estate, &rig.steps, None, false, &consenting(), hands).await;
        let (key, text) = why(&run);
        if befell {
            let words = match case {
                "older" => "waits with Talos v1.11.3, and ran v1.11.5",
                _ => {
                    "waits with an image of schematic 26124abcbd408be693df9fe852c80ef1e6cc178e34d7d7d8430a28d1130b4227, and `medium` says 3765"
                }
            };
            assert!(key == "05-verify-disks" && text.contains(words), "{key}: {text}");
        } else {
            assert!(
                key == "04-move-drives"
                    && text.contains(&format!(
                        "fresh ({NEW}) is in the slot at 0000:00:06.0 (perhaps M2_3) and belongs into M2_1"
                    )),
                "{key}: {text}"
            );
            // It is switched off before a hand goes in, and asked for once more.
            let resumed = rig.forward(Some(&run.id), &consenting()).await;
            assert_done(&resumed, case);
            let asks: Vec<&str> = resumed
                .records
                .iter()
                .filter_map(|record| match &record.event {
                    Event::Asked { ask, .. } => Some(ask.as_str()),
                    _ => None,
                })
                .collect();
            assert!(asks.len() == 2 && asks[0].starts_with("switch talos-nuc off by its power button"), "{asks:?}");
            assert!(asks[1].starts_with("talos-nuc is off: "), "{asks:?}");
            assert_replaced(&rig, case).await;
        }
    }
}

/// It was switched on without the stick, and its new disk is empty: nothing is said as long as it may boot, and then the way
/// to the stick.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_was_booted_without_the_stick_is_told_of_the_stick_and_never_of_the_empty_disk() {
    let rig = fresh().await;
    let lab = rig.lab.clone();
    let met = std::sync::atomic::AtomicBool::new(false);
    let hands = move |_: &Hands| {
        if !met.swap(true, std::sync::atomic::Ordering::SeqCst) {
            lab.move_drive(SYS, "bench").unwrap();
            lab.move_drive(NEW, "talos-nuc:M2_1").unwrap();
            lab.press_button(NUC).unwrap();
        }
    };
    let limited = |ms: u64| How { limit: Some(std::time::Duration::from_millis(ms)), ..consenting() };
    let run = rig.bench.go(&rig.estate, &rig.steps, None, false, &limited(300), hands).await;
    let (key, text) = why(&run);
    assert!(key == "04-move-drives" && text.contains("and Talos does not answer"), "{key}: {text}");
    assert!(!text.contains("boot menu") && !text.contains("screen"), "within the grace: {text}");
    let resumed = rig.forward(Some(&run.id), &limited(3_000)).await;
    let (key, text) = why(&resumed);
    assert!(key == "04-move-drives" && text.contains("plug the stick with Talos v1.11.5 in"), "{key}: {text}");
    assert!(text.contains(&format!("never fresh ({NEW}), which is empty")), "{text}");
    assert!(!text.contains("choose fresh"), "{text}");
}

/// It was booted from its old disk in between, and has joined etcd again: it leaves once more before it goes off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_was_booted_from_its_old_disk_leaves_etcd_once_more() {
    let rig = fresh().await;
    let run = rig.forward(None, &How { no_hands: true, ..consenting() }).await;
    rig.lab.press_button(NUC).unwrap();
    let votes = |w: &World| (w.talos.etcd.members.iter().filter(|m| !m.learner).count() == 3).then_some(());
    rig.lab.shared().until(std::time::Duration::from_secs(600), votes).await.unwrap();
    let stopped = rig.forward(Some(&run.id), &How { no_hands: true, ..consenting() }).await;
    let (key, _) = why(&stopped);
    assert_eq!(key, "04-move-drives");
    let resumed = rig.forward(Some(&run.id), &consenting()).await;
    assert_done(&resumed, "resumed");
    assert_replaced(&rig, "resumed").await;
}

/// It was rebooted after it had left etcd, by whomever: it leaves once more before it goes off; and where nothing comes after
/// that, an undo knows of that boot, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_was_rebooted_since_it_left_leaves_once_more_and_joins_again_by_an_undo() {
    let rig = fresh().await;
    let picture = rig.picture().await;
    let no = FaultEffect::Status(500, "injected".into());
    rig.lab.fault(FaultRule::on(Front::Talos, no.clone()).path("*MachineService/Shutdown"));
    let run = rig.forward(None, &consenting()).await;
    let (key, text) = why(&run);
    assert_eq!((key, voters(&rig).len()), ("03-shutdown", 2), "{text}");
    rig.lab.shared().change(|world| world.cut_power(NUC));
    rig.lab.press_button(NUC).unwrap();
    let votes = |w: &World| (w.talos.etcd.members.iter().filter(|m| !m.learner).count() == 3).then_some(());
    rig.lab.shared().until(std::time::Duration::from_secs(600), votes).await.unwrap();
    // In this boot it leaves, and does not go off.
    let resumed = rig.forward(Some(&run.id), &consenting()).await;
    let (key, text) = why(&resumed);
    assert_eq!((key, voters(&rig).len()), ("03-shutdown", 2), "{text}");
    rig.lab.shared().clear_faults();
    assert_undone(&rig.backward(&run.id, &How::default()).await, "back");
    assert_eq!(voters(&rig), all_three());
    assert_same(&rig.picture().await, &picture, "back");
    assert!(!assert_safe(&rig, "back"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_voter_does_not_leave_etcd() {
    let edit = |site: &mut Value| {
        let params = site.pointer_mut("/migrations/nuc-drives/params").unwrap();
        params["scenario"] = json!("system-replaced");
        params["without_api"] = json!(true);
        params["drives"]["fresh"] = json!({
            "serial": NEW, "model": "SAMSUNG MZVL21T0HCLR-00B00", "size": 1_024_209_543_168_u64, "purpose": "system", "new": true,
        });
        params["target"] = json!({ "M2_1": "fresh", "M2_2": "media" });
        params["config"] = json!("./controlplane.yaml");
        params["medium"] = json!({ "version": "v1.11.5" });
    };
    let mut rig = Rig::of(at_rest("nvme-single"), edit).await;
    rig.steps.retain(|step| step.id() != "00-preflight");
    let run = rig.forward(None, &consenting()).await;
    let (key, text) = why(&run);
    let words = "talos-nuc is the only voter of etcd: without it there is none";
    assert!(key == "02a-leave-etcd" && text.contains(words) && text.contains("quorum-recover"), "{key}: {text}");
    assert_eq!(voters(&rig).len(), 1);
    assert_undone(&rig.backward(&run.id, &How::default()).await, "back");
}

/// From there on there is no way back: nothing is sent to a machine that does not tell which drives it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_installed_where_the_drives_are_not_told() {
    let mut rig = fresh().await;
    let (run, scenes) = rig.watched(None, &consenting()).await;
    assert_done(&run, "whole");
    let (_, scene) = scenes.points.iter().find(|(point, _)| point.key.as_str() == "06a-install").unwrap();
    for effect in [FaultEffect::Status(500, "injected".into()), FaultEffect::ResetBefore] {
        rig.go_back(scene);
        rig.lab.fault(FaultRule::on(Front::Talos, effect.clone()).path("*Disks.block.talos.dev*"));
        let stopped = rig.forward(Some(&run.id), &consenting()).await;
        let (key, text) = why(&stopped);
        assert_eq!(key, "06a-install", "{effect:?}: {text}");
        rig.lab.shared().read(|w| assert_eq!(w.talos.wiped.len(), 0, "{effect:?}: {text}"));
        println!("{effect:?}: {text}");
        rig.lab.shared().clear_faults();
        assert_done(&rig.forward(Some(&run.id), &consenting()).await, "told");
        assert_replaced(&rig, "told").await;
    }
}

/// A member that was left over, however that came about.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_left_over_goes_by_its_id_alone() {
    let mut rig = fresh().await;
    assert_done(&rig.forward(None, &consenting()).await, "forwards");
    let id = 0x1234_5678_9abc_def0;
    rig.lab.shared().change(|w| {
        let own = w.talos.etcd.members.iter().find(|m| m.name == NUC).unwrap().clone();
        w.talos.etcd.members.push(pvemig::lab::talos::etcd::Member { id, ..own });
    });
    rig.steps.retain(|step| step.id() == "06c-remove-old-member");
    let run = rig.forward(None, &How::default()).await;
    let (key, text) = why(&run);
    let thing = "etcd/123456789abcdef0";
    assert!(key == "06c-remove-old-member" && text.contains(&format!("add `--destroy {thing}`")), "{key}: {text}");
    let how = How { consents: vec![thing.into()], ..How::default() };
    assert_done(&rig.forward(Some(&run.id), &how).await, "with it");
    assert_eq!(rig.lab.shared().read(|w| w.talos.etcd.members.iter().filter(|m| m.name == NUC).count()), 1);
    assert!(rig.lab.shared().read(|w| w.etcd_of(NUC).is_some()));
}
