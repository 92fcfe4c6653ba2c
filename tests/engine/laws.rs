//! Failures, lost calls, limits, interrupts and consents.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pvemig::base::fault::Effect;
use pvemig::engine::event::Event;
use pvemig::engine::run::{Ended, Stop, Why};
use pvemig::engine::state::{Phase, Stage};
use pvemig::engine::step::AnyStep;

use crate::harness::probe::{Bed, Burn, Call, First, Keep, Say, boxed};
use crate::harness::{Bench, How, Run};

pub(crate) type Steps = Vec<Box<dyn AnyStep<Bed>>>;

pub(crate) async fn go(bench: &Bench, bed: &Bed, steps: &Steps, id: Option<&str>, how: How) -> Run {
    bench.go(bed, steps, id, false, &how, |_| {}).await
}

pub(crate) async fn undo(bench: &Bench, bed: &Bed, steps: &Steps, id: &str, how: How) -> Run {
    bench.go(bed, steps, Some(id), true, &how, |_| {}).await
}

pub(crate) fn stop(run: &Run) -> &Stop {
    match &run.ended {
        Ok(Ended::Stopped(stop)) => stop,
        other => panic!("expected a stop, got {other:?}"),
    }
}

pub(crate) fn done(run: &Run) {
    assert!(matches!(run.ended, Ok(Ended::Done)), "{:?}", run.ended);
}

pub(crate) fn undone(run: &Run) {
    assert!(matches!(run.ended, Ok(Ended::Undone)), "{:?}", run.ended);
}

pub(crate) fn soon() -> How {
    How { limit: Some(Duration::from_millis(20)), ..How::default() }
}

fn one() -> Steps {
    vec![boxed(First)]
}

/// The effect that the journal tells.
fn written(run: &Run) -> Effect {
    let effect = |e: &Event| if let Event::Failed { effect, .. } = e { Some(*effect) } else { None };
    run.records.iter().rev().find_map(|r| effect(&r.event)).unwrap()
}

#[tokio::test]
async fn a_begun_step_with_calls_never_says_that_nothing_was_changed() {
    let says: [(&[Say], &[Call]); 3] =
        [(&[], &[Call::Happens, Call::Refused]), (&[Say::World, Say::Error], &[]), (&[Say::World, Say::Blocked], &[])];
    for (says, calls) in says {
        let (bench, bed) = (Bench::new(), Bed::new());
        bed.say("03-first", says);
        bed.calls("03-first", calls);
        let failed = go(&bench, &bed, &one(), None, How::default()).await;
        match &stop(&failed).why {
            Why::Failed { effect, .. } => assert_eq!(*effect, Effect::Partial),
            Why::Blocked(_) => assert_eq!(says.last(), Some(&Say::Blocked)),
            other => panic!("{other:?}"),
        }
        assert_eq!(written(&failed), Effect::Partial, "{says:?} {calls:?}");
        let state = bench.read(&failed.id).state;
        assert_eq!(state.effect(&stop(&failed).key, Effect::None), Effect::Partial);
    }
    // Before its first call nothing was changed.
    let (bench, bed) = (Bench::new(), Bed::new());
    bed.say("03-first", &[Say::Blocked]);
    let blocked = go(&bench, &bed, &one(), None, How::default()).await;
    assert!(matches!(stop(&blocked).why, Why::Blocked(_)));
    assert_eq!(written(&blocked), Effect::None);
}

#[tokio::test]
async fn a_call_whose_end_was_seen_is_not_settled_and_a_lost_one_is() {
    for (call, settled) in [(Call::Refused, 0), (Call::Lost, 1)] {
        let (bench, bed) = (Bench::new(), Bed::new());
        bed.calls("03-first", &[Call::Happens, call]);
        let failed = go(&bench, &bed, &one(), None, How::default()).await;
        assert!(matches!(stop(&failed).why, Why::Failed { .. }));
        done(&go(&bench, &bed, &one(), Some(&failed.id), soon()).await);
        assert_eq!(*bed.settled.lock().unwrap(), settled, "{call:?}");
        // The same for its undo, which is stuck for as long.
        bed.calls("03-first back", &[call]);
        let stuck = undo(&bench, &bed, &one(), &failed.id, How::default()).await;
        assert!(matches!(stop(&stuck).why, Why::Stuck { .. }), "{:?}", stuck.ended);
        let state = bench.read(&failed.id).state;
        assert_eq!((state.phase, state.stage(&"03-first".into())), (Phase::Stuck, Stage::UndoFailed));
        undone(&undo(&bench, &bed, &one(), &failed.id, soon()).await);
        assert_eq!(*bed.settled.lock().unwrap(), 2 * settled, "{call:?}");
        assert!(!bed.is("03-first"));
    }
}

#[tokio::test]
async fn a_call_that_could_not_be_settled_stays_lost() {
    let (bench, bed) = (Bench::new(), Bed::new());
    bed.calls("03-first", &[Call::Happens, Call::Gone]);
    let failed = go(&bench, &bed, &one(), None, How::default()).await;
    bed.settle_fails.store(true, Ordering::SeqCst);
    for times in 1..=2 {
        let again = go(&bench, &bed, &one(), Some(&failed.id), soon()).await;
        assert!(matches!(stop(&again).why, Why::Failed { effect: Effect::Maybe, .. }), "{:?}", again.ended);
        assert_eq!(*bed.settled.lock().unwrap(), times);
        assert_eq!(bed.sent().len(), 2, "nothing is sent before it is settled");
    }
    bed.settle_fails.store(false, Ordering::SeqCst);
    done(&go(&bench, &bed, &one(), Some(&failed.id), soon()).await);
}

#[tokio::test]
async fn what_was_watched_for_is_said_as_long_as_it_was() {
    let (bench, bed) = (Bench::new(), Bed::new());
    bed.calls("03-first", &[Call::Happens, Call::Lost]);
    let failed = go(&bench, &bed, &one(), None, How::default()).await;
    let resumed = go(&bench, &bed, &one(), Some(&failed.id), How::default()).await;
    let notes = resumed.records.iter().find_map(|r| match &r.event {
        Event::Checked { answer, notes, .. } if answer == "settled" => Some(notes.join(" ")),
        _ => None,
    });
    let notes = notes.unwrap();
    assert!(notes.contains("watched for") && !notes.contains("60"), "{notes}");
}

#[tokio::test]
async fn a_lost_undo_is_settled_with_the_question_of_the_undo() {
    let (bench, bed) = (Bench::new(), Bed::new());
    let run = go(&bench, &bed, &one(), None, How::default()).await;
    bed.calls("03-first back", &[Call::Gone]);
    let stuck = undo(&bench, &bed, &one(), &run.id, How::default()).await;
    assert!(matches!(stop(&stuck).why, Why::Stuck { .. }));
    bed.asked.lock().unwrap().clear();
    undone(&undo(&bench, &bed, &one(), &run.id, soon()).await);
    let asked = bed.asked.lock().unwrap().clone();
    assert!(asked.len() > 3 && asked.iter().all(|what| what == "03-first back"), "{asked:?}");
}

#[tokio::test]
async fn a_limit_passes_however_the_answers_change() {
    let (todo, mixed) = ([Say::Todo; 600], [Say::Waiting, Say::Todo].repeat(300));
    for says in [&todo[..], &mixed[..]] {
        let (bench, bed) = (Bench::new(), Bed::new());
        bed.say("03-first", &[&[Say::World], says].concat());
        let late = go(&bench, &bed, &one(), None, soon()).await;
        let Why::Failed { error, effect, .. } = &stop(&late).why else { panic!("{:?}", late.ended) };
        assert!(error[0].starts_with("still not so after 20"), "{error:?}");
        assert_eq!(*effect, Effect::Maybe);
    }
    // Somebody else's lock has its own patience.
    let (bench, bed) = (Bench::new(), Bed::new());
    bed.say("03-first", &[&[Say::World][..], &[Say::Foreign; 60], &[Say::Todo]].concat());
    done(&go(&bench, &bed, &one(), None, soon()).await);
}

#[tokio::test]
async fn an_interrupt_stops_before_the_next_change_and_hides_no_failure() {
    let two: Steps = vec![boxed(Keep), boxed(First)];
    let interrupted = || {
        let flag = Arc::new(AtomicBool::new(false));
        (How { interrupted: flag.clone(), ..How::default() }, flag)
    };
    let (bench, bed) = (Bench::new(), Bed::new());
    let (how, flag) = interrupted();
    *bed.interrupt_at.lock().unwrap() = Some(("ready 01-keep".into(), flag));
    let stopped = go(&bench, &bed, &two, None, how).await;
    assert!(matches!(stop(&stopped).why, Why::Interrupted), "{:?}", stopped.ended);
    assert!(matches!(stopped.records.last().unwrap().event, Event::Interrupted { .. }));
    assert_eq!(bed.sent(), ["ready 01-keep"]);
    done(&go(&bench, &bed, &two, Some(&stopped.id), How::default()).await);

    let (bench, bed) = (Bench::new(), Bed::new());
    let (how, flag) = interrupted();
    *bed.interrupt_at.lock().unwrap() = Some(("turn 01-keep".into(), flag));
    bed.calls("01-keep", &[Call::Happens, Call::Lost]);
    let failed = go(&bench, &bed, &two, None, how).await;
    assert!(matches!(stop(&failed).why, Why::Failed { effect: Effect::Maybe, .. }), "{:?}", failed.ended);
    assert_eq!(written(&failed), Effect::Maybe);
    done(&go(&bench, &bed, &two, Some(&failed.id), soon()).await);

    let (how, flag) = interrupted();
    *bed.interrupt_at.lock().unwrap() = Some(("return 03-first".into(), flag));
    bed.calls("03-first back", &[Call::Refused]);
    let stuck = undo(&bench, &bed, &two, &failed.id, how).await;
    assert!(matches!(stop(&stuck).why, Why::Stuck { .. }), "{:?}", stuck.ended);
    undone(&undo(&bench, &bed, &two, &failed.id, How::default()).await);
}

#[tokio::test]
async fn what_is_destroyed_is_named_first() {
    let steps: Steps = vec![boxed(Burn)];
    let (bench, bed) = (Bench::new(), Bed::new());
    let refused = go(&bench, &bed, &steps, None, How::default()).await;
    let Why::Failed { error, help, .. } = &stop(&refused).why else { panic!("{:?}", refused.ended) };
    assert!(error[0].contains("pv/old") && help[0].contains("--destroy pv/old"), "{error:?} {help:?}");
    assert_eq!(written(&refused), Effect::None);
    assert!(bed.sent().is_empty());
    let how = How { consents: vec!["pv/old".into()], ..How::default() };
    done(&go(&bench, &bed, &steps, Some(&refused.id), how).await);
}

#[tokio::test]
async fn an_interrupt_is_heard_while_a_lost_call_is_settled() {
    let (bench, bed) = (Bench::new(), Bed::new());
    bed.calls("03-first", &[Call::Happens, Call::Lost]);
    let failed = go(&bench, &bed, &one(), None, How::default()).await;
    let how = How::default();
    *bed.settle_hangs.lock().unwrap() = Some(how.interrupted.clone());
    let stopped = go(&bench, &bed, &one(), Some(&failed.id), how).await;
    assert!(matches!(stop(&stopped).why, Why::Interrupted), "{:?}", stopped.ended);
    assert_eq!(*bed.settled.lock().unwrap(), 1);
    // It stays lost, and is settled first the next time.
    *bed.settle_hangs.lock().unwrap() = None;
    done(&go(&bench, &bed, &one(), Some(&failed.id), soon()).await);
    assert_eq!(*bed.settled.lock().unwrap(), 2);
    assert!(bed.is("03-first"));
}
