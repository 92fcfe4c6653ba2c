//! What the screen says of a survey.

use crate::base::survey::{Agent, Fact, Guest, Kind, Kubelet, Layer, Node, Place, Survey, Vm, Workloads};
use crate::lint::Blind;

use super::*;

fn node() -> Node {
    Node {
        name: "k3s".into(),
        kind: Kind::Vm,
        address: None,
        tls_name: None,
        place: Some(Place { proxmox: "home".into(), vmid: 108 }),
        kubernetes: "k3s".into(),
        node_name: "k3s".into(),
        talos_cluster: None,
        vm: Layer::Known(Vm { host: "pve".into(), power: "running".into(), ..Vm::default() }),
        agent: Layer::Known(Agent { channel: Fact::Yes, ping: Fact::Yes, exec: Fact::Yes }),
        guest: Layer::Known(Guest { route: "ssh".into(), boot_id: "b".into(), others: Vec::new() }),
        talos: Layer::Absent,
        talos_silent: false,
        kubelet: Layer::Known(Kubelet { registered: true, ready: true, ..Kubelet::default() }),
        etcd: Layer::Absent,
        workloads: Layer::Known(Workloads::default()),
    }
}

fn shown(nodes: Vec<Node>, not_looked_at: Vec<Blind>) -> String {
    let survey = Survey {
        site: "homelab".into(),
        at: "2026-11-22T02:00:00Z".parse().unwrap(),
        took_ms: 900,
        nodes,
        proxmox: Vec::new(),
        kubernetes: Vec::new(),
        talos: Vec::new(),
        partial: false,
    };
    Shown { survey: &survey, findings: &[], not_looked_at }.text(&Out::new(false, 0, String::new()), usize::MAX)
}

#[test]
fn what_an_agent_could_not_be_asked_is_given_a_reason() {
    let unknown = || Fact::Unknown { why: "not allowed: VM.GuestAgent.Audit".into() };
    let mut node = node();
    node.agent = Layer::Known(Agent { channel: Fact::Yes, ping: unknown(), exec: unknown() });
    let text = shown(vec![node], Vec::new());
    assert_eq!(text.matches("agent of k3s: not allowed: VM.GuestAgent.Audit").count(), 1, "{text}");
}
