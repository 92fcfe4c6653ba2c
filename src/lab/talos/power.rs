//! Power buttons and cables.

use std::time::Duration;

use super::life::Way;
use super::node::Node;
use crate::lab::{LabError, World};

impl World {
    /// `qm start` on its host.
    ///
    /// # Errors
    /// Why it does not start.
    pub fn start_vm(&mut self, vmid: u32) -> Result<(), String> {
        self.power_on(vmid, self.now)
    }

    /// The cable of a machine that is no VM is pulled.
    pub fn cut_power(&mut self, name: &str) {
        if let Some(node) = self.talos.nodes.get_mut(name).filter(|node| node.vmid.is_none()) {
            (node.run, node.off) = (None, true);
            node.screen.clear();
        }
    }

    /// Somebody switches a machine on that is off, or that shows nothing but words on its screen. True where that is one.
    pub fn press_power(&mut self, name: &str) -> bool {
        let off = |node: &&mut Node| node.vmid.is_none() && node.run.is_none();
        let Some(node) = self.talos.nodes.get_mut(name).filter(off) else { return false };
        node.off = false;
        let at = self.now + Duration::from_millis(self.talos.timing.firmware);
        self.talos_boot(name, at, Way::Firmware);
        true
    }

    /// Somebody presses the power button of a machine: one that is off starts, one on which something runs goes off in
    /// order, and one that has only words on its screen goes off at once. What came of it, in words.
    ///
    /// # Errors
    /// [`LabError::Hands`] where there is no such node, or it is a VM.
    pub fn press_button(&mut self, name: &str) -> Result<String, LabError> {
        if let Some(done) = self.press_host(name) {
            return Ok(done);
        }
        let known: Vec<&str> = self.talos.nodes.keys().map(String::as_str).collect();
        let none = format!("there is no Talos node `{name}`; it has: {}", known.join(", "));
        let node = self.talos.nodes.get_mut(name).ok_or(LabError::Hands(none))?;
        if node.vmid.is_some() {
            return Err(LabError::Hands(format!("`{name}` is a VM: it is switched in Proxmox")));
        }
        if node.run.is_some() {
            // As by ACPI (siderolabs/talos `internal/app/machined/main.go`): by force, nothing is drained.
            self.talos_shutdown(name, true);
            return Ok(format!("{name} is going off"));
        }
        if !node.screen.is_empty() {
            let showed = std::mem::take(&mut node.screen);
            node.off = true;
            return Ok(format!("{name} is off; it showed: {showed}"));
        }
        self.press_power(name);
        Ok(format!("{name} is switched on"))
    }
}
