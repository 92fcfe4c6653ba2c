//! Another machine comes in the place of one: what hands do where a node is replaced.

use super::life::Way;
use super::node::Node;
use crate::lab::{LabError, World};

impl World {
    /// Puts the machine that lies ready for a node in its place and starts it from its stick; one that has a place of its
    /// own is switched on. What was done, in words.
    ///
    /// # Errors
    /// [`LabError::Hands`] where there is no such node, or nothing lies ready for it.
    pub fn swap_machine(&mut self, name: &str) -> Result<String, LabError> {
        let no = |text: String| LabError::Hands(text);
        let old = self.talos.nodes.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.talos.nodes.keys().map(String::as_str).collect();
            no(format!("there is no Talos node `{name}`; it has: {}", known.join(", ")))
        })?;
        if old.vmid.is_some() {
            return Err(no(format!("`{name}` is a VM: it is made anew in Proxmox")));
        }
        let ip = old.ip.clone();
        let Some(spare) = self.talos.spares.remove(name) else {
            if old.run.is_some() {
                let ready: Vec<&str> = self.talos.spares.keys().map(String::as_str).collect();
                return Ok(format!(
                    "{name} is on, and no other machine is ready for its place: nothing was changed; there is one for: {}",
                    if ready.is_empty() { "none".to_owned() } else { ready.join(", ") }
                ));
            }
            self.press_power(name);
            return Ok(format!("{name} is switched on"));
        };
        let at = self.now + std::time::Duration::from_millis(self.talos.timing.firmware);
        self.talos.nodes.insert(name.to_owned(), Node { ip, off: false, ..spare });
        self.talos_boot(name, at, Way::Firmware);
        Ok(format!("another machine is in the place of {name}, and starts from its stick"))
    }
}
