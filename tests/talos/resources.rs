//! Resources: by which names they are asked for, and what is read out of their YAML.

use pvemig::base::fault::Fault;
use pvemig::talos::kind::{self, Stage};
use pvemig::talos::{Change, Error, Which};

use super::Wire;
use super::fake::{Says, msg, num, raw, text};
use super::reading::sent;

/// A resource as an answer has it.
fn resource(id: &str, version: &str, yaml: &str) -> Vec<u8> {
    let label = msg(10, &[text(1, "a"), text(2, "b")]);
    let metadata =
        msg(1, &[text(1, "runtime"), text(2, "T"), text(3, id), text(4, version), text(6, "running"), label]);
    [metadata, msg(2, &[raw(1, b"\x08\x01"), text(2, yaml)])].concat()
}

#[tokio::test]
async fn one_resource_is_asked_for_by_its_exact_names() {
    let wire = Wire::start().await;
    let yaml = "stage: booting\nstatus:\n    ready: false\n    unmetConditions:\n        - name: services\n          \
                reason: ext-nvidia-persistenced not running\n";
    wire.fake.on("/cosi.resource.State/Get", Says::Ok(vec![raw(1, &resource("machine", "7", yaml))]));
    let status = wire.talos.single(&kind::MACHINE_STATUS).await.unwrap().unwrap();
    assert_eq!((status.id.as_str(), status.version.as_str(), status.phase.as_str()), ("machine", "7", "running"));
    assert_eq!(status.labels.get("a").map(String::as_str), Some("b"));
    assert_eq!((status.spec.stage, status.spec.status.ready, status.spec.is_settled()), (Stage::Booting, false, false));
    assert_eq!(status.spec.status.unmet_conditions[0].reason, "ext-nvidia-persistenced not running");
    let asked = wire.one();
    let message = [text(1, "runtime"), text(2, "MachineStatuses.runtime.talos.dev"), text(3, "machine")].concat();
    assert_eq!(sent(&asked), ("/cosi.resource.State/Get", message.as_slice()));
}

#[tokio::test]
async fn what_is_not_there_is_data_and_what_is_not_known_is_no_matter_of_roles() {
    let wire = Wire::start().await;
    wire.fake.on("/cosi.resource.State/Get", Says::Status(vec![], 5, "resource doesn't exist"));
    assert_eq!(wire.talos.single(&kind::SYSTEM_DISK).await.unwrap(), None);
    let wire = Wire::start().await;
    let text = "resource type \"BootIDs.runtime.talos.dev\" is not supported";
    wire.fake.on("/cosi.resource.State/Get", Says::Status(vec![], 7, text));
    let error = wire.talos.single(&kind::BOOT_ID).await.unwrap_err();
    assert!(matches!(error, Error::NoSuchKind { .. }), "{error:?}");
    assert!(!error.help().unwrap().contains("os:admin") && !error.retryable());
    wire.one();
}

#[tokio::test]
async fn all_of_a_kind_are_listed() {
    let wire = Wire::start().await;
    let disks = [
        (
            "sda",
            "dev_path: /dev/sda\nsize: 107374182400\ntransport: virtio\nserial: SYSTEM1\nrotational: false\nsymlinks: []\n",
        ),
        (
            "sdb",
            "dev_path: /dev/sdb\nsize: 15518924800\nio_size: 512\ntransport: usb\nmodel: Flash\nserial: \"0418\"\n",
        ),
        ("sr0", "dev_path: /dev/sr0\ntransport: ata\ncdrom: true\nreadonly: true\nsymlinks: null\n"),
        ("loop0", "dev_path: /dev/loop0\nreadonly: true\nsize: 4096\nnew_key: {a: [1]}\n"),
    ];
    let answers = disks.iter().map(|(id, yaml)| raw(1, &resource(id, "1", yaml))).collect();
    wire.fake.on("/cosi.resource.State/List", Says::Ok(answers));
    let all = wire.talos.list(&kind::DISKS).await.unwrap();
    let hardware: Vec<_> = all.iter().filter(|d| d.spec.is_hardware()).map(|d| d.spec.serial.as_str()).collect();
    assert_eq!((all.len(), hardware), (4, vec!["SYSTEM1", "0418"]));
    let asked = wire.one();
    let message = [text(1, "runtime"), text(2, "Disks.block.talos.dev"), raw(3, &[])].concat();
    assert_eq!(sent(&asked), ("/cosi.resource.State/List", message.as_slice()));
}

#[tokio::test]
async fn the_other_kinds_are_read_as_talos_writes_them() {
    /// What is left of a kind's spec, shown.
    async fn read<T: serde::de::DeserializeOwned + std::fmt::Debug>(
        kind: &pvemig::talos::Kind<T>,
        yaml: &str,
    ) -> String {
        let wire = Wire::start().await;
        wire.fake.on("/cosi.resource.State/List", Says::Ok(vec![raw(1, &resource("x", "1", yaml))]));
        let all = wire.talos.list(kind).await.unwrap();
        let asked = wire.one();
        let names = [text(1, kind.namespace), text(2, kind.name), raw(3, &[])].concat();
        assert_eq!(sent(&asked).1, names);
        format!("{:?}", all[0].spec)
    }
    let cases = [
        (read(&kind::DISCOVERED_VOLUMES, "type: partition\nname: xfs\npartition_label: u-data\nparent: sda\npartition_index: 5").await,
         vec!["\"partition\"", "\"xfs\"", "\"u-data\"", "partition_index: 5"]),
        (read(&kind::VOLUME_STATUSES, "phase: ready\ntype: partition\nlocation: /dev/sda4\nparentLocation: /dev/sda\nerrorMessage: \"\"").await,
         vec!["\"ready\"", "parent_location: \"/dev/sda\""]),
        (read(&kind::MOUNTS, "spec:\n    volumeID: EPHEMERAL\nsource: /dev/sda4\ntarget: /var\nfilesystem: xfs\nreadOnly: false").await,
         vec!["target: \"/var\"", "source: \"/dev/sda4\""]),
        (read(&kind::MEMBERS, "nodeId: n1\naddresses:\n    - 10.10.0.20\nhostname: talos-20\nmachineType: controlplane\noperatingSystem: Talos (v1.11.5)").await,
         vec!["[\"10.10.0.20\"]", "\"controlplane\"", "Talos (v1.11.5)"]),
        (read(&kind::MODULE_SPECS, "name: nvidia\nparameters: []").await, vec!["\"nvidia\""]),
        (read(&kind::LOADED_MODULES, "size: 16384\nreferenceCount: 0\ndependencies: []\nstate: Live\naddress: \"0x0\"").await, vec!["\"Live\""]),
        (read(&kind::MODULE_STATUSES, "type: builtin\nstate: built-in").await, vec!["\"builtin\"", "\"built-in\""]),
        (read(&kind::EXTENSIONS, "image: 0.sqsh\nmetadata:\n    name: schematic\n    version: 3765\n    author: Image Factory").await,
         vec!["\"schematic\"", "\"3765\""]),
        (read(&kind::LINKS, "index: 8\ntype: ether\nhardwareAddr: 52:54:00:10:10:11\noperationalState: up\nlinkState: true\nmtu: 1500\ndriver: virtio_net").await,
         vec!["\"52:54:00:10:10:11\"", "\"up\"", "mtu: 1500"]),
        (read(&kind::ADDRESSES, "address: 10.10.0.20/24\nlinkName: eth0\nfamily: inet4\nscope: global").await, vec!["\"10.10.0.20/24\"", "\"eth0\""]),
        (read(&kind::PCI_DEVICES, "class: Display controller\nvendor: NVIDIA Corporation\nvendor_id: \"0x10de\"\nproduct_id: \"0x1f82\"\ndriver: nvidia").await,
         vec!["\"0x10de\"", "\"0x1f82\"", "\"nvidia\""]),
        (read(&kind::PCI_DEVICES, "class: Mass storage controller\nsubclass: Non-Volatile memory controller\nclass_id: \"0x01\"\nsubclass_id: \"0x08\"\ndriver: nvme").await,
         vec!["class_id: \"0x01\"", "subclass_id: \"0x08\""]),
        (read(&kind::PROCESSORS, "socket: U3E1\nmanufacturer: Intel(R) Corporation\nproductName: Intel(R) Core(TM) i7-9850H\nmaxSpeedMhz: 4600\nstatus: 65\ncoreCount: 6\ncoreEnabled: 6\nthreadCount: 12").await,
         vec!["socket: \"U3E1\"", "product_name: \"Intel(R) Core(TM) i7-9850H\"", "core_count: 6", "core_enabled: 6", "thread_count: 12"]),
        (read(&kind::MEMORY_MODULES, "sizeMiB: 16384\ndeviceLocator: SODIMM1\nbankLocator: CHANNEL A\nspeed: 2666\nmanufacturer: Kingston\nserialNumber: 9F6C1B22\nproductName: KHX2666").await,
         vec!["size_mib: 16384", "device_locator: \"SODIMM1\"", "bank_locator: \"CHANNEL A\"", "speed: 2666", "serial_number: \"9F6C1B22\""]),
        // A socket without a module tells its place alone.
        (read(&kind::MEMORY_MODULES, "deviceLocator: SODIMM2").await, vec!["size_mib: 0", "\"SODIMM2\"", "serial_number: \"\""]),
        (read(&kind::DISKS, "dev_path: /dev/nvme0n1\nfirmware_version: 5B2QGXA7\nsecondary_disks: []").await, vec!["firmware_version: \"5B2QGXA7\""]),
        (read(&kind::DIAGNOSTICS, "message: kubelet uses an address of another network\ndetails:\n    - a").await, vec!["another network", "[\"a\"]"]),
        (read(&kind::NODE_STATUSES, "nodename: talos-20\nnodeReady: true\nunschedulable: true\nlabels: {}").await,
         vec!["node_ready: true", "unschedulable: true"]),
    ];
    for (shown, parts) in &cases {
        assert_eq!(parts.iter().filter(|part| !shown.contains(**part)).count(), 0, "{shown}: {parts:?}");
    }
    assert_eq!(cases.len(), 18);
}

#[tokio::test]
async fn the_single_ones_are_asked_for_by_their_ids() {
    let wire = Wire::start().await;
    let yaml = "diskID: sda\ndevPath: /dev/sda\nhostname: talos-20\nmemberID: 00000000000000ff\nsynced: true\nversion: v1.11.5\n\
                bootID: b\nbootedEntry: e\nuuid: u\nserialnumber: s\nstage: shutting down\n";
    wire.fake.on("/cosi.resource.State/Get", Says::Ok(vec![raw(1, &resource("x", "1", yaml))]));
    let talos = &wire.talos;
    assert_eq!(talos.single(&kind::SYSTEM_DISK).await.unwrap().unwrap().spec.disk_id, "sda");
    assert_eq!(talos.single(&kind::ETCD_MEMBER).await.unwrap().unwrap().spec.member_id, "00000000000000ff");
    assert_eq!(talos.single(&kind::HOSTNAME).await.unwrap().unwrap().spec.hostname, "talos-20");
    let board = talos.single(&kind::SYSTEM_INFORMATION).await.unwrap().unwrap().spec;
    assert_eq!((board.uuid.as_str(), board.serialnumber.as_str(), board.version.as_str()), ("u", "s", "v1.11.5"));
    assert_eq!(talos.single(&kind::BOOT_ID).await.unwrap().unwrap().spec.boot_id, "b");
    assert_eq!(talos.single(&kind::BOOTED_ENTRY).await.unwrap().unwrap().spec.booted_entry, "e");
    assert_eq!(talos.single(&kind::VERSION).await.unwrap().unwrap().spec.version, "v1.11.5");
    assert!(talos.single(&kind::TIME).await.unwrap().unwrap().spec.synced);
    // With a blank in YAML, and ready whatever it is: it says nothing in this stage.
    let status = talos.single(&kind::MACHINE_STATUS).await.unwrap().unwrap();
    assert_eq!((status.spec.stage, status.spec.is_settled()), (Stage::ShuttingDown, false));
    let wanted = [
        ("runtime", "SystemDisks.block.talos.dev", "system-disk"),
        ("etcd", "EtcdMembers.etcd.talos.dev", "local"),
        ("network", "HostnameStatuses.net.talos.dev", "hostname"),
        ("hardware", "SystemInformations.hardware.talos.dev", "systeminformation"),
        ("runtime", "BootIDs.runtime.talos.dev", "boot-id"),
        ("runtime", "BootedEntries.talos.dev", "bootedentry"),
        ("runtime", "Versions.runtime.talos.dev", "version"),
        ("runtime", "TimeStatuses.v1alpha1.talos.dev", "node"),
        ("runtime", "MachineStatuses.runtime.talos.dev", "machine"),
    ];
    let asked: Vec<_> = wire.fake.asked().iter().map(|a| a.messages[0].clone()).collect();
    let wanted = wanted.map(|(namespace, name, id)| [text(1, namespace), text(2, name), text(3, id)].concat());
    assert_eq!(asked, wanted);
}

#[tokio::test]
async fn a_spec_that_does_not_fit_is_named_and_not_shown() {
    let wire = Wire::start().await;
    let yaml = "dev_path: /dev/sda\nsize: hunter2\n";
    wire.fake.on("/cosi.resource.State/List", Says::Ok(vec![raw(1, &resource("sda", "1", yaml))]));
    let error = wire.talos.list(&kind::DISKS).await.unwrap_err();
    let shown = error.to_string();
    assert!(matches!(error, Error::BadAnswer { .. }) && shown.contains("Disks.block.talos.dev/sda"), "{shown}");
    assert!(shown.contains("line 2") && !shown.contains("hunter2"), "{shown}");
}

#[tokio::test]
async fn a_watch_tells_what_is_there_and_then_what_changes() {
    let wire = Wire::start().await;
    let event = |kind: u64, id: &str, stage: &str| {
        msg(1, &[raw(1, &resource(id, "1", &format!("stage: {stage}\n"))), num(2, kind)])
    };
    let first = [event(0, "machine", "booting"), msg(1, &[num(2, 3)])].concat();
    let then = [event(1, "machine", "running"), msg(1, &[num(2, 5)]), event(2, "machine", "running")].concat();
    let error = msg(1, &[num(2, 4), text(4, "the state is gone")]);
    wire.fake.on("/cosi.resource.State/Watch", Says::Ok(vec![first, then, error]));
    let mut watch = wire.talos.watch(&kind::MACHINE_STATUS.kind).await.unwrap();
    let stage = |change: Option<Change<kind::MachineStatus>>| match change {
        Some(Change::Created(resource)) => ("created", resource.spec.stage),
        Some(Change::Updated(resource)) => ("updated", resource.spec.stage),
        Some(Change::Destroyed { id }) if id == "machine" => ("destroyed", Stage::Unknown),
        Some(Change::Bootstrapped) => ("all told", Stage::Unknown),
        other => panic!("{other:?}"),
    };
    let mut told = Vec::new();
    for _ in 0..4 {
        told.push(stage(watch.next().await.unwrap()));
    }
    let wanted = [
        ("created", Stage::Booting),
        ("all told", Stage::Unknown),
        ("updated", Stage::Running),
        ("destroyed", Stage::Unknown),
    ];
    assert_eq!(told, wanted);
    assert!(watch.next().await.unwrap_err().to_string().contains("the state is gone"));
    assert_eq!(watch.next().await.unwrap(), None);
    let message =
        [text(1, "runtime"), text(2, "MachineStatuses.runtime.talos.dev"), msg(4, &[num(1, 1)]), num(5, 1)].concat();
    assert_eq!(sent(&wire.one()), ("/cosi.resource.State/Watch", message.as_slice()));
}

#[tokio::test]
async fn the_machine_configuration_is_its_exact_bytes() {
    let wire = Wire::start().await;
    let config = "version: v1alpha1 # kept\nmachine:\n  token: abcdef.0123456789abcdef\n---\napiVersion: v1alpha1\nkind: HostnameConfig\n";
    let metadata = msg(1, &[text(3, "v1alpha1"), text(4, "12")]);
    // The YAML form is something else in each version.
    let answer = msg(1, &[metadata, msg(2, &[msg(1, &[text(1, config)]), text(2, "\"other\"")])]);
    wire.fake.on("/cosi.resource.State/Get", Says::Ok(vec![answer]));
    let read = wire.talos.machine_config(Which::Active).await.unwrap().unwrap();
    assert_eq!((read.version.as_str(), read.expose()), ("12", config));
    assert!(!format!("{read:?}").contains("token"));
    let names = [text(1, "config"), text(2, "MachineConfigs.config.talos.dev")].concat();
    assert_eq!(sent(&wire.one()).1, [names.as_slice(), &text(3, "v1alpha1")].concat());
    wire.talos.machine_config(Which::Persistent).await.unwrap();
    assert_eq!(sent(&wire.fake.asked()[1]).1, [names.as_slice(), &text(3, "persistent")].concat());
}

#[tokio::test]
async fn a_directory_tells_what_its_symbolic_links_name() {
    let wire = Wire::start().await;
    let at = "/sys/bus/pci/devices";
    let root = [text(2, at), num(6, 1), text(9, ".")].concat();
    let target = "../../../devices/pci0000:00/0000:00:1d.0/0000:04:00.0";
    let link = [text(2, &format!("{at}/0000:04:00.0")), text(8, target), text(9, "0000:04:00.0")].concat();
    wire.fake.on("/machine.MachineService/List", Says::Ok(vec![root, link]));
    let all = wire.talos.dir(at).await.unwrap();
    let told: Vec<_> = all.iter().map(|entry| (entry.name.as_str(), entry.link.as_str(), entry.is_dir)).collect();
    assert_eq!(told, [("0000:04:00.0", target, false)]);
    wire.one();
}
