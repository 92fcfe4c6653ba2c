//! One system does not answer: its cells are unknown with the reason, and all others are known.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pvemig::base::clock::Clock;
use pvemig::base::survey::{Layer, Node, Survey};
use pvemig::base::wait::limit;
use pvemig::estate::Estate;
use pvemig::lab::{FaultEffect, Front};

use super::{Bench, IMPATIENCE};

/// By node: the layers that are not known.
fn unknown(survey: &Survey) -> Vec<(&str, Vec<&'static str>)> {
    let of = |node: &Node| node.unknown().into_iter().map(|(layer, ..)| layer).collect();
    survey.nodes.iter().map(|node| (node.name.as_str(), of(node))).collect()
}

/// Who does not answer its first question is asked no other one.
fn asked_one_thing(bench: &Bench, begins: &str) {
    asked_no_more_than(1, bench, begins);
}

fn asked_no_more_than(most: usize, bench: &Bench, begins: &str) {
    let asked: Vec<_> = bench.asked(0).into_keys().filter(|line| line.starts_with(begins)).collect();
    assert_eq!(asked.len(), most, "{asked:?}");
}

/// The ways in which a system is dead.
fn deaths() -> [FaultEffect; 3] {
    [FaultEffect::Refuse, FaultEffect::Hang, FaultEffect::ResetBefore]
}

/// Nobody answers anything: whatever is asked is asked beside all that is outstanding.
#[tokio::test(flavor = "multi_thread")]
async fn every_system_is_asked_before_any_other_has_answered() {
    let worlds: [(&str, &[&str]); 2] = [
        (
            "talos-three",
            &["Proxmox ", "Kubernetes ", "Talos POST /talos-mac/", "Talos POST /talos-nuc/", "Talos POST /talos-vm/"],
        ),
        ("usb-move", &["Proxmox ", "Kubernetes ", "Ssh "]),
    ];
    let mut tried = 0;
    for (world, systems) in worlds {
        let bench = Bench::new(world).await;
        for front in [Front::Proxmox, Front::Kubernetes, Front::Talos, Front::Ssh] {
            bench.fault(front, "*", FaultEffect::Hang);
        }
        let long = Duration::from_secs(600);
        let state = bench.lab.dir().join("nowhere");
        let estate = Estate::new(bench.site.clone(), Clock::real(), state).deadlines(long, long);
        let all = async {
            loop {
                let asked = bench.asked(0);
                if systems.iter().all(|system| asked.keys().any(|line| line.starts_with(system))) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        // One system after the other would get to the second when the layer of the first is given up, not before.
        let all = tokio::time::timeout(limit::SURVEY_LAYER, all);
        tokio::select! {
            survey = estate.survey(&[]) => panic!("{world}: it has not waited: {survey:#?}"),
            all = all => assert!(all.is_ok(), "{world}: {:#?}", bench.asked(0)),
        }
        tried += 1;
    }
    assert_eq!(tried, 2);
}

/// What was asked of all but one system. The end of a program in a guest is asked for as often as it takes.
fn of_others(bench: &Bench, hung: &str) -> BTreeMap<String, usize> {
    let mut asked = bench.asked(0);
    asked.retain(|line, _| !line.starts_with(hung) && !line.contains("exec-status"));
    asked
}

/// Nothing that the others are asked waits until the one that hangs is given up, and nothing more is asked instead.
#[tokio::test(flavor = "multi_thread")]
async fn a_system_that_hangs_holds_up_no_question_to_another() {
    let cases = [
        ("talos-three", Front::Proxmox, "*", "Proxmox "),
        ("talos-three", Front::Kubernetes, "*", "Kubernetes "),
        ("talos-three", Front::Talos, "/talos-vm/*", "Talos POST /talos-vm/"),
        ("usb-move", Front::Proxmox, "*", "Proxmox "),
        ("usb-move", Front::Kubernetes, "*", "Kubernetes "),
    ];
    let mut tried = 0;
    for (world, front, path, hung) in cases {
        let sound = Bench::new(world).await;
        sound.survey(&[]).await;
        let wanted = of_others(&sound, hung);
        assert!(wanted.len() > 5, "{world} {hung}: {wanted:#?}");
        let bench = Bench::new(world).await;
        bench.fault(front, path, FaultEffect::Hang);
        let long = Duration::from_secs(600);
        let state = bench.lab.dir().join("nowhere");
        let estate = Estate::new(bench.site.clone(), Clock::real(), state).deadlines(long, long);
        let others = async {
            while of_others(&bench, hung) != wanted {
                tokio::task::yield_now().await;
            }
        };
        let others = tokio::time::timeout(limit::SURVEY_LAYER, others);
        tokio::select! {
            survey = estate.survey(&[]) => panic!("{world} {hung}: it has not waited: {survey:#?}"),
            all = others => assert!(all.is_ok(), "{world} {hung}: {:#?} {wanted:#?}", of_others(&bench, hung)),
        }
        asked_one_thing(&bench, hung);
        tried += 1;
    }
    assert_eq!(tried, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_kubernetes_takes_its_own_cells_alone() {
    let mut tried = 0;
    for effect in deaths() {
        let bench = Bench::new("talos-three").await;
        bench.fault(Front::Kubernetes, "*", effect.clone());
        let survey = bench.survey(&[]).await;
        let kube = || vec!["kubelet", "workloads"];
        let wanted = [("talos-mac", kube()), ("talos-nuc", kube()), ("talos-vm", kube())];
        assert_eq!(unknown(&survey), wanted, "{effect:?}");
        let cluster = &survey.kubernetes[0];
        assert!(cluster.version.is_unknown() && cluster.strangers.is_unknown() && cluster.never_met.is_unknown());
        // One reason for all of it: nothing was asked again of who did not answer.
        let reasons: std::collections::BTreeSet<_> =
            survey.nodes.iter().flat_map(Node::unknown).map(|(_, reason, _)| reason).collect();
        assert_eq!(reasons.len(), 1, "{reasons:?}");
        asked_one_thing(&bench, "Kubernetes ");
        // What it took is what the one that hangs was waited for, and more.
        assert!(
            effect != FaultEffect::Hang || u128::from(survey.took_ms) >= IMPATIENCE.as_millis(),
            "{}",
            survey.took_ms
        );
        tried += 1;
    }
    assert_eq!(tried, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_proxmox_takes_its_own_cells_alone() {
    let mut tried = 0;
    for effect in deaths() {
        let bench = Bench::new("usb-move").await;
        bench.fault(Front::Proxmox, "*", effect.clone());
        let survey = bench.survey(&[]).await;
        assert_eq!(survey.nodes.len(), 3);
        for (name, layers) in unknown(&survey) {
            assert_eq!(layers, ["vm", "agent"], "{name} {effect:?}");
        }
        // The guests are reached all the same, past it.
        assert!(survey.nodes.iter().all(|node| node.guest.known().is_some_and(|guest| guest.route == "ssh")));
        asked_one_thing(&bench, "Proxmox ");
        tried += 1;
    }
    assert_eq!(tried, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_dead_talos_node_takes_its_own_cells_alone() {
    let mut tried = 0;
    for (effect, silent) in [(FaultEffect::Refuse, false), (FaultEffect::Hang, true), (FaultEffect::ResetBefore, true)]
    {
        let bench = Bench::new("talos-three").await;
        bench.fault(Front::Talos, "/talos-mac/*", effect.clone());
        let survey = bench.survey(&[]).await;
        let wanted = [("talos-mac", vec!["talos", "etcd"]), ("talos-nuc", vec![]), ("talos-vm", vec![])];
        assert_eq!(unknown(&survey), wanted, "{effect:?}");
        let mac = survey.node("talos-mac").unwrap();
        assert!(mac.talos.reason().unwrap().contains("talos-mac"), "{:?}", mac.talos);
        let Layer::Unknown { reason, help } = &mac.talos else { panic!() };
        if effect == FaultEffect::Hang {
            // The whole time and how often it was asked, not the time of one try.
            assert!(reason.ends_with("no answer: none within 6 s (3 tries)"), "{reason}");
        }
        assert!(effect == FaultEffect::Refuse || help.is_some(), "{reason}");
        assert_eq!(mac.talos_silent, silent, "{effect:?}");
        assert!(mac.kubelet().unwrap().ready);
        // Who refuses one call may allow another: etcd is asked too.
        asked_no_more_than(if silent { 1 } else { 2 }, &bench, "Talos POST /talos-mac/");
        tried += 1;
    }
    assert_eq!(tried, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_without_ssh_are_reached_by_the_next_way_and_the_others_are_named() {
    let bench = Bench::new("usb-move").await;
    bench.fault(Front::Ssh, "*", FaultEffect::Refuse);
    let survey = bench.survey(&[]).await;
    for node in &survey.nodes {
        let guest = node.guest.known().unwrap();
        assert_eq!((guest.route.as_str(), guest.others.len()), ("agent", 1), "{guest:?}");
        assert!(guest.others[0].starts_with("ssh: "), "{guest:?}");
    }
    bench.fault(Front::Proxmox, "*/agent/*", FaultEffect::ResetBefore);
    let survey = bench.survey(&[]).await;
    for node in &survey.nodes {
        let reason = node.guest.reason().unwrap();
        for way in ["ssh: ", "agent: ", "host-ssh: "] {
            assert!(reason.contains(way), "{reason}");
        }
        assert!(node.vm().is_some() && node.kubelet().is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_ask_etcd_alone_asks_etcd() {
    let mut bench = Bench::new("talos-three").await;
    let mut site = (*bench.site).clone();
    site.talos.values_mut().for_each(|cluster| cluster.context = Some("etcd-backup".into()));
    bench.site = Arc::new(site);
    let survey = bench.survey(&[]).await;
    assert_eq!(survey.nodes.len(), 3);
    for node in &survey.nodes {
        assert!(node.talos.is_unknown() && !node.talos_silent, "{node:#?}");
        assert_eq!(node.seat().unwrap().members.known().unwrap().len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_who_sees_all_vms_is_told_that_there_is_none() {
    let mut bench = Bench::new("talos-three").await;
    let mut site = (*bench.site).clone();
    let nodes = site.talos.values_mut().flat_map(|cluster| cluster.nodes.values_mut());
    nodes.filter_map(|node| node.vm.as_mut()).for_each(|vm| vm.vmid = 105);
    bench.site = Arc::new(site);
    let survey = bench.survey(&["talos-vm"]).await;
    let Layer::Unknown { reason, help } = &survey.nodes[0].vm else { panic!("{:?}", survey.nodes[0].vm) };
    assert!(reason.ends_with(" has no vm 105"), "{reason}");
    assert_eq!(help.as_deref(), Some("correct its number in the site file"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_vm_has_no_guest_and_nobody_waits_for_one() {
    let mut world = crate::harness::estate::at_rest("usb-move");
    world.vms.get_mut(&108).unwrap().running = None;
    let bench = Bench::of(world).await;
    let survey = bench.survey(&["k3s-vm-still-fawn"]).await;
    let node = &survey.nodes[0];
    assert_eq!(node.vm().unwrap().power, "stopped");
    assert_eq!((&node.agent, &node.guest), (&Layer::Absent, &Layer::Absent));
    assert!(node.wrong().contains(&("vm", "stopped".to_owned())));
    assert!(!bench.asked(0).keys().any(|line| line.contains("/agent/")));
}
