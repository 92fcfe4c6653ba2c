//! What is described twice.

use std::collections::BTreeMap;

use crate::base::names::TalosAddress;

use super::fields::{Fields, Item};
use super::types::{Node, TalosCluster};

/// A node as far as it must be the only one of its kind.
struct One<'a> {
    name: &'a str,
    /// Proxmox cluster and vmid.
    vm: Option<(&'a str, u32)>,
    /// Kubernetes cluster and the name there.
    node: Option<(&'a str, &'a str)>,
    /// Where its Talos API is.
    api: Option<TalosAddress>,
}

/// Two names for one VM, or two VMs with one node name, would let two steps work on the same thing unnoticed. Answers the
/// names of all Talos nodes of the file.
pub(super) fn look(
    fields: &Fields<'_>,
    nodes: &BTreeMap<String, Node>,
    talos: &BTreeMap<String, TalosCluster>,
) -> Vec<String> {
    let mut before: Vec<One<'_>> = Vec::new();
    for (name, item) in entries(fields.get("nodes").as_ref()) {
        let node = nodes.get(name);
        let one = One {
            name,
            vm: node.map(|node| (node.proxmox.as_str(), node.vmid)),
            node: node.map(|node| (node.kubernetes.as_str(), node.node_name.as_str())),
            api: None,
        };
        compare(&before, &one, &item);
        before.push(one);
    }
    let mut names = Vec::new();
    for (cluster, item) in entries(fields.get("talos").as_ref()) {
        let found = talos.get(cluster);
        for (name, item) in item.below("nodes").map(|nodes| nodes.entries()).unwrap_or_default() {
            let node = found.and_then(|cluster| Some((cluster, cluster.nodes.get(name)?)));
            let one = One {
                name,
                vm: node.and_then(|(_, node)| node.vm.as_ref()).map(|vm| (vm.proxmox.as_str(), vm.vmid)),
                node: node.map(|(cluster, node)| (cluster.kubernetes.as_str(), node.node_name.as_str())),
                api: node.and_then(|(_, node)| node.address.parse().ok()),
            };
            compare(&before, &one, &item);
            before.push(one);
            names.push(name.to_owned());
        }
    }
    names
}

/// The parts of a section that is one; what is wrong with it has been said.
fn entries<'a>(section: Option<&Item<'a>>) -> Vec<(&'a str, Item<'a>)> {
    section.filter(|item| item.value().is_object()).map(Item::entries).unwrap_or_default()
}

fn compare(before: &[One<'_>], one: &One<'_>, item: &Item<'_>) {
    let name = one.name;
    for other in before {
        let twin = other.name;
        if twin == name {
            item.problem(
                format!("there is another node `{name}`"),
                "a name stands for one node, over `nodes` and all Talos clusters; `node_name` is what Kubernetes calls it",
            );
            continue;
        }
        if let Some((_, vmid)) = one.vm
            && one.vm == other.vm
        {
            item.problem(format!("`{name}` and `{twin}` are the same vm {vmid}"), "a VM is described once");
        }
        if one.node.is_some() && one.node == other.node {
            item.problem(format!("`{name}` and `{twin}` are the same Kubernetes node"), "a node is described once");
        }
        if one.api.is_some() && one.api == other.api {
            item.problem(
                format!("`{name}` and `{twin}` have the same address"),
                "each node is asked at its own address",
            );
        }
    }
}
