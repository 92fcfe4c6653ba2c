//! The site file: the description of an estate and how to reach each part, checked before anything is touched.
//!
//! [`Site::parse`] looks at the text alone, [`Site::load`] reads it from disk, [`Site::check_references`] looks at the
//! files and variables that it names. None of them talks to the network. Every problem of a file is found at once,
//! each with its line, its key path and the next thing to do; [`fields`] is the reader that makes this so, and
//! blueprints use it for their parameters too.

mod check;
mod document;
mod example;
pub mod fields;
mod references;
pub mod secret;
mod slots;
mod talos;
mod twins;
mod types;
mod values;

pub use check::Home;
pub use document::{Document, Invalid, Location, Problem};
pub use example::example;
pub use secret::{SecretError, SecretRef};
pub use slots::{OutOfBand, Power, PowerCommand};
pub use types::{
    Access, Author, Checkout, Device, Gitops, GitopsKind, Host, Kubernetes, Migration, Node, PortPair, Proxmox,
    ProxmoxAuth, Site, SiteError, Ssh, TalosCluster, TalosNode, TrustSource, VmRef,
};

#[cfg(test)]
mod tests;
