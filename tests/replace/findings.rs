//! Every finding of the preflight, by its name.

use pvemig::base::hold::{MARK, Mark};
use pvemig::engine::step::RunInfo;
use pvemig::lab::kube::kinds;
use pvemig::lab::{FaultEffect, FaultRule, Front};
use serde_json::json;

use super::refused::{befallen, local_volume, params, vm_is_a_worker};
use super::*;
use crate::harness::found::Met;

const DEAD: Case = Case { dead: true, ..MAC };

/// The other machine is switched on, and waits.
async fn waits(change: impl FnOnce(&mut World), edit: impl FnOnce(&mut Value)) -> Rig {
    let on = |world: &mut World| {
        change(world);
        assert!(world.press_power("talos-mac2"));
    };
    let rig = rig_with(DEAD, on, edit).await;
    rig.picture().await;
    rig
}

/// An object of Kubernetes, changed behind everybody's back.
fn edited(world: &mut World, kind: &str, pick: impl Fn(&Value) -> bool, change: impl FnOnce(&mut Value)) {
    let kind = kinds::of("v1", kind).unwrap();
    let mut object = world.kube.store.all(kind).into_iter().map(|object| Value::clone(&object)).find(pick).unwrap();
    change(&mut object);
    world.kube.store.replace(kind, object, None).unwrap();
}

fn is_mac(node: &Value) -> bool {
    node["metadata"]["name"] == "talos-mac"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_finding_of_the_new_machine_is_met_by_its_name() {
    let (mut met, all) = (Met::none("node-replace"), DEAD.consents());
    let rig = waits(|_| {}, |_| {}).await;
    met.with(&rig, &all[1..], "consent-is-missing", &["add `--destroy disk/S2ZRNYAH500750`"]).await;
    let no = FaultEffect::Status(400, "unknown keys found".into());
    rig.lab.fault(FaultRule::on(Front::Talos, no).path("/talos-mac2/*ApplyConfiguration"));
    let words = ["talos-mac2 would not take its configuration", "unknown keys found"];
    met.with(&rig, &all, "new-config-refused", &words).await;
    rig.lab.shared().clear_faults();
    rig.lab.fault(FaultRule::on(Front::Kubernetes, FaultEffect::Refuse));
    met.with(&rig, &all, "cannot-ask", &["Kubernetes cluster homelab"]).await;
    rig.lab.shared().clear_faults();
    let file = rig.dir().join("controlplane.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let mut config: Value = serde_saphyr::from_multiple::<Value>(&text).unwrap().remove(0);
    config["machine"]["ca"]["crt"] = config["cluster"]["ca"]["crt"].clone();
    std::fs::write(&file, serde_saphyr::to_string(&config).unwrap()).unwrap();
    let words = ["is of another authority than the configuration of talos-mac2", "the secrets of this cluster"];
    met.with(&rig, &all, "new-config-of-another-cluster", &words).await;
    std::fs::remove_file(&file).unwrap();
    met.with(&rig, &all, "new-config-unreadable", &["talos-mac2: ", "there is no such file"]).await;

    let rig = waits(|_| {}, |site| params(site, &DEAD)["new"]["disk"] = json!("S0NOT0HERE")).await;
    met.with(&rig, &all, "new-disk-is-not-there", &["no disk with the serial number S0NOT0HERE"]).await;
    let nvidia =
        "factory.talos.dev/metal-installer/26124abcbd408be693df9fe852c80ef1e6cc178e34d7d7d8430a28d1130b4227:v1.11.5";
    let edit = |site: &mut Value| params(site, &DEAD)["new"]["patches"] = json!([{ "install-image": nvidia }]);
    let words = ["talos-mac2 has no NVIDIA device", "its configuration is for one"];
    met.with(&waits(|_| {}, edit).await, &all, "new-image-for-other-hardware", &words).await;
    let old = |world: &mut World| {
        let mut disk = at_rest_after("talos-fresh", "", |_| {}).talos.nodes["talos-mac"].disks[1].clone();
        assert!(!disk.partitions.is_empty());
        disk.serial = "S0OLD".into();
        world.talos.nodes.get_mut("talos-mac2").unwrap().disks.push(disk);
    };
    let words = ["talos-mac2 has data of an older installation on", "take that disk out"];
    met.with(&waits(old, |_| {}).await, &all, "new-machine-is-another", &words).await;
    let rig = rig_with(DEAD, |_| {}, |site| params(site, &DEAD)["new"]["config"] = json!("./worker.yaml")).await;
    let words = ["talos-mac is a control plane, and the configuration of talos-mac2 is that of a worker"];
    met.with(&rig, &all, "new-node-of-another-kind", &words).await;
    let edit = |site: &mut Value| {
        let new = &mut params(site, &MAC)["new"];
        (new["node"], new["patches"]) = (json!("talos-vm"), json!([]));
    };
    let rig = rig_with(MAC, |_| {}, edit).await;
    let words = ["talos-vm is a node already, and runs from", "not from disk S2ZRNYAH500750"];
    met.with(&rig, &all, "new-machine-is-installed", &words).await;
    let taken = at_rest_after(WORLD, "", |_| {}).talos.nodes["talos-mac"].disks.clone();
    let taken = taken.into_iter().find(|disk| disk.system).unwrap().serial;
    let rig = rig_with(MAC, |_| {}, |site| params(site, &MAC)["new"]["disk"] = json!(taken)).await;
    let words = ["is a disk of talos-mac, not of the machine that comes"];
    met.with(&rig, &all, "new-machine-is-counted-already", &words).await;
    let rig = rig_with(MAC, |_| {}, |site| site["talos"]["homelab"]["context"] = json!("reader")).await;
    met.with(&rig, &all, "talos-role-cannot-replace", &["has the roles os:reader, and os:admin is needed"]).await;
    let rig = rig_with(MAC, |_| {}, |site| params(site, &MAC)["old"] = json!("talos-nuc")).await;
    met.with(&rig, &all, "endpoint-is-the-old-machine", &["endpoint is https://192.168.4.20:6443"]).await;
    of_the_old_machine(&mut met).await;
    met.assert_all();
}

async fn of_the_old_machine(met: &mut Met) {
    let all = MAC.consents();
    let rig = befallen(MAC, "two voters", vm_is_a_worker, |_| {}).await;
    let words = ["talos-mac must not leave etcd now", "2 needed: none to spare; without talos-mac 1 voter"];
    met.with(&rig, &all, "etcd-cannot-lose-the-node", &words).await;
    let vm = |site: &mut Value| params(site, &MAC)["old"] = json!("talos-vm");
    let managed = |world: &mut World| drop(world.ha.insert(223, "started".into()));
    let words = ["vm 223 is managed by high availability", "`ha-manager remove vm:223` first"];
    met.with(&rig_with(MAC, managed, vm).await, &all, "old-vm-is-kept-up", &words).await;
    let stranger = |world: &mut World| {
        let run = world.talos.nodes.get_mut("talos-mac").unwrap().run.as_mut().unwrap();
        run.wants.authority = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0teA==".into();
    };
    let words = ["whether talos-mac is alive is not known", "its kubelet was heard lately"];
    met.with(&rig_with(MAC, stranger, |_| {}).await, &all, "old-node-is-not-known-to-be-dead", &words).await;
    let rig = self::rig(WORKER).await;
    local_volume(&rig).await;
    let words = ["volume local-1 (5Gi) is on the disks of talos-worker", "add `--destroy pv/local-1`"];
    met.with(&rig, &WORKER.consents(), "volume-on-the-old-disks", &words).await;

    // Of another machine's run, and of one of this machine that nobody has a journal of.
    let mark = |run: &str, host: &str| Mark { run: run.into(), host: host.into(), was: json!({}) }.to_annotation();
    for (host, words) in [("laptop", "laptop"), ("here", "8n2")] {
        let held = |node: &mut Value| node["metadata"]["annotations"][MARK] = json!(mark("8n2", host));
        let rig = rig_with(MAC, |world| edited(world, "Node", is_mac, held), |_| {}).await;
        let run = RunInfo { consents: consents(&all), host: "here".into(), ..RunInfo::default() };
        met.of(&rig, &run, "old-node-held-by-another-run", &["node talos-mac is held by run 8n2", words]).await;
    }
    // Nothing makes it anew.
    let pod = |pod: &Value| {
        let owner = pod["metadata"]["ownerReferences"][0]["kind"].as_str();
        owner.is_some_and(|kind| !["DaemonSet", "Node"].contains(&kind)) && pod["spec"]["nodeName"] == "talos-mac"
    };
    // Nor does anybody take it over by its labels.
    let alone = |pod: &mut Value| {
        let meta = pod["metadata"].as_object_mut().unwrap();
        meta.retain(|key, _| !["ownerReferences", "labels"].contains(&key.as_str()));
    };
    let rig = rig_with(MAC, |world| edited(world, "Pod", pod, alone), |_| {}).await;
    met.with(&rig, &all, "pod-of-the-old-node-stays", &["will not go", "let it go by hand"]).await;

    // Neither a node nor a member: whatever comes, comes beside the others.
    let gone = |world: &mut World| {
        let node = world.kube.store.all(kinds::nodes()).into_iter().find(|node| is_mac(node)).unwrap();
        world.kube.store.remove(&pvemig::lab::kube::store::Key::of(&node).unwrap()).unwrap();
        world.talos.etcd.members.retain(|member| member.name != "talos-mac");
    };
    let words = ["talos-mac is no node and no member of homelab any more: there is nothing to replace"];
    met.with(&rig_with(DEAD, gone, |_| {}).await, &DEAD.consents(), "old-node-is-gone-already", &words).await;
    may_not(met).await;
}

fn consents(all: &[String]) -> std::collections::BTreeSet<pvemig::base::permit::Thing> {
    all.iter().cloned().map(pvemig::base::permit::Thing).collect()
}

/// Whoever may only look is told what else is needed.
async fn may_not(met: &mut Met) {
    let user = "system:serviceaccount:default:looker";
    let rig = rig_with(MAC, |world| world.cluster_user = Some(user.into()), |_| {}).await;
    let client = crate::harness::rights::administrator(&rig).await;
    let role = json!({ "metadata": { "name": "looks" }, "rules": [
        { "apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"] }] });
    let binding = json!({ "metadata": { "name": "looks" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "looks" },
        "subjects": [{ "kind": "ServiceAccount", "namespace": "default", "name": "looker" }] });
    let roles: kube::Api<k8s_openapi::api::rbac::v1::ClusterRole> = kube::Api::all(client.clone());
    roles.create(&Default::default(), &serde_json::from_value(role).unwrap()).await.unwrap();
    let bindings: kube::Api<k8s_openapi::api::rbac::v1::ClusterRoleBinding> = kube::Api::all(client);
    bindings.create(&Default::default(), &serde_json::from_value(binding).unwrap()).await.unwrap();
    let words = ["may not ", "patch nodes talos-mac", "create pods/eviction", "delete nodes talos-mac"];
    met.with(&rig, &MAC.consents(), "kubernetes-right-lacking", &words).await;
}
