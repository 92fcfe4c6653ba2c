//! `cluster-build` on the lab: three machines become one cluster, whatever happens on the way; never two clusters, and
//! never a disk wiped that nobody gave.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic, and says its counts")]

mod elsewhere;
mod installed;
mod kubeconfig;
mod refused;
mod safekeeping;

use std::collections::BTreeMap;

use crate::harness::estate::{Rig, at_rest};
use crate::harness::odd::{Way, make_odd};
use crate::harness::same::{assert_done, assert_same};
use crate::harness::scene::Scenes;
use crate::harness::{How, Run, calls, points_expected};
use pvemig::base::check::Answer;
use pvemig::base::permit::System;
use pvemig::blueprint::{self, BoxedStep};
use pvemig::engine::event::Event;
use pvemig::engine::run::{Ended, Why};
use pvemig::engine::step::Seen;
use pvemig::lab::{FaultEffect, FaultRule, Front, World};
use serde_json::Value;

const WORLD: &str = "talos-fresh";
/// The disk that is not empty.
const MAC: &str = "S2ZRNYAH500749";

fn consenting() -> How {
    How {
        consents: ["S5GXNF0R601234", "talos-vm-root", MAC].map(|serial| format!("disk/{serial}")).into(),
        ..How::default()
    }
}

async fn rig(change: impl FnOnce(&mut World), edit: impl FnOnce(&mut Value)) -> Rig {
    let mut world = at_rest(WORLD);
    change(&mut world);
    Rig::of(world, edit).await
}

async fn fresh() -> Rig {
    rig(|_| {}, |_| {}).await
}

/// The requests to begin an etcd that the lab saw; none but the first machine is ever asked.
fn bootstraps(rig: &Rig) -> usize {
    let log = std::fs::read_to_string(rig.dir().join("requests.jsonl")).unwrap();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("MachineService/Bootstrap\"")).collect();
    assert!(lines.iter().all(|line| line.contains("talos-nuc/")), "{lines:#?}");
    lines.len()
}

/// What must hold at every moment: at most one etcd, and no disk wiped but those that were given.
fn assert_safe(rig: &Rig, what: &str) {
    let (clusters, wiped) = rig.lab.shared().read(|w| (w.etcd_clusters(), w.talos.wiped.clone()));
    assert!(clusters <= 1, "{what}: {clusters} clusters");
    let given = consenting().consents;
    assert!(wiped.iter().all(|w| given.contains(&format!("disk/{}", w.serial))), "{what}: {wiped:#?}");
    bootstraps(rig);
    let mut count = BTreeMap::new();
    wiped.iter().for_each(|wiped| *count.entry(&wiped.serial).or_insert(0) += 1);
    assert!(count.values().all(|n| *n == 1), "{what}: {count:?}");
}

/// Three voters, each on its disk, once installed.
fn assert_built(rig: &Rig, what: &str) {
    assert_safe(rig, what);
    let (clusters, voters, wiped) = rig.lab.shared().read(|w| {
        let members = &w.talos.etcd.members;
        (w.etcd_clusters(), members.iter().filter(|m| !m.learner).count(), w.talos.wiped.len())
    });
    assert_eq!((clusters, voters, wiped), (1, 3, 3), "{what}");
}

/// The calls of a run that write to this machine.
fn local(run: &Run) -> usize {
    let here = |event: &Event| matches!(event, Event::Call { note, .. } if note.system == System::Local);
    run.records.iter().filter(|record| here(&record.event)).count()
}

/// The steps of another migration of the site.
fn steps_of(rig: &Rig, migration: &str) -> Vec<BoxedStep> {
    let blueprint = &rig.site.migrations[migration].blueprint;
    blueprint::named(blueprint).unwrap().build(&rig.site, migration).unwrap()
}

fn why(run: &Run) -> (&str, String) {
    let Ok(Ended::Stopped(stop)) = &run.ended else { panic!("{:#?}", run.ended) };
    let text = match &stop.why {
        Why::Blocked(problems) => {
            problems.iter().map(|p| format!("{}; {}", p.text, p.help)).collect::<Vec<_>>().join("\n")
        }
        Why::Failed { error, help, .. } => format!("{}\n{}", error.join(": "), help.join("\n")),
        other => format!("{other:?}"),
    };
    (stop.key.as_str(), text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_machines_become_a_cluster_and_a_second_run_changes_nothing() {
    let mut rig = fresh().await;
    let run = rig.forward(None, &consenting()).await;
    assert_done(&run, "build");
    assert_built(&rig, "build");
    // Kubeconfig and talosconfig, and the copies: the directory, site file, both, and the one configuration of all three.
    assert_eq!((calls(&run.records), local(&run)), (rig.changes() + 7, 7));
    let before = rig.changes();
    assert_eq!(bootstraps(&rig), 1);
    let second = rig.forward(None, &How::default()).await;
    assert_done(&second, "second");
    assert_eq!((calls(&second.records), rig.changes()), (0, before), "a second run changes nothing");
    // What was built comes back from a reboot.
    rig.steps = steps_of(&rig, "reboots");
    assert_done(&rig.forward(None, &How::default()).await, "reboots");
    assert_built(&rig, "reboots");
    let starts: Vec<u32> = rig.lab.shared().read(|w| w.talos.nodes.values().map(|node| node.starts).collect());
    assert_eq!(starts, [3, 3, 3], "from the medium, from the disk, and once more");
}

/// A process that is stopped at any point: the next one goes on, and ends where an undisturbed one does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_that_is_cut_anywhere_is_finished_by_a_resume() {
    let mut rig = fresh().await;
    let (run, Scenes { points, settled }) = rig.watched(None, &consenting()).await;
    assert_done(&run, "undisturbed");
    assert_built(&rig, "undisturbed");
    assert_eq!((points.len(), settled.len()), (points_expected(&run.records), rig.steps.len() + 1));
    let last = rig.picture().await;
    for (point, scene) in &points {
        let what = format!("{point:?}");
        rig.go_back(scene);
        let (begun, before) = (rig.lab.shared().read(|w| w.etcd_clusters()), bootstraps(&rig));
        assert_done(&rig.forward(Some(&run.id), &consenting()).await, &what);
        assert_built(&rig, &what);
        assert_eq!(begun + bootstraps(&rig) - before, 1, "{what}: begun, and asked to begin");
        assert_same(&rig.picture().await, &last, &what);
    }
    println!("crash {WORLD}: {} points cut and resumed", points.len());
    assert!(points.len() > 20, "{}", points.len());
}

/// In every state between steps: a question changes nothing, at its turn no step is blocked, and one that fails fails
/// there, and is gone on with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_is_proven_forwards() {
    let mut rig = fresh().await;
    let (run, Scenes { settled, .. }) = rig.watched(None, &consenting()).await;
    assert_done(&run, "undisturbed");
    let (last, steps) = (rig.picture().await, rig.steps.len());
    let (mut asked, mut failed, mut stopped) = (0, 0, 0);
    for (n, scene) in settled.iter().enumerate() {
        rig.go_back(scene);
        let before = rig.changes();
        for (k, step) in rig.steps.iter().enumerate() {
            let mut info = rig.bench.store.info(&run.id, "here").unwrap();
            info.consents = consenting().consents.into_iter().map(pvemig::base::permit::Thing).collect();
            let held = BTreeMap::new();
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
            let applies = run.records.iter().any(|r| matches!(&r.event, Event::Applied { key: of, .. } if *of == key));
            make_odd(&mut rig, if applies { Way::NoApply } else { Way::NoCheck }, |k| k == n);
            let odd = rig.forward(Some(&run.id), &consenting()).await;
            assert_eq!(why(&odd).0, key.as_str());
            rig.mend();
            assert_done(&rig.forward(Some(&run.id), &consenting()).await, &format!("after a failure of {key}"));
            assert_built(&rig, &format!("after a failure of {key}"));
            assert_same(&rig.picture().await, &last, &format!("after a failure of {key}"));
            failed += 1;
        }
        // Nothing of an installation is taken back, and that is said before anything is.
        if n > 0 {
            rig.go_back(scene);
            let before = rig.changes();
            let undo = rig.backward(&run.id, &How::default()).await;
            let installed = rig.lab.shared().read(|w| w.talos.wiped.len());
            match &undo.ended {
                Ok(Ended::Undone) => assert_eq!(installed, 0, "after {n}"),
                Ok(Ended::Stopped(stop)) => {
                    assert!(installed > 0 && matches!(stop.why, Why::Consent { .. }), "after {n}: {stop:#?}");
                    stopped += 1;
                }
                other => panic!("after {n}: {other:#?}"),
            }
            assert_eq!(rig.changes(), before, "after {n}");
        }
    }
    println!(
        "prove {WORLD}: {steps} steps, {asked} checks asked, {failed} failed and resumed, {stopped} undos refused"
    );
    assert_eq!((asked, failed), ((steps + 1) * steps, steps));
    assert!(stopped > 5, "{stopped}");
}

/// Every changing call fails once by each rule.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_survives_failing_changes() {
    let rules = || {
        [FaultEffect::Refuse, FaultEffect::Status(500, "injected".into()), FaultEffect::Hang, FaultEffect::ResetAfter]
    };
    let mut met = 0;
    // Three configurations and a bootstrap.
    for n in 0..4 {
        for rule in rules() {
            let what = format!("call {n} {rule:?}");
            let rig = fresh().await.hasty();
            rig.lab.fault(FaultRule::on(Front::Talos, rule).class(pvemig::lab::Class::Change).skip(n).times(1));
            let failed = rig.forward(None, &consenting()).await;
            let hit = rig.lab.shared().clear_faults().iter().any(|rule| rule.met > n);
            assert!(hit && matches!(failed.ended, Ok(Ended::Stopped(_))), "{what}: {:#?}", failed.ended);
            assert_safe(&rig, &what);
            assert_done(&rig.forward(Some(&failed.id), &How::default()).await, &what);
            assert_built(&rig, &what);
            met += 1;
        }
    }
    assert_eq!(met, 16);
}

/// The way back, as far as there is one; steps applied twice; questions answered badly.
mod oneway {
    use super::*;
    use crate::harness::oneway::Proof;

    fn proof() -> Proof<'static, impl AsyncFn() -> Rig, impl AsyncFn(&Rig) -> Value, impl AsyncFn(&Rig, &str)> {
        Proof {
            name: WORLD,
            fresh: async || fresh().await,
            how: consenting,
            look: async |rig: &Rig| rig.picture().await,
            safe: |rig, what| {
                assert_safe(rig, what);
                rig.lab.shared().read(|w| !w.talos.wiped.is_empty())
            },
            good: async |rig: &Rig, what: &str| assert_built(rig, what),
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_build_that_is_cut_anywhere_is_undone_or_says_what_stays() {
        println!("{}", proof().is_cut_and_undone().await);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_build_whose_steps_are_applied_twice_is_the_same() {
        proof().is_the_same_applied_twice().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_build_survives_failing_questions() {
        // Of Kubernetes no more than one look of 07 is certain: three nodes, of which the second is answered badly.
        println!("{}", proof().survives_failing_reads(&[(Front::Talos, 40), (Front::Kubernetes, 0)]).await);
    }
}
