//! Where on PCI a slot hangs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::base::names::BadName;

/// The place of a slot on PCI: the way to it from the root, without the numbers of the buses on it.
///
/// A bus has its number from the order in which the firmware found it, and gets another one when a neighbouring slot is
/// filled; the device and function numbers of the ports on the way are wired. So only the first address of the way is
/// taken in full (it is on a root bus), and of each further one its device and function. A PCI Express port has exactly
/// one device behind it, number 0: `00.0` at the end is left out, so that a slot is written as its port alone.
///
/// `/pci0000:00/0000:00:1d.0/0000:04:00.0/nvme` is `0000:00:1d.0`; behind a switch, `0000:00:01.0/00.0/08.0`; on the root
/// bus itself, as in QEMU's `pc`, `0000:00:10.0`; one of several on a conventional bridge, `0000:00:1e.0/02.0`.
///
/// Sources: Linux `drivers/pci/pci-sysfs.c` and `probe.c` (names are `%04x:%02x:%02x.%d` in the order of the tree; the
/// domains of Intel VMD have five digits); PCI Express Base Specification 7.3.1 (device number 0 on a link); the same form
/// as UEFI's device paths, which name device and function and never a bus.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Port(String);

impl Port {
    /// From a path below `/sys/devices`. Only the PCI addresses in it are looked at; None where it has none.
    pub fn of(bus_path: &str) -> Option<Self> {
        let mut addresses = bus_path.split('/').filter_map(address);
        let mut way = vec![addresses.next()?];
        way.extend(addresses.filter_map(|address| address.rsplit_once(':').map(|(_, function)| function.to_owned())));
        if way.len() > 1 && way.last().is_some_and(|last| last == "00.0") {
            way.pop();
        }
        Some(Self(way.join("/")))
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The PCI address of what is at the end of a path below `/sys/devices`; None where it has none.
pub fn pci_address(bus_path: &str) -> Option<String> {
    bus_path.split('/').filter_map(address).next_back()
}

/// `0000:00:1d.0` in lower case, if that is what it is.
fn address(text: &str) -> Option<String> {
    let mut parts = text.split(':');
    let (domain, bus, last) = (parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_hexdigit());
    let good = (4..=8).contains(&domain.len()) && hex(domain) && bus.len() == 2 && hex(bus) && function(last);
    (good && parts.next().is_none()).then(|| text.to_ascii_lowercase())
}

/// `1d.0`.
fn function(text: &str) -> bool {
    let Some((device, function)) = text.split_once('.') else { return false };
    device.len() == 2
        && u8::from_str_radix(device, 16).is_ok_and(|device| device < 32)
        && function.len() == 1
        && function.chars().all(|c| ('0'..='7').contains(&c))
}

impl FromStr for Port {
    type Err = BadName;

    fn from_str(s: &str) -> Result<Self, BadName> {
        let bad = || BadName { value: s.to_owned(), expected: "a PCI port like `0000:00:1d.0`" };
        let (first, rest) = s.split_once('/').map_or((s, None), |(first, rest)| (first, Some(rest)));
        let mut way = vec![address(first).ok_or_else(bad)?];
        for part in rest.into_iter().flat_map(|rest| rest.split('/')) {
            way.push(if function(part) { part.to_ascii_lowercase() } else { return Err(bad()) });
        }
        Ok(Self(way.join("/")))
    }
}

impl TryFrom<String> for Port {
    type Error = BadName;
    fn try_from(text: String) -> Result<Self, BadName> {
        text.parse()
    }
}

impl From<Port> for String {
    fn from(port: Port) -> Self {
        port.0
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_the_way_without_the_numbers_of_the_buses() {
        let cases = [
            ("/pci0000:00/0000:00:1d.0/0000:04:00.0/nvme", Some("0000:00:1d.0")),
            ("/pci0000:00/0000:00:1d.0/0000:05:00.0/nvme/nvme1", Some("0000:00:1d.0")),
            ("/sys/devices/pci0000:00/0000:00:10.0/nvme/nvme0/nvme0n1", Some("0000:00:10.0")),
            // A switch: its own buses are numbered anew as well.
            ("/pci0000:00/0000:00:01.0/0000:02:00.0/0000:03:08.0/0000:07:00.0", Some("0000:00:01.0/00.0/08.0")),
            ("/pci0000:00/0000:00:01.0/0000:01:00.0/0000:02:08.0/0000:03:00.0", Some("0000:00:01.0/00.0/08.0")),
            // Two devices on one conventional bridge are in two slots.
            ("/pci0000:00/0000:00:05.0/0000:01:01.0/virtio3", Some("0000:00:05.0/01.0")),
            ("/pci0000:00/0000:00:05.0/0000:01:02.0/virtio4", Some("0000:00:05.0/02.0")),
            // Intel VMD.
            ("/pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:06.0/10000:e1:00.0/nvme", Some("0000:00:0e.0/06.0")),
            ("/PCI0000:00/0000:00:1D.0/0000:04:00.0", Some("0000:00:1d.0")),
            ("/virtual/nvme-subsystem/nvme-subsys0", None),
            ("", None),
            ("/pci0000:00/0000:00:20.0/0000:00:1d.8/000:00:1d.0/0000:0:1d.0/0000:00:1d", None),
        ];
        assert_eq!(cases.len(), 12);
        for (path, port) in cases {
            assert_eq!(Port::of(path).as_ref().map(Port::as_str), port, "{path}");
            assert_eq!(pci_address(path).is_some(), port.is_some(), "{path}");
        }
    }

    #[test]
    fn an_address_is_that_of_the_last_one_on_the_way() {
        let of = |path: &str| pci_address(path).unwrap_or_default();
        assert_eq!(of("/pci0000:00/0000:00:1d.0/0000:04:00.0/nvme"), "0000:04:00.0");
        assert_eq!(of("../../../devices/pci0000:00/0000:00:1D.0"), "0000:00:1d.0");
    }

    #[test]
    fn a_written_port_is_read_back() {
        for text in ["0000:00:1b.0", "0000:00:01.0/00.0/08.0", "10000:e0:06.0"] {
            let port: Port = text.parse().unwrap();
            assert_eq!(port.to_string(), text);
            assert_eq!(serde_json::from_str::<Port>(&serde_json::to_string(&port).unwrap()).unwrap(), port);
        }
        assert_eq!("0000:00:1B.0".parse::<Port>().unwrap().as_str(), "0000:00:1b.0");
        let bad = ["", "1b.0", "00:1b.0", "0000:00:1b.0/", "0000:00:1b.0/0000:04:00.0", "0000:00:1b.8", "M2_2"];
        assert_eq!(bad.len(), 7);
        for text in bad {
            assert!(text.parse::<Port>().unwrap_err().to_string().contains("is not a PCI port like"), "{text}");
        }
    }
}
