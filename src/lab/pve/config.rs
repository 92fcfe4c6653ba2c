//! Configs of machines: three views, validation, pending section, hot-plug.

use crate::lab::world::World;

/// What a `qmconfig` worker does.
pub(super) fn work(_world: &mut World, _vmid: u32, _user: &str, _order: &serde_json::Value) -> Result<(), String> {
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
