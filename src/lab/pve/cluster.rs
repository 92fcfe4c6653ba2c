//! The cluster, its nodes and their hardware.

use serde_json::{Value, json};

use super::front::{Call, Data, No};
use crate::lab::world::World;

/// `GET /version`, `GET /nodes/{n}/version`
pub(super) fn version(call: &Call, node: Option<&str>) -> Result<Data, No> {
    if let Some(node) = node {
        call.proxy(node)?;
    }
    call.params.accept(&[], &[])?;
    let version = call.shared.read(|w| {
        let host = node.and_then(|n| w.hosts.get(n)).or_else(|| w.hosts.values().find(|h| h.online));
        host.map(|h| h.version.clone()).unwrap_or_default()
    });
    let release = version.rsplit_once('.').map_or(version.as_str(), |(r, _)| r).to_owned();
    Ok(json!({ "version": version, "release": release, "repoid": "1b1d2f5e7c0a9e34" }).into())
}

fn uptime(world: &World) -> u64 {
    // Hosts are up for as long as the lab remembers, and three weeks.
    world.now.as_secs() + 1_814_400
}

/// `GET /nodes`
pub(super) fn nodes(call: &Call) -> Result<Data, No> {
    call.params.accept(&[], &[])?;
    let rows: Vec<Value> = call.shared.read(|w| {
        w.hosts
            .iter()
            .map(|(name, host)| {
                let mut row = json!({ "node": name, "id": format!("node/{name}"), "type": "node",
                    "status": if host.online { "online" } else { "offline" }, "level": "" });
                if let (true, Some(map)) = (host.online, row.as_object_mut()) {
                    map.insert("uptime".into(), uptime(w).into());
                    map.insert("maxcpu".into(), 8.into());
                    map.insert("maxmem".into(), 67_430_023_168_u64.into());
                }
                row
            })
            .collect()
    });
    Ok(Value::Array(rows).into())
}

/// `GET /cluster/status`: a row for the cluster, if it is one, and one for each node.
pub(super) fn status(call: &Call) -> Result<Data, No> {
    call.need("/", &["Sys.Audit"])?;
    call.params.accept(&[], &[])?;
    let rows: Vec<Value> = call.shared.read(|w| {
        let cluster = json!({ "type": "cluster", "id": "cluster", "name": "homelab", "version": 3,
            "nodes": w.hosts.len(), "quorate": u8::from(!w.no_quorum) });
        let rows = w.hosts.iter().enumerate().map(|(i, (name, host))| {
            json!({ "type": "node", "id": format!("node/{name}"), "name": name, "nodeid": i + 1, "ip": host.ip,
                "online": u8::from(host.online), "local": u8::from(i == 0), "level": "" })
        });
        (w.hosts.len() > 1).then_some(cluster).into_iter().chain(rows).collect()
    });
    Ok(Value::Array(rows).into())
}

/// `GET /cluster/resources`
pub(super) fn resources(call: &Call) -> Result<Data, No> {
    call.params.accept(&[], &["type"])?;
    let kind = call.params.text("type");
    if let Some(kind) = kind.as_deref().filter(|k| !["vm", "storage", "node", "sdn"].contains(k)) {
        let text = format!("value '{kind}' does not have a value in the enumeration 'vm, storage, node, sdn'");
        return Err(No::param("type", text));
    }
    let wants = |k: &str| kind.as_deref().is_none_or(|kind| kind == k);
    let rows = call.shared.read(|w| {
        let mut rows = Vec::new();
        let may = |path: &str, privilege: &str| w.access.may(&call.caller.who, path, &[privilege]);
        for (vmid, _) in w.vms.iter().filter(|_| wants("vm")).filter(|(id, _)| may(&format!("/vms/{id}"), "VM.Audit")) {
            rows.extend(super::vm::row(w, *vmid).map(|mut row| {
                if let Some(map) = row.as_object_mut() {
                    map.insert("id".into(), format!("qemu/{vmid}").into());
                    map.insert("type".into(), "qemu".into());
                    map.remove("pid");
                    if let Some(state) = w.ha.get(vmid) {
                        map.insert("hastate".into(), state.as_str().into());
                    }
                }
                row
            }));
        }
        for (name, host) in w.hosts.iter().filter(|_| wants("node")) {
            if may(&format!("/nodes/{name}"), "Sys.Audit") {
                let status = if host.online { "online" } else { "offline" };
                rows.push(json!({ "id": format!("node/{name}"), "type": "node", "node": name, "status": status,
                    "uptime": uptime(w), "maxcpu": 8, "maxmem": 67_430_023_168_u64, "level": "" }));
            }
        }
        rows
    });
    Ok(Value::Array(rows).into())
}

/// `GET /cluster/nextid`
pub(super) fn next_id(call: &Call) -> Result<Data, No> {
    call.params.accept(&[], &["vmid"])?;
    let wanted = call.params.integer("vmid")?.and_then(|v| u32::try_from(v).ok());
    call.shared.read(|w| match wanted {
        Some(vmid) if w.vms.contains_key(&vmid) => Err(No::param("vmid", format!("VM {vmid} already exists"))),
        Some(vmid) => Ok(json!(vmid.to_string()).into()),
        None => Ok(json!((100..).find(|id| !w.vms.contains_key(id)).map(|id: u32| id.to_string())).into()),
    })
}

/// `GET /cluster/ha/resources`
pub(super) fn ha_resources(call: &Call) -> Result<Data, No> {
    call.need("/", &["Sys.Audit"])?;
    call.params.accept(&[], &["type"])?;
    let rows: Vec<Value> = call.shared.read(|w| {
        w.ha.iter().map(|(vmid, state)| json!({ "sid": format!("vm:{vmid}"), "type": "vm", "state": state })).collect()
    });
    Ok(Value::Array(rows).into())
}

/// `GET /nodes/{n}/status`
pub(super) fn node_status(call: &Call, node: &str) -> Result<Data, No> {
    call.need(&format!("/nodes/{node}"), &["Sys.Audit"])?;
    call.proxy(node)?;
    call.params.accept(&[], &[])?;
    call.shared.read(|w| {
        let version = w.hosts.get(node).map(|h| h.version.clone()).unwrap_or_default();
        Ok(json!({
            "pveversion": format!("pve-manager/{version}/1b1d2f5e7c0a9e34"),
            "kversion": "Linux 6.17.4-1-pve #1 SMP PREEMPT_DYNAMIC PMX 6.17.4-1",
            "current-kernel": { "sysname": "Linux", "release": "6.17.4-1-pve", "machine": "x86_64",
                "version": "#1 SMP PREEMPT_DYNAMIC PMX 6.17.4-1" },
            "cpuinfo": { "cpus": 8, "cores": 4, "sockets": 1, "model": "Intel(R) Core(TM) i5" },
            "memory": { "total": 67_430_023_168_u64, "used": 31_138_512_896_u64, "free": 36_291_510_272_u64,
                "available": 35_100_000_256_u64 },
            "loadavg": ["0.42", "0.51", "0.47"],
            "boot-info": { "mode": "efi", "secureboot": 0 },
            "uptime": uptime(w),
        })
        .into())
    })
}

/// `GET /nodes/{n}/hardware/usb`: flat, in tree order. `port` counts from zero, and `serial` is never there although
/// the schema names it.
pub(super) fn hardware_usb(call: &Call, node: &str) -> Result<Data, No> {
    call.need("/", &["Sys.Modify"])?;
    call.proxy(node)?;
    call.params.accept(&[], &[])?;
    let rows: Vec<Value> = call.shared.read(|w| {
        w.host_usb(node)
            .into_iter()
            .map(|d| {
                let (vendor, product) = d.id.split_once(':').unwrap_or_default();
                let last = d.path.rsplit('.').next().and_then(|p| p.parse::<u32>().ok()).unwrap_or(1);
                let mut row = json!({
                    "busnum": d.bus, "devnum": d.dev, "port": last - 1,
                    "level": if d.is_hub() { 0 } else { d.path.split('.').count() },
                    "class": if d.is_hub() { 9 } else { 0 },
                    "vendid": vendor, "prodid": product, "speed": d.speed.to_string(),
                });
                if let Some(map) = row.as_object_mut() {
                    if !d.is_hub() {
                        map.insert("usbpath".into(), d.path.clone().into());
                    }
                    if !d.product.is_empty() {
                        map.insert("product".into(), d.product.clone().into());
                        map.insert("manufacturer".into(), "".into());
                    }
                }
                row
            })
            .collect()
    });
    Ok(Value::Array(rows).into())
}
