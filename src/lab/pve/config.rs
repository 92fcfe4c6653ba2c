//! Configs of machines: three views of reading, and writing with the pending section and hot-plug.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::front::{Call, Data, No};
use super::options;
use super::params::split_list;
use super::power::{FLOCK_SECONDS, flock_text};
use super::vm::find;
use crate::lab::usb::{UsbLine, usb_index};
use crate::lab::world::{Vm, World};

/// A change of a config, as a `PUT` or a `qmconfig` worker carries it out.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Order {
    set: BTreeMap<String, String>,
    delete: BTreeSet<String>,
    revert: BTreeSet<String>,
    force: bool,
    digest: Option<String>,
    skiplock: bool,
}

/// How long a hot-unplug waits for the guest.
const UNPLUG: Duration = Duration::from_secs(5);

impl Vm {
    /// 40 digits over everything in the file: pending section and lock flag included.
    fn digest(&self) -> String {
        let file = json!([self.config, self.pending, self.pending_delete, self.lock]).to_string();
        Sha256::digest(file).iter().take(20).map(|b| format!("{b:02x}")).collect()
    }
}

fn typed(key: &str, value: &str) -> Value {
    // Perl shows what it has calculated with as numbers; memory is a property string and stays text.
    match value.parse::<i64>() {
        Ok(number) if options::is_number(key) && key != "memory" => number.into(),
        _ => value.into(),
    }
}

/// `GET .../config`: with the pending values as if they were there, or `current=1` without.
pub(super) fn get(call: &Call, node: &str, vmid: &str) -> Result<Data, No> {
    call.need(&format!("/vms/{vmid}"), &["VM.Audit"])?;
    call.proxy(node)?;
    call.params.accept(&[], &["current", "snapshot"])?;
    let current = call.params.flag("current")?.unwrap_or(false);
    let id = find(call, node, vmid)?;
    if let Some(snapshot) = call.params.text("snapshot") {
        if current {
            return Err(No::param("snapshot", "cannot use 'snapshot' parameter with 'current'"));
        }
        return Err(No::die(format!("snapshot '{snapshot}' does not exist")));
    }
    call.shared.read(|w| {
        let Some(vm) = w.vms.get(&id) else { return Err(No::die("no such machine")) };
        let mut config = vm.config.clone();
        if !current {
            config.retain(|key, _| !vm.pending_delete.contains_key(key));
            config.extend(vm.pending.clone());
        }
        let mut out: serde_json::Map<String, Value> = config.iter().map(|(k, v)| (k.clone(), typed(k, v))).collect();
        if let Some(lock) = &vm.lock {
            out.insert("lock".into(), lock.as_str().into());
        }
        out.insert("digest".into(), vm.digest().into());
        Ok(Value::Object(out).into())
    })
}

/// `GET .../pending`
pub(super) fn pending(call: &Call, node: &str, vmid: &str) -> Result<Data, No> {
    call.need(&format!("/vms/{vmid}"), &["VM.Audit"])?;
    call.proxy(node)?;
    call.params.accept(&[], &[])?;
    let id = find(call, node, vmid)?;
    call.shared.read(|w| {
        let Some(vm) = w.vms.get(&id) else { return Err(No::die("no such machine")) };
        let keys: BTreeSet<&String> =
            vm.config.keys().chain(vm.pending.keys()).chain(vm.pending_delete.keys()).collect();
        let mut rows: Vec<Value> = keys
            .into_iter()
            .map(|key| {
                let mut row = json!({ "key": key });
                if let Some(map) = row.as_object_mut() {
                    if let Some(value) = vm.config.get(key) {
                        map.insert("value".into(), typed(key, value));
                    }
                    if let Some(value) = vm.pending.get(key) {
                        map.insert("pending".into(), typed(key, value));
                    }
                    if let Some(force) = vm.pending_delete.get(key) {
                        map.insert("delete".into(), if *force { 2 } else { 1 }.into());
                    }
                }
                row
            })
            .collect();
        rows.push(json!({ "key": "digest", "value": vm.digest() }));
        Ok(Value::Array(rows).into())
    })
}

/// Checks of a write that come before any work: rights on the keys, then the parameters themselves.
fn order(call: &Call, node: &str, vmid: &str, own: &[&str]) -> Result<(u32, Order), No> {
    let path = format!("/vms/{vmid}");
    call.need(&path, options::ANY_CONFIG)?;
    call.proxy(node)?;
    let mut order = Order::default();
    let mut errors = BTreeMap::new();
    for name in call.params.names() {
        let value = call.params.text(name).unwrap_or_default();
        match name {
            "delete" => order.delete = split_list(&value).into_iter().collect(),
            "revert" => order.revert = split_list(&value).into_iter().collect(),
            "digest" => order.digest = Some(value),
            "force" => order.force = call.params.flag(name)?.unwrap_or(false),
            "skiplock" => order.skiplock = call.params.flag(name)?.unwrap_or(false),
            name if own.contains(&name) => {}
            name => {
                if let Err(text) = options::check(name, &value) {
                    errors.insert(name.to_owned(), text);
                }
                order.set.insert(name.to_owned(), value);
            }
        }
    }
    if !errors.is_empty() {
        return Err(No::Verify(errors));
    }
    if order.skiplock && !call.caller.is_root() {
        return Err(No::param("skiplock", "Only root may use this option."));
    }
    for key in &order.delete {
        if order.set.contains_key(key) {
            return Err(No::param("delete", format!("you can't use '-{key}' and '-delete {key}' at the same time")));
        }
        if order.revert.contains(key) {
            return Err(No::param(
                "revert",
                format!("you can't use '-delete {key}' and '-revert {key}' at the same time"),
            ));
        }
        if !options::exists(key) {
            return Err(No::param("delete", format!("unknown option '{key}'")));
        }
    }
    for key in &order.revert {
        if order.set.contains_key(key) {
            return Err(No::param("revert", format!("you can't use '-{key}' and '-revert {key}' at the same time")));
        }
        if !options::exists(key) {
            return Err(No::param("revert", format!("unknown option '{key}'")));
        }
    }
    let id = find(call, node, vmid)?;
    if order.set.is_empty() && order.delete.is_empty() && order.revert.is_empty() {
        return Err(No::die("no options specified"));
    }
    for key in order.set.keys().chain(&order.delete).chain(&order.revert) {
        match options::right(key) {
            Some(right) => call.need(&path, &[right])?,
            None if call.caller.is_root() => {}
            None => return Err(No::die(format!("only root can set '{key}' config"))),
        }
        if key == "startup" {
            call.need("/", &["Sys.Modify"])?;
        }
    }
    Ok((id, order))
}

/// `PUT .../config`: at once.
pub(super) async fn put(call: &Call, node: &str, vmid: &str) -> Result<Data, No> {
    let (id, order) = order(call, node, vmid, &[])?;
    let free = |w: &World| (!w.flock_held(id, "")).then_some(());
    let limit = Duration::from_secs(FLOCK_SECONDS.unsigned_abs());
    if call.shared.until(limit, free).await.is_none() {
        return Err(No::die(flock_text(id)));
    }
    let busy = call.shared.read(|w| w.vms.get(&id).is_some_and(|vm| vm.guest.holds_usb));
    let outcome = call.shared.change(|w| write(w, id, &call.caller.who, &order));
    if busy && outcome.is_err() {
        call.shared.clock.pause(UNPLUG).await;
    }
    outcome.map(|()| Value::Null.into())
}

/// `POST .../config`: in a worker. Rights that depend on values are checked there, so the task fails, not the call.
pub(super) fn post(call: &Call, node: &str, vmid: &str) -> Result<Data, No> {
    let (id, order) = order(call, node, vmid, &["background_delay"])?;
    let order = serde_json::to_value(&order).map_err(|e| No::die(e.to_string()))?;
    Ok(Value::String(call.shared.change(|w| w.fork("qmconfig", id, &call.caller.who, order))).into())
}

/// What a `qmconfig` worker does.
pub(super) fn work(world: &mut World, vmid: u32, user: &str, order: &Value) -> Result<(), String> {
    let order: Order = serde_json::from_value(order.clone()).map_err(|e| e.to_string())?;
    write(world, vmid, user, &order).map_err(No::in_task)
}

fn write(world: &mut World, vmid: u32, who: &str, order: &Order) -> Result<(), No> {
    if world.no_quorum {
        return Err(No::die("cluster not ready - no quorum?"));
    }
    let Some(vm) = world.vms.get(&vmid) else { return Err(No::die("no such machine")) };
    if order.digest.as_ref().is_some_and(|d| *d != vm.digest()) {
        return Err(No::die("checksum mismatch (file change by other user?)"));
    }
    let only_lock = order.set.is_empty() && order.delete.iter().all(|k| k == "lock") && !order.delete.is_empty();
    if let Some(lock) = vm.lock.as_ref().filter(|_| !order.skiplock && !only_lock) {
        return Err(No::die(format!("VM is locked ({lock})")));
    }
    // Deleting or replacing a raw device needs the same right as setting it.
    for key in order.set.keys().chain(&order.delete) {
        for line in [order.set.get(key), vm.config.get(key), vm.pending.get(key)].into_iter().flatten() {
            may_set(world, who, key, line)?;
        }
    }
    let Some(vm) = world.vms.get_mut(&vmid) else { return Err(No::die("no such machine")) };
    if order.delete.contains("lock") {
        vm.lock = None;
    }
    for key in &order.revert {
        vm.pending.remove(key);
        vm.pending_delete.remove(key);
    }
    for key in &order.delete {
        vm.pending.remove(key);
        if vm.config.contains_key(key) {
            vm.pending_delete.insert(key.clone(), order.force);
        }
    }
    for (key, value) in &order.set {
        vm.pending_delete.remove(key);
        if vm.config.get(key) == Some(value) {
            vm.pending.remove(key);
        } else {
            vm.pending.insert(key.clone(), value.clone());
        }
    }
    if vm.running.is_none() {
        apply_pending(world, vmid);
        return Ok(());
    }
    hot_plug(world, vmid)
}

fn may_set(world: &World, who: &str, key: &str, line: &str) -> Result<(), No> {
    if who == "root@pam" {
        return Ok(());
    }
    if usb_index(key).is_some() {
        let split = UsbLine::split(line);
        if split.host.is_some_and(|h| h != "spice") {
            return Err(No::die(format!("only root can set '{key}' config for real devices")));
        }
        if let Some(mapping) = split.mapping {
            let path = format!("/mapping/usb/{mapping}");
            if !world.access.may(who, &path, &["Mapping.Use"]) {
                return Err(No::Says(403, format!("Permission check failed ({path}, Mapping.Use)")));
            }
        }
    }
    if key.starts_with("hostpci") && !line.contains("mapping=") {
        return Err(No::die(format!("only root can set '{key}' config for non-mapped devices")));
    }
    if key.starts_with("serial") && line != "socket" {
        return Err(No::die(format!("only root can set '{key}' config for real devices")));
    }
    Ok(())
}

/// Moves the pending section into the config, as each start of a process does.
pub(super) fn apply_pending(world: &mut World, vmid: u32) {
    let Some(vm) = world.vms.get_mut(&vmid) else { return };
    for (key, _) in std::mem::take(&mut vm.pending_delete) {
        vm.config.remove(&key);
    }
    vm.config.extend(std::mem::take(&mut vm.pending));
}

/// Gives a running process what it can take. What it cannot stays pending; what fails stays pending too, and the call
/// says 400 although it has written.
fn hot_plug(world: &mut World, vmid: u32) -> Result<(), No> {
    let Some(vm) = world.vms.get(&vmid) else { return Ok(()) };
    let features = vm.config.get("hotplug").map_or("network,disk,usb", String::as_str).to_owned();
    let has = |feature: &str| features == "1" || features.split(',').any(|f| f == feature);
    let usb = has("usb") && vm.new_style_usb();
    let busy = vm.guest.holds_usb;
    let mut errors = BTreeMap::new();
    let keys: Vec<String> = vm.pending_delete.keys().chain(vm.pending.keys()).cloned().collect();
    for key in keys {
        let plain = options::FAST.contains(&key.as_str())
            || (has("network") && key.starts_with("net"))
            || (has("disk") && (key.starts_with("scsi") && key != "scsihw" || key.starts_with("virtio")));
        let outcome = if usb_index(&key).is_some() {
            if !usb {
                continue;
            }
            plug(world, vmid, &key, busy)
        } else if plain {
            Ok(())
        } else {
            continue;
        };
        if let Err(text) = outcome {
            errors.insert(key, format!("hotplug problem - {text}"));
            continue;
        }
        if let Some(vm) = world.vms.get_mut(&vmid) {
            if vm.pending_delete.remove(&key).is_some() {
                vm.config.remove(&key);
            }
            if let Some(value) = vm.pending.remove(&key) {
                vm.config.insert(key, value);
            }
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(No::Verify(errors)) }
}

/// Takes a USB key's old device from the process and gives it the new one.
fn plug(world: &mut World, vmid: u32, key: &str, busy: bool) -> Result<(), String> {
    let Some(vm) = world.vms.get(&vmid) else { return Ok(()) };
    let held = vm.running.as_ref().is_some_and(|r| r.usb.contains_key(key));
    if held && busy {
        return Err(format!("error on hot-unplugging device '{key}' - still busy in guest?"));
    }
    let fresh = match vm.pending.get(key) {
        Some(line) => world.plug(&vm.node, line)?,
        None => None,
    };
    if let Some(running) = world.vms.get_mut(&vmid).and_then(|vm| vm.running.as_mut()) {
        running.plugs.remove(key);
        running.usb.remove(key);
        if let Some(fresh) = fresh {
            running.plugs.insert(key.to_owned(), fresh);
        }
    }
    world.settle();
    Ok(())
}
