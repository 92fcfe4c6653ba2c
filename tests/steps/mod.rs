//! The steps of `usb-move` that prepare and follow the power cycle, against the lab: kept volumes, the holds, labels,
//! the guest's ways in, drivers. The workload is one that no GitOps owns, so that each hold is looked at by itself.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod asked;
mod back;
mod foreign;
mod power;
mod scale;
mod worlds;

use crate::harness::estate::Rig;
use crate::harness::{How, Run, calls, notes};
use pvemig::base::check::Answer;
use pvemig::base::hold::{MARK, Mark};
use pvemig::blueprint;
use pvemig::engine::event::Event;
use pvemig::engine::run::{Ended, Stop, Why};
use pvemig::engine::step::Seen;
use pvemig::lab::kube::kinds;
use pvemig::lab::{Class, FaultEffect, FaultRule, Front, Place};
use serde_json::{Value, json};

const OURS: &[&str] = &[
    "00a-retain-volumes",
    "00d-scale-down",
    "01-remove-usb",
    "02-remove-label",
    "03-check-host-hardware",
    "04-add-usb",
    "04a-drain-node",
    "05-reboot-vm",
    "06-wait-for-vm",
    "06a-uncordon-node",
    "07-check-vm-hardware",
    "08-install-drivers",
    "09-label-node",
];

const TARGET: &str = "k3s-vm-still-fawn";
const SOURCE: &str = "k3s-vm-pumped-piglet";
const SHOP: &str = "/apis/apps/v1/namespaces/shop/deployments/shop";

/// A lab with our steps, a workload of our own, and a plain client.
struct Bench {
    rig: Rig,
    client: kube::Client,
    by_hand: std::sync::atomic::AtomicUsize,
}

impl Bench {
    async fn new(world: &str, keep: &[&str]) -> Self {
        let mut rig = Rig::new(world).await;
        rig.steps.retain(|step| keep.contains(&step.id()));
        assert_eq!(rig.steps.len(), keep.len());
        let blueprint = blueprint::named("usb-move").unwrap();
        for step in &mut rig.steps {
            let mut fields = step.fields().unwrap();
            if fields.get("work").is_some() {
                fields["work"]["namespace"] = json!("shop");
                fields["work"]["name"] = json!("shop");
                fields["claims"] = json!([]);
                *step = blueprint.rebuild(step.id(), &fields).unwrap();
            }
        }
        let client = rig.cluster().await;
        let bench = Self { rig, client, by_hand: 0.into() };
        bench.post("/api/v1/namespaces", json!({"metadata": {"name": "shop"}})).await;
        let claim = json!({"metadata": {"name": "shop-data"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "storageClassName": "local-path", "resources": {"requests": {"storage": "1Gi"}}}});
        bench.post("/api/v1/namespaces/shop/persistentvolumeclaims", claim).await;
        bench
            .deploy("shop", 1, SOURCE, json!([{"name": "data", "persistentVolumeClaim": {"claimName": "shop-data"}}]))
            .await;
        bench.settled("shop", 1).await;
        bench
    }

    async fn send(&self, method: &str, path: &str, kind: &str, body: &Value) -> Value {
        let request = http::Request::builder().method(method).uri(path).header("content-type", kind);
        self.by_hand.fetch_add(usize::from(method != "GET"), std::sync::atomic::Ordering::SeqCst);
        self.client.request(request.body(body.to_string().into_bytes()).unwrap()).await.unwrap()
    }

    async fn post(&self, path: &str, body: Value) {
        self.send("POST", path, "application/json", &body).await;
    }

    async fn patch(&self, path: &str, body: Value) {
        self.send("PATCH", path, "application/merge-patch+json", &body).await;
    }

    async fn get(&self, path: &str) -> Value {
        self.send("GET", path, "application/json", &Value::Null).await
    }

    async fn node(&self, name: &str) -> Value {
        self.get(&format!("/api/v1/nodes/{name}")).await
    }

    async fn volume(&self) -> Value {
        let all = self.get("/api/v1/persistentvolumes").await;
        let ours = |v: &&Value| v["spec"]["claimRef"]["name"] == "shop-data";
        all["items"].as_array().unwrap().iter().find(ours).unwrap().clone()
    }

    async fn deploy(&self, name: &str, replicas: i64, node: &str, volumes: Value) {
        let spec = json!({"nodeSelector": {"kubernetes.io/hostname": node}, "volumes": volumes,
            "containers": [{"name": "main", "image": "registry.invalid/main:1"}]});
        let body = json!({"metadata": {"name": name}, "spec": {"replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": spec}}});
        self.post("/apis/apps/v1/namespaces/shop/deployments", body).await;
    }

    /// Waits until a deployment has so many ready pods.
    async fn settled(&self, name: &str, ready: i64) {
        let mut changes = self.rig.lab.shared().changes();
        loop {
            let now = self.get(&format!("/apis/apps/v1/namespaces/shop/deployments/{name}")).await;
            if now["status"]["readyReplicas"].as_i64().unwrap_or(0) == ready {
                return;
            }
            if pvemig::base::wait::within(std::time::Duration::from_secs(10), changes.changed()).await.is_err() {
                let pods = self.get("/api/v1/namespaces/shop/pods").await;
                let claims = self.get("/api/v1/namespaces/shop/persistentvolumeclaims").await;
                panic!("deployment {name} does not settle: {now:#}\n{pods:#}\n{claims:#}");
            }
        }
    }

    async fn forward(&self, id: Option<&str>) -> Run {
        self.rig.forward(id, &How::default()).await
    }

    /// The changing requests of pvemig.
    fn changes(&self) -> usize {
        self.rig.changes() - self.by_hand.load(std::sync::atomic::Ordering::SeqCst)
    }

    fn evictions(&self) -> usize {
        let seen = self.rig.lab.shared().log.seen();
        seen.iter()
            .filter(|s| s.class == Class::Change && s.line.contains("/shop/") && s.line.contains("/eviction"))
            .count()
    }
}

fn done(run: &Run) {
    assert!(matches!(run.ended, Ok(Ended::Done)), "{:#?}", run.ended);
}

fn undone(run: &Run) {
    assert!(matches!(run.ended, Ok(Ended::Undone)), "{:#?}", run.ended);
}

fn stop(run: &Run) -> &Stop {
    let Ok(Ended::Stopped(stop)) = &run.ended else { panic!("{:#?}", run.ended) };
    stop
}

fn blocked(run: &Run) -> String {
    let Why::Blocked(problems) = &stop(run).why else { panic!("{:#?}", run.ended) };
    problems.iter().map(|p| format!("{}\n{}\n{:?}", p.text, p.help, p.mended_by)).collect()
}

fn answers(run: &Run, step: &str) -> Vec<String> {
    let of = |event: &Event| match event {
        Event::Checked { key, answer, .. } if key.as_str() == step => Some(answer.clone()),
        Event::AlreadySo { key, .. } if key.as_str() == step => Some("already".into()),
        _ => None,
    };
    run.records.iter().filter_map(|r| of(&r.event)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cycle_is_held_and_given_back() {
    let bench = Bench::new("usb-move-old", OURS).await;
    bench.deploy("web", 2, TARGET, json!([{"name": "tmp", "emptyDir": {}}])).await;
    bench.settled("web", 2).await;
    let boot = bench.node(TARGET).await["status"]["nodeInfo"]["bootID"].clone();
    let first = bench.rig.picture().await;

    let run = bench.forward(None).await;
    done(&run);
    assert_eq!(calls(&run.records), bench.changes(), "each changing request has its call");
    assert_eq!(bench.volume().await["spec"]["persistentVolumeReclaimPolicy"], "Retain");
    let shop = bench.get(SHOP).await;
    assert_eq!(shop["spec"]["replicas"], 0);
    let mark = Mark::parse(shop["metadata"]["annotations"][MARK].as_str().unwrap()).unwrap();
    assert_eq!((mark.run, mark.was), (run.id.clone(), json!({"replicas": 1})));
    assert!(bench.node(SOURCE).await["metadata"]["labels"].get("coral").is_none());
    let target = bench.node(TARGET).await;
    assert_eq!(target["metadata"]["labels"]["coral"], "true");
    assert!(target["spec"].get("unschedulable").is_none_or(|u| u == false), "{}", target["spec"]);
    assert!(target["metadata"]["annotations"].get(MARK).is_none());
    assert_ne!(target["status"]["nodeInfo"]["bootID"], boot);
    assert_eq!(bench.evictions(), 2);
    let drain = notes(&run, "04a-drain-node");
    assert!(drain.contains("comes back with this node only") && drain.contains("emptyDir tmp"), "{drain}");
    let ways = notes(&run, "06-wait-for-vm");
    assert!(
        ways.contains("ssh: yes") && ways.contains("agent: channel yes, answers yes, may run programs yes"),
        "{ways}"
    );
    assert!(notes(&run, "07-check-vm-hardware").contains("5000 Mbit/s"));
    bench.settled("web", 2).await;

    let back = bench.rig.backward(&run.id, &How::default()).await;
    undone(&back);
    bench.settled("shop", 1).await;
    bench.settled("web", 2).await;
    assert_eq!(bench.volume().await["spec"]["persistentVolumeReclaimPolicy"], "Delete");
    assert!(bench.get(SHOP).await["metadata"]["annotations"].get(MARK).is_none());
    assert!(bench.node(TARGET).await["metadata"]["annotations"].get(MARK).is_none());
    assert_eq!(bench.node(SOURCE).await["metadata"]["labels"]["coral"], "true");
    assert!(bench.node(TARGET).await["metadata"]["labels"].get("coral").is_none());
    assert_eq!(bench.rig.picture().await, first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_device_is_hot_plugged_nothing_is_drained() {
    let bench = Bench::new("usb-move", OURS).await;
    let run = bench.forward(None).await;
    done(&run);
    for step in ["04a-drain-node", "05-reboot-vm", "06a-uncordon-node"] {
        assert!(answers(&run, step).contains(&"already".to_owned()), "{step}: {:?}", answers(&run, step));
    }
    assert_eq!(bench.evictions(), 0);
    let before = bench.changes();
    // The workload's mark is the first run's, which is closed: a second one takes it over and changes nothing else.
    let second = bench.forward(None).await;
    done(&second);
    assert_eq!((calls(&second.records), bench.changes()), (1, before + 1));
    let mark = bench.get(SHOP).await["metadata"]["annotations"][MARK].clone();
    let mark = Mark::parse(mark.as_str().unwrap()).unwrap();
    assert_eq!((mark.run, mark.was), (second.id, json!({"replicas": 1})));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_operators_meet_at_the_mark() {
    let bench = Bench::new("usb-move", &["00d-scale-down"]).await;
    let mark = Mark { run: "9zz".into(), host: "other-desk".into(), was: json!({"replicas": 1}) };
    let body = json!({"metadata": {"annotations": {MARK: mark.to_annotation()}}, "spec": {"replicas": 0}});
    bench.patch(SHOP, body).await;
    let run = bench.forward(None).await;
    let text = blocked(&run);
    assert!(text.contains("9zz") && text.contains("other-desk"), "{text}");
    assert_eq!(bench.changes(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_count_that_somebody_set_meanwhile_stays() {
    let bench = Bench::new("usb-move", &["00d-scale-down"]).await;
    let run = bench.forward(None).await;
    done(&run);
    bench.patch(SHOP, json!({"spec": {"replicas": 3}})).await;
    let back = bench.rig.backward(&run.id, &How::default()).await;
    undone(&back);
    let shop = bench.get(SHOP).await;
    assert_eq!(shop["spec"]["replicas"], 3);
    assert!(shop["metadata"]["annotations"].get(MARK).is_none());
    assert!(notes(&back, "00d-scale-down").contains("somebody else scaled it"), "{}", notes(&back, "00d-scale-down"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_released_volume_stays_retained() {
    let bench = Bench::new("usb-move", &["00a-retain-volumes"]).await;
    let run = bench.forward(None).await;
    done(&run);
    bench.patch(SHOP, json!({"spec": {"replicas": 0}})).await;
    let claim = "/api/v1/namespaces/shop/persistentvolumeclaims/shop-data";
    bench.send("DELETE", claim, "application/json", &json!({})).await;
    let mut changes = bench.rig.lab.shared().changes();
    while bench.volume().await["status"]["phase"] != "Released" {
        changes.changed().await.unwrap();
    }
    let back = bench.rig.backward(&run.id, &How::default()).await;
    let text = blocked(&back);
    assert!(text.contains("Released") && text.contains("claimRef") && text.contains("shop/shop-data"), "{text}");
    assert_eq!(bench.volume().await["spec"]["persistentVolumeReclaimPolicy"], "Retain");
}

/// A volume that joins between the look and the act is not in the record: undo would leave it Retain.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_joins_in_between_is_not_touched() {
    let mut bench = Bench::new("usb-move", &["00a-retain-volumes"]).await;
    let mut fields = bench.rig.steps[0].fields().unwrap();
    fields["claims"] = json!(["late"]);
    bench.rig.steps[0] = blueprint::named("usb-move").unwrap().rebuild("00a-retain-volumes", &fields).unwrap();
    let volume = json!({"metadata": {"name": "late"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": "1Gi"}, "storageClassName": "plain", "persistentVolumeReclaimPolicy": "Delete",
        "hostPath": {"path": "/srv/late"}, "claimRef": {"namespace": "shop", "name": "another"}}});
    bench.post("/api/v1/persistentvolumes", volume).await;
    let lab = bench.rig.lab.shared().clone();
    let joins = move |record: &pvemig::engine::event::Record| {
        if matches!(record.event, Event::Applying { .. }) {
            lab.change(|world| {
                let mut late = Value::clone(world.kube.store.get(kinds::volumes(), "", "late").unwrap());
                late["spec"]["claimRef"]["name"] = json!("late");
                world.kube.store.replace(kinds::volumes(), late, None);
            });
        }
    };
    let how = How { reader: Some(std::sync::Arc::new(joins)), ..How::default() };
    let run = bench.rig.forward(None, &how).await;
    let Why::Failed { error, help, .. } = &stop(&run).why else { panic!("{:#?}", run.ended) };
    let (error, help) = (error.join("\n"), help.join("\n"));
    assert!(error.contains("volume late (claim shop/late) is Delete, and was not there when this step"), "{error}");
    assert!(help.contains("`pvemig undo`, then run again"), "{help}");
    assert_eq!(calls(&run.records), 0, "all or none");
    undone(&bench.rig.backward(&run.id, &How::default()).await);
    done(&bench.forward(None).await);
    let late = bench.get("/api/v1/persistentvolumes/late").await;
    assert_eq!(late["spec"]["persistentVolumeReclaimPolicy"], "Retain");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_without_affinity_is_where_its_claim_was_made_for() {
    let mut bench = Bench::new("usb-move", &["00a-retain-volumes"]).await;
    let mut fields = bench.rig.steps[0].fields().unwrap();
    fields["claims"] = json!(["here", "there"]);
    bench.rig.steps[0] = blueprint::named("usb-move").unwrap().rebuild("00a-retain-volumes", &fields).unwrap();
    for (name, node) in [("here", TARGET), ("there", SOURCE)] {
        let volume = json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "1Gi"}, "storageClassName": "plain", "persistentVolumeReclaimPolicy": "Delete",
            "hostPath": {"path": format!("/srv/{name}")}, "claimRef": {"namespace": "shop", "name": name}}});
        bench.post("/api/v1/persistentvolumes", volume).await;
        let claim = json!({"metadata": {"name": name,
                "annotations": {"volume.kubernetes.io/selected-node": node}},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "plain", "volumeName": name,
                "resources": {"requests": {"storage": "1Gi"}}}});
        bench.post("/api/v1/namespaces/shop/persistentvolumeclaims", claim).await;
    }
    let mut changes = bench.rig.lab.shared().changes();
    for name in ["here", "there"] {
        while bench.get(&format!("/api/v1/persistentvolumes/{name}")).await["status"]["phase"] != "Bound" {
            changes.changed().await.unwrap();
        }
    }
    done(&bench.forward(None).await);
    for (name, policy) in [("here", "Delete"), ("there", "Retain")] {
        let volume = bench.get(&format!("/api/v1/persistentvolumes/{name}")).await;
        assert_eq!(volume["spec"]["persistentVolumeReclaimPolicy"], policy, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_is_waited_for_without_asking_again_and_again() {
    let bench = Bench::new("usb-move-old", OURS).await;
    bench.deploy("web", 2, TARGET, json!([])).await;
    bench.settled("web", 2).await;
    let budget = json!({"metadata": {"name": "web"},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    let budgets = "/apis/policy/v1/namespaces/shop/poddisruptionbudgets";
    bench.post(budgets, budget).await;
    let mut changes = bench.rig.lab.shared().changes();
    while bench.get(&format!("{budgets}/web")).await["status"]["disruptionsAllowed"] != 1 {
        changes.changed().await.unwrap();
    }
    // The successor of the first pod cannot start anywhere else: the second one may never go as things are.
    let hand = async {
        while bench.evictions() == 0 {
            changes.changed().await.unwrap();
        }
        while bench.get(&format!("{budgets}/web")).await["status"]["disruptionsAllowed"] != 0 {
            changes.changed().await.unwrap();
        }
        let sent = bench.evictions();
        bench.patch(&format!("{budgets}/web"), json!({"spec": {"maxUnavailable": 2}})).await;
        sent
    };
    let (run, sent) = tokio::join!(bench.forward(None), hand);
    done(&run);
    assert!(sent <= 2, "{sent}");
    assert!((2..=3).contains(&bench.evictions()), "{}", bench.evictions());
    assert_eq!(calls(&run.records), bench.changes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bare_pod_is_named_before_anything_is_cordoned() {
    let bench = Bench::new("usb-move-old", OURS).await;
    let pod = json!({"metadata": {"name": "bare"}, "spec": {"nodeName": TARGET,
        "containers": [{"name": "main", "image": "registry.invalid/main:1"}]}});
    bench.post("/api/v1/namespaces/shop/pods", pod).await;
    let run = bench.forward(None).await;
    assert_eq!(stop(&run).key.as_str(), "04a-drain-node");
    let text = blocked(&run);
    assert!(text.contains("shop/bare") && text.contains("bare pod"), "{text}");
    assert!(bench.node(TARGET).await["spec"].get("unschedulable").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cordon_of_somebody_else_stays() {
    let bench = Bench::new("usb-move-old", OURS).await;
    bench.patch(&format!("/api/v1/nodes/{TARGET}"), json!({"spec": {"unschedulable": true}})).await;
    let run = bench.forward(None).await;
    done(&run);
    let target = bench.node(TARGET).await;
    assert_eq!(target["spec"]["unschedulable"], true);
    assert!(target["metadata"]["annotations"].get(MARK).is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_ssh_the_agent_serves_and_the_notes_say_so() {
    let bench = Bench::new("usb-move", OURS).await;
    bench.rig.lab.fault(FaultRule::on(Front::Ssh, FaultEffect::Refuse));
    let run = bench.forward(None).await;
    done(&run);
    for step in ["06-wait-for-vm", "07-check-vm-hardware", "08-install-drivers"] {
        let notes = notes(&run, step);
        assert!(notes.contains("agent of vm 108 (cluster home): answered"), "{step}: {notes}");
    }
    assert!(notes(&run, "06-wait-for-vm").contains("ssh: no ("));
    assert_eq!(calls(&run.records), bench.changes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_device_names_what_mends_it() {
    let mut bench = Bench::new("usb-move", OURS).await;
    done(&bench.forward(None).await);
    bench.rig.steps.retain(|step| step.id() == "07-check-vm-hardware");
    bench.rig.lab.shared().change(|world| {
        world.sticks.get_mut("coral").unwrap().max_speed = 480;
        world.move_stick("coral", None).unwrap();
        world.move_stick("coral", Some(Place { host: "still-fawn".into(), port: "1-3".into() })).unwrap();
    });
    let socket = blocked(&bench.forward(None).await);
    assert!(socket.contains("480 Mbit/s") && socket.contains("replug it in still-fawn"), "{socket}");
    bench.rig.lab.shared().change(|world| {
        for value in world.vms.get_mut(&108).unwrap().config.values_mut() {
            *value = value.replace(",usb3=1", "");
        }
    });
    let entry = blocked(&bench.forward(None).await);
    assert!(entry.contains("without usb3=1") && entry.contains("04-add-usb"), "{entry}");
}

const USB: &[&str] = &["01-remove-usb", "03-check-host-hardware", "04-add-usb"];

impl Bench {
    /// The steps of the device, with another way of attaching it.
    async fn attached(attach: &str) -> Self {
        let mut bench = Self::new("usb-move", USB).await;
        for step in &mut bench.rig.steps {
            let mut fields = step.fields().unwrap();
            fields["device"]["mapping"] = json!("coral");
            if fields.get("attach").is_some() {
                fields["attach"] = json!(attach);
            }
            *step = blueprint::named("usb-move").unwrap().rebuild(step.id(), &fields).unwrap();
        }
        bench
    }

    fn usb(&self) -> Vec<(String, String)> {
        let usb = |world: &pvemig::lab::World| {
            let config = world.vms[&108].config.clone();
            config.into_iter().filter(|(key, _)| key.starts_with("usb")).collect()
        };
        self.rig.lab.shared().read(usb)
    }
}
