//! The rows of the worlds.

use pvemig::base::schematic::FactoryImage;
use pvemig::base::survey::{Fact, Kind, Layer, MachineConfig, Seat, Stage};

use super::Bench;

/// The schematic that a configuration's image names.
fn schematic(config: &MachineConfig) -> Option<&str> {
    Some(FactoryImage::of(config.image.as_deref()?)?.schematic)
}

#[tokio::test(flavor = "multi_thread")]
async fn three_talos_nodes_are_known_across_all_layers() {
    let bench = Bench::new("talos-three").await;
    let survey = bench.survey(&[]).await;
    let names: Vec<&str> = survey.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["talos-mac", "talos-nuc", "talos-vm"]);
    let mut seats = Vec::new();
    for node in &survey.nodes {
        assert!(node.unknown().is_empty(), "{}: {:?}", node.name, node.unknown());
        assert!(node.wrong().is_empty(), "{}: {:?}", node.name, node.wrong());
        let talos = node.talos().unwrap();
        assert!(talos.is_settled() && talos.unknown().is_empty(), "{talos:#?}");
        assert_eq!((talos.version.tag.as_str(), node.talos_silent), ("v1.11.5", false));
        let kubelet = node.kubelet().unwrap();
        assert!(kubelet.ready && kubelet.control_plane && kubelet.registered, "{kubelet:?}");
        // The machine that Kubernetes has by this name is the one that Talos is.
        assert_eq!(talos.system_uuid.known(), Some(&kubelet.system_uuid));
        assert_eq!(talos.boot_id.known(), Some(&kubelet.boot_id));
        let ahead = talos.ahead_s.known().unwrap();
        assert!(ahead.abs() <= 2, "{ahead} s");
        let config = talos.config.known().unwrap();
        assert_eq!(config.machine_type, "controlplane");
        assert_eq!(schematic(config), talos.schematic.known().map(String::as_str));
        assert_eq!(config.huge_pages, Some(1024));
        assert_eq!(talos.memory.known().map(|memory| memory.huge_page_size), Some(2 << 20));
        let seat = node.seat().unwrap();
        assert_eq!(seat.members.known().unwrap().len(), 3);
        assert_eq!(seat.alarms, Layer::Known(Vec::new()));
        seats.push(seat.seat);
        assert!(node.workloads.known().unwrap().pods > 0);
        assert!(node.guest.is_absent());
    }
    let leaders = seats.iter().filter(|seat| **seat == Seat::Leader).count();
    assert_eq!((leaders, seats.len()), (1, 3));

    let nuc = survey.node("talos-nuc").unwrap();
    assert_eq!((nuc.kind, &nuc.vm, &nuc.agent), (Kind::TalosMetal, &Layer::Absent, &Layer::Absent));
    let talos = nuc.talos().unwrap();
    let loaded: Vec<&str> = talos.modules_loaded.known().unwrap().iter().map(|module| module.name.as_str()).collect();
    let configured = talos.modules_configured.known().unwrap();
    assert!(configured.len() == 4 && configured.iter().all(|name| loaded.contains(&name.as_str())), "{loaded:?}");
    let gpu = talos.pci.known().unwrap().iter().filter(|device| device.is_nvidia_gpu()).collect::<Vec<_>>();
    assert_eq!(gpu.iter().map(|gpu| gpu.driver.as_str()).collect::<Vec<_>>(), ["nvidia"]);
    assert_eq!(talos.disks.known().unwrap().len(), 2);
    assert_eq!(talos.system_disk.known().unwrap().dev_path, "/dev/nvme0n1");
    assert!(talos.volumes.known().unwrap().iter().any(|volume| volume.partition_label == "EPHEMERAL"));

    let vm = survey.node("talos-vm").unwrap();
    assert_eq!(vm.kind, Kind::TalosVm);
    let machine = vm.vm().unwrap();
    assert_eq!((machine.host.as_str(), machine.agent, machine.is_at_work()), ("pve", true, true));
    assert_eq!(machine.smbios_uuid.as_ref(), vm.talos().unwrap().system_uuid.known());
    assert_eq!(machine.serials().collect::<Vec<_>>(), [("scsi0", "talos-vm-root")]);
    let agent = vm.agent.known().unwrap();
    assert_eq!((&agent.channel, &agent.ping), (&Fact::Yes, &Fact::Yes));
    // A program is not even tried where there is none.
    assert!(matches!(agent.exec, Fact::NotAsked { .. }));
    assert!(!bench.asked(0).keys().any(|line| line.contains("agent/exec")));
    assert!(vm.talos().unwrap().has_extension("qemu-guest-agent"));

    let certificate = survey.talos[0].certificate.known().unwrap();
    assert_eq!(certificate.roles, ["os:admin"]);
    assert!(certificate.until > survey.at);
    assert_eq!(survey.kubernetes[0].strangers, Layer::Known(Vec::new()));
    assert!(survey.kubernetes[0].version.known().is_some_and(|version| version.starts_with("v1.34")));
    assert!(survey.proxmox[0].may_pass_raw_devices());
    assert!(!survey.partial);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_ready_for_the_kubelet_and_booting_for_talos() {
    let mut world = pvemig::lab::load("talos-three-no-modules").unwrap();
    world.talos.timing.stuck = 1_000_000_000;
    let rest = pvemig::lab::Lab::at_rest(world, tempfile::tempdir().unwrap().path()).unwrap();
    let survey = Bench::of(rest).await.survey(&[]).await;
    let nuc = survey.node("talos-nuc").unwrap();
    let talos = nuc.talos().unwrap();
    assert!(nuc.kubelet().unwrap().ready);
    assert_eq!(talos.stage.known(), Some(&Stage::Booting));
    let waiting: Vec<_> = talos.pending_services().map(|service| service.id.as_str()).collect();
    assert_eq!(waiting, ["ext-nvidia-persistenced"]);
    assert_eq!(talos.modules_configured, Layer::Known(Vec::new()));
    assert!(talos.has_extension("nonfree-kmod-nvidia-production"));
    let wrong = nuc.wrong();
    assert_eq!(wrong.first(), Some(&("talos", "booting".to_owned())));
    assert!(wrong.iter().any(|(_, text)| text.starts_with("ext-nvidia-persistenced waiting: ")), "{wrong:?}");
    assert!(survey.nodes.iter().filter(|node| node.name != "talos-nuc").all(|node| node.wrong().is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_for_a_gpu_on_a_machine_without_one_shows() {
    let mut world = pvemig::lab::load("talos-three-wrong-image").unwrap();
    world.talos.timing.stuck = 1_000_000_000;
    let rest = pvemig::lab::Lab::at_rest(world, tempfile::tempdir().unwrap().path()).unwrap();
    let survey = Bench::of(rest).await.survey(&["talos-vm"]).await;
    assert!(survey.partial);
    let [node] = survey.nodes.as_slice() else { panic!("one was asked for: {survey:#?}") };
    let talos = node.talos().unwrap();
    assert_eq!(talos.stage.known(), Some(&Stage::Booting));
    assert!(talos.has_extension("nonfree-kmod-nvidia-production"));
    assert!(!talos.pci.known().unwrap().iter().any(|device| device.is_nvidia_gpu()));
    assert_ne!(schematic(talos.config.known().unwrap()), talos.schematic.known().map(String::as_str));
    // Those that were not asked for are no strangers.
    assert_eq!(survey.kubernetes[0].strangers, Layer::Known(Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn virtual_machines_are_known_with_the_ways_into_their_guests() {
    let bench = Bench::new("usb-move").await;
    let survey = bench.survey(&[]).await;
    assert_eq!(survey.nodes.len(), 3);
    for node in &survey.nodes {
        assert_eq!((node.kind, node.unknown()), (Kind::Vm, Vec::new()), "{}", node.name);
        let vm = node.vm().unwrap();
        assert!(vm.is_at_work() && vm.agent && vm.pending.is_empty(), "{vm:?}");
        let agent = node.agent.known().unwrap();
        assert_eq!([&agent.channel, &agent.ping, &agent.exec], [&Fact::Yes; 3]);
        let guest = node.guest.known().unwrap();
        assert_eq!((guest.route.as_str(), guest.others.as_slice()), ("ssh", &[][..]));
        assert_eq!(guest.boot_id, node.kubelet().unwrap().boot_id);
        assert!(node.talos.is_absent() && node.etcd.is_absent() && !node.is_talos());
    }
    let source = survey.node("k3s-vm-pumped-piglet").unwrap().vm().unwrap();
    assert_eq!(source.usb.keys().collect::<Vec<_>>(), ["usb0", "usb1"]);
    assert_eq!(source.host, "pumped-piglet");
    assert!(survey.talos.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_the_site_has_not_is_refused() {
    let bench = Bench::new("usb-move").await;
    let estate = pvemig::estate::Estate::new(bench.site.clone(), Default::default(), bench.lab.dir().join("s"));
    let failure = estate.survey(&["nobody".to_owned()]).await.unwrap_err();
    assert!(failure.to_string().contains("has no node `nobody`"), "{failure}");
    assert_eq!(bench.asked(0).len(), 0);
}
