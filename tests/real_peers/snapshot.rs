//! A snapshot of a real etcd, taken by the verb by way of the lab, started anew by etcd's own program.

use std::path::Path;

use pvemig::lab::{FaultEffect, FaultRule, Front, Lab, LabOptions, load};
use serde_json::{Value, json};

use super::cluster::{Cluster, MAC, NODES, NUC, VM, until};
use crate::guest::place::program;
use crate::harness::How;
use crate::harness::estate::Rig;
use crate::harness::same::assert_done;

fn etcdctl(args: &[&str]) -> std::process::Output {
    let run = program("etcdctl").env("ETCDCTL_API", "3").args(args).output();
    run.expect("this test needs the package etcd-client")
}

/// The value of a key, in base64.
async fn value(cluster: &Cluster, name: &str, key: &str) -> Option<String> {
    let found = cluster.ask(name, "kv/range", json!({ "key": key })).await;
    Some(found["kvs"][0]["value"].as_str()?.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_real_etcd_comes_back_from_what_the_verb_took() {
    let (key, kept, later) = ("a2V5", "a2VwdA==", "bGF0ZXI=");
    let mut cluster = Cluster::start();
    let mut world = load("talos-three").unwrap();
    for name in NODES {
        world.talos.nodes.get_mut(name).unwrap().etcd_at = Some(cluster.members[name].clients);
    }
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::start(LabOptions { world, dir: dir.path().join("lab"), speed: 100 }).await.unwrap();
    let put = |value: &str| json!({ "key": key, "value": value });
    // Until there is a leader nothing is taken.
    until("it is written", async || {
        let said = cluster.try_ask(NUC, "kv/put", put(kept)).await?;
        said["header"].is_object().then_some(())
    })
    .await;

    let keys = dir.path().join("key");
    let keygen = |args: &[&str]| {
        let said = program("age-keygen").args(args).output().expect("this test needs the package age");
        assert!(said.status.success());
        String::from_utf8(said.stdout).unwrap().trim().to_owned()
    };
    let key_file = keys.to_str().unwrap();
    keygen(&["-o", key_file]);
    let recipient = keygen(&["-y", key_file]);
    let to = dir.path().join("to");
    std::fs::create_dir(&to).unwrap();
    let mut pvemig = program(env!("CARGO_BIN_EXE_pvemig"));
    pvemig
        .env_clear()
        .env("HOME", dir.path())
        .arg("--site")
        .arg(lab.dir().join("site.yaml"))
        .args(["etcd", "snapshot", "--to"]);
    let said = pvemig.arg(&to).args(["--keep", "3", "--recipient", &recipient, "--json"]).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let taken: Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!(
        (&taken["leader"], &taken["etcd"]["version"]),
        (&false.into(), &cluster.version(NUC).await.into()),
        "{taken}"
    );
    cluster.ask(NUC, "kv/put", put(later)).await;
    assert_eq!(value(&cluster, NUC, key).await.as_deref(), Some(later));

    // As the words of the help have it, but for the machine: decrypt, look, and begin anew.
    let sealed = taken["file"].as_str().unwrap();
    let file = dir.path().join("etcd.snapshot");
    let plain = file.to_str().unwrap();
    let decrypted = program("age").args(["-d", "-i", key_file, "-o", plain, sealed]).status().unwrap();
    assert!(decrypted.success());
    let status: Value = serde_json::from_slice(&etcdctl(&["snapshot", "status", "-w", "json", plain]).stdout).unwrap();
    assert!(status["totalKey"].as_u64().unwrap() >= 1, "{status}");
    let restored = cluster.restored(NUC, &file);
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    // One alone, which has never heard of the others.
    let found = until("it is there again", async || {
        let found = cluster.try_ask(NUC, "kv/range", json!({ "key": key })).await?;
        found["kvs"][0]["value"].as_str().map(str::to_owned)
    });
    assert_eq!(found.await, kept);
    let members = cluster.ask(NUC, "cluster/member/list", json!({})).await;
    assert_eq!(members["members"].as_array().map(Vec::len), Some(1), "{members}");
    assert!(Path::new(sealed).exists());
}

/// Two of three are gone: what the first steps of `quorum-recover` took of the third one begins a new etcd.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_real_etcd_without_its_majority_comes_back_from_the_copy_of_a_recovery() {
    const KEYS: usize = 200;
    let mut cluster = Cluster::start();
    until("there is a leader", async || {
        let said = cluster.try_ask(NUC, "kv/put", json!({ "key": "YQ==", "value": "YQ==" })).await?;
        said["header"].is_object().then_some(())
    })
    .await;
    for n in 0..KEYS {
        let key = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("k/{n:04}"));
        cluster.ask(NUC, "kv/put", json!({ "key": key, "value": key })).await;
    }
    let every = || json!({ "key": "ay8=", "range_end": "azA=", "serializable": true, "count_only": true });
    let count = |found: &Value| found["count"].as_str().and_then(|text| text.parse::<usize>().ok());
    assert_eq!(count(&cluster.ask(NUC, "kv/range", every()).await), Some(KEYS));
    for name in [VM, MAC] {
        cluster.members.get_mut(name).unwrap().stop();
    }
    until("nobody leads", async || {
        let said = cluster.try_ask(NUC, "maintenance/status", json!({})).await?;
        said["leader"].as_str().is_none_or(|leader| leader == "0").then_some(())
    })
    .await;

    let mut world = load("talos-no-quorum").unwrap();
    for name in NODES {
        world.talos.nodes.get_mut(name).unwrap().etcd_at = Some(cluster.members[name].clients);
    }
    let mut rig = Rig::of(world, |site| {
        site["migrations"].as_object_mut().unwrap().retain(|name, _| name == "recover");
    })
    .await;
    // The lab's own Kubernetes does not know what became of this etcd: an API server without one answers nothing.
    rig.lab.fault(FaultRule::on(Front::Kubernetes, FaultEffect::Refuse));
    // The rest is for a machine that can be wiped.
    rig.steps.truncate(2);
    let how = How { consents: vec![format!("etcd/{NUC}"), format!("gone/{MAC}")], ..How::default() };
    let run = rig.forward(None, &how).await;
    assert_done(&run, "copied");
    assert_eq!(rig.changes(), 0);
    let files = rig.bench.store.info(&run.id, "here").unwrap().files.unwrap();
    let file = files.join("01-save-copy").join(format!("{NUC}.snapshot"));
    let restored = cluster.restored(NUC, &file);
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    let found = until("it is there again", async || {
        let found = cluster.try_ask(NUC, "kv/range", every()).await?;
        count(&found)
    });
    assert_eq!(found.await, KEYS);
}

/// The file of a member that gives no snapshot: read while nobody leads, walked to its last page, and begun from without a
/// digest. A page that is not what it was is seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_real_etcd_comes_back_from_the_raw_file_of_a_member() {
    const KEYS: usize = 300;
    let mut cluster = Cluster::start();
    let put = |key: &str, value: &str| {
        let text = |text: &str| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
        json!({ "key": text(key), "value": text(value) })
    };
    until("there is a leader", async || {
        let said = cluster.try_ask(NUC, "kv/put", put("a", "a")).await?;
        said["header"].is_object().then_some(())
    })
    .await;
    let listed = cluster.ask(NUC, "cluster/member/list", json!({})).await;
    let ids: std::collections::BTreeSet<u64> =
        listed["members"].as_array().unwrap().iter().map(|m| m["ID"].as_str().unwrap().parse().unwrap()).collect();
    assert_eq!(ids.len(), 3, "{listed}");
    let long = "v".repeat(3_000);
    for n in 0..KEYS {
        cluster.ask(NUC, "kv/put", put(&format!("k/{n:04}"), &long)).await;
    }
    let node = |name: &str| put(&format!("/registry/minions/{name}"), "uuid 4C4C4544-0042");
    for name in ["talos-nuc", "gone", "talos-nuc2"] {
        cluster.ask(NUC, "kv/put", node(name)).await;
    }
    cluster.ask(NUC, "kv/deleterange", json!({ "key": node("gone")["key"] })).await;
    cluster.ask(NUC, "kv/put", node("last")).await;
    for name in [VM, MAC] {
        cluster.members.get_mut(name).unwrap().stop();
    }
    // It writes what it has agreed on a moment later.
    let file = cluster.file_of(NUC);
    let copied = |bytes: &[u8]| pvemig::talos::bolt::copied(bytes);
    let (bytes, found) = until("it is written", async || {
        let bytes = std::fs::read(&file).unwrap();
        let found = copied(&bytes).ok()?;
        found.content.nodes.contains_key("last").then_some((bytes, found))
    })
    .await;
    assert!(!found.digest && found.content.members == ids, "{:?}", found.content.members);
    assert_eq!(found.content.nodes.keys().collect::<Vec<_>>(), ["last", "talos-nuc", "talos-nuc2"]);
    assert!(found.content.node_says("talos-nuc", "4c4c4544-0042"));
    let (mut seen, mut all) = (0, 0);
    for page in (2..bytes.len() / 4_096).step_by(8) {
        let mut torn = bytes.clone();
        torn[page * 4_096..(page + 1) * 4_096].fill(0);
        seen += usize::from(copied(&torn).as_ref() != Ok(&found));
        all += 1;
    }
    println!("raw file: {} bytes, {seen} of {all} emptied pages seen", bytes.len());
    assert!(seen > 10, "{seen} of {all}");
    let raw = tempfile::tempdir().unwrap();
    let raw = (raw.path().join("db"), raw);
    std::fs::write(&raw.0, &bytes).unwrap();
    let restored = cluster.restored_with(NUC, &raw.0, &["--skip-hash-check"]);
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    let every = json!({ "key": "ay8=", "range_end": "azA=", "serializable": true, "count_only": true });
    let count = until("it is there again", async || {
        let found = cluster.try_ask(NUC, "kv/range", every.clone()).await?;
        found["count"].as_str().and_then(|text| text.parse::<usize>().ok())
    });
    assert_eq!(count.await, KEYS);
}
