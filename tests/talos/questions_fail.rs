//! Every question of the provider against every way in which it may fail: what it is taken for, how often it is asked,
//! and that nothing was changed by it. Streams that break in the middle: `streams_cut.rs`.

use std::time::Duration;

use futures::future::join_all;
use pvemig::base::fault::{Effect, Fault};
use pvemig::base::wait;
use pvemig::talos::{ApplyMode, Limits};

use super::calls::{Bench, Call, GET, QUESTIONS, READ, Shape};
use super::failing::{STATUSES, kind};
use super::fake::{Says, msg, num, raw, text};
use super::{LIMITS, Wire};

/// Asks what is to fail; what that is taken for, and how often it was asked.
pub(super) async fn failed(bench: &Bench, call: &Call, how: &str) -> (String, usize) {
    let before = bench.times(call);
    let outcome = bench.make(call).await;
    assert!(outcome.is_err(), "{}: {how}: {outcome:?}", call.method);
    let error = outcome.unwrap_err();
    let help = error.help().unwrap_or_default();
    assert!(!help.is_empty(), "{} has no help: {how}: {error}", call.method);
    assert!(error.to_string().contains("talos node talos-20 ("), "{}: {error}", call.method);
    assert_eq!((error.effect(), bench.diary.notes().len()), (Effect::None, 0), "{}: {error:?}", call.method);
    (kind(&error), bench.times(call) - before)
}

#[tokio::test]
async fn each_status_of_each_question_has_its_cause() {
    let (mut refused, mut none) = (0, Vec::new());
    for call in &QUESTIONS {
        let bench = Bench::start(LIMITS).await;
        for (code, said, wanted, _, times) in STATUSES {
            bench.ready(call);
            // Who may not read the file asks for the resource, which this version does not have.
            bench.fake.instead(GET, Says::Status(vec![], 7, "resource type \"BootIDs\" is not supported"));
            bench.fake.instead(call.path, Says::Status(vec![], *code, said));
            if call.path == GET && *wanted == "NotFound" {
                // What is not there is data.
                assert_eq!(bench.make(call).await.unwrap(), "None");
                none.push(call.method);
                continue;
            }
            let times = if call.is_asked_again() { *times } else { 1 };
            let found = failed(&bench, call, said).await;
            assert_eq!((found.0.as_str(), found.1), (*wanted, times), "{}: {code} {said}", call.method);
            refused += 1;
        }
    }
    assert_eq!((refused, none), (25 * 19 - 3, vec!["get", "machine_config", "single"]));
}

#[tokio::test]
async fn half_an_answer_is_none_and_is_asked_for_again() {
    let mut cases = 0;
    for call in QUESTIONS.iter().filter(|call| call.shape != Shape::Stream) {
        let bench = Bench::start(LIMITS).await;
        let good = call.good();
        for (how, says) in [
            ("reset", Says::Breaks(vec![])),
            ("reset behind the message", Says::Breaks(good.clone())),
            ("no status", Says::Ends(vec![])),
            ("no status behind the message", Says::Ends(good.clone())),
            ("half a message", Says::Half(good.clone())),
        ] {
            bench.ready(call);
            bench.fake.instead(call.path, says.clone());
            assert_eq!(failed(&bench, call, how).await, ("NoAnswer".to_owned(), 4), "{}: {how}", call.method);
            // Once is not always.
            bench.fake.instead(call.path, says);
            bench.fake.on(call.path, Says::Ok(good.clone()));
            let before = bench.times(call);
            assert!(bench.make(call).await.is_ok(), "{}: {how}", call.method);
            assert_eq!(bench.times(call) - before, 2);
            cases += 1;
        }
    }
    assert_eq!(cases, 11 * 5);
}

#[tokio::test]
async fn an_answer_that_is_another_one_is_not_read_as_nothing() {
    let metadata = || msg(1, &[text(1, "10.10.0.20"), text(2, "rpc error")]);
    let mut cases = 0;
    for call in QUESTIONS.iter().filter(|call| call.shape != Shape::Stream) {
        let bench = Bench::start(LIMITS).await;
        let mut ways = vec![
            ("nothing, and OK", Says::Ok(vec![]), "BadAnswer", 1),
            ("an empty message", Says::Ok(vec![vec![]]), "BadAnswer", 1),
            ("packed", Says::Packed(call.good()), "BadAnswer", 1),
            ("no protobuf", Says::Ok(vec![vec![0x0a, 0x50, 0x01]]), "BadAnswer", 1),
        ];
        match call.method {
            // All members answer, and one that does not leaves the others' word half.
            "etcd_alarms" => ways.push(("an error under OK", Says::Ok(vec![msg(1, &[metadata()])]), "NoAnswer", 1)),
            _ if call.shape == Shape::Envelope => ways.extend([
                ("two nodes", Says::Ok(vec![call.good().concat().repeat(2)]), "BadAnswer", 1),
                ("an error under OK", Says::Ok(vec![msg(1, &[metadata()])]), "Unexpected", 1),
            ]),
            _ => {}
        }
        for (how, says, wanted, times) in ways {
            bench.ready(call);
            bench.fake.instead(call.path, says);
            assert_eq!(failed(&bench, call, how).await, (wanted.to_owned(), times), "{}: {how}", call.method);
            cases += 1;
        }
    }
    assert_eq!(cases, 11 * 4 + 7 * 2 + 1);
}

#[tokio::test]
async fn a_question_that_is_met_with_silence_ends() {
    let limit = Duration::from_secs(1);
    let limits = Limits { read: limit, snapshot: limit, ..LIMITS };
    let silence = |call: &'static Call, behind: Vec<Vec<u8>>| async move {
        let bench = Bench::start(limits).await;
        bench.ready(call);
        bench.fake.instead(call.path, Says::Hangs(behind));
        // Who watches waits as long as it takes: what was told so far does not end it.
        if matches!(call.method, "events" | "watch") {
            assert!(wait::within(limit, bench.make(call)).await.is_err(), "{}", call.method);
            return "NoAnswer".to_owned();
        }
        failed(&bench, call, "silence").await.0
    };
    // What has heard that its sequence began waits no more.
    let all = QUESTIONS.iter().flat_map(|call| [silence(call, vec![]), silence(call, call.begun())]);
    assert_eq!(join_all(all).await, vec!["NoAnswer"; 50]);
}

#[tokio::test]
async fn a_message_is_as_large_as_talos_makes_it_and_no_larger() {
    const LARGEST: usize = 32 << 20;
    // The tag, and the length in four bytes.
    let large = |size: usize| raw(2, &vec![b'x'; size - 5]);
    let file = QUESTIONS.iter().find(|call| call.method == "file").unwrap();
    let bench = Bench::start(LIMITS).await;
    assert_eq!((file.path, large(LARGEST).len()), (READ, LARGEST));
    bench.fake.instead(READ, Says::Ok(vec![large(LARGEST)]));
    assert!(bench.make(file).await.is_ok());
    bench.fake.instead(READ, Says::Ok(vec![large(LARGEST + 1)]));
    assert_eq!(failed(&bench, file, "one above").await, ("BadAnswer".to_owned(), 1));

    // The other way it is not even sent: the text, its tag and length, and the mode.
    let wire = Wire::start().await;
    for (size, fits) in [(LARGEST - 7, true), (LARGEST - 6, false)] {
        let config = " ".repeat(size);
        wire.says("ApplyConfiguration", &[num(3, 2)]);
        let outcome = wire.talos.apply_config(&wire.permit, &config, ApplyMode::NoReboot).await;
        assert_eq!(outcome.is_ok(), fits, "{outcome:?}");
        assert_eq!((wire.fake.asked().len(), wire.notebook.notes().len()), (1, 1));
    }
    assert_eq!(wire.fake.asked()[0].messages[0].len(), LARGEST);
    let large = " ".repeat(LARGEST);
    let outcome = wire.talos.dry_run(&large, ApplyMode::NoReboot).await;
    let error = outcome.unwrap_err();
    assert!(error.effect() == Effect::None && error.help().is_some() && !error.retryable(), "{error:?}");
    assert_eq!((kind(&error).as_str(), wire.fake.asked().len()), ("TooLarge", 1));
}
