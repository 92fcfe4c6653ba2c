//! NVMe drives that change their slots between the boots of a real kernel: its names for them change hands, and who goes by
//! serial numbers and partitions finds each.

use std::collections::BTreeMap;
use std::time::Duration;

use pvemig::base::clock::Clock;
use pvemig::base::drives::{By, Drive, Inventory, Layout, Odd, Plan, Purpose, Scenario, Sight, Slot, Wanted, placed};
use pvemig::base::survey::Layer;
use pvemig::guest::{Exit, Guest, Look, Output, Route, drive_parts, nvme_drives};
use pvemig::lab::world::NvmeDrive;
use tokio::time::Instant;

use super::machine::{SPEED, VM, image, order, power};
use crate::guest::table::gpt;
use crate::harness::estate::{Rig, at_rest};

const SERIALS: [&str; 2] = ["S4EVNX0R111111A", "MZVL21T0222222B"];
const SIZE: u64 = 64 << 20;
/// Uuid, label, first and last block.
type Partition = (&'static str, &'static str, u64, u64);
/// By drive: the uuid of its table, and its partitions.
const TABLES: [(&str, [Partition; 2]); 2] = [
    (
        "00000000-0000-4000-8000-00000000000a",
        [
            ("5b1c6f0e-0102-4304-8506-0708090a0b0c", "EFI", 2048, 22_527),
            ("6c2d7f1f-1112-4314-9516-1718191a1b1c", "EPHEMERAL", 22_528, 63_487),
        ],
    ),
    (
        "00000000-0000-4000-8000-00000000000b",
        [
            ("7d3e8a2a-2122-4324-a526-2728292a2b2c", "u-media", 2048, 43_007),
            ("8e4f9b3b-3132-4334-b536-3738393a3b3c", "r-scratch", 43_008, 63_487),
        ],
    ),
];

/// Name, serial number, port and the labels of the partitions.
fn shown(inventory: &Inventory) -> Vec<String> {
    let one = |drive: &Drive| {
        let parts = drive.parts.known().unwrap_or_else(|| panic!("{drive:?}"));
        let labels: Vec<&str> = parts.iter().map(|part| part.label.as_str()).collect();
        format!("{} {} {} {}", drive.id, drive.serial, drive.port().unwrap(), labels.join("+"))
    };
    inventory.drives.iter().map(one).collect()
}

/// Name, what it was recognised by, slot.
fn found(sight: &Sight) -> Vec<(&str, &By, &str)> {
    sight.found.iter().map(|one| (one.name.as_str(), &one.by, one.slot.as_deref().unwrap_or_default())).collect()
}

fn layout(first: &str, second: &str) -> Layout {
    [("M2_1", first), ("M2_2", second)].map(|(slot, drive)| (slot.to_owned(), drive.to_owned())).into()
}

/// The two drives change places.
fn plan() -> Plan {
    let slot = |name: &str| Slot { name: name.into(), position: String::new(), port: None };
    let wanted = |serial: &str, purpose| Wanted { serial: serial.into(), purposes: vec![purpose], ..Wanted::default() };
    let [a, b] = SERIALS;
    let drives = [("sys", wanted(a, Purpose::System)), ("media", wanted(b, Purpose::UserVolume("media".into())))];
    Plan {
        slots: vec![slot("M2_1"), slot("M2_2")],
        drives: drives.map(|(name, wanted)| (name.to_owned(), wanted)).into_iter().collect::<BTreeMap<_, _>>(),
        current: layout("sys", "media"),
        target: layout("media", "sys"),
        scenario: Scenario::SystemMoved,
    }
}

struct Bench {
    rig: Rig,
    guest: Guest,
    boots: u32,
}

impl Bench {
    async fn start(drives: Vec<NvmeDrive>) -> Self {
        let mut world = at_rest("usb-move-old");
        let guest = &mut world.vms.get_mut(&VM).unwrap().guest;
        (guest.image, guest.drives) = (Some(image()), drives);
        let rig = Rig::at(SPEED, world, |_| {}).await;
        let cluster = rig.site.proxmox.keys().next().unwrap();
        let proxmox = rig.estate.proxmox(cluster).await.unwrap();
        // The agent alone: no login of ours is in the way.
        let guest = Guest::new("vm 108", vec![Route::Agent { proxmox, vmid: VM }], Clock::real());
        Self { rig, guest, boots: 1 }
    }

    /// Off, other drives, and on again.
    async fn with(&mut self, drives: Vec<NvmeDrive>) {
        let before = self.guest.boot_id().await.unwrap().value;
        order(&self.rig, "shutdown").await;
        self.rig.lab.shared().change(|world| world.vms.get_mut(&VM).unwrap().guest.drives = drives);
        power(&self.rig, "start", &before).await;
        self.boots += 1;
    }

    /// What its agent tells once it shows so many: a kernel brings its drives up in its own time.
    async fn seen(&self, count: usize) -> Inventory {
        let begin = Instant::now();
        loop {
            let seen = self.guest.drives().await.unwrap();
            assert!(seen.route.starts_with("agent of vm 108"), "{:?}", seen.notes);
            if seen.value.drives.len() == count {
                return seen.value;
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", seen.value);
        }
    }

    /// As [`Bench::seen`], and the lab's own guests tell the same of such drives.
    async fn drives(&self, count: usize) -> Inventory {
        let real = self.seen(count).await;
        let simulated = |look: Look| {
            let argv = look.argv().unwrap();
            let outcome = self.rig.lab.shared().change(|world| world.guest_exec(VM, &argv, &[]));
            assert!(!outcome.changed && !outcome.missing, "{argv:?}");
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            let exit = Exit::Status(outcome.exit.into());
            Output { exit, stdout: text(outcome.stdout), stderr: text(outcome.stderr), truncated: false }
        };
        let mut told = nvme_drives(&simulated(Look::NvmeList)).unwrap();
        for drive in &mut told.drives {
            let head = simulated(Look::PartitionTable(drive.id.clone()));
            drive.parts = Layer::Known(drive_parts(&drive.id, &head).unwrap());
            // The version of the real program.
            drive.firmware.clone_from(&real.drives[0].firmware);
        }
        assert_eq!(told, real, "simulated and real");
        real
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drives_that_changed_slots_are_recognised_through_a_real_kernel() {
    let dir = tempfile::tempdir().unwrap();
    let file = |at: usize| dir.path().join(["a.img", "b.img"][at]);
    for (at, (disk, parts)) in TABLES.iter().enumerate() {
        std::fs::write(file(at), gpt(SIZE, disk, parts)).unwrap();
        std::fs::File::options().write(true).open(file(at)).unwrap().set_len(SIZE).unwrap();
    }
    let drive =
        |at: usize, serial: &str, addr| NvmeDrive { file: file(at), serial: serial.into(), addr, name: String::new() };
    let ([a, b], [one, two]) = (SERIALS, [0x10, 0x11]);
    let (plan, mut compared) = (plan(), 0);

    // As it is before. The kernel itself reads the tables that the tests wrote.
    let mut bench = Bench::start(vec![drive(0, a, one), drive(1, b, two)]).await;
    let before = bench.drives(2).await;
    let first = [
        "nvme0n1 S4EVNX0R111111A 0000:00:10.0 EFI+EPHEMERAL",
        "nvme1n1 MZVL21T0222222B 0000:00:11.0 u-media+r-scratch",
    ];
    assert_eq!(shown(&before), first);
    for part in ["nvme0n1p1", "nvme0n1p2", "nvme1n1p1", "nvme1n1p2"] {
        assert!(bench.guest.exists(&format!("/dev/{part}")).await.unwrap().value, "{part}");
    }
    let uuids = |drive: &Drive| drive.parts.known().unwrap().iter().map(|part| part.uuid.clone()).collect::<Vec<_>>();
    for (drive, (_, parts)) in before.drives.iter().zip(&TABLES) {
        assert_eq!(uuids(drive), parts.map(|(uuid, ..)| uuid));
        assert_eq!((drive.size, drive.model.as_str()), (SIZE, "QEMU NVMe Ctrl"));
        compared += 1;
    }
    let sight = placed(&plan, &plan.current, &before, &before).unwrap();
    assert_eq!(found(&sight), [("media", &By::Serial, "M2_2"), ("sys", &By::Serial, "M2_1")]);
    assert_eq!(sight.odd, []);

    // They have changed places. What was nvme0n1 is another drive now: who goes by that name means the wrong one.
    bench.with(vec![drive(0, a, two), drive(1, b, one)]).await;
    let live = bench.drives(2).await;
    let swapped = [
        "nvme0n1 MZVL21T0222222B 0000:00:10.0 u-media+r-scratch",
        "nvme1n1 S4EVNX0R111111A 0000:00:11.0 EFI+EPHEMERAL",
    ];
    assert_eq!(shown(&live), swapped);
    assert_eq!(uuids(&live.drives[0]), uuids(&before.drives[1]));
    assert_ne!(live.drives[0].serial, before.drives[0].serial);
    let sight = placed(&plan, &plan.target, &before, &live).unwrap();
    assert_eq!(found(&sight), [("media", &By::Serial, "M2_1"), ("sys", &By::Serial, "M2_2")]);
    assert_eq!(sight.odd, []);
    // Held against the old layout, both are in the wrong slot.
    let wrong = placed(&plan, &plan.current, &before, &live).unwrap().odd;
    assert_eq!(wrong.iter().filter(|odd| matches!(odd, Odd::WrongSlot { .. })).count(), 2, "{wrong:?}");
    compared += live.drives.len();

    // Behind a bridge that reports a serial number of its own.
    bench.with(vec![drive(0, a, two), drive(1, "BRIDGE0001", one)]).await;
    let live = bench.drives(2).await;
    assert_eq!(live.drives[0].serial, "BRIDGE0001");
    let sight = placed(&plan, &plan.target, &before, &live).unwrap();
    let bridge = By::Partitions { said: "BRIDGE0001".into() };
    assert_eq!(found(&sight), [("media", &bridge, "M2_1"), ("sys", &By::Serial, "M2_2")]);
    assert_eq!(sight.odd, []);
    let note = sight.found[0].notes.join("; ");
    assert!(note.contains(b) && note.contains("BRIDGE0001"), "{note}");
    compared += live.drives.len();

    // Both report the same one, as cheap drives do. Where they have qualified names of their own, the kernel takes both.
    let cheap = |at: usize, addr, name: &str| NvmeDrive { name: name.into(), ..drive(at, "CHEAP0001", addr) };
    bench.with(vec![cheap(0, two, "a"), cheap(1, one, "b")]).await;
    let live = bench.drives(2).await;
    assert!(live.drives.iter().all(|drive| drive.serial == "CHEAP0001"));
    let by = By::Partitions { said: "CHEAP0001".into() };
    let both = [("media", &by, "M2_1"), ("sys", &by, "M2_2")];
    let sight = placed(&plan, &plan.target, &before, &live).unwrap();
    assert_eq!((found(&sight), sight.odd.len()), (both.to_vec(), 0), "{:?}", sight.odd);
    compared += live.drives.len();

    // Else it refuses one of them, whichever comes later. Its controller is on PCI all the same: it is not missing.
    bench.with(vec![cheap(0, two, ""), cheap(1, one, "")]).await;
    let live = bench.seen(1).await;
    let of = |name: &'static str, slot: &'static str, address: &str| {
        let dead = Odd::Dead { name: name.into(), slot: slot.into(), controller: address.into() };
        (name, slot, dead)
    };
    let (media, sys) = (of("media", "M2_1", "0000:00:10.0"), of("sys", "M2_2", "0000:00:11.0"));
    let media_came = shown(&live)[0].ends_with("0000:00:10.0 u-media+r-scratch");
    let (came, refused) = if media_came { (media, sys) } else { (sys, media) };
    let sight = placed(&plan, &plan.target, &before, &live).unwrap();
    assert_eq!(found(&sight), [(came.0, &by, came.1)]);
    assert_eq!(sight.odd, [refused.2]);
    compared += live.drives.len();

    // One was forgotten.
    bench.with(vec![drive(0, a, two)]).await;
    let live = bench.drives(1).await;
    assert_eq!(shown(&live), ["nvme0n1 S4EVNX0R111111A 0000:00:11.0 EFI+EPHEMERAL"]);
    let sight = placed(&plan, &plan.target, &before, &live).unwrap();
    assert_eq!(found(&sight), [("sys", &By::Serial, "M2_2")]);
    let missing = Odd::Missing { name: "media".into(), slot: Some("M2_1".into()), known: true, holds: None };
    assert_eq!(sight.odd, [missing]);
    compared += live.drives.len();

    assert_eq!((bench.boots, compared), (6, 10));
    println!("real guest: {compared} drives in {} boots", bench.boots);
}
