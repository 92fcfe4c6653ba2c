//! The only control plane: the Kubernetes API is away for as long as the machine is off, and the way back is a snapshot.

use super::system::{by_front, registered, there_and_back};
use super::*;
use pvemig::engine::run::{Ended, Why};
use pvemig::lab::{FaultEffect, FaultRule, Front};

fn swapped() -> BTreeMap<String, String> {
    in_bays(&[("M2_1", DATA), ("M2_2", SYS)])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_control_plane_goes_and_comes_with_its_drives() {
    let rig = registered(at_rest("nvme-single")).await;
    let (run, _) = there_and_back(&rig, &swapped(), 1).await;
    let seen = notes(&run, "00-preflight");
    assert!(seen.contains("the Kubernetes API is away for as long as talos-nuc is off"), "{seen}");
    let kept = rig.bench.store.info(&run.id, "here").unwrap().files.unwrap().join("01-backup/etcd.snapshot");
    assert!(std::fs::metadata(kept).unwrap().len() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_does_not_go_off_without_a_word_that_the_api_may_be_away() {
    let rig = Rig::of(at_rest("nvme-single"), |site| {
        site["migrations"]["nuc-drives"]["params"]["without_api"] = json!(false);
    })
    .await;
    let run = rig.forward(None, &How::default()).await;
    let (key, text) = why(&run);
    assert_eq!((key, rig.changes()), ("00-preflight", 0), "{text}");
    assert!(text.contains("is the only voter of etcd") && text.contains("`without_api: true`"), "{text}");
}

/// No snapshot: not by a step that stands alone, not where etcd gives none, not by a certificate that may not take one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_does_not_go_off_without_a_snapshot() {
    let words = "talos-nuc is the only voter of etcd, and this run has no snapshot of it";
    let mut rig = registered(at_rest("nvme-single")).await;
    rig.steps.retain(|step| step.id() == "03-shutdown");
    let run = rig.forward(None, &How::default()).await;
    let (key, text) = why(&run);
    assert_eq!((key, rig.changes()), ("03-shutdown", 0), "{text}");
    assert!(text.contains(words) && text.contains("`pvemig run` takes one first"), "{text}");

    let rig = registered(at_rest("nvme-single")).await;
    let no = FaultEffect::Status(500, "etcdserver: injected".into());
    rig.lab.fault(FaultRule::on(Front::Talos, no).path("*EtcdSnapshot*"));
    let run = rig.forward(None, &How::default()).await;
    let (key, text) = why(&run);
    assert_eq!((key, by_front(&rig).is_empty()), ("01-backup", true), "{text}");
    assert!(text.contains("injected"), "{text}");
    rig.lab.shared().clear_faults();
    assert_done(&rig.forward(Some(&run.id), &How::default()).await, "with a snapshot");

    let rig = Rig::of(at_rest("nvme-single"), |site| site["talos"]["homelab"]["context"] = json!("operator")).await;
    let run = rig.forward(None, &How::default()).await;
    let (key, text) = why(&run);
    assert_eq!((key, rig.changes()), ("00-preflight", 0), "{text}");
    assert!(text.contains("has the roles os:operator on talos-nuc, and os:admin is needed"), "{text}");
}

/// What came since would be lost with the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_does_not_go_off_with_a_snapshot_of_the_day_before() {
    let mut rig = registered(at_rest("nvme-single")).await;
    let no = FaultEffect::Status(500, "injected".into());
    rig.lab.fault(FaultRule::on(Front::Kubernetes, no).method("PATCH").path("*/nodes/talos-nuc"));
    let run = rig.forward(None, &How::default()).await;
    let (key, text) = why(&run);
    assert_eq!((key, text.contains("injected")), ("02-drain", true), "{text}");
    rig.lab.shared().clear_faults();

    let clock = rig.estate.clock();
    let opened_at = |hours: i64| {
        let clock = clock.ahead(jiff::SignedDuration::from_hours(hours));
        pvemig::estate::Estate::new(rig.site.clone(), clock, rig.bench.store.dir().to_owned())
    };
    let (next_day, same_day) = (opened_at(25), opened_at(1));
    rig.estate = next_day;
    let late = rig.forward(Some(&run.id), &How::default()).await;
    let (key, text) = why(&late);
    assert_eq!(key, "03-shutdown", "{text}");
    let words = "is the only voter of etcd, and the snapshot of this run is of ";
    assert!(text.contains(words) && text.contains("`pvemig undo` this run"), "{text}");
    assert!(rig.lab.shared().read(|w| w.talos.nodes["talos-nuc"].is_powered()));

    rig.estate = same_day;
    assert_done(&rig.forward(Some(&run.id), &How::default()).await, "within the day");
}

/// Whoever goes back before anything was moved stands before a machine that is off, and so is the API that knows of the drain.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_goes_back_with_the_api_off_by_our_own_doing() {
    let rig = registered(at_rest("nvme-single")).await.hasty();
    let picture = rig.picture().await;
    let run = rig.forward(None, &How { no_hands: true, ..How::default() }).await;
    assert_eq!(asked(&run, "04-move-drives"), 1);
    let asks = rig.backward(&run.id, &How { no_hands: true, ..How::default() }).await;
    let Ok(Ended::Stopped(stop)) = &asks.ended else { panic!("{:#?}", asks.ended) };
    let Why::Manual { ask, .. } = &stop.why else { panic!("{:#?}", stop.why) };
    assert!(stop.key.as_str() == "04-move-drives" && ask.ends_with("and switch it on"), "{}: {ask}", stop.key);
    let back = rig.backward(&run.id, &How::default()).await;
    assert_undone(&back, "back");
    assert_same(&rig.picture().await, &picture, "back");
}

/// Nobody is left who could be asked: the run that has it off is named, and why nothing answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_run_names_the_one_that_has_left_it_off() {
    let mut rig = registered(at_rest("nvme-single")).await.hasty();
    rig.bench.blueprint = "nvme-move".into();
    let run = rig.forward(None, &How { no_hands: true, ..How::default() }).await;
    assert_eq!(asked(&run, "04-move-drives"), 1);
    rig.bench.abandon(&run.id);
    let before = rig.changes();
    let stopped = rig.forward(None, &How::default()).await;
    let (key, text) = why(&stopped);
    let held = format!("talos-nuc does not answer, and by its journal run {}, which is over, has left it off", run.id);
    assert!(
        key == "00-preflight" && text.contains(&held) && text.contains("then switch talos-nuc on"),
        "{key}: {text}"
    );
    let reasons = notes(&stopped, "00-preflight");
    assert!(reasons.contains("neither Talos nor Kubernetes can be asked: "), "{reasons}");
    assert_eq!(rig.changes(), before);
}
