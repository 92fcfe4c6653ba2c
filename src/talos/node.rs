//! A node's place: its name, and where it is.

/// Which node, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name, for people.
    pub name: String,
    /// `10.10.0.20`, `talos-20.lan:50000`, `[fd00::20]`, or a URL: a [`TalosAddress`](crate::base::names::TalosAddress).
    pub address: String,
    /// The name or address that its certificate has to have, where `address` is not in it (a forwarded port).
    pub tls_name: Option<String>,
}
