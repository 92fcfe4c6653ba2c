//! 04 of a node in a VM in bad moods of Proxmox, and of a node that does not go down.

use pvemig::base::check::Answer;
use pvemig::engine::event::Event;
use pvemig::engine::run::Why;
use pvemig::lab::World;
use serde_json::json;

use super::{ask, calls, rig, starts, stop, told};
use crate::harness::How;
use crate::harness::same::{assert_done, assert_undone};

const VM: &str = "talos-vm";
const REBOOT: &str = "04-reboot@talos-vm";

fn vm(w: &mut World) -> &mut pvemig::lab::world::Vm {
    w.vms.get_mut(&223).unwrap()
}

fn pid(rig: &crate::harness::estate::Rig) -> u32 {
    rig.lab.shared().read(|w| w.vms[&223].running.as_ref().unwrap().pid)
}

fn failed(run: &crate::harness::Run) -> (String, String) {
    match &stop(run).why {
        Why::Failed { error, help, .. } => (error.join(" "), help.join(" ")),
        other => panic!("{other:#?}"),
    }
}

/// High availability would start a VM that Talos has shut down, before it is off for Proxmox: it is asked for the cycle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_of_high_availability_is_cycled_by_one_request() {
    let rig = rig("talos-three", &[VM], |w| drop(w.ha.insert(223, "started".into()))).await;
    let before = pid(&rig);
    let run = rig.forward(None, &How::default()).await;
    assert_done(&run, "of high availability");
    let power: Vec<_> = calls(&run).into_iter().filter(|call| call.contains("223")).collect();
    assert!(power.len() == 1 && power[0].contains("status/reboot"), "{power:#?}");
    assert!(!calls(&run).iter().any(|call| call.contains("Shutdown")), "{:#?}", calls(&run));
    assert_ne!(pid(&rig), before);
    assert_eq!(starts(&rig)[VM], 2);
    assert_undone(&rig.backward(&run.id, &How::default()).await, "of high availability");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_does_not_listen_to_high_availability_is_not_stopped() {
    let rig = rig("talos-three", &[VM], |w| {
        w.ha.insert(223, "started".into());
        vm(w).guest.ignores_shutdown = true;
    })
    .await;
    let before = pid(&rig);
    let run = rig.forward(None, &How::default()).await;
    let (error, _) = failed(&run);
    assert!(stop(&run).key.as_str() == REBOOT && error.contains("vm 223"), "{error}");
    assert_eq!((pid(&rig), starts(&rig)[VM]), (before, 1));
    assert!(!calls(&run).iter().any(|call| call.contains("status/stop")), "{:#?}", calls(&run));
    rig.lab.shared().change(|w| vm(w).guest.ignores_shutdown = false);
    assert_done(&rig.forward(Some(&run.id), &How::default()).await, "it listens");
    assert_eq!(starts(&rig)[VM], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_that_never_ends_is_told_with_what_ends_it() {
    let rig = rig("talos-three", &[VM], |w| w.talos.timing.stop = 7 * 24 * 3_600_000).await;
    let run = rig.forward(None, &How::default()).await;
    let (error, help) = failed(&run);
    assert_eq!(stop(&run).key.as_str(), REBOOT);
    assert!(error.contains("vm 223 is not off 5 min after Talos was told to shut down"), "{error}");
    assert!(help.contains("see its console") && help.contains("`qm stop 223`"), "{help}");
    // Nobody stops it by force, and nobody asks it twice.
    let power: Vec<_> = calls(&run).into_iter().filter(|c| c.contains("Shutdown") || c.contains("status/")).collect();
    assert!(power.len() == 1 && power[0].contains("Shutdown"), "{power:#?}");
    // An undo says at once what is known.
    let short = How { limit: Some(std::time::Duration::from_secs(3)), ..How::default() };
    let undo = rig.backward(&run.id, &short).await;
    let said = format!("{:?}", stop(&undo).why);
    assert!(said.contains("talos-vm is going down"), "{said}");
    // Stopped by hand, the run goes on from there.
    let pve = rig.estate.proxmox("home").await.unwrap();
    let at = pve.locate(223).await.unwrap();
    let upid = pve.stop(&at, &pvemig::base::permit::Notebook::permit().0).await.unwrap();
    pve.wait_task(&upid, std::time::Duration::from_secs(60), &|_| {}).await.unwrap();
    assert_undone(&rig.backward(&run.id, &How::default()).await, "stopped by hand");
    assert_eq!(starts(&rig)[VM], 2);
}

fn lock(w: &mut World) {
    vm(w).lock = Some("backup".into());
    w.begin_task("pve", "vzdump", "223", "root@pam", json!(null));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_vm_is_waited_for_and_who_locks_it_is_named() {
    let mut rig = rig("talos-three", &[VM], |_| {}).await;
    rig.steps.retain(|step| step.key().as_str() == "02-drain@talos-vm");
    assert_done(&rig.forward(None, &How::default()).await, "drained");
    rig.mend();
    rig.lab.shared().change(lock);
    let Answer::Waiting { reason, foreign } = ask(&rig, REBOOT).await.unwrap().answer else { panic!() };
    assert!(foreign && reason.starts_with("vm 223 is locked (backup) by vzdump of root@pam"), "{reason}");
    let before = rig.changes();
    rig.steps.retain(|step| step.key().as_str() == REBOOT);
    let run = rig.forward(None, &How { limit: Some(std::time::Duration::from_secs(2)), ..How::default() }).await;
    let said = format!("{:?}", stop(&run).why);
    assert!(said.contains("vm 223 is locked (backup)"), "{said}");
    assert_eq!((rig.changes(), starts(&rig)[VM]), (before, 1));
    rig.lab.shared().change(|w| vm(w).lock = None);
    assert_done(&rig.forward(Some(&run.id), &How::default()).await, "let go of");
    assert_eq!(starts(&rig)[VM], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_that_is_locked_right_before_the_call_is_not_taken_down() {
    let rig = rig("talos-three", &[VM], |_| {}).await;
    let shared = rig.lab.shared().clone();
    let run = told(&rig, move |record| {
        if matches!(&record.event, Event::Applying { key, .. } if key.as_str() == REBOOT) {
            shared.change(lock);
        }
    })
    .await;
    let (error, help) = failed(&run);
    assert!(error.contains("vm 223 is locked (backup), and could not be started again"), "{error}");
    assert!(help.contains("pvemig resume"), "{help}");
    assert_eq!(starts(&rig)[VM], 1);
    rig.lab.shared().change(|w| vm(w).lock = None);
    assert_done(&rig.forward(Some(&run.id), &How::default()).await, "let go of");
    assert_eq!(starts(&rig)[VM], 2);
}
