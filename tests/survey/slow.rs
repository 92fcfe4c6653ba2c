//! What is slow costs its own deadline, once.

use pvemig::lab::{FaultEffect, Front, Lab, large, load};

use super::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_pods_that_hang_are_not_waited_for_in_turns() {
    let world = large::workers(load("talos-three").unwrap(), 9, 24);
    let bench = Bench::of(Lab::at_rest(world, tempfile::tempdir().unwrap().path()).unwrap()).await;
    bench.fault(Front::Kubernetes, "/api/v1/pods", FaultEffect::Hang);
    let survey = bench.survey(&[]).await;
    assert_eq!(survey.nodes.len(), 12);
    assert!(survey.nodes.iter().all(|node| node.workloads.is_unknown() && node.kubelet().is_some()), "{survey:#?}");
    // As many as are asked at a time, and the one for pods on no node.
    let lists = bench.asked(0).into_keys().filter(|line| line.contains("spec.nodeName")).count();
    assert_eq!(lists, 9, "{:#?}", bench.asked(0));
    let given_up = survey.nodes.iter().filter(|node| node.workloads.reason().unwrap().starts_with("not asked, as "));
    assert_eq!(given_up.count(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_answer_makes_no_clock_late() {
    let bench = Bench::new("talos-three").await;
    for call in ["SystemStat", "Read"] {
        bench.fault(Front::Talos, &format!("/talos-mac/machine.MachineService/{call}"), FaultEffect::Delay(2_500));
    }
    let survey = bench.survey(&["talos-mac"]).await;
    let ahead = *survey.nodes[0].talos().unwrap().ahead_s.known().unwrap();
    assert_eq!(ahead, 0, "the clocks are one");
}
