//! Lines of a VM's config: property strings (`k=v,k=v`) and the value of a `usbN` key. Pure.
//!
//! The server normalizes what it stores (order of keys, `0x` prefixes), so values are compared parsed, never as text.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::base::names::{BadName, UsbId, UsbPort};

/// A property string: pairs joined by commas. One key of a format may be written without its name (the default key).
///
/// There is no quoting, so a value never contains a comma (PVE::JSONSchema).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Props(Vec<(Option<String>, String)>);

impl Props {
    /// The value of `key`, written with its name.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k.as_deref() == Some(key)).map(|(_, v)| v.as_str())
    }

    /// The value of `key`, which is the format's default key: with its name or bare.
    pub fn get_default(&self, key: &str) -> Option<&str> {
        self.get(key).or_else(|| self.0.iter().find(|(k, _)| k.is_none()).map(|(_, v)| v.as_str()))
    }

    /// Sets `key`, in its old place where it has one.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        match self.0.iter_mut().find(|(k, _)| k.as_deref() == Some(key)) {
            Some((_, old)) => *old = value.into(),
            None => self.0.push((Some(key.to_owned()), value.into())),
        }
        self
    }

    /// Sets the format's default key `key`, in its old place and written as it was: with its name or bare.
    #[must_use]
    pub fn with_default(mut self, key: &str, value: impl Into<String>) -> Self {
        let at = self.0.iter().position(|(k, _)| k.as_deref() == Some(key));
        let at = at.or_else(|| self.0.iter().position(|(k, _)| k.is_none()));
        match at.and_then(|at| self.0.get_mut(at)) {
            Some((_, old)) => *old = value.into(),
            None => self.0.push((Some(key.to_owned()), value.into())),
        }
        self
    }

    /// All pairs in their order; the default key may have no name.
    pub fn pairs(&self) -> impl Iterator<Item = (Option<&str>, &str)> {
        self.0.iter().map(|(k, v)| (k.as_deref(), v.as_str()))
    }
}

impl FromStr for Props {
    type Err = BadName;
    fn from_str(s: &str) -> Result<Self, BadName> {
        let bad = || BadName { value: s.to_owned(), expected: "a property string like `host=1a6e:089a,usb3=1`" };
        let mut pairs: Vec<(Option<String>, String)> = Vec::new();
        for part in s.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (key, value) = match part.split_once('=') {
                Some(("", _)) => return Err(bad()),
                Some((key, value)) => (Some(key.to_owned()), value.to_owned()),
                None => (None, part.to_owned()),
            };
            if pairs.iter().any(|(k, _)| *k == key) {
                return Err(bad());
            }
            pairs.push((key, value));
        }
        if pairs.is_empty() { Err(bad()) } else { Ok(Self(pairs)) }
    }
}

impl TryFrom<String> for Props {
    type Error = BadName;
    fn try_from(s: String) -> Result<Self, BadName> {
        s.parse()
    }
}

impl From<Props> for String {
    fn from(props: Props) -> Self {
        props.to_string()
    }
}

impl fmt::Display for Props {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (key, value)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            match key {
                Some(key) => write!(f, "{comma}{key}={value}")?,
                None => write!(f, "{comma}{value}")?,
            }
        }
        Ok(())
    }
}

/// A boolean inside a property string; None where it is none.
pub fn flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "on" | "yes" | "true" => Some(true),
        "0" | "off" | "no" | "false" => Some(false),
        _ => None,
    }
}

/// What a `usbN` key passes to the guest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UsbSource {
    /// Every device with this id (`host=1a6e:089a`).
    Id(UsbId),
    /// Whatever is in this socket (`host=2-1.4`).
    Port(UsbPort),
    /// A redirection channel of the console.
    Spice,
    /// A cluster-wide mapping by its name (`mapping=coral`).
    Mapping(String),
}

/// The value of a `usbN` key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UsbValue {
    /// What is passed through.
    pub source: UsbSource,
    /// Decides the controller on old machine types; ignored by new ones.
    pub usb3: bool,
    /// Settings that this version does not know; they are kept.
    pub rest: Vec<(String, String)>,
}

impl UsbValue {
    /// `source` with `usb3=1`.
    pub fn usb3(source: UsbSource) -> Self {
        Self { source, usb3: true, rest: Vec::new() }
    }
}

impl FromStr for UsbValue {
    type Err = BadName;
    fn from_str(s: &str) -> Result<Self, BadName> {
        let bad = || BadName { value: s.to_owned(), expected: "a usb value like `host=1a6e:089a,usb3=1`" };
        let props: Props = s.parse().map_err(|_| bad())?;
        let mut source = None;
        let mut usb3 = false;
        let mut rest = Vec::new();
        for (key, value) in props.pairs() {
            match key {
                None | Some("host") if source.is_none() => {
                    source = Some(if value.eq_ignore_ascii_case("spice") {
                        UsbSource::Spice
                    } else if value.contains(':') {
                        UsbSource::Id(value.parse().map_err(|_| bad())?)
                    } else {
                        UsbSource::Port(value.parse().map_err(|_| bad())?)
                    });
                }
                Some("mapping") if source.is_none() && !value.is_empty() => {
                    source = Some(UsbSource::Mapping(value.to_owned()));
                }
                None | Some("host" | "mapping") => return Err(bad()),
                Some("usb3") => usb3 = flag(value).ok_or_else(bad)?,
                Some(key) => rest.push((key.to_owned(), value.to_owned())),
            }
        }
        Ok(Self { source: source.ok_or_else(bad)?, usb3, rest })
    }
}

impl TryFrom<String> for UsbValue {
    type Error = BadName;
    fn try_from(s: String) -> Result<Self, BadName> {
        s.parse()
    }
}

impl From<UsbValue> for String {
    fn from(value: UsbValue) -> Self {
        value.to_string()
    }
}

impl fmt::Display for UsbSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "host={id}"),
            Self::Port(port) => write!(f, "host={port}"),
            Self::Spice => f.write_str("host=spice"),
            Self::Mapping(name) => write!(f, "mapping={name}"),
        }
    }
}

impl fmt::Display for UsbValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.source, if self.usb3 { ",usb3=1" } else { "" })?;
        self.rest.iter().try_for_each(|(key, value)| write!(f, ",{key}={value}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn usb_values_in_every_form_that_the_server_accepts() {
        let id = |v, p| UsbSource::Id(UsbId { vendor: v, product: p });
        let cases = [
            ("host=1a6e:089a,usb3=1", id(0x1a6e, 0x089a), true, "host=1a6e:089a,usb3=1"),
            ("1a6e:089a", id(0x1a6e, 0x089a), false, "host=1a6e:089a"),
            ("host=0x18D1:0x9302,usb3=yes", id(0x18d1, 0x9302), true, "host=18d1:9302,usb3=1"),
            ("usb3=1,host=2-1.4", UsbSource::Port("2-1.4".parse().unwrap()), true, "host=2-1.4,usb3=1"),
            ("2-1,usb3=0", UsbSource::Port("2-1".parse().unwrap()), false, "host=2-1"),
            ("spice", UsbSource::Spice, false, "host=spice"),
            ("mapping=coral,usb3=1", UsbSource::Mapping("coral".into()), true, "mapping=coral,usb3=1"),
        ];
        for (given, source, usb3, shown) in cases {
            let value: UsbValue = given.parse().unwrap();
            assert_eq!((&value.source, value.usb3), (&source, usb3), "{given}");
            assert_eq!(value.to_string(), shown);
        }
        for bad in
            ["", "usb3=1", "host=", "mapping=", "host=1a6e:089a,mapping=coral", "1-1,2-1", "host=2", "2-1,usb3=x"]
        {
            assert!(bad.parse::<UsbValue>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_setting_from_a_later_server_is_kept() {
        let value: UsbValue = "host=2-1,guest-reset=0,usb3=1".parse().unwrap();
        assert_eq!(value.to_string(), "host=2-1,usb3=1,guest-reset=0");
    }

    #[test]
    fn property_strings_have_a_default_key_and_keep_their_order() {
        let net: Props = "virtio=BC:24:11:00:00:01,bridge=vmbr0,firewall=0".parse().unwrap();
        assert_eq!((net.get("bridge"), net.get("tag")), (Some("vmbr0"), None));
        let disk: Props = "local-lvm:vm-108-disk-0,size=32G".parse().unwrap();
        assert_eq!(disk.get_default("file"), Some("local-lvm:vm-108-disk-0"));
        assert_eq!(disk.with("size", "40G").with("ssd", "1").to_string(), "local-lvm:vm-108-disk-0,size=40G,ssd=1");
        for bad in ["", ",", "=x", "a=1,a=2"] {
            assert!(bad.parse::<Props>().is_err(), "{bad}");
        }
    }

    fn source() -> impl Strategy<Value = UsbSource> {
        prop_oneof![
            (any::<u16>(), any::<u16>()).prop_map(|(vendor, product)| UsbSource::Id(UsbId { vendor, product })),
            (1u16..40, proptest::collection::vec(1u8..16, 1..5)).prop_map(|(bus, path)| {
                let path = path.iter().map(ToString::to_string).collect::<Vec<_>>().join(".");
                UsbSource::Port(UsbPort { bus, path })
            }),
            Just(UsbSource::Spice),
            "[A-Za-z][A-Za-z0-9_-]{1,12}".prop_map(UsbSource::Mapping),
        ]
    }

    proptest! {
        #[test]
        fn a_usb_value_round_trips(source in source(), usb3: bool, more in proptest::option::of("[a-z]{5,9}")) {
            let rest = more.map(|v| ("later-key".to_owned(), v)).into_iter().collect();
            let value = UsbValue { source, usb3, rest };
            prop_assert_eq!(value.to_string().parse::<UsbValue>().unwrap(), value);
        }

        #[test]
        fn a_property_string_round_trips(
            bare in proptest::option::of("[a-z0-9:/._-]{1,20}"),
            pairs in proptest::collection::btree_map("[a-z][a-z0-9-]{0,10}", "[^,=\\s]{0,12}", 1..6),
        ) {
            let mut all: Vec<String> = bare.into_iter().collect();
            all.extend(pairs.iter().map(|(k, v)| format!("{k}={v}")));
            let text = all.join(",");
            prop_assert_eq!(text.parse::<Props>().unwrap().to_string(), text);
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in "\\PC{0,40}") {
            let _props = text.parse::<Props>();
            let _value = text.parse::<UsbValue>();
        }
    }
}
