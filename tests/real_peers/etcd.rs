//! Three real members of etcd behind the lab's Talos front, beside its model of etcd: the client sees the same of both.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use pvemig::base::clock::Clock;
use pvemig::base::permit::{Notebook, Permit};
use pvemig::lab::talos::etcd::Member;
use pvemig::lab::{Lab, LabOptions, load};
use pvemig::talos::{Error, EtcdMember, EtcdStatus, Limits, Node, Talos, Talosconfig};
use serde_json::{Value, json};

use super::cluster::{Cluster, LONG, MAC, NODES, NUC, VM, until};
use crate::guest::place::program;

const LIMITS: Limits = Limits { connect: LONG, read: LONG, change: LONG, image: LONG, snapshot: LONG };

/// A lab whose etcd is real, or its model.
struct Bench {
    lab: Lab,
    nodes: BTreeMap<&'static str, Talos>,
    permit: Permit,
    real: Option<Cluster>,
    dir: tempfile::TempDir,
}

impl Bench {
    async fn start(real: Option<Cluster>) -> Self {
        let mut world = load("talos-three").unwrap();
        for (name, etcd) in real.iter().flat_map(|cluster| &cluster.members) {
            world.talos.nodes.get_mut(*name).unwrap().etcd_at = Some(etcd.clients);
        }
        let dir = tempfile::tempdir().unwrap();
        let lab = Lab::start(LabOptions { world, dir: dir.path().join("lab"), speed: 100 }).await.unwrap();
        let context = Talosconfig::read(&lab.dir().join("talosconfig")).unwrap().context(None).unwrap();
        let node = |name: &'static str| {
            let address = lab.reach().talos.nodes[name].to_string();
            let node = Node { name: name.into(), address, tls_name: None };
            (name, Talos::connect(node, &context, Clock::fast(100)).unwrap().limits(LIMITS))
        };
        let nodes = NODES.into_iter().map(node).collect();
        Self { nodes, lab, permit: Permit::mint(Arc::new(Notebook::default())), real, dir }
    }

    /// Ends the etcd of a node, as a kill does.
    fn stop(&mut self, name: &'static str) {
        match &mut self.real {
            Some(cluster) => cluster.members.get_mut(name).unwrap().stop(),
            None => self.left(name, true),
        }
    }

    fn left(&self, name: &str, left: bool) {
        self.lab.shared().change(|w| w.talos.nodes.get_mut(name).unwrap().run.as_mut().unwrap().left_etcd = left);
    }

    /// Adds a member that has no vote and does not run yet.
    async fn add_learner(&self, name: &str) {
        match &self.real {
            Some(cluster) => {
                let urls = [format!("http://{}", cluster.members[name].peers)];
                let body = json!({ "peerURLs": urls, "isLearner": true });
                // Only once the others have been connected for five seconds.
                let added = until("it may be added", async || {
                    let said = cluster.ask(NUC, "cluster/member/add", body.clone()).await;
                    assert!(said["member"].is_object() || said["message"] == "etcdserver: unhealthy cluster", "{said}");
                    Some(said).filter(|said| said["member"].is_object())
                });
                assert_eq!(added.await["member"]["isLearner"], true);
                let second = json!({ "peerURLs": ["http://127.0.0.1:1"], "isLearner": true });
                let second = cluster.ask(NUC, "cluster/member/add", second).await;
                // One at a time, as the model has it.
                assert_eq!(second["message"], "etcdserver: too many learner members in cluster");
            }
            None => self.lab.shared().change(|w| {
                w.talos.etcd.members.push(Member { id: 7, learner: true, lags: true, ..Member::default() });
            }),
        }
    }

    fn start_learner(&mut self, name: &'static str) {
        match &mut self.real {
            Some(cluster) => cluster.spawn(name, "existing", &NODES),
            None => {
                self.lab.shared().change(|w| {
                    w.talos.etcd.members.last_mut().unwrap().name = name.into();
                    w.talos.nodes.get_mut(name).unwrap().member = Some(7);
                });
                self.left(name, false);
            }
        }
    }

    async fn alarm(&self, member: &EtcdMember, raised: bool) {
        match &self.real {
            Some(cluster) => {
                let action = if raised { "ACTIVATE" } else { "DEACTIVATE" };
                let body = json!({ "action": action, "memberID": member.id.to_string(), "alarm": "NOSPACE" });
                let said = cluster.ask(NUC, "maintenance/alarm", body).await;
                assert_eq!(said["alarms"][0]["alarm"], "NOSPACE", "{said}");
            }
            None => self.lab.shared().change(|w| {
                let alarm = raised.then(|| "NOSPACE".to_owned());
                w.talos.etcd.members.iter_mut().find(|m| m.id == member.id).unwrap().alarm = alarm;
            }),
        }
    }

    async fn status(&self, name: &str) -> EtcdStatus {
        self.nodes[name].etcd_status().await.unwrap()
    }

    /// Members by name.
    async fn members(&self, name: &str, local: bool) -> BTreeMap<String, EtcdMember> {
        let all = self.nodes[name].etcd_members(local).await.unwrap();
        all.into_iter().map(|member| (member.hostname.clone(), member)).collect()
    }

    /// Who leads, as a node has it; None: nobody.
    async fn leader(&self, name: &str) -> Option<u64> {
        Some(self.status(name).await.leader).filter(|id| *id != 0)
    }

    async fn remove(&self, member: &EtcdMember) -> Result<(), Error> {
        self.nodes[NUC].etcd_remove(&self.permit, member).await
    }
}

/// An error without the place that it comes from, and without ids.
fn words<T: std::fmt::Debug>(said: Result<T, Error>) -> String {
    let text = said.unwrap_err().to_string();
    let text = text.split_once("): ").map_or(text.as_str(), |(_, words)| words);
    let digits = |word: &str| word.len() > 9 && word.trim_end_matches(':').bytes().all(|b| b.is_ascii_digit());
    text.split(' ').map(|word| if digits(word) { "ID:" } else { word }).collect::<Vec<_>>().join(" ")
}

/// What the client is told, in the order of an unhappy day.
async fn told(b: &mut Bench) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    // Each of them learns at its own time where the others are.
    for name in NODES {
        let known = |all: &Vec<EtcdMember>| all.len() == 3 && all.iter().all(|m| !m.client_urls.is_empty());
        until("all are known", async || b.nodes[name].etcd_members(true).await.ok().filter(known)).await;
    }
    let all = b.members(NUC, true).await;
    for name in NODES {
        assert_eq!(b.members(name, true).await, all);
        assert_eq!(b.members(name, false).await, all);
        let status = b.status(name).await;
        assert!(
            status.member == all[name].id
                && status.size >= status.size_in_use
                && status.raft_index >= status.raft_applied,
            "{status:?}"
        );
    }
    out.push(
        all.values()
            .map(|m| format!("{} {}", m.name(), if m.is_learner { "learns" } else { "votes" }))
            .collect::<Vec<_>>()
            .join(", "),
    );

    // The leadership moves away, and stays where it is when one that has it not gives it up.
    let led = until("it is led", async || b.leader(NUC).await).await;
    let leader = *NODES.iter().find(|name| all[**name].id == led).unwrap();
    let other = *NODES.iter().find(|name| **name != leader).unwrap();
    assert_eq!(b.nodes[other].etcd_forfeit(&b.permit).await.unwrap(), None);
    let next = b.nodes[leader].etcd_forfeit(&b.permit).await.unwrap().unwrap();
    assert!(next != leader && all.contains_key(&next), "{next}");
    until("it has moved", async || b.leader(leader).await.filter(|id| *id == all[&next].id)).await;
    out.push("the leadership moved".into());

    assert_eq!(b.nodes[MAC].etcd_alarms().await.unwrap(), []);
    b.alarm(&all[VM], true).await;
    let alarms = b.nodes[MAC].etcd_alarms().await.unwrap();
    out.extend(alarms.iter().map(|a| format!("{} {}", if a.member == all[VM].id { VM } else { "?" }, a.alarm)));
    let raised =
        until("the others know", async || Some(b.status(MAC).await.errors).filter(|errors| !errors.is_empty())).await;
    out.extend(raised.iter().map(|error| error.replace(&all[VM].id.to_string(), VM)));
    b.alarm(&all[VM], false).await;
    until("the others know", async || b.status(MAC).await.errors.is_empty().then_some(())).await;

    // One of three is down: the others cannot be spared, and it can.
    b.stop(VM);
    until("the rest is led", async || b.leader(NUC).await.filter(|id| *id != all[VM].id)).await;
    assert_eq!(b.members(NUC, true).await.len(), 3);
    out.push(words(b.remove(&all[MAC]).await));
    until("it is gone", async || b.remove(&all[VM]).await.ok()).await;
    // Gone is gone.
    b.remove(&all[VM]).await.unwrap();
    out.push(format!("{:?}", b.members(NUC, false).await.keys().collect::<Vec<_>>()));
    out.push(words(b.nodes[VM].etcd_status().await));

    // It comes back without a vote.
    b.add_learner(VM).await;
    let unstarted = b.members(NUC, true).await[""].clone();
    assert!(unstarted.is_unstarted() && unstarted.is_learner && unstarted.client_urls.is_empty());
    b.start_learner(VM);
    until("it has started", async || b.members(NUC, true).await.contains_key(VM).then_some(())).await;
    let status = until("it learns", async || b.nodes[VM].etcd_status().await.ok()).await;
    let learner = b.members(NUC, true).await[VM].clone();
    assert!(learner.is_learner && status.is_learner && status.member == learner.id && learner.id == unstarted.id);
    out.push(words(b.nodes[VM].etcd_members(true).await));
    out.push(words(b.nodes[VM].etcd_alarms().await));
    out.push(words(b.nodes[VM].etcd_snapshot(&b.dir.path().join("none")).await));
    b.remove(&learner).await.unwrap();
    out.push(format!("{:?}", b.members(NUC, true).await.keys().collect::<Vec<_>>()));

    // Of two voters one is down.
    b.stop(MAC);
    until("nobody leads", async || b.leader(NUC).await.is_none().then_some(())).await;
    out.extend(b.status(NUC).await.errors);
    out.push(words(b.nodes[NUC].etcd_members(true).await));
    out.push(words(b.nodes[NUC].etcd_members(false).await));
    out.push(words(b.nodes[NUC].etcd_alarms().await));
    out.push(words(b.remove(&all[MAC]).await));
    out.push(words(b.nodes[NUC].etcd_forfeit(&b.permit).await));
    let snapshot = b.nodes[NUC].etcd_snapshot(&b.dir.path().join("snapshot.db")).await.unwrap();
    assert!(snapshot.size > 32 << 9, "{snapshot:?}");
    out.push("a snapshot".into());
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_etcd_says_what_the_model_says() {
    let mut model = Bench::start(None).await;
    let modelled = told(&mut model).await;
    let mut real = Bench::start(Some(Cluster::start())).await;
    let said = told(&mut real).await;
    assert_eq!(
        said,
        [
            "talos-mac votes, talos-nuc votes, talos-vm votes",
            "the leadership moved",
            "talos-vm NOSPACE",
            "memberID:talos-vm alarm:NOSPACE ",
            "Unknown: failed to remove member: failed to remove member ID: etcdserver: unhealthy cluster",
            "[\"talos-mac\", \"talos-nuc\"]",
            "it gave up: DeadlineExceeded: failed to create etcd client: error building etcd client: context deadline exceeded",
            "Unknown: etcdserver: rpc not supported for learner",
            "Unknown: failed to list etcd alarms: etcdserver: rpc not supported for learner",
            "Unknown: etcdserver: rpc not supported for learner",
            "[\"talos-mac\", \"talos-nuc\"]",
            "etcdserver: no leader",
            "Unknown: etcdserver: no leader",
            "Unknown: etcdserver: no leader",
            "Unknown: failed to list etcd alarms: context deadline exceeded",
            // Who shares a name with whom is asked before: where nobody leads, nothing is sent.
            "Unknown: etcdserver: no leader",
            "Unknown: failed to forfeit leadership: failed to list etcd members: etcdserver: no leader",
            "a snapshot",
        ]
    );
    assert_eq!(modelled, said);

    // What we took for a whole snapshot is one for etcd, and what we would not take is none.
    let file = real.dir.path().join("snapshot.db");
    let restored = |file: &Path, to: &str| {
        let mut ctl = program("etcdctl");
        ctl.env("ETCDCTL_API", "3").args(["snapshot", "restore"]).arg(file);
        ctl.arg("--data-dir").arg(real.dir.path().join(to)).output().expect("this test needs the package etcd-client")
    };
    let mut ctl = program("etcdctl");
    let status = ctl.env("ETCDCTL_API", "3").args(["snapshot", "status", "-w", "json"]).arg(&file).output().unwrap();
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert!(status["totalSize"].as_u64().unwrap() > 0 && status["hash"].as_u64().unwrap() > 0, "{status}");
    assert!(restored(&file, "restored").status.success());
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let other = real.dir.path().join("other.db");
    std::fs::write(&other, bytes).unwrap();
    let refused = restored(&other, "not-restored");
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && text.contains("sha256"), "{text}");
}
