//! What the screen says of a survey.

use crate::base::survey::{
    Agent, EtcdSeat, Fact, Guest, Kind, Kubelet, Layer, Node, Place, Seat, Survey, Vm, Workloads,
};
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
        waiting: None,
        talos_silent: false,
        held_off: None,
        kubelet: Layer::Known(Kubelet { registered: true, ready: true, ..Kubelet::default() }),
        etcd: Layer::Absent,
        workloads: Layer::Known(Workloads::default()),
    }
}

fn empty() -> Survey {
    Survey {
        site: "homelab".into(),
        at: "2026-11-22T02:00:00Z".parse().unwrap(),
        took_ms: 900,
        nodes: Vec::new(),
        proxmox: Vec::new(),
        kubernetes: Vec::new(),
        talos: Vec::new(),
        partial: false,
    }
}

fn shown(nodes: Vec<Node>, not_looked_at: Vec<Blind>) -> String {
    let survey = Survey { nodes, ..empty() };
    Shown {
        runs: Vec::new(),
        survey: &survey,
        etcd: Vec::new(),
        waiting: Vec::new(),
        findings: &[],
        not_looked_at,
        notes: Vec::new(),
        past: Vec::new(),
        runs_unknown: Vec::new(),
    }
    .text(&Out::new(false, 0, String::new()), usize::MAX)
}

#[test]
fn where_nothing_was_looked_at_nothing_is_judged() {
    let text = shown(vec![node()], Vec::new());
    assert!(text.contains("nothing contradicts itself"), "{text}");
    let text = shown(Vec::new(), Vec::new());
    assert!(text.contains("names no nodes") && !text.contains("contradicts"), "{text}");
}

#[test]
fn what_an_agent_could_not_be_asked_is_given_a_reason() {
    let unknown = || Fact::Unknown { why: "not allowed: VM.GuestAgent.Audit".into() };
    let mut node = node();
    node.agent = Layer::Known(Agent { channel: Fact::Yes, ping: unknown(), exec: unknown() });
    let text = shown(vec![node], Vec::new());
    assert_eq!(text.matches("agent of k3s: not allowed: VM.GuestAgent.Audit").count(), 1, "{text}");
}

#[test]
fn ways_that_did_not_answer_are_named_and_no_others() {
    let mut node = node();
    let others = vec!["ssh: no route to host: 10.0.0.1".to_owned()];
    node.guest = Layer::Known(Guest { route: "agent".into(), boot_id: "b".into(), others });
    let text = shown(vec![node], Vec::new());
    assert!(text.contains("agent, not ssh ") && !text.contains("alone"), "{text}");
}

#[test]
fn rules_that_could_not_look_say_why() {
    let blind = |what: &str, reason: &str, rules: &[&'static str]| Blind {
        what: what.into(),
        reason: reason.into(),
        rules: rules.to_vec(),
    };
    let mut dark = node();
    dark.kubelet = Layer::unknown("no answer within 8 s");
    dark.etcd = Layer::Known(EtcdSeat {
        id: "0a".into(),
        seat: Seat::Voter,
        leader: Some("0a".into()),
        raft_term: 1,
        raft_index: 1,
        raft_applied: 1,
        db_size: 1,
        db_in_use: 1,
        version: "3.6.5".into(),
        errors: Vec::new(),
        answered_ms: 1,
        members: Layer::unknown("not within 8 s"),
        alarms: Layer::unknown("it takes os:operator"),
    });
    let all = vec![
        blind("k3s", "no answer within 8 s", &["L32", "L20"]),
        blind("homelab", "its version of Talos does not tell its disks", &["L10"]),
        blind("mac", "its version of Talos does not tell its disks", &["L07", "L10"]),
        blind("homelab", "not within 8 s", &["L12", "L32"]),
    ];
    let text = shown(vec![dark], all);
    for line in [
        "? not known: etcd alarms of k3s: it takes os:operator",
        "? not known: etcd members of k3s: not within 8 s",
        // What stands above is not said again.
        "3 rules could not look everywhere, for what is not known: L12 L20 L32",
        "2 rules could not look at homelab, mac: L07 L10 (its version of Talos does not tell its disks)",
        "no findings in what is known",
    ] {
        assert!(text.lines().any(|other| other == line), "{line}:\n{text}");
    }
}

#[test]
fn no_row_is_wider_than_the_terminal() {
    let long = Node { name: "k3s-vm-pumped-piglet".into(), ..node() };
    let survey = Survey { nodes: vec![long, node()], ..empty() };
    let mut tables = Vec::new();
    for width in [40, 60, 80, 120] {
        let (etcd, waiting) = (Vec::new(), Vec::new());
        let shown = Shown {
            runs: Vec::new(),
            survey: &survey,
            etcd,
            waiting,
            findings: &[],
            not_looked_at: Vec::new(),
            notes: Vec::new(),
            past: Vec::new(),
            runs_unknown: Vec::new(),
        };
        let text = shown.text(&Out::new(false, 0, String::new()), width);
        let text = console::strip_ansi_codes(&text).into_owned();
        let heads: Vec<&str> = text.lines().filter(|line| line.trim_start().starts_with("NODE ")).collect();
        let rows: Vec<&str> = text.lines().filter(|line| line.contains("k3s ") || line.contains("k3s-vm")).collect();
        assert!(rows.iter().chain(&heads).all(|row| row.chars().count() < width), "{width}: {text}");
        assert_eq!(rows.len(), 2 * heads.len(), "{width}: {text}");
        // No column gets lost.
        let columns: usize = heads.iter().map(|head| head.split_whitespace().count() - 1).sum();
        assert_eq!(columns, 5, "{width}: {text}");
        tables.push(heads.len());
    }
    assert!(tables[0] > 1 && tables[3] == 1, "{tables:?}");
}
