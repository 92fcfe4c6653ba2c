//! A survey of an estate where nothing is wrong: three Talos control planes, one of them a VM, and a VM with k3s.

use std::collections::BTreeMap;

use crate::base::survey::{
    Agent, Certificate, Disk, EtcdMember, EtcdSeat, Extension, Fact, Guest, InstallDisk, Kind, Kubelet,
    KubernetesCluster, Layer, MachineConfig, Memory, Module, Node, PciDevice, Place, ProxmoxCluster, Seat, Stage,
    Survey, SystemDisk, Talos, TalosCluster, TalosVersion, Vm, Volume, Workloads,
};

use super::super::nvidia::MODULES;

pub(super) const PLAIN: &str = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba";
pub(super) const AGENT: &str = "ce4c980550dd2ab1b17bbf2b08801c7eb59418eafe8f279833297925d67c7515";
pub(super) const NVIDIA: &str = "26124abcbd408be693df9fe852c80ef1e6cc178e34d7d7d8430a28d1130b4227";
pub(super) const BOTH: &str = "990731763242a6b3cf735e49d0f550ce4068b4d0e7f4dfbb49a31799b698877e";
pub(super) const DRIVER: [&str; 2] = ["nonfree-kmod-nvidia-production", "nvidia-container-toolkit-production"];

pub(super) fn extension(name: &str) -> Extension {
    Extension { name: name.into(), version: "1.0".into() }
}

pub(super) fn module(name: &str) -> Module {
    Module { name: name.into(), live: true }
}

pub(super) fn disk(id: &str, model: &str, serial: &str, transport: &str) -> Disk {
    Disk {
        id: id.into(),
        dev_path: format!("/dev/{id}"),
        size: 1_000_204_886_016,
        model: model.into(),
        serial: serial.into(),
        transport: transport.into(),
        bus_path: format!("/pci0000:00/{id}"),
        symlinks: vec![format!("/dev/disk/by-id/{transport}-{model}_{serial}"), format!("/dev/disk/by-path/{id}")],
        ..Disk::default()
    }
}

pub(super) fn volume(id: &str, parent: &str, content: &str, label: &str) -> Volume {
    Volume {
        id: id.into(),
        dev_path: format!("/dev/{id}"),
        parent: parent.into(),
        content: content.into(),
        partition_label: label.into(),
        ..Volume::default()
    }
}

fn talos(platform: &str, schematic: &str, extensions: &[&str], disks: Vec<Disk>, uuid: &str) -> Talos {
    let system = disks.first().cloned().unwrap_or_default();
    let by_id = system.symlinks.first().cloned();
    Talos {
        version: TalosVersion { tag: "v1.11.5".into(), platform: platform.into(), arch: "amd64".into() },
        stage: Layer::Known(Stage::Running),
        ready: true,
        unmet: Vec::new(),
        services: Layer::Known(Vec::new()),
        extensions: Layer::Known(extensions.iter().map(|name| extension(name)).collect()),
        schematic: Layer::Known(schematic.into()),
        modules_configured: Layer::Known(Vec::new()),
        modules_loaded: Layer::Known(Vec::new()),
        volumes: Layer::Known(vec![
            volume(&system.id, "", "gpt", ""),
            volume(&format!("{}1", system.id), &system.id, "xfs", "STATE"),
        ]),
        system_disk: Layer::Known(SystemDisk { id: system.id.clone(), dev_path: system.dev_path }),
        disks: Layer::Known(disks),
        pci: Layer::Known(vec![PciDevice {
            vendor_id: "0x8086".into(),
            class: "Network controller".into(),
            ..PciDevice::default()
        }]),
        memory: Layer::Known(Memory {
            total: 16 << 30,
            available: 8 << 30,
            huge_pages: 1024,
            huge_pages_free: 1024,
            huge_page_size: 2 << 20,
        }),
        config: Layer::Known(MachineConfig {
            machine_type: "controlplane".into(),
            install: InstallDisk { disk: by_id, ..InstallDisk::default() },
            image: Some(format!("factory.talos.dev/{platform}-installer/{schematic}:v1.11.5")),
            huge_pages: Some(1024),
            ..MachineConfig::default()
        }),
        diagnostics: Layer::Known(Vec::new()),
        time_synced: Layer::Known(true),
        ahead_s: Layer::Known(0),
        boot_id: Layer::Known(format!("boot-{uuid}")),
        system_uuid: Layer::Known(uuid.into()),
    }
}

fn kubelet(uuid: &str) -> Kubelet {
    let pages: BTreeMap<String, String> = [("hugepages-2Mi".to_owned(), "2Gi".to_owned())].into();
    Kubelet {
        registered: true,
        ready: true,
        version: "v1.34.1".into(),
        system_uuid: uuid.into(),
        boot_id: format!("boot-{uuid}"),
        control_plane: true,
        capacity: pages.clone(),
        allocatable: pages,
        ..Kubelet::default()
    }
}

fn vm(name: &str, uuid: &str) -> Vm {
    Vm {
        host: "pve".into(),
        name: Some(name.into()),
        power: "running".into(),
        qemu: Some("running".into()),
        uptime_s: Some(86_400),
        agent: true,
        agent_configured: true,
        smbios_uuid: Some(uuid.into()),
        drives: [("scsi0".to_owned(), "local-lvm:vm-223-disk-0,serial=talos-vm-root".to_owned())].into(),
        ..Vm::default()
    }
}

fn seat(id: &str, leads: bool) -> EtcdSeat {
    let member = |id: &str, name: &str| EtcdMember { id: id.into(), name: name.into(), learner: false };
    EtcdSeat {
        id: id.into(),
        seat: if leads { Seat::Leader } else { Seat::Voter },
        leader: Some("0a".into()),
        raft_term: 3,
        raft_index: 9_000,
        raft_applied: 9_000,
        db_size: 1 << 20,
        db_in_use: 1 << 19,
        version: "3.6.5".into(),
        errors: Vec::new(),
        answered_ms: 12,
        members: Layer::Known(vec![member("0a", "nuc"), member("0b", "tvm"), member("0c", "mac")]),
        alarms: Layer::Known(Vec::new()),
    }
}

fn node(name: &str, kind: Kind, kubernetes: &str, uuid: &str) -> Node {
    Node {
        name: name.into(),
        kind,
        address: None,
        tls_name: None,
        place: None,
        kubernetes: kubernetes.into(),
        node_name: name.into(),
        talos_cluster: None,
        vm: Layer::Absent,
        agent: Layer::Absent,
        guest: Layer::Absent,
        talos: Layer::Absent,
        waiting: None,
        talos_silent: false,
        held_off: None,
        kubelet: Layer::Known(kubelet(uuid)),
        etcd: Layer::Absent,
        workloads: Layer::Known(Workloads::default()),
    }
}

fn of_talos(name: &str, kind: Kind, address: &str, uuid: &str, id: &str, talos: Talos) -> Node {
    Node {
        address: Some(address.into()),
        talos_cluster: Some("homelab".into()),
        talos: Layer::Known(talos),
        etcd: Layer::Known(seat(id, id == "0a")),
        ..node(name, kind, "k", uuid)
    }
}

fn agent(exec: Fact) -> Layer<Agent> {
    Layer::Known(Agent { channel: Fact::Yes, ping: Fact::Yes, exec })
}

/// The estate where nothing is wrong.
pub(super) fn sound() -> Survey {
    let uuid = |last: u8| format!("5a1f3c66-2f54-4a5e-8d6c-1c697a0b20{last:02x}");
    let nvme =
        vec![disk("nvme0n1", "Samsung", "S5GXNF0R601234", "nvme"), disk("nvme1n1", "WD_BLACK", "22471A806001", "nvme")];
    let mut nuc = talos("metal", NVIDIA, &DRIVER, nvme, &uuid(0x20));
    nuc.pci = Layer::Known(vec![PciDevice {
        vendor_id: "0x10de".into(),
        class: "Display controller".into(),
        product: "TU117 [GeForce GTX 1650]".into(),
        driver: "nvidia".into(),
        ..PciDevice::default()
    }]);
    nuc.modules_configured = Layer::Known(MODULES.map(str::to_owned).to_vec());
    nuc.modules_loaded = Layer::Known(MODULES.map(module).to_vec());
    let in_vm =
        talos("nocloud", AGENT, &["qemu-guest-agent"], vec![disk("sda", "QEMU", "talos-vm-root", "scsi")], &uuid(0x22));
    let mac = talos("metal", PLAIN, &[], vec![disk("sda", "APPLE", "S2ZRNYAH500749", "sata")], &uuid(0x49));

    let mut tvm = of_talos("tvm", Kind::TalosVm, "192.168.4.223", &uuid(0x22), "0b", in_vm);
    tvm.place = Some(Place { proxmox: "home".into(), vmid: 223 });
    tvm.vm = Layer::Known(vm("talos-vm", &uuid(0x22)));
    tvm.agent = agent(Fact::NotAsked { why: "Talos has no programs".into() });
    let mut k3s = node("k3s", Kind::Vm, "k3s", &uuid(0x08));
    k3s.place = Some(Place { proxmox: "home".into(), vmid: 108 });
    k3s.vm = Layer::Known(vm("k3s-vm", &uuid(0x08)));
    k3s.agent = agent(Fact::Yes);
    let boot_id = format!("boot-{}", uuid(0x08));
    k3s.guest = Layer::Known(Guest { route: "ssh".into(), boot_id, others: Vec::new() });
    let cluster = |name: &str, version: &str| KubernetesCluster {
        name: name.into(),
        kubeconfig: "~/.kube/config".into(),
        context: name.into(),
        version: Layer::Known(version.into()),
        strangers: Layer::Known(Vec::new()),
        never_met: Layer::Known(Vec::new()),
        unscheduled: Layer::Known(Vec::new()),
    };
    Survey {
        site: "homelab".into(),
        at: "2026-11-22T02:00:00Z".parse().unwrap(),
        took_ms: 900,
        nodes: vec![
            of_talos("nuc", Kind::TalosMetal, "192.168.4.20", &uuid(0x20), "0a", nuc),
            tvm,
            of_talos("mac", Kind::TalosMetal, "192.168.4.49", &uuid(0x49), "0c", mac),
            k3s,
        ],
        proxmox: vec![ProxmoxCluster { name: "home".into(), user: "root@pam".into(), by_password: true }],
        kubernetes: vec![cluster("k", "v1.34.1"), cluster("k3s", "v1.34.1+k3s1")],
        talos: vec![TalosCluster {
            name: "homelab".into(),
            kubernetes: "k".into(),
            talosconfig: "~/.talos/config".into(),
            context: Some("home".into()),
            certificate: Layer::Known(Certificate {
                roles: vec!["os:admin".into()],
                until: "2027-06-01T00:00:00Z".parse().unwrap(),
            }),
        }],
        partial: false,
    }
}

/// A layer that is to be known.
pub(super) fn there<T>(layer: &mut Layer<T>) -> &mut T {
    match layer {
        Layer::Known(value) => value,
        _ => panic!("the layer is not known"),
    }
}

pub(super) fn at<'s>(survey: &'s mut Survey, name: &str) -> &'s mut Node {
    survey.nodes.iter_mut().find(|node| node.name == name).unwrap()
}

pub(super) fn talos_of<'s>(survey: &'s mut Survey, name: &str) -> &'s mut Talos {
    there(&mut at(survey, name).talos)
}

pub(super) fn config_of<'s>(survey: &'s mut Survey, name: &str) -> &'s mut MachineConfig {
    there(&mut talos_of(survey, name).config)
}

pub(super) fn kubelet_of<'s>(survey: &'s mut Survey, name: &str) -> &'s mut Kubelet {
    there(&mut at(survey, name).kubelet)
}

pub(super) fn vm_of<'s>(survey: &'s mut Survey, name: &str) -> &'s mut Vm {
    there(&mut at(survey, name).vm)
}

pub(super) fn seat_of<'s>(survey: &'s mut Survey, name: &str) -> &'s mut EtcdSeat {
    there(&mut at(survey, name).etcd)
}

/// What all members see.
pub(super) fn members(survey: &mut Survey, change: impl Fn(&mut Vec<EtcdMember>)) {
    for node in &mut survey.nodes {
        if let Layer::Known(seat) = &mut node.etcd {
            change(there(&mut seat.members));
        }
    }
}
