//! What Proxmox alone is asked: quorum, locks, slots, hosts that nobody looked at, equal devices.

use pvemig::lab::{FaultEffect, FaultRule, Front, Place};
use serde_json::json;

use super::{Bench, MERGE, SOURCE, TARGET, assert_found, assert_noted, problems_of, protects, shown};
use std::time::Duration;

const CONTROL_PLANE: &str = "k3s-vm-pve-1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_keeps_the_vms_from_being_written_or_switched_is_found() {
    let bench = Bench::new("usb-move").await;
    let shared = bench.rig.lab.shared().clone();
    shared.change(|world| {
        world.no_quorum = true;
        world.hosts.get_mut("pve").unwrap().online = false;
        // The node of this VM is the cluster's other control plane.
        world.vms.get_mut(&103).unwrap().running = None;
        world.vms.get_mut(&105).unwrap().lock = Some("backup".into());
        world.begin_task("pumped-piglet", "vzdump", "105", "root@pam", json!(null));
        let target = &mut world.vms.get_mut(&108).unwrap().config;
        target.insert("hotplug".into(), "0".into());
        target.extend((0..13).map(|slot| (format!("usb{slot}"), "spice".to_owned())));
        target.insert("usb13".into(), "host=2-3".into());
    });
    let label = json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": "true"}}});
    bench.send("PATCH", &format!("/api/v1/nodes/{TARGET}"), MERGE, label).await;
    let silent = |world: &pvemig::lab::World| {
        let nodes = world.kube.store.all(pvemig::lab::kube::kinds::nodes());
        let node = nodes.iter().find(|n| n["metadata"]["name"] == CONTROL_PLANE)?;
        let ready = node["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == "Ready")?;
        (ready["status"] != "True").then_some(())
    };
    shared.until(Duration::from_secs(600), silent).await.unwrap();

    let check = bench.look().await.unwrap();
    assert_noted(
        &check,
        &[
            "vm 105 is locked (backup) by vzdump of root@pam: 01-remove-usb waits for the lock",
            "pve is offline: whether coral is there is not known",
        ],
    );
    let stands_still = "node k3s-vm-still-fawn is one of 2 control-plane nodes; without it 0 are Ready and etcd needs 2: \
                        the cluster would stand still (k3s-vm-pve-1 not Ready)";
    let back_first = "bring k3s-vm-pve-1 back first";
    assert_found(
        &problems_of(check),
        &[
            ("01", "cluster home has no quorum: 2 of 3 hosts are online, pve not", "`pvecm status`"),
            ("04", "vm 108 passes the device already in another form: usb13 is `host=2-3`", "take usb13 out of vm 108"),
            ("04", "vm 108 has 0 free USB slots and 2 are needed", "free a slot"),
            // 04 makes the power cycle necessary; before it, 05 has nothing to do.
            ("04-", stands_still, back_first),
        ],
    );

    // What waits for a power cycle already is the matter of 05.
    shared.change(|world| {
        let target = world.vms.get_mut(&108).unwrap();
        let entry = target.config.remove("usb13").unwrap();
        target.pending.insert("usb13".into(), entry);
    });
    let check = bench.look().await.unwrap();
    let found = problems_of(check);
    assert!(found.iter().any(|p| protects(p) == "05-reboot-vm" && p.text == stands_still), "{}", shown(&found));
    assert_eq!(found.len(), 4, "{}", shown(&found));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_asked_is_not_taken_for_no() {
    let mut bench = Bench::new("usb-move").await;
    let label = json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": "true"}}});
    bench.send("PATCH", &format!("/api/v1/nodes/{TARGET}"), MERGE, label).await;
    // One volume is said to be on either of two nodes, and one on a share.
    bench.rig.lab.shared().change(|world| {
        let kind = pvemig::lab::kube::kinds::volumes();
        for volume in world.kube.store.all(kind) {
            let mut other = serde_json::Value::clone(&volume);
            match other["spec"]["claimRef"]["name"].as_str().unwrap() {
                "frigate-config" => {
                    let rule = &mut other["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"][0];
                    rule["matchExpressions"][0]["values"] = json!([SOURCE, CONTROL_PLANE]);
                    other["metadata"]["annotations"] = json!({});
                }
                "frigate-media" => {
                    let spec = other["spec"].as_object_mut().unwrap();
                    spec.retain(|key, _| !["hostPath", "local", "nodeAffinity"].contains(&key.as_str()));
                    spec.insert("nfs".into(), json!({"server": "nas", "path": "/media"}));
                }
                _ => continue,
            }
            world.kube.store.replace(kind, other, None);
        }
        // Nothing tells any more for which node they were made.
        for claim in world.kube.store.all(pvemig::lab::kube::kinds::claims()) {
            let mut other = serde_json::Value::clone(&claim);
            other["metadata"]["annotations"] = json!({});
            world.kube.store.replace(pvemig::lab::kube::kinds::claims(), other, None);
        }
    });
    let refuse = || FaultEffect::Status(403, "Permission check failed".into());
    bench.rig.lab.fault(FaultRule::on(Front::Proxmox, refuse()).path("/api2/json/nodes"));
    // What it runs with: what is configured is another question.
    bench.rig.lab.fault(FaultRule::on(Front::Proxmox, refuse()).path("*/qemu/108/config"));
    bench.declare(|fields| fields["device"]["serial"] = json!("0042"));
    let check = bench.look().await.unwrap();
    assert_noted(
        &check,
        &[
            "hosts besides pumped-piglet and still-fawn could not be listed: whether coral is at another one is not \
             known: ",
            "2 control-plane nodes; without it 1 are Ready, and etcd needs 2; whether its VM is power-cycled while it \
             runs is not known",
            "3 other pods; whether it is drained is not known",
            "bytes unknown (it may be on any of k3s-vm-pumped-piglet, k3s-vm-pve-1)) stays as it is",
            "(nfs nas:/media, on no node's own disks, bytes unknown (it is no directory of a node)) can be used on",
            "coral (1a6e:089a or 18d1:9302, serial 0042): 18d1:9302 at pumped-piglet port 2-1",
        ],
    );
    let cycle = ("05", "cannot ask whether vm 108 runs what is configured: ", "");
    assert_found(&problems_of(check), &[cycle]);

    bench.rig.lab.shared().clear_faults();
    let check = bench.look().await.unwrap();
    assert!(check.is_done(), "{:#?}", check.answer);
    assert_noted(&check, &["2 control-plane nodes; without it 1 are Ready; its VM is not power-cycled while it runs"]);
    assert!(!check.notes.iter().any(|note| note.contains("not known")), "{:#?}", check.notes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_equal_devices_the_socket_tells_which_one_is_meant() {
    let mut bench = Bench::new("usb-move").await;
    bench.rig.lab.shared().change(|world| {
        let twin = world.sticks["coral"].clone();
        world.sticks.insert("twin".into(), twin);
        world.move_stick("twin", None).unwrap();
        world.move_stick("twin", Some(Place { host: "still-fawn".into(), port: "2-2".into() })).unwrap();
    });
    // attach, whether the site names the socket, what is found
    let by_id = ("04", "would have 2 equal devices", "set `attach: port`");
    let nameless = (
        "04",
        "and nothing names the socket of the one for vm 108",
        "`ports: { still-fawn: { port: BUS-PORT } }` of device coral",
    );
    let table = [
        (json!("id"), true, Some(by_id)),
        (json!("id"), false, Some(by_id)),
        (json!("port"), true, None),
        (json!("port"), false, Some(nameless)),
        (json!("mapping"), true, None),
        (json!("mapping"), false, Some(nameless)),
    ];
    let socket = json!({"port": "2-3", "sibling": "1-3"});
    for (attach, named, expected) in &table {
        bench.declare(|fields| {
            fields["attach"] = attach.clone();
            fields["device"]["mapping"] = json!("coral");
            let sockets = fields["device"]["sockets"].as_object_mut().unwrap();
            sockets.remove("still-fawn");
            if *named {
                sockets.insert("still-fawn".into(), socket.clone());
            }
        });
        let check = bench.look().await.unwrap();
        if expected.is_none() {
            assert_noted(&check, &["2 equal devices: make sure that the one at pumped-piglet is carried, port 2-1"]);
        }
        assert_found(&problems_of(check), expected.as_slice());
    }
    assert_eq!(table.len(), 6);
    // Neither form makes a difference where there is one device only.
    bench.rig.lab.move_stick("twin", None).unwrap();
    assert_found(&bench.problems().await, &[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_is_left_behind_only_where_nobody_can_hold_it() {
    let bench = Bench::new("usb-move").await;
    let lab = &bench.rig.lab;
    let locked = |lock: Option<&str>| {
        let lock = lock.map(str::to_owned);
        lab.shared().change(|world| world.vms.get_mut(&105).unwrap().lock = lock);
    };
    // A hibernated VM goes on from its saved memory because of its lock.
    locked(Some("suspended"));
    let found = bench.problems().await;
    assert_found(&found, &[("01", "vm 105 is hibernated (locked: suspended)", "`qm resume 105` (or start it) first")]);
    assert!(!shown(&found).contains("unlock"), "{}", shown(&found));

    // The lock is seen, and the backup ends before its pve task is looked for.
    let status = "*/qemu/105/status/current";
    lab.fault(FaultRule::on(Front::Proxmox, FaultEffect::Stale).path(status).skip(1_000));
    locked(Some("backup"));
    let left = ("01", "vm 105 is locked (backup) and no pve task works on it", "`qm unlock 105`");
    assert_found(&bench.problems().await, &[left]);
    locked(None);
    lab.shared().clear_faults();
    lab.fault(FaultRule::on(Front::Proxmox, FaultEffect::Stale).path(status).times(1));
    assert_found(&bench.problems().await, &[]);
    let log = std::fs::read_to_string(bench.rig.dir().join("requests.jsonl")).unwrap();
    assert_eq!(log.matches(r#""fault":"stale""#).count(), 1, "the old answer was given");

    // A backup that names no guest may be at any, but holds no lock of another kind.
    lab.shared().change(|world| drop(world.begin_task("pumped-piglet", "vzdump", "", "root@pam", json!(null))));
    locked(Some("backup"));
    let check = bench.look().await.unwrap();
    assert_noted(
        &check,
        &["vm 105 is locked (backup) by vzdump of root@pam (perhaps: it names no guest): 01-remove-usb"],
    );
    locked(Some("snapshot"));
    assert_found(&bench.problems().await, &[("01", "vm 105 is locked (snapshot) and no pve task", "`qm unlock 105`")]);
}
