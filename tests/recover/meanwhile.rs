//! What is true no more when the next step begins, and what is only silent: neither is wiped over.

use std::time::Duration;

use pvemig::engine::recorder::{Recorder, Wiring};

use super::refused::{params, recover, stops, three};
use super::*;

/// A run up to a step's turn.
pub(super) async fn up_to(rig: &mut Rig, id: &str) -> Run {
    up_to_with(rig, id, &consenting()).await
}

/// The same with other consents.
pub(super) async fn up_to_with(rig: &mut Rig, id: &str, how: &How) -> Run {
    let (run, Scenes { settled, .. }) = rig.watched(None, how).await;
    assert_done(&run, "undisturbed");
    let turn = rig.steps.iter().position(|step| step.key().as_str() == id).unwrap();
    rig.go_back(&settled[turn]);
    run
}

/// Goes on with a run, which stops there and changes nothing.
pub(super) async fn goes_on(rig: &Rig, run: &Run, at: &str, words: &[&str]) {
    let before = rig.changes();
    let stopped = rig.forward(Some(&run.id), &consenting()).await;
    let (key, text) = why(&stopped);
    assert_eq!((key, rig.changes()), (at, before), "{text}");
    for word in words {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert_safe(rig, at);
}

/// Etcd was at work for three days between the copy and the wipe: the way out is another run, whose copy is of now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_is_older_than_what_is_there_is_not_wiped_over() {
    let mut rig = deadlock().await;
    let run = up_to(&mut rig, "02-wipe-etcd@talos-mac").await;
    rig.lab.shared().change(|w| w.talos.etcd.index += 7_000);
    let words = ["talos-nuc has more by now than its copy: entry 1211811 of term", "`pvemig abandon` this run"];
    goes_on(&rig, &run, "02-wipe-etcd@talos-mac", &words).await;
    let before = rig.lab.shared().read(objects);
    // It is open, and says so before anybody is asked; whoever gives it up begins anew.
    rig.lab.fault(FaultRule::on(Front::Talos, FaultEffect::Refuse));
    let open = ["is open, and has what etcd is to begin from", "`pvemig resume"];
    let text = stops(&rig, &consenting(), "00-preflight", &open).await;
    assert!(!text.contains("talos-nuc does not answer"), "{text}");
    assert_eq!(rig.lab.shared().clear_faults().iter().map(|rule| rule.met).sum::<u32>(), 0);
    let (recorder, _) = Recorder::reopen(rig.bench.store.run(&run.id).unwrap(), &Wiring::default()).unwrap();
    recorder.write(Event::Abandoned { comment: "its copy is old".into() }).unwrap();
    drop(recorder);
    assert_done(&rig.forward(None, &consenting()).await, "another run");
    assert_recovered(&rig, &before, "another run");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_majority_of_a_moment_settles_nothing_for_good() {
    let mut rig = deadlock().await;
    let run = up_to(&mut rig, "02-wipe-etcd@talos-mac").await;
    // The one that it begins from is not wiped while the other one has its data.
    let text = blocked(&asked(&rig, &run.id, "02-wipe-etcd@talos-nuc", false).await);
    assert!(text.contains("talos-nuc is wiped last"), "{text}");
    // Without the dead voter the other one is a majority.
    rig.lab.shared().change(|w| w.talos.etcd.members.retain(|member| member.name != VM));
    let led = rig.lab.shared().until(Duration::from_secs(900), |w| w.talos.etcd.leader).await;
    assert!(led.is_some());
    goes_on(&rig, &run, "02-wipe-etcd@talos-mac", &["etcd has its majority again (1 voter, 1 healthy"]).await;
}

/// Its host comes back, and starts it: it says nothing yet, and may be a majority of the old etcd in a minute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_vm_that_runs_again_stops_each_wipe_and_the_beginning() {
    let mut asked = 0;
    for at in ["02-wipe-etcd@talos-mac", "02-wipe-etcd@talos-nuc", "03-recover"] {
        let mut rig = deadlock().await;
        let run = up_to(&mut rig, at).await;
        rig.lab.shared().change(|w| w.fork("qmstart", 223, "root@pam", json!({})));
        let up = rig.lab.shared().until(Duration::from_secs(60), |w| w.vms[&223].running.as_ref().map(|_| ())).await;
        assert!(up.is_some());
        goes_on(&rig, &run, at, &["vm 223 of talos-vm runs, and talos-vm does not answer", "`qm stop 223`"]).await;
        asked += 1;
    }
    assert_eq!(asked, 3);
}

/// One that is cut off from the others sees what one sees whose others are dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_majority_behind_another_network_is_found_by_its_kubernetes() {
    let cut = |rig: &Rig| {
        for name in [VM, MAC] {
            rig.lab.fault(FaultRule::on(Front::Talos, FaultEffect::Hang).path(&format!("/{name}/*")));
        }
        let none = FaultEffect::Status(2, "etcdserver: no leader".into());
        rig.lab.fault(FaultRule::on(Front::Talos, none).path("/talos-nuc/*/EtcdMemberList"));
    };
    let mut rig = Rig::of(at_rest("talos-three"), |site| {
        recover(site);
        params(site)["nodes"] = json!([]);
        params(site)["lost"] = json!([VM, MAC]);
    })
    .await;
    rig.estate = rig.estate.deadlines(Duration::from_secs(3), Duration::from_secs(3));
    cut(&rig);
    let words = [
        "answers, and has 3 nodes: an etcd with its majority lives",
        "vm 223 of talos-vm runs",
        "talos-mac is silent, and that is all that is known",
        "`--destroy gone/talos-mac`",
    ];
    stops(&rig, &consenting(), "00-preflight", &words).await;
    // A person's word is for what is silent, and not against what speaks.
    let mut how = consenting();
    how.consents.push(format!("gone/{MAC}"));
    let text = stops(&rig, &how, "00-preflight", &words[..2]).await;
    assert!(!text.contains("gone/talos-mac"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_machine_in_the_middle_of_its_boot_is_there() {
    let mut rig = three(|_| {}).await;
    rig.estate = rig.estate.deadlines(Duration::from_secs(3), Duration::from_secs(3));
    rig.lab
        .fault(FaultRule::on(Front::Talos, FaultEffect::Status(14, "connection refused".into())).path("/talos-vm/*"));
    let none = FaultEffect::Status(2, "etcdserver: no leader".into());
    rig.lab.fault(FaultRule::on(Front::Talos, none).path("*/EtcdMemberList"));
    stops(&rig, &consenting(), "00-preflight", &["talos-vm is said to be lost, and answers", "not available just now"])
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_does_not_tell_may_have_more() {
    let rig = deadlock().await;
    rig.lab
        .fault(FaultRule::on(Front::Talos, FaultEffect::Status(2, "rpc error".into())).path("/talos-mac/*/EtcdStatus"));
    let words = ["talos-mac has data of etcd, and how far it is is not known", "it may have more than talos-nuc"];
    stops(&rig, &consenting(), "00-preflight", &words).await;
}

/// The proof that copies are held can fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_is_none_is_not_counted_as_held() {
    let mut rig = deadlock().await;
    let run = up_to(&mut rig, "02-wipe-etcd@talos-nuc").await;
    assert_eq!(held(&rig), [MAC, NUC].map(str::to_owned).into());
    let files = rig.bench.store.info(&run.id, "here").unwrap().files.unwrap().join("01-save-copy");
    std::fs::write(files.join("talos-mac.db"), b"none").unwrap();
    assert_eq!(held(&rig), [NUC.to_owned()].into());
    std::fs::remove_file(files.join("copies.json")).unwrap();
    assert_eq!(held(&rig), BTreeSet::new());
}

/// What is given is read before anything is begun, and held against what the members here say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_given_snapshot_is_whole_and_of_this_cluster() {
    let mut rig = deadlock().await;
    let run = up_to(&mut rig, "02-wipe-etcd@talos-mac").await;
    let files = rig.bench.store.info(&run.id, "here").unwrap().files.unwrap().join("01-save-copy");
    let own = std::fs::read(files.join("talos-nuc.snapshot")).unwrap();
    let text =
        rig.lab.shared().read(|w| w.talos.etcd.members.iter().map(|m| format!("{:x}", m.id)).collect::<Vec<_>>());
    let (mut other, digest) = (own.clone(), own.len() - 32);
    for id in &text {
        let at = other.windows(id.len()).position(|part| part == id.as_bytes()).unwrap() + id.len() - 1;
        other[at] = if other[at] == b'0' { b'1' } else { b'0' };
    }
    let sum = sha256(&other[..digest]);
    let sum = (0..32).map(|n| u8::from_str_radix(&sum[2 * n..2 * n + 2], 16).unwrap());
    other.splice(digest.., sum);
    let cases: [(Option<&[u8]>, &str); 4] = [
        (None, "cannot be used"),
        (Some(b"apiVersion: v1"), "it is no database of etcd"),
        (Some(&own[..own.len() / 2]), "cannot be used"),
        (Some(&other), "it is of another cluster"),
    ];
    let mut asked = 0;
    for (content, words) in cases {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("given");
        if let Some(content) = content {
            pvemig::base::private::write(&path, content).unwrap();
        }
        let rig = self::rig(DEADLOCK, |_| {}, |site| params(site)["snapshot"] = json!(path)).await;
        stops(&rig, &consenting(), "00-preflight", &[words, "which etcd is to begin from"]).await;
        asked += 1;
    }
    assert_eq!(asked, 4);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("given");
    pvemig::base::private::write(&path, &own).unwrap();
    let rig = self::rig(DEADLOCK, |_| {}, |site| params(site)["snapshot"] = json!(path)).await;
    let before = rig.lab.shared().read(objects);
    let run = rig.forward(None, &consenting()).await;
    assert_done(&run, "given");
    assert_recovered(&rig, &before, "given");
    let said = notes(&run, "00-preflight");
    assert!(said.contains("etcd is to begin from") && said.contains("ago ("), "{said}");
}

/// The machine says that its etcd is there already, and it is not: nothing is sent over and over, and its words are told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_exists_already_is_looked_for() {
    let rig = deadlock().await;
    let before = rig.lab.shared().read(objects);
    let exists = "etcd data directory is not empty";
    rig.lab.fault(FaultRule::on(Front::Talos, FaultEffect::Status(409, exists.into())).path("*Bootstrap"));
    let run = rig.forward(None, &consenting()).await;
    let (key, text) = why(&run);
    assert_eq!(key, "03-recover", "{text}");
    for word in [exists, "has no data, and is Preparing", "list /var/lib/etcd`"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert_eq!(rig.lab.shared().clear_faults().iter().map(|rule| rule.met).sum::<u32>(), 1);
    assert_done(&rig.forward(Some(&run.id), &consenting()).await, "after that");
    assert_recovered(&rig, &before, "after that");
}
