//! What machines are made of: `pvemig survey --hardware`, held against the world.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use pvemig::base::clock::Clock;
use pvemig::base::drives::sheet::{Bays, Machine, Row, Seat, Sheet, Told};
use pvemig::base::drives::{Link, Port, Purpose};
use pvemig::estate::Estate;
use pvemig::lab::talos::node::{Disk, Node};
use pvemig::lab::{Class, FaultEffect, FaultRule, Front, Lab, load};
use pvemig::site::Site;
use serde_json::{Value, json};

use super::{Bench, IMPATIENCE, PATIENCE};
use crate::harness::estate::at_rest;

const NUC: &str = "talos-nuc";

/// The site of a bench, written otherwise.
fn site(bench: &Bench, edit: impl FnOnce(&mut Value)) -> Arc<Site> {
    let file = bench.lab.dir().join("site.yaml");
    let mut site: Value = serde_saphyr::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    edit(&mut site);
    std::fs::write(&file, serde_saphyr::to_string(&site).unwrap()).unwrap();
    Arc::new(Site::load(&file).unwrap())
}

/// An estate that has asked nothing before.
fn estate(bench: &Bench, site: &Arc<Site>) -> Estate {
    let patience = if bench.hangs.get() { IMPATIENCE } else { PATIENCE };
    Estate::new(site.clone(), Clock::fast(10), bench.lab.dir().join("nowhere")).deadlines(patience, patience)
}

/// What is told of a site; it goes through YAML and back, as a reader's would.
async fn told(bench: &Bench, site: &Arc<Site>) -> Sheet {
    let sheet = estate(bench, site).hardware(&[]).await.unwrap();
    assert_eq!(bench.changes(), 0, "a survey changes nothing");
    assert!(!bench.lab.dir().join("nowhere").exists(), "a survey makes nothing");
    let text = serde_saphyr::to_string(&sheet).unwrap();
    assert_eq!(serde_saphyr::from_str::<Sheet>(&text).unwrap(), sheet, "{text}");
    sheet
}

fn machine<'s>(sheet: &'s Sheet, node: &str) -> &'s Machine {
    sheet.nodes[node].get().unwrap()
}

fn rows(bays: &Bays) -> &[Row] {
    bays.drives.get().unwrap()
}

fn purposes(row: &Row) -> Vec<String> {
    row.purpose.iter().map(ToString::to_string).collect()
}

/// A slot, with what is in it or why that is not known.
fn seat(seat: &Seat) -> (&str, String) {
    (seat.slot.as_str(), seat.drive.get().map_or_else(|why| format!("? {}", why.unknown), Clone::clone))
}

/// A local volume on a node, or on one that it does not name.
async fn volume(bench: &Bench, name: &str, path: &str, node: Option<&str>) {
    let affinity = node.map(|node| {
        let term = json!({ "key": "kubernetes.io/hostname", "operator": "In", "values": [node] });
        json!({ "required": { "nodeSelectorTerms": [{ "matchExpressions": [term] }] } })
    });
    let object = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": name },
        "spec": { "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"], "hostPath": { "path": path },
            "nodeAffinity": affinity },
    });
    let volumes: kube::Api<k8s_openapi::api::core::v1::PersistentVolume> = kube::Api::all(bench.cluster().await);
    volumes.create(&Default::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
}

fn with_slots(site: &mut Value) {
    site["talos"]["homelab"]["nodes"][NUC]["slots"] = json!({
        "M2_1": { "position": "beside the processor", "port": "0000:00:1b.0" },
        "M2_2": { "position": "under the battery", "port": "0000:00:1d.0" },
        "M2_3": { "position": "on the riser", "port": "0000:00:06.0" },
        "M2_4": { "position": "behind the fan" },
    });
}

/// Every disk that the world has plugged in is a row, and no row is none of them.
#[tokio::test(flavor = "multi_thread")]
async fn every_drive_of_the_world_is_told_and_no_other() {
    let bench = Bench::new("talos-three").await;
    let sheet = told(&bench, &bench.site).await;
    assert_eq!((sheet.pvemig, sheet.site.as_str(), sheet.nodes.len(), sheet.hosts.len()), (1, "homelab", 3, 0));
    let nodes: Vec<(String, Node)> = bench.lab.shared().read(|w| w.talos.nodes.clone().into_iter().collect());
    let (mut compared, mut systems) = (0, 0);
    for (name, node) in &nodes {
        let machine = machine(&sheet, name);
        let there: Vec<&Disk> = node.disks.iter().filter(|disk| disk.is_there()).collect();
        assert_eq!(rows(&machine.bays).len(), there.len(), "{name}");
        for disk in there {
            let row = rows(&machine.bays).iter().find(|row| row.serial == disk.serial).unwrap();
            assert_eq!((&row.model, row.size, &row.transport), (&disk.model, disk.size, &disk.transport));
            assert_eq!((&row.wwid, &row.bus), (&disk.wwid, &disk.bus_path));
            assert_eq!(purposes(row), [if disk.system { "system" } else { "spare" }], "{name} {row:?}");
            let labels: Vec<&str> = row.parts.get().unwrap().iter().map(|part| part.label.as_str()).collect();
            let wanted: &[&str] = if disk.system { &["EFI", "META", "STATE", "EPHEMERAL"] } else { &[] };
            assert_eq!(labels, wanted);
            systems += usize::from(disk.system);
            compared += 1;
        }
        assert_eq!(machine.memory.bytes, Told::Is(node.memory * 1_024));
        let board = machine.board.get().unwrap();
        assert_eq!((&board.uuid, (&board.manufacturer, &board.product)), (&node.uuid, (&node.model.0, &node.model.1)));
        assert_eq!((machine.talos.as_str(), machine.cpu.get().unwrap()[0].cores), ("v1.11.5", 4));
        let modules = machine.memory.modules.get().unwrap();
        let plugged: u64 = modules.iter().map(|module| u64::from(module.size_mib) << 20).sum();
        assert!(plugged >= node.memory * 1_024 && !modules.is_empty(), "{modules:?}");
        assert_eq!((machine.bays.not_asked.len(), machine.bays.on_no_drive.len()), (0, 0));
        assert_eq!(machine.bays.controllers_without_a_disk, Told::Is(Vec::new()));
    }
    assert_eq!((compared, systems), (4, 3));
    // What a drive of another kind does not tell is not asked, and of the port only NVMe is sure.
    let mac = &rows(&machine(&sheet, "talos-mac").bays)[0];
    assert_eq!((&mac.firmware, &mac.link, &mac.port), (&None, &None, &None));
    let nuc = &rows(&machine(&sheet, NUC).bays)[0];
    assert_eq!(nuc.port.as_ref().map(Port::as_str), Some("0000:00:1d.0"));
    assert!(nuc.firmware.is_some() && nuc.link.is_some(), "{nuc:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_and_purposes_are_put_together_from_what_each_system_tells() {
    let mut world = load("nvme-data").unwrap();
    // A user volume that is a directory: it has no device of its own.
    world.talos.nodes.get_mut("talos-vm").unwrap().data.insert("/var/mnt/small/db".into(), 4_096);
    let bench = Bench::of(Lab::at_rest(world, tempfile::tempdir().unwrap().path()).unwrap()).await;
    let site = site(&bench, with_slots);
    volume(&bench, "pv-small", "/var/mnt/small/db", Some("talos-vm")).await;
    volume(&bench, "pv-var", "/var/local/db", Some(NUC)).await;
    volume(&bench, "pv-vm", "/var/local/db", Some("talos-vm")).await;
    volume(&bench, "pv-root", "/opt/data", Some("talos-vm")).await;
    let seen = bench.lab.shared().log.seen().len();
    let sheet = estate(&bench, &site).hardware(&[]).await.unwrap();
    let since = bench.lab.shared().log.seen().into_iter().skip(seen);
    assert_eq!(since.filter(|one| one.class == Class::Change).count(), 0);
    let bays = &machine(&sheet, NUC).bays;
    assert!(bays.not_asked.is_empty() && bays.on_no_drive.is_empty(), "{bays:?}");
    let of: Vec<_> = rows(bays).iter().map(|row| (row.serial.as_str(), purposes(row).join(", "))).collect();
    for (serial, purposes) in [
        ("S5GXNF0R601234", "system, local pv-var"),
        ("22471A806001", "user-volume media, local media-library"),
        ("2021E2A4C7D8", "mayastor pool-nuc"),
    ] {
        assert!(of.contains(&(serial, purposes.to_owned())), "{of:?}");
    }
    assert_eq!(of.len(), 3);
    let sys = rows(bays).iter().find(|row| row.serial == "S5GXNF0R601234").unwrap();
    assert_eq!(sys.firmware, Some(Told::Is("5B2QGXA7".into())));
    assert_eq!(sys.link, Some(Told::Is(Link { speed: "8.0 GT/s PCIe".into(), width: 4 })));
    let seats: Vec<(&str, String)> = bays.slots.iter().map(seat).collect();
    assert_eq!(
        seats,
        [
            ("M2_1", "S5GXNF0R601234".to_owned()),
            ("M2_2", "22471A806001".to_owned()),
            ("M2_3", "none".to_owned()),
            ("M2_4", "? the site file has no port of it".to_owned()),
        ]
    );
    // What is in use and on no drive is said.
    let vm = &machine(&sheet, "talos-vm").bays;
    let on: Vec<_> = rows(vm).iter().map(|row| purposes(row).join(", ")).collect();
    assert_eq!(on, ["system, local pv-small, local pv-vm", "mayastor pool-vm"]);
    assert_eq!(vm.on_no_drive, ["local pv-root: /opt/data"]);
    // The same, for who matches drives.
    let inventory = estate(&bench, &site).inventory(NUC).await.unwrap();
    assert_eq!(inventory, bays.inventory().unwrap());
    assert!(inventory.drives.iter().any(|drive| drive.purposes.contains(&Purpose::UserVolume("media".into()))));
    // A partition has its own uuid, and keeps it; none is there twice.
    let uuids: Vec<&str> =
        inventory.drives.iter().flat_map(|drive| drive.parts.known().unwrap()).map(|part| part.uuid.as_str()).collect();
    let different: std::collections::BTreeSet<_> = uuids.iter().collect();
    assert_eq!((uuids.len(), different.len(), uuids.iter().filter(|uuid| uuid.len() == 36).count()), (5, 5, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_without_a_drive_is_told_with_the_slot_that_it_is_in() {
    let mut world = load("nvme-data").unwrap();
    world.talos.nodes.get_mut(NUC).unwrap().bays.get_mut("M2_2").unwrap().dead = Some("22471A806001".into());
    let world = Lab::at_rest(world, tempfile::tempdir().unwrap().path()).unwrap();
    let bench = Bench::of(world).await;
    let site = site(&bench, with_slots);
    let sheet = told(&bench, &site).await;
    let bays = &machine(&sheet, NUC).bays;
    assert_eq!(rows(bays).len(), 2, "{bays:?}");
    let idle = bays.controllers_without_a_disk.get().unwrap();
    let shown: Vec<_> = idle.iter().map(|one| (one.address.as_str(), one.port.as_ref().map(Port::as_str))).collect();
    assert_eq!(shown, [("0000:04:00.0", Some("0000:00:1d.0"))]);
    let seat = bays.slots.iter().find(|seat| seat.slot == "M2_2").unwrap();
    assert_eq!(seat.drive, Told::not("its controller 0000:04:00.0 is there without a disk"));
    // What was on it is not on the drive whose empty directory is at its place.
    let sys = rows(bays).iter().find(|row| row.serial == "S5GXNF0R601234").unwrap();
    assert_eq!(purposes(sys), ["system"]);
    let lost = "local media-library: /var/mnt/media/library (the user volume media is not mounted: ";
    assert!(bays.on_no_drive.len() == 1 && bays.on_no_drive[0].starts_with(lost), "{:?}", bays.on_no_drive);
    // Where nobody tells where it hangs it may be in any of those that look empty.
    bench.lab.fault(FaultRule::on(Front::Talos, FaultEffect::Refuse).path("*/machine.MachineService/List*"));
    let sheet = told(&bench, &site).await;
    let bays = &machine(&sheet, NUC).bays;
    let idle = &bays.controllers_without_a_disk.get().unwrap()[0];
    assert!(idle.port.is_none() && bays.no_ports.is_some(), "{idle:?}");
    for slot in ["M2_2", "M2_3"] {
        let seat = bays.slots.iter().find(|seat| seat.slot == slot).unwrap();
        let why = &seat.drive.get().unwrap_err().unknown;
        assert!(why.starts_with("controller 0000:04:00.0 is without a disk, and its port is not known: "), "{why}");
    }
}

/// What is not known is never a value, and never a no.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_is_told_with_its_reason() {
    // Without Kubernetes a drive on which nothing is seen may be a pool's.
    let bench = Bench::new("talos-three").await;
    bench.fault(Front::Kubernetes, "*", FaultEffect::Refuse);
    let sheet = told(&bench, &bench.site).await;
    let bays = &machine(&sheet, NUC).bays;
    assert_eq!(rows(bays).iter().map(purposes).collect::<Vec<_>>(), [vec!["system".to_owned()], Vec::new()]);
    let heads: Vec<_> = bays.not_asked.iter().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(heads, ["the local volumes of Kubernetes", "the pools of Mayastor"]);
    assert_eq!(estate(&bench, &bench.site).inventory(NUC).await.unwrap().not_asked, bays.not_asked);

    // A certificate that only reads may not read files.
    let bench = Bench::new("talos-three").await;
    let site = site(&bench, |site| site["talos"]["homelab"]["context"] = json!("reader"));
    let sheet = told(&bench, &site).await;
    let row = &rows(&machine(&sheet, NUC).bays)[0];
    let (firmware, link) = (row.firmware.as_ref().unwrap(), row.link.as_ref().unwrap());
    for why in [firmware.get().unwrap_err(), link.get().unwrap_err()] {
        assert!(why.unknown.contains("os:reader") && why.help.as_ref().unwrap().contains("os:admin"), "{why:?}");
    }
    assert_eq!(purposes(row), ["system"]);

    // One question that is not answered is not all of them.
    let questions = [
        ("/Disks.block", "drives"),
        ("DiscoveredVolumes.block", "parts"),
        ("SystemDisks.block", "system"),
        ("MountStatuses.block", "mounts"),
        ("VolumeStatuses.block", "managed"),
        ("PCIDevices.hardware", "controllers"),
        ("SystemInformations.hardware", "board"),
        ("Processors.hardware", "cpu"),
        ("MemoryModules.hardware", "modules"),
        ("MachineService/Memory", "bytes"),
    ];
    let mut asked = 0;
    for (question, part) in questions {
        let bench = Bench::new("talos-three").await;
        bench.fault(Front::Talos, &format!("*{question}*"), FaultEffect::Status(403, "no such luck".into()));
        let sheet = told(&bench, &bench.site).await;
        let machine = machine(&sheet, NUC);
        let bays = &machine.bays;
        let text = serde_saphyr::to_string(&sheet.nodes[NUC]).unwrap();
        assert!(text.contains("no such luck"), "{question}\n{text}");
        let blind = |line: &str| bays.not_asked.iter().any(|said| said.starts_with(line));
        let no_spare = || rows(bays).iter().all(|row| !row.purpose.contains(&Purpose::Spare));
        assert!(
            match part {
                "drives" => bays.drives.get().is_err() && bays.inventory().is_err(),
                "parts" => rows(bays).iter().all(|row| row.parts.get().is_err()) && blind("what is on") && no_spare(),
                "system" => blind("which disk it is installed on") && no_spare(),
                "mounts" => blind("what is mounted") && no_spare(),
                "managed" => blind("which volumes it has") && no_spare(),
                "controllers" => bays.controllers_without_a_disk.get().is_err() && bays.inventory().is_err(),
                "board" => machine.board.get().is_err(),
                "cpu" => machine.cpu.get().is_err(),
                "modules" => machine.memory.modules.get().is_err(),
                _ => machine.memory.bytes.get().is_err(),
            },
            "{question}\n{text}"
        );
        // The other drives and nodes are there as ever.
        assert_eq!(sheet.nodes.len(), 3);
        asked += 1;
    }
    assert_eq!(asked, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_answer_is_no_empty_one() {
    let mut world = at_rest("talos-three");
    world.talos.nodes.get_mut("talos-mac").unwrap().off = true;
    world.talos.nodes.get_mut("talos-mac").unwrap().run = None;
    let bench = Bench::of(world).await;
    let sheet = told(&bench, &bench.site).await;
    let why = sheet.nodes["talos-mac"].get().unwrap_err();
    assert!(why.unknown.contains("talos-mac"), "{why:?}");
    assert!(sheet.nodes[NUC].get().is_ok() && sheet.nodes["talos-vm"].get().is_ok());
    assert!(estate(&bench, &bench.site).inventory("talos-mac").await.is_err());
    let only = estate(&bench, &bench.site).hardware(&[NUC.to_owned()]).await.unwrap();
    assert_eq!(only.nodes.keys().collect::<Vec<_>>(), [NUC]);
    let unknown = estate(&bench, &bench.site).hardware(&["talos-muc".to_owned()]).await.unwrap_err();
    assert!(unknown.to_string().contains("talos-muc"), "{unknown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_is_new_and_says_what_is_on_stdout() {
    let bench = Bench::new("talos-three").await;
    let (code, yaml) = bench.run(&["survey", "--hardware"]);
    assert_eq!(code, Some(0), "{yaml}");
    let printed: Sheet = serde_saphyr::from_str(&yaml).unwrap();
    let same = |other: &Sheet| other.nodes == printed.nodes && other.hosts == printed.hosts;
    let (code, json) = bench.run(&["survey", "--hardware", "--json"]);
    assert!(code == Some(0) && same(&serde_json::from_str(&json).unwrap()), "{json}");

    let file = bench.lab.dir().join("inventory.yaml");
    let to = file.to_str().unwrap();
    let (code, said) = bench.run(&["survey", "--hardware", "--to", to]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("inventory.yaml: 3 nodes, 4 drives\n"), "{said}");
    let read = || std::fs::read_to_string(&file).unwrap();
    assert!(same(&serde_saphyr::from_str(&read()).unwrap()));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777 & !0o022, 0o644);
    for secret in ["k1v9qe.1x0d8s7m2c4b6n3z", "i2t4w8", "PRIVATE KEY"] {
        assert!(!read().contains(secret) && !yaml.contains(secret), "{secret}");
    }
    // It is not written over unasked, and nobody is asked for nothing.
    std::fs::write(&file, "mine").unwrap();
    let asked = bench.lab.shared().log.seen().len();
    let (code, said) = bench.run(&["survey", "--hardware", "--to", to]);
    assert_eq!((code, read().as_str()), (Some(2), "mine"), "{said}");
    assert!(said.contains("is there already") && said.contains("`--force`"), "{said}");
    assert_eq!(bench.lab.shared().log.seen().len(), asked);
    let (code, said) = bench.run(&["survey", "--hardware", "--to", to, "--force", NUC]);
    assert_eq!(code, Some(0), "{said}");
    let one: Sheet = serde_saphyr::from_str(&read()).unwrap();
    assert_eq!((one.nodes.len(), &one.nodes[NUC]), (1, &printed.nodes[NUC]));
    let nowhere = bench.lab.dir().join("no/inventory.yaml");
    let (code, said) = bench.run(&["survey", "--hardware", "--to", nowhere.to_str().unwrap()]);
    assert!(code == Some(1) && said.contains("cannot be written"), "{said}");

    for (args, words) in [
        (vec!["survey", "--to", to], "--hardware"),
        (vec!["survey", "--hardware", "--force"], "--to"),
        (vec!["survey", "--hardware", "--watch"], "cannot be used with"),
        (vec!["survey", "--hardware", "talos-muc"], "no Talos node or Proxmox host `talos-muc`"),
    ] {
        let (code, said) = bench.run(&args);
        assert!(code == Some(2) && said.contains(words), "{args:?}: {said}");
    }
    assert_eq!(bench.changes(), 0);

    let vms = Bench::new("usb-move").await;
    let (code, said) = vms.run(&["survey", "--hardware"]);
    assert!(code == Some(2) && said.contains("no Talos node, and no Proxmox host with `slots`"), "{said}");
    let (code, said) = vms.run(&["survey", "--hardware", "k3s-vm-still-fawn"]);
    assert!(code == Some(2) && said.contains("`k3s-vm-still-fawn` is a VM") && said.contains("`still-fawn`"), "{said}");
}

/// A host of Proxmox tells its NVMe drives by ssh, where the site file has slots of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_tells_the_drives_that_its_kernel_sees() {
    let mut world = load("usb-move").unwrap();
    let files = &mut world.hosts.get_mut("still-fawn").unwrap().files;
    let drive = "/sys/devices/pci0000:00/0000:00:1d.0/0000:04:00.0/nvme/nvme0";
    for (file, text) in [
        ("serial", "S5GXNF0R601234      "),
        ("model", "Samsung SSD 980 PRO 1TB                 "),
        ("firmware_rev", "5B2QGXA7"),
        ("nvme0n1/size", "1953525168"),
        ("nvme0n1/wwid", "eui.002538b411b2cee8"),
    ] {
        files.insert(format!("{drive}/{file}"), format!("{text}\n"));
    }
    for (file, text) in [("speed", "16.0 GT/s PCIe"), ("width", "4")] {
        files.insert(format!("/sys/bus/pci/devices/0000:04:00.0/current_link_{file}"), format!("{text}\n"));
    }
    let bench = Bench::of(Lab::at_rest(world, tempfile::tempdir().unwrap().path()).unwrap()).await;
    let cluster = bench.site.proxmox.iter().find(|(_, of)| of.hosts.contains_key("still-fawn")).unwrap().0.clone();
    let site = site(&bench, |site| {
        let host = &mut site["proxmox"][&cluster]["hosts"]["still-fawn"];
        host["slots"] = json!({
            "M2_1": { "position": "under the heat sink", "port": "0000:00:1d.0" },
            "M2_2": { "position": "beside it", "port": "0000:00:1b.0" },
        });
    });
    let sheet = told(&bench, &site).await;
    assert_eq!((sheet.nodes.len(), sheet.hosts.len()), (0, 1));
    let bays = sheet.hosts["still-fawn"].get().unwrap();
    let row = &rows(bays)[0];
    assert_eq!((rows(bays).len(), row.serial.as_str(), row.size), (1, "S5GXNF0R601234", 1_000_204_886_016));
    assert_eq!((&row.firmware, row.kernel.as_str()), (&Some(Told::Is("5B2QGXA7".into())), "nvme0n1"));
    assert_eq!(row.link, Some(Told::Is(Link { speed: "16.0 GT/s PCIe".into(), width: 4 })));
    // The bytes of it were not there to be read, and nobody knows what a VM has it for: it is not spare.
    assert!(row.parts.get().is_err() && row.purpose.is_empty() && bays.not_asked.len() == 1, "{row:?}");
    let seats: Vec<(&str, String)> = bays.slots.iter().map(seat).collect();
    assert_eq!(seats, [("M2_1", "S5GXNF0R601234".to_owned()), ("M2_2", "none".to_owned())]);
    let (code, yaml) = bench.run(&["survey", "--hardware", "still-fawn"]);
    let printed: Sheet = serde_saphyr::from_str(&yaml).unwrap();
    assert_eq!((code, &printed.hosts), (Some(0), &sheet.hosts));
}
