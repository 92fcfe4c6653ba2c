//! Each thing in etcd that keeps a node from going down, at the preflight, at the gate, and right before the call.

use pvemig::engine::event::Event;
use pvemig::engine::run::Why;
use pvemig::lab::World;
use pvemig::lab::talos::etcd::Member;

use super::{ask, calls, problems, rig, starts, stop, told};
use crate::harness::How;
use crate::harness::same::assert_done;

/// The preflight, the gate and the reboot itself refuse with this text, and a run changes nothing.
async fn refused(world: &str, nodes: &[&str], change: impl FnOnce(&mut World), text: &str) {
    let rig = rig(world, nodes, change).await;
    let first = nodes[0];
    let mut asked = 0;
    for key in ["00-preflight".to_owned(), format!("01-quorum-gate@{first}"), format!("04-reboot@{first}")] {
        let problems = problems(&rig, &key).await;
        let found = problems.iter().find(|p| p.text.contains(text) && !p.help.is_empty());
        let name = found.unwrap_or_else(|| panic!("{key}: {problems:#?}")).finding.as_deref();
        assert_eq!(name, (key == "00-preflight").then_some("etcd-cannot-spare-it"));
        asked += 1;
    }
    assert_eq!(asked, 3);
    let before = starts(&rig);
    let run = rig.forward(None, &How::default()).await;
    assert_eq!(stop(&run).key.as_str(), "00-preflight");
    assert_eq!((rig.changes(), starts(&rig)), (0, before), "a refusal changed something");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_voters_none_may_go() {
    // A worker has no vote, and may go.
    let rig = rig("talos-three-two-voters", &["talos-mac"], |_| {}).await;
    assert!(ask(&rig, "01-quorum-gate@talos-mac").await.unwrap().is_done());
    let nodes = ["talos-vm", "talos-nuc"];
    refused("talos-three-two-voters", &nodes, |_| {}, "while talos-vm is down, the other voter alone").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_is_waited_for_first() {
    refused("talos-three-learner", &["talos-vm"], |_| {}, "member talos-mac of etcd is a learner").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_not_well_keeps_the_others_up() {
    let off = |w: &mut World| {
        let node = w.talos.nodes.get_mut("talos-mac").unwrap();
        (node.off, node.run) = (true, None);
    };
    refused("talos-three", &["talos-vm"], off, "member talos-mac of etcd cannot be asked").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alarm_is_seen_to_first() {
    refused("talos-three-alarm", &["talos-nuc"], |_| {}, "has raised the alarm NOSPACE").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_a_machine_is_named() {
    let left = |w: &mut World| {
        w.talos.etcd.members.push(Member { id: 0x77, name: "talos-old".into(), ..Member::default() });
    };
    refused("talos-three", &["talos-vm"], left, "member talos-old (0000000000000077) of etcd is on no node").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_hands_over_first() {
    let rig = rig("talos-three", &["talos-nuc"], |_| {}).await;
    let leader = || rig.lab.shared().read(|w| w.talos.etcd.leader.and_then(|id| w.talos.etcd.member(id).cloned()));
    assert_eq!(leader().unwrap().name, "talos-nuc");
    let gate = ask(&rig, "01-quorum-gate@talos-nuc").await.unwrap();
    assert_eq!(gate.word(), "todo");
    let run = rig.forward(None, &How::default()).await;
    assert_done(&run, "the leader");
    let calls = calls(&run);
    let at = |part: &str| calls.iter().position(|call| call.contains(part)).unwrap();
    assert!(at("EtcdForfeitLeadership") < at("Reboot, power cycle"), "{calls:#?}");
    assert_ne!(leader().unwrap().name, "talos-nuc");
    assert_eq!(starts(&rig)["talos-nuc"], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gate_is_asked_again_right_before_the_call() {
    // What comes up after the gate: found by 04's own question, before or after its beginning.
    for (event, begun) in [("applied", false), ("applying", true)] {
        let rig = rig("talos-three", &["talos-mac"], |_| {}).await;
        let shared = rig.lab.shared().clone();
        let run = told(&rig, move |record| {
            let key = record.event.key().map(ToString::to_string).unwrap_or_default();
            let now = match &record.event {
                Event::Applied { .. } => !begun && key == "02-drain@talos-mac",
                Event::Applying { .. } => begun && key == "04-reboot@talos-mac",
                _ => false,
            };
            if now {
                shared.change(|w| w.talos.etcd.members[1].alarm = Some("CORRUPT".into()));
            }
        })
        .await;
        let stop = stop(&run);
        assert_eq!(stop.key.as_str(), "04-reboot@talos-mac", "{event}: {stop:#?}");
        let said = match &stop.why {
            Why::Failed { error, .. } => error.join(" "),
            Why::Blocked(problems) => problems.iter().map(|p| p.text.clone()).collect(),
            other => panic!("{event}: {other:#?}"),
        };
        assert!(said.contains("has raised the alarm CORRUPT"), "{event}: {said}");
        assert!(!calls(&run).iter().any(|call| call.contains("Reboot")), "{event}");
        assert_eq!(starts(&rig)["talos-mac"], 1);
        // Mended, it goes on, and reboots once.
        rig.lab.shared().change(|w| w.talos.etcd.members[1].alarm = None);
        assert_done(&rig.forward(Some(&run.id), &How::default()).await, event);
        assert_eq!(starts(&rig)["talos-mac"], 2);
    }
}
