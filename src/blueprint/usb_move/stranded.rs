//! Claims that keep a pod from its node: for those nobody waits.

use crate::base::check::Problem;
use crate::base::fault::Failure;
use crate::k8s::node::Node;
use crate::k8s::{Claim, Kubernetes, Volume, Workload};

use super::params::Work;

/// The scheduler's words, kubernetes pkg/scheduler/framework/plugins/volumebinding.
pub(super) const CANNOT_GO: &str = "volume node affinity conflict";

/// The claims of the workload that are bound to volumes which `node` cannot use. The scheduler's word alone is not
/// enough: it is kept for a while after a claim was made anew.
pub(super) async fn stranded(
    kube: &Kubernetes,
    (work, node): (&Work, &str),
    workload: &Workload,
) -> Result<Vec<Problem>, Failure> {
    let nodes = kube.nodes().await?;
    let mut problems = Vec::new();
    for name in workload.claims(workload.replicas) {
        let Some(claim) = kube.claim(&work.namespace, &name).await? else { continue };
        let Some(volume) = claim.volume.as_deref() else { continue };
        let Some(volume) = kube.volume(volume).await? else { continue };
        problems.extend(bound_elsewhere(work, &claim, &volume, (node, &nodes)));
    }
    Ok(problems)
}

fn bound_elsewhere(work: &Work, claim: &Claim, volume: &Volume, (node, nodes): (&str, &[Node])) -> Option<Problem> {
    let placement = volume.placement_for(Some(claim), nodes);
    if placement.admits(node) {
        return None;
    }
    let may = if placement.eligible.is_empty() { "no node".to_owned() } else { placement.eligible.join(", ") };
    let (name, volume) = (&claim.meta.name, &volume.meta.name);
    Some(Problem::new(
        format!(
            "claim {}/{name} is bound to volume {volume}, which {may} may use: its pod never starts on {node}",
            work.namespace
        ),
        format!(
            "a new empty volume on {node}: `claims: {{ {name}: recreate }}` in the site file, `pvemig step 00b`, `pvemig \
             step 00d`, `pvemig step 11`; the old volume is kept"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_volume_of_another_node_keeps_the_pod_away_and_no_other_one_does() {
        let node = |name: &str| {
            let labels = json!({"kubernetes.io/hostname": name});
            Node::from_api(json!({"metadata": {"name": name, "labels": labels}, "spec": {}, "status": {}})).unwrap()
        };
        let nodes = [node("old"), node("new")];
        let volume = |on: Option<&str>| {
            let terms = |on: &str| {
                json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "kubernetes.io/hostname", "operator": "In", "values": [on]}
                ]}]}})
            };
            let mut value = json!({"metadata": {"name": "pv-1"}, "spec": {"hostPath": {"path": "/x"}}});
            if let Some(on) = on {
                value["spec"]["nodeAffinity"] = terms(on);
            }
            Volume::from_api(value).unwrap()
        };
        let claim = json!({
            "metadata": {"namespace": "frigate", "name": "config"}, "spec": {"volumeName": "pv-1"},
            "status": {"phase": "Bound"},
        });
        let claim = Claim::from_api(claim).unwrap();
        let work = Work {
            cluster: "k3s".into(),
            namespace: "frigate".into(),
            kind: "Deployment".into(),
            name: "frigate".into(),
        };
        let judge = |on: Option<&str>| bound_elsewhere(&work, &claim, &volume(on), ("new", &nodes));
        let problem = judge(Some("old")).unwrap();
        assert!(
            problem.text.contains("claim frigate/config is bound to volume pv-1, which old may use"),
            "{problem:?}"
        );
        assert!(judge(Some("gone")).unwrap().text.contains("no node may use"));
        assert!(judge(Some("new")).is_none() && judge(None).is_none());
    }
}
