//! The transition table, every event in every stage and phase.

use serde_json::json;

use super::*;
use crate::base::permit::{System, TaskTrace};
use crate::engine::step::Risk;

const HOLD: &str = "01-hold";
const STEP: &str = "02-step";
const CLOSE: &str = "03-close";

fn opened() -> Record {
    let plan = [(HOLD, Some(CLOSE)), (STEP, None), (CLOSE, None)].map(|(key, until)| Planned {
        key: key.into(),
        title: key.into(),
        risk: Risk::Reverts,
        holds_until: until.map(Into::into),
        step: Value::Null,
    });
    let opened = Opened {
        tool: "test".into(),
        site: "lab".into(),
        site_digest: String::new(),
        migration: None,
        blueprint: "test".into(),
        blueprint_version: 1,
        single: false,
        argv: Vec::new(),
        host: "here".into(),
        plan: plan.into(),
    };
    record(0, Event::Opened(Box::new(opened)))
}

fn record(seq: u64, event: Event) -> Record {
    Record { v: super::super::event::FORMAT, seq, at: jiff::Timestamp::UNIX_EPOCH, event }
}

fn run(events: &[Event]) -> RunState {
    let mut state = RunState::open(&opened()).unwrap();
    for (n, event) in events.iter().enumerate() {
        state.apply(&record(n as u64 + 1, event.clone())).unwrap();
    }
    state
}

fn applying(key: &str) -> Event {
    Event::Applying { key: key.into(), before: json!(key), changes: Vec::new() }
}
fn applied(key: &str) -> Event {
    Event::Applied { key: key.into(), notes: Vec::new() }
}
fn already(key: &str) -> Event {
    Event::AlreadySo { key: key.into(), needless: false, notes: Vec::new() }
}
fn call(key: &str, n: u64) -> Event {
    Event::Call { key: key.into(), call: CallId(n), note: Note::once(System::Toy, "boot") }
}
fn got(key: &str, n: u64) -> Event {
    Event::Got { key: key.into(), call: CallId(n), handle: Handle::new("upid", "x") }
}
fn asked(key: &str) -> Event {
    Event::Asked { key: key.into(), ask: "do".into(), hint: None, hands: None, before: None }
}
fn fell(key: &str) -> Event {
    Event::HoldFell { key: key.into(), changes: Vec::new(), notes: Vec::new() }
}
fn failed(key: &str, effect: Effect) -> Event {
    Event::Failed { key: key.into(), error: vec!["no".into()], effect, help: Vec::new(), voids: Vec::new() }
}
fn undoing(key: &str) -> Event {
    Event::Undoing { key: key.into() }
}
fn undone(key: &str) -> Event {
    Event::Undone { key: key.into(), passed: false, notes: Vec::new(), stays: Vec::new() }
}
fn undo_failed(key: &str, effect: Effect) -> Event {
    Event::UndoFailed { key: key.into(), error: vec!["no".into()], effect, help: Vec::new() }
}
fn closed(outcome: Outcome) -> Event {
    Event::Closed { outcome }
}

/// A state for each stage of `key`, with the way to it.
fn stages(key: &str) -> Vec<(Stage, RunState)> {
    let ways = [
        (Stage::Pending, vec![]),
        (Stage::Already, vec![already(key)]),
        (Stage::Begun, vec![applying(key), call(key, 1)]),
        (Stage::Applied, vec![applying(key), call(key, 1), applied(key)]),
        (Stage::Undoing, vec![applying(key), call(key, 1), undoing(key)]),
        (Stage::UndoFailed, vec![applying(key), call(key, 1), undoing(key), undo_failed(key, Effect::Maybe)]),
        (Stage::Undone, vec![applying(key), call(key, 1), undoing(key), undone(key)]),
    ];
    let made: Vec<_> = ways.into_iter().map(|(stage, way)| (stage, run(&way))).collect();
    assert!(made.iter().all(|(stage, state)| state.stage(&key.into()) == *stage));
    made
}

#[test]
fn every_event_in_every_stage() {
    use Stage::{Already, Applied, Begun, Pending, UndoFailed, Undoing, Undone};
    // Where it is allowed, and what follows; `None` for the same stage.
    type Row = (Event, &'static [Stage], Option<Stage>);
    let all: &[Stage] = &[Pending, Already, Begun, Applied, Undoing, UndoFailed, Undone];
    let checked = Event::Checked { key: STEP.into(), answer: "done".into(), back: false, notes: Vec::new() };
    let filed = Event::Filed { key: STEP.into(), name: "x".into(), sha256: String::new(), bytes: 0 };
    let owed: &[Stage] = &[Begun, Applied, Undoing, UndoFailed];
    let rows: Vec<Row> = vec![
        (checked, all, None),
        (failed(STEP, Effect::None), all, None),
        (Event::Interrupted { key: STEP.into() }, all, None),
        (already(STEP), &[Pending], Some(Already)),
        (applying(STEP), &[Pending, Begun], Some(Begun)),
        (applied(STEP), &[Begun], Some(Applied)),
        (got(STEP, 1), &[Begun, Undoing], None),
        (filed, &[Begun, Undoing], None),
        (asked(STEP), &[Pending, Already, Begun, Applied, Undoing, UndoFailed], None),
        (fell(STEP), &[], None),
        (undoing(STEP), owed, Some(Undoing)),
        (undone(STEP), owed, Some(Undone)),
        (undo_failed(STEP, Effect::None), &[Undoing], Some(UndoFailed)),
        // A hold falls and is put up again, by us or by somebody.
        (fell(HOLD), &[Already, Applied], None),
        (already(HOLD), &[Pending, Already], Some(Already)),
        (applying(HOLD), &[Pending, Already, Begun, Applied], Some(Begun)),
        // Not of the plan, not a first line, not a call in its turn.
        (applying("09-other"), &[], None),
        (opened().event, &[], None),
        (call(STEP, 7), &[], None),
    ];
    let (mut legal, mut refused) = (0, 0);
    for (event, allowed, then) in &rows {
        let key = event.key().filter(|key| key.as_str() == HOLD).map_or(STEP, |_| HOLD);
        for (stage, state) in stages(key) {
            let mut after = state.clone();
            let answer = after.apply(&record(9, event.clone()));
            let what = format!("{} of {key} while {stage:?}: {answer:?}", event.name());
            assert_eq!(answer.is_ok(), allowed.contains(&stage), "{what}");
            if let Err(illegal) = answer {
                assert_eq!(illegal.line, 10, "{what}");
                assert_eq!(after.stage(&key.into()), stage, "{what}");
                refused += 1;
            } else {
                assert_eq!(after.stage(&key.into()), then.unwrap_or(stage), "{what}");
                legal += 1;
            }
        }
    }
    assert_eq!((legal, refused), (52, 81));
    for (stage, state) in stages(STEP) {
        let next = state.next_call().0;
        assert_eq!(state.clone().apply(&record(9, call(STEP, next))).is_ok(), matches!(stage, Begun | Undoing));
    }
}

#[test]
fn every_phase_and_what_may_follow_it() {
    let whole = [already(HOLD), applying(STEP), applied(STEP), already(CLOSE)];
    let with = |more: &[Event]| run(&[&whole[..], more].concat());
    let phases = [
        (Phase::Forward, with(&[])),
        (Phase::Done, with(&[closed(Outcome::Done)])),
        (Phase::Undoing, with(&[closed(Outcome::Done), undoing(STEP)])),
        (Phase::Stuck, with(&[undoing(STEP), undo_failed(STEP, Effect::Maybe)])),
        (Phase::Undone, with(&[undoing(STEP), undone(STEP), closed(Outcome::Undone)])),
        (Phase::Abandoned, with(&[Event::Abandoned { comment: "enough".into() }])),
    ];
    let open = [Phase::Forward, Phase::Done, Phase::Undoing, Phase::Stuck];
    let rows: [(Event, &[Phase], Option<Phase>); 7] = [
        (closed(Outcome::Done), &[Phase::Forward], Some(Phase::Done)),
        (closed(Outcome::Undone), &[], None),
        (
            Event::Abandoned { comment: "x".into() },
            &[Phase::Forward, Phase::Undoing, Phase::Stuck],
            Some(Phase::Abandoned),
        ),
        (fell(HOLD), &open, None),
        (undoing(STEP), &open, Some(Phase::Undoing)),
        (Event::Consented { thing: Thing("pv/x".into()) }, &open, None),
        (failed(STEP, Effect::None), &open, None),
    ];
    let mut legal = 0;
    for (phase, state) in &phases {
        assert_eq!(state.phase, *phase);
        for (event, allowed, then) in &rows {
            let mut after = state.clone();
            let answer = after.apply(&record(9, event.clone()));
            assert_eq!(answer.is_ok(), allowed.contains(phase), "{} in {phase:?}: {answer:?}", event.name());
            if answer.is_ok() {
                assert_eq!(after.phase, then.unwrap_or(*phase), "{} in {phase:?}", event.name());
                legal += 1;
            }
        }
    }
    assert_eq!(legal, 20);
    // Forwards only, and what is not settled is not closed.
    assert!(RunState::fold(&[opened(), record(1, closed(Outcome::Done))]).is_err());
    assert!(RunState::fold(&[opened(), record(1, undoing(STEP))]).is_err());
    assert!(RunState::fold(&[record(0, applying(STEP))]).is_err());
    assert!(RunState::fold(&[]).unwrap().is_none());
}

#[test]
fn a_hold_is_up_from_its_intent_until_it_is_proved_released() {
    let up = |events: &[Event]| run(events).holds_up().len();
    let held = [applying(HOLD), applied(HOLD), applying(STEP), applied(STEP)];
    let with = |more: &[Event]| [&held[..], more].concat();
    assert_eq!(up(&[already(HOLD)]), 0);
    assert_eq!(up(&[applying(HOLD)]), 1);
    assert_eq!(up(&with(&[applying(CLOSE)])), 1);
    assert_eq!(up(&with(&[applying(CLOSE), applied(CLOSE)])), 0);
    assert_eq!(up(&with(&[already(CLOSE)])), 0);
    assert_eq!(up(&with(&[undone(HOLD)])), 0);
    // Put up for the undo, the run is open again and the hold is up, until it is undone itself.
    for end in [vec![], vec![closed(Outcome::Done)]] {
        let again = with(&[&[already(CLOSE)][..], &end, &[applying(HOLD)]].concat());
        let state = run(&again);
        assert_eq!((state.phase, state.holds_up().len(), state.standing()), (Phase::Undoing, 1, Standing::Undoing));
        assert_eq!(up(&[&again[..], &[undone(HOLD)]].concat()), 0);
    }
}

#[test]
fn a_call_is_lost_only_where_its_end_was_not_seen() {
    let lost = |events: &[Event]| run(events).steps[&STEP.into()].lost().len() == 1;
    let begun = [applying(STEP), call(STEP, 1)];
    let with = |more: &[Event]| [&begun[..], more].concat();
    assert!(lost(&begun) && lost(&with(&[got(STEP, 1)])));
    assert!(lost(&with(&[Event::Interrupted { key: STEP.into() }])));
    for (effect, is) in [(Effect::None, false), (Effect::Partial, false), (Effect::Maybe, true)] {
        assert_eq!(lost(&with(&[failed(STEP, effect)])), is, "{effect:?}");
        let back = with(&[undoing(STEP), call(STEP, 2)]);
        assert!(lost(&back));
        assert_eq!(lost(&[&back[..], &[undo_failed(STEP, effect)]].concat()), is, "{effect:?}");
    }
    // It was settled before anything else was begun.
    assert!(!lost(&with(&[undoing(STEP)])) && !lost(&with(&[applying(STEP)])) && !lost(&with(&[applied(STEP)])));
}

#[test]
fn every_pve_task_whose_end_was_not_seen_is_lost_however_safe_it_is() {
    let trace = TaskTrace { cluster: "home".into(), node: "alpha".into(), vmid: 105, kind: "qmconfig".into() };
    let task = |n: u64| {
        let note = Note::safe(System::Proxmox, format!("config {n}")).task(trace.clone());
        Event::Call { key: STEP.into(), call: CallId(n), note }
    };
    let plain = |n: u64| Event::Call { key: STEP.into(), call: CallId(n), note: Note::safe(System::Toy, "patch") };
    let lost = |events: &[Event]| -> Vec<(String, bool)> {
        let calls = run(events).steps[&STEP.into()].lost();
        calls.into_iter().map(|lost| (lost.note.text, lost.handle.is_some())).collect()
    };
    let of = |text: &str, known| (text.to_owned(), known);
    let begun = [applying(STEP), task(1), got(STEP, 1), plain(2), call(STEP, 3), call(STEP, 4), task(5)];
    assert_eq!(lost(&begun), [of("config 1", true), of("boot", false), of("config 5", false)]);
    let with = |more: &[Event]| [&begun[..], more].concat();
    assert_eq!(lost(&with(&[failed(STEP, Effect::Maybe)])).len(), 3);
    for seen in [failed(STEP, Effect::None), applied(STEP), undoing(STEP), applying(STEP)] {
        assert_eq!(lost(&with(std::slice::from_ref(&seen))), [], "{}", seen.name());
    }
    assert_eq!(lost(&[applying(STEP), plain(1)]), []);
}

#[test]
fn what_is_begun_and_has_called_did_not_change_nothing() {
    let effect = |events: &[Event], said| run(events).effect(&STEP.into(), said);
    // What is not begun has only looked, whatever became of the question.
    assert_eq!(effect(&[], Effect::Maybe), Effect::None);
    assert_eq!(effect(&[already(STEP)], Effect::Maybe), Effect::None);
    assert_eq!(effect(&[applying(STEP)], Effect::Maybe), Effect::Maybe);
    assert_eq!(effect(&[], Effect::None), Effect::None);
    assert_eq!(effect(&[applying(STEP)], Effect::None), Effect::None);
    let begun = [applying(STEP), call(STEP, 1)];
    assert_eq!(effect(&begun, Effect::None), Effect::Partial);
    assert_eq!(effect(&begun, Effect::Maybe), Effect::Maybe);
}

#[test]
fn what_a_hold_guards_may_be_begun_again_until_that_is_closed() {
    let up = [applying(HOLD), applied(HOLD)];
    let ways: [(&[Event], bool); 5] = [
        (&[already(STEP)], true),
        (&[applying(STEP), applied(STEP)], true),
        (&[applying(STEP), applied(STEP), applying(CLOSE)], true),
        (&[applying(STEP), applied(STEP), applying(CLOSE), applied(CLOSE)], false),
        (&[applying(STEP), applied(STEP), undoing(CLOSE)], false),
    ];
    assert_eq!(ways.len(), 5);
    for (n, (way, may)) in ways.into_iter().enumerate() {
        // An undo of the closer is one of what was begun.
        let begun = if n == 4 { vec![applying(CLOSE)] } else { Vec::new() };
        let events: Vec<Event> = up.iter().chain(&begun).chain(way).cloned().collect();
        let mut state = run(&events);
        assert_eq!(state.apply(&record(99, applying(STEP))).is_ok(), may, "{n}");
        // Without the hold it is done once.
        let (Some(last), true) = (way.last(), n < 2) else { continue };
        assert!(matches!(last, Event::Applied { .. } | Event::AlreadySo { .. }));
        assert!(run(way).apply(&record(99, applying(STEP))).is_err(), "{n}");
    }
}
