//! What journals say of machines, by how far each step came.

use serde_json::{Value, json};

use super::*;
use crate::base::permit::{CallId, Note, System};
use crate::engine::event::{Event, FORMAT, Opened, Outcome, Record};
use crate::engine::step::Risk;

/// How far a step came.
#[derive(Clone, Copy, Debug)]
enum How {
    Begun,
    Sent,
    Applied,
    Already,
    NotNeeded,
    /// Its undo was passed, after it had sent something, or nothing.
    Passed(bool),
    /// It has sent something, and its undo has found nothing that it could take back.
    Undone,
}

/// A run of these steps.
fn run(blueprint: &str, step: &Value, steps: &[(&str, How)], end: Option<Event>) -> RunState {
    planned(blueprint, step, steps, &[], end)
}

/// A run of these steps, and of `later` ones that it has not come to.
fn planned(blueprint: &str, step: &Value, steps: &[(&str, How)], later: &[&str], end: Option<Event>) -> RunState {
    let plan = steps.iter().map(|(key, _)| key).chain(later).map(|key| Planned {
        key: (*key).into(),
        title: (*key).into(),
        risk: Risk::Destroys,
        holds_until: (*key == "03-shutdown").then(|| "05-verify-disks".to_owned()),
        step: step.clone(),
    });
    let opened = Event::Opened(Box::new(Opened {
        tool: "test".into(),
        site: "lab".into(),
        site_digest: String::new(),
        migration: None,
        blueprint: blueprint.into(),
        blueprint_version: 1,
        single: false,
        argv: Vec::new(),
        host: "here".into(),
        plan: plan.collect(),
    }));
    let (mut events, mut calls) = (vec![opened], 0);
    for (name, how) in steps {
        let key = || (*name).into();
        if matches!(how, How::Already | How::NotNeeded) {
            let needless = matches!(how, How::NotNeeded);
            events.push(Event::AlreadySo { key: key(), needless, notes: Vec::new() });
            continue;
        }
        events.push(Event::Applying { key: key(), before: Value::Null, changes: Vec::new() });
        if matches!(how, How::Sent | How::Passed(true) | How::Undone) {
            calls += 1;
            events.push(Event::Call { key: key(), call: CallId(calls), note: Note::once(System::Talos, "x") });
        }
        if matches!(how, How::Applied) {
            events.push(Event::Applied { key: key(), notes: Vec::new() });
        }
    }
    for (name, how) in steps {
        if let How::Passed(_) | How::Undone = how {
            let (key, passed) = ((*name).into(), matches!(how, How::Passed(_)));
            events.push(Event::Undone { key, passed, notes: Vec::new(), stays: Vec::new() });
        }
    }
    events.extend(end);
    let record = |(seq, event)| Record { v: FORMAT, seq, at: jiff::Timestamp::UNIX_EPOCH, event };
    let records: Vec<Record> = (0..).zip(events).map(record).collect();
    RunState::fold(&records).unwrap().unwrap()
}

fn abandoned() -> Option<Event> {
    Some(Event::Abandoned { comment: "x".into() })
}

fn undone() -> Option<Event> {
    Some(Event::Closed { outcome: Outcome::Undone })
}

fn done() -> Option<Event> {
    Some(Event::Closed { outcome: Outcome::Done })
}

fn machine(name: &str) -> Value {
    json!({ "cluster": "homelab", "name": name, "node": { "cluster": "k", "name": name }, "vm": null })
}

fn swap(new: &str) -> Value {
    let source = json!({ "file": "/n.yaml", "decrypt": [], "patches": [] });
    let new = json!({ "machine": machine(new), "source": source, "disk": "S1" });
    json!({ "swap": { "old": machine("n3"), "new": new, "peers": [] } })
}

#[test]
fn a_recovery_that_is_open_counts_from_its_first_wipe_and_any_other_from_the_new_etcd_on() {
    use How::{Already, Applied, Begun, Passed, Sent, Undone};
    let planes = json!({ "planes": {
        "cluster": "homelab", "from": machine("n1"), "nodes": [], "lost": [machine("n2"), machine("n3")], "peers": [],
    } });
    let cases: [(&str, How, Option<Event>, bool); 16] = [
        ("02-wipe-etcd@n1", Begun, None, false),
        ("02-wipe-etcd@n1", Begun, abandoned(), false),
        ("02-wipe-etcd@n1", Already, None, false),
        ("02-wipe-etcd@n1", Passed(false), None, false),
        ("02-wipe-etcd@n1", Passed(true), None, true),
        ("02-wipe-etcd@n1", Passed(true), abandoned(), false),
        ("02-wipe-etcd@n1", Sent, None, true),
        ("02-wipe-etcd@n1", Sent, abandoned(), false),
        ("02-wipe-etcd@n1", Applied, abandoned(), false),
        ("03-recover", Begun, abandoned(), false),
        ("03-recover", Already, done(), false),
        ("03-recover", Sent, None, true),
        ("03-recover", Sent, abandoned(), true),
        ("03-recover", Undone, undone(), true),
        ("03-recover", Applied, done(), true),
        ("01-save-copy", Applied, None, false),
    ];
    let count = cases.len();
    for (key, how, end, lost) in cases {
        let said = fate(&run("quorum-recover", &planes, &[(key, how)], end.clone()));
        let off: &[&str] = if lost { &["n2", "n3"] } else { &[] };
        let names: Vec<&str> = said.off.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((names.as_slice(), said.anew.len(), said.unread), (off, 0, false), "{key} {how:?} {end:?}");
        // The same of fields that do not read any more: that is said, and is not "none".
        let other = json!({ "planes": { "cluster": "homelab" } });
        let said = fate(&run("quorum-recover", &other, &[(key, how)], end.clone()));
        assert_eq!((said.off.len(), said.unread), (0, lost), "{key} {how:?} {end:?}");
    }
    assert_eq!(count, 16);
}

#[test]
fn a_replaced_machine_stays_off_by_what_was_done_alone() {
    use How::{Already, Applied, Begun, Passed, Sent, Undone};
    const OUT: &str = "03-leave-or-remove";
    const DOWN: &str = "04-shutdown";
    type Case<'a> = (&'a [(&'a str, How)], Option<Event>, Option<bool>, bool);
    // Whether n3 must stay off, and the other one has joined; whether n4 counts as configured anew.
    let cases: [Case<'_>; 14] = [
        (&[(OUT, Begun)], None, None, false),
        (&[(OUT, Begun)], abandoned(), None, false),
        (&[(OUT, Sent)], abandoned(), Some(false), false),
        (&[(OUT, Applied)], done(), Some(false), false),
        (&[(OUT, Applied), (DOWN, Applied)], None, Some(false), false),
        (&[(OUT, Applied), (DOWN, Applied)], abandoned(), Some(false), false),
        (&[(OUT, Passed(true)), (DOWN, Undone), ("06-apply", Passed(true))], undone(), Some(true), true),
        (&[(DOWN, Already)], done(), None, false),
        (&[(DOWN, Applied)], abandoned(), None, false),
        (&[(OUT, Already), (DOWN, Applied)], None, Some(false), false),
        (&[(OUT, Applied), (DOWN, Applied), ("06-apply", Begun)], abandoned(), Some(false), false),
        (&[(OUT, Applied), (DOWN, Applied), ("06-apply", Sent)], abandoned(), Some(false), true),
        (&[(OUT, Applied), (DOWN, Applied), ("06-apply", Applied), ("07-join", Applied)], done(), Some(true), true),
        (&[(OUT, Already), (DOWN, Already), ("06-apply", Already), ("07-join", Applied)], done(), Some(true), true),
    ];
    let count = cases.len();
    for (steps, end, off, anew) in cases {
        let said = fate(&run("node-replace", &swap("n4"), steps, end.clone()));
        let why = off.map(|joined| Why::Replaced { by: "n4".into(), cluster: "homelab".into(), joined });
        let want: Vec<_> = why.into_iter().map(|why| ("n3".to_owned(), why)).collect();
        assert_eq!((said.off, said.anew.len(), said.unread), (want, usize::from(anew), false), "{steps:?} {end:?}");
        assert_eq!(said.down.len(), 0, "{steps:?}: of these none has told it to go down");
    }
    assert_eq!(count, 14);
    // One that was told to go down and is nobody's any more may be started.
    for (steps, end, down) in [
        (vec![(DOWN, Sent)], None, 0),
        (vec![(DOWN, Sent)], abandoned(), 1),
        (vec![(OUT, Applied), (DOWN, Sent)], abandoned(), 0),
        (vec![(OUT, Already), (DOWN, Sent)], abandoned(), 1),
    ] {
        let said = fate(&run("node-replace", &swap("n4"), &steps, end.clone()));
        assert_eq!((said.down.len(), said.off.len()), (down, 1 - down), "{steps:?} {end:?}");
    }
    // Under one name the machine that is meant is the new one, once it has come.
    for (how, off) in [(Begun, 1), (Sent, 0), (Already, 0)] {
        let said = fate(&run("node-replace", &swap("n3"), &[(OUT, Applied), ("06-apply", how)], None));
        assert_eq!(said.off.len(), off, "{how:?}");
    }
    for (how, unread) in [(Begun, false), (Applied, true)] {
        let said = fate(&run("node-replace", &json!({ "swap": 1 }), &[(OUT, how)], None));
        assert_eq!(said, Fate { unread, ..Fate::default() });
    }
}

#[test]
fn a_machine_is_configured_anew_once_something_was_sent_to_it() {
    let steps = [("n1", How::Begun), ("n2", How::Sent), ("n3", How::Applied), ("n4", How::Already)];
    let keys = steps.map(|(name, how)| (format!("02-apply-config@{name}"), how));
    let steps: Vec<(&str, How)> = keys.iter().map(|(key, how)| (key.as_str(), *how)).collect();
    let said = fate(&run("cluster-build", &Value::Null, &steps, abandoned()));
    assert_eq!((said.anew, said.off.len()), (vec!["n2".to_owned(), "n3".to_owned()], 0));
}

#[test]
fn a_machine_is_held_off_by_an_open_run_whose_closer_has_not_let_it_go() {
    use How::{Already, Applied, Begun, Passed, Sent};
    const HOLD: &str = "03-shutdown";
    const MOVE: &str = "04-move-drives";
    const CLOSER: &str = "05-verify-disks";
    type Case<'a> = (&'a [(&'a str, How)], &'a [&'a str], Option<Event>, bool);
    let cases: [Case<'_>; 13] = [
        (&[], &[HOLD, CLOSER], None, false),
        (&[(HOLD, Begun)], &[MOVE, CLOSER], None, true),
        (&[(HOLD, Sent)], &[MOVE, CLOSER], None, true),
        (&[(HOLD, Applied)], &[MOVE, CLOSER], None, true),
        // Nobody takes it back, and its drives are wherever they are.
        (&[(HOLD, Applied)], &[MOVE, CLOSER], abandoned(), true),
        (&[(HOLD, Already)], &[MOVE, CLOSER], abandoned(), true),
        // Alone, as a step of its own.
        (&[(HOLD, Applied)], &[], done(), true),
        // The same, and it was off: nothing was done, and there is nothing to take back.
        (&[(HOLD, Already)], &[], done(), false),
        // It was off before.
        (&[(HOLD, Already)], &[MOVE, CLOSER], None, true),
        (&[(HOLD, Already), (CLOSER, Already)], &[], None, false),
        (&[(HOLD, Applied), (CLOSER, Begun)], &[], None, true),
        (&[(HOLD, Applied), (CLOSER, Applied)], &["06-apply-config"], None, false),
        (&[(HOLD, Passed(true))], &[MOVE, CLOSER], None, false),
    ];
    let count = cases.len();
    let of = |name: Value| json!({ "machine": { "name": name } });
    for (steps, later, end, held) in cases {
        let run = |step: &Value| planned("nvme-move", step, steps, later, end.clone());
        let said = fate(&run(&of(json!("n1"))));
        let n1 = held.then(|| ("n1".to_owned(), HOLD.into()));
        let want = Fate { held: n1.into_iter().collect(), ..Fate::default() };
        assert_eq!(said, want, "{steps:?} {end:?}");
        // Of what cannot be read nothing is named, and that is said.
        assert_eq!(fate(&run(&of(json!(1)))), Fate { unread: held, ..Fate::default() }, "{steps:?} {end:?}");
        // Another blueprint's step of that name holds nothing off.
        let other = fate(&planned("usb-move", &of(json!("n1")), steps, later, end.clone()));
        assert_eq!(other, Fate::default(), "{steps:?} {end:?}");
    }
    assert_eq!(count, 13);
    // What was not needed was not put up.
    let plan = [("03-shutdown", How::NotNeeded)];
    let run = planned("nvme-move", &of(json!("n1")), &plan, &[MOVE, CLOSER], None);
    assert_eq!(fate(&run), Fate::default());
}
