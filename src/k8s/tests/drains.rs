use serde_json::{Value, json};

use super::super::budget::Budget;
use super::super::claim::Claim;
use super::super::drain::{Fate, Lets, Reason, Surroundings, plan};
use super::super::pod::Pod;
use super::super::volume::Volume;
use super::{fixture, node};

const HERE: &str = "k3s-vm-pumped-piglet";

/// The fixture pod without data of its own and free to go anywhere.
fn pod(change: impl Fn(&mut Value)) -> Pod {
    let mut value = fixture("pod");
    value["spec"]["nodeSelector"] = json!({});
    value["spec"]["volumes"] = json!([]);
    change(&mut value);
    Pod::from_api(value).unwrap()
}

fn budget(name: &str, spec: Value, status: Value) -> Budget {
    let mut spec = spec;
    spec["selector"] = json!({"matchLabels": {"app": "frigate"}});
    let value =
        json!({"metadata": {"name": name, "namespace": "frigate", "generation": 1}, "spec": spec, "status": status});
    Budget::from_api(value).unwrap()
}

fn room() -> Value {
    json!({"observedGeneration": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2, "disruptionsAllowed": 1})
}

fn full() -> Value {
    json!({"observedGeneration": 1, "currentHealthy": 2, "desiredHealthy": 2, "expectedPods": 3, "disruptionsAllowed": 0})
}

fn round() -> Surroundings {
    Surroundings {
        nodes: vec![node(HERE, &[]), node("other", &[])],
        daemon_sets: ["frigate/svclb".to_owned()].into(),
        ..Surroundings::default()
    }
}

fn judge(pod: Pod, round: &Surroundings, lets: Lets) -> (Fate, Vec<Reason>) {
    let mut plans = plan(HERE, &[pod], round, lets);
    assert_eq!(plans.len(), 1);
    let plan = plans.remove(0);
    (plan.fate, plan.reasons)
}

#[test]
fn what_kubectl_asks_of_a_pod() {
    let owner = |kind: &str, name: &str| json!([{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "u", "controller": true}]);
    let keep = Lets::default();
    let all = Lets { empty_dir_data: true, bare_pods: true };
    let round = round();
    let cases: Vec<(&str, Pod, Lets, Fate, usize)> = vec![
        ("replicated", pod(|_| {}), keep, Fate::Goes, 0),
        ("daemon set", pod(|v| v["metadata"]["ownerReferences"] = owner("DaemonSet", "svclb")), all, Fate::Stays, 1),
        (
            "its daemon set is gone",
            pod(|v| v["metadata"]["ownerReferences"] = owner("DaemonSet", "gone")),
            keep,
            Fate::Refuses,
            1,
        ),
        (
            "its daemon set is gone, let go",
            pod(|v| v["metadata"]["ownerReferences"] = owner("DaemonSet", "gone")),
            all,
            Fate::GoesForGood,
            1,
        ),
        (
            "static",
            pod(|v| v["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"})),
            all,
            Fate::Stays,
            1,
        ),
        ("bare", pod(|v| v["metadata"]["ownerReferences"] = json!([])), keep, Fate::Refuses, 1),
        ("bare, let go", pod(|v| v["metadata"]["ownerReferences"] = json!([])), all, Fate::GoesForGood, 1),
        (
            "empty dir",
            pod(|v| v["spec"]["volumes"] = json!([{"name": "a", "emptyDir": {"medium": "Memory"}}])),
            keep,
            Fate::Refuses,
            1,
        ),
        (
            "empty dir, let go",
            pod(|v| v["spec"]["volumes"] = json!([{"name": "a", "emptyDir": {}}])),
            all,
            Fate::Goes,
            1,
        ),
        (
            "finished, bare, with empty dir",
            pod(|v| {
                v["status"]["phase"] = "Succeeded".into();
                v["metadata"]["ownerReferences"] = json!([]);
                v["spec"]["volumes"] = json!([{"name": "a", "emptyDir": {}}]);
            }),
            keep,
            Fate::Goes,
            1,
        ),
        ("going", pod(|v| v["metadata"]["deletionTimestamp"] = "2025-05-01T00:00:00Z".into()), keep, Fate::Goes, 1),
    ];
    assert_eq!(cases.len(), 11);
    for (what, pod, lets, fate, reasons) in cases {
        let (seen, why) = judge(pod, &round, lets);
        assert_eq!((seen, why.len()), (fate, reasons), "{what}: {why:?}");
    }
}

#[test]
fn budgets_as_the_eviction_handler_reads_them() {
    let not_ready = |v: &mut Value| v["status"]["conditions"][3]["status"] = "False".into();
    let cases: Vec<(&str, Pod, Vec<Budget>, Fate)> = vec![
        ("room", pod(|_| {}), vec![budget("b", json!({"minAvailable": 1}), room())], Fate::Goes),
        ("no room now", pod(|_| {}), vec![budget("b", json!({"minAvailable": 2}), full())], Fate::Waits),
        ("maxUnavailable 0", pod(|_| {}), vec![budget("b", json!({"maxUnavailable": 0}), room())], Fate::Refuses),
        ("minAvailable 100%", pod(|_| {}), vec![budget("b", json!({"minAvailable": "100%"}), room())], Fate::Refuses),
        ("as many as there are", pod(|_| {}), vec![budget("b", json!({"minAvailable": 3}), full())], Fate::Refuses),
        ("67% of 3 rounds up", pod(|_| {}), vec![budget("b", json!({"minAvailable": "67%"}), full())], Fate::Refuses),
        ("66% of 3 is 2", pod(|_| {}), vec![budget("b", json!({"minAvailable": "66%"}), full())], Fate::Waits),
        (
            "two budgets",
            pod(|_| {}),
            vec![budget("a", json!({"minAvailable": 1}), room()), budget("b", json!({"minAvailable": 1}), room())],
            Fate::Refuses,
        ),
        (
            "not ready, others not healthy",
            pod(not_ready),
            vec![budget("b", json!({"minAvailable": 1}), json!({"currentHealthy": 0, "desiredHealthy": 1}))],
            Fate::Waits,
        ),
        (
            "not ready, others healthy",
            pod(not_ready),
            vec![budget("b", json!({"minAvailable": 1}), full())],
            Fate::Goes,
        ),
        (
            "not ready, always allowed",
            pod(not_ready),
            vec![budget("b", json!({"minAvailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow"}), json!({}))],
            Fate::Goes,
        ),
        (
            "pending",
            pod(|v| v["status"]["phase"] = "Pending".into()),
            vec![budget("b", json!({"maxUnavailable": 0}), full())],
            Fate::Goes,
        ),
        (
            "not yet counted",
            pod(|_| {}),
            vec![budget(
                "b",
                json!({"minAvailable": 1}),
                json!({"observedGeneration": 0, "expectedPods": 3, "disruptionsAllowed": 1}),
            )],
            Fate::Waits,
        ),
    ];
    assert_eq!(cases.len(), 13);
    for (what, pod, budgets, fate) in cases {
        let round = Surroundings { budgets, ..round() };
        let (seen, why) = judge(pod, &round, Lets::default());
        assert_eq!(seen, fate, "{what}: {why:?}");
        assert_eq!(why.is_empty(), fate == Fate::Goes, "{what}");
    }
    let mut elsewhere = budget("b", json!({"maxUnavailable": 0}), full());
    elsewhere.meta.namespace = "other".into();
    assert!(!elsewhere.counts(&pod(|_| {})), "a budget counts in its own namespace only");
}

#[test]
fn a_pod_that_would_not_come_back_says_why() {
    let claimed = |v: &mut Value| {
        v["spec"]["volumes"] = json!([{"name": "c", "persistentVolumeClaim": {"claimName": "frigate-config"}}])
    };
    let volume = |change: &dyn Fn(&mut Value)| {
        let mut value = fixture("pv-local-path");
        change(&mut value);
        Volume::from_api(value).unwrap()
    };
    let with = |volume: Volume| Surroundings {
        claims: vec![Claim::from_api(fixture("pvc-bound")).unwrap()],
        volumes: vec![volume],
        ..round()
    };
    let (fate, why) = judge(pod(claimed), &with(volume(&|_| {})), Lets::default());
    assert_eq!(fate, Fate::GoesForGood);
    assert_eq!(
        why[0].to_string(),
        "claim frigate-config is bound to volume pvc-44444444-aaaa-4aaa-8aaa-000000000001 (affinity: kubernetes.io/hostname In [k3s-vm-pumped-piglet]), which no other fitting node may use"
    );
    // Without affinity it would start elsewhere, and empty: that pod must not go.
    let loose = with(volume(&|v| v["spec"]["nodeAffinity"] = Value::Null));
    let (fate, why) = judge(pod(claimed), &loose, Lets::default());
    assert_eq!(fate, Fate::Refuses);
    assert!(matches!(&why[0], Reason::StartsEmpty { claim, .. } if claim == "frigate-config"), "{why:?}");

    // What is in no list is not known to be elsewhere.
    let unlisted = [
        (Surroundings { volumes: Vec::new(), ..loose.clone() }, "its volume pvc-44444444-aaaa-4aaa-8aaa-000000000001"),
        (Surroundings { claims: Vec::new(), ..loose }, "it"),
    ];
    for (round, what) in unlisted {
        let (fate, why) = judge(pod(claimed), &round, Lets::default());
        assert!(fate == Fate::Refuses && matches!(&why[0], Reason::Unseen { what: of, .. } if of == what), "{why:?}");
    }

    let nowhere = |change: &dyn Fn(&mut Value), expected: &str| {
        let (fate, why) = judge(pod(change), &round(), Lets::default());
        assert_eq!((fate, why[0].to_string().as_str()), (Fate::GoesForGood, expected));
    };
    nowhere(
        &|v| v["spec"]["nodeSelector"] = json!({"coral": "true"}),
        "no other node takes it: other (no label coral=true)",
    );
    nowhere(
        &|v| v["spec"]["containers"][0]["resources"] = json!({"limits": {"nvidia.com/gpu": "1"}}),
        "no other node takes it: other (0 of 1 nvidia.com/gpu)",
    );
    nowhere(
        &|v| {
            v["spec"]["affinity"] = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [HERE]}]}]}}});
        },
        "no other node takes it: other (outside of its node affinity)",
    );
    let alone = Surroundings { nodes: vec![node(HERE, &[])], ..round() };
    let (_, why) = judge(pod(|_| {}), &alone, Lets::default());
    assert_eq!(why[0].to_string(), "no other node takes it: there is none");
}
