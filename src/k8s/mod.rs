//! The Kubernetes API: nodes, pods and drains, volumes and claims, workloads, Flux, Mayastor.
//!
//! Plain values come back rather than the API's own types; the raw object is kept where undo needs it. Reads are
//! tried again on faults that pass, within one deadline; changes are noted and sent once. Secrets are read by name
//! and key, never by value.

pub mod access;
pub mod appliers;
pub mod budget;
pub mod claim;
pub mod drain;
pub mod errand;
pub mod error;
pub mod events;
pub mod exec;
pub mod fields;
pub mod flux;
pub mod gone;
pub mod mayastor;
pub mod meta;
pub mod needs;
pub mod node;
pub mod pod;
pub mod resource;
pub mod select;
pub mod volume;
pub mod wait;
pub mod workload;

mod api;
mod classify;
mod discovery;
mod keys;
#[cfg(test)]
mod tests;
mod watch;

pub use api::{FIELD_MANAGER, Kubernetes};
pub use claim::Claim;
pub use error::{Call, KubeError};
pub use node::Node;
pub use pod::Pod;
pub use resource::{Resource, kind_by_name};
pub use volume::Volume;
pub use workload::Workload;

/// What a refusal is taken for; open to tests alone.
#[doc(hidden)]
pub fn refused(call: Call, code: http::StatusCode, body: &bytes::Bytes) -> KubeError {
    classify::refused(call, code, None, body)
}
