//! What a person does after a lost quorum, to its end: recovers, and puts each lost machine in its place again.

use pvemig::blueprint;
use pvemig::lint;

use super::*;

/// The site with its migrations as the lab writes it; the steps are those of `recover`.
async fn rig_of(world: &str) -> Rig {
    Rig::of(at_rest_after(world, "", |_| {}), |_| {}).await
}

async fn run_of(rig: &mut Rig, migration: &str, consents: &[&str]) -> Run {
    let blueprint = rig.site.migrations[migration].blueprint.clone();
    rig.steps = blueprint::named(&blueprint).unwrap().build(&rig.site, migration).unwrap();
    let how = How { consents: consents.iter().map(|one| (*one).to_owned()).collect(), ..How::default() };
    let run = rig.forward(None, &how).await;
    assert_done(&run, migration);
    let again = rig.forward(None, &How::default()).await;
    assert_done(&again, &format!("{migration}, once more"));
    assert_eq!(calls(&again.records), 0, "{migration}: a second run changes nothing");
    run
}

/// All three vote, and a survey finds nothing but the disk that a configuration names by its place.
async fn assert_whole(rig: &Rig) {
    rig.picture().await;
    assert_eq!(voters(rig), BTreeSet::from(["talos-nuc", "talos-vm", "talos-mac"].map(str::to_owned)));
    let survey = rig.estate.survey(&[]).await.unwrap();
    let ballot = survey.ballots(&survey.talos[0]).remove(0);
    assert_eq!(ballot.votes.map(|votes| (votes.voters, votes.healthy)), Some((3, 3)), "{ballot:#?}");
    let looked = lint::look(&survey);
    let told: Vec<&str> = looked.findings.iter().map(|finding| finding.rule).collect();
    assert!(told.iter().all(|rule| *rule == "L06"), "{looked:#?}");
    assert_eq!(looked.unlooked, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_machines_that_wait_come_back_one_after_the_other() {
    let mut rig = rig_of("talos-no-quorum").await;
    run_of(&mut rig, "recover", &["etcd/talos-nuc", "gone/talos-mac", "gone/talos-vm"]).await;
    assert_eq!(voters(&rig).len(), 1);
    let run = run_of(&mut rig, "replace-mac", &["disk/S2ZRNYAH500749", "off/talos-mac"]).await;
    let told = notes(&run, "10-verify");
    assert!(told.contains("talos-vm waits for a configuration: it is no part of homelab until"), "{told}");
    assert_eq!(voters(&rig).len(), 2);
    run_of(&mut rig, "replace-vm", &["disk/talos-vm-root"]).await;
    assert_whole(&rig).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_that_was_lost_comes_back_behind_a_recovery() {
    let mut rig = rig_of("talos-deadlock").await;
    run_of(&mut rig, "recover", &["etcd/talos-nuc", "etcd/talos-mac"]).await;
    assert_eq!(voters(&rig).len(), 2);
    // `qm set 223 --boot 'order=scsi0;ide2'`, `qm start 223`: its disk is blank, and its firmware takes the ISO.
    let start = |w: &mut World| {
        w.vms.get_mut(&223).unwrap().config.insert("boot".into(), "order=scsi0;ide2".into()).unwrap();
        w.start_vm(223)
    };
    rig.lab.shared().change(start).unwrap();
    let waits = |w: &World| w.talos.nodes["talos-vm"].run.as_ref()?.maintenance.then_some(());
    rig.lab.shared().until(std::time::Duration::from_secs(600), waits).await.unwrap();
    run_of(&mut rig, "replace-vm", &["disk/talos-vm-root"]).await;
    assert_whole(&rig).await;
}
