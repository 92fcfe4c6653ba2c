//! 04 and 05 on their own feet: what they need from the steps around them they look at themselves.

use pvemig::base::check::Problem;
use pvemig::engine::event::Event;
use pvemig::engine::run::Why;
use pvemig::lab::{FaultEffect, FaultRule, Front, World};
use serde_json::json;

use super::{ask, calls, problems, rig, starts, stop, told};
use crate::harness::How;
use crate::harness::estate::{Rig, at_rest};
use crate::harness::same::{assert_done, assert_undone};

const REBOOT: &str = "04-reboot@talos-vm";

/// The plan of one step, as `pvemig step` has it.
fn only(rig: &mut Rig, key: &str) {
    rig.mend();
    rig.steps.retain(|step| step.key().as_str() == key);
    assert_eq!(rig.steps.len(), 1, "{key}");
}

fn said(why: &Why) -> String {
    match why {
        Why::Failed { error, help, .. } => format!("{}\n{}", error.join(" "), help.join(" ")),
        Why::Blocked(problems) => problems.iter().map(|p| format!("{}\n{}\n", p.text, p.help)).collect(),
        other => panic!("{other:#?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reboot_by_itself_drains_nobody_and_so_waits_for_who_does() {
    let mut rig = rig("talos-three", &["talos-vm"], |_| {}).await;
    let first = problems(&rig, REBOOT).await;
    let mended =
        |p: &&Problem| p.mended_by.as_deref() == Some("02-drain") && p.help.contains("02-drain --node talos-vm");
    assert_eq!(first.iter().filter(mended).count(), first.len(), "{first:#?}");
    assert!(first.iter().any(|p| p.text.contains("node talos-vm is not cordoned")), "{first:#?}");
    assert!(first.iter().any(|p| p.text.contains("home/whoami-")), "{first:#?}");
    // DaemonSet pods go down with the node.
    assert!(!first.iter().any(|p| p.text.contains("kube-flannel")), "{first:#?}");
    only(&mut rig, REBOOT);
    let run = rig.forward(None, &How::default()).await;
    assert!(matches!(stop(&run).why, Why::Blocked(_)), "{:#?}", run.ended);
    assert_eq!((rig.changes(), starts(&rig)["talos-vm"]), (0, 1));
    // Drained by a run of its own, it goes.
    only(&mut rig, "02-drain@talos-vm");
    assert_done(&rig.forward(None, &How::default()).await, "the drain");
    only(&mut rig, REBOOT);
    assert_done(&rig.forward(None, &How::default()).await, "the reboot");
    assert_eq!(starts(&rig)["talos-vm"], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_reboot_asks_of_kubernetes_is_one_list() {
    let rig = rig("talos-three", &["talos-vm"], |_| {}).await;
    let seen = || -> Vec<String> {
        let all = rig.lab.shared().log.seen();
        all.into_iter().filter(|s| s.front == Front::Kubernetes).map(|s| s.line).collect()
    };
    let before = seen().len();
    drop(problems(&rig, REBOOT).await);
    // Its pods and the node itself; no budgets, claims, volumes.
    let asked = seen().split_off(before);
    assert_eq!(asked.iter().filter(|line| line.contains("/pods")).count(), 1, "{asked:#?}");
    assert!(asked.iter().all(|line| line.contains("/pods") || line.contains("/nodes/talos-vm")), "{asked:#?}");
}

/// `talos-three` with one more VM, which the site takes for talos-vm's.
async fn with_a_stranger(change: impl FnOnce(&mut World)) -> Rig {
    let mut world = at_rest("talos-three");
    let mut vm = world.vms[&223].clone();
    vm.config.insert("name".into(), "stranger".into());
    vm.config.insert("smbios1".into(), "uuid=00000000-1111-4222-8333-444444444444".into());
    vm.running = None;
    world.vms.insert(224, vm);
    change(&mut world);
    Rig::of(world, |site| {
        site["migrations"]["reboots"]["params"]["nodes"] = json!(["talos-vm"]);
        let nodes = site.pointer_mut("/talos/homelab/nodes").unwrap();
        nodes["talos-vm"]["vm"]["vmid"] = json!(224);
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strangers_vm_is_left_alone() {
    let rig = with_a_stranger(|_| {}).await;
    let mut asked = 0;
    for key in ["00-preflight", REBOOT] {
        let problems = problems(&rig, key).await;
        for part in ["vm 224, which is to be talos-vm, does not run", "vm 224 has the uuid 00000000-1111"] {
            let found = problems.iter().find(|p| p.text.contains(part) && !p.help.is_empty());
            let name = found.unwrap_or_else(|| panic!("{key}: {problems:#?}")).finding.as_deref();
            assert_eq!(name, (key == "00-preflight").then_some("vm-is-another"));
            asked += 1;
        }
    }
    assert_eq!(asked, 4);
    // Where the drain is done and the stranger is switched off, it is not what is started.
    let mut rig = rig;
    only(&mut rig, "02-drain@talos-vm");
    assert_done(&rig.forward(None, &How::default()).await, "the drain");
    let before = rig.changes();
    only(&mut rig, REBOOT);
    let run = rig.forward(None, &How::default()).await;
    assert!(said(&stop(&run).why).contains("vm 224"), "{:#?}", run.ended);
    assert_eq!((rig.changes(), starts(&rig)["talos-vm"]), (before, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_vm_it_is_must_be_known() {
    type Change = fn(&mut World);
    let cases: [(Change, &str); 2] = [
        (|w| drop(w.vms.get_mut(&223).unwrap().config.remove("smbios1")), "vm 223 has no uuid in its config"),
        (|w| w.talos.nodes.get_mut("talos-vm").unwrap().uuid.clear(), "talos-vm tells no uuid"),
    ];
    let mut asked = 0;
    for (change, part) in cases {
        let rig = rig("talos-three", &["talos-vm"], change).await;
        for key in ["00-preflight", REBOOT] {
            let problems = problems(&rig, key).await;
            assert!(problems.iter().any(|p| p.text.contains(part) && !p.help.is_empty()), "{key}: {problems:#?}");
            asked += 1;
        }
    }
    assert_eq!(asked, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_vm_it_is_is_asked_again_right_before_the_call() {
    let rig = rig("talos-three", &["talos-vm"], |_| {}).await;
    let shared = rig.lab.shared().clone();
    let run = told(&rig, move |record| {
        let here = record.event.key().is_some_and(|key| key.as_str() == REBOOT);
        if let (Event::Applying { .. }, true) = (&record.event, here) {
            let uuid = "uuid=00000000-1111-4222-8333-444444444444".to_owned();
            shared.change(|w| drop(w.vms.get_mut(&223).unwrap().config.insert("smbios1".into(), uuid)));
        }
    })
    .await;
    let stop = stop(&run);
    assert!(stop.key.as_str() == REBOOT && said(&stop.why).contains("vm 223 has the uuid 00000000"), "{stop:#?}");
    assert!(!calls(&run).iter().any(|call| call.contains("Shutdown")), "{:#?}", calls(&run));
    assert_eq!(starts(&rig)["talos-vm"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_told_nothing_is_not_said_to_be_deaf() {
    let rig = rig("talos-three", &["talos-vm"], |_| {}).await.hasty();
    let lab = rig.lab.clone();
    let run = told(&rig, move |record| {
        let here = record.event.key().is_some_and(|key| key.as_str() == REBOOT);
        if let (Event::Applying { .. }, true) = (&record.event, here) {
            let rule = FaultRule::on(Front::Talos, FaultEffect::Status(14, "no route".into()));
            lab.fault(FaultRule { path: "/talos-vm/*".into(), ..rule });
        }
    })
    .await;
    let text = said(&stop(&run).why);
    assert!(text.contains("does not answer") && text.contains("was not told to shut down"), "{text}");
    assert!(!text.contains("qm stop") && text.contains("pvemig resume"), "{text}");
    assert!(!calls(&run).iter().any(|call| call.contains("Shutdown")), "{:#?}", calls(&run));
    drop(rig.lab.shared().clear_faults());
    assert_done(&rig.forward(Some(&run.id), &How::default()).await, "it answers again");
    assert_eq!(starts(&rig)["talos-vm"], 2);
}

/// Two voters: enough to be whole, and too few for one to go.
fn two(w: &mut World) {
    w.talos.etcd.members.retain(|member| member.name != "talos-mac");
    w.talos.nodes.remove("talos-mac");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_up_whether_or_not_it_might_go_down() {
    let rig = rig("talos-three", &["talos-vm"], two).await;
    let seen = ask(&rig, "05-verify-boot@talos-vm").await.unwrap();
    assert!(seen.is_done(), "{seen:#?}");
    let gate = problems(&rig, "01-quorum-gate@talos-vm").await;
    assert!(gate.iter().any(|p| p.text.contains("etcd has 2 voters")), "{gate:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_undo_of_a_reboot_asks_nothing_of_etcd() {
    let rig = rig("talos-three", &["talos-vm"], |_| {}).await;
    let run = rig.forward(None, &How::default()).await;
    assert_done(&run, "there");
    rig.lab.shared().change(two);
    assert_undone(&rig.backward(&run.id, &How::default()).await, "with two voters");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_starts_a_vm_that_is_off_is_named() {
    let rig = rig("talos-three", &["talos-vm"], |w| {
        w.vms.get_mut(&223).unwrap().running = None;
        w.talos.nodes.get_mut("talos-vm").unwrap().run = None;
    })
    .await;
    let problems = problems(&rig, "05-verify-boot@talos-vm").await;
    assert!(problems.len() == 1 && problems[0].text == "vm 223 is stopped", "{problems:#?}");
    assert_eq!(problems[0].help, "`qm start 223`");
}
