//! A whole plan stops before harm: nothing was changed before it, or what was is told and taken back.

use std::time::Duration;

use super::system::{assert_untouched, installs, registered};
use super::*;
use pvemig::blueprint;
use pvemig::engine::run::Ended;

/// What is wrong with the world's migration, told from the site file alone; None: nothing.
async fn offline(world: &str, edit: impl FnOnce(&mut Value)) -> Option<String> {
    // Its own migration may be the one that is wrong.
    let mut own = Value::Null;
    let mut edit = Some(edit);
    let rig = Rig::of(at_rest(world), |site| {
        own = site["migrations"]["nuc-drives"].take();
        site["migrations"] =
            json!({"reboots": {"blueprint": "node-reboot-test", "params": {"talos": "homelab", "nodes": [NUC]}}});
        let mut with = site.clone();
        with["migrations"]["nuc-drives"] = own.clone();
        edit.take().unwrap()(&mut with);
        site["migrations"]["zz-drives"] = with["migrations"]["nuc-drives"].clone();
    })
    .await;
    let built = blueprint::named("nvme-move").unwrap().build(&rig.site, "zz-drives");
    built.err().map(|error| match error {
        pvemig::site::SiteError::Invalid(invalid) => {
            invalid.problems.iter().map(|p| format!("{}: {}; {}\n", p.path, p.text, p.help)).collect()
        }
        other => panic!("{other:?}"),
    })
}

fn params(site: &mut Value) -> &mut Value {
    &mut site["migrations"]["nuc-drives"]["params"]
}

/// Stops at the preflight with these words, nothing changed, nobody asked.
async fn stops(world: &str, words: &[&str]) {
    let rig = registered(at_rest(world)).await;
    let (before, picture) = (bays(&rig), rig.picture().await);
    let run = rig.forward(None, &How::default()).await;
    let (key, text) = why(&run);
    assert_eq!((key, rig.changes(), bays(&rig)), ("00-preflight", 0, before), "{world}: {text}");
    for word in words {
        assert!(text.contains(word), "{world}: {word}: {text}");
    }
    assert_eq!((asked(&run, "04-move-drives"), calls(&run.records)), (0, 0));
    // A rebuild goes on by itself.
    if world != "nvme-data-rebuild" {
        assert_same(&rig.picture().await, &picture, world);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_that_would_lose_something_stops_before_its_first_change() {
    let cases: [(&str, &[&str]); 6] = [
        ("nvme-data-by-path", &["UserVolumeConfig media", "goes by place, and may mean another drive after the move"]),
        ("nvme-data-two-match", &["UserVolumeConfig media would mean 2 drives once fresh is in M2_2: "]),
        (
            "nvme-replaced-known-volume",
            &[
                "disk 22471A806001, which talos-nuc is to be installed on, holds the volume media (u-media)",
                "no consent gives it",
            ],
        ),
        ("nvme-data-pdb", &["home/jellyfin", "can never allow it"]),
        ("nvme-data-only-replica", &["has no sound replica on another node than talos-nuc"]),
        ("nvme-data-rebuild", &["is being rebuilt"]),
    ];
    assert_eq!(cases.len(), 6);
    for (world, words) in cases {
        stops(world, words).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_site_file_shows_is_said_by_the_site_check() {
    assert_eq!(offline("nvme-system", |_| {}).await, None);
    let wipe = |site: &mut Value| {
        params(site)["scenario"] = json!("system-replaced");
        params(site)["config"] = json!("./controlplane.yaml");
    };
    let said = offline("nvme-system", wipe).await.unwrap();
    let words = "params.scenario: sys only changes its slot: nothing has to be wiped; write `scenario: system-moved`";
    assert!(said.contains(words), "{said}");
    let said = offline("nvme-data-alike", |_| {}).await.unwrap();
    let words = "spare-1 and spare-2 have the same serial number 0001, and spare-1 no partition; add `partition:`";
    assert!(said.contains(words), "{said}");
    // Two names for one drive.
    let said = offline("nvme-system-replaced", |site| {
        let serial = params(site)["drives"]["sys"]["serial"].clone();
        params(site)["drives"]["fresh"]["serial"] = serial;
    })
    .await
    .unwrap();
    assert!(said.contains("have the same serial number S5GXNF0R601234"), "{said}");
}

/// Media and the new one each in the other's slot: told by name, and asked for once more with the machine off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drives_that_were_swapped_the_wrong_way_round_are_named() {
    let rig = registered(at_rest("nvme-data")).await;
    let starts = bays(&rig).1;
    let lab = rig.lab.clone();
    let run = with_a_person(&rig, move || {
        lab.move_drive(NEW, "talos-nuc:M2_3").unwrap();
        lab.press_button(NUC).unwrap();
    })
    .await;
    let (key, text) = why(&run);
    assert_eq!((key, calls(&run.records)), ("04-move-drives", rig.changes()), "{text}");
    for word in
        ["media (22471A806001) is in M2_2 and belongs into M2_3", &format!("fresh ({NEW}) is in "), "`pvemig resume`"]
    {
        assert!(text.contains(word), "{word}: {text}");
    }
    let resumed = rig.forward(Some(&run.id), &How::default()).await;
    assert_done(&resumed, "resumed");
    assert_eq!((bays(&rig), asked(&resumed, "04-move-drives")), ((target(), starts + 2), 1));
    assert_eq!(installs(&rig), Vec::<Value>::new());
    assert_untouched(&rig, 3);
}

/// The system disk in a third slot: the node comes up from it all the same, and it is told where it belongs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_system_disk_in_a_wrong_slot_is_named_although_it_boots() {
    let rig = registered(at_rest("nvme-system")).await;
    let lab = rig.lab.clone();
    let run = with_a_person(&rig, move || {
        lab.move_drive(SYS, "talos-nuc:M2_3").unwrap();
        lab.move_drive(DATA, "talos-nuc:M2_1").unwrap();
        lab.press_button(NUC).unwrap();
    })
    .await;
    let (key, text) = why(&run);
    assert_eq!((key, calls(&run.records)), ("04-move-drives", rig.changes()), "{text}");
    assert!(text.contains(&format!("sys ({SYS}) is in ")) && text.contains("and belongs into M2_2"), "{text}");
    let resumed = rig.forward(Some(&run.id), &How::default()).await;
    assert_done(&resumed, "resumed");
    assert_eq!(bays(&rig).0, in_bays(&[("M2_1", DATA), ("M2_2", SYS)]));
    assert_untouched(&rig, 3);
}

/// A budget that stands in the way behind the preflight: no pod is evicted, and the node is given back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_that_a_budget_blocks_is_given_back_and_goes_once_it_may() {
    let mut rig = registered(at_rest("nvme-data-pdb")).await;
    let picture = rig.picture().await;
    rig.steps.retain(|step| step.id() != "00-preflight");
    let how = How { limit: Some(Duration::from_secs(10)), ..How::default() };
    let run = rig.forward(None, &how).await;
    let Ok(Ended::Stopped(_)) = &run.ended else { panic!("{:#?}", run.ended) };
    let (key, text) = why(&run);
    assert_eq!((key, bays(&rig).0), ("02-drain", first()), "{text}");
    assert!(text.contains("home/jellyfin") && text.contains("can never allow it"), "{text}");
    let evicted = rig
        .lab
        .shared()
        .log
        .seen()
        .iter()
        .any(|seen| seen.line.contains("jellyfin") && seen.line.contains("/eviction"));
    assert!(!evicted && asked(&run, "04-move-drives") == 0);
    assert_undone(&rig.backward(&run.id, &How::default()).await, "back");
    assert!(!cordoned(&rig).await);
    assert_same(&rig.picture().await, &picture, "back");
    // It allows it later.
    let budget = "/apis/policy/v1/namespaces/home/poddisruptionbudgets/jellyfin";
    let body = json!({ "spec": { "minAvailable": 0 } }).to_string().into_bytes();
    let request = http::Request::builder().method("PATCH").uri(budget);
    let request = request.header("content-type", "application/merge-patch+json").body(body).unwrap();
    rig.cluster().await.request_text(request).await.unwrap();
    drop(rig.picture().await);
    assert_done(&rig.forward(None, &How::default()).await, "once it may");
    assert_eq!(bays(&rig).0, target());
}
