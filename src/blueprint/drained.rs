//! Whether a node may go down as far as its pods are concerned: the drain's question, by one list, for who takes it down
//! where no drain is around.

use crate::base::check::Problem;
use crate::base::fault::Failure;
use crate::blueprint::hold::known;
use crate::blueprint::machine::Machine;
use crate::engine::step::RunInfo;
use crate::estate::Estate;
use crate::k8s::{Node, Pod};

/// The drain, which has this id in each blueprint that has one.
const DRAIN: &str = "02-drain";
/// How many pods are named.
const NAMED: usize = 5;

/// How a node stands.
#[derive(Debug, Default, PartialEq)]
pub struct Standing {
    /// What keeps it from going down.
    pub problems: Vec<Problem>,
    /// Pods on their way.
    pub going: Vec<String>,
}

/// Asks for the node and its pods, side by side.
///
/// # Errors
/// What keeps Kubernetes from answering.
pub async fn look(cx: &Estate, machine: &Machine, run: &RunInfo) -> Result<Standing, Failure> {
    let kube = cx.kubernetes(&machine.node.cluster).await?;
    let pods = async { Ok(kube.pods_on(&machine.node.name).await?) };
    let (node, pods) = futures::try_join!(machine.node.find(cx), pods)?;
    Ok(match node {
        Ok(node) => judge(machine, &node, &pods, run),
        Err(missing) => Standing { problems: vec![missing], ..Standing::default() },
    })
}

/// Whoever cordoned it: it is cordoned, nobody else is at work on it, and nothing is left that a drain would have gone
/// on with.
fn judge(machine: &Machine, node: &Node, pods: &[Pod], run: &RunInfo) -> Standing {
    let name = &machine.node.name;
    let mut problems = Vec::new();
    let mut undrained = |text: String| {
        let help = format!("`pvemig step {DRAIN} --node {0}`, or `kubectl drain {name}`", machine.name);
        problems.push(Problem::new(text, help).mended_by(DRAIN));
    };
    if !node.unschedulable {
        undrained(format!("node {name} is not cordoned: what is evicted may come back to it"));
    }
    let (going, left): (Vec<_>, Vec<_>) =
        pods.iter().filter(|pod| !pod.is_of_the_node()).partition(|pod| pod.meta.deleting.is_some());
    let left: Vec<String> = left.iter().filter(|pod| !pod.is_finished()).map(|pod| pod.meta.full_name()).collect();
    if !left.is_empty() {
        let more = left.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let named = left.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
        undrained(format!("node {name} is not drained: {named}{more} would be killed"));
    }
    // A run of this state directory leaves its hold to a later one.
    problems.extend(known(&format!("node {name}"), &node.meta, run).err());
    Standing { problems, going: going.iter().map(|pod| pod.meta.full_name()).collect() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::base::hold::{MARK, Mark};
    use crate::base::names::Dial;
    use crate::blueprint::node::KubeNode;
    use crate::k8s::meta::Meta;

    fn machine() -> Machine {
        let node = KubeNode { cluster: "k".into(), name: "node-1".into() };
        Machine { cluster: "c".into(), name: "n1".into(), node, vm: None, dial: Dial::default() }
    }

    fn node(unschedulable: bool, mark: Option<&str>) -> Node {
        let mark = mark.map(|run| {
            let mark = Mark { run: run.into(), host: "h".into(), was: json!({"unschedulable": false}) };
            (MARK.to_owned(), mark.to_annotation())
        });
        Node {
            meta: Meta { name: "node-1".into(), annotations: mark.into_iter().collect(), ..Meta::default() },
            unschedulable,
            ..Node::default()
        }
    }

    fn pod(name: &str, owner: &str, phase: &str, more: serde_json::Value) -> Pod {
        let mut meta = json!({"namespace": "x", "name": name, "uid": name, "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": owner, "name": "o", "uid": "o", "controller": true}]});
        meta.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let pod = json!({"metadata": meta, "spec": {"containers": []}, "status": {"phase": phase}});
        Pod::from_api(pod).unwrap()
    }

    #[test]
    fn what_belongs_to_the_node_goes_down_with_it() {
        let run = RunInfo { id: "me".into(), host: "h".into(), ..RunInfo::default() };
        let ask = |node: &Node, pods: &[Pod]| judge(&machine(), node, pods, &run);
        let stays = [
            pod("flannel", "DaemonSet", "Running", json!({})),
            pod("api", "Node", "Running", json!({"annotations": {"kubernetes.io/config.mirror": "1"}})),
            pod("done", "Job", "Succeeded", json!({})),
        ];
        assert_eq!(ask(&node(true, None), &stays), Standing::default());
        assert_eq!(ask(&node(true, Some("me")), &stays), Standing::default());
        let open = ask(&node(false, None), &stays);
        assert!(open.problems.len() == 1 && open.problems[0].text.contains("node-1 is not cordoned"), "{open:?}");
        assert_eq!(open.problems[0].mended_by.as_deref(), Some("02-drain"));
        let web: Vec<Pod> = (0..7).map(|n| pod(&format!("web-{n}"), "ReplicaSet", "Running", json!({}))).collect();
        let full = ask(&node(true, None), &web);
        assert!(full.problems[0].text.contains("x/web-0, x/web-1, x/web-2, x/web-3, x/web-4 and 2 more"), "{full:?}");
        assert!(full.problems[0].help.contains("--node n1") && full.going.is_empty(), "{full:?}");
        let late = [pod("late", "ReplicaSet", "Running", json!({"deletionTimestamp": "2025-01-01T00:00:00Z"}))];
        let late = ask(&node(true, None), &late);
        assert_eq!((late.problems.len(), late.going), (0, vec!["x/late".to_owned()]));
        // Somebody at work there, from another machine.
        let theirs = ask(&node(true, Some("other")), &stays);
        assert!(theirs.problems.len() == 1 && theirs.problems[0].mended_by.is_none(), "{theirs:?}");
    }
}
