//! Claims and volumes: what keeps a pod from its new node, and what would start empty without a word.

use pvemig::lab::World;
use pvemig::lab::kube::kinds;
use pvemig::lab::kube::store::Key;
use serde_json::{Value, json};

use super::gitops::{JSON, send};
use super::{SOURCE, TARGET, assert_noted, assert_stopped, go, rig, rig_of};

const HOSTNAME: &str = "kubernetes.io/hostname";

/// Edits the volumes of the workload.
fn edit(world: &mut World, change: impl Fn(&mut Value)) {
    let volumes = world.kube.store.all(kinds::volumes());
    let ours: Vec<_> = volumes.iter().filter(|v| v["spec"]["claimRef"]["namespace"] == "frigate").collect();
    assert_eq!(ours.len(), 2);
    for volume in ours {
        let mut other = Value::clone(volume);
        change(&mut other);
        world.kube.store.replace(kinds::volumes(), other, None);
    }
}

fn terms(terms: Value) -> impl Fn(&mut Value) {
    move |volume| volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"] = terms.clone()
}

fn on(nodes: &[&str], operator: &str) -> Value {
    json!({"matchExpressions": [{"key": HOSTNAME, "operator": operator, "values": nodes}]})
}

/// The preflight of a site that leaves its claims, with the volumes as they were made.
async fn left(change: impl Fn(&mut Value)) -> super::Run {
    let leave = |site: &mut Value| {
        site["migrations"]["frigate-coral"]["params"]["claims"] =
            json!({"frigate-config": "leave", "frigate-media": "leave"});
    };
    let rig = rig_of("usb-move", &["00-"], |world| edit(world, change), leave).await;
    let run = go(&rig).await;
    assert_eq!(rig.changes(), 0);
    run
}

/// Bound to the old node: found at once, and 11 solves it before 10 would wait for ever.
async fn bound_to_the_old_node() {
    let run = left(|_| {}).await;
    let said = ["frigate-media", "keeps its pod from k3s-vm-still-fawn: it would stay Pending", "recreate"];
    assert_stopped(&run, "00-preflight", &said);

    let rig = rig("usb-move", &[], |_| {}).await;
    let run = go(&rig).await;
    assert_noted(&run, &["00-"], &["stays as it is, and a new empty one is made on k3s-vm-still-fawn"]);
    let order: Vec<_> = rig.steps.iter().map(|s| s.id().split('-').next().unwrap()).collect();
    let place = |id: &str| order.iter().position(|o| *o == id).unwrap();
    assert!(place("11") < place("10"));
}

async fn stays_pending(change: impl Fn(&mut Value)) {
    assert_stopped(
        &left(change).await,
        "00-preflight",
        &["it would stay Pending", "claims: { frigate-media: recreate }"],
    );
}

async fn starts_empty(change: impl Fn(&mut Value)) {
    let said = ["would start EMPTY on k3s-vm-still-fawn, without any error", "claims: { frigate-config: recreate }"];
    assert_stopped(&left(change).await, "00-preflight", &said);
}

/// The data is on the node of this name, and the node was made anew since.
async fn another_node_of_the_same_name() {
    let rig = rig("usb-move", &["00-"], |_| {}).await;
    let node =
        Value::clone(rig.lab.shared().read(|w| w.kube.store.get(kinds::nodes(), "", SOURCE).unwrap().clone()).as_ref());
    let path = format!("/api/v1/nodes/{SOURCE}");
    send(&rig, "DELETE", &path, JSON, json!({})).await;
    let labels = &node["metadata"]["labels"];
    let again = json!({"metadata": {"name": SOURCE, "labels": labels}, "spec": node["spec"]});
    send(&rig, "POST", "/api/v1/nodes", JSON, again).await;
    let said = format!("node {SOURCE} was made after it");
    assert_noted(&go(&rig).await, &["00-"], &[said.as_str()]);
}

/// A bound volume that somebody deleted hangs on its claim: it is said before the claim goes, and by 11 itself as well.
async fn volume_is_leaving() {
    let mut rig = rig("usb-move", &["00-", "11-"], |_| {}).await;
    let all = rig.lab.shared().read(|world| world.kube.store.all(kinds::volumes()));
    let volume = all.iter().find(|v| v["spec"]["claimRef"]["name"] == "frigate-config").unwrap();
    let name = volume["metadata"]["name"].as_str().unwrap();
    send(&rig, "DELETE", &format!("/api/v1/persistentvolumes/{name}"), JSON, json!({})).await;
    let before = rig.changes();
    let said =
        format!("volume {name} of claim frigate/frigate-config is being deleted, held by kubernetes.io/pv-protec");
    let says = [said.as_str(), "a deletion cannot be taken back", "`claimRef` without uid"];
    assert_stopped(&go(&rig).await, "00-preflight", &says);
    rig.steps.retain(|step| step.id().starts_with("11-"));
    assert_stopped(&go(&rig).await, "11-", &says);
    assert_eq!(rig.changes(), before);
}

async fn missing(kind: &'static pvemig::lab::kube::kinds::Kind, name: &str, says: &[&str]) {
    let gone = |world: &mut World| {
        let object = world.kube.store.get(kind, "frigate", name).unwrap().clone();
        world.kube.store.remove(&Key::of(&object).unwrap()).unwrap();
    };
    let rig = rig("usb-move", &["00-"], gone).await;
    assert_stopped(&go(&rig).await, "00-preflight", says);
    assert_eq!(rig.changes(), 0);
}

incidents! {
    a_claim_is_bound_to_the_old_node: bound_to_the_old_node();
    an_affinity_is_in_match_fields:
        starts_empty(terms(json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [SOURCE]}]}])));
    an_affinity_has_two_terms: starts_empty(terms(json!([on(&[SOURCE], "In"), on(&[TARGET], "In")])));
    an_affinity_says_not_in: stays_pending(terms(json!([on(&[TARGET], "NotIn")])));
    a_host_path_has_no_affinity:
        starts_empty(|volume| drop(volume["spec"].as_object_mut().unwrap().remove("nodeAffinity")));
    a_node_was_made_anew_under_its_name: another_node_of_the_same_name();
    a_volume_is_being_deleted: volume_is_leaving();
    a_secret_is_missing: missing(kinds::secrets(), "frigate-secrets", &["frigate-secrets", "make it, or correct its name"]);
}
