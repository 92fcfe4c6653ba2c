//! Nodes and evictions.

use pvemig::base::fault::{Effect, Fault};
use pvemig::base::hold::MARK;
use pvemig::k8s::KubeError;
use pvemig::k8s::drain::{Evicted, PodName};
use serde_json::{Value, json};
use wiremock::matchers::{method, path, query_param};
use wiremock::{Mock, ResponseTemplate};

use super::{MERGE, Wire, answer, fixture, list, mark, ok, sent};

const NAME: &str = "k3s-vm-still-fawn";
const PATCHED: &str = "/api/v1/nodes/k3s-vm-still-fawn?fieldManager=pvemig";

#[tokio::test]
async fn nodes_are_labelled_by_merge_patches() {
    let wire = Wire::answering(answer(200, "node")).await;
    wire.kube.set_node_label(&wire.permit, NAME, "coral", "true").await.unwrap();
    let (request, note) = wire.change().await;
    assert_eq!(request, sent("PATCH", PATCHED, MERGE, json!({"metadata": {"labels": {"coral": "true"}}})));
    assert_eq!(note.text, "PATCH nodes/k3s-vm-still-fawn label coral=true");

    let wire = Wire::answering(answer(200, "node")).await;
    wire.kube.remove_node_label(&wire.permit, NAME, "coral").await.unwrap();
    let (request, note) = wire.change().await;
    assert_eq!(request, sent("PATCH", PATCHED, MERGE, json!({"metadata": {"labels": {"coral": null}}})));
    assert_eq!(note.text, "PATCH nodes/k3s-vm-still-fawn remove label coral");
}

#[tokio::test]
async fn a_cordon_and_its_mark_are_one_patch_and_so_is_their_end() {
    let wire = Wire::answering(answer(200, "node")).await;
    wire.kube.cordon(&wire.permit, NAME, &mark()).await.unwrap();
    let body = json!({"metadata": {"annotations": {MARK: mark().to_annotation()}}, "spec": {"unschedulable": true}});
    assert_eq!(wire.change().await.0, sent("PATCH", PATCHED, MERGE, body));

    for (stays, was) in [(false, Value::Null), (true, json!(true))] {
        let wire = Wire::answering(answer(200, "node")).await;
        wire.kube.release_node(&wire.permit, NAME, stays).await.unwrap();
        let body = json!({"metadata": {"annotations": {MARK: null}}, "spec": {"unschedulable": was}});
        assert_eq!(wire.change().await.0, sent("PATCH", PATCHED, MERGE, body));
    }
}

#[tokio::test]
async fn nodes_are_read_by_name_and_in_pages() {
    let wire = Wire::start().await;
    wire.on("GET", "/api/v1/nodes/k3s-vm-still-fawn", answer(200, "node")).await;
    wire.on("GET", "/api/v1/nodes/gone", answer(404, "status-404")).await;
    let mut page = list(&[fixture("node")]);
    page["metadata"]["continue"] = "next page".into();
    let second = Mock::given(method("GET")).and(path("/api/v1/nodes")).and(query_param("continue", "next page"));
    second.respond_with(ok(&list(&[fixture("node")]))).mount(&wire.server).await;
    wire.on("GET", "/api/v1/nodes", ok(&page)).await;

    assert_eq!(wire.kube.node(NAME).await.unwrap().unwrap().meta.name, NAME);
    assert_eq!(wire.kube.node("gone").await.unwrap(), None);
    assert_eq!(wire.kube.nodes().await.unwrap().len(), 2);
    let expected = [
        "/api/v1/nodes/k3s-vm-still-fawn",
        "/api/v1/nodes/gone",
        "/api/v1/nodes?limit=500",
        "/api/v1/nodes?limit=500&continue=next%20page",
    ];
    assert_eq!(wire.paths().await, expected);
}

#[tokio::test]
async fn half_a_list_is_none() {
    // The continue token expires: once the list is begun anew, twice is an error.
    for (expirations, succeeds) in [(1, true), (2, false)] {
        let wire = Wire::start().await;
        let mut page = list(&[fixture("node")]);
        page["metadata"]["continue"] = "t".into();
        let rest = || Mock::given(path("/api/v1/nodes")).and(query_param("continue", "t"));
        rest().respond_with(answer(410, "status-410")).up_to_n_times(expirations).mount(&wire.server).await;
        rest().respond_with(ok(&list(&[]))).mount(&wire.server).await;
        wire.on("GET", "/api/v1/nodes", ok(&page)).await;
        let nodes = wire.kube.nodes().await;
        assert_eq!(nodes.map(|n| n.len()).ok(), succeeds.then_some(1));
        assert_eq!(wire.paths().await.len(), 4);
    }
}

fn pod() -> PodName {
    PodName { namespace: "frigate".into(), name: "frigate-0".into(), uid: "u1".into() }
}

fn eviction(options: Value) -> Value {
    let metadata = json!({"name": "frigate-0", "namespace": "frigate"});
    json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata, "deleteOptions": options})
}

const EVICTION: &str = "/api/v1/namespaces/frigate/pods/frigate-0/eviction";

#[tokio::test]
async fn an_eviction_carries_the_uid() {
    let wire = Wire::answering(answer(201, "status-success")).await;
    assert_eq!(wire.kube.evict(&wire.permit, &pod(), Some(7)).await.unwrap(), Evicted::Accepted);
    let (request, note) = wire.change().await;
    let body = eviction(json!({"preconditions": {"uid": "u1"}, "gracePeriodSeconds": 7}));
    assert_eq!(request, sent("POST", &format!("{EVICTION}?fieldManager=pvemig"), "application/json", body));
    assert_eq!(note.text, "POST pods/frigate/frigate-0/eviction uid u1");

    // A dry run is a question: no note.
    let wire = Wire::answering(answer(201, "status-success")).await;
    assert_eq!(wire.kube.may_evict(&pod()).await.unwrap(), Evicted::Accepted);
    assert_eq!(wire.notebook.notes().len(), 0);
    let body = eviction(json!({"preconditions": {"uid": "u1"}, "dryRun": ["All"]}));
    assert_eq!(wire.requests().await, [sent("POST", &format!("{EVICTION}?dryRun=All"), "application/json", body)]);
}

#[tokio::test]
async fn an_eviction_is_judged_by_its_body() {
    let answers = [
        (404, "status-404", true),
        (409, "status-409-uid-delete", true),
        (409, "status-409-uid", true),
        (409, "status-409-exists", false),
    ];
    for (code, file, gone) in answers {
        let wire = Wire::answering(answer(code, file)).await;
        let outcome = wire.kube.evict(&wire.permit, &pod(), None).await;
        assert_eq!(outcome.ok() == Some(Evicted::Gone), gone, "{file}");
        wire.change().await;
    }
    for dry in [false, true] {
        let wire = Wire::answering(answer(201, "status-two-budgets")).await;
        let outcome =
            if dry { wire.kube.may_evict(&pod()).await } else { wire.kube.evict(&wire.permit, &pod(), None).await };
        let error = outcome.unwrap_err();
        assert!(matches!(&error, KubeError::Refused { code: 500, .. }), "{error:?}");
        assert!(error.help().unwrap().contains("two budgets"));
        assert_eq!(error.effect(), Effect::None);
    }
    // Neither kind of 429 is tried again by itself.
    for (file, budget) in [("status-429-budget", true), ("status-429-throttled", false)] {
        let wire = Wire::answering(answer(429, file)).await;
        let error = wire.kube.evict(&wire.permit, &pod(), None).await.unwrap_err();
        assert_eq!(matches!(error, KubeError::DisruptionBudget { .. }), budget, "{error:?}");
        assert_eq!(matches!(error, KubeError::Throttled { .. }), !budget, "{error:?}");
        assert_eq!(error.effect(), Effect::None);
        wire.change().await;
    }
    let wire = Wire::answering(ResponseTemplate::new(201).set_body_json(json!({"kind": "Eviction"}))).await;
    let error = wire.kube.evict(&wire.permit, &pod(), None).await.unwrap_err();
    assert!(matches!(error, KubeError::BadAnswer { .. }), "{error:?}");
    assert_eq!(error.effect(), Effect::Maybe);
}

#[tokio::test]
async fn a_dry_run_that_a_budget_refuses_is_not_asked_again() {
    let wire = Wire::answering(answer(429, "status-429-budget")).await;
    let error = wire.kube.may_evict(&pod()).await.unwrap_err();
    assert!(matches!(error, KubeError::DisruptionBudget { .. }), "{error:?}");
    assert_eq!(wire.requests().await.len(), 1);
}

#[tokio::test]
async fn surroundings_are_five_lists() {
    let wire = Wire::answering(ok(&list(&[]))).await;
    wire.kube.surroundings().await.unwrap();
    let mut paths = wire.paths().await;
    paths.sort();
    let expected = [
        "/api/v1/nodes?limit=500",
        "/api/v1/persistentvolumeclaims?limit=500",
        "/api/v1/persistentvolumes?limit=500",
        "/apis/apps/v1/daemonsets?limit=500",
        "/apis/policy/v1/poddisruptionbudgets?limit=500",
    ];
    assert_eq!(paths, expected);
}
