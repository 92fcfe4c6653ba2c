//! An etcd that lives where the site file names nobody of it: no machine joins it past the gate, and none begins a second.

use std::time::Duration;

use pvemig::base::check::{Answer, Check};
use pvemig::lab::{FaultEffect, FaultRule};
use pvemig::lint;
use serde_json::json;

use super::refused::stops;
use super::*;

const NEW: &str = "talos-mac2";

/// A cluster of which the site file knows the new machine alone.
pub(super) async fn rig_of_one(change: impl FnOnce(&mut World)) -> Rig {
    let mut world = at_rest("talos-dead-node");
    change(&mut world);
    Rig::of(world, |site| {
        let node = site["migrations"]["replace-mac"]["params"]["new"].clone();
        site["talos"]["homelab"]["nodes"].as_object_mut().unwrap().retain(|name, _| name == NEW);
        let params = json!({ "talos": "homelab", "nodes": [node] });
        site["migrations"] = json!({ "build": { "blueprint": "cluster-build", "params": params } });
    })
    .await
}

fn how() -> How {
    How { consents: vec!["disk/S2ZRNYAH500750".into()], limit: Some(Duration::from_secs(6)), ..How::default() }
}

/// What one step says now, in a run.
pub(super) async fn ask(rig: &Rig, id: &str, key: &str, how: &How) -> Check<Value> {
    let mut info = rig.bench.store.info(id, "here").unwrap();
    info.consents = how.consents.iter().cloned().map(pvemig::base::permit::Thing).collect();
    let (held, step) = (BTreeMap::new(), rig.steps.iter().find(|step| step.key().as_str() == key).unwrap());
    step.check(&rig.estate, Seen { since: None, got: &[], held: &held, run: &info }).await.unwrap()
}

/// What is in the way, with its help.
fn blocked(check: &Check<Value>) -> String {
    let Answer::Blocked { problems } = &check.answer else { panic!("{check:#?}") };
    problems.iter().map(|problem| format!("{}; {}\n", problem.text, problem.help)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_joins_or_begins_an_etcd_beside_one_that_lives() {
    let rig = rig_of_one(|_| {}).await;
    let words = [
        "` answers, and has 3 nodes: an etcd with its majority lives",
        "no node of homelab in the site file tells its members",
        "would be a second cluster",
        "`talos.homelab.nodes`",
    ];
    let refused = rig.forward(None, &how()).await;
    assert_eq!(why(&refused).0, "00-preflight");
    stops(&rig, &how(), "00-preflight", &words).await;
    // By itself, as `pvemig step` asks it.
    let before = rig.changes();
    let text = blocked(&ask(&rig, &refused.id, &format!("02-apply-config@{NEW}"), &how()).await);
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
    assert_eq!(rig.changes(), before);
    assert_eq!(rig.lab.shared().read(|w| w.talos.etcd.members.len()), 3);
}

/// Kubernetes cannot be asked, so that the machine joins what discovery leads it to: that is said, and nothing leads on to
/// a reset of a member.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_has_joined_a_living_etcd_is_no_cluster_of_one() {
    let rig = rig_of_one(|w| w.talos.timing.learn = 100 * 3_600_000).await;
    rig.lab.fault(FaultRule::on(Front::Kubernetes, FaultEffect::Refuse));
    let run = rig.forward(None, &how()).await;
    let (key, text) = why(&run);
    assert_eq!(key, "04-bootstrap", "{text}");
    let words = ["talos-nuc is a control plane of homelab as discovery knows it", "add it to `talos.homelab.nodes`"];
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
    // It is a learner by now, if it was none before.
    let learner = |w: &World| w.etcd_of(NEW).is_some_and(|own| own.learner).then_some(());
    assert!(rig.lab.shared().until(Duration::from_secs(600), learner).await.is_some());
    let text = blocked(&ask(&rig, &run.id, "04-bootstrap", &how()).await);
    let words =
        ["has joined an etcd of which the site file names nobody, as a learner", "talos-nuc is a control plane"];
    assert!(words.iter().all(|word| text.contains(word)) && !text.contains("reset"), "{text}");
    assert_eq!(bootstraps(&rig), 0);
    assert_eq!(rig.lab.shared().read(|w| w.etcd_clusters()), 1);

    // With its vote it is one of four, of which the site file knows no other: nobody calls that whole.
    rig.lab.shared().clear_faults();
    rig.lab.shared().change(|w| {
        let own = w.talos.etcd.members.iter_mut().find(|member| member.name == NEW).unwrap();
        (own.learner, own.votes_at) = (false, None);
    });
    let run = rig.forward(Some(&run.id), &how()).await;
    let (key, text) = why(&run);
    assert_eq!(key, "07-verify", "{text}");
    let words = [
        "etcd has 4 voters, 1 healthy, 3 needed: no majority",
        "member talos-nuc (",
        "has a vote and is on no node of Talos cluster homelab in the site file",
    ];
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
    assert_eq!((bootstraps(&rig), rig.lab.shared().read(|w| w.etcd_clusters())), (0, 1));
}

/// The machine says that its etcd is there already.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_exists_already_is_looked_for() {
    let exists = "etcd data directory is not empty";
    // It has begun by that very call: its members show it.
    let rig = fresh().await;
    let rule = FaultRule::on(Front::Talos, FaultEffect::StatusAfter(409, exists.into())).path("*Bootstrap");
    rig.lab.fault(rule);
    let run = rig.forward(None, &consenting()).await;
    assert_done(&run, "begun");
    assert_built(&rig, "begun");
    assert_eq!(bootstraps(&rig), 1);
    // There is none, whatever it says: nothing goes on, and its words are told.
    let rig = fresh().await;
    rig.lab.fault(FaultRule::on(Front::Talos, FaultEffect::Status(409, exists.into())).path("*Bootstrap"));
    let run = rig.forward(None, &consenting()).await;
    let (key, text) = why(&run);
    assert_eq!(key, "04-bootstrap", "{text}");
    for word in
        [exists, "talos-nuc tells no members", "its etcd is Preparing", "logs etcd", "list /var/lib/etcd/member"]
    {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert_eq!((bootstraps(&rig), rig.lab.shared().read(|w| w.etcd_clusters())), (1, 0));
    rig.lab.shared().clear_faults();
    assert_done(&rig.forward(Some(&run.id), &How::default()).await, "after that");
    assert_built(&rig, "after that");
    assert_eq!(bootstraps(&rig), 2);
}

/// What is built has nothing that a survey finds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survey_of_what_was_built_is_green() {
    let rig = fresh().await;
    assert_done(&rig.forward(None, &consenting()).await, "build");
    rig.picture().await;
    let survey = rig.estate.survey(&[]).await.unwrap();
    assert_eq!(survey.nodes.len(), 3);
    let looked = lint::look(&survey);
    assert!(looked.findings.is_empty(), "{looked:#?}");
}
