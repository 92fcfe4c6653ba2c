//! `node-replace` on the lab: another machine in the place of one, alive or dead, control plane or worker, under a name of
//! its own or the same; never an etcd without its majority, and never a disk wiped that nobody gave.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic, and says its counts")]

mod alone;
mod back;
mod findings;
mod least;
mod odd;
mod proven;
mod refused;
mod told;
mod walk;

use std::collections::BTreeSet;

use crate::harness::estate::{Rig, at_rest_after};
use crate::harness::same::assert_done;
use crate::harness::{How, Run, calls, notes};
use pvemig::engine::run::{Ended, Why};
use pvemig::lab::World;
use pvemig::lab::talos::lost::Loss;
use serde_json::Value;

const WORLD: &str = "talos-replace";
const VOLUME: &str = "pvc-6f0c1d52-9f0e-4a53-8f0e-0d6b5a1c4900";

/// One of the eight.
#[derive(Debug, Clone, Copy)]
struct Case {
    migration: &'static str,
    old: &'static str,
    new: &'static str,
    /// The serial number of the new disk.
    disk: &'static str,
    dead: bool,
    worker: bool,
}

impl Case {
    fn same_name(&self) -> bool {
        self.old == self.new
    }

    fn consents(&self) -> Vec<String> {
        let mut all = vec![format!("disk/{}", self.disk)];
        all.extend((!self.worker).then(|| format!("etcd/{}", self.old)));
        all.extend((!self.same_name()).then(|| format!("node/{}", self.old)));
        all.extend(self.dead.then(|| format!("off/{}", self.old)));
        all
    }

    fn consenting(&self) -> How {
        How { consents: self.consents(), ..How::default() }
    }
}

const MAC: Case = Case {
    migration: "replace-mac",
    old: "talos-mac",
    new: "talos-mac2",
    disk: "S2ZRNYAH500750",
    dead: false,
    worker: false,
};
const MAC_IN_PLACE: Case = Case { migration: "replace-mac-in-place", new: "talos-mac", disk: "S2ZRNYAH500751", ..MAC };
const WORKER: Case = Case {
    migration: "replace-worker",
    old: "talos-worker",
    new: "talos-worker2",
    disk: "22135D800031",
    dead: false,
    worker: true,
};
const WORKER_IN_PLACE: Case =
    Case { migration: "replace-worker-in-place", new: "talos-worker", disk: "22135D800032", ..WORKER };

/// The world of a case, with its migration alone.
async fn rig_with(case: Case, change: impl FnOnce(&mut World), edit: impl FnOnce(&mut Value)) -> Rig {
    let mut world = if case.dead {
        at_rest_after(WORLD, case.old, |world| {
            world.talos.lost.insert(case.old.to_owned(), Loss::Dead);
        })
    } else {
        at_rest_after(WORLD, "", |_| {})
    };
    change(&mut world);
    Rig::of(world, |site| {
        site["migrations"].as_object_mut().unwrap().retain(|name, _| name == case.migration);
        edit(site);
    })
    .await
}

async fn rig(case: Case) -> Rig {
    rig_with(case, |_| {}, |_| {}).await
}

fn why(run: &Run) -> (&str, String) {
    let Ok(Ended::Stopped(stop)) = &run.ended else { panic!("{:#?}", run.ended) };
    let text = match &stop.why {
        Why::Blocked(problems) => {
            problems.iter().map(|p| format!("{}; {}", p.text, p.help)).collect::<Vec<_>>().join("\n")
        }
        Why::Failed { error, help, .. } => format!("{}\n{}", error.join(": "), help.join("\n")),
        other => format!("{other:?}"),
    };
    (stop.key.as_str(), text)
}

/// The consent that a refusal asks for.
fn word(text: &str) -> String {
    let (_, rest) = text.split_once("add `--destroy ").unwrap_or_else(|| panic!("{text}"));
    rest.split('`').next().unwrap().to_owned()
}

/// Goes on with a run; where a person is asked for his word that the old machine is off, that is given.
async fn resumed(rig: &Rig, id: &str, how: &How) -> Run {
    let run = rig.forward(Some(id), how).await;
    let Ok(Ended::Stopped(_)) = &run.ended else { return run };
    let (_, text) = why(&run);
    let word = word(&text);
    assert!(word.starts_with("off/"), "{text}");
    rig.forward(Some(id), &How { consents: vec![word], ..How::default() }).await
}

/// The names of all voters; none may be a learner.
fn voters(rig: &Rig) -> BTreeSet<String> {
    rig.lab.shared().read(|w| {
        let members = &w.talos.etcd.members;
        assert!(members.iter().all(|m| !m.learner), "{members:?}");
        members.iter().map(|m| m.name.clone()).collect()
    })
}

/// What must hold at every moment: one etcd, with its majority, and no disk wiped but the one that was given.
fn assert_safe(rig: &Rig, case: Case, what: &str) {
    let (clusters, led, wiped) =
        rig.lab.shared().read(|w| (w.etcd_clusters(), w.talos.etcd.leader.is_some(), w.talos.wiped.clone()));
    assert_eq!((clusters, led), (1, true), "{what}");
    assert!(wiped.iter().all(|w| w.serial == case.disk) && wiped.len() <= 1, "{what}: {wiped:#?}");
}

/// The new one is in, and nothing of the old one is left.
async fn assert_replaced(rig: &Rig, case: Case, what: &str) {
    assert_safe(rig, case, what);
    let (wiped, old_on) =
        rig.lab.shared().read(|w| (w.talos.wiped.len(), !case.same_name() && w.talos.nodes[case.old].run.is_some()));
    assert_eq!((wiped, old_on), (1, false), "{what}");
    let mut names: BTreeSet<String> = ["talos-nuc", "talos-vm", "talos-mac"].map(str::to_owned).into();
    if !case.worker {
        names.remove(case.old);
        names.insert(case.new.to_owned());
    }
    assert_eq!(voters(rig), names, "{what}");
    let kube = rig.estate.kubernetes(rig.site.kubernetes.keys().next().unwrap()).await.unwrap();
    let node = kube.node(case.new).await.unwrap().unwrap();
    assert!(node.is_ready() && !node.unschedulable && node.meta.mark().unwrap().is_none(), "{what}: {node:#?}");
    let uuid = rig.lab.shared().read(|w| w.talos.nodes[case.new].uuid.clone());
    assert_eq!(node.system_uuid, uuid, "{what}");
    assert!(kube.node_lease(case.new).await.unwrap().is_some(), "{what}");
    if !case.same_name() {
        assert_eq!(kube.node(case.old).await.unwrap(), None, "{what}");
        assert_eq!(kube.node_lease(case.old).await.unwrap(), None, "{what}");
    }
}

/// From the first to the last step, and once more.
async fn replace(case: Case) {
    let what = format!("{case:?}");
    let rig = rig(case).await;
    let kube = rig.estate.kubernetes(rig.site.kubernetes.keys().next().unwrap()).await.unwrap();
    let uid = kube.node(case.old).await.unwrap().unwrap().meta.uid;
    let run = rig.forward(None, &case.consenting()).await;
    assert_done(&run, &what);
    assert_replaced(&rig, case, &what).await;
    assert_eq!(calls(&run.records), rig.changes(), "{what}");
    // What belonged to the old machine is accounted for.
    told::assert_told(&run, case, &uid);
    let before = rig.changes();
    let second = rig.forward(None, &How::default()).await;
    assert_done(&second, &format!("{what}, once more"));
    assert_eq!((calls(&second.records), rig.changes()), (0, before), "{what}: a second run changes nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_control_plane_gives_way_to_one_of_another_name() {
    replace(Case { dead: true, ..MAC }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_control_plane_gives_way_to_one_of_its_name() {
    replace(Case { dead: true, ..MAC_IN_PLACE }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_living_control_plane_gives_way_to_one_of_another_name() {
    replace(MAC).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_living_control_plane_gives_way_to_one_of_its_name() {
    replace(MAC_IN_PLACE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_worker_gives_way_to_one_of_another_name() {
    replace(Case { dead: true, ..WORKER }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_worker_gives_way_to_one_of_its_name() {
    replace(Case { dead: true, ..WORKER_IN_PLACE }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_living_worker_gives_way_to_one_of_another_name() {
    replace(WORKER).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_living_worker_gives_way_to_one_of_its_name() {
    replace(WORKER_IN_PLACE).await;
}
