//! Clusters, nodes, clocks, rights.

use crate::base::survey::{Budget, Earlier, Layer, Stranger, Unmet};

use super::super::estate::{at, kubelet_of, seat_of, talos_of, there, vm_of};
use super::{Case, dumb, stranger};

pub(super) const WRONG: &[Case] = &[
    Case {
        name: "a month left",
        rule: "L11",
        what: "homelab",
        change: |survey| there(&mut survey.talos[0].certificate).until = "2026-12-10T00:00:00Z".parse().unwrap(),
        text: &["ends in 17 days, on 2026-12-10"],
        help: "`talosctl -e 192.168.4.20 -n 192.168.4.20 --talosconfig ~/.talos/config --context home config new FILE --roles os:admin`",
    },
    Case {
        name: "over",
        rule: "L11",
        what: "homelab",
        change: |survey| there(&mut survey.talos[0].certificate).until = "2026-11-22T01:00:00Z".parse().unwrap(),
        text: &["is over since"],
        help: "gen config --with-secrets",
    },
    Case {
        name: "an upgrade that stopped",
        rule: "L17",
        what: "homelab",
        change: |survey| talos_of(survey, "nuc").version.tag = "v1.12.3".into(),
        text: &["1.11 on tvm, mac; 1.12 on nuc"],
        help: "upgrade tvm: `talosctl -e 192.168.4.223 -n 192.168.4.223 upgrade --image factory.talos.dev/nocloud-installer/\
               ce4c980550dd2ab1b17bbf2b08801c7eb59418eafe8f279833297925d67c7515:v1.12.3`",
    },
    Case {
        name: "two minor versions apart",
        rule: "L17",
        what: "homelab",
        change: |survey| talos_of(survey, "nuc").version.tag = "v1.13.9".into(),
        text: &["1.13 on nuc"],
        help: ":v1.12.PATCH`",
    },
    Case {
        name: "a kubelet ahead",
        rule: "L17",
        what: "k3s",
        change: |survey| kubelet_of(survey, "k3s").version = "v1.35.0+k3s1".into(),
        text: &["v1.35.0+k3s1, newer than the API server's v1.34.1+k3s1"],
        help: "upgrade the control plane to",
    },
    Case {
        name: "a kubelet far behind",
        rule: "L17",
        what: "mac",
        change: |survey| kubelet_of(survey, "mac").version = "v1.30.9".into(),
        text: &["more than three minor versions older"],
        help: "upgrade-k8s --to v1.34.1",
    },
    Case {
        name: "a budget",
        rule: "L18",
        what: "k",
        change: |survey| {
            let figures = "minAvailable 3; 3 of 3 healthy, 3 wanted, 0 may go".to_owned();
            let budget = Budget { namespace: "home".into(), name: "whoami".into(), figures };
            survey.kubernetes[0].never_met = Layer::Known(vec![budget]);
        },
        text: &["home/whoami", "minAvailable 3"],
        help: "`kubectl -n home edit pdb whoami`",
    },
    Case {
        name: "another machine",
        rule: "L19",
        what: "mac",
        change: |survey| {
            let kubelet = kubelet_of(survey, "mac");
            kubelet.system_uuid = "11111111-2222-3333-4444-555555555555".into();
            kubelet.boot_id = "another".into();
        },
        text: &["11111111-2222", "the machine at 192.168.4.49 has uuid 5a1f3c66"],
        help: "`kubectl get node mac -o wide`",
    },
    Case {
        name: "another VM under k3s",
        rule: "L19",
        what: "k3s",
        change: |survey| vm_of(survey, "k3s").smbios_uuid = Some("11111111-2222-3333-4444-555555555555".into()),
        text: &["vm 108 has uuid 11111111"],
        help: "kubectl get node k3s",
    },
    Case {
        name: "a Node made anew, by the age of its pods",
        rule: "L36",
        what: "mac",
        change: |survey| {
            let kubelet = kubelet_of(survey, "mac");
            (kubelet.uid, kubelet.created) = ("new".into(), Some("2026-11-21T02:00:00Z".parse().unwrap()));
            let began = Some("2026-11-01T02:00:00Z".parse().unwrap());
            let pod = |n: u8| Earlier { pod: format!("home/whoami-{n}"), owner: None, began };
            there(&mut at(survey, "mac").workloads).earlier = vec![pod(1), pod(2), pod(3)];
        },
        text: &["made 2026-11-21T02:00:00Z, with uid new", "home/whoami-1 is there since 2026-11-01", "2 more"],
        help: "service kubelet restart`",
    },
    Case {
        name: "a Node made anew, by an owner",
        rule: "L36",
        what: "k3s",
        change: |survey| {
            let pod = Earlier { pod: "kube-system/x".into(), owner: Some("old".into()), began: None };
            there(&mut at(survey, "k3s").workloads).earlier = vec![pod];
        },
        text: &["kube-system/x belongs to a Node of this name with uid old"],
        help: "`kubectl get node k3s --show-labels`",
    },
    Case {
        name: "pages after the kubelet",
        rule: "L20",
        what: "nuc",
        change: |survey| kubelet_of(survey, "nuc").allocatable.clear(),
        text: &["1024 huge pages of 2 MiB", "pods can have 0 MiB", "the kubelet counted"],
        help: "service kubelet restart`",
    },
    Case {
        name: "pages that the kernel has not",
        rule: "L20",
        what: "nuc",
        change: |survey| {
            kubelet_of(survey, "nuc").allocatable = [("hugepages-2Mi".to_owned(), "512Mi".to_owned())].into();
            there(&mut talos_of(survey, "nuc").memory).huge_pages = 256;
        },
        text: &["pods can have 512 MiB", "the kernel could make 256"],
        help: "reboot`",
    },
    Case {
        name: "a token",
        rule: "L21",
        what: "k3s",
        change: |survey| {
            survey.proxmox[0].by_password = false;
            survey.proxmox[0].user = "root@pam!pvemig".into();
            let vm = vm_of(survey, "k3s");
            vm.usb = [("usb0", "host=1a6e:089a,usb3=1"), ("usb1", "spice"), ("usb2", "mapping=coral")]
                .map(|(slot, line)| (slot.to_owned(), line.to_owned()))
                .into();
            vm.hostpci = [("hostpci0".to_owned(), "0000:01:00,pcie=1".to_owned())].into();
        },
        text: &["`usb0: host=1a6e:089a,usb3=1` and `hostpci0: 0000:01:00,pcie=1`", "root@pam!pvemig by an API token"],
        help: "proxmox.home.auth",
    },
    Case {
        name: "one clock",
        rule: "L22",
        what: "mac",
        change: |survey| talos_of(survey, "mac").ahead_s = Layer::Known(-90),
        text: &["its clock is 1m 30s behind ours"],
        help: "time`",
    },
    Case {
        name: "a clock that is not set",
        rule: "L22",
        what: "mac",
        change: |survey| {
            let mac = talos_of(survey, "mac");
            mac.time_synced = Layer::Known(false);
            mac.ready = false;
            mac.unmet = vec![Unmet { name: "time".into(), reason: "time is not synced".into() }];
        },
        text: &["its clock is not set"],
        help: "time`",
    },
    Case {
        name: "our own clock",
        rule: "L22",
        what: "this machine",
        change: |survey| {
            for name in ["nuc", "tvm", "mac"] {
                talos_of(survey, name).ahead_s = Layer::Known(7200);
            }
        },
        text: &["behind that of all 3 nodes"],
        help: "timedatectl",
    },
    Case {
        name: "no memory, and etcd slow",
        rule: "L23",
        what: "mac",
        change: |survey| {
            there(&mut talos_of(survey, "mac").memory).available = 300 << 20;
            let seat = seat_of(survey, "mac");
            (seat.answered_ms, seat.raft_index) = (4_000, 20_000);
            kubelet_of(survey, "mac").pressures = vec!["MemoryPressure".into()];
        },
        text: &["300 of 16384 MiB", "took 4000 ms to answer us", "11000 entries behind", "MemoryPressure", "0 pods"],
        help: "spec.nodeName=mac",
    },
    Case {
        name: "a stranger",
        rule: "L31",
        what: "k",
        change: |survey| survey.kubernetes[0].strangers = Layer::Known(vec![stranger("old", false)]),
        text: &["Kubernetes has `old`"],
        help: "`kubectl get node old -o wide` says what it is: add it to the site file; where its machine is off for good, \
               `kubectl delete node old`",
    },
    Case {
        name: "a stranger that works",
        rule: "L31",
        what: "k",
        change: |survey| survey.kubernetes[0].strangers = Layer::Known(vec![stranger("new", true)]),
        text: &["Kubernetes has `new`"],
        help: "says what it is: add it to the site file",
    },
    Case {
        name: "a node by another name",
        rule: "L32",
        what: "mac",
        change: |survey| {
            let system_uuid = kubelet_of(survey, "mac").system_uuid.clone();
            *kubelet_of(survey, "mac") = crate::base::survey::Kubelet::default();
            survey.kubernetes[0].strangers =
                Layer::Known(vec![Stranger { system_uuid, ..stranger("talos-mac", true) }]);
        },
        text: &["no node mac; it knows its machine as talos-mac"],
        help: "set `node_name: talos-mac` for it",
    },
    Case {
        name: "a machine that is not there",
        rule: "L32",
        what: "mac",
        change: |survey| {
            *kubelet_of(survey, "mac") = crate::base::survey::Kubelet::default();
            let mac = at(survey, "mac");
            (mac.talos, mac.etcd) = (Layer::unknown("no answer"), Layer::unknown("no answer"));
            mac.talos_silent = true;
        },
        text: &["Kubernetes has no node mac, and its machine does not answer either"],
        help: "switch it on where it is to be a node; where it is not to be one any more, take it out of the site file",
    },
    Case {
        name: "no Node object",
        rule: "L32",
        what: "mac",
        change: |survey| {
            *kubelet_of(survey, "mac") = crate::base::survey::Kubelet::default();
            let mac = talos_of(survey, "mac");
            mac.ready = false;
            mac.unmet = vec![Unmet { name: "nodeReady".into(), reason: "not available yet".into() }];
        },
        text: &["no node mac"],
        help: "service kubelet restart",
    },
    Case {
        name: "cordoned",
        rule: "L33",
        what: "mac",
        change: |survey| kubelet_of(survey, "mac").cordoned = true,
        text: &["it is cordoned"],
        help: "`kubectl uncordon mac`",
    },
    Case {
        name: "cordoned by a run",
        rule: "L33",
        what: "mac",
        change: |survey| {
            let kubelet = kubelet_of(survey, "mac");
            (kubelet.cordoned, kubelet.cordon_mark) = (true, Some("run 7k2 on box".into()));
        },
        text: &["it is cordoned by run 7k2 on box of pvemig's"],
        help: "`pvemig status` there",
    },
    Case {
        name: "another VM",
        rule: "L34",
        what: "tvm",
        change: |survey| {
            vm_of(survey, "tvm").smbios_uuid = Some("11111111-2222-3333-4444-555555555555".into());
            dumb(survey, "tvm");
        },
        text: &["it is vm 223, which has uuid 11111111", "5a1f3c66"],
        help: "grep -l uuid=5a1f3c66",
    },
];
