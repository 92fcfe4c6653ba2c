//! Every finding of the preflight, by its name.

use pvemig::base::permit::Thing;

use super::meanwhile::up_to;
use super::refused::{params, three};
use super::shown::another;
use super::*;
use crate::harness::found::Met;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_finding_is_met_by_its_name() {
    let (mut met, all) = (Met::none("quorum-recover"), consenting().consents);
    let said_lost = ["3 voters, 3 healthy, 2 needed: 1 to spare", "talos-vm among its members"];
    met.with(&three(|_| {}).await, &all, "etcd-has-its-majority", &said_lost).await;
    let rig = deadlock().await;
    met.with(&rig, &all[..1], "etcd-not-given", &["the etcd of talos-mac is wiped", "`--destroy etcd/talos-mac`"])
        .await;
    rig.lab.fault(FaultRule::on(Front::Talos, FaultEffect::Refuse).path("/talos-mac/*List*Member*"));
    met.with(&rig, &all, "cannot-ask", &["which control planes talos-mac knows of is not known"]).await;
    rig.lab.shared().clear_faults();
    // Of a real etcd the lab knows nothing, and lets its own Kubernetes answer.
    rig.lab.shared().change(|w| w.talos.nodes.get_mut(VM).unwrap().etcd_at = Some(([127, 0, 0, 1], 1).into()));
    let words = ["an etcd with its majority lives", "find them before anything is wiped"];
    met.with(&rig, &all, "kubernetes-still-answers", &words).await;

    let words = ["talos-vm is silent, and that is all that is known", "`--destroy gone/talos-vm`"];
    met.with(&self::rig(DEADLOCK, another, |_| {}).await, &all, "lost-machine-only-silent", &words).await;
    let off = |w: &mut World| {
        let node = w.talos.nodes.get_mut(MAC).unwrap();
        (node.run, node.off) = (None, true);
    };
    let words = ["talos-mac does not answer", "put talos-mac under `lost`"];
    met.with(&self::rig(DEADLOCK, off, |_| {}).await, &all, "survivor-does-not-answer", &words).await;
    let edit = |site: &mut Value| {
        params(site)["lost"] = json!([MAC]);
        params(site)["nodes"] = json!([]);
    };
    let rig = self::rig(DEADLOCK, |_| {}, edit).await;
    met.with(&rig, &all, "lost-machine-answers", &["talos-mac is said to be lost, and answers"]).await;
    let words = ["talos-vm is a node of homelab, no worker as far as it tells", "unknown is not gone"];
    met.with(&rig, &all, "control-plane-named-nowhere", &words).await;
    // One that only discovery knows.
    let edit = |site: &mut Value| {
        site["talos"]["homelab"]["nodes"].as_object_mut().unwrap().remove(MAC).unwrap();
        params(site)["nodes"] = json!([]);
    };
    let rig = self::rig(DEADLOCK, |_| {}, edit).await;
    let words = ["talos-mac is a control plane of homelab as discovery knows it, and not in the site file"];
    met.with(&rig, &all, "control-plane-named-nowhere", &words).await;

    let edit = |site: &mut Value| {
        params(site)["from"] = json!(MAC);
        params(site)["nodes"] = json!([NUC]);
    };
    let rig = self::rig(DEADLOCK, |_| {}, edit).await;
    met.with(&rig, &all, "survivor-is-a-learner", &["talos-mac is a learner", "name a voter in `from`"]).await;
    met.with(&rig, &all, "survivor-is-behind", &["48211 entries behind talos-nuc"]).await;
    let empty = |w: &mut World| w.talos.nodes.get_mut(NUC).unwrap().member = None;
    let words =
        ["talos-nuc has no data of etcd: there is nothing that it could begin from", "name a copy by `snapshot`"];
    met.with(&self::rig(DEADLOCK, empty, |_| {}).await, &all, "nothing-to-recover-from", &words).await;
    let rig = self::rig(DEADLOCK, |_| {}, |site| params(site)["snapshot"] = json!("./none")).await;
    met.with(&rig, &all, "given-snapshot-unusable", &["cannot be used", "which etcd is to begin from"]).await;
    let data = |w: &mut World| {
        w.talos.nodes.get_mut(MAC).unwrap().data.insert("/var/local/pool.img".into(), 42_949_672_960);
    };
    let words = ["EPHEMERAL of talos-mac has what neither Talos nor the kubelet made", "/var/local (40.0 GiB)"];
    met.with(&self::rig(DEADLOCK, data, |_| {}).await, &all, "local-data-on-ephemeral", &words).await;
    let managed = |w: &mut World| drop(w.ha.insert(223, "stopped".into()));
    let words = ["vm 223 of talos-vm is off, and high availability may start it", "`ha-manager remove vm:223`"];
    met.with(&self::rig(DEADLOCK, managed, |_| {}).await, &all, "lost-vm-runs", &words).await;
    let rig = self::rig(DEADLOCK, |_| {}, |site| site["talos"]["homelab"]["context"] = json!("reader")).await;
    let words = ["has the roles os:reader, and os:admin is needed"];
    met.with(&rig, &all, "talos-role-cannot-recover", &words).await;

    // Another run has its copies, and has wiped nothing yet.
    let mut rig = deadlock().await;
    let run = up_to(&mut rig, "02-wipe-etcd@talos-mac").await;
    let mut info = rig.bench.store.info(&run.id, "here").unwrap();
    info.consents = all.iter().cloned().map(Thing).collect();
    let mut own = info.clone();
    own.id = "0other".into();
    own.others.insert(run.id.clone(), pvemig::engine::step::Standing::Open);
    met.of(&rig, &own, "recovery-is-open", &[&run.id, "is open, and has what etcd is to begin from"]).await;
    met.assert_all();
}
