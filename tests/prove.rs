//! The proof of a blueprint on a world: idempotent, resumable, undoable, wherever it stops.

#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test may panic, and says its counts")]

use std::time::Duration;

use crate::harness::estate::Rig;
use crate::harness::same::{assert_done, assert_same, assert_undone};
use crate::harness::scene::Scenes;
use crate::harness::{How, calls, is_cut, points_expected};
use pvemig::base::check::{Answer, Check};
use pvemig::base::fault::Failure;
use pvemig::base::names::StepKey;
use pvemig::base::permit::{Permit, System, Thing};
use pvemig::blueprint::BoxedStep;
use pvemig::engine::event::{Event, Record};
use pvemig::engine::run::{Ended, Why};
use pvemig::engine::state::Stage;
use pvemig::engine::step::{AnyStep, Risk, Seen};
use pvemig::estate::Estate;
use pvemig::lab::{Class, FaultEffect, FaultRule, Front};
use serde_json::Value;

/// An undisturbed run with everything outside the process at each of its points: what a process that is stopped there
/// leaves behind. To meet a point again is to go back to it, not to run up to it anew.
struct Story {
    rig: Rig,
    first: Value,
    last: Value,
    run: crate::harness::Run,
    scenes: Scenes,
}

impl Story {
    async fn forward(world: &str) -> Self {
        let rig = Rig::new(world).await;
        let first = rig.picture().await;
        assert!(first.as_object().is_some_and(|o| o.len() > 3), "a picture of nothing proves nothing");
        let (run, scenes) = rig.watched(None).await;
        assert_done(&run, "undisturbed");
        let last = rig.picture().await;
        assert_ne!(first, last);
        assert_eq!(calls(&run.records), rig.changes(), "each changing request has its call and the other way round");
        Self::told(rig, first, last, run, scenes)
    }

    /// The undo of a finished run.
    async fn backward(world: &str) -> Self {
        let rig = Rig::new(world).await;
        let first = rig.picture().await;
        let there = rig.forward(None, &How::default()).await;
        assert_done(&there, "undisturbed");
        let last = rig.picture().await;
        let (run, scenes) = rig.watched(Some(&there.id)).await;
        assert_undone(&run, "undisturbed");
        assert_same(&rig.picture().await, &first, "undisturbed");
        Self::told(rig, first, last, run, scenes)
    }

    fn told(rig: Rig, first: Value, last: Value, run: crate::harness::Run, scenes: Scenes) -> Self {
        assert_eq!(scenes.points.len(), points_expected(&run.records));
        assert!(scenes.points.iter().map(|(point, _)| point).eq(&run.points.passed()));
        Self { rig, first, last, run, scenes }
    }

    /// Where `n` steps are settled and the next one was not asked.
    fn after(&mut self, n: usize) -> &mut Rig {
        assert_eq!(self.scenes.settled.len(), self.rig.steps.len() + 1);
        self.rig.go_back(&self.scenes.settled[n]);
        &mut self.rig
    }
}

/// What is odd about a step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It applies and undoes everything twice.
    Twice,
    /// It fails instead of applying.
    NoApply,
    /// It cannot ask.
    NoCheck,
}

/// A step with something odd about it.
struct Odd {
    step: BoxedStep,
    way: Way,
}

#[async_trait::async_trait]
impl AnyStep<Estate> for Odd {
    fn key(&self) -> StepKey {
        self.step.key()
    }
    fn id(&self) -> &'static str {
        self.step.id()
    }
    fn title(&self) -> String {
        self.step.title()
    }
    fn why(&self) -> Vec<String> {
        self.step.why()
    }
    fn risk(&self) -> Risk {
        self.step.risk()
    }
    fn holds_until(&self) -> Option<&'static str> {
        self.step.holds_until()
    }
    fn blind_to(&self) -> &'static [&'static str] {
        self.step.blind_to()
    }
    fn limit(&self) -> Duration {
        self.step.limit()
    }
    fn fields(&self) -> Result<Value, Failure> {
        self.step.fields()
    }
    async fn check(&self, cx: &Estate, seen: Seen<'_, Value>) -> Result<Check<Value>, Failure> {
        if self.way == Way::NoCheck {
            return Err(Failure::plain("made to fail", None));
        }
        self.step.check(cx, seen).await
    }
    async fn apply(&self, cx: &Estate, seen: Seen<'_, Value>, permit: &Permit) -> Result<(), Failure> {
        match self.way {
            Way::Twice => self.step.apply(cx, again(&seen), permit).await?,
            Way::NoApply => return Err(Failure::plain("made to fail", None)),
            Way::NoCheck => {}
        }
        self.step.apply(cx, seen, permit).await
    }
    async fn back(&self, cx: &Estate, before: &Value, seen: Seen<'_, Value>) -> Result<Check<()>, Failure> {
        self.step.back(cx, before, seen).await
    }
    async fn undo(&self, cx: &Estate, before: &Value, seen: Seen<'_, Value>, permit: &Permit) -> Result<(), Failure> {
        if self.way == Way::Twice {
            self.step.undo(cx, before, again(&seen), permit).await?;
        }
        self.step.undo(cx, before, seen, permit).await
    }
    fn was_at_work(&self, before: &Value) -> Result<bool, Failure> {
        self.step.was_at_work(before)
    }
    fn undo_destroys(&self, before: &Value) -> Result<Vec<Thing>, Failure> {
        self.step.undo_destroys(before)
    }
}

fn again<'a>(seen: &Seen<'a, Value>) -> Seen<'a, Value> {
    Seen { since: seen.since, got: seen.got, held: seen.held, run: seen.run }
}

/// Makes the steps of which `which` is true odd.
fn make_odd(rig: &mut Rig, way: Way, which: impl Fn(usize) -> bool) {
    let steps = std::mem::take(&mut rig.steps).into_iter().enumerate();
    let wrap = |(n, step)| if which(n) { Box::new(Odd { step, way }) as BoxedStep } else { step };
    rig.steps = steps.map(wrap).collect();
}

/// Step `n` fails, there and only there; then it goes on as if nothing had been. False where it is a hold that guards
/// nothing: what that would have said does not matter.
async fn fails_there(story: &mut Story, n: usize) -> bool {
    let key = story.rig.steps[n].key();
    let of = |r: &&Record| matches!(&r.event, Event::Applied { key: of, .. } if *of == key);
    let applies = story.run.records.iter().any(|r| of(&r));
    let way = if applies { Way::NoApply } else { Way::NoCheck };
    let id = story.run.id.clone();
    let rig = story.after(n);
    make_odd(rig, way, |k| k == n);
    let stopped = rig.forward(Some(&id), &How::default()).await;
    let needless = |r: &Record| matches!(&r.event, Event::AlreadySo { key: of, needless: true, .. } if *of == key);
    if !applies && stopped.records.iter().any(needless) {
        assert_done(&stopped, &format!("{key}, which guards nothing"));
        return false;
    }
    let Ok(Ended::Stopped(stop)) = &stopped.ended else { panic!("{key}: {:#?}", stopped.ended) };
    // A hold asks what lies between it and its closer before it is put up.
    let by_a_hold = rig.steps[..n].iter().any(|s| s.holds_until().is_some() && s.key() == stop.key);
    assert!(stop.key == key || (!applies && by_a_hold), "{key}: {stop:#?}");
    rig.mend();
    assert_done(&rig.forward(Some(&id), &How::default()).await, &format!("after a failure of {key}"));
    assert_same(&rig.picture().await, &story.last, &format!("after a failure of {key}"));
    true
}

/// Idempotent, undoable after every step, and a check never changes anything.
async fn prove(world: &str) {
    let mut story = Story::forward(world).await;
    let (id, steps) = (story.run.id.clone(), story.rig.steps.len());
    let all = calls(&story.run.records);
    assert!(all > 1, "{all}");

    let (mut asked, mut turns, mut failed, mut undone) = (0, 0, 0, 0);
    for n in 0..=steps {
        // The question in every state between steps: it changes nothing, and where it is a step's turn that step is
        // not blocked.
        let rig = story.after(n);
        let before = rig.changes();
        for (k, step) in rig.steps.iter().enumerate() {
            let info = rig.bench.store.info(&id, "here").unwrap();
            let held = std::collections::BTreeMap::new();
            let seen = Seen { since: None, got: &[], held: &held, run: &info };
            let answer = step.check(&rig.estate, seen).await;
            if k == n {
                let blocked = matches!(&answer, Ok(check) if matches!(check.answer, Answer::Blocked { .. }));
                assert!(answer.is_ok() && !blocked, "{} at its turn: {answer:#?}", step.id());
                turns += 1;
            }
            asked += 1;
        }
        assert_eq!(rig.changes(), before, "a check changed something after {n} steps");

        if n < steps {
            failed += usize::from(fails_there(&mut story, n).await);
        }
        if n > 0 {
            let rig = story.after(n);
            assert_undone(&rig.backward(&id, &How::default()).await, &format!("undo after {n}"));
            assert_same(&rig.picture().await, &story.first, &format!("undo after {n}"));
            undone += 1;
        }
    }
    assert_eq!((asked, turns), ((steps + 1) * steps, steps));
    // 04a alone may guard nothing.
    assert!(failed + 1 >= steps, "{failed}");
    assert_eq!(undone, steps);

    // A second run changes nothing.
    let rig = story.after(steps);
    assert_done(&rig.forward(Some(&id), &How::default()).await, "its last line");
    let before = rig.changes();
    let second = rig.forward(None, &How::default()).await;
    assert_done(&second, "second");
    assert_eq!((calls(&second.records), rig.changes()), (0, before), "a second run changes nothing");
    assert_same(&rig.picture().await, &story.last, "after a second run");

    // A shorter plan, without the closers of its holds, that is done and undone.
    let mut rig = Rig::new(world).await;
    rig.steps.truncate(steps / 2);
    let part = rig.forward(None, &How::default()).await;
    assert_done(&part, "half of it");
    assert_undone(&rig.backward(&part.id, &How::default()).await, "half of it");
    assert_same(&rig.picture().await, &story.first, "half of it, undone");

    // Applied twice, undone twice.
    let mut rig = Rig::new(world).await;
    make_odd(&mut rig, Way::Twice, |_| true);
    let twice = rig.forward(None, &How::default()).await;
    assert_done(&twice, "applied twice");
    assert_same(&rig.picture().await, &story.last, "applied twice");
    assert_eq!(calls(&twice.records), rig.changes());
    assert_undone(&rig.backward(&twice.id, &How::default()).await, "undone twice");
    assert_same(&rig.picture().await, &story.first, "undone twice");
    println!(
        "prove {world}: {steps} steps, {all} calls, {asked} checks asked, {failed} failed and resumed, {undone} undone"
    );
}

/// Which way a run goes, and which way it goes on after a cut.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Forwards, cut, resumed.
    Resume,
    /// Forwards, cut, undone.
    Undo,
    /// Forwards to the end, undone, cut, undone again.
    UndoAgain,
}

/// At how many points the process is really cut: each must leave what its scene shows, and go on as from there.
const CONTROLS: usize = 4;

/// Stopped at every point.
async fn crash(world: &str, then: Then) {
    let mut story = if then == Then::UndoAgain { Story::backward(world).await } else { Story::forward(world).await };
    let goal = if then == Then::Resume { story.last.clone() } else { story.first.clone() };
    let scenes = std::mem::take(&mut story.scenes.points);
    // Nothing is undone of a run whose first line was not written.
    let from = usize::from(then == Then::Undo);
    for (point, scene) in &scenes[from..] {
        story.rig.go_back(scene);
        goes_on(&story.rig, &story.run.id, then, &goal, &format!("{point:?}")).await;
    }

    let (mut cut, apart) = (0, scenes.len() / CONTROLS);
    for (point, scene) in scenes.iter().skip(apart / 2).step_by(apart) {
        let what = format!("{point:?}, cut");
        let rig = Rig::new(world).await;
        let how = How { cut_at: Some(point.n), ..How::default() };
        let run = if then == Then::UndoAgain {
            let run = rig.forward(None, &How::default()).await;
            assert_done(&run, &what);
            rig.backward(&run.id, &how).await
        } else {
            rig.forward(None, &how).await
        };
        assert!(is_cut(&run) && run.id == story.run.id, "{what}: {:#?}", run.ended);
        story.rig.go_back(scene);
        assert_eq!(rig.bench.told(&run.id), story.rig.bench.told(&run.id), "{what}");
        // What is on its way arrives in both before they are compared.
        let (left, scene) = tokio::join!(rig.later(), story.rig.later());
        assert_same(&left, &scene, &what);
        goes_on(&rig, &run.id, then, &goal, &what).await;
        cut += 1;
    }
    let verb = match then {
        Then::Resume => "cut and resumed",
        Then::Undo => "cut and undone",
        Then::UndoAgain => "of the undo cut and undone again",
    };
    let taken = scenes.len() - from;
    println!("crash {world}: {taken} of {} points {verb}", scenes.len());
    assert!(taken > 20 && cut >= CONTROLS, "{taken} {cut}");
}

async fn goes_on(rig: &Rig, id: &str, then: Then, goal: &Value, what: &str) {
    if then == Then::Resume {
        assert_done(&rig.forward(Some(id), &How::default()).await, what);
    } else {
        assert_undone(&rig.backward(id, &How::default()).await, what);
    }
    assert_same(&rig.picture().await, goal, what);
}

const RULES: usize = 4;

/// The rules of the proof: a clear no, an error, silence, an effect without an answer.
fn rule(n: usize) -> FaultEffect {
    match n % RULES {
        0 => FaultEffect::Refuse,
        1 => FaultEffect::Status(500, "injected".into()),
        2 => FaultEffect::Hang,
        _ => FaultEffect::ResetAfter,
    }
}

/// Every changing call of an API fails once: the run fails there, and can be resumed. One rule at each call in turns,
/// or all of them at each.
async fn faults(world: &str, all_of_them: bool) {
    let Story { last, run, .. } = Story::forward(world).await;
    let of = |system: System| {
        run.records.iter().filter(|r| matches!(&r.event, Event::Call { note, .. } if note.system == system)).count()
    };
    let (mut met, mut behind, mut expected) = (0, 0, 0);
    for (front, system) in [(Front::Proxmox, System::Proxmox), (Front::Kubernetes, System::Kubernetes)] {
        let here = of(system);
        expected += here * if all_of_them { RULES } else { 1 };
        for n in 0..here {
            for turn in if all_of_them { 0..RULES } else { n..n + 1 } {
                let rig = Rig::new(world).await.hasty();
                let skip = u32::try_from(n).unwrap();
                rig.lab.fault(FaultRule::on(front, rule(turn)).class(Class::Change).skip(skip).times(1));
                let failed = rig.forward(None, &How::default()).await;
                let what = format!("{front:?} call {n} {:?}", rule(turn));
                // How often step 10 has to ask Flux again varies with the clock: the last call may not come.
                if n + 1 == here && matches!(failed.ended, Ok(Ended::Done)) {
                    behind += 1;
                    continue;
                }
                let Ok(Ended::Stopped(stop)) = &failed.ended else { panic!("{what}: {:#?}", failed.ended) };
                assert!(matches!(stop.why, Why::Failed { .. }), "{what}: {stop:#?}");
                assert_eq!(rig.bench.read(&failed.id).state.stage(&stop.key), Stage::Begun, "{what}");
                assert_done(&rig.forward(Some(&failed.id), &How::default()).await, &what);
                assert_same(&rig.picture().await, &last, &what);
                met += 1;
            }
        }
    }
    assert_eq!(met + behind, expected);
    let calls = of(System::Proxmox) + of(System::Kubernetes);
    println!("faults {world}: {met} at {calls} changing calls, {behind} behind the end");
    assert!(met > 10 && behind <= RULES, "{met} {behind}");
}

/// A question that is answered badly once changes nothing of the outcome: it is asked again, at once or by `resume`.
async fn faults_on_reads(world: &str) {
    let last = Story::forward(world).await.last;
    let mut met = 0;
    for front in [Front::Proxmox, Front::Kubernetes, Front::Ssh] {
        for n in 0..RULES {
            let rig = Rig::new(world).await.hasty();
            let skip = u32::try_from(if front == Front::Ssh { n } else { 9 * n + 3 }).unwrap();
            let class = if front == Front::Ssh { Class::Look } else { Class::Read };
            rig.lab.fault(FaultRule::on(front, rule(n)).class(class).skip(skip).times(1));
            let what = format!("{front:?} read {skip} {:?}", rule(n));
            let mut run = rig.forward(None, &How::default()).await;
            if let Ok(Ended::Stopped(_)) = &run.ended {
                run = rig.forward(Some(&run.id), &How::default()).await;
            }
            assert_done(&run, &what);
            assert_same(&rig.picture().await, &last, &what);
            let hit: u32 = rig.lab.shared().clear_faults().iter().map(|rule| rule.met).sum();
            assert!(hit > skip, "{what}: no such read");
            met += 1;
        }
    }
    assert_eq!(met, 3 * RULES);
    println!("faults {world}: {met} at reads");
}

/// A push that is refused stops 09a; once it is taken, the run goes on.
async fn a_refused_push(world: &str) {
    let last = Story::forward(world).await.last;
    let rig = Rig::new(world).await;
    let refuse = rig.dir().join("gitops.git/refuse");
    std::fs::write(&refuse, "the branch is frozen tonight").unwrap();
    let stopped = rig.forward(None, &How::default()).await;
    let Ok(Ended::Stopped(stop)) = &stopped.ended else { panic!("{:#?}", stopped.ended) };
    assert_eq!(stop.key.as_str(), "09a-update-manifests", "{stop:#?}");
    std::fs::remove_file(&refuse).unwrap();
    assert_done(&rig.forward(Some(&stopped.id), &How::default()).await, "the push is taken");
    assert_same(&rig.picture().await, &last, "the push is taken");
}

macro_rules! proofs {
    ($($(#[$why:meta])* $name:ident: $proof:expr;)*) => {
        $(
            $(#[$why])*
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $proof.await;
            }
        )*
    };
}

proofs! {
    usb_move_is_proven: prove("usb-move");
    usb_move_on_an_old_machine_is_proven: prove("usb-move-old");
    usb_move_by_a_token_and_a_mapping_is_proven: prove("usb-move-token");
    usb_move_by_a_token_and_a_mapping_survives_a_cut_and_a_resume: crash("usb-move-token", Then::Resume);
    usb_move_by_a_token_and_a_mapping_survives_a_cut_and_an_undo: crash("usb-move-token", Then::Undo);
    usb_move_survives_a_cut_and_a_resume: crash("usb-move", Then::Resume);
    usb_move_survives_a_cut_and_an_undo: crash("usb-move", Then::Undo);
    usb_move_survives_a_cut_of_its_undo: crash("usb-move", Then::UndoAgain);
    usb_move_survives_failing_changes: faults("usb-move", false);
    usb_move_survives_failing_reads: faults_on_reads("usb-move");
    usb_move_survives_a_refused_push: a_refused_push("usb-move");
    #[ignore = "takes long: ./scripts/test --long"]
    usb_move_on_an_old_machine_survives_a_cut_and_a_resume: crash("usb-move-old", Then::Resume);
    #[ignore = "takes long: ./scripts/test --long"]
    usb_move_on_an_old_machine_survives_a_cut_and_an_undo: crash("usb-move-old", Then::Undo);
    #[ignore = "takes long: ./scripts/test --long"]
    usb_move_on_an_old_machine_survives_a_cut_of_its_undo: crash("usb-move-old", Then::UndoAgain);
    #[ignore = "takes long: ./scripts/test --long"]
    usb_move_by_a_token_and_a_mapping_survives_a_cut_of_its_undo: crash("usb-move-token", Then::UndoAgain);
    #[ignore = "takes long: ./scripts/test --long"]
    usb_move_survives_every_fault_at_every_call: faults("usb-move", true);
    #[ignore = "takes long: ./scripts/test --long"]
    usb_move_on_an_old_machine_survives_every_fault_at_every_call: faults("usb-move-old", true);
}
