//! What a VM's process gets of its host's USB devices.

use std::collections::BTreeMap;

use super::usb::{HostUsb, UsbLine, usb_index};
use super::world::{Plug, Running, World};

impl World {
    /// What a config's `usbN` lines tell a process that starts on `node`, or why it cannot start
    /// (qemu-server `PVE/QemuServer/USB.pm`).
    ///
    /// # Errors
    /// The text of the pve task's error.
    pub fn plugs(
        &self,
        node: &str,
        config: &BTreeMap<String, String>,
        new_style: bool,
    ) -> Result<BTreeMap<String, Plug>, String> {
        let mut plugs = BTreeMap::new();
        for (key, line) in config.iter().filter(|(k, _)| usb_index(k).is_some()) {
            if usb_index(key).is_some_and(|i| i >= 5) && !new_style {
                return Err(format!(
                    "using {key} is only possible with machine type >= 7.1 and ostype l26 or windows > 7"
                ));
            }
            if let Some(plug) = self.plug(node, line)? {
                plugs.insert(key.clone(), plug);
            }
        }
        Ok(plugs)
    }

    /// One line of [`World::plugs`]; none for spice.
    ///
    /// # Errors
    /// As there.
    pub fn plug(&self, node: &str, line: &str) -> Result<Option<Plug>, String> {
        let split = UsbLine::split(line);
        if let Some(name) = split.mapping {
            let entries = self.mapping_entries(&name, node);
            let [entry] = entries.as_slice() else {
                return Err(if entries.is_empty() {
                    format!("USB device mapping not found for '{name}'")
                } else {
                    "More than one USB mapping per host not supported".to_owned()
                });
            };
            self.mapping_fits(&name, node, entry)
                .map_err(|e| format!("USB Mapping invalid (hardware probably changed): {e}"))?;
            let path = entry.get("path").cloned();
            let id = if path.is_some() { None } else { entry.get("id").cloned() };
            return Ok(Some(Plug { id, port: path, usb3: split.usb3 }));
        }
        Ok(match split.host {
            Some(host) if host == "spice" => None,
            Some(host) if host.contains(':') => Some(Plug { id: Some(host), port: None, usb3: split.usb3 }),
            host => Some(Plug { id: None, port: host, usb3: split.usb3 }),
        })
    }

    /// The entries of a mapping for one node, each as its properties.
    pub fn mapping_entries(&self, name: &str, node: &str) -> Vec<BTreeMap<String, String>> {
        let Some(mapping) = self.mappings.get(name) else { return Vec::new() };
        mapping.map.iter().map(|e| properties(e)).filter(|p| p.get("node").is_some_and(|n| n == node)).collect()
    }

    /// Whether the hardware is as a mapping's entry says.
    ///
    /// # Errors
    /// What differs, in Proxmox's words.
    pub fn mapping_fits(&self, name: &str, node: &str, entry: &BTreeMap<String, String>) -> Result<(), String> {
        let id = entry.get("id").cloned().unwrap_or_default();
        let devices = self.host_usb(node);
        if let Some(path) = entry.get("path") {
            let device = devices.iter().find(|d| d.port() == *path).ok_or(format!("usb device '{path}' not found"))?;
            if device.id != id {
                return Err(format!("'id' does not match for '{name}' ({} != {id})", device.id));
            }
        } else if !devices.iter().any(|d| d.id == id) {
            return Err(format!("usb device '{id}' not found"));
        }
        Ok(())
    }
}

/// `a=1,b=2` -> map
pub fn properties(line: &str) -> BTreeMap<String, String> {
    line.split(',').filter_map(|p| p.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

impl Plug {
    pub(super) fn fits(&self, device: &HostUsb) -> bool {
        match (&self.id, &self.port) {
            (Some(id), _) => device.id == *id,
            (None, Some(port)) => device.port() == *port,
            (None, None) => false,
        }
    }
}

impl Running {
    /// The device numbers of a guest begin behind its own hubs and tablet.
    pub(super) const FIRST_DEVNUM: u32 = 2;
}
