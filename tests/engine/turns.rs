//! Holds of an undo: each goes up right before the first of its own steps that has something to be taken back.

use std::sync::Arc;

use pvemig::engine::event::Event;
use pvemig::engine::run::Why;
use pvemig::engine::state::{Phase, Stage};

use super::laws::{Steps, done, go, soon, stop, undo, undone};
use crate::harness::probe::{Bed, Close, First, Hold, NodeClose, NodeFirst, NodeHold, Pause, Say, boxed};
use crate::harness::{Bench, How, is_cut, points_expected};

const NODES: [&str; 3] = ["n1", "n2", "n3"];

/// One node after the other, each held while it has its turn.
fn in_turn() -> Steps {
    let of = |node: &&str| -> Steps {
        vec![boxed(NodeHold((*node).into())), boxed(NodeFirst((*node).into())), boxed(NodeClose((*node).into()))]
    };
    NODES.iter().flat_map(of).collect()
}

/// A run through all nodes, with nothing in the record of calls but what comes behind it.
async fn through() -> (Bench, Arc<Bed>, Steps, String) {
    let (bench, bed, steps) = (Bench::new(), Bed::new(), in_turn());
    let run = go(&bench, &bed, &steps, None, How::default()).await;
    done(&run);
    bed.sent.lock().unwrap().clear();
    bed.around.lock().unwrap().clear();
    (bench, bed, steps, run.id)
}

/// Whatever is taken back on a node, its hold is up meanwhile, and that of no other node. Gives how often that was.
fn held_alone(bed: &Bed) -> usize {
    let around = bed.around.lock().unwrap();
    let taken: Vec<_> = around.iter().filter(|(call, _)| call.starts_with("return 03-first@")).collect();
    for (call, up) in &taken {
        let node = call.rsplit('@').next().unwrap();
        assert_eq!(up, &[format!("02-hold@{node}")], "{around:#?}");
    }
    assert!(around.iter().all(|(_, up)| up.len() < 2), "{around:#?}");
    taken.len()
}

#[tokio::test]
async fn each_instance_is_held_for_its_own_steps_alone() {
    let (bench, bed, steps, id) = through().await;
    undone(&undo(&bench, &bed, &steps, &id, How::default()).await);
    let turn = |node: &str| {
        ["return 05-close", "turn 02-hold", "return 03-first", "return 02-hold"].map(|c| format!("{c}@{node}"))
    };
    let wanted: Vec<_> = NODES.iter().rev().flat_map(|node| turn(node)).collect();
    assert_eq!(bed.sent(), wanted);
    assert_eq!((held_alone(&bed), bed.on.lock().unwrap().len()), (3, 0));
}

#[tokio::test]
async fn what_only_waits_is_not_held_for() {
    let (bench, bed, steps, id) = through().await;
    bed.say("03-first@n3 back", &[Say::Waiting; 100_000]);
    let waited = undo(&bench, &bed, &steps, &id, soon()).await;
    let Why::Failed { error, .. } = &stop(&waited).why else { panic!("{:?}", waited.ended) };
    assert!(stop(&waited).key.as_str() == "03-first@n3" && error[0].contains("it comes"), "{error:?}");
    assert_eq!(bed.sent(), ["return 05-close@n3"]);
    assert_eq!(bench.read(&id).state.holds_up().len(), 0);
    // Once it has come, there is something to take back, and the hold goes up for it.
    bed.says.lock().unwrap().clear();
    bed.say("03-first@n3 back", &[Say::Waiting, Say::Waiting]);
    undone(&undo(&bench, &bed, &steps, &id, How::default()).await);
    assert_eq!((held_alone(&bed), bed.on.lock().unwrap().len()), (3, 0));
}

#[tokio::test]
async fn a_run_that_can_go_on_still_can_after_an_undo_that_only_waited() {
    let (bench, bed, steps) = (Bench::new(), Bed::new(), in_turn());
    // The last node does not come back from what was done to it; whether the others are whole is not to be seen then.
    bed.say("03-first@n3", &[&[Say::World; 2][..], &[Say::Waiting; 100_000]].concat());
    let stuck = go(&bench, &bed, &steps, None, soon()).await;
    assert_eq!(stop(&stuck).key.as_str(), "03-first@n3");
    for node in NODES {
        bed.say(&format!("03-first@{node} back"), &[Say::Waiting; 100_000]);
    }
    let sent = bed.sent().len();
    let back = undo(&bench, &bed, &steps, &stuck.id, soon()).await;
    assert_eq!(stop(&back).key.as_str(), "03-first@n3");
    let state = bench.read(&stuck.id).state;
    let up: Vec<_> = state.holds_up().into_iter().map(ToString::to_string).collect();
    assert_eq!((bed.sent().len(), state.phase, up), (sent, Phase::Forward, vec!["02-hold@n3".to_owned()]));
    bed.says.lock().unwrap().clear();
    done(&go(&bench, &bed, &steps, Some(&stuck.id), soon()).await);
}

#[tokio::test]
async fn what_the_hold_mends_and_what_a_person_does_is_held_for() {
    let steps: Steps = vec![boxed(Hold), boxed(Pause), boxed(First), boxed(Close)];
    for say in [Say::Blocked, Say::Manual] {
        let (bench, bed) = (Bench::new(), Bed::new());
        let run = go(&bench, &bed, &steps, None, How::default()).await;
        done(&run);
        // The closer of the probes takes down one of the two.
        bed.set("02b-pause", false);
        bed.sent.lock().unwrap().clear();
        bed.say("03-first back", &[say]);
        let back = undo(&bench, &bed, &steps, &run.id, How::default()).await;
        undone(&back);
        let turns: Vec<_> = bed.sent().into_iter().filter(|s| !s.starts_with("ready")).collect();
        let wanted = ["turn 02-hold", "turn 02b-pause", "return 03-first", "return 02-hold", "return 02b-pause"];
        assert_eq!(turns[1..], wanted, "{say:?}");
        assert!(
            !back.records.iter().any(|r| matches!(r.event, Event::Asked { .. })),
            "nobody is asked before it is held"
        );
    }
}

#[tokio::test]
async fn an_undo_in_turns_can_be_cut_at_every_point() {
    let (bench, bed, steps, id) = through().await;
    let whole = undo(&bench, &bed, &steps, &id, How::default()).await;
    undone(&whole);
    let points = whole.points.passed();
    assert_eq!(points.len(), points_expected(&whole.records));
    assert!(points.len() > 40, "{points:#?}");
    for point in &points {
        let (bench, bed, steps, id) = through().await;
        let cut = undo(&bench, &bed, &steps, &id, How { cut_at: Some(point.n), ..How::default() }).await;
        assert!(is_cut(&cut), "{point:?}");
        let again = undo(&bench, &bed, &steps, &id, soon()).await;
        undone(&again);
        assert!(held_alone(&bed) >= 3, "{point:?}");
        assert_eq!(bed.on.lock().unwrap().len(), 0, "{point:?}");
        let state = bench.read(&id).state;
        assert!(state.holds_up().is_empty() && state.steps.values().all(|s| s.stage == Stage::Undone), "{point:?}");
    }
}
