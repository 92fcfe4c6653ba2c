//! The way forwards of a blueprint that destroys: every step fails once, every point is cut, and each time it ends where an
//! undisturbed run does.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic, and says its counts")]

use std::collections::BTreeMap;

use pvemig::base::check::Answer;
use pvemig::base::permit::Thing;
use pvemig::engine::event::{Event, Record};
use pvemig::engine::run::{Ended, Why};
use pvemig::engine::step::Seen;
use serde_json::Value;

use super::estate::Rig;
use super::odd::{Way, make_odd};
use super::oneway::Proof;
use super::same::{assert_done, assert_same};
use super::scene::{Scene, Scenes};
use super::{How, points_expected, why};

/// What a proof counted.
#[derive(Default)]
pub struct Counted {
    pub steps: usize,
    /// Questions in all states between steps.
    pub asked: usize,
    /// Steps that failed and were gone on with.
    pub failed: usize,
    /// Undos that came back to where it began.
    pub undone: usize,
    /// Undos that stopped; of those the ones for want of a consent.
    pub stopped: usize,
    pub unconsented: usize,
    /// What the undos changed.
    pub changed: usize,
}

impl Counted {
    /// In one line.
    pub fn said(&self, name: &str) -> String {
        let Self { steps, asked, failed, undone, stopped, .. } = self;
        format!(
            "prove {name}: {steps} steps, {asked} checks asked, {failed} failed and resumed, {undone} undone, {stopped} undos refused"
        )
    }
}

impl<Fresh, Look, Good> Proof<'_, Fresh, Look, Good>
where
    Fresh: AsyncFn() -> Rig,
    Look: AsyncFn(&Rig) -> Value,
    Good: AsyncFn(&Rig, &str),
{
    /// In every state between steps: a question changes nothing, at its turn no step is blocked, and one that fails fails
    /// there, and is gone on with. What can be taken back is, and where it cannot be that is said.
    pub async fn goes_forwards(&self) -> Counted {
        let mut rig = (self.fresh)().await;
        let first = (self.look)(&rig).await;
        let (run, Scenes { settled, .. }) = rig.watched(None, &(self.how)()).await;
        assert_done(&run, "undisturbed");
        let last = (self.look)(&rig).await;
        let mut counted = Counted { steps: rig.steps.len(), ..Counted::default() };
        assert_eq!(settled.len(), counted.steps + 1);
        for (n, scene) in settled.iter().enumerate() {
            rig.go_back(scene);
            counted.asked += self.asks_all(&rig, &run.id, n).await;
            if n < counted.steps {
                self.fails_there(&mut rig, &run.id, &run.records, n, &last).await;
                counted.failed += 1;
            }
            if n > 0 {
                self.takes_back(&mut rig, (run.id.as_str(), n), scene, &first, &mut counted).await;
            }
        }
        assert_eq!((counted.asked, counted.failed), ((counted.steps + 1) * counted.steps, counted.steps));
        counted
    }

    async fn asks_all(&self, rig: &Rig, id: &str, n: usize) -> usize {
        let before = rig.changes();
        for (k, step) in rig.steps.iter().enumerate() {
            let mut info = rig.bench.store.info(id, "here").unwrap();
            info.consents = (self.how)().consents.into_iter().map(Thing).collect();
            info.granted = info.consents.clone();
            let held = BTreeMap::new();
            let answer = step.check(&rig.estate, Seen { since: None, got: &[], held: &held, run: &info }).await;
            if k == n {
                let blocked = matches!(&answer, Ok(check) if matches!(check.answer, Answer::Blocked { .. }));
                assert!(answer.is_ok() && !blocked, "{} at its turn: {answer:#?}", step.key());
            }
        }
        assert_eq!(rig.changes(), before, "a check changed something after {n} steps");
        rig.steps.len()
    }

    async fn fails_there(&self, rig: &mut Rig, id: &str, records: &[Record], n: usize, last: &Value) {
        let key = rig.steps[n].key();
        let of = |r: &Record| matches!(&r.event, Event::Applied { key: of, .. } if *of == key);
        make_odd(rig, if records.iter().any(of) { Way::NoApply } else { Way::NoCheck }, |k| k == n);
        let odd = rig.forward(Some(id), &(self.how)()).await;
        assert_eq!(why(&odd).0, key.as_str());
        rig.mend();
        let (rig, what): (&Rig, _) = (rig, format!("after a failure of {key}"));
        assert_done(&rig.forward(Some(id), &(self.how)()).await, &what);
        (self.safe)(rig, &what);
        (self.good)(rig, &what).await;
        assert_same(&(self.look)(rig).await, last, &what);
    }

    async fn takes_back(
        &self,
        rig: &mut Rig,
        (id, n): (&str, usize),
        scene: &Scene,
        first: &Value,
        counted: &mut Counted,
    ) {
        rig.go_back(scene);
        let rig: &Rig = rig;
        let (before, what) = (rig.changes(), format!("undo after {n}"));
        let undo = rig.backward(id, &How::default()).await;
        let destroyed = (self.safe)(rig, &what);
        match &undo.ended {
            Ok(Ended::Undone) => {
                assert!(!destroyed, "{what}: something is gone, and it was called undone");
                assert_same(&(self.look)(rig).await, first, &what);
                counted.undone += 1;
            }
            Ok(Ended::Stopped(stop)) => {
                assert!(destroyed, "{what}: {stop:#?}");
                counted.stopped += 1;
                counted.unconsented += usize::from(matches!(stop.why, Why::Consent { .. }));
            }
            other => panic!("{what}: {other:#?}"),
        }
        counted.changed += rig.changes() - before;
    }

    /// A process that is stopped at any point: the next one goes on, and ends where an undisturbed one does. `once`: what
    /// must come about once, as what there is of it, and how often it was asked for.
    pub async fn is_cut_and_resumed(&self, resumed: &How, once: impl Fn(&Rig) -> (usize, usize)) -> String {
        let mut rig = (self.fresh)().await;
        let (run, Scenes { points, settled }) = rig.watched(None, &(self.how)()).await;
        assert_done(&run, "undisturbed");
        (self.good)(&rig, "undisturbed").await;
        assert_eq!((points.len(), settled.len()), (points_expected(&run.records), rig.steps.len() + 1));
        let last = (self.look)(&rig).await;
        for (point, scene) in &points {
            let what = format!("{point:?}");
            rig.go_back(scene);
            (self.safe)(&rig, &what);
            let (had, before) = once(&rig);
            assert_done(&rig.forward(Some(&run.id), resumed).await, &what);
            assert_eq!(had + once(&rig).1 - before, 1, "{what}: there at the cut, and asked for since");
            (self.good)(&rig, &what).await;
            assert_same(&(self.look)(&rig).await, &last, &what);
        }
        assert!(points.len() > 20, "{}", points.len());
        format!("crash {}: {} points cut and resumed", self.name, points.len())
    }
}
