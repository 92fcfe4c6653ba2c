//! The crate `kube`, and plain HTTP.

use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{
    Api, ApiResource, AttachParams, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams,
    PostParams, WatchEvent, WatchParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, Error, ResourceExt};
use pvemig::lab::{Class, FaultEffect, FaultRule, Front, Lab};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{count, lab, lab_without_flux};

async fn client(lab: &Lab) -> Client {
    pvemig::base::tls::init();
    let kubeconfig = Kubeconfig::from_yaml(&lab.reach().kubernetes.kubeconfig).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

/// The HTTP status and the text of a refusal.
fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> (u16, String) {
    match result {
        Err(Error::Api(status)) => (status.code, status.message.clone()),
        other => panic!("not refused: {other:?}"),
    }
}

async fn raw(client: &Client, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", if method == "PATCH" { "application/merge-patch+json" } else { "application/json" })
        .body(body.to_string().into_bytes().into())
        .unwrap();
    let response = client.send(request).await.unwrap();
    let code = response.status().as_u16();
    let mut text = String::new();
    let mut lines = std::pin::pin!(futures::io::BufReader::new(
        http_body_util::BodyExt::into_data_stream(response.into_body())
            .map_err(std::io::Error::other)
            .into_async_read()
    ));
    while lines.read_line(&mut text).await.unwrap() > 0 {}
    (code, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

fn map(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name, "namespace": "home"}, "data": {"a": value}})).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_keep_to_versions_and_preconditions() {
    let (lab, _dir) = lab(1).await;
    let client = client(&lab).await;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "home");
    let first = maps.create(&PostParams::default(), &map("one", "1")).await.unwrap();
    assert_eq!(refusal(maps.create(&PostParams::default(), &map("one", "1")).await).0, 409);
    let mut second = first.clone();
    second.data = map("one", "2").data;
    maps.replace("one", &PostParams::default(), &second).await.unwrap();
    let (code, text) = refusal(maps.replace("one", &PostParams::default(), &second).await);
    assert_eq!((code, text.contains("the object has been modified")), (409, true), "{text}");
    let dry = PostParams { dry_run: true, ..Default::default() };
    maps.create(&dry, &map("two", "1")).await.unwrap();
    assert_eq!(refusal(maps.get("two").await).0, 404);
    let wrong = DeleteParams::default()
        .preconditions(kube::api::Preconditions { uid: Some("another".into()), resource_version: None });
    let (code, text) = refusal(maps.delete("one", &wrong).await);
    assert_eq!(
        (code, text.contains("on ConfigMap \"one\": the UID in the precondition (another)")),
        (409, true),
        "{text}"
    );
    let test = json!([{"op": "test", "path": "/data/a", "value": "1"}, {"op": "add", "path": "/data/b", "value": "x"}]);
    let request = http::Request::patch("/api/v1/namespaces/home/configmaps/one")
        .header("content-type", "application/json-patch+json")
        .body(test.to_string().into_bytes())
        .unwrap();
    assert_eq!(refusal(client.request::<Value>(request).await).0, 422);
    maps.delete("one", &DeleteParams::default()).await.unwrap();
    assert_eq!(count(&lab, Class::Change), 7, "{:?}", lab.shared().log.seen());
}

#[tokio::test(flavor = "multi_thread")]
async fn server_side_apply_knows_who_owns_what() {
    let (lab, _dir) = lab(1).await;
    let maps: Api<ConfigMap> = Api::namespaced(client(&lab).await, "home");
    let apply = |value: &str| {
        Patch::Apply(
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}, "data": {"a": value}}),
        )
    };
    let (mine, other) = (PatchParams::apply("mine"), PatchParams::apply("other"));
    maps.patch("one", &mine, &apply("1")).await.unwrap();
    let (code, text) = refusal(maps.patch("one", &other, &apply("2")).await);
    assert_eq!(code, 409);
    assert_eq!(text, "Apply failed with 1 conflict: conflict with \"mine\": .data.a");
    let forced = maps.patch("one", &other.clone().force(), &apply("2")).await.unwrap();
    let managers: Vec<&str> = forced.managed_fields().iter().filter_map(|m| m.manager.as_deref()).collect();
    assert_eq!(managers, ["other"]);
    let again = maps.patch("one", &other, &apply("2")).await.unwrap();
    assert_eq!(again.resource_version(), forced.resource_version());
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_pages_and_watches_go_on_from_them() {
    let (lab, _dir) = lab(60).await;
    let client = client(&lab).await;
    let pods: Api<Pod> = Api::all(client.clone());
    let first = pods.list(&ListParams::default().limit(4)).await.unwrap();
    assert_eq!((first.items.len(), first.metadata.remaining_item_count), (4, Some(7)));
    let token = first.metadata.continue_.clone().unwrap();
    let rest = pods.list(&ListParams::default().limit(100).continue_token(&token)).await.unwrap();
    assert_eq!((rest.items.len(), rest.metadata.continue_.clone().unwrap_or_default()), (7, String::new()));
    let bad = refusal(pods.list(&ListParams::default().fields("spec.colour=red")).await);
    assert_eq!(bad, (400, "field label not supported: spec.colour".into()));

    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "home");
    let from = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    maps.create(&PostParams::default(), &map("one", "1")).await.unwrap();
    let patch = Patch::Merge(json!({"metadata": {"labels": {"x": "y"}}}));
    maps.patch("one", &PatchParams::default(), &patch).await.unwrap();
    let params = WatchParams::default().labels("x=y").timeout(5);
    let mut watch = maps.watch(&params, &from).await.unwrap().boxed();
    // It was not selected before it had the label: to this watch it is new.
    let Some(Ok(WatchEvent::Added(added))) = watch.next().await else { panic!("no event") };
    assert_eq!(added.name_any(), "one");
    maps.delete("one", &DeleteParams::default()).await.unwrap();
    let Some(Ok(WatchEvent::Deleted(_))) = watch.next().await else { panic!("no event") };
    let (code, body) = raw(&client, "GET", "/api/v1/configmaps?watch=true&resourceVersion=1", &Value::Null).await;
    assert_eq!((code, body["reason"].as_str()), (410, Some("Expired")), "{body}");
    assert_eq!(count(&lab, Class::Change), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_rule_leaves_watches_alone() {
    let (lab, _dir) = lab(20).await;
    let maps: Api<ConfigMap> = Api::namespaced(client(&lab).await, "home");
    let from = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    lab.fault(FaultRule::on(Front::Kubernetes, FaultEffect::Stale).path("*/configmaps/nobody"));
    let mut watch = maps.watch(&WatchParams::default().timeout(290), &from).await.unwrap().boxed();
    // Kept for later it would be an answer only once it has ended, before there was anything to see.
    maps.create(&PostParams::default(), &map("one", "1")).await.unwrap();
    let Some(Ok(WatchEvent::Added(added))) = watch.next().await else { panic!("no event") };
    assert_eq!(added.name_any(), "one");
}

#[tokio::test(flavor = "multi_thread")]
async fn evictions_ask_the_budget() {
    let (lab, _dir) = lab_without_flux(60).await;
    let client = client(&lab).await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "home");
    let all = pods.list(&ListParams::default().labels("app.kubernetes.io/name=whoami")).await.unwrap();
    let pod = &all.items[0];
    let path = format!("/api/v1/namespaces/home/pods/{}/eviction", pod.name_any());
    let body = |uid: &str, dry: bool| {
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod.name_any(), "namespace": "home"},
            "deleteOptions": {"preconditions": {"uid": uid}, "dryRun": if dry { json!(["All"]) } else { json!([]) }}})
    };
    let uid = pod.uid().unwrap();
    assert_eq!(raw(&client, "POST", &path, &body(&uid, true)).await.0, 201);
    assert_eq!(count(&lab, Class::Change), 0);
    let (code, other) = raw(&client, "POST", &path, &body("another", false)).await;
    let text = other["message"].as_str().unwrap();
    assert_eq!(
        (code, text.contains("on Pod \"") && text.contains("the UID in the precondition (another)")),
        (409, true),
        "{text}"
    );
    // No room: 429 with the cause that tells it from throttling.
    let budget = "/apis/policy/v1/namespaces/home/poddisruptionbudgets/whoami";
    raw(&client, "PATCH", budget, &json!({"spec": {"minAvailable": 2}})).await;
    let (code, refused) = raw(&client, "POST", &path, &body(&uid, false)).await;
    assert_eq!(code, 429);
    assert_eq!(refused["details"]["causes"][0]["reason"], "DisruptionBudget", "{refused}");
    let text = refused["details"]["causes"][0]["message"].as_str().unwrap();
    assert_eq!(text, "The disruption budget whoami needs 2 healthy pods and has 2 currently");
    // Two budgets: a failure under the code of a success.
    let (_, mut second) = raw(&client, "GET", budget, &Value::Null).await;
    second["metadata"] = json!({"name": "second", "namespace": "home"});
    let list = "/apis/policy/v1/namespaces/home/poddisruptionbudgets";
    assert_eq!(raw(&client, "POST", list, &second).await.0, 201);
    let (code, failed) = raw(&client, "POST", &path, &body(&uid, false)).await;
    assert_eq!((code, failed["status"].as_str(), failed["code"].as_i64()), (201, Some("Failure"), Some(500)));
    raw(&client, "DELETE", &format!("{list}/second"), &Value::Null).await;
    raw(&client, "PATCH", budget, &json!({"spec": {"minAvailable": 1}})).await;
    let (code, done) = raw(&client, "POST", &path, &body(&uid, false)).await;
    assert_eq!((code, done["status"].as_str()), (201, Some("Success")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_bound_cannot_be_changed() {
    let (lab, _dir) = lab(1).await;
    let client = client(&lab).await;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), "frigate");
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let volume = claims.get("frigate-media").await.unwrap().spec.unwrap().volume_name.unwrap();
    let params = PatchParams::default();
    let mut refused = 0;
    for patch in [
        json!({"spec": {"volumeName": "other"}}),
        json!({"spec": {"storageClassName": "other"}}),
        json!({"spec": {"resources": {"requests": {"storage": "200Gi"}}}}),
    ] {
        assert_eq!(refusal(claims.patch("frigate-media", &params, &Patch::Merge(&patch)).await).0, 422, "{patch}");
        refused += 1;
    }
    for patch in [json!({"spec": {"nodeAffinity": null}}), json!({"spec": {"hostPath": {"path": "/other"}}})] {
        assert_eq!(refusal(volumes.patch(&volume, &params, &Patch::Merge(&patch)).await).0, 422, "{patch}");
        refused += 1;
    }
    assert_eq!(refused, 5);
    let retain = json!({"spec": {"persistentVolumeReclaimPolicy": "Retain"}});
    volumes.patch(&volume, &params, &Patch::Merge(&retain)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn custom_resources_take_no_strategic_patch() {
    let (lab, _dir) = lab(1).await;
    let client = client(&lab).await;
    let kind = ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("kustomize.toolkit.fluxcd.io", "v1", "Kustomization"),
        "kustomizations",
    );
    let all: Api<DynamicObject> = Api::namespaced_with(client.clone(), "flux-system", &kind);
    assert_eq!(all.list(&ListParams::default()).await.unwrap().items.len(), 2);
    let suspend = json!({"spec": {"suspend": true}});
    let strategic = refusal(all.patch("apps", &PatchParams::default(), &Patch::Strategic(&suspend)).await);
    assert_eq!(strategic.0, 415);
    let mine = PatchParams { field_manager: Some("pvemig".into()), ..Default::default() };
    let object = all.patch("apps", &mine, &Patch::Merge(&suspend)).await.unwrap();
    let entry = object.managed_fields().iter().find(|m| m.manager.as_deref() == Some("pvemig")).unwrap();
    assert_eq!(serde_json::to_value(&entry.fields_v1).unwrap(), json!({"f:spec": {"f:suspend": {}}}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_copies_its_input_and_says_how_it_ended() {
    let (lab, _dir) = lab(60).await;
    let pods: Api<Pod> = Api::namespaced(client(&lab).await, "frigate");
    let name = pods.list(&ListParams::default()).await.unwrap().items[0].name_any();
    let both = AttachParams { stdin: true, stdout: true, stderr: true, tty: false, ..Default::default() };
    let mut copy = pods.exec(&name, ["cat"], &both).await.unwrap();
    let (mut input, mut output, status) = (copy.stdin().unwrap(), copy.stdout().unwrap(), copy.take_status().unwrap());
    input.write_all(b"some bytes").await.unwrap();
    input.shutdown().await.unwrap();
    let mut said = String::new();
    output.read_to_string(&mut said).await.unwrap();
    assert_eq!((said.as_str(), status.await.unwrap().status.as_deref()), ("some bytes", Some("Success")));

    let mut failing = pods.exec(&name, ["sh", "-c", "echo out; echo err >&2; exit 4"], &both).await.unwrap();
    let (mut output, mut errors, status) =
        (failing.stdout().unwrap(), failing.stderr().unwrap(), failing.take_status().unwrap());
    let (mut out, mut err) = (String::new(), String::new());
    let (a, b, status) = tokio::join!(output.read_to_string(&mut out), errors.read_to_string(&mut err), status);
    assert_eq!((a.unwrap(), b.unwrap()), (4, 4));
    assert_eq!((out.as_str(), err.as_str()), ("out\n", "err\n"));
    let causes = status.unwrap().details.unwrap().causes.unwrap();
    assert_eq!((causes[0].reason.as_deref(), causes[0].message.as_deref()), (Some("ExitCode"), Some("4")));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_in_without_the_token() {
    let (lab, _dir) = lab(1).await;
    let text = lab.reach().kubernetes.kubeconfig.replace("token: ", "token: x");
    let config =
        Config::from_custom_kubeconfig(Kubeconfig::from_yaml(&text).unwrap(), &KubeConfigOptions::default()).await;
    let client = Client::try_from(config.unwrap()).unwrap();
    let nodes: Api<Node> = Api::all(client);
    assert_eq!(refusal(nodes.list(&ListParams::default()).await), (401, "Unauthorized".into()));
    assert_eq!(format!("{:?}", lab.reach().kubernetes), "Reach(…)");
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_lists_what_there_is() {
    let (lab, _dir) = lab(1).await;
    let client = client(&lab).await;
    let plain = kube::Discovery::new(client.clone()).run().await.unwrap();
    let aggregated = kube::Discovery::new(client.clone()).run_aggregated().await.unwrap();
    for found in [plain, aggregated] {
        let names: Vec<&str> = found.groups().map(|g| g.name()).collect();
        assert_eq!(names.len(), 15, "{names:?}");
        assert!(names.contains(&"helm.toolkit.fluxcd.io") && !names.contains(&"keda.sh"), "{names:?}");
        assert!(found.has_group("policy"));
    }
    assert_eq!(raw(&client, "GET", "/openapi/v3", &Value::Null).await.0, 404);
    let review = json!({"spec": {"resourceAttributes": {"verb": "patch", "resource": "nodes"}}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let (code, answer) = raw(&client, "POST", path, &review).await;
    assert_eq!((code, answer["status"]["allowed"].as_bool()), (201, Some(true)));
    assert_eq!((count(&lab, Class::Login), count(&lab, Class::Change)), (1, 0));
}
