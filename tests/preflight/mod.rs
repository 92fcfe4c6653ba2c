//! The preflight of `usb-move` against the lab: all findings at once, each with its help and the step that it protects.

#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test may panic, and says its counts")]

mod cluster;
mod least;
mod machines;
mod rights;

use crate::harness::estate::Rig;
use crate::harness::{How, calls};
use pvemig::base::check::{Answer, Check, Problem};
use pvemig::base::fault::Failure;
use pvemig::blueprint;
use pvemig::engine::run::{Ended, Why};
use pvemig::engine::step::Seen;
use pvemig::lab::kube::kinds;
use pvemig::lab::world::Vm;
use pvemig::lab::{FaultEffect, FaultRule, Front, Place};
use serde_json::{Value, json};

const TARGET: &str = "k3s-vm-still-fawn";
const SOURCE: &str = "k3s-vm-pumped-piglet";
const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";

/// A lab, and whoever changes its cluster by hand.
struct Bench {
    rig: Rig,
    client: kube::Client,
}

impl Bench {
    async fn new(world: &str) -> Self {
        let rig = Rig::new(world).await;
        let client = rig.cluster().await;
        Self { rig, client }
    }

    async fn send(&self, method: &str, path: &str, kind: &str, body: Value) -> Value {
        let request = http::Request::builder().method(method).uri(path).header("content-type", kind);
        self.client.request(request.body(body.to_string().into_bytes()).unwrap()).await.unwrap()
    }

    /// Changes what the site says to the preflight.
    fn declare(&mut self, change: impl FnOnce(&mut Value)) {
        let step = &mut self.rig.steps[0];
        assert_eq!(step.id(), "00-preflight");
        let mut fields = step.fields().unwrap();
        change(&mut fields);
        *step = blueprint::named("usb-move").unwrap().rebuild(step.id(), &fields).unwrap();
    }

    async fn look(&self) -> Result<Check<Value>, Failure> {
        let before = self.rig.changes();
        let info = self.rig.bench.store.info("", "here").unwrap();
        let held = std::collections::BTreeMap::new();
        let seen = Seen { since: None, got: &[], held: &held, run: &info };
        let check = self.rig.steps[0].check(&self.rig.estate, seen).await;
        assert_eq!(self.rig.changes(), before, "looking changed something");
        check
    }

    async fn problems(&self) -> Vec<Problem> {
        problems_of(self.look().await.unwrap())
    }
}

fn problems_of(check: Check<Value>) -> Vec<Problem> {
    match check.answer {
        Answer::Blocked { problems } => problems,
        Answer::Done => Vec::new(),
        other => panic!("{other:?}"),
    }
}

/// Each of `parts` is in one of the notes.
fn assert_noted(check: &Check<Value>, parts: &[&str]) {
    for part in parts {
        assert!(check.notes.iter().any(|note| note.contains(part)), "`{part}` is not in\n{}", check.notes.join("\n"));
    }
}

fn shown(problems: &[Problem]) -> String {
    let line = |p: &Problem| format!("{}: {}\n    help: {}\n", protects(p), p.text, p.help);
    problems.iter().map(line).collect()
}

fn protects(problem: &Problem) -> &str {
    problem.protects.as_ref().map_or("nothing", |key| key.as_str())
}

/// A problem as a test expects it: its step, a part of the text, a part of the help.
type Expected<'e> = (&'e str, &'e str, &'e str);

/// Each of `expected` is found once, and nothing else is.
fn assert_found(problems: &[Problem], expected: &[Expected<'_>]) {
    for (step, text, help) in expected {
        let found = |p: &&Problem| protects(p).starts_with(step) && p.text.contains(text) && p.help.contains(help);
        let count = problems.iter().filter(found).count();
        assert_eq!(count, 1, "{step} `{text}` `{help}` among\n{}", shown(problems));
    }
    assert_eq!(problems.len(), expected.len(), "{}", shown(problems));
    println!("{} findings of usb-move", expected.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nothing_is_in_the_way_it_says_what_it_saw() {
    let bench = Bench::new("usb-move").await;
    let check = bench.look().await.unwrap();
    assert!(check.is_done(), "{:#?}", check.answer);
    let parts = [
        "Proxmox cluster home 9.1.4 as root@pam",
        "vm 108 (k3s-vm-still-fawn) is on still-fawn, running",
        "machine q35, ostype l26, 14 USB slots, 14 free",
        "18d1:9302 at pumped-piglet port 2-1 (5000 Mbit/s)",
        "into the guest of vm 108 (k3s-vm-still-fawn): ssh root@",
        "the guest of vm 108 (k3s-vm-still-fawn) has /dev/dri",
        "node k3s-vm-still-fawn is Ready",
        "3 other pods",
        "Flux is well, and 00b suspends it until 10: ImageUpdateAutomation flux-system/homelab, Kustomization \
         flux-system/flux-system, Kustomization flux-system/apps",
        "lacks 4 declared values; 09a commits them and pushes to origin main",
        "secrets frigate-secrets; config maps frigate-config",
        "data on k3s-vm-pumped-piglet, 39.0 GiB) stays as it is",
    ];
    assert_noted(&check, &parts);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_found_at_once() {
    let mut bench = Bench::new("usb-move").await;
    let shared = bench.rig.lab.shared().clone();
    shared.change(|world| {
        world.kube.absent.remove("keda.sh");
        world.vms.get_mut(&105).unwrap().lock = Some("backup".into());
        let other = Vm {
            node: "still-fawn".into(),
            config: [("name".into(), "desk".into()), ("usb3".into(), "host=18d1:9302".into())].into(),
            ..Vm::default()
        };
        world.vms.insert(120, other);
        let twin = world.sticks["coral"].clone();
        world.sticks.insert("twin".into(), twin);
        world.move_stick("twin", None).unwrap();
        world.move_stick("twin", Some(Place { host: "still-fawn".into(), port: "2-2".into() })).unwrap();
    });
    let taint = json!([{"key": "gpu", "value": "only", "effect": "NoSchedule"}]);
    let node = format!("/api/v1/nodes/{TARGET}");
    bench.send("PATCH", &node, MERGE, json!({"spec": {"unschedulable": true, "taints": taint}})).await;
    bench.send("DELETE", "/api/v1/namespaces/frigate/secrets/frigate-secrets", JSON, json!({})).await;
    let scaled = json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "nights"},
        "spec": {"scaleTargetRef": {"name": "frigate"}, "minReplicaCount": 1}});
    bench.send("POST", "/apis/keda.sh/v1alpha1/namespaces/frigate/scaledobjects", JSON, scaled).await;
    let pod = json!({"metadata": {"name": "copy"}, "spec": {"nodeName": SOURCE,
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "frigate-config"}}],
        "containers": [{"name": "main", "image": "registry.invalid/copy:1"}]}});
    bench.send("POST", "/api/v1/namespaces/frigate/pods", JSON, pod).await;
    let apps = "/apis/kustomize.toolkit.fluxcd.io/v1/namespaces/flux-system/kustomizations/apps";
    bench.send("PATCH", apps, MERGE, json!({"spec": {"suspend": true}})).await;
    let settings = bench.send("GET", "/api/v1/namespaces/frigate/configmaps/frigate-config", JSON, Value::Null).await;
    let owner = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "frigate-config",
        "uid": settings["metadata"]["uid"], "controller": true}]);
    let frigate = "/apis/apps/v1/namespaces/frigate/deployments/frigate";
    bench.send("PATCH", frigate, MERGE, json!({"metadata": {"ownerReferences": owner}})).await;
    bench.declare(|fields| {
        fields["needs"]["paths"] = json!(["/dev/dri", "/dev/nvidia0"]);
        fields["needs"]["runtime_class"] = json!("nvidia");
        fields["needs"]["allocatable"] = json!({"nvidia.com/gpu": 1});
        fields["claims"]["frigate-media"] = json!("leave");
        fields["verify"]["container"] = json!("camera");
        fields["edits"][0]["file"] = json!("apps/frigate/nowhere.yaml");
    });
    let problems = bench.problems().await;
    assert_found(
        &problems,
        &[
            ("00d", "ScaledObject frigate/nights scales Deployment frigate/frigate", "autoscaling.keda.sh/paused=true"),
            ("00d", "belongs to ConfigMap frigate-config, which puts its replicas back", "stop its operator first"),
            ("01", "vm 105 is locked (backup) and no pve task works on it", "qm unlock 105"),
            ("04", "vm 120 on still-fawn passes the device too (usb3: host=18d1:9302)", "qm set 120 --delete usb3"),
            ("04", "still-fawn would have 2 equal devices", "attach: port"),
            ("07", "has no /dev/nvidia0", "needs.paths"),
            ("09a", "apps/frigate/nowhere.yaml", ""),
            ("10", "Kustomization flux-system/apps is suspended", "flux resume kustomization apps"),
            ("10", "node k3s-vm-still-fawn was cordoned by ", "kubectl uncordon k3s-vm-still-fawn"),
            ("10", "node k3s-vm-still-fawn does not take a pod of Deployment frigate/frigate", "under `manifests`"),
            ("10", "frigate-secrets", "make it, or correct its name"),
            ("10", "has no runtime handler nvidia", "install that runtime"),
            ("10", "has 0 of 1 nvidia.com/gpu to give", "device plugin"),
            ("10", "has no container camera", "verify.container"),
            ("10", "keeps its pod from k3s-vm-still-fawn: it would stay Pending", "frigate-media: recreate"),
            ("11", "claim frigate/frigate-config is held by", "kubectl delete pod -n frigate copy"),
        ],
    );
    // The run stops there, and nothing has been touched.
    let before = bench.rig.changes();
    let run = bench.rig.forward(None, &How::default()).await;
    let Ok(Ended::Stopped(stop)) = &run.ended else { panic!("{:#?}", run.ended) };
    assert_eq!(stop.key.as_str(), "00-preflight");
    let Why::Blocked(said) = &stop.why else { panic!("{:#?}", stop.why) };
    assert_eq!((said.len(), calls(&run.records), bench.rig.changes()), (problems.len(), 0, before));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_nothing_ties_to_its_node_would_start_empty() {
    let mut bench = Bench::new("usb-move").await;
    bench.declare(|fields| fields["claims"] = json!({"frigate-config": "leave"}));
    bench.rig.lab.shared().change(|world| {
        for volume in world.kube.store.all(kinds::volumes()) {
            let mut loose = Value::clone(&volume);
            loose["spec"].as_object_mut().unwrap().remove("nodeAffinity");
            world.kube.store.replace(kinds::volumes(), loose, None);
        }
    });
    assert_found(
        &bench.problems().await,
        &[
            ("10", "claim frigate/frigate-config: volume", "claims: { frigate-config: recreate }"),
            ("10", "claim frigate/frigate-media: volume", "claims: { frigate-media: recreate }"),
        ],
    );
    let texts = shown(&bench.problems().await);
    assert_eq!(texts.matches("would start EMPTY on k3s-vm-still-fawn, without any error").count(), 2, "{texts}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nothing_tells_where_the_data_is_nobody_claims_to_know() {
    let mut bench = Bench::new("usb-move").await;
    bench.declare(|fields| fields["claims"] = json!({"frigate-config": "leave"}));
    bench.rig.lab.shared().change(|world| {
        for kind in [kinds::volumes(), kinds::claims()] {
            for object in world.kube.store.all(kind) {
                let mut nameless = Value::clone(&object);
                nameless["metadata"]["annotations"] = json!({});
                nameless["spec"].as_object_mut().unwrap().remove("nodeAffinity");
                world.kube.store.replace(kind, nameless, None);
            }
        }
    });
    let check = bench.look().await.unwrap();
    let left =
        "may be used on k3s-vm-still-fawn, and nobody can tell whether its data is there: the site file leaves it";
    assert_noted(&check, &["claim frigate/frigate-config: volume ", left]);
    let problems = problems_of(check);
    let said =
        "nobody can tell whether its data is there: it may start EMPTY, without any error; the site file does not";
    assert_found(&problems, &[("10", said, "`claims: { frigate-media: leave }`")]);
    assert!(problems[0].text.starts_with("claim frigate/frigate-media: volume "), "{}", shown(&problems));
    assert!(!shown(&problems).contains("would start EMPTY"), "{}", shown(&problems));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_way_into_the_guest_is_told() {
    let bench = Bench::new("usb-move").await;
    bench.rig.lab.fault(FaultRule::on(Front::Ssh, FaultEffect::Refuse));
    let check = bench.look().await.unwrap();
    assert!(check.is_done(), "{:#?}", check.answer);
    let notes = check.notes.join("\n");
    assert!(notes.contains("into the guest of vm 108 (k3s-vm-still-fawn): agent of vm 108 (cluster home)"), "{notes}");
    assert!(notes.contains("into the guest of vm 108 (k3s-vm-still-fawn): ssh root@"), "{notes}");

    let hang = FaultEffect::Status(500, "QEMU guest agent is not running".into());
    bench.rig.lab.fault(FaultRule::on(Front::Proxmox, hang).path("*/agent/*"));
    let problems = bench.problems().await;
    let first = problems.first().map(|p| (protects(p), p.text.as_str())).unwrap_or_default();
    assert_eq!(first.0, "06-wait-for-vm", "{}", shown(&problems));
    assert!(first.1.starts_with("no way into the guest of vm 108 (k3s-vm-still-fawn)"), "{}", shown(&problems));
    assert_eq!(problems.len(), 1, "{}", shown(&problems));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_silent_system_does_not_hide_what_the_other_says() {
    let bench = Bench::new("usb-move").await;
    let node = format!("/api/v1/nodes/{TARGET}");
    bench.send("PATCH", &node, MERGE, json!({"spec": {"unschedulable": true}})).await;
    bench.rig.lab.fault(FaultRule::on(Front::Proxmox, FaultEffect::Status(401, "permission denied".into())));
    assert_found(
        &bench.problems().await,
        &[("01", "cannot ask Proxmox cluster home", ""), ("10", "was cordoned by ", "kubectl uncordon")],
    );
    bench.rig.lab.fault(FaultRule::on(Front::Kubernetes, FaultEffect::Status(403, "no".into())));
    let failure = bench.look().await.unwrap_err().to_string();
    assert!(failure.starts_with("neither Proxmox nor Kubernetes can be asked"), "{failure}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_are_held_against_every_later_call() {
    let exact = Bench::new("usb-move-token").await;
    let problems = exact.problems().await;
    assert!(problems.is_empty(), "{}", shown(&problems));
    let less = Bench::new("usb-move-token-cannot").await;
    let problems = less.problems().await;
    let raw = "pvemig@pve!pvemig may not take raw USB entries out of vm 105 (usb0: host=1a6e:089a,usb3=1; usb1:";
    assert_found(
        &problems,
        &[
            ("01", raw, "qm set 105 --delete usb0,usb1"),
            ("04", "may not pass a device by id to vm 108: root@pam alone may", "attach: mapping"),
        ],
    );
    // What that costs, when it may be done, and what is to be kept.
    for part in ["note the value (`qm config 105`)", "`pvemig step 00d-scale-down`)", "no undo puts it back"] {
        assert!(problems[0].help.contains(part), "`{part}`: {}", shown(&problems));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_else_applies_the_workload_is_named() {
    let bench = Bench::new("usb-move").await;
    bench.rig.lab.shared().change(|world| world.kube.absent.remove("argoproj.io"));
    let workload = "/apis/apps/v1/namespaces/frigate/deployments/frigate";
    let annotations = json!({"metadata": {"annotations": {
        "argocd.argoproj.io/tracking-id": "cams:apps/Deployment:frigate/frigate",
        "objectset.rio.cattle.io/owner-gvk": "k3s.cattle.io/v1, Kind=Addon",
        "objectset.rio.cattle.io/owner-name": "frigate",
        "meta.helm.sh/release-name": "nvr",
    }}});
    bench.send("PATCH", workload, MERGE, annotations).await;
    let applications = "/apis/argoproj.io/v1alpha1/namespaces/argocd/applications";
    bench.send("POST", "/api/v1/namespaces", JSON, json!({"metadata": {"name": "argocd"}})).await;
    let parts = [
        "Application cams of Argo CD, which this cluster does not have, applies Deployment frigate/frigate",
        "k3s addon frigate applies Deployment frigate/frigate, again at each start",
        "Helm release nvr made Deployment frigate/frigate",
    ];
    assert_noted(&bench.look().await.unwrap(), &parts);
    let app = json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "metadata": {"name": "cams"},
        "spec": {"syncPolicy": {"automated": {"selfHeal": true}}}});
    bench.send("POST", applications, JSON, app).await;
    let expected = (
        "00b",
        "Application cams of Argo CD applies Deployment frigate/frigate and syncs by itself",
        "argocd app set cams --sync-policy none",
    );
    assert_found(&bench.problems().await, &[expected]);
    let run = bench.rig.forward(None, &How::default()).await;
    assert!(matches!(run.ended, Ok(Ended::Stopped(_))) && calls(&run.records) == 0, "{:#?}", run.ended);
    let off = json!({"spec": {"syncPolicy": {"automated": {"enabled": false}}}});
    bench.send("PATCH", &format!("{applications}/cams"), MERGE, off).await;
    assert_noted(&bench.look().await.unwrap(), &["applies Deployment frigate/frigate, not by itself"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_problem_of_a_step_that_has_nothing_to_do_is_dropped() {
    let bench = Bench::new("usb-move").await;
    let run = bench.rig.forward(None, &How::default()).await;
    assert!(matches!(run.ended, Ok(Ended::Done)), "{:#?}", run.ended);
    bench.rig.lab.shared().change(|world| world.vms.get_mut(&105).unwrap().lock = Some("backup".into()));
    assert_found(&bench.problems().await, &[("01", "vm 105 is locked (backup)", "qm unlock 105")]);
    let again = bench.rig.forward(None, &How::default()).await;
    assert!(matches!(again.ended, Ok(Ended::Done)), "{:#?}", again.ended);
    assert_eq!(calls(&again.records), 0);
}
