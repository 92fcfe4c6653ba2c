//! A node that is gone for good: its object, its lease, the volumes attached to it, and taints that speak of it.

use super::*;

const UID: &str = "22222222-aaaa-4aaa-8aaa-000000000001";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/talos-mac";

fn lease(owners: Value) -> Value {
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "talos-mac", "namespace": "kube-node-lease", "uid": UID, "ownerReferences": owners},
        "spec": {"holderIdentity": "talos-mac", "leaseDurationSeconds": 40, "renewTime": "2025-11-22T10:00:00.000000Z"}})
}

#[tokio::test]
async fn a_lease_and_attachments_are_read() {
    let wire = Wire::start().await;
    let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": "talos-mac", "uid": "n1"}]);
    wire.on("GET", LEASE, ok(&lease(owner))).await;
    let attachment = |name: &str, node: &str| {
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment", "metadata": {"name": name},
            "spec": {"attacher": "csi.example", "nodeName": node, "source": {"persistentVolumeName": "pv1"}},
            "status": {"attached": true}})
    };
    let all = list(&[attachment("a", "talos-mac"), attachment("b", "talos-nuc")]);
    wire.on("GET", "/apis/storage.k8s.io/v1/volumeattachments", ok(&all)).await;
    let lease = wire.kube.node_lease("talos-mac").await.unwrap().unwrap();
    assert_eq!((lease.renewed.as_str(), lease.owners.len()), ("2025-11-22T10:00:00Z", 1));
    let own = wire.kube.attachments_of("talos-mac").await.unwrap();
    assert_eq!(own.len(), 1);
    assert_eq!(own[0].to_string(), "VolumeAttachment a (pv1, csi.example)");
    assert!(own[0].attached && !own[0].going);
    assert_eq!(wire.requests().await.len(), 2);
    let none = Wire::answering(answer(404, "status-404")).await;
    assert_eq!(none.kube.node_lease("talos-mac").await.unwrap(), None);
}

#[tokio::test]
async fn a_node_is_deleted_by_its_uid() {
    for (code, file) in [(200, "status-success"), (404, "status-404")] {
        let wire = Wire::answering(answer(code, file)).await;
        wire.kube.delete_node(&wire.permit, "talos-mac", UID).await.unwrap();
        let body = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": UID}});
        assert_eq!(wire.change().await.0, sent("DELETE", "/api/v1/nodes/talos-mac", "application/json", body));
    }
}

#[tokio::test]
async fn a_lease_that_nobody_takes_is_deleted_by_its_uid() {
    let wire = Wire::answering(ok(&lease(json!([])))).await;
    let lease = wire.kube.node_lease("talos-mac").await.unwrap().unwrap();
    wire.kube.delete_lease(&wire.permit, &lease).await.unwrap();
    let body = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": UID}});
    let all = wire.requests().await;
    assert_eq!((all.len(), wire.notebook.notes().len()), (2, 1));
    assert_eq!(all[1], sent("DELETE", LEASE, "application/json", body));
}

#[tokio::test]
async fn taints_go_where_the_node_is_as_it_was_read() {
    let wire = Wire::start().await;
    let key = "node.kubernetes.io/out-of-service";
    let mut value = fixture("node");
    value["metadata"]["name"] = "talos-mac".into();
    value["spec"]["taints"] = json!([{"key": key, "effect": "NoExecute"}, {"key": "other", "effect": "NoSchedule"}]);
    let at = "/api/v1/nodes/talos-mac";
    wire.on("GET", at, ok(&value)).await;
    wire.on("PATCH", at, ok(&value)).await;
    let node = wire.kube.node("talos-mac").await.unwrap().unwrap();
    wire.kube.remove_taints(&wire.permit, &node, &[key]).await.unwrap();
    let meta = json!({"uid": value["metadata"]["uid"], "resourceVersion": value["metadata"]["resourceVersion"]});
    let body = json!({"metadata": meta, "spec": {"taints": [{"key": "other", "effect": "NoSchedule"}]}});
    let at = format!("{at}?fieldManager=pvemig");
    // Where there is none of these, nothing is sent.
    wire.kube.remove_taints(&wire.permit, &node, &["nobody"]).await.unwrap();
    let changes: Vec<Sent> = wire.requests().await.into_iter().filter(|(method, ..)| method == "PATCH").collect();
    assert_eq!(changes, [sent("PATCH", &at, MERGE, body)]);
}
