//! 03 with images: which one it takes and which one it brings back, and calls whose end nobody saw.

use std::time::Duration;

use pvemig::engine::run::Why;
use pvemig::lab::talos::node::Image;
use pvemig::lab::{FaultEffect, FaultRule, Front, World};
use serde_json::{Value, json};

use super::{calls, problems, starts, stop};
use crate::harness::estate::{Rig, at_rest};
use crate::harness::same::{assert_done, assert_undone};
use crate::harness::{How, Run};

const VM: &str = "talos-vm";
const KEY: &str = "03-repair@talos-vm";
const AGENT: &str = "ce4c980550dd2ab1b17bbf2b08801c7eb59418eafe8f279833297925d67c7515";
const BOTH: &str = "990731763242a6b3cf735e49d0f550ce4068b4d0e7f4dfbb49a31799b698877e";
const WRITE: &str = "/talos-vm/machine.LifecycleService/Upgrade*";

/// The VM with the wrong image, and a plan for it.
async fn rig(change: impl FnOnce(&mut World), images: Value) -> Rig {
    let mut world = at_rest("talos-three-wrong-image");
    change(&mut world);
    Rig::of(world, |site| {
        let params = &mut site["migrations"]["reboots"]["params"];
        (params["nodes"], params["images"]) = (json!([VM]), images);
    })
    .await
}

/// The same up to 03: what it wrote waits for a boot.
async fn unbooted(change: impl FnOnce(&mut World), images: Value) -> Rig {
    let mut rig = rig(change, images).await;
    let end = rig.steps.iter().position(|step| step.key().as_str() == KEY).unwrap();
    rig.steps.truncate(end + 1);
    rig
}

/// Another text of a node's machine configuration, on the disk and in effect.
fn edit(w: &mut World, name: &str, change: impl Fn(&str) -> String) {
    let node = w.talos.nodes.get_mut(name).unwrap();
    let text = change(&node.config);
    assert_ne!(text, node.config, "{name}");
    node.config.clone_from(&text);
    node.run.as_mut().unwrap().active = text;
}

/// Of all nodes.
fn configure(w: &mut World, change: impl Fn(&str) -> String) {
    let names: Vec<String> = w.talos.nodes.keys().cloned().collect();
    assert_eq!(names.len(), 3);
    names.iter().for_each(|name| edit(w, name, &change));
}

fn since_1_13(w: &mut World) {
    for node in w.talos.nodes.values_mut() {
        node.slots.values_mut().for_each(|image| image.version = "1.13.9".into());
    }
    configure(w, |text| text.replace(":v1.11.5", ":v1.13.9"));
}

/// What it boots next.
fn next(rig: &Rig) -> Image {
    rig.lab.shared().read(|w| w.talos.nodes[VM].slots[&w.talos.nodes[VM].boots].clone())
}

fn image(rig: &Rig) -> Image {
    rig.lab.shared().read(|w| w.talos.nodes[VM].image())
}

fn said(run: &Run) -> String {
    let stop = stop(run);
    assert_eq!(stop.key.as_str(), KEY, "{stop:#?}");
    match &stop.why {
        Why::Failed { error, .. } => error.join(" "),
        Why::Blocked(problems) => problems.iter().map(|p| format!("{} ({})", p.text, p.help)).collect(),
        other => panic!("{other:#?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_version_stays() {
    // An upgrade does not write `machine.install.image`: what stands there is older than what runs.
    let older = |w: &mut World| configure(w, |text| text.replace(":v1.11.5", ":v1.10.9"));
    let plain = rig(older, json!({})).await;
    let run = plain.forward(None, &How::default()).await;
    assert_done(&run, "an older version");
    assert_eq!((image(&plain).version.as_str(), image(&plain).schematic.as_str()), ("1.11.5", AGENT));

    let named = format!("factory.talos.dev/nocloud-installer/{AGENT}:v1.10.9");
    let named = rig(|_| {}, json!({ VM: named })).await;
    let found = problems(&named, "00-preflight").await;
    let found = found.iter().find(|p| p.finding.as_deref() == Some("repair-needs-image")).unwrap();
    assert!(found.text.contains("runs v1.11.5: 03 changes no version"), "{found:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_it_ran_is_brought_back_from_its_own_factory_and_signed() {
    let own = |w: &mut World| {
        since_1_13(w);
        configure(w, |text| text.replace("factory.talos.dev/", "factory.lan:5000/"));
        w.talos.factory = "factory.lan:5000".into();
        let node = w.talos.nodes.get_mut(VM).unwrap();
        node.secure_boot = true;
        node.slots.values_mut().for_each(|image| image.signed = true);
        edit(w, VM, |text| text.replace("nocloud-installer/", "nocloud-installer-secureboot/"));
    };
    let rig = unbooted(own, json!({})).await;
    let first = next(&rig);
    assert!(first.schematic == BOTH && first.signed);
    let run = rig.forward(None, &How::default()).await;
    assert_done(&run, "written");
    assert!(next(&rig).schematic == AGENT && next(&rig).signed, "{:?}", next(&rig));
    assert_undone(&rig.backward(&run.id, &How::default()).await, "not booted");
    assert_eq!((next(&rig), starts(&rig)[VM]), (first, 1));

    // One that is not signed would not come up: it is not taken.
    let unsigned = |w: &mut World| {
        own(w);
        edit(w, VM, |text| text.replace("nocloud-installer-secureboot/", "nocloud-installer/"));
    };
    let rig = self::rig(unsigned, json!({})).await;
    let found = problems(&rig, "00-preflight").await;
    let found = found.iter().find(|p| p.finding.as_deref() == Some("repair-needs-image")).unwrap();
    assert!(found.text.contains("is not signed for that"), "{found:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_named_is_not_guessed_at_an_undo() {
    let vanilla = |w: &mut World| {
        since_1_13(w);
        let factory = format!("factory.talos.dev/nocloud-installer/{AGENT}:v1.13.9");
        edit(w, VM, |text| text.replace(&factory, "ghcr.io/siderolabs/installer:v1.13.9"));
    };
    let named = format!("factory.talos.dev/nocloud-installer/{AGENT}:v1.13.9");
    let rig = unbooted(vanilla, json!({ VM: named })).await;
    let run = rig.forward(None, &How::default()).await;
    assert_done(&run, "written");
    let notes = crate::harness::notes(&run, KEY);
    assert!(notes.contains("an undo swaps the slots, and cannot write it"), "{notes}");
    let undo = rig.backward(&run.id, &How::default()).await;
    let said = said(&undo);
    assert!(said.contains("could not be told") && said.contains("upgrade --image INSTALLER"), "{said}");
    assert!(!calls(&undo).iter().any(|call| call.contains("Pull") || call.contains("Upgrade")));
    assert_eq!(next(&rig).schematic, AGENT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_end_nobody_saw_is_taken_back() {
    let rig = unbooted(since_1_13, json!({})).await;
    rig.lab.fault(FaultRule::on(Front::Talos, FaultEffect::ResetAfter).path(WRITE).times(1));
    let run = rig.forward(None, &How::default()).await;
    said(&run);
    assert_eq!((image(&rig).schematic.as_str(), next(&rig).schematic.as_str()), (BOTH, AGENT));
    let undo = rig.backward(&run.id, &How { limit: Some(Duration::from_secs(5)), ..How::default() }).await;
    assert_undone(&undo, "a lost answer");
    assert_eq!((next(&rig).schematic.as_str(), starts(&rig)[VM]), (BOTH, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_never_written_needs_no_way_back() {
    let rig = unbooted(since_1_13, json!({})).await;
    let pull = FaultRule::on(Front::Talos, FaultEffect::Refuse).path("/talos-vm/machine.ImageService/Pull*");
    rig.lab.fault(pull);
    let run = rig.forward(None, &How::default()).await;
    said(&run);
    let undo = rig.backward(&run.id, &How::default()).await;
    assert_undone(&undo, "a pull that failed");
    assert!(!calls(&undo).iter().any(|call| call.contains("Pull") || call.contains("Upgrade")), "{:?}", calls(&undo));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reboot_without_an_upgrade_is_no_boot_that_failed() {
    let rig = rig(|_| {}, json!({})).await;
    let path = "/talos-vm/machine.MachineService/Upgrade*";
    rig.lab.fault(FaultRule::on(Front::Talos, FaultEffect::Refuse).path(path).times(1));
    let run = rig.forward(None, &How::default()).await;
    said(&run);
    // The operator reboots it before he resumes.
    rig.lab.shared().change(|w| drop(w.talos_reboot(VM, false)));
    let again = |w: &World| (w.talos.nodes[VM].starts == 2).then_some(());
    rig.lab.shared().until(Duration::from_secs(600), again).await.unwrap();
    let resumed = rig.forward(Some(&run.id), &How::default()).await;
    assert_done(&resumed, "resumed");
    assert_eq!(image(&rig).schematic, AGENT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_does_not_come_up_is_told_and_not_tried_again() {
    let rig = rig(|w| w.talos.broken.extend(["1.11.5".to_owned()]), json!({})).await;
    let run = rig.forward(None, &How::default()).await;
    let told = said(&run);
    assert!(
        told.contains("was to boot") && told.contains("has booted v1.11.5") && told.contains("pvemig undo"),
        "{told}"
    );
    let resumed = rig.forward(Some(&run.id), &How::default()).await;
    assert!(said(&resumed).contains("was to boot"));
    let upgrades = calls(&run).into_iter().chain(calls(&resumed)).filter(|call| call.contains("Upgrade to")).count();
    assert_eq!((upgrades, image(&rig).schematic.as_str()), (1, BOTH));
    assert_undone(&rig.backward(&run.id, &How::default()).await, "fell back");
}
