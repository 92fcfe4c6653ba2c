//! What a refusal, half an answer or none is taken for, and how often a request is sent.

use std::time::Duration;

use pvemig::base::fault::{Effect, Fault};
use pvemig::talos::{Error, RebootMode};

use super::fake::{Says, msg, num, raw, text};
use super::{Wire, decent, machine};

/// The kind of an error, without its fields.
pub(super) fn kind(error: &Error) -> String {
    format!("{error:?}").split([' ', '(']).next().unwrap().to_owned()
}

/// Code and text of a status; what a question and a change make of it; what the change may have left; how often the
/// question is asked.
pub(super) const STATUSES: &[(u32, &str, &str, Effect, usize)] = &[
    (1, "context canceled", "GaveUp", Effect::Maybe, 4),
    (2, "2 error(s) occurred", "Unexpected", Effect::Maybe, 1),
    (3, "unknown keys found during decoding", "Invalid", Effect::None, 1),
    (4, "context deadline exceeded", "GaveUp", Effect::Maybe, 4),
    (5, "file not found", "NotFound", Effect::None, 1),
    (6, "etcd data directory is not empty", "Exists", Effect::None, 1),
    (7, "not authorized", "Denied", Effect::None, 1),
    (7, "no request forwarding", "NotForwarded", Effect::None, 1),
    (7, "resource type \"X\" is not supported", "NoSuchKind", Effect::None, 1),
    (8, "too many requests", "GaveUp", Effect::Maybe, 4),
    (9, "etcd service is not ready for recovery yet", "NotReady", Effect::None, 1),
    (10, "aborted", "GaveUp", Effect::Maybe, 4),
    (11, "out of range", "Unexpected", Effect::Maybe, 1),
    (12, "API is not implemented in maintenance mode", "NotImplemented", Effect::None, 1),
    (12, "etcd status is only available on control plane nodes", "NotControlPlane", Effect::None, 1),
    (13, "internal", "Unexpected", Effect::Maybe, 1),
    (14, "error reading from server: EOF", "Unavailable", Effect::Maybe, 4),
    (15, "data loss", "Unexpected", Effect::Maybe, 1),
    (16, "unauthenticated", "Denied", Effect::None, 1),
];

#[tokio::test]
async fn each_status_has_its_cause() {
    for (code, said, wanted, effect, times) in STATUSES {
        let wire = Wire::started("os:reader").await;
        wire.fake.on(&machine("Version"), Says::Status(vec![], *code, said));
        wire.fake.on(&machine("Reboot"), Says::Status(vec![], *code, said));
        let error = wire.talos.version().await.unwrap_err();
        assert_eq!((kind(&error).as_str(), error.effect()), (*wanted, Effect::None), "{code} {said}");
        let shown = error.to_string();
        assert!(shown.contains(said) && shown.contains("talos node talos-20 (127.0.0.1:"), "{shown}");
        assert_eq!(wire.fake.asked().len(), *times, "{code}");

        let error = wire.talos.reboot(&wire.permit, RebootMode::PowerCycle).await.unwrap_err();
        assert_eq!((kind(&error).as_str(), error.effect()), (*wanted, *effect), "{code} {said}");
        assert!(*effect == Effect::None || !error.retryable(), "{code}");
        // A change is sent once, whatever is said to it.
        let asked = wire.fake.asked();
        asked.iter().for_each(decent);
        assert_eq!((asked.len() - times, wire.notebook.notes().len()), (1, 1), "{code}");
        if *wanted == "Denied" {
            assert!(shown.contains("os:reader") && error.help().unwrap().contains("os:admin"), "{shown}");
        }
    }
    assert_eq!(STATUSES.len(), 19);
}

#[tokio::test]
async fn a_node_in_mid_reboot_is_asked_again() {
    let wire = Wire::start().await;
    wire.fake.on(&machine("Version"), Says::Status(vec![], 14, "connection error: desc = \"transport\""));
    wire.fake.on(&machine("Version"), Says::Breaks(vec![]));
    wire.says("Version", &[msg(2, &[text(1, "v1.11.5")])]);
    assert_eq!(wire.talos.version().await.unwrap().tag, "v1.11.5");
    assert_eq!(wire.fake.asked().len(), 3);
}

#[tokio::test]
async fn a_change_without_a_whole_answer_may_have_happened_and_is_sent_once() {
    let begun = || vec![msg(1, &[text(2, "0b5c")])];
    let cases = [
        ("reset", Says::Breaks(vec![]), "LostAnswer"),
        ("reset behind the message", Says::Breaks(begun()), "LostAnswer"),
        ("silence", Says::Hangs(vec![]), "LostAnswer"),
        ("silence behind the message", Says::Hangs(begun()), "LostAnswer"),
        ("no status", Says::Ends(vec![]), "LostAnswer"),
        ("no envelope", Says::Ok(vec![vec![]]), "BadAnswer"),
        ("two nodes", Says::Ok(vec![[begun().remove(0), begun().remove(0)].concat()]), "BadAnswer"),
        ("no protobuf", Says::Ok(vec![vec![0x0a, 0x50, 0x01]]), "BadAnswer"),
        (
            "an error under OK",
            Says::Ok(vec![msg(1, &[msg(1, &[text(1, "10.10.0.20"), text(2, "rpc error")])])]),
            "Unexpected",
        ),
    ];
    for (what, says, wanted) in cases.clone() {
        let wire = Wire::start().await;
        wire.fake.on(&machine("Reboot"), says);
        let error = wire.talos.reboot(&wire.permit, RebootMode::PowerCycle).await.unwrap_err();
        assert_eq!(error.effect(), Effect::Maybe, "{what}: {error:?}");
        assert!(!error.retryable(), "{what}: {error:?}");
        assert_eq!(kind(&error), wanted, "{what}: {error:?}");
        wire.change();
    }
    assert_eq!(cases.len(), 9);
}

#[tokio::test]
async fn a_question_without_a_whole_answer_is_asked_again_and_left_nothing() {
    for (what, says, times) in [
        ("reset", Says::Breaks(vec![]), 4),
        ("no envelope", Says::Ok(vec![vec![]]), 1),
        ("no protobuf", Says::Ok(vec![vec![0x0a, 0x50, 0x01]]), 1),
    ] {
        let wire = Wire::start().await;
        wire.fake.on(&machine("Version"), says);
        let error = wire.talos.version().await.unwrap_err();
        assert_eq!((error.effect(), wire.fake.asked().len()), (Effect::None, times), "{what}: {error:?}");
    }
    // One that hangs gets a third of the time, so that it is asked again.
    let wire = Wire::start().await;
    wire.fake.on(&machine("Version"), Says::Hangs(vec![]));
    wire.says("Version", &[msg(2, &[text(1, "v1.11.5")])]);
    assert_eq!(wire.talos.version().await.unwrap().tag, "v1.11.5");
    assert_eq!(wire.fake.asked().len(), 2);
}

#[tokio::test]
async fn messages_are_as_large_as_talos_makes_them() {
    let wire = Wire::start().await;
    // More than tonic takes where it is not told to.
    let large = vec![b'x'; 5 << 20];
    wire.fake.on(&machine("Read"), Says::Ok(vec![raw(2, &large)]));
    assert_eq!(wire.talos.file("/proc/kallsyms").await.unwrap().len(), 5 << 20);
    wire.one();
}

/// An event of a sequence.
fn sequence(fields: &[Vec<u8>]) -> Vec<u8> {
    let data = msg(2, &[text(1, "talos/runtime/machine.SequenceEvent"), msg(2, fields)]);
    [data, text(4, "0b5c")].concat()
}

#[tokio::test]
async fn that_a_sequence_was_not_begun_is_said_in_the_events_alone() {
    let hello = text(3, "x");
    let locked =
        sequence(&[text(1, "reboot"), num(2, 0), msg(3, &[num(1, 1), text(2, "sequence is locked: upgrade")])]);
    let fatal = sequence(&[text(1, "reboot"), num(2, 2), msg(3, &[num(1, 0), text(2, "failed to unmount")])]);
    let canceled = sequence(&[text(1, "reboot"), msg(3, &[num(1, 2), text(2, "took over")])]);
    let began = sequence(&[text(1, "reboot"), num(2, 1)]);
    let limit = Duration::from_millis(500);
    for (says, wanted, words) in [
        (vec![hello.clone(), locked], "Busy", "sequence is locked"),
        (vec![hello.clone(), fatal], "SequenceFailed", "failed to unmount"),
        (vec![hello.clone(), canceled], "SequenceFailed", "took over"),
        (vec![hello.clone()], "NoAnswer", "within"),
    ] {
        let wire = Wire::start().await;
        wire.says("Reboot", &[text(2, "0b5c")]);
        wire.fake.on(&machine("Events"), Says::Hangs(says));
        // The call itself is answered with OK.
        let actor = wire.talos.reboot(&wire.permit, RebootMode::PowerCycle).await.unwrap();
        let error = wire.talos.sequence_began(&actor, limit).await.unwrap_err();
        assert_eq!(kind(&error), wanted, "{error:?}");
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(error.retryable(), wanted != "SequenceFailed");
        let asked = wire.fake.asked();
        assert_eq!(asked[1].messages, [[num(1, u64::MAX), text(4, "0b5c")].concat()]);
        assert_eq!(asked.len(), 2);
    }
    let wire = Wire::start().await;
    wire.fake.on(&machine("Events"), Says::Hangs(vec![hello, began]));
    wire.talos.sequence_began("0b5c", limit).await.unwrap();
}
