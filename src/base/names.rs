//! Names that must not be mixed up, parsed once.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A name that does not parse; the text says what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is not {expected}")]
pub struct BadName {
    /// What was given.
    pub value: String,
    /// What a good one looks like.
    pub expected: &'static str,
}

/// The key of a step in a plan: `04-add-usb`, or `03-reboot@talos-20`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepKey(String);

impl StepKey {
    /// From the id and, where the plan has several of a kind, the instance.
    pub fn new(id: &str, instance: Option<&str>) -> Self {
        Self(instance.map_or_else(|| id.to_owned(), |i| format!("{id}@{i}")))
    }

    /// The step's id.
    pub fn id(&self) -> &str {
        self.0.split_once('@').map_or(&self.0, |(id, _)| id)
    }

    /// The instance, if any.
    pub fn instance(&self) -> Option<&str> {
        self.0.split_once('@').map(|(_, i)| i)
    }

    /// The whole key.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for StepKey {
    fn from(key: &str) -> Self {
        Self(key.to_owned())
    }
}

impl fmt::Display for StepKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A USB id, `vvvv:pppp`, four lower-case hex digits each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UsbId {
    /// The vendor.
    pub vendor: u16,
    /// The product.
    pub product: u16,
}

impl FromStr for UsbId {
    type Err = BadName;
    fn from_str(s: &str) -> Result<Self, BadName> {
        let bad = || BadName { value: s.to_owned(), expected: "a USB id like `1a6e:089a`" };
        let (vendor, product) = s.split_once(':').ok_or_else(bad)?;
        let part = |p: &str| {
            let p = p.strip_prefix("0x").unwrap_or(p);
            if p.is_empty() || p.len() > 4 { Err(bad()) } else { u16::from_str_radix(p, 16).map_err(|_| bad()) }
        };
        Ok(Self { vendor: part(vendor)?, product: part(product)? })
    }
}

impl TryFrom<String> for UsbId {
    type Error = BadName;
    fn try_from(s: String) -> Result<Self, BadName> {
        s.parse()
    }
}

impl From<UsbId> for String {
    fn from(id: UsbId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for UsbId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:04x}", self.vendor, self.product)
    }
}

/// A USB port as Proxmox and the kernel name it: `BUS-PORT[.PORT..]`, decimal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UsbPort {
    /// The bus (one root hub; a socket has one for USB2 and one for USB3).
    pub bus: u16,
    /// The way through the hubs, `1.4`.
    pub path: String,
}

impl FromStr for UsbPort {
    type Err = BadName;
    fn from_str(s: &str) -> Result<Self, BadName> {
        let bad = || BadName { value: s.to_owned(), expected: "a USB port like `2-1` or `2-1.4`" };
        let (bus, path) = s.split_once('-').ok_or_else(bad)?;
        let good = !path.is_empty() && path.split('.').all(|p| p.parse::<u8>().is_ok_and(|n| n > 0));
        if !good {
            return Err(bad());
        }
        Ok(Self { bus: bus.parse().map_err(|_| bad())?, path: path.to_owned() })
    }
}

impl TryFrom<String> for UsbPort {
    type Error = BadName;
    fn try_from(s: String) -> Result<Self, BadName> {
        s.parse()
    }
}

impl From<UsbPort> for String {
    fn from(port: UsbPort) -> Self {
        port.to_string()
    }
}

impl fmt::Display for UsbPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.bus, self.path)
    }
}

/// Where a Talos node's API is, as a talosconfig has it: a URL without a port means 443, anything else 50000.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TalosAddress {
    /// A host name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl TalosAddress {
    /// apid's port.
    const PORT: u16 = 50000;

    /// As `talosctl -e` takes it in a shell's line.
    pub fn endpoint(&self) -> String {
        let Self { host, port } = self;
        match (*port, host.contains(':')) {
            (Self::PORT, _) => host.clone(),
            // Some shells look for files by what is in brackets.
            (_, true) => format!("'[{host}]:{port}'"),
            (_, false) => format!("{host}:{port}"),
        }
    }
}

/// How `talosctl` gets to one node, past whatever endpoints the talosconfig names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dial {
    /// What it connects to (`-e`), as it stands in a shell's line.
    pub endpoint: String,
    /// What the node goes by (`-n`).
    pub host: String,
    /// Whose node it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub flags: String,
}

/// What tells `talosctl` which cluster is meant.
pub fn talosctl_flags(talosconfig: &str, context: Option<&str>) -> String {
    let context = context.map(|context| format!(" --context {context}")).unwrap_or_default();
    format!("--talosconfig {talosconfig}{context}")
}

impl Dial {
    /// To the node at an address of the site file.
    pub fn to(address: &str, tls_name: Option<&str>) -> Self {
        let read = address.parse::<TalosAddress>().ok();
        let endpoint = read.as_ref().map_or_else(|| address.to_owned(), TalosAddress::endpoint);
        // What a node goes by has no port. Behind a forwarded one it knows itself by the name in its certificate.
        let host = tls_name.or(read.as_ref().map(|read| read.host.as_str())).unwrap_or(address).to_owned();
        Self { endpoint, host, flags: String::new() }
    }

    /// With the talosconfig and context of the site file: without them it would be whatever cluster is the current one of
    /// whoever pastes it.
    #[must_use]
    pub fn by(mut self, talosconfig: &str, context: Option<&str>) -> Self {
        self.flags = talosctl_flags(talosconfig, context);
        self
    }

    /// A command to it, in back-quotes. What does not know an address names the node alone (a journal of before).
    pub fn talosctl(&self, name: &str, rest: &str) -> String {
        let talosctl = if self.flags.is_empty() { "talosctl".to_owned() } else { format!("talosctl {}", self.flags) };
        match self.endpoint.as_str() {
            "" => format!("`{talosctl} -n {name} {rest}`"),
            endpoint => format!("`{talosctl} -e {endpoint} -n {} {rest}`", self.host),
        }
    }
}

impl FromStr for TalosAddress {
    type Err = BadName;
    fn from_str(s: &str) -> Result<Self, BadName> {
        let expected = "an address like 10.10.0.20, talos-20.lan:50000 or [fd00::20]:50000";
        let bad = || BadName { value: s.to_owned(), expected };
        let (rest, default) = match s.strip_prefix("https://") {
            Some(rest) => (rest.trim_end_matches('/'), 443),
            None => (s, Self::PORT),
        };
        let (host, port) = if let Some(inner) = rest.strip_prefix('[') {
            let (host, behind) = inner.split_once(']').ok_or_else(bad)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| bad())?;
            (host, if behind.is_empty() { None } else { Some(behind.strip_prefix(':').ok_or_else(bad)?) })
        } else if rest.parse::<std::net::Ipv6Addr>().is_ok() {
            (rest, None)
        } else {
            rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port)))
        };
        let port = port.map_or(Ok(default), |port| port.parse().map_err(|_| bad()))?;
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '_');
        if host.is_empty() || !host.chars().all(good) { Err(bad()) } else { Ok(Self { host: host.to_owned(), port }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_knows_no_address_names_the_node() {
        assert_eq!(Dial::to("10.0.0.1", None).talosctl("n1", "dmesg"), "`talosctl -e 10.0.0.1 -n 10.0.0.1 dmesg`");
        assert_eq!(Dial::default().talosctl("n1", "dmesg"), "`talosctl -n n1 dmesg`");
        let dial = Dial::to("10.0.0.1:5443", Some("n1.lan")).by("~/t", Some("home"));
        let wanted = "`talosctl --talosconfig ~/t --context home -e 10.0.0.1:5443 -n n1.lan dmesg`";
        assert_eq!(dial.talosctl("n1", "dmesg"), wanted);
        let of_now = serde_json::to_string(&dial).unwrap();
        assert_eq!(serde_json::from_str::<Dial>(&of_now).unwrap(), dial);
        // A journal of before.
        let before: Dial = serde_json::from_str(r#"{"endpoint":"10.0.0.1","host":"10.0.0.1"}"#).unwrap();
        assert_eq!(before, Dial::to("10.0.0.1", None));
    }

    #[test]
    fn usb_names_round_trip() {
        for (given, shown) in [("1a6e:089a", "1a6e:089a"), ("0x1A6E:0x89a", "1a6e:089a")] {
            assert_eq!(given.parse::<UsbId>().unwrap().to_string(), shown);
        }
        for bad in ["", "1a6e", "1a6e:", "1a6e:089ab", "g:1", ":1"] {
            assert!(bad.parse::<UsbId>().is_err(), "{bad}");
        }
        for good in ["2-1", "2-1.4", "10-1.2.3"] {
            assert_eq!(good.parse::<UsbPort>().unwrap().to_string(), good);
        }
        for bad in ["", "2", "2-", "2-0", "a-1", "2-1.", "2-1.x"] {
            assert!(bad.parse::<UsbPort>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_step_key_has_an_id_and_maybe_an_instance() {
        let key = StepKey::new("03-reboot", Some("talos-20"));
        assert_eq!((key.as_str(), key.id(), key.instance()), ("03-reboot@talos-20", "03-reboot", Some("talos-20")));
        assert_eq!(StepKey::from("04-add-usb").instance(), None);
    }
    #[test]
    fn addresses_are_read_as_talosctl_reads_them() {
        let good = [
            ("10.10.0.20", "10.10.0.20", 50000),
            ("10.10.0.20:5443", "10.10.0.20", 5443),
            ("talos-20.lan", "talos-20.lan", 50000),
            ("fd00::20", "fd00::20", 50000),
            ("[fd00::20]", "fd00::20", 50000),
            ("[fd00::20]:1", "fd00::20", 1),
            ("https://talos.lan", "talos.lan", 443),
            ("https://talos.lan:8443/", "talos.lan", 8443),
        ];
        for (given, host, port) in good {
            assert_eq!(given.parse(), Ok(TalosAddress { host: host.to_owned(), port }), "{given}");
        }
        let endpoints = [
            ("10.10.0.20:50000", "10.10.0.20"),
            ("10.10.0.20:5443", "10.10.0.20:5443"),
            ("fd00::20", "fd00::20"),
            ("[fd00::20]:1", "'[fd00::20]:1'"),
            ("https://talos.lan", "talos.lan:443"),
        ];
        for (given, wanted) in endpoints {
            assert_eq!(given.parse::<TalosAddress>().unwrap().endpoint(), wanted, "{given}");
        }
        let bad =
            ["", ":1", "a b", "a:99999", "[fd00::20", "[x]:1", "http://talos.lan", "a/b", "user@a", "[fd00::20]1"];
        assert_eq!(bad.iter().filter(|given| given.parse::<TalosAddress>().is_err()).count(), 10);
        assert_eq!(good.len(), 8);
    }
}
