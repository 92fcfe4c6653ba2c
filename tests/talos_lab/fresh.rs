//! From three machines that wait for their first configuration to a cluster.

use std::process::Command;

use pvemig::talos::{ApplyMode, Error, kind};
use serde_json::{Value, json};

use super::*;

/// The disk of each machine that is to be installed to.
const DISKS: [(&str, &str); 3] = [(NUC, "S5GXNF0R601234"), (VM, "talos-vm-root"), (MAC, "S2ZRNYAH500749")];

impl Ground {
    async fn fresh() -> Self {
        let mut world = load("talos-fresh").unwrap();
        world.talos.timing.stuck = 1_000_000_000;
        Self::of(world).await
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.lab.dir().join(name)).unwrap()
    }

    /// The configuration of a machine: the one of all, its patch, and its disk.
    fn whole(&self, node: &str) -> String {
        let mut config: Value = serde_saphyr::from_str(&self.file("controlplane.yaml")).unwrap();
        merge(&mut config, serde_saphyr::from_str(&self.file(&format!("{node}.yaml"))).unwrap());
        let (_, serial) = DISKS.iter().find(|(name, _)| *name == node).unwrap();
        merge(&mut config, json!({ "machine": { "install": { "diskSelector": { "serial": serial } } } }));
        serde_saphyr::to_string(&config).unwrap()
    }

    async fn give(&self, node: &str, config: &str) {
        self.maintenance(node).apply_config(&self.permit, config, ApplyMode::Auto).await.unwrap();
    }

    /// Installs a machine, up to where its etcd waits for a cluster.
    async fn install(&self, node: &str) {
        self.give(node, &self.whole(node)).await;
        self.wait("etcd waits", |w| w.talos_services(node).iter().any(|s| s.id == "etcd" && s.state == "Preparing"))
            .await;
    }

    /// Asks for the Kubernetes nodes, and does not ask long.
    async fn nodes(&self) -> Result<Vec<pvemig::k8s::Node>, String> {
        let site = Arc::new(Site::load(&self.lab.dir().join("site.yaml")).unwrap());
        let short = Duration::from_secs(2);
        let estate = Estate::new(site, Clock::fast(SPEED), self.lab.dir().join("other")).deadlines(short, short);
        estate.kubernetes("homelab").await.unwrap().nodes().await.map_err(|error| error.to_string())
    }

    fn clusters(&self) -> usize {
        self.read(World::etcd_clusters)
    }
}

fn merge(into: &mut Value, patch: Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            patch.into_iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value));
        }
        (into, patch) => *into = patch,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_machines_wait_with_what_is_on_their_disks() {
    let ground = Ground::fresh().await;
    for node in NODES {
        ground.in_maintenance(node).await;
        let bare = ground.maintenance(node);
        assert_eq!(bare.single(&kind::VERSION).await.unwrap().unwrap().spec.version, "v1.11.5", "{node}");
        assert_eq!(bare.single(&kind::SYSTEM_DISK).await.unwrap(), None, "{node}");
        let error = ground.talos(node).await.services().await.unwrap_err();
        assert!(matches!(error, Error::UnknownIssuer { .. }), "{error}");
    }
    let found = |node| {
        let bare = ground.maintenance(node);
        async move {
            let all = bare.list(&kind::DISCOVERED_VOLUMES).await.unwrap();
            all.into_iter().map(|v| (v.id, v.spec.name, v.spec.partition_label)).collect::<Vec<_>>()
        }
    };
    let is = |id: &str, name: &str, label: &str| (id.to_owned(), name.to_owned(), label.to_owned());
    let nuc = found(NUC).await;
    assert!(nuc.contains(&is("nvme1n1p1", "xfs", "")) && nuc.contains(&is("sda", "iso9660", "")), "{nuc:?}");
    assert!(nuc.contains(&is("nvme0n1", "", "")), "{nuc:?}");
    let mac = found(MAC).await;
    for (number, name, label) in [(1, "vfat", "EFI"), (2, "", "META"), (3, "", "STATE"), (4, "xfs", "EPHEMERAL")] {
        assert!(mac.contains(&is(&format!("sdb{number}"), name, label)), "{mac:?}");
    }
    assert_eq!(ground.clusters(), 0);
    let nodes = ground.nodes().await.unwrap_err();
    assert!(nodes.contains("the API cannot be reached"), "{nodes}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_machines_become_one_cluster() {
    let ground = Ground::fresh().await;
    for node in NODES {
        ground.install(node).await;
        let talos = ground.talos(node).await;
        let disk = talos.single(&kind::SYSTEM_DISK).await.unwrap().unwrap().spec.dev_path;
        assert_eq!(
            disk,
            if node == NUC {
                "/dev/nvme0n1"
            } else if node == VM {
                "/dev/sda"
            } else {
                "/dev/sdb"
            }
        );
    }
    let wiped: Vec<(String, String, Vec<String>)> =
        ground.read(|w| w.talos.wiped.iter().map(|d| (d.node.clone(), d.serial.clone(), d.held.clone())).collect());
    let held = ["EFI vfat", "META", "STATE", "EPHEMERAL xfs"].map(str::to_owned).to_vec();
    let lost = [Vec::new(), Vec::new(), held];
    let wanted: Vec<_> =
        DISKS.iter().zip(lost).map(|((node, serial), held)| ((*node).to_owned(), (*serial).to_owned(), held)).collect();
    assert_eq!(wiped, wanted);

    // Nobody is a member of anything, and Kubernetes is not there.
    assert_eq!(ground.clusters(), 0);
    assert!(ground.nodes().await.is_err());
    let nuc = ground.talos(NUC).await;
    // Made from the configuration alone (siderolabs/talos `v1alpha1_server.go`, `Kubeconfig`).
    assert!(nuc.kubeconfig().await.is_ok());

    nuc.bootstrap(&ground.permit, false, false).await.unwrap();
    let voters = |w: &World| w.talos.etcd.members.iter().filter(|m| !m.learner).count();
    let mut most = 0;
    ground
        .wait("all have a vote", |w| {
            most = most.max(w.talos.etcd.members.iter().filter(|m| m.learner).count());
            voters(w) == 3
        })
        .await;
    assert!(most <= 1, "{most} learners");
    for node in NODES {
        let again = ground.talos(node).await.bootstrap(&ground.permit, false, false).await.unwrap_err();
        assert!(matches!(again, Error::Exists { .. }), "{node}: {again}");
        ground
            .wait(&format!("{node} runs"), |w| {
                w.talos_status(node).is_some_and(|s| s.stage == Stage::Running && s.unmet.is_empty())
            })
            .await;
    }
    assert_eq!(ground.clusters(), 1);
    let nodes = ground.estate.kubernetes("homelab").await.unwrap().nodes().await.unwrap();
    assert_eq!(nodes.len(), 3);
    for node in nodes {
        assert!(!node.meta.uid.is_empty() && node.taints.is_empty() && node.is_ready(), "{node:?}");
        assert!(node.is_control_plane() && node.os_image == "Talos (v1.11.5)", "{node:?}");
    }
    let gpu = ground.talos(NUC).await.list(&kind::PCI_DEVICES).await.unwrap();
    assert!(gpu.iter().any(|device| device.spec.driver == "nvidia"), "{gpu:?}");
    assert_eq!(ground.all_noted(), 7);
}

/// A second bootstrap of a node that waits still makes a second cluster: nothing keeps it from that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_bootstrap_makes_a_second_cluster() {
    let ground = Ground::fresh().await;
    ground.lab.shared().change(|w| w.talos.timing.learn = 1_000_000_000);
    for node in NODES {
        ground.install(node).await;
    }
    ground.talos(NUC).await.bootstrap(&ground.permit, false, false).await.unwrap();
    ground.wait("one learns", |w| w.talos.etcd.members.len() == 2).await;
    let waits = ground.read(|w| NODES.into_iter().find(|node| w.talos.nodes[*node].member.is_none())).unwrap();
    ground.talos(waits).await.bootstrap(&ground.permit, false, false).await.unwrap();
    assert_eq!(ground.clusters(), 2);
    let alone = ground.talos(waits).await.etcd_members(true).await.unwrap();
    let others = ground.talos(NUC).await.etcd_members(true).await.unwrap();
    assert_eq!((alone.len(), others.len()), (1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_of_another_authority_lets_nobody_in() {
    let ground = Ground::fresh().await;
    let other = Ground::fresh().await;
    ground.give(MAC, &other.whole(MAC)).await;
    ground
        .wait("it is installed", |w| w.talos_services(MAC).iter().any(|s| s.id == "etcd" && s.state == "Preparing"))
        .await;
    let error = ground.talos(MAC).await.services().await.unwrap_err();
    assert!(matches!(error, Error::UnknownIssuer { .. }), "{error}");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "what stands in for sops is a program")]
fn what_is_encrypted_is_the_same_configuration() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let ground = runtime.block_on(Ground::fresh());
    let dir = ground.lab.dir();
    let said =
        Command::new(dir.join("sops-stand-in")).arg("-d").arg(dir.join("controlplane.sops.yaml")).output().unwrap();
    assert!(said.status.success(), "{said:?}");
    assert_eq!(String::from_utf8(said.stdout).unwrap(), ground.file("controlplane.yaml"));
    assert!(!ground.file("controlplane.sops.yaml").contains("ca:"));
    let mode = std::fs::metadata(dir.join("controlplane.yaml")).unwrap().permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);
    // The authorities of the files that were there before the cluster.
    let talosconfig: Value = serde_saphyr::from_str(&ground.file("talosconfig")).unwrap();
    let config: Value = serde_saphyr::from_str(&ground.file("controlplane.yaml")).unwrap();
    assert_eq!(talosconfig["contexts"]["lab"]["ca"], config["machine"]["ca"]["crt"]);
    let kubeconfig: Value = serde_saphyr::from_str(&ground.file("kubeconfig")).unwrap();
    assert_eq!(kubeconfig["clusters"][0]["cluster"]["certificate-authority-data"], config["cluster"]["ca"]["crt"]);
}
