//! Whether an etcd lives of which the nodes of the site file tell nothing.

use std::time::Duration;

use futures::future::{Either, select};

use super::Peer;
use crate::base::fault::Failure;
use crate::base::wait::pause;
use crate::estate::Estate;
use crate::talos::{Error, Talos, kind};

/// How long Kubernetes is waited for: an API without etcd says so after seven seconds, and one that is not there nothing.
const KUBERNETES: Duration = Duration::from_secs(10);

/// What a Kubernetes cluster of the site tells of its nodes. It reads them from an etcd that has its leader, so an answer
/// proves that one lives, whoever can be reached from here; that it does not answer proves nothing.
pub async fn living(cx: &Estate, cluster: &str) -> Option<String> {
    let asked = async { Ok::<_, Failure>(cx.kubernetes(cluster).await?.nodes().await?.len()) };
    match select(Box::pin(asked), Box::pin(pause(cx.clock(), KUBERNETES))).await {
        Either::Left((Ok(nodes), _)) => Some(format!("kubernetes `{cluster}` answers, and has {nodes} nodes")),
        Either::Left((Err(_), _)) | Either::Right(_) => None,
    }
}

/// The control planes that a node's discovery knows, by their Node names: those are the ids of its members (Talos
/// `internal/app/machined/pkg/controllers/cluster/member.go`), whose host names have the domain too where there is one.
///
/// # Errors
/// What keeps the node from answering.
pub async fn discovered(talos: &Talos) -> Result<Vec<String>, Error> {
    let members = talos.list(&kind::MEMBERS).await?;
    let planes = members.into_iter().filter(|one| matches!(one.spec.machine_type.as_str(), "controlplane" | "init"));
    Ok(planes.map(|one| if one.id.is_empty() { one.spec.hostname } else { one.id }).collect())
}

/// Those of them that the site file has not.
///
/// # Errors
/// What keeps the node from answering.
pub async fn elsewhere(talos: &Talos, peers: &[Peer]) -> Result<Vec<String>, Error> {
    let names = discovered(talos).await?.into_iter();
    Ok(names.filter(|name| !peers.iter().any(|peer| peer.node_name == *name || peer.name == *name)).collect())
}
