//! Workloads and what scales them.

use pvemig::base::hold::MARK;
use pvemig::k8s::KubeError;
use serde_json::{Value, json};

use super::{MERGE, Wire, answer, fixture, list, mark, ok, sent};

const AT: &str = "/apis/apps/v1/namespaces/frigate/deployments/frigate";
const UID: &str = "33333333-aaaa-4aaa-8aaa-000000000001";

#[tokio::test]
async fn a_workload_is_scaled_and_marked_in_one_patch() {
    let wire = Wire::start().await;
    wire.on("GET", AT, answer(200, "deployment")).await;
    wire.on("PATCH", AT, answer(200, "deployment")).await;
    let workload = wire.kube.workload("Deployment", "frigate", "frigate").await.unwrap().unwrap();
    assert_eq!((workload.replicas, workload.selector.as_str()), (2, "app=frigate"));
    assert_eq!(workload.title(), "Deployment frigate/frigate");
    assert_eq!(workload.claims(workload.replicas), ["frigate-config"]);
    assert_eq!(workload.needs.as_ref().unwrap().runtime_class.as_deref(), Some("nvidia"));
    assert!(workload.operator().is_none() && !workload.scaling_deletes_claims());

    wire.kube.scale_to_zero(&wire.permit, &workload, &mark()).await.unwrap();
    wire.kube.restore_replicas(&wire.permit, &workload, 2).await.unwrap();
    wire.kube.remove_workload_mark(&wire.permit, &workload).await.unwrap();
    let at = format!("{AT}?fieldManager=pvemig");
    let up = json!({"uid": UID, "annotations": {MARK: mark().to_annotation()}});
    let down = json!({"uid": UID, "annotations": {MARK: null}});
    let expected = [
        sent("PATCH", &at, MERGE, json!({"metadata": up, "spec": {"replicas": 0}})),
        sent("PATCH", &at, MERGE, json!({"metadata": down, "spec": {"replicas": 2}})),
        sent("PATCH", &at, MERGE, json!({"metadata": down})),
    ];
    assert_eq!(wire.requests().await[1..], expected);
    let notes: Vec<String> = wire.notebook.notes().into_iter().map(|n| n.text).collect();
    assert_eq!(notes.len(), 3);
    assert_eq!(notes[0], "PATCH deployments/frigate/frigate replicas 2 -> 0");
}

#[tokio::test]
async fn absent_replicas_mean_one_and_a_stateful_set_makes_its_claims() {
    let wire = Wire::start().await;
    let set = json!({
        "metadata": {"name": "db", "namespace": "a", "uid": "u"},
        "spec": {"selector": {"matchLabels": {"app": "db"}}, "ordinals": {"start": 2},
            "template": {"spec": {"containers": []}}, "volumeClaimTemplates": [{"metadata": {"name": "data"}}],
            "persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete", "whenDeleted": "Retain"}},
    });
    wire.on("GET", "/apis/apps/v1/namespaces/a/statefulsets/db", ok(&set)).await;
    let workload = wire.kube.workload("StatefulSet", "a", "db").await.unwrap().unwrap();
    assert_eq!(workload.replicas, 1);
    assert_eq!(workload.claims(2), ["data-db-2", "data-db-3"]);
    assert!(workload.scaling_deletes_claims());
}

#[tokio::test]
async fn other_kinds_are_marked_first_and_scaled_through_scale() {
    let wire = Wire::start().await;
    let version = json!({"groupVersion": "argoproj.io/v1alpha1", "version": "v1alpha1"});
    let groups = json!({"groups": [{"name": "argoproj.io", "versions": [version], "preferredVersion": version}]});
    let kinds = json!({"resources": [
        {"name": "rollouts/scale", "kind": "Rollout", "namespaced": true},
        {"name": "rollouts", "kind": "Rollout", "namespaced": true}]});
    let rollout = json!({"metadata": {"name": "r", "namespace": "a", "uid": "u"}, "spec": {"size": 3}});
    let scale = json!({"spec": {"replicas": 3}, "status": {"replicas": 3, "selector": "app=r"}});
    let at = "/apis/argoproj.io/v1alpha1/namespaces/a/rollouts/r";
    let at_scale = format!("{at}/scale");
    wire.on("GET", "/apis", ok(&groups)).await;
    wire.on("GET", "/apis/argoproj.io/v1alpha1", ok(&kinds)).await;
    for verb in ["GET", "PATCH"] {
        wire.on(verb, at, ok(&rollout)).await;
        wire.on(verb, &at_scale, ok(&scale)).await;
    }
    let workload = wire.kube.workload("Rollout.argoproj.io", "a", "r").await.unwrap().unwrap();
    assert_eq!((workload.replicas, workload.selector.as_str()), (3, "app=r"));
    wire.kube.scale_to_zero(&wire.permit, &workload, &mark()).await.unwrap();
    wire.kube.restore_replicas(&wire.permit, &workload, 3).await.unwrap();
    // The kind's place is kept: it is not looked up again.
    wire.kube.workload("Rollout.argoproj.io", "a", "r").await.unwrap().unwrap();

    let requests = wire.requests().await;
    assert_eq!(requests.len(), 4 + 4 + 2);
    let patches: Vec<_> = requests.into_iter().filter(|r| r.0 == "PATCH").collect();
    let (at, at_scale) = (format!("{at}?fieldManager=pvemig"), format!("{at_scale}?fieldManager=pvemig"));
    let up = json!({"metadata": {"uid": "u", "annotations": {MARK: mark().to_annotation()}}});
    let expected = [
        sent("PATCH", &at, MERGE, up),
        sent("PATCH", &at_scale, MERGE, json!({"spec": {"replicas": 0}})),
        sent("PATCH", &at_scale, MERGE, json!({"spec": {"replicas": 3}})),
        sent("PATCH", &at, MERGE, json!({"metadata": {"uid": "u", "annotations": {MARK: null}}})),
    ];
    assert_eq!(patches, expected);
    assert_eq!(wire.notebook.notes().len(), 4);

    let error = wire.kube.workload("Thing.argoproj.io", "a", "r").await.unwrap_err();
    assert!(matches!(error, KubeError::NoKind { .. }), "{error:?}");
}

#[tokio::test]
async fn who_scales_a_workload_and_which_pods_it_has() {
    let wire = Wire::start().await;
    wire.on("GET", AT, answer(200, "deployment")).await;
    let scaler = |kind: &str| json!({"metadata": {"name": "h"}, "spec": {"scaleTargetRef": {"kind": kind, "name": "frigate"}, "minReplicas": 2}});
    let hpas = list(&[scaler("Deployment"), scaler("StatefulSet")]);
    wire.on("GET", "/apis/autoscaling/v2/namespaces/frigate/horizontalpodautoscalers", ok(&hpas)).await;
    let groups = json!({"groups": [{"name": "keda.sh", "versions": [{"version": "v1alpha1"}]}]});
    wire.on("GET", "/apis", ok(&groups)).await;
    let kinds = json!({"resources": [{"name": "scaledobjects", "kind": "ScaledObject", "namespaced": true}]});
    wire.on("GET", "/apis/keda.sh/v1alpha1", ok(&kinds)).await;
    let keda = |annotations: Value| {
        let annotations: Value =
            serde_json::from_str(&annotations.to_string().replace("keda/", "autoscaling.keda.sh/")).unwrap();
        json!({"metadata": {"name": "k", "annotations": annotations},
            "spec": {"scaleTargetRef": {"name": "frigate"}, "minReplicaCount": 0}})
    };
    let all = [
        keda(json!({})),
        keda(json!({"keda/paused": "true"})),
        keda(json!({"keda/paused-replicas": "0"})),
        keda(json!({"keda/paused": "true", "keda/paused-replicas": "2"})),
        keda(json!({"keda/paused": "false"})),
    ];
    wire.on("GET", "/apis/keda.sh/v1alpha1/namespaces/frigate/scaledobjects", ok(&list(&all))).await;
    wire.on("GET", "/api/v1/namespaces/frigate/pods", ok(&list(&[fixture("pod")]))).await;
    wire.on("GET", "/api/v1/pods", ok(&list(&[fixture("pod")]))).await;

    let workload = wire.kube.workload("Deployment", "frigate", "frigate").await.unwrap().unwrap();
    let scalers = wire.kube.scalers(&workload).await.unwrap();
    let shown: Vec<_> = scalers.iter().map(|s| (s.kind.as_str(), s.min, s.respects_zero)).collect();
    assert_eq!(shown[..2], [("HorizontalPodAutoscaler", Some(2), true), ("ScaledObject", Some(0), false)]);
    let paused: Vec<bool> = shown.iter().map(|s| s.2).collect();
    assert_eq!(paused, [true, false, true, true, false, false]);
    assert_eq!(wire.kube.workload_pods(&workload).await.unwrap().len(), 1);
    assert_eq!(wire.kube.pods_on("k3s-vm-still-fawn").await.unwrap().len(), 1);
    let paths = wire.paths().await;
    let expected = [
        "/api/v1/namespaces/frigate/pods?labelSelector=app%3Dfrigate&limit=500",
        "/api/v1/pods?fieldSelector=spec.nodeName%3Dk3s-vm-still-fawn&limit=500",
    ];
    assert_eq!(paths[paths.len() - 2..], expected);
}

#[tokio::test]
async fn a_selector_that_chooses_everything_is_not_used() {
    let wire = Wire::start().await;
    let mut deployment = fixture("deployment");
    deployment["spec"]["selector"] = json!({});
    wire.on("GET", AT, ok(&deployment)).await;
    let workload = wire.kube.workload("Deployment", "frigate", "frigate").await.unwrap().unwrap();
    let error = wire.kube.workload_pods(&workload).await.unwrap_err();
    assert!(matches!(error, KubeError::BadAnswer { .. }), "{error:?}");
    let broken: Value = json!({"metadata": {"name": "frigate"}, "spec": {"selector": "app=frigate"}});
    let wire = Wire::answering(ok(&broken)).await;
    let error = wire.kube.workload("Deployment", "frigate", "frigate").await.unwrap_err();
    assert!(matches!(error, KubeError::BadAnswer { .. }), "{error:?}");
}
