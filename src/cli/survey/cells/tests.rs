//! What each cell says.

use crate::base::survey::{Kind, NotReady, PendingChange, Place, Seat, Service, TalosVersion, Unmet, Workload};

use super::*;

/// When it was looked.
const AT: Timestamp = Timestamp::UNIX_EPOCH;

/// Sign and word of a cell, and its longer form.
fn shown(cell: &Cell) -> (String, String) {
    (cell.text(false), cell.text(true))
}

fn node() -> Node {
    Node {
        name: "n1".into(),
        kind: Kind::TalosVm,
        address: None,
        tls_name: None,
        place: Some(Place { proxmox: "home".into(), vmid: 223 }),
        kubernetes: "k".into(),
        node_name: "n1".into(),
        talos_cluster: None,
        vm: Layer::Absent,
        agent: Layer::Absent,
        guest: Layer::Absent,
        talos: Layer::Absent,
        waiting: None,
        talos_silent: false,
        held_off: None,
        kubelet: Layer::Absent,
        etcd: Layer::Absent,
        workloads: Layer::Absent,
    }
}

fn check<T>(of: impl Fn(&T) -> Cell, cases: Vec<(T, Mark, &str, &str)>, count: usize) {
    assert_eq!(cases.len(), count);
    for (value, mark, short, long) in cases {
        let cell = of(&value);
        assert_eq!((cell.mark, shown(&cell)), (mark, (short.to_owned(), long.to_owned())));
        assert_eq!((cell.width(false), cell.width(true)), (short.chars().count(), long.chars().count()));
    }
}

#[test]
fn a_vm_that_is_off_comes_before_a_lock_and_that_before_what_waits() {
    let waits = || vec![PendingChange { key: "cores".into(), now: None, then: Some("8".into()) }];
    let of = |power: &str, qemu: Option<&str>, lock: Option<&str>, pending: Vec<PendingChange>| {
        let (qemu, lock) = (qemu.map(Into::into), lock.map(Into::into));
        Vm { host: "pve".into(), power: power.into(), qemu, lock, pending, ..Vm::default() }
    };
    let cases = vec![
        (of("running", Some("running"), None, vec![]), Mark::Good, "running", "running (223 on pve)"),
        (of("running", None, None, waits()), Mark::Wrong, "! pending", "! pending (223 on pve)"),
        (of("running", None, Some("backup"), waits()), Mark::Wrong, "! backup", "! backup (223 on pve)"),
        (of("running", Some("io-error"), Some("x"), waits()), Mark::Wrong, "! io-error", "! io-error (223 on pve)"),
        (of("stopped", Some("x"), Some("x"), waits()), Mark::Wrong, "! stopped", "! stopped (223 on pve)"),
        // What waits is taken up with the start: nothing is wrong beside that it is off.
        (of("stopped", None, None, vec![]), Mark::Wrong, "! stopped", "! stopped (223 on pve)"),
    ];
    check(|it| vm(it, &node()), cases, 6);
}

#[test]
fn an_agent_that_could_not_be_asked_is_not_one_that_is_silent() {
    let (yes, no) = (|| Fact::Yes, || Fact::No { why: "x".into() });
    let unknown = || Fact::Unknown { why: "x".into() };
    let none = || Fact::NotAsked { why: "x".into() };
    let of = |channel, ping, exec| Agent { channel, ping, exec };
    let cases = vec![
        (of(yes(), yes(), yes()), Mark::Good, "exec", "ping, exec"),
        (of(yes(), yes(), none()), Mark::Good, "ping", "ping"),
        (of(yes(), yes(), no()), Mark::Wrong, "! no exec", "! no exec"),
        (of(yes(), no(), no()), Mark::Wrong, "! silent", "! silent"),
        // Nobody has heard that it is silent.
        (of(yes(), unknown(), no()), Mark::Wrong, "! no exec", "! no exec"),
        (of(yes(), unknown(), none()), Mark::Unknown, "?", "?"),
        // That it answers is known all the same.
        (of(yes(), yes(), unknown()), Mark::Unknown, "? ping", "? ping, not exec"),
        (of(unknown(), no(), none()), Mark::Unknown, "?", "?"),
        (of(no(), no(), none()), Mark::Absent, "off", "off"),
    ];
    check(|it| agent(it, false), cases, 9);
}

fn talos_at(stage: Layer<Stage>, ready: bool) -> Talos {
    Talos {
        version: TalosVersion { tag: "v1.11.5".into(), ..TalosVersion::default() },
        stage,
        ready,
        unmet: Vec::new(),
        services: Layer::Absent,
        extensions: Layer::Absent,
        schematic: Layer::Absent,
        modules_configured: Layer::Absent,
        modules_loaded: Layer::Absent,
        disks: Layer::Absent,
        system_disk: Layer::Absent,
        volumes: Layer::Absent,
        pci: Layer::Absent,
        memory: Layer::Absent,
        config: Layer::Absent,
        diagnostics: Layer::Absent,
        time_synced: Layer::Absent,
        ahead_s: Layer::Absent,
        boot_id: Layer::Absent,
        system_uuid: Layer::Absent,
    }
}

#[test]
fn a_guest_is_named_by_the_way_that_answered_and_those_that_did_not() {
    let of = |route: &str, others: &[&str]| Guest {
        route: route.into(),
        boot_id: "b".into(),
        others: others.iter().map(|other| (*other).to_owned()).collect(),
    };
    let cases = vec![
        (of("ssh", &[]), Mark::Good, "ssh", "ssh"),
        (of("agent", &["ssh: no answer within 8 s"]), Mark::Good, "agent", "agent, not ssh"),
        (of("host-ssh", &["ssh: refused", "agent: vm 108: off"]), Mark::Good, "host-ssh", "host-ssh, not ssh, agent"),
    ];
    check(guest, cases, 3);
    // No way answered, and a machine that has no guest of ours.
    let cells = |layer: Layer<Guest>| of_guest(&Node { guest: layer, ..node() });
    assert_eq!(cells(Layer::unknown("ssh: refused; agent: off")), (Mark::Unknown, ("?".into(), "?".into())));
    assert_eq!(cells(Layer::Absent), (Mark::Absent, ("-".into(), "-".into())));
    let answered = cells(Layer::Known(of("agent", &["ssh: refused"])));
    assert_eq!(answered, (Mark::Good, ("agent".into(), "agent, not ssh".into())));
}

/// The cell below GUEST.
fn of_guest(node: &Node) -> (Mark, (String, String)) {
    let at = COLUMNS.iter().position(|column| *column == "GUEST").unwrap();
    let cells = of(node, &[], AT);
    (cells[at].mark, shown(&cells[at]))
}

#[test]
fn talos_is_good_where_it_runs_is_ready_and_nothing_in_it_waits() {
    let running = || talos_at(Layer::Known(Stage::Running), true);
    let unmet = vec![Unmet { name: "services".into(), reason: "etcd not healthy".into() }];
    let waits = Service { id: "ext-x".into(), state: "Waiting".into(), healthy: None, message: "for x".into() };
    let cases = vec![
        (running(), Mark::Good, "running", "running v1.11.5"),
        (Talos { services: Layer::Known(vec![waits]), ..running() }, Mark::Wrong, "! running", "! running v1.11.5"),
        (Talos { time_synced: Layer::Known(false), ..running() }, Mark::Wrong, "! running", "! running v1.11.5"),
        (
            Talos { unmet, ..talos_at(Layer::Known(Stage::Running), false) },
            Mark::Wrong,
            "! not ready",
            "! not ready v1.11.5",
        ),
        (talos_at(Layer::Known(Stage::Booting), true), Mark::Wrong, "! booting", "! booting v1.11.5"),
        (talos_at(Layer::Known(Stage::ShuttingDown), false), Mark::Wrong, "! shutting down", "! shutting down v1.11.5"),
        (talos_at(Layer::unknown("no answer"), false), Mark::Unknown, "?", "? v1.11.5"),
        // Of what a lesser role is not told nobody says that it is well.
        (
            Talos { config: Layer::unknown("it takes os:admin"), ..running() },
            Mark::Unknown,
            "? running",
            "? running v1.11.5",
        ),
    ];
    check(talos, cases, 8);
}

#[test]
fn a_kubelet_has_the_worst_word() {
    let of = |registered: bool, ready: bool, cordoned: bool, pressures: &[&str]| Kubelet {
        registered,
        ready,
        cordoned,
        pressures: pressures.iter().map(|word| (*word).to_owned()).collect(),
        version: "v1.34.1".into(),
        ..Kubelet::default()
    };
    let cases = vec![
        (of(true, true, false, &[]), Mark::Good, "Ready", "Ready v1.34.1"),
        (of(true, true, false, &["DiskPressure"]), Mark::Wrong, "! pressure", "! pressure v1.34.1"),
        (of(true, true, true, &["DiskPressure"]), Mark::Wrong, "! cordoned", "! cordoned v1.34.1"),
        (of(true, false, true, &["DiskPressure"]), Mark::Wrong, "! NotReady", "! NotReady v1.34.1"),
        (of(false, true, false, &[]), Mark::Wrong, "! none", "! no such node"),
    ];
    check(kubelet, cases, 5);
}

#[test]
fn a_seat_without_a_leader_or_a_vote_is_wrong() {
    let of = |seat: Seat, leader: Option<&str>, errors: &[&str]| EtcdSeat {
        id: "0a".into(),
        seat,
        leader: leader.map(Into::into),
        raft_term: 1,
        raft_index: 1,
        raft_applied: 1,
        db_size: 48 << 20,
        db_in_use: 1,
        version: String::new(),
        errors: errors.iter().map(|error| (*error).to_owned()).collect(),
        answered_ms: 1,
        members: Layer::Absent,
        alarms: Layer::Absent,
    };
    let cases = vec![
        (of(Seat::Leader, Some("0a"), &[]), Mark::Good, "leader", "leader, 48.0 MiB"),
        (of(Seat::Voter, Some("0b"), &[]), Mark::Good, "voter", "voter, 48.0 MiB"),
        (of(Seat::Voter, Some("0b"), &["x"]), Mark::Wrong, "! voter", "! voter, 48.0 MiB"),
        (of(Seat::Learner, Some("0b"), &[]), Mark::Wrong, "! learner", "! learner, 48.0 MiB"),
        (of(Seat::Learner, None, &[]), Mark::Wrong, "! no leader", "! no leader, 48.0 MiB"),
    ];
    check(etcd, cases, 5);
}

#[test]
fn pods_are_counted_by_those_that_are_well() {
    let of = |pods: usize, bad: usize| {
        let owner = Workload { namespace: "x".into(), kind: "Pod".into(), name: "x".into() };
        let one = NotReady { owner, pod: "x".into(), why: "x".into() };
        Workloads { pods, not_ready: vec![one; bad], ..Workloads::default() }
    };
    let cases = vec![
        (of(3, 0), Mark::Good, "3", "3 ready"),
        (of(0, 0), Mark::Good, "0", "0 ready"),
        (of(3, 1), Mark::Wrong, "! 2 of 3", "! 2 of 3 ready"),
        (of(3, 3), Mark::Wrong, "! 0 of 3", "! 0 of 3 ready"),
    ];
    check(pods, cases, 4);
}

#[test]
fn findings_are_named_once_and_more_than_there_is_room_for_are_counted() {
    let finding =
        |rule: &'static str, what: &str| Finding { rule, what: what.into(), text: String::new(), help: String::new() };
    let rules = ["L01", "L01", "L02", "L03", "L04", "L05", "L06", "L07"];
    let all: Vec<_> = rules.iter().map(|rule| finding(rule, "n1")).chain([finding("L09", "n2")]).collect();
    let cells = of(&node(), &all, AT);
    let [.., last] = &cells;
    assert_eq!((last.mark, shown(last)), (Mark::Noted, ("L01 L02 +5".into(), "L01 L02 L03 L04 L05 L06 +1".into())));
    assert_eq!(cells.iter().filter(|cell| shown(cell) == ("-".into(), "-".into())).count(), 7);
    let none = of(&Node { kubelet: Layer::unknown("x"), ..node() }, &[], AT);
    assert_eq!(none.iter().filter(|cell| cell.mark == Mark::Unknown).count(), 1);
    assert_eq!((none[7].mark, none[7].text(true)), (Mark::Absent, String::new()));
    // A row is as its worst cell.
    assert_eq!(none.iter().map(|cell| cell.mark).max().map(Mark::row), Some("?"));
    assert!(Mark::Wrong > Mark::Unknown && Mark::Unknown > Mark::Noted && Mark::Noted > Mark::Good);
}

#[test]
fn a_missing_channel_is_marked_where_a_rule_blames_it() {
    let (no, none) = (|| Fact::No { why: "x".into() }, Fact::NotAsked { why: "x".into() });
    let node = Node { agent: Layer::Known(Agent { channel: no(), ping: no(), exec: none }), ..node() };
    let finding = |rule: &'static str, what: &str| {
        let (text, help) = (String::new(), String::new());
        vec![Finding { rule, what: what.into(), text, help }]
    };
    // Where nobody misses it, a column of it says nothing.
    for findings in [vec![], finding("L05", "n1"), finding("L04", "n2")] {
        let cells = of(&node, &findings, AT);
        assert_eq!((cells[1].mark, shown(&cells[1])), (Mark::Absent, ("off".into(), "off".into())), "{findings:?}");
    }
    let cells = of(&node, &finding("L04", "n1"), AT);
    assert_eq!((cells[1].mark, shown(&cells[1])), (Mark::Noted, ("off".into(), "off".into())));
}
