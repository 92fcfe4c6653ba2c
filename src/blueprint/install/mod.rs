//! Machines that wait for their first configuration and become nodes: what the migrations that do it share.

pub mod apply;
pub mod asked;
pub mod bare;
pub mod disk;
pub mod image;
pub mod installed;
pub mod join;
pub mod medium;
pub mod own_etcd;
mod param;
pub mod source;
pub mod whole;

pub use apply::Apply;
pub use bare::{Bare, Stand};
pub use param::{NODE, at, command, config, fingerprint, node, patches};
pub use source::{Source, Wanted};
