//! Machines: lists, state, power.

use serde_json::{Map, Value, json};

use super::front::{Call, Data, No};
use crate::lab::physics::agent_on;
use crate::lab::world::World;

/// What `POST .../status/X` takes.
pub(super) const VERBS: &[&str] = &["start", "stop", "shutdown", "reboot", "reset"];

/// A machine's id on `node`, or Proxmox's text for one that is not there.
pub(super) fn find(call: &Call, node: &str, vmid: &str) -> Result<u32, No> {
    let id: u32 = vmid
        .parse()
        .ok()
        .filter(|id| (100..=999_999_999).contains(id))
        .ok_or_else(|| No::param("vmid", format!("type check ('integer') failed - got '{vmid}'")))?;
    let here = call.shared.read(|w| w.vms.get(&id).is_some_and(|vm| vm.node == node));
    if here {
        Ok(id)
    } else {
        Err(No::die(format!("Configuration file 'nodes/{node}/qemu-server/{id}.conf' does not exist")))
    }
}

/// The fields that every list shows.
pub(super) fn row(world: &World, vmid: u32) -> Option<Value> {
    let vm = world.vms.get(&vmid)?;
    let number = |key: &str, default: u64| vm.config.get(key).and_then(|v| v.parse().ok()).unwrap_or(default);
    let online = world.hosts.get(&vm.node).is_some_and(|h| h.online);
    let status = match (online, &vm.running) {
        (false, _) => "unknown",
        (true, Some(_)) => "running",
        (true, None) => "stopped",
    };
    let uptime = vm.running.as_ref().map_or(0, |r| world.now.saturating_sub(r.since).as_secs());
    let mut row = Map::new();
    row.insert("vmid".into(), vmid.into());
    row.insert("name".into(), vm.name().into());
    row.insert("node".into(), vm.node.as_str().into());
    row.insert("status".into(), status.into());
    row.insert("uptime".into(), uptime.into());
    row.insert("cpus".into(), (number("cores", 1) * number("sockets", 1)).into());
    row.insert("maxmem".into(), (number("memory", 512) * 1_048_576).into());
    row.insert("maxdisk".into(), 0.into());
    if let Some(running) = &vm.running {
        row.insert("pid".into(), running.pid.into());
    }
    if let Some(lock) = &vm.lock {
        row.insert("lock".into(), lock.as_str().into());
    }
    if let Some(tags) = vm.config.get("tags") {
        row.insert("tags".into(), tags.as_str().into());
    }
    Some(Value::Object(row))
}

/// `GET /nodes/{n}/qemu`
pub(super) fn list(call: &Call, node: &str) -> Result<Data, No> {
    call.proxy(node)?;
    call.params.accept(&[], &["full"])?;
    let full = call.params.flag("full")?.unwrap_or(false);
    let rows = call.shared.read(|w| {
        w.vms
            .iter()
            .filter(|(id, vm)| vm.node == node && w.access.may(&call.caller.who, &format!("/vms/{id}"), &["VM.Audit"]))
            .filter_map(|(id, _)| if full { current_row(w, *id) } else { row(w, *id) })
            .map(|mut row| {
                row.as_object_mut().map(|m| m.remove("node"));
                row
            })
            .collect::<Vec<_>>()
    });
    Ok(Value::Array(rows).into())
}

fn current_row(world: &World, vmid: u32) -> Option<Value> {
    let vm = world.vms.get(&vmid)?;
    let mut row = row(world, vmid)?;
    let map = row.as_object_mut()?;
    map.remove("node");
    let qmp = if vm.running.is_some() { "running" } else { "stopped" };
    map.insert("qmpstatus".into(), qmp.into());
    if let Some(running) = &vm.running {
        map.insert("running-machine".into(), running.machine.as_str().into());
        map.insert("running-qemu".into(), "10.1.2".into());
    }
    Some(row)
}

/// `GET .../status/current`
pub(super) fn current(call: &Call, node: &str, vmid: &str) -> Result<Data, No> {
    call.need(&format!("/vms/{vmid}"), &["VM.Audit"])?;
    call.proxy(node)?;
    call.params.accept(&[], &[])?;
    let id = find(call, node, vmid)?;
    call.shared.read(|w| {
        let mut row = current_row(w, id).unwrap_or_default();
        if let (Some(map), Some(vm)) = (row.as_object_mut(), w.vms.get(&id)) {
            let ha = match w.ha.get(&id) {
                Some(state) => json!({ "managed": 1, "state": state, "sid": format!("vm:{id}") }),
                None => json!({ "managed": 0 }),
            };
            map.insert("ha".into(), ha);
            // Configured, which says nothing about whether it can be reached; absent when off.
            if vm.config.get("agent").is_some_and(|a| agent_on(a)) {
                map.insert("agent".into(), 1.into());
            }
        }
        Ok(row.into())
    })
}

/// `POST .../status/{start|stop|shutdown|reboot|reset}`: forks a worker and answers with its UPID.
pub(super) fn power(call: &Call, node: &str, vmid: &str, verb: &str) -> Result<Data, No> {
    call.need(&format!("/vms/{vmid}"), &["VM.PowerMgmt"])?;
    call.proxy(node)?;
    let optional: &[&str] = match verb {
        "start" => &["timeout", "machine", "skiplock"],
        "stop" => &["timeout", "skiplock", "keepActive", "overrule-shutdown"],
        "shutdown" => &["timeout", "forceStop", "skiplock", "keepActive"],
        "reboot" => &["timeout"],
        _ => &["skiplock"],
    };
    call.params.accept(&[], optional)?;
    let timeout = call.params.integer("timeout")?;
    if let Some(bad) = timeout.filter(|t| *t < 0) {
        return Err(No::param("timeout", format!("value must have a minimum value of 0 - got '{bad}'")));
    }
    let force = call.params.flag("forceStop")?.unwrap_or(false);
    let overrule = call.params.flag("overrule-shutdown")?.unwrap_or(false);
    for name in ["skiplock", "keepActive"] {
        if call.params.flag(name)?.unwrap_or(false) && !call.caller.is_root() {
            return Err(No::param(name, "Only root may use this option."));
        }
    }
    let id = find(call, node, vmid)?;
    call.shared.change(|w| {
        let running = w.vms.get(&id).is_some_and(|vm| vm.running.is_some());
        if !running && matches!(verb, "reboot" | "reset") {
            return Err(No::die(format!("VM {id} not running")));
        }
        if w.no_quorum {
            return Err(No::die("cluster not ready - no quorum?"));
        }
        let ha = w.ha.contains_key(&id);
        if verb == "stop" && overrule {
            if ha {
                return Err(No::param("overrule-shutdown", "not applicable for HA resources"));
            }
            w.interrupt_shutdown(id);
        }
        let kind = match (verb, ha) {
            ("start", true) => "hastart".to_owned(),
            ("stop" | "shutdown", true) => "hastop".to_owned(),
            _ => format!("qm{verb}"),
        };
        let order = json!({ "timeout": timeout, "forceStop": force });
        Ok(Value::String(w.fork(&kind, id, &call.caller.who, order)).into())
    })
}
