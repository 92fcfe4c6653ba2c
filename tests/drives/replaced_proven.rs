//! That a replacement of a system disk is resumable and undoable wherever it stops, as far as there is a way back.

use pvemig::lab::{FaultEffect, Front};

use super::replaced::{WORLD, assert_replaced, assert_safe, consenting, fresh};
use super::*;
use crate::harness::faults::rules;
use crate::harness::oneway::Proof;

fn proof() -> Proof<'static, impl AsyncFn() -> Rig, impl AsyncFn(&Rig) -> Value, impl AsyncFn(&Rig, &str)> {
    Proof {
        name: WORLD,
        fresh: async || fresh().await,
        how: consenting,
        look: async |rig: &Rig| rig.picture().await,
        safe: assert_safe,
        good: async |rig: &Rig, what: &str| assert_replaced(rig, what).await,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replacement_is_proven_forwards() {
    let counted = proof().goes_forwards().await;
    println!("{}", counted.said(WORLD));
    assert!(counted.undone >= 5 && counted.stopped >= 4, "{}", counted.said(WORLD));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replacement_that_is_cut_anywhere_is_finished_by_a_resume() {
    // The disk is wiped once, before the cut or after it.
    let wiped = |rig: &Rig| rig.lab.shared().read(|w| (w.talos.wiped.len(), w.talos.wiped.len()));
    println!("{}", proof().is_cut_and_resumed(&consenting(), wiped).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replacement_that_is_cut_anywhere_is_undone_or_says_what_stays() {
    println!("{}", proof().is_cut_and_undone().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replacement_whose_steps_are_applied_twice_is_the_same() {
    proof().is_the_same_applied_twice().await;
}

/// Leaving, going off and the configuration, each failing once by each rule; an answer to the first that hangs is Talos' own
/// five minutes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replacement_survives_failing_changes() {
    let calls = (0..3).flat_map(|n| rules().map(|rule| (Front::Talos, n, rule)));
    let calls: Vec<_> = calls.filter(|(_, n, rule)| *n != 0 || *rule != FaultEffect::Hang).collect();
    assert_eq!(calls.len(), 11);
    assert!(proof().survives_failing_changes(calls, &consenting()).await >= 6);
}

/// Each once by each rule: the run, or its resume, comes to the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replacement_survives_failing_reads() {
    println!("{}", proof().survives_failing_reads(&[(Front::Kubernetes, 9), (Front::Talos, 40)]).await);
}
