//! What stops a build before anything is lost.

use std::sync::Arc;

use pvemig::base::permit::{Notebook, Permit};
use pvemig::talos::ApplyMode;
use serde_json::json;

use super::*;

/// Stops at this step with these words, and has changed nothing.
pub(super) async fn stops(rig: &Rig, how: &How, at: &str, words: &[&str]) -> String {
    let before = rig.changes();
    let run = rig.forward(None, how).await;
    let (key, text) = why(&run);
    assert_eq!(key, at, "{text}");
    for word in words {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert_eq!(rig.changes(), before, "{text}");
    assert_safe(rig, at);
    text
}

/// The parameters of the node at a place of the list.
fn node(site: &mut Value, at: usize) -> &mut Value {
    &mut site["migrations"]["build"]["params"]["nodes"][at]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_holds_something_is_not_wiped_unasked() {
    let rig = fresh().await;
    let words = ["would wipe", "on which Talos recognises nothing", "`--destroy disk/S5GXNF0R601234`"];
    let all = stops(&rig, &How::default(), "00-preflight", &words).await;
    let each = all.matches("`--destroy disk/").count();
    assert_eq!(each, 3, "of all machines at once: {all}");
    let mut how = consenting();
    how.consents.retain(|thing| !thing.contains(MAC));
    let words = ["would wipe", "EPHEMERAL: xfs", "`--destroy disk/S2ZRNYAH500749`"];
    stops(&rig, &how, "00-preflight", &words).await;
    // Data of an old installation on a disk that stays.
    let rig = self::rig(
        |w| {
            let old = w.talos.nodes["talos-mac"].disks[1].partitions.clone();
            w.talos.nodes.get_mut("talos-nuc").unwrap().disks[2].partitions = old;
        },
        |_| {},
    )
    .await;
    let words = ["data of an older installation on nvme1n1", "22471A806001", "take that disk out"];
    stops(&rig, &consenting(), "00-preflight", &words).await;
    // Consent to another disk is none to this one; films are films.
    let rig = self::rig(|_| {}, |site| node(site, 0)["disk"] = json!("22471A806001")).await;
    stops(&rig, &consenting(), "00-preflight", &["WD_BLACK SN770", "media", "xfs"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_not_there_or_not_alone_is_refused() {
    let rig = self::rig(|_| {}, |site| node(site, 2)["disk"] = json!("S0NOT0HERE")).await;
    stops(&rig, &consenting(), "00-preflight", &["no disk with the serial number S0NOT0HERE", MAC]).await;
    let rig =
        self::rig(|w| w.talos.nodes.get_mut("talos-nuc").unwrap().disks[2].serial = "S5GXNF0R601234".into(), |_| {})
            .await;
    stops(&rig, &consenting(), "00-preflight", &["2 disks with the serial number", "SN770"]).await;
    let rig = self::rig(|_| {}, |site| node(site, 0)["disk"] = json!("4C530001281205115022")).await;
    stops(&rig, &consenting(), "00-preflight", &["on USB", "inside the machine"]).await;
}

/// `pvemig step`: what 00 would have found 01 finds by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_is_looked_at_by_its_own_step_too() {
    let mut rig = self::rig(|_| {}, |site| node(site, 2)["disk"] = json!("S0NOT0HERE")).await;
    rig.steps.retain(|step| step.id() == "01-check-disks");
    assert_eq!(rig.steps.len(), 3);
    let words = ["would wipe", "`--destroy disk/S5GXNF0R601234`"];
    stops(&rig, &How::default(), "01-check-disks@talos-nuc", &words).await;
    stops(&rig, &consenting(), "01-check-disks@talos-mac", &["no disk with the serial number S0NOT0HERE", MAC]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_configuration_is_for_must_be_there() {
    // The image of the card on a machine without one.
    let nvidia =
        "factory.talos.dev/metal-installer/26124abcbd408be693df9fe852c80ef1e6cc178e34d7d7d8430a28d1130b4227:v1.11.5";
    let rig = self::rig(|_| {}, |site| node(site, 2)["patches"] = json!([{ "install-image": nvidia }])).await;
    stops(&rig, &consenting(), "00-preflight", &["talos-mac has no NVIDIA device"]).await;
    let rig = self::rig(|_| {}, |site| node(site, 0)["patches"] = json!([{ "install-image": nvidia }])).await;
    stops(&rig, &consenting(), "00-preflight", &["loads no modules of it"]).await;
    // A VM that is another one.
    let rig = self::rig(
        |w| {
            let config = &mut w.vms.get_mut(&223).unwrap().config;
            config.insert("smbios1".into(), "uuid=11111111-2222-3333-4444-555555555555".into());
        },
        |_| {},
    )
    .await;
    stops(
        &rig,
        &consenting(),
        "00-preflight",
        &["vm 223 has the uuid 11111111", "talos-vm runs in a machine with 7d0f4d6e"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_cannot_be_used_is_said_before_anything_is_installed() {
    let rig = fresh().await;
    std::fs::remove_file(rig.dir().join("controlplane.yaml")).unwrap();
    stops(&rig, &consenting(), "00-preflight", &["controlplane.yaml", "there is no such file"]).await;
    let rig = self::rig(|_| {}, |site| node(site, 1)["config"] = json!("./controlplane.sops.yaml")).await;
    std::fs::set_permissions(
        rig.dir().join("controlplane.sops.yaml"),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    stops(&rig, &consenting(), "00-preflight", &["it is encrypted (sops)", "`decrypt: [sops, --decrypt]`"]).await;
    let rig = self::rig(|_| {}, |site| node(site, 1)["config"] = json!("./of-another.yaml")).await;
    let text = std::fs::read_to_string(rig.dir().join("controlplane.yaml")).unwrap();
    let id = text.lines().find(|line| line.trim_start().starts_with("id: ")).unwrap();
    let value = id.trim_start().strip_prefix("id: ").unwrap();
    let other = text.replace(value, "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
    let path = rig.dir().join("of-another.yaml");
    std::fs::write(&path, other).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    stops(&rig, &consenting(), "00-preflight", &["talos-nuc and talos-vm are of two clusters"]).await;
}

/// Files that a command decrypts make the same cluster.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn encrypted_files_are_opened_by_a_declared_command() {
    let rig = self::rig(
        |_| {},
        |site| {
            for at in 0..3 {
                node(site, at)["config"] = json!("./controlplane.sops.yaml");
            }
            // As every path of the site file it starts there.
            site["migrations"]["build"]["params"]["decrypt"] = json!(["./sops-stand-in", "-d"]);
        },
    )
    .await;
    let run = rig.forward(None, &consenting()).await;
    assert_done(&run, "decrypted");
    assert_built(&rig, "decrypted");
    let all = format!("{:?}", rig.bench.read(&run.id).records);
    let secret = std::fs::read_to_string(rig.dir().join("controlplane.yaml")).unwrap();
    let token = secret.lines().find_map(|line| line.trim().strip_prefix("token: ")).unwrap();
    assert!(!all.is_empty() && !all.contains(token));
    // One that fails is told with its own words.
    let rig = self::rig(
        |_| {},
        |site| {
            let fails = "echo 'Failed to get the data key: no identity matched' >&2; exit 128";
            site["migrations"]["build"]["params"]["decrypt"] = json!(["sh", "-c", fails]);
        },
    )
    .await;
    stops(&rig, &consenting(), "00-preflight", &["`sh` ended with exit status: 128", "no identity matched"]).await;
}

/// The way into the deadlock: a machine joins while another one is still a learner, or a voter is away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_let_in_while_another_one_is_half_in() {
    let rig = fresh().await;
    // Two nodes are built; the third one's turn comes with a voter away.
    let (run, Scenes { settled, .. }) = rig.watched(None, &consenting()).await;
    assert_done(&run, "undisturbed");
    let mut rig = rig;
    let turn = rig.steps.iter().position(|step| step.key().as_str() == "02-apply-config@talos-mac").unwrap();
    rig.go_back(&settled[turn]);
    rig.lab.shared().change(|w| w.talos_shutdown("talos-vm", true));
    let gone = rig
        .lab
        .shared()
        .until(std::time::Duration::from_secs(300), |w| w.etcd_of("talos-vm").is_none().then_some(()))
        .await;
    assert!(gone.is_some());
    let before = rig.changes();
    let how = || How { limit: Some(std::time::Duration::from_secs(2)), ..How::default() };
    let stopped = rig.forward(Some(&run.id), &how()).await;
    let (key, text) = why(&stopped);
    assert_eq!(key, "02-apply-config@talos-mac", "{text}");
    assert!(text.contains("once somebody tells its members") && text.contains("no leader"), "{text}");
    assert_eq!(rig.changes(), before);
    // A learner that never gets its vote.
    rig.go_back(&settled[turn]);
    rig.lab.shared().change(|w| {
        let member = w.talos.etcd.members.iter_mut().find(|m| m.name == "talos-vm").unwrap();
        (member.learner, member.lags, member.votes_at) = (true, true, None);
    });
    let stopped = rig.forward(Some(&run.id), &how()).await;
    assert!(why(&stopped).1.contains("is a learner"), "{}", why(&stopped).1);
    assert_eq!(rig.changes(), before);
}

/// Another machine that has an etcd, or does not tell, is in the way of a bootstrap.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_no_second_bootstrap() {
    let mut rig = fresh().await;
    let (run, Scenes { settled, .. }) = rig.watched(None, &consenting()).await;
    assert_done(&run, "undisturbed");
    let turn = rig.steps.iter().position(|step| step.id() == "04-bootstrap").unwrap();
    // Nobody knows what it has: it is off.
    rig.go_back(&settled[turn]);
    rig.lab.shared().change(|w| {
        let node = w.talos.nodes.get_mut("talos-mac").unwrap();
        (node.run, node.off) = (None, true);
    });
    let before = rig.changes();
    let stopped = rig.forward(Some(&run.id), &How::default()).await;
    let (key, text) = why(&stopped);
    assert_eq!((key, rig.changes()), ("04-bootstrap", before), "{text}");
    assert!(
        text.contains("whether talos-mac has an etcd is not known") && text.contains("a second cluster homelab"),
        "{text}"
    );
    assert_safe(&rig, "off");
}

/// A disk that was given for what was on it is not wiped once something else is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consent_is_for_what_was_there() {
    let mut rig = fresh().await;
    let (run, Scenes { points, .. }) = rig.watched(None, &consenting()).await;
    assert_done(&run, "undisturbed");
    let at = points.iter().position(|(point, _)| {
        let point = format!("{point:?}");
        point.contains("02-apply-config@talos-mac") && point.contains("\"call\"") && point.contains("Before")
    });
    rig.go_back(&points[at.unwrap()].1);
    rig.lab.shared().change(|w| {
        let films = w.talos.nodes["talos-nuc"].disks[2].partitions.clone();
        w.talos.nodes.get_mut("talos-mac").unwrap().disks[1].partitions = films;
    });
    let before = rig.changes();
    let stopped = rig.forward(Some(&run.id), &How::default()).await;
    let (key, text) = why(&stopped);
    assert_eq!((key, rig.changes()), ("02-apply-config@talos-mac", before), "{text}");
    assert!(text.contains("does not hold what it held") && text.contains("media"), "{text}");
    // The configuration is made anew meanwhile: what was looked at is not what would be sent.
    rig.go_back(&points[at.unwrap()].1);
    let path = rig.dir().join("controlplane.yaml");
    let changed = std::fs::read_to_string(&path).unwrap().replace("debug: false", "debug: true");
    std::fs::write(&path, changed + "\n# by hand\n").unwrap();
    let stopped = rig.forward(Some(&run.id), &How::default()).await;
    assert!(why(&stopped).1.contains("is not what it was"), "{}", why(&stopped).1);
    assert_eq!(rig.changes(), before);
}

/// A machine that has its configuration may have data of an etcd, whatever its services say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configured_control_plane_is_in_the_way_of_a_bootstrap() {
    let mut rig = fresh().await;
    let (run, Scenes { settled, .. }) = rig.watched(None, &consenting()).await;
    assert_done(&run, "undisturbed");
    let turn = rig.steps.iter().position(|step| step.id() == "04-bootstrap").unwrap();
    let config = rig.lab.shared().read(|w| w.talos.nodes["talos-mac"].config.clone());
    rig.go_back(&settled[turn]);
    let bare = rig.estate.talos_in_maintenance("talos-mac", None, None).unwrap();
    let permit = Permit::mint(Arc::new(Notebook::default()));
    bare.apply_config(&permit, &config, ApplyMode::Auto).await.unwrap();
    let up = |w: &World| {
        w.talos.nodes["talos-mac"].run.as_ref().is_some_and(|run| !run.maintenance && run.kubelet_at <= w.now)
    };
    let found = rig.lab.shared().until(std::time::Duration::from_secs(900), |w| up(w).then_some(())).await;
    assert!(found.is_some());
    let before = rig.changes();
    let stopped = rig.forward(Some(&run.id), &How::default()).await;
    let (key, text) = why(&stopped);
    assert_eq!((key, rig.changes()), ("04-bootstrap", before), "{text}");
    assert!(text.contains("talos-mac") && text.contains("may have data of an etcd"), "{text}");
    assert_eq!(rig.lab.shared().read(|w| w.etcd_clusters()), 0);
}

/// A device path is another disk after the next boot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_is_named_by_its_serial_number_alone() {
    let rig = fresh().await;
    let file = rig.dir().join("site.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let built = |disk: &str| {
        let mut site: Value = serde_saphyr::from_str(&text).unwrap();
        node(&mut site, 0)["disk"] = json!(disk);
        std::fs::write(&file, serde_saphyr::to_string(&site).unwrap()).unwrap();
        let site = pvemig::site::Site::load(&file).unwrap();
        blueprint::named("cluster-build").unwrap().build(&site, "build").map_err(|error| format!("{error:?}"))
    };
    let bad = [
        "/dev/sdb",
        "/dev/disk/by-id/nvme-Samsung_SSD_980_PRO_1TB_S5GXNF0R601234",
        "/sys/block/sdb",
        "disk/by-id/wwn-0x5",
    ];
    for path in bad {
        let Err(error) = built(path) else { panic!("{path}") };
        assert!(error.contains(&format!("`{path}` is a device path")), "{path}: {error}");
        assert!(error.contains("name the serial number"), "{path}: {error}");
    }
    assert!(built("S5GXNF0R601234").is_ok());
}

/// A machine that installs itself is told apart, and what is wrong with that said in its own words.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_installation_of_its_own_is_told_apart() {
    let said = |phase: &str, error: &str| Some((phase.to_owned(), error.to_owned()));
    let rig = self::rig(
        |w| {
            let node = w.talos.nodes.get_mut("talos-nuc").unwrap();
            node.disks.iter_mut().filter_map(|disk| disk.live.as_mut()).for_each(|it| it.version = "1.14.0".into());
            node.unattended = said("pending", "no disk matched the selector");
        },
        |_| {},
    )
    .await;
    let words = ["installs itself all the same", "no disk matched the selector", "medium without a configuration"];
    stops(&rig, &consenting(), "00-preflight", &words).await;

    let rig = fresh().await;
    let run = rig.forward(None, &consenting()).await;
    assert_done(&run, "built");
    let phases = [
        ("pending", "waiting", "is to install itself"),
        ("installing", "waiting", "installs itself from"),
        ("waiting-for-reboot", "waiting", "about to reboot"),
        ("failed", "manual", "get unattendedinstallstatuses"),
        ("installed", "done", ""),
    ];
    for (phase, answer, words) in phases {
        rig.lab.shared().change(|w| {
            let node = w.talos.nodes.get_mut("talos-nuc").unwrap();
            node.slots.values_mut().for_each(|image| image.version = "1.14.0".into());
            node.unattended = said(phase, if phase == "failed" { "exit status 3" } else { "" });
        });
        for id in ["01-check-disks@talos-nuc", "03-wait-installed@talos-nuc"] {
            let step = rig.steps.iter().find(|step| step.key().as_str() == id).unwrap();
            let (info, held) = (rig.bench.store.info(&run.id, "here").unwrap(), BTreeMap::new());
            let seen = Seen { since: None, got: &[], held: &held, run: &info };
            let text = format!("{:?}", step.check(&rig.estate, seen).await.unwrap().answer);
            assert!(text.to_lowercase().starts_with(answer) && text.contains(words), "{id} {phase}: {text}");
            assert_eq!(text.contains("exit status 3"), phase == "failed", "{id} {phase}: {text}");
        }
    }
    // Without a reboot it would go on from its medium.
    rig.lab.shared().change(|w| {
        let node = w.talos.nodes.get_mut("talos-nuc").unwrap();
        node.disks.iter_mut().for_each(|disk| disk.system = false);
        node.unattended = said("installed", "");
    });
    let step = rig.steps.iter().find(|step| step.key().as_str() == "03-wait-installed@talos-nuc").unwrap();
    let (info, held) = (rig.bench.store.info(&run.id, "here").unwrap(), BTreeMap::new());
    let seen = Seen { since: None, got: &[], held: &held, run: &info };
    let text = format!("{:?}", step.check(&rig.estate, seen).await.unwrap().answer);
    assert!(text.starts_with("Manual") && text.contains("does not reboot by itself"), "{text}");
}
