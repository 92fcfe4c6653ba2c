//! What is in the air when a process is killed: our own pve tasks, and answers that are out of date.

use std::time::Duration;

use pvemig::base::clock::Clock;
use pvemig::base::wait;
use pvemig::engine::event::Event;
use pvemig::engine::recorder::RecordError;
use pvemig::engine::run::Why;
use pvemig::engine::state::Phase;
use pvemig::lab::{FaultEffect, FaultRule, Front};

use super::laws::{Steps, done, go, stop, undo, undone};
use crate::harness::estate::{Rig, at_rest};
use crate::harness::probe::{Bed, Call, First, boxed};
use crate::harness::{Bench, How, Run, calls};

/// The source VM gives the device up, by a pve task that takes its time.
async fn slow() -> Rig {
    let mut world = at_rest("usb-move");
    world.timing.process = 30_000;
    let mut rig = Rig::of(world, |_| {}).await;
    rig.steps.retain(|step| step.id() == "01-remove-usb");
    assert_eq!(rig.steps.len(), 1);
    rig
}

fn killed(event: &'static str) -> How {
    How { kill_after: Some(event), ..How::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_pve_task_is_waited_for_before_it_is_undone() {
    let rig = slow().await;
    let first = rig.picture().await;
    let dead = rig.forward(None, &killed("got")).await;
    assert!(matches!(dead.ended, Err(RecordError::Cut)), "{:?}", dead.ended);
    let back = rig.backward(&dead.id, &How::default()).await;
    undone(&back);
    assert!(rig.picture().await == first);
    assert_eq!(calls(&back.records), 1, "what it did was seen, and taken back");
    // The undo is killed in the same way, and undone further.
    let rig = slow().await;
    let run = rig.forward(None, &How::default()).await;
    done(&run);
    let dead = rig.backward(&run.id, &killed("got")).await;
    assert!(matches!(dead.ended, Err(RecordError::Cut)), "{:?}", dead.ended);
    let again = rig.backward(&run.id, &How::default()).await;
    undone(&again);
    assert!(rig.picture().await == first);
    assert_eq!(calls(&again.records), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_pve_task_is_waited_for_before_the_run_goes_on() {
    let rig = slow().await;
    let dead = rig.forward(None, &killed("got")).await;
    let resumed = rig.forward(Some(&dead.id), &How::default()).await;
    done(&resumed);
    assert_eq!(calls(&resumed.records), 0, "it was done already");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pve_task_whose_name_was_lost_is_found_in_the_list() {
    let rig = slow().await;
    let first = rig.picture().await;
    rig.lab.fault(FaultRule::on(Front::Proxmox, FaultEffect::HangAfter).path("*/config").times(1).method("POST"));
    let sent = async {
        while rig.lab.shared().read(|world| world.tasks.iter().all(|task| task.kind != "qmconfig")) {
            wait::pause(Clock::real(), Duration::from_millis(1)).await;
        }
    };
    let how = How::default();
    tokio::select! {
        () = sent => {}
        run = rig.forward(None, &how) => panic!("it had no answer: {:?}", run.ended),
    }
    let run = rig.bench.store.runs().unwrap().remove(0);
    assert!(!run.records.iter().any(|r| matches!(r.event, Event::Got { .. })));
    let back = rig.backward(&run.id, &How::default()).await;
    undone(&back);
    assert!(rig.picture().await == first);
    assert_eq!(calls(&back.records), 1);
}

fn one() -> Steps {
    vec![boxed(First)]
}

#[tokio::test]
async fn what_was_decided_by_an_old_look_is_decided_anew() {
    let (bench, bed) = (Bench::new(), Bed::new());
    bed.calls("03-first", &[Call::Happens, Call::Stale, Call::Happens, Call::Stale]);
    let run = go(&bench, &bed, &one(), None, How::default()).await;
    done(&run);
    assert_eq!(calls(&run.records), 6);
    bed.calls("03-first back", &[Call::Stale, Call::Stale, Call::Stale]);
    let back = undo(&bench, &bed, &one(), &run.id, How::default()).await;
    undone(&back);
    assert_eq!(calls(&back.records), 4);
    let again = |run: &Run| {
        let is = |e: &Event| matches!(e, Event::Checked { answer, .. } if answer == "again");
        run.records.iter().filter(|r| is(&r.event)).count()
    };
    assert_eq!((again(&run), again(&back)), (2, 3));
}

#[tokio::test]
async fn it_is_not_decided_anew_for_ever() {
    let (bench, bed) = (Bench::new(), Bed::new());
    bed.calls("03-first", &[Call::Happens, Call::Stale].repeat(4));
    let run = go(&bench, &bed, &one(), None, How::default()).await;
    let Why::Failed { error, help, .. } = &stop(&run).why else { panic!("{:?}", run.ended) };
    assert!(error[0].contains("too late") && help[0].contains("pvemig resume"), "{error:?} {help:?}");
    assert_eq!(calls(&run.records), 8);
    done(&go(&bench, &bed, &one(), Some(&run.id), How::default()).await);
    // A run that is stuck cannot go forwards, so nobody is told to.
    bed.calls("03-first back", &[Call::Stale].repeat(4));
    let back = undo(&bench, &bed, &one(), &run.id, How::default()).await;
    let Why::Stuck { help, .. } = &stop(&back).why else { panic!("{:?}", back.ended) };
    assert_eq!(help, &["`pvemig undo` looks again"]);
    assert_eq!(bench.read(&run.id).state.phase, Phase::Stuck);
    undone(&undo(&bench, &bed, &one(), &run.id, How::default()).await);
}
