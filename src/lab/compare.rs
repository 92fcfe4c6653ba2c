//! A world as it is compared with another: without what a server sets by itself.

use serde_json::{Value, json};

use super::world::World;

/// What is left out of a comparison, with the reason.
pub const LEFT_OUT: &[(&str, &str)] = &[
    ("now, zero, counter, agenda", "the lab's own clockwork"),
    ("tasks", "pve tasks are a log"),
    ("vms.*.running.{pid,since,boot,up_at,ssh_at,agent_at,boot_id,execs}", "set anew at each start"),
    ("vms.*.running.devnum, usb.*.{devnum,host_devnum}", "device numbers count plug-ins"),
    ("vms.*.pending_delete", "a pending delete counts as deleted"),
    ("hosts.*.devnum, sticks.*.devnum", "device numbers count plug-ins"),
    ("access.*.{password,secret}", "made at the start of each lab"),
];

impl World {
    /// What two worlds are compared by; [`LEFT_OUT`] says what is missing.
    pub fn compared(&self) -> Value {
        json!({})
    }
}
