//! Drives in bays: what they are called, what is on them, and hands that move them.

use pvemig::base::check::DriveMove;
use pvemig::base::drives::{Port, boot_entry};
use pvemig::lab::LabError;
use pvemig::lab::talos::firmware::NOTHING;
use pvemig::talos::proto::machine::{DmesgRequest, EtcdLeaveClusterRequest, ListRequest as Folder, ShutdownRequest};

use super::*;

/// The drives of the NUC: the system's, that with the data, and a new one.
const SYS: &str = "S5GXNF0R601234";
const DATA: &str = "22471A806001";
const NEW: &str = "S676NF0W712345";

const EFIVARS: &str = "/sys/firmware/efi/efivars";
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// Off in order, as a run leaves it.
async fn off(b: &Bench, node: &str) {
    b.machine(node).shutdown(ShutdownRequest { force: true }).await.unwrap();
    b.wait("it is off", |w| w.talos.nodes[node].off && w.talos.nodes[node].run.is_none()).await;
}

async fn on(b: &Bench) {
    assert_eq!(b.lab.press_button(NUC).unwrap(), "talos-nuc is switched on");
    b.wait("it has booted", |w| {
        let ready = |status: Machine| status.stage == Stage::Running && status.unmet.is_empty();
        w.talos_status(NUC).is_some_and(ready)
    })
    .await;
}

/// Name, serial number and port of each drive of NVMe.
async fn drives(b: &Bench) -> Vec<(String, String, String)> {
    let disks = b.list(NUC, "runtime", "Disks.block.talos.dev").await;
    let of = |value: &Value| value.as_str().unwrap().to_owned();
    let nvme = disks.iter().filter(|(id, _)| id.starts_with("nvme"));
    nvme.map(|(id, disk)| {
        let port = Port::of(disk["bus_path"].as_str().unwrap()).unwrap();
        (id.clone(), of(&disk["serial"]), port.as_str().to_owned())
    })
    .collect()
}

fn listed(drives: &[(String, String, String)]) -> Vec<(&str, &str, &str)> {
    drives.iter().map(|(name, serial, port)| (name.as_str(), serial.as_str(), port.as_str())).collect()
}

async fn volume(b: &Bench) -> Value {
    b.get(NUC, "runtime", "VolumeStatuses.block.talos.dev", "u-media").await
}

/// The partitions of a drive: label and uuid.
async fn parts(b: &Bench, disk: &str) -> Vec<(String, String)> {
    let found = b.list(NUC, "runtime", "DiscoveredVolumes.block.talos.dev").await;
    let of = |value: &Value| value.as_str().unwrap().to_owned();
    let on = found.iter().filter(|(_, volume)| volume["parent"] == disk);
    on.map(|(_, volume)| (of(&volume["partition_label"]), of(&volume["partition_uuid"]))).collect()
}

fn moved(serial: &str, from: Option<&str>, to: Option<&str>) -> DriveMove {
    DriveMove { serial: serial.into(), from: from.map(str::to_owned), to: to.map(str::to_owned) }
}

/// What hands say that cannot do it.
fn no(said: Result<String, LabError>) -> String {
    said.unwrap_err().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_follow_the_bus_and_volumes_follow_their_partitions() {
    let b = Bench::new("nvme-data").await;
    let before = drives(&b).await;
    assert_eq!(listed(&before), [("nvme0n1", SYS, "0000:00:1b.0"), ("nvme1n1", DATA, "0000:00:1d.0")]);
    let first = volume(&b).await;
    assert_eq!((&first["phase"], &first["location"]), (&"ready".into(), &"/dev/nvme1n1p1".into()));
    let (system, data) = (parts(&b, "nvme0n1").await, parts(&b, "nvme1n1").await);
    assert_eq!((system.len(), data.len(), data[0].0.as_str()), (4, 1, "u-media"));
    assert_eq!(first["partitionUUID"], data[0].1.as_str());
    let all: std::collections::BTreeSet<&String> = system.iter().chain(&data).map(|(_, uuid)| uuid).collect();
    assert_eq!(all.len(), 5);
    let picture = b.lab.compared();

    off(&b, NUC).await;
    let said = b.lab.hands_on_drives(
        NUC,
        &[moved(DATA, Some("M2_2"), Some("M2_3")), moved(NEW, None, Some("M2_2"))],
        None,
        false,
    );
    assert_eq!(said.unwrap(), format!("talos-nuc: {DATA} from M2_2 to M2_3, {NEW} from bench to M2_2"));
    on(&b).await;
    let after = drives(&b).await;
    assert_eq!(
        listed(&after),
        [("nvme0n1", DATA, "0000:00:06.0"), ("nvme1n1", SYS, "0000:00:1b.0"), ("nvme2n1", NEW, "0000:00:1d.0")]
    );
    // What is on them has gone with them, under other names.
    assert_eq!((parts(&b, "nvme1n1").await, parts(&b, "nvme0n1").await), (system, data));
    assert_eq!(volume(&b).await["location"], "/dev/nvme0n1p1");
    let mount = b.get(NUC, "runtime", "MountStatuses.block.talos.dev", "u-media").await;
    assert_eq!((&mount["source"], &mount["target"]), (&"/dev/nvme0n1p1".into(), &"/var/mnt/media".into()));
    let device = b.get(NUC, "runtime", "SystemDisks.block.talos.dev", "system-disk").await;
    assert_eq!(device["devPath"], "/dev/nvme1n1");
    // Where they are counts, and nothing was lost.
    assert_ne!(b.lab.compared()["talos"]["nodes"], picture["talos"]["nodes"]);
    assert!(b.lab.shared().read(|w| w.talos.wiped.is_empty()));

    off(&b, NUC).await;
    assert_eq!(b.lab.move_drive(NEW, "bench").unwrap(), format!("{NEW} is on the bench"));
    assert_eq!(b.lab.move_drive("talos-nuc:M2_3", "talos-nuc:M2_2").unwrap(), format!("{DATA} is in talos-nuc, M2_2"));
    on(&b).await;
    assert_eq!(drives(&b).await, before);
    let disks = |picture: &Value| picture["talos"]["nodes"][NUC]["disks"].clone();
    assert_eq!(disks(&b.lab.compared()), disks(&picture));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hands_refuse_what_cannot_be() {
    let b = Bench::new("nvme-data").await;
    let on_text = "that cannot be done by hand: `talos-nuc` is on: drives are moved with the power off";
    assert_eq!(no(b.lab.move_drive(DATA, "M2_3")), on_text);
    assert_eq!(no(b.lab.hands_on_drives(NUC, &[moved(DATA, Some("M2_2"), Some("M2_3"))], None, true)), on_text);
    off(&b, NUC).await;
    let nodes = || b.lab.compared()["talos"]["nodes"].clone();
    let picture = nodes();
    let cases = [
        (DATA, "M2_1", "`S5GXNF0R601234` is in talos-nuc:M2_1"),
        (DATA, "M2_4", "`talos-nuc` has no slot `M2_4`; it has: M2_1, M2_2, M2_3"),
        (DATA, "talos-mac:M2_1", "is a drive of talos-nuc, and stays with it"),
        ("talos-nuc:M2_3", "M2_1", "nothing is in talos-nuc:M2_3"),
        ("nobody", "M2_1", "there is no drive `nobody`; there are: "),
        ("talos-xyz:M2_1", "M2_2", "there is no Talos node `talos-xyz`"),
    ];
    assert_eq!(cases.len(), 6);
    for (which, to, text) in cases {
        let said = no(b.lab.move_drive(which, to));
        assert!(said.contains(text), "{said}");
    }
    // All or none: the second of these has nowhere to go.
    let two = [moved(DATA, Some("M2_2"), Some("M2_3")), moved(NEW, None, Some("M2_3"))];
    assert!(no(b.lab.hands_on_drives(NUC, &two, None, false)).contains("is in talos-nuc:M2_3"));
    assert!(no(b.lab.hands_on_drives(NUC, &[moved(SYS, Some("M2_2"), None)], None, false)).contains("is not in"));
    assert!(no(b.lab.hands_on_drives(NUC, &[], Some("v1.11.5"), false)).contains("no stick with Talos 1.11.5"));
    assert_eq!(nodes(), picture);
    // Two change places at once.
    let swap = [moved(SYS, Some("M2_1"), Some("M2_2")), moved(DATA, Some("M2_2"), Some("M2_1"))];
    b.lab.hands_on_drives(NUC, &swap, None, true).unwrap();
    b.wait("it is on", |w| w.talos.nodes[NUC].run.as_ref().is_some_and(|run| run.booted)).await;
    let now = drives(&b).await;
    assert_eq!(listed(&now), [("nvme0n1", DATA, "0000:00:1b.0"), ("nvme1n1", SYS, "0000:00:1d.0")]);
    assert_eq!(b.lab.press_button(NUC).unwrap(), "talos-nuc is going off");
    b.wait("it is off", |w| w.talos.nodes[NUC].off).await;
    assert!(no(b.lab.press_button(VM)).contains("is a VM"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_with_one_serial_number_are_named_by_their_slots() {
    let b = Bench::new("nvme-data-cheap").await;
    let before = (parts(&b, "nvme1n1").await, parts(&b, "nvme0n1").await);
    // The third socket comes first on the bus: nothing is on what is in it.
    assert_eq!((drives(&b).await.len(), before.0.len(), before.1.len()), (3, 4, 0));
    assert_eq!(volume(&b).await["location"], "/dev/nvme2n1p1");
    off(&b, NUC).await;
    let said = no(b.lab.move_drive("0001", "bench"));
    assert!(said.ends_with("2 drives have `0001`: name it by its slot, talos-nuc:M2_2 or talos-nuc:M2_3"), "{said}");
    b.lab.move_drive("talos-nuc:M2_2", "bench").unwrap();
    b.lab.move_drive("talos-nuc:M2_3", "M2_2").unwrap();
    b.lab.move_drive("talos-nuc:bench", "M2_3").unwrap();
    on(&b).await;
    assert_eq!(volume(&b).await["location"], "/dev/nvme0n1p1");
    let uuid = volume(&b).await["partitionUUID"].clone();
    assert_eq!(uuid, "5b1c6f0e-3f50-4cf1-a0a4-71e0ab5a9c01");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drive_may_be_dead_renamed_or_not_be_seen_in_a_slot() {
    for world in ["nvme-data-dead", "nvme-data-renames", "off"] {
        let b = Bench::with(if world == "off" { "nvme-data" } else { world }, |w| {
            if world == "off" {
                w.talos.nodes.get_mut(NUC).unwrap().bays.get_mut("M2_3").unwrap().off = true;
            }
        })
        .await;
        off(&b, NUC).await;
        b.lab.move_drive(DATA, "M2_3").unwrap();
        on(&b).await;
        let pci = b.list(NUC, "hardware", "PCIDevices.hardware.talos.dev").await;
        let storage = |spec: &Value| spec["class_id"] == "0x01" && spec["subclass_id"] == "0x08";
        let controllers: Vec<(&str, &str)> = pci
            .iter()
            .filter(|(_, spec)| storage(spec))
            .map(|(at, spec)| (at.as_str(), spec["driver"].as_str().unwrap()))
            .collect();
        let mut log = String::new();
        let request = DmesgRequest { follow: false, tail: false };
        let mut stream = b.machine(NUC).dmesg(request).await.unwrap().into_inner();
        while let Some(line) = stream.next().await {
            log += &String::from_utf8(line.unwrap().bytes).unwrap();
        }
        let serials: Vec<String> = drives(&b).await.into_iter().map(|(_, serial, _)| serial).collect();
        let phase = volume(&b).await["phase"].clone();
        let dead = "nvme nvme0: Device not ready; aborting initialisation";
        match world {
            "nvme-data-dead" => {
                assert_eq!(serials, [SYS]);
                assert_eq!(controllers, [("0000:02:00.0", ""), ("0000:03:00.0", "nvme")]);
                assert_eq!((phase, log.matches(dead).count()), ("failed".into(), 1), "{log}");
            }
            "nvme-data-renames" => {
                assert_eq!(serials, ["BRIDGE0001", SYS]);
                assert_eq!((controllers.len(), phase, log.contains(dead)), (2, "ready".into(), false));
            }
            _ => {
                assert_eq!((serials, controllers), (vec![SYS.to_owned()], vec![("0000:03:00.0", "nvme")]));
                assert_eq!((phase, log.contains("0000:02:00.0")), ("failed".into(), false));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_is_nowhere_is_made_anew_on_what_fits() {
    // The data drive stays on the bench, and the new one fits too: what was on the former is not there.
    let b = Bench::new("nvme-data-two-match").await;
    off(&b, NUC).await;
    b.lab
        .hands_on_drives(NUC, &[moved(DATA, Some("M2_2"), None), moved(NEW, None, Some("M2_2"))], None, false)
        .unwrap();
    on(&b).await;
    assert_eq!(volume(&b).await["phase"], "ready");
    let made = parts(&b, "nvme1n1").await;
    assert_eq!((made.len(), made[0].0.as_str()), (1, "u-media"));
    let disks = b.lab.shared().read(|w| w.talos.nodes[NUC].disks.clone());
    let data = disks.iter().find(|disk| disk.serial == DATA).unwrap();
    assert_eq!((data.unplugged, data.partitions.len()), (true, 1));
    assert_ne!(made[0].1, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_firmware_boots_by_partition_unless_its_entry_names_a_slot() {
    for (world, comes_up) in [("nvme-system", true), ("nvme-system-slot-entry", false)] {
        let b = Bench::new(world).await;
        let folder = Folder { root: EFIVARS.into(), ..Folder::default() };
        let mut names = Vec::new();
        let mut stream = b.machine(NUC).list(folder).await.unwrap().into_inner();
        while let Some(file) = stream.next().await {
            names.push(file.unwrap().relative_name);
        }
        assert_eq!(names, [".".to_owned(), format!("Boot0001-{GLOBAL}"), format!("BootOrder-{GLOBAL}")]);
        let variable = async |name: &str| {
            let path = format!("{EFIVARS}/{name}-{GLOBAL}");
            let mut stream = b.machine(NUC).read(ReadRequest { path }).await.unwrap().into_inner();
            let mut bytes = Vec::new();
            while let Some(data) = stream.next().await {
                bytes.extend(data.unwrap().bytes);
            }
            bytes
        };
        assert_eq!(boot_entry::order(&variable("BootOrder").await), Ok(vec![1]));
        let entry = boot_entry::read(&variable("Boot0001").await).unwrap();
        let uuid = parts(&b, "nvme0n1").await.into_iter().find(|(label, _)| label == "EFI").unwrap().1;
        let by = match comes_up {
            true => boot_entry::Goes::Partition(uuid),
            false => boot_entry::Goes::Slot { way: "1b.0/00.0".into(), partition: Some(uuid) },
        };
        assert_eq!((entry.active, entry.by), (true, by));

        off(&b, NUC).await;
        let swap = [moved(SYS, Some("M2_1"), Some("M2_2")), moved(DATA, Some("M2_2"), Some("M2_1"))];
        b.lab.hands_on_drives(NUC, &swap, None, true).unwrap();
        let node = || b.lab.shared().read(|w| w.talos.nodes[NUC].clone());
        if comes_up {
            b.wait("it is up", |w| w.talos.nodes[NUC].run.as_ref().is_some_and(|run| run.booted)).await;
            continue;
        }
        assert_eq!((node().run.is_none(), node().screen.as_str(), node().off), (true, NOTHING, false));
        // It has power: somebody switches it off before its drives are touched, and hands do that by themselves.
        assert!(no(b.lab.move_drive(SYS, "bench")).contains("is on"));
        let back = [moved(SYS, Some("M2_2"), Some("M2_1")), moved(DATA, Some("M2_1"), Some("M2_2"))];
        let said = b.lab.hands_on_drives(NUC, &back, None, true).unwrap();
        assert!(said.starts_with("talos-nuc: switched off, ") && said.ends_with(", switched on"), "{said}");
        b.wait("it is up", |w| w.talos.nodes[NUC].run.as_ref().is_some_and(|run| run.booted)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_management_controller_tells_the_power_and_the_site_knows_it() {
    let b = Bench::new("nvme-data").await;
    let file = b.lab.dir().join("bmc").join(NUC);
    let said = || std::fs::read_to_string(&file).unwrap();
    assert_eq!(said(), "Chassis Power is on\n");
    off(&b, NUC).await;
    // It tells a moment later than the world is so.
    let mut changes = b.lab.shared().changes();
    while said() != "Chassis Power is off\n" {
        b.lab.shared().change(|_| ());
        changes.changed().await.unwrap();
        tokio::task::yield_now().await;
    }
    let site = pvemig::site::Site::load(&b.lab.dir().join("site.yaml")).unwrap();
    let node = site.talos_node(NUC).unwrap().1;
    assert_eq!(node.slots.iter().map(|slot| slot.name.as_str()).collect::<Vec<_>>(), ["M2_1", "M2_2", "M2_3"]);
    assert_eq!(node.slots[1].position, "under the battery");
    let Some(pvemig::site::OutOfBand::Power(power)) = &node.out_of_band else { panic!("{:?}", node.out_of_band) };
    assert_eq!(power.ask().await.unwrap(), pvemig::site::Power::Off);

    let b = Bench::with("nvme-data", |w| w.talos.nodes.get_mut(NUC).unwrap().bmc_lies = "off".into()).await;
    assert_eq!(std::fs::read_to_string(b.lab.dir().join("bmc").join(NUC)).unwrap(), "Chassis Power is off\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_drive_of_these_worlds_is_in_a_slot_or_on_the_bench() {
    let mut seen = 0;
    let worlds = pvemig::lab::names();
    // Those of a VM are in its host.
    let of_nuc = |name: &str| name.starts_with("nvme-") && !name.starts_with("nvme-data-vm");
    for (name, _) in worlds.iter().filter(|(name, _)| of_nuc(name)) {
        let world = load(name).unwrap();
        let nuc = &world.talos.nodes[NUC];
        for disk in nuc.disks.iter().filter(|disk| disk.transport == "nvme") {
            assert!(disk.unplugged || nuc.bays.contains_key(&disk.bay), "{name}: {}", disk.serial);
            seen += 1;
        }
        let mut taken: Vec<&str> =
            nuc.disks.iter().map(|disk| disk.bay.as_str()).filter(|bay| !bay.is_empty()).collect();
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken.len(), nuc.disks.iter().filter(|disk| !disk.bay.is_empty()).count(), "{name}");
        let b = Bench::new(name).await;
        assert_eq!(b.status(NUC).await, ("running".into(), true), "{name}");
        let text = std::fs::read_to_string(b.lab.dir().join("site.yaml")).unwrap();
        assert_eq!(text.matches("blueprint: nvme-move").count(), 1, "{name}");
        assert!(
            b.read(NUC, "/sys/block/nvme0n1/device/firmware_rev").await.unwrap().contains("5B2QGXA7")
                || name.contains("cheap")
                || name.contains("alike")
        );
        let path = "/sys/bus/pci/devices/0000:03:00.0/current_link_width";
        assert_eq!(b.read(NUC, path).await.unwrap(), "4\n");
    }
    assert_eq!(seen, 47);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_installation_goes_with_its_drive_and_comes_back_with_it() {
    let b = Bench::new("nvme-system-replaced").await;
    let node = || b.lab.shared().read(|w| w.talos.nodes[NUC].clone());
    let first = node();
    let running = async || {
        let up = |w: &World| w.talos.nodes[NUC].run.as_ref().is_some_and(|run| run.booted && run.going.is_none());
        b.wait("it runs", up).await;
    };
    // Who is not a member any more has no data of etcd either: whichever drive is booted joins anew.
    b.machine(NUC).etcd_leave_cluster(EtcdLeaveClusterRequest {}).await.unwrap();
    off(&b, NUC).await;
    let out = [moved(SYS, Some("M2_1"), None), moved(NEW, None, Some("M2_1"))];
    let said = b.lab.hands_on_drives(NUC, &out, Some("v1.11.5"), true).unwrap();
    assert!(said.contains("Talos v1.11.5 plugged in"), "{said}");
    b.wait("it waits", |w| w.talos.nodes[NUC].run.as_ref().is_some_and(|run| run.maintenance)).await;
    // Nothing is installed on what it has.
    assert_eq!((node().slots.len(), node().member, node().config.as_str()), (0, None, ""));
    let config = first.config.replace("serial: S5GXNF0R601234", &format!("serial: {NEW}"));
    b.lab.shared().change(|w| w.talos_configured(NUC, &config, true));
    running().await;
    let now = node();
    let system = now.disks.iter().find(|disk| disk.system).unwrap();
    assert_eq!((system.serial.as_str(), now.slots.len(), now.image().version.as_str()), (NEW, 1, "1.11.5"));
    assert!(now.member.is_some() && now.member != first.member);
    let wiped = b.lab.shared().read(|w| w.talos.wiped.clone());
    assert_eq!(wiped.iter().map(|lost| (lost.serial.as_str(), lost.held.len())).collect::<Vec<_>>(), [(NEW, 0)]);
    // The data was not touched.
    assert_eq!(volume(&b).await["phase"], "ready");

    off(&b, NUC).await;
    let back = [moved(NEW, Some("M2_1"), None), moved(SYS, None, Some("M2_1"))];
    b.lab.hands_on_drives(NUC, &back, None, true).unwrap();
    running().await;
    let now = node();
    assert_eq!((&now.slots, &now.config, now.disks[1].system), (&first.slots, &first.config, true));
    assert_eq!((now.disks[1].installed.is_none(), now.disks[3].installed.is_some()), (true, true));
    // Its stick is out again.
    assert!(now.disks[0].unplugged);
}
