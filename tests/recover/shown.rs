//! What shows that a lost machine is gone, and whose word does where nothing shows it.

use super::meanwhile::{goes_on, up_to, up_to_with};
use super::refused::{params, stops};
use super::*;

pub(super) fn another(w: &mut World) {
    let config = &mut w.vms.get_mut(&223).unwrap().config;
    config.insert("smbios1".into(), "uuid=7d0f4d6e-6a2b-4c35-9b77-0c5a3f4e0999".into()).unwrap();
}

/// A number in the site file is no proof: a VM that is off, and is another one, says nothing of the machine that is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_of_the_wrong_number_does_not_show_that_the_lost_machine_is_off() {
    let word = "add `--destroy gone/talos-vm`";
    let rig = rig(DEADLOCK, another, |_| {}).await;
    let words = ["vm 223 is off, and that talos-vm ran in it is not shown: the Node talos-vm has another uuid", word];
    stops(&rig, &consenting(), "00-preflight", &words).await;
    let before = rig.lab.shared().read(objects);
    assert_done(&rig.forward(None, &vouching(VM)).await, "by a person's word");
    assert_recovered(&rig, &before, "by a person's word");
    // One that Proxmox does not know, or does not show.
    let edit = |site: &mut Value| site["talos"]["homelab"]["nodes"][VM]["vm"]["vmid"] = json!(9_223);
    let rig = self::rig(DEADLOCK, |_| {}, edit).await;
    stops(&rig, &consenting(), "00-preflight", &["talos-vm is silent, and that is all that is known", word]).await;
    // Where nobody gives what etcd had of it nothing is compared.
    let rig = deadlock().await;
    for call in ["EtcdSnapshot", "Read"] {
        let no = FaultEffect::Status(2, "injected".into());
        rig.lab.fault(FaultRule::on(Front::Talos, no).path(&format!("*/{call}")));
    }
    stops(&rig, &consenting(), "00-preflight", &["has of etcd cannot be read", word]).await;
}

/// The box that came for it waits at its address, and it serves on elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_waits_at_an_address_need_not_be_the_lost_one() {
    let rig = rig("talos-no-quorum", |_| {}, |_| {}).await;
    let words = ["a machine waits for a configuration at the address of talos-mac", "add `--destroy gone/talos-mac`"];
    let text = stops(&rig, &consenting(), "00-preflight", &words).await;
    // Of a VM its uuid tells.
    assert!(!text.contains("gone/talos-vm"), "{text}");
}

/// A word is of a moment: whoever was seen alive since is asked for again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_word_counts_no_longer_once_the_machine_was_seen_alive() {
    let mut rig = rig(DEADLOCK, another, |_| {}).await;
    let run = up_to_with(&mut rig, "02-wipe-etcd@talos-mac", &vouching(VM)).await;
    let before = rig.lab.shared().read(objects);
    let on = |rig: &Rig, on: bool| {
        rig.lab.shared().change(|w| w.fork(if on { "qmstart" } else { "qmstop" }, 223, "root@pam", json!({})));
    };
    let runs = |w: &World| w.vms[&223].running.is_some();
    on(&rig, true);
    assert!(rig.lab.shared().until(std::time::Duration::from_secs(60), |w| runs(w).then_some(())).await.is_some());
    let nothing = How::default();
    let at = "02-wipe-etcd@talos-mac";
    let stopped = rig.forward(Some(&run.id), &nothing).await;
    let (key, text) = why(&stopped);
    assert!(key == at && text.contains("(`gone/talos-vm`) counts no longer"), "{key}: {text}");
    on(&rig, false);
    assert!(rig.lab.shared().until(std::time::Duration::from_secs(60), |w| (!runs(w)).then_some(())).await.is_some());
    let stopped = rig.forward(Some(&run.id), &nothing).await;
    let (key, text) = why(&stopped);
    assert!(key == at && text.contains("add `--destroy gone/talos-vm`"), "{key}: {text}");
    assert_safe(&rig, "asked anew");
    assert_done(&rig.forward(Some(&run.id), &vouching(VM)).await, "given anew");
    assert_recovered(&rig, &before, "given anew");
}

/// High availability starts what it has; a VM that starts with its host is named with the command that ends that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_vm_that_would_be_started_is_told_and_kept_off() {
    let managed = |w: &mut World| drop(w.ha.insert(223, "stopped".into()));
    let words = ["vm 223 of talos-vm is off, and high availability may start it", "`ha-manager remove vm:223`"];
    let rig = rig(DEADLOCK, managed, |_| {}).await;
    stops(&rig, &vouching(VM), "00-preflight", &words).await;
    let mut rig = deadlock().await;
    let run = up_to(&mut rig, "03-recover").await;
    rig.lab.shared().change(managed);
    goes_on(&rig, &run, "03-recover", &words).await;

    let boots = |on: &'static str| {
        move |w: &mut World| drop(w.vms.get_mut(&223).unwrap().config.insert("onboot".into(), on.into()))
    };
    for (on, starts) in [("1", true), ("0", false)] {
        let rig = self::rig(DEADLOCK, boots(on), |_| {}).await;
        let run = rig.forward(None, &consenting()).await;
        assert_done(&run, on);
        let (first, last) = (notes(&run, "00-preflight"), notes(&run, "05-verify"));
        assert_eq!(first.contains("it starts with its host (`qm set 223 --onboot 0`)"), starts, "{first}");
        assert_eq!(last.contains("`qm set 223 --onboot 0` keeps it from starting by itself"), starts, "{last}");
        assert!(last.contains("before `qm start 223`") && last.contains("explain node-replace"), "{last}");
    }
}

/// A control plane that discovery knows may live: each survivor is asked, and one that does not tell is no "none".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_survivor_is_asked_for_control_planes_that_are_named_nowhere() {
    let rig = deadlock().await;
    rig.lab.fault(FaultRule::on(Front::Talos, FaultEffect::Refuse).path("/talos-mac/*List*Member*"));
    let words = ["which control planes talos-mac knows of is not known", "get members"];
    stops(&rig, &consenting(), "00-preflight", &words).await;
}

/// A survivor that is not in the copy keeps nobody waiting: etcd lives, and it writes its Node when it comes up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_not_in_the_copy_is_told_and_not_waited_for() {
    let mut rig = deadlock().await;
    let run = up_to(&mut rig, "04-join@talos-mac").await;
    let drop_node = |rig: &Rig, name: &str| {
        rig.lab.shared().change(|w| {
            let all: Vec<_> = w.kube.store.everything().map(|(key, _)| key.clone()).collect();
            let key = all.into_iter().find(|key| key.resource == "nodes" && key.name == name).unwrap();
            w.kube.store.remove(&key).unwrap();
        });
    };
    drop_node(&rig, MAC);
    let check = asked(&rig, &run.id, "03-recover", true).await;
    assert!(matches!(check.answer, Answer::Done), "{check:#?}");
    assert!(
        check.notes.iter().any(|note| note.contains("has no node of talos-mac: it was not in the copy")),
        "{check:#?}"
    );
    drop_node(&rig, NUC);
    let check = asked(&rig, &run.id, "03-recover", true).await;
    let Answer::Waiting { reason, .. } = &check.answer else { panic!("{check:#?}") };
    assert!(reason.contains("has no node talos-nuc") && reason.contains("pvemig abandon"), "{reason}");
}

/// It may be its own etcd that has begun, where it has data by now; else it is another one that lives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_living_etcd_is_waited_for_only_where_the_machine_has_begun() {
    let mut rig = deadlock().await;
    let run = up_to(&mut rig, "03-recover").await;
    // Of a real etcd the lab knows nothing, and lets its own Kubernetes answer.
    rig.lab.shared().change(|w| w.talos.nodes.get_mut(VM).unwrap().etcd_at = Some(([127, 0, 0, 1], 1).into()));
    let text = blocked(&asked(&rig, &run.id, "03-recover", true).await);
    assert!(text.contains("an etcd with its majority lives") && text.contains("find them before anything"), "{text}");
    let mut rig = deadlock().await;
    let run = up_to(&mut rig, "02-wipe-etcd@talos-nuc").await;
    rig.lab.shared().change(|w| w.talos.nodes.get_mut(VM).unwrap().etcd_at = Some(([127, 0, 0, 1], 1).into()));
    let check = asked(&rig, &run.id, "03-recover", true).await;
    let Answer::Waiting { reason, .. } = &check.answer else { panic!("{check:#?}") };
    assert!(reason.contains("its leader is not known yet"), "{reason}");
}

/// What is in the way is seen in each turn, also while the machine calls itself not ready.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_comes_back_while_the_machine_is_not_ready_stops_the_beginning() {
    let mut rig = deadlock().await;
    let run = up_to(&mut rig, "03-recover").await;
    let wait = FaultEffect::Status(9, "etcd service is not ready for recovery yet".into());
    rig.lab.fault(FaultRule::on(Front::Talos, wait).path("/talos-nuc/*/EtcdRecover"));
    let before = rig.changes();
    let starts = async {
        // It was sent at least once.
        while rig.changes() == before {
            tokio::task::yield_now().await;
        }
        rig.lab.shared().change(|w| w.fork("qmstart", 223, "root@pam", json!({})));
    };
    let how = consenting();
    let (stopped, ()) = futures::join!(rig.forward(Some(&run.id), &how), starts);
    let (key, text) = why(&stopped);
    assert!(key == "03-recover" && text.contains("vm 223 of talos-vm runs"), "{key}: {text}");
    assert_safe(&rig, "not ready");
    assert_eq!(rig.lab.shared().read(|w| w.etcd_clusters()), 0);
}

/// The parameters name a copy where nothing else is left of etcd.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_etcd_had_of_a_lost_vm_is_found_in_what_was_given() {
    let mut rig = deadlock().await;
    let run = up_to(&mut rig, "03-recover").await;
    let files = rig.bench.store.info(&run.id, "here").unwrap().files.unwrap().join("01-save-copy");
    let copy = std::fs::read(files.join("talos-nuc.snapshot")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("given");
    pvemig::base::private::write(&path, &copy).unwrap();
    let emptied = |w: &mut World| {
        for name in [NUC, MAC] {
            w.talos.nodes.get_mut(name).unwrap().member = None;
        }
    };
    let rig = self::rig(DEADLOCK, emptied, |site| params(site)["snapshot"] = json!(path)).await;
    let check = asked(&rig, "", "00-preflight", false).await;
    let said = format!("{check:#?}");
    assert!(!said.contains("gone/talos-vm"), "{said}");
    assert!(said.contains("vm 223 (talos-vm) is there and off"), "{said}");
}
