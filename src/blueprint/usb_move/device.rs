//! Where the device is: on a host's USB bus, and in a VM's config, in any of the forms that Proxmox knows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::check::{Hands, Problem};
use crate::base::fault::Failure;
use crate::base::names::{UsbId, UsbPort};
use crate::estate::Estate;
use crate::proxmox::{Error, MapEntry, Pending, Proxmox, UsbMapping, UsbSource, UsbValue};

pub use super::vm::{View, Vm};

/// A socket: the port of its fast bus and, where the site knows it, that of its slow one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    /// The port that the device should be at.
    pub port: UsbPort,
    /// The same socket on the other bus, where it shows when the link came up slow.
    pub sibling: Option<UsbPort>,
}

/// How the target VM gets the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attach {
    /// One slot for each id.
    Id,
    /// One slot for the socket, and one for its sibling where the site names it.
    Port,
    /// One slot by a cluster-wide mapping.
    Mapping,
}

/// The device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its name in the site file.
    pub name: String,
    /// Every id that it may show.
    pub ids: Vec<UsbId>,
    /// Its serial number.
    pub serial: Option<String>,
    /// The slowest speed that will do, Mbit/s.
    pub min_speed: Option<u32>,
    /// Its socket on each host, where the site says.
    pub sockets: BTreeMap<String, Socket>,
    /// The name of its mapping.
    pub mapping: Option<String>,
}

/// A place on a host where the device shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// The host.
    pub host: String,
    /// The port.
    pub port: UsbPort,
    /// The id that it shows now.
    pub id: UsbId,
    /// Mbit/s; None where the way of looking does not tell.
    pub speed: Option<u32>,
}

/// What can be said about the device on a host.
#[derive(Debug, Clone, PartialEq)]
pub enum Sight {
    /// It is there, at these places (more than one: equal devices), by this way of looking.
    Here(Vec<Place>, String),
    /// It is not there; these other devices are.
    Absent(Vec<Place>, String),
    /// Nobody can tell: the reasons, one for each way of looking. That is not "absent".
    CannotSee(Vec<String>),
}

impl Device {
    /// `coral (1a6e:089a or 18d1:9302)`, with its serial number where the site names it: of equal devices that tells a
    /// person which one is meant.
    pub fn title(&self) -> String {
        let serial = self.serial.as_ref().map(|serial| format!(", serial {serial}")).unwrap_or_default();
        format!("{} ({}{serial})", self.name, self.id_list(" or "))
    }

    /// The ids in one line.
    pub fn id_list(&self, between: &str) -> String {
        self.ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(between)
    }

    /// The act of plugging it into a host, as data.
    pub fn plug(&self, host: &str, port: Option<&UsbPort>) -> Hands {
        Hands::Plug {
            device: self.name.clone(),
            ids: self.ids.iter().map(ToString::to_string).collect(),
            serial: self.serial.clone(),
            host: host.to_owned(),
            port: port.map(ToString::to_string),
        }
    }

    /// Whether two places are one socket: its other bus counts, as the link may come up at another speed.
    pub fn same_socket(&self, a: &Place, b: &Place) -> bool {
        let of = |p: &Place| self.names_port(&p.host, &p.port);
        a.host == b.host && (a.port == b.port || (of(a) && of(b)))
    }

    fn names_port(&self, host: &str, port: &UsbPort) -> bool {
        self.sockets.get(host).is_some_and(|s| s.port == *port || s.sibling.as_ref() == Some(port))
    }

    /// Whether a `usbN` value passes this device to a VM on `host`, in any form: by an id, by the site's socket or a
    /// port where it shows now, or by a mapping that leads to either.
    pub fn is_named_by(&self, value: &UsbValue, host: &str, seen_at: &[Place], mappings: &[UsbMapping]) -> bool {
        let by_port =
            |port: &UsbPort| self.names_port(host, port) || seen_at.iter().any(|p| p.host == host && p.port == *port);
        match &value.source {
            UsbSource::Id(id) => self.ids.contains(id),
            UsbSource::Port(port) => by_port(port),
            UsbSource::Spice => false,
            UsbSource::Mapping(name) if self.mapping.as_ref() == Some(name) => true,
            UsbSource::Mapping(name) => mappings.iter().filter(|m| m.id == *name).any(|m| {
                m.entry(host).is_some_and(|entry| match entry.path() {
                    Some(port) => by_port(&port),
                    None => entry.id().is_some_and(|id| self.ids.contains(&id)),
                })
            }),
        }
    }

    /// The slots of a VM that name the device now or will after the next power cycle: slot key and raw value.
    pub fn slots_in(
        &self,
        config: &Pending,
        host: &str,
        seen: &[Place],
        mappings: &[UsbMapping],
    ) -> Vec<(String, String)> {
        let mut slots = Vec::new();
        for (slot, key) in config.usb() {
            let Some(text) = key.configured() else { continue };
            if text.parse::<UsbValue>().is_ok_and(|value| self.is_named_by(&value, host, seen, mappings)) {
                slots.push((format!("usb{slot}"), text.to_owned()));
            }
        }
        slots
    }

    /// The slots of which nobody can tell whether they pass the device: a port of a host that cannot be seen and whose
    /// socket the site does not name, a mapping that these credentials may not list, a value of an unknown form.
    pub fn unjudged(&self, config: &Pending, host: &str, sight: &Sight, mappings: &[UsbMapping]) -> Vec<Problem> {
        let ports = self.sockets.contains_key(host);
        let mut problems = Vec::new();
        for (slot, key) in config.usb() {
            let Some(text) = key.configured() else { continue };
            let Ok(value) = text.parse::<UsbValue>() else {
                problems.push(Problem::new(
                    format!("whether usb{slot} (`{text}`) is {} this version cannot read", self.name),
                    format!("take usb{slot} out of the VM, or write it in a form that `qm config` documents"),
                ));
                continue;
            };
            let Sight::CannotSee(reasons) = sight else { continue };
            let unknown = match &value.source {
                UsbSource::Id(_) | UsbSource::Spice => false,
                UsbSource::Port(_) => !ports,
                UsbSource::Mapping(name) if self.mapping.as_ref() == Some(name) => false,
                UsbSource::Mapping(name) => match mappings.iter().find(|m| m.id == *name) {
                    Some(mapping) => !ports && mapping.entry(host).is_some_and(|entry| entry.path().is_some()),
                    None => true,
                },
            };
            if unknown {
                problems.push(Problem::new(
                    format!("whether usb{slot} ({text}) is {} cannot be told: {}", self.name, reasons.join("; ")),
                    format!(
                        "say where it is on {host}, `ports: {{ {host}: {{ port: BUS-PORT }} }}`, or let {host} be seen"
                    ),
                ));
            }
        }
        problems
    }

    /// Looks for the device on a host: by the hardware list, else by the node's own check of the mapping, else by ssh
    /// to the host.
    ///
    /// # Errors
    /// The API does not answer. A missing right is an answer: [`Sight::CannotSee`].
    pub async fn look(&self, cx: &Estate, cluster: &str, host: &str) -> Result<Sight, Failure> {
        let pve = cx.proxmox(cluster).await?;
        let mut reasons = Vec::new();
        match pve.usb_devices(host).await {
            Ok(list) => {
                let place = |d: &crate::proxmox::HostUsb| {
                    let speed = Some(d.speed as u32);
                    Some(Place { host: host.to_owned(), port: d.port()?, id: d.id, speed })
                };
                let all = list.iter().filter(|d| !d.is_hub()).filter_map(place).collect();
                return Ok(self.sort(all, format!("the USB list of {host}")));
            }
            Err(error @ (Error::NotAuthorized { .. } | Error::Forbidden { .. })) => reasons.push(error.to_string()),
            Err(error) => return Err(error.into()),
        }
        if let Some(sight) = self.look_by_mapping(&pve, host, &mut reasons).await? {
            return Ok(sight);
        }
        match cx.host(cluster, host).await? {
            None => reasons.push(format!("the site file has no ssh for host {host}")),
            Some(shell) => match shell.usb().await {
                Ok(seen) => {
                    let place = |d: &crate::guest::GuestUsb| {
                        let speed = Some(d.speed_mbit);
                        Some(Place { host: host.to_owned(), port: d.port.clone()?, id: d.id, speed })
                    };
                    return Ok(self.sort(seen.value.iter().filter_map(place).collect(), seen.route));
                }
                Err(error) => reasons.push(error.to_string()),
            },
        }
        Ok(Sight::CannotSee(reasons))
    }

    /// The place that a mapping's entry for a host should name: where it points already, else the site's socket, else
    /// the only one there is. None where nothing is seen.
    ///
    /// # Errors
    /// There are several, and nothing tells which one is meant.
    pub fn place_for<'p>(
        &self,
        entry: Option<&MapEntry>,
        host: &str,
        places: &'p [Place],
    ) -> Result<Option<&'p Place>, Problem> {
        let at = |port: Option<&UsbPort>| port.and_then(|port| places.iter().find(|p| p.port == *port));
        let socket = self.sockets.get(host).map(|socket| &socket.port);
        if let Some(place) = at(entry.and_then(MapEntry::path).as_ref()).or(at(socket)) {
            return Ok(Some(place));
        }
        match places {
            [] => Ok(None),
            [only] => Ok(Some(only)),
            all => Err(Problem::new(
                format!(
                    "{host} has {} of these devices, and neither mapping nor site file names the port of one: {}",
                    all.len(),
                    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
                ),
                format!("add `ports: {{ {host}: {{ port: BUS-PORT }} }}` to the device {}", self.name),
            )),
        }
    }

    /// Where the device is before it is carried away: at a port that one of the VM's own entries names, else as in
    /// [`Device::place_for`]. None where several are there and nothing tells which one it is.
    pub fn origin(&self, host: &str, places: &[Place], entries: &[(String, String)]) -> Option<Place> {
        let port = |(_, value): &(String, String)| match value.parse::<UsbValue>().ok()?.source {
            UsbSource::Port(port) => Some(port),
            _ => None,
        };
        let ports: Vec<UsbPort> = entries.iter().filter_map(port).collect();
        let named = places.iter().find(|place| ports.contains(&place.port));
        named.or_else(|| self.place_for(None, host, places).ok().flatten()).cloned()
    }

    fn sort(&self, all: Vec<Place>, by: String) -> Sight {
        let (here, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|p| self.ids.contains(&p.id));
        if here.is_empty() { Sight::Absent(others, by) } else { Sight::Here(here, by) }
    }

    /// The node's check of our mapping says whether the device that the mapping names is there.
    async fn look_by_mapping(
        &self,
        pve: &Proxmox,
        host: &str,
        reasons: &mut Vec<String>,
    ) -> Result<Option<Sight>, Failure> {
        let Some(name) = &self.mapping else {
            reasons.push("the site file names no mapping for the device".into());
            return Ok(None);
        };
        let by = format!("the check of mapping {name} on {host}");
        let mappings = match pve.usb_mappings(Some(host)).await {
            Ok(mappings) => mappings,
            Err(error @ (Error::NotAuthorized { .. } | Error::Forbidden { .. })) => {
                reasons.push(error.to_string());
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let Some(mapping) = mappings.iter().find(|m| m.id == *name) else {
            reasons.push(format!("there is no mapping {name}, or these credentials may not see it"));
            return Ok(None);
        };
        let Some(entry) = mapping.entry(host) else {
            reasons.push(format!("mapping {name} has no entry for {host}"));
            return Ok(None);
        };
        let (Some(id), Some(port)) = (entry.id(), entry.path()) else {
            reasons.push(format!("mapping {name} has no port for {host}: its check says nothing about the device"));
            return Ok(None);
        };
        let problem = mapping.errors.iter().find(|e| e.severity == "error");
        match problem.map(|e| e.message.as_str()) {
            None => Ok(Some(Sight::Here(vec![Place { host: host.into(), port, id, speed: None }], by))),
            Some(text) if text.contains("not found") => Ok(Some(Sight::Absent(Vec::new(), by))),
            // Another id at the port: ours under its other id, or something else. The text names the id that is there.
            Some(text) => match self.ids.iter().find(|id| text.contains(&id.to_string()) && entry.id() != Some(**id)) {
                Some(id) => Ok(Some(Sight::Here(vec![Place { host: host.into(), port, id: *id, speed: None }], by))),
                None => {
                    reasons.push(format!("{by}: {text}"));
                    Ok(None)
                }
            },
        }
    }
}

/// Whether two values of a `usbN` key are the same; as text where one is no such value.
pub fn same_usb(a: Option<&str>, b: Option<&str>) -> bool {
    match (a.and_then(|a| a.parse::<UsbValue>().ok()), b.and_then(|b| b.parse::<UsbValue>().ok())) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

impl Sight {
    /// The places, if any.
    pub fn places(&self) -> &[Place] {
        match self {
            Self::Here(places, _) => places,
            Self::Absent(..) | Self::CannotSee(_) => &[],
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {} port {}", self.id, self.host, self.port)?;
        self.speed.map_or(Ok(()), |speed| write!(f, " ({speed} Mbit/s)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(port: &str) -> Place {
        let (port, id) = (port.parse().unwrap(), "18d1:9302".parse().unwrap());
        Place { host: "fawn".into(), port, id, speed: None }
    }

    #[test]
    fn the_place_of_a_mapping_is_its_own_then_the_sites_then_the_only_one() {
        let device = |socket: Option<&str>| Device {
            name: "coral".into(),
            ids: vec!["1a6e:089a".parse().unwrap(), "18d1:9302".parse().unwrap()],
            serial: None,
            min_speed: None,
            sockets: socket
                .map(|port| ("fawn".to_owned(), Socket { port: port.parse().unwrap(), sibling: None }))
                .into_iter()
                .collect(),
            mapping: Some("coral".into()),
        };
        let entry =
            |port: Option<&str>| MapEntry::new("fawn", device(None).ids[0], port.map(|p| p.parse().unwrap()).as_ref());
        let two = [place("2-1"), place("2-3")];
        // site's socket, mapping's port, what is seen, the place
        type Row<'a> = (Option<&'a str>, Option<&'a str>, &'a [Place], Result<Option<&'a str>, ()>);
        let table: &[Row<'_>] = &[
            (None, Some("2-3"), &two, Ok(Some("2-3"))),
            (Some("2-1"), Some("2-3"), &two, Ok(Some("2-3"))),
            (Some("2-3"), Some("2-9"), &two, Ok(Some("2-3"))),
            (Some("2-3"), None, &two, Ok(Some("2-3"))),
            (None, Some("2-9"), &two[1..], Ok(Some("2-3"))),
            (None, Some("2-9"), &two, Err(())),
            (None, None, &two, Err(())),
            (Some("2-1"), Some("2-1"), &[], Ok(None)),
        ];
        for (i, (socket, port, seen, expected)) in table.iter().enumerate() {
            let found = device(*socket).place_for(Some(&entry(*port)), "fawn", seen);
            let found = found.map(|p| p.map(|p| p.port.to_string())).map_err(|_| ());
            assert_eq!(found, expected.map(|p| p.map(str::to_owned)), "row {i}");
        }
        assert_eq!(table.len(), 8);
        let entries = |values: &[&str]| values.iter().map(|v| ("usb0".to_owned(), (*v).to_owned())).collect::<Vec<_>>();
        let origin = |socket: Option<&str>, seen: &[Place], values: &[&str]| {
            device(socket).origin("fawn", seen, &entries(values)).map(|place| place.port.to_string())
        };
        assert_eq!(origin(Some("2-1"), &two, &["host=2-3"]).as_deref(), Some("2-3"));
        assert_eq!(origin(Some("2-1"), &two, &["host=18d1:9302"]).as_deref(), Some("2-1"));
        assert_eq!(origin(None, &two[1..], &["host=18d1:9302"]).as_deref(), Some("2-3"));
        assert_eq!(origin(None, &two, &["host=18d1:9302"]), None);
        let problem = device(None).place_for(None, "fawn", &two).unwrap_err();
        assert!(problem.text.contains("2-1") && problem.text.contains("2-3"), "{problem:?}");
    }

    #[test]
    fn what_cannot_be_seen_is_not_taken_for_another_device() {
        let mut device = Device {
            name: "coral".into(),
            ids: vec!["18d1:9302".parse().unwrap()],
            serial: None,
            min_speed: None,
            sockets: BTreeMap::new(),
            mapping: Some("coral".into()),
        };
        let values = ["host=2-1", "host=1a6e:089a", "spice", "mapping=coral", "mapping=hidden", "mapping=ups"];
        let key = |v: &&str| crate::proxmox::PendingKey { value: Some((*v).into()), ..Default::default() };
        let keys = values.iter().enumerate().map(|(i, v)| (format!("usb{i}"), key(v))).collect();
        let config = Pending { keys, digest: String::new() };
        let port = "1-4".parse().unwrap();
        let map = vec![MapEntry::new("fawn", "0001:0002".parse().unwrap(), Some(&port))];
        let ups = [UsbMapping { id: "ups".into(), description: None, map, digest: None, errors: Vec::new() }];
        let slots = |device: &Device, sight: &Sight| {
            let all = device.unjudged(&config, "fawn", sight, &ups);
            all.into_iter().map(|p| p.text.split(' ').nth(1).unwrap().to_owned()).collect::<Vec<_>>()
        };
        let unseen = Sight::CannotSee(vec!["no right".into()]);
        assert_eq!(slots(&device, &unseen), ["usb0", "usb4", "usb5"]);
        assert!(slots(&device, &Sight::Absent(Vec::new(), "x".into())).is_empty());
        let port = "2-3".parse().unwrap();
        device.sockets.insert("fawn".into(), Socket { port, sibling: None });
        assert_eq!(slots(&device, &unseen), ["usb4"]);
        assert_eq!(device.title(), "coral (18d1:9302)");
        device.serial = Some("0042".into());
        assert_eq!(device.title(), "coral (18d1:9302, serial 0042)");
    }

    #[test]
    fn values_are_compared_as_what_they_mean() {
        assert!(same_usb(Some("1a6e:089a,usb3=1"), Some("host=1a6e:089a,usb3=yes")));
        assert!(!same_usb(Some("host=1a6e:089a"), Some("host=1a6e:089a,usb3=1")));
        assert!(!same_usb(Some("host=spice"), None) && same_usb(None, None));
        assert!(same_usb(Some("?"), Some("?")) && !same_usb(Some("?"), Some("host=spice")));
    }
}
