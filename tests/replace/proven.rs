//! Two of the eight, whatever happens on the way: each step fails, each point is cut, each changing call goes wrong.

use pvemig::base::check::Answer;
use pvemig::base::permit::System;
use pvemig::engine::event::Event;
use pvemig::engine::step::Seen;
use pvemig::lab::{Class, FaultEffect, FaultRule, Front};

use super::*;
use crate::harness::faults::{each, rules};
use crate::harness::odd::{Way, make_odd};
use crate::harness::points_expected;
use crate::harness::same::{assert_same, assert_undone};
use crate::harness::scene::Scenes;

const DEAD: Case = Case { dead: true, ..MAC };

/// In every state between steps: a question changes nothing, at its turn no step is blocked, and one that fails fails
/// there, and is gone on with. What can be taken back is, and the rest is said.
async fn forwards(case: Case) -> String {
    let mut rig = rig(case).await;
    let first = rig.picture().await;
    let (run, Scenes { settled, .. }) = rig.watched(None, &case.consenting()).await;
    assert_done(&run, "undisturbed");
    let (last, steps) = (rig.picture().await, rig.steps.len());
    assert_eq!(settled.len(), steps + 1);
    let (mut asked, mut failed, mut undone, mut stopped) = (0, 0, 0, 0);
    for (n, scene) in settled.iter().enumerate() {
        rig.go_back(scene);
        let before = rig.changes();
        for (k, step) in rig.steps.iter().enumerate() {
            let mut info = rig.bench.store.info(&run.id, "here").unwrap();
            info.consents = case.consents().into_iter().map(pvemig::base::permit::Thing).collect();
            info.granted = info.consents.clone();
            let held = Default::default();
            let answer = step.check(&rig.estate, Seen { since: None, got: &[], held: &held, run: &info }).await;
            if k == n {
                let blocked = matches!(&answer, Ok(check) if matches!(check.answer, Answer::Blocked { .. }));
                assert!(answer.is_ok() && !blocked, "{} at its turn: {answer:#?}", step.key());
            }
            asked += 1;
        }
        assert_eq!(rig.changes(), before, "a check changed something after {n} steps");
        if n < steps {
            let key = rig.steps[n].key();
            let is =
                |r: &pvemig::engine::event::Record| matches!(&r.event, Event::Applied { key: of, .. } if *of == key);
            let applies = run.records.iter().any(is);
            make_odd(&mut rig, if applies { Way::NoApply } else { Way::NoCheck }, |k| k == n);
            let odd = rig.forward(Some(&run.id), &case.consenting()).await;
            assert_eq!(why(&odd).0, key.as_str());
            rig.mend();
            let what = format!("after a failure of {key}");
            assert_done(&rig.forward(Some(&run.id), &case.consenting()).await, &what);
            assert_replaced(&rig, case, &what).await;
            assert_same(&rig.picture().await, &last, &what);
            failed += 1;
        }
        if n == 0 {
            continue;
        }
        rig.go_back(scene);
        let what = format!("undo after {n}");
        let undo = rig.backward(&run.id, &How::default()).await;
        // 03 is what does not come back.
        if n <= 3 {
            assert_undone(&undo, &what);
            assert_same(&rig.picture().await, &first, &what);
            undone += 1;
        } else {
            assert!(matches!(undo.ended, Ok(Ended::Stopped(_))), "{what}: {:#?}", undo.ended);
            assert_safe(&rig, case, &what);
            stopped += 1;
        }
    }
    assert_eq!((asked, failed, undone, stopped), ((steps + 1) * steps, steps, 3, 8));
    format!(
        "prove {case:?}: {steps} steps, {asked} checks asked, {failed} failed and resumed, {undone} undone, {stopped} undos refused"
    )
}

/// A process that is stopped at any point: the next one goes on, and ends where an undisturbed one does.
async fn cut(case: Case) -> String {
    let mut rig = rig(case).await;
    let (run, Scenes { points, .. }) = rig.watched(None, &case.consenting()).await;
    assert_done(&run, "undisturbed");
    assert_eq!(points.len(), points_expected(&run.records));
    let last = rig.picture().await;
    for (point, scene) in &points {
        let what = format!("{point:?}");
        rig.go_back(scene);
        assert_done(&resumed(&rig, &run.id, &case.consenting()).await, &what);
        assert_replaced(&rig, case, &what).await;
        assert_same(&rig.picture().await, &last, &what);
    }
    assert!(points.len() > 20, "{}", points.len());
    format!("crash {case:?}: {} points cut and resumed", points.len())
}

/// Every changing call fails once by each rule.
async fn faults(case: Case) -> String {
    let undisturbed = rig(case).await.forward(None, &case.consenting()).await;
    let calls: Vec<(System, String)> = undisturbed
        .records
        .iter()
        .filter_map(|r| match &r.event {
            Event::Call { note, .. } => Some((note.system, note.text.clone())),
            _ => None,
        })
        .collect();
    let cases = calls.iter().enumerate().flat_map(|(at, (system, text))| {
        let skip: u32 = calls.iter().take(at).filter(|(of, _)| of == system).count().try_into().unwrap();
        rules().map(|rule| (*system, text.as_str(), skip, rule))
    });
    // Talos itself tries for minutes, so long is waited for its answer.
    let cases = cases.filter(|(_, text, _, rule)| !text.contains("EtcdLeaveCluster") || *rule != FaultEffect::Hang);
    let one = |(system, text, skip, rule): (System, &str, u32, FaultEffect)| {
        let what = format!("{text} {rule:?}");
        async move { fault(case, system, skip, rule, &what).await }
    };
    let met = each(cases, one).await.len();
    assert!(met >= 4 * calls.len() - 1 && calls.len() >= 4, "{met} {calls:?}");
    format!("faults {case:?}: {} calls, {met} faults", calls.len())
}

/// A changing call fails once.
async fn fault(case: Case, system: System, skip: u32, rule: FaultEffect, what: &str) {
    let front = match system {
        System::Talos => Front::Talos,
        System::Kubernetes => Front::Kubernetes,
        other => panic!("{other:?}"),
    };
    let rig = rig(case).await.hasty();
    rig.lab.fault(FaultRule::on(front, rule).class(Class::Change).skip(skip).times(1));
    let failed = rig.forward(None, &case.consenting()).await;
    assert!(rig.lab.shared().clear_faults().iter().any(|rule| rule.met > skip), "{what}");
    assert_safe(&rig, case, what);
    // What happened all the same may be seen in time.
    if !matches!(failed.ended, Ok(Ended::Done)) {
        assert!(matches!(failed.ended, Ok(Ended::Stopped(_))), "{what}: {:#?}", failed.ended);
        // Whether it took its shutdown is not known where the answer was lost: then a person is asked for his word.
        assert_done(&resumed(&rig, &failed.id, &How::default()).await, what);
    }
    assert_replaced(&rig, case, what).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_one_is_proven_forwards() {
    println!("{}", forwards(DEAD).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_living_one_is_proven_forwards() {
    println!("{}", forwards(MAC_IN_PLACE).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_place_of_a_dead_one_cut_anywhere_is_filled_by_a_resume() {
    println!("{}", cut(DEAD).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_place_of_a_living_one_cut_anywhere_is_filled_by_a_resume() {
    println!("{}", cut(MAC_IN_PLACE).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_place_of_a_dead_one_is_filled_though_changes_fail() {
    println!("{}", faults(DEAD).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_place_of_a_living_one_is_filled_though_changes_fail() {
    println!("{}", faults(MAC_IN_PLACE).await);
}

/// The way back, as far as there is one; steps applied twice; questions answered badly.
mod oneway {
    use super::*;
    use crate::harness::oneway::Proof;

    macro_rules! proof {
        ($case:ident) => {
            Proof {
                name: stringify!($case),
                fresh: async || rig($case).await,
                how: || $case.consenting(),
                look: async |rig: &Rig| rig.picture().await,
                // The member that is out is what does not come back first.
                safe: |rig, what| {
                    assert_safe(rig, $case, what);
                    rig.lab.shared().read(|w| {
                        let is_old = |name: &str| w.talos.nodes[$case.old].member.is_some() && name == $case.old;
                        !w.talos.etcd.members.iter().any(|member| is_old(&member.name))
                    })
                },
                good: async |rig: &Rig, what: &str| assert_replaced(rig, $case, what).await,
            }
        };
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_cut_anywhere_is_undone_or_says_what_stays() {
        println!("{}", proof!(DEAD).is_cut_and_undone().await);
        println!("{}", proof!(MAC_IN_PLACE).is_cut_and_undone().await);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn steps_that_are_applied_twice_come_to_the_same() {
        proof!(DEAD).is_the_same_applied_twice().await;
        proof!(MAC_IN_PLACE).is_the_same_applied_twice().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn questions_that_are_answered_badly_change_nothing_of_the_outcome() {
        println!("{}", proof!(DEAD).survives_failing_reads(&[(Front::Talos, 25), (Front::Kubernetes, 9)]).await);
        println!(
            "{}",
            proof!(MAC_IN_PLACE).survives_failing_reads(&[(Front::Talos, 25), (Front::Kubernetes, 9)]).await
        );
    }
}
