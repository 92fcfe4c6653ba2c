//! 03 and 04 where somebody else's configuration waits on the disk of a node, or is on trial.

use pvemig::engine::event::Event;
use pvemig::engine::run::Why;
use pvemig::lab::World;
use serde_json::json;

use super::{ask, calls, problems, rig, starts, stop, told};
use crate::harness::estate::{Rig, at_rest};
use crate::harness::same::{assert_done, assert_undone};
use crate::harness::{How, notes};

const NUC: &str = "talos-nuc";
const KEY: &str = "03-repair@talos-nuc";
const WAITS: &str = "a staged or tried configuration waits";

fn other(config: &str) -> String {
    let other = config.replace("vm.nr_hugepages: \"1024\"", "vm.nr_hugepages: \"2048\"");
    assert_ne!(other, config);
    other
}

/// Somebody has staged one: it is on the disk alone.
fn stage(w: &mut World) {
    let node = w.talos.nodes.get_mut(NUC).unwrap();
    node.config = other(&node.config);
}

/// Somebody tries one: it is in effect alone.
fn try_out(w: &mut World) {
    let run = w.talos.nodes.get_mut(NUC).unwrap().run.as_mut().unwrap();
    run.active = other(&run.active);
}

/// What is in effect, and what is on the disk.
fn both(rig: &Rig) -> (String, String) {
    rig.lab.shared().read(|w| {
        let node = &w.talos.nodes[NUC];
        (node.run.as_ref().unwrap().active.clone(), node.config.clone())
    })
}

fn applied(run: &crate::harness::Run) -> usize {
    calls(run).iter().filter(|call| call.contains("ApplyConfiguration")).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_applied_over_it() {
    let mut met = 0;
    for waits in [stage, try_out] {
        let rig = rig("talos-three-no-modules", &[NUC], waits).await;
        let before = both(&rig);
        assert_ne!(before.0, before.1);
        let found = problems(&rig, "00-preflight").await;
        let found = found.iter().find(|p| p.finding.as_deref() == Some("machine-config-waits")).unwrap();
        assert_eq!(found.protects.as_ref().unwrap().as_str(), KEY);
        let said = problems(&rig, KEY).await;
        assert!(said[0].text.contains(WAITS) && said[0].help.contains("apply-config"), "{said:#?}");
        let run = rig.forward(None, &How::default()).await;
        assert_eq!((stop(&run).key.as_str(), rig.changes()), ("00-preflight", 0));
        assert!(both(&rig) == before);
        met += 1;
    }
    assert_eq!(met, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_comes_at_the_last_moment_is_left_alone_too() {
    let rig = rig("talos-three-no-modules", &[NUC], |_| {}).await;
    let (former, _) = both(&rig);
    let shared = rig.lab.shared().clone();
    let run = told(&rig, move |record| {
        if matches!(&record.event, Event::Applying { key, .. } if key.as_str() == KEY) {
            shared.change(stage);
        }
    })
    .await;
    let stop = stop(&run);
    let Why::Failed { error, help, .. } = &stop.why else { panic!("{stop:#?}") };
    assert!(stop.key.as_str() == KEY && error.join(" ").contains(WAITS) && !help.is_empty(), "{stop:#?}");
    assert_eq!((applied(&run), both(&rig)), (0, (former.clone(), other(&former))));
    // Settled by hand, it goes on.
    rig.lab.shared().change(|w| w.talos.nodes.get_mut(NUC).unwrap().config.clone_from(&former));
    let run = rig.forward(Some(&run.id), &How::default()).await;
    assert_done(&run, "settled");
    assert_eq!(applied(&run), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undo_leaves_it_alone_as_well() {
    let rig = rig("talos-three-no-modules", &[NUC], |_| {}).await;
    let (former, _) = both(&rig);
    let run = rig.forward(None, &How::default()).await;
    assert_done(&run, "forwards");
    let (mended, _) = both(&rig);
    rig.lab.shared().change(stage);
    let undo = rig.backward(&run.id, &How::default()).await;
    let stop = stop(&undo);
    let Why::Blocked(problems) = &stop.why else { panic!("{stop:#?}") };
    assert!(stop.key.as_str() == KEY && problems[0].text.contains(WAITS), "{stop:#?}");
    assert_eq!((applied(&undo), both(&rig)), (0, (mended.clone(), other(&mended))));
    rig.lab.shared().change(|w| w.talos.nodes.get_mut(NUC).unwrap().config.clone_from(&mended));
    assert_undone(&rig.backward(&run.id, &How::default()).await, "settled");
    assert_eq!(both(&rig), (former.clone(), former));
}

const REBOOT: &str = "04-reboot@talos-nuc";
/// What differs, as the screen shows it.
const DIFFERS: [&str; 2] = ["-    vm.nr_hugepages: \"1024\"", "+    vm.nr_hugepages: \"2048\""];

fn shows_it(notes: &[String]) -> bool {
    notes.iter().any(|note| DIFFERS.iter().all(|line| note.contains(line)))
}

/// Nothing is mended here: it is the reboot that would put it into effect.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reboot_does_not_bring_it_into_effect_behind_anybodys_back() {
    let mut met = 0;
    for waits in [stage, try_out] {
        let rig = rig("talos-three", &[NUC], waits).await;
        let before = (both(&rig), starts(&rig));
        let preflight = ask(&rig, "00-preflight").await.unwrap();
        let found = problems(&rig, "00-preflight").await;
        let found = found.iter().find(|p| p.finding.as_deref() == Some("machine-config-waits")).unwrap();
        assert_eq!(found.protects.as_ref().unwrap().as_str(), REBOOT);
        let own = ask(&rig, REBOOT).await.unwrap();
        let said = problems(&rig, REBOOT).await;
        let said = said.iter().find(|p| p.text.contains(WAITS)).unwrap();
        assert!(said.help.contains("`staged: true`") && said.mended_by.is_none(), "{said:#?}");
        if met == 0 {
            assert!(shows_it(&preflight.notes) && shows_it(&own.notes), "{:#?} {:#?}", preflight.notes, own.notes);
        }
        let run = rig.forward(None, &How::default()).await;
        assert_eq!((stop(&run).key.as_str(), rig.changes()), ("00-preflight", 0));
        assert!((both(&rig), starts(&rig)) == before);
        met += 1;
    }
    assert_eq!(met, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_staged_right_before_the_reboot_is_found_too() {
    let rig = rig("talos-three", &[NUC], |_| {}).await;
    let (former, _) = both(&rig);
    let shared = rig.lab.shared().clone();
    let run = told(&rig, move |record| {
        if matches!(&record.event, Event::Applying { key, .. } if key.as_str() == REBOOT) {
            shared.change(stage);
        }
    })
    .await;
    let stop = stop(&run);
    let Why::Failed { error, help, .. } = &stop.why else { panic!("{stop:#?}") };
    assert!(stop.key.as_str() == REBOOT && error.join(" ").contains(WAITS) && !help.is_empty(), "{stop:#?}");
    assert!(!calls(&run).iter().any(|call| call.contains("Reboot")), "{:#?}", calls(&run));
    assert_eq!((starts(&rig)[NUC], both(&rig)), (1, (former.clone(), other(&former))));
    rig.lab.shared().change(|w| w.talos.nodes.get_mut(NUC).unwrap().config.clone_from(&former));
    assert_done(&rig.forward(Some(&run.id), &How::default()).await, "settled");
    assert_eq!(starts(&rig)[NUC], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_to_come_with_the_reboot_is_shown_before_and_told_after() {
    let mut world = at_rest("talos-three");
    stage(&mut world);
    let rig = Rig::of(world, |site| {
        let params = &mut site["migrations"]["reboots"]["params"];
        (params["nodes"], params["staged"]) = (json!([NUC]), json!(true));
    })
    .await;
    let (former, staged) = both(&rig);
    assert_ne!(former, staged);
    let preflight = ask(&rig, "00-preflight").await.unwrap();
    assert!(preflight.is_done() && shows_it(&preflight.notes), "{preflight:#?}");
    let run = rig.forward(None, &How::default()).await;
    assert_done(&run, "staged on purpose");
    assert_eq!(both(&rig), (staged.clone(), staged));
    assert!(shows_it(&[notes(&run, "04-reboot")]), "{}", notes(&run, "04-reboot"));
    let report = pvemig::report::Report::of(&run.id, &run.records).unwrap().unwrap();
    let text = pvemig::report::text(&report);
    let said = "a boot of talos-nuc puts the machine configuration on its disk into effect";
    assert!(text.contains(said) && DIFFERS.iter().all(|line| text.contains(line)), "{text}");
    assert!(!text.contains("i2t4w8.o1p3q5r7s9u0v2x4"));
}

/// Up to 1.12 a node reboots for another image by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_does_the_reboot_for_another_image() {
    const VM: &str = "talos-vm";
    let plain =
        "factory.talos.dev/nocloud-installer/376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba:v1.11.5";
    let mut world = at_rest("talos-three-wrong-image");
    let node = world.talos.nodes.get_mut(VM).unwrap();
    node.config = other(&node.config);
    let rig = Rig::of(world, |site| {
        let params = &mut site["migrations"]["reboots"]["params"];
        (params["nodes"], params["images"]) = (json!([VM]), json!({ VM: plain }));
    })
    .await;
    let said = problems(&rig, "03-repair@talos-vm").await;
    assert!(said.len() == 1 && said[0].text.contains(WAITS), "{said:#?}");
    let run = rig.forward(None, &How::default()).await;
    assert_eq!((stop(&run).key.as_str(), rig.changes(), starts(&rig)[VM]), ("00-preflight", 0, 1));

    // Nor does the swap of the slots in an undo.
    let rig = super::rig("talos-three-wrong-image", &[VM], |_| {}).await;
    let run = rig.forward(None, &How::default()).await;
    assert_done(&run, "another image");
    let mended = rig.lab.shared().read(|w| w.talos.nodes[VM].config.clone());
    rig.lab.shared().change(|w| w.talos.nodes.get_mut(VM).unwrap().config = other(&mended));
    let undo = rig.backward(&run.id, &How::default()).await;
    let Why::Blocked(problems) = &stop(&undo).why else { panic!("{:#?}", undo.ended) };
    assert!(problems[0].text.contains(WAITS), "{problems:#?}");
    assert!(!calls(&undo).iter().any(|call| call.contains("Rollback")), "{:#?}", calls(&undo));
    rig.lab.shared().change(|w| w.talos.nodes.get_mut(VM).unwrap().config = mended);
    assert_undone(&rig.backward(&run.id, &How::default()).await, "settled");
}
