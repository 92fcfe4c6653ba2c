//! The lab's Proxmox front, asked by proxmoxer.

use std::path::Path;

use pvemig::lab::{Lab, LabOptions, load};
use serde_json::{Value, json};

use crate::guest::place::program;

/// What `ask_proxmox.py` has to come to, so that a loop over nothing fails.
const CHECKS: u64 = 169;

#[tokio::test(flavor = "multi_thread")]
async fn proxmoxer_understands_every_answer() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let made = program(root.join("scripts/proxmoxer").to_str().unwrap()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));

    let dir = tempfile::tempdir().unwrap();
    let mut world = load("usb-move").unwrap();
    world.hosts.get_mut("pumped-piglet").unwrap().online = false;
    let lab = Lab::start(LabOptions { world, dir: dir.path().join("lab"), speed: 100 }).await.unwrap();
    let read = |name: &str| std::fs::read_to_string(lab.dir().join(name)).unwrap().trim().to_owned();
    let how = json!({
        "address": lab.reach().proxmox.address.to_string(),
        "ca": lab.dir().join("pve-root-ca.pem"),
        "password": read("pve-password"),
        "token": "root@pam!pvemig",
        "secret": read("pve-token-secret"),
    });
    let mut python = program(root.join("target/proxmoxer/bin/python").to_str().unwrap());
    python.arg(root.join("tests/real_peers/ask_proxmox.py")).arg(how.to_string());
    let ended = tokio::task::spawn_blocking(move || python.output().unwrap()).await.unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let said: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(said["failed"], json!([]), "{said:#}");
    assert_eq!(said["checks"], CHECKS);
    println!("proxmoxer: {} checks", said["checks"]);
}
