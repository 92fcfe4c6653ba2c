//! The Talos API (versions 1.11 to 1.14) over gRPC.

pub mod proto;
