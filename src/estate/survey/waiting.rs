//! Machines that wait for their first configuration, or have another cluster's.

use super::super::Estate;
use super::Why;
use super::talos::{disk, each_some, one, volume};
use crate::base::survey::Waiting;
use crate::talos::{Error, kind};

/// How a machine stands whose certificate is not of the cluster's authority.
pub(super) enum Bare {
    Waits(Waiting),
    /// It has a configuration: it asks who we are.
    Foreign,
    Unknown,
}

/// Asks a machine as one that waits for its first configuration. Nothing of ours is shown to it.
pub(super) async fn ask(estate: &Estate, name: &str) -> Bare {
    let Ok(talos) = estate.talos_in_maintenance(name, None, None) else { return Bare::Unknown };
    let stage = match talos.single(&kind::MACHINE_STATUS).await {
        Ok(status) => status.map_or(kind::Stage::Unknown, |status| status.spec.stage),
        Err(Error::ClientRefused { certain: true, .. }) => return Bare::Foreign,
        Err(_) => return Bare::Unknown,
    };
    // One that is being installed has its configuration.
    if !matches!(stage, kind::Stage::Maintenance | kind::Stage::Unknown) {
        return Bare::Unknown;
    }
    let (version, disks, volumes, system) = futures::join!(
        talos.single(&kind::VERSION),
        talos.list(&kind::DISKS),
        talos.list(&kind::DISCOVERED_VOLUMES),
        talos.single(&kind::SYSTEM_INFORMATION),
    );
    Bare::Waits(Waiting {
        version: one(version, |spec| spec.version),
        disks: each_some(disks, |resource| resource.spec.is_hardware().then(|| disk(resource))),
        volumes: each_some(volumes, volume),
        system_uuid: one(system, |spec| spec.uuid.to_lowercase()),
    })
}

/// Why nothing is known of a machine that another cluster has configured.
pub(super) fn foreign(error: Error) -> Why {
    let why = Why::from(error);
    Why {
        reason: format!("{}; it does not wait for a configuration: it has one, and asks who we are", why.reason),
        help: Some(
            "another cluster's machine is at this address, or the `ca` of the talosconfig is another cluster's".into(),
        ),
    }
}
