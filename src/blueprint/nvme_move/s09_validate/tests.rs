use serde_json::json;

use super::*;
use crate::base::drives::{Drive, Layout, Scenario, Wanted};
use crate::base::survey::Node;
use crate::k8s::mayastor::{Health, Replica};

fn known(value: serde_json::Value) -> serde_json::Value {
    json!({ "known": value })
}

fn disk(id: &str, serial: &str, transport: &str) -> serde_json::Value {
    json!({ "id": id, "dev-path": format!("/dev/{id}"), "size": 7, "model": "M", "serial": serial, "wwid": "", "uuid": "",
        "bus-path": format!("/{id}"), "transport": transport, "rotational": false, "symlinks": [] })
}

/// A control plane as a survey has it; `edit` makes of it what it is now.
fn node(edit: impl FnOnce(&mut serde_json::Value)) -> Node {
    let meta = json!({ "id": "nvme0n1p2", "dev-path": "/dev/nvme0n1p2", "parent": "nvme0n1", "size": 1, "content": "talosmeta",
        "label": "", "partition-label": "META", "partition-uuid": "meta-1", "partition-index": 2 });
    let gpu = json!({ "address": "0000:01:00.0", "class": "Display controller", "class-id": "0x03", "vendor": "NVIDIA",
        "product": "GTX", "vendor-id": "0x10de", "product-id": "0x1f82", "driver": "nvidia" });
    let mut value = json!({
        "name": "n1", "kind": "talos-metal", "kubernetes": "k", "node-name": "n1", "vm": "absent", "agent": "absent",
        "guest": "absent", "workloads": "absent",
        "talos": known(json!({
            "version": { "tag": "v1.11.5", "platform": "metal", "arch": "amd64" }, "stage": known(json!("running")),
            "ready": true, "unmet": [], "services": known(json!([])),
            "extensions": known(json!([{ "name": "nvidia", "version": "1" }])), "schematic": known(json!("aabbccddeeff")),
            "modules-configured": known(json!(["nvidia"])), "modules-loaded": known(json!([])),
            "disks": known(json!([disk("nvme0n1", "S", "nvme"), disk("nvme1n1", "D", "nvme"), disk("sda", "X", "sata"),
                disk("sdb", "STICK", "usb")])),
            "system-disk": known(json!({ "id": "nvme0n1", "dev-path": "/dev/nvme0n1" })), "volumes": known(json!([meta])),
            "pci": known(json!([gpu])),
            "memory": known(json!({ "total": 32_000, "available": 9, "huge-pages": 0, "huge-pages-free": 0, "huge-page-size": 2 })),
            "config": "absent", "diagnostics": known(json!([])), "time-synced": known(json!(true)), "ahead-s": known(json!(0)),
            "boot-id": known(json!("b1")), "system-uuid": known(json!("u-1")),
        })),
        "kubelet": known(json!({ "registered": true, "ready": true, "reason": "", "cordoned": false, "uid": "k-1", "version": "v1",
            "os": "Talos", "system-uuid": "u-1", "boot-id": "b1", "control-plane": true, "pressures": [], "capacity": {},
            "allocatable": { "cpu": "4" } })),
        "etcd": known(json!({ "id": "e1", "seat": "voter", "raft-term": 1, "raft-index": 1, "raft-applied": 1, "db-size": 1,
            "db-in-use": 1, "version": "3", "errors": [], "answered-ms": 1, "members": known(json!([
            { "id": "e1", "name": "n1", "learner": false }, { "id": "e2", "name": "n2", "learner": false }])), "alarms": known(json!([])) })),
    });
    edit(&mut value);
    serde_json::from_value(value).unwrap()
}

fn at<'v>(value: &'v mut serde_json::Value, path: &str) -> &'v mut serde_json::Value {
    value.pointer_mut(path).unwrap_or_else(|| panic!("{path}"))
}

fn plan(scenario: Scenario) -> Plan {
    let wanted = |serial: &str, purpose| Wanted { serial: serial.into(), purposes: vec![purpose], ..Wanted::default() };
    let layout = |pairs: &[(&str, &str)]| -> Layout {
        pairs.iter().map(|(slot, name)| ((*slot).to_owned(), (*name).to_owned())).collect()
    };
    let all = [
        ("sys", wanted("S", Purpose::System)),
        ("media", wanted("D", Purpose::UserVolume("media".into()))),
        ("fresh", Wanted { new: true, ..wanted("N", Purpose::Spare) }),
    ];
    Plan {
        slots: Vec::new(),
        drives: all.map(|(name, wanted)| (name.to_owned(), wanted)).into(),
        current: layout(&[("1", "sys"), ("2", "media")]),
        target: layout(&[("1", "sys"), ("2", "fresh"), ("3", "media")]),
        scenario,
    }
}

type Edit = fn(&mut serde_json::Value);

fn held(scenario: Scenario, edit: Edit) -> Judged {
    diff::node(&plan(scenario), &node(|_| {}), &node(edit))
}

#[test]
fn what_time_changes_and_what_the_plan_moves_is_no_difference() {
    // Names, boot, leadership, figures; a new drive, one in another slot, one more partition.
    let judged = held(Scenario::Data, |v| {
        *at(v, "/talos/known/disks/known") = json!([
            disk("nvme0n1", "D", "nvme"),
            disk("nvme1n1", "N", "nvme"),
            disk("nvme2n1", "S", "nvme"),
            disk("sda", "X", "sata"),
            disk("sdb", "STICK", "usb")
        ]);
        *at(v, "/talos/known/system-disk/known/id") = json!("nvme2n1");
        *at(v, "/talos/known/volumes/known/0/parent") = json!("nvme2n1");
        *at(v, "/talos/known/volumes/known/0/id") = json!("nvme2n1p2");
        *at(v, "/talos/known/boot-id/known") = json!("b2");
        *at(v, "/talos/known/ahead-s/known") = json!(2);
        *at(v, "/talos/known/memory/known/available") = json!(5);
        *at(v, "/talos/known/memory/known/total") = json!(31_990);
        *at(v, "/kubelet/known/boot-id") = json!("b2");
        *at(v, "/kubelet/known/allocatable/cpu") = json!("3900m");
        *at(v, "/etcd/known/seat") = json!("leader");
        *at(v, "/etcd/known/raft-index") = json!(77);
        *at(v, "/etcd/known/answered-ms") = json!(9);
    });
    assert_eq!(judged, Judged::default());
    // A second run has a survey of its own, in which all is where it belongs already.
    for scenario in [Scenario::Data, Scenario::SystemMoved, Scenario::SystemReplaced] {
        assert_eq!(held(scenario, |_| {}), Judged::default(), "{scenario:?}");
    }
}

#[test]
fn what_must_not_differ_is_refused() {
    let cases: [(Edit, &str); 7] = [
        (|v| *at(v, "/talos/known/system-uuid/known") = json!("u-2"), "that is another machine"),
        (
            |v| *at(v, "/talos/known/version/tag") = json!("v1.10.0"),
            "it ran Talos v1.11.5 of schematic aabbccdd, and runs v1.10.0",
        ),
        (|v| *at(v, "/talos/known/schematic/known") = json!("ffeeddccbbaa"), "and runs v1.11.5 of schematic ffeeddcc"),
        (|v| *at(v, "/talos/known/volumes/known/0/partition-uuid") = json!("meta-2"), "runs from another one, meta-2"),
        (
            |v| drop(at(v, "/talos/known/disks/known").as_array_mut().unwrap().remove(2)),
            "M X was in the machine, is none that is moved",
        ),
        (|v| *at(v, "/kubelet/known/uid") = json!("k-2"), "somebody made it anew"),
        (
            |v| {
                *at(v, "/etcd/known/id") = json!("e9");
                *at(v, "/etcd/known/members/known/0/id") = json!("e9");
            },
            "its member of etcd was e1, and is e9: it has joined anew",
        ),
    ];
    let mut met = 0;
    for (edit, words) in cases {
        let judged = held(Scenario::SystemMoved, edit);
        assert!(judged.problems.len() == 1 && judged.problems[0].text.contains(words), "{words}: {judged:#?}");
        met += 1;
    }
    assert_eq!(met, 7);
}

#[test]
fn an_installation_that_is_replaced_has_another_meta_image_and_member() {
    let anew: Edit = |v| {
        *at(v, "/talos/known/volumes/known/0/partition-uuid") = json!("meta-2");
        *at(v, "/talos/known/schematic/known") = json!("ffeeddccbbaa");
        *at(v, "/etcd/known/id") = json!("e9");
        *at(v, "/etcd/known/members/known/0/id") = json!("e9");
    };
    let judged = held(Scenario::SystemReplaced, anew);
    assert!(judged.problems.is_empty() && judged.waits.is_empty() && judged.notes.len() == 2, "{judged:#?}");
    // Its former member is not to stay.
    let judged = held(Scenario::SystemReplaced, |v| {
        *at(v, "/etcd/known/id") = json!("e9");
        let members = at(v, "/etcd/known/members/known").as_array_mut().unwrap();
        members.push(json!({ "id": "e9", "name": "n1", "learner": false }));
    });
    assert_eq!(judged.waits, ["its former member of etcd, e1, is still one"]);
}

#[test]
fn what_may_still_come_is_waited_for_and_the_rest_is_told() {
    let judged = held(Scenario::Data, |v| {
        *at(v, "/kubelet") = json!({ "unknown": { "reason": "refused" } });
        at(v, "/etcd/known/members/known").as_array_mut().unwrap().pop();
    });
    assert_eq!(judged.waits, ["the kubelet was known before, and is not now: refused", "etcd had 2 voters, and has 1"]);
    let judged = held(Scenario::Data, |v| {
        *at(v, "/talos/known/memory/known/total") = json!(16_000);
        *at(v, "/talos/known/pci/known") = json!([]);
        *at(v, "/talos/known/extensions/known/0/version") = json!("2");
        *at(v, "/kubelet/known/cordoned") = json!(true);
        at(v, "/talos/known/disks/known").as_array_mut().unwrap().pop();
        at(v, "/talos/known/disks/known").as_array_mut().unwrap().push(disk("sdc", "Y", "usb"));
    });
    assert!(judged.problems.is_empty() && judged.waits.is_empty(), "{judged:#?}");
    let words = [
        "a module may have come loose",
        "M STICK is not plugged in any more",
        "M Y is in the machine, and was not",
        "NVIDIA GTX was on PCI",
        "kubelet/cordoned was false, and is true",
        "talos/extensions/nvidia/version was 1, and is 2",
    ];
    assert_eq!(judged.notes.len(), words.len(), "{judged:#?}");
    assert!(words.iter().all(|word| judged.notes.iter().any(|note| note.contains(word))), "{judged:#?}");
}

#[test]
fn local_volumes_are_on_the_drives_that_they_were_on() {
    let drive = |id: &str, serial: &str, local: &[&str]| Drive {
        id: id.into(),
        serial: serial.into(),
        transport: "nvme".into(),
        purposes: local.iter().map(|name| Purpose::Local((*name).into())).collect(),
        ..Drive::default()
    };
    let all = |drives: Vec<Drive>| Inventory { drives, ..Inventory::default() };
    let before = all(vec![drive("nvme0n1", "S", &["a"]), drive("nvme1n1", "D", &["b", "c"])]);
    let plan = plan(Scenario::Data);
    let there = ["a", "b"];
    let good = all(vec![drive("nvme0n1", "D", &["b"]), drive("nvme2n1", "S", &["a"])]);
    let judged = diff::local(&plan, &before, &good, &there);
    assert!(judged.problems.is_empty() && judged.waits.is_empty(), "{judged:#?}");
    assert_eq!(judged.notes[2], "local volume c, which was on media, is deleted");
    let other = all(vec![drive("nvme0n1", "D", &[]), drive("nvme2n1", "S", &["a", "b"])]);
    let judged = diff::local(&plan, &before, &other, &there);
    assert_eq!(judged.problems.len(), 1);
    assert!(judged.problems[0].text.contains("local volume b was on media, and its directory is on S now"));
    let none = all(vec![drive("nvme0n1", "D", &[]), drive("nvme2n1", "S", &["a"])]);
    assert!(diff::local(&plan, &before, &none, &there).waits[0].contains("is on no drive that is mounted"));
}

#[test]
fn a_rebuild_is_waited_for_with_how_far_it_is() {
    let replica = |node: &str, rebuild: Option<u8>| Replica {
        id: node.into(),
        node: Some(node.into()),
        pool: None,
        health: Health::Online,
        child: None,
        rebuild,
    };
    let volume = |uuid: &str, replicas: Vec<Replica>| MayastorVolume {
        uuid: uuid.into(),
        health: Health::Online,
        wanted: 2,
        replicas,
        target: None,
    };
    let whole = volume("v1", vec![replica("n1", None), replica("n2", None)]);
    let (judged, progress) = in_step(std::slice::from_ref(&whole), "n1");
    assert_eq!((judged.waits.len(), judged.notes.len(), progress.as_str()), (0, 1, ""));
    let rebuilt = volume("v2", vec![replica("n1", Some(40)), replica("n2", None)]);
    let elsewhere = volume("v3", vec![replica("n2", None)]);
    let (judged, progress) = in_step(&[whole, rebuilt, elsewhere], "n1");
    assert_eq!(judged.waits, ["volume v2 of Mayastor is not whole: being rebuilt: 40 %"]);
    assert_eq!((progress.as_str(), judged.notes.len()), ("v2 40 %", 1));
}
