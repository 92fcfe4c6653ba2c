//! What keeps a machine from running from its disk, and what is said of it.

use std::time::Duration;

use pvemig::base::check::{Answer, Check};
use pvemig::lab::talos::node::Node;

use super::elsewhere::ask;
use super::*;
use crate::harness::notes;

/// The first machine.
fn nuc(w: &mut World) -> &mut Node {
    w.talos.nodes.get_mut("talos-nuc").unwrap()
}

/// What 03 asks a person for.
fn asks(check: &Check<Value>) -> (&str, &str) {
    let Answer::Manual { ask, hint, .. } = &check.answer else { panic!("{check:#?}") };
    (ask, hint.as_deref().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_does_not_run_from_its_disk_says_why() {
    let mut rig = fresh().await;
    let (run, Scenes { settled, .. }) = rig.watched(None, &consenting()).await;
    assert_done(&run, "undisturbed");
    let turn = |rig: &Rig, key: &str| rig.steps.iter().position(|step| step.key().as_str() == key).unwrap();
    let (key, vm) = ("03-wait-installed@talos-nuc", "03-wait-installed@talos-vm");
    let now = async |rig: &Rig, key: &str| ask(rig, &run.id, key, &consenting()).await;

    // It waits, as after a start from the medium.
    let before = turn(&rig, "02-apply-config@talos-nuc");
    rig.go_back(&settled[before]);
    let check = now(&rig, key).await;
    let (asked, hint) = asks(&check);
    assert!(asked.starts_with("take the stick out of talos-nuc, or put its disk first"), "{asked}");
    assert!(hint.contains("its firmware started the medium again, or the installation failed"), "{hint}");
    assert_eq!(check.notes, ["talos-nuc waits for a configuration again"]);
    let check = now(&rig, vm).await;
    assert!(asks(&check).0.contains("`qm set 223 --boot order=DISK`"), "{check:#?}");

    // It runs, and from where it should.
    let at = turn(&rig, key);
    let changed = async |rig: &mut Rig, change: &dyn Fn(&mut World)| {
        rig.go_back(&settled[at]);
        rig.lab.shared().change(|w| change(w));
        now(rig, key).await
    };
    let check = changed(&mut rig, &|_| {}).await;
    assert!(check.is_done() && check.notes.iter().any(|line| line.contains("runs Talos v1.11.5")), "{check:#?}");
    // An old entry of the firmware may start another disk.
    let efi = at_rest(WORLD).talos.nodes["talos-mac"].disks[1].partitions.clone();
    assert!(!efi.is_empty());
    let check = changed(&mut rig, &|w| nuc(w).disks[2].partitions = efi.clone()).await;
    assert!(check.is_done(), "{check:#?}");
    let noted = check.notes.iter().any(|line| {
        line.starts_with("talos-nuc can boot from ")
            && line.contains("SN770")
            && line.contains("an old entry of its firmware")
    });
    assert!(noted, "{check:#?}");
    // It has started another disk.
    let check = changed(&mut rig, &|w| nuc(w).disks[1].serial = "S0OTHER".into()).await;
    let Answer::Blocked { problems } = &check.answer else { panic!("{check:#?}") };
    assert!(problems[0].text.contains("(S0OTHER), and not from disk S5GXNF0R601234"), "{problems:#?}");
    assert!(problems[0].help.contains("starts another disk first: correct its boot order"), "{problems:#?}");
    // It runs from an image.
    let check = changed(&mut rig, &|w| nuc(w).disks.iter_mut().for_each(|disk| disk.system = false)).await;
    let Answer::Waiting { reason, .. } = &check.answer else { panic!("{check:#?}") };
    assert_eq!(reason, "talos-nuc runs from an image, and not from its disk yet");
    // Somebody else's.
    let check = changed(&mut rig, &|w| {
        nuc(w).run.as_mut().unwrap().wants.authority = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0teA==".into();
    })
    .await;
    let Answer::Blocked { problems } = &check.answer else { panic!("{check:#?}") };
    assert!(problems[0].text.contains("its certificate is not of this cluster's authority"), "{problems:#?}");
    assert_safe(&rig, "questions");
}

/// A VM that has the medium first never answers again: Talos halts, and somebody has to be told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_firmware_that_starts_the_medium_again_is_told() {
    let order = |w: &mut World| {
        w.vms.get_mut(&223).unwrap().config.insert("boot".into(), "order=ide2;scsi0".into());
    };
    let rig = rig(order, |_| {}).await;
    let how = How { limit: Some(Duration::from_secs(8)), ..consenting() };
    let run = rig.forward(None, &how).await;
    let (key, text) = why(&run);
    assert_eq!(key, "02-apply-config@talos-vm", "{text}");
    let words = ["its firmware may have started the medium again", "`qm set 223 --boot order=DISK`"];
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
    // It was to be seen before anything was installed.
    let said = notes(&run, "00-preflight");
    let words = ["vm 223 (talos-vm) starts ide2 before scsi0", "`qm set 223 --boot 'order=scsi0;ide2'`"];
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
    assert_safe(&rig, "halted");
}
