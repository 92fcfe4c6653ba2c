//! What a journal that is taken must hold, whoever wrote it.

use std::path::Path;

use pvemig::engine::event::{Event, Record};
use pvemig::engine::journal;
use pvemig::engine::state::{Phase, RunState, Stage};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Lines as they are: nothing is taken that does not hold, and what is taken is the beginning of what is there.
pub fn journal_lines(data: &[u8]) {
    let (read, bad) = journal::read_bytes(Path::new("journal.jsonl"), data);
    let whole = data.iter().filter(|byte| **byte == b'\n').count();
    assert!(read.records.len() <= whole);
    for (n, record) in read.records.iter().enumerate() {
        assert_eq!(record.seq, n as u64);
    }
    if let Some(bad) = bad {
        assert!(bad.to_string().contains(", line "), "{bad}");
    } else if read.torn.is_none() {
        assert_eq!(read.records.len(), whole);
    }
    legal(&read.records);
}

/// Lines whose checksums are right, whatever they say.
pub fn events(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (mut file, mut sum) = (String::new(), String::new());
    for (n, line) in text.lines().enumerate() {
        let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
        // A whole line of a journal, or the event in it.
        let event = event.get("event").cloned().unwrap_or(event);
        let body = json!({"v": 1, "seq": n, "at": "2026-01-01T00:00:00Z", "event": event}).to_string();
        sum = Sha256::digest(format!("{sum}{body}")).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        file += &format!("{},\"sum\":\"{sum}\"}}\n", &body[..body.len() - 1]);
    }
    journal_lines(file.as_bytes());
}

/// Where the fold takes a journal, no law is broken in it.
fn legal(records: &[Record]) {
    let state = match RunState::fold(records) {
        Ok(Some(state)) => state,
        Ok(None) => return assert!(records.is_empty()),
        Err(illegal) => {
            assert!(illegal.line >= 1 && illegal.line <= records.len() as u64 && !illegal.rule.is_empty());
            // What stands before the bad line is good.
            let before = usize::try_from(illegal.line - 1).unwrap();
            assert!(RunState::fold(&records[..before]).is_ok());
            return;
        }
    };
    let opened = records.iter().filter(|record| matches!(record.event, Event::Opened(_))).count();
    assert_eq!(opened, 1);
    let mut calls = 0;
    for (n, record) in records.iter().enumerate() {
        let earlier = &records[..n];
        match &record.event {
            // No effect without a durable intent: law 1.
            Event::Call { key, call, .. } => {
                calls += 1;
                assert_eq!(call.0, calls);
                let intended = |r: &Record| matches!(&r.event, Event::Applying { key: k, .. } | Event::Undoing { key: k } if k == key);
                assert!(earlier.iter().any(intended));
            }
            Event::Applied { key, .. } => {
                assert!(earlier.iter().any(|r| matches!(&r.event, Event::Applying { key: k, .. } if k == key)));
            }
            // What was answered was asked.
            Event::Got { call, .. } => {
                assert!(earlier.iter().any(|r| matches!(&r.event, Event::Call { call: c, .. } if c == call)));
            }
            Event::Abandoned { .. } => assert_eq!(n, records.len() - 1),
            _ => {}
        }
    }
    for (key, step) in &state.steps {
        // The first before-image of a step wins: law 2.
        let first = records.iter().find_map(|r| match &r.event {
            Event::Applying { key: k, before, .. } if k == key => Some(before),
            _ => None,
        });
        assert!(first.is_none() || step.before.as_ref() == first, "{key}");
        assert!(step.stage != Stage::Applied || first.is_some(), "{key}");
        let _owed = (step.got(), step.lost(), step.owes());
    }
    if state.phase == Phase::Undone {
        assert!(state.steps.values().all(|step| !step.owes()));
    }
    let _shown = (state.holds_up(), state.standing(), state.next_call());
}
