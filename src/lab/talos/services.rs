//! A node's services, its stage, and whether it is ready: all of it follows from what the node is.

use super::modules::{AGENT_PORT, NVIDIA_DRIVER};
use super::node::Going;
use crate::lab::World;
use crate::lab::kube::kinds;

/// A service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// `kubelet`, `ext-nvidia-persistenced`, ...
    pub id: String,
    /// `Running`, `Waiting`, ...
    pub state: &'static str,
    /// What it said last.
    pub message: String,
    /// None where it has no health check.
    pub healthy: Option<bool>,
}

impl Service {
    /// It keeps the sequence `boot` no longer.
    pub fn is_up(&self) -> bool {
        matches!(self.state, "Running" | "Finished" | "Skipped") && self.healthy != Some(false)
    }
}

/// How far a machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "Talos's own words")]
pub enum Stage {
    Booting,
    Installing,
    Maintenance,
    Running,
    Rebooting,
    ShuttingDown,
    Upgrading,
    Resetting,
}

impl Stage {
    /// As a resource's YAML has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Booting => "booting",
            Self::Installing => "installing",
            Self::Maintenance => "maintenance",
            Self::Running => "running",
            Self::Rebooting => "rebooting",
            Self::ShuttingDown => "shutting down",
            Self::Upgrading => "upgrading",
            Self::Resetting => "resetting",
        }
    }
}

/// A machine's status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// How far it is.
    pub stage: Stage,
    /// Name and reason of what is missing; looked for in the stages booting and running only.
    pub unmet: Vec<(&'static str, String)>,
}

/// Services of extensions: the extension's name begins so, the service, and the file that it waits for.
const EXTENSIONS: &[(&str, &str, &str)] = &[
    ("nvidia-container-toolkit", "ext-nvidia-persistenced", NVIDIA_DRIVER),
    ("qemu-guest-agent", "ext-qemu-guest-agent", AGENT_PORT),
];

fn service(id: &str, state: &'static str, message: &str, healthy: Option<bool>) -> Service {
    Service { id: id.to_owned(), state, message: message.to_owned(), healthy }
}

fn running(id: &str) -> Service {
    service(id, "Running", "Health check successful", Some(true))
}

impl World {
    /// All services of a node whose apid answers, by id.
    pub fn talos_services(&self, name: &str) -> Vec<Service> {
        let Some(node) = self.talos.nodes.get(name) else { return Vec::new() };
        let Some(run) = node.answering(self.now) else { return Vec::new() };
        let going = run.stops() || self.talos_halting(name);
        let mut all: Vec<Service> = ["apid", "auditd", "containerd", "dashboard", "machined", "syslogd", "udevd"]
            .iter()
            .map(|id| match *id {
                "auditd" | "dashboard" | "syslogd" => service(id, "Running", "Service started", None),
                _ => running(id),
            })
            .collect();
        if run.maintenance {
            return all;
        }
        if run.wants.control_plane {
            all.push(running("trustd"));
            all.push(self.etcd_service(name));
        }
        let late = |up: bool, id: &str, waits: &str| match (going, up) {
            (true, _) => service(id, "Stopping", "Sending SIGTERM", None),
            (false, true) => running(id),
            (false, false) => service(id, "Waiting", waits, None),
        };
        all.push(late(self.now >= run.services_at, "cri", "Waiting for network"));
        let cri = "Waiting for service \"cri\" to be \"up\"";
        all.push(late(self.now >= run.kubelet_at, "kubelet", cri));
        let agent_port = node.vmid.is_some_and(|vmid| self.agent_port(vmid));
        let image = node.image();
        for (_, id, file) in EXTENSIONS.iter().filter(|(extension, ..)| image.has(extension)) {
            all.push(if going {
                service(id, "Stopping", "Sending SIGTERM", None)
            } else if self.now < run.services_at {
                service(id, "Waiting", cri, None)
            } else if node.has_file(file, agent_port) {
                service(id, "Running", &format!("Started task {id} (PID 2412) for container {id}"), None)
            } else {
                service(id, "Waiting", &format!("Waiting for file {file:?} to exist"), None)
            });
        }
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// A node's VM was told by Proxmox to go down.
    pub(in crate::lab) fn talos_halting(&self, name: &str) -> bool {
        let vmid = self.talos.nodes.get(name).and_then(|node| node.vmid);
        let running = vmid.and_then(|vmid| self.vms.get(&vmid)).and_then(|vm| vm.running.as_ref());
        running.is_some_and(|running| running.halting)
    }

    /// A node's stage; none while apid does not answer.
    pub fn talos_stage(&self, name: &str) -> Option<Stage> {
        let run = self.talos.nodes.get(name)?.answering(self.now)?;
        Some(match run.going {
            Some(Going::Rebooting { .. }) => Stage::Rebooting,
            Some(Going::ShuttingDown) => Stage::ShuttingDown,
            Some(Going::Upgrading) => Stage::Upgrading,
            Some(Going::Installing) => Stage::Installing,
            Some(Going::Resetting) => Stage::Resetting,
            None if self.talos_halting(name) => Stage::ShuttingDown,
            None if run.maintenance => Stage::Maintenance,
            None if run.booted => Stage::Running,
            None => Stage::Booting,
        })
    }

    /// A node's status; none while apid does not answer. A service that waits is no unmet condition unless it is one
    /// that every node must have: its resource exists only while it runs, and the conditions are made from those
    /// (siderolabs/talos `controllers/runtime/machine_status.go`).
    pub fn talos_status(&self, name: &str) -> Option<Status> {
        let stage = self.talos_stage(name)?;
        let mut unmet = Vec::new();
        if matches!(stage, Stage::Booting | Stage::Running) {
            let services = self.talos_services(name);
            let run = self.talos.nodes.get(name)?.run.as_ref()?;
            let mut problems: Vec<String> = services
                .iter()
                .filter(|s| s.state == "Running" && s.healthy == Some(false))
                .map(|s| format!("{} not healthy", s.id))
                .collect();
            let required: &[&str] = if run.wants.control_plane {
                &["apid", "machined", "kubelet", "etcd", "trustd"]
            } else {
                &["apid", "machined", "kubelet"]
            };
            for id in required {
                if !services.iter().any(|s| s.id == *id && s.state == "Running") {
                    problems.push(format!("{id} not running"));
                }
            }
            if !problems.is_empty() {
                unmet.push(("services", problems.join(", ")));
            }
            match self.talos_kubelet_ready(name) {
                Some(true) => {}
                Some(false) => unmet.push(("nodeReady", format!("node {name:?} is not ready"))),
                None => unmet.push(("nodeReady", format!("node {name:?} status is not available yet"))),
            }
        }
        Some(Status { stage, unmet })
    }

    /// The kubelet's Ready, as Kubernetes shows it; none where there is no such node.
    pub fn talos_kubelet_ready(&self, name: &str) -> Option<bool> {
        let node = self.kube.store.get(kinds::nodes(), "", self.talos_host(name))?;
        let conditions = node.pointer("/status/conditions")?.as_array()?;
        let ready = conditions.iter().find(|c| c.get("type").is_some_and(|t| t == "Ready"))?;
        Some(ready.get("status").is_some_and(|s| s == "True"))
    }

    /// The boot id of a node whose kubelet is at work.
    pub(in crate::lab) fn talos_kubelet(&self, name: &str) -> Option<String> {
        let run = self.talos.nodes.get(name)?.run.as_ref()?;
        let works = self.now >= run.kubelet_at && !run.maintenance && !run.stops() && !self.talos_halting(name);
        works.then(|| run.boot_id.clone())
    }
}
