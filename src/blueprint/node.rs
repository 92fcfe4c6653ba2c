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
