//! What is proven of a blueprint that destroys: besides the way forwards (`forwards`), the way back as far as there is one, a
//! step that is applied twice, and questions and changes that go wrong.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic, and says its counts")]

use pvemig::engine::run::Ended;
use pvemig::lab::{Class, FaultEffect, FaultRule, Front};
use serde_json::Value;

use super::How;
use super::estate::Rig;
use super::faults::{each, rules};
use super::odd::{Way, make_odd};
use super::same::{assert_done, assert_same};

/// What the proofs take of a blueprint and its world.
pub struct Proof<'p, Fresh, Look, Good> {
    /// What it is called in the counts.
    pub name: &'p str,
    /// A new estate, before anything is done.
    pub fresh: Fresh,
    /// The consents.
    pub how: fn() -> How,
    /// The estate as it is compared.
    pub look: Look,
    /// What must hold at every moment; whether something is destroyed by now.
    pub safe: fn(&Rig, &str) -> bool,
    /// What must hold at the end.
    pub good: Good,
}

impl<Fresh, Look, Good> Proof<'_, Fresh, Look, Good>
where
    Fresh: AsyncFn() -> Rig,
    Look: AsyncFn(&Rig) -> Value,
    Good: AsyncFn(&Rig, &str),
{
    /// A run that is cut at any point and then undone: back where it began as long as nothing is destroyed, and else
    /// refused, each time in the same words, with nothing changed by the refusal.
    pub async fn is_cut_and_undone(&self) -> String {
        let mut rig = (self.fresh)().await;
        let first = (self.look)(&rig).await;
        let (run, scenes) = rig.watched(None, &(self.how)()).await;
        assert_done(&run, "undisturbed");
        let (mut undone, mut refused) = (0, 0);
        // Nothing is undone of a run whose first line was not written.
        for (point, scene) in &scenes.points[1..] {
            let what = format!("{point:?}, undone");
            rig.go_back(scene);
            let ended = rig.backward(&run.id, &How::default()).await.ended;
            let destroyed = (self.safe)(&rig, &what);
            match ended {
                Ok(Ended::Undone) => {
                    assert!(!destroyed, "{what}: something is gone, and it was called undone");
                    assert_same(&(self.look)(&rig).await, &first, &what);
                    undone += 1;
                }
                Ok(Ended::Stopped(stop)) => {
                    let before = rig.changes();
                    let again = rig.backward(&run.id, &How::default()).await.ended;
                    let Ok(Ended::Stopped(twice)) = again else { panic!("{what}, twice: {again:#?}") };
                    assert_eq!(twice.key, stop.key, "{what}, twice");
                    assert_eq!(rig.changes(), before, "{what}, twice");
                    (self.safe)(&rig, &what);
                    refused += 1;
                }
                other => panic!("{what}: {other:#?}"),
            }
        }
        assert_eq!(undone + refused + 1, scenes.points.len());
        assert!(undone >= 3 && refused >= 3, "{undone} {refused}");
        format!("crash {}: {undone} of {} points undone, {refused} refused", self.name, scenes.points.len())
    }

    /// Each step applied twice comes to the same.
    pub async fn is_the_same_applied_twice(&self) {
        // In one estate, gone back: each new one has keys of its own.
        let mut rig = (self.fresh)().await;
        let (run, scenes) = rig.watched(None, &(self.how)()).await;
        assert_done(&run, "once");
        let once = (self.look)(&rig).await;
        rig.go_back(&scenes.settled[0]);
        make_odd(&mut rig, Way::Twice, |_| true);
        assert_done(&rig.forward(Some(&run.id), &(self.how)()).await, "twice");
        (self.safe)(&rig, "twice");
        (self.good)(&rig, "twice").await;
        assert_same(&(self.look)(&rig).await, &once, "twice");
    }

    /// A question that is answered badly once changes nothing of the outcome: it is asked again, at once or by `resume`.
    /// `stride`: every how many reads of a front.
    pub async fn survives_failing_reads(&self, fronts: &[(Front, u32)]) -> String {
        let turns = |&(front, stride): &(Front, u32)| {
            rules().into_iter().enumerate().map(move |(n, rule)| (front, stride, n, rule))
        };
        let one = |(front, stride, n, rule): (Front, u32, usize, FaultEffect)| async move {
            let rig = (self.fresh)().await.hasty();
            let skip = u32::try_from(n).unwrap() * stride + 1;
            let what = format!("{front:?} read {skip} {rule:?}");
            rig.lab.fault(FaultRule::on(front, rule).class(Class::Read).skip(skip).times(1));
            let mut run = rig.forward(None, &(self.how)()).await;
            if let Ok(Ended::Stopped(_)) = &run.ended {
                (self.safe)(&rig, &what);
                run = rig.forward(Some(&run.id), &(self.how)()).await;
            }
            assert_done(&run, &what);
            (self.good)(&rig, &what).await;
            let hit: u32 = rig.lab.shared().clear_faults().iter().map(|rule| rule.met).sum();
            assert!(hit > skip, "{what}: no such read");
        };
        let met = each(fronts.iter().flat_map(turns), one).await.len();
        assert_eq!(met, fronts.len() * 4);
        format!("faults {}: {met} reads answered badly", self.name)
    }

    /// Every changing call that is named fails once by a rule, and `resume` goes on from there. A case: the front, how many
    /// of its changing calls come before that one, and the rule. How many runs failed there; the others saw in time that it
    /// had come about all the same.
    pub async fn survives_failing_changes(&self, cases: Vec<(Front, u32, FaultEffect)>, resumed: &How) -> usize {
        let one = |(front, skip, rule): (Front, u32, FaultEffect)| async move {
            let what = format!("{front:?} call {skip} {rule:?}");
            let rig = (self.fresh)().await.hasty();
            rig.lab.fault(FaultRule::on(front, rule).class(Class::Change).skip(skip).times(1));
            let run = rig.forward(None, &(self.how)()).await;
            assert!(rig.lab.shared().clear_faults().iter().any(|rule| rule.met > skip), "{what}: no such call");
            (self.safe)(&rig, &what);
            let failed = match &run.ended {
                Ok(Ended::Done) => false,
                Ok(Ended::Stopped(_)) => true,
                other => panic!("{what}: {other:#?}"),
            };
            if failed {
                assert_done(&rig.forward(Some(&run.id), resumed).await, &what);
            }
            (self.good)(&rig, &what).await;
            failed
        };
        each(cases, one).await.into_iter().filter(|failed| *failed).count()
    }
}
