//! `pvemig etcd snapshot` against nodes that say what a test wants them to, and against the lab.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{Said, Shell, expect};
use crate::talos::fake::{Fake, Says, msg, num, raw, text};
use crate::talos::pki::{NOW, Pki, talosconfig};

mod ends;
mod lab;
mod schedule;

const TAKE: [&str; 6] = ["etcd", "snapshot", "--to", "to", "--keep", "1"];

/// The content of a snapshot and the digest behind it.
fn whole(size: usize) -> Vec<u8> {
    let data: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
    let digest = Sha256::digest(&data);
    [data.as_slice(), digest.as_slice()].concat()
}

fn pieces(bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes.chunks(32 << 10).map(|piece| raw(2, piece)).collect()
}

/// Control planes `a`, `b`, `c`, of which `a` leads, and an empty directory beside the site file.
struct Nodes {
    shell: Shell,
    fakes: Vec<Fake>,
}

impl Nodes {
    async fn new() -> Self {
        let (shell, pki) = (Shell::new(), Pki::new());
        let (mut nodes, mut fakes) = (String::new(), Vec::new());
        for name in ["a", "b", "c"] {
            let fake = Fake::default();
            let port = fake.serve(pki.serving(&pki.server(&["127.0.0.1"], NOW))).await;
            nodes.push_str(&format!("      {name}: {{ address: \"127.0.0.1:{port}\" }}\n"));
            fakes.push(fake);
        }
        let site = format!(
            "version: 1\nname: homelab\nkubernetes: {{ k: {{ kubeconfig: ./kubeconfig, context: k }} }}\n\
             talos:\n  homelab:\n    talosconfig: ./talosconfig\n    kubernetes: k\n    nodes:\n{nodes}"
        );
        let config = talosconfig(&pki.pem(), &pki.client("os:admin", NOW));
        for (name, text) in [("site.yaml", site.as_str()), ("kubeconfig", "{}\n"), ("talosconfig", &config)] {
            let path = shell.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        std::fs::create_dir(shell.path().join("to")).unwrap();
        let nodes = Self { shell, fakes };
        for at in 0..3 {
            nodes.voter(at, 1, 5_000);
            nodes.fakes[at].on("/machine.MachineService/Version", version("v1.11.5"));
        }
        nodes
    }

    /// How the etcd of a node does, from now on.
    fn voter(&self, at: usize, leader: u64, applied: u64) {
        let status =
            [text(1, "3.6.5"), num(4, leader), num(5, applied), num(6, 3), num(7, applied), num(10, at as u64 + 1)];
        self.fakes[at].on("/machine.MachineService/EtcdStatus", Says::Ok(vec![msg(1, &[msg(2, &status)])]));
    }

    fn says(&self, at: usize, says: Says) {
        self.fakes[at].on("/machine.MachineService/EtcdSnapshot", says);
    }

    fn gives(&self, at: usize, bytes: &[u8]) {
        self.says(at, Says::Ok(pieces(bytes)));
    }

    fn dir(&self) -> PathBuf {
        self.shell.path().join("to")
    }

    fn take(&self, more: &[&str]) -> Said {
        self.shell.run(&[&["etcd", "snapshot", "--to", "to"], more].concat())
    }

    /// How often each node was asked for a snapshot.
    fn asked(&self) -> Vec<usize> {
        let of = |fake: &Fake| fake.asked().iter().filter(|asked| asked.path.ends_with("/EtcdSnapshot")).count();
        self.fakes.iter().map(of).collect()
    }
}

fn version(tag: &str) -> Says {
    Says::Ok(vec![msg(1, &[msg(2, &[text(1, tag)])])])
}

/// What is in a directory, by name.
fn there(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_gives_it_and_it_is_kept_whole() {
    let nodes = Nodes::new().await;
    let bytes = whole(100_000);
    nodes.gives(1, &bytes);
    let said = nodes.take(&[]);
    expect(
        &said,
        0,
        &["snapshot of homelab by b, a follower, at raft index 5000, etcd 3.6.5, Talos v1.11.5", "97.6 KiB"],
    );
    expect(&said, 0, &["not encrypted", "`--recipient age1..` encrypts it", "`pvemig etcd snapshot --help` says how"]);
    let names = there(&nodes.dir());
    let file = nodes.dir().join(&names[0]);
    assert_eq!(said.stdout, format!("{}\n", file.display()));
    assert!(names[0].starts_with("homelab-20") && names[0].ends_with("Z.snapshot") && names.len() == 1, "{names:?}");
    assert!(std::fs::read(&file).unwrap() == bytes);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(nodes.asked(), [0, 1, 0]);

    // The same as data; the older one stays.
    let said = nodes.take(&["homelab", "--json", "--keep", "2"]);
    let json: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    let digest = |bytes: &[u8]| Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect::<String>();
    assert_eq!(json["sha256"], digest(&bytes));
    assert_eq!(json["etcd"]["sha256"], digest(&bytes[..100_000]));
    assert_eq!((&json["size"], &json["recipients"], &json["leader"]), (&100_032.into(), &0.into(), &false.into()));
    assert_eq!((json["node"].as_str(), json["member"].as_str()), (Some("b"), Some("0000000000000002")));
    assert_eq!((&json["etcd"]["version"], &json["talos-version"]), (&"3.6.5".into(), &"v1.11.5".into()));
    assert_eq!(json["kept"].as_array().map(Vec::len), Some(2));
    let third = nodes.take(&["--keep", "2"]);
    expect(&third, 0, &[&format!("removed {}", names[0])]);
    assert_eq!(third.stderr.matches("  kept homelab-").count(), 2, "{}", third.stderr);
    assert!(there(&nodes.dir()).len() == 2 && !file.exists());
    assert!(!nodes.shell.path().join(".local").exists(), "it needs no journal");
}

/// Another cluster of this name, or this one before it was built anew.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_etcd_has_left_is_named_and_stays() {
    let nodes = Nodes::new().await;
    let (own, other) = ("homelab-2025-11-02T020000Z.snapshot", "homelab-2025-11-03T020000Z.snapshot");
    std::fs::write(nodes.dir().join(own), whole(1_000)).unwrap();
    let foreign = [[0; 100].as_slice(), Sha256::digest([0; 100]).as_slice()].concat();
    std::fs::write(nodes.dir().join(other), &foreign).unwrap();
    nodes.gives(1, &whole(2_000));
    let said = nodes.take(&["--keep", "1"]);
    let notice = format!("notice: {other} names no member of the etcd that was just copied");
    expect(&said, 0, &[&notice, "a directory of its own", &format!("  removed {own}")]);
    assert_eq!((there(&nodes.dir()).len(), said.stderr.matches("  kept homelab-").count()), (2, 1), "{}", said.stderr);
    assert!(std::fs::read(nodes.dir().join(other)).unwrap() == foreign);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_member_is_asked_where_one_gives_nothing_of_use() {
    let bytes = whole(200_000);
    let mut flipped = bytes.clone();
    flipped[7] ^= 1;
    let half = || pieces(&bytes[..100_000]);
    let bad = [
        (Says::Breaks(half()), "no answer"),
        (Says::Ends(half()), "no snapshot from b"),
        (Says::Ok(half()), "the digest at its end is not that of its content"),
        (Says::Ok(pieces(&flipped)), "the digest at its end is not that of its content"),
        (Says::Ok(Vec::new()), "cut short"),
        (Says::Status(half(), 2, "etcdserver: mvcc: database closed"), "database closed"),
        (Says::Status(Vec::new(), 14, "etcd is not running"), "not running"),
    ];
    let count = bad.len();
    for (says, words) in bad {
        let nodes = Nodes::new().await;
        nodes.says(1, says);
        nodes.gives(2, &bytes);
        let said = nodes.take(&[]);
        expect(&said, 0, &["notice: no snapshot from b: ", words, "by c, a follower", "not from b: "]);
        let names = there(&nodes.dir());
        assert_eq!((names.len(), nodes.asked()), (1, vec![0, 1, 1]), "{names:?}");
        // Nothing of the attempt before is in it.
        assert!(std::fs::read(nodes.dir().join(&names[0])).unwrap() == bytes, "{words}");
    }
    assert_eq!(count, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_gives_one_each_is_quoted_and_nothing_is_left() {
    let nodes = Nodes::new().await;
    let kept = "homelab-2026-11-01T020000Z.snapshot";
    std::fs::write(nodes.dir().join(kept), [0; 100]).unwrap();
    let refuses = || Says::Status(Vec::new(), 2, "etcdserver: too many requests");
    nodes.says(0, Says::Breaks(pieces(&whole(100_000)[..50_000])));
    nodes.says(1, refuses());
    nodes.says(2, refuses());
    let said = nodes.take(&["--keep", "1"]);
    let words = ["no control plane of Talos cluster `homelab` gave a snapshot", "caused by: b: ", "caused by: a: "];
    expect(&said, 1, &words);
    expect(&said, 1, &["too many requests", "`pvemig survey` shows"]);
    assert_eq!((said.stdout.as_str(), nodes.asked()), ("", vec![1, 1, 1]));
    assert_eq!(there(&nodes.dir()), [kept]);

    // The role lacks: no other node says anything else.
    let nodes = Nodes::new().await;
    nodes.says(1, Says::Status(Vec::new(), 7, "not authorized"));
    let said = nodes.take(&[]);
    expect(
        &said,
        1,
        &[
            "not allowed to os:admin",
            "the role os:etcd:backup",
            "config new etcd-backup.talosconfig --roles os:etcd:backup",
        ],
    );
    expect(&said, 1, &["talos.homelab.talosconfig"]);
    assert_eq!((there(&nodes.dir()).len(), nodes.asked()), (0, vec![0, 1, 0]));

    // Nor is a disk that takes no more another member's matter.
    for recipient in [&[][..], &["--recipient", "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa"]] {
        let nodes = Nodes::new().await;
        nodes.gives(1, &whole(300_000));
        std::fs::write(nodes.dir().join(kept), [0; 100]).unwrap();
        let line = [
            &["-c", "trap '' XFSZ; ulimit -f 100; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_pvemig")],
            &TAKE[..],
            recipient,
        ];
        let own = nodes.shell.command(&[]);
        let mut sh = std::process::Command::new("bash");
        sh.args(line.concat()).current_dir(nodes.shell.path()).envs(own.get_envs().filter_map(|(k, v)| Some((k, v?))));
        expect(&super::said(sh.output().unwrap()), 1, &["the snapshot cannot be written: File too large", "ulimit -f"]);
        assert_eq!((there(&nodes.dir()), nodes.asked()), (vec![kept.to_owned()], vec![0, 1, 0]));
    }

    // Where nothing can be written nobody is asked.
    let nodes = Nodes::new().await;
    for (to, code, words) in [
        ("nowhere", 2, ["there is no directory", "mkdir -p -m 700 nowhere"]),
        ("site.yaml", 2, ["site.yaml is no directory", "--to"]),
        ("/proc/self", 1, ["cannot be written to", "/proc/self"]),
    ] {
        expect(&nodes.shell.run(&["etcd", "snapshot", "--to", to]), code, &words);
    }
    assert!(nodes.fakes.iter().all(|fake| fake.asked().is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn learners_workers_and_lost_members_are_known_by_what_they_say() {
    let bytes = whole(1_000);
    let status = |fields: &[Vec<u8>]| Says::Ok(vec![msg(1, &[msg(2, fields)])]);
    let of = |nodes: &Nodes, at: usize, says: Says| nodes.fakes[at].instead("/machine.MachineService/EtcdStatus", says);
    // One learns, one is a worker: the leader is all that there is.
    let nodes = Nodes::new().await;
    of(&nodes, 1, status(&[num(4, 1), num(7, 5_000), num(9, 1), num(10, 2)]));
    of(&nodes, 2, Says::Status(Vec::new(), 12, "etcd is only available on control plane nodes"));
    nodes.gives(0, &bytes);
    let said = nodes.take(&[]);
    expect(&said, 0, &["by a, the leader", "not from b: its etcd is a learner"]);
    assert!(!said.stderr.contains("not from c"), "{}", said.stderr);

    // Nobody leads: a copy of what is there is better than none, and is said for what it is.
    let nodes = Nodes::new().await;
    for (at, applied) in [(0, 4_000), (1, 4_000), (2, 4_100)] {
        of(&nodes, at, status(&[num(6, 3), num(7, applied), num(10, at as u64 + 1), text(8, "etcdserver: no leader")]));
    }
    nodes.gives(2, &bytes);
    expect(&nodes.take(&[]), 0, &["notice: etcd has no leader", "by c, a voter without a leader, at raft index 4100"]);
    // It may be behind those that were taken before: none of them goes.
    nodes.gives(2, &bytes);
    expect(&nodes.take(&["--keep", "1"]), 0, &["no older snapshot is removed"]);

    // All are workers, by the site file.
    let nodes = Nodes::new().await;
    for at in 0..3 {
        of(&nodes, at, Says::Status(Vec::new(), 12, "etcd is only available on control plane nodes"));
    }
    expect(&nodes.take(&[]), 1, &["all its nodes in the site file are workers"]);

    // With another talosconfig no version is told, and none is made up.
    let nodes = Nodes::new().await;
    nodes.gives(1, &bytes);
    nodes.fakes[1].instead("/machine.MachineService/Version", Says::Status(Vec::new(), 7, "not authorized"));
    let said = nodes.take(&["--json"]);
    assert!(said.code == 0 && said.stdout.contains("\"talos-version\": null"), "{}{}", said.stdout, said.stderr);
}
