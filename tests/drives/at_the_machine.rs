//! A machine whose power nothing sees but the person who stands before it.

use pvemig::lab::talos::lost::Loss;
use pvemig::lab::{FaultEffect, FaultRule, Front};

use super::*;

const SHELF: &str = "monitor and keyboard are on the shelf";

fn by_hand(site: &mut Value) {
    site.pointer_mut("/talos/homelab/nodes/talos-nuc").unwrap()["out_of_band"] = json!({ "at_the_machine": SHELF });
    site["migrations"]["nuc-drives"]["params"]["measure"] = json!("off");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn off_is_what_the_kubelet_shows_once_this_run_has_switched_it_off() {
    let rig = Rig::of(at_rest("nvme-data"), by_hand).await;
    let run = rig.forward(None, &How { no_hands: true, ..How::default() }).await;
    let Ok(pvemig::engine::run::Ended::Stopped(stop)) = &run.ended else { panic!("{:#?}", run.ended) };
    let pvemig::engine::run::Why::Manual { hint, .. } = &stop.why else { panic!("{:#?}", stop.why) };
    let hint = hint.as_deref().unwrap();
    assert!(hint.contains(&format!("see first that it is off ({SHELF})")), "{hint}");
    let off = notes(&run, "03-shutdown");
    assert!(off.contains("its kubelet is silent"), "{off}");
    assert_done(&rig.forward(Some(&run.id), &How::default()).await, "resumed");
    assert_eq!(bays(&rig).0, target());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_alone_is_not_off_without_a_persons_word() {
    let lost = |world: &mut World| {
        world.talos.lost.insert(NUC.into(), Loss::Dead);
    };
    let mut rig = Rig::of(at_rest_after("nvme-data", "it is silent", lost), by_hand).await;
    rig.steps.retain(|step| step.id() == "03-shutdown");
    let run = rig.forward(None, &How::default()).await;
    let (key, text) = why(&run);
    assert_eq!((key, rig.changes()), ("03-shutdown", 0), "{text}");
    for words in ["with its cable out it would be silent too", "`pvemig resume --destroy off/talos-nuc` goes on"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let word = How { consents: vec!["off/talos-nuc".into()], ..How::default() };
    let run = rig.forward(Some(&run.id), &word).await;
    assert_done(&run, "by a person's word");
    assert_eq!((calls(&run.records), rig.changes()), (0, 0));
}

/// It was told to go off, and did; the process did not come to know of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_that_was_cut_is_not_called_none() {
    let rig = Rig::of(at_rest("nvme-data"), by_hand).await.hasty();
    rig.lab.fault(FaultRule::on(Front::Talos, FaultEffect::ResetAfter).path("*MachineService/Shutdown").times(1));
    let run = rig.forward(None, &How { no_hands: true, ..How::default() }).await;
    let (key, text) = why(&run);
    assert_eq!(key, "03-shutdown", "{text}");
    let off = |w: &World| (!w.talos.nodes[NUC].is_powered()).then_some(());
    rig.lab.shared().until(std::time::Duration::from_secs(600), off).await.unwrap();
    let resumed =
        rig.forward(Some(&run.id), &How { limit: Some(std::time::Duration::from_secs(30)), ..How::default() }).await;
    let (key, text) = why(&resumed);
    let words = "is silent, and whether this run has switched it off is not known, as it was cut there";
    assert!(key == "03-shutdown" && text.contains(words), "{key}: {text}");
    let word = How { consents: vec!["off/talos-nuc".into()], ..How::default() };
    assert_done(&rig.forward(Some(&run.id), &word).await, "by a person's word");
    assert_eq!(bays(&rig).0, target());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_hears_the_kubelet_of_the_only_control_plane() {
    let rig = Rig::of(at_rest("nvme-single"), by_hand).await;
    let run = rig.forward(None, &How::default()).await;
    let (key, text) = why(&run);
    assert_eq!((key, rig.changes()), ("00-preflight", 0), "{text}");
    assert!(text.contains("with talos-nuc off etcd has no majority, and nobody is left who would hear"), "{text}");
}
