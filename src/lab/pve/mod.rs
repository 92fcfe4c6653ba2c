//! The Proxmox front, as Proxmox VE 9 answers, with the privileges of 8 where the hosts are of that version. Its JSON is
//! written by hand.

pub mod access;
pub(super) mod agent;
mod auth;
mod cluster;
mod config;
mod front;
mod mapping;
mod options;
mod params;
mod pci;
mod power;
mod real_agent;
mod route;
mod tasklist;
pub mod tasks;
mod vm;

use std::net::SocketAddr;
use std::sync::Arc;

use super::wire::Authority;
use super::world::World;
use super::{Fronts, LabError, Shared};
use crate::base::tls::Fingerprint;

/// What others need to reach the front.
#[derive(Debug, Clone)]
pub struct Reach {
    /// Where it listens.
    pub address: SocketAddr,
    /// Of its certificate.
    pub fingerprint: Fingerprint,
}

/// Makes the passwords and token secrets that a world does not name.
///
/// # Errors
/// [`LabError::Io`] where the system gives no random bytes.
pub fn make_secrets(world: &mut World) -> Result<(), LabError> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    let seed: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let part = |name: &str| {
        use sha2::Digest;
        let digest = sha2::Sha256::digest(format!("{seed} {name}"));
        digest.iter().take(16).map(|b| format!("{b:02x}")).collect::<String>()
    };
    for (name, user) in world.access.users.iter_mut().filter(|(_, u)| u.password.is_empty()) {
        user.password = part(name);
    }
    for (name, token) in world.access.tokens.iter_mut().filter(|(_, t)| t.secret.is_empty()) {
        let hex = part(name);
        let cut = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
        token.secret = format!("{}-{}-{}-{}-{}", cut(0, 8), cut(8, 12), cut(12, 16), cut(16, 20), cut(20, 32));
    }
    Ok(())
}

/// Tells access control of which version the hosts are.
pub fn know_version(world: &mut World) {
    let version = world.hosts.values().find(|host| host.online).map(|host| host.version.as_str());
    world.access.major = version.and_then(|version| version.split('.').next()?.parse().ok());
}

/// Starts the front on a port of its own.
///
/// # Errors
/// [`LabError`] where no port can be had.
pub async fn serve(shared: &Arc<Shared>, authority: &Authority, fronts: &mut Fronts) -> Result<Reach, LabError> {
    let identity = authority.identity(false)?;
    let fingerprint = identity.fingerprint;
    let address = super::wire::serve(shared, front::SERVICE, identity, fronts).await?;
    Ok(Reach { address, fingerprint })
}
