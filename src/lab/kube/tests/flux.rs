//! What follows from what is pushed.

use serde_json::{Value, json};

use super::{SOURCE, Sim, TARGET, volume_of};
use crate::lab::kube::fields::Writer;
use crate::lab::kube::json::{self as place, text};
use crate::lab::kube::{kinds, patch};

#[test]
fn flux_applies_what_it_follows_and_leaves_what_is_suspended() {
    let mut sim = Sim::new();
    let image = |sim: &Sim| {
        let deployment = sim.get(kinds::deployments(), "frigate", "frigate").unwrap();
        text(&deployment, "/spec/template/spec/containers/0/image").to_owned()
    };
    let file = "apps/frigate/deployment.yaml";
    // Its source is looked at every minute, however long there was nothing to see.
    sim.pass(850);
    sim.push(file, "frigate:0.16.1", "frigate:0.16.2");
    sim.pass(90);
    assert!(image(&sim).ends_with(":0.16.2"));
    // Suspended by a manager that Flux tolerates: the root's runs leave it so.
    let suspend = |sim: &mut Sim, manager: &str| {
        let object = sim.get(kinds::kustomizations(), "flux-system", "apps").unwrap();
        sim.change(|w| {
            w.kube.store.edit(kinds::kustomizations(), &object, Writer::new(manager), |k| {
                place::set(k, &["spec", "suspend"], true);
            });
        });
    };
    suspend(&mut sim, "pvemig");
    sim.push(file, "frigate:0.16.2", "frigate:0.16.3");
    sim.pass(1_300);
    assert!(image(&sim).ends_with(":0.16.2"));
    // By kubectl: the parent takes the field over and drops it, and everything that has waited lands.
    sim.edit(kinds::kustomizations(), "flux-system", "apps", |k| {
        place::unset(k, &["spec", "suspend"]);
    });
    sim.pass(10);
    assert!(image(&sim).ends_with(":0.16.3"));
    suspend(&mut sim, "kubectl-patch");
    sim.pass(1_300);
    let apps = sim.get(kinds::kustomizations(), "flux-system", "apps").unwrap();
    assert!(apps.pointer("/spec/suspend").is_none(), "{apps}");
    // A token is handled, and the condition is from after it.
    sim.edit(kinds::kustomizations(), "flux-system", "apps", |k| {
        place::set(k, &["metadata", "annotations", "reconcile.fluxcd.io/requestedAt"], "t1");
    });
    let apps = sim.get(kinds::kustomizations(), "flux-system", "apps").unwrap();
    assert_ne!(text(&apps, "/status/lastHandledReconcileAt"), "t1");
    assert!(place::holds(&apps, "Reconciling"));
    sim.pass(5);
    let apps = sim.get(kinds::kustomizations(), "flux-system", "apps").unwrap();
    assert_eq!(text(&apps, "/status/lastHandledReconcileAt"), "t1");
    assert!(place::holds(&apps, "Ready") && !place::holds(&apps, "Reconciling"));
}

#[test]
fn flux_brings_back_what_somebody_deletes_and_prunes_what_git_drops() {
    let mut sim = Sim::new();
    sim.delete(kinds::configmaps(), "frigate", "frigate-config");
    sim.pass(700);
    assert!(sim.get(kinds::configmaps(), "frigate", "frigate-config").is_some());
    sim.push("apps/home/kustomization.yaml", "  - whoami.yaml\n", "");
    sim.pass(120);
    assert!(sim.get(kinds::deployments(), "home", "whoami").is_none());
    assert_eq!(sim.pods("home").len(), 1);
    sim.push("apps/home/kustomization.yaml", "mosquitto.yaml", "none.yaml");
    sim.pass(120);
    let apps = sim.get(kinds::kustomizations(), "flux-system", "apps").unwrap();
    assert_eq!(place::condition(&apps, "Ready").map(|c| text(c, "/reason")), Some("BuildFailed"));
    assert_ne!(text(&apps, "/status/lastAppliedRevision"), text(&apps, "/status/lastAttemptedRevision"));
}

#[test]
fn the_workload_moves_with_its_claims_when_git_says_so() {
    let mut sim = Sim::new();
    let label = |node: &str, value: Value, sim: &mut Sim| {
        sim.edit(kinds::nodes(), "", node, |n| patch::merge(n, &json!({"metadata": {"labels": {"coral": value}}})));
    };
    for claim in ["frigate-config", "frigate-media"] {
        let volume = volume_of(&sim, claim);
        sim.edit(kinds::volumes(), "", &volume, |v| {
            place::set(v, &["spec", "persistentVolumeReclaimPolicy"], "Retain")
        });
    }
    sim.edit(kinds::kustomizations(), "flux-system", "apps", |k| place::set(k, &["spec", "suspend"], true));
    sim.scale(0);
    sim.pass(20);
    label(SOURCE, Value::Null, &mut sim);
    label(TARGET, "true".into(), &mut sim);
    let file = "apps/frigate/deployment.yaml";
    for (from, to) in [
        ("kubernetes.io/hostname: k3s-vm-pumped-piglet", "coral: \"true\""),
        ("      runtimeClassName: nvidia\n", ""),
        ("              nvidia.com/gpu: \"1\"\n", ""),
    ] {
        sim.push(file, from, to);
    }
    // Without the claims taken away the pod has no place: its volumes are on the source.
    sim.edit(kinds::kustomizations(), "flux-system", "apps", |k| {
        place::unset(k, &["spec", "suspend"]);
    });
    sim.pass(120);
    let pod = &sim.pods("frigate")[0];
    let why = place::condition(pod, "PodScheduled").map_or("", |c| text(c, "/message"));
    assert!(why.contains("1 node(s) had volume node affinity conflict"), "{why}");
    assert!(why.contains("2 node(s) didn't match Pod's node affinity/selector"), "{why}");
    for claim in ["frigate-config", "frigate-media"] {
        sim.delete(kinds::claims(), "frigate", claim);
    }
    // Flux makes them again at its next run, and the pod that waits decides where.
    sim.pass(700);
    let pod = &sim.pods("frigate")[0];
    assert_eq!((text(pod, "/spec/nodeName"), place::holds(pod, "Ready")), (TARGET, true), "{pod}");
    assert!(pod.pointer("/spec/runtimeClassName").is_none());
    let fresh: Vec<u64> =
        sim.world.vms[&108].guest.used.iter().filter(|(p, _)| p.contains("_frigate_")).map(|(_, n)| *n).collect();
    assert_eq!(fresh.iter().sum::<u64>(), 1_048_576 + 8_388_608);
    let released = sim.world.kube.store.list(kinds::volumes(), None).filter(|v| text(v, "/status/phase") == "Released");
    assert_eq!(released.count(), 2);
}
