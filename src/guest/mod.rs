//! Access to guests and hosts: ssh, the guest agent, and the way from one to the other.
pub mod known_hosts;
