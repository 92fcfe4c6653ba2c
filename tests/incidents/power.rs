//! Proxmox in bad moods: locks, pve tasks that fail or end with warnings, answers that come too late or not at all.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use pvemig::engine::event::Event;
use pvemig::lab::{Class, FaultEffect, FaultRule, Front, World};
use serde_json::json;

use super::{DEVICE, How, assert_noted, assert_stopped, go, notes, rig};
use crate::harness::Reader;
use crate::harness::same::{assert_done, assert_undone};

fn vm(world: &mut World) -> &mut pvemig::lab::world::Vm {
    world.vms.get_mut(&108).unwrap()
}

/// A backup of several guests holds the lock: the step waits and names it, and goes on when it is gone.
async fn locked() {
    let rig = rig("usb-move", DEVICE, |world| {
        vm(world).lock = Some("backup".into());
        world.begin_task("still-fawn", "vzdump", "", "root@pam", json!(null));
    })
    .await;
    let lab = rig.lab.shared().clone();
    let looked = lab.log.seen().len();
    let ends = async {
        let asked = |_: &World| {
            let seen = lab.log.seen();
            seen.iter().skip(looked).any(|s| s.line.contains("source=active")).then_some(())
        };
        lab.until(Duration::from_secs(900), asked).await;
        lab.change(|world| vm(world).lock = None);
    };
    let (run, ()) = tokio::join!(go(&rig), ends);
    assert_noted(&run, &["04-"], &["waited: vm 108 is locked (backup) by vzdump of root@pam (perhaps"]);
}

/// A backup of each VM begins while the run is undone: the undo waits as the run did, and is not left half-way.
async fn locked_at_undo() {
    let rig = rig("usb-move", DEVICE, |world| vm(world).running = None).await;
    let run = go(&rig).await;
    assert_done(&run, "there");
    let shared = rig.lab.shared().clone();
    let lock = move |vmid: u32, lock: Option<&str>| {
        shared.change(|world| world.vms.get_mut(&vmid).unwrap().lock = lock.map(str::to_owned));
    };
    let waited = Arc::new(Mutex::new(Vec::new()));
    for vmid in [105, 108] {
        lock(vmid, Some("backup"));
    }
    let seen = waited.clone();
    let reader: Reader = Arc::new(move |record| match &record.event {
        Event::Checked { key, notes, .. } => {
            for vmid in [105, 108] {
                if notes.iter().any(|note| note.contains(&format!("waited: vm {vmid} is locked (backup)"))) {
                    seen.lock().unwrap().push((key.as_str().to_owned(), vmid));
                    lock(vmid, None);
                }
            }
        }
        Event::Undone { key, .. } if key.as_str() == "05-reboot-vm" => lock(108, Some("backup")),
        _ => {}
    });
    let back = rig.backward(&run.id, &How { reader: Some(reader), ..How::default() }).await;
    assert_undone(&back, "the backups have ended");
    let expected = [("05-reboot-vm", 108), ("04-add-usb", 108), ("01-remove-usb", 105)];
    assert_eq!(*waited.lock().unwrap(), expected.map(|(key, vmid)| (key.to_owned(), vmid)));
}

async fn answer_lost(status: Option<u16>) {
    let rig = rig("usb-move", DEVICE, |_| {}).await;
    let effect = match status {
        Some(code) => FaultEffect::StatusAfter(code, "Broken pipe".into()),
        None => FaultEffect::ResetAfter,
    };
    rig.lab.fault(FaultRule::on(Front::Proxmox, effect).method("POST").path("*/qemu/108/config").times(1));
    let run = go(&rig).await;
    assert_stopped(
        &run,
        "04-",
        &["vm 108", "the change was sent and its answer was lost", "`pvemig resume` looks first"],
    );
    let sent = rig.changes();
    let resumed = rig.forward(Some(&run.id), &How::default()).await;
    assert_done(&resumed, "resumed");
    let config = rig.lab.shared().read(|world| world.vms[&108].config.clone());
    assert_eq!(config.keys().filter(|k| k.starts_with("usb")).count(), 2);
    let again = rig.lab.shared().log.seen();
    let written = again.iter().filter(|s| s.class == Class::Change && s.line.contains("/qemu/108/config")).count();
    assert_eq!(written, 1, "it is looked at, and not sent again (after {sent})");
}

/// The ticket is refused in the middle of a run: a new one is got, and the refused request is asked again.
async fn ticket_expires() {
    let rig = rig("usb-move", DEVICE, |_| {}).await;
    let expired = FaultEffect::Status(401, "permission denied - invalid PVE ticket".into());
    rig.lab.fault(FaultRule::on(Front::Proxmox, expired).class(Class::Read).path("*/qemu/108/*").skip(2).times(1));
    let run = go(&rig).await;
    assert_done(&run, "with a new ticket");
    let seen = rig.lab.shared().log.seen();
    assert_eq!(seen.iter().filter(|s| s.line.contains("/access/ticket")).count(), 2);
}

async fn token_where_a_ticket_is_needed() {
    let rig = rig("usb-move-token-cannot", &[], |_| {}).await;
    assert_stopped(&go(&rig).await, "00-preflight", &["root@pam alone may", "attach: mapping"]);
    assert_eq!(rig.changes(), 0);
}

/// Somebody writes the config between the look and the write: it is looked at again.
async fn digest_conflict() {
    let rig = rig("usb-move", DEVICE, |_| {}).await;
    let text = "detected modified configuration - file changed by other user? Try again.";
    let conflict = FaultEffect::Status(500, text.into());
    rig.lab.fault(FaultRule::on(Front::Proxmox, conflict).method("POST").path("*/qemu/108/config").times(1));
    assert_done(&go(&rig).await, "after another look");
    // The first write met the conflict, and a second one with the new digest went through.
    let met: u32 = rig.lab.shared().clear_faults().iter().map(|rule| rule.met).sum();
    assert_eq!(met, 2);
    let config = rig.lab.shared().read(|world| world.vms[&108].config.clone());
    assert_eq!(config.keys().filter(|key| key.starts_with("usb")).count(), 2);
}

/// The guest keeps the device busy: the change is stored and stays pending until the power cycle.
async fn kept_pending() {
    let rig = rig("usb-move", &["01-"], |world| world.vms.get_mut(&105).unwrap().guest.holds_usb = true).await;
    let run = go(&rig).await;
    assert_done(&run, "stored");
    assert!(notes(&run, "01-").contains("leaves vm 105 at its next power cycle"), "{}", notes(&run, "01-"));
    let pending = rig.lab.shared().read(|world| world.vms[&105].pending_delete.len());
    assert!(pending > 0, "{pending}");
}

/// QEMU does not start: the error has what QEMU said, and resume starts it.
async fn start_fails() {
    // Slow enough for somebody to come in between.
    let rig = rig("usb-move-old", DEVICE, |world| world.timing.process = 60_000).await;
    let lab = rig.lab.shared().clone();
    let fails = async {
        let starting = |world: &World| {
            let task = world.tasks.iter().find(|task| task.kind == "qmstart" && task.end.is_none());
            task.map(|task| task.upid.clone())
        };
        let upid = lab.until(Duration::from_secs(7_200), starting).await.unwrap();
        lab.change(|world| {
            world.log_task(&upid, "kvm: -device usb-host,bus=xhci.0: failed to open host usb device 2:3");
            world.end_task(&upid, Err("start failed: QEMU exited with code 1".into()));
        });
    };
    let (run, ()) = tokio::join!(go(&rig), fails);
    assert_stopped(&run, "05-", &["start failed: QEMU exited with code 1", "failed to open host usb device 2:3"]);
    assert_done(&rig.forward(Some(&run.id), &How::default()).await, "resumed");
    assert!(rig.lab.shared().read(|world| world.vms[&108].running.is_some()));
}

/// The shutdown times out and the machine goes off later, by itself: the error says that it may, and resume starts it
/// without another shutdown.
async fn goes_off_later() {
    let rig = rig("usb-move-old", DEVICE, |world| vm(world).guest.shutdown_ms = Some(330_000)).await;
    let run = go(&rig).await;
    assert_stopped(&run, "05-", &["did not power off in time", "the guest may still power off by itself"]);
    let off = |world: &World| world.vms[&108].running.is_none().then_some(());
    assert!(rig.lab.shared().until(Duration::from_secs(120), off).await.is_some());
    assert_done(&rig.forward(Some(&run.id), &How::default()).await, "resumed");
    let seen = rig.lab.shared().log.seen();
    let sent = |verb: &str| {
        let line = format!("/qemu/108/status/{verb}");
        seen.iter().filter(|s| s.class == Class::Change && s.line.contains(&line)).count()
    };
    assert_eq!((sent("shutdown"), sent("stop"), sent("start")), (1, 0, 1));
}

/// A pve task that ends with warnings has done its work; what it warned of stays in the journal and the report.
async fn ends_with_warnings() {
    let rig = rig("usb-move-old", DEVICE, |world| {
        vm(world).config.insert("bios".into(), "ovmf".into());
    })
    .await;
    let run = go(&rig).await;
    assert_noted(&run, &["05-"], &["qmstart ended with WARNINGS: 1 (no efidisk configured! Using temporary"]);
}

incidents! {
    a_pve_task_fails: start_fails();
    a_shutdown_times_out_and_the_machine_goes_off_later: goes_off_later();
    a_pve_task_ends_with_warnings: ends_with_warnings();
    a_backup_holds_the_lock: locked();
    a_backup_holds_the_lock_at_the_undo: locked_at_undo();
    an_answer_is_596_after_the_effect: answer_lost(Some(596));
    an_answer_never_comes: answer_lost(None);
    the_ticket_expires_in_mid_run: ticket_expires();
    a_token_cannot_do_what_a_ticket_can: token_where_a_ticket_is_needed();
    somebody_else_wrote_the_config: digest_conflict();
    a_change_is_stored_and_pending: kept_pending();
}
