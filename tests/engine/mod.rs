//! The engine's laws on a toy estate: every crash point, every failing call, holds, undo.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod holds;
mod laws;
mod lost;
mod store;
mod turns;
mod undoing;

use std::sync::Arc;
use std::time::Duration;

use crate::harness::toy::{self, Estate};
use crate::harness::{Bench, How, Run, calls, is_cut, points_expected};
use pvemig::base::check::Hands;
use pvemig::engine::event::Event;
use pvemig::engine::point::{Point, Side};
use pvemig::engine::run::{Ended, Stop, Why};
use pvemig::engine::state::{Phase, Stage};
use pvemig::engine::store::StoreError;

fn hands(estate: &Arc<Estate>) -> impl Fn(&Hands) + Send + Sync + 'static {
    let estate = estate.clone();
    move |hands| {
        if let Hands::Plug { host, .. } = hands {
            estate.world().stick_at = host.clone();
        }
    }
}

async fn run(bench: &Bench, estate: &Arc<Estate>, id: Option<&str>, how: How) -> Run {
    bench.go(&**estate, &toy::steps(), id, false, &how, hands(estate)).await
}

async fn undo(bench: &Bench, estate: &Arc<Estate>, id: &str, how: How) -> Run {
    bench.go(&**estate, &toy::steps(), Some(id), true, &how, hands(estate)).await
}

fn cut(n: u64) -> How {
    How { cut_at: Some(n), ..How::default() }
}

fn stop(run: &Run) -> &Stop {
    match &run.ended {
        Ok(Ended::Stopped(stop)) => stop,
        other => panic!("expected a stop, got {other:?}"),
    }
}

/// Whether the run says that the hold is up exactly where the toy's mark is set. Between an intent and its proof
/// nobody can know: there it says so. Gives what the toy shows.
fn holds_agree(bench: &Bench, estate: &Arc<Estate>, id: &str, what: &dyn std::fmt::Debug) -> bool {
    let marked = estate.world().mark.is_some();
    let state = match bench.store.run(id).unwrap().read() {
        Ok(run) => run.state,
        Err(StoreError::Empty { .. }) => {
            assert!(!marked, "{what:?}");
            return false;
        }
        Err(error) => panic!("{what:?}: {error}"),
    };
    let up: Vec<_> = state.holds_up().into_iter().map(ToString::to_string).collect();
    if marked {
        assert_eq!(up, ["02-pause"], "{what:?}");
        assert_ne!(state.phase, Phase::Done, "{what:?}: what is held is not over");
        return true;
    }
    let holder = state.stage(&"02-pause".into());
    let between = matches!(holder, Stage::Begun | Stage::Undoing) || state.stage(&"06-resume".into()) == Stage::Begun;
    assert!(up.is_empty() || between, "{what:?}: {up:?}");
    false
}

/// First world, final world, the undisturbed run, and its undo.
async fn undisturbed() -> (serde_json::Value, serde_json::Value, Run, Run) {
    let (bench, estate) = (Bench::new(), Estate::new());
    let first = estate.picture();
    let forward = run(&bench, &estate, None, How::default()).await;
    assert!(matches!(forward.ended, Ok(Ended::Done)), "{:?}", forward.ended);
    let last = estate.picture();
    let back = undo(&bench, &estate, &forward.id, How::default()).await;
    assert!(matches!(back.ended, Ok(Ended::Undone)), "{:?}", back.ended);
    let mut after = estate.picture();
    // A reboot is not taken back; what runs is what was configured when it booted.
    after["running"] = first["running"].clone();
    assert_eq!(after, first);
    (first, last, forward, back)
}

fn without_running(mut picture: serde_json::Value) -> serde_json::Value {
    picture.as_object_mut().unwrap().remove("running");
    picture
}

#[tokio::test]
async fn a_run_is_done_then_done_again_without_a_change_and_undone() {
    let (bench, estate) = (Bench::new(), Estate::new());
    let first = run(&bench, &estate, None, How::default()).await;
    assert!(matches!(first.ended, Ok(Ended::Done)), "{:?}", first.ended);
    assert_eq!(calls(&first.records), 7);
    assert_eq!(estate.changes(), 7);
    let second = run(&bench, &estate, None, How::default()).await;
    assert!(matches!(second.ended, Ok(Ended::Done)));
    assert_eq!((calls(&second.records), estate.changes()), (0, 7));
    let state = bench.read(&second.id).state;
    assert_eq!(state.steps.values().filter(|s| s.stage == Stage::Already).count(), 7);
    let back = undo(&bench, &estate, &first.id, How::default()).await;
    assert!(matches!(back.ended, Ok(Ended::Undone)), "{:?}", back.ended);
    assert_eq!(bench.read(&first.id).state.phase, Phase::Undone);
    assert_eq!(calls(&back.records), estate.changes() - 7);
}

#[tokio::test]
async fn a_cut_at_every_point_can_be_resumed_and_no_boot_happens_twice() {
    let (_, last, forward, _) = undisturbed().await;
    let points = forward.points.passed();
    assert_eq!(points.len(), points_expected(&forward.records));
    assert_eq!(points.len(), 33, "{points:#?}");
    let mut held = 0;
    for point in &points {
        let (bench, estate) = (Bench::new(), Estate::new());
        let cut_run = run(&bench, &estate, None, cut(point.n)).await;
        assert!(is_cut(&cut_run) && cut_run.ended.is_err(), "{point:?}");
        held += usize::from(holds_agree(&bench, &estate, &cut_run.id, point));
        let resumed = run(&bench, &estate, Some(&cut_run.id), How::default()).await;
        assert!(matches!(resumed.ended, Ok(Ended::Done)), "{point:?}: {:?}", resumed.ended);
        assert_eq!(estate.picture(), last, "{point:?}");
        assert_eq!(*estate.boots.lock().unwrap(), 1, "{point:?}");
        assert!(!holds_agree(&bench, &estate, &resumed.id, point));
    }
    assert_eq!(held, 21, "the hold was up");
}

#[tokio::test]
async fn a_cut_at_every_point_can_be_undone() {
    let (first, _, forward, _) = undisturbed().await;
    for point in forward.points.passed() {
        let (bench, estate) = (Bench::new(), Estate::new());
        let cut_run = run(&bench, &estate, None, cut(point.n)).await;
        let back = undo(&bench, &estate, &cut_run.id, How::default()).await;
        assert!(matches!(back.ended, Ok(Ended::Undone)), "{point:?}: {:?}", back.ended);
        assert_eq!(without_running(estate.picture()), without_running(first.clone()), "{point:?}");
        assert!(*estate.boots.lock().unwrap() <= 1, "{point:?}");
        assert!(!holds_agree(&bench, &estate, &back.id, &point));
    }
}

#[tokio::test]
async fn an_undo_cut_at_every_point_can_be_undone_further() {
    let (first, _, _, back) = undisturbed().await;
    let points = back.points.passed();
    assert_eq!(points.len(), points_expected(&back.records));
    assert_eq!(points.len(), 31, "{points:#?}");
    let mut held = 0;
    for point in &points {
        let (bench, estate) = (Bench::new(), Estate::new());
        let done = run(&bench, &estate, None, How::default()).await;
        let cut_undo = undo(&bench, &estate, &done.id, cut(point.n)).await;
        assert!(is_cut(&cut_undo), "{point:?}");
        held += usize::from(holds_agree(&bench, &estate, &done.id, point));
        let again = undo(&bench, &estate, &done.id, How::default()).await;
        assert!(matches!(again.ended, Ok(Ended::Undone)), "{point:?}: {:?}", again.ended);
        assert_eq!(without_running(estate.picture()), without_running(first.clone()), "{point:?}");
        assert!(!holds_agree(&bench, &estate, &done.id, point));
    }
    assert_eq!(held, 14, "the hold was up");
}

#[tokio::test]
async fn every_failing_call_fails_there_and_is_resumed_or_undone() {
    let (first, last, forward, _) = undisturbed().await;
    let all = calls(&forward.records);
    assert_eq!(all, 7);
    for n in 1..=all {
        for happens in [false, true] {
            for back in [false, true] {
                let (bench, estate) = (Bench::new(), Estate::new());
                *estate.fault.lock().unwrap() = Some((n, happens));
                let failed = run(&bench, &estate, None, How::default()).await;
                let Why::Failed { effect, .. } = &stop(&failed).why else { panic!("{:?}", failed.ended) };
                assert_eq!(*effect == pvemig::base::fault::Effect::Maybe, happens);
                let state = bench.read(&failed.id).state;
                assert_eq!(state.stage(&stop(&failed).key), Stage::Begun, "it failed there");
                assert_eq!(calls(&failed.records), n, "and only there");
                holds_agree(&bench, &estate, &failed.id, &(n, happens));
                *estate.fault.lock().unwrap() = None;
                if back {
                    let undone = undo(&bench, &estate, &failed.id, How::default()).await;
                    assert!(matches!(undone.ended, Ok(Ended::Undone)), "{n} {happens}: {:?}", undone.ended);
                    assert_eq!(without_running(estate.picture()), without_running(first.clone()));
                } else {
                    let resumed = run(&bench, &estate, Some(&failed.id), How::default()).await;
                    assert!(matches!(resumed.ended, Ok(Ended::Done)), "{n} {happens}: {:?}", resumed.ended);
                    assert_eq!(estate.picture(), last);
                }
                assert!(*estate.boots.lock().unwrap() <= 1, "{n} {happens} {back}");
            }
        }
    }
}

/// A crash while this durable line was being written, at every byte of it. Gives the number of cuts.
async fn torn_at_every_byte(event: &'static str, key: &str, back: bool) -> usize {
    let (first, last, forward, _) = undisturbed().await;
    let here = |p: &&Point| p.event == event && p.key == key && p.side == Side::Before;
    let n = forward.points.passed().iter().find(here).unwrap().n;
    let record =
        forward.records.iter().find(|r| r.event.name() == event && r.event.key().is_some_and(|k| k.as_str() == key));
    let line = serde_json::to_vec(record.unwrap()).unwrap();
    for end in 0..line.len() {
        let (bench, estate) = (Bench::new(), Estate::new());
        let killed = run(&bench, &estate, None, cut(n)).await;
        let path = bench.store.run(&killed.id).unwrap().journal();
        let torn = [std::fs::read(&path).unwrap().as_slice(), &line[..end]].concat();
        std::fs::write(&path, torn).unwrap();
        assert_eq!(bench.read(&killed.id).torn.is_some(), end > 0);
        if back {
            let undone = undo(&bench, &estate, &killed.id, How::default()).await;
            assert!(matches!(undone.ended, Ok(Ended::Undone)), "{event} {end}: {:?}", undone.ended);
            assert_eq!(without_running(estate.picture()), without_running(first.clone()), "{event} {end}");
        } else {
            let resumed = run(&bench, &estate, Some(&killed.id), How::default()).await;
            assert!(matches!(resumed.ended, Ok(Ended::Done)), "{event} {end}: {:?}", resumed.ended);
            assert_eq!(estate.picture(), last, "{event} {end}");
            assert_eq!(*estate.boots.lock().unwrap(), 1, "{event} {end}");
        }
    }
    line.len()
}

#[tokio::test]
async fn a_durable_line_torn_at_every_byte_can_be_resumed() {
    for (event, key) in [("applying", "02-pause"), ("call", "05-boot"), ("got", "05-boot")] {
        let cuts = torn_at_every_byte(event, key, false).await;
        assert!(cuts > 100, "{event} {key}: {cuts}");
    }
}

#[tokio::test]
async fn a_durable_line_torn_at_every_byte_can_be_undone() {
    for (event, key) in [("call", "04-attach"), ("applied", "04-attach")] {
        let cuts = torn_at_every_byte(event, key, true).await;
        assert!(cuts > 80, "{event} {key}: {cuts}");
    }
}

#[tokio::test]
async fn a_fallen_hold_stops_the_run_and_resume_puts_it_up_again() {
    let (bench, estate) = (Bench::new(), Estate::new());
    let asked = run(&bench, &estate, None, How { no_hands: true, ..How::default() }).await;
    assert_eq!(stop(&asked).key.as_str(), "03-carry");
    assert_eq!(bench.read(&asked.id).state.holds_up().len(), 1);
    // Somebody scales up while the person carries; the resume puts the hold up again.
    estate.world().replicas = 5;
    let resumed = run(&bench, &estate, Some(&asked.id), How::default()).await;
    assert!(matches!(resumed.ended, Ok(Ended::Done)), "{:?}", resumed.ended);
    let fell = resumed.records.iter().filter(|r| matches!(r.event, Event::HoldFell { .. })).count();
    assert_eq!(fell, 1);
    // The first before stays.
    assert_eq!(estate.world().replicas, 2);
}

#[tokio::test]
async fn a_hold_that_falls_during_the_run_stops_it_before_the_next_apply() {
    let (bench, estate) = (Bench::new(), Estate::new());
    let meddler = estate.clone();
    let hands = move |hands: &Hands| {
        if let Hands::Plug { host, .. } = hands {
            let mut world = meddler.world();
            world.stick_at = host.clone();
            world.replicas = 4;
        }
    };
    let fell = bench.go(&*estate, &toy::steps(), None, false, &How::default(), hands).await;
    assert!(bench.read(&fell.id).state.failure.is_some_and(|(key, _)| key.as_str() == "02-pause"));
    let Why::HoldFell { holder, changes, notes } = &stop(&fell).why else { panic!("{:?}", fell.ended) };
    assert_eq!((holder.as_str(), changes.len(), notes.as_slice()), ("02-pause", 1, &["somebody".to_owned()][..]));
    assert_eq!(stop(&fell).key.as_str(), "04-attach");
    assert_eq!(estate.world().slots.len(), 1, "nothing was attached");
    let resumed = run(&bench, &estate, Some(&fell.id), How::default()).await;
    assert!(matches!(resumed.ended, Ok(Ended::Done)), "{:?}", resumed.ended);
    assert_eq!(estate.world().replicas, 2);
}

#[tokio::test]
async fn a_mark_of_an_unknown_run_blocks_and_one_of_an_abandoned_run_is_taken_over() {
    let (bench, estate) = (Bench::new(), Estate::new());
    let asked = run(&bench, &estate, None, How { no_hands: true, ..How::default() }).await;
    let other = Bench::new();
    // Runs are numbered here: the other machine's gets another number.
    other.store.new_run().unwrap();
    let second = run(&other, &estate, None, How::default()).await;
    assert_ne!(second.id, asked.id);
    assert!(matches!(stop(&second).why, Why::Blocked(_)), "{:?}", second.ended);
    let wiring = pvemig::engine::recorder::Wiring::default();
    let (recorder, _) =
        pvemig::engine::recorder::Recorder::reopen(bench.store.run(&asked.id).unwrap(), &wiring).unwrap();
    recorder.write(Event::Abandoned { comment: "lost interest".into() }).unwrap();
    assert!(recorder.write(Event::Abandoned { comment: "twice".into() }).is_err());
    let taken = run(&bench, &estate, None, How::default()).await;
    assert!(matches!(taken.ended, Ok(Ended::Done)), "{:?}", taken.ended);
    assert_eq!(estate.world().replicas, 2);
}

#[tokio::test]
async fn a_problem_that_protects_a_step_blocks_until_that_step_is_done() {
    let (bench, estate) = (Bench::new(), Estate::new());
    let how = How { no_hands: true, limit: Some(Duration::from_millis(20)), ..How::default() };
    let steps: Vec<Box<dyn pvemig::engine::step::AnyStep<Estate>>> =
        vec![Box::new(toy::Look { in_the_way: Some("02-pause".into()) }), Box::new(toy::Pause)];
    let blocked = bench.go(&*estate, &steps, None, false, &how, |_| {}).await;
    let Why::Blocked(problems) = &stop(&blocked).why else { panic!("{:?}", blocked.ended) };
    assert_eq!(problems.len(), 1);
    // Once the protected step is done, its problem is dropped.
    estate.world().replicas = 0;
    estate.world().mark = Some(serde_json::json!({ "run": "002", "was": 2 }));
    let done = bench.go(&*estate, &steps, None, false, &how, |_| {}).await;
    assert!(matches!(done.ended, Ok(Ended::Done)), "{:?}", done.ended);
}

#[test]
fn journals_of_format_1_are_read() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/journals/1-usb-move.jsonl");
    let records = pvemig::engine::journal::read(&path).unwrap().records;
    let state = pvemig::engine::state::RunState::fold(&records).unwrap().unwrap();
    assert_eq!((state.phase, calls(&records)), (Phase::Done, 21));
    let report = pvemig::report::Report::of("8n2", &records).unwrap().unwrap();
    assert_eq!((report.steps.len(), state.opened.plan.len()), (18, 18));
    // A step is rebuilt from its id and fields: an undo of that run is still possible.
    let blueprint = pvemig::blueprint::named(&state.opened.blueprint).unwrap();
    for planned in &state.opened.plan {
        let step = blueprint.rebuild(planned.key.id(), &planned.step).unwrap();
        assert_eq!(step.key(), planned.key);
        if let Some(before) = state.steps[&planned.key].before.as_ref() {
            step.undo_destroys(before).unwrap();
        }
    }
}
