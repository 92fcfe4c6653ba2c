//! The way back, and the way on after a stop.

use super::*;
use pvemig::engine::run::{Ended, Why};
use pvemig::lab::{FaultEffect, FaultRule, Front};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undo_has_each_drive_put_back() {
    let rig = rig("nvme-data").await;
    let picture = rig.picture().await;
    let starts = bays(&rig).1;
    let run = rig.forward(None, &How::default()).await;
    assert_done(&run, "forwards");
    let back = rig.backward(&run.id, &How::default()).await;
    assert_undone(&back, "backwards");
    assert_eq!(bays(&rig), (first(), starts + 2));
    assert_eq!((asked(&back, "04-move-drives"), cordoned(&rig).await), (1, false));
    assert_eq!(calls(&run.records) + calls(&back.records), rig.changes());
    assert_same(&rig.picture().await, &picture, "undone");
}

/// Nobody has moved a drive yet: the machine is switched on, and that is all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undo_before_anybody_was_there_asks_for_the_button_alone() {
    let rig = rig("nvme-data").await;
    let starts = bays(&rig).1;
    let run = rig.forward(None, &How { no_hands: true, ..How::default() }).await;
    let Ok(Ended::Stopped(stop)) = &run.ended else { panic!("{:#?}", run.ended) };
    assert_eq!(stop.key.as_str(), "04-move-drives");
    let Why::Manual { ask, hint, .. } = &stop.why else { panic!("{:#?}", stop.why) };
    assert_eq!(
        ask,
        &format!(
            "{NUC} is off: move media ({DATA}) from M2_2 (under the battery) to M2_3 (on the riser), put pool ({NEW}) into M2_2 (under the \
             battery), then switch it on"
        )
    );
    let hint = hint.as_deref().unwrap();
    for part in ["the machine: ", "1. move media", "2. put pool", "power cable out", "| M2_3"] {
        assert!(hint.contains(part), "{part}: {hint}");
    }
    let back = rig.backward(&run.id, &How::default()).await;
    assert_undone(&back, "backwards");
    assert_eq!(bays(&rig), (first(), starts + 1));
}

/// A drive in the wrong slot: a resume switches the machine off again, and asks with what was seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drive_in_the_wrong_slot_is_asked_for_once_more() {
    let rig = rig("nvme-data").await;
    let starts = bays(&rig).1;
    let lab = rig.lab.clone();
    let run = with_a_person(&rig, move || {
        lab.move_drive(NEW, "talos-nuc:M2_3").unwrap();
        lab.press_button(NUC).unwrap();
    })
    .await;
    let (key, text) = why(&run);
    assert_eq!((key, calls(&run.records)), ("04-move-drives", rig.changes()), "{text}");
    assert!(text.contains("media (22471A806001) is in M2_2 and belongs into M2_3"), "{text}");
    let resumed = rig.forward(Some(&run.id), &How::default()).await;
    assert_done(&resumed, "resumed");
    assert_eq!((bays(&rig), asked(&resumed, "04-move-drives")), ((target(), starts + 2), 1));
}

/// All is done, and the machine is up; what it has cannot be asked at the moment. Nobody switches it off for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_cannot_be_asked_is_not_switched_off_by_a_resume() {
    let rig = rig("nvme-data").await;
    let starts = bays(&rig).1;
    let run = rig.forward(None, &How { no_hands: true, ..How::default() }).await;
    rig.lab.move_drive(DATA, "talos-nuc:M2_3").unwrap();
    rig.lab.move_drive(NEW, "talos-nuc:M2_2").unwrap();
    rig.lab.press_button(NUC).unwrap();
    let up = |w: &World| w.talos.nodes[NUC].run.as_ref().is_some_and(|run| run.booted).then_some(());
    rig.lab.shared().until(std::time::Duration::from_secs(600), up).await.unwrap();
    let no = FaultEffect::Status(500, "injected".into());
    rig.lab.fault(FaultRule::on(Front::Talos, no).path("*Disks.block.talos.dev*"));
    let before = rig.changes();
    let stopped = rig.forward(Some(&run.id), &How { no_hands: true, ..How::default() }).await;
    let (key, text) = why(&stopped);
    assert_eq!((key, rig.changes(), bays(&rig).1), ("04-move-drives", before, starts + 1), "{text}");
    rig.lab.shared().clear_faults();
    assert_done(&rig.forward(Some(&run.id), &How { no_hands: true, ..How::default() }).await, "asked again");
    assert_eq!(bays(&rig), (target(), starts + 1));
}

/// One step alone has nobody before it who switches the machine off: it says which run has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_step_on_a_machine_that_runs_names_the_run_that_switches_it_off() {
    let mut told = 0;
    for id in ["04-move-drives", "05-verify-disks"] {
        let mut rig = rig("nvme-data").await;
        rig.steps.retain(|step| step.id() == id);
        let run = rig.forward(None, &How::default()).await;
        let (key, text) = why(&run);
        assert!(key == id && text.contains("media (22471A806001) is in M2_2 and belongs into M2_3"), "{key}: {text}");
        for words in ["`pvemig run ", "`pvemig step 03-shutdown -m "] {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(!text.contains("switch the machine off") && !text.contains("pvemig resume"), "{text}");
        assert_eq!((rig.changes(), asked(&run, id)), (0, 0));
        told += 1;
    }
    assert_eq!(told, 2);
}
