//! What `pvemig privileges` prints is enough: with it alone a recovery goes through without one refusal.

use super::*;
use crate::harness::rights::{privileges, refused, requests};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_printed_is_enough_for_a_recovery_and_all_of_it_is_used() {
    let user = "system:serviceaccount:kube-system:pvemig";
    let rig = rig(DEADLOCK, |w| w.cluster_user = Some(user.into()), |_| {}).await;
    let printed = privileges(&rig, "recover");
    assert_eq!(printed["kubernetes"]["user"], user);
    let manifests = printed["kubernetes"]["manifests"].as_array().unwrap();
    assert!(manifests.len() >= 2, "{manifests:#?}");
    // As its note says it was applied before the loss.
    rig.lab.shared().change(|w| {
        let (revision, mut all) = w.kube.store.contents();
        all.extend(manifests.iter().cloned());
        w.kube.store.restore(revision, all);
    });
    let run = rig.forward(None, &consenting()).await;
    assert_done(&run, "with the least");
    assert_done(&rig.forward(None, &How::default()).await, "again");
    assert!(refused(&rig).is_empty(), "{:#?}", refused(&rig));
    let mut used = 0;
    for right in printed["kubernetes"]["rights"].as_array().unwrap() {
        assert_eq!((right["verb"].as_str(), &right["name"]), (Some("list"), &Value::Null), "{right:#}");
        let end = format!("/{}", right["resource"].as_str().unwrap());
        let path = |request: &Value| request["path"].as_str().unwrap().split('?').next().unwrap().to_owned();
        let asked =
            requests(&rig).iter().any(|request| request["front"] == "kubernetes" && path(request).ends_with(&end));
        assert!(asked, "{right:#} is never used");
        used += 1;
    }
    assert_eq!(used, 3);
}
