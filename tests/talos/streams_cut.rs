//! A stream that breaks in the middle: half of it never passes for the whole.

use super::LIMITS;
use super::calls::{Bench, Call, QUESTIONS, Shape};
use super::fake::{Says, msg, text};
use super::questions_fail::failed;

fn streams() -> impl Iterator<Item = &'static Call> {
    QUESTIONS.iter().filter(|call| call.shape == Shape::Stream)
}

#[tokio::test]
async fn half_a_stream_is_none() {
    let mut cases = 0;
    for call in streams() {
        let bench = Bench::start(LIMITS).await;
        let begun = || call.begun();
        let ways = [
            ("reset at once", Says::Breaks(vec![]), "NoAnswer"),
            ("reset in the middle", Says::Breaks(begun()), "NoAnswer"),
            ("no status at once", Says::Ends(vec![]), "NoAnswer"),
            ("no status in the middle", Says::Ends(begun()), "NoAnswer"),
            ("half a message", Says::Half(call.good()), "NoAnswer"),
            ("going down in the middle", Says::Status(begun(), 14, "error reading from server: EOF"), "Unavailable"),
            ("its own deadline in the middle", Says::Status(begun(), 4, "context deadline exceeded"), "GaveUp"),
            ("an error in the middle", Says::Status(begun(), 2, "input/output error"), "Unexpected"),
            ("no permission in the middle", Says::Status(begun(), 7, "not authorized"), "Denied"),
            ("no protobuf in the middle", Says::Ok([begun(), vec![vec![0x0a, 0x50, 0x01]]].concat()), "BadAnswer"),
        ];
        for (how, says, wanted) in ways {
            bench.ready(call);
            bench
                .fake
                .instead(super::calls::GET, Says::Status(vec![], 7, "resource type \"BootIDs\" is not supported"));
            bench.fake.instead(call.path, says);
            // What is said while a node goes down is no result.
            let down = matches!(wanted, "NoAnswer" | "Unavailable" | "GaveUp");
            let times = if down && call.is_asked_again() { 4 } else { 1 };
            assert_eq!(failed(&bench, call, how).await, (wanted.to_owned(), times), "{}: {how}", call.method);
            cases += 1;
        }
    }
    assert_eq!(cases, 14 * 10);
}

#[tokio::test]
async fn all_of_a_stream_without_its_status_is_none() {
    let mut cases = 0;
    // One that waits for a word has it by then.
    for call in streams().filter(|call| call.method != "sequence_began") {
        let bench = Bench::start(LIMITS).await;
        for (how, says) in [("reset", Says::Breaks(call.good())), ("no status", Says::Ends(call.good()))] {
            bench.ready(call);
            bench.fake.instead(call.path, says);
            let times = if call.is_asked_again() { 4 } else { 1 };
            assert_eq!(failed(&bench, call, how).await, ("NoAnswer".to_owned(), times), "{}: {how}", call.method);
            cases += 1;
        }
    }
    assert_eq!(cases, 13 * 2);
}

#[tokio::test]
async fn a_stream_that_broke_once_is_asked_for_again_from_its_beginning() {
    let mut cases = 0;
    for call in streams().filter(|call| call.is_asked_again()) {
        let bench = Bench::start(LIMITS).await;
        bench.ready(call);
        let whole = bench.make(call).await.unwrap();
        for says in [Says::Breaks(call.begun()), Says::Ends(call.begun()), Says::Status(call.begun(), 14, "EOF")] {
            bench.fake.instead(call.path, says);
            bench.fake.on(call.path, Says::Ok(call.good()));
            let before = bench.times(call);
            assert_eq!(bench.make(call).await.unwrap(), whole, "{}", call.method);
            assert_eq!(bench.times(call) - before, 2);
            cases += 1;
        }
    }
    assert_eq!(cases, 8 * 3);
}

#[tokio::test]
async fn what_can_be_seen_to_be_half_is_none_under_ok_too() {
    let ended = [
        ("etcd_snapshot", "BadSnapshot", 1),
        ("etcd_snapshot_into", "BadSnapshot", 1),
        ("kubeconfig", "BadAnswer", 1),
        ("sequence_began", "NoAnswer", 1),
        // It has not said that all that is there was told.
        ("watch", "NoAnswer", 1),
    ];
    for (method, wanted, times) in ended {
        let call = streams().find(|call| call.method == method).unwrap();
        let bench = Bench::start(LIMITS).await;
        bench.ready(call);
        bench.fake.instead(call.path, Says::Ok(call.begun()));
        assert_eq!(failed(&bench, call, "OK in the middle").await, (wanted.to_owned(), times), "{method}");
        bench.fake.instead(call.path, Says::Ok(vec![]));
        assert_eq!(failed(&bench, call, "OK at once").await, (wanted.to_owned(), times), "{method}");
    }
    assert_eq!(ended.len(), 5);
}

#[tokio::test]
async fn an_error_in_a_piece_ends_the_stream() {
    let error = || msg(1, &[text(1, "10.10.0.20"), text(2, "input/output error")]);
    let mut cases = 0;
    for call in streams().filter(|call| !matches!(call.method, "list" | "watch")) {
        let bench = Bench::start(LIMITS).await;
        bench.ready(call);
        bench.fake.instead(call.path, Says::Ok([call.begun(), vec![error()]].concat()));
        let wanted = if matches!(call.method, "events" | "sequence_began") { "NoAnswer" } else { "Unexpected" };
        assert_eq!(failed(&bench, call, "an error in a piece").await, (wanted.to_owned(), 1), "{}", call.method);
        cases += 1;
    }
    assert_eq!(cases, 12);
}
