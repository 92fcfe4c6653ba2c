//! Every change of the provider against every way in which a call may fail: what it is taken for, what it may have left,
//! and that it was noted before it was sent, and sent once.

use std::sync::atomic::Ordering;

use futures::future::join_all;
use pvemig::base::fault::{Effect, Fault};
use pvemig::base::permit::Again;
use pvemig::talos::Error;

use super::LIMITS;
use super::calls::{Bench, CHANGES, Call, GET, LIST, QUESTIONS, Shape};
use super::failing::{STATUSES, kind};
use super::fake::{Says, msg, num, text};
use super::machine;
use super::pki::{NOW, Pki};

/// Makes a change that is to go out once, behind one note; its outcome.
async fn made(bench: &Bench, call: &Call) -> Result<String, Error> {
    let (sent, noted) = (bench.times(call), bench.diary.notes().len());
    let outcome = bench.make(call).await;
    let asked = bench.fake.asked().len();
    let notes = bench.diary.notes();
    assert_eq!((bench.times(call) - sent, notes.len() - noted), (1, 1), "{}: {outcome:?}", call.method);
    // It was the last to go out, and the note was there before it.
    let (note, before) = &notes[noted];
    assert_eq!((*before, bench.fake.asked()[asked - 1].path.as_str()), (asked - 1, call.path), "{}", note.text);
    assert!(note.text.starts_with("talos-20 "), "{}", note.text);
    outcome
}

/// Makes a change that is to fail; what it was taken for.
async fn failed(bench: &Bench, call: &Call, how: &str) -> (String, Effect) {
    let outcome = made(bench, call).await;
    assert!(outcome.is_err(), "{}: {how}: {outcome:?}", call.method);
    let error = outcome.unwrap_err();
    told(&error, call, how);
    (kind(&error), error.effect())
}

/// What each error owes to a person: where it was, and what to do next.
fn told(error: &Error, call: &Call, how: &str) {
    let help = error.help().unwrap_or_default();
    assert!(!help.is_empty(), "{} has no help: {how}: {error}", call.method);
    assert!(error.to_string().contains("talos node talos-20 ("), "{}: {error}", call.method);
    // What may have happened is never simply tried again.
    assert!(error.effect() == Effect::None || !error.retryable(), "{}: {error:?}", call.method);
}

#[tokio::test]
async fn each_status_of_each_change_has_its_cause() {
    let (mut refused, mut taken) = (0, Vec::new());
    for call in &CHANGES {
        let bench = Bench::start(LIMITS).await;
        for (code, said, wanted, effect, _) in STATUSES {
            bench.ready(call);
            bench.fake.instead(call.path, Says::Status(vec![], *code, said));
            match (call.method, *wanted) {
                // A member that is gone is gone, and a node without the new way to an image goes the old one.
                ("etcd_remove", "NotFound") | ("fetch", "NotImplemented") => {
                    taken.push((call.method, made(&bench, call).await.unwrap()));
                }
                _ => {
                    let found = failed(&bench, call, said).await;
                    assert_eq!((found.0.as_str(), found.1), (*wanted, *effect), "{}: {code} {said}", call.method);
                    refused += 1;
                }
            }
        }
    }
    assert_eq!(refused, 15 * 19 - 2);
    let whole = "Whole { image: \"reg/installer:v1.13.9\" }";
    assert_eq!(taken, [("etcd_remove", "()".to_owned()), ("fetch", whole.to_owned())]);
}

#[tokio::test]
async fn a_change_without_a_whole_answer_may_have_been_made() {
    let error = msg(1, &[msg(1, &[text(1, "10.10.0.20"), text(2, "rpc error")])]);
    let mut cases = 0;
    for call in &CHANGES {
        let bench = Bench::start(LIMITS).await;
        let (good, begun) = (call.good(), call.begun());
        let mut ways = vec![
            ("reset", Says::Breaks(vec![]), "LostAnswer"),
            ("reset behind the effect", Says::Breaks(good.clone()), "LostAnswer"),
            ("no status", Says::Ends(vec![]), "LostAnswer"),
            ("no status behind the effect", Says::Ends(good.clone()), "LostAnswer"),
            ("half a message", Says::Half(good.clone()), "LostAnswer"),
            ("nothing, and OK", Says::Ok(vec![]), "BadAnswer"),
            ("packed", Says::Packed(good.clone()), "BadAnswer"),
            ("no protobuf", Says::Ok(vec![vec![0x0a, 0x50, 0x01]]), "BadAnswer"),
        ];
        match call.shape {
            Shape::Envelope => ways.extend([
                ("no envelope", Says::Ok(vec![vec![]]), "BadAnswer"),
                ("two nodes", Says::Ok(vec![good.concat().repeat(2)]), "BadAnswer"),
                ("an error under OK", Says::Ok(vec![error.clone()]), "Unexpected"),
            ]),
            // However it is called in the middle of the work, it is no refusal before it.
            _ => ways.extend([
                ("reset in the middle", Says::Breaks(begun.clone()), "LostAnswer"),
                ("no status in the middle", Says::Ends(begun.clone()), "LostAnswer"),
                ("OK in the middle", Says::Ok(begun.clone()), "BadAnswer"),
                ("unavailable in the middle", Says::Status(begun.clone(), 14, "going down"), "Unexpected"),
                ("a precondition in the middle", Says::Status(begun.clone(), 9, "the disk is busy"), "Unexpected"),
                ("no permission in the middle", Says::Status(begun, 7, "not authorized"), "Unexpected"),
                ("a refusal behind the effect", Says::Status(good.clone(), 9, "the disk is busy"), "Unexpected"),
            ]),
        }
        for (how, says, wanted) in ways {
            bench.ready(call);
            bench.fake.instead(call.path, says);
            let found = failed(&bench, call, how).await;
            assert_eq!((found.0.as_str(), found.1), (wanted, Effect::Maybe), "{}: {how}", call.method);
            cases += 1;
        }
    }
    assert_eq!(cases, 13 * 11 + 2 * 15);
}

#[tokio::test]
async fn a_change_that_is_met_with_silence_may_have_been_made() {
    let silence = |call: &'static Call, behind: Vec<Vec<u8>>| async move {
        let bench = Bench::start(LIMITS).await;
        bench.ready(call);
        bench.fake.instead(call.path, Says::Hangs(behind));
        failed(&bench, call, "silence").await
    };
    // All at once: each takes as long as its limit is.
    let all = CHANGES
        .iter()
        .flat_map(|call| [silence(call, vec![]), silence(call, call.begun()), silence(call, call.good())]);
    let found = join_all(all).await;
    assert_eq!(found, vec![("LostAnswer".to_owned(), Effect::Maybe); 45]);
}

#[tokio::test]
async fn an_installer_has_its_say_in_its_exit_code() {
    let put = CHANGES.iter().find(|call| call.method == "put").unwrap();
    let bench = Bench::start(LIMITS).await;
    let failed_with = |code: u64| vec![msg(1, &[text(1, "no space left on device")]), msg(1, &[num(2, code)])];
    for code in [1, 137] {
        bench.fake.instead(put.path, Says::Ok(failed_with(code)));
        assert_eq!(failed(&bench, put, "exit code").await, ("InstallerFailed".to_owned(), Effect::Partial));
    }
    // Its word got lost on the way, whatever it was.
    for says in [Says::Breaks(failed_with(0)), Says::Ends(failed_with(1))] {
        bench.fake.instead(put.path, says);
        assert_eq!(failed(&bench, put, "exit code, and lost").await, ("LostAnswer".to_owned(), Effect::Maybe));
    }
}

#[tokio::test]
async fn a_change_that_cannot_be_noted_is_not_sent_and_one_whose_trace_is_lost_was() {
    let (mut kept, mut torn) = (0, Vec::new());
    for call in &CHANGES {
        let bench = Bench::start(LIMITS).await;
        bench.ready(call);
        bench.diary.full.store(true, Ordering::SeqCst);
        let error = bench.make(call).await.unwrap_err();
        assert!(matches!(error, Error::Refused(_)) && error.help().is_some(), "{}: {error:?}", call.method);
        assert_eq!((error.effect(), bench.times(call)), (Effect::None, 0), "{}", call.method);
        kept += 1;

        bench.diary.full.store(false, Ordering::SeqCst);
        bench.diary.torn.store(true, Ordering::SeqCst);
        match made(&bench, call).await {
            Ok(_) => assert!(!call.has_actor(), "{}", call.method),
            Err(error) => {
                told(&error, call, "its trace is lost");
                assert_eq!((kind(&error).as_str(), error.effect()), ("NotRecorded", Effect::Partial));
                torn.push(call.method);
            }
        }
    }
    assert_eq!((kept, torn), (15, vec!["reboot", "reset", "shutdown", "shutdown_for_good", "upgrade", "wipe_etcd"]));
}

#[tokio::test]
async fn a_client_that_is_not_let_in_changes_nothing() {
    let mut noted = 0;
    for call in &CHANGES {
        let bench = Bench::shown(LIMITS, |_| Pki::new().client("os:admin", NOW)).await;
        bench.ready(call);
        // Much is on its way when the node ends the connection; its word is heard all the same.
        bench.snapshot(16 << 20);
        let error = bench.make(call).await.unwrap_err();
        assert!(matches!(error, Error::ClientRefused { certain: true, .. }), "{}: {error:?}", call.method);
        told(&error, call, "another authority's client");
        assert_eq!((error.effect(), bench.fake.asked().len()), (Effect::None, 0), "{}", call.method);
        noted += bench.diary.notes().len();
    }
    // The node refuses the first call, not the connection; five ask something before they change anything.
    assert_eq!(noted, 15 - 5);
}

#[tokio::test]
async fn a_change_is_not_sent_where_what_it_goes_by_cannot_be_asked() {
    let asks = [
        ("etcd_leave", machine("EtcdStatus")),
        ("etcd_leave", machine("EtcdMemberList")),
        ("etcd_remove", machine("EtcdMemberList")),
        ("fetch", machine("Version")),
        ("reset", LIST.to_owned()),
        ("reset", GET.to_owned()),
        ("reset", machine("EtcdStatus")),
        ("reset", machine("EtcdMemberList")),
        ("upgrade", machine("Version")),
    ];
    for (method, path) in &asks {
        let call = CHANGES.iter().find(|call| call.method == *method).unwrap();
        let bench = Bench::start(LIMITS).await;
        for (says, wanted) in [
            (Says::Status(vec![], 14, "going down"), "Unavailable"),
            (Says::Status(vec![], 7, "not authorized"), "Denied"),
            (Says::Breaks(vec![]), "NoAnswer"),
        ] {
            bench.ready(call);
            bench.fake.instead(path, says);
            let error = bench.make(call).await.unwrap_err();
            assert_eq!((kind(&error).as_str(), error.effect()), (wanted, Effect::None), "{method}: {path}");
            assert_eq!((bench.times(call), bench.diary.notes().len()), (0, 0), "{method}: {path}");
        }
    }
    assert_eq!(asks.len(), 9);
    // What a change asks is a question of the table.
    assert!(asks.iter().all(|(_, path)| QUESTIONS.iter().any(|question| question.path == path)));
}

#[tokio::test]
async fn what_must_not_be_sent_twice_says_so_in_its_note() {
    let mut once = Vec::new();
    for call in &CHANGES {
        let bench = Bench::start(LIMITS).await;
        bench.ready(call);
        made(&bench, call).await.unwrap();
        let (note, _) = bench.diary.notes().remove(0);
        assert_eq!(note.node.as_deref(), Some("talos-20"));
        if note.again == Again::Once {
            once.push(call.method);
        }
    }
    let wanted = ["etcd_leave", "put", "reboot", "reset", "roll_back", "shutdown", "upgrade", "wipe_etcd"];
    assert_eq!(once, wanted);
}

#[tokio::test]
async fn a_snapshot_that_was_not_taken_in_as_a_whole_is_none() {
    let recover = CHANGES.iter().find(|call| call.method == "etcd_recover").unwrap();
    let bench = Bench::start(LIMITS).await;
    // More than a connection takes without somebody who reads it.
    bench.snapshot(16 << 20);
    bench.fake.instead(recover.path, Says::Early(recover.good()));
    assert_eq!(failed(&bench, recover, "OK in the middle").await, ("BadAnswer".to_owned(), Effect::Maybe));
}
