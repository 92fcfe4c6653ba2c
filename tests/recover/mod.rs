//! `quorum-recover` on the lab: out of a lost majority with the objects of before, whatever happens on the way; never two
//! clusters, nothing wiped that was not given, and nothing without a copy of it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic, and says its counts")]

mod alone;
mod copies;
mod findings;
mod late;
mod least;
mod meanwhile;
mod path;
mod refused;
mod shown;

use std::collections::{BTreeMap, BTreeSet};

use crate::harness::estate::{Rig, at_rest};
use crate::harness::odd::{Way, make_odd};
use crate::harness::same::{assert_done, assert_same};
use crate::harness::scene::Scenes;
use crate::harness::{How, Run, calls, notes, points_expected};
use pvemig::base::check::Answer;
use pvemig::base::digest::sha256;
use pvemig::engine::event::Event;
use pvemig::engine::run::{Ended, Why};
use pvemig::engine::step::Seen;
use pvemig::lab::kube::kinds;
use pvemig::lab::{FaultEffect, FaultRule, Front, World};
use serde_json::{Value, json};

const DEADLOCK: &str = "talos-deadlock";
const NUC: &str = "talos-nuc";
const VM: &str = "talos-vm";
const MAC: &str = "talos-mac";

/// Objects by kind, namespace and name, with what somebody wrote in them.
type Objects = BTreeMap<String, Value>;

fn consenting() -> How {
    How { consents: [NUC, MAC].map(|node| format!("etcd/{node}")).into(), ..How::default() }
}

/// With the word that a machine never comes back.
fn vouching(node: &str) -> How {
    let mut how = consenting();
    how.consents.push(format!("gone/{node}"));
    how
}

/// What a step answers in a run (none: in a plan) that is given all consents; `since`: it has begun.
async fn asked(rig: &Rig, run: &str, key: &str, since: bool) -> pvemig::base::check::Check<Value> {
    asked_by(rig, run, key, since, &vouching(MAC)).await
}

/// The same with these consents.
async fn asked_by(rig: &Rig, run: &str, key: &str, since: bool, how: &How) -> pvemig::base::check::Check<Value> {
    let step = rig.steps.iter().find(|step| step.key().as_str() == key).unwrap();
    let mut info = rig.bench.store.info(run, "here").unwrap();
    info.consents = how.consents.iter().cloned().map(pvemig::base::permit::Thing).collect();
    let (held, before) = (BTreeMap::new(), json!({}));
    let since = since.then_some(&before);
    step.check(&rig.estate, Seen { since, got: &[], held: &held, run: &info }).await.unwrap()
}

/// What is in the way, by an answer.
fn blocked(check: &pvemig::base::check::Check<Value>) -> String {
    let Answer::Blocked { problems } = &check.answer else { panic!("{check:#?}") };
    problems.iter().map(|p| format!("{}; {}", p.text, p.help)).collect::<Vec<_>>().join("\n")
}

/// The lab of a world, with the steps of its migration `recover`.
async fn rig(world: &str, change: impl FnOnce(&mut World), edit: impl FnOnce(&mut Value)) -> Rig {
    let mut world = at_rest(world);
    // What a person wrote.
    let kind = kinds::nodes();
    let mut node =
        world.kube.store.all(kind).iter().find(|node| node["metadata"]["name"] == NUC).unwrap().as_ref().clone();
    node["metadata"]["annotations"]["example.org/rack"] = json!("left");
    node["spec"]["taints"] = json!([{ "key": "example.org/gpu", "value": "yes", "effect": "PreferNoSchedule" }]);
    world.kube.store.replace(kind, node, None).unwrap();
    change(&mut world);
    Rig::of(world, |site| {
        site["migrations"].as_object_mut().unwrap().retain(|name, _| name == "recover");
        edit(site);
    })
    .await
}

async fn deadlock() -> Rig {
    rig(DEADLOCK, |_| {}, |_| {}).await
}

/// What is in Kubernetes, but for what its controllers make anew.
fn objects(w: &World) -> Objects {
    let made = ["pods", "events", "leases", "endpointslices", "endpoints"];
    let written = |object: &Value| {
        let mut written = json!({});
        for part in ["spec", "data", "rules", "roleRef", "subjects", "provisioner"] {
            written[part] = object[part].clone();
        }
        for part in ["uid", "labels", "annotations"] {
            written[part] = object["metadata"][part].clone();
        }
        // Whether a node is reached is found out anew; what else it is tainted with is not.
        if let Some(spec) = written["spec"].as_object_mut() {
            let taints = spec.remove("taints").and_then(|taints| taints.as_array().cloned()).unwrap_or_default();
            let anew = |taint: &&Value| taint["key"].as_str().unwrap().starts_with("node.kubernetes.io/");
            written["taints"] = taints.iter().filter(|taint| !anew(taint)).cloned().collect();
        }
        written
    };
    let all = w.kube.store.everything().filter(|(key, _)| !made.contains(&key.resource));
    all.map(|(key, object)| (format!("{} {}/{}", key.resource, key.namespace, key.name), written(object))).collect()
}

/// Neither nothing nor empty.
fn is_said(value: &Value) -> bool {
    !matches!(value, Value::Null) && *value != json!({}) && *value != json!([])
}

/// What must hold at every moment: one etcd at most, and of the disks only what was named.
fn assert_safe(rig: &Rig, what: &str) {
    let (clusters, wiped) = rig.lab.shared().read(|w| (w.etcd_clusters(), w.talos.wiped.clone()));
    assert!(clusters <= 1, "{what}: {clusters} clusters");
    assert!(
        wiped.iter().all(|w| w.held == ["EPHEMERAL"] && [NUC, MAC].contains(&w.node.as_str())),
        "{what}: {wiped:#?}"
    );
    let nodes: BTreeSet<&str> = wiped.iter().map(|w| w.node.as_str()).collect();
    assert_eq!(nodes.len(), wiped.len(), "{what}: {wiped:#?}");
    // Nothing is wiped of which no copy is held.
    let held = held(rig);
    assert!(nodes.iter().all(|node| held.contains(*node)), "{what}: {nodes:?} are wiped, and {held:?} are held");
}

/// The nodes of whose etcd a run has a copy that is what its list says.
fn held(rig: &Rig) -> BTreeSet<String> {
    let mut held = BTreeSet::new();
    for run in std::fs::read_dir(rig.bench.store.dir().join("runs")).into_iter().flatten() {
        let files = run.unwrap().path().join("files/01-save-copy");
        let Ok(list) = std::fs::read(files.join("copies.json")) else { continue };
        let list: Value = serde_json::from_slice(&list).unwrap();
        for copy in list.as_array().unwrap() {
            let content = std::fs::read(files.join(copy["file"].as_str().unwrap())).unwrap_or_default();
            if copy["sha256"] == sha256(&content) {
                held.extend(copy["node"].as_str().map(str::to_owned));
            }
        }
    }
    held
}

/// The members with a vote, all there are.
fn voters(rig: &Rig) -> Vec<String> {
    rig.lab.shared().read(|w| {
        assert!(w.talos.etcd.members.iter().all(|member| !member.learner));
        w.talos.etcd.members.iter().map(|member| member.name.clone()).collect()
    })
}

fn assert_recovered(rig: &Rig, before: &Objects, what: &str) {
    assert_safe(rig, what);
    let (clusters, leader, now) =
        rig.lab.shared().read(|w| (w.etcd_clusters(), w.talos.etcd.leader.is_some(), objects(w)));
    assert_eq!((clusters, leader), (1, true), "{what}");
    assert_eq!(voters(rig), [NUC, MAC], "{what}");
    for (key, object) in before {
        assert_eq!(now.get(key), Some(object), "{what}: {key}");
    }
    assert!(before.len() > 20, "{}", before.len());
}

/// The nodes as they are compared, once those that are left are booted through: nothing is ever at rest on one that is off.
async fn talos(rig: &Rig) -> Value {
    let booted =
        |w: &World| [NUC, MAC].iter().all(|name| w.talos.nodes[*name].run.as_ref().is_some_and(|run| run.booted));
    let found = rig.lab.shared().until(std::time::Duration::from_secs(900), |w| booted(w).then_some(())).await;
    assert!(found.is_some());
    rig.lab.compared()["talos"].clone()
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadlock_is_left_with_the_objects_intact_and_a_second_run_changes_nothing() {
    let rig = deadlock().await;
    let before = rig.lab.shared().read(objects);
    let run = rig.forward(None, &consenting()).await;
    assert_done(&run, "recovered");
    let with = |part: &str| before.values().filter(|object| object.pointer(part).is_some_and(is_said)).count();
    let counts = ["/uid", "/labels", "/annotations", "/taints"].map(with);
    assert_eq!(counts[0], before.len());
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    assert_recovered(&rig, &before, "recovered");
    // Two resets, the copy, and the beginning.
    assert_eq!((calls(&run.records), rig.changes()), (4, 4));
    let wiped: Vec<String> = rig.lab.shared().read(|w| w.talos.wiped.iter().map(|w| w.node.clone()).collect());
    assert_eq!(wiped, [MAC, NUC], "the one that it begins on comes last");
    let said = notes(&run, "00-preflight");
    for part in
        ["2 voters, 1 healthy, 2 needed: no majority", "vm 223 (talos-vm) is there and off", "a learner without a vote"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    let said = notes(&run, "05-verify");
    for part in ["2 voters, 2 healthy", "the Node talos-vm is still there", "nothing may come back with its old disk"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // What was down is back when 05 finds it at work, and nothing keeps what is off from being started but a person.
    for node in [MAC, NUC] {
        let outages =
            pvemig::report::outages(&run.records, node, &format!("02-wipe-etcd@{node}").as_str().into(), "05-verify");
        let ends: Vec<_> = outages.iter().map(|outage| &outage.end).collect();
        assert!(matches!(ends[..], [pvemig::report::End::Ready(_)]), "{ends:?}");
    }
    let second = rig.forward(None, &How::default()).await;
    assert_done(&second, "second");
    assert_eq!((calls(&second.records), rig.changes()), (0, 4), "a second run changes nothing");
    for step in ["00-preflight", "01-save-copy", "02-wipe-etcd@talos-mac", "02-wipe-etcd@talos-nuc"] {
        let said = notes(&second, step);
        assert!(said.contains("not needed: etcd has 2 voters, 2 healthy"), "{step}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_survivor_of_three_is_enough() {
    let rig = rig("talos-no-quorum", |_| {}, |_| {}).await;
    let before = rig.lab.shared().read(objects);
    let run = rig.forward(None, &vouching(MAC)).await;
    assert_done(&run, "recovered");
    assert_safe(&rig, "recovered");
    assert_eq!((voters(&rig), rig.changes()), (vec![NUC.to_owned()], 3));
    let now = rig.lab.shared().read(objects);
    assert!(before.len() > 20 && before.iter().all(|(key, object)| now.get(key) == Some(object)));
    let said = notes(&run, "00-preflight");
    assert!(said.contains("3 voters, 1 healthy, 2 needed: no majority"), "{said}");
    assert!(said.contains("talos-mac waits for a first configuration"), "{said}");
    let said = notes(&run, "05-verify");
    for part in ["talos-vm is lost: the Node talos-vm is still there: `node-replace`", "talos-mac is lost: the Node"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let second = rig.forward(None, &How::default()).await;
    assert_done(&second, "second");
    assert_eq!((calls(&second.records), rig.changes()), (0, 3));
}

/// A process that is stopped at any point: the next one goes on, and ends where an undisturbed one does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovery_that_is_cut_anywhere_is_finished_by_a_resume() {
    let mut rig = deadlock().await;
    let before = rig.lab.shared().read(objects);
    let (run, Scenes { points, settled }) = rig.watched(None, &consenting()).await;
    assert_done(&run, "undisturbed");
    assert_recovered(&rig, &before, "undisturbed");
    assert_eq!((points.len(), settled.len()), (points_expected(&run.records), rig.steps.len() + 1));
    let last = talos(&rig).await;
    for (point, scene) in &points {
        let what = format!("{point:?}");
        rig.go_back(scene);
        assert_safe(&rig, &what);
        assert_done(&rig.forward(Some(&run.id), &consenting()).await, &what);
        assert_recovered(&rig, &before, &what);
        assert_same(&talos(&rig).await, &last, &what);
    }
    println!("crash {DEADLOCK}: {} points cut and resumed", points.len());
    assert!(points.len() > 20, "{}", points.len());
}

/// In every state between steps: a question changes nothing, at its turn no step is blocked, and one that fails fails
/// there, and is gone on with; nothing of it is taken back, and that is said before anything is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovery_is_proven_forwards() {
    let mut rig = deadlock().await;
    let before = rig.lab.shared().read(objects);
    let (run, Scenes { settled, .. }) = rig.watched(None, &consenting()).await;
    assert_done(&run, "undisturbed");
    let (last, steps) = (talos(&rig).await, rig.steps.len());
    let (mut asked, mut failed, mut stopped) = (0, 0, 0);
    for (n, scene) in settled.iter().enumerate() {
        rig.go_back(scene);
        let changes = rig.changes();
        for (k, step) in rig.steps.iter().enumerate() {
            let mut info = rig.bench.store.info(&run.id, "here").unwrap();
            info.consents = consenting().consents.into_iter().map(pvemig::base::permit::Thing).collect();
            let held = BTreeMap::new();
            let answer = step.check(&rig.estate, Seen { since: None, got: &[], held: &held, run: &info }).await;
            if k == n {
                let blocked = matches!(&answer, Ok(check) if matches!(check.answer, Answer::Blocked { .. }));
                assert!(answer.is_ok() && !blocked, "{} at its turn: {answer:#?}", step.key());
            }
            asked += 1;
        }
        assert_eq!(rig.changes(), changes, "a check changed something after {n} steps");
        if n < steps {
            let key = rig.steps[n].key();
            let applied = |event: &Event| matches!(event, Event::Applied { key: of, .. } if *of == key);
            let applies = run.records.iter().any(|r| applied(&r.event));
            make_odd(&mut rig, if applies { Way::NoApply } else { Way::NoCheck }, |k| k == n);
            let odd = rig.forward(Some(&run.id), &consenting()).await;
            assert_eq!(why(&odd).0, key.as_str());
            rig.mend();
            assert_done(&rig.forward(Some(&run.id), &consenting()).await, &format!("after a failure of {key}"));
            assert_recovered(&rig, &before, &format!("after a failure of {key}"));
            assert_same(&talos(&rig).await, &last, &format!("after a failure of {key}"));
            failed += 1;
        }
        if n > 0 {
            rig.go_back(scene);
            let changes = rig.changes();
            let undo = rig.backward(&run.id, &How::default()).await;
            let wiped = rig.lab.shared().read(|w| w.talos.wiped.len());
            match &undo.ended {
                Ok(Ended::Undone) => assert_eq!(wiped, 0, "after {n}"),
                Ok(Ended::Stopped(stop)) => {
                    assert!(wiped > 0 && matches!(stop.why, Why::Consent { .. }), "after {n}: {stop:#?}");
                    stopped += 1;
                }
                other => panic!("after {n}: {other:#?}"),
            }
            assert_eq!(rig.changes(), changes, "after {n}");
        }
    }
    println!(
        "prove {DEADLOCK}: {steps} steps, {asked} checks asked, {failed} failed and resumed, {stopped} undos refused"
    );
    assert_eq!((asked, failed), ((steps + 1) * steps, steps));
    assert!(stopped >= 4, "{stopped}");
}

/// The way back, as far as there is one; steps applied twice; questions answered badly.
mod oneway {
    use super::*;
    use crate::harness::faults::rules;
    use crate::harness::oneway::Proof;

    fn proof() -> Proof<'static, impl AsyncFn() -> Rig, impl AsyncFn(&Rig) -> Value, impl AsyncFn(&Rig, &str)> {
        Proof {
            name: DEADLOCK,
            fresh: async || deadlock().await,
            how: consenting,
            look: async |rig: &Rig| talos(rig).await,
            safe: |rig, what| {
                assert_safe(rig, what);
                rig.lab.shared().read(|w| !w.talos.wiped.is_empty())
            },
            good: async |rig: &Rig, what: &str| {
                let before = deadlock().await.lab.shared().read(objects);
                assert_recovered(rig, &before, what);
            },
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_recovery_that_is_cut_anywhere_is_undone_or_says_what_stays() {
        println!("{}", proof().is_cut_and_undone().await);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_recovery_whose_steps_are_applied_twice_is_the_same() {
        proof().is_the_same_applied_twice().await;
    }

    /// Every changing call fails once by each rule: two resets, the copy, and the beginning.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_recovery_survives_failing_changes() {
        let calls = (0..4).flat_map(|n| rules().map(|rule| (Front::Talos, n, rule)));
        // The copy may take ten minutes: the wire tests have its silence.
        let calls = calls.filter(|(_, n, rule)| *n != 2 || *rule != FaultEffect::Hang);
        assert_eq!(proof().survives_failing_changes(calls.collect(), &How::default()).await, 15);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_recovery_survives_failing_questions() {
        // Neither of them is a copy, which may take ten minutes.
        println!("{}", proof().survives_failing_reads(&[(Front::Talos, 24), (Front::Proxmox, 1)]).await);
    }
}
