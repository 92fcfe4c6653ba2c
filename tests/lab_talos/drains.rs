//! What a node does to itself in Kubernetes: cordon, drain, and the cordon taken back; and its static pods.

use pvemig::lab::kube::kinds;
use pvemig::talos::proto::machine::{RebootRequest, ShutdownRequest, UpgradeRequest};
use serde_json::json;

use super::*;

const CORDONED: &str = "talos.dev/cordoned";

/// Whether a node is cordoned, and by Talos.
fn cordon(w: &World, node: &str) -> (bool, bool) {
    let found = w.kube.store.get(kinds::nodes(), "", node).unwrap();
    (found["spec"]["unschedulable"] == true, found["metadata"]["annotations"].get(CORDONED).is_some())
}

/// The pods on a node, by the kind of their controller.
fn pods(w: &World, node: &str, kind: &str) -> Vec<String> {
    let on = |p: &&std::sync::Arc<Value>| {
        p["spec"]["nodeName"] == node && p["metadata"]["ownerReferences"][0]["kind"] == kind
    };
    let name = |p: &std::sync::Arc<Value>| p["metadata"]["name"].as_str().unwrap().to_owned();
    w.kube.store.list(kinds::pods(), None).filter(on).map(name).collect()
}

/// A node on which a pod is that a budget watches over.
fn watched(b: &Bench) -> &'static str {
    let on =
        |node: &&&str| b.lab.shared().read(|w| pods(w, node, "ReplicaSet")).iter().any(|p| p.starts_with("whoami"));
    [VM, MAC, NUC].iter().find(on).unwrap()
}

/// A second budget for the same pods: then none of them is ever evicted.
fn kept(w: &mut World) {
    w.kube.more.push(json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": { "name": "strict", "namespace": "home" },
        "spec": { "minAvailable": 3, "selector": { "matchLabels": { "app": "whoami" } } },
    }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_drains_a_reboot_does_not_and_only_its_own_cordon_is_taken_back() {
    let b = Bench::new("talos-three").await;
    let count = |node: &str, kind: &str| b.lab.shared().read(|w| pods(w, node, kind).len());
    for node in [NUC, VM, MAC] {
        assert_eq!((count(node, "DaemonSet"), count(node, "Node")), (1, 3), "{node}");
    }
    let before = b.boot_id(VM).await;
    b.machine(VM).reboot(RebootRequest { mode: 1 }).await.unwrap();
    b.wait("it goes down", |w| w.talos.nodes[VM].run.as_ref().is_none_or(|run| run.boot_id != before)).await;
    assert_eq!(b.lab.shared().read(|w| cordon(w, VM)), (false, false));
    b.back(VM, &before).await;

    let before = b.boot_id(VM).await;
    b.machine(VM).shutdown(ShutdownRequest { force: false }).await.unwrap();
    b.wait("the process is gone", |w| w.vms[&223].running.is_none()).await;
    assert_eq!(b.lab.shared().read(|w| cordon(w, VM)), (true, true));
    assert_eq!((count(VM, "ReplicaSet"), count(VM, "DaemonSet"), count(VM, "Node")), (0, 1, 3));
    b.lab.shared().change(|w| w.fork("qmstart", 223, "root@pam", json!({})));
    b.back(VM, &before).await;
    b.wait("its cordon is gone", |w| cordon(w, VM) == (false, false)).await;

    // By force there is neither.
    b.machine(MAC).shutdown(ShutdownRequest { force: true }).await.unwrap();
    b.wait("it is off", |w| w.talos.nodes[MAC].off).await;
    assert_eq!(b.lab.shared().read(|w| cordon(w, MAC)), (false, false));

    // Proxmox's way to shut a machine down is a shutdown like any other.
    let before = b.boot_id(VM).await;
    b.lab.shared().change(|w| w.fork("qmshutdown", 223, "root@pam", json!({})));
    b.wait("it is cordoned", |w| cordon(w, VM) == (true, true)).await;
    b.wait("the process is gone", |w| w.vms[&223].running.is_none()).await;
    b.lab.shared().change(|w| w.fork("qmstart", 223, "root@pam", json!({})));
    b.back(VM, &before).await;
    b.wait("its cordon is gone", |w| cordon(w, VM) == (false, false)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_elses_cordon_stays() {
    let b = Bench::new("talos-three").await;
    let text = std::fs::read_to_string(b.lab.dir().join("kubeconfig")).unwrap();
    let file = kube::config::Kubeconfig::from_yaml(&text).unwrap();
    let config = kube::Config::from_custom_kubeconfig(file, &Default::default()).await.unwrap();
    let client = kube::Client::try_from(config).unwrap();
    let kind = kube::discovery::ApiResource::from_gvk(&kube::api::GroupVersionKind::gvk("", "v1", "Node"));
    let nodes: kube::Api<kube::api::DynamicObject> = kube::Api::all_with(client, &kind);
    let patch = kube::api::Patch::Merge(json!({ "spec": { "unschedulable": true } }));
    nodes.patch(MAC, &Default::default(), &patch).await.unwrap();
    let before = b.boot_id(MAC).await;
    b.machine(MAC).shutdown(ShutdownRequest { force: false }).await.unwrap();
    b.wait("it is off", |w| w.talos.nodes[MAC].off).await;
    assert!(b.lab.shared().change(|w| w.press_power(MAC)));
    b.back(MAC, &before).await;
    let running = |w: &World| pods(w, MAC, "Node").len() == 3 && w.talos_kubelet_ready(MAC) == Some(true);
    b.wait("it is at work", running).await;
    assert_eq!(b.lab.shared().read(|w| cordon(w, MAC)), (true, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_that_does_not_end_is_given_up() {
    let b = Bench::with("talos-three", kept).await;
    let node = watched(&b);
    let before = b.boot_id(node).await;
    let image =
        "factory.talos.dev/metal-installer/376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba:v1.12.11";
    b.machine(node).upgrade(UpgradeRequest { image: image.into(), ..Default::default() }).await.unwrap();
    b.wait("it is cordoned", |w| cordon(w, node) == (true, true)).await;
    // Its stage is that of the upgrade, and all of it still runs.
    let while_it_drains = b.lab.shared().read(|w| {
        let run = w.talos.nodes[node].run.as_ref().unwrap();
        (run.draining.is_some(), w.etcd_up().len(), w.talos_stage(node))
    });
    assert_eq!(while_it_drains, (true, 3, Some(Stage::Upgrading)));
    b.back(node, &before).await;
    b.wait("its cordon is gone", |w| cordon(w, node) == (false, false)).await;
    assert_eq!(b.lab.shared().read(|w| w.talos.nodes[node].image().version), "1.11.5");
    assert_eq!(b.lab.shared().read(|w| w.talos.nodes[node].slots.len()), 1);
    // A shutdown goes on all the same.
    b.machine(MAC).shutdown(ShutdownRequest { force: false }).await.unwrap();
    b.wait("it is off", |w| w.talos.nodes[MAC].off).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_pod_that_is_deleted_is_there_again() {
    let b = Bench::new("talos-three").await;
    let find = |w: &World| w.kube.store.get(kinds::pods(), "kube-system", "kube-apiserver-talos-nuc").cloned();
    let pod = b.lab.shared().read(find).unwrap();
    let annotations = &pod["metadata"]["annotations"];
    assert!(
        annotations["kubernetes.io/config.mirror"].is_string() && annotations["kubernetes.io/config.source"] == "file"
    );
    assert_eq!((&pod["status"]["phase"], &pod["spec"]["nodeName"]), (&json!("Running"), &json!(NUC)));
    assert_eq!(b.lab.shared().read(|w| pods(w, NUC, "Node").len()), 3);
    b.lab.shared().change(|w| {
        let key = pvemig::lab::kube::store::Key::new(kinds::pods(), "kube-system", "kube-apiserver-talos-nuc");
        w.kube.store.remove(&key).unwrap();
    });
    b.wait("it is there again", |w| {
        find(w)
            .is_some_and(|new| new["metadata"]["uid"] != pod["metadata"]["uid"] && new["status"]["phase"] == "Running")
    })
    .await;
}
