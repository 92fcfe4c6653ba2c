//! Somebody else's reboot holds a node's lock when ours asks for it: what was not begun is not told of later as one that
//! failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use pvemig::engine::event::Event;
use pvemig::engine::run::Why;
use pvemig::lab::{self, Lab, World};
use serde_json::json;

use super::{calls, starts, stop};
use crate::harness::estate::{Rig, at_rest};
use crate::harness::same::{assert_done, assert_undone};
use crate::harness::{How, Run};

/// Long enough for a call to come in between, in lab time.
const SLOW: u64 = 300_000;

/// A world whose nodes take their time to go down, and none to pull an image.
async fn rig(mut world: World, node: &str) -> Rig {
    (world.talos.timing.stop, world.talos.timing.pull) = (SLOW, 0);
    Rig::of(world, |site| site["migrations"]["reboots"]["params"]["nodes"] = json!([node])).await
}

/// The VM as a worker from its first boot on: a node of the control plane that goes down refuses an upgrade for its etcd,
/// unless the other comes in the moment behind that look.
fn a_worker() -> World {
    let mut world = lab::load("talos-three-wrong-image").unwrap();
    world.talos.timing.stuck = 7 * 24 * 3_600_000;
    let node = world.talos.nodes.get_mut("talos-vm").unwrap();
    node.config = node.config.replace("type: controlplane", "type: worker");
    world.talos.etcd.members.retain(|member| member.name != "talos-vm");
    Lab::at_rest(world, tempfile::tempdir().unwrap().path()).unwrap()
}

/// The first call with these words finds the node on its way into a reboot that is not ours.
fn met(rig: &Rig, node: &'static str, words: &'static str) -> (How, Arc<AtomicU32>) {
    let (shared, met) = (rig.lab.shared().clone(), Arc::new(AtomicU32::new(0)));
    let count = met.clone();
    let reader = move |record: &pvemig::engine::event::Record| {
        let Event::Call { note, .. } = &record.event else { return };
        if note.text.contains(words) && count.fetch_add(1, Ordering::SeqCst) == 0 {
            shared.change(|w| {
                drop(w.talos_reboot(node, true));
                // What comes behind it is as quick as ever.
                w.talos.timing.stop = 8_000;
            });
        }
    };
    (How { reader: Some(Arc::new(reader)), ..How::default() }, met)
}

fn refused(run: &Run, key: &str) {
    let stop = stop(run);
    let Why::Failed { error, .. } = &stop.why else { panic!("{stop:#?}") };
    assert_eq!(stop.key.as_str(), key, "{stop:#?}");
    assert!(error.join(" ").contains("another sequence is in progress"), "{stop:#?}");
}

fn sent(runs: &[&Run], words: &str) -> usize {
    runs.iter().flat_map(|run| calls(run)).filter(|call| call.contains(words)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_that_was_not_begun_is_no_boot_that_failed() {
    let rig = rig(a_worker(), "talos-vm").await;
    let (how, met) = met(&rig, "talos-vm", "Upgrade to");
    let run = rig.forward(None, &how).await;
    refused(&run, "03-repair@talos-vm");
    assert_eq!((met.load(Ordering::SeqCst), sent(&[&run], "Upgrade to")), (1, 1));
    let resumed = rig.forward(Some(&run.id), &How::default()).await;
    assert_done(&resumed, "resumed");
    // Theirs, the upgrade's and 04's, behind the one that it began with.
    assert_eq!((starts(&rig)["talos-vm"], sent(&[&run, &resumed], "Upgrade to")), (4, 2));
    assert_undone(&rig.backward(&run.id, &How::default()).await, "back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reboot_that_was_not_begun_is_not_sent_again_behind_the_others() {
    let rig = rig(at_rest("talos-three"), "talos-nuc").await;
    let (how, met) = met(&rig, "talos-nuc", "Reboot");
    let run = rig.forward(None, &how).await;
    refused(&run, "04-reboot@talos-nuc");
    let resumed = rig.forward(Some(&run.id), &How::default()).await;
    assert_done(&resumed, "resumed");
    assert_eq!((met.load(Ordering::SeqCst), sent(&[&run, &resumed], "Reboot"), starts(&rig)["talos-nuc"]), (1, 1, 2));
}

/// A rollback takes the lock over (`WithTakeover` in siderolabs/talos `internal/app/machined/internal/server/v1alpha1`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_are_swapped_with_the_others_reboot() {
    let rig = rig(at_rest("talos-three-wrong-image"), "talos-vm").await;
    let run = rig.forward(None, &How::default()).await;
    assert_done(&run, "there");
    let (before, image) = (starts(&rig)["talos-vm"], rig.lab.shared().read(|w| w.talos.nodes["talos-vm"].image()));
    let (how, met) = met(&rig, "talos-vm", "Rollback");
    let undo = rig.backward(&run.id, &how).await;
    assert_undone(&undo, "swapped");
    assert_eq!((met.load(Ordering::SeqCst), sent(&[&undo], "Rollback"), starts(&rig)["talos-vm"]), (1, 1, before + 1));
    assert_ne!(rig.lab.shared().read(|w| w.talos.nodes["talos-vm"].image()).schematic, image.schematic);
}
