//! A budget that can never allow an eviction, at the drain: said with its name, waited for by nobody, and the node is taken
//! back from it.

use pvemig::engine::run::Why;
use serde_json::{Value, json};

use super::{rig, starts, stop};
use crate::harness::How;
use crate::harness::estate::Rig;
use crate::harness::same::{assert_done, assert_undone};

const VM: &str = "talos-vm";
const BUDGET: &str = "/apis/policy/v1/namespaces/home/poddisruptionbudgets/whoami";

async fn least(rig: &Rig, available: u32) {
    let body = json!({"spec": {"minAvailable": available}}).to_string().into_bytes();
    let request = http::Request::builder().method("PATCH").uri(BUDGET);
    let request = request.header("content-type", "application/merge-patch+json").body(body).unwrap();
    rig.cluster().await.request_text(request).await.unwrap();
    drop(rig.picture().await);
}

async fn node(rig: &Rig) -> Value {
    let request = http::Request::builder().uri(format!("/api/v1/nodes/{VM}")).body(Vec::new()).unwrap();
    serde_json::from_str(&rig.cluster().await.request_text(request).await.unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_can_never_allow_an_eviction_is_named_and_not_waited_for() {
    let mut rig = rig("talos-three", &[VM], |_| {}).await;
    // What the preflight tells before comes about behind it.
    rig.steps.retain(|step| step.id() != "00-preflight");
    least(&rig, 3).await;
    let evictions = |rig: &Rig| {
        let seen = rig.lab.shared().log.seen();
        seen.iter().filter(|seen| seen.line.contains("/pods/whoami") && seen.line.contains("/eviction")).count()
    };
    let run = rig.forward(None, &How::default()).await;
    let stop = stop(&run);
    let said = match &stop.why {
        Why::Failed { error, help, .. } => format!("{} {}", error.join(" "), help.join(" ")),
        Why::Blocked(problems) => problems.iter().map(|p| format!("{} {}", p.text, p.help)).collect(),
        other => panic!("{other:#?}"),
    };
    assert_eq!(stop.key.as_str(), "02-drain@talos-vm", "{stop:#?}");
    assert!(said.contains("home/whoami") && said.contains("can never allow it"), "{said}");
    assert_eq!((evictions(&rig), starts(&rig)[VM]), (0, 1), "{said}");
    assert_undone(&rig.backward(&run.id, &How::default()).await, "back");
    assert!(!node(&rig).await["spec"]["unschedulable"].as_bool().unwrap_or(false));
    // With room in it the same goes through.
    least(&rig, 2).await;
    assert_done(&rig.forward(None, &How::default()).await, "with room");
    assert!(evictions(&rig) >= 1 && starts(&rig)[VM] == 2);
}
