//! What `pvemig privileges` prints is what a replacement takes: with it alone the run goes through without one refusal, and
//! without any one of it the preflight says so by its name.

use pvemig::lab::kube::kinds;

use super::*;
use crate::harness::rights::{administrator, grant, privileges, refused, without};

const USER: &str = "system:serviceaccount:kube-node-lease:pvemig";

/// A world whose kubeconfig has exactly the rights that the verb prints.
async fn least(case: Case) -> (Rig, Value) {
    let rig = rig_with(case, |world| world.cluster_user = Some(USER.into()), |_| {}).await;
    let (client, printed) = (administrator(&rig).await, privileges(&rig, case.migration));
    assert_eq!(printed["kubernetes"]["user"], USER);
    grant(&client, &printed).await;
    (rig, printed)
}

fn is_watch(request: &Value) -> bool {
    request["path"].as_str().unwrap().contains("watch=true")
}

/// Through, and through again, with nothing refused.
async fn goes_through(case: Case) {
    let (rig, _) = least(case).await;
    let granted = rig.changes();
    let run = rig.forward(None, &case.consenting()).await;
    assert_done(&run, "with the least");
    assert_eq!(calls(&run.records), rig.changes() - granted);
    assert_done(&rig.forward(None, &How::default()).await, "again");
    // What it can do without is missed by watches alone.
    let watch = |request: &Value| request["path"].as_str().unwrap().contains("/pods?") && is_watch(request);
    assert!(refused(&rig).iter().all(watch), "{case:?}: {:#?}", refused(&rig));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_printed_is_enough_for_a_dead_control_plane_and_a_living_worker() {
    goes_through(Case { dead: true, ..MAC }).await;
    goes_through(WORKER).await;
    goes_through(MAC_IN_PLACE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_right_that_is_printed_is_asked_for_by_the_preflight() {
    let (rig, printed) = least(MAC).await;
    let rights = printed["kubernetes"]["rights"].as_array().unwrap();
    let info = pvemig::engine::step::RunInfo {
        consents: MAC.consents().into_iter().map(pvemig::base::permit::Thing).collect(),
        ..Default::default()
    };
    let shared = rig.lab.shared().clone();
    let (held, before, mut seen) = (Default::default(), rig.changes(), 0);
    let look = || {
        rig.steps[0].check(&rig.estate, pvemig::engine::step::Seen { since: None, got: &[], held: &held, run: &info })
    };
    assert!(look().await.unwrap().is_done(), "with all of them nothing is in the way");
    for right in rights.iter().filter(|right| right["needed"] == true) {
        let text = |key: &str| right[key].as_str().unwrap_or_default();
        let kind = if text("namespace").is_empty() { kinds::cluster_roles() } else { kinds::roles() };
        let name = format!("pvemig-{}", MAC.migration);
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
    assert_eq!((seen, rights.len(), rig.changes()), (13, 14, before));
    assert!(look().await.unwrap().is_done());
}
