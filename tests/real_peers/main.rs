//! pvemig and its lab with programs that nobody here wrote: OpenSSH, proxmoxer, the guest agent, a guest of its own
//! kernel in QEMU. A program that is missing fails the test with the name of its package.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail by panicking, and say what they measured")]

mod agent;
#[path = "../harness/mod.rs"]
mod harness;
mod machine;
mod openssh;
#[path = "../guest/place.rs"]
#[allow(dead_code, reason = "shared with the tests of guest access, which use the rest")]
mod place;
mod proxmoxer;
