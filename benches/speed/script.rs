//! The same twelve steps looked at by `benches/peers/usb-move.sh`.

use std::process::Stdio;

use serde_json::Value;

use crate::bed::{Bed, Took, median};

/// The script at a bed whose migration is done.
pub(crate) async fn look(bed: &Bed, times: usize) -> Took {
    let site: Value = serde_saphyr::from_str(&bed.read("site.yaml")).unwrap();
    let url = site["proxmox"]["home"]["urls"][0].as_str().unwrap();
    let through = |line: &str| match line.split_once('=') {
        Some(("PVE_URL", _)) => format!("PVE_URL='{url}'\n"),
        _ => format!("{line}\n"),
    };
    let env: String = bed.read("env").lines().map(through).collect();
    bed.write("env", &env);
    let port = site["nodes"]["k3s-vm-still-fawn"]["ssh"]["port"].to_string();
    let mut all = Vec::new();
    for _ in 0..times {
        let mut command =
            tokio::process::Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/usb-move.sh"));
        // What kubectl keeps for itself is this lab's: it may keep it from one run to the next, as on a desk.
        command.arg(bed.at("")).env("GUEST_PORT", &port).env("HOME", bed.at("")).stdin(Stdio::null());
        all.push(bed.time(command).await);
    }
    median(all)
}
