//! Every finding of the preflight, by its name.

use pvemig::lab::{FaultEffect, FaultRule};
use serde_json::json;

use super::*;
use crate::harness::found::Met;

/// The parameters of the first machine.
fn first(site: &mut Value) -> &mut Value {
    &mut site["migrations"]["build"]["params"]["nodes"][0]
}

/// A configuration beside the others, changed in one place.
fn another(rig: &Rig, name: &str, change: impl FnOnce(&mut Value)) {
    let text = std::fs::read_to_string(rig.dir().join("controlplane.yaml")).unwrap();
    let mut config: Value = serde_saphyr::from_multiple::<Value>(&text).unwrap().remove(0);
    change(&mut config);
    let path = rig.dir().join(name);
    pvemig::base::private::write(&path, serde_saphyr::to_string(&config).unwrap().as_bytes()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_finding_of_the_configurations_is_met_by_its_name() {
    let (mut met, all) = (Met::none("cluster-build"), consenting().consents);
    let rig = fresh().await;
    met.with(&rig, &[], "disk-not-consented", &["`--destroy disk/S5GXNF0R601234`"]).await;
    rig.lab
        .fault(FaultRule::on(Front::Talos, FaultEffect::Status(2, "injected".into())).path("/talos-mac/*List*Disk*"));
    met.with(&rig, &all, "cannot-ask", &["talos-mac", "injected"]).await;
    rig.lab.shared().clear_faults();
    let no = FaultEffect::Status(400, "unknown keys found".into());
    rig.lab.fault(FaultRule::on(Front::Talos, no).path("/talos-vm/*ApplyConfiguration"));
    let words = ["talos-vm would not take its configuration", "unknown keys found", "correct"];
    met.with(&rig, &all, "machine-config-refused", &words).await;
    rig.lab.shared().clear_faults();
    std::fs::remove_file(rig.dir().join("controlplane.yaml")).unwrap();
    met.with(&rig, &all, "machine-config-unreadable", &["talos-nuc: ", "there is no such file"]).await;

    let rig = self::rig(|_| {}, |site| first(site)["config"] = json!("./worker.yaml")).await;
    let words = ["talos-nuc is the first of `nodes`", "that of a worker", "put a control plane first"];
    met.with(&rig, &all, "first-is-no-control-plane", &words).await;
    let rig = self::rig(|_| {}, |site| first(site)["config"] = json!("./other.yaml")).await;
    another(&rig, "other.yaml", |config| {
        config["cluster"]["id"] = json!("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
    });
    // Of the two that are as they were: each beside the first.
    met.with(&rig, &all, "configs-of-two-clusters", &["talos-nuc and talos-vm are of two clusters"]).await;
    another(&rig, "other.yaml", |config| config["machine"]["ca"]["crt"] = config["cluster"]["ca"]["crt"].clone());
    let words = ["is of another authority than the configuration of talos-nuc", "made with these configurations"];
    met.with(&rig, &all, "talosconfig-of-another-cluster", &words).await;
    let rig = self::rig(|_| {}, |site| site["talos"]["homelab"]["context"] = json!("reader")).await;
    let words = ["has the roles os:reader, and os:admin is needed"];
    met.with(&rig, &all, "talos-role-cannot-bootstrap", &words).await;
    let rig = self::rig(|_| {}, |site| site["kubernetes"]["homelab"]["kubeconfig"] = json!("./none/config")).await;
    met.with(&rig, &all, "config-not-writable", &["there is no directory", "mkdir -p -m 700"]).await;

    let nvidia =
        "factory.talos.dev/metal-installer/26124abcbd408be693df9fe852c80ef1e6cc178e34d7d7d8430a28d1130b4227:v1.11.5";
    let rig = self::rig(|_| {}, |site| first(site)["patches"] = json!([{ "install-image": nvidia }])).await;
    met.with(&rig, &all, "image-for-other-hardware", &["talos-nuc", "loads no modules of it"]).await;
    let other = |w: &mut World| {
        let config = &mut w.vms.get_mut(&223).unwrap().config;
        config.insert("smbios1".into(), "uuid=11111111-2222-3333-4444-555555555555".into());
    };
    met.with(&self::rig(other, |_| {}).await, &all, "machine-is-another-vm", &["vm 223 has the uuid 11111111"]).await;
    let rig = self::rig(|_| {}, |site| first(site)["disk"] = json!("S0NOT0HERE")).await;
    met.with(&rig, &all, "install-disk-unfit", &["no disk with the serial number S0NOT0HERE"]).await;
    let old = |w: &mut World| {
        let old = w.talos.nodes["talos-mac"].disks[1].partitions.clone();
        w.talos.nodes.get_mut("talos-nuc").unwrap().disks[2].partitions = old;
    };
    let words = ["data of an older installation on nvme1n1", "take that disk out"];
    met.with(&self::rig(old, |_| {}).await, &all, "older-installation-on-another-disk", &words).await;
    let by_itself = |w: &mut World| {
        let node = w.talos.nodes.get_mut("talos-nuc").unwrap();
        node.disks.iter_mut().filter_map(|disk| disk.live.as_mut()).for_each(|it| it.version = "1.14.0".into());
        node.unattended = Some(("pending".into(), String::new()));
    };
    let words = ["talos-nuc waits for a configuration and installs itself all the same"];
    met.with(&self::rig(by_itself, |_| {}).await, &all, "machine-installs-itself", &words).await;
    let rig = elsewhere::rig_of_one(|_| {}).await;
    let words = ["an etcd with its majority lives", "`talos.homelab.nodes`"];
    met.with(&rig, &["disk/S2ZRNYAH500750".into()], "etcd-lives-elsewhere", &words).await;
    met.assert_all();
}
