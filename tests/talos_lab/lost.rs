//! Worlds in which members of etcd were lost, as `talosctl` sees them.

use pvemig::talos::{Error, kind};

use super::*;

async fn ground(world: &str) -> Ground {
    Ground::of(load(world).unwrap()).await
}

/// Name and whether it has a vote.
fn members(w: &World) -> Vec<(String, bool)> {
    w.talos.etcd.members.iter().map(|m| (m.name.clone(), !m.learner)).collect()
}

fn voters(names: &[&str]) -> Vec<(String, bool)> {
    names.iter().map(|name| ((*name).to_owned(), true)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node_is_missed_by_all_but_etcd_goes_on() {
    let ground = ground("talos-dead-node").await;
    assert_eq!(ground.read(members), voters(&[NUC, VM, MAC]));
    let nuc = ground.talos(NUC).await;
    assert_eq!(nuc.etcd_members(false).await.unwrap().len(), 3);
    assert!(nuc.etcd_status().await.unwrap().leader != 0);
    let node = ground.estate.kubernetes("homelab").await.unwrap().node(MAC).await.unwrap().unwrap();
    assert!(!node.is_ready());
    let taints: Vec<_> = node.taints.iter().map(|taint| (taint.key.as_str(), taint.effect.as_str())).collect();
    let unreachable = "node.kubernetes.io/unreachable";
    assert_eq!(taints, [(unreachable, "NoSchedule"), (unreachable, "NoExecute")]);
    // A pod that nobody can end, its lease with its last word, and a volume that nobody detaches.
    ground.read(|w| {
        let of = |kind: &str| {
            let all = w.kube.store.everything().filter(|(key, _)| key.resource == kind);
            all.map(|(_, object)| object.clone()).collect::<Vec<_>>()
        };
        let on_mac = |pod: &&Arc<serde_json::Value>| pod["spec"]["nodeName"] == MAC;
        let pods = of("pods");
        let stuck = pods.iter().filter(on_mac).filter(|pod| pod["metadata"]["deletionTimestamp"].is_string());
        assert!(stuck.clone().any(|pod| pod["metadata"]["namespace"] == "home"), "{:?}", stuck.count());
        assert_eq!(of("volumeattachments").iter().filter(on_mac).count(), 1);
        let lease = of("leases").into_iter().find(|lease| lease["metadata"]["name"] == MAC).unwrap();
        let last: jiff::Timestamp = lease["spec"]["renewTime"].as_str().unwrap().parse().unwrap();
        let ago = w.kube.store.now.parse::<jiff::Timestamp>().unwrap().as_second() - last.as_second();
        // A busy machine makes it more.
        assert!(ago >= 3_500, "{ago}");
    });
    let spare = ground.maintenance("talos-mac2");
    let status = spare.single(&kind::MACHINE_STATUS).await.unwrap().unwrap().spec;
    assert_eq!(status.stage, kind::Stage::Maintenance);
    let ids: Vec<String> = ground.read(|w| w.talos.nodes.values().map(|node| node.uuid.clone()).collect());
    assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
    // The files for it are of the cluster that there is.
    let text = std::fs::read_to_string(ground.lab.dir().join("controlplane.yaml")).unwrap();
    assert!(text.contains("id: 0raF93qnkMvF-FZNuvyGozXNdLiT2FOWSlyBaW4PR-w=\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_survivor_of_three_has_its_data_and_no_leader() {
    let ground = ground("talos-no-quorum").await;
    assert_eq!(ground.read(members), voters(&[NUC, VM, MAC]));
    assert_eq!(ground.read(|w| (w.kube_serving(), w.etcd_clusters())), (Serving::Headless, 1));
    let nuc = ground.talos(NUC).await;
    let status = nuc.etcd_status().await.unwrap();
    assert!(status.leader == 0, "{status:?}");
    let error = nuc.etcd_members(false).await.unwrap_err();
    assert!(error.to_string().contains("no leader"), "{error}");
    let twice = nuc.bootstrap(&ground.permit, false, false).await.unwrap_err();
    assert!(matches!(twice, Error::Exists { .. }), "{twice}");
    for node in [VM, MAC] {
        ground.in_maintenance(node).await;
        assert_eq!(ground.maintenance(node).single(&kind::SYSTEM_DISK).await.unwrap(), None);
    }
    // What it has can be taken, though nothing can be written.
    nuc.etcd_snapshot(&ground.lab.dir().join("snapshot")).await.unwrap();
    let database = ground.read(|w| w.etcd_database(NUC)).unwrap();
    assert!(database.objects.iter().filter(|object| object["kind"] == "Node").count() == 3);
    // Nobody has written since: all are Ready, and nobody has said so for an hour.
    let said = ground.read(|w| w.talos_kubelet_ready(MAC));
    assert_eq!(said, Some(true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_voters_is_gone_and_the_learner_gets_no_vote() {
    let ground = ground("talos-deadlock").await;
    let wanted = [(NUC, true), (VM, true), (MAC, false)].map(|(name, votes)| (name.to_owned(), votes));
    assert_eq!(ground.read(members), wanted);
    assert_eq!(ground.read(World::kube_serving), Serving::Headless);
    let mac = ground.talos(MAC).await.etcd_status().await.unwrap();
    assert!(mac.is_learner && mac.leader == 0, "{mac:?}");
    let (nuc, gone) = (ground.talos(NUC).await, ground.read(|w| w.talos.etcd.members[1].clone()));
    // Neither goes: to remove the one takes the vote of the other.
    let (id, hostname) = (gone.id, gone.name.clone());
    let member =
        pvemig::talos::EtcdMember { id, hostname, peer_urls: Vec::new(), client_urls: Vec::new(), is_learner: false };
    let error = nuc.etcd_remove(&ground.permit, &member).await.unwrap_err();
    assert!(error.to_string().contains("no leader"), "{error}");
    assert_eq!(ground.read(members), wanted);
    assert!(ground.read(|w| w.vms[&223].running.is_none()));
}

/// An alarm for want of space keeps every write out of Kubernetes, that of kubelets and controllers with them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_space_kubernetes_reads_and_does_not_write() {
    let ground = ground("talos-three-alarm").await;
    assert_eq!(ground.read(World::kube_serving), Serving::Full);
    let kube = ground.estate.kubernetes("homelab").await.unwrap();
    let error = kube.set_node_label(&ground.permit, MAC, "lab/told", "yes").await.unwrap_err();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    assert!(text.contains("etcdserver: mvcc: database space exceeded"), "{text}");
    assert_eq!(kube.nodes().await.unwrap().iter().filter(|node| node.is_ready()).count(), 3);
    ground.lab.shared().change(|w| w.talos.etcd.members.iter_mut().for_each(|member| member.alarm = None));
    kube.set_node_label(&ground.permit, MAC, "lab/told", "yes").await.unwrap();
    let mac = kube.node(MAC).await.unwrap().unwrap();
    assert!(mac.is_ready() && mac.meta.labels.contains_key("lab/told"));
}
