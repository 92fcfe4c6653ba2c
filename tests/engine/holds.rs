//! Holds that fall, wait, are barred, cannot be asked, or turn out to be needed after all.

use pvemig::engine::event::{Event, Record};
use pvemig::engine::plan::{Line, Said};
use pvemig::engine::run::Why;
use pvemig::engine::state::Stage;

use super::laws::{Steps, done, go, soon, stop, undo, undone};
use crate::harness::probe::{Bed, Blind, Burn, Call, Claim, Close, First, Hold, Keep, Pause, Say, boxed};
use crate::harness::{Bench, How, Run};

fn steps() -> Steps {
    vec![boxed(Hold), boxed(First), boxed(Close)]
}

fn fell(run: &Run) -> usize {
    run.records.iter().filter(|r| matches!(r.event, Event::HoldFell { .. })).count()
}

/// The hold is asked three times for itself; this is what it says right before the apply behind it.
async fn before_the_apply(say: Say, steps: &Steps) -> (Bench, std::sync::Arc<Bed>, Run) {
    let (bench, bed) = (Bench::new(), Bed::new());
    // What is barred or cannot be asked is so when it is asked again.
    let again = if say == Say::Blocked { say } else { Say::World };
    bed.say("02-hold", &[Say::World, Say::World, Say::World, say, again]);
    let run = go(&bench, &bed, steps, None, How { no_hands: true, ..soon() }).await;
    (bench, bed, run)
}

/// So much later that nothing which was found before counts any more.
fn late() -> How {
    How { anew: true, ..How::default() }
}

fn times(bed: &Bed, what: &str) -> usize {
    bed.asked.lock().unwrap().iter().filter(|asked| *asked == what).count()
}

#[tokio::test]
async fn a_run_with_nothing_to_do_asks_each_step_once() {
    let (bench, bed) = (Bench::new(), Bed::new());
    let guarded = ["03-first", "04-claim", "04-blind"];
    for key in guarded.into_iter().chain(["01-keep", "05-close"]) {
        bed.set(key, true);
    }
    let all: Steps =
        vec![boxed(Keep), boxed(Hold), boxed(Pause), boxed(First), boxed(Claim), boxed(Blind), boxed(Close)];
    let run = go(&bench, &bed, &all, None, How::default()).await;
    done(&run);
    // Both holds ask what they guard, and each of those has its own turn.
    assert_eq!(bed.asked.lock().unwrap().len(), all.len(), "{:?}", bed.asked);
    let needless = |r: &&Record| matches!(r.event, Event::AlreadySo { needless: true, .. });
    assert_eq!((run.records.iter().filter(needless).count(), bed.sent().len()), (2, 0));
    // Another run looks anew.
    done(&go(&bench, &bed, &all, None, How::default()).await);
    assert!(guarded.iter().all(|key| times(&bed, key) == 2), "{:?}", bed.asked);
}

#[tokio::test]
async fn what_was_so_is_asked_again_once_something_was_changed() {
    let (bench, bed) = (Bench::new(), Bed::new());
    // So when the hold asks, not so any more at its own turn behind the hold's call.
    bed.say("03-first", &[Say::World, Say::Todo]);
    bed.set("03-first", true);
    let all: Steps = vec![boxed(Hold), boxed(First), boxed(Claim), boxed(Close)];
    done(&go(&bench, &bed, &all, None, How::default()).await);
    assert!(bed.sent().contains(&"turn 03-first".to_owned()), "{:?}", bed.sent());
}

#[tokio::test]
async fn only_a_hold_that_is_down_has_fallen() {
    let (_, _, waited) = before_the_apply(Say::Waiting, &steps()).await;
    done(&waited);
    assert_eq!(fell(&waited), 0);

    let (bench, bed, barred) = before_the_apply(Say::Blocked, &steps()).await;
    let Why::Blocked(problems) = &stop(&barred).why else { panic!("{:?}", barred.ended) };
    assert!(problems[0].text.contains("02-hold"), "{problems:?}");
    assert_eq!((fell(&barred), stop(&barred).key.as_str(), bed.sent().len()), (0, "03-first", 2));
    done(&go(&bench, &bed, &steps(), Some(&barred.id), How::default()).await);

    let (bench, bed, down) = before_the_apply(Say::Todo, &steps()).await;
    assert!(matches!(stop(&down).why, Why::HoldFell { .. }));
    assert_eq!((fell(&down), stop(&down).key.as_str(), bed.sent().len()), (1, "03-first", 2));
    done(&go(&bench, &bed, &steps(), Some(&down.id), How::default()).await);
}

#[tokio::test]
async fn a_hold_that_cannot_be_asked_stops_what_is_not_begun() {
    let (bench, bed, unasked) = before_the_apply(Say::Error, &steps()).await;
    let Why::Failed { error, .. } = &stop(&unasked).why else { panic!("{:?}", unasked.ended) };
    assert!(error[0].contains("02-hold cannot be asked"), "{error:?}");
    assert_eq!((stop(&unasked).key.as_str(), bed.sent().len()), ("03-first", 2));
    done(&go(&bench, &bed, &steps(), Some(&unasked.id), How::default()).await);
}

#[tokio::test]
async fn what_is_begun_is_finished_without_a_hold_that_cannot_be_asked() {
    let (bench, bed) = (Bench::new(), Bed::new());
    bed.calls("03-first", &[Call::Happens, Call::Refused]);
    let failed = go(&bench, &bed, &steps(), None, How::default()).await;
    assert_eq!(bench.read(&failed.id).state.stage(&"03-first".into()), Stage::Begun);
    bed.say("02-hold", &[Say::Error, Say::Error]);
    let resumed = go(&bench, &bed, &steps(), Some(&failed.id), How::default()).await;
    done(&resumed);
    let noted = |r: &&pvemig::engine::event::Record| matches!(&r.event, Event::Checked { notes, .. } if notes.iter().any(|n| n.contains("02-hold could not be asked")));
    assert_eq!(resumed.records.iter().filter(noted).count(), 1);
}

#[tokio::test]
async fn a_step_that_is_blind_to_a_hold_does_not_ask_it() {
    let steps: Steps = vec![boxed(Hold), boxed(Blind), boxed(Close)];
    let (_, bed, run) = before_the_apply(Say::Error, &steps).await;
    done(&run);
    assert_eq!(bed.asked.lock().unwrap().iter().filter(|what| *what == "02-hold").count(), 3);
}

/// With its API off by our own doing a hold that stands by the journal is passed, and that is noted. One that was let go is
/// not: it has to be put up first.
#[tokio::test]
async fn on_the_way_back_a_step_is_blind_to_a_hold_that_stands_alone() {
    let steps: Steps = vec![boxed(Hold), boxed(Blind), boxed(Close)];
    let could_not = |r: &&Record| matches!(&r.event, Event::Checked { notes, .. } if notes.iter().any(|n| n.contains("02-hold could not be asked")));
    let (bench, bed) = (Bench::new(), Bed::new());
    bed.say("05-close", &[Say::Blocked]);
    let run = go(&bench, &bed, &steps, None, How::default()).await;
    assert_eq!(stop(&run).key.as_str(), "05-close");
    bed.say("02-hold", &[Say::Error]);
    let back = undo(&bench, &bed, &steps, &run.id, How::default()).await;
    undone(&back);
    assert_eq!(back.records.iter().filter(could_not).count(), 1);
    assert!(bed.sent().contains(&"return 04-blind".to_owned()), "{:?}", bed.sent());

    let (bench, bed) = (Bench::new(), Bed::new());
    let run = go(&bench, &bed, &steps, None, How::default()).await;
    done(&run);
    bed.say("02-hold", &[Say::Error, Say::Error]);
    let back = undo(&bench, &bed, &steps, &run.id, How::default()).await;
    assert_eq!(stop(&back).key.as_str(), "02-hold", "{:?}", back.ended);
    assert!(!bed.sent().contains(&"return 04-blind".to_owned()), "{:?}", bed.sent());
}

#[tokio::test]
async fn a_hold_that_is_needed_after_all_is_put_up() {
    let (bench, bed) = (Bench::new(), Bed::new());
    bed.set("03-first", true);
    bed.say("03-first", &[Say::World, Say::Todo]);
    let run = go(&bench, &bed, &steps(), None, late()).await;
    done(&run);
    assert_eq!(fell(&run), 0);
    assert_eq!(bed.sent()[..4], ["ready 02-hold", "turn 02-hold", "ready 03-first", "turn 03-first"]);
}

#[tokio::test]
async fn a_hold_that_is_needed_by_a_later_hold_is_put_up_before_it() {
    let (bench, bed) = (Bench::new(), Bed::new());
    let steps: Steps = vec![boxed(Hold), boxed(Pause), boxed(First), boxed(Close)];
    bed.set("03-first", true);
    bed.say("03-first", &[Say::World, Say::Todo, Say::Todo]);
    let run = go(&bench, &bed, &steps, None, late()).await;
    done(&run);
    assert_eq!(fell(&run), 0);
    let turns: Vec<_> = bed.sent().into_iter().filter(|s| s.starts_with("turn")).collect();
    assert_eq!(turns, ["turn 02-hold", "turn 02b-pause", "turn 03-first", "turn 05-close"]);
}

#[tokio::test]
async fn a_hold_that_somebody_else_put_up_twice_is_still_not_ours() {
    let (bench, bed) = (Bench::new(), Bed::new());
    bed.set("02-hold", true);
    bed.calls("03-first", &[Call::Happens, Call::Refused]);
    let failed = go(&bench, &bed, &steps(), None, How::default()).await;
    bed.set("02-hold", false);
    let down = go(&bench, &bed, &steps(), Some(&failed.id), How::default()).await;
    assert!(matches!(stop(&down).why, Why::HoldFell { .. }), "{:?}", down.ended);
    bed.set("02-hold", true);
    bed.say("02-hold", &[Say::Waiting]);
    done(&go(&bench, &bed, &steps(), Some(&failed.id), How::default()).await);
    let state = bench.read(&failed.id).state;
    assert_eq!((state.stage(&"02-hold".into()), state.holds_up().len()), (Stage::Already, 0));
    undone(&undo(&bench, &bed, &steps(), &failed.id, How::default()).await);
}

/// The run stops behind 03-first, where this step is barred; the hold is taken down before it is resumed.
async fn down_behind_the_first(steps: &Steps, barred: &str, on: &[&str]) -> (std::sync::Arc<Bed>, Run) {
    let (bench, bed) = (Bench::new(), Bed::new());
    bed.say(barred, &[Say::Blocked, Say::Blocked]);
    let stopped = go(&bench, &bed, steps, None, How::default()).await;
    assert!(matches!(stop(&stopped).why, Why::Blocked(_)), "{:?}", stopped.ended);
    let state = bench.read(&stopped.id).state;
    let stages = ["02-hold", "03-first", "05-close"].map(|key| state.stage(&key.into()));
    assert_eq!(stages, [Stage::Applied, Stage::Applied, Stage::Pending]);
    bed.says.lock().unwrap().clear();
    bed.set("02-hold", false);
    for key in on {
        bed.set(key, true);
    }
    let resumed = go(&bench, &bed, steps, Some(&stopped.id), How::default()).await;
    done(&resumed);
    (bed, resumed)
}

#[tokio::test]
async fn a_hold_that_guards_nothing_any_more_is_not_put_up_again() {
    let turns = |bed: &Bed| bed.sent().into_iter().filter(|sent| sent.starts_with("turn")).collect::<Vec<_>>();
    let once = ["turn 02-hold", "turn 03-first", "turn 05-close"];
    // Everything between is done.
    let (bed, run) = down_behind_the_first(&steps(), "05-close", &[]).await;
    assert_eq!((turns(&bed), fell(&run)), (once.map(str::to_owned).to_vec(), 0));
    // What is not done is so by itself.
    let more: Steps = vec![boxed(Hold), boxed(First), boxed(Claim), boxed(Close)];
    let (bed, run) = down_behind_the_first(&more, "04-claim", &["04-claim"]).await;
    assert_eq!((turns(&bed), fell(&run)), (once.map(str::to_owned).to_vec(), 0));
    // Something is left to be guarded.
    let (bed, run) = down_behind_the_first(&more, "04-claim", &[]).await;
    let again = ["turn 02-hold", "turn 03-first", "turn 02-hold", "turn 04-claim", "turn 05-close"];
    assert_eq!((turns(&bed), fell(&run)), (again.map(str::to_owned).to_vec(), 1));
}

#[tokio::test]
async fn a_plan_leaves_out_what_is_done_behind_a_hold_that_is_to_go_up() {
    let (bench, bed) = (Bench::new(), Bed::new());
    let all: Steps = vec![
        boxed(Keep),
        boxed(Hold),
        boxed(Pause),
        boxed(First),
        boxed(Claim),
        boxed(Blind),
        boxed(Burn),
        boxed(Close),
    ];
    for key in ["01-keep", "03-first", "04-claim", "04-burn"] {
        bed.set(key, true);
    }
    let said = |line: &Line| match &line.said {
        Said::Answer(check) if check.is_done() => "done",
        Said::Answer(_) => "answer",
        Said::NotNeeded => "not needed",
        Said::After(key) if key.as_str() == "02-hold" => "after the hold",
        Said::After(_) => "after another",
        Said::Failed(_) => "unknown",
    };
    let lines = bench.look(&*bed, &all).await;
    let after = "after the hold";
    // Behind the first that is not done nothing is taken for done, whatever it says now.
    let wanted = ["done", "answer", after, "done", "done", after, after, after];
    assert_eq!(lines.iter().map(said).collect::<Vec<_>>(), wanted);
    assert_eq!(bed.sent().len(), 0);

    // Nor is it behind a step that is no hold: that may change what the others are asked about.
    bed.set("01-keep", false);
    let all: Steps = vec![boxed(Hold), boxed(Keep), boxed(First)];
    let lines = bench.look(&*bed, &all).await;
    assert_eq!(lines.iter().map(said).collect::<Vec<_>>(), ["answer", "answer", "after another"]);
}

/// The closer is barred by what a step behind it mends, which is so no more: that has its turn again.
#[tokio::test]
async fn what_mends_a_closer_is_asked_again() {
    let (bench, bed) = (Bench::new(), Bed::new());
    bed.say("05-close", &[Say::Mended, Say::Mended]);
    let stopped = go(&bench, &bed, &steps(), None, How::default()).await;
    assert!(matches!(stop(&stopped).why, Why::Blocked(_)), "{:?}", stopped.ended);
    // It is so: nothing is done again.
    bed.says.lock().unwrap().clear();
    bed.say("05-close", &[Say::Mended, Say::Mended]);
    let same = go(&bench, &bed, &steps(), Some(&stopped.id), How::default()).await;
    assert!(matches!(stop(&same).why, Why::Blocked(_)), "{:?}", same.ended);
    let turns = |bed: &Bed| bed.sent().into_iter().filter(|sent| sent.starts_with("turn")).collect::<Vec<_>>();
    assert_eq!(turns(&bed), ["turn 02-hold", "turn 03-first"]);
    // It is not.
    bed.says.lock().unwrap().clear();
    bed.set("03-first", false);
    bed.say("05-close", &[Say::Mended]);
    done(&go(&bench, &bed, &steps(), Some(&stopped.id), How::default()).await);
    assert_eq!(turns(&bed), ["turn 02-hold", "turn 03-first", "turn 03-first", "turn 05-close"]);
}

/// What a closer has let go itself is not put up behind its back, and nothing is done again without it.
#[tokio::test]
async fn what_a_closer_has_let_go_is_not_put_up_for_what_mends_it() {
    let (bench, bed) = (Bench::new(), Bed::new());
    bed.calls("05-close", &[Call::Happens, Call::Refused]);
    let failed = go(&bench, &bed, &steps(), None, How::default()).await;
    assert_eq!(bench.read(&failed.id).state.stage(&"05-close".into()), Stage::Begun);
    bed.set("02-hold", false);
    bed.set("03-first", false);
    bed.say("05-close", &[Say::Mended; 4]);
    let before = bed.sent().len();
    let resumed = go(&bench, &bed, &steps(), Some(&failed.id), How::default()).await;
    assert!(matches!(stop(&resumed).why, Why::Blocked(_)), "{:?}", resumed.ended);
    assert_eq!((bed.sent().len(), fell(&resumed)), (before, 0));
}
