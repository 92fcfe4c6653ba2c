//! What `pvemig privileges` prints is what a move of drives takes: with it alone the run goes through without one refusal, and
//! without any one of it the preflight says so by its name.

use pvemig::lab::kube::kinds;

use super::*;
use crate::harness::rights::{administrator, grant, privileges, refused, without};

const USER: &str = "system:serviceaccount:kube-system:pvemig";
const MIGRATION: &str = "nuc-drives";

/// A world without Mayastor, whose kubeconfig has exactly the rights that the verb prints.
async fn least() -> (Rig, Value) {
    let user = |world: &mut World| world.cluster_user = Some(USER.into());
    let rig = super::system::registered(at_rest_after("nvme-single", "the least", user)).await;
    let (client, printed) = (administrator(&rig).await, privileges(&rig, MIGRATION));
    assert_eq!(printed["kubernetes"]["user"], USER);
    grant(&client, &printed).await;
    (rig, printed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_printed_is_enough_for_a_move() {
    let (rig, _) = least().await;
    let granted = rig.changes();
    let run = rig.forward(None, &How::default()).await;
    assert_done(&run, "with the least");
    assert_eq!(calls(&run.records), rig.changes() - granted);
    assert_done(&rig.forward(None, &How::default()).await, "again");
    // What it can do without is missed by watches alone.
    let watch = |request: &Value| request["path"].as_str().unwrap().contains("watch=true");
    assert!(refused(&rig).iter().all(watch), "{:#?}", refused(&rig));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_right_that_is_printed_is_asked_for_by_the_preflight() {
    let (rig, printed) = least().await;
    let rights = printed["kubernetes"]["rights"].as_array().unwrap();
    let info = pvemig::engine::step::RunInfo::default();
    let (shared, held, before) = (rig.lab.shared().clone(), BTreeMap::new(), rig.changes());
    let look = || {
        rig.steps[0].check(&rig.estate, pvemig::engine::step::Seen { since: None, got: &[], held: &held, run: &info })
    };
    assert!(look().await.unwrap().is_done(), "with all of them nothing is in the way");
    let mut seen = 0;
    for right in rights.iter().filter(|right| right["needed"] == true) {
        let text = |key: &str| right[key].as_str().unwrap_or_default();
        let kind = if text("namespace").is_empty() { kinds::cluster_roles() } else { kinds::roles() };
        let name = format!("pvemig-{MIGRATION}");
        let get = |world: &World| Value::clone(world.kube.store.get(kind, text("namespace"), &name).unwrap());
        let role = shared.read(get);
        let mut less = role.clone();
        less["rules"] = without(&role["rules"], right);
        let put = |role: Value| shared.change(|world| world.kube.store.replace(kind, role, None).unwrap());
        put(less);
        let check = format!("{:?}", look().await.unwrap());
        let words = format!("{} {}", text("verb"), text("resource"));
        let named = check.contains("Some(\"kubernetes-right-lacking\")") && check.contains(&words);
        assert!(check.contains("Blocked") && named, "{right:#}\n{check}");
        seen += 1;
        put(role);
    }
    // What only a cluster with Mayastor takes is not needed.
    assert!(seen >= 9 && rights.len() >= seen + 3 && rig.changes() == before, "{seen} of {}", rights.len());
    assert!(look().await.unwrap().is_done());
}
