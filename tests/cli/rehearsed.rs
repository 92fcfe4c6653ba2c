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
    rehearse_in(shell, (blueprint, &[]), code, words).0
}

/// The same in a world that is named, and all that was printed.
fn rehearse_in(shell: &Shell, (blueprint, world): (&str, &[&str]), code: i32, words: &[&str]) -> (Left, Said) {
    let dir = shell.path().join(blueprint);
    let dir = dir.to_str().unwrap();
    let args = [&["rehearse", blueprint, "--speed", "200", "--undo", "--dir", dir], world].concat();
    let said = shell.run(&args);
    expect(&said, code, words);
    let left = left(Path::new(dir));
    assert!(left.calls > 0, "{blueprint}");
    // Done, before anything is asked of the undo.
    let done = left.events.iter().any(|event| event["is"] == "closed" && event["outcome"] == "done");
    assert!(done, "{blueprint}: {:#?}", left.events.last());
    assert_eq!(left.calls, left.changes, "{blueprint}: each request has its call");
    (left, said)
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

/// In each of its worlds, there and back: everything is as it was.
#[test]
fn a_move_of_drives_is_rehearsed_in_its_worlds_and_undone() {
    let mut worlds = 0;
    for (world, words) in [
        ("nvme-data", ["move media (22471A806001) from M2_2", "media is 22471A806001 in M2_3, by its serial number"]),
        ("nvme-system", ["the firmware finds S5GXNF0R601234 by its partition", "sys is S5GXNF0R601234 in M2_2"]),
        ("nvme-single", ["is away for as long as talos-nuc is off", "sys is S5GXNF0R601234 in M2_2"]),
    ] {
        let shell = Shell::new();
        let all =
            [&words[..], &["04-move-drives", "05-verify-disks", "down: talos-nuc for ", "left as it is by the undo"]]
                .concat();
        let (left, said) = rehearse_in(&shell, ("nvme-move", &["--world", world]), 0, &all);
        assert!(left.calls >= 4, "{world}: {}", left.calls);
        assert!(!said.stdout.contains("before this run began"), "{world}: {}", said.stdout);
        // Off a terminal nothing is broken but the drawing, which is made for the narrowest.
        let drawn: Vec<&str> = said.stdout.lines().filter(|line| line.contains("| M2_1")).collect();
        assert!(!drawn.is_empty() && drawn.iter().all(|line| line.chars().count() <= 100), "{world}: {drawn:#?}");
        worlds += 1;
    }
    assert_eq!(worlds, 3);
}
