//! What a person was asked for, and whether it was done.

use super::*;

const KEY: &str = "03-check-host";

fn ask(lines: &mut Lines, back: bool, what: &str) {
    let key = StepKey::from(KEY);
    lines.add(Event::Checked { key: key.clone(), answer: "manual".into(), back, notes: vec![] });
    lines.add(Event::Asked { key, ask: what.into(), hint: None, hands: None, before: Some(Value::Null) });
}

#[test]
fn what_an_undo_took_off_the_list_is_not_said_to_have_been_done() {
    let mut lines = Lines::open();
    ask(&mut lines, false, "plug it in");
    lines.add(Event::Undone { key: KEY.into(), passed: false, notes: vec![], stays: Vec::new() });
    lines.add(Event::Closed { outcome: Outcome::Undone });
    let report = lines.report();
    assert_eq!((report.by_hand.len(), report.by_hand[0].there, report.by_hand[0].undone), (1, None, true));
    let line = "by hand: 03: plug it in: asked 04:00:02, never seen there, and the run was undone";
    for shown in [text(&report), markdown(&report)] {
        assert!(shown.contains(line) && !shown.contains("there after"), "{shown}");
    }
}

#[test]
fn what_the_undo_asked_for_was_done_when_it_was_through() {
    let mut lines = Lines::open();
    ask(&mut lines, false, "plug it in");
    lines.add(Event::AlreadySo { key: KEY.into(), needless: false, notes: vec![] });
    ask(&mut lines, true, "plug it back");
    // Asked again by the next undo, it is the same.
    ask(&mut lines, true, "plug it back");
    lines.add(Event::Undone { key: KEY.into(), passed: false, notes: vec![], stays: Vec::new() });
    let report = lines.report();
    let seen: Vec<_> = report.by_hand.iter().map(|by| (by.ask.as_str(), by.there.is_some(), by.undone)).collect();
    assert_eq!(seen, [("plug it in", true, false), ("plug it back", true, false)]);

    // Passed, it was not waited for.
    let mut lines = Lines::open();
    ask(&mut lines, false, "plug it in");
    ask(&mut lines, true, "plug it back");
    lines.add(Event::Undone { key: KEY.into(), passed: true, notes: vec![], stays: Vec::new() });
    let report = lines.report();
    assert_eq!(report.by_hand.len(), 2);
    assert!(report.by_hand.iter().all(|by| by.there.is_none() && by.undone), "{:?}", report.by_hand);
}
