//! An old machine that is heard again, and a word that was given before.

use std::time::Duration;

use pvemig::lab::{Class, FaultEffect, FaultRule, Front};
use serde_json::json;

use super::*;
use crate::harness::odd::{Way, make_odd};

const DEAD: Case = Case { dead: true, ..MAC };

/// Switched on, and a node again; then silent again.
async fn comes_and_goes(rig: &Rig, name: &str) {
    comes(rig, name).await;
    goes(rig, name).await;
}

async fn comes(rig: &Rig, name: &str) {
    let kube = rig.estate.kubernetes("homelab").await.unwrap();
    let was = kube.node(name).await.unwrap().map(|node| node.boot_id);
    assert!(rig.lab.shared().change(|w| w.press_power(name)));
    for _ in 0..400 {
        if kube.node(name).await.unwrap().is_some_and(|node| node.is_ready() && Some(&node.boot_id) != was.as_ref()) {
            return;
        }
        rig.lab.shared().until(Duration::from_secs(2), |_| None::<()>).await;
    }
    panic!("{name} is no node again");
}

/// It has its vote again.
async fn joins(rig: &Rig, name: &str) {
    let votes = |w: &World| w.talos.etcd.members.iter().find(|m| m.name == name && !m.learner).map(|_| ());
    rig.lab.shared().until(Duration::from_secs(900), votes).await.unwrap();
}

async fn goes(rig: &Rig, name: &str) {
    rig.lab.shared().change(|w| w.cut_power(name));
    let kube = rig.estate.kubernetes("homelab").await.unwrap();
    for _ in 0..400 {
        let node = kube.node(name).await.unwrap();
        if node.is_none_or(|node| node.ready.is_some_and(|ready| ready.status == "Unknown")) {
            return;
        }
        rig.lab.shared().until(Duration::from_secs(2), |_| None::<()>).await;
    }
    panic!("{name} is not silent");
}

/// Three days at 05: it was started by its firmware in between, and is silent again. The word of before is not of that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_word_is_void_once_the_machine_was_heard_again() {
    let rig = rig(DEAD).await;
    let mut how = DEAD.consenting();
    how.no_hands = true;
    let run = rig.forward(None, &how).await;
    assert_eq!(why(&run).0, "05-swap");
    comes_and_goes(&rig, "talos-mac").await;
    let again = rig.forward(Some(&run.id), &How::default()).await;
    let (key, text) = why(&again);
    assert_eq!(key, "08-node-object", "{text}");
    assert!(
        text.contains("It was heard since your word that it is off") && text.contains("lease renewed last at"),
        "{text}"
    );
    let kube = rig.estate.kubernetes("homelab").await.unwrap();
    assert!(kube.node("talos-mac").await.unwrap().is_some());
    // It is asked anew, by what is seen now.
    let how = How { consents: vec![word(&text)], ..How::default() };
    assert_done(&rig.forward(Some(&run.id), &how).await, "by another word");
    assert_replaced(&rig, DEAD, "it came back").await;
}

/// A run of 08 alone has no 01: what was seen when it first acted is what the word is of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_word_to_one_step_is_void_once_the_machine_was_heard_again() {
    let mut rig = rig(DEAD).await;
    rig.steps.retain(|step| step.id() == "08-node-object");
    let how = How { consents: vec!["node/talos-mac".into(), "off/talos-mac".into()], ..How::default() };
    rig.lab.fault(FaultRule::on(Front::Kubernetes, FaultEffect::Refuse).class(Class::Change).times(1));
    let run = rig.forward(None, &how).await;
    assert_eq!(why(&run).0, "08-node-object");
    rig.lab.shared().clear_faults();
    comes_and_goes(&rig, "talos-mac").await;
    let again = rig.forward(Some(&run.id), &How::default()).await;
    let (key, text) = why(&again);
    assert!(key == "08-node-object" && text.contains("It was heard since your word that it is off"), "{key}: {text}");
    let kube = rig.estate.kubernetes("homelab").await.unwrap();
    assert!(kube.node("talos-mac").await.unwrap().is_some());
    let how = How { consents: vec![word(&text)], ..How::default() };
    assert_done(&rig.forward(Some(&run.id), &how).await, "by another word");
    assert!(kube.node("talos-mac").await.unwrap().is_none());
}

/// A run that was stopped before it kept anything: what is seen days later is not what the word of the first day was of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_word_of_an_earlier_day_is_not_one_of_what_is_seen_now() {
    for alone in [false, true] {
        let mut rig = rig(DEAD).await;
        let stop = if alone { "03-leave-or-remove" } else { "01-snapshot" };
        if alone {
            rig.steps.retain(|step| step.id() == stop);
        } else {
            let at = rig.steps.iter().position(|step| step.id() == stop).unwrap();
            make_odd(&mut rig, Way::NoCheck, |n| n == at);
        }
        let run = rig.forward(None, &DEAD.consenting()).await;
        assert_eq!(why(&run).0, stop);
        rig.mend();
        if alone {
            rig.steps.retain(|step| step.id() == stop);
        }
        comes_and_goes(&rig, "talos-mac").await;
        let again = rig.forward(Some(&run.id), &How::default()).await;
        let (key, text) = why(&again);
        assert!(
            key == "03-leave-or-remove" && text.contains("whether it was heard since is not known"),
            "{key}: {text}"
        );
        assert_eq!(voters(&rig).len(), 3);
        let how = How { consents: vec![word(&text)], ..How::default() };
        let last = rig.forward(Some(&run.id), &how).await;
        if alone {
            // There is no snapshot, as on the first day.
            let (key, text) = why(&last);
            assert!(text.contains("`pvemig step 01-snapshot -m test`"), "{key}: {text}");
            assert_eq!(voters(&rig).len(), 3);
        } else {
            assert_done(&last, "by another word");
            assert_replaced(&rig, DEAD, "it came back").await;
        }
    }
}

/// An undo says what of the cluster is not back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undo_counts_the_voters_that_are_left() {
    let rig = rig(DEAD).await;
    let run = rig.forward(None, &How { no_hands: true, ..DEAD.consenting() }).await;
    assert_eq!(why(&run).0, "05-swap");
    let undo = rig.backward(&run.id, &How::default()).await;
    let said = format!("{:?}", undo.ended);
    for part in
        ["etcd has 2 voters, 2 healthy, 2 needed", "as long as this run is open `pvemig resume` puts talos-mac2"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
}

/// One that has left joins again when it is started: whatever stops the run names a command that goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_joins_again_in_between_is_taken_out_by_one_step() {
    let mut rig = rig(MAC).await;
    let mut how = MAC.consenting();
    how.no_hands = true;
    let run = rig.forward(None, &how).await;
    assert_eq!(why(&run).0, "05-swap");
    comes(&rig, "talos-mac").await;
    joins(&rig, "talos-mac").await;
    assert_eq!(voters(&rig).len(), 3);
    // While the new one is waited for that is said, and nobody is let in beside it.
    let again = rig.forward(Some(&run.id), &how).await;
    let (key, text) = why(&again);
    assert!(key == "05-swap" && text.contains("talos-mac is a member of etcd: 03 has not"), "{key}: {text}");
    assert!(rig.lab.shared().change(|w| w.press_power("talos-mac2")));
    rig.lab.shared().until(Duration::from_secs(300), |w| w.talos.nodes["talos-mac2"].run.as_ref().map(|_| ())).await;
    goes(&rig, "talos-mac").await;
    let again = rig.forward(Some(&run.id), &How::default()).await;
    let (key, text) = why(&again);
    let way = "`pvemig step 03-leave-or-remove -m test --destroy etcd/talos-mac` takes its member out again";
    assert!(key == "06-apply" && text.contains(way), "{key}: {text}");
    rig.steps.retain(|step| step.id() == "03-leave-or-remove");
    let how = How { consents: vec!["etcd/talos-mac".into(), "off/talos-mac".into()], ..How::default() };
    let step = rig.forward(None, &how).await;
    assert_done(&step, "the step");
    let told = notes(&step, "03-leave-or-remove");
    assert!(told.contains(&format!("the snapshot of run {}", run.id)), "{told}");
    assert_eq!(voters(&rig).len(), 2);
    rig.mend();
    assert_done(&resumed(&rig, &run.id, &How::default()).await, "behind it");
    assert_replaced(&rig, MAC, "it came back").await;
}

/// What took its shutdown and is heard again has started.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_is_void_once_the_machine_was_started_again() {
    let rig = rig(WORKER).await;
    let mut how = WORKER.consenting();
    how.no_hands = true;
    let run = rig.forward(None, &how).await;
    assert_eq!(why(&run).0, "05-swap");
    comes_and_goes(&rig, "talos-worker").await;
    let again = rig.forward(Some(&run.id), &How::default()).await;
    let (key, text) = why(&again);
    assert_eq!(key, "08-node-object", "{text}");
    assert!(text.contains("It took its shutdown from this run, and has started again since"), "{text}");
    let how = How { consents: vec![word(&text)], ..How::default() };
    assert_done(&rig.forward(Some(&run.id), &how).await, "by another word");
    assert_replaced(&rig, WORKER, "started again").await;
}

/// After the end of it: 10 names the commands, and another run does it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_comes_back_behind_its_replacement_is_taken_out_again() {
    let mut rig = rig(MAC).await;
    assert_done(&rig.forward(None, &MAC.consenting()).await, "first");
    comes(&rig, "talos-mac").await;
    joins(&rig, "talos-mac").await;
    assert_eq!(voters(&rig).len(), 4);
    let run = rig.forward(None, &MAC.consenting()).await;
    let (key, text) = why(&run);
    let back = "talos-mac is a member of etcd again: it was started with its old disk";
    assert!(key == "00-preflight" && text.contains(back), "{key}: {text}");
    assert!(!text.contains("take another machine") && text.contains("shutdown --force"), "{text}");
    goes(&rig, "talos-mac").await;
    rig.steps.retain(|step| step.id() == "10-verify");
    let run = rig.forward(None, &How::default()).await;
    let (key, text) = why(&run);
    assert!(key == "10-verify" && text.contains("talos-mac is a member of etcd and a node of homelab again"), "{text}");
    let id = rig.lab.shared().read(|w| w.talos.etcd.members.iter().find(|m| m.name == "talos-mac").unwrap().id);
    for part in
        [&format!("etcd remove-member {id:016x}"), " -e ", "--talosconfig", "delete node talos-mac", "--kubeconfig"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    rig.mend();
    let again = rig
        .forward(None, &How { consents: [MAC.consents(), vec!["off/talos-mac".into()]].concat(), ..How::default() })
        .await;
    assert_done(&again, "again");
    let told = notes(&again, "00-preflight");
    assert!(told.contains("its member is taken out, 3 are left"), "{told}");
    assert_replaced(&rig, MAC, "again").await;
}

/// Its uuid alone does not tell it from another board of its vendor; the disk that it ran from does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_waits_at_its_address_is_the_old_one_by_its_disk() {
    let vendors = |w: &mut World| {
        w.talos.nodes.get_mut("talos-mac").unwrap().run = None;
        let uuid = w.talos.nodes["talos-mac"].uuid.clone();
        w.talos.spares.get_mut("talos-mac").unwrap().uuid = uuid;
        w.swap_machine("talos-mac").unwrap();
    };
    let rig = rig_with(Case { dead: true, ..MAC_IN_PLACE }, vendors, |_| {}).await;
    let waits = |w: &World| w.talos.nodes["talos-mac"].run.as_ref()?.maintenance.then_some(());
    rig.lab.shared().until(Duration::from_secs(900), waits).await.unwrap();
    rig.later().await;
    let run = rig.forward(None, &MAC_IN_PLACE.consenting()).await;
    let (key, text) = why(&run);
    assert!(key == "00-preflight" && text.contains("which other boards of its vendor may have too"), "{key}: {text}");
    assert!(text.contains("add `--destroy off/talos-mac`") && rig.changes() == 0, "{text}");
}

/// The host of its VM is gone: then nobody tells whether it runs, and a person may vouch for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_on_a_dead_host_is_vouched_for() {
    let vm = Case { old: "talos-vm", dead: true, ..MAC };
    let host = |w: &mut World| {
        let other = w.hosts["pve"].clone();
        w.hosts.insert("pve2".into(), other);
        w.hosts.get_mut("pve").unwrap().online = false;
    };
    let rig = rig_with(vm, host, |site| site["migrations"][vm.migration]["params"]["old"] = json!("talos-vm")).await;
    let mut how = vm.consenting();
    how.consents.retain(|thing| !thing.starts_with("off/"));
    let run = rig.forward(None, &how).await;
    let (key, text) = why(&run);
    assert!(key == "00-preflight" && text.contains("add `--destroy off/talos-vm`"), "{key}: {text}");
    let mv = "on pve2 `mv /etc/pve/nodes/pve/qemu-server/223.conf /etc/pve/nodes/pve2/qemu-server/223.conf`";
    assert!(text.contains(mv), "{text}");
    assert_eq!(rig.changes(), 0);
    assert_done(&rig.forward(None, &vm.consenting()).await, "by a word");
}

/// It would be started again with its host.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_that_starts_with_its_host_is_not_replaced() {
    for dead in [false, true] {
        let vm = Case { old: "talos-vm", dead, ..MAC };
        let rig =
            rig_with(vm, |_| {}, |site| site["migrations"][vm.migration]["params"]["old"] = json!("talos-vm")).await;
        let run = rig.forward(None, &vm.consenting()).await;
        let (key, text) = why(&run);
        assert!(key == "00-preflight" && text.contains("`qm set 223 --onboot 0` first"), "{key}: {text}");
        assert_eq!(rig.changes(), 0);
    }
}
