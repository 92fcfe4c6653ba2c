//! What a machine's firmware boots, and when it is gone through.

use std::time::Duration as Time;

use pvemig::lab::talos::firmware::{HALTS, NOTHING};
use pvemig::lab::talos::node::{Disk, Image, Installation, Node, Slot, Source};
use pvemig::talos::proto::machine::RebootRequest;
use pvemig::talos::proto::machine::reboot_request::Mode;

use super::*;

fn image(version: &str) -> Image {
    Image { version: version.into(), ..Image::default() }
}

fn installed(version: &str) -> Installation {
    Installation { slots: [(Slot::A, image(version))].into(), ..Installation::default() }
}

fn node(b: &Bench, name: &str) -> Node {
    b.lab.shared().read(|w| w.talos.nodes[name].clone())
}

/// What runs there, from where, and by the kernel that ran before.
fn booted(b: &Bench, name: &str) -> (String, Option<(Source, bool)>) {
    let node = node(b, name);
    (node.image().version, node.run.map(|run| (run.source, run.kexec)))
}

async fn reboot(b: &Bench, name: &str, mode: Mode) {
    let count = node(b, name).starts;
    b.machine(name).reboot(RebootRequest { mode: mode.into() }).await.unwrap();
    let gone = |w: &World| {
        let node = &w.talos.nodes[name];
        node.starts > count || !node.screen.is_empty()
    };
    b.wait("it has booted", gone).await;
}

/// Another installation on a disk that is plugged in while the Mac runs.
fn plug(w: &mut World, at: usize) {
    let mac = w.talos.nodes.get_mut(MAC).unwrap();
    let disk = Disk { transport: "usb".into(), serial: "OLD".into(), late: true, ..Disk::default() };
    mac.disks.insert(at, Disk { installed: Some(installed("1.11.3")), ..disk });
}

async fn device(b: &Bench) -> Value {
    b.get(MAC, "runtime", "SystemDisks.block.talos.dev", "system-disk").await["devPath"].clone()
}

async fn again(b: &Bench, mode: Mode) {
    let before = b.boot_id(MAC).await;
    reboot(b, MAC, mode).await;
    b.back(MAC, &before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_firmware_goes_by_its_order() {
    let b = Bench::with("talos-three", |w| {
        plug(w, 2);
        w.talos.nodes.get_mut(MAC).unwrap().boot_order = vec!["OLD".into()];
    })
    .await;
    let own = node(&b, MAC);
    // The kernel of the other disk finds the partitions of this one; by kexec its loader's kernel comes back.
    let cases = [
        (None, "1.11.5", Source::Slot, false),
        (Some(Mode::Default), "1.11.5", Source::Slot, true),
        (Some(Mode::Powercycle), "1.11.3", Source::Disk(2), false),
        (Some(Mode::Default), "1.11.5", Source::Slot, true),
    ];
    assert_eq!(cases.len(), 4);
    for (mode, version, source, kexec) in cases {
        if let Some(mode) = mode {
            again(&b, mode).await;
        }
        assert_eq!(booted(&b, MAC), (version.into(), Some((source, kexec))), "{mode:?}");
        assert_eq!((device(&b).await, node(&b, MAC).member), ("/dev/sda".into(), own.member), "{mode:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_partitions_that_are_found_first_are_its_own() {
    for mode in [Mode::Default, Mode::Powercycle] {
        let b = Bench::with("talos-three", |w| plug(w, 0)).await;
        let own = node(&b, MAC).member;
        assert_eq!(device(&b).await, "/dev/sda");
        again(&b, mode).await;
        // The kernel is that of the disk that it was installed on, which is the second one now.
        assert_eq!(booted(&b, MAC), ("1.11.5".into(), Some((Source::Disk(2), mode == Mode::Default))));
        assert_eq!(device(&b).await, "/dev/sda");
        let now = node(&b, MAC);
        assert!(now.disks[0].system && !now.disks[2].system);
        let former = now.disks[2].installed.clone().unwrap();
        assert_eq!((former.slots[&Slot::A].version.as_str(), former.member), ("1.11.5", own));
        // Its data of etcd is on the other disk: it has joined anew, in the place of the member of its name.
        let ids = |w: &World| w.talos.etcd.members.iter().filter(|m| m.name == MAC).map(|m| m.id).collect::<Vec<_>>();
        let ids = b.lab.shared().read(ids);
        assert_eq!((ids.len(), Some(ids[0])), (1, now.member));
        assert_ne!(now.member, own);
        // Without it all is as before.
        b.lab.shared().change(|w| w.talos.nodes.get_mut(MAC).unwrap().disks[0].unplugged = true);
        reboot(&b, MAC, Mode::Powercycle).await;
        assert_eq!(booted(&b, MAC), ("1.11.5".into(), Some((Source::Slot, false))));
        assert_eq!(node(&b, MAC).member, own);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_to_install_from_stays_where_something_is_installed() {
    // Before 1.8 it went on with the configuration that it found.
    for (version, came_up) in [("1.11.5", false), ("1.7.7", true)] {
        let b = Bench::with("talos-three", |w| {
            let mac = w.talos.nodes.get_mut(MAC).unwrap();
            mac.boot_order = vec![mac.disks[0].serial.clone()];
            (mac.disks[0].unplugged, mac.disks[0].live) = (false, Some(image(version)));
        })
        .await;
        assert_eq!(booted(&b, MAC).0, "1.11.5");
        reboot(&b, MAC, Mode::Powercycle).await;
        let screen = node(&b, MAC).screen;
        assert_eq!(screen, if came_up { "" } else { HALTS }, "{version}");
        let from = came_up.then_some((Source::Disk(0), false));
        assert_eq!(booted(&b, MAC).1, from, "{version}");
        if came_up {
            assert_eq!(booted(&b, MAC).0, version);
            continue;
        }
        assert!(b.machine(MAC).version(()).await.is_err());
        // With the disk taken out it is what runs, in maintenance.
        b.lab.shared().change(|w| {
            w.talos.nodes.get_mut(MAC).unwrap().disks[1].unplugged = true;
            assert!(w.press_power(MAC));
        });
        assert_eq!(booted(&b, MAC), (version.into(), Some((Source::Disk(0), false))));
        assert!(node(&b, MAC).run.unwrap().maintenance);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_boots_by_its_config_as_it_was_started_with_it() {
    let b = Bench::with("talos-three", |w| {
        w.vms.get_mut(&223).unwrap().config.insert("ide2".into(), "local:iso/metal-amd64.iso,media=cdrom".into());
        w.vms.get_mut(&223).unwrap().pending.insert("boot".into(), "order=ide2;scsi0".into());
        w.talos.nodes.get_mut(VM).unwrap().medium = Some(image("1.11.5"));
    })
    .await;
    let cycle = async || {
        b.lab.shared().change(|w| w.fork("qmstop", 223, "root@pam", serde_json::json!({})));
        b.wait("it is off", |w| w.vms[&223].running.is_none()).await;
        b.lab.shared().change(|w| w.fork("qmstart", 223, "root@pam", serde_json::json!({})));
        b.wait("it is on", |w| w.vms[&223].running.is_some()).await;
    };
    for mode in [Mode::Default, Mode::Powercycle] {
        let before = b.boot_id(VM).await;
        reboot(&b, VM, mode).await;
        b.back(VM, &before).await;
        assert_eq!(booted(&b, VM), ("1.11.5".into(), Some((Source::Slot, mode == Mode::Default))));
    }
    cycle().await;
    assert_eq!((booted(&b, VM).1, node(&b, VM).screen.as_str()), (None, HALTS));
    assert!(b.lab.shared().until(Time::from_secs(60), |w| w.agent_up(223).then_some(())).await.is_none());
    let order = |text: &str| {
        b.lab.shared().change(|w| drop(w.vms.get_mut(&223).unwrap().pending.insert("boot".into(), text.into())));
    };
    // What the order does not name is not booted.
    order("order=net0");
    b.lab.shared().change(|w| w.talos.nodes.get_mut(VM).unwrap().medium = None);
    cycle().await;
    assert_eq!((booted(&b, VM).1, node(&b, VM).screen.as_str()), (None, NOTHING));
    order("order=net0;scsi0");
    cycle().await;
    assert_eq!(booted(&b, VM).1, Some((Source::Slot, false)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kernel_that_may_load_no_other_reboots_through_the_firmware() {
    let b = Bench::with("talos-three", |w| {
        let mac = w.talos.nodes.get_mut(MAC).unwrap();
        let more = "    vm.nr_hugepages: \"1024\"\n    kernel.kexec_load_disabled: \"1\"\n";
        mac.config = mac.config.replace("    vm.nr_hugepages: \"1024\"\n", more);
    })
    .await;
    reboot(&b, MAC, Mode::Default).await;
    assert_eq!(booted(&b, MAC).1, Some((Source::Slot, false)));
}
