//! A VM that goes off for its drives, and what keeps it so: its host does not start it, and a drive that is wrong leads back.

use super::vm::{MEDIA, VM, hands, moved, off, rig, rig_with, stands};
use super::*;
use pvemig::engine::run::{Ended, Why};
use pvemig::lab::talos::disk::Partition;

/// Somebody writes this into the VM's config.
fn config(rig: &Rig, key: &str, value: &str) {
    rig.lab.shared().change(|w| {
        w.vms.get_mut(&223).unwrap().config.insert(key.into(), value.into());
    });
}

/// The VM's host is switched off and on.
fn cycle(rig: &Rig) {
    for _ in 0..2 {
        rig.lab.press_button("pve").unwrap();
    }
}

/// Puts what is on the data drive into the place of what it had, and says what that was.
fn contents(rig: &Rig, of: Vec<Partition>) -> Vec<Partition> {
    rig.lab.shared().change(|w| {
        let mut disks = w.talos.nodes.get_mut(VM).unwrap().disks.iter_mut();
        std::mem::replace(&mut disks.find(|disk| disk.serial == MEDIA).unwrap().partitions, of)
    })
}

/// A volume of the same name that somebody else has made.
fn another() -> Vec<Partition> {
    let uuid = "5b1c6f0e-3f50-4cf1-a0a4-71e0ab5a9c11".to_owned();
    let (label, holds) = ("u-media".to_owned(), "xfs".to_owned());
    vec![Partition { label, holds, uuid, size: 1_999_398_934_016, ..Partition::default() }]
}

/// The bus behind the slot M2_3 has another number from now on.
fn renumber(lab: &pvemig::lab::Lab) {
    lab.shared().change(|w| {
        let bay = w.hosts.get_mut("pve").unwrap().bays.get_mut("M2_3").unwrap();
        bay.bus = bay.bus.replace("0000:02:00.0", "0000:07:00.0");
    });
}

/// The calls of a step.
fn calls_of(run: &Run, step: &str) -> Vec<String> {
    let text = |event: &Event| match event {
        Event::Call { key, note, .. } if key.as_str() == step => Some(note.text.clone()),
        _ => None,
    };
    run.records.iter().filter_map(|record| text(&record.event)).collect()
}

/// While it was off somebody has it start with its host again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_that_is_off_does_not_start_with_its_host() {
    let rig = rig("nvme-data-vm").await;
    let first = stands(&rig);
    let run = off(&rig).await;
    config(&rig, "onboot", "1");
    let stopped = rig.forward(Some(&run.id), &How { no_hands: true, ..How::default() }).await;
    let Ok(Ended::Stopped(stop)) = &stopped.ended else { panic!("{:#?}", stopped.ended) };
    assert!(matches!(stop.why, Why::Manual { .. }), "{stop:#?}");
    assert_eq!(stands(&rig).on, (false, true, false));
    hands(&rig, "M2_3");
    assert_eq!(stands(&rig).on, (false, true, false));
    assert_done(&rig.forward(Some(&run.id), &How::default()).await, "resumed");
    assert_eq!(stands(&rig), moved(false));

    // On the way back it is off already, and would come up with its host.
    config(&rig, "onboot", "0");
    cycle(&rig);
    config(&rig, "onboot", "1");
    assert_eq!(stands(&rig).on, (false, true, true));
    let back = rig.backward(&run.id, &How::default()).await;
    assert_undone(&back, "back");
    let calls = calls_of(&back, "03-shutdown");
    assert!(calls.first().is_some_and(|text| text.ends_with("onboot: 0")), "{calls:#?}");
    assert_eq!(stands(&rig), first);
}

/// Which line has which drive nobody has seen then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_that_was_off_before_the_run_is_started_first() {
    for onboot in ["0", "1"] {
        let mut rig = rig("nvme-data-vm").await;
        config(&rig, "onboot", "0");
        cycle(&rig);
        config(&rig, "onboot", onboot);
        rig.steps.retain(|step| step.id() == "03-shutdown");
        let run = rig.forward(None, &How::default()).await;
        let (key, text) = why(&run);
        assert_eq!((key, rig.changes()), ("03-shutdown", 0), "{text}");
        for part in
            ["vm 223 is off, and this run has not seen it on", "`qm start 223`", "with its drives where they were"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}

/// The drive is the right one by its serial number, and by nothing that is on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_that_runs_with_wrong_drives_goes_off_once_more() {
    let rig = rig("nvme-data-vm").await;
    let first = stands(&rig);
    let run = off(&rig).await;
    hands(&rig, "M2_3");
    let kept = contents(&rig, another());
    let stopped = rig.forward(Some(&run.id), &How { no_hands: true, ..How::default() }).await;
    let (key, text) = why(&stopped);
    assert_eq!(key, "05-verify-disks", "{text}");
    assert!(text.contains("`pvemig resume` switches it off first, and asks once more"), "{text}");
    // Nothing starts it by itself as long as they are not known.
    assert_eq!(stands(&rig).on, (true, true, false));

    // What was in the way is out of it, and the bus of that slot has another number.
    let lab = rig.lab.clone();
    let does = move |hands: &pvemig::base::check::Hands| {
        let Hands::Drives { node, moves, medium, on } = hands else { panic!("{hands:?}") };
        assert!(moves.is_empty(), "{moves:?}");
        lab.press_button("pve").unwrap();
        lab.shared().change(|w| {
            let disk = w.talos.nodes.get_mut(VM).unwrap().disks.iter_mut().find(|disk| disk.serial == MEDIA);
            disk.unwrap().partitions.clone_from(&kept);
        });
        renumber(&lab);
        drop(lab.hands_on_drives(node, moves, medium.as_deref(), *on).unwrap());
    };
    let again = rig.bench.go(&rig.estate, &rig.steps, Some(&run.id), false, &How::default(), does).await;
    assert_done(&again, "once more");
    assert_eq!(asked(&again, "04-move-drives"), 1);
    let there = stands(&rig);
    assert_eq!((there.lines[0].as_str(), there.on), ("0000:07:00.0,pcie=1,rombar=0", (true, true, true)));

    // What was written twice is taken back to what was there first.
    assert_undone(&rig.backward(&run.id, &How::default()).await, "back");
    assert_eq!(stands(&rig), first);
}

/// A drive was put elsewhere once the steps that would have seen it were done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drive_that_is_moved_while_the_vm_is_off_leads_back_to_the_hands() {
    let rig = rig("nvme-data-vm").await;
    let first = stands(&rig);
    let run = off(&rig).await;
    hands(&rig, "M2_3");
    let kept = contents(&rig, another());
    let stopped = rig.forward(Some(&run.id), &How { no_hands: true, ..How::default() }).await;
    assert_eq!(why(&stopped).0, "05-verify-disks");
    contents(&rig, kept);
    hands(&rig, "M2_1");
    assert_eq!(stands(&rig).on, (false, true, false));
    let asks = rig.forward(Some(&run.id), &How { no_hands: true, ..How::default() }).await;
    let Ok(Ended::Stopped(stop)) = &asks.ended else { panic!("{:#?}", asks.ended) };
    let Why::Manual { ask, .. } = &stop.why else { panic!("{:#?}", stop.why) };
    assert_eq!(stop.key.as_str(), "04-move-drives");
    assert!(ask.contains("switch its host pve off, move media (23381C804455) from M2_1"), "{ask}");
    let resumed = rig.forward(Some(&run.id), &How::default()).await;
    assert_done(&resumed, "resumed");
    assert_eq!((stands(&rig), asked(&resumed, "04-move-drives")), (moved(false), 1));
    assert_undone(&rig.backward(&run.id, &How::default()).await, "back");
    assert_eq!(stands(&rig), first);
}

/// What is done once more is cut like anything else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_followed_once_more_is_finished_or_undone_after_a_cut() {
    let mut rig = rig("nvme-data-vm").await;
    let first = stands(&rig);
    let run = off(&rig).await;
    hands(&rig, "M2_3");
    let kept = contents(&rig, another());
    let stopped = rig.forward(Some(&run.id), &How { no_hands: true, ..How::default() }).await;
    assert_eq!(why(&stopped).0, "05-verify-disks");
    contents(&rig, kept);
    rig.lab.press_button("pve").unwrap();
    renumber(&rig.lab);
    rig.lab.press_button("pve").unwrap();
    let (resumed, scenes) = rig.resume_watched(&run.id, &How::default()).await;
    assert_done(&resumed, "resumed");
    let there = stands(&rig);
    assert_eq!(there.lines[0], "0000:07:00.0,pcie=1,rombar=0");
    let mut cut = 0;
    let again = ["03-shutdown", "04a-follow-passthrough"];
    for (point, scene) in scenes.points.iter().filter(|(point, _)| again.contains(&point.key.as_str())) {
        let what = format!("{} {} {:?}", point.key, point.event, point.side);
        rig.go_back(scene);
        assert_done(&rig.forward(Some(&run.id), &How::default()).await, &what);
        assert_eq!(stands(&rig), there, "{what}");
        rig.go_back(scene);
        assert_undone(&rig.backward(&run.id, &How::default()).await, &what);
        assert_eq!(stands(&rig), first, "{what}");
        cut += 1;
    }
    assert!(cut > 4, "{cut}");
}

/// It was to go off, and that was never sent: a host that is silent is no proof.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_host_is_no_proof_that_its_vm_went_off() {
    let never = |w: &mut World| drop(w.vms.get_mut(&223).unwrap().config.insert("onboot".into(), "0".into()));
    let mut rig = rig_with("nvme-data-vm", never, |_| {}).await;
    let (run, scenes) = rig.watched(None, &How::default()).await;
    assert_done(&run, "whole");
    let mut sent = scenes.points.iter().filter(|(point, _)| point.key == "03-shutdown" && point.event == "call");
    let (_, scene) = sent.next().unwrap();
    assert_eq!(sent.count(), 1, "one call, before its line and after it");
    rig.go_back(scene);
    rig.lab.press_button("pve").unwrap();
    let limit = Some(std::time::Duration::from_secs(2));
    let stopped = rig.forward(Some(&run.id), &How { no_hands: true, limit, ..How::default() }).await;
    let (key, text) = why(&stopped);
    assert_eq!(key, "03-shutdown", "{text}");
    assert!(text.contains("whether vm 223 went off is not known: pve does not answer"), "{text}");
    // Once that answers, it tells.
    rig.lab.press_button("pve").unwrap();
    assert_done(&rig.forward(Some(&run.id), &How::default()).await, "resumed");
    assert_eq!(stands(&rig).on, (true, true, false));
}
