//! Every question of every version.

use pvemig::talos::kind::{self, Stage};
use pvemig::talos::{ApplyMode, Change, Error, Happening, Kind, Resource, Single, Step, Talos, Which};
use serde::de::DeserializeOwned;

use super::*;

/// A kind of which there must be at least one, or exactly so many.
async fn list<T: DeserializeOwned>(talos: &Talos, kind: &Kind<T>, count: usize) -> Vec<Resource<T>> {
    let all = talos.list(kind).await.unwrap();
    assert_eq!(all.len(), count, "{}", kind.name);
    all
}

async fn one<T: DeserializeOwned>(talos: &Talos, single: &Single<T>) -> T {
    talos.single(single).await.unwrap().unwrap().spec
}

/// What a node is, by its resources; how many questions that took.
async fn resources(talos: &Talos, node: &str, version: &str) -> usize {
    let status = one(talos, &kind::MACHINE_STATUS).await;
    assert!(status.is_settled() && status.stage == Stage::Running, "{status:?}");
    let disk = one(talos, &kind::SYSTEM_DISK).await;
    // The Mac's stick lies in a drawer.
    let (modules, uefi, path) = match node {
        NUC => (4, true, "/dev/nvme0n1"),
        VM => (0, false, "/dev/sda"),
        _ => (0, true, "/dev/sda"),
    };
    assert_eq!(disk.dev_path, path);
    let disks = talos.list(&kind::DISKS).await.unwrap();
    let hardware: Vec<_> = disks.iter().filter(|disk| disk.spec.is_hardware()).collect();
    assert_eq!(hardware.len(), if node == NUC { 2 } else { 1 });
    let own = hardware.iter().find(|disk| disk.spec.dev_path == path).unwrap();
    assert!(own.spec.serial.len() > 5 && own.spec.size > 60_000_000_000 && own.phase == "running", "{own:?}");
    let volumes = talos.list(&kind::DISCOVERED_VOLUMES).await.unwrap();
    assert!(volumes.iter().any(|volume| volume.spec.partition_label == "EPHEMERAL"), "{volumes:?}");
    let volumes = talos.list(&kind::VOLUME_STATUSES).await.unwrap();
    assert!(["STATE", "EPHEMERAL"].iter().all(|id| volumes.iter().any(|v| v.id == *id && v.spec.phase == "ready")));
    assert!(!talos.list(&kind::MOUNTS).await.unwrap().is_empty());
    let members = list(talos, &kind::MEMBERS, 3).await;
    assert!(members.iter().all(|m| m.spec.machine_type == "controlplane" && m.spec.addresses.len() == 1));
    assert_eq!(members[0].spec.operating_system, format!("Talos (v{version})"));
    assert_eq!(one(talos, &kind::ETCD_MEMBER).await.member_id.len(), 16);
    assert_eq!(list(talos, &kind::MODULE_SPECS, modules).await.iter().filter(|m| m.spec.name == m.id).count(), modules);
    let loaded = talos.list(&kind::LOADED_MODULES).await.unwrap();
    let nvidia = loaded.iter().filter(|module| module.id.starts_with("nvidia") && module.spec.is_live());
    assert_eq!(nvidia.count(), modules);
    let layers = list(talos, &kind::EXTENSIONS, [3, 2, 1][NODES.iter().position(|n| *n == node).unwrap()]).await;
    assert!(layers.iter().any(|l| l.spec.metadata.name == "schematic" && l.spec.metadata.version.len() == 64));
    let links = talos.list(&kind::LINKS).await.unwrap();
    assert!(links.iter().any(|link| link.spec.hardware_addr.len() == 17), "{links:?}");
    let addresses = talos.list(&kind::ADDRESSES).await.unwrap();
    assert!(addresses.iter().any(|address| address.spec.address.starts_with("192.168.4.")), "{addresses:?}");
    assert_eq!(one(talos, &kind::HOSTNAME).await.hostname, node);
    let pci = talos.list(&kind::PCI_DEVICES).await.unwrap();
    let gpus = pci.iter().filter(|device| device.spec.vendor_id == "0x10de" && device.spec.driver == "nvidia");
    assert_eq!(gpus.count(), usize::from(node == NUC));
    assert_eq!(one(talos, &kind::SYSTEM_INFORMATION).await.uuid.len(), 36);
    let processors = list(talos, &kind::PROCESSORS, 1).await;
    assert_eq!((processors[0].spec.core_count, processors[0].spec.product_name.is_empty()), (4, false));
    // What the kernel counts is a little less than what is in it.
    let modules = list(talos, &kind::MEMORY_MODULES, if node == VM { 1 } else { 2 }).await;
    let sizes: Vec<u32> = modules.iter().map(|module| module.spec.size_mib).collect();
    assert_eq!(
        sizes,
        if node == NUC {
            vec![16_384; 2]
        } else if node == VM {
            vec![16_384]
        } else {
            vec![8_192; 2]
        }
    );
    list(talos, &kind::DIAGNOSTICS, 0).await;
    let entry = talos.single(&kind::BOOTED_ENTRY).await.unwrap();
    assert_eq!(entry.map(|e| e.spec.booted_entry), uefi.then(|| format!("Talos-v{version}.efi")));
    assert_eq!(one(talos, &kind::VERSION).await.version, format!("v{version}"));
    assert!(one(talos, &kind::TIME).await.synced);
    let status = talos.get(&kind::NODE_STATUSES, node).await.unwrap().unwrap().spec;
    assert!(status.nodename == node && status.node_ready && !status.unschedulable, "{status:?}");
    let (boot, modules) = (talos.single(&kind::BOOT_ID).await, talos.list(&kind::MODULE_STATUSES).await);
    if version.starts_with("1.14") {
        assert_eq!(boot.unwrap().unwrap().spec.boot_id, talos.boot_id().await.unwrap());
        assert!(modules.unwrap().iter().all(|module| module.spec.is_live() && !module.spec.kind.is_empty()));
        return 26;
    }
    assert!(matches!(boot.unwrap_err(), Error::NoSuchKind { .. }));
    assert!(matches!(modules.unwrap_err(), Error::NoSuchKind { .. }));
    25
}

/// Everything else that can be asked; how many questions that took.
async fn calls(ground: &Ground, talos: &Talos, node: &str, version: &str) -> usize {
    let said = talos.version().await.unwrap();
    let platform = if node == VM { ("nocloud", "cloud") } else { ("metal", "metal") };
    assert_eq!((said.tag, said.arch.as_str()), (format!("v{version}"), "amd64"));
    assert_eq!((said.platform.as_str(), said.mode.as_str()), platform);
    let services = talos.services().await.unwrap();
    assert_eq!(services.iter().filter(|service| !service.is_pending()).count(), if node == MAC { 11 } else { 12 });
    assert_eq!(services.iter().find(|service| service.id == "etcd").unwrap().healthy, Some(true));
    let memory = talos.memory().await.unwrap();
    let total = ground.read(|w| w.talos.nodes[node].memory * 1_024);
    assert_eq!((memory.total, memory.huge_pages, memory.huge_page_size), (total, 1_024, 2 << 20));
    assert!(talos.boot_time().await.unwrap() > 1_700_000_000);

    let text = ground.read(|w| w.talos.nodes[node].config.clone());
    for which in [Which::Active, Which::Persistent] {
        let config = talos.machine_config(which).await.unwrap().unwrap();
        assert!(config.expose() == text && !config.version.is_empty());
    }
    let more = text.replace("\"1024\"", "\"2048\"");
    let dry = talos.dry_run(&more, ApplyMode::NoReboot).await.unwrap();
    // The node's own difference may hold anything of a configuration, and is left out.
    assert!(!dry.reboots && dry.details.contains("without a reboot") && !dry.details.contains("2048"), "{dry:?}");
    let wrong = talos.dry_run(&format!("{text}\nnonsense: 1\n"), ApplyMode::NoReboot).await.unwrap_err();
    assert!(matches!(wrong, Error::Invalid { .. }), "{wrong}");

    let own = talos.etcd_status().await.unwrap();
    assert!(own.leads() == (node == NUC) && !own.is_learner && own.errors.is_empty(), "{own:?}");
    for local in [true, false] {
        let members = talos.etcd_members(local).await.unwrap();
        assert_eq!(members.iter().filter(|m| !m.is_learner && !m.is_unstarted()).count(), 3);
        assert_eq!(members.iter().find(|m| m.id == own.member).unwrap().name(), node);
    }
    assert_eq!(talos.etcd_alarms().await.unwrap(), Vec::new());
    let file = ground.lab.dir().join(format!("etcd-{node}"));
    let snapshot = talos.etcd_snapshot(&file).await.unwrap();
    assert!(snapshot.size == std::fs::metadata(&file).unwrap().len() && snapshot.sha256.len() == 64);

    let mut events = talos.events(-1, None).await.unwrap();
    loop {
        let event = events.next().await.unwrap().unwrap();
        if let Happening::Sequence { name, step: Step::Ended } = event.what
            && name == "boot"
        {
            break;
        }
    }
    let mut watch = talos.watch(&kind::MACHINE_STATUS.kind).await.unwrap();
    assert!(matches!(watch.next().await.unwrap(), Some(Change::Created(r)) if r.id == "machine"));
    assert!(matches!(watch.next().await.unwrap(), Some(Change::Bootstrapped)));
    let boot_id = ground.read(|w| w.talos.nodes[node].run.as_ref().unwrap().boot_id.clone());
    assert_eq!(talos.boot_id().await.unwrap(), boot_id);
    let missing = talos.file("/etc/nothing").await.unwrap_err();
    assert!(matches!(missing, Error::NotFound { .. }), "{missing}");
    assert!(talos.dmesg().await.unwrap().contains("Linux version"));
    let kubeconfig: serde_json::Value = serde_saphyr::from_str(talos.kubeconfig().await.unwrap().expose()).unwrap();
    assert_eq!(kubeconfig["current-context"], "admin@homelab");
    19
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_question_is_answered_by_every_version() {
    let mut asked = 0;
    for (version, _) in VERSIONS {
        let ground = Ground::new(version).await;
        let mut of_version = 0;
        for node in NODES {
            let talos = ground.talos(node).await;
            assert_eq!(talos.roles(), ["os:admin"]);
            of_version += resources(&talos, node, version).await + calls(&ground, &talos, node, version).await;
        }
        assert_eq!((ground.count(Class::Read), ground.all_noted()), (of_version, 0), "{version}");
        asked += of_version;
    }
    println!("{asked} questions");
    assert!(asked > 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubeconfig_of_a_node_opens_the_cluster() {
    let ground = Ground::new("1.11.5").await;
    let text = ground.talos(MAC).await.kubeconfig().await.unwrap();
    let path = ground.lab.dir().join("kubeconfig-of-the-node");
    std::fs::write(&path, text.expose()).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let kube = pvemig::k8s::Kubernetes::open("homelab", &path, "admin@homelab", Clock::fast(SPEED)).await.unwrap();
    let by_node = kube.nodes().await.unwrap();
    let by_site = ground.estate.kubernetes("homelab").await.unwrap().nodes().await.unwrap();
    assert_eq!((by_node.len(), by_site.len()), (3, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directories_are_listed_and_measured_and_what_etcd_has_is_found() {
    let ground = Ground::new("1.11.5").await;
    ground.lab.shared().change(|w| {
        w.talos.nodes.get_mut(NUC).unwrap().data.insert("/var/local/pool/disk.img".into(), 4_096_000);
    });
    let nuc = ground.talos(NUC).await;
    let names = |entries: Vec<pvemig::talos::Entry>| entries.into_iter().map(|entry| entry.name).collect::<Vec<_>>();
    assert_eq!(names(nuc.dir("/var").await.unwrap()), ["lib", "local", "log", "mnt", "run"]);
    assert_eq!(names(nuc.dir("/var/lib/etcd").await.unwrap()), ["member"]);
    let database = nuc.dir("/var/lib/etcd/member/snap").await.unwrap();
    assert!(database.len() == 1 && database[0].name == "db" && !database[0].is_dir && database[0].modified.is_some());
    assert_eq!(nuc.disk_usage("/var/local").await.unwrap(), 4_096_000);
    for path in ["/var/nothing", "/var/lib/etcd/member/none"] {
        assert!(matches!(nuc.dir(path).await.unwrap_err(), Error::NotFound { .. }), "{path}");
        assert!(nuc.disk_usage(path).await.is_err());
    }
    // A snapshot has a digest behind it, and the file has none.
    let (mut snapshot, file) = (Vec::new(), nuc.etcd_database().await.unwrap());
    nuc.etcd_snapshot_into(&mut snapshot, std::path::Path::new("it")).await.unwrap();
    let copied = pvemig::talos::bolt::copied;
    assert_eq!((copied(&snapshot).unwrap().digest, copied(&file).unwrap().digest), (true, false));
    assert_eq!(ground.all_noted(), 0);
}
