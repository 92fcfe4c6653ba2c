//! What the reboot test says and does in the worlds of one incident each; those of etcd are in `quorum`.

use pvemig::engine::run::Why;
use pvemig::lint;

use super::{problems, rig, starts, stop};
use crate::harness::How;
use crate::harness::same::assert_done;
use crate::harness::{Run, notes};

const ALL: [&str; 3] = ["talos-mac", "talos-vm", "talos-nuc"];

/// The rules that speak of a node, in the order of their numbers.
async fn rules(rig: &crate::harness::estate::Rig, node: &str) -> Vec<&'static str> {
    let survey = rig.estate.survey(&[]).await.unwrap();
    let looked = lint::look(&survey);
    // The lab's clock runs ahead of ours on purpose.
    let of = looked.findings.iter().filter(|finding| finding.what == node && finding.rule != "L22");
    of.map(|finding| finding.rule).collect()
}

fn said(run: &Run) -> String {
    match &stop(run).why {
        Why::Blocked(problems) => problems.iter().map(|p| format!("{} ({})\n", p.text, p.help)).collect(),
        Why::Failed { error, help, .. } => format!("{} ({})", error.join(" "), help.join(" ")),
        other => panic!("{other:#?}"),
    }
}

/// No image and no module mends it: the VM has to be configured, and started anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_agents_channel_nobody_has_a_turn() {
    let rig = rig("talos-three-agent", &ALL, |_| {}).await;
    let found = problems(&rig, "00-preflight").await;
    let names: Vec<&str> = found.iter().filter_map(|p| p.finding.as_deref()).collect();
    assert_eq!(names, ["node-not-whole"], "{found:#?}");
    assert!(found[0].text.contains("service ext-qemu-guest-agent is Waiting"), "{found:#?}");
    assert!(found[0].help.contains("`pvemig survey talos-vm` names the cause"), "{found:#?}");
    let before = starts(&rig);
    let run = rig.forward(None, &How::default()).await;
    assert_eq!(stop(&run).key.as_str(), "00-preflight");
    assert!(said(&run).contains("ext-qemu-guest-agent"), "{}", said(&run));
    assert_eq!((rig.changes(), starts(&rig)), (0, before));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_stick_that_boots_nothing_the_mac_comes_up_from_its_own_disk() {
    let rig = rig("talos-three-stick", &["talos-mac"], |_| {}).await;
    let run = rig.forward(None, &How::default()).await;
    assert_done(&run, "a stick");
    let notes = notes(&run, "05-verify-boot@talos-mac");
    assert!(notes.contains("from APPLE SSD SM0256G (serial S2ZRNYAH500749)"), "{notes}");
    assert_eq!((rules(&rig, "talos-mac").await, starts(&rig)["talos-mac"]), (vec!["L06"], 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_its_reboot_the_nuc_has_its_huge_pages() {
    let rig = rig("talos-three-hugepages", &["talos-nuc"], |_| {}).await;
    assert_eq!(rules(&rig, "talos-nuc").await, ["L06", "L20"]);
    assert_done(&rig.forward(None, &How::default()).await, "huge pages");
    assert_eq!(rules(&rig, "talos-nuc").await, ["L06"]);
}
