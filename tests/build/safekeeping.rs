//! What must not be lost is looked at, each thing for what it claims to be, and copied.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use jiff::tz::TimeZone;
use pvemig::base::clock::Clock;
use pvemig::base::{private, shelf};
use serde_json::json;

use super::*;
use crate::harness::notes;

const KEY: &str = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";
const RECIPIENT: &str = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";

fn all(site: &mut Value) {
    site["migrations"]["build"]["params"]["keep"] =
        json!({ "to": "./safe", "age-key": "./keys.txt", "secrets": "./secrets.yaml", "snapshots": "./snapshots" });
}

/// The secrets that the lab's configurations have.
fn secrets(dir: &Path) -> Value {
    let text = std::fs::read_to_string(dir.join("controlplane.yaml")).unwrap();
    let all: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let config = &all[0];
    json!({
        "cluster": { "id": config["cluster"]["id"], "secret": config["cluster"]["secret"] },
        "trustdinfo": { "token": config["machine"]["token"] },
        "certs": { "os": config["machine"]["ca"], "k8s": config["cluster"]["ca"], "etcd": config["cluster"]["etcd"]["ca"] },
    })
}

/// A snapshot as `pvemig etcd snapshot` leaves one.
fn snapshot(rig: &Rig, hours: i64, change: impl FnOnce(&mut Vec<u8>)) {
    let dir = rig.dir().join("snapshots");
    std::fs::create_dir_all(&dir).unwrap();
    let mut bytes = rig.lab.shared().read(|w| w.etcd_snapshot("talos-vm"));
    change(&mut bytes);
    let at = Clock::real().now() - jiff::SignedDuration::from_hours(hours);
    let name = shelf::name("homelab", at.to_zoned(TimeZone::UTC).datetime(), false);
    private::write(&dir.join(name), &bytes).unwrap();
}

fn put(rig: &Rig, name: &str, text: &str) {
    private::write(&rig.dir().join(name), text.as_bytes()).unwrap();
}

fn complete(rig: &Rig) {
    put(rig, "keys.txt", &format!("# public key: {RECIPIENT}\n{KEY}\n"));
    put(rig, "secrets.yaml", &serde_saphyr::to_string(&secrets(rig.dir())).unwrap());
    snapshot(rig, 1, |_| {});
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_must_not_be_lost_is_looked_at_and_copied() {
    let mut rig = rig(|_| {}, all).await;
    complete(&rig);
    // No cluster to take it of yet.
    std::fs::remove_dir_all(rig.dir().join("snapshots")).unwrap();
    let How { consents, .. } = consenting();
    let alone = How { no_hands: true, consents, ..How::default() };
    let (run, Scenes { settled, .. }) = rig.watched(None, &alone).await;
    let (key, said) = why(&run);
    assert_eq!(key, "08-safekeeping", "{said}");
    assert!(said.contains(&format!("etcd snapshot homelab --to {}", rig.dir().join("snapshots").display())), "{said}");
    assert!(said.contains(&format!("--recipient {RECIPIENT}")) && !said.contains("GQ9778"), "{said}");
    assert_built(&rig, "without safekeeping");
    let turn = settled.last().unwrap();

    // Each thing that is not what it claims to be, and the words for it.
    let (mode, damaged): (fn(&Rig, &str, u32), _) = (
        |rig, name, mode| {
            std::fs::set_permissions(rig.dir().join(name), std::fs::Permissions::from_mode(mode)).unwrap();
        },
        |data: &mut Vec<u8>| data[200] ^= 1,
    );
    type Damage<'a> = (&'a str, Box<dyn Fn(&Rig) + 'a>, &'a [&'a str]);
    let ids: Vec<String> =
        rig.lab.shared().read(|w| w.talos.etcd.members.iter().map(|m| format!("{:x}", m.id)).collect());
    let other = |data: &mut Vec<u8>| {
        // The same etcd after all its members were made anew: none of the ids is there.
        let end = data.len() - 32;
        for id in &ids {
            let at = data.windows(id.len()).position(|found| found == id.as_bytes()).unwrap();
            data[at..at + id.len()].fill(b'0');
        }
        let digest = pvemig::base::digest::sha256(&data[..end]);
        let bytes = (0..32).map(|at| u8::from_str_radix(&digest[at * 2..at * 2 + 2], 16).unwrap());
        data.splice(end.., bytes);
    };
    let cases: Vec<Damage<'_>> = vec![
        ("damaged", Box::new(|rig| snapshot(rig, 0, damaged)), &["the digest at its end", "etcd snapshot homelab"]),
        (
            "of another etcd",
            Box::new(move |rig| {
                std::fs::remove_dir_all(rig.dir().join("snapshots")).unwrap();
                snapshot(rig, 0, other);
                snapshot(rig, 2, other);
            }),
            &["and 1 more: of another etcd", "etcd snapshot homelab"],
        ),
        ("to come", Box::new(|rig| snapshot(rig, -5, |_| {})), &["of a time to come", "date -u"]),
        ("mistyped", Box::new(|rig| put(rig, "keys.txt", &KEY.replace("GQ9", "GQ8"))), &["its checksum does not fit"]),
        (
            "no key",
            Box::new(|rig| std::fs::remove_file(rig.dir().join("keys.txt")).unwrap()),
            &["no such file", "keys.txt"],
        ),
        (
            "other secrets",
            Box::new(|rig| {
                let mut secrets = secrets(rig.dir());
                secrets["cluster"]["id"] = "another".into();
                put(rig, "secrets.yaml", &serde_saphyr::to_string(&secrets).unwrap());
            }),
            &["they are another cluster's", "talosctl gen secrets --from-controlplane-config"],
        ),
        ("wide", Box::new(move |rig| mode(rig, "kubeconfig", 0o644)), &["can be read by others", "chmod 600"]),
        (
            "another cluster",
            Box::new(|rig| {
                let text = std::fs::read_to_string(rig.dir().join("kubeconfig")).unwrap();
                let mut all: Value = serde_saphyr::from_str(&text).unwrap();
                all["clusters"][0]["cluster"]["certificate-authority-data"] = "b3RoZXI=".into();
                put(rig, "kubeconfig", &serde_saphyr::to_string(&all).unwrap());
            }),
            &["its authority is not the cluster's", "get it anew"],
        ),
        (
            "no source",
            Box::new(|rig| put(rig, "controlplane.yaml", "sops: {}\n")),
            &["it is encrypted (sops)", "decrypt"],
        ),
        (
            "wide copies",
            Box::new(move |rig| {
                std::fs::create_dir(rig.dir().join("safe")).unwrap();
                mode(rig, "safe", 0o755);
            }),
            &["safe can be read by others", "chmod 700"],
        ),
    ];
    let count = cases.len();
    for (what, damage, words) in cases {
        rig.go_back(turn);
        complete(&rig);
        damage(&rig);
        let stopped = rig.forward(Some(&run.id), &alone).await;
        let (key, said) = why(&stopped);
        assert_eq!(key, "08-safekeeping", "{what}");
        assert!(words.iter().all(|word| said.contains(word)), "{what}: {said}");
        assert!(!said.contains("GQ9778") && !said.contains("GQ8778"), "{what}: {said}");
        assert_eq!(local(&stopped), 0, "{what}");
    }
    assert_eq!(count, 10);

    // Another cluster of this name keeps its own in the same directory: a newer one of those is not taken for ours.
    rig.go_back(turn);
    complete(&rig);
    snapshot(&rig, 0, other);
    let shared = rig.forward(Some(&run.id), &alone).await;
    assert_done(&shared, "beside another cluster's");
    let told = notes(&shared, "08-safekeeping");
    assert!(told.contains("1 hour old") && told.contains("of another etcd") && told.contains("of their own"), "{told}");
    assert!(!told.contains("NOT looked for"), "{told}");

    // One that is too old counts for nothing; a newer one beside it does.
    rig.go_back(turn);
    complete(&rig);
    std::fs::remove_dir_all(rig.dir().join("snapshots")).unwrap();
    snapshot(&rig, 8 * 24, |_| {});
    assert!(why(&rig.forward(Some(&run.id), &alone).await).1.contains("is 8 days old"));
    snapshot(&rig, 30, |_| {});
    let done = rig.forward(Some(&run.id), &alone).await;
    assert_done(&done, "all there");
    let told = notes(&done, "08-safekeeping");
    let expected = [
        RECIPIENT,
        "30 hours old, its digest is right",
        "names a member",
        "of this cluster, in the clear",
        "another machine is yours",
    ];
    assert!(expected.iter().all(|word| told.contains(word)) && !told.contains("GQ9778"), "{told}");
    let safe = rig.dir().join("safe");
    let mut copies = Vec::new();
    for entry in std::fs::read_dir(&safe).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        copies.push(entry.file_name().into_string().unwrap());
    }
    copies.sort();
    assert_eq!(
        copies,
        ["age-key.txt", "config-controlplane.yaml", "kubeconfig", "secrets.yaml", "site.yaml", "talosconfig"]
    );
    assert_eq!(std::fs::metadata(&safe).unwrap().permissions().mode() & 0o777, 0o700);
    let second = rig.forward(None, &alone).await;
    assert_done(&second, "second");
    assert_eq!(calls(&second.records), 0);

    // A copy that somebody changed is made anew by the next run, and the one before it comes back with its undo.
    put(&rig, "safe/kubeconfig", "older\n");
    let again = rig.forward(None, &alone).await;
    assert_eq!(
        (calls(&again.records), std::fs::read(safe.join("kubeconfig")).unwrap()),
        (1, std::fs::read(rig.dir().join("kubeconfig")).unwrap())
    );
    assert!(matches!(rig.backward(&again.id, &How::default()).await.ended, Ok(Ended::Undone)));
    assert_eq!(std::fs::read_to_string(safe.join("kubeconfig")).unwrap(), "older\n");
}

/// A node that runs another configuration than its file comes to: said, and exported where there is a place for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_is_another_by_now_is_exported() {
    for to in [true, false] {
        let mut rig = rig(
            |_| {},
            |site| {
                if !to {
                    site["migrations"]["build"]["params"]["keep"] = json!({});
                }
            },
        )
        .await;
        let (run, Scenes { settled, .. }) = rig.watched(None, &consenting()).await;
        assert_done(&run, "built");
        // What is not named is not taken to be there.
        let told = notes(&run, "08-safekeeping");
        for what in [
            "NOT looked for: a snapshot of etcd",
            "etcd snapshot homelab --to DIR",
            "`snapshots: DIR`",
            "`secrets: FILE`",
        ] {
            assert!(told.contains(what), "{what}: {told}");
        }
        rig.go_back(&settled[rig.steps.len() - 1]);
        let file = rig.dir().join("controlplane.yaml");
        let text = std::fs::read_to_string(&file).unwrap();
        put(&rig, "controlplane.yaml", &text.replacen("clusterName: ", "clusterName: x", 1));
        let ended = rig.forward(Some(&run.id), &How { no_hands: true, ..How::default() }).await;
        if to {
            assert_done(&ended, "exported");
            let kept = std::fs::read_to_string(rig.dir().join("safe/running-talos-mac.yaml")).unwrap();
            assert!(kept.contains("talos-mac") && !kept.contains("clusterName: x"));
            assert_eq!(local(&ended), 8, "directory, four files, three exports");
            assert!(notes(&ended, "08-safekeeping").contains("is another one than that of"));
        } else {
            let (_, said) = why(&ended);
            assert!(said.contains("is not what") && said.contains("name a directory `to`"), "{said}");
        }
    }
}
