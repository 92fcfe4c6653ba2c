//! Cluster-wide USB mappings.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::front::{Call, Data, No};
use super::options::check_mapping;
use crate::lab::world::{UsbMapping, World};

const SEE: &[&str] = &["Mapping.Audit", "Mapping.Use", "Mapping.Modify"];

/// Over the whole file, as Proxmox does.
fn digest(world: &World) -> String {
    let file = json!(world.mappings).to_string();
    Sha256::digest(file).iter().take(20).map(|b| format!("{b:02x}")).collect()
}

fn row(world: &World, id: &str, mapping: &UsbMapping) -> Value {
    let mut row = json!({ "id": id, "map": mapping.map, "type": "usb", "digest": digest(world) });
    if let (Some(map), Some(text)) = (row.as_object_mut(), &mapping.description) {
        map.insert("description".into(), text.as_str().into());
    }
    row
}

/// `GET /cluster/mapping/usb`: with `check-node` each row has `errors` (the schema says `error`).
pub(super) fn list(call: &Call) -> Result<Data, No> {
    let node = call.params.text("check-node");
    if let Some(node) = &node {
        call.proxy(node)?;
    }
    call.params.accept(&[], &["check-node"])?;
    let rows: Vec<Value> = call.shared.read(|w| {
        w.mappings
            .iter()
            .filter(|(id, _)| w.access.may(&call.caller.who, &format!("/mapping/usb/{id}"), SEE))
            .map(|(id, mapping)| {
                let mut row = row(w, id, mapping);
                if let (Some(node), Some(map)) = (&node, row.as_object_mut()) {
                    map.insert("errors".into(), Value::Array(problems(w, id, node)));
                }
                row
            })
            .collect()
    });
    Ok(Value::Array(rows).into())
}

fn problems(world: &World, id: &str, node: &str) -> Vec<Value> {
    let entries = world.mapping_entries(id, node);
    let mut out = Vec::new();
    if entries.is_empty() {
        out.push(json!({ "severity": "warning", "message": format!("No mapping for node {node}.") }));
    }
    if entries.len() > 1 {
        out.push(json!({ "severity": "error", "message": "Multiple mappings per node are not supported." }));
    }
    for entry in entries {
        if let Err(text) = world.mapping_fits(id, node, &entry) {
            out.push(json!({ "severity": "error", "message": format!("Invalid configuration: {text}\n") }));
        }
    }
    out
}

/// `GET /cluster/mapping/usb/{id}`
pub(super) fn get(call: &Call, id: &str) -> Result<Data, No> {
    call.need(&format!("/mapping/usb/{id}"), SEE)?;
    call.params.accept(&[], &[])?;
    call.shared.read(|w| match w.mappings.get(id) {
        Some(mapping) => Ok(row(w, id, mapping).into()),
        None => Err(No::die(format!("mapping '{id}' not found"))),
    })
}

fn entries(call: &Call) -> Result<Vec<String>, No> {
    let list = call.params.list("map");
    match list.iter().find_map(|entry| check_mapping(entry).err()) {
        Some(text) => Err(No::param("map", text)),
        None => Ok(list),
    }
}

/// `POST /cluster/mapping/usb`
pub(super) fn create(call: &Call) -> Result<Data, No> {
    call.need("/mapping/usb", &["Mapping.Modify"])?;
    call.params.accept(&["id", "map"], &["description"])?;
    let (id, map) = (call.params.text("id").unwrap_or_default(), entries(call)?);
    if !id.bytes().next().is_some_and(|b| b.is_ascii_alphabetic()) || id.len() < 2 {
        return Err(No::param("id", format!("invalid format - invalid configuration ID '{id}'\n")));
    }
    call.shared.change(|w| {
        if w.no_quorum {
            return Err(No::die("cfs-lock 'file-mapping_usb_cfg' error: no quorum!"));
        }
        if w.mappings.contains_key(&id) {
            return Err(No::die(format!("create hardware mapping failed: usb ID '{id}' already defined")));
        }
        w.mappings.insert(id, UsbMapping { description: call.params.text("description"), map });
        Ok(Value::Null.into())
    })
}

/// `PUT /cluster/mapping/usb/{id}`: `map` replaces the whole list.
pub(super) fn put(call: &Call, id: &str) -> Result<Data, No> {
    call.need(&format!("/mapping/usb/{id}"), &["Mapping.Modify"])?;
    call.params.accept(&["map"], &["description", "delete", "digest"])?;
    let map = entries(call)?;
    call.shared.change(|w| {
        if w.no_quorum {
            return Err(No::die("cfs-lock 'file-mapping_usb_cfg' error: no quorum!"));
        }
        if call.params.text("digest").is_some_and(|d| d != digest(w)) {
            let text = "update hardware mapping failed: detected modified configuration - file changed by other user? Try again.";
            return Err(No::die(text));
        }
        let Some(mapping) = w.mappings.get_mut(id) else {
            return Err(No::die(format!("update hardware mapping failed: usb ID '{id}' does not exist")));
        };
        mapping.map = map;
        if let Some(text) = call.params.text("description") {
            mapping.description = Some(text);
        }
        if call.params.text("delete").is_some_and(|d| d.split(',').any(|k| k == "description")) {
            mapping.description = None;
        }
        Ok(Value::Null.into())
    })
}

/// `DELETE /cluster/mapping/usb/{id}`: no error where it is absent, no look at who uses it.
pub(super) fn delete(call: &Call, id: &str) -> Result<Data, No> {
    call.need("/mapping/usb", &["Mapping.Modify"])?;
    call.params.accept(&[], &[])?;
    call.shared.change(|w| w.mappings.remove(id));
    Ok(Value::Null.into())
}
