//! 01a and 10: figures of both, and no pod is left behind, whatever becomes of the run.

use std::sync::Arc;

use pvemig::base::clock::Clock;
use pvemig::blueprint::nvme_move::params::Measure;
use pvemig::blueprint::nvme_move::{BLUEPRINT, MeasureAfter, MeasureBefore};
use pvemig::estate::Estate;
use pvemig::lab::fault::{FaultEffect, FaultRule};
use pvemig::lab::kube::kinds;
use pvemig::lab::wire::Front;

use super::*;
use crate::harness::estate::SPEED;
use crate::harness::scene::Scene;

/// The steps that measure, and nothing between them.
fn two(site: &Site, measure: Option<Measure>) -> Vec<BoxedStep> {
    let machine = || Machine::of(site, NUC).unwrap();
    vec![
        Box::new(MeasureBefore { machine: machine(), measure: measure.clone() }),
        Box::new(MeasureAfter { machine: machine(), measure }),
    ]
}

fn by(image: &str, namespace: &str) -> Measure {
    Measure { image: image.into(), namespace: namespace.into(), bytes: 8 << 20 }
}

fn usual() -> Option<Measure> {
    Some(by("docker.io/library/busybox:1.37", "kube-system"))
}

/// A rig whose migration goes by the name that the harness's runs have.
async fn rig_with(measure: Option<Measure>, params: Value) -> Rig {
    let mut rig = Rig::of(at_rest("nvme-data"), |site| {
        let mut own = site["migrations"]["nuc-drives"].take();
        own["params"]["measure"] = params;
        site["migrations"] = json!({ "test": own });
    })
    .await;
    rig.steps = two(&rig.site, measure);
    rig
}

/// The names of the pods that measure.
fn pods(rig: &Rig) -> Vec<String> {
    rig.lab.shared().read(|w| {
        let all = w
            .kube
            .store
            .list(kinds::pods(), None)
            .filter(|pod| pod["metadata"]["labels"].get("pvemig.io/run").is_some());
        all.map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    })
}

fn figures(rig: &Rig, run: &Run, step: &str) -> Value {
    let files = rig.bench.store.info(&run.id, "here").unwrap().files.unwrap();
    serde_json::from_slice(&std::fs::read(files.join(step).join("figures.json")).unwrap()).unwrap()
}

/// The calls of each of the two steps.
fn calls_of(run: &Run) -> (usize, usize) {
    let of = |step: &str| {
        let is = |event: &Event| matches!(event, Event::Call { key, .. } if key.as_str() == step);
        run.records.iter().filter(|record| is(&record.event)).count()
    };
    (of("01a-measure-before"), of("10-measure"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_drives_are_measured_before_and_after_and_again_in_a_second_run() {
    let mut rig = rig("nvme-data").await;
    let mut all = steps(&rig.site, &plan(&rig.site));
    let mut measuring = two(&rig.site, usual());
    all.push(measuring.pop().unwrap());
    all.insert(1, measuring.pop().unwrap());
    rig.steps = all;
    let run = rig.forward(None, &How::default()).await;
    assert_done(&run, "forwards");
    assert_eq!((bays(&rig).0, pods(&rig), calls_of(&run)), (target(), Vec::new(), (2, 2)));
    assert_eq!(calls(&run.records), rig.changes());
    let speed = (1_900_000_000_u64, 3_100_000_000_u64);
    for step in ["01a-measure-before", "10-measure"] {
        let told = figures(&rig, &run, step);
        let volumes = told["volumes"].as_object().unwrap();
        assert_eq!((volumes.len(), &told["bytes"]), (2, &json!(8 << 20)), "{told:#}");
        for (name, path, serial) in [("var", "/var", SYS), ("var.mnt.media", "/var/mnt/media", DATA)] {
            let expected = json!({"path": path, "drive": serial, "write": speed.0, "read": speed.1});
            assert_eq!(volumes[name], expected, "{step}");
        }
    }
    let before = notes(&run, "01a-measure-before");
    let pool =
        "2021E2A4C7D8 is not measured: it is mayastor pool-nuc, and what writes to a raw drive destroys what is on it";
    for line in [
        "/var (system disk) on S5GXNF0R601234 writes 1.7 GiB/s, reads 2.8 GiB/s",
        "/var/mnt/media on 22471A806001 writes",
        pool,
    ] {
        assert!(before.contains(line), "{line}: {before}");
    }
    let after = notes(&run, "10-measure");
    let line = "/var/mnt/media on 22471A806001 writes 1.7 GiB/s (before 1.7 GiB/s, +0 %), reads 2.8 GiB/s (before 2.8 GiB/s, +0 %)";
    for line in [line, pool, "S676NF0W712345 is not measured: no file system of it is mounted"] {
        assert!(after.contains(line), "{line}: {after}");
    }
    // Once more: these two are all that changes anything.
    let picture = rig.picture().await;
    let changes = rig.changes();
    let again = rig.forward(None, &How::default()).await;
    assert_done(&again, "once more");
    assert_eq!((calls_of(&again), calls(&again.records), rig.changes() - changes), ((2, 2), 4, 4));
    assert_same(&rig.picture().await, &picture, "once more");
    let back = rig.backward(&run.id, &How::default()).await;
    assert_undone(&back, "backwards");
    assert_eq!((bays(&rig).0, pods(&rig), calls_of(&back)), (first(), Vec::new(), (0, 0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_anywhere_leaves_no_pod_behind() {
    let mut rig = rig_with(usual(), json!({})).await;
    let (run, scenes) = rig.watched(None, &How::default()).await;
    assert_done(&run, "undisturbed");
    let kept = figures(&rig, &run, "10-measure")["volumes"].clone();
    let (mut resumed, mut undone, mut left) = (0, 0, 0);
    let go_to = |rig: &mut Rig, scene: &Scene| {
        rig.go_back(scene);
        rig.steps = two(&rig.site, usual());
    };
    for (point, scene) in &scenes.points {
        go_to(&mut rig, scene);
        left += usize::from(!pods(&rig).is_empty());
        let on = rig.forward(Some(&run.id), &How::default()).await;
        assert_done(&on, &format!("{point:?}"));
        assert_eq!((pods(&rig), &figures(&rig, &on, "10-measure")["volumes"]), (Vec::new(), &kept), "{point:?}");
        resumed += 1;
        go_to(&mut rig, scene);
        // Cut before the first line was whole: there is no run.
        if rig.bench.told(&run.id).is_empty() {
            continue;
        }
        let back = rig.backward(&run.id, &How::default()).await;
        assert_undone(&back, &format!("{point:?}"));
        assert_eq!(pods(&rig), Vec::<String>::new(), "{point:?}");
        undone += 1;
    }
    println!("{resumed} points resumed, {undone} undone, a pod was there at {left}");
    assert!(resumed >= 12 && undone >= resumed - 1 && left >= 4, "{resumed} {undone} {left}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_lost_makes_no_second_pod() {
    for (method, effect) in
        [("POST", FaultEffect::ResetAfter), ("DELETE", FaultEffect::ResetAfter), ("POST", FaultEffect::ResetBefore)]
    {
        let rig = rig_with(usual(), json!({})).await;
        rig.lab.fault(FaultRule::on(Front::Kubernetes, effect.clone()).method(method).path("*/pods*").times(1));
        let run = rig.forward(None, &How::default()).await;
        let (key, _) = why(&run);
        assert_eq!(key, "01a-measure-before");
        let on = rig.forward(Some(&run.id), &How::default()).await;
        assert_done(&on, &format!("{method} {effect:?}"));
        assert_eq!(pods(&rig), Vec::<String>::new());
        assert!(figures(&rig, &on, "01a-measure-before")["volumes"]["var"]["write"].is_u64());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_measure_is_told_with_its_way_out_and_leaves_nothing() {
    let nowhere = || Some(by("nowhere.invalid/busybox:1", "kube-system"));
    let forbidden = FaultRule::on(
        Front::Kubernetes,
        FaultEffect::Status(
            403,
            "pods \"x\" is forbidden: violates PodSecurity \"baseline:latest\": hostPath volumes".into(),
        ),
    );
    let cases = [
        (nowhere(), None, ["image nowhere.invalid/busybox:1 cannot be pulled: ErrImagePull", "no such host"]),
        (usual(), Some(forbidden.method("POST").path("*/pods")), ["violates PodSecurity", "has to allow hostPath"]),
        (Some(by("i", "nobodys")), None, ["\"nobodys\" not found", "another `measure.namespace`"]),
    ];
    let mut told = 0;
    for (measure, fault, words) in cases {
        let rig = rig_with(measure.clone(), serde_json::to_value(&measure).unwrap()).await;
        if let Some(fault) = fault {
            rig.lab.fault(fault);
        }
        let picture = rig.picture().await;
        let run = rig.forward(None, &How::default()).await;
        let (key, text) = why(&run);
        assert!(key == "01a-measure-before" && text.contains("`measure: off`"), "{text}");
        for word in words {
            assert!(text.contains(word), "{word}: {text}");
        }
        rig.lab
            .shared()
            .until(std::time::Duration::from_secs(60), |w| {
                let mut all = w.kube.store.list(kinds::pods(), None);
                all.all(|pod| pod["metadata"]["labels"].get("pvemig.io/run").is_none()).then_some(())
            })
            .await
            .unwrap();
        assert_same(&rig.picture().await, &picture, "nothing is left");
        told += 1;
    }
    assert_eq!(told, 3);
}

/// The site file as it is counts for a run that is open: else there would be no way out of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn measuring_is_switched_off_for_a_run_that_has_stopped_at_it() {
    let nowhere = by("nowhere.invalid/busybox:1", "kube-system");
    let mut rig = rig_with(Some(nowhere.clone()), serde_json::to_value(&nowhere).unwrap()).await;
    let run = rig.forward(None, &How::default()).await;
    assert_eq!(why(&run).0, "01a-measure-before");
    let file = rig.dir().join("site.yaml");
    let mut site: Value = serde_saphyr::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    site["migrations"]["test"]["params"]["measure"] = json!("off");
    std::fs::write(&file, serde_saphyr::to_string(&site).unwrap()).unwrap();
    rig.site = Arc::new(Site::load(&file).unwrap());
    rig.estate = Estate::new(rig.site.clone(), Clock::fast(SPEED), rig.bench.store.dir().to_owned());
    let changes = rig.changes();
    let on = rig.forward(Some(&run.id), &How::default()).await;
    assert_done(&on, "off");
    for step in ["01a-measure-before", "10-measure"] {
        assert!(notes(&on, step).contains("not needed: `measure: off`"), "{step}");
    }
    assert_eq!((rig.changes(), pods(&rig)), (changes, Vec::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_does_not_measure_makes_no_pod_and_asks_for_no_right() {
    let rig = rig_with(None, json!("off")).await;
    let run = rig.forward(None, &How::default()).await;
    assert_done(&run, "off");
    assert_eq!((rig.changes(), calls(&run.records)), (0, 0));
    let all = BLUEPRINT.build(&rig.site, "test").unwrap();
    let ids: Vec<&str> = all.iter().map(|step| step.id()).collect();
    assert!(ids.contains(&"01a-measure-before") && ids.last() == Some(&"10-measure"), "{ids:?}");
    let rights = BLUEPRINT.rights(&rig.site, "test").unwrap();
    assert!(rights.kube.iter().all(|need| need.purpose != "the pod that measures"));
}

/// A pod of the same name that is somebody else's is not touched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_of_somebody_else_stops_it() {
    let rig = rig_with(usual(), json!({})).await;
    let client = rig.cluster().await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "kube-system", "name": "pvemig-measure-001-01a", "labels": {"pvemig.io/run": "abc"}},
        "spec": {"nodeName": NUC, "restartPolicy": "Never", "containers": [{"name": "c", "image": "i:1"}]}});
    let request = http::Request::builder().method("POST").uri("/api/v1/namespaces/kube-system/pods");
    let _made: Value = client.request(request.body(pod.to_string().into_bytes()).unwrap()).await.unwrap();
    let run = rig.forward(None, &How::default()).await;
    let (key, text) = why(&run);
    assert_eq!((run.id.as_str(), key), ("001", "01a-measure-before"));
    assert!(text.contains("it is not of this run: `kubectl -n kube-system get pod pvemig-measure-001-01a"), "{text}");
    assert_undone(&rig.backward(&run.id, &How::default()).await, "backwards");
    assert_eq!(pods(&rig), ["pvemig-measure-001-01a"]);
}
