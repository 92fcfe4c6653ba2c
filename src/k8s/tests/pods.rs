use serde_json::{Value, json};

use super::super::Node;
use super::super::meta::{Taint, Toleration, not_tolerated};
use super::super::pod::Pod;
use super::super::resource::DEPLOYMENT;
use super::super::workload::Workload;
use super::{fixture, node};

fn pod(change: impl Fn(&mut Value)) -> Pod {
    let mut value = fixture("pod");
    change(&mut value);
    Pod::from_api(value).unwrap()
}

#[test]
fn a_pod_says_why_it_does_not_run() {
    let waiting = |reason: &str, message: &str| {
        json!([{"name": "frigate", "ready": false, "restartCount": 1, "image": "i", "imageID": "",
                "state": {"waiting": {"reason": reason, "message": message}}}])
    };
    let not_ready = |v: &mut Value| {
        v["status"]["conditions"] =
            json!([{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "False"}])
    };
    let table: Vec<(Pod, &str)> = vec![
        (
            pod(|v| {
                v["spec"]["nodeName"] = Value::Null;
                v["status"] = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
                    "reason": "Unschedulable", "message": "0/2 nodes are available: 2 node(s) had volume node affinity conflict"}]});
            }),
            "not scheduled: 0/2 nodes are available: 2 node(s) had volume node affinity conflict (Unschedulable)",
        ),
        (
            pod(|v| {
                not_ready(v);
                v["status"]["phase"] = "Pending".into();
                v["status"]["containerStatuses"] = waiting("ContainerCreating", "");
            }),
            "frigate: ContainerCreating",
        ),
        (
            pod(|v| {
                not_ready(v);
                v["status"]["containerStatuses"] = waiting("CrashLoopBackOff", "back-off 5m0s");
            }),
            "frigate: CrashLoopBackOff: back-off 5m0s",
        ),
        (
            pod(|v| {
                not_ready(v);
                v["status"]["containerStatuses"][0]["ready"] = false.into();
            }),
            "frigate: runs and is not ready",
        ),
        (
            pod(|v| {
                not_ready(v);
                v["status"]["containerStatuses"] = Value::Null;
            }),
            "on k3s-vm-pumped-piglet, which no longer reports",
        ),
        (
            pod(|v| {
                not_ready(v);
                v["status"]["containerStatuses"] = Value::Null;
                v["status"]["phase"] = "Pending".into();
            }),
            "scheduled to k3s-vm-pumped-piglet, phase Pending, the kubelet says nothing yet",
        ),
        (pod(not_ready), "on k3s-vm-pumped-piglet, which no longer reports"),
        (
            pod(|v| {
                v["metadata"]["deletionTimestamp"] = "2025-05-01T00:00:00Z".into();
                v["metadata"]["finalizers"] = json!(["x/y"]);
            }),
            "being deleted, held by finalizers x/y",
        ),
    ];
    assert_eq!(table.len(), 8);
    for (pod, expected) in table {
        assert_eq!(pod.trouble().first().map(String::as_str), Some(expected));
    }
    assert!(pod(|_| {}).is_ready());
    assert!(pod(|_| {}).trouble().is_empty());
}

#[test]
fn a_node_says_who_labelled_it_and_what_it_has() {
    let node = Node::from_api(fixture("node")).unwrap();
    assert!(node.is_ready() && node.is_control_plane() && !node.unschedulable);
    assert_eq!(node.boot_id, "0d4e8c5e-0f2f-4b57-8a48-8cf1b7f3a001");
    assert_eq!(node.runtime_handlers, Some(vec!["runc".into(), String::new()]));
    assert_eq!((node.capacity["nvidia.com/gpu"].as_str(), node.allocatable["nvidia.com/gpu"].as_str()), ("1", "0"));
    let who: Vec<String> = node.label_owners("coral").iter().map(ToString::to_string).collect();
    assert_eq!(who, ["kubectl-label at 2025-04-01T08:00:00Z"]);
    assert_eq!(node.label_owners("kubernetes.io/hostname")[0].manager, "k3s");
    assert!(node.cordon_owners().is_empty());
}

#[test]
fn a_cordon_is_named_once_and_taints_by_name() {
    let mut cordoned = node("other", &[("coral", "true")]);
    cordoned.unschedulable = true;
    let taint = |key: &str, effect: &str| Taint { key: key.into(), value: String::new(), effect: effect.into() };
    cordoned.taints = vec![
        taint("node.kubernetes.io/unschedulable", "NoSchedule"),
        taint("gpu", "NoExecute"),
        taint("soft", "PreferNoSchedule"),
    ];
    assert_eq!(pod(|_| {}).misfits(&cordoned), ["cordoned", "taint gpu:NoExecute"]);
    let any = Toleration { operator: "Exists".into(), ..Toleration::default() };
    assert!(not_tolerated(&cordoned.taints, &[any]).is_empty());
    let only_execute = Toleration {
        key: "gpu".into(),
        effect: "NoSchedule".into(),
        operator: "Exists".into(),
        ..Toleration::default()
    };
    assert_eq!(not_tolerated(&cordoned.taints, &[only_execute]).len(), 2);
    let mut down = node("down", &[("coral", "true")]);
    down.ready = None;
    assert_eq!(pod(|_| {}).misfits(&down), ["not Ready"]);
}

#[test]
fn a_pod_of_a_template_and_a_workload_as_another_manifest_makes_it() {
    let raw = fixture("deployment");
    let workload = Workload::from_api(DEPLOYMENT, raw.clone()).unwrap();
    let pod = workload.pod().unwrap().unwrap();
    assert_eq!((pod.node.as_ref(), pod.phase.as_str()), (None, ""));
    let mut other = raw;
    other["spec"]["template"]["spec"]["nodeSelector"] = serde_json::json!({"coral": "true"});
    let other = workload.with_manifest(other).unwrap();
    let wants = |w: &Workload| w.pod().unwrap().unwrap().node_selector.get("coral").cloned();
    assert_eq!((wants(&workload), wants(&other)), (None, Some("true".to_owned())));
    assert_eq!(other.replicas, workload.replicas);
    let bare = workload.with_manifest(serde_json::json!({"spec": {"selector": {}}})).unwrap();
    assert!(bare.pod().unwrap().is_none());
}
