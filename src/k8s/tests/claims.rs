use serde_json::{Value, json};

use super::super::claim::{Claim, SELECTED_NODE, fresh_manifest, holders, rebinding_manifest};
use super::super::pod::Pod;
use super::fixture;
use crate::base::hold::MARK;

#[test]
fn a_fresh_claim_keeps_what_makes_it_flux_own_and_drops_its_identity() {
    let mut recorded = fixture("pvc-bound");
    recorded["metadata"]["annotations"][MARK] = "{}".into();
    let fresh = fresh_manifest(&recorded, "k3s-vm-still-fawn");
    assert_eq!(
        fresh,
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": "frigate-config", "namespace": "frigate",
                "labels": {"app": "frigate", "kustomize.toolkit.fluxcd.io/name": "apps",
                           "kustomize.toolkit.fluxcd.io/namespace": "flux-system"},
                "annotations": {"meta.helm.sh/release-name": "frigate", "note": "kept",
                                "volume.kubernetes.io/selected-node": "k3s-vm-still-fawn"},
            },
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}},
                     "storageClassName": "local-path", "volumeMode": "Filesystem"},
        })
    );
}

#[test]
fn a_rebound_claim_names_its_volume_and_no_node() {
    let manifest = rebinding_manifest(&fixture("pvc-bound"), "pvc-old");
    assert_eq!(manifest["spec"]["volumeName"], "pvc-old");
    assert_eq!(manifest["metadata"]["annotations"].get(SELECTED_NODE), None);
    for gone in ["uid", "resourceVersion", "finalizers", "ownerReferences", "managedFields", "creationTimestamp"] {
        assert_eq!(manifest["metadata"].get(gone), None, "{gone}");
    }
    assert_eq!(manifest.get("status"), None);
}

#[test]
fn a_claim_that_is_being_deleted_is_not_bound_whatever_its_phase() {
    let mut value = fixture("pvc-bound");
    assert!(Claim::from_api(value.clone()).unwrap().is_bound());
    value["metadata"]["deletionTimestamp"] = "2025-05-01T00:00:00Z".into();
    let claim = Claim::from_api(value).unwrap();
    assert_eq!(claim.phase, "Bound");
    assert!(!claim.is_bound());
    assert_eq!(claim.selected_node(), Some("k3s-vm-pumped-piglet"));
}

#[test]
fn finished_and_terminating_pods_hold_a_claim_and_unscheduled_ones_only_name_it() {
    let pod = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut value = fixture("pod");
        value["metadata"]["name"] = name.into();
        change(&mut value);
        Pod::from_api(value).unwrap()
    };
    let pods = [
        pod("running", &|_| {}),
        pod("completed", &|v| v["status"]["phase"] = "Succeeded".into()),
        pod("going", &|v| v["metadata"]["deletionTimestamp"] = "2025-05-01T00:00:00Z".into()),
        pod("pending", &|v| v["spec"]["nodeName"] = Value::Null),
        pod("other", &|v| v["spec"]["volumes"] = json!([{"name": "x", "emptyDir": {}}])),
        pod("own", &|v| {
            v["spec"]["volumes"] = json!([{"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}])
        }),
    ];
    let found = holders("frigate-config", &pods);
    let shown: Vec<(&str, bool)> = found.iter().map(|h| (h.pod.as_str(), h.blocks)).collect();
    assert_eq!(shown, [("running", true), ("completed", true), ("going", true), ("pending", false)]);
    assert_eq!(found[2].to_string(), "pod going (Terminating, of ReplicaSet/frigate-6c9f7b7d9)");
    assert_eq!(holders("own-scratch", &pods).len(), 1);
}
