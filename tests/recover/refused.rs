//! What stops a recovery before anything is lost.

use super::*;

/// Stops at this step with these words, and has changed nothing.
pub(super) async fn stops(rig: &Rig, how: &How, at: &str, words: &[&str]) -> String {
    let before = rig.changes();
    let run = rig.forward(None, how).await;
    let (key, text) = why(&run);
    assert_eq!(key, at, "{text}");
    for word in words {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert_eq!(rig.changes(), before, "{text}");
    assert_safe(rig, at);
    text
}

pub(super) fn params(site: &mut Value) -> &mut Value {
    &mut site["migrations"]["recover"]["params"]
}

/// The migration that a site of the world `talos-three` has to be given.
pub(super) fn recover(site: &mut Value) {
    site["migrations"] = json!({ "recover": { "blueprint": "quorum-recover", "params": {
        "talos": "homelab", "from": NUC, "nodes": [MAC], "lost": [VM] } } });
}

pub(super) async fn three(change: impl FnOnce(&mut World)) -> Rig {
    let mut world = at_rest("talos-three");
    change(&mut world);
    Rig::of(world, recover).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_there_is_a_majority_nothing_is_recovered() {
    let rig = three(|_| {}).await;
    let words = ["3 voters, 3 healthy, 2 needed: 1 to spare", "talos-vm among its members", "node-replace"];
    stops(&rig, &consenting(), "00-preflight", &words).await;
    // One is dead, and two are a majority.
    let rig = self::rig(
        "talos-dead-node",
        |_| {},
        |site| {
            site["migrations"] = json!({ "recover": { "blueprint": "quorum-recover", "params": {
                "talos": "homelab", "from": NUC, "nodes": [VM], "lost": [MAC] } } });
        },
    )
    .await;
    stops(&rig, &consenting(), "00-preflight", &["3 voters, 2 healthy, 2 needed: none to spare", "talos-mac among"])
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_machine_that_answers_is_not_lost() {
    // It comes back between the plan and the run: as it was, with its disk.
    let rig = self::rig(
        DEADLOCK,
        |_| {},
        |site| {
            params(site)["lost"] = json!([MAC]);
            params(site)["nodes"] = json!([]);
        },
    )
    .await;
    let text = stops(&rig, &consenting(), "00-preflight", &["talos-mac is said to be lost, and answers"]).await;
    // And a control plane that is named nowhere may live.
    assert!(text.contains("talos-vm is a node of homelab") && text.contains("unknown is not gone"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survivor_that_is_behind_another_one_is_not_begun_from() {
    let rig = self::rig(
        DEADLOCK,
        |_| {},
        |site| {
            params(site)["from"] = json!(MAC);
            params(site)["nodes"] = json!([NUC]);
        },
    )
    .await;
    let words = ["talos-mac is a learner", "48211 entries behind talos-nuc", "name talos-nuc in `from`"];
    stops(&rig, &consenting(), "00-preflight", &words).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_wiped_without_consent() {
    let rig = deadlock().await;
    let words = ["the etcd of talos-mac is wiped", "`--destroy etcd/talos-mac`", "`--destroy etcd/talos-nuc`"];
    stops(&rig, &How::default(), "00-preflight", &words).await;
    let how = How { consents: vec![format!("etcd/{NUC}")], ..How::default() };
    let text = stops(&rig, &how, "00-preflight", &["`--destroy etcd/talos-mac`"]).await;
    assert!(!text.contains("etcd/talos-nuc"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_of_others_on_the_volume_has_a_consent_of_its_own() {
    let with_data = |w: &mut World| {
        let data = &mut w.talos.nodes.get_mut(MAC).unwrap().data;
        data.insert("/var/local/openebs/pool.img".into(), 42_949_672_960);
        data.insert("/opt/local-path-provisioner/pvc-1/db.sqlite".into(), 1_048_576);
        // A user volume that is a directory is mounted, and on EPHEMERAL all the same.
        data.insert("/var/mnt/scratch/photos.tar".into(), 2_097_152);
    };
    let rig = self::rig(DEADLOCK, with_data, |_| {}).await;
    let words = [
        "/var/local (40.0 GiB)",
        "/opt/local-path-provisioner (1.0 MiB)",
        "/var/mnt/scratch (2.0 MiB)",
        "`--destroy ephemeral/talos-mac`",
        "take away what is needed",
    ];
    let text = stops(&rig, &consenting(), "00-preflight", &words).await;
    assert!(!text.contains("ephemeral/talos-nuc") && !text.contains("containerd"), "{text}");
    let mut how = consenting();
    how.consents.push(format!("ephemeral/{MAC}"));
    let before = rig.lab.shared().read(objects);
    let run = rig.forward(None, &how).await;
    assert_done(&run, "given");
    assert_recovered(&rig, &before, "given");
    let said = notes(&run, "00-preflight");
    assert!(said.contains("- talos-mac /var/local: 40.0 GiB"), "{said}");
    assert!(rig.lab.shared().read(|w| w.talos.nodes[MAC].data.is_empty()));
}

/// From 1.14 on etcd may have a volume of its own, and nothing else goes with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_volume_of_its_own_nothing_else_goes() {
    let own = |w: &mut World| {
        for name in [NUC, MAC] {
            let node = w.talos.nodes.get_mut(name).unwrap();
            node.slots.values_mut().for_each(|image| image.version = "1.14.0".into());
            node.etcd_volume = true;
            node.data.insert("/var/local/pool.img".into(), 42_949_672_960);
        }
    };
    let rig = self::rig(DEADLOCK, own, |_| {}).await;
    assert_done(&rig.forward(None, &consenting()).await, "own");
    let (wiped, data) = rig.lab.shared().read(|w| {
        let data = [NUC, MAC].iter().filter(|name| w.talos.nodes[**name].data.len() == 1).count();
        (w.talos.wiped.iter().map(|w| w.held.clone()).collect::<Vec<_>>(), data)
    });
    assert_eq!((wiped, data), (vec![vec!["ETCD".to_owned()]; 2], 2));
}

/// What 01 wrote is read back right before the wipe.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_was_damaged_since_keeps_everything_as_it_is() {
    let mut rig = deadlock().await;
    let (run, Scenes { settled, .. }) = rig.watched(None, &consenting()).await;
    assert_done(&run, "undisturbed");
    let turn = rig.steps.iter().position(|step| step.id() == "02-wipe-etcd").unwrap();
    let mut damaged = 0;
    for name in ["talos-nuc.snapshot", "talos-mac.db", "copies.json"] {
        rig.go_back(&settled[turn]);
        let info = rig.bench.store.info(&run.id, "here").unwrap();
        let path = info.files.unwrap().join("01-save-copy").join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let before = rig.changes();
        let stopped = rig.forward(Some(&run.id), &consenting()).await;
        let (key, text) = why(&stopped);
        assert_eq!((key, rig.changes()), ("02-wipe-etcd@talos-mac", before), "{text}");
        assert!(text.contains(name) && text.contains("nothing is wiped without it"), "{text}");
        damaged += 1;
    }
    assert_eq!(damaged, 3);
}

/// The machine that was lost is switched on again between two wipes: what it has may be a majority with what is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_comes_back_meanwhile_stops_it() {
    let mut rig = deadlock().await;
    let (run, Scenes { settled, .. }) = rig.watched(None, &consenting()).await;
    assert_done(&run, "undisturbed");
    let turn = rig.steps.iter().position(|step| step.id() == "03-recover").unwrap();
    rig.go_back(&settled[turn]);
    // As it was before, with its old member.
    rig.lab.shared().change(|w| {
        let like = w.talos.nodes[NUC].clone();
        let member = w.talos.etcd.members.iter().find(|m| m.name == VM).map(|m| m.id);
        let vm = w.talos.nodes.get_mut(VM).unwrap();
        (vm.slots, vm.config, vm.member) = (like.slots, like.config.replace(NUC, VM), member);
        vm.disks.iter_mut().for_each(|disk| disk.system = true);
        w.fork("qmstart", 223, "root@pam", json!({}));
    });
    let up = rig.lab.shared().until(std::time::Duration::from_secs(900), |w| w.etcd_of(VM).map(|_| ())).await;
    assert!(up.is_some());
    let before = rig.changes();
    let stopped = rig.forward(Some(&run.id), &consenting()).await;
    let (key, text) = why(&stopped);
    assert_eq!((key, rig.changes()), ("03-recover", before), "{text}");
    assert!(text.contains("talos-vm is said to be lost, and answers"), "{text}");
    assert_eq!(rig.lab.shared().read(|w| w.etcd_clusters()), 1);
}
