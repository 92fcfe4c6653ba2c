//! Links, addresses, names.

use serde::Deserialize;

/// A network link.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Link {
    /// `aa:bb:cc:dd:ee:ff`; joins it with a NIC of the VM.
    pub hardware_addr: String,
    /// The one that the hardware has.
    pub permanent_addr: String,
    /// `ether`, `loopback`, ...
    #[serde(rename = "type")]
    pub link_type: String,
    /// What made it (`bridge`, `vlan`); empty for hardware.
    pub kind: String,
    /// `up`, `down`, `unknown`, ...
    pub operational_state: String,
    /// Its carrier.
    pub link_state: bool,
    /// Its driver.
    pub driver: String,
    /// Its MTU.
    pub mtu: u32,
}

/// An address on a link.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Address {
    /// `10.10.0.20/24`.
    pub address: String,
    /// The link.
    pub link_name: String,
    /// `inet4` or `inet6`.
    pub family: String,
    /// `global`, `link`, ...
    pub scope: String,
}

/// A host name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Hostname {
    /// Its first part.
    pub hostname: String,
    /// The rest.
    pub domainname: String,
}
