//! What the preflight of the reboot test finds beside etcd, images and VMs, which have files of their own.

use std::collections::BTreeSet;

use pvemig::base::check::Answer;
use pvemig::base::hold::{MARK, Mark};
use pvemig::blueprint;
use pvemig::lab::{self, Lab};
use serde_json::json;

use super::{ask, rig};
use crate::harness::estate::{Rig, at_rest};

/// The names of what is found, each with its text and the step that it keeps from its work.
async fn found(rig: &Rig) -> Vec<(String, String, String)> {
    let Answer::Blocked { problems } = ask(rig, "00-preflight").await.unwrap().answer else { return Vec::new() };
    let all = problems.into_iter().map(|p| {
        assert!(!p.help.is_empty(), "{}", p.text);
        (p.finding.unwrap_or_default().into(), p.text, p.protects.map(|key| key.to_string()).unwrap_or_default())
    });
    all.collect()
}

fn one<'f>(found: &'f [(String, String, String)], name: &str) -> &'f (String, String, String) {
    let named: Vec<_> = found.iter().filter(|(finding, ..)| finding == name).collect();
    let [one] = named.as_slice() else { panic!("{name}: {found:#?}") };
    one
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_comes_before_the_control_plane() {
    // One that was a worker from its first boot on.
    let mut world = lab::load("talos-three").unwrap();
    let node = world.talos.nodes.get_mut("talos-vm").unwrap();
    node.config = node.config.replace("type: controlplane", "type: worker");
    world.talos.etcd.members.retain(|member| member.name != "talos-vm");
    let world = Lab::at_rest(world, tempfile::tempdir().unwrap().path()).unwrap();
    let rig = Rig::of(world, |site| {
        site["migrations"]["reboots"]["params"]["nodes"] = json!(["talos-mac", "talos-vm"]);
    })
    .await;
    let found = found(&rig).await;
    let (_, text, protects) = one(&found, "control-plane-before-worker");
    assert_eq!(text, "talos-mac is of the control plane, and comes before worker talos-vm");
    assert_eq!(protects, "04-reboot@talos-mac");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_kubernetes_does_not_know_is_named() {
    let rig = Rig::of(at_rest("talos-three"), |site| {
        site["migrations"]["reboots"]["params"]["nodes"] = json!(["talos-vm"]);
        site.pointer_mut("/talos/homelab/nodes/talos-vm").unwrap()["node_name"] = json!("talos-wm");
    })
    .await;
    let found = found(&rig).await;
    let (_, text, protects) = one(&found, "node-not-in-kubernetes");
    assert!(text.contains("has no node talos-wm"), "{text}");
    assert_eq!(protects, "02-drain@talos-vm");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_elses_mark_and_a_pod_that_nothing_makes_anew_are_named() {
    let rig = rig("talos-three", &["talos-vm"], |_| {}).await;
    assert_eq!(found(&rig).await, []);
    let client = rig.cluster().await;
    let send = async |method: &str, path: &str, kind: &str, body: serde_json::Value| {
        let request = http::Request::builder().method(method).uri(path).header("content-type", kind);
        client.request_text(request.body(body.to_string().into_bytes()).unwrap()).await.unwrap();
    };
    let mark = Mark { run: "9zz".into(), host: "other-desk".into(), was: json!({ "unschedulable": false }) };
    let body = json!({"metadata": {"annotations": {MARK: mark.to_annotation()}}});
    send("PATCH", "/api/v1/nodes/talos-vm", "application/merge-patch+json", body).await;
    let bare = json!({"metadata": {"name": "bare"}, "spec": {"nodeName": "talos-vm",
        "containers": [{"name": "sh", "image": "busybox"}]}});
    send("POST", "/api/v1/namespaces/home/pods", "application/json", bare).await;
    let found = found(&rig).await;
    let (_, held, at) = one(&found, "node-held-elsewhere");
    assert!(held.contains("9zz") && held.contains("other-desk"), "{held}");
    assert_eq!(at, "02-drain@talos-vm");
    let (_, pod, at) = one(&found, "pod-will-not-leave");
    assert!(pod.contains("home/bare") && pod.contains("bare pod"), "{pod}");
    assert_eq!(at, "02-drain@talos-vm");
}

/// Every finding of the blueprint's own has a test that meets it; those that it shares are in `preflight/`.
#[test]
fn every_finding_is_met_by_a_test() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut sources = String::new();
    for folder in ["reboot", "preflight"] {
        for file in std::fs::read_dir(dir.join(folder)).unwrap() {
            sources += &std::fs::read_to_string(file.unwrap().path()).unwrap();
        }
    }
    let of = |blueprint: &str| -> BTreeSet<&str> {
        blueprint::named(blueprint).unwrap().findings.iter().map(|known| known.name).collect()
    };
    let known = &of("node-reboot-test") - &of("usb-move");
    let unmet: Vec<_> = known.iter().filter(|name| !sources.contains(&format!("\"{name}\""))).collect();
    println!("{} findings of node-reboot-test, unmet: {unmet:?}", known.len());
    assert!(known.len() >= 10, "{known:?}");
    assert_eq!(unmet, Vec::<&&str>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_only_reads_is_not_enough() {
    let rig = Rig::of(at_rest("talos-three"), |site| {
        site["migrations"]["reboots"]["params"]["nodes"] = json!(["talos-vm"]);
        site["talos"]["homelab"]["context"] = json!("reader");
    })
    .await;
    let found = found(&rig).await;
    let (_, text, protects) = one(&found, "talos-role-lacking");
    assert!(text.contains("the roles os:reader on talos-vm") && text.contains("os:admin is needed"), "{text}");
    assert_eq!(protects, "01-quorum-gate@talos-vm");
}

/// What can be nowhere else is down with its node: the plan's short end has it from here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_back_with_its_node_only_is_known_before() {
    let rig = rig("talos-three", &["talos-vm", "talos-nuc"], |_| {}).await;
    let labels = json!({"app": "pinned"});
    let body = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "pinned"}, "spec": {
        "replicas": 1, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {
            "nodeSelector": {"kubernetes.io/hostname": "talos-vm"},
            "containers": [{"name": "sh", "image": "busybox"}]}}}});
    let request = http::Request::builder().method("POST").uri("/apis/apps/v1/namespaces/home/deployments");
    let request = request.header("content-type", "application/json").body(body.to_string().into_bytes()).unwrap();
    rig.cluster().await.request_text(request).await.unwrap();
    drop(rig.picture().await);
    let check = super::ask(&rig, "00-preflight").await.unwrap();
    let ends = |node: &str| check.likely[&format!("02-drain@{node}")].ends.clone();
    assert!(ends("talos-vm").len() == 1 && ends("talos-vm")[0].starts_with("home/pinned-"), "{:#?}", check.likely);
    assert_eq!(ends("talos-nuc"), Vec::<String>::new());
    // Nothing is wrong with any image here.
    assert!(check.likely["03-repair@talos-vm"].what.is_empty(), "{:#?}", check.likely);
}
