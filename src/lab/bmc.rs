//! Management controllers: what each says of its machine's power is in a file, `bmc/NODE` in the lab's folder.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::{Fronts, LabError, Shared, World};

/// The folder's name.
pub(super) const FOLDER: &str = "bmc";

/// What each says now, in ipmitool's words (`lib/ipmi_chassis.c`).
fn said(world: &World) -> BTreeMap<String, String> {
    let nodes = world.talos.nodes.iter().filter(|(_, node)| node.bmc);
    nodes
        .map(|(name, node)| {
            let word = match (node.bmc_lies.as_str(), node.is_powered()) {
                ("", true) => "on",
                ("", false) => "off",
                (lie, _) => lie,
            };
            (name.clone(), format!("Chassis Power is {word}\n"))
        })
        .collect()
}

/// Writes the files as things change; nobody who reads one sees half of it.
///
/// # Errors
/// [`LabError::Io`]
pub(super) fn serve(shared: &Arc<Shared>, dir: &Path, fronts: &mut Fronts) -> Result<(), LabError> {
    let mut known = shared.read(said);
    if known.is_empty() {
        return Ok(());
    }
    let folder = dir.join(FOLDER);
    std::fs::create_dir_all(&folder)?;
    let write = move |name: &str, text: &str| {
        let fresh = folder.join(format!(".{name}"));
        std::fs::write(&fresh, text).and_then(|()| std::fs::rename(&fresh, folder.join(name)))
    };
    for (name, text) in &known {
        write(name, text)?;
    }
    let (shared, mut changes) = (shared.clone(), shared.changes());
    fronts.spawn(async move {
        while changes.changed().await.is_ok() {
            let now = shared.read(said);
            for (name, text) in now.iter().filter(|(name, text)| known.get(*name) != Some(*text)) {
                // A folder that somebody has taken away is no controller's any more.
                if write(name, text).is_err() {
                    return;
                }
            }
            known = now;
        }
    });
    Ok(())
}
