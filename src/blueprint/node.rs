//! A node of Kubernetes as steps name it.

use serde::{Deserialize, Serialize};

use crate::base::check::Problem;
use crate::base::fault::Failure;
use crate::estate::Estate;
use crate::k8s::Node;

/// A node of Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubeNode {
    /// The Kubernetes cluster's name in the site file.
    pub cluster: String,
    /// The Node's name.
    pub name: String,
}

impl KubeNode {
    /// The node as the API knows it, or the problem that it does not.
    ///
    /// # Errors
    /// The API does not answer.
    pub async fn find(&self, cx: &Estate) -> Result<Result<Node, Problem>, Failure> {
        let node = cx.kubernetes(&self.cluster).await?.node(&self.name).await?;
        Ok(node.ok_or_else(|| {
            let text = format!("kubernetes `{}` has no node {}", self.cluster, self.name);
            Problem::new(text, "`kubectl get nodes` shows the names; `node_name` of the node in the site file sets it")
        }))
    }
}

/// Why the kubelet of a node does not speak for this boot of `who`. None: it does, and is Ready. A node stays Ready for
/// up to a minute after its machine has gone, so Ready alone says nothing.
pub fn not_yet(node: &Node, who: &str, boot: &str) -> Option<String> {
    let name = &node.meta.name;
    if node.boot_id != boot {
        let of = if node.boot_id.is_empty() { "(none)" } else { &node.boot_id };
        return Some(format!(
            "node {name} still speaks of boot {of}, and {who} is in boot {boot}: its kubelet has not told yet"
        ));
    }
    match &node.ready {
        Some(ready) if ready.is_true() => None,
        Some(ready) => Some(format!("node {name}: {ready}")),
        None => Some(format!("node {name} has no condition Ready")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_counts_for_this_boot_only() {
        let ready = |status: &str| crate::k8s::meta::Condition {
            kind: "Ready".into(),
            status: status.into(),
            ..Default::default()
        };
        let node = |boot: &str, status: &str| Node {
            meta: crate::k8s::meta::Meta { name: "n".into(), ..Default::default() },
            unschedulable: true,
            ready: Some(ready(status)),
            boot_id: boot.into(),
            ..Node::default()
        };
        assert_eq!(not_yet(&node("b2", "True"), "the guest", "b2"), None);
        let left_over = not_yet(&node("b1", "True"), "the guest", "b2").unwrap();
        assert!(left_over.contains("b1") && left_over.contains("b2"), "{left_over}");
        assert!(not_yet(&node("b2", "Unknown"), "the guest", "b2").unwrap().contains("Unknown"));
        let never = Node { ready: None, ..node("b2", "True") };
        assert!(not_yet(&never, "the guest", "b2").is_some());
    }
}
