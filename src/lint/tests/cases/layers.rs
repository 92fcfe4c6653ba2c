//! Layers that contradict each other.

use crate::base::survey::{Layer, PendingChange, Unmet};

use super::super::estate::{at, kubelet_of, talos_of, there, vm_of};
use super::{Case, away, dumb, silent, waits};

pub(super) const WRONG: &[Case] = &[
    Case {
        name: "a service that waits",
        rule: "L24",
        what: "mac",
        change: |survey| waits(survey, "mac", "ext-tailscale", "/dev/net/tun"),
        text: &["`ext-tailscale` is Waiting (Waiting for file \"/dev/net/tun\" to exist)", "after 70 minutes"],
        help: "service ext-tailscale`",
    },
    Case {
        name: "not ready",
        rule: "L25",
        what: "mac",
        change: |survey| {
            let mac = talos_of(survey, "mac");
            mac.ready = false;
            mac.unmet = vec![Unmet { name: "services".into(), reason: "etcd not healthy".into() }];
        },
        text: &["services (etcd not healthy)"],
        help: "get machinestatus -o yaml",
    },
    Case {
        name: "Talos down",
        rule: "L26",
        what: "mac",
        change: |survey| silent(survey, "mac"),
        text: &["Talos does not answer (connection refused)"],
        help: "version`",
    },
    Case {
        name: "off and Ready",
        rule: "L27",
        what: "tvm",
        change: |survey| {
            let vm = vm_of(survey, "tvm");
            (vm.power, vm.qemu, vm.uptime_s) = ("stopped".into(), None, None);
            at(survey, "tvm").agent = Layer::Absent;
            silent(survey, "tvm");
        },
        text: &["its VM is stopped and its node is Ready", "for up to 50 seconds"],
        help: "on pve: `qm start 223`",
    },
    Case {
        name: "off, as Kubernetes has noticed",
        rule: "L27",
        what: "tvm",
        change: |survey| {
            let vm = vm_of(survey, "tvm");
            (vm.power, vm.qemu, vm.uptime_s) = ("stopped".into(), None, None);
            at(survey, "tvm").agent = Layer::Absent;
            silent(survey, "tvm");
            away(survey, "tvm");
        },
        text: &["its VM is stopped and its node is not Ready"],
        help: "on pve: `qm start 223`",
    },
    Case {
        name: "paused and Ready",
        rule: "L27",
        what: "k3s",
        change: |survey| vm_of(survey, "k3s").qemu = Some("io-error".into()),
        text: &["its VM is io-error"],
        help: "qm resume 108",
    },
    Case {
        name: "a guest that hangs",
        rule: "L28",
        what: "k3s",
        change: |survey| {
            dumb(survey, "k3s");
            away(survey, "k3s");
            at(survey, "k3s").guest = Layer::unknown("ssh: no route to host");
        },
        text: &["runs since 1440 minutes", "its agent does not answer", "no route to host", "not Ready"],
        help: "on pve: `qm reset 108`",
    },
    Case {
        name: "Talos that hangs",
        rule: "L28",
        what: "tvm",
        change: |survey| {
            dumb(survey, "tvm");
            away(survey, "tvm");
            silent(survey, "tvm");
        },
        text: &["Talos does not answer"],
        help: "qm reset 223",
    },
    Case {
        name: "a VM that never came up",
        rule: "L28",
        what: "tvm",
        change: |survey| {
            dumb(survey, "tvm");
            silent(survey, "tvm");
            *kubelet_of(survey, "tvm") = crate::base::survey::Kubelet::default();
        },
        text: &["Talos does not answer", "it is no node"],
        help: "on pve: `qm reset 223`",
    },
    Case {
        name: "an agent that hangs",
        rule: "L29",
        what: "k3s",
        change: |survey| dumb(survey, "k3s"),
        text: &["nobody answers on it (QEMU guest agent is not running)"],
        help: "systemctl enable --now qemu-guest-agent",
    },
    Case {
        name: "a stick after the next power cycle",
        rule: "L30",
        what: "k3s",
        change: |survey| {
            let change = PendingChange { key: "usb0".into(), now: None, then: Some("host=1a6e:089a".into()) };
            vm_of(survey, "k3s").pending = vec![change];
        },
        text: &["usb0: not set -> host=1a6e:089a"],
        help: "qm reboot 108",
    },
    Case {
        name: "a Ready of yesterday",
        rule: "L35",
        what: "k3s",
        change: |survey| there(&mut at(survey, "k3s").guest).boot_id = "another".into(),
        text: &["it has booted since"],
        help: "kubectl describe node k3s",
    },
];
