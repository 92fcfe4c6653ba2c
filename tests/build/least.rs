//! What `pvemig privileges` prints of Kubernetes is what a build asks of it, no more and no less.

use std::collections::BTreeSet;

use super::*;
use crate::harness::rights::{privileges, requests};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_printed_is_what_a_build_asks_of_kubernetes() {
    let rig = fresh().await;
    let printed = privileges(&rig, "build");
    let rights = printed["kubernetes"]["rights"].as_array().unwrap();
    let right = |right: &Value| format!("{} {}", right["verb"].as_str().unwrap(), right["resource"].as_str().unwrap());
    let rights: BTreeSet<String> = rights.iter().map(right).collect();
    assert_done(&rig.forward(None, &consenting()).await, "build");
    // There is a cluster already, of which the site file names nobody.
    let living = elsewhere::rig_of_one(|_| {}).await;
    let how = How { consents: vec!["disk/S2ZRNYAH500750".into()], ..How::default() };
    assert_eq!(why(&living.forward(None, &how).await).0, "00-preflight");
    let mut asked = BTreeSet::new();
    let all = [requests(&rig), requests(&living)].concat();
    for request in all.iter().filter(|request| request["front"] == "kubernetes") {
        let path = request["path"].as_str().unwrap().split('?').next().unwrap();
        let Some(rest) = path.strip_prefix("/api/v1/") else { continue };
        assert_eq!(request["method"], "GET", "{request}");
        let (resource, name) = rest.split_once('/').unwrap_or((rest, ""));
        asked.insert(format!("{} {resource}", if name.is_empty() { "list" } else { "get" }));
    }
    assert_eq!(asked, rights);
    assert!(asked.len() == 2, "{asked:?}");
}
