//! etcd from a snapshot, or from what a survivor had: Kubernetes is what it was then, and nothing later.

use pvemig::talos::{Error, Reset, Wipe};

use super::*;

impl Ground {
    /// Leaves nothing of etcd on any node, and waits until each of them waits.
    async fn without_etcd(&self) {
        for node in NODES {
            let wipe = Wipe::Volumes(vec!["EPHEMERAL".into()]);
            let off = Reset { graceful: false, reboot: false, wipe };
            self.talos(node).await.reset(&self.permit, &off).await.unwrap();
        }
        for node in NODES {
            self.wait("it is off", |w| w.talos.nodes[node].run.is_none()).await;
        }
        self.lab.shared().change(|w| {
            assert!(w.press_power(NUC) && w.press_power(MAC));
            w.fork("qmstart", 223, "root@pam", serde_json::json!({}));
        });
        for node in NODES {
            self.wait("etcd waits", |w| {
                w.talos_services(node).iter().any(|s| s.id == "etcd" && s.state == "Preparing")
            })
            .await;
        }
    }

    async fn label(&self, node: &str, value: &str) {
        let kube = self.estate.kubernetes("homelab").await.unwrap();
        kube.set_node_label(&self.permit, node, "lab/told", value).await.unwrap();
    }

    /// Name, uid and that label of each node.
    async fn known(&self) -> Vec<(String, String, String)> {
        self.wait("the API is there", |w| w.kube_serving() == Serving::Well).await;
        let nodes = self.estate.kubernetes("homelab").await.unwrap().nodes().await.unwrap();
        let label = |node: &pvemig::k8s::Node| node.meta.labels.get("lab/told").cloned().unwrap_or_default();
        nodes.into_iter().map(|node| (node.meta.name.clone(), node.meta.uid.clone(), label(&node))).collect()
    }
}

fn objects(w: &World) -> usize {
    w.kube.store.everything().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_brings_back_the_objects_of_its_moment() {
    let ground = Ground::new("1.11.5").await;
    ground.label(MAC, "before").await;
    let (before, then) = (ground.known().await, ground.read(objects));
    assert_eq!((before.len(), before[0].2.as_str()), (3, "before"));
    let file = ground.lab.dir().join("snapshot");
    ground.talos(NUC).await.etcd_snapshot(&file).await.unwrap();
    ground.label(MAC, "after").await;
    ground.label(VM, "after").await;

    ground.without_etcd().await;
    assert_eq!(ground.read(World::kube_serving), Serving::Not);
    let nuc = ground.talos(NUC).await;
    nuc.etcd_recover(&ground.permit, &file).await.unwrap();
    nuc.bootstrap(&ground.permit, true, false).await.unwrap();
    assert_eq!(ground.known().await, before);
    ground.wait("all have a vote", |w| w.talos.etcd.members.iter().filter(|m| !m.learner).count() == 3).await;
    for node in NODES {
        ground.back(node, "").await;
    }
    // Controllers go on from there: what was there is, and runs.
    assert!(ground.read(objects) >= then, "{then}");
    assert_eq!((ground.known().await, ground.read(World::etcd_clusters)), (before, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survivors_file_does_with_no_look_at_a_digest_that_it_has_not() {
    let ground = Ground::new("1.11.5").await;
    let before = ground.known().await;
    // Two are gone for good; what the third has is all that there is.
    ground.lab.shared().change(|w| {
        for node in [VM, MAC] {
            let node = w.talos.nodes.get_mut(node).unwrap();
            (node.run, node.off, node.member) = (None, true, None);
        }
    });
    let nuc = ground.talos(NUC).await;
    assert_eq!(ground.read(World::kube_serving), Serving::Headless);
    let pages = nuc.file("/var/lib/etcd/member/snap/db").await.unwrap();
    let file = ground.lab.dir().join("db");
    std::fs::write(&file, &pages).unwrap();
    let wipe = Wipe::Volumes(vec!["EPHEMERAL".into()]);
    nuc.reset(&ground.permit, &Reset { graceful: false, reboot: true, wipe }).await.unwrap();
    ground.wait("etcd waits", |w| w.talos_services(NUC).iter().any(|s| s.id == "etcd" && s.state == "Preparing")).await;
    nuc.etcd_recover(&ground.permit, &file).await.unwrap();
    nuc.bootstrap(&ground.permit, true, false).await.unwrap();
    let failed = |w: &World| w.talos_services(NUC).iter().any(|s| s.id == "etcd" && s.message.contains("missing hash"));
    ground.wait("its digest is missed", failed).await;
    let boot = ground.boot(NUC);
    nuc.reboot(&ground.permit, pvemig::talos::RebootMode::PowerCycle).await.unwrap();
    ground
        .wait("etcd waits again", |w| {
            w.talos.nodes[NUC].run.as_ref().is_some_and(|run| run.boot_id != boot)
                && w.talos_services(NUC).iter().any(|s| s.id == "etcd" && s.state == "Preparing")
        })
        .await;
    nuc.etcd_recover(&ground.permit, &file).await.unwrap();
    nuc.bootstrap(&ground.permit, true, true).await.unwrap();
    assert_eq!(ground.known().await, before);
    assert_eq!(nuc.etcd_members(false).await.unwrap().len(), 1);
}

/// Without a snapshot the cluster is another one: it has the nodes that register, and nothing else of before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_snapshot_everything_is_lost() {
    let ground = Ground::new("1.11.5").await;
    let before = ground.known().await;
    ground.without_etcd().await;
    let nuc = ground.talos(NUC).await;
    let nothing = nuc.bootstrap(&ground.permit, true, false).await.unwrap_err();
    assert!(matches!(nothing, Error::NotReady { .. }), "{nothing}");
    nuc.bootstrap(&ground.permit, false, false).await.unwrap();
    ground.wait("they register", |w| w.talos_kubelet_ready(NUC) == Some(true)).await;
    let now = ground.known().await;
    assert!(!now.is_empty() && now.iter().all(|(_, uid, _)| before.iter().all(|(_, old, _)| old != uid)), "{now:?}");
    assert!(ground.read(|w| w.kube.store.everything().all(|(key, _)| key.namespace != "home")));
}
