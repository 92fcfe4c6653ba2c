//! What a word counts for.

use super::*;
use crate::base::names::Dial;
use crate::blueprint::install::{Bare, source::Source};
use crate::blueprint::machine::Machine;
use crate::blueprint::node::KubeNode;

fn swap() -> Swap {
    let machine = |name: &str| Machine {
        cluster: "c".into(),
        name: name.into(),
        node: KubeNode { cluster: "k".into(), name: name.into() },
        vm: None,
        dial: Dial::default(),
    };
    let source = Source { file: "/c.yaml".into(), decrypt: Vec::new(), patches: Vec::new() };
    let new = Bare { machine: machine("n4"), source, disk: "NEW".into(), at: None, fingerprint: None };
    Swap { old: machine("n3"), new, peers: Vec::new(), worker: false }
}

fn sign(renewed: &str, boot: &str) -> Sign {
    Sign { boot: boot.into(), renewed: renewed.into() }
}

/// A run with these files, and these consents.
fn run(files: &std::path::Path, with: &[(&str, &str, &[u8])], consents: &[Thing]) -> RunInfo {
    for (step, name, bytes) in with {
        std::fs::create_dir_all(files.join(step)).unwrap();
        std::fs::write(files.join(step).join(name), bytes).unwrap();
    }
    let given: std::collections::BTreeSet<_> = consents.iter().cloned().collect();
    RunInfo { files: Some(files.into()), consents: given.clone(), granted: given, ..RunInfo::default() }
}

#[test]
fn each_sign_counts_for_what_was_seen_then() {
    let swap = swap();
    let old = |silent: Option<Sign>, disk: Option<&str>| {
        serde_json::to_vec(&Old { silent, disk: disk.map(str::to_owned) }).unwrap()
    };
    let (at_1, alive) = (old(Some(sign("1", "a")), None), old(None, Some("OWN")));
    let copy = (on::SNAPSHOT, COPY, &b"db"[..]);
    let kept = &[copy, (on::SNAPSHOT, SEEN, at_1.as_slice())][..];
    let shut = &[copy, (on::SNAPSHOT, SEEN, alive.as_slice()), (on::SHUTDOWN, SHUT, &b"a"[..])][..];
    let lived = &[copy, (on::SNAPSHOT, SEEN, alive.as_slice())][..];
    let empty = old(None, Some(""));
    let nameless = &[copy, (on::SNAPSHOT, SEEN, empty.as_slice())][..];
    let removed = &[(on::LEAVE, SEEN, at_1.as_slice())][..];
    let deleted = &[(on::NODE, SEEN, at_1.as_slice())][..];
    let halted = &[(on::SHUTDOWN, SHUT, &b"a"[..])][..];
    let torn = &[(on::SNAPSHOT, SEEN, &b"{"[..])][..];
    let (off, since) = (&[swap.off()][..], &[swap.off_since("2")][..]);
    let given: &[Thing] = &[];
    let waits = |serial: &str| Some(vec![serial.to_owned(), "STICK".to_owned()]);
    let none = &[copy][..0];
    // What the run keeps, what was consented to, what is seen now, what waits there, and the word that is asked for.
    let cases = [
        (none, given, sign("1", "a"), None, Some("off/n3")),
        (none, off, sign("1", "a"), None, None),
        (kept, off, sign("1", "a"), None, None),
        (kept, off, sign("2", "a"), None, Some("off/n3@2")),
        (kept, off, sign("1", "b"), None, Some("off/n3@1")),
        (kept, since, sign("2", "a"), None, None),
        (kept, since, sign("3", "a"), None, Some("off/n3@3")),
        (lived, off, sign("2", "a"), None, Some("off/n3@2")),
        (shut, given, sign("2", "a"), None, None),
        (shut, given, sign("2", "b"), None, Some("off/n3@2")),
        (shut, given, sign("", ""), None, Some("off/n3@never-heard")),
        // The uuid alone is no proof; the disk that it ran from is.
        (none, given, sign("1", "a"), waits("OTHER"), Some("off/n3")),
        (lived, given, sign("2", "a"), waits("OTHER"), Some("off/n3@2")),
        (lived, given, sign("2", "a"), waits("OWN"), None),
        // No serial number is none that two disks have in common.
        (nameless, given, sign("2", "a"), waits(""), Some("off/n3@2")),
        // A run of one step: what that has seen, and no 01.
        (removed, off, sign("1", "a"), None, None),
        (removed, off, sign("2", "a"), None, Some("off/n3@2")),
        (deleted, off, sign("2", "a"), None, Some("off/n3@2")),
        (halted, off, sign("2", "b"), None, Some("off/n3@2")),
        // What cannot be read, or is none of ours.
        (torn, off, sign("1", "a"), None, Some("off/n3@1")),
        (torn, since, sign("2", "a"), None, None),
    ];
    assert_eq!(cases.len(), 21);
    for (at, (files, consents, sign, waits, asks)) in cases.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let run = run(dir.path(), files, consents);
        let silence = Silence { how: "it is silent".into(), sign, waits, host: None };
        let problem = silence.unsure(&swap, &run);
        assert_eq!(problem.is_none(), silence.by(&swap, &run).is_some(), "{at}");
        let word = problem.as_ref().and_then(|problem| problem.help.split('`').nth(1));
        assert_eq!(word, asks.map(|asks| format!("--destroy {asks}")).as_deref(), "{at}: {problem:?}");
    }
}

#[test]
fn what_cannot_be_read_is_not_called_absent() {
    let (swap, dir) = (swap(), tempfile::tempdir().unwrap());
    let run = run(dir.path(), &[], &[swap.off()]);
    let silence = Silence { how: "it is silent".into(), sign: sign("1", "a"), waits: None, host: None };
    assert!(silence.unsure(&swap, &run).is_none());
    // A directory answers a read with an error, whoever asks.
    std::fs::create_dir_all(dir.path().join(on::SNAPSHOT).join(SEEN)).unwrap();
    let problem = silence.unsure(&swap, &run).unwrap();
    assert!(problem.text.contains("cannot be read (01-snapshot/old.json"), "{problem:?}");
    assert!(problem.help.contains("add `--destroy off/n3@1`"), "{problem:?}");
    assert!(has_begun(&run));
}

#[test]
fn what_was_deleted_since_is_not_called_heard() {
    let (swap, kept) = (swap(), Old { silent: Some(sign("1", "a")), disk: None });
    let kept = serde_json::to_vec(&kept).unwrap();
    let (heard, not) = ("It was heard since your word", "whether it was heard since is not known");
    let cases = [
        (sign("2", "a"), heard),
        (sign("1", "b"), heard),
        (sign("", "b"), heard),
        (sign("", ""), not),
        (sign("1", ""), not),
        (sign("", "a"), not),
    ];
    assert_eq!(cases.len(), 6);
    for (sign, words) in cases {
        let dir = tempfile::tempdir().unwrap();
        let run = run(dir.path(), &[(on::SNAPSHOT, SEEN, kept.as_slice())], &[swap.off()]);
        let silence = Silence { how: "it is silent".into(), sign, waits: None, host: None };
        let problem = silence.unsure(&swap, &run).unwrap();
        assert!(problem.text.contains(words), "{words}: {problem:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let run = run(dir.path(), &[(on::SHUTDOWN, SHUT, &b"a"[..])], &[]);
    let silence = Silence { how: "it is silent".into(), sign: sign("", ""), waits: None, host: None };
    let problem = silence.unsure(&swap, &run).unwrap();
    assert!(problem.text.contains("whether it has started since is not known"), "{problem:?}");
}

/// Who goes on with a run may do so days later: what was given to an earlier process is of what that has kept alone.
#[test]
fn a_word_to_an_earlier_process_counts_for_what_that_has_kept() {
    let swap = swap();
    let at_1 = serde_json::to_vec(&Old { silent: Some(sign("1", "a")), disk: None }).unwrap();
    let kept = [(on::LEAVE, SEEN, at_1.as_slice())];
    let cases =
        [(&kept[..0], true, true), (&kept[..0], false, false), (&kept[..], true, true), (&kept[..], false, true)];
    assert_eq!(cases.len(), 4);
    for (at, (files, now, counts)) in cases.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let mut run = run(dir.path(), files, &[swap.off()]);
        if !now {
            run.granted.clear();
        }
        let silence = Silence { how: "it is silent".into(), sign: sign("1", "a"), waits: None, host: None };
        let problem = silence.unsure(&swap, &run);
        assert_eq!(problem.is_none(), counts, "{at}: {problem:?}");
        if let Some(problem) = problem {
            assert!(problem.text.contains("was not kept"), "{problem:?}");
            assert!(problem.help.contains("add `--destroy off/n3@1`"), "{problem:?}");
            run.consents.insert(swap.off_since("1"));
            assert!(silence.unsure(&swap, &run).is_none());
        }
    }
}
