//! Wire contracts of the Proxmox client: what it sends, what it makes of answers, and what of each failure.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what a test is built on may fail it")]

mod changing;
mod failing;
mod guest;
mod reading;
mod refusing;
mod script;
mod trusting;
