//! Volumes and claims.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use pvemig::base::hold::MARK;
use pvemig::k8s::KubeError;
use pvemig::k8s::claim::fresh_manifest;
use serde_json::json;
use tokio::time::Instant;
use wiremock::matchers::path;
use wiremock::{Mock, Request, Respond, ResponseTemplate};

use super::{MERGE, Wire, answer, fixture, list, ok, sent};

const UID: &str = "55555555-aaaa-4aaa-8aaa-000000000001";
const VOLUME: &str = "/api/v1/persistentvolumes/pvc-4";
const CLAIMS: &str = "/api/v1/namespaces/frigate/persistentvolumeclaims";

#[tokio::test]
async fn a_volume_is_kept_and_reserved_by_identity() {
    let at = format!("{VOLUME}?fieldManager=pvemig");
    let wire = Wire::answering(answer(200, "pv-local-path")).await;
    let volume = {
        let wire = Wire::answering(answer(200, "pv-local-path")).await;
        let mut volume = wire.kube.volume("pvc-4").await.unwrap().unwrap();
        (volume.meta.name, volume.meta.uid) = ("pvc-4".into(), UID.into());
        volume
    };
    wire.kube.set_reclaim_policy(&wire.permit, &volume, "Retain").await.unwrap();
    let (request, note) = wire.change().await;
    let body = json!({"metadata": {"uid": UID}, "spec": {"persistentVolumeReclaimPolicy": "Retain"}});
    assert_eq!(request, sent("PATCH", &at, MERGE, body));
    assert_eq!(note.text, "PATCH persistentvolumes/pvc-4 reclaim policy Retain");

    // What would wipe a Released volume goes to the one that was looked at, and to no later state of it.
    let wire = Wire::answering(answer(200, "pv-local-path")).await;
    wire.kube.set_reclaim_policy(&wire.permit, &volume, "Delete").await.unwrap();
    let version = &fixture("pv-local-path")["metadata"]["resourceVersion"];
    assert!(version.is_string());
    let body = json!({"metadata": {"uid": UID, "resourceVersion": version},
        "spec": {"persistentVolumeReclaimPolicy": "Delete"}});
    assert_eq!(wire.change().await.0, sent("PATCH", &at, MERGE, body));

    let wire = Wire::answering(answer(200, "pv-local-path")).await;
    wire.kube.reserve_volume(&wire.permit, "pvc-4", UID, ("frigate", "frigate-config")).await.unwrap();
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": "frigate",
        "name": "frigate-config", "uid": null, "resourceVersion": null});
    let body = json!({"metadata": {"uid": UID}, "spec": {"claimRef": claim}});
    assert_eq!(wire.change().await.0, sent("PATCH", &at, MERGE, body));
}

#[tokio::test]
async fn a_volume_is_deleted_if_it_is_still_the_same() {
    for (code, file) in [(200, "pv-local-path"), (200, "status-success"), (404, "status-404")] {
        let wire = Wire::answering(answer(code, file)).await;
        wire.kube.delete_volume(&wire.permit, "pvc-4", UID, true).await.unwrap();
        let body = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": UID}});
        assert_eq!(wire.change().await.0, sent("DELETE", VOLUME, "application/json", body));
    }
}

#[tokio::test]
async fn volumes_and_classes_are_read() {
    let wire = Wire::start().await;
    wire.on("GET", VOLUME, answer(200, "pv-local-path")).await;
    wire.on("GET", "/api/v1/persistentvolumes/none", answer(404, "status-404")).await;
    wire.on("GET", "/api/v1/persistentvolumes", ok(&list(&[fixture("pv-local-path")]))).await;
    let class = json!({"metadata": {"name": "local-path"}, "provisioner": "rancher.io/local-path",
        "volumeBindingMode": "WaitForFirstConsumer"});
    wire.on("GET", "/apis/storage.k8s.io/v1/storageclasses/local-path", ok(&class)).await;
    let volume = wire.kube.volume("pvc-4").await.unwrap().unwrap();
    assert_eq!((volume.phase.as_str(), volume.capacity.as_str()), ("Bound", "10Gi"));
    assert_eq!(volume.claim.unwrap().uid.as_deref(), Some("44444444-aaaa-4aaa-8aaa-000000000001"));
    assert_eq!(wire.kube.volume("none").await.unwrap(), None);
    assert_eq!(wire.kube.volumes().await.unwrap().len(), 1);
    let class = wire.kube.storage_class("local-path").await.unwrap().unwrap();
    assert_eq!((class.reclaim_policy.as_str(), class.waits_for_consumer), ("Delete", true));
    assert_eq!(wire.requests().await.len(), 4);
}

/// Answers with an empty list and notes when it was asked.
struct Asked(Arc<Mutex<Vec<Instant>>>, Duration);

impl Respond for Asked {
    fn respond(&self, _: &Request) -> ResponseTemplate {
        self.0.lock().unwrap().push(Instant::now());
        ok(&list(&[])).set_delay(self.1)
    }
}

#[tokio::test]
async fn volumes_are_read_after_the_claims_that_may_be_bound_to_them() {
    let (wire, times, late) = (Wire::start().await, Arc::default(), Duration::from_millis(150));
    let claims = "/api/v1/namespaces/frigate/persistentvolumeclaims";
    for (at, delay) in [(claims, late), ("/api/v1/persistentvolumes", Duration::ZERO)] {
        Mock::given(path(at)).respond_with(Asked(Arc::clone(&times), delay)).mount(&wire.server).await;
    }
    let (claims, volumes) = wire.kube.claims_and_volumes("frigate").await;
    assert_eq!((claims.unwrap().len(), volumes.unwrap().len()), (0, 0));
    let times = times.lock().unwrap();
    assert_eq!(times.len(), 2);
    assert!(times[1] - times[0] >= late, "asked before the claims were answered");
}

#[tokio::test]
async fn a_claim_is_made_from_its_manifest() {
    let mut recorded = fixture("pvc-bound");
    recorded["metadata"]["annotations"][MARK] = "gone".into();
    let manifest = fresh_manifest(&recorded, "k3s-vm-still-fawn");
    let wire = Wire::answering(answer(201, "pvc-bound")).await;
    let claim = wire.kube.create_claim(&wire.permit, &manifest).await.unwrap();
    assert_eq!(claim.meta.uid, "44444444-aaaa-4aaa-8aaa-000000000001");
    let (request, note) = wire.change().await;
    assert_eq!(request, sent("POST", &format!("{CLAIMS}?fieldManager=pvemig"), "application/json", manifest.clone()));
    assert_eq!(note.text, "POST persistentvolumeclaims/frigate/frigate-config for node k3s-vm-still-fawn");

    let wire = Wire::answering(answer(409, "status-409-exists")).await;
    let error = wire.kube.create_claim(&wire.permit, &manifest).await.unwrap_err();
    assert!(matches!(error, KubeError::Exists { .. }), "{error:?}");
    wire.change().await;
}

#[tokio::test]
async fn a_claim_is_deleted_if_it_is_still_the_same() {
    let claim = ("frigate", "frigate-config");
    let wire = Wire::answering(answer(200, "pvc-bound")).await;
    wire.kube.delete_claim(&wire.permit, claim, "u1", true).await.unwrap();
    let (request, note) = wire.change().await;
    let body = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": "u1"}});
    assert_eq!(request, sent("DELETE", &format!("{CLAIMS}/frigate-config"), "application/json", body));
    assert_eq!(note.text, "DELETE persistentvolumeclaims/frigate/frigate-config uid u1");

    for file in ["status-409-uid-delete", "status-409-uid"] {
        let wire = Wire::answering(answer(409, file)).await;
        let error = wire.kube.delete_claim(&wire.permit, claim, "u1", false).await.unwrap_err();
        assert!(matches!(error, KubeError::Replaced { .. }), "{error:?}");
        wire.change().await;
    }

    let wire = Wire::start().await;
    wire.on("GET", &format!("{CLAIMS}/frigate-config"), answer(200, "pvc-bound")).await;
    wire.on("GET", CLAIMS, ok(&list(&[fixture("pvc-bound")]))).await;
    wire.on("GET", "/api/v1/namespaces/frigate/pods", ok(&list(&[fixture("pod")]))).await;
    assert!(wire.kube.claim("frigate", "frigate-config").await.unwrap().unwrap().is_bound());
    assert_eq!(wire.kube.claims(Some("frigate")).await.unwrap().len(), 1);
    assert_eq!(wire.kube.claim_holders("frigate", "frigate-config").await.unwrap().len(), 1);
    assert_eq!(wire.requests().await.len(), 3);
}
