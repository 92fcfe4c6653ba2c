//! Wire contracts of the Proxmox client: what it sends, what it makes of answers, and what of each failure.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what a test is built on may fail it")]

#[path = "proxmox/changing.rs"]
mod changing;
#[path = "proxmox/failing.rs"]
mod failing;
#[path = "proxmox/guest.rs"]
mod guest;
#[path = "proxmox/reading.rs"]
mod reading;
#[path = "proxmox/refusing.rs"]
mod refusing;
#[path = "proxmox/script.rs"]
mod script;
#[path = "proxmox/trusting.rs"]
mod trusting;
