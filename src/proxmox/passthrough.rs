//! The values of `hostpciN` keys: which functions on a host's PCI a VM gets. Pure.
//!
//! Source: qemu-server `PVE/QemuServer/PCI.pm` (`hostpci_fmt`; `print_pci_addr` and `print_pcie_addr` for where the guest has
//! them).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::base::drives::Port;
use crate::base::names::BadName;

use super::config::{Props, flag};

/// A place on a host's PCI as Proxmox takes it: with or without the domain, with or without the function (all of them).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PciPlace {
    /// `0000:04:00`
    device: String,
    /// `0`
    function: Option<u8>,
}

impl PciPlace {
    /// The whole address of what a drive is: its function, or the first one where all of the device are meant.
    pub fn address(&self) -> String {
        format!("{}.{}", self.device, self.function.unwrap_or(0))
    }

    /// Whether the function with this whole address is meant.
    pub fn means(&self, address: &str) -> bool {
        let Some((device, function)) = address.rsplit_once('.') else { return false };
        let function = u8::from_str_radix(function, 16).ok();
        self.device.eq_ignore_ascii_case(device)
            && function.is_some()
            && self.function.is_none_or(|f| function == Some(f))
    }

    /// The same of another device: with a function where this one has one.
    ///
    /// # Errors
    /// It is no whole address, or of a function that this one would not mean.
    pub fn at(&self, address: &str) -> Result<Self, BadName> {
        let mut other: Self = address.parse()?;
        if self.function.is_none() {
            if other.function != Some(0) {
                return Err(bad(address));
            }
            other.function = None;
        }
        Ok(other)
    }
}

fn bad(s: &str) -> BadName {
    BadName { value: s.to_owned(), expected: "a PCI address like `0000:04:00.0`" }
}

impl FromStr for PciPlace {
    type Err = BadName;
    fn from_str(s: &str) -> Result<Self, BadName> {
        let lower = s.trim().to_ascii_lowercase();
        let (device, function) = match lower.rsplit_once('.') {
            Some((device, function)) => (device, Some(u8::from_str_radix(function, 16).map_err(|_| bad(s))?)),
            None => (lower.as_str(), None),
        };
        let whole = if device.matches(':').count() == 1 { format!("0000:{device}") } else { device.to_owned() };
        let hex = |text: &str, long: usize| text.len() == long && text.bytes().all(|b| b.is_ascii_hexdigit());
        let parts: Vec<&str> = whole.split(':').collect();
        let good = matches!(parts.as_slice(), [domain, bus, slot] if hex(domain, 4) && hex(bus, 2) && hex(slot, 2));
        if !good || function.is_some_and(|f| f > 7) {
            return Err(bad(s));
        }
        Ok(Self { device: whole, function })
    }
}

impl TryFrom<String> for PciPlace {
    type Error = BadName;
    fn try_from(s: String) -> Result<Self, BadName> {
        s.parse()
    }
}

impl From<PciPlace> for String {
    fn from(place: PciPlace) -> Self {
        place.to_string()
    }
}

impl fmt::Display for PciPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.function {
            Some(function) => write!(f, "{}.{function}", self.device),
            None => f.write_str(&self.device),
        }
    }
}

/// A list of them, joined with `;`.
///
/// # Errors
/// One of them is no place on PCI.
pub fn places(text: &str) -> Result<Vec<PciPlace>, BadName> {
    text.split(';').map(str::parse).collect()
}

/// The text of a list.
pub fn places_text(places: &[PciPlace]) -> String {
    places.iter().map(ToString::to_string).collect::<Vec<_>>().join(";")
}

/// What a `hostpciN` key passes to the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PciSource {
    /// These functions of the host (`host=0000:04:00.0;0000:05:00.0`, `host=` may be missing). Only root@pam may set, change or
    /// delete it.
    Places(Vec<PciPlace>),
    /// A cluster-wide mapping by its name (`mapping=media`).
    Mapping(String),
}

/// The value of a `hostpciN` key. What is not known here is kept as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPci {
    props: Props,
}

impl HostPci {
    /// What is passed through.
    pub fn source(&self) -> PciSource {
        match self.props.get("mapping") {
            Some(name) => PciSource::Mapping(name.to_owned()),
            // Read when it was made.
            None => {
                PciSource::Places(self.props.get_default("host").and_then(|text| places(text).ok()).unwrap_or_default())
            }
        }
    }

    /// The guest has it on its PCI Express bus.
    pub fn pcie(&self) -> bool {
        self.props.get("pcie").and_then(flag).unwrap_or(false)
    }

    /// The same with other functions of the host; all else stays.
    #[must_use]
    pub fn with_places(&self, places: &[PciPlace]) -> Self {
        Self { props: self.props.clone().with_default("host", places_text(places)) }
    }
}

impl FromStr for HostPci {
    type Err = BadName;
    fn from_str(s: &str) -> Result<Self, BadName> {
        let bad = || BadName { value: s.to_owned(), expected: "a value like `0000:04:00.0,pcie=1` or `mapping=NAME`" };
        let props: Props = s.parse().map_err(|_| bad())?;
        match (props.get("mapping"), props.get_default("host")) {
            (Some(name), None) if !name.is_empty() => {}
            (None, Some(list)) => drop(places(list).map_err(|_| bad())?),
            _ => return Err(bad()),
        }
        Ok(Self { props })
    }
}

impl TryFrom<String> for HostPci {
    type Error = BadName;
    fn try_from(s: String) -> Result<Self, BadName> {
        s.parse()
    }
}

impl From<HostPci> for String {
    fn from(value: HostPci) -> Self {
        value.to_string()
    }
}

impl fmt::Display for HostPci {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.props.fmt(f)
    }
}

/// The number in a `hostpciN` key; None for any other key.
pub fn hostpci_slot(key: &str) -> Option<u8> {
    key.strip_prefix("hostpci").filter(|n| n.bytes().all(|b| b.is_ascii_digit())).and_then(|n| n.parse().ok())
}

/// Where the guest has the `index`th place of a `hostpciN` key on its own PCI. None where this version does not know: for
/// more keys than the first four, and for a device on the old bus of a `q35`.
pub fn guest_port(slot: u8, index: usize, value: &HostPci, machine: Option<&str>) -> Option<Port> {
    let props: Option<Props> = machine.and_then(|text| text.parse().ok());
    let q35 = props.as_ref().and_then(|props| props.get_default("type")).is_some_and(|name| name.contains("q35"));
    let way = match (q35, value.pcie(), slot) {
        // `ich9-pcie-port-1` to `-4` of pve-q35.cfg.
        (true, true, 0..=3) => format!("/0000:00:1c.{slot}/0000:01:00.{index}"),
        (false, false, 0 | 1) => format!("/0000:00:{:02x}.{index}", 0x10 + slot),
        (false, false, 2 | 3) => format!("/0000:00:{:02x}.{index}", 0x19 + slot),
        _ => return None,
    };
    Port::of(&way)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_in_each_form_and_written_in_one() {
        let cases = [
            ("0000:04:00.0", "0000:04:00.0", "0000:04:00.0"),
            ("04:00.1", "0000:04:00.1", "0000:04:00.1"),
            ("04:00", "0000:04:00", "0000:04:00.0"),
            ("0001:0A:00", "0001:0a:00", "0001:0a:00.0"),
        ];
        for (text, shown, address) in cases {
            let place: PciPlace = text.parse().unwrap();
            assert_eq!((place.to_string().as_str(), place.address().as_str()), (shown, address));
            assert!(place.means(address), "{text}");
            assert!(!place.means("0000:09:00.0") && !place.means("x"), "{text}");
        }
        let (all, one): (PciPlace, PciPlace) = ("04:00".parse().unwrap(), "04:00.1".parse().unwrap());
        assert!(all.means("0000:04:00.1") && one.means("0000:04:00.1") && !one.means("0000:04:00.0"));
        assert_eq!(all.at("0000:05:00.0").unwrap().to_string(), "0000:05:00");
        assert_eq!(one.at("0000:05:00.0").unwrap().to_string(), "0000:05:00.0");
        all.at("0000:05:00.1").unwrap_err();
        let bad = ["", "04", "4:00.0", "04:00.8", "04:00.x", "00000:04:00.0", "0000:04:00.0.0", "host"];
        assert_eq!(bad.len(), 8);
        for text in bad {
            assert!(text.parse::<PciPlace>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_line_keeps_what_is_not_its_place() {
        let read = |text: &str| text.parse::<HostPci>().unwrap();
        let to = [PciPlace::from_str("0000:05:00.0").unwrap()];
        let cases = [
            ("0000:04:00.0,pcie=1,rombar=0", "0000:05:00.0,pcie=1,rombar=0"),
            ("pcie=1,host=04:00", "pcie=1,host=0000:05:00.0"),
            ("host=04:00.0;0000:04:00.1,x-vga=1,new=x", "host=0000:05:00.0,x-vga=1,new=x"),
        ];
        for (text, moved) in cases {
            assert_eq!(read(text).to_string(), text);
            assert_eq!(read(text).with_places(&to).to_string(), moved);
        }
        let PciSource::Places(two) = read("04:00.0;0000:05:00,pcie=1").source() else { panic!() };
        assert_eq!(places_text(&two), "0000:04:00.0;0000:05:00");
        assert_eq!(read("mapping=media,pcie=1").source(), PciSource::Mapping("media".into()));
        let bad = ["", "pcie=1", "mapping=", "mapping=a,host=04:00.0", "04:00.0,mapping=a", "04:00.0;,pcie=1", "x"];
        assert_eq!(bad.len(), 7);
        for text in bad {
            assert!(text.parse::<HostPci>().is_err(), "{text}");
        }
        assert_eq!(
            (hostpci_slot("hostpci12"), hostpci_slot("hostpci"), hostpci_slot("hostpcix")),
            (Some(12), None, None)
        );
    }

    #[test]
    fn the_guest_has_them_where_proxmox_puts_them() {
        let (express, old): (HostPci, HostPci) = ("04:00,pcie=1".parse().unwrap(), "mapping=a".parse().unwrap());
        let port = |slot, value: &HostPci, machine| guest_port(slot, 0, value, machine).map(|port| port.to_string());
        let cases = [
            (0, &express, Some("q35"), Some("0000:00:1c.0")),
            (3, &express, Some("pc-q35-9.2+pve1"), Some("0000:00:1c.3")),
            (4, &express, Some("q35"), None),
            (0, &old, Some("q35"), None),
            (0, &express, None, None),
            (1, &old, None, Some("0000:00:11.0")),
            (2, &old, Some("pc-i440fx-9.2"), Some("0000:00:1b.0")),
            (3, &old, Some("pc,viommu=intel"), Some("0000:00:1c.0")),
        ];
        assert_eq!(cases.len(), 8);
        for (slot, value, machine, expected) in cases {
            assert_eq!(port(slot, value, machine).as_deref(), expected, "{slot} {value} {machine:?}");
        }
        let second = |value, machine| guest_port(0, 1, value, machine).map(|port| port.to_string());
        assert_eq!(second(&express, Some("q35")).as_deref(), Some("0000:00:1c.0/00.1"));
        assert_eq!(second(&old, Some("pc")).as_deref(), Some("0000:00:10.1"));
    }
}
