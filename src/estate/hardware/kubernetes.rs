//! What Kubernetes tells of what drives are for: local volumes, and pools of Mayastor.

use super::super::Estate;
use super::super::survey::Why;
use crate::k8s::Kubernetes;
use crate::k8s::volume::{DataAt, Source};

/// What a cluster uses its nodes' drives for.
pub(super) struct Uses {
    volumes: Result<Vec<Local>, Why>,
    pools: Result<Vec<Pool>, Why>,
}

/// A persistent volume with its data in a directory of a node.
struct Local {
    name: String,
    directory: String,
    /// The nodes that may have it; none: nothing tells.
    nodes: Vec<String>,
}

/// A pool of Mayastor.
struct Pool {
    name: String,
    node: String,
    device: String,
}

impl Estate {
    /// Asks a Kubernetes cluster what it uses its nodes' drives for.
    pub(super) async fn uses(&self, cluster: &str) -> Uses {
        let kubernetes = match self.kubernetes(cluster).await {
            Ok(kubernetes) => kubernetes,
            Err(failure) => return Uses::unknown(&Why::of(&failure)),
        };
        let what = format!("Kubernetes cluster {cluster}");
        let asked = async { futures::join!(Box::pin(volumes(&kubernetes)), Box::pin(pools(&kubernetes))) };
        match self.bounded(&what, asked).await {
            Ok((volumes, pools)) => Uses { volumes, pools },
            Err(why) => Uses::unknown(&why),
        }
    }
}

async fn volumes(kubernetes: &Kubernetes) -> Result<Vec<Local>, Why> {
    let (volumes, nodes) = futures::join!(kubernetes.volumes(), kubernetes.nodes());
    let (volumes, nodes) = (volumes?, nodes?);
    let local = volumes.into_iter().filter_map(|volume| {
        let (Source::HostPath(directory) | Source::Local(directory)) = &volume.source else { return None };
        let nodes = match volume.placement(&nodes).data {
            DataAt::Nodes(nodes) => nodes,
            DataAt::Unknown => Vec::new(),
            DataAt::Shared => return None,
        };
        Some(Local { name: volume.meta.name.clone(), directory: directory.clone(), nodes })
    });
    Ok(local.collect())
}

async fn pools(kubernetes: &Kubernetes) -> Result<Vec<Pool>, Why> {
    let pools = kubernetes.disk_pools().await?.unwrap_or_default();
    let each = pools.into_iter().flat_map(|pool| {
        let (name, node) = (pool.name, pool.node);
        pool.disks.into_iter().map(move |device| Pool { name: name.clone(), node: node.clone(), device })
    });
    Ok(each.collect())
}

/// Pairs of a name and a directory or device.
type Pairs = Vec<(String, String)>;

impl Uses {
    fn unknown(why: &Why) -> Self {
        Self { volumes: Err(why.clone()), pools: Err(why.clone()) }
    }

    /// The local volumes and the pools of a node; what is not known of them is said.
    pub(super) fn of(&self, node: &str, not_asked: &mut Vec<String>) -> (Pairs, Pairs) {
        let mut local = Vec::new();
        match &self.volumes {
            Err(why) => not_asked.push(format!("the local volumes of Kubernetes: {}", why.reason)),
            Ok(all) => {
                for volume in all {
                    match volume.nodes.as_slice() {
                        [only] if only == node => local.push((volume.name.clone(), volume.directory.clone())),
                        nodes if nodes.is_empty() || nodes.iter().any(|one| one == node) => {
                            let Local { name, directory, .. } = volume;
                            not_asked
                                .push(format!("volume {name} ({directory}): nothing tells on which node its data is"));
                        }
                        _ => {}
                    }
                }
            }
        }
        let mut pools = Vec::new();
        match &self.pools {
            Err(why) => not_asked.push(format!("the pools of Mayastor: {}", why.reason)),
            Ok(all) => pools.extend(
                all.iter().filter(|pool| pool.node == node).map(|pool| (pool.name.clone(), pool.device.clone())),
            ),
        }
        (local, pools)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_on_a_node_is_neither_on_it_nor_elsewhere() {
        let local = |name: &str, nodes: &[&str]| Local {
            name: name.into(),
            directory: format!("/var/mnt/{name}"),
            nodes: nodes.iter().map(|node| (*node).to_owned()).collect(),
        };
        let pool = |node: &str| Pool { name: format!("pool-{node}"), node: node.into(), device: "/dev/sdb".into() };
        let volumes =
            Ok(vec![local("here", &["a"]), local("there", &["b"]), local("any", &[]), local("two", &["b", "a"])]);
        let uses = Uses { volumes, pools: Ok(vec![pool("a"), pool("b")]) };
        let mut not_asked = Vec::new();
        let (local, pools) = uses.of("a", &mut not_asked);
        assert_eq!(local, [("here".to_owned(), "/var/mnt/here".to_owned())]);
        assert_eq!(pools, [("pool-a".to_owned(), "/dev/sdb".to_owned())]);
        assert_eq!(
            not_asked,
            ["any", "two"]
                .map(|name| format!("volume {name} (/var/mnt/{name}): nothing tells on which node its data is"))
        );
        let mut not_asked = Vec::new();
        let blind = Uses::unknown(&Why { reason: "refused".into(), help: None });
        assert_eq!(blind.of("a", &mut not_asked), (Vec::new(), Vec::new()));
        assert_eq!(not_asked, ["the local volumes of Kubernetes: refused", "the pools of Mayastor: refused"]);
    }
}
