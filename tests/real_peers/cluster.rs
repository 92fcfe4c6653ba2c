//! Three members of a real etcd, as processes of their own.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use pvemig::base::wait::within;
use serde_json::Value;

use crate::guest::place::program;

pub(super) const NUC: &str = "talos-nuc";
pub(super) const VM: &str = "talos-vm";
pub(super) const MAC: &str = "talos-mac";
pub(super) const NODES: [&str; 3] = [NUC, VM, MAC];

pub(super) const LONG: Duration = Duration::from_secs(90);

/// One process of etcd, and where it listens.
pub(super) struct Etcd {
    process: Option<Child>,
    pub(super) clients: SocketAddr,
    pub(super) peers: SocketAddr,
}

impl Etcd {
    pub(super) fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ended = process.kill();
            process.wait().unwrap();
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(super) struct Cluster {
    pub(super) members: BTreeMap<&'static str, Etcd>,
    dir: tempfile::TempDir,
    web: reqwest::Client,
}

impl Cluster {
    pub(super) fn start() -> Self {
        pvemig::base::tls::init();
        // All are held at once, so that none is given out twice.
        let held: Vec<TcpListener> = (0..6).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<SocketAddr> = held.iter().map(|port| port.local_addr().unwrap()).collect();
        drop(held);
        let member = |(number, name): (usize, &&'static str)| {
            (*name, Etcd { process: None, clients: ports[2 * number], peers: ports[2 * number + 1] })
        };
        let members = NODES.iter().enumerate().map(member).collect();
        let web = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut cluster = Self { members, dir: tempfile::tempdir().unwrap(), web };
        for name in NODES {
            cluster.spawn(name, "new", &NODES);
        }
        cluster
    }

    /// Starts a member with an empty directory.
    pub(super) fn spawn(&mut self, name: &'static str, state: &str, with: &[&str]) {
        let data = self.dir.path().join(format!("{name}-{state}"));
        let peers = |name: &&str| format!("{name}=http://{}", self.members[name].peers);
        let all = with.iter().map(peers).collect::<Vec<_>>().join(",");
        let [clients, peers] = [self.members[name].clients, self.members[name].peers].map(|at| format!("http://{at}"));
        let mut etcd = program("etcd");
        etcd.args([
            "--name",
            name,
            "--initial-cluster",
            &all,
            "--initial-cluster-state",
            if state == "restored" { "existing" } else { state },
            "--logger",
            "zap",
        ])
        .args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients])
        .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
        .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
        .arg("--data-dir")
        .arg(&data)
        .arg("--log-outputs")
        .arg(data.with_extension("log"));
        let process = etcd.spawn().expect("this test needs the packages etcd-server and etcd-client");
        self.members.get_mut(name).unwrap().process = Some(process);
    }

    /// A call of etcd's own JSON gateway.
    pub(super) async fn ask(&self, name: &str, call: &str, body: Value) -> Value {
        self.try_ask(name, call, body).await.unwrap()
    }

    /// The same of a member that may not be up yet.
    pub(super) async fn try_ask(&self, name: &str, call: &str, body: Value) -> Option<Value> {
        let url = format!("http://{}/v3/{call}", self.members[name].clients);
        let answer = self.web.post(url).body(body.to_string()).send().await.ok()?;
        serde_json::from_slice(&answer.bytes().await.ok()?).ok()
    }

    /// Which etcd it is.
    pub(super) async fn version(&self, name: &str) -> String {
        let answer = self.web.get(format!("http://{}/version", self.members[name].clients)).send().await.unwrap();
        let said: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        said["etcdserver"].as_str().unwrap().to_owned()
    }

    /// The file in which a member that began with the cluster has its data.
    pub(super) fn file_of(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(format!("{name}-new/member/snap/db"))
    }

    /// Ends all members, and begins one alone with the data of a snapshot; what etcdctl said of it.
    pub(super) fn restored(&mut self, name: &'static str, file: &Path) -> std::process::Output {
        self.restored_with(name, file, &[])
    }

    /// The same, said differently.
    pub(super) fn restored_with(&mut self, name: &'static str, file: &Path, more: &[&str]) -> std::process::Output {
        self.members.values_mut().for_each(Etcd::stop);
        let peers = format!("http://{}", self.members[name].peers);
        let data = self.dir.path().join(format!("{name}-restored"));
        let mut ctl = program("etcdctl");
        ctl.env("ETCDCTL_API", "3").args(["snapshot", "restore"]).arg(file).arg("--data-dir").arg(data);
        ctl.args([
            "--name",
            name,
            "--initial-cluster",
            &format!("{name}={peers}"),
            "--initial-advertise-peer-urls",
            &peers,
        ])
        .args(more);
        let said = ctl.output().expect("this test needs the package etcd-client");
        self.spawn(name, "restored", &[name]);
        said
    }
}

/// Asks until it is so. A real one lives in real time.
pub(super) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asked = async {
        loop {
            match ask().await {
                Some(answer) => return answer,
                None => tokio::task::yield_now().await,
            }
        }
    };
    within(LONG, asked).await.unwrap_or_else(|_| panic!("{what}"))
}
