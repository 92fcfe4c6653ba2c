//! The cluster without the wire: what follows from what, in lab time.

mod flux;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::call::Target;
use super::fields::Writer;
use super::json::{self as place, text};
use super::write::{self, Deletion};
use super::{kinds, time};
use crate::lab::world::World;

/// A world whose time is pushed by hand.
struct Sim {
    world: World,
    now: Duration,
    dir: tempfile::TempDir,
}

const BEGIN: Duration = Duration::from_secs(86_400);
const OWNER: Writer<'static> = Writer::new("test");

impl Sim {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut world = crate::lab::load("usb-move").unwrap();
        super::prepare(&mut world, dir.path()).unwrap();
        world.begin(BEGIN, 1_800_000_000);
        Self { world, now: BEGIN, dir }
    }

    /// Lets time pass, event by event.
    fn pass(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        let mut steps = 0;
        while let Some(due) = self.world.due().filter(|d| *d <= end) {
            self.world.tick(due);
            steps += 1;
            assert!(steps < 10_000, "the controllers never rest");
        }
        self.world.tick(end);
        self.now = end;
    }

    /// Changes something now, and lets follow what follows at once.
    fn change<T>(&mut self, change: impl FnOnce(&mut World) -> T) -> T {
        self.world.tick(self.now);
        let result = change(&mut self.world);
        self.world.settle();
        result
    }

    fn get(&self, kind: &'static kinds::Kind, space: &str, name: &str) -> Option<Value> {
        self.world.kube.store.get(kind, space, name).map(|o| Value::clone(o))
    }

    fn pods(&self, space: &str) -> Vec<Value> {
        self.world.kube.store.list(kinds::pods(), Some(space)).map(|o| Value::clone(o)).collect()
    }

    fn edit(&mut self, kind: &'static kinds::Kind, space: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let object = self.get(kind, space, name).unwrap();
        self.change(|w| w.kube.store.edit(kind, &object, OWNER, change));
    }

    fn delete(&mut self, kind: &'static kinds::Kind, space: &str, name: &str) {
        let target = Target { kind, namespace: Some(space.into()), name: Some(name.into()), part: None };
        self.change(|w| write::remove(&mut w.kube, &target, &Deletion::default())).unwrap();
    }

    fn create(&mut self, object: &Value) -> Result<Value, String> {
        let kind = kinds::of(text(object, "/apiVersion"), text(object, "/kind")).unwrap();
        let space = place::namespace(object).to_owned();
        let mut object = object.clone();
        self.change(|w| write::insert(&mut w.kube, kind, kind.namespaced.then_some(space.as_str()), &mut object, OWNER))
            .map_err(|r| r.message().to_owned())
    }

    fn phase(&self, kind: &'static kinds::Kind, space: &str, name: &str) -> String {
        self.get(kind, space, name).map_or("gone".into(), |o| text(&o, "/status/phase").to_owned())
    }

    fn scale(&mut self, replicas: u32) {
        self.edit(kinds::deployments(), "frigate", "frigate", |d| place::set(d, &["spec", "replicas"], replicas));
    }

    fn ready(&self, node: &str) -> String {
        let node = self.get(kinds::nodes(), "", node).unwrap();
        place::condition(&node, "Ready").map_or("", |c| text(c, "/status")).to_owned()
    }

    /// Changes a file in the checkout, commits that and pushes it.
    fn push(&self, file: &str, from: &str, to: &str) {
        let checkout = self.dir.path().join("checkout");
        let path = checkout.join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{file} does not contain `{from}`");
        std::fs::write(&path, text.replace(from, to)).unwrap();
        git(&checkout, &["commit", "-qam", "Change"]);
        super::flux::push(&checkout, &self.dir.path().join("gitops.git")).unwrap();
    }

    fn messages(&self, space: &str, reason: &str) -> Vec<String> {
        let events = self.world.kube.store.list(kinds::events(), Some(space));
        events.filter(|e| text(e, "/reason") == reason).map(|e| text(e, "/message").to_owned()).collect()
    }
}

/// Where two worlds differ.
fn difference(at: &str, one: &Value, other: &Value) -> Vec<String> {
    match (one, other) {
        _ if one == other => Vec::new(),
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            let of = |map: &serde_json::Map<String, Value>, key: &str| map.get(key).cloned().unwrap_or_default();
            keys.into_iter().flat_map(|k| difference(&format!("{at}/{k}"), &of(a, k), &of(b, k))).collect()
        }
        _ => vec![format!("{at}: {one} is not {other}")],
    }
}

#[expect(clippy::disallowed_methods, reason = "the lab's Flux reads a real git repository")]
fn git(folder: &Path, args: &[&str]) {
    let who = ["-c", "user.name=t", "-c", "user.email=t@localhost"];
    let output = Command::new("git").current_dir(folder).args(who).args(args).output();
    let output = output.unwrap_or_else(|e| panic!("git does not start ({e}): install the package `git`"));
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

const SOURCE: &str = "k3s-vm-pumped-piglet";
const TARGET: &str = "k3s-vm-still-fawn";

fn volume_of(sim: &Sim, claim: &str) -> String {
    text(&sim.get(kinds::claims(), "frigate", claim).unwrap(), "/spec/volumeName").to_owned()
}

#[test]
fn the_world_begins_at_rest_and_stays_there() {
    let mut sim = Sim::new();
    let before = sim.world.kube.store.revision();
    let first = sim.world.compared();
    sim.pass(3_600);
    assert_eq!(difference("", &first, &sim.world.compared()), Vec::<String>::new());
    // An hour of Flux intervals and nothing else: two writes for each of its runs.
    assert!(sim.world.kube.store.revision() - before < 60, "{before} -> {}", sim.world.kube.store.revision());
    let all: Vec<Value> = ["frigate", "home", "kube-system", "flux-system"].iter().flat_map(|s| sim.pods(s)).collect();
    assert_eq!(all.len(), 11);
    assert!(all.iter().all(|p| place::holds(p, "Ready")), "{all:?}");
    let pod = &sim.pods("frigate")[0];
    assert_eq!(text(pod, "/spec/nodeName"), SOURCE);
    let used = first["vms"]["105"]["guest"]["used"].as_object().unwrap();
    assert_eq!(used.len(), 3, "{used:?}");
    let media = used.iter().find(|(path, _)| path.ends_with("frigate_frigate-media")).unwrap();
    assert!(media.0.contains("volume of frigate/frigate-media at k3s-vm-pumped-piglet"), "{used:?}");
    assert_eq!(*media.1, 41_875_931_136_u64);
}

#[test]
fn what_is_written_bears_the_present() {
    let mut sim = Sim::new();
    for seconds in [0, 7] {
        sim.pass(seconds);
        sim.edit(kinds::nodes(), "", TARGET, |n| {
            place::set(n, &["metadata", "annotations", "at"], seconds.to_string())
        });
        let node = sim.get(kinds::nodes(), "", TARGET).unwrap();
        let entry = place::list(&node, "/metadata/managedFields").iter().find(|e| text(e, "/manager") == "test");
        let written: jiff::Timestamp = text(entry.unwrap(), "/time").parse().unwrap();
        assert_eq!(written.as_second(), time(&sim.world).as_second(), "{written}");
    }
}

#[test]
fn a_claim_waits_for_its_pods_and_a_retained_volume_waits_for_its_claim() {
    let mut sim = Sim::new();
    let (claims, volumes) = (kinds::claims(), kinds::volumes());
    let first = sim.world.compared();
    let old = volume_of(&sim, "frigate-config");
    sim.edit(volumes, "", &old, |v| place::set(v, &["spec", "persistentVolumeReclaimPolicy"], "Retain"));
    // Without Flux nobody brings the claim back.
    sim.edit(kinds::kustomizations(), "flux-system", "apps", |k| place::set(k, &["spec", "suspend"], true));
    let uid = place::uid(&sim.get(claims, "frigate", "frigate-config").unwrap()).to_owned();
    sim.delete(claims, "frigate", "frigate-config");
    sim.pass(120);
    let waiting = sim.get(claims, "frigate", "frigate-config").unwrap();
    assert!(place::deleting(&waiting) && text(&waiting, "/status/phase") == "Bound");
    sim.scale(0);
    sim.pass(30);
    assert!(sim.get(claims, "frigate", "frigate-config").is_none());
    assert_eq!(sim.phase(volumes, "", &old), "Released");
    assert!(sim.world.vms[&105].guest.used.keys().any(|p| p.contains(&old)));
    // A claim made for a node binds there without a pod, and its volume is empty.
    let claim = |name: &str, node: Option<&str>| {
        let mut claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": "frigate"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
        if let Some(node) = node {
            place::set(&mut claim, &["metadata", "annotations", "volume.kubernetes.io/selected-node"], node);
        }
        claim
    };
    sim.create(&claim("frigate-config", Some(TARGET))).unwrap();
    sim.pass(10);
    assert_ne!(place::uid(&sim.get(claims, "frigate", "frigate-config").unwrap()), uid);
    let fresh = volume_of(&sim, "frigate-config");
    assert_eq!(sim.phase(claims, "frigate", "frigate-config"), "Bound");
    assert!(sim.world.vms[&108].guest.used.iter().any(|(p, n)| p.contains(&fresh) && *n == 0));
    // Back: the new one goes with its data, the old one is kept for the claim of that name.
    sim.delete(claims, "frigate", "frigate-config");
    sim.pass(10);
    assert_eq!(sim.phase(volumes, "", &fresh), "gone");
    assert!(!sim.world.vms[&108].guest.used.keys().any(|p| p.contains(&fresh)));
    sim.edit(volumes, "", &old, |v| {
        for field in ["uid", "resourceVersion"] {
            place::unset(v, &["spec", "claimRef", field]);
        }
    });
    assert_eq!(sim.phase(volumes, "", &old), "Available");
    sim.create(&claim("frigate-config", None)).unwrap();
    assert_eq!(volume_of(&sim, "frigate-config"), old);
    assert_eq!(sim.phase(volumes, "", &old), "Bound");
    assert_ne!(sim.world.compared(), first);
    // With everything put back the world is the first one, uids and all that aside.
    sim.edit(volumes, "", &old, |v| place::set(v, &["spec", "persistentVolumeReclaimPolicy"], "Delete"));
    sim.edit(kinds::kustomizations(), "flux-system", "apps", |k| {
        place::unset(k, &["spec", "suspend"]);
    });
    sim.scale(1);
    sim.pass(60);
    assert_eq!(difference("", &first, &sim.world.compared()), Vec::<String>::new());
}

#[test]
fn a_node_is_lost_forty_seconds_after_its_machine_and_comes_back_with_another_boot() {
    let mut sim = Sim::new();
    let boot = text(&sim.get(kinds::nodes(), "", TARGET).unwrap(), "/status/nodeInfo/bootID").to_owned();
    assert_eq!(sim.world.boot_id(108), Some(boot.clone()));
    sim.change(|w| w.power_off(108));
    sim.pass(39);
    assert_eq!(sim.ready(TARGET), "True");
    sim.pass(2);
    assert_eq!(sim.ready(TARGET), "Unknown");
    let node = sim.get(kinds::nodes(), "", TARGET).unwrap();
    assert_eq!(place::list(&node, "/spec/taints").len(), 2);
    let now = sim.world.now;
    sim.change(|w| w.power_on(108, now)).unwrap();
    sim.pass(60);
    let node = sim.get(kinds::nodes(), "", TARGET).unwrap();
    assert_eq!(sim.ready(TARGET), "True");
    assert_ne!(text(&node, "/status/nodeInfo/bootID"), boot);
    assert_eq!(place::list(&node, "/spec/taints").len(), 0);
    let here: Vec<Value> = sim.pods("home").into_iter().filter(|p| text(p, "/spec/nodeName") == TARGET).collect();
    assert_eq!(here.len(), 2);
    for pod in here {
        assert!(place::holds(&pod, "Ready"));
        assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 1);
    }
}

#[test]
fn a_pod_without_a_place_says_why() {
    let mut sim = Sim::new();
    sim.edit(kinds::deployments(), "frigate", "frigate", |d| {
        place::set(d, &["spec", "template", "spec", "nodeSelector"], json!({"kubernetes.io/hostname": TARGET}));
    });
    sim.pass(30);
    let said = sim.messages("frigate", "FailedScheduling");
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!(
        said[0],
        "0/3 nodes are available: 1 Insufficient nvidia.com/gpu, 2 node(s) didn't match Pod's node affinity/selector. \
         preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, 2 Preemption is not \
         helpful for scheduling."
    );
    sim.edit(kinds::deployments(), "frigate", "frigate", |d| {
        place::unset(&mut d["spec"]["template"]["spec"]["containers"][0], &["resources", "limits", "nvidia.com/gpu"]);
    });
    sim.pass(30);
    let said = sim.messages("frigate", "FailedScheduling");
    assert!(said.iter().any(|m| m.contains("1 node(s) had volume node affinity conflict")), "{said:?}");
}

#[test]
fn a_pod_whose_runtime_is_not_there_is_placed_and_does_not_start() {
    let mut sim = Sim::new();
    let pod = |name: &str, more: Value| {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "home"},
            "spec": {"nodeSelector": {"kubernetes.io/hostname": TARGET}, "containers": [{"name": "c", "image": "i:1"}]}});
        super::patch::merge(&mut pod, &json!({ "spec": more }));
        pod
    };
    sim.create(&pod("runtime", json!({"runtimeClassName": "nvidia"}))).unwrap();
    let env = json!([{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "x"}}}]);
    sim.create(&pod("config", json!({"containers": [{"name": "c", "image": "i:1", "env": env}]}))).unwrap();
    sim.create(&pod("volume", json!({"volumes": [{"name": "v", "secret": {"secretName": "none"}}]}))).unwrap();
    sim.pass(20);
    let status = |name: &str| super::cells::pod_status(&sim.get(kinds::pods(), "home", name).unwrap());
    assert_eq!(status("runtime"), "ContainerCreating");
    assert_eq!(status("config"), "CreateContainerConfigError");
    assert_eq!(status("volume"), "ContainerCreating");
    let said = sim.messages("home", "FailedCreatePodSandBox");
    assert!(said.len() == 1 && said[0].contains("no runtime for \"nvidia\" is configured"), "{said:?}");
    assert_eq!(sim.messages("home", "FailedMount").len(), 1);
    let refused = sim.create(&pod("none", json!({"runtimeClassName": "none"}))).unwrap_err();
    assert!(refused.contains("RuntimeClass \"none\" not found"), "{refused}");
}

#[test]
fn a_coral_changes_its_identity_at_the_first_inference() {
    let mut sim = Sim::new();
    sim.scale(0);
    sim.pass(20);
    sim.change(|w| w.move_stick("coral", None)).unwrap();
    let port = crate::lab::Place { host: "pumped-piglet".into(), port: "2-2".into() };
    sim.change(|w| w.move_stick("coral", Some(port))).unwrap();
    sim.pass(20);
    let ids = |sim: &Sim| -> Vec<String> { sim.world.guest_usb(105).into_iter().map(|d| d.id).collect() };
    assert!(ids(&sim).contains(&"1a6e:089a".to_owned()), "{:?}", ids(&sim));
    sim.scale(1);
    sim.pass(60);
    assert!(ids(&sim).contains(&"18d1:9302".to_owned()), "{:?}", ids(&sim));
    assert!(!ids(&sim).contains(&"1a6e:089a".to_owned()));
}
