//! Resets: what is refused, and what goes.

use pvemig::talos::proto::machine::{ResetPartitionSpec, ResetRequest, reset_request::WipeMode};

use super::*;

fn request(mode: WipeMode, volumes: &[&str], disks: &[&str]) -> ResetRequest {
    let volume = |label: &&str| ResetPartitionSpec { label: (*label).to_owned(), wipe: true };
    ResetRequest {
        graceful: false,
        reboot: true,
        system_partitions_to_wipe: volumes.iter().map(volume).collect(),
        user_disks_to_wipe: disks.iter().map(|disk| (*disk).to_owned()).collect(),
        mode: mode.into(),
    }
}

/// What a node has: its configuration, its images, data of etcd, what its second disk holds, and whether a disk is its
/// system's.
fn left(w: &World, node: &str) -> (bool, usize, bool, String, bool) {
    let node = &w.talos.nodes[node];
    let holds = node.disks.get(1).map(|disk| disk.holds.clone()).unwrap_or_default();
    let system = node.disks.iter().any(|disk| disk.system);
    (!node.config.is_empty(), node.slots.len(), node.member.is_some(), holds, system)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_no_sense_is_refused() {
    let b = Bench::new("talos-three").await;
    let cases = [
        (request(WipeMode::SystemDisk, &[], &["/dev/nvme1n1"]), "SYSTEM_DISK doesn't support"),
        (request(WipeMode::UserDisks, &["STATE"], &["/dev/nvme1n1"]), "USER_DISKS doesn't support"),
        (request(WipeMode::UserDisks, &[], &["/dev/sdz"]), "the disk /dev/sdz wasn't found"),
        (request(WipeMode::UserDisks, &[], &["/dev/nvme0n1"]), "is the system disk"),
        (request(WipeMode::All, &["NOTHING"], &[]), "\"NOTHING\""),
    ];
    assert_eq!(cases.len(), 5);
    let before = b.lab.compared();
    for (request, words) in cases {
        refused(b.machine(NUC).reset(request).await, Code::Unknown, words);
    }
    refused(b.machine_as("operator", NUC).reset(request(WipeMode::All, &[], &[])).await, Code::PermissionDenied, "");
    assert_eq!(b.lab.compared(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_mode_takes_what_it_says() {
    let cases = [
        (request(WipeMode::UserDisks, &[], &["/dev/nvme1n1"]), (true, 1, true, "", true)),
        (request(WipeMode::SystemDisk, &["EPHEMERAL"], &[]), (true, 1, false, "xfs", true)),
        (request(WipeMode::All, &["STATE"], &["/dev/nvme1n1"]), (false, 1, true, "", true)),
        (request(WipeMode::SystemDisk, &[], &[]), (false, 0, false, "xfs", false)),
        // Disks of its users are wiped where they are named, and nowhere else.
        (request(WipeMode::All, &[], &[]), (false, 0, false, "xfs", false)),
        (request(WipeMode::All, &[], &["/dev/nvme1n1"]), (false, 0, false, "", false)),
    ];
    assert_eq!(cases.len(), 6);
    for (mut request, (config, images, member, holds, system)) in cases {
        let b = Bench::with("talos-three", |w| w.talos.nodes.get_mut(NUC).unwrap().disks[1].holds = "xfs".into()).await;
        request.reboot = false;
        let actor = b.machine(NUC).reset(request.clone()).await.unwrap().into_inner().messages.remove(0).actor_id;
        assert!(!actor.is_empty());
        b.wait("it is off", |w| w.talos.nodes[NUC].off).await;
        let expected = (config, images, member, holds.to_owned(), system);
        assert_eq!(b.lab.shared().read(|w| left(w, NUC)), expected, "{request:?}");
        // Without its medium nothing comes up of a machine whose disk is empty.
        assert!(b.lab.shared().change(|w| w.press_power(NUC)));
        assert_eq!(b.lab.shared().read(|w| w.talos.nodes[NUC].run.is_some()), images > 0);
        assert_eq!(b.count(Class::Change), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graceful_reset_leaves_etcd_or_does_not_begin() {
    let b = Bench::new("talos-three").await;
    let graceful = ResetRequest { graceful: true, reboot: false, ..request(WipeMode::SystemDisk, &["EPHEMERAL"], &[]) };
    b.machine(MAC).reset(graceful.clone()).await.unwrap();
    b.wait("it is off", |w| w.talos.nodes[MAC].off).await;
    let names = |w: &World| w.talos.etcd.members.iter().map(|m| m.name.clone()).collect::<Vec<_>>();
    assert_eq!(b.lab.shared().read(|w| (names(w), w.talos.nodes[MAC].member)), (vec![NUC.into(), VM.into()], None));
    // Of two that are there one may leave; the last may not, and it reboots with all that it has.
    b.machine(VM).reset(ResetRequest { reboot: false, ..graceful.clone() }).await.unwrap();
    b.wait("it is off", |w| w.vms[&223].running.is_none()).await;
    assert_eq!(b.lab.shared().read(names), [NUC]);
    let before = b.boot_id(NUC).await;
    b.machine(NUC).reset(graceful).await.unwrap();
    b.back(NUC, &before).await;
    assert_eq!(b.lab.shared().read(|w| (names(w), left(w, NUC).2)), (vec![NUC.into()], true));
}
