//! `cluster-build` on the lab: three machines become one cluster, whatever happens on the way; never two clusters, and
//! never a disk wiped that nobody gave.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic, and says its counts")]

mod alone;
mod elsewhere;
mod findings;
mod installed;
mod kubeconfig;
mod least;
mod refused;
mod safekeeping;

use std::collections::BTreeMap;

use crate::harness::estate::{Rig, at_rest};
use crate::harness::same::assert_done;
use crate::harness::scene::Scenes;
use crate::harness::{How, Run, calls, why};
use pvemig::base::permit::System;
use pvemig::blueprint::{self, BoxedStep};
use pvemig::engine::event::Event;
use pvemig::engine::run::Ended;
use pvemig::engine::step::Seen;
use pvemig::lab::{Front, World};
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

/// Whatever happens on the way: forwards, back as far as there is a way back, applied twice, with faults.
mod oneway {
    use super::*;
    use crate::harness::faults::rules;
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
    async fn a_build_is_proven_forwards() {
        let counted = proof().goes_forwards().await;
        println!("{}", counted.said(WORLD));
        // Nothing of an installation is taken back, and that is said before anything is.
        assert!(counted.stopped > 5 && counted.unconsented == counted.stopped, "{}", counted.said(WORLD));
        assert_eq!(counted.changed, 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_build_that_is_cut_anywhere_is_finished_by_a_resume() {
        // etcd is asked to begin once, before the cut or after it.
        let begun = |rig: &Rig| (rig.lab.shared().read(|w| w.etcd_clusters()), bootstraps(rig));
        println!("{}", proof().is_cut_and_resumed(&consenting(), begun).await);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_build_that_is_cut_anywhere_is_undone_or_says_what_stays() {
        println!("{}", proof().is_cut_and_undone().await);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_build_whose_steps_are_applied_twice_is_the_same() {
        proof().is_the_same_applied_twice().await;
    }

    /// Every changing call fails once by each rule: three configurations and a bootstrap.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_build_survives_failing_changes() {
        let calls = (0..4).flat_map(|n| rules().map(|rule| (Front::Talos, n, rule)));
        assert_eq!(proof().survives_failing_changes(calls.collect(), &How::default()).await, 16);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_build_survives_failing_questions() {
        // How often Kubernetes is asked depends on how long the nodes take: twice at least.
        println!("{}", proof().survives_failing_reads(&[(Front::Talos, 40), (Front::Kubernetes, 0)]).await);
    }
}
