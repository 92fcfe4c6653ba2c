//! Undo: what cannot come back, what may be passed, what was not understood.

use pvemig::engine::event::Event;
use pvemig::engine::run::Why;
use pvemig::engine::state::Stage;

use pvemig::report::Report;

use super::laws::{Steps, done, go, soon, stop, undo, undone};
use crate::harness::probe::{Bed, Burn, Call, Claim, Close, First, Hold, Keep, OldClaim, Say, boxed};
use crate::harness::{Bench, How};

fn past(id: &str) -> How {
    How { past: vec![id.into()], consents: vec!["pv/old".into()], ..How::default() }
}

#[tokio::test]
async fn an_undo_that_destroys_is_consented_to_first() {
    let (bench, bed, steps): (_, _, Steps) = (Bench::new(), Bed::new(), vec![boxed(First), boxed(Claim)]);
    let run = go(&bench, &bed, &steps, None, How::default()).await;
    done(&run);
    let sent = bed.sent().len();
    let asked = undo(&bench, &bed, &steps, &run.id, How::default()).await;
    let Why::Consent { things, past, .. } = &stop(&asked).why else { panic!("{:?}", asked.ended) };
    assert_eq!((things[0].to_string(), things.len(), past), ("pvc/new".to_owned(), 1, &None));
    assert_eq!(bed.sent().len(), sent, "nothing was begun");
    // A consent is for the undo that it was given to: the next one may find other data.
    let how = || How { consents: vec!["pvc/new".into()], ..How::default() };
    bed.calls("04-claim back", &[Call::Refused]);
    let stuck = undo(&bench, &bed, &steps, &run.id, how()).await;
    assert!(matches!(stop(&stuck).why, Why::Stuck { .. }), "{:?}", stuck.ended);
    let refused = bed.sent().len();
    let again = undo(&bench, &bed, &steps, &run.id, How::default()).await;
    let Why::Consent { things, .. } = &stop(&again).why else { panic!("{:?}", again.ended) };
    assert_eq!((things.len(), bed.sent().len(), bed.is("04-claim")), (1, refused, true));
    undone(&undo(&bench, &bed, &steps, &run.id, how()).await);
    assert_eq!((bed.sent().len() > refused, bed.is("04-claim")), (true, false));
}

#[tokio::test]
async fn undo_stops_at_what_cannot_come_back_and_goes_past_it_where_told() {
    let steps: Steps = vec![boxed(Keep), boxed(Burn), boxed(Close)];
    let (bench, bed) = (Bench::new(), Bed::new());
    let run = go(&bench, &bed, &steps, None, How { consents: vec!["pv/old".into()], ..How::default() }).await;
    done(&run);
    let sent = bed.sent().len();
    let asked = undo(&bench, &bed, &steps, &run.id, How::default()).await;
    let Why::Consent { things, past: at, .. } = &stop(&asked).why else { panic!("{:?}", asked.ended) };
    assert_eq!((things.len(), at.as_ref().unwrap().as_str()), (0, "04-burn"));
    // What can come back is not passed.
    let refused = undo(&bench, &bed, &steps, &run.id, past("01-keep")).await;
    let Why::Blocked(problems) = &stop(&refused).why else { panic!("{:?}", refused.ended) };
    assert!(problems[0].text.contains("01-keep can be undone"), "{problems:?}");
    assert_eq!(bed.sent().len(), sent, "nothing was begun");
    undone(&undo(&bench, &bed, &steps, &run.id, past("04-burn")).await);
    assert_eq!((bed.is("01-keep"), bed.is("04-burn"), bed.is("05-close")), (false, true, false));
    let state = bench.read(&run.id).state;
    let passed: Vec<_> = state.steps.iter().filter(|(_, s)| s.passed).map(|(k, _)| k.as_str()).collect();
    assert_eq!(passed, ["04-burn"]);
    let report = Report::of(&run.id, &bench.read(&run.id).records).unwrap().unwrap();
    assert_eq!(report.destroyed, ["04-burn: turn 04-burn"], "it is gone, whatever was undone around it");
}

#[tokio::test]
async fn no_hold_is_put_up_for_what_is_passed() {
    let steps: Steps = vec![boxed(Hold), boxed(Burn), boxed(Close)];
    let (bench, bed) = (Bench::new(), Bed::new());
    let run = go(&bench, &bed, &steps, None, How { consents: vec!["pv/old".into()], ..How::default() }).await;
    done(&run);
    undone(&undo(&bench, &bed, &steps, &run.id, past("04-burn")).await);
    assert_eq!(bed.sent().iter().filter(|s| *s == "turn 02-hold").count(), 1);
}

#[tokio::test]
async fn a_hold_whose_call_was_lost_is_settled_before_it_is_put_up_again() {
    let steps: Steps = vec![boxed(Hold), boxed(First), boxed(Close)];
    let (bench, bed) = (Bench::new(), Bed::new());
    bed.calls("02-hold", &[Call::Happens, Call::Happens, Call::Happens, Call::Gone]);
    let run = go(&bench, &bed, &steps, None, How::default()).await;
    done(&run);
    let lost = undo(&bench, &bed, &steps, &run.id, How::default()).await;
    assert_eq!(stop(&lost).key.as_str(), "02-hold", "{:?}", lost.ended);
    undone(&undo(&bench, &bed, &steps, &run.id, soon()).await);
    assert_eq!(*bed.settled.lock().unwrap(), 1);
    assert!(!bed.is("02-hold") && !bed.is("03-first"));
}

#[tokio::test]
async fn a_hold_that_was_there_already_is_put_up_for_the_undo_and_released() {
    let steps: Steps = vec![boxed(Hold), boxed(First), boxed(Close)];
    let (bench, bed) = (Bench::new(), Bed::new());
    bed.set("02-hold", true);
    let run = go(&bench, &bed, &steps, None, How::default()).await;
    done(&run);
    assert_eq!(bench.read(&run.id).state.stage(&"02-hold".into()), Stage::Already);
    assert!(!bed.is("02-hold"), "somebody took it down since");
    bed.sent.lock().unwrap().clear();
    undone(&undo(&bench, &bed, &steps, &run.id, How::default()).await);
    let turns: Vec<_> = bed.sent().into_iter().filter(|s| !s.starts_with("ready")).collect();
    assert_eq!(turns, ["return 05-close", "turn 02-hold", "return 03-first", "return 02-hold"]);
    assert!(!bed.is("02-hold"));
}

#[tokio::test]
async fn a_before_image_that_does_not_fit_stops_the_undo_before_it_begins() {
    let (bench, bed) = (Bench::new(), Bed::new());
    let run = go(&bench, &bed, &vec![boxed(OldClaim), boxed(First)], None, How::default()).await;
    done(&run);
    let sent = bed.sent().len();
    let newer: Steps = vec![boxed(Claim), boxed(First)];
    let failed = undo(&bench, &bed, &newer, &run.id, How::default()).await;
    assert!(matches!(stop(&failed).why, Why::Failed { .. }), "{:?}", failed.ended);
    assert_eq!((stop(&failed).key.as_str(), bed.sent().len()), ("04-claim", sent));
}

#[tokio::test]
async fn a_step_that_changes_and_has_no_back_is_not_undone_in_silence() {
    let (bench, bed, steps): (_, _, Steps) = (Bench::new(), Bed::new(), vec![boxed(OldClaim)]);
    let run = go(&bench, &bed, &steps, None, How::default()).await;
    done(&run);
    let failed = undo(&bench, &bed, &steps, &run.id, How::default()).await;
    assert!(matches!(stop(&failed).why, Why::Failed { .. }), "{:?}", failed.ended);
    assert!(bed.is("04-claim"));
}

#[tokio::test]
async fn an_undo_that_asks_a_person_or_cannot_ask_is_not_stuck() {
    for say in [Say::Manual, Say::Error] {
        let (bench, bed, steps): (_, _, Steps) = (Bench::new(), Bed::new(), vec![boxed(First)]);
        let run = go(&bench, &bed, &steps, None, How::default()).await;
        bed.say("03-first back", &[say]);
        let stopped = undo(&bench, &bed, &steps, &run.id, How { no_hands: true, ..How::default() }).await;
        assert!(!matches!(stop(&stopped).why, Why::Stuck { .. }), "{say:?}: {:?}", stopped.ended);
        assert!(!stopped.records.iter().any(|r| matches!(r.event, Event::Undoing { .. })));
        undone(&undo(&bench, &bed, &steps, &run.id, How::default()).await);
    }
}

#[tokio::test]
async fn a_step_whose_undo_stopped_there_may_be_passed_and_no_other_one() {
    let (bench, bed, steps): (_, _, Steps) = (Bench::new(), Bed::new(), vec![boxed(Keep), boxed(First)]);
    let run = go(&bench, &bed, &steps, None, How::default()).await;
    done(&run);
    bed.say("03-first back", &[Say::Error]);
    let stopped = undo(&bench, &bed, &steps, &run.id, How::default()).await;
    assert_eq!(stop(&stopped).key.as_str(), "03-first");
    let refused = undo(&bench, &bed, &steps, &run.id, past("01-keep")).await;
    assert!(matches!(stop(&refused).why, Why::Blocked(_)), "{:?}", refused.ended);
    undone(&undo(&bench, &bed, &steps, &run.id, past("03-first")).await);
    assert_eq!((bed.is("01-keep"), bed.is("03-first")), (false, true));
}
