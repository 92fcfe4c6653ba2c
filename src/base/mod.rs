//! What everything else stands on: permit, check, faults, clock, waits, names, TLS and secrets.
//!
//! Nothing here knows an outside system. `base` imports no other folder of this crate.

pub mod age;
pub mod cel;
pub mod check;
pub mod clock;
pub mod digest;
pub mod drives;
pub mod fault;
pub mod hold;
pub mod names;
pub mod permit;
pub mod private;
pub mod redact;
pub mod request;
pub mod schematic;
pub mod secret;
pub mod selector;
pub mod settle;
pub mod shelf;
pub mod survey;
pub mod tls;
pub mod wait;
pub mod yaml;
