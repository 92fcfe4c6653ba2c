//! Events, keys, rights, live objects.

use pvemig::k8s::access::Right;
use pvemig::k8s::pod::Pod;
use serde_json::{Value, json};
use wiremock::matchers::{body_partial_json, method};
use wiremock::{Mock, ResponseTemplate};

use super::{Wire, answer, fixture, list, ok, sent};

async fn pending(wire: &Wire) -> Pod {
    let mut value = fixture("pod");
    value["status"] = json!({"phase": "Pending",
        "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "False"}],
        "containerStatuses": [{"name": "frigate", "ready": false, "restartCount": 0, "image": "i", "imageID": "",
            "state": {"waiting": {"reason": "ContainerCreating"}}}]});
    wire.on("GET", "/api/v1/namespaces/frigate/pods/frigate", ok(&value)).await;
    wire.kube.pod("frigate", "frigate").await.unwrap().unwrap()
}

#[tokio::test]
async fn a_pod_that_is_scheduled_and_does_not_start_is_explained_by_its_events() {
    let wire = Wire::start().await;
    let event = |reason: &str, kind: &str, message: &str, rest: Value| {
        let mut event = json!({"metadata": {"name": "e", "namespace": "frigate"}, "involvedObject": {}, "reason": reason,
            "type": kind, "message": message});
        for (key, value) in rest.as_object().unwrap() {
            event[key] = value.clone();
        }
        event
    };
    let sandbox = "Failed to create pod sandbox: no runtime for \"nvidia\" is configured";
    let events = list(&[
        event("FailedMount", "Warning", "old", json!({"lastTimestamp": "2025-05-01T00:00:00Z", "count": 1})),
        event("FailedMount", "Warning", "new", json!({"lastTimestamp": "2025-05-01T00:05:00Z", "count": 9})),
        event(
            "FailedCreatePodSandBox",
            "Warning",
            sandbox,
            json!({"eventTime": "2025-05-01T00:01:00.000000Z", "series": {"count": 4, "lastObservedTime": "2025-05-01T00:09:00.000000Z"}}),
        ),
        event("Scheduled", "Normal", "assigned", json!({"eventTime": "2025-05-01T00:00:30.000000Z"})),
    ]);
    wire.on("GET", "/api/v1/namespaces/frigate/events", ok(&events)).await;
    let pod = pending(&wire).await;
    assert_eq!(
        wire.kube.why_not_running(&pod).await.unwrap(),
        [
            "frigate: ContainerCreating".to_owned(),
            format!("FailedCreatePodSandBox: {sandbox} (4 times)"),
            "FailedMount: new (9 times)".to_owned(),
        ]
    );
    let expected = "/api/v1/namespaces/frigate/events?fieldSelector=involvedObject.uid%3D11111111-aaaa-4aaa-8aaa-000000000001&limit=500";
    assert_eq!(wire.paths().await.last().unwrap(), expected);
    assert_eq!(wire.kube.events("frigate", &pod.meta.uid).await.unwrap().len(), 4);
}

#[tokio::test]
async fn secrets_are_known_by_their_keys_alone() {
    let wire = Wire::start().await;
    let at = "/api/v1/namespaces/frigate";
    let secret = json!({"metadata": {"name": "frigate-rtsp"}, "data": {"user": "YQ=="}});
    wire.on("GET", &format!("{at}/secrets/frigate-rtsp"), ok(&secret)).await;
    let map = json!({"metadata": {}, "data": {"a": "x"}, "binaryData": {"b": "eA=="}});
    wire.on("GET", &format!("{at}/configmaps/both"), ok(&map)).await;
    wire.on("GET", &format!("{at}/configmaps/frigate-config"), answer(404, "status-404")).await;
    wire.on("GET", "/apis/apps/v1/namespaces/frigate/deployments/frigate", answer(200, "deployment")).await;
    assert_eq!(wire.kube.secret_keys("frigate", "frigate-rtsp").await.unwrap().unwrap(), ["user"]);
    assert_eq!(wire.kube.config_map_keys("frigate", "both").await.unwrap().unwrap(), ["a", "b"]);
    assert_eq!(wire.kube.config_map_keys("frigate", "frigate-config").await.unwrap(), None);
    let workload = wire.kube.workload("Deployment", "frigate", "frigate").await.unwrap().unwrap();
    let missing = wire.kube.missing_names("frigate", workload.needs.as_ref().unwrap()).await.unwrap();
    assert_eq!(
        missing,
        ["Secret frigate/frigate-rtsp has no key password", "ConfigMap frigate/frigate-config does not exist"]
    );
}

#[tokio::test]
async fn an_answer_that_is_not_understood_shows_nothing_of_a_secret() {
    let wire = Wire::answering(ok(&json!({"data": "hunter2"}))).await;
    let error = wire.kube.secret_keys("frigate", "frigate-rtsp").await.unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(text.contains("not understood") && !text.contains("hunter2"), "{text}");
}

#[tokio::test]
async fn rights_are_asked_for_and_not_noted() {
    let wire = Wire::start().await;
    let review = |allowed: bool| ResponseTemplate::new(201).set_body_json(json!({"status": {"allowed": allowed}}));
    let exec = json!({"spec": {"resourceAttributes": {"resource": "pods", "subresource": "exec"}}});
    Mock::given(method("POST")).and(body_partial_json(exec)).respond_with(review(false)).mount(&wire.server).await;
    Mock::given(method("POST")).respond_with(review(true)).mount(&wire.server).await;
    let rights = [
        Right::new("patch", "", "nodes", ""),
        Right::new("create", "", "pods/exec", "frigate"),
        Right::new("get", "apps", "deployments", "frigate"),
    ];
    let missing = wire.kube.missing_rights(&rights).await.unwrap();
    assert_eq!(missing, [rights[1].clone()]);
    assert_eq!(missing[0].to_string(), "create pods/exec in frigate");
    assert_eq!(wire.notebook.notes().len(), 0);
    let mut requests = wire.requests().await;
    assert_eq!(requests.len(), 3);
    requests.sort_by_key(|r| r.3.to_string());
    let attributes =
        json!({"verb": "get", "group": "apps", "resource": "deployments", "subresource": "", "namespace": "frigate"});
    let body = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes}});
    let at = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    assert!(requests.contains(&sent("POST", at, "application/json", body)), "{requests:?}");
}

#[tokio::test]
async fn who_may_do_everything_is_asked_once() {
    let all = json!({"spec": {"resourceAttributes":
        {"verb": "*", "group": "*", "resource": "*", "subresource": "", "namespace": ""}}});
    // That it cannot be asked is no yes.
    let said = |code: u16, body: Value| ResponseTemplate::new(code).set_body_json(body);
    let table = [
        (said(201, json!({"status": {"allowed": true}})), true),
        (said(201, json!({"status": {"allowed": false}})), false),
        (said(403, json!({"kind": "Status", "message": "no wildcards", "reason": "Forbidden"})), false),
    ];
    for (answer, expected) in table {
        let wire = Wire::start().await;
        Mock::given(method("POST")).and(body_partial_json(&all)).respond_with(answer).mount(&wire.server).await;
        assert_eq!((wire.kube.may_do_all().await, wire.requests().await.len()), (expected, 1));
    }
}

#[tokio::test]
async fn live_objects_of_any_kind_and_the_servers_version() {
    let wire = Wire::start().await;
    wire.on("GET", "/version", ok(&json!({"gitVersion": "v1.34.1+k3s1"}))).await;
    wire.on("GET", "/apis/apps/v1/namespaces/frigate/deployments/frigate", answer(200, "deployment")).await;
    let kinds = json!({"resources": [{"name": "services", "kind": "Service", "namespaced": true}]});
    wire.on("GET", "/api/v1", ok(&kinds)).await;
    wire.on("GET", "/api/v1/namespaces/frigate/services/frigate", ok(&json!({"spec": {}}))).await;
    let class = json!({"metadata": {"name": "nvidia"}, "handler": "nvidia"});
    wire.on("GET", "/apis/node.k8s.io/v1/runtimeclasses/nvidia", ok(&class)).await;
    assert_eq!(wire.kube.version().await.unwrap(), "v1.34.1+k3s1");
    let live = wire.kube.object("apps/v1beta9", "Deployment", "frigate", "frigate").await.unwrap().unwrap();
    assert_eq!(live["spec"]["replicas"], 2);
    assert!(wire.kube.object("v1", "Service", "frigate", "frigate").await.unwrap().is_some());
    assert_eq!(wire.kube.runtime_class("nvidia").await.unwrap().unwrap().handler, "nvidia");
}
