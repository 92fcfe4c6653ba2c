//! 03 on both incidents: modules that nobody asks for, and an image for a device that is not there.

use pvemig::blueprint;
use pvemig::lab::talos::node::Image;

use super::{ask, calls, problems, rig, starts, stop};
use crate::harness::How;
use crate::harness::estate::Rig;
use crate::harness::same::{assert_done, assert_undone};
use crate::harness::story::of_version;

const ALL: [&str; 3] = ["talos-mac", "talos-vm", "talos-nuc"];
const AGENT: &str = "ce4c980550dd2ab1b17bbf2b08801c7eb59418eafe8f279833297925d67c7515";
const BOTH: &str = "990731763242a6b3cf735e49d0f550ce4068b4d0e7f4dfbb49a31799b698877e";

fn config(rig: &Rig, node: &str) -> String {
    rig.lab.shared().read(|w| w.talos.nodes[node].config.clone())
}

fn image(rig: &Rig, node: &str) -> Image {
    rig.lab.shared().read(|w| w.talos.nodes[node].image())
}

/// The nodes that are through with their boot.
fn whole(rig: &Rig) -> usize {
    rig.lab.shared().read(|w| w.talos.nodes.values().filter(|node| node.run.as_ref().is_some_and(|r| r.booted)).count())
}

fn fold(rig: &Rig, id: &str) -> String {
    let state = rig.bench.read(id).state;
    let all = blueprint::named("node-reboot-test").unwrap().fold_back(&state, &[]);
    all.iter().map(|fold| format!("{}\n{}\n", fold.owner, fold.lines.join("\n"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_modules_are_merged_in_and_taken_back_to_the_byte() {
    let rig = rig("talos-three-no-modules", &ALL, |_| {}).await;
    assert_eq!(whole(&rig), 2);
    let (before, first) = (config(&rig, "talos-nuc"), starts(&rig));
    let seen = ask(&rig, "00-preflight").await.unwrap();
    assert!(seen.is_done() && seen.notes.iter().any(|note| note.contains("talos-nuc: 03 adds")), "{seen:#?}");
    let run = rig.forward(None, &How::default()).await;
    assert_done(&run, "no modules");
    assert_eq!(whole(&rig), 3);
    assert!(first.iter().all(|(name, n)| starts(&rig)[name] == n + 1), "{:?}", starts(&rig));
    let after = config(&rig, "talos-nuc");
    assert!(after.contains("nvidia_modeset") && after.contains("net.core.bpf_jit_harden"), "{after}");
    assert_eq!(calls(&run).iter().filter(|call| call.contains("ApplyConfiguration")).count(), 1);
    let lines = fold(&rig, &run.id);
    assert!(lines.contains("talos-nuc") && lines.contains("- name: nvidia_uvm"), "{lines}");
    // The journal has nothing of the configuration.
    let journal = rig.bench.told(&run.id).join("\n") + &format!("{:?}", run.records);
    assert!(!journal.contains("i2t4w8.o1p3q5r7s9u0v2x4"));
    assert_undone(&rig.backward(&run.id, &How::default()).await, "no modules");
    assert_eq!(config(&rig, "talos-nuc"), before);
    assert_eq!(fold(&rig, &run.id), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_image_is_replaced_and_the_slots_swapped_back() {
    let rig = rig("talos-three-wrong-image", &ALL, |_| {}).await;
    assert_eq!((whole(&rig), image(&rig, "talos-vm").schematic.as_str()), (2, BOTH));
    let seen = ask(&rig, "03-repair@talos-vm").await.unwrap();
    let said = format!("{:?}", seen.answer);
    for lost in ["nonfree-kmod-nvidia-production", "nvidia-container-toolkit-production"] {
        assert!(said.contains(lost), "{said}");
    }
    assert!(seen.notes.iter().any(|note| note == "talos-vm keeps qemu-guest-agent"), "{seen:#?}");
    let run = rig.forward(None, &How::default()).await;
    assert_done(&run, "wrong image");
    assert_eq!((whole(&rig), image(&rig, "talos-vm").schematic.as_str()), (3, AGENT));
    // 1.11 reboots for the upgrade by itself; the test's own reboot comes after that.
    assert_eq!(starts(&rig), [("talos-mac".into(), 2), ("talos-nuc".into(), 2), ("talos-vm".into(), 3)].into());
    assert!(fold(&rig, &run.id).contains(AGENT));
    assert_undone(&rig.backward(&run.id, &How::default()).await, "wrong image");
    assert_eq!(image(&rig, "talos-vm").schematic, BOTH);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn since_1_13_the_reboot_is_what_boots_the_image() {
    let rig = rig("talos-three-wrong-image", &["talos-vm"], |w| of_version(w, "1.13.9")).await;
    let run = rig.forward(None, &How::default()).await;
    assert_done(&run, "1.13");
    assert_eq!((image(&rig, "talos-vm").schematic.as_str(), starts(&rig)["talos-vm"]), (AGENT, 2));
    assert_undone(&rig.backward(&run.id, &How::default()).await, "1.13");
    assert_eq!(image(&rig, "talos-vm").schematic, BOTH);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_repair_a_sick_node_is_not_rebooted() {
    let mut rig = rig("talos-three-no-modules", &ALL, |_| {}).await;
    let blueprint = blueprint::named("node-reboot-test").unwrap();
    rig.steps = rig
        .steps
        .iter()
        .map(|step| {
            let mut fields = step.fields().unwrap();
            if let Some(repair) = fields.get_mut("repair") {
                *repair = false.into();
            }
            blueprint.rebuild(step.id(), &fields).unwrap()
        })
        .collect();
    let problems = problems(&rig, "00-preflight").await;
    let sick = problems.iter().find(|p| p.finding.as_deref() == Some("node-not-whole")).unwrap();
    assert!(sick.text.contains("ext-nvidia-persistenced") && sick.help.contains("repair: true"), "{sick:#?}");
    assert!(sick.help.contains("`pvemig survey talos-nuc` names the cause"), "{sick:#?}");
    assert_eq!(sick.protects.as_ref().unwrap().as_str(), "04-reboot@talos-nuc");
    let run = rig.forward(None, &How::default()).await;
    assert_eq!(stop(&run).key.as_str(), "00-preflight");
    assert_eq!(rig.changes(), 0);
}
