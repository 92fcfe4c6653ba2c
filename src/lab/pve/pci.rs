//! What a host has on PCI, and the cluster-wide PCI mappings.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::front::{Call, Data, No};
use super::params::{MISSING, UNKNOWN};
use crate::lab::chassis::ids;
use crate::lab::world::{UsbMapping, World};

const SEE: &[&str] = &["Mapping.Audit", "Mapping.Use", "Mapping.Modify"];

/// `GET /nodes/{n}/hardware/pci`: the drives in its slots.
pub(super) fn hardware(call: &Call, node: &str) -> Result<Data, No> {
    call.need("/", &["Sys.Audit", "Sys.Modify"])?;
    call.proxy(node)?;
    call.params.accept(&[], &["pci-class-blacklist", "verbose"])?;
    let rows: Vec<Value> = call.shared.read(|w| {
        let row = |one: crate::lab::chassis::Seated<'_>| {
            let (vendor, device) = ids(&one.disk.model);
            let address = one.bay.address();
            json!({ "id": address, "class": "0x010802", "vendor": vendor, "device": device,
                "subsystem_vendor": vendor, "subsystem_device": device, "iommugroup": w.iommu_group(node, address) })
        };
        w.seated(node).into_iter().map(row).collect()
    });
    Ok(Value::Array(rows).into())
}

/// Over the whole file, as Proxmox does.
fn digest(world: &World) -> String {
    let file = json!(world.pci_mappings).to_string();
    Sha256::digest(file).iter().take(20).map(|b| format!("{b:02x}")).collect()
}

fn row(world: &World, id: &str, mapping: &UsbMapping) -> Value {
    json!({ "id": id, "map": mapping.map, "type": "pci", "digest": digest(world) })
}

/// `GET /cluster/mapping/pci`
pub(super) fn list(call: &Call) -> Result<Data, No> {
    call.params.accept(&[], &[])?;
    let rows: Vec<Value> = call.shared.read(|w| {
        let all = w.pci_mappings.iter();
        let mine = all.filter(|(id, _)| w.access.may(&call.caller.who, &format!("/mapping/pci/{id}"), SEE));
        mine.map(|(id, mapping)| row(w, id, mapping)).collect()
    });
    Ok(Value::Array(rows).into())
}

fn check(entry: &str) -> Result<(), String> {
    let bad = |name: &str, text: &str| format!("invalid format - format error\nmap.{name}: {text}\n");
    let mut seen = Vec::new();
    for part in entry.split(',') {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        if !["node", "path", "id", "subsystem-id", "iommugroup", "description"].contains(&name) {
            return Err(bad(name, UNKNOWN));
        }
        if value.is_empty() {
            return Err(bad(name, "value does not match the regex pattern"));
        }
        seen.push(name);
    }
    match ["id", "node", "path"].into_iter().find(|name| !seen.contains(name)) {
        Some(missing) => Err(bad(missing, MISSING)),
        None => Ok(()),
    }
}

/// `PUT /cluster/mapping/pci/{id}`: `map` replaces the whole list.
pub(super) fn put(call: &Call, id: &str) -> Result<Data, No> {
    call.need(&format!("/mapping/pci/{id}"), &["Mapping.Modify"])?;
    call.params.accept(&["map"], &["digest"])?;
    let map = call.params.list("map");
    if let Some(text) = map.iter().find_map(|entry| check(entry).err()) {
        return Err(No::param("map", text));
    }
    call.shared.change(|w| {
        if w.no_quorum {
            return Err(No::die("cfs-lock 'file-mapping_pci_cfg' error: no quorum!"));
        }
        if call.params.text("digest").is_some_and(|d| d != digest(w)) {
            let text = "update hardware mapping failed: detected modified configuration - file changed by other user? Try again.";
            return Err(No::die(text));
        }
        let Some(mapping) = w.pci_mappings.get_mut(id) else {
            return Err(No::die(format!("update hardware mapping failed: pci ID '{id}' does not exist")));
        };
        mapping.map = map;
        Ok(Value::Null.into())
    })
}
