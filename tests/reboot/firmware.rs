//! A node that boots something else: mostly what a power cycle shows, and a kexec does not.

use std::time::Duration;

use pvemig::engine::run::Why;
use pvemig::lab::World;
use pvemig::lab::talos::firmware;

use super::{rig, starts, stop};
use crate::harness::estate::Rig;
use crate::harness::same::assert_done;
use crate::harness::{How, Run};

const MAC: &str = "talos-mac";
const NUC: &str = "talos-nuc";
const VM: &str = "talos-vm";

fn said(run: &Run) -> String {
    match &stop(run).why {
        Why::Blocked(problems) => problems.iter().map(|p| format!("{} ({})\n", p.text, p.help)).collect(),
        Why::Failed { error, help, .. } => format!("{} ({})", error.join(" "), help.join(" ")),
        other => panic!("{other:#?}"),
    }
}

/// The version that runs and the serial number of the disk that is the system's.
fn booted(w: &World, name: &str) -> (String, String) {
    let node = &w.talos.nodes[name];
    let system = node.disks.iter().find(|disk| disk.system).unwrap();
    (node.image().version, system.serial.clone())
}

/// By kexec, which is what `talosctl reboot` does, it comes up as it was: nobody would notice.
async fn a_kexec_shows_nothing(rig: &Rig, name: &str) {
    let before = rig.lab.shared().read(|w| booted(w, name));
    let count = starts(rig)[name];
    rig.lab.shared().change(|w| drop(w.talos_reboot(name, true)));
    let up = |w: &World| {
        let node = &w.talos.nodes[name];
        let up = node.starts > count && node.run.as_ref().is_some_and(|run| run.booted);
        (up && w.talos_kubelet_ready(name) == Some(true)).then(|| booted(w, name))
    };
    assert_eq!(rig.lab.shared().until(Duration::from_secs(600), up).await, Some(before), "{name}");
    assert_eq!(starts(rig)[name], count + 1);
}

/// Whether a kexec would have shown it.
#[derive(PartialEq)]
enum Kexec {
    Hides,
    Shows,
}

/// A run whose first node comes up as another one: it stops at that node, which stays cordoned, and the next one has no
/// turn.
async fn stopped(
    world: &str,
    (node, serial): (&str, &str),
    (kexec, step): (Kexec, &str),
    change: impl FnOnce(&mut World),
) -> (Rig, Run) {
    let rig = rig(world, &[node, NUC], change).await;
    if kexec == Kexec::Hides {
        a_kexec_shows_nothing(&rig, node).await;
    }
    let before = starts(&rig);
    // Nobody waits a quarter of an hour here for what does not come: the lab's time is a hundred times as fast.
    let run = rig.forward(None, &How { limit: Some(Duration::from_secs(10)), ..How::default() }).await;
    assert_eq!(stop(&run).key.as_str(), format!("{step}@{node}"), "{:#?}", run.ended);
    let after = starts(&rig);
    assert_eq!((after[node], after[NUC]), (before[node] + 1, before[NUC]));
    let up: Vec<_> = rig.bench.read(&run.id).state.holds_up().into_iter().map(|key| key.to_string()).collect();
    assert_eq!(up, [format!("02-drain@{node}")]);
    assert_eq!(rig.lab.shared().read(|w| booted(w, node).1), serial);
    (rig, run)
}

/// Whichever kernel was booted goes on with the partitions that it finds first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_of_before_is_another_disk() {
    let old = "S5SYNS0T700412";
    let (_, run) = stopped("talos-three-old-disk", (MAC, old), (Kexec::Shows, "05-verify-boot"), |_| {}).await;
    let said = said(&run);
    let text = "talos-mac was installed on APPLE SSD SM0256G (serial S2ZRNYAH500749), and has booted from PSSD T7 (serial \
                S5SYNS0T700412)";
    assert!(said.contains(text) && said.contains("see the boot order of its firmware"), "{said}");
}

/// Its partitions are those of the disk that it was installed on, by their labels; its kernel is another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_boot_order_that_waits_in_a_vms_config_boots_another_kernel() {
    let own = "talos-vm-root";
    let (rig, run) = stopped("talos-three-boot-order", (VM, own), (Kexec::Hides, "05-verify-boot"), |_| {}).await;
    let said = said(&run);
    assert!(said.contains("talos-vm ran v1.11.5 (schematic ce4c98") && said.contains("has booted v1.11.3"), "{said}");
    assert_eq!(rig.lab.shared().read(|w| w.vms[&223].config["boot"].clone()), "order=scsi1;scsi0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stick_to_install_from_stays_where_it_is() {
    let own = "S2ZRNYAH500749";
    let (rig, run) = stopped("talos-three-stick-boots", (MAC, own), (Kexec::Hides, "04-reboot"), |_| {}).await;
    let said = said(&run);
    assert!(said.contains("talos-mac") && said.contains("what it boots, says its console"), "{said}");
    assert_eq!(rig.lab.shared().read(|w| w.talos.nodes[MAC].screen.clone()), firmware::HALTS);
    // Without the stick its button is enough, and the run goes on.
    rig.lab.shared().change(|w| {
        w.talos.nodes.get_mut(MAC).unwrap().disks[0].unplugged = true;
        assert!(w.press_power(MAC));
    });
    let resumed = rig.forward(Some(&run.id), &How::default()).await;
    assert_done(&resumed, "without the stick");
    assert_eq!(rig.lab.shared().read(|w| booted(w, MAC)), ("1.11.5".into(), own.into()));
}

/// A stick that somebody has installed Talos on, and which was never configured.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stick_with_an_installation_of_its_own_knows_nobody() {
    let (rig, run) = stopped("talos-three-old-disk", (MAC, "S5SYNS0T700412"), (Kexec::Shows, "04-reboot"), |w| {
        let other = w.talos.nodes.get_mut(MAC).unwrap().disks[0].installed.as_mut().unwrap();
        other.config = Some(String::new());
    })
    .await;
    let said = said(&run);
    assert!(said.contains("in maintenance mode, or has booted another installation"), "{said}");
    assert!(said.contains("boot order") && said.contains("what else is plugged in"), "{said}");
    assert!(rig.lab.shared().read(|w| w.talos.nodes[MAC].run.as_ref().unwrap().maintenance));
}

/// Two disks with one serial number: it is told apart by where it is plugged in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_disks_with_one_serial_number_the_other_one_is_another() {
    let (_, run) = stopped("talos-three-boot-order", (VM, "talos-vm-root"), (Kexec::Shows, "05-verify-boot"), |w| {
        let lines = [("scsi0", "serial=talos-vm-root"), ("scsi1", "serial=talos-vm-root")];
        for (key, serial) in lines {
            w.vms.get_mut(&223).unwrap().config.insert(key.into(), format!("local-lvm:disk,{serial},size=32G"));
        }
        let node = w.talos.nodes.get_mut(VM).unwrap();
        // The old one is found first.
        node.disks[1].serial = "talos-vm-root".into();
        node.disks.swap(0, 1);
        let same = node.slots.clone();
        node.disks[0].installed.as_mut().unwrap().slots = same;
        w.vms.get_mut(&223).unwrap().pending.clear();
    })
    .await;
    let said = said(&run);
    let part = |n: &str| format!("QEMU HARDDISK (bus path /pci0000:00/0000:00:05.0/0000:01:{n}");
    assert!(said.contains(&format!("was installed on {}", part("01"))), "{said}");
    assert!(said.contains(&format!("has booted from {}", part("02"))), "{said}");
}
