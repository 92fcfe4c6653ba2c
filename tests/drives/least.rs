//! What `pvemig privileges` prints is what a move of drives takes: with it alone the run goes through without one refusal, and
//! without any one of it the preflight says so by its name.

use pvemig::lab::kube::kinds;

use super::*;
use crate::harness::rights::{administrator, grant, privileges_with, refused, without};

const USER: &str = "system:serviceaccount:kube-system:pvemig";
const MIGRATION: &str = "nuc-drives";

/// A world without Mayastor and one with it: the consents of a run, and what else `privileges` is to print.
const WORLDS: [(&str, &[&str], &[&str]); 2] =
    [("nvme-single", &[], &[]), (super::replaced::WORLD, &["disk/S676NF0W712345"], &["--with-optional"])];

fn how(consents: &[&str]) -> How {
    How { consents: consents.iter().map(|one| (*one).to_owned()).collect(), ..How::default() }
}

/// A world whose kubeconfig has exactly the rights that the verb prints.
async fn least(world: &str, more: &[&str]) -> (Rig, Value) {
    let user = |world: &mut World| world.cluster_user = Some(USER.into());
    let rig = super::system::registered(at_rest_after(world, "the least", user)).await;
    let (client, printed) = (administrator(&rig).await, privileges_with(&rig, MIGRATION, more));
    assert_eq!(printed["kubernetes"]["user"], USER);
    grant(&client, &printed).await;
    (rig, printed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_printed_is_enough_for_a_move() {
    for (world, consents, more) in WORLDS {
        let (rig, _) = least(world, more).await;
        let granted = rig.changes();
        let run = rig.forward(None, &how(consents)).await;
        assert_done(&run, "with the least");
        assert_eq!(calls(&run.records), rig.changes() - granted, "{world}");
        assert_done(&rig.forward(None, &How::default()).await, "again");
        // What it can do without is missed by watches alone.
        let watch = |request: &Value| request["path"].as_str().unwrap().contains("watch=true");
        let of_kubernetes = |request: &Value| request["front"] == "kubernetes";
        let refused: Vec<_> = refused(&rig).into_iter().filter(of_kubernetes).collect();
        assert!(refused.iter().all(watch), "{world}: {refused:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_right_that_is_printed_is_asked_for_by_the_preflight() {
    for (world, consents, more) in WORLDS {
        let (rig, printed) = least(world, more).await;
        let rights = printed["kubernetes"]["rights"].as_array().unwrap();
        let consents = how(consents).consents.into_iter().map(pvemig::base::permit::Thing).collect();
        let info = pvemig::engine::step::RunInfo { consents, ..Default::default() };
        let (shared, held, before) = (rig.lab.shared().clone(), BTreeMap::new(), rig.changes());
        let look = || {
            let seen = pvemig::engine::step::Seen { since: None, got: &[], held: &held, run: &info };
            rig.steps[0].check(&rig.estate, seen)
        };
        let first = look().await.unwrap();
        assert!(first.is_done(), "{world}: with all of them nothing is in the way: {first:#?}");
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
            // Where it cannot even be asked what a step goes by, that is what is told.
            let refused = format!("cannot {} resource", text("verb"));
            let named = check.contains("Some(\"kubernetes-right-lacking\")") && check.contains(&words)
                || check.contains("Some(\"cannot-ask\")") && check.contains(&refused);
            assert!(check.contains("Blocked") && named, "{world}: {right:#}\n{check}");
            seen += 1;
            put(role);
        }
        // What only a cluster with Mayastor takes is not needed.
        assert!(seen >= 9 && rights.len() >= seen + 3, "{world}: {seen} of {}", rights.len());
        assert_eq!(rig.changes(), before, "{world}");
        println!("{world}: {seen} of {} rights named", rights.len());
        assert!(look().await.unwrap().is_done());
    }
}
