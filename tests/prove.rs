//! The proof of a blueprint on a world: idempotent, resumable, undoable, wherever it stops.

#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test may panic, and says its counts")]

mod harness;

use harness::estate::Rig;
use harness::{How, calls, is_cut, points_expected};
use pvemig::engine::run::{Ended, Why};
use pvemig::engine::state::Stage;
use pvemig::lab::{Class, FaultEffect, FaultRule, Front};
use serde_json::Value;

/// The ordinary run cuts at every so-manieth point.
const STRIDE: usize = 6;

/// What two pictures differ in, for a message that can be read.
fn differences(a: &Value, b: &Value) -> Vec<String> {
    fn walk(path: &str, a: &Value, b: &Value, out: &mut Vec<String>) {
        match (a, b) {
            (Value::Object(x), Value::Object(y)) => {
                let mut keys: Vec<_> = x.keys().chain(y.keys()).collect();
                keys.sort();
                keys.dedup();
                for key in keys {
                    let (x, y) = (x.get(key).unwrap_or(&Value::Null), y.get(key).unwrap_or(&Value::Null));
                    walk(&format!("{path}/{key}"), x, y, out);
                }
            }
            (Value::Array(x), Value::Array(y)) if x.len() == y.len() => {
                for (n, (x, y)) in x.iter().zip(y).enumerate() {
                    walk(&format!("{path}/{n}"), x, y, out);
                }
            }
            _ if a != b => out.push(format!("{path}: {a} | {b}")),
            _ => {}
        }
    }
    let mut out = Vec::new();
    walk("", a, b, &mut out);
    out
}

fn assert_same(a: &Value, b: &Value, what: &str) {
    let differences = differences(a, b);
    assert!(differences.is_empty(), "{what}:\n{}", differences.join("\n"));
}

fn assert_done(run: &harness::Run, what: &str) {
    assert!(matches!(run.ended, Ok(Ended::Done)), "{what}: {:#?}", run.ended);
}

fn assert_undone(run: &harness::Run, what: &str) {
    assert!(matches!(run.ended, Ok(Ended::Undone)), "{what}: {:#?}", run.ended);
}

/// First and final world of an undisturbed run, and the run.
struct Measure {
    first: Value,
    last: Value,
    run: harness::Run,
}

async fn undisturbed(world: &str) -> Measure {
    let rig = Rig::new(world).await;
    let first = rig.picture().await;
    assert!(first.as_object().is_some_and(|o| o.len() > 3), "a picture of nothing proves nothing");
    let run = rig.forward(None, &How::default()).await;
    assert_done(&run, "undisturbed");
    let last = rig.picture().await;
    assert_ne!(first, last);
    assert_eq!(calls(&run.records), rig.changes(), "each changing request has its call and the other way round");
    Measure { first, last, run }
}

/// Idempotent, undoable after every step, and a check never changes anything.
async fn prove(world: &str) {
    let Measure { first, last, run } = undisturbed(world).await;
    let all = calls(&run.records);
    assert!(all > 1, "{all}");

    // A second run changes nothing; neither does the question asked in every state between steps.
    let rig = Rig::new(world).await;
    let mut asked = 0;
    for n in 0..=rig.steps.len() {
        let part = rig.first(n, &How::default()).await;
        assert_done(&part, &format!("the first {n}"));
        let before = rig.changes();
        for step in &rig.steps {
            let info = rig.bench.store.info("", "here").unwrap();
            let held = std::collections::BTreeMap::new();
            let seen = pvemig::engine::step::Seen { since: None, got: &[], held: &held, run: &info };
            let _any_answer = step.check(&rig.estate, seen).await;
            asked += 1;
        }
        assert_eq!(rig.changes(), before, "a check changed something after {n} steps");
    }
    assert_eq!(asked, (rig.steps.len() + 1) * rig.steps.len());

    let rig = Rig::new(world).await;
    assert_done(&rig.forward(None, &How::default()).await, "first");
    let before = rig.changes();
    let second = rig.forward(None, &How::default()).await;
    assert_done(&second, "second");
    assert_eq!((calls(&second.records), rig.changes()), (0, before), "a second run changes nothing");
    assert_same(&rig.picture().await, &last, "after a second run");

    // Undone after every step, twice.
    let mut undone = 0;
    for n in 1..=rig.steps.len() {
        let rig = Rig::new(world).await;
        let part = rig.first(n, &How::default()).await;
        assert_done(&part, &format!("the first {n}"));
        assert_undone(&rig.backward(&part.id, &How::default()).await, &format!("undo after {n}"));
        assert_same(&rig.picture().await, &first, &format!("undo after {n}"));
        undone += 1;
    }
    assert_eq!(undone, rig.steps.len());
    println!("prove {world}: {} steps, {all} calls, {asked} checks asked, {undone} undone", rig.steps.len());
}

/// Cut at every point, then resumed; cut at every point, then undone.
/// Every `stride`-th point, for the ordinary run; the long run takes all of them.
async fn crash(world: &str, stride: usize, undo: bool) {
    let Measure { first, last, run } = undisturbed(world).await;
    let points = run.points.passed();
    assert_eq!(points.len(), points_expected(&run.records));
    let (mut taken, mut behind) = (0, 0);
    for point in points.iter().skip(usize::from(undo)).step_by(stride) {
        let rig = Rig::new(world).await;
        let cut = rig.forward(None, &How { cut_at: Some(point.n), ..How::default() }).await;
        // How often step 10 has to ask Flux again varies with the clock: a late point may lie behind this run's end.
        if !is_cut(&cut) {
            assert_done(&cut, &format!("{point:?}"));
            behind += 1;
            continue;
        }
        if undo {
            let back = rig.backward(&cut.id, &How::default()).await;
            assert_undone(&back, &format!("undo after {point:?}"));
            assert_same(&rig.picture().await, &first, &format!("undo after {point:?}"));
        } else {
            let resumed = rig.forward(Some(&cut.id), &How::default()).await;
            assert_done(&resumed, &format!("resume after {point:?}"));
            assert_same(&rig.picture().await, &last, &format!("resume after {point:?}"));
        }
        taken += 1;
    }
    let verb = if undo { "undone" } else { "resumed" };
    println!("crash {world}: {taken} of {} points cut and {verb}", points.len());
    assert!(behind <= 2, "{behind} points lay behind the end");
    assert!(taken + behind >= points.len() / stride);
}

/// Every changing call fails once, before and after its effect: it fails there, and can be resumed.
async fn faults(world: &str, all_of_them: bool) {
    let Measure { last, run, .. } = undisturbed(world).await;
    let all = calls(&run.records);
    let mut met = 0;
    for (front, system) in [
        (Front::Proxmox, pvemig::base::permit::System::Proxmox),
        (Front::Kubernetes, pvemig::base::permit::System::Kubernetes),
    ] {
        let of = |r: &&pvemig::engine::event::Record| matches!(&r.event, pvemig::engine::event::Event::Call { note, .. } if note.system == system);
        // In the ordinary run every third call, and the effects take turns; the long run tries each at each call.
        for n in (0..run.records.iter().filter(of).count()).step_by(if all_of_them { 1 } else { 3 }) {
            let effects =
                [FaultEffect::Status(500, "injected".into()), FaultEffect::ResetBefore, FaultEffect::ResetAfter];
            let turns = if all_of_them { 0..3 } else { n / 3 % 3..n / 3 % 3 + 1 };
            for effect in &effects[turns] {
                let rig = Rig::new(world).await;
                let skip = u32::try_from(n).unwrap();
                rig.lab.fault(FaultRule::on(front, effect.clone()).class(Class::Change).skip(skip).times(1));
                let failed = rig.forward(None, &How::default()).await;
                let what = format!("{front:?} call {n} {effect:?}");
                let Ok(Ended::Stopped(stop)) = &failed.ended else { panic!("{what}: {:#?}", failed.ended) };
                assert!(matches!(stop.why, Why::Failed { .. }), "{what}: {stop:#?}");
                assert_eq!(rig.bench.read(&failed.id).state.stage(&stop.key), Stage::Begun, "{what}");
                let resumed = rig.forward(Some(&failed.id), &How::default()).await;
                assert_done(&resumed, &what);
                assert_same(&rig.picture().await, &last, &what);
                met += 1;
            }
        }
    }
    println!("faults {world}: {met} rules over {all} calls");
    assert!(met > all / 5, "{met} {all}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usb_move_is_proven() {
    prove("usb-move").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usb_move_on_an_old_machine_is_proven() {
    prove("usb-move-old").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usb_move_survives_a_cut_and_a_resume() {
    crash("usb-move", STRIDE, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usb_move_survives_a_cut_and_an_undo() {
    crash("usb-move", STRIDE, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usb_move_survives_failing_calls() {
    faults("usb-move", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long: ./scripts/test --long"]
async fn usb_move_survives_a_cut_at_every_point() {
    for world in ["usb-move", "usb-move-old"] {
        crash(world, 1, false).await;
        crash(world, 1, true).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long: ./scripts/test --long"]
async fn usb_move_survives_every_fault_at_every_call() {
    for world in ["usb-move", "usb-move-old"] {
        faults(world, true).await;
    }
}
