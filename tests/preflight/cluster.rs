//! What Kubernetes alone is asked: who holds and scales, claims on their way out, what Flux follows, nodes that are not
//! there.

use std::time::Duration;

use pvemig::blueprint;
use pvemig::engine::step::Seen;
use pvemig::lab::World;
use pvemig::lab::kube::kinds;
use pvemig::lab::kube::store::Key;
use serde_json::{Value, json};

use super::{Bench, JSON, MERGE, SOURCE, assert_found, assert_noted, problems_of};

const PODS: &str = "/api/v1/namespaces/frigate/pods";
const REPOSITORY: &str = "/apis/source.toolkit.fluxcd.io/v1/namespaces/flux-system/gitrepositories/flux-system";

/// A pod of a Job that mounts a claim.
async fn pod_of_job(bench: &Bench, job: &str, restart: &str, claim: &str) {
    let jobs = "/apis/batch/v1/namespaces/frigate/jobs";
    let spec = json!({"template": {"spec": {"restartPolicy": "Never",
        "containers": [{"name": "main", "image": "registry.invalid/job:1"}]}}});
    let owner = bench.send("POST", jobs, JSON, json!({"metadata": {"name": job}, "spec": spec})).await;
    let pod = json!({"metadata": {"name": format!("{job}-1"), "ownerReferences": [
            {"apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": owner["metadata"]["uid"], "controller": true}]},
        "spec": {"nodeName": SOURCE, "restartPolicy": restart,
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}],
            "containers": [{"name": "main", "image": "registry.invalid/job:1"}]}});
    bench.send("POST", PODS, JSON, pod).await;
}

/// Waits until the pods of these names are in these phases.
async fn until_phases(bench: &Bench, expected: &[(&str, &str)]) {
    let there = |world: &World| {
        let of = |name: &str| {
            let pod = world.kube.store.get(kinds::pods(), "frigate", name)?;
            pod["status"]["phase"].as_str().map(str::to_owned)
        };
        expected.iter().all(|(name, phase)| of(name).as_deref() == Some(*phase)).then_some(())
    };
    bench.rig.lab.shared().until(Duration::from_secs(600), there).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_sources_and_scalers_are_found_at_once() {
    let mut bench = Bench::new("usb-move").await;
    let hpa = json!({"metadata": {"name": "frigate-cpu"}, "spec": {"minReplicas": 1, "maxReplicas": 2,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "frigate"}}});
    let hpas = "/apis/autoscaling/v2/namespaces/frigate/horizontalpodautoscalers";
    bench.send("POST", hpas, JSON, hpa).await;
    pod_of_job(&bench, "backup", "Never", "frigate-config").await;
    pod_of_job(&bench, "sync", "Always", "frigate-config").await;
    pod_of_job(&bench, "index", "Always", "frigate-media").await;
    until_phases(&bench, &[("backup-1", "Succeeded"), ("sync-1", "Running"), ("index-1", "Running")]).await;
    let source = json!({"spec": {"suspend": true, "ref": {"branch": "other"}}});
    bench.send("PATCH", REPOSITORY, MERGE, source).await;
    bench.send("DELETE", "/api/v1/namespaces/frigate/persistentvolumeclaims/frigate-media", JSON, json!({})).await;
    bench.rig.lab.shared().change(|world| {
        let volumes = world.kube.store.all(kinds::volumes());
        let config = volumes.iter().find(|v| v["spec"]["claimRef"]["name"] == "frigate-config").unwrap();
        world.kube.store.remove(&Key::of(config).unwrap()).unwrap();
    });
    bench.declare(|fields| {
        fields["claims"]["frigate-media"] = json!("leave");
        fields["needs"]["runtime_class"] = json!("kata");
    });

    let check = bench.look().await.unwrap();
    assert_noted(
        &check,
        &[
            "HorizontalPodAutoscaler frigate/frigate-cpu scales Deployment frigate/frigate, at least 1; it rests while",
            // A claim that stays may be held by whoever wants to.
            "claim frigate/frigate-media is held by pod index-1 (Running, of Job/index)",
        ],
    );
    let suspended = ("10", "is suspended at main@sha1:", "`flux resume source git flux-system -n flux-system`");
    let ended = (
        "11",
        "claim frigate/frigate-config is held by pod backup-1 (Succeeded, of Job/backup)",
        "`kubectl delete pod -n frigate backup-1`: it has ended",
    );
    let running =
        ("11", "claim frigate/frigate-config is held by pod sync-1 (Running, of Job/sync)", "wait for Job/sync");
    let gone = ("11", "claim frigate/frigate-config names volume pvc-", "its data is where that volume was");
    let going = (
        "11",
        "claim frigate/frigate-media is being deleted already, and something holds it",
        "`kubectl describe pvc -n frigate frigate-media`",
    );
    let pending = ("10", "claim frigate/frigate-media: volume ", "claims: { frigate-media: recreate }");
    let branch = (
        "09a",
        "follows branch other, and checkout gitops is of branch main",
        "correct `branch` or `path` of checkout gitops",
    );
    let runtime =
        ("10", "there is no runtime class kata, which `needs` names", "install that runtime on k3s-vm-still-fawn");
    assert_found(&problems_of(check), &[branch, suspended, pending, runtime, ended, running, gone, going]);

    // The branch of another repository, or one that was pushed over.
    bench.send("PATCH", REPOSITORY, MERGE, json!({"spec": {"ref": {"branch": "main"}}})).await;
    let foreign = format!("main@sha1:{}", "0badcafe".repeat(5));
    bench.rig.lab.shared().change(|world| {
        let mut source = Value::clone(&world.kube.store.all(kinds::repositories())[0]);
        source["status"]["artifact"]["revision"] = json!(foreign);
        world.kube.store.replace(kinds::repositories(), source, None);
    });
    let unwell = |world: &World| {
        let all = world.kube.store.all(kinds::kustomizations());
        let failed = |object: &&std::sync::Arc<Value>| object["status"].to_string().contains("ArtifactFailed");
        (all.iter().filter(failed).count() == 2).then_some(())
    };
    bench.rig.lab.shared().until(Duration::from_secs(1800), unwell).await.unwrap();
    let failed = "Ready is False (ArtifactFailed)";
    let texts = ["flux-system", "apps"].map(|name| format!("Kustomization flux-system/{name}: {failed}"));
    let [root, apps] = texts.each_ref().map(|text| ("10", text.as_str(), "`flux get all -n flux-system` says more"));
    let text = format!("is at {foreign}, which branch main of checkout gitops does not have");
    let commit = ("09a", text.as_str(), "correct `branch` or `path` of checkout gitops");
    assert_found(
        &bench.problems().await,
        &[commit, root, apps, suspended, pending, runtime, ended, running, gone, going],
    );

    // Where the node is not there nothing is held against it.
    bench.declare(|fields| fields["node"]["name"] = json!("nowhere"));
    let nowhere = ("06", "kubernetes `k3s` has no node nowhere", "`node_name` of the node in the site file");
    assert_found(
        &bench.problems().await,
        &[nowhere, commit, root, apps, suspended, pending, ended, running, gone, going],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_that_deletes_its_claims_and_owners_that_the_site_does_not_name() {
    let mut bench = Bench::new("usb-move").await;
    let labels = json!({"app": "nvr"});
    let set = json!({"metadata": {"name": "nvr"}, "spec": {"replicas": 1, "serviceName": "nvr",
        "selector": {"matchLabels": labels},
        "persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete", "whenDeleted": "Retain"},
        "template": {"metadata": {"labels": labels},
            "spec": {"containers": [{"name": "main", "image": "registry.invalid/nvr:1"}]}}}});
    bench.send("POST", "/apis/apps/v1/namespaces/frigate/statefulsets", JSON, set).await;
    bench.declare(|fields| {
        fields["work"]["kind"] = json!("StatefulSet");
        fields["work"]["name"] = json!("nvr");
        fields["claims"] = json!({"frigate-config": "recreate"});
        fields["edits"] = json!([]);
        fields["verify"] = Value::Null;
        fields["gitops"] = Value::Null;
    });
    let deletes = (
        "00d",
        "StatefulSet frigate/nvr deletes its claims when it is scaled down (whenScaled: Delete)",
        "persistentVolumeClaimRetentionPolicy.whenScaled: Retain",
    );
    let owners = (
        "00b",
        "Kustomization flux-system/apps could put back what is changed, and the site file names no GitOps for k3s",
        "add `gitops: { kind: flux, checkout: NAME, source: .. }` to kubernetes.k3s",
    );
    let holder =
        ("11", "claim frigate/frigate-config is held by pod frigate-", "or scale it to 0; it uses the same data");
    assert_found(&bench.problems().await, &[deletes, owners, holder]);
    let keep = json!({"spec": {"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Retain"}}});
    bench.send("PATCH", "/apis/apps/v1/namespaces/frigate/statefulsets/nvr", MERGE, keep).await;
    assert_found(&bench.problems().await, &[owners, holder]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_a_stateful_set_makes_by_itself_is_not_missed() {
    let mut bench = Bench::new("usb-move").await;
    let labels = json!({"app": "nvr"});
    // Scaled to 0 since it was made: its claim was never needed.
    let set = json!({"metadata": {"name": "nvr"}, "spec": {"replicas": 0, "serviceName": "nvr",
        "selector": {"matchLabels": labels},
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "storageClassName": "local-path", "resources": {"requests": {"storage": "1Gi"}}}}],
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main",
            "image": "registry.invalid/nvr:1", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}}}});
    bench.send("POST", "/apis/apps/v1/namespaces/frigate/statefulsets", JSON, set).await;
    let of_the_set = |claims: Value| {
        move |fields: &mut Value| {
            fields["work"]["kind"] = json!("StatefulSet");
            fields["work"]["name"] = json!("nvr");
            fields["claims"] = claims;
        }
    };
    let alone = |fields: &mut Value| {
        fields["edits"] = json!([]);
        fields["verify"] = Value::Null;
    };
    let yet = "there is no claim frigate/data-nvr-0 yet: StatefulSet frigate/nvr makes it with its pod";
    for claims in [json!({}), json!({"data-nvr-0": "leave"}), json!({"data-nvr-0": "recreate"})] {
        bench.declare(of_the_set(claims.clone()));
        bench.declare(alone);
        let check = bench.look().await.unwrap();
        assert_noted(&check, &[yet]);
        assert_found(&problems_of(check), &[]);
        // What the preflight lets pass does not stop the step.
        let at = bench.rig.steps.iter().position(|step| step.id() == "11-recreate-pvcs").unwrap();
        let mut fields = bench.rig.steps[at].fields().unwrap();
        of_the_set(claims.clone())(&mut fields);
        let step = blueprint::named("usb-move").unwrap().rebuild("11-recreate-pvcs", &fields).unwrap();
        let (info, held) = (bench.rig.bench.store.info("", "here").unwrap(), Default::default());
        let seen = Seen { since: None, got: &[], held: &held, run: &info };
        let check = step.check(&bench.rig.estate, seen).await.unwrap();
        assert!(check.is_done(), "{claims}: {check:#?}");
    }
    // One that nobody makes is missing, and so is one whose data is on a volume.
    bench.declare(of_the_set(json!({"data-nvr": "leave"})));
    let gone = ("10", "there is no claim frigate/data-nvr", "else correct the name");
    assert_found(&bench.problems().await, &[gone]);
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "old"},
        "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "local-path",
            "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": "/srv/old"},
            "claimRef": {"namespace": "frigate", "name": "data-nvr-0", "uid": "gone"}}});
    bench.send("POST", "/api/v1/persistentvolumes", JSON, volume).await;
    bench.declare(of_the_set(json!({})));
    let empty = ("10", "would make it anew and EMPTY, and volume old has what it held", "data-nvr-0: recreate");
    assert_found(&bench.problems().await, &[empty]);
    bench.declare(of_the_set(json!({"data-nvr-0": "recreate"})));
    assert_found(&bench.problems().await, &[]);
}
