//! Programs in guests and on hosts: a closed set, each reading and changing the world as the real one would.

use std::time::Duration;

use super::world::World;

/// What a command said and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOutcome {
    /// Exit code.
    pub exit: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// True where it changed something.
    pub changed: bool,
    /// How long it takes in lab time; the effect is there at once, the caller holds back the outcome.
    pub took: Duration,
}

impl World {
    /// Runs a command in a guest, as root. `argv[0]` is the program; no shell unless it is one. A guest that is not up
    /// says nothing: ask [`World::guest_up`] first.
    pub fn guest_exec(&mut self, vmid: u32, argv: &[String], stdin: &[u8]) -> ExecOutcome {
        let _ = (vmid, stdin);
        ExecOutcome { exit: 127, stderr: format!("{argv:?}: not found\n").into_bytes(), ..ExecOutcome::default() }
    }

    /// Runs a command on a Proxmox node, as root.
    pub fn host_exec(&mut self, host: &str, argv: &[String], stdin: &[u8]) -> ExecOutcome {
        let _ = (host, stdin);
        ExecOutcome { exit: 127, stderr: format!("{argv:?}: not found\n").into_bytes(), ..ExecOutcome::default() }
    }

    /// Whether a command only reads: in the closed list, or declared so by the site.
    pub fn reads_only(&self, argv: &[String]) -> bool {
        let _ = argv;
        false
    }
}
