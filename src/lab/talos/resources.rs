//! What a node's resources say. Keys are those of the specs' YAML.

use serde_json::{Value, json};

use super::board;
use super::hardware;
use super::kinds::Kind;
use super::node::{Node, Run};
use super::volumes;
use crate::lab::World;
use crate::lab::kube::kinds;

/// A resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resource {
    /// Its id in its kind.
    pub(super) id: String,
    /// Counts its changes.
    pub(super) version: u64,
    /// The spec in YAML.
    pub(super) yaml: String,
    /// The bytes of a machine configuration.
    pub(super) config: Option<Vec<u8>>,
}

/// The spec of one.
pub(super) type Spec = (String, Value);

/// All resources of a kind on a node, by id.
///
/// # Errors
/// What cannot be written as YAML.
pub(super) fn all(world: &World, name: &str, kind: &Kind) -> Result<Vec<Resource>, String> {
    let Some(node) = world.talos.nodes.get(name) else { return Ok(Vec::new()) };
    let Some(run) = node.answering(world.now) else { return Ok(Vec::new()) };
    if kind.name == "MachineConfigs.config.talos.dev" {
        return Ok(configs(node, run));
    }
    let mut specs = specs(world, name, node, run, kind.name);
    specs.sort_by(|a, b| a.0.cmp(&b.0));
    let version = run.log.events.last().map_or(1, |event| event.number);
    let one = |(id, spec): Spec| {
        let yaml = serde_saphyr::to_string(&spec).map_err(|e| e.to_string())?;
        Ok(Resource { id, version, yaml, config: None })
    };
    specs.into_iter().map(one).collect()
}

/// The configuration in effect and the one on the disk; the YAML of newer versions is a string with the text in it.
fn configs(node: &Node, run: &Run) -> Vec<Resource> {
    let one = |id: &str, text: &str| Resource {
        id: id.to_owned(),
        version: run.generation,
        yaml: text.to_owned(),
        config: Some(text.as_bytes().to_vec()),
    };
    if run.maintenance {
        return Vec::new();
    }
    vec![one("persistent", &node.config), one("v1alpha1", &run.active)]
}

fn specs(world: &World, name: &str, node: &Node, run: &Run, kind: &str) -> Vec<Spec> {
    let image = node.image();
    // Nothing is known yet of a cluster.
    let clustered = [".cluster.talos.dev", ".etcd.talos.dev", ".kubernetes.talos.dev", ".config.talos.dev"];
    if run.maintenance && clustered.iter().any(|group| kind.ends_with(group)) {
        return Vec::new();
    }
    match kind {
        "MachineStatuses.runtime.talos.dev" => status(world, name),
        "SystemDisks.block.talos.dev" => hardware::system_disk(node, run),
        "Disks.block.talos.dev" => hardware::disks(node, run),
        "DiscoveredVolumes.block.talos.dev" => volumes::discovered(node, run),
        "VolumeStatuses.block.talos.dev" => volumes::volumes(node, run),
        "MountStatuses.block.talos.dev" => volumes::mounts(node, run),
        "PCIDevices.hardware.talos.dev" => hardware::pci(node, run),
        "SystemInformations.hardware.talos.dev" => vec![("systeminformation".into(), hardware::system_of(node))],
        "Processors.hardware.talos.dev" => board::processors(node),
        "MemoryModules.hardware.talos.dev" => board::memory_modules(node),
        "LinkStatuses.net.talos.dev" => hardware::links(node),
        "AddressStatuses.net.talos.dev" => hardware::addresses(node),
        "Members.cluster.talos.dev" => members(world),
        "EtcdMembers.etcd.talos.dev" => world
            .etcd_of(name)
            .map(|m| ("local".into(), json!({ "memberID": format!("{:016x}", m.id) })))
            .into_iter()
            .collect(),
        "NodeStatuses.kubernetes.talos.dev" => node_status(world, name),
        "Nodenames.kubernetes.talos.dev" => vec![(
            "nodename".into(),
            json!({ "nodename": world.talos_host(name), "hostnameVersion": "2", "skipNodeRegistration": false }),
        )],
        "Services.v1alpha1.talos.dev" => {
            let running = world.talos_services(name).into_iter().filter(|s| s.state == "Running");
            let spec = |healthy: Option<bool>| json!({ "running": true, "healthy": healthy.unwrap_or(false), "unknown": healthy.is_none() });
            running.map(|s| (s.id, spec(s.healthy))).collect()
        }
        "MachineTypes.config.talos.dev" => {
            let kind = if run.wants.control_plane { "controlplane" } else { "worker" };
            vec![("machine-type".into(), json!(kind))]
        }
        "KernelModuleSpecs.runtime.talos.dev" => {
            let spec = |(name, parameters)| json!({ "name": name, "parameters": parameters });
            run.wants.modules.iter().map(|m| (m.0.clone(), spec(m))).collect()
        }
        "LoadedKernelModules.runtime.talos.dev" => {
            let spec =
                json!({ "size": 126_976, "referenceCount": 1, "dependencies": [], "state": "Live", "address": "0x0" });
            run.loaded.iter().map(|m| (m.clone(), spec.clone())).collect()
        }
        "KernelModuleStatuses.runtime.talos.dev" => {
            let spec = json!({ "type": "dynamic", "size": 126_976, "referenceCount": 1, "dependencies": [],
                "state": "live", "address": "0x0" });
            run.loaded.iter().map(|m| (m.clone(), spec.clone())).collect()
        }
        "KernelParamStatuses.runtime.talos.dev" => {
            let one = |(name, value): (&String, &String)| {
                (format!("proc.sys.{name}"), json!({ "current": value, "default": "0", "unsupported": false }))
            };
            run.wants.sysctls.iter().map(one).collect()
        }
        "ExtensionStatuses.runtime.talos.dev" => extensions(node),
        "HostnameStatuses.net.talos.dev" => {
            vec![("hostname".into(), json!({ "hostname": world.talos_host(name), "domainname": "" }))]
        }
        "NetworkStatuses.net.talos.dev" => vec![(
            "status".into(),
            json!({ "addressReady": true, "connectivityReady": true, "hostnameReady": true, "etcFilesReady": true }),
        )],
        "BootIDs.runtime.talos.dev" => vec![("boot-id".into(), json!({ "bootID": run.boot_id }))],
        "UnattendedInstallStatuses.runtime.talos.dev" => {
            let spec = |(phase, error): &(String, String)| json!({ "phase": phase, "error": error });
            node.unattended.iter().map(|install| ("unattended-install".into(), spec(install))).collect()
        }
        "BootedEntries.talos.dev" if node.uefi => {
            vec![("bootedentry".into(), json!({ "bootedEntry": format!("Talos-v{}.efi", image.version) }))]
        }
        "SecurityStates.talos.dev" => {
            let state = json!({ "secureBoot": node.secure_boot, "bootedWithUKI": node.uefi });
            vec![("securitystate".into(), state)]
        }
        "Versions.runtime.talos.dev" => vec![("version".into(), json!({ "version": format!("v{}", image.version) }))],
        "TimeStatuses.v1alpha1.talos.dev" => {
            vec![("node".into(), json!({ "synced": true, "epoch": 1, "syncDisabled": false }))]
        }
        // Diagnostics, and boot entries under GRUB: there are none.
        _ => Vec::new(),
    }
}

fn status(world: &World, name: &str) -> Vec<Spec> {
    let Some(status) = world.talos_status(name) else { return Vec::new() };
    let unmet: Vec<Value> =
        status.unmet.iter().map(|(name, reason)| json!({ "name": name, "reason": reason })).collect();
    let spec = json!({
        "stage": status.stage.word(),
        "status": { "ready": unmet.is_empty(), "unmetConditions": unmet },
    });
    vec![("machine".into(), spec)]
}

/// All nodes of the cluster that discovery has heard of lately.
fn members(world: &World) -> Vec<Spec> {
    let heard = world.talos.nodes.iter().filter_map(|(name, node)| {
        let run = node.run.as_ref().filter(|run| !run.maintenance)?;
        let kind = if run.wants.control_plane { "controlplane" } else { "worker" };
        let host = world.talos_host(name);
        let mut spec = json!({
            "nodeId": format!("{:0<44}", name.replace('-', "")),
            "addresses": [node.ip],
            // With the domain that a router gave; the id has none.
            "hostname": format!("{host}.lan"),
            "machineType": kind,
            "operatingSystem": format!("Talos (v{})", node.image().version),
        });
        if run.wants.control_plane {
            spec["controlPlane"] = json!({ "port": 6443 });
        }
        Some((host.to_owned(), spec))
    });
    heard.collect()
}

/// The node as the API server tells of it.
fn node_status(world: &World, name: &str) -> Vec<Spec> {
    let host = world.talos_host(name);
    let Some(node) = world.kube.store.get(kinds::nodes(), "", host) else { return Vec::new() };
    let at = |pointer: &str| node.pointer(pointer).cloned();
    let spec = json!({
        "nodename": host,
        "nodeReady": world.talos_kubelet_ready(name).unwrap_or(false),
        "unschedulable": at("/spec/unschedulable").unwrap_or(Value::Bool(false)),
        "labels": at("/metadata/labels").unwrap_or_else(|| json!({})),
        "annotations": at("/metadata/annotations").unwrap_or_else(|| json!({})),
    });
    vec![(host.to_owned(), spec)]
}

/// The layers of the image; the factory adds one that is named after its schematic.
fn extensions(node: &Node) -> Vec<Spec> {
    let image = node.image();
    let schematic = Some(("schematic".to_owned(), image.schematic.clone())).filter(|(_, id)| !id.is_empty());
    let plain = image.extensions.iter().map(|name| (name.clone(), format!("v{}", image.version)));
    let one = |(at, (name, version)): (usize, (String, String))| {
        let spec = json!({
            "image": format!("{at}.{name}.sqsh"),
            "metadata": { "name": name, "version": version, "author": "Sidero Labs", "description": "",
                "compatibility": { "talos": { "version": ">= v1.8.0" } } },
        });
        (at.to_string(), spec)
    };
    plain.chain(schematic).enumerate().map(one).collect()
}
