//! pvemig and its lab with programs that nobody here wrote: OpenSSH, proxmoxer, the guest agent, etcd, a guest
//! of its own kernel in QEMU. A program that is missing fails the test with the name of its package.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say what they measured"
)]

mod agent;
mod cluster;
mod etcd;
mod machine;
mod nvme;
mod openssh;
mod proxmoxer;
mod snapshot;
