//! Which call is answered where. What is not here answers 501.

use super::front::{Call, Data, No};
use super::{agent, auth, cluster, config, mapping, pci, tasklist, vm};

/// Answers a call; none where there is no such method.
pub(super) async fn route(call: Call) -> Option<Result<Data, No>> {
    let path = call.path.clone();
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    Some(match (call.method.as_str(), path.as_slice()) {
        ("GET", ["version"]) => cluster::version(&call, None),
        ("GET", ["access", "permissions"]) => auth::permissions(&call.shared, &call.caller, &call.params),
        ("GET", ["nodes"]) => cluster::nodes(&call),
        ("GET", ["cluster", "status"]) => cluster::status(&call),
        ("GET", ["cluster", "resources"]) => cluster::resources(&call),
        ("GET", ["cluster", "nextid"]) => cluster::next_id(&call),
        ("GET", ["cluster", "tasks"]) => tasklist::cluster(&call),
        ("GET", ["cluster", "ha", "resources"]) => cluster::ha_resources(&call),
        ("GET", ["cluster", "mapping", "usb"]) => mapping::list(&call),
        ("POST", ["cluster", "mapping", "usb"]) => mapping::create(&call),
        ("GET", ["cluster", "mapping", "usb", id]) => mapping::get(&call, id),
        ("PUT", ["cluster", "mapping", "usb", id]) => mapping::put(&call, id),
        ("DELETE", ["cluster", "mapping", "usb", id]) => mapping::delete(&call, id),
        ("GET", ["cluster", "mapping", "pci"]) => pci::list(&call),
        ("PUT", ["cluster", "mapping", "pci", id]) => pci::put(&call, id),
        ("GET", ["nodes", node, "version"]) => cluster::version(&call, Some(node)),
        ("GET", ["nodes", node, "status"]) => cluster::node_status(&call, node),
        ("GET", ["nodes", node, "hardware", "usb"]) => cluster::hardware_usb(&call, node),
        ("GET", ["nodes", node, "hardware", "pci"]) => pci::hardware(&call, node),
        ("GET", ["nodes", node, "tasks"]) => tasklist::list(&call, node),
        ("DELETE", ["nodes", node, "tasks", upid]) => tasklist::stop(&call, node, upid),
        ("GET", ["nodes", node, "tasks", upid, "status"]) => tasklist::status(&call, node, upid),
        ("GET", ["nodes", node, "tasks", upid, "log"]) => tasklist::log(&call, node, upid),
        ("GET", ["nodes", node, "qemu"]) => vm::list(&call, node),
        ("GET", ["nodes", node, "qemu", vmid, "config"]) => config::get(&call, node, vmid),
        ("PUT", ["nodes", node, "qemu", vmid, "config"]) => config::put(&call, node, vmid).await,
        ("POST", ["nodes", node, "qemu", vmid, "config"]) => config::post(&call, node, vmid),
        ("GET", ["nodes", node, "qemu", vmid, "pending"]) => config::pending(&call, node, vmid),
        ("GET", ["nodes", node, "qemu", vmid, "status", "current"]) => vm::current(&call, node, vmid),
        ("POST", ["nodes", node, "qemu", vmid, "status", verb]) if vm::VERBS.contains(verb) => {
            vm::power(&call, node, vmid, verb)
        }
        (method @ ("GET" | "POST"), ["nodes", node, "qemu", vmid, "agent", command])
            if agent::exists(method, command) =>
        {
            agent::call(&call, node, vmid, command).await
        }
        _ => return None,
    })
}
