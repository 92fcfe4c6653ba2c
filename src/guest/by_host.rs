//! The way by the host of a VM: which host that is, is looked up when the way is to be gone.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::base::fault::Failure;
use crate::proxmox::{self, Proxmox};

use super::Route;
use super::ssh::SshTarget;

/// The kind of route, as in the site file.
const KIND: &str = "host-ssh";

/// The ssh of each host of a cluster, by the host's name.
#[derive(Clone)]
pub struct Targets(Arc<dyn Fn(String) -> BoxFuture<'static, Result<SshTarget, Failure>> + Send + Sync>);

impl Targets {
    /// By a function that knows them, or says why it does not.
    pub fn new(of: impl Fn(String) -> BoxFuture<'static, Result<SshTarget, Failure>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(of))
    }
}

impl fmt::Debug for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Targets(…)")
    }
}

/// ssh to whichever host has the VM.
#[derive(Debug, Clone)]
pub struct ByHost {
    /// The cluster.
    pub proxmox: Arc<Proxmox>,
    /// The VM.
    pub vmid: u32,
    /// The hosts.
    pub hosts: Targets,
}

impl fmt::Display for ByHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{KIND} of vm {}", self.vmid)
    }
}

impl ByHost {
    /// The way to where the VM was seen last, else to where it is now, or the reason that there is none. A host that has
    /// not got the VM says so, before anything is run: that it once was there needs no API to be up.
    pub(super) async fn find(&self) -> Route {
        let place = match self.proxmox.last_seen(self.vmid) {
            Some(at) => Ok(at),
            None => self.proxmox.locate_now(self.vmid).await,
        };
        self.at(place).await.unwrap_or_else(|failure| Route::closed(KIND, &failure))
    }

    /// The way by the cluster's list of this moment; None where there is none.
    pub(super) async fn find_now(&self) -> Option<Route> {
        self.at(self.proxmox.locate_now(self.vmid).await).await.ok()
    }

    async fn at(&self, place: Result<proxmox::VmRef, proxmox::Error>) -> Result<Route, Failure> {
        let host = (self.hosts.0)(place?.node).await?;
        Ok(Route::HostSsh { host, vmid: self.vmid })
    }
}
