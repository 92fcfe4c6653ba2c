//! As `least`, where there is Mayastor, with everything that the verb prints: there, again and back without one refusal.

use pvemig::base::check::Answer;
use pvemig::engine::step::{RunInfo, Seen};
use pvemig::lab::kube::kinds;

use super::*;
use crate::harness::rights::{administrator, grant, privileges_with, refused, without};

const USER: &str = "system:serviceaccount:kube-system:pvemig";
const MIGRATION: &str = "nuc-drives";

/// A world whose kubeconfig has exactly the rights that the verb prints.
async fn least() -> (Rig, Value) {
    let mut world = at_rest("nvme-data");
    world.cluster_user = Some(USER.into());
    let rig = Rig::of(world, |_| {}).await;
    let (client, printed) = (administrator(&rig).await, privileges_with(&rig, MIGRATION, &["--with-optional"]));
    assert_eq!(printed["kubernetes"]["user"], USER);
    grant(&client, &printed).await;
    (rig, printed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_printed_is_enough_there_again_and_back() {
    let (rig, _) = least().await;
    let granted = rig.changes();
    let run = rig.forward(None, &How::default()).await;
    assert_done(&run, "with the least");
    assert_eq!(calls(&run.records), rig.changes() - granted);
    assert_done(&rig.forward(None, &How::default()).await, "again");
    assert_undone(&rig.backward(&run.id, &How::default()).await, "back");
    let refused: Vec<Value> = refused(&rig);
    assert!(refused.is_empty(), "{refused:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_right_that_is_printed_is_asked_for_by_the_preflight() {
    let (rig, printed) = least().await;
    let rights = printed["kubernetes"]["rights"].as_array().unwrap();
    let (shared, info) = (rig.lab.shared().clone(), RunInfo::default());
    let (held, before) = (Default::default(), rig.changes());
    let look = async || {
        let seen = Seen { since: None, got: &[], held: &held, run: &info };
        let check = rig.steps[0].check(&rig.estate, seen).await.unwrap();
        match check.answer {
            Answer::Done => Vec::new(),
            Answer::Blocked { problems } => problems,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(look().await, [], "with all of them nothing is in the way");
    let (mut named, mut unasked, mut silent) = (0, 0, 0);
    for right in rights {
        let text = |key: &str| right[key].as_str().unwrap_or_default();
        let kind = if text("namespace").is_empty() { kinds::cluster_roles() } else { kinds::roles() };
        let name = format!("pvemig-{MIGRATION}");
        let role = shared.read(|world| Value::clone(world.kube.store.get(kind, text("namespace"), &name).unwrap()));
        let mut less = role.clone();
        less["rules"] = without(&role["rules"], right);
        let put = |role: Value| shared.change(|world| world.kube.store.replace(kind, role, None).unwrap());
        put(less);
        let problems = look().await;
        let whole = format!("{} {}", text("verb"), text("resource"));
        let is = |finding: &str, words: &str| {
            problems.iter().any(|one| one.finding.as_deref() == Some(finding) && one.text.contains(words))
        };
        // Where it cannot even be asked whether the node is there, that is what is told.
        let refused = format!("cannot {} resource \"{}\"", text("verb"), text("resource"));
        if right["needed"] == true {
            let told = is("kubernetes-right-lacking", &whole) || is("cannot-ask", &refused);
            assert!(told, "{right:#}\n{problems:#?}");
            named += 1;
        } else if text("verb") == "watch" {
            assert_eq!(problems, []);
            silent += 1;
        } else {
            // Only what was asked there tells that it is needed.
            assert!(is("cannot-ask", &refused), "{right:#}\n{problems:#?}");
            unasked += 1;
        }
        put(role);
    }
    println!("{named} named, {unasked} found by asking, {silent} done without");
    assert_eq!((named, unasked, silent, rig.changes()), (12, 3, 1, before));
    assert_eq!(look().await, []);
}
