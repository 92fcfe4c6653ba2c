//! What a node's turn does and settles: how a VM is power-cycled, and what stops the run before the next node.

use std::time::Duration;

use pvemig::engine::run::Why;
use pvemig::lab::{Class, Front};
use pvemig::lint;

use super::{rig, starts, stop};
use crate::harness::How;
use crate::harness::same::assert_done;

/// The changing requests that name a power call, in order.
fn power(rig: &crate::harness::estate::Rig) -> Vec<String> {
    let calls = ["/Reboot", "/Shutdown", "/status/start", "/status/shutdown", "/status/reboot", "/status/stop"];
    let seen = rig.lab.shared().log.seen().into_iter().filter(|seen| seen.class == Class::Change);
    let called = seen.filter_map(|seen| {
        let call = calls.iter().find(|call| seen.line.contains(*call))?;
        assert!(matches!(seen.front, Front::Talos | Front::Proxmox), "{seen:?}");
        Some(format!("{:?} {}", seen.front, &call[1..]))
    });
    called.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_goes_off_by_talos_and_on_by_proxmox_and_gets_what_is_pending() {
    let rig = rig("talos-three", &["talos-vm"], |w| {
        w.vms.get_mut(&223).unwrap().pending.insert("cores".into(), "6".into());
    })
    .await;
    // The config's first section is what a running process has.
    let process = || {
        rig.lab.shared().read(|w| {
            let vm = &w.vms[&223];
            (vm.running.as_ref().unwrap().pid, vm.config.get("cores").cloned())
        })
    };
    let (pid, cores) = process();
    assert_eq!(cores.as_deref(), Some("4"));
    assert_done(&rig.forward(None, &How::default()).await, "a VM");
    assert_eq!(power(&rig), ["Talos Shutdown", "Proxmox status/start"]);
    let (after, cores) = process();
    assert_ne!(after, pid, "a reset of the old process would keep its pid");
    assert_eq!(cores.as_deref(), Some("6"));
    assert_eq!(starts(&rig)["talos-vm"], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metal_is_power_cycled_by_talos_alone() {
    let rig = rig("talos-three", &["talos-nuc"], |_| {}).await;
    assert_done(&rig.forward(None, &How::default()).await, "metal");
    assert_eq!(power(&rig), ["Talos Reboot"]);
}

/// The VM loses the agent's channel with its power cycle: the extension waits for it, and Talos with that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_come_up_whole_stops_the_run_before_the_next() {
    let rig = rig("talos-three", &["talos-vm", "talos-nuc"], |w| {
        w.vms.get_mut(&223).unwrap().pending_delete.insert("agent".into(), false);
    })
    .await;
    // Nobody waits a quarter of an hour here for what does not come: the lab's time is a hundred times as fast.
    let run = rig.forward(None, &How { limit: Some(Duration::from_secs(20)), ..How::default() }).await;
    let stop = stop(&run);
    assert_eq!(stop.key.as_str(), "05-verify-boot@talos-vm");
    let said = match &stop.why {
        Why::Failed { error, help, .. } => format!("{} {}", error.join(" "), help.join(" ")),
        other => format!("{other:?}"),
    };
    assert!(said.contains("ext-qemu-guest-agent"), "{said}");
    // The next node is neither rebooted nor touched; this one stays cordoned, by our hold.
    assert_eq!((starts(&rig)["talos-vm"], starts(&rig)["talos-nuc"]), (2, 1));
    assert_eq!(power(&rig), ["Talos Shutdown", "Proxmox status/start"]);
    let state = rig.bench.read(&run.id).state;
    let up: Vec<_> = state.holds_up().into_iter().map(|key| key.to_string()).collect();
    assert_eq!(up, ["02-drain@talos-vm"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_repair_everything_is_green_afterwards() {
    let mut worlds = 0;
    for (world, rule) in [("talos-three-no-modules", "L01"), ("talos-three-wrong-image", "L02")] {
        let rig = rig(world, &["talos-mac", "talos-vm", "talos-nuc"], |_| {}).await;
        let rules = async || {
            let mut survey = rig.estate.survey(&[]).await.unwrap();
            for node in &mut survey.nodes {
                // How fast this machine is says nothing of the world.
                if let pvemig::base::survey::Layer::Known(seat) = &mut node.etcd {
                    seat.answered_ms = 1;
                }
            }
            let wrong: Vec<_> = survey.nodes.iter().flat_map(|node| node.wrong()).collect();
            let looked = lint::look(&survey);
            let found: Vec<_> = looked.findings.iter().map(|finding| finding.rule).collect();
            assert_eq!(looked.unlooked, []);
            assert_eq!(survey.nodes.len(), 3);
            (wrong, found)
        };
        let (wrong, found) = rules().await;
        assert!(!wrong.is_empty() && found.contains(&rule), "{wrong:?} {found:?}");
        assert_done(&rig.forward(None, &How::default()).await, world);
        drop(rig.picture().await);
        assert_eq!(rules().await, (Vec::new(), Vec::new()), "{world}");
        worlds += 1;
    }
    assert_eq!(worlds, 2);
}
