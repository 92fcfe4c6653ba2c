//! Every change of every version: what it does to the world, and that it was written down.

use pvemig::base::fault::{Effect, Fault};
use pvemig::talos::{ApplyMode, Error, Leaving, RebootMode, Upgrade, Which};

use super::*;

impl Ground {
    fn config(&self, node: &str) -> (String, String) {
        self.read(|w| {
            let node = &w.talos.nodes[node];
            (node.run.as_ref().unwrap().active.clone(), node.config.clone())
        })
    }

    fn version(&self, node: &str) -> String {
        self.read(|w| w.talos.nodes[node].image().version)
    }
}

/// Reboots and a shutdown.
async fn power(ground: &Ground) {
    for (node, mode, kexec) in [(NUC, RebootMode::PowerCycle, false), (MAC, RebootMode::Kexec, true)] {
        let (talos, before) = (ground.talos(node).await, ground.boot(node));
        assert_eq!(talos.boot_id().await.unwrap(), before);
        let actor = talos.reboot(&ground.permit, mode).await.unwrap();
        match talos.sequence_began(&actor, LIMIT).await {
            Ok(()) => {}
            // It was gone before it was asked.
            Err(error) => assert!(error.is_down(), "{error}"),
        }
        ground.back(node, &before).await;
        assert_ne!(talos.boot_id().await.unwrap(), before);
        assert_eq!(ground.read(|w| w.talos.nodes[node].run.as_ref().unwrap().kexec), kexec);
    }
    let (talos, before) = (ground.talos(MAC).await, ground.boot(MAC));
    talos.shutdown(&ground.permit, true).await.unwrap();
    ground.wait("it is off", |w| w.talos.nodes[MAC].off).await;
    let error = talos.reboot(&ground.permit, RebootMode::Kexec).await.unwrap_err();
    assert!(error.is_down() && error.effect() == Effect::None, "{error}");
    assert!(ground.lab.shared().change(|w| w.press_power(MAC)));
    ground.back(MAC, &before).await;
}

/// Configurations in each mode.
async fn configs(ground: &Ground, version: &str) {
    let talos = ground.talos(MAC).await;
    let (old, _) = ground.config(MAC);
    let pages = |n: &str| old.replace("\"1024\"", &format!("\"{n}\""));
    let live = pages("2048");
    talos.dry_run(&live, ApplyMode::NoReboot).await.unwrap();
    assert_eq!(ground.config(MAC), (old.clone(), old.clone()));

    // A trial is in effect, is not on the disk, and ends by itself; another one that is applied stays.
    let trial = ApplyMode::Try { back_after: Duration::from_secs(u64::from(SPEED) * 3_600) };
    let said = talos.apply_config(&ground.permit, &live, trial).await.unwrap();
    assert!(said.details.contains("automatically reverted"), "{said:?}");
    let seen = |which| {
        let talos = talos.clone();
        async move { talos.machine_config(which).await.unwrap().unwrap().expose().to_owned() }
    };
    assert_eq!((seen(Which::Active).await, seen(Which::Persistent).await), (live.clone(), old.clone()));
    let trial = ApplyMode::Try { back_after: Duration::from_secs(5) };
    talos.apply_config(&ground.permit, &pages("512"), trial).await.unwrap();
    ground.wait("the trial is over", |w| w.talos.nodes[MAC].run.as_ref().unwrap().active == old).await;
    assert_eq!(ground.config(MAC), (old.clone(), old.clone()));

    let said = talos.apply_config(&ground.permit, &live, ApplyMode::NoReboot).await.unwrap();
    assert!(!said.reboots);
    assert_eq!(ground.config(MAC), (live.clone(), live.clone()));
    assert_eq!(talos.memory().await.unwrap().huge_pages, 2_048);
    talos.apply_config(&ground.permit, &old, ApplyMode::Staged).await.unwrap();
    assert_eq!(ground.config(MAC), (live.clone(), old.clone()));

    let before = ground.boot(MAC);
    let later = old.replace("  certSANs", "  env: { A: b }\n  certSANs");
    let at_once = talos.dry_run(&later, ApplyMode::NoReboot).await;
    let rebooted = talos.apply_config(&ground.permit, &old, ApplyMode::Reboot).await;
    if version.starts_with("1.14") {
        assert!(matches!(rebooted.unwrap_err(), Error::NotImplemented { .. }));
        // What takes a reboot simply waits for one.
        assert!(!at_once.unwrap().reboots && ground.boot(MAC) == before);
        talos.apply_config(&ground.permit, &old, ApplyMode::Auto).await.unwrap();
    } else {
        assert!(rebooted.unwrap().reboots);
        assert!(matches!(at_once.unwrap_err(), Error::Invalid { .. }));
        ground.back(MAC, &before).await;
    }
    assert_eq!(ground.config(MAC), (old.clone(), old));
}

/// Another image by the version's own way, and back.
async fn images(ground: &Ground, version: &str, next: &str) {
    let talos = ground.talos(NUC).await;
    let schematic = ground.read(|w| w.talos.nodes[NUC].image().schematic);
    let image = format!("factory.talos.dev/metal-installer/{schematic}:v{next}");
    let wrong = talos.upgrade(&ground.permit, "factory.talos.dev/metal-installer/none:v1.12.0").await.unwrap_err();
    assert!(wrong.to_string().contains("not found"), "{wrong}");
    let before = ground.boot(NUC);
    match talos.upgrade(&ground.permit, &image).await.unwrap() {
        Upgrade::Begun { actor } => assert!(!actor.is_empty() && version < "1.13", "{version}"),
        Upgrade::Written => {
            assert!(version >= "1.13", "{version}");
            // Nothing of it happens before a reboot.
            assert_eq!((ground.boot(NUC), ground.version(NUC)), (before.clone(), version.to_owned()));
            talos.reboot(&ground.permit, RebootMode::PowerCycle).await.unwrap();
        }
    }
    ground.back(NUC, &before).await;
    assert_eq!((ground.version(NUC), talos.version().await.unwrap().tag), (next.to_owned(), format!("v{next}")));
    let before = ground.boot(NUC);
    talos.roll_back(&ground.permit).await.unwrap();
    ground.back(NUC, &before).await;
    assert_eq!((ground.version(NUC), talos.version().await.unwrap().tag), (version.to_owned(), format!("v{version}")));
    let nowhere = ground.talos(MAC).await.roll_back(&ground.permit).await.unwrap_err();
    assert!(nowhere.to_string().contains("cannot rollback"), "{nowhere}");
}

/// Members come and go.
async fn members(ground: &Ground) {
    let names = |w: &World| w.talos.etcd.members.iter().map(|m| m.name.clone()).collect::<Vec<_>>();
    let leader = ground.read(|w| w.talos.etcd.member(w.talos.etcd.leader.unwrap()).unwrap().name.clone());
    let talos = ground.talos(&leader).await;
    let new = talos.etcd_forfeit(&ground.permit).await.unwrap().unwrap();
    assert!(new != leader && !talos.etcd_status().await.unwrap().leads());
    assert!(ground.talos(&new).await.etcd_status().await.unwrap().leads());
    assert_eq!(talos.etcd_forfeit(&ground.permit).await.unwrap(), None);

    // One leaves, and comes back with its next boot.
    let (mac, before) = (ground.talos(MAC).await, ground.boot(MAC));
    mac.etcd_leave(&ground.permit, Leaving::UntilItsNextBoot).await.unwrap();
    assert_eq!(ground.read(|w| (names(w).len(), w.talos.nodes[MAC].member)), (2, None));
    let etcd = mac.services().await.unwrap().into_iter().find(|service| service.id == "etcd").unwrap();
    assert_eq!(etcd.state, "Finished");
    mac.reboot(&ground.permit, RebootMode::PowerCycle).await.unwrap();
    ground.back(MAC, &before).await;
    let votes = |w: &World| w.talos.etcd.members.iter().filter(|m| !m.learner).count();
    ground.wait("it votes again", |w| votes(w) == 3).await;

    // One that is gone is removed by another; twice is as once.
    mac.shutdown(&ground.permit, true).await.unwrap();
    ground.wait("it is off", |w| w.talos.nodes[MAC].off).await;
    let nuc = ground.talos(NUC).await;
    let members = nuc.etcd_members(false).await.unwrap();
    let member = members.iter().find(|member| member.hostname == MAC).unwrap();
    for _ in 0..2 {
        nuc.etcd_remove(&ground.permit, member).await.unwrap();
        assert_eq!(ground.read(names), [NUC, VM]);
    }
    assert_eq!(nuc.etcd_members(true).await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_is_made_by_every_version_and_written_down() {
    let mut all = 0;
    for (version, next) in VERSIONS {
        let ground = Ground::new(version).await;
        power(&ground).await;
        let powered = ground.all_noted();
        configs(&ground, version).await;
        let configured = ground.all_noted();
        images(&ground, version, next).await;
        let upgraded = ground.all_noted();
        members(&ground).await;
        let changes = ground.all_noted();
        let apart = version >= "1.13";
        let expected = [
            3,
            5 + usize::from(version.starts_with("1.14")),
            // The wrong image, the right one, back, and back to nothing; pulled, written and rebooted one by one.
            if apart { 6 } else { 4 },
            7,
        ];
        let made = [powered, configured - powered, upgraded - configured, changes - upgraded];
        assert_eq!(made, expected, "{version}: {:#?}", ground.notebook.notes());
        all += changes;
    }
    println!("{all} changes");
    assert!(all > 70);
}
