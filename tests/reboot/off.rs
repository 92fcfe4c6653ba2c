//! A machine that is off when its test is taken back.

use pvemig::base::permit::Notebook;

use super::{calls, rig};
use crate::harness::same::{assert_done, assert_undone};
use crate::harness::{How, notes};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_somebody_switched_off_since_the_test_stays_off() {
    let rig = rig("talos-three", &["talos-vm"], |_| {}).await;
    let run = rig.forward(None, &How::default()).await;
    assert_done(&run, "talos-vm");
    let machine = rig.steps.iter().find(|s| s.id() == "04-reboot").unwrap().fields().unwrap()["machine"].clone();
    let vmid = u32::try_from(machine["vm"]["vmid"].as_u64().unwrap()).unwrap();
    let pve = rig.estate.proxmox(machine["vm"]["cluster"].as_str().unwrap()).await.unwrap();
    let at = pve.locate(vmid).await.unwrap();
    let upid = pve.stop(&at, &Notebook::permit().0).await.unwrap();
    pve.wait_task(&upid, std::time::Duration::from_secs(60), &|_| {}).await.unwrap();
    let back = rig.backward(&run.id, &How::default()).await;
    assert_undone(&back, "off");
    assert_eq!(calls(&back), Vec::<String>::new());
    let said = notes(&back, "04-reboot");
    assert!(said.contains("somebody else switched it off since, and that stays"), "{said}");
    assert!(!pve.status(&at).await.unwrap().is_running());
}
