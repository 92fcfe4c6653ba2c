//! The Talos API (versions 1.11 to 1.14) over gRPC.
//!
//! [`Talos`] is one node, asked directly. Questions retry themselves within a deadline; changes take a
//! [`Permit`](crate::base::permit::Permit), go out on a connection of their own, are written down before they are sent,
//! and are never sent twice. What a node is like is read from its resources ([`kind`]): the kubelet's Ready says little.

mod api;
pub mod bolt;
mod certificate;
mod config;
pub mod error;
mod etcd;
mod events;
mod file;
mod held;
mod kept;
pub mod kind;
mod line;
mod machine;
mod node;
pub mod patch;
pub mod proto;
mod refusal;
mod reset;
mod resource;
mod snapshot;
mod talosconfig;
mod upgrade;

pub use api::{Limits, Talos};
pub use certificate::{ClientCertificate, Dates};
pub use config::{Applied, ApplyMode, MachineConfig, Which};
pub use error::Error;
pub use etcd::{EtcdAlarm, EtcdMember, EtcdStatus, Leaving};
pub use events::{Event, Events, Happening, Step};
pub use held::{Entry, EtcdVolume};
pub use kept::{KeptConfig, KeptError};
pub use machine::{Memory, RebootMode, Service, Version};
pub use node::Node;
pub use reset::{Reset, Wipe};
pub use resource::{Change, Kind, Resource, Single, Watch};
pub use snapshot::Snapshot;
pub use talosconfig::{Context, Talosconfig, TalosconfigError};
pub use upgrade::{Fetched, Upgrade, reboots_for_an_image};
