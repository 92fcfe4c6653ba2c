//! Nodes that begin anew: maintenance, the first configuration, an installation, and etcd from a snapshot.

use pvemig::lab::talos::node::Image;
use pvemig::talos::kind;
use pvemig::talos::{ApplyMode, Error, Node, Reset, Wipe};

use super::*;

impl Ground {
    /// A node as it is spoken to before it has a configuration.
    pub(super) fn maintenance(&self, node: &str) -> Talos {
        let address = self.lab.reach().talos.nodes[node].to_string();
        let node = Node { name: node.to_owned(), address, tls_name: None };
        let talos = Talos::maintenance(node, None, Clock::fast(SPEED)).unwrap();
        talos.limits(pvemig::talos::Limits { read: LIMIT, change: LIMIT, ..Default::default() })
    }

    pub(super) async fn in_maintenance(&self, node: &str) {
        self.wait("it waits for a configuration", |w| w.talos_stage(node) == Some(Stage::Maintenance)).await;
    }
}

fn reset(graceful: bool, wipe: Wipe) -> Reset {
    Reset { graceful, reboot: true, wipe }
}

fn voters(w: &World) -> usize {
    w.talos.etcd.members.iter().filter(|m| !m.learner).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_its_state_waits_for_a_configuration_and_goes_on_with_it() {
    let mut tried = 0;
    for (version, _) in VERSIONS {
        let ground = Ground::new(version).await;
        let (mac, text) = (ground.talos(MAC).await, ground.read(|w| w.talos.nodes[MAC].config.clone()));
        let both = Wipe::Volumes(vec!["STATE".into(), "EPHEMERAL".into()]);
        mac.reset(&ground.permit, &reset(true, both)).await.unwrap();
        ground.in_maintenance(MAC).await;
        assert_eq!(
            ground.read(|w| (voters(w), w.talos.nodes[MAC].member, w.talos.nodes[MAC].slots.len())),
            (2, None, 1)
        );
        let before = ground.boot(MAC);

        // Its certificate is of nobody that is known.
        let error = mac.services().await.unwrap_err();
        assert!(matches!(error, Error::UnknownIssuer { .. }), "{error}");
        let bare = ground.maintenance(MAC);
        let status = bare.single(&kind::MACHINE_STATUS).await.unwrap().unwrap().spec;
        assert_eq!((status.stage, status.status.ready), (kind::Stage::Maintenance, true));
        assert_eq!(bare.single(&kind::VERSION).await.unwrap().unwrap().spec.version, format!("v{version}"));
        assert_eq!(bare.single(&kind::SYSTEM_DISK).await.unwrap().unwrap().spec.dev_path, "/dev/sda");
        assert!(bare.list(&kind::MEMBERS).await.unwrap().is_empty());
        let (services, boot_id) = (bare.services().await, bare.boot_id().await.unwrap_err());
        if version < "1.13" {
            assert!(matches!(services.unwrap_err(), Error::NotImplemented { .. }));
            assert!(matches!(boot_id, Error::NotImplemented { .. }), "{boot_id}");
        } else {
            assert!(services.unwrap().iter().all(|service| service.id != "kubelet" && !service.is_pending()));
            assert!(matches!(boot_id, Error::Denied { .. }), "{boot_id}");
        }
        let reboot = bare.reboot(&ground.permit, pvemig::talos::RebootMode::PowerCycle).await.unwrap_err();
        assert!(matches!(reboot, Error::NotImplemented { .. } | Error::Denied { .. }), "{reboot}");

        // Every version takes this mode; a dry run changes nothing, and a wrong one is refused.
        assert!(bare.dry_run(&text, ApplyMode::Auto).await.unwrap().details.contains("maintenance mode"));
        let wrong = bare.apply_config(&ground.permit, "machine: {}\n", ApplyMode::Auto).await.unwrap_err();
        assert!(matches!(wrong, Error::Invalid { .. }), "{wrong}");
        let staged = bare.dry_run(&text, ApplyMode::Staged).await;
        assert_eq!(matches!(staged, Err(Error::NotImplemented { .. })), version < "1.13");
        ground.in_maintenance(MAC).await;
        bare.apply_config(&ground.permit, &text, ApplyMode::Auto).await.unwrap();
        ground.wait("it votes again", |w| voters(w) == 3).await;
        ground.wait("it runs", |w| w.talos_stage(MAC) == Some(Stage::Running)).await;
        // The same boot, and the authority that is known.
        assert_eq!((ground.boot(MAC), ground.talos(MAC).await.boot_id().await.unwrap()), (before.clone(), before));
        assert_eq!(ground.read(|w| w.talos.nodes[MAC].config.clone()), text);
        assert_eq!(ground.all_noted(), 4);
        tried += 1;
    }
    assert_eq!(tried, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_disk_is_installed_from_the_medium() {
    let ground = Ground::new("1.12.11").await;
    let text = ground.read(|w| w.talos.nodes[MAC].config.clone());
    ground.lab.shared().change(|w| {
        let node = w.talos.nodes.get_mut(MAC).unwrap();
        node.medium = Some(Image { version: "1.13.9".into(), ..Image::default() });
    });
    ground.talos(MAC).await.reset(&ground.permit, &reset(true, Wipe::SystemDisk)).await.unwrap();
    ground.in_maintenance(MAC).await;
    let bare = ground.maintenance(MAC);
    assert_eq!(bare.version().await.unwrap().tag, "v1.13.9");
    assert_eq!(bare.single(&kind::SYSTEM_DISK).await.unwrap(), None);
    let to = |install: &str| text.replace("    disk: /dev/sda\n", install);
    let nowhere = bare.apply_config(&ground.permit, &to(""), ApplyMode::Auto).await.unwrap_err();
    assert!(matches!(nowhere, Error::Invalid { .. }), "{nowhere}");

    // A disk that is not there: the installation fails, and it is as empty as before.
    let before = ground.boot(MAC);
    let missing = to("    diskSelector: { serial: \"X*\" }\n");
    bare.apply_config(&ground.permit, &missing, ApplyMode::Auto).await.unwrap();
    ground.wait("it has rebooted", |w| w.talos.nodes[MAC].run.as_ref().is_some_and(|run| run.boot_id != before)).await;
    ground.in_maintenance(MAC).await;
    assert!(ground.read(|w| w.talos.nodes[MAC].slots.is_empty()));

    let wanted = to("    diskSelector: { serial: \"S2ZRN*\", size: \">= 200GB\" }\n");
    assert!(wanted != text);
    ground.maintenance(MAC).apply_config(&ground.permit, &wanted, ApplyMode::Auto).await.unwrap();
    ground.wait("it votes again", |w| voters(w) == 3).await;
    ground.wait("it runs", |w| w.talos_stage(MAC) == Some(Stage::Running)).await;
    // What the configuration names is installed, not what the medium had.
    let talos = ground.talos(MAC).await;
    assert_eq!(talos.version().await.unwrap().tag, "v1.11.5");
    assert_eq!(talos.single(&kind::SYSTEM_DISK).await.unwrap().unwrap().spec.dev_path, "/dev/sda");
    assert_eq!(ground.all_noted(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_is_started_anew_from_a_snapshot() {
    let ground = Ground::new("1.11.5").await;
    let nuc = ground.talos(NUC).await;
    let file = ground.lab.dir().join("snapshot");
    nuc.etcd_snapshot(&file).await.unwrap();
    let early = nuc.etcd_recover(&ground.permit, &file).await.unwrap_err();
    assert!(matches!(early, Error::NotReady { .. }), "{early}");
    let twice = nuc.bootstrap(&ground.permit, false, false).await.unwrap_err();
    assert!(matches!(twice, Error::Exists { .. }), "{twice}");
    // All of them are off before the first one comes back, which would join the others.
    for node in NODES {
        let wipe = Wipe::Volumes(vec!["EPHEMERAL".into()]);
        let off = Reset { graceful: false, reboot: false, wipe };
        ground.talos(node).await.reset(&ground.permit, &off).await.unwrap();
    }
    for node in NODES {
        ground.wait("it is off", |w| w.talos.nodes[node].run.is_none()).await;
    }
    ground.lab.shared().change(|w| {
        assert!(w.press_power(NUC) && w.press_power(MAC));
        w.fork("qmstart", 223, "root@pam", serde_json::json!({}));
    });
    for node in NODES {
        let preparing = |w: &World| {
            w.talos.nodes[node].member.is_none()
                && w.talos_services(node).iter().any(|s| s.id == "etcd" && s.state == "Preparing")
        };
        ground.wait("etcd waits", preparing).await;
    }
    let nothing = nuc.bootstrap(&ground.permit, true, false).await.unwrap_err();
    assert!(matches!(nothing, Error::NotReady { .. }), "{nothing}");

    // A digest that does not fit is told by the service alone; on another node nothing was begun.
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    let broken = ground.lab.dir().join("broken");
    std::fs::write(&broken, &bytes).unwrap();
    let mac = ground.talos(MAC).await;
    mac.etcd_recover(&ground.permit, &broken).await.unwrap();
    mac.bootstrap(&ground.permit, true, false).await.unwrap();
    let etcd = mac.services().await.unwrap().into_iter().find(|service| service.id == "etcd").unwrap();
    assert!(etcd.state == "Failed" && etcd.message.contains("expected sha256"), "{etcd:?}");

    nuc.etcd_recover(&ground.permit, &file).await.unwrap();
    nuc.bootstrap(&ground.permit, true, false).await.unwrap();
    ground.wait("the other one joins", |w| voters(w) == 2).await;
    mac.reboot(&ground.permit, pvemig::talos::RebootMode::PowerCycle).await.unwrap();
    ground.wait("the last one joins", |w| voters(w) == 3).await;
    let again = nuc.bootstrap(&ground.permit, false, false).await.unwrap_err();
    assert!(matches!(again, Error::Exists { .. }), "{again}");
    assert_eq!(nuc.etcd_members(false).await.unwrap().len(), 3);
    assert_eq!(ground.all_noted(), 12);
}
