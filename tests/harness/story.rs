//! An undisturbed run of a blueprint on a world, with everything that a cut at each of its points would leave.

use std::ops::RangeInclusive;

use pvemig::blueprint::BoxedStep;
use pvemig::lab::World;
use serde_json::Value;

use super::estate::{Rig, at_rest};
use super::same::{assert_done, assert_same, assert_undone};
use super::scene::Scenes;
use super::{How, Run, calls, points_expected};

/// A fresh world with its only migration's steps. `WORLD:NODE,NODE`: with a plan for these nodes of Talos only;
/// `WORLD@VERSION`: with this version of Talos; `WORLD+scratch`: with a user volume on the drive that comes.
pub async fn fresh(world: &str) -> Rig {
    let (world, nodes) = world.split_once(':').map_or((world, None), |(world, nodes)| (world, Some(nodes)));
    let (world, version) = world.split_once('@').map_or((world, None), |(world, version)| (world, Some(version)));
    let (world, volume) = world.split_once('+').map_or((world, None), |(world, volume)| (world, Some(volume)));
    let mut world = at_rest(world);
    if let Some(version) = version {
        of_version(&mut world, version);
    }
    let nodes: Option<Vec<&str>> = nodes.map(|nodes| nodes.split(',').collect());
    Rig::of(world, |site| {
        if let Some(nodes) = nodes {
            site["migrations"]["reboots"]["params"]["nodes"] = nodes.into();
        }
        if let Some(volume) = volume {
            with_volume(site, volume);
        }
        unmeasured(site);
    })
    .await
}

/// No drive is measured: each run would do it anew, by pods that it makes and deletes.
pub fn unmeasured(site: &mut Value) {
    for migration in site["migrations"].as_object_mut().into_iter().flat_map(|all| all.values_mut()) {
        if migration["blueprint"] == "nvme-move" {
            migration["params"]["measure"] = "off".into();
        }
    }
}

/// A user volume is made on the drive that comes.
pub fn with_volume(site: &mut Value, name: &str) {
    let params = site.pointer_mut("/migrations/nuc-drives/params").unwrap();
    params["drives"]["fresh"]["purpose"] = format!("user-volume {name}").into();
    params["volumes"] = serde_json::json!({ name: { "on": "fresh", "else_by_model": true } });
}

/// Every node runs this version of Talos, and its configuration says so.
pub fn of_version(world: &mut World, version: &str) {
    for node in world.talos.nodes.values_mut() {
        let former = format!(":v{}", node.image().version);
        node.slots.values_mut().for_each(|image| image.version = version.to_owned());
        node.config = node.config.replace(&former, &format!(":v{version}"));
        assert!(node.config.contains(&format!(":v{version}")), "its configuration names no image of {former}");
        if let Some(run) = &mut node.run {
            run.active.clone_from(&node.config);
        }
    }
}

/// An undisturbed run with everything outside the process at each of its points: what a process that is stopped there
/// leaves behind. To meet a point again is to go back to it, not to run up to it anew.
pub struct Story {
    world: String,
    pub rig: Rig,
    pub first: Value,
    pub last: Value,
    pub run: Run,
    pub scenes: Scenes,
}

impl Story {
    pub async fn forward(world: &str) -> Self {
        let rig = fresh(world).await;
        let first = rig.picture().await;
        assert!(first.as_object().is_some_and(|o| o.len() > 3), "a picture of nothing proves nothing");
        let (run, scenes) = rig.watched(None, &How::default()).await;
        assert_done(&run, "undisturbed");
        let last = rig.picture().await;
        // A reboot test that mends nothing leaves everything as it was.
        assert!(first != last || !rebooted(&rig).is_empty());
        assert_rebooted(&rig, reboots(world), "undisturbed");
        assert_eq!(calls(&run.records), rig.changes(), "each changing request has its call and the other way round");
        Self::told(world, rig, first, last, run, scenes)
    }

    /// The undo of a finished run.
    pub async fn backward(world: &str) -> Self {
        let rig = fresh(world).await;
        let first = rig.picture().await;
        let there = rig.forward(None, &How::default()).await;
        assert_done(&there, "undisturbed");
        let last = rig.picture().await;
        let (run, scenes) = rig.watched(Some(&there.id), &How::default()).await;
        assert_undone(&run, "undisturbed");
        assert_same(&undone(world, rig.picture().await), &undone(world, first.clone()), "undisturbed");
        Self::told(world, rig, first, last, run, scenes)
    }

    fn told(world: &str, rig: Rig, first: Value, last: Value, run: Run, scenes: Scenes) -> Self {
        assert_eq!(scenes.points.len(), points_expected(&run.records));
        assert!(scenes.points.iter().map(|(point, _)| point).eq(&run.points.passed()));
        Self { world: world.to_owned(), rig, first, last, run, scenes }
    }

    /// How often each node of the plan is started on the way there.
    pub fn reboots(&self) -> RangeInclusive<u32> {
        reboots(&self.world)
    }

    /// How often from the beginning to the end of an undo, wherever that began.
    pub fn reboots_with_undo(&self) -> RangeInclusive<u32> {
        // The slots are swapped back with a reboot.
        if repairs_an_image(&self.world) { 0..=self.reboots().end() + 1 } else { 0..=1 }
    }

    /// The world is again what it was first.
    pub async fn assert_undone(&self, what: &str) {
        self.assert_first(&self.rig, what).await;
    }

    /// As [`Self::assert_undone`], of another rig of the same world.
    pub async fn assert_first(&self, rig: &Rig, what: &str) {
        assert_same(&undone(&self.world, rig.picture().await), &undone(&self.world, self.first.clone()), what);
    }

    /// Where `n` steps are settled and the next one was not asked.
    pub fn after(&mut self, n: usize) -> &mut Rig {
        assert_eq!(self.scenes.settled.len(), self.rig.steps.len() + 1);
        self.rig.go_back(&self.scenes.settled[n]);
        &mut self.rig
    }
}

/// The nodes that the plan reboots: a reboot test has its own rule, one reboot of each node and run.
pub fn rebooted(rig: &Rig) -> Vec<String> {
    let of = |step: &BoxedStep| (step.id() == "04-reboot").then(|| step.key().instance().unwrap().to_owned());
    rig.steps.iter().filter_map(of).collect()
}

/// The node whose drives the plan moves, and whether it is a VM: it goes off and comes on once on each way.
pub fn switched_off(rig: &Rig) -> Option<(String, bool)> {
    let step =
        rig.steps.iter().find(|step| step.id() == "03-shutdown" && step.holds_until() == Some("05-verify-disks"))?;
    let machine = &step.fields().unwrap()["machine"];
    Some((machine["name"].as_str().unwrap().to_owned(), !machine["vm"].is_null()))
}

/// Each of them was started so often since the world began, and no other machine of Talos was. Nothing is wiped, and etcd is
/// one.
pub fn assert_rebooted(rig: &Rig, times: std::ops::RangeInclusive<u32>, what: &str) {
    let nodes = rebooted(rig);
    let starts: Vec<(String, u32)> =
        rig.lab.shared().read(|w| w.talos.nodes.iter().map(|(name, node)| (name.clone(), node.starts - 1)).collect());
    assert_eq!(starts.iter().filter(|(name, _)| nodes.contains(name)).count(), nodes.len());
    let off = switched_off(rig);
    for (name, count) in starts {
        let right = match &off {
            // On the way there once; with an undo, wherever that began, once more at most.
            Some((off, _)) if *off == name => {
                if *times.start() > 0 {
                    count == 1
                } else {
                    count <= 2
                }
            }
            _ if nodes.contains(&name) => times.contains(&count),
            _ => count == 0,
        };
        assert!(right, "{what}: {name} was rebooted {count} times, not {times:?}");
    }
    let (clusters, wiped) = rig.lab.shared().read(|w| (w.etcd_clusters(), w.talos.wiped.clone()));
    assert!(clusters <= 1 && wiped.is_empty(), "{what}: {clusters} clusters, {wiped:#?}");
}

fn repairs_an_image(world: &str) -> bool {
    world.contains("wrong-image")
}

/// How often a run reboots each node of its plan: up to 1.12 the node reboots for another image by itself.
fn reboots(world: &str) -> RangeInclusive<u32> {
    if repairs_an_image(world) && !world.contains("@1.13") { 2..=2 } else { 1..=1 }
}

/// What an undo restores of a picture: kernel modules that a repair had loaded stay loaded until the next boot, and with
/// them what waited for them.
fn undone(world: &str, mut picture: Value) -> Value {
    if world.contains("no-modules") {
        let nodes = picture.pointer_mut("/talos/nodes").and_then(Value::as_object_mut).unwrap();
        for run in nodes.values_mut().filter_map(|node| node.get_mut("run")?.as_object_mut()) {
            assert!(run.remove("modules").is_some() && run.remove("booted").is_some());
        }
    }
    // The partition of a new volume stays on its drive, which is beside the machine again.
    if world.contains('+') {
        let nodes = picture.pointer_mut("/talos/nodes").and_then(Value::as_object_mut).unwrap();
        let disks = nodes.values_mut().filter_map(|node| node.get_mut("disks")?.as_array_mut()).flatten();
        for disk in disks.filter(|disk| disk["unplugged"] == true).filter_map(Value::as_object_mut) {
            disk.remove("partitions");
        }
    }
    picture
}
