//! What is not well, as the survey has it and as the table shows it.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams, PostParams};
use pvemig::base::survey::{Layer, NotReady, Seat};
use pvemig::engine::store::{Holder, Ids, Store};
use pvemig::lab::kube::kinds;
use pvemig::lab::talos::etcd::Member;
use pvemig::lab::{Lab, World, load};
use serde_json::{Value, json};

use super::Bench;
use super::shown::row;
use crate::harness::estate::at_rest;

/// Simulated seconds in a real one, where something has to come about.
const SPEED: u32 = 100;
/// Lab time until something has come about.
const SOON: Duration = Duration::from_secs(1_800);

/// A world at rest after something was made of it.
fn changed(change: impl FnOnce(&mut World)) -> World {
    let mut world = load("talos-three").unwrap();
    change(&mut world);
    Lab::at_rest(world, tempfile::tempdir().unwrap().path()).unwrap()
}

/// What the table says of a node, as one text.
fn cells(bench: &Bench, node: &str) -> (String, String) {
    let (code, text) = bench.run(&["survey", node]);
    assert_eq!(code, Some(0), "{text}");
    (row(&text, node).join(" "), text)
}

/// A deployment of one pod for the nodes with a label.
async fn deploy(bench: &Bench, name: &str, selector: Value, env: Value) {
    let labels = json!({ "app": name });
    let container = json!({ "name": "app", "image": "traefik/whoami:v1.11.0", "env": env });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name, "namespace": "home" },
        "spec": { "replicas": 1, "selector": { "matchLabels": labels }, "template": {
            "metadata": { "labels": labels }, "spec": { "nodeSelector": selector, "containers": [container] },
        } },
    });
    let api: Api<Deployment> = Api::namespaced(bench.cluster().await, "home");
    api.create(&PostParams::default(), &serde_json::from_value(deployment).unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_does_not_start_is_counted_on_its_node_and_one_without_a_node_on_the_cluster() {
    let bench = Bench::at(SPEED, at_rest("talos-three")).await;
    let before = bench.survey(&["talos-mac"]).await.nodes[0].workloads.known().unwrap().pods;
    let key = json!([{ "name": "KEY", "valueFrom": { "secretKeyRef": { "name": "nobody", "key": "x" } } }]);
    deploy(&bench, "keyless", json!({ "kubernetes.io/hostname": "talos-mac" }), key).await;
    deploy(&bench, "nowhere", json!({ "floor": "13" }), json!([])).await;
    let come_about = |world: &World| {
        let pods: Vec<_> = world.kube.store.list(kinds::pods(), Some("home")).collect();
        let any = |name: &str, is: &dyn Fn(&Value) -> bool| {
            pods.iter().any(|pod| pod["metadata"]["labels"]["app"] == name && is(pod))
        };
        let stuck = |pod: &Value| {
            let reason = pod.pointer("/status/containerStatuses/0/state/waiting/reason");
            reason.is_some_and(|reason| reason == "CreateContainerConfigError")
        };
        let told = |pod: &Value| pod["status"]["conditions"].to_string().contains("Unschedulable");
        (any("keyless", &stuck) && any("nowhere", &told)).then_some(())
    };
    bench.lab.shared().until(SOON, come_about).await.unwrap();

    let survey = bench.look(&[]).await;
    let mac = survey.node("talos-mac").unwrap();
    let workloads = mac.workloads.known().unwrap();
    let [NotReady { owner, pod, why }] = workloads.not_ready.as_slice() else { panic!("{workloads:#?}") };
    assert_eq!((workloads.pods, owner.namespace.as_str(), owner.kind.as_str()), (before + 1, "home", "ReplicaSet"));
    assert!(pod.starts_with("keyless-") && owner.name.starts_with("keyless-"), "{workloads:?}");
    assert_eq!(why, "app: CreateContainerConfigError: secret \"nobody\" not found");
    let others = survey.nodes.iter().filter(|node| node.name != "talos-mac");
    assert_eq!(others.filter(|node| node.workloads.known().unwrap().not_ready.is_empty()).count(), 2);
    let unscheduled = survey.kubernetes[0].unscheduled.known().unwrap();
    let [NotReady { pod: nowhere, why, .. }] = unscheduled.as_slice() else { panic!("{unscheduled:#?}") };
    assert!(nowhere.starts_with("nowhere-") && why.starts_with("not scheduled: 0/3 nodes"), "{unscheduled:?}");

    let (cells, text) = cells(&bench, "talos-mac");
    assert!(cells.starts_with("! talos-mac ") && cells.contains(&format!(" ! {before} of {}", before + 1)), "{text}");
    for words in [
        format!("workloads home/{pod}: app: CreateContainerConfigError"),
        format!("homelab workloads home/{nowhere}: not scheduled: 0/3 nodes"),
    ] {
        let on_one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(on_one_line.contains(&words), "`{words}` is not in {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_a_vm_a_lock_and_a_cordon_each_have_their_word() {
    let bench = Bench::new("talos-three").await;
    bench.lab.shared().change(|world| {
        world.vms.get_mut(&223).unwrap().pending.insert("cores".into(), "8".into());
    });
    let api: Api<Node> = Api::all(bench.cluster().await);
    let cordon = Patch::Merge(json!({ "spec": { "unschedulable": true } }));
    api.patch("talos-vm", &PatchParams::default(), &cordon).await.unwrap();
    let survey = bench.look(&["talos-vm"]).await;
    let node = &survey.nodes[0];
    let [change] = node.vm().unwrap().pending.as_slice() else { panic!("{:?}", node.vm) };
    assert_eq!((change.key.as_str(), change.now.as_deref(), change.then.as_deref()), ("cores", Some("4"), Some("8")));
    let kubelet = node.kubelet().unwrap();
    assert_eq!((kubelet.ready, kubelet.cordoned, &kubelet.cordon_mark), (true, true, &None));
    let said = |layer: &'static str, text: &str| (layer, text.to_owned());
    let wanted = [said("vm", "pending until its next power cycle: cores"), said("kubelet", "cordoned")];
    assert_eq!(node.wrong(), wanted);
    let (row, text) = cells(&bench, "talos-vm");
    assert!(row.contains("! pending (223 on pve)") && row.contains("! cordoned v1.34.1"), "{text}");
    assert!(text.contains("pending until its next power cycle: cores"), "{text}");

    // A firmware's uuid that waits is not yet the machine's.
    bench.lab.shared().change(|world| {
        let uuid = "uuid=11111111-2222-3333-4444-555555555555";
        world.vms.get_mut(&223).unwrap().pending.insert("smbios1".into(), uuid.into());
    });
    let node = bench.look(&["talos-vm"]).await.nodes.remove(0);
    assert_eq!(node.vm().unwrap().pending.len(), 2);
    assert_eq!(node.vm().unwrap().smbios_uuid.as_ref(), node.talos().unwrap().system_uuid.known());

    // Who holds the lock comes before what waits.
    bench.lab.shared().change(|world| world.vms.get_mut(&223).unwrap().lock = Some("backup".into()));
    let survey = bench.look(&["talos-vm"]).await;
    assert_eq!(survey.nodes[0].vm().unwrap().lock.as_deref(), Some("backup"));
    assert_eq!(survey.nodes[0].wrong()[..1], [said("vm", "locked (backup)")]);
    let (row, text) = cells(&bench, "talos-vm");
    assert!(row.contains("! backup (223 on pve)") && text.contains("locked (backup)"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_is_no_voter_and_does_not_know_the_members() {
    let bench = Bench::of(changed(|world| {
        let mac = world.talos.etcd.members.iter_mut().find(|member| member.name == "talos-mac").unwrap();
        (mac.learner, mac.lags) = (true, true);
    }))
    .await;
    let survey = bench.survey(&[]).await;
    let seats: Vec<Seat> = survey.nodes.iter().map(|node| node.seat().unwrap().seat).collect();
    assert_eq!(seats.iter().filter(|seat| **seat == Seat::Learner).count(), 1);
    assert_eq!(seats.iter().filter(|seat| **seat == Seat::Leader).count(), 1);
    let mac = survey.node("talos-mac").unwrap();
    assert_eq!(mac.seat().unwrap().seat, Seat::Learner);
    assert!(mac.wrong().contains(&("etcd", "a learner: it has no vote".to_owned())), "{:?}", mac.wrong());
    assert!(mac.seat().unwrap().members.reason().is_some_and(|why| why.contains("not supported for learner")));
    let nuc = survey.node("talos-nuc").unwrap().seat().unwrap().members.known().unwrap();
    assert_eq!(nuc.iter().map(|member| member.learner).collect::<Vec<_>>(), [false, false, true]);
    let (row, text) = cells(&bench, "talos-mac");
    assert!(row.contains(" ! learner, ") && text.contains("a learner: it has no vote"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_leader_every_seat_says_so_and_talos_is_not_ready() {
    let bench = Bench::new("talos-three").await;
    bench.hangs.set(true);
    // Three more members that nobody can reach: the three that are there are no majority.
    bench.lab.shared().change(|world| {
        let gone = (1..=3).map(|n| Member { id: n, name: format!("gone-{n}"), ..Member::default() });
        world.talos.etcd.members.extend(gone);
    });
    let survey = bench.survey(&[]).await;
    assert_eq!(survey.nodes.len(), 3);
    for node in &survey.nodes {
        let seat = node.seat().unwrap();
        assert_eq!((seat.seat, &seat.leader, seat.members.is_unknown()), (Seat::Voter, &None, true), "{seat:?}");
        let talos = node.talos().unwrap();
        assert_eq!(talos.unmet.iter().map(|unmet| unmet.name.as_str()).collect::<Vec<_>>(), ["services"]);
        let wrong = node.wrong();
        for line in [("talos", "services: etcd not healthy"), ("etcd", "no leader")] {
            assert!(wrong.contains(&(line.0, line.1.to_owned())), "{wrong:?}");
        }
    }
    let (row, text) = cells(&bench, "talos-nuc");
    assert!(row.contains(" ! not ready v1.11.5 ") && row.contains(" ! no leader, "), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_went_off_is_not_ready_and_neither_are_its_pods() {
    let bench = Bench::at(SPEED, at_rest("talos-three")).await;
    bench.hangs.set(true);
    bench.lab.shared().change(|world| {
        world.vms.get_mut(&223).unwrap().running = None;
        world.talos.nodes.get_mut("talos-vm").unwrap().run = None;
    });
    let silent = |world: &World| {
        let ready = |pod: &&std::sync::Arc<Value>| {
            let conditions = pod["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
            conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
        };
        let on = |pod: &&std::sync::Arc<Value>| pod["spec"]["nodeName"] == "talos-vm";
        let pods = world.kube.store.list(kinds::pods(), None).filter(on);
        (world.talos_kubelet_ready("talos-vm") == Some(false) && pods.filter(ready).count() == 0).then_some(())
    };
    bench.lab.shared().until(SOON, silent).await.unwrap();
    let survey = bench.survey(&["talos-vm"]).await;
    let node = &survey.nodes[0];
    let kubelet = node.kubelet().unwrap();
    assert_eq!((kubelet.ready, kubelet.reason.as_str()), (false, "Kubelet stopped posting node status."));
    assert_eq!((&node.agent, node.talos.is_unknown(), node.talos_silent), (&Layer::Absent, true, true));
    let workloads = node.workloads.known().unwrap();
    assert_eq!((workloads.not_ready.len(), workloads.pods > 4), (workloads.pods, true), "{workloads:#?}");
    let (row, text) = cells(&bench, "talos-vm");
    assert!(row.contains("! stopped (223 on pve)") && row.contains("! NotReady v1.34.1"), "{text}");
    assert!(row.contains(&format!("! 0 of {}", workloads.pods)), "{text}");
    assert!(text.contains("not Ready: Kubelet stopped posting node status."), "{text}");
    assert!(workloads.not_ready.iter().all(|pod| pod.why.contains("which no longer reports")), "{workloads:#?}");
    // The machine is what is mended first.
    let on_one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for words in ["help: its VM is stopped: on pve: `qm start 223`", "its VM is stopped and its node is not Ready"] {
        assert!(on_one_line.contains(words), "`{words}` is not in {text}");
    }
    assert!(!text.contains("is the node up"), "{text}");
    // Of many lines the first few.
    assert!(text.contains(&format!("and {} more (`--json` has them)", workloads.pods - 4)), "{text}");
}

/// What a run that is at work has put up it takes down by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_cordon_of_a_run_that_is_at_work_is_a_note() {
    let bench = Bench::new("talos-three").await;
    let api: Api<Node> = Api::all(bench.cluster().await);
    let mark = json!({ "run": "7k2", "host": "box", "was": {} }).to_string();
    let held = json!({ "metadata": { "annotations": { "pvemig.io/hold": mark } }, "spec": { "unschedulable": true } });
    api.patch("talos-vm", &PatchParams::default(), &Patch::Merge(held)).await.unwrap();
    let state = tempfile::tempdir().unwrap();
    let args = ["survey", "talos-vm", "--json", "--state", state.path().to_str().unwrap()];
    let said = || {
        let (code, text) = bench.run(&args);
        let json: Value = serde_json::from_str(&text).unwrap();
        let found = json["findings"].as_array().unwrap().iter().any(|finding| finding["rule"] == "L33");
        assert_eq!(code, Some(0), "{text}");
        (found, json["notes"].to_string())
    };
    assert_eq!(said(), (true, "null".into()));
    let store = Store::open(state.path(), "homelab", Ids::Counted).unwrap();
    let holder = |run: &str| Holder { run: run.into(), pid: 7, host: "box".into(), since: "02:00".into() };
    let other = store.lock(&holder("k69")).unwrap();
    assert_eq!(said(), (true, "null".into()), "another run");
    drop(other);
    let lock = store.lock(&holder("7k2")).unwrap();
    let (found, notes) = said();
    assert!(!found && notes.contains("talos-vm is cordoned by run 7k2, process 7 on box"), "{notes}");
    drop(lock);
    assert_eq!(said(), (true, "null".into()), "it has ended");
}
