//! How long things take, as ratios to what the wire alone costs in the same run: `cargo bench --bench speed`.
//!
//! The program runs as a process against a lab in this one. Every connection goes through a relay that adds a round
//! trip, so a handshake costs what it costs there. Without `--bench` (as `cargo test --benches` runs it) each
//! measurement is made once and without a round trip.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark measures, spawns, and says what it saw"
)]

mod wire;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pvemig::lab::{self, Lab, LabOptions, World};
use serde_json::{Value, json};
use wire::{Wire, relay};

/// Lab seconds in a real one.
const SPEED: u32 = 100;

/// A lab, the relays before it, and a site file that goes through them.
struct Bed {
    lab: Lab,
    dir: tempfile::TempDir,
    wire: Arc<Wire>,
}

impl Bed {
    async fn new(world: World, round: Duration, edit: impl FnOnce(&mut Value)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let lab = Lab::start(LabOptions { world, dir: dir.path().join("lab"), speed: SPEED }).await.unwrap();
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
        edit(&mut site);
        bed.write("site.yaml", &serde_saphyr::to_string(&site).unwrap());
        bed.write("known_hosts", &hosts);
        bed.write("kubeconfig", &config);
        bed
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join("lab").join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.at(name)).unwrap()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.at(name), text).unwrap();
    }

    fn command(&self, args: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_pvemig"));
        command.args(args).args(["--site".as_ref(), self.at("site.yaml").as_os_str()]);
        command.args(["--state".as_ref(), self.at("state").as_os_str()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// Runs it to its end; how long that took, what was waited for, requests and connections.
    async fn run(&self, args: &[&str]) -> Took {
        self.wire.clear();
        let before = self.lab.shared().log.seen().len();
        let begun = Instant::now();
        let output = self.command(args).output().await.unwrap();
        let wall = begun.elapsed();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        let requests = self.lab.shared().log.seen().len() - before;
        Took { wall, waited: self.wire.waited(), requests, connections: self.wire.connections() }
    }

    /// The whole migration, with somebody who moves the stick when it is time.
    async fn migrate(&self) {
        let done = self.command(&["run", "frigate-coral", "--yes", "--wait=10m"]).output();
        let plug = async {
            let free = |world: &World| {
                let given = world.vms[&105].config.keys().any(|key| key.starts_with("usb"));
                (!given).then_some(())
            };
            self.lab.shared().until(Duration::from_secs(100_000), free).await.unwrap();
            let place = lab::Place { host: "still-fawn".into(), port: "2-3".into() };
            self.lab.move_stick("coral", Some(place)).unwrap();
        };
        let (done, ()) = tokio::join!(done, plug);
        let done = done.unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
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

/// What one process took.
struct Took {
    wall: Duration,
    waited: Duration,
    requests: usize,
    connections: usize,
}

fn ms(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64() * 1_000.0)
}

/// The one in the middle, by wall time.
fn median(mut took: Vec<Took>) -> Took {
    took.sort_by_key(|took| took.wall);
    took.swap_remove(took.len() / 2)
}

async fn second_run(rounds: &[u64], times: usize) {
    println!("\na second run with nothing to do (18 steps)");
    println!(
        "{:>8} {:>10} {:>9} {:>12} {:>10} {:>12} {:>6}",
        "rtt ms", "guest by", "wall ms", "waited ms", "requests", "connections", "ratio"
    );
    let mut lines = 0;
    for &round in rounds {
        for access in ["ssh", "agent"] {
            let edit = |site: &mut Value| {
                for node in site["nodes"].as_object_mut().unwrap().values_mut() {
                    node["access"] = json!([access]);
                }
            };
            let bed = Bed::new(lab::load("usb-move").unwrap(), Duration::from_millis(round), edit).await;
            bed.migrate().await;
            let mut all = Vec::new();
            for _ in 0..times {
                all.push(bed.run(&["run", "frigate-coral", "--yes"]).await);
            }
            let took = median(all);
            let ratio = took.wall.as_secs_f64() / took.waited.as_secs_f64();
            println!(
                "{round:>8} {access:>10} {:>9} {:>12} {:>10} {:>12} {ratio:>6.2}",
                ms(took.wall),
                ms(took.waited),
                took.requests,
                took.connections
            );
            assert!(took.requests > 20 && took.connections > 2);
            lines += 1;
            if access == "ssh" {
                let script = script(&bed, times).await;
                let times = script.wall.as_secs_f64() / took.wall.as_secs_f64();
                println!(
                    "{round:>8} {:>10} {:>9} {:>12} {:>10} {:>12}        {times:.1} times as long",
                    "(script)",
                    ms(script.wall),
                    ms(script.waited),
                    script.requests,
                    script.connections
                );
            }
        }
    }
    assert_eq!(lines, rounds.len() * 2);
}

/// The same twelve steps looked at by `benches/peers/usb-move.sh`.
async fn script(bed: &Bed, times: usize) -> Took {
    let url = bed.read("site.yaml").split("https://").nth(1).unwrap().lines().next().unwrap().to_owned();
    let env: String = bed
        .read("env")
        .lines()
        .map(
            |line| {
                if line.starts_with("PVE_URL=") { format!("PVE_URL='https://{url}'\n") } else { format!("{line}\n") }
            },
        )
        .collect();
    bed.write("env", &env);
    let site: Value = serde_saphyr::from_str(&bed.read("site.yaml")).unwrap();
    let port = site["nodes"]["k3s-vm-still-fawn"]["ssh"]["port"].to_string();
    let mut all = Vec::new();
    for _ in 0..times {
        bed.wire.clear();
        let before = bed.lab.shared().log.seen().len();
        let begun = Instant::now();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/usb-move.sh");
        let output =
            tokio::process::Command::new(script).arg(bed.at("")).env("GUEST_PORT", &port).output().await.unwrap();
        let wall = begun.elapsed();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let requests = bed.lab.shared().log.seen().len() - before;
        all.push(Took { wall, waited: bed.wire.waited(), requests, connections: bed.wire.connections() });
    }
    median(all)
}

/// From the process's start to the first request after a kill.
async fn resume(times: usize) {
    println!("\nkilled before its last step, and resumed: process start to the first request");
    let mut firsts = Vec::new();
    for _ in 0..times {
        let bed = Bed::new(lab::load("usb-move").unwrap(), Duration::ZERO, |_| {}).await;
        let mut run =
            bed.command(&["run", "frigate-coral", "--yes", "--wait=10m"]).stderr(Stdio::null()).spawn().unwrap();
        let near = |world: &World| (!world.vms[&105].config.keys().any(|key| key.starts_with("usb"))).then_some(());
        bed.lab.shared().until(Duration::from_secs(100_000), near).await.unwrap();
        run.kill().await.unwrap();
        let place = lab::Place { host: "still-fawn".into(), port: "2-3".into() };
        bed.lab.move_stick("coral", Some(place)).unwrap();
        let before = bed.lab.shared().log.seen().len();
        let begun = Instant::now();
        let mut child = bed.command(&["resume"]).stderr(Stdio::null()).spawn().unwrap();
        let lab = bed.lab.shared().clone();
        let first = tokio::task::spawn_blocking(move || {
            while lab.log.seen().len() == before {
                std::thread::sleep(Duration::from_micros(100));
            }
            begun.elapsed()
        });
        firsts.push(first.await.unwrap());
        assert!(child.wait().await.unwrap().success());
    }
    firsts.sort();
    println!("{} ms (median of {times}, {} to {})", ms(firsts[times / 2]), ms(firsts[0]), ms(firsts[times - 1]));
}

fn durable_writes(dir: &Path) {
    println!("\ndurable writes of a whole run");
    let journals = std::fs::read_dir(dir.join("homelab/runs")).unwrap();
    for journal in journals.map(|entry| entry.unwrap().path().join("journal.jsonl")) {
        let text = std::fs::read_to_string(journal).unwrap();
        let (mut durable, mut calls, mut steps) = (0_usize, 0_usize, 0_usize);
        for line in text.lines() {
            let is = |name: &str| line.contains(&format!("\"is\":\"{name}\""));
            durable += usize::from(!["checked", "already-so", "asked"].iter().any(|name| is(name)));
            calls += usize::from(is("call"));
            steps += usize::from(is("applied"));
        }
        let most = 2 * calls + 2 * steps;
        println!("{durable} durable lines, {calls} calls, {steps} applied steps: at most {most}");
        assert!(calls > 10 && durable <= most + 2, "{durable} > {most}");
    }
}

fn version(times: usize) {
    let mut took: Vec<Duration> = (0..times)
        .map(|_| {
            let begun = Instant::now();
            assert!(
                Command::new(env!("CARGO_BIN_EXE_pvemig"))
                    .arg("--version")
                    .stdout(Stdio::null())
                    .status()
                    .unwrap()
                    .success()
            );
            begun.elapsed()
        })
        .collect();
    took.sort();
    println!("\n`pvemig --version`: {} ms (median of {times})", ms(took[times / 2]));
}

#[tokio::main]
async fn main() {
    let (rounds, times): (&[u64], usize) =
        if std::env::args().any(|arg| arg == "--bench") { (&[0, 1, 20], 7) } else { (&[0], 1) };
    version(times * 3);
    second_run(rounds, times).await;
    resume(times).await;
    let bed = Bed::new(lab::load("usb-move").unwrap(), Duration::ZERO, |_| {}).await;
    bed.migrate().await;
    durable_writes(&bed.at("state"));
}
