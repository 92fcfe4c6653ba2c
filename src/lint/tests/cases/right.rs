//! What only looks wrong.

use crate::base::survey::{Earlier, EtcdMember, Fact, Layer, PendingChange, Stage, Survey};

use super::super::estate::{
    PLAIN, at, config_of, kubelet_of, members, module, seat_of, talos_of, there, vm_of, volume,
};
use super::{
    away, channel_pending, dead, dumb, existing, gpu_image, install, leaderless, learner, no_agent, no_channel,
    no_modules, silent, stranger, user_volume, waits, waits_for_its_configuration,
};

type Right = (&'static str, &'static str, fn(&mut Survey));

pub(in crate::lint) const RIGHT: &[Right] = &[
    ("L01", "no GPU: another rule's", gpu_image),
    ("L01", "modules with dashes", |s| {
        talos_of(s, "nuc").modules_loaded =
            Layer::Known(["nvidia", "nvidia-uvm", "nvidia-drm", "nvidia-modeset"].map(module).to_vec());
    }),
    ("L01", "which devices there are is not known", |s| {
        no_modules(s);
        talos_of(s, "nuc").pci = Layer::unknown("no answer");
    }),
    ("L02", "which devices there are is not known", |s| {
        gpu_image(s);
        talos_of(s, "tvm").pci = Layer::unknown("no answer");
    }),
    ("L03", "another version of the same schematic", |s| {
        config_of(s, "mac").image = Some(format!("factory.talos.dev/metal-installer/{PLAIN}:v1.10.0"));
    }),
    ("L03", "an image of nobody's factory", |s| {
        config_of(s, "mac").image = Some("ghcr.io/siderolabs/installer:v1.11.5".into());
    }),
    ("L03", "the cause is told", gpu_image),
    ("L04", "what is in the image is not known", |s| {
        no_channel(s);
        talos_of(s, "tvm").extensions = Layer::unknown("no answer");
    }),
    ("L04", "it is off", |s| {
        no_channel(s);
        vm_of(s, "tvm").power = "stopped".into();
    }),
    ("L05", "an agent that came in another way", |s| {
        no_agent(s);
        there(&mut at(s, "tvm").agent).ping = Fact::Yes;
    }),
    ("L06", "a name that stays", |s| config_of(s, "mac").install.disk = Some("/dev/disk/by-id/x".into())),
    ("L06", "a path beside a selector", |s| {
        config_of(s, "mac").install.disk = Some("/dev/sda".into());
        install(s, "mac", &[("serial", "S2Z*")]);
    }),
    ("L07", "a volume that is made", |s| {
        user_volume(s, "disk.model == 'gone'");
        there(&mut talos_of(s, "nuc").volumes).push(volume("nvme1n1p1", "nvme1n1", "xfs", "u-data"));
    }),
    ("L07", "which disks there are is not known", |s| {
        install(s, "mac", &[("serial", "GONE*")]);
        talos_of(s, "mac").disks = Layer::unknown("no answer");
    }),
    ("L07", "a volume that is there is chosen by what is on it", |s| existing(s, "volume.partition_label == 'data'")),
    ("L08", "one of two", |s| install(s, "nuc", &[("type", "nvme"), ("model", "Sam*")])),
    ("L08", "the system disk is not meant", |s| user_volume(s, "disk.transport == 'nvme' && !system_disk")),
    ("L09", "its own disk", |s| install(s, "nuc", &[("model", "Sam*")])),
    ("L09", "an empty disk", |s| install(s, "nuc", &[("model", "WD*")])),
    ("L09", "which disk is its own is not known", |s| {
        install(s, "nuc", &[("model", "Sam*")]);
        talos_of(s, "nuc").system_disk = Layer::unknown("no answer");
    }),
    ("L10", "no serial at all", |s| {
        there(&mut talos_of(s, "nuc").disks).iter_mut().for_each(|disk| disk.serial = String::new());
    }),
    ("L11", "five weeks left", |s| {
        there(&mut s.talos[0].certificate).until = "2026-12-27T00:00:00Z".parse().unwrap();
    }),
    ("L12", "the third is on its way", |s| learner(s, "0c")),
    ("L12", "one voter", |s| members(s, |all| all.truncate(1))),
    ("L13", "a learner that is nobody: another rule's", |s| {
        members(s, |all| all.push(EtcdMember { id: "0d".into(), name: "old".into(), learner: true }));
    }),
    ("L14", "alarms are not known", |s| {
        for name in ["nuc", "tvm", "mac"] {
            seat_of(s, name).alarms = Layer::unknown("no answer");
        }
    }),
    ("L15", "a node that only the site does not know", |s| {
        members(s, |all| all.push(EtcdMember { id: "0d".into(), name: "old".into(), learner: false }));
        s.kubernetes[0].strangers = Layer::Known(vec![stranger("old", true)]);
    }),
    ("L15", "it may be a node whose seat is not known", |s| {
        members(s, |all| all.iter_mut().filter(|m| m.id == "0c").for_each(|m| m.name = "talos-9xq-2ab".into()));
        at(s, "mac").etcd = Layer::unknown("no answer");
    }),
    ("L15", "a member by the Kubernetes name", |s| {
        at(s, "mac").node_name = "apple".into();
        at(s, "mac").etcd = Layer::unknown("no answer");
        members(s, |all| all.iter_mut().filter(|m| m.id == "0c").for_each(|m| m.name = "Apple".into()));
    }),
    ("L16", "a member less on its way out", |s| {
        there(&mut seat_of(s, "mac").members).pop();
    }),
    ("L37", "an election", |s| {
        leaderless(s);
        for name in ["nuc", "tvm", "mac"] {
            let talos = talos_of(s, name);
            (talos.ready, talos.unmet) = (true, Vec::new());
        }
    }),
    ("L37", "nobody could be asked", |s| {
        for name in ["nuc", "tvm", "mac"] {
            silent(s, name);
            at(s, name).etcd = Layer::unknown("refused");
        }
    }),
    ("L37", "none has begun", |s| {
        for name in ["nuc", "tvm", "mac"] {
            waits_for_its_configuration(s, name);
        }
    }),
    ("L37", "one alone knows no leader", |s| seat_of(s, "mac").leader = None),
    ("L38", "how the third is in etcd is not known", |s| {
        silent(s, "mac");
        at(s, "mac").etcd = Layer::unknown("refused");
    }),
    ("L38", "a little behind", |s| seat_of(s, "mac").raft_applied = 8_500),
    ("L38", "its machine is dead: another rule's", |s| dead(s, "mac", "2026-11-22T01:00:00Z")),
    ("L38", "one voter has none to spare, and is well", |s| members(s, |all| all.truncate(1))),
    ("L39", "it does not answer us, and Kubernetes hears of it", |s| {
        silent(s, "mac");
        at(s, "mac").etcd = Layer::unknown("refused");
    }),
    ("L39", "it may be in a reboot", |s| dead(s, "mac", "2026-11-22T01:58:00Z")),
    ("L39", "that Kubernetes does not hear of it is not known", |s| {
        dead(s, "mac", "2026-11-22T01:00:00Z");
        at(s, "mac").kubelet = Layer::unknown("refused");
    }),
    ("L39", "its VM runs: another rule's", |s| dead(s, "tvm", "2026-11-22T01:00:00Z")),
    ("L39", "a learner: another rule's", |s| {
        dead(s, "mac", "2026-11-22T01:00:00Z");
        learner(s, "0c");
    }),
    ("L41", "a learner is on its way", |s| {
        members(s, |all| all.truncate(2));
        learner(s, "0b");
        at(s, "mac").etcd = Layer::Absent;
    }),
    ("L41", "there is no other control plane", |s| {
        members(s, |all| all.truncate(1));
        for name in ["tvm", "mac"] {
            at(s, name).etcd = Layer::Absent;
            kubelet_of(s, name).control_plane = false;
        }
    }),
    ("L40", "a member less on its way out", |s| {
        there(&mut seat_of(s, "mac").members).pop();
    }),
    ("L40", "one that tells no members", |s| seat_of(s, "mac").members = Layer::unknown("a learner does not")),
    ("L29", "it waits for a configuration", |s| waits_for_its_configuration(s, "tvm")),
    ("L28", "it waits for a configuration", |s| {
        waits_for_its_configuration(s, "tvm");
        at(s, "tvm").kubelet = Layer::Known(crate::base::survey::Kubelet::default());
    }),
    ("L32", "it waits for a configuration", |s| {
        waits_for_its_configuration(s, "mac");
        at(s, "mac").kubelet = Layer::Known(crate::base::survey::Kubelet::default());
    }),
    ("L16", "nobody knows a leader: another rule's", leaderless),
    ("L25", "nobody knows a leader: another rule's", leaderless),
    ("L17", "another patch", |s| talos_of(s, "nuc").version.tag = "v1.11.9".into()),
    ("L17", "a kubelet three behind", |s| kubelet_of(s, "mac").version = "v1.31.0".into()),
    ("L17", "a version that cannot be read", |s| kubelet_of(s, "mac").version = "unknown".into()),
    ("L18", "budgets are not known", |s| s.kubernetes[0].never_met = Layer::unknown("no answer")),
    ("L19", "the bytes the other way round", |s| {
        kubelet_of(s, "mac").system_uuid = "663c1f5a-542f-5e4a-8d6c-1c697a0b2049".into();
    }),
    ("L19", "a board without a uuid", |s| {
        kubelet_of(s, "mac").system_uuid = "00000000-0000-0000-0000-000000000000".into();
    }),
    ("L36", "the Node of another machine, of which the cause is told", |s| {
        kubelet_of(s, "mac").system_uuid = "11111111-2222-3333-4444-555555555555".into();
        let pod = Earlier { pod: "x/x".into(), owner: Some("old".into()), began: None };
        there(&mut at(s, "mac").workloads).earlier = vec![pod];
    }),
    ("L36", "what runs there is not known", |s| at(s, "mac").workloads = Layer::unknown("no answer")),
    ("L20", "none are asked for", |s| {
        config_of(s, "nuc").huge_pages = None;
        kubelet_of(s, "nuc").allocatable.clear();
    }),
    ("L20", "larger pages", |s| {
        kubelet_of(s, "nuc").allocatable = [("hugepages-1Gi".to_owned(), "2Gi".to_owned())].into();
    }),
    ("L20", "what the kernel has is not known", |s| {
        kubelet_of(s, "nuc").allocatable.clear();
        talos_of(s, "nuc").memory = Layer::unknown("no answer");
    }),
    ("L21", "root with his password", |s| {
        vm_of(s, "k3s").usb = [("usb0".to_owned(), "host=1a6e:089a".to_owned())].into();
    }),
    ("L22", "a second", |s| talos_of(s, "mac").ahead_s = Layer::Known(2)),
    ("L23", "a worker may be full", |s| {
        kubelet_of(s, "k3s").control_plane = false;
        kubelet_of(s, "k3s").pressures = vec!["MemoryPressure".into()];
    }),
    ("L23", "its etcd is only just coming up", |s| {
        waits(s, "mac", "etcd", "x");
        seat_of(s, "mac").answered_ms = 4_000;
    }),
    ("L24", "the cause is told", no_modules),
    ("L24", "the kubelet is not up either", |s| {
        waits(s, "mac", "cri", "x");
        away(s, "mac");
    }),
    ("L25", "it is on its way", |s| {
        let mac = talos_of(s, "mac");
        (mac.stage, mac.ready) = (Layer::Known(Stage::Rebooting), false);
    }),
    ("L26", "it answers with a no", |s| at(s, "mac").talos = Layer::unknown("the certificate is over")),
    ("L27", "whether it runs is not known", |s| {
        at(s, "k3s").vm = Layer::unknown("no answer");
        away(s, "k3s");
    }),
    ("L28", "it has just been started", |s| {
        dumb(s, "k3s");
        away(s, "k3s");
        at(s, "k3s").guest = Layer::unknown("ssh: no route to host");
        vm_of(s, "k3s").uptime_s = Some(20);
    }),
    ("L28", "Talos answers with a no", |s| {
        dumb(s, "tvm");
        away(s, "tvm");
        at(s, "tvm").talos = Layer::unknown("the certificate is over");
    }),
    ("L28", "one way in answers", |s| {
        dumb(s, "k3s");
        away(s, "k3s");
    }),
    ("L29", "the agent could not be asked", |s| {
        there(&mut at(s, "k3s").agent).ping = Fact::Unknown { why: "no right".into() };
    }),
    ("L29", "there is no channel", |s| {
        let agent = there(&mut at(s, "k3s").agent);
        agent.channel = Fact::No { why: "agent: 0".into() };
        agent.ping = Fact::No { why: "no channel".into() };
    }),
    ("L30", "it is off: the next start takes it up", |s| {
        let vm = vm_of(s, "k3s");
        vm.power = "stopped".into();
        vm.pending = vec![PendingChange { key: "cores".into(), now: Some("2".into()), then: Some("4".into()) }];
    }),
    ("L30", "the cause is told", channel_pending),
    ("L24", "the Ready is another machine's", |s| {
        waits(s, "mac", "ext-tailscale", "/dev/net/tun");
        let kubelet = kubelet_of(s, "mac");
        kubelet.system_uuid = "11111111-2222-3333-4444-555555555555".into();
        kubelet.boot_id = "another".into();
    }),
    ("L31", "who there is is not known", |s| s.kubernetes[0].strangers = Layer::unknown("no answer")),
    ("L32", "Kubernetes is not known", |s| at(s, "mac").kubelet = Layer::unknown("no answer")),
    ("L33", "Talos takes it back by itself", |s| {
        let kubelet = kubelet_of(s, "mac");
        kubelet.cordoned = true;
        kubelet.cordon_mark = Some("Talos".into());
    }),
    ("L34", "Talos is not known", |s| {
        vm_of(s, "tvm").smbios_uuid = Some("11111111-2222-3333-4444-555555555555".into());
        silent(s, "tvm");
    }),
    ("L35", "it is not Ready", |s| {
        kubelet_of(s, "k3s").boot_id = "another".into();
        away(s, "k3s");
    }),
];
