//! What is wrong in an estate, and what only looks so.

mod disks;
mod etcd;
mod image;
mod layers;
mod nodes;
mod right;

use crate::base::survey::{
    Fact, Layer, NamedSelector, PendingChange, Seat, Service, Stage, Stranger, Survey, Unmet, Waiting,
};

use super::estate::{
    BOTH, DRIVER, PLAIN, at, config_of, extension, kubelet_of, members, seat_of, talos_of, there, vm_of,
};

pub(in crate::lint) use right::RIGHT;

pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) rule: &'static str,
    pub(super) what: &'static str,
    pub(super) change: fn(&mut Survey),
    pub(super) text: &'static [&'static str],
    pub(super) help: &'static str,
}

pub(super) fn waits(survey: &mut Survey, node: &str, id: &str, file: &str) {
    let talos = talos_of(survey, node);
    talos.stage = Layer::Known(Stage::Booting);
    let message = format!("Waiting for file {file:?} to exist");
    talos.services = Layer::Known(vec![Service { id: id.into(), state: "Waiting".into(), healthy: None, message }]);
}

pub(super) fn no_modules(survey: &mut Survey) {
    let nuc = talos_of(survey, "nuc");
    nuc.modules_configured = Layer::Known(Vec::new());
    nuc.modules_loaded = Layer::Known(Vec::new());
    waits(survey, "nuc", "ext-nvidia-persistenced", "/sys/bus/pci/drivers/nvidia");
}

pub(super) fn gpu_image(survey: &mut Survey) {
    let vm = talos_of(survey, "tvm");
    vm.schematic = Layer::Known(BOTH.into());
    vm.extensions = Layer::Known([DRIVER[0], DRIVER[1], "qemu-guest-agent"].map(extension).to_vec());
    waits(survey, "tvm", "ext-nvidia-persistenced", "/sys/bus/pci/drivers/nvidia");
}

pub(in crate::lint) fn no_channel(survey: &mut Survey) {
    let vm = vm_of(survey, "tvm");
    (vm.agent, vm.agent_configured) = (false, false);
    let no = || Fact::No { why: "there is no channel".into() };
    let agent = there(&mut at(survey, "tvm").agent);
    (agent.channel, agent.ping) = (no(), no());
    waits(survey, "tvm", "ext-qemu-guest-agent", "/dev/virtio-ports/org.qemu.guest_agent.0");
}

pub(super) fn channel_pending(survey: &mut Survey) {
    no_channel(survey);
    let vm = vm_of(survey, "tvm");
    vm.agent_configured = true;
    vm.pending = vec![PendingChange { key: "agent".into(), now: None, then: Some("1".into()) }];
}

pub(super) fn no_agent(survey: &mut Survey) {
    let vm = talos_of(survey, "tvm");
    vm.extensions = Layer::Known(Vec::new());
    vm.schematic = Layer::Known(PLAIN.into());
    config_of(survey, "tvm").image = None;
    there(&mut at(survey, "tvm").agent).ping = Fact::No { why: "QEMU guest agent is not running".into() };
}

pub(super) fn install(survey: &mut Survey, node: &str, fields: &[(&str, &str)]) {
    let fields = fields.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    config_of(survey, node).install.selector = fields.collect();
}

pub(super) fn user_volume(survey: &mut Survey, expression: &str) {
    let volume = NamedSelector { kind: "UserVolumeConfig".into(), name: "data".into(), expression: expression.into() };
    config_of(survey, "nuc").volumes = vec![volume];
}

pub(in crate::lint) fn existing(survey: &mut Survey, expression: &str) {
    let kind = "ExistingVolumeConfig".to_owned();
    let volume = NamedSelector { kind, name: "data".into(), expression: expression.into() };
    config_of(survey, "nuc").volumes = vec![volume];
}

pub(super) fn dumb(survey: &mut Survey, node: &str) {
    there(&mut at(survey, node).agent).ping = Fact::No { why: "QEMU guest agent is not running".into() };
}

pub(super) fn away(survey: &mut Survey, node: &str) {
    let kubelet = kubelet_of(survey, node);
    kubelet.ready = false;
    kubelet.reason = "NodeStatusUnknown".into();
}

pub(super) fn silent(survey: &mut Survey, node: &str) {
    let node = at(survey, node);
    node.talos = Layer::unknown("connection refused");
    node.talos_silent = true;
}

pub(super) fn stranger(name: &str, ready: bool) -> Stranger {
    Stranger { name: name.into(), ready, system_uuid: String::new() }
}

pub(super) fn learner(survey: &mut Survey, id: &str) {
    let id = id.to_owned();
    members(survey, |all| all.iter_mut().filter(|m| m.id == id).for_each(|m| m.learner = true));
}

/// Nobody knows a leader, nobody tells the members, and Talos' own check has failed.
pub(super) fn leaderless(survey: &mut Survey) {
    for name in ["nuc", "tvm", "mac"] {
        let seat = seat_of(survey, name);
        (seat.seat, seat.leader) = (Seat::Voter, None);
        seat.errors = vec!["etcdserver: no leader".into()];
        (seat.members, seat.alarms) = (Layer::unknown("no leader"), Layer::unknown("no leader"));
        let talos = talos_of(survey, name);
        talos.ready = false;
        talos.unmet = vec![Unmet { name: "services".into(), reason: "etcd not healthy".into() }];
    }
}

/// It has been reset, or has other disks.
pub(super) fn waits_for_its_configuration(survey: &mut Survey, node: &str) {
    let system_uuid = talos_of(survey, node).system_uuid.clone();
    let disks = talos_of(survey, node).disks.clone();
    let node = at(survey, node);
    let version = Layer::Known("v1.11.5".to_owned());
    node.waiting = Some(Waiting { version, disks, volumes: Layer::Known(Vec::new()), system_uuid });
    (node.talos, node.etcd) = (Layer::Absent, Layer::Absent);
    (node.kubelet, node.workloads) = (Layer::Absent, Layer::Absent);
    if let Layer::Known(agent) = &mut node.agent {
        agent.ping = Fact::No { why: "QEMU guest agent is not running".into() };
    }
}

/// Nothing has been heard of it since.
pub(super) fn dead(survey: &mut Survey, node: &str, since: &str) {
    silent(survey, node);
    away(survey, node);
    kubelet_of(survey, node).unheard_since = Some(since.parse().unwrap());
    at(survey, node).etcd = Layer::unknown("connection refused");
}

/// Every case with something wrong in it.
pub(super) fn wrong() -> Vec<&'static Case> {
    [image::WRONG, disks::WRONG, etcd::WRONG, nodes::WRONG, layers::WRONG].into_iter().flatten().collect()
}
