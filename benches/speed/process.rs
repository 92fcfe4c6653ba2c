//! What a process takes of memory.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The most memory that a process had, in KiB: the last `VmHWM` of `/proc/PID/status` that could be read while it ran.
/// It is looked at all the time, so what it misses is what came in the last fraction of a millisecond.
pub(crate) fn peak(mut command: Command) -> u64 {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let (mut peak, mut looks) = (0, 0_usize);
    let status = loop {
        if let Some(kib) = high_water(&child) {
            (peak, looks) = (kib, looks + 1);
        }
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if looks > 200 {
            // It runs for long: the cores are its own.
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    assert!(status.success() && looks > 1 && peak > 0, "{command:?}: {status}, {looks} looks");
    peak
}

/// A process that has ended, or that is not yet another program than this one, has none.
fn high_water(child: &Child) -> Option<u64> {
    let at = format!("/proc/{}", child.id());
    let itself = std::fs::read_link(format!("{at}/exe")).ok()?;
    if itself.file_name() != std::path::Path::new(env!("CARGO_BIN_EXE_pvemig")).file_name() {
        return None;
    }
    let status = std::fs::read_to_string(format!("{at}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// MiB of KiB.
pub(crate) fn mib(kib: u64) -> String {
    format!("{:.1}", kib as f64 / 1_024.0)
}
