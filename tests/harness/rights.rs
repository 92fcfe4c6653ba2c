//! What `pvemig privileges` prints of a migration, and what was refused of its requests.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::process::Command;

use serde_json::Value;

use super::estate::Rig;

/// What the verb prints about a migration of a lab's site, as JSON.
#[expect(clippy::disallowed_methods, reason = "the verb itself is asked")]
pub fn privileges(rig: &Rig, migration: &str) -> Value {
    let site = rig.dir().join("site.yaml");
    let args = ["--json", "--site", site.to_str().unwrap(), "privileges", migration];
    let said = Command::new(env!("CARGO_BIN_EXE_pvemig")).args(args).env_clear().output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    serde_json::from_slice(&said.stdout).unwrap()
}

/// The requests that a lab has written down.
pub fn requests(rig: &Rig) -> Vec<Value> {
    let log = std::fs::read_to_string(rig.dir().join("requests.jsonl")).unwrap();
    log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Those that were answered with 403.
pub fn refused(rig: &Rig) -> Vec<Value> {
    requests(rig).into_iter().filter(|request| request["status"] == 403).collect()
}
