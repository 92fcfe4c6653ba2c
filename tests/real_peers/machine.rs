//! A `usb-move` run whose target is a QEMU process with a guest of its own kernel.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use pvemig::base::permit::System;
use pvemig::engine::event::{Event, Record};
use pvemig::engine::run::{Ended, Why};
use pvemig::guest::{Guest, GuestUsb};
use pvemig::lab::world::{Firmware, SshManner};
use pvemig::lab::{Place, World};
use serde_json::json;
use tokio::time::Instant;

use crate::guest::place::program;
use crate::harness::estate::{Rig, at_rest};
use crate::harness::{How, Run, calls, notes};

pub(super) const VM: u32 = 108;
const NODE: &str = "k3s-vm-still-fawn";
/// Simulated seconds in a real one: a real guest takes real time, and the world should not run away meanwhile.
pub(super) const SPEED: u32 = 10;
/// How long a busy machine may take for anything, simulated.
pub(super) const LONG: Duration = Duration::from_secs(240 * SPEED as u64);

/// The folder of the guest's kernel and its files, made where it is not there yet.
pub(super) fn image() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let image = root.join("target/guest");
    if !image.join("stamp").exists() {
        let made = program(root.join("scripts/guest-image").to_str().unwrap()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
    image
}

/// What the guest's kernel says of the Coral: id, speed, port.
async fn coral(guest: &Guest) -> Vec<(String, u32, String)> {
    let devices = guest.usb().await.unwrap().value;
    let row = |usb: GuestUsb| (usb.id.to_string(), usb.speed_mbit, usb.port.map(|port| port.to_string()));
    let mut rows: Vec<_> = devices.into_iter().map(row).collect();
    rows.retain(|(id, ..)| id == "1a6e:089a" || id == "18d1:9302");
    rows.into_iter().map(|(id, speed, port)| (id, speed, port.unwrap_or_default())).collect()
}

/// Looks until the guest shows the Coral in this way: a kernel takes its time to enumerate.
async fn shows(guest: &Guest, what: &[(&str, u32)]) -> f64 {
    let begin = Instant::now();
    loop {
        let seen = coral(guest).await;
        let rows: Vec<(&str, u32)> = seen.iter().map(|(id, speed, _)| (id.as_str(), *speed)).collect();
        if rows == what {
            return begin.elapsed().as_secs_f64();
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "{seen:?} instead of {what:?}");
    }
}

fn done(run: &Run) {
    assert!(matches!(run.ended, Ok(Ended::Done)), "{:#?}", run.ended);
}

/// From the first line about a step to the last.
fn seconds(records: &[Record], step: &str) -> f64 {
    let about = |record: &&Record| serde_json::to_string(&record.event).unwrap().contains(&format!("\"{step}\""));
    let times: Vec<Timestamp> = records.iter().skip(1).filter(about).map(|record| record.at).collect();
    let (Some(first), Some(last)) = (times.first(), times.last()) else { return 0.0 };
    last.duration_since(*first).as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stick_moves_into_a_real_guest() {
    let image = image();
    let fresh =
        !std::fs::read_dir(&image).unwrap().any(|f| f.unwrap().file_name().to_str().unwrap().starts_with("state-"));
    let mut world = at_rest("usb-move-old");
    world.vms.get_mut(&VM).unwrap().guest.image = Some(image);
    let begin = Instant::now();
    let mut rig = Rig::at(SPEED, world, |site| {
        let params = &mut site["migrations"]["frigate-coral"]["params"];
        // A driver that this guest's kernel really has.
        params["drivers"] = json!({
            "check": { "command": ["/bin/test", "-d", "/sys/module/usbserial"], "reads": true },
            "install": { "command": ["/bin/modprobe", "usbserial"], "repeatable": true },
            "remove": { "command": ["/bin/rmmod", "usbserial"], "repeatable": true },
        });
    })
    .await;
    let how = if fresh { "booted once, saved, and started from that" } else { "started from its saved state" };
    println!("real guest: {how} in {:.1} s", begin.elapsed().as_secs_f64());

    // What the world was told is what the guest says, by ssh and by its agent.
    let guest = rig.estate.guest(NODE).await.unwrap();
    let first = guest.boot_id().await.unwrap();
    assert!(first.route.starts_with("ssh root@127.0.0.1"), "{:?}", first.notes);
    let told = |world: &World| world.boot_id(VM);
    assert_eq!(rig.lab.shared().read(told).as_ref(), Some(&first.value));
    let facts = guest.facts().await;
    let agent = facts.agent.unwrap();
    assert!(facts.ssh.unwrap().is_yes() && agent.ping.is_yes() && agent.exec.is_yes(), "{agent:?}");
    assert_eq!(coral(&guest).await, []);

    // Up to the device: the guest's kernel shows it as a Coral that nobody has used yet.
    let run = rig.forward(None, &How::default()).await;
    done(&run);
    let steps = ["04-add-usb", "05-reboot-vm", "06-wait-for-vm", "07-check-vm-hardware", "08-install-drivers"];
    for step in steps {
        println!("real guest: {step} took {:.1} s", seconds(&run.records, step));
    }
    let whole = run.records.last().unwrap().at.duration_since(run.records[0].at).as_secs_f64();
    println!("real guest: usb-move took {whole:.1} s");
    let seen = notes(&run, "07-check-vm-hardware");
    assert!(seen.contains("1a6e:089a") && seen.contains("5000 Mbit/s"), "{seen}");
    let second = guest.boot_id().await.unwrap().value;
    assert_ne!(second, first.value, "the reboot is a real one");
    assert!(guest.exists("/sys/module/usbserial").await.unwrap().value, "the driver is in the kernel");
    // Its first use gave it its other id, in the guest as well.
    shows(&guest, &[("18d1:9302", 5000)]).await;
    // What went to the real sshd the lab does not see: the install, unless sshd was silent lately and the agent had it.
    let by_ssh = |r: &&Record| matches!(&r.event, Event::Call { note, .. } if note.system == System::Ssh);
    let by_ssh = run.records.iter().filter(by_ssh).count();
    assert!(by_ssh <= 1, "{by_ssh}");
    assert_eq!(calls(&run.records), rig.changes() + by_ssh);

    // Out of the socket and in again; from here on it is one that keeps its id, whoever uses it.
    rig.lab.shared().change(|world| {
        let plain = Firmware::Plain { id: "1a6e:089a".into(), product: String::new() };
        world.sticks.get_mut("coral").unwrap().firmware = plain;
    });
    let at = |port: &str| Some(Place { host: "still-fawn".into(), port: port.into() });
    rig.lab.move_stick("coral", None).unwrap();
    println!("real guest: a stick that is taken out is gone after {:.1} s", shows(&guest, &[]).await);
    rig.lab.move_stick("coral", at("2-3")).unwrap();
    println!("real guest: one that is put in is there after {:.1} s", shows(&guest, &[("1a6e:089a", 5000)]).await);

    // Without usb3=1 it is behind another controller, and slower.
    rig.lab.shared().change(|world| {
        for value in world.vms.get_mut(&VM).unwrap().config.values_mut() {
            *value = value.replace(",usb3=1", "");
        }
    });
    power(&rig, "reset", &second).await;
    let third = guest.boot_id().await.unwrap().value;
    assert_ne!(third, second, "a reset is a real one");
    shows(&guest, &[("1a6e:089a", 5000)]).await;
    power(&rig, "reboot", &third).await;
    shows(&guest, &[("1a6e:089a", 480)]).await;
    rig.steps.retain(|step| step.id() == "07-check-vm-hardware");
    let run = rig.forward(None, &How::default()).await;
    let Ok(Ended::Stopped(stop)) = &run.ended else { panic!("{:#?}", run.ended) };
    let Why::Blocked(problems) = &stop.why else { panic!("{stop:#?}") };
    let text = format!("{problems:?}");
    assert!(text.contains("480 Mbit/s") && text.contains("without usb3=1") && text.contains("04-add-usb"), "{text}");

    // sshd in the guest is stopped: the agent of the guest carries 06 to 08.
    rig.mend();
    rig.steps.retain(|step| ["06-wait-for-vm", "07-check-vm-hardware", "08-install-drivers"].contains(&step.id()));
    rig.lab.shared().change(|world| {
        let vm = world.vms.get_mut(&VM).unwrap();
        vm.guest.ssh = SshManner::Refuses;
        vm.config.iter_mut().filter(|(key, _)| key.starts_with("usb")).for_each(|(_, line)| *line += ",usb3=1");
    });
    let fourth = guest.boot_id().await.unwrap().value;
    power(&rig, "reboot", &fourth).await;
    let before = (rig.changes(), Instant::now());
    let run = rig.forward(None, &How::default()).await;
    done(&run);
    println!("real guest: 06 to 08 by its agent took {:.1} s", before.1.elapsed().as_secs_f64());
    for step in ["06-wait-for-vm", "07-check-vm-hardware", "08-install-drivers"] {
        let notes = notes(&run, step);
        assert!(notes.contains("agent of vm 108 (cluster home): answered"), "{step}: {notes}");
    }
    // A boot during which it was silent leaves it out for a minute.
    let seen = notes(&run, "06-wait-for-vm");
    assert!(seen.contains("ssh: no (") || seen.contains("ssh: not known ("), "{seen}");
    assert_eq!((calls(&run.records), rig.changes() - before.0), (1, 1), "the driver, by the agent");
    assert!(guest.exists("/sys/module/usbserial").await.unwrap().value);

    // And off: nobody is behind its sockets any more.
    let begin = Instant::now();
    let socket = rig.dir().join(format!("vm-{VM}/qmp"));
    assert!(std::os::unix::net::UnixStream::connect(&socket).is_ok());
    order(&rig, "shutdown").await;
    assert!(std::os::unix::net::UnixStream::connect(&socket).is_err());
    println!("real guest: it was off after {:.1} s", begin.elapsed().as_secs_f64());
}

/// A pve task for the machine, waited for.
pub(super) async fn order(rig: &Rig, verb: &str) {
    let order = json!({ "timeout": 600 });
    let upid = rig.lab.shared().change(|world| world.fork(&format!("qm{verb}"), VM, "root@pam", order));
    let ended = |world: &World| world.task(&upid).and_then(|task| task.end.clone());
    let (_, status) = rig.lab.shared().until(LONG, ended).await.unwrap();
    assert_eq!(status, "OK", "{verb}");
}

/// As [`order`], until the guest is up with another boot than `before`.
pub(super) async fn power(rig: &Rig, verb: &str, before: &str) {
    let begin = Instant::now();
    order(rig, verb).await;
    let up = |world: &World| world.boot_id(VM).filter(|boot| boot != before);
    assert!(rig.lab.shared().until(LONG, up).await.is_some(), "{verb}");
    println!("real guest: {verb} to the agent's answer took {:.1} s", begin.elapsed().as_secs_f64());
}
