//! What comes between a look and the call that it was for, and what is waited for without an end.

use std::time::Duration;

use super::meanwhile::{up_to, up_to_with};
use super::shown::another;
use super::*;
use pvemig::base::permit::Handle;
use pvemig::engine::step::Got;

/// Longer than a VM takes to start, and no call's limit, in milliseconds of the lab.
const LATE: u64 = 120_000;

/// Its VM is switched on or off, and is so.
async fn lost_vm(rig: &Rig, on: bool) {
    rig.lab.shared().change(|w| w.fork(if on { "qmstart" } else { "qmstop" }, 223, "root@pam", json!({})));
    let is = |w: &World| w.vms[&223].running.is_some() == on;
    assert!(rig.lab.shared().until(Duration::from_secs(60), |w| is(w).then_some(())).await.is_some());
}

/// The same once something is seen.
async fn once(rig: &Rig, seen: impl Fn() -> bool) {
    while !seen() {
        tokio::task::yield_now().await;
    }
    lost_vm(rig, true).await;
}

fn silent(rig: &Rig, node: &str) {
    let no = FaultEffect::Status(2, "rpc error".into());
    rig.lab.fault(FaultRule::on(Front::Talos, no).path(&format!("/{node}/*/EtcdStatus")));
}

/// What the reset does that a person is told of.
async fn wiped_by_hand(rig: &Rig) {
    let boot = |w: &World| w.talos.nodes[NUC].run.as_ref().map(|run| run.boot_id.clone());
    let before = rig.lab.shared().read(boot);
    rig.lab.shared().change(|w| {
        let node = w.talos.nodes.get_mut(NUC).unwrap();
        node.member = None;
        node.data.clear();
        w.talos_reboot(NUC, false);
    });
    let up =
        |w: &World| boot(w) != before && w.talos.nodes[NUC].run.as_ref().is_some_and(|run| w.now >= run.services_at);
    assert!(rig.lab.shared().until(Duration::from_secs(900), |w| up(w).then_some(())).await.is_some());
}

fn waits(check: &pvemig::base::check::Check<Value>) -> &str {
    let Answer::Waiting { reason, .. } = &check.answer else { panic!("{check:#?}") };
    reason
}

/// The copy takes minutes: behind it they are asked again. And the word that was shown to be wrong there is no word any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_comes_back_while_the_copy_is_sent_stops_the_beginning_and_voids_the_word() {
    let mut rig = rig(DEADLOCK, another, |_| {}).await;
    let run = up_to_with(&mut rig, "03-recover", &vouching(VM)).await;
    let before = rig.lab.shared().read(objects);
    rig.lab.fault(FaultRule::on(Front::Talos, FaultEffect::Delay(LATE)).path("/talos-nuc/*/EtcdRecover").times(1));
    let nothing = How::default();
    let sent = || !rig.bench.read(&run.id).state.steps[&"03-recover".into()].calls.is_empty();
    let (stopped, ()) = futures::join!(rig.forward(Some(&run.id), &nothing), once(&rig, sent));
    let (key, text) = why(&stopped);
    assert_eq!(key, "03-recover", "{text}");
    assert!(text.contains("vm 223 of talos-vm runs") && text.contains("(`gone/talos-vm`) counts no longer"), "{text}");
    assert!(matches!(&stopped.ended, Ok(Ended::Stopped(stop)) if matches!(stop.why, Why::Failed { .. })), "{text}");
    assert_eq!((rig.lab.shared().clear_faults()[0].met, rig.lab.shared().read(|w| w.etcd_clusters())), (1, 0));
    // Silent again: nobody's word is left.
    lost_vm(&rig, false).await;
    let stopped = rig.forward(Some(&run.id), &nothing).await;
    let (key, text) = why(&stopped);
    assert!(key == "03-recover" && text.contains("add `--destroy gone/talos-vm`"), "{key}: {text}");
    assert_eq!(rig.lab.shared().read(|w| w.etcd_clusters()), 0);
    assert_done(&rig.forward(Some(&run.id), &vouching(VM)).await, "given anew");
    assert_recovered(&rig, &before, "given anew");
}

/// What does not tell how far it is is read whole before it is wiped; that takes minutes too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_comes_back_while_a_file_is_read_stops_the_wipe() {
    let mut rig = deadlock().await;
    let at = "02-wipe-etcd@talos-nuc";
    let run = up_to(&mut rig, at).await;
    silent(&rig, NUC);
    // The check reads it twice, and so does what is asked right before the call.
    let late = FaultRule::on(Front::Talos, FaultEffect::Delay(LATE)).path("/talos-nuc/*/Read");
    rig.lab.fault(late.skip(2).times(2));
    let reads = || {
        let log = std::fs::read_to_string(rig.dir().join("requests.jsonl")).unwrap();
        log.lines().filter(|line| line.contains("/talos-nuc/") && line.contains("MachineService/Read\"")).count()
    };
    let (first, before) = (reads(), rig.changes());
    let how = consenting();
    let (stopped, ()) = futures::join!(rig.forward(Some(&run.id), &how), once(&rig, || reads() >= first + 3));
    let (key, text) = why(&stopped);
    assert!(key == at && text.contains("vm 223 of talos-vm runs"), "{key}: {text}");
    assert!(matches!(&stopped.ended, Ok(Ended::Stopped(stop)) if matches!(stop.why, Why::Failed { .. })), "{text}");
    assert_eq!(rig.changes(), before, "{text}");
    assert_safe(&rig, "read late");
}

/// It was told to wipe itself, and its etcd says nothing: it goes down. Where it has booted since and has its data, it is told
/// anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wipe_of_which_nothing_came_is_begun_anew() {
    let mut rig = rig(DEADLOCK, another, |_| {}).await;
    let at = "02-wipe-etcd@talos-nuc";
    let run = up_to_with(&mut rig, at, &vouching(VM)).await;
    silent(&rig, NUC);
    let step = rig.steps.iter().find(|step| step.key().as_str() == at).unwrap();
    let (before, note) = told(&run, at);
    let mut info = rig.bench.store.info(&run.id, "here").unwrap();
    info.consents = vouching(VM).consents.into_iter().map(pvemig::base::permit::Thing).collect();
    let held = BTreeMap::new();
    let ask = async |boot: Option<String>| {
        let note = pvemig::base::permit::Note { boot, ..note.clone() };
        let got = [Got { note, handle: Handle::new("actor", "1"), at: jiff::Timestamp::UNIX_EPOCH }];
        step.check(&rig.estate, Seen { since: Some(&before), got: &got, held: &held, run: &info }).await.unwrap()
    };
    assert!(note.boot.is_some());
    let mut asked = 0;
    for (boot, out) in [(note.boot.clone(), "`pvemig resume` tells it anew"), (None, "`pvemig abandon` this run")] {
        let check = ask(boot).await;
        let reason = waits(&check);
        for word in ["has been told to wipe its etcd", "dmesg", out] {
            assert!(reason.contains(word), "{word}: {reason}");
        }
        asked += 1;
    }
    assert_eq!(asked, 2);
    let check = ask(Some("another one".into())).await;
    let Answer::Todo { before: now, .. } = &check.answer else { panic!("{check:#?}") };
    // Whose it was is known from before.
    assert!(now["member"].is_string() && now["member"] == before["member"], "{now}");
    // Who is seen alive meanwhile voids the word: a wait would not write it down.
    lost_vm(&rig, true).await;
    let text = blocked(&ask(note.boot.clone()).await);
    assert!(text.contains("vm 223 of talos-vm runs") && text.contains("(`gone/talos-vm`) counts no longer"), "{text}");
}

/// What a step had found, and its first call.
fn told(run: &Run, at: &str) -> (Value, pvemig::base::permit::Note) {
    let found = run.records.iter().find_map(|record| match &record.event {
        Event::Applying { key, before, .. } if key.as_str() == at => Some(before.clone()),
        _ => None,
    });
    let note = run.records.iter().find_map(|record| match &record.event {
        Event::Call { key, note, .. } if key.as_str() == at => Some(note.clone()),
        _ => None,
    });
    (found.unwrap(), note.unwrap())
}

/// What begins and never comes up is waited for with the way out; and whoever is seen meanwhile is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_does_not_come_up_is_told_with_the_way_out() {
    let mut rig = deadlock().await;
    let run = up_to(&mut rig, "02-wipe-etcd@talos-nuc").await;
    let before = rig.lab.shared().read(objects);
    silent(&rig, NUC);
    let check = asked(&rig, &run.id, "03-recover", true).await;
    let reason = waits(&check);
    for word in [
        "does not tell how it is (",
        "logs etcd",
        "--system-labels-to-wipe=EPHEMERAL` wipes all of EPHEMERAL",
        "`pvemig resume` begins once more from the copy (",
        "01-save-copy/talos-nuc.snapshot)",
        "`pvemig abandon`",
    ] {
        assert!(reason.contains(word), "{word}: {reason}");
    }
    assert!(!reason.contains("vm 223"), "{reason}");
    lost_vm(&rig, true).await;
    let words = "vm 223 of talos-vm runs";
    let check = asked(&rig, &run.id, "03-recover", true).await;
    assert!(waits(&check).contains(words), "{check:#?}");
    rig.lab.fault(FaultRule::on(Front::Talos, FaultEffect::Refuse).path("/talos-nuc/*"));
    let check = asked(&rig, &run.id, "03-recover", true).await;
    assert!(waits(&check).contains(words), "{check:#?}");
    // Whose word that shows to be wrong: a wait would not write it down.
    let text = blocked(&asked_by(&rig, &run.id, "03-recover", true, &vouching(VM)).await);
    assert!(text.contains(words) && text.contains("(`gone/talos-vm`) counts no longer"), "{text}");
    // The way out leads out.
    rig.lab.shared().clear_faults();
    lost_vm(&rig, false).await;
    wiped_by_hand(&rig).await;
    let check = asked(&rig, &run.id, "03-recover", true).await;
    assert!(matches!(check.answer, Answer::Todo { .. }), "{check:#?}");
    assert_done(&rig.forward(Some(&run.id), &consenting()).await, "wiped by hand");
    assert_recovered(&rig, &before, "wiped by hand");
}

/// Something else is where etcd's data would be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_the_place_of_etcds_data_is_named_with_its_wipe() {
    let mut rig = deadlock().await;
    let run = up_to(&mut rig, "03-recover").await;
    let before = rig.lab.shared().read(objects);
    rig.lab.shared().change(|w| {
        let data = &mut w.talos.nodes.get_mut(NUC).unwrap().data;
        data.insert("/var/lib/etcd/lost.db".into(), 4_096);
        data.insert("/var/local/pool.img".into(), 1_048_576);
    });
    let exists = FaultEffect::Status(409, "etcd data directory is not empty".into());
    rig.lab.fault(FaultRule::on(Front::Talos, exists).path("*Bootstrap"));
    let stopped = rig.forward(Some(&run.id), &consenting()).await;
    let (key, text) = why(&stopped);
    assert_eq!(key, "03-recover", "{text}");
    for word in [
        "/var/lib/etcd of talos-nuc has lost.db, and no data of etcd",
        "--system-labels-to-wipe=EPHEMERAL` wipes all of EPHEMERAL, and with it /var/local (1.0 MiB)",
        "list /var/lib/etcd`",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    rig.lab.shared().clear_faults();
    wiped_by_hand(&rig).await;
    assert_done(&rig.forward(Some(&run.id), &consenting()).await, "wiped by hand");
    assert_recovered(&rig, &before, "wiped by hand");
}
