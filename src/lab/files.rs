//! The files of a lab's folder.

use std::path::Path;
use std::sync::Arc;

use super::world::World;
use super::{LabError, Shared, kube, pve, ssh};

/// Everything that one needs to reach a lab's fronts.
#[derive(Debug, Clone)]
pub struct Reach {
    /// The Proxmox front.
    pub proxmox: pve::Reach,
    /// The Kubernetes front.
    pub kubernetes: kube::Reach,
    /// The ssh front.
    pub ssh: ssh::Ports,
    /// The lab's certificate authority, PEM.
    pub authority: String,
}

/// The ssh keys of a lab: one for the user, one for each server.
#[derive(Debug, Clone)]
pub struct Keys {
    /// The key that the site file names; every server accepts it for `root`.
    pub user: russh::keys::PrivateKey,
    /// Host keys, by Proxmox node.
    pub hosts: std::collections::BTreeMap<String, russh::keys::PrivateKey>,
    /// Host keys, by virtual machine id.
    pub guests: std::collections::BTreeMap<u32, russh::keys::PrivateKey>,
}

impl Keys {
    /// Makes fresh Ed25519 keys.
    ///
    /// # Errors
    /// [`LabError::Io`] where the system gives no random bytes.
    pub fn make(world: &World) -> Result<Self, LabError> {
        let fresh = |comment: &str| {
            let mut seed = [0_u8; 32];
            getrandom::fill(&mut seed).map_err(std::io::Error::other)?;
            let pair = russh::keys::ssh_key::private::Ed25519Keypair::from_seed(&seed);
            russh::keys::PrivateKey::new(pair.into(), comment).map_err(std::io::Error::other)
        };
        let mut keys = Self { user: fresh("pvemig lab")?, hosts: Default::default(), guests: Default::default() };
        for host in world.hosts.keys() {
            keys.hosts.insert(host.clone(), fresh(host)?);
        }
        for vmid in world.vms.keys() {
            keys.guests.insert(*vmid, fresh(&format!("vm {vmid}"))?);
        }
        Ok(keys)
    }
}

/// Writes the files.
///
/// # Errors
/// [`LabError::Io`]
pub fn write(dir: &Path, shared: &Arc<Shared>, reach: &Reach, keys: &Keys) -> Result<(), LabError> {
    let _ = shared;
    ssh::write_keys(dir, keys, &reach.ssh)
}
