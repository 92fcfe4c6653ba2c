//! A lab, the relays before it, and the program against them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pvemig::lab::{self, Lab, LabOptions, World};
use serde_json::{Value, json};

use crate::wire::{Wire, relay};

/// Lab seconds in a real one, where nothing else is wanted.
pub(crate) const SPEED: u32 = 100;

/// The world that everything begins with.
pub(crate) fn world() -> World {
    lab::load("usb-move").unwrap()
}

/// Where the stick is to go.
pub(crate) fn target() -> lab::Place {
    lab::Place { host: "still-fawn".into(), port: "2-3".into() }
}

/// A lab, the relays before it, and a site file that goes through them.
pub(crate) struct Bed {
    pub(crate) lab: Lab,
    dir: tempfile::TempDir,
    pub(crate) wire: Arc<Wire>,
}

/// What one process took.
#[derive(Debug, Clone)]
pub(crate) struct Took {
    pub(crate) wall: Duration,
    /// In which at least one answer was outstanding.
    pub(crate) waited: Duration,
    pub(crate) requests: usize,
    pub(crate) connections: usize,
    /// Both ways, as they pass the relays: with TLS and everything.
    pub(crate) bytes: usize,
}

impl Bed {
    /// `round` is added to every exchange; `speed` lab seconds pass in one.
    pub(crate) async fn new(world: World, speed: u32, round: Duration, edit: impl FnOnce(&mut Value)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let lab = Lab::start(LabOptions { world, dir: dir.path().join("lab"), speed }).await.unwrap();
        let bed = Self { lab, dir, wire: Arc::default() };
        let site: Value = serde_saphyr::from_str(&bed.read("site.yaml")).unwrap();
        let (mut site, mut hosts, mut config) = (site, bed.read("known_hosts"), bed.read("kubeconfig"));
        let proxmox: SocketAddr = bed.lab.reach().proxmox.address;
        let through = relay(bed.wire.clone(), proxmox, round).await;
        site["proxmox"]["home"]["urls"] = json!([format!("https://{through}")]);
        let server =
            config.split("server: https://").nth(1).unwrap().lines().next().unwrap().trim_matches('"').to_owned();
        let through = relay(bed.wire.clone(), server.parse().unwrap(), round).await;
        config = config.replace(&server, &through.to_string());
        for port in ports(&mut site) {
            let old = port.as_u64().unwrap();
            let address = SocketAddr::from(([127, 0, 0, 1], u16::try_from(old).unwrap()));
            let through = relay(bed.wire.clone(), address, round).await;
            hosts = hosts.replace(&format!("]:{old} "), &format!("]:{} ", through.port()));
            *port = json!(through.port());
        }
        for node in talos_nodes(&mut site) {
            let address: SocketAddr = node["address"].as_str().unwrap().parse().unwrap();
            node["address"] = json!(relay(bed.wire.clone(), address, round).await.to_string());
        }
        edit(&mut site);
        bed.write("site.yaml", &serde_saphyr::to_string(&site).unwrap());
        bed.write("known_hosts", &hosts);
        bed.write("kubeconfig", &config);
        bed
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join("lab").join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.at(name)).unwrap()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.at(name), text).unwrap();
    }

    /// The program with these arguments, the lab's site file and its state.
    pub(crate) fn command(&self, args: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_pvemig"));
        command.args(args).args(["--site".as_ref(), self.at("site.yaml").as_os_str()]);
        command.args(["--state".as_ref(), self.at("state").as_os_str()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> usize {
        self.lab.shared().log.seen().len()
    }

    /// Runs a process to its end and measures it.
    pub(crate) async fn time(&self, mut command: tokio::process::Command) -> Took {
        self.wire.clear();
        let before = self.requests();
        let begun = Instant::now();
        let output = command.output().await.unwrap();
        let wall = begun.elapsed();
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        Took {
            wall,
            waited: self.wire.waited(begun, begun + wall),
            requests: self.requests() - before,
            connections: self.wire.connections(),
            bytes: self.wire.bytes(),
        }
    }

    /// Runs the program to its end.
    pub(crate) async fn run(&self, args: &[&str]) -> Took {
        self.time(self.command(args)).await
    }

    /// The whole migration, with somebody who moves the stick when it is time.
    pub(crate) async fn migrate(&self) {
        let done = self.command(&["run", "frigate-coral", "--yes", "--wait=10m"]).output();
        let plug = async {
            self.freed().await;
            self.lab.move_stick("coral", Some(target())).unwrap();
        };
        let (done, ()) = tokio::join!(done, plug);
        let done = done.unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// Waits until the source has let go of the stick, or will with its next start.
    pub(crate) async fn freed(&self) {
        let free = |world: &World| {
            let vm = &world.vms[&105];
            let held = vm.config.keys().any(|key| key.starts_with("usb") && !vm.pending_delete.contains_key(key));
            (!held).then_some(())
        };
        self.lab.shared().until(Duration::from_secs(100_000), free).await.unwrap();
    }
}

/// Every Talos node of a site file.
fn talos_nodes(site: &mut Value) -> Vec<&mut Value> {
    let clusters = site.get_mut("talos").and_then(Value::as_object_mut).into_iter().flat_map(|map| map.values_mut());
    clusters.flat_map(|cluster| cluster["nodes"].as_object_mut().unwrap().values_mut()).collect()
}

/// Every port of an ssh server in a site file.
fn ports(value: &mut Value) -> Vec<&mut Value> {
    match value {
        Value::Object(map) => {
            let server = map.contains_key("known_hosts");
            map.iter_mut()
                .flat_map(|(key, value)| if server && key == "port" { vec![value] } else { ports(value) })
                .collect()
        }
        Value::Array(list) => list.iter_mut().flat_map(ports).collect(),
        _ => Vec::new(),
    }
}

/// Milliseconds.
pub(crate) fn ms(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64() * 1_000.0)
}

/// How a judgement is printed.
pub(crate) fn yes(so: bool) -> &'static str {
    if so { "yes" } else { "no" }
}

/// How many times as much.
pub(crate) fn times_as(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64()
}

/// The one in the middle, by wall time.
pub(crate) fn median(mut took: Vec<Took>) -> Took {
    took.sort_by_key(|took| took.wall);
    took.swap_remove(took.len() / 2)
}

/// Least, middle and most.
pub(crate) fn spread(mut all: Vec<Duration>) -> (Duration, Duration, Duration) {
    all.sort();
    (all[0], all[all.len() / 2], all[all.len() - 1])
}
