//! Kubelets: what becomes of a pod on its node.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::schedule::{claim_names, pod_key};
use super::{Effect, Round};
use crate::lab::kube::fields::Writer;
use crate::lab::kube::json::{self, list, text};
use crate::lab::kube::kinds;

/// Sandbox, volumes, image.
const CREATING: Duration = Duration::from_secs(3);
/// From the container's start to its readiness.
const READY: Duration = Duration::from_secs(4);
/// What a well-behaved container takes to stop.
const STOPPING: Duration = Duration::from_secs(2);
/// From readiness to the first inference.
const INFERENCE: Duration = Duration::from_secs(2);
/// The label of pods that measure.
const MEASURES: &str = "pvemig.io/run";
/// How long what runs to completion runs.
const COMPLETION: Duration = Duration::from_secs(10);

impl Round<'_> {
    pub(super) fn kubelets(&mut self) {
        let facts = self.facts;
        self.abandoned();
        for pod in self.kube.store.all(kinds::pods()) {
            let node = text(&pod, "/spec/nodeName").to_owned();
            if node.is_empty() || !self.alive(&node) {
                continue;
            }
            let Some(machine) = facts.machines.get(&node) else { continue };
            let Some(boot) = machine.boot.as_deref() else { continue };
            let uid = json::uid(&pod).to_owned();
            if json::deleting(&pod) {
                self.stop(&pod, &uid);
            } else if matches!(text(&pod, "/status/phase"), "Succeeded" | "Failed") {
                // Finished for good.
            } else if self.kube.control.boots.get(&uid).is_none_or(|b| b != boot) {
                self.begin(&pod, &uid, boot, &machine.ip);
            } else {
                self.carry_on(&pod, &uid, boot);
            }
        }
        let known: BTreeSet<String> =
            self.kube.store.list(kinds::pods(), None).map(|p| json::uid(p).to_owned()).collect();
        self.kube.control.boots.retain(|uid, _| known.contains(uid));
    }

    fn stop(&mut self, pod: &Value, uid: &str) {
        let grace = json::int(pod, "/metadata/deletionGracePeriodSeconds").unwrap_or_default();
        let takes = STOPPING.min(Duration::from_secs(u64::try_from(grace).unwrap_or_default()));
        if json::condition(pod, "PodScheduled").is_some() && text(pod, "/status/phase") == "Running" {
            let now = self.kube.store.now.clone();
            for container in list(pod, "/spec/containers") {
                let message = format!("Stopping container {}", text(container, "/name"));
                self.note(pod, "kubelet", "Normal", "Killing", &message);
            }
            if self.held(&format!("stopped/{uid}"), takes / 2) {
                self.kube.store.edit(kinds::pods(), pod, Writer::status("k3s"), |p| {
                    for kind in ["Ready", "ContainersReady"] {
                        json::set_condition(p, kind, "False", "ContainersNotReady", "", &now);
                    }
                });
            }
        }
        let free = list(pod, "/metadata/finalizers").is_empty();
        if self.held(&format!("stop/{uid}"), takes) && free {
            self.kube.store.remove(&pod_key(pod));
        }
    }

    /// The kubelet sees the pod for the first time in this boot: its containers are to be started (again).
    fn begin(&mut self, pod: &Value, uid: &str, boot: &str, ip: &str) {
        self.kube.control.boots.insert(uid.to_owned(), boot.to_owned());
        let again = pod.pointer("/status/containerStatuses").is_some();
        let now = self.kube.store.now.clone();
        self.kube.store.edit(kinds::pods(), pod, Writer::status("k3s"), |p| {
            json::set(p, &["status", "hostIP"], ip);
            json::set(p, &["status", "hostIPs"], json!([{ "ip": ip }]));
            if !again {
                json::set(p, &["status", "startTime"], now.as_str());
                json::set(p, &["status", "phase"], "Pending");
            }
            json::set_condition(p, "PodReadyToStartContainers", "False", "", "", &now);
            json::set_condition(p, "Initialized", "True", "", "", &now);
            let names: Vec<&str> = list(pod, "/spec/containers").iter().map(|c| text(c, "/name")).collect();
            let message = format!("containers with unready status: [{}]", names.join(" "));
            for kind in ["Ready", "ContainersReady"] {
                json::set_condition(p, kind, "False", "ContainersNotReady", &message, &now);
            }
            json::set_condition(p, "PodScheduled", "True", "", "", &now);
            waiting(p, "ContainerCreating", "", again);
        });
    }

    fn carry_on(&mut self, pod: &Value, uid: &str, boot: &str) {
        if list(pod, "/status/containerStatuses").iter().any(|c| c.pointer("/state/waiting").is_some()) {
            match self.obstacle(pod) {
                Some(obstacle) => self.stuck(pod, &obstacle),
                None if self.held(&format!("creating/{uid}/{boot}"), CREATING) => self.started(pod),
                None => {}
            }
            return;
        }
        if text(pod, "/spec/restartPolicy") != "Always" {
            if self.held(&format!("completion/{uid}"), COMPLETION) {
                self.completed(pod);
            }
            return;
        }
        if !json::holds(pod, "Ready") {
            if self.held(&format!("ready/{uid}/{boot}"), READY) {
                self.ready(pod);
            }
            return;
        }
        self.work(pod, uid, boot);
    }

    fn started(&mut self, pod: &Value) {
        let now = self.kube.store.now.clone();
        let octet = self.kube.control.boots.len() + 2;
        for container in list(pod, "/spec/containers") {
            let name = text(container, "/name");
            self.note(pod, "kubelet", "Normal", "Started", &format!("Started container {name}"));
        }
        self.kube.store.edit(kinds::pods(), pod, Writer::status("k3s"), |p| {
            json::set(p, &["status", "phase"], "Running");
            json::set_condition(p, "PodReadyToStartContainers", "True", "", "", &now);
            if text(p, "/status/podIP").is_empty() {
                let ip = format!("10.42.0.{octet}");
                json::set(p, &["status", "podIP"], ip.as_str());
                json::set(p, &["status", "podIPs"], json!([{ "ip": ip }]));
            }
            each_status(p, |c| {
                json::set(c, &["state"], json!({ "running": { "startedAt": now } }));
                json::set(c, &["started"], true);
                json::set(c, &["containerID"], "containerd://lab");
            });
        });
    }

    fn ready(&mut self, pod: &Value) {
        let now = self.kube.store.now.clone();
        self.kube.store.edit(kinds::pods(), pod, Writer::status("k3s"), |p| {
            for kind in ["Ready", "ContainersReady"] {
                json::set_condition(p, kind, "True", "", "", &now);
            }
            each_status(p, |c| json::set(c, &["ready"], true));
        });
    }

    fn completed(&mut self, pod: &Value) {
        let now = self.kube.store.now.clone();
        let told = self.measured(pod);
        self.kube.store.edit(kinds::pods(), pod, Writer::status("k3s"), |p| {
            json::set(p, &["status", "phase"], "Succeeded");
            for kind in ["Ready", "ContainersReady"] {
                json::set_condition(p, kind, "False", "PodCompleted", "", &now);
            }
            each_status(p, |c| {
                let mut ended = json!({ "exitCode": 0, "reason": "Completed", "finishedAt": now });
                if let Some(told) = &told {
                    json::set(&mut ended, &["message"], told.as_str());
                }
                json::set(c, &["state"], json!({ "terminated": ended }));
                json::set(c, &["ready"], false);
            });
        });
    }

    /// What a pod of pvemig's own that measures leaves in `/dev/termination-log`: for each folder of the node that it has, by
    /// the last part of the path at which it has that, the bytes that it wrote and read in a second.
    fn measured(&self, pod: &Value) -> Option<String> {
        json::label(pod, MEASURES)?;
        let machine = self.facts.machines.get(text(pod, "/spec/nodeName"))?;
        let mut figures = serde_json::Map::new();
        for mount in list(pod, "/spec/containers/0/volumeMounts") {
            let volume = list(pod, "/spec/volumes").iter().find(|v| text(v, "/name") == text(mount, "/name"));
            let Some(speed) = volume.and_then(|v| machine.speed_of(text(v, "/hostPath/path"))) else { continue };
            let name = text(mount, "/mountPath").trim_end_matches('/').rsplit('/').next().unwrap_or_default();
            figures.insert(name.to_owned(), json!({ "write": speed.write, "read": speed.read }));
        }
        Some(Value::Object(figures).to_string())
    }

    /// What the program in a ready pod does to the machine.
    fn work(&mut self, pod: &Value, uid: &str, boot: &str) {
        let Some(workload) = self.kube.workloads.iter().find(|w| w.is(pod)).cloned() else { return };
        let Some(machine) = self.facts.machines.get(text(pod, "/spec/nodeName")) else { return };
        if workload.coral && machine.fresh_coral && self.held(&format!("inference/{uid}/{boot}"), INFERENCE) {
            self.effects.push(Effect::UseCoral { vmid: machine.vmid });
        }
        for name in claim_names(pod) {
            let Some(fill) = workload.claims.get(name) else { continue };
            let Some(claim) = self.kube.store.get(kinds::claims(), json::namespace(pod), name) else { continue };
            let Some(volume) = self.kube.store.get(kinds::volumes(), "", text(claim, "/spec/volumeName")) else {
                continue;
            };
            let path = super::local_path(volume);
            // An empty folder gets what the program writes at its first start.
            if machine.used.get(path).copied().unwrap_or_default() == 0 && !path.is_empty() {
                let bytes = if self.kube.control.settling { fill.held } else { fill.first };
                self.effects.push(Effect::Fill { vmid: machine.vmid, path: path.to_owned(), bytes });
            }
        }
    }
}

/// Changes the status of each container.
pub(super) fn each_status(pod: &mut Value, change: impl Fn(&mut Value)) {
    let all = pod.pointer_mut("/status/containerStatuses").and_then(Value::as_array_mut);
    all.into_iter().flatten().for_each(change);
}

/// Sets every container to waiting; `again`: it ran before.
pub(super) fn waiting(pod: &mut Value, reason: &str, message: &str, again: bool) {
    let mut state = json!({ "waiting": { "reason": reason } });
    if !message.is_empty() {
        json::set(&mut state, &["waiting", "message"], message);
    }
    let restarts = |name: &str| {
        let old = list(pod, "/status/containerStatuses").iter().find(|c| text(c, "/name") == name);
        old.and_then(|c| json::int(c, "/restartCount")).unwrap_or_default() + i64::from(again)
    };
    let all: Vec<Value> = list(pod, "/spec/containers")
        .iter()
        .map(|c| {
            json!({
                "name": text(c, "/name"), "image": text(c, "/image"), "imageID": "", "ready": false, "started": false,
                "restartCount": restarts(text(c, "/name")), "state": state, "lastState": {},
            })
        })
        .collect();
    json::set(pod, &["status", "containerStatuses"], all);
}
