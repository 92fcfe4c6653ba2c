//! From something that happens by itself to the next request that goes on from there: runs in real time, each with its
//! events at another phase of the looking.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use pvemig::lab::clock::LabTime;
use pvemig::lab::kube::kinds;
use pvemig::lab::{self, Shared, World};
use serde_json::Value;

use crate::Scale;
use crate::bed::{Bed, ms, target};

/// What is waited for.
const TASK: &str = "a pve task ends";
const EVICTED: &str = "an evicted pod is gone";
const READY: &str = "a node is Ready again";
const STICK: &str = "the stick arrives";
const EVENTS: [&str; 4] = [TASK, EVICTED, READY, STICK];

/// The pod that is evicted, by the beginning of its name, and what keeps it until its time.
const POD: &str = "mosquitto-";
const KEEPER: &str = "bench/keeps";
/// Longer than the longest pause between two looks and the look itself: what was asked within it before an event is
/// part of the looking.
const WINDOW: Duration = Duration::from_secs(6);
/// Mean delay of a look every second, as the common tools have it.
const ANCHOR: &str = "500.0";

pub(crate) async fn measure(scale: Scale) {
    // In small the lab runs ahead, and only that there are samples means something.
    let (runs, speed) = if scale.whole { (7, 1) } else { (1, 20) };
    println!(
        "\ndelay: from an event in the world to the next request that goes on from there ({runs} whole runs at once)"
    );
    let samples = futures::future::join_all((0..runs).map(|phase| run(phase, speed))).await;
    let mut all = BTreeMap::<&str, Vec<Duration>>::new();
    for (event, delay) in samples.into_iter().flatten() {
        all.entry(event).or_default().push(delay);
    }
    println!(
        "{:>24} {:>8} {:>9} {:>9} {:>9} {:>9} {:>20}",
        "", "samples", "min ms", "median ms", "mean ms", "max ms", "mean of a 1 s poll"
    );
    for event in EVENTS {
        let mut delays = all.remove(event).unwrap_or_default();
        assert!(delays.len() >= runs, "{event}: {} samples", delays.len());
        delays.sort();
        let (count, sum) = (delays.len(), delays.iter().sum::<Duration>());
        let mean = sum / u32::try_from(count).unwrap();
        let shown = |delay: Duration| if scale.whole { ms(delay) } else { "-".to_owned() };
        println!(
            "{event:>24} {count:>8} {:>9} {:>9} {:>9} {:>9} {ANCHOR:>20}",
            shown(delays[0]),
            shown(delays[count / 2]),
            shown(mean),
            shown(delays[count - 1])
        );
    }
}

/// A whole run at one phase: what happened in it, and how long the program took to go on.
async fn run(phase: usize, speed: u32) -> Vec<(&'static str, Duration)> {
    let step = u64::try_from(phase).unwrap();
    // On its machine types the target has to be rebooted, so there is all of it: a drain, pve tasks, a node that is away.
    let mut world = lab::load("usb-move-old").unwrap();
    world.timing.process += 130 * step;
    world.timing.shutdown += 410 * step;
    world.timing.restart += 290 * step;
    world.timing.boot += 370 * step;
    let bed = Bed::new(world, speed, Duration::ZERO, |_| {}).await;
    let shared = bed.lab.shared().clone();
    shared.change(|world| keep(world, true));
    let watch = tokio::spawn(watch(shared.clone()));
    let command = bed.command(&["run", "frigate-coral", "--yes", "--wait=10m"]).stderr(Stdio::piped()).output();
    let hands = async {
        bed.freed().await;
        shared.clock.pause(Duration::from_millis(3_000 + 530 * step)).await;
        bed.lab.move_stick("coral", Some(target())).unwrap();
        let arrived = Happened { event: STICK, at: shared.clock.now(), task: None };
        let going = |world: &World| pods(world).find(|pod| evicted(pod)).map(|_| ());
        shared.until(Duration::from_secs(100_000), going).await.unwrap();
        shared.clock.pause(Duration::from_millis(2_500 + 610 * step)).await;
        shared.change(|world| keep(world, false));
        arrived
    };
    let told = |done: std::io::Result<std::process::Output>| {
        let done = done.unwrap();
        (done.status.success(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    tokio::pin!(command);
    let arrived = tokio::select! {
        arrived = hands => Ok(arrived),
        done = &mut command => Err(format!("the run ended before its events: {}", told(done).1)),
    };
    let arrived = arrived.unwrap();
    let (well, stderr) = told(command.await);
    assert!(well, "{stderr}");
    shared.change(|world| world.name = OVER.to_owned());
    let mut events = watch.await.unwrap();
    events.push(arrived);
    let log = requests(&bed);
    // A pve task that nobody asks for is nobody's to go on from.
    let asked = |upid: &str| log.iter().any(|(_, what, _)| what.contains(upid));
    // Up to the user's name, which a path may write in other signs.
    events.retain(|it| it.task.as_ref().is_none_or(|upid| asked(upid.split('@').next().unwrap())));
    events.into_iter().filter_map(|it| Some((it.event, after(&log, &shared, it.at)?))).collect()
}

/// Something that happened.
struct Happened {
    event: &'static str,
    at: LabTime,
    /// The UPID, of the end of a pve task.
    task: Option<String>,
}

/// The name of a world whose run is over.
const OVER: &str = "over";

/// Notes what happens, when it happens.
async fn watch(shared: Arc<Shared>) -> Vec<Happened> {
    let mut changes = shared.changes();
    let mut events = Vec::new();
    let (mut ended, mut going, mut silent) = (BTreeSet::<String>::new(), false, false);
    loop {
        let (over, tasks, leaving, ready) = shared.read(|world| {
            let tasks: Vec<String> = world.tasks.iter().filter(|t| t.end.is_some()).map(|t| t.upid.clone()).collect();
            (world.name == OVER, tasks, pods(world).any(evicted), ready(world))
        });
        let at = shared.clock.now();
        for task in tasks {
            if ended.insert(task.clone()) {
                events.push(Happened { event: TASK, at, task: Some(task) });
            }
        }
        if going && !leaving {
            events.push(Happened { event: EVICTED, at, task: None });
        }
        if silent && ready {
            events.push(Happened { event: READY, at, task: None });
        }
        (going, silent) = (leaving, !ready);
        if over {
            return events;
        }
        changes.changed().await.unwrap();
    }
}

fn pods(world: &World) -> impl Iterator<Item = &Value> {
    let all = world.kube.store.list(kinds::pods(), Some("home"));
    all.map(|pod| &**pod).filter(|pod| pod["metadata"]["name"].as_str().unwrap().starts_with(POD))
}

fn evicted(pod: &Value) -> bool {
    pod["metadata"]["deletionTimestamp"].is_string()
}

/// Whether the target node says of the boot that its machine is in that it is Ready.
fn ready(world: &World) -> bool {
    let node = world.kube.store.get(kinds::nodes(), "", "k3s-vm-still-fawn").unwrap();
    let conditions = node["status"]["conditions"].as_array().unwrap();
    let ready = conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
    let boot = world.vms[&108].running.as_ref().map(|running| running.boot_id.as_str());
    ready && node["status"]["nodeInfo"]["bootID"].as_str() == boot
}

/// Lets the pods that are to be evicted be kept when they go, or lets them go.
fn keep(world: &mut World, kept: bool) {
    let all: Vec<Value> = pods(world).cloned().collect();
    assert!(!all.is_empty());
    for mut pod in all {
        let meta = pod["metadata"].as_object_mut().unwrap();
        meta.remove("finalizers");
        if kept {
            meta.insert("finalizers".to_owned(), serde_json::json!([KEEPER]));
        }
        world.kube.store.replace(kinds::pods(), pod, None);
    }
}

/// A request of the log: when it was answered, what it was (without its query), and whether it changes something.
type Request = (jiff::Timestamp, String, bool);

fn requests(bed: &Bed) -> Vec<Request> {
    // The repository's hook has no clock of the lab; a push is followed by requests that have.
    let read = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let path = line["path"].as_str()?.split('?').next().unwrap().replace("%3A", ":");
        let what = format!("{} {} {path}", line["front"], line["method"]);
        Some((line["time"].as_str()?.parse().unwrap(), what, line["class"] == "change"))
    };
    let mut all: Vec<Request> = bed.read("requests.jsonl").lines().filter_map(read).collect();
    all.sort();
    all
}

/// How long after `at` the first request came that was not part of the looking before: another one, or a change. The
/// looking is what was asked since the last change, at most for [`WINDOW`].
fn after(log: &[Request], shared: &Shared, at: LabTime) -> Option<Duration> {
    let (from, at) = (shared.clock.timestamp(at.saturating_sub(WINDOW)), shared.clock.timestamp(at));
    let changed = log.iter().filter(|(time, _, changes)| *changes && *time <= at).map(|(time, ..)| *time).max();
    let from = changed.map_or(from, |changed| from.max(changed));
    let before = log.iter().filter(|(time, ..)| *time >= from && *time <= at);
    let looking: BTreeSet<&str> = before.map(|(_, what, _)| what.as_str()).collect();
    let next = log.iter().find(|(time, what, changes)| *time > at && (*changes || !looking.contains(what.as_str())))?;
    Duration::try_from(next.0.duration_since(at)).ok()
}
