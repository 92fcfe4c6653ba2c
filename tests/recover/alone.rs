//! What a step refuses by itself, out of its turn, and what the end of a recovery is not called.

use pvemig::base::fault::Failure;
use pvemig::engine::step::RunInfo;

use super::meanwhile::up_to;
use super::*;

/// What a step answers a run that has no files.
async fn without_files(rig: &Rig, key: &str) -> Result<pvemig::base::check::Check<Value>, Failure> {
    let step = rig.steps.iter().find(|step| step.key().as_str() == key).unwrap();
    let consents = vouching(VM).consents.into_iter().map(pvemig::base::permit::Thing).collect();
    let (held, run) = (BTreeMap::new(), RunInfo { consents, ..RunInfo::default() });
    step.check(&rig.estate, Seen { since: None, got: &[], held: &held, run: &run }).await
}

/// What is in the way, and which step mends it.
async fn refuses(rig: &Rig, key: &str) -> Vec<(String, Option<String>)> {
    let before = rig.changes();
    let check = without_files(rig, key).await.unwrap();
    assert_eq!(rig.changes(), before, "{key}");
    let Answer::Blocked { problems } = check.answer else { panic!("{key}: {check:#?}") };
    problems.into_iter().map(|p| (p.text, p.mended_by.map(String::from))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_wiped_or_begun_without_a_copy_and_nothing_joins_before_that() {
    let rig = deadlock().await;
    let mut met = 0;
    for (key, words, by) in [
        ("02-wipe-etcd@talos-mac", "no copy is held of what talos-mac has", "01-save-copy"),
        ("02-wipe-etcd@talos-nuc", "no copy is held of what talos-nuc has", "01-save-copy"),
        ("03-recover", "talos-nuc has data of etcd: a second one would be a second cluster", "02-wipe-etcd"),
        ("04-join@talos-mac", "joins once etcd has begun again, and nobody tells its members", "03-recover"),
        ("05-verify", "etcd has no leader: nobody tells its members", "03-recover"),
    ] {
        let problems = refuses(&rig, key).await;
        let found = problems.iter().any(|(text, mended)| text.contains(words) && mended.as_deref() == Some(by));
        assert!(found, "{key}: {problems:#?}");
        met += 1;
    }
    assert_eq!(met, 5);
    // Both are wiped, and the copies are another run's.
    let mut rig = deadlock().await;
    up_to(&mut rig, "03-recover").await;
    let problems = refuses(&rig, "03-recover").await;
    let by = Some("01-save-copy".to_owned());
    assert_eq!(problems, [("no copy is held that etcd could begin from".to_owned(), by)]);
    assert_eq!(rig.lab.shared().read(|w| w.etcd_clusters()), 0);
}

/// No survivor gives what it has: nothing is wiped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nobody_gives_a_copy_nothing_is_wiped() {
    let rig = deadlock().await;
    for call in ["EtcdSnapshot", "Read"] {
        let no = FaultEffect::Status(2, "injected".into());
        rig.lab.fault(FaultRule::on(Front::Talos, no).path(&format!("*/{call}")));
    }
    let run = rig.forward(None, &vouching(VM)).await;
    let (key, text) = why(&run);
    assert_eq!((key, rig.changes()), ("01-save-copy", 0), "{text}");
    assert!(text.contains("talos-mac") && text.contains("injected"), "{text}");
    assert_safe(&rig, "no copy");
    // It goes on once they do.
    let before = rig.lab.shared().read(objects);
    rig.lab.shared().clear_faults();
    assert_done(&rig.forward(Some(&run.id), &vouching(VM)).await, "given");
    assert_recovered(&rig, &before, "given");
}

/// An empty Kubernetes is not what was to come back, and a machine that comes back later is not passed over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_cluster_and_a_returned_machine_are_not_called_done() {
    let mut rig = deadlock().await;
    let run = up_to(&mut rig, "04-join@talos-mac").await;
    rig.lab.shared().change(|w| {
        let nodes: Vec<_> = w.kube.store.everything().map(|(key, _)| key.clone()).collect();
        let gone = nodes.iter().filter(|key| key.resource == "nodes").filter_map(|key| w.kube.store.remove(key));
        assert_eq!(gone.count(), 3);
    });
    let step = rig.steps.iter().find(|step| step.key().as_str() == "03-recover").unwrap();
    let (info, held, begun) = (rig.bench.store.info(&run.id, "here").unwrap(), BTreeMap::new(), json!({}));
    let seen = Seen { since: Some(&begun), got: &[], held: &held, run: &info };
    let said = format!("{:?}", step.check(&rig.estate, seen).await.unwrap_err());
    assert!(said.contains("answers and has no node") && said.contains("it may have begun from nothing"), "{said}");

    let mut rig = deadlock().await;
    let run = up_to(&mut rig, "05-verify").await;
    // As it was before, with its old member.
    let old = at_rest(DEADLOCK).talos.etcd.members.iter().find(|member| member.name == VM).map(|member| member.id);
    assert!(old.is_some());
    rig.lab.shared().change(|w| {
        let like = w.talos.nodes[NUC].clone();
        let vm = w.talos.nodes.get_mut(VM).unwrap();
        (vm.slots, vm.config, vm.member) = (like.slots, like.config.replace(NUC, VM), old);
        vm.disks.iter_mut().for_each(|disk| disk.system = true);
        w.fork("qmstart", 223, "root@pam", json!({}));
    });
    let up = |w: &World| w.talos.nodes[VM].run.as_ref().is_some_and(|run| !run.maintenance && run.kubelet_at <= w.now);
    let answers = |w: &World| up(w).then_some(());
    assert!(rig.lab.shared().until(std::time::Duration::from_secs(900), answers).await.is_some());
    let before = rig.changes();
    let stopped = rig.forward(Some(&run.id), &consenting()).await;
    let (key, text) = why(&stopped);
    assert_eq!((key, rig.changes()), ("05-verify", before), "{text}");
    assert!(text.contains("talos-vm has come back") && text.contains("it may have its old one"), "{text}");
}
