//! Rehearsals of the blueprints for clusters: each in the world that is its own, to the end, and as far back as it goes.

use std::path::Path;

use serde_json::Value;

use super::*;

/// What a rehearsal left in the folder that was named.
struct Left {
    /// Changing requests that the lab saw.
    changes: usize,
    /// `Call` events, without those that write to this machine.
    calls: usize,
    /// How its run stands at the end, event by event.
    events: Vec<Value>,
}

fn left(dir: &Path) -> Left {
    let log = std::fs::read_to_string(dir.join("requests.jsonl")).unwrap();
    let changes = log.lines().filter(|line| line.contains("\"class\":\"change\"")).count();
    let runs: Vec<_> = std::fs::read_dir(dir.join("state/homelab/runs")).unwrap().map(Result::unwrap).collect();
    assert_eq!(runs.len(), 1, "{runs:?}");
    let journal = std::fs::read_to_string(runs[0].path().join("journal.jsonl")).unwrap();
    let event = |line: &str| serde_json::from_str::<Value>(line).unwrap()["event"].take();
    let events: Vec<Value> = journal.lines().map(event).collect();
    let outside = |event: &&Value| event["is"] == "call" && event["note"]["system"] != "local";
    Left { changes, calls: events.iter().filter(outside).count(), events }
}

/// Runs it to the end and asks for the way back; what it said, and what it left.
fn rehearse(shell: &Shell, blueprint: &str, code: i32, words: &[&str]) -> Left {
    let dir = shell.path().join(blueprint);
    let dir = dir.to_str().unwrap();
    let said = shell.run(&["rehearse", blueprint, "--speed", "200", "--undo", "--dir", dir]);
    expect(&said, code, words);
    let left = left(Path::new(dir));
    assert!(left.calls > 0, "{blueprint}");
    // Done, before anything is asked of the undo.
    let done = left.events.iter().any(|event| event["is"] == "closed" && event["outcome"] == "done");
    assert!(done, "{blueprint}: {:#?}", left.events.last());
    assert_eq!(left.calls, left.changes, "{blueprint}: each request has its call");
    left
}

#[test]
fn a_build_is_rehearsed_and_says_what_an_undo_leaves() {
    let shell = Shell::new();
    let words = ["04-bootstrap", "08-safekeeping", "05-join@talos-mac", "cannot be undone"];
    let left = rehearse(&shell, "cluster-build", 4, &words);
    // Three configurations and one bootstrap.
    assert_eq!(left.calls, 4);
}

/// In the world of the blueprint: the Mac is dead, and the other machine waits.
#[test]
fn a_replacement_is_rehearsed_and_accounts_for_the_dead_one() {
    let shell = Shell::new();
    let words = [
        "10-verify",
        "its Node object is gone",
        "its lease is gone",
        "pvc-6f0c1d52-9f0e-4a53-8f0e-0d6b5a1c4900",
        "cannot be undone",
    ];
    let left = rehearse(&shell, "node-replace", 4, &words);
    assert_eq!(left.calls, 4);
}

#[test]
fn a_recovery_is_rehearsed_and_says_what_an_undo_leaves() {
    let shell = Shell::new();
    rehearse(&shell, "quorum-recover", 4, &["03-recover", "05-verify", "cannot be undone"]);
}
