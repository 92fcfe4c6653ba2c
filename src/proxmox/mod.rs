//! The Proxmox VE API (versions 8 and 9) over HTTP/1.1.
//!
//! [`Proxmox`] is one cluster. Questions retry themselves within a deadline; changes take a
//! [`Permit`](crate::base::permit::Permit), are written down before they are sent, and are never sent twice: a lost
//! answer is an error that says so. What the server keeps as *pending* is the truth about a VM's config
//! ([`Proxmox::pending`]): the plain config shows pending values as if they were there.

mod agent;
mod api;
mod cluster;
pub mod config;
pub mod error;
mod hardware;
mod lenient;
mod mapping;
mod passthrough;
mod pci_mapping;
mod place;
mod refusal;
mod session;
pub mod slots;
mod task;
pub mod upid;
mod vm;
mod wire;

pub use agent::{AgentInfo, AgentResult};
pub use api::{Auth, Endpoint, Limits, Proxmox};
pub use cluster::{ClusterNode, ClusterStatus, HaResource, Node, Permissions, Resource, Version};
pub use config::{Props, UsbSource, UsbValue};
pub use error::{AgentCause, Error};
pub use hardware::{HostPciDevice, HostUsb};
pub use mapping::{MapEntry, MappingProblem, UsbMapping};
pub use passthrough::{HostPci, PciPlace, PciSource, guest_port, hostpci_slot, places, places_text};
pub use pci_mapping::{PciEntry, PciMapping};
pub use slots::{UsbStyle, free_usb_slots, usb_hotplugs, usb_slot};
pub use task::{LogLine, TaskEnd, TaskFilter, TaskRow, TaskStatus};
pub use upid::Upid;
#[doc(hidden)]
pub use vm::PendingRow;
pub use vm::{ConfigChange, HIBERNATED, Pending, PendingKey, VmRef, VmStatus};

/// What a refusal is taken for; open to tests alone.
#[doc(hidden)]
pub fn refused(status: u16, body: &[u8], changing: bool) -> Error {
    refusal::Refusal::new(status, None, body).into_error("vm 108 on pve", "root@pam", changing)
}
