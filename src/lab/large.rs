//! An estate around a world: hosts, machines, nodes, claims and pods that are none of its business. The same size makes
//! the same estate.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::world::{Guest, Host, Running, Vm, World};

/// How large an estate is, with the world in it. What the world alone has more of stays.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Proxmox nodes.
    pub hosts: usize,
    /// Virtual machines.
    pub machines: usize,
    /// Of the machines around the world, those that are Kubernetes nodes.
    pub nodes: usize,
    /// Claims, each bound to a volume on one of those nodes and mounted by a pod there.
    pub claims: usize,
    /// Pods, in equal parts on those nodes.
    pub pods: usize,
}

/// The first id of a machine that is not the world's own.
const FIRST: u32 = 1_001;

/// Puts a world into an estate of this size.
pub fn around(mut world: World, size: &Size) -> World {
    let own = world.hosts.len();
    for n in own..size.hosts {
        world.hosts.insert(format!("host-{n:02}"), Host { ip: format!("192.168.5.{n}"), ..Host::default() });
    }
    let hosts: Vec<String> = world.hosts.keys().cloned().collect();
    let more = size.machines.saturating_sub(world.vms.len());
    for ((n, vmid), host) in (0..more).zip(FIRST..).zip(hosts.iter().cycle()) {
        world.vms.insert(vmid, machine(n, vmid, host, n < size.nodes));
    }
    for n in 0..size.nodes.min(more) {
        let part = |of: usize| of / size.nodes + usize::from(n < of % size.nodes);
        world.kube.more.extend(tenant(n, part(size.claims), part(size.pods)));
    }
    world
}

/// More nodes for a world of Talos: workers like its last machine of its own, and pods in equal parts on all of its nodes.
pub fn workers(mut world: World, more: usize, pods: usize) -> World {
    let own: Vec<String> = world.talos.nodes.keys().cloned().collect();
    let like =
        world.talos.nodes.iter().find(|(_, node)| node.vmid.is_none()).map(|(name, node)| (name.clone(), node.clone()));
    let fresh: Vec<String> = (0..more).map(|n| format!("talos-worker-{n:02}")).collect();
    for (n, name) in fresh.iter().enumerate() {
        let Some((old, node)) = &like else { break };
        let mut node = node.clone();
        let ip = format!("192.168.6.{}", n + 2);
        node.config = node.config.replace("type: controlplane", "type: worker");
        node.config = node.config.replace(old.as_str(), name).replace(&node.ip, &ip);
        node.uuid = format!("7a105000-0000-4000-8000-{n:012x}");
        (node.mac, node.ip) = (format!("bc:24:13:00:00:{n:02x}"), ip);
        world.kube.more.push(kube_node(name, n, &node.uuid, "Talos (v1.11.5)"));
        world.talos.nodes.insert(name.clone(), node);
    }
    let nodes: Vec<&String> = own.iter().chain(&fresh).collect();
    for (n, node) in nodes.iter().enumerate() {
        let space = format!("on-{node}");
        let part = pods / nodes.len() + usize::from(n < pods % nodes.len());
        world.kube.more.push(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": space } }));
        world.kube.more.push(deployment(node, &space, "web", part, None));
    }
    world
}

/// A node of Kubernetes that is none of the world's own.
fn kube_node(name: &str, n: usize, uuid: &str, os: &str) -> Value {
    let capacity = json!({ "cpu": "4", "memory": "8132Mi", "ephemeral-storage": "61Gi", "pods": "600" });
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": name, "labels": {
            "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux", "kubernetes.io/hostname": name,
        } },
        "spec": { "podCIDR": format!("10.245.{n}.0/24") },
        "status": {
            "capacity": capacity, "allocatable": capacity,
            "nodeInfo": {
                "architecture": "amd64", "bootID": "", "containerRuntimeVersion": "containerd://2.1.4",
                "kernelVersion": "6.12.57-talos", "kubeProxyVersion": "v1.34.1", "kubeletVersion": "v1.34.1",
                "machineID": uuid.replace('-', ""), "operatingSystem": "linux", "osImage": os, "systemUUID": uuid,
            },
            "runtimeHandlers": [{ "name": "" }, { "name": "runc" }],
        },
    })
}

fn node_name(n: usize) -> String {
    format!("k3s-vm-tenant-{n:03}")
}

fn machine(n: usize, vmid: u32, host: &str, is_node: bool) -> Vm {
    let name = if is_node { node_name(n) } else { format!("tenant-{n:03}") };
    let (high, low) = (n / 250, n % 250 + 2);
    let config: [(&str, String); 12] = [
        ("name", name.clone()),
        ("agent", "1".to_owned()),
        ("boot", "order=scsi0".to_owned()),
        ("cores", "4".to_owned()),
        ("cpu", "host".to_owned()),
        ("machine", "q35".to_owned()),
        ("memory", "8192".to_owned()),
        ("net0", format!("virtio=BC:24:12:00:{:02X}:{:02X},bridge=vmbr0", (vmid >> 8) & 0xff, vmid & 0xff)),
        ("onboot", "1".to_owned()),
        ("ostype", "l26".to_owned()),
        ("scsi0", format!("local-lvm:vm-{vmid}-disk-0,discard=on,size=64G,ssd=1")),
        ("scsihw", "virtio-scsi-single".to_owned()),
    ];
    let guest = Guest {
        hostname: name.clone(),
        node: is_node.then_some(name),
        ip: format!("192.168.{}.{low}", 6 + high),
        ..Guest::default()
    };
    Vm {
        node: host.to_owned(),
        config: config.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<BTreeMap<_, _>>(),
        running: Some(Running::default()),
        guest,
        ..Vm::default()
    }
}

/// A node, and what runs on it in a namespace of its own.
fn tenant(n: usize, claims: usize, pods: usize) -> Vec<Value> {
    let (node, space) = (node_name(n), format!("tenant-{n:03}"));
    let machine_id = format!("{:032x}", 0x7e4a_0000 + n);
    let capacity = json!({ "cpu": "4", "memory": "8132Mi", "ephemeral-storage": "61Gi", "pods": "250" });
    let mut all = vec![
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": { "name": node, "labels": {
                "beta.kubernetes.io/arch": "amd64", "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux",
                "kubernetes.io/hostname": node,
            } },
            "spec": { "podCIDR": format!("10.43.{n}.0/24"), "providerID": format!("k3s://{node}") },
            "status": {
                "capacity": capacity, "allocatable": capacity,
                "nodeInfo": {
                    "architecture": "amd64", "bootID": "", "containerRuntimeVersion": "containerd://2.0.4-k3s2",
                    "kernelVersion": "6.8.0-58-generic", "kubeProxyVersion": "v1.32.4+k3s1",
                    "kubeletVersion": "v1.32.4+k3s1", "machineID": machine_id, "operatingSystem": "linux",
                    "osImage": "Ubuntu 24.04.2 LTS", "systemUUID": machine_id,
                },
                "runtimeHandlers": [{ "name": "" }, { "name": "runc" }],
            },
        }),
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": space } }),
    ];
    for claim in 0..claims {
        all.extend(store(&node, &space, claim));
    }
    let left = pods.saturating_sub(claims);
    if left > 0 {
        all.push(deployment(&node, &space, "web", left, None));
    }
    all
}

/// A claim, its volume on the node, and a pod that mounts it.
fn store(node: &str, space: &str, n: usize) -> [Value; 3] {
    let (claim, volume) = (format!("data-{n}"), format!("{space}-data-{n}"));
    let size = json!({ "storage": "8Gi" });
    [
        json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": volume },
            "spec": {
                "accessModes": ["ReadWriteOnce"], "capacity": size, "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": "local-path", "local": { "path": format!("/srv/{volume}") },
                "claimRef": { "kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": space, "name": claim },
                "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions":
                    [{ "key": "kubernetes.io/hostname", "operator": "In", "values": [node] }] }] } },
            },
        }),
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": claim, "namespace": space },
            "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": "local-path", "volumeName": volume,
                "resources": { "requests": size },
            },
        }),
        deployment(node, space, &format!("store-{n}"), 1, Some(&claim)),
    ]
}

/// Its pods name their node, as static ones do: no scheduler has to find it.
fn deployment(node: &str, space: &str, name: &str, replicas: usize, claim: Option<&str>) -> Value {
    let labels = json!({ "app.kubernetes.io/name": name });
    let mut container = json!({
        "name": name, "image": format!("registry.home.arpa/tenants/{name}:1.27.4"),
        "env": [{ "name": "TENANT", "value": space }, { "name": "LOG_LEVEL", "value": "info" }],
        "ports": [{ "name": "http", "containerPort": 8080 }],
        "resources": { "requests": { "cpu": "10m", "memory": "32Mi" }, "limits": { "memory": "64Mi" } },
    });
    let mut pod = json!({ "nodeName": node });
    if let Some(claim) = claim {
        container["volumeMounts"] = json!([{ "name": "data", "mountPath": "/data" }]);
        pod["volumes"] = json!([{ "name": "data", "persistentVolumeClaim": { "claimName": claim } }]);
    }
    pod["containers"] = json!([container]);
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name, "namespace": space },
        "spec": {
            "replicas": replicas, "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": pod },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::kube::kinds;
    use crate::lab::{Lab, load};

    #[test]
    fn an_estate_is_as_large_as_it_was_asked_for_and_at_rest() {
        let size = Size { hosts: 5, machines: 20, nodes: 4, claims: 6, pods: 41 };
        let alone = Lab::at_rest(load("usb-move").unwrap(), tempfile::tempdir().unwrap().path()).unwrap();
        let world = around(load("usb-move").unwrap(), &size);
        let world = Lab::at_rest(world, tempfile::tempdir().unwrap().path()).unwrap();
        assert_eq!((world.hosts.len(), world.vms.len()), (5, 20));
        let count = |kind| world.kube.store.list(kind, None).count() - alone.kube.store.list(kind, None).count();
        assert_eq!((count(kinds::nodes()), count(kinds::claims()), count(kinds::volumes())), (4, 6, 6));
        // A daemon set of the world's own has a pod on each of the nodes.
        assert_eq!(count(kinds::pods()), 41 + 4);
        let ready = |object: &Value| {
            object["status"]["conditions"]
                .as_array()
                .is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
        };
        assert_eq!(world.kube.store.list(kinds::nodes(), None).filter(|n| !ready(n)).count(), 0);
        assert_eq!(world.kube.store.list(kinds::pods(), None).filter(|p| !ready(p)).count(), 0);
        let bound = |claim: &Value| claim["status"]["phase"] == "Bound";
        assert_eq!(world.kube.store.list(kinds::claims(), None).filter(|c| !bound(c)).count(), 0);
        let mut again = around(load("usb-move").unwrap(), &size);
        let once = around(load("usb-move").unwrap(), &size);
        assert_eq!(std::mem::take(&mut again.kube.more), once.kube.more);
        assert_eq!(serde_json::to_value(&again).unwrap(), serde_json::to_value(&once).unwrap());
    }
}
