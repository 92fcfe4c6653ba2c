//! Every finding of the preflight, by its name.

use futures::FutureExt;
use pvemig::base::hold::{MARK, Mark};
use pvemig::lab::kube::kinds;
use pvemig::lab::talos::disk::Partition;
use pvemig::lab::talos::lost::Loss;
use pvemig::lab::{FaultEffect, FaultRule, Front};

use super::*;
use crate::harness::found::Met;

const DATA_WORLD: &str = "nvme-data";

/// The world's own migration, after something befell the world and somebody edited its parameters.
async fn made(world: &str, what: &str, befell: impl FnOnce(&mut World), edit: impl FnOnce(&mut Value)) -> Rig {
    Rig::of(at_rest_after(world, what, befell), edit).await
}

async fn befallen(what: &str, befell: impl FnOnce(&mut World)) -> Rig {
    made(DATA_WORLD, what, befell, |_| {}).await
}

async fn edited(world: &str, edit: impl FnOnce(&mut Value)) -> Rig {
    made(world, "", |_| {}, edit).await
}

fn params(site: &mut Value) -> &mut Value {
    &mut site["migrations"]["nuc-drives"]["params"]
}

fn nuc(world: &mut World) -> &mut pvemig::lab::talos::node::Node {
    world.talos.nodes.get_mut(NUC).unwrap()
}

/// An object of Kubernetes, changed behind everybody's back.
fn object(world: &mut World, (version, kind): (&str, &str), name: &str, change: impl FnOnce(&mut Value)) {
    let kind = kinds::of(version, kind).unwrap();
    let all = world.kube.store.all(kind).into_iter().map(|object| Value::clone(&object));
    let mut object = all.into_iter().find(|object| object["metadata"]["name"] == name).unwrap();
    change(&mut object);
    world.kube.store.replace(kind, object, None).unwrap();
}

/// A node of the control plane as a worker from its first boot on.
fn worker(world: &mut World, name: &str) {
    world.talos.etcd.members.retain(|member| member.name != name);
    let config = &mut world.talos.nodes.get_mut(name).unwrap().config;
    *config = config.replace("type: controlplane", "type: worker");
}

/// A plan for the VM, whose host has slots.
fn of_the_vm(site: &mut Value) {
    site["proxmox"]["home"]["hosts"]["pve"]["slots"] =
        json!({ "A": { "position": "a", "port": "0000:00:01.0" }, "B": { "position": "b" }, "C": { "position": "c" } });
    *params(site) = json!({ "node": "talos-vm", "scenario": "data",
        "drives": { "sys": { "serial": "S1", "purpose": "system" }, "more": { "serial": "S2", "purpose": "spare" } },
        "current": { "A": "sys", "B": "more" }, "target": { "A": "sys", "C": "more" } });
}

/// The findings that were met, and what was said where one was not: that keeps no other one from being tried.
struct All {
    met: Met,
    missed: Vec<String>,
}

async fn tried(all: &mut All, rig: &Rig, consents: &[String], name: &str, words: &[&str]) {
    let one = std::panic::AssertUnwindSafe(all.met.with(rig, consents, name, words));
    if let Err(said) = one.catch_unwind().await {
        let said = said.downcast_ref::<String>().cloned().unwrap_or_default();
        all.missed.push(format!("{name}: {said}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_finding_is_met_by_its_name() {
    let mut met = All { met: Met::none("nvme-move"), missed: Vec::new() };
    of_drives(&mut met).await;
    of_the_system_disk(&mut met).await;
    of_talos(&mut met).await;
    of_kubernetes(&mut met).await;
    of_mayastor(&mut met).await;
    of_proxmox(&mut met).await;
    assert_eq!(met.missed, Vec::<String>::new());
    met.met.assert_all();
}

async fn of_drives(met: &mut All) {
    let rig = edited(DATA_WORLD, |site| params(site)["drives"]["media"]["serial"] = json!("22471A806009")).await;
    tried(met, &rig, &[], "drives-unaccounted", &["media (22471A806009) is not in the machine"]).await;
    let rig = edited(DATA_WORLD, |site| {
        params(site)["current"] = json!({ "M2_1": "media", "M2_2": "sys" });
        params(site)["target"] = json!({ "M2_1": "media", "M2_2": "sys", "M2_3": "fresh" });
        let slots = site.pointer_mut("/talos/homelab/nodes/talos-nuc/slots").unwrap();
        slots["M2_1"]["port"] = json!("0000:00:1b.0");
        slots["M2_2"]["port"] = json!("0000:00:1d.0");
    })
    .await;
    let words = ["sys is in M2_1, and the plan has it in M2_2"];
    tried(met, &rig, &[], "drive-elsewhere", &words).await;
    let rig = edited(DATA_WORLD, |site| params(site)["drives"]["media"]["purpose"] = json!("user-volume films")).await;
    tried(
        met,
        &rig,
        &[],
        "purpose-differs",
        &["media (22471A806001) is for user-volume media, and the plan says user-volume films"],
    )
    .await;
    let rig = edited("nvme-data-alike", |site| {
        // What the site file cannot tell: a partition that neither of them has.
        params(site)["drives"]["spare-1"]["partition"] = json!("5b1c6f0e-3f50-4cf1-a0a4-71e0ab5a9c11");
        params(site)["drives"]["spare-2"]["partition"] = json!("5b1c6f0e-3f50-4cf1-a0a4-71e0ab5a9c12");
    })
    .await;
    tried(met, &rig, &[], "drives-look-alike", &["both have the serial number 0001"]).await;
    let rig = edited("nvme-data-by-path", |_| {}).await;
    tried(met, &rig, &[], "selector-goes-by-place", &["UserVolumeConfig media", "goes by place"]).await;
    let rig = edited("nvme-data-two-match", |_| {}).await;
    tried(met, &rig, &[], "selector-matches-several", &["would mean 2 drives once fresh is in M2_2"]).await;
    let mut rig = edited(DATA_WORLD, |_| {}).await;
    rig.bench.blueprint = "nvme-move".into();
    let run = rig.forward(None, &How { no_hands: true, ..How::default() }).await;
    let resume = format!("talos-nuc is held off by run {}, which is open", run.id);
    tried(met, &rig, &[], "held-off-by-a-run", &[&resume, &format!("`pvemig resume {}` goes on with it", run.id)])
        .await;
    let archive = |world: &mut World| {
        let document = "---\napiVersion: v1alpha1\nkind: UserVolumeConfig\nname: archive\nprovisioning:\n  minSize: 1GiB\n  \
                        diskSelector:\n    match: disk.serial == \"S676NF0W712345\"\n";
        let node = nuc(world);
        node.config.push_str(document);
        if let Some(run) = &mut node.run {
            run.active.clone_from(&node.config);
        }
    };
    let words = [
        "UserVolumeConfig archive",
        "would mean fresh once that is in the machine: Talos makes u-archive on it at once",
    ];
    tried(met, &befallen("a volume to come", archive).await, &[], "volume-made-on-the-new-drive", &words).await;
    let rig = edited("nvme-system", |site| {
        drop(
            site.pointer_mut("/talos/homelab/nodes/talos-nuc/slots/M2_2")
                .unwrap()
                .as_object_mut()
                .unwrap()
                .remove("port"),
        );
    })
    .await;
    let words = ["cannot be told", "of M2_1, M2_2 no port is known", "if sys is in M2_1, add `port: \"0000:00:1b.0\"`"];
    tried(met, &rig, &[], "slots-not-told-apart", &words).await;
    let rig = edited(DATA_WORLD, |site| {
        params(site)["target"].as_object_mut().unwrap().remove("M2_3").unwrap();
    })
    .await;
    tried(met, &rig, &[], "drive-leaves-with-data", &["media (22471A806001) leaves the machine with"]).await;
}

async fn of_the_system_disk(met: &mut All) {
    let old = |world: &mut World| {
        let data = nuc(world).disks.iter_mut().find(|disk| disk.serial == DATA).unwrap();
        data.partitions.push(Partition { label: "META".into(), size: 1 << 20, ..Partition::default() });
    };
    let words = ["media (22471A806001) has an installation of Talos on it, and is to be in M2_3 beside sys"];
    tried(met, &befallen("an old installation", old).await, &[], "old-system-disk-stays", &words).await;
    let rig = edited("nvme-replaced-known-volume", |_| {}).await;
    let words = ["disk 22471A806001, which talos-nuc is to be installed on, holds the volume media (u-media)"];
    tried(met, &rig, &["disk/22471A806001".into()], "wiped-disk-holds-a-volume", &words).await;
    // Somebody takes the running system disk for a new one.
    let rig = edited("nvme-system-replaced", |_| {}).await;
    let words = [
        "an installation of talos-nuc wipes disk S676NF0W712345, which is not in the machine yet",
        "--destroy disk/S676NF0W712345`; else name another disk",
    ];
    tried(met, &rig, &[], "wipe-not-consented", &words).await;
    let rig = edited("nvme-system-replaced", |site| {
        let size = json!(1_000_204_886_016_u64);
        params(site)["drives"] = json!({
            "old": { "serial": DATA, "purpose": "system" },
            "new": { "serial": SYS, "model": "Samsung SSD 980 PRO 1TB", "size": size, "purpose": "system", "new": true } });
        params(site)["current"] = json!({ "M2_2": "old" });
        params(site)["target"] = json!({ "M2_1": "new" });
    })
    .await;
    let words =
        ["talos-nuc runs from new (S5GXNF0R601234) already: nothing has to be wiped", "`scenario: system-moved`"];
    tried(met, &rig, &[], "needless-wipe", &words).await;
    let rig = edited("nvme-system-replaced", |site| {
        // The document of the volume.
        drop(params(site)["patches"].as_array_mut().unwrap().pop().unwrap());
    })
    .await;
    let words = ["has no UserVolumeConfig media, and talos-nuc has that volume on 22471A806001"];
    tried(met, &rig, &[], "config-does-not-fit", &words).await;
    let rig = edited("nvme-system-slot-entry", |_| {}).await;
    tried(met, &rig, &[], "boot-entry-goes-by-slot", &["by the way to its slot alone (Boot0001 `Talos`, 1b.0/00.0)"])
        .await;
    let rig = edited("nvme-system", |site| params(site)["medium"] = json!({ "version": "v1.11.3" })).await;
    let words = ["the medium has Talos v1.11.3, and talos-nuc runs v1.11.5"];
    tried(met, &rig, &[], "medium-of-another-version", &words).await;
    let rig = edited("nvme-single", |site| {
        let size = json!(1_024_209_543_168_u64);
        let fresh = json!({ "serial": NEW, "model": "SAMSUNG MZVL21T0HCLR-00B00", "size": size, "purpose": "system",
            "new": true });
        params(site)["drives"]["fresh"] = fresh;
        params(site)["scenario"] = json!("system-replaced");
        params(site)["config"] = json!("./controlplane.yaml");
        params(site)["target"] = json!({ "M2_1": "fresh", "M2_2": "media" });
    })
    .await;
    let words = ["talos-nuc is the only voter of etcd: installed anew it has nobody to join", "`quorum-recover`"];
    tried(met, &rig, &[], "only-voter-cannot-be-replaced", &words).await;
}

async fn of_talos(met: &mut All) {
    let large = |world: &mut World| world.talos.etcd.size = 1 << 60;
    let words = ["a snapshot of etcd has 1048576.0 TiB, and ", " has room for ", "`--state DIR`"];
    tried(met, &befallen("a large etcd", large).await, &[], "way-back-cannot-be-saved", &words).await;
    let rig = edited(DATA_WORLD, |site| site["talos"]["homelab"]["context"] = json!("reader")).await;
    tried(met, &rig, &[], "talos-role-lacking", &["has the roles os:reader on talos-nuc, and os:admin is needed"])
        .await;
    let alarm = |world: &mut World| {
        let vm = world.talos.etcd.members.iter_mut().find(|member| member.name == "talos-vm").unwrap();
        vm.alarm = Some("NOSPACE".into());
    };
    tried(met, &befallen("an alarm", alarm).await, &[], "etcd-cannot-spare-it", &["etcd has raised the alarm NOSPACE"])
        .await;
    let two = |world: &mut World| worker(world, "talos-vm");
    let words = ["`without_api: true`", "add a control plane first"];
    tried(met, &befallen("two voters", two).await, &[], "api-would-be-away", &words).await;
    let staged = |world: &mut World| {
        let node = nuc(world);
        let other = node.config.replace("vm.nr_hugepages: \"1024\"", "vm.nr_hugepages: \"2048\"");
        assert_ne!(other, node.config);
        node.config = other;
    };
    let rig = edited(DATA_WORLD, |_| {}).await;
    rig.lab.shared().change(staged);
    tried(met, &rig, &[], "machine-config-waits", &["a staged or tried configuration waits"]).await;
    // A driver that nothing loads.
    let sick = |world: &mut World| {
        let node = nuc(world);
        let other = node.config.replace("      - name: nvidia\n", "");
        assert_ne!(other, node.config);
        node.config = other;
    };
    let rig = befallen("a driver is missing", sick).await;
    tried(met, &rig, &[], "node-not-whole", &["ext-nvidia-persistenced", "`pvemig survey talos-nuc` names the cause"])
        .await;
    let rig = edited(DATA_WORLD, |site| {
        let node = site.pointer_mut("/talos/homelab/nodes/talos-nuc").unwrap();
        node.as_object_mut().unwrap().remove("out_of_band").unwrap();
    })
    .await;
    tried(met, &rig, &[], "no-second-way-to-see-it-off", &["nothing but Talos tells whether talos-nuc is on"]).await;
    // The Mac is a worker, and a migration of its own waits.
    let mac = |world: &mut World| worker(world, "talos-mac");
    let rig = made(DATA_WORLD, "the mac is a worker", mac, |site| {
        site.pointer_mut("/talos/homelab/nodes/talos-mac").unwrap()["slots"] =
            json!({ "A": { "position": "a" }, "B": { "position": "b" } });
        let one = json!({ "serial": "S1", "purpose": "system" });
        site["migrations"]["zz-mac"] = json!({ "blueprint": "nvme-move", "params": { "node": "talos-mac",
            "scenario": "system-moved", "drives": { "sys": one }, "current": { "A": "sys" }, "target": { "B": "sys" },
            "medium": { "version": "v1.11.5" } } });
    })
    .await;
    let words = ["talos-mac is a worker, and its drives are not moved yet (zz-mac)", "`pvemig run zz-mac` first"];
    tried(met, &rig, &[], "less-critical-node-first", &words).await;
}

async fn of_kubernetes(met: &mut All) {
    let rig = edited(DATA_WORLD, |_| {}).await;
    rig.lab.fault(FaultRule::on(Front::Kubernetes, FaultEffect::Refuse));
    tried(met, &rig, &[], "cannot-ask", &["cannot ask node talos-nuc"]).await;
    let rig = edited(DATA_WORLD, |site| {
        site.pointer_mut("/talos/homelab/nodes/talos-nuc").unwrap()["node_name"] = json!("talos-nux");
    })
    .await;
    tried(met, &rig, &[], "node-not-in-kubernetes", &["has no node talos-nux"]).await;
    let rig = edited("nvme-data-pdb", |_| {}).await;
    tried(met, &rig, &[], "pod-will-not-leave", &["home/jellyfin", "can never allow it"]).await;
    let mark = Mark { run: "9zz".into(), host: "other-desk".into(), was: json!({ "unschedulable": false }) };
    rig.lab.shared().change(|world| {
        object(world, ("v1", "Node"), NUC, |node| {
            node["metadata"]["annotations"][MARK] = mark.to_annotation().into();
        });
    });
    tried(met, &rig, &[], "node-held-elsewhere", &["9zz", "other-desk"]).await;
    let user = "system:serviceaccount:default:nobody";
    let rig = rig_as(user).await;
    tried(met, &rig, &[], "kubernetes-right-lacking", &["may not patch nodes talos-nuc", "the cordon"]).await;
}

/// As somebody who may only look.
async fn rig_as(user: &str) -> Rig {
    let looks = |world: &mut World| {
        world.cluster_user = Some(user.into());
        let rule = json!({ "apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"] });
        world.kube.more.push(json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": { "name": "looks" }, "rules": [rule] }));
        world.kube.more.push(json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": { "name": "looks" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "looks" },
            "subjects": [{ "kind": "ServiceAccount", "namespace": "default", "name": "nobody" }] }));
    };
    befallen("somebody who looks", looks).await
}

async fn of_mayastor(met: &mut All) {
    let rig = edited("nvme-data-only-replica", |_| {}).await;
    tried(met, &rig, &[], "replicas-not-elsewhere", &["has no sound replica on another node than talos-nuc"]).await;
    let rig = edited("nvme-data-rebuild", |_| {}).await;
    tried(met, &rig, &[], "rebuild-is-running", &["is being rebuilt"]).await;
    let rig = edited(DATA_WORLD, |_| {}).await;
    rig.lab.shared().change(|world| {
        object(world, ("openebs.io/v1beta2", "DiskPool"), "pool-nuc", |pool| {
            pool["spec"]["disks"] = json!(["/dev/nvme1n1"]);
        });
    });
    tried(met, &rig, &[], "pool-goes-by-place", &["pool pool-nuc names its disk by /dev/nvme1n1"]).await;
}

async fn of_proxmox(met: &mut All) {
    let other = |world: &mut World| {
        let config = &mut world.vms.get_mut(&223).unwrap().config;
        config.insert("smbios1".into(), "uuid=11111111-2222-3333-4444-555555555555".into());
    };
    let rig = made(DATA_WORLD, "another vm", other, of_the_vm).await;
    tried(met, &rig, &[], "vm-is-another", &["vm 223 has the uuid 11111111"]).await;
    tried(
        met,
        &rig,
        &[],
        "passthrough-unclear",
        &["slot B has no `port:`, and of the drives of a VM that is not learned"],
    )
    .await;
    let beside = |world: &mut World| {
        let vm = world.vms[&223].clone();
        world.vms.insert(224, vm);
    };
    let rig = made("nvme-data-vm", "a second vm", beside, |site| {
        site.pointer_mut("/talos/homelab/nodes/talos-mac").unwrap()["vm"] = json!({ "proxmox": "home", "vmid": 224 });
    })
    .await;
    tried(met, &rig, &[], "node-on-the-same-host", &["talos-mac runs on pve too"]).await;
    // A token that may look, and nothing else.
    let token = |world: &mut World| {
        let access = json!({
            "users": { "pvemig@pve": {} },
            "tokens": { "pvemig@pve!pvemig": { "privsep": false } },
            "roles": { "Look": ["VM.Audit", "Sys.Audit"] },
            "acl": [{ "path": "/", "who": "pvemig@pve", "role": "Look" }],
        });
        world.access = serde_json::from_value(access).unwrap();
    };
    let rig = made(DATA_WORLD, "a token", token, |site| {
        of_the_vm(site);
        site["proxmox"]["home"]["auth"] =
            json!({ "token": { "id": "pvemig@pve!pvemig", "secret": { "file": "./pve-token-secret" } } });
    })
    .await;
    let words = ["pvemig@pve!pvemig lacks VM.PowerMgmt on /vms/223, for shutting it down and starting it"];
    tried(met, &rig, &[], "proxmox-privilege-lacking", &words).await;
}

/// A node that does not answer: nothing of it is called absent, and nothing of it is called right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_silent_node_has_is_not_known() {
    let lost = |world: &mut World| {
        world.talos.lost.insert(NUC.into(), Loss::Dead);
    };
    let rig = befallen("it is silent", lost).await;
    let run = rig.forward(None, &How { limit: Some(std::time::Duration::from_secs(3)), ..How::default() }).await;
    let (key, text) = why(&run);
    assert_eq!((key, rig.changes()), ("00-preflight", 0), "{text}");
    assert!(text.contains("cannot ask talos-nuc its drives") && !text.contains("is not in the machine"), "{text}");
}
