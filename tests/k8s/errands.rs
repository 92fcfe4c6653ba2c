//! A pod that runs to its end: what is sent, what it leaves, and how it goes.

use pvemig::base::fault::{Effect, Fault};
use pvemig::k8s::KubeError;
use pvemig::k8s::errand::Errand;
use pvemig::k8s::pod::State;

use super::*;

const PODS: &str = "/api/v1/namespaces/kube-system/pods";
const UID: &str = "22222222-aaaa-4aaa-8aaa-000000000007";

fn errand() -> Errand {
    Errand {
        namespace: "kube-system".into(),
        name: "pvemig-measure-7k2-01a".into(),
        run: "7k2".into(),
        node: "talos-nuc".into(),
        image: "docker.io/library/busybox:1.37".into(),
        command: vec!["sh".into(), "-c".into(), "echo it's".into()],
        directories: vec![
            ("/var/mnt/media".into(), "/measure/media".into()),
            ("/var".into(), "/measure/system".into()),
        ],
        limit: Duration::from_secs(600),
    }
}

fn pod(run: &str, state: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "kube-system", "name": "pvemig-measure-7k2-01a", "uid": UID,
            "labels": {"pvemig.io/run": run}},
        "spec": {"nodeName": "talos-nuc", "containers": [{"name": "errand", "image": "i"}]},
        "status": {"phase": "Succeeded", "containerStatuses": [{"name": "errand", "ready": false, "restartCount": 0,
            "image": "i", "imageID": "", "state": state}]}})
}

fn ended(message: &str) -> Value {
    json!({"terminated": {"exitCode": 0, "reason": "Completed", "message": message}})
}

#[tokio::test]
async fn a_pod_is_bound_to_its_node_and_ends() {
    let wire = Wire::answering(ResponseTemplate::new(201).set_body_json(pod("7k2", json!({})))).await;
    assert_eq!(wire.kube.run_pod(&wire.permit, &errand()).await.unwrap(), UID);
    let security = json!({"runAsUser": 0, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"}});
    let container = json!({"name": "errand", "image": "docker.io/library/busybox:1.37", "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", "echo it's"], "securityContext": security,
        "volumeMounts": [{"name": "d0", "mountPath": "/measure/media"}, {"name": "d1", "mountPath": "/measure/system"}]});
    let volumes = json!([{"name": "d0", "hostPath": {"path": "/var/mnt/media", "type": "Directory"}},
        {"name": "d1", "hostPath": {"path": "/var", "type": "Directory"}}]);
    let spec = json!({"nodeName": "talos-nuc", "tolerations": [{"operator": "Exists"}], "restartPolicy": "Never",
        "activeDeadlineSeconds": 600, "terminationGracePeriodSeconds": 5, "automountServiceAccountToken": false,
        "enableServiceLinks": false, "containers": [container], "volumes": volumes});
    let body = json!({"apiVersion": "v1", "kind": "Pod", "spec": spec,
        "metadata": {"namespace": "kube-system", "name": "pvemig-measure-7k2-01a", "labels": {"pvemig.io/run": "7k2"}}});
    let (request, note) = wire.change().await;
    assert_eq!(request, sent("POST", &format!("{PODS}?fieldManager=pvemig"), "application/json", body));
    assert_eq!(note.text, "POST pods/kube-system/pvemig-measure-7k2-01a on talos-nuc for run 7k2");
}

#[tokio::test]
async fn what_it_has_to_tell_is_in_its_state() {
    let wire = Wire::start().await;
    let figures = r#"{"media": {"write": 1, "read": 2}}"#;
    wire.on("GET", &format!("{PODS}/pvemig-measure-7k2-01a"), ok(&pod("7k2", ended(figures)))).await;
    let pod = wire.kube.pod("kube-system", "pvemig-measure-7k2-01a").await.unwrap().unwrap();
    let State::Ended { code: 0, message, .. } = &pod.containers[0].state else { panic!("{pod:?}") };
    assert_eq!((message.as_str(), pod.is_finished()), (figures, true));
}

/// The answer to the first try was lost.
#[tokio::test]
async fn one_that_the_same_run_has_made_is_taken_and_no_other() {
    let exists = || answer(409, "status-409-exists");
    let mut going = pod("7k2", json!({}));
    going["metadata"]["deletionTimestamp"] = "2025-11-22T10:00:00Z".into();
    let cases = [
        (ok(&pod("7k2", json!({}))), true),
        (ok(&pod("other", json!({}))), false),
        (ok(&going), false),
        (answer(404, "status-404"), false),
    ];
    let mut refused = 0;
    for (there, ours) in cases {
        let wire = Wire::start().await;
        wire.on("POST", PODS, exists()).await;
        wire.on("GET", &format!("{PODS}/pvemig-measure-7k2-01a"), there).await;
        let outcome = wire.kube.run_pod(&wire.permit, &errand()).await;
        assert_eq!((wire.requests().await.len(), wire.notebook.notes().len()), (2, 1));
        if ours {
            assert_eq!(outcome.unwrap(), UID);
        } else {
            let error = outcome.unwrap_err();
            assert!(matches!(error, KubeError::Exists { .. }) && error.effect() == Effect::None, "{error:?}");
            refused += 1;
        }
    }
    assert_eq!(refused, 3);
    // Admission says no: nothing was made.
    let wire = Wire::answering(answer(403, "status-403")).await;
    let error = wire.kube.run_pod(&wire.permit, &errand()).await.unwrap_err();
    assert!(matches!(error, KubeError::Forbidden { .. }) && error.effect() == Effect::None, "{error:?}");
    wire.change().await;
}

#[tokio::test]
async fn it_is_deleted_by_its_uid() {
    let body = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": UID}});
    let at = format!("{PODS}/pvemig-measure-7k2-01a");
    for (code, file) in [(200, "status-success"), (404, "status-404")] {
        let wire = Wire::answering(answer(code, file)).await;
        wire.kube.delete_pod(&wire.permit, ("kube-system", "pvemig-measure-7k2-01a"), UID).await.unwrap();
        assert_eq!(wire.change().await.0, sent("DELETE", &at, "application/json", body.clone()));
    }
    let wire = Wire::answering(answer(409, "status-409-uid-delete")).await;
    let gone = wire.kube.delete_pod(&wire.permit, ("kube-system", "pvemig-measure-7k2-01a"), UID).await;
    assert!(matches!(gone.unwrap_err(), KubeError::Replaced { .. }));
}
