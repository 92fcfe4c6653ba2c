//! USB: which device is on which port of a host, which QEMU process has it, what the guest makes of it.

use std::collections::BTreeMap;

use super::world::{Attached, Host, Place, Vm, World};

/// A row of a host's device list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostUsb {
    /// Bus number.
    pub bus: u8,
    /// Device number.
    pub dev: u32,
    /// Port path behind the bus, `1.4`; empty for a root hub.
    pub path: String,
    /// `VID:PID`
    pub id: String,
    /// Mbit/s.
    pub speed: u32,
    /// Product string; may be empty.
    pub product: String,
    /// Serial number.
    pub serial: Option<String>,
}

impl HostUsb {
    /// `2-1.4`; `usb2` for a root hub.
    pub fn port(&self) -> String {
        if self.path.is_empty() { format!("usb{}", self.bus) } else { format!("{}-{}", self.bus, self.path) }
    }

    /// True for a root hub.
    pub fn is_hub(&self) -> bool {
        self.path.is_empty()
    }
}

/// A device as a guest sees it. Same fields as on a host.
pub type GuestUsb = HostUsb;

/// A `usbN` line of a config, split.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsbLine {
    /// `VID:PID`, `BUS-PORT` or `spice`.
    pub host: Option<String>,
    /// Mapping id.
    pub mapping: Option<String>,
    /// `usb3=1`
    pub usb3: bool,
}

impl UsbLine {
    /// Splits a line without judging its values; `host` is the key of a bare value.
    pub fn split(line: &str) -> Self {
        let mut out = Self::default();
        for part in line.split(',') {
            match part.split_once('=') {
                Some(("host", v)) => out.host = Some(v.to_lowercase().replace("0x", "")),
                Some(("mapping", v)) => out.mapping = Some(v.to_owned()),
                Some(("usb3", v)) => out.usb3 = matches!(v, "1" | "on" | "yes" | "true"),
                Some(_) => {}
                None => out.host = Some(part.to_lowercase().replace("0x", "")),
            }
        }
        out
    }
}

/// `usb7` -> 7, for 0 to 13.
pub fn usb_index(key: &str) -> Option<u32> {
    key.strip_prefix("usb").and_then(|n| n.parse().ok()).filter(|n| *n < 14 && key == format!("usb{n}"))
}

/// Version of a machine type (`pc-q35-9.2+pve1` -> 9, 2); unversioned ones are the newest.
pub fn machine_version(machine: &str) -> (u32, u32) {
    let kind = machine.split(',').next().unwrap_or_default();
    let version = kind.rsplit('-').next().unwrap_or_default().split('+').next().unwrap_or_default();
    let mut parts = version.split('.').map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => (10, 1),
    }
}

/// All USB on one xhci controller with 14 keys, and hot-plug: machine 7.1 and up with a guest that can
/// (qemu-server `PVE/QemuServer/USB.pm`).
pub fn new_style(machine: &str, ostype: &str) -> bool {
    machine_version(machine) >= (7, 1) && matches!(ostype, "l26" | "win8" | "win10" | "win11")
}

impl Vm {
    /// Whether [`new_style`] holds for the running process, or for what a start would make of the config.
    pub fn new_style_usb(&self) -> bool {
        let configured = self.config.get("machine").map_or("pc", String::as_str);
        let machine = self.running.as_ref().map_or(configured, |r| r.machine.as_str());
        new_style(machine, self.config.get("ostype").map_or("other", String::as_str))
    }
}

impl Host {
    /// Where a device that is plugged in at `port` lands, and how fast: the super-speed port only for a device that is
    /// fast enough, the 480 Mbit/s port of the same socket otherwise.
    pub fn landing(&self, port: &str, max_speed: u32) -> Option<(String, u32)> {
        let socket = self.sockets.iter().find(|s| s.high_speed == port || s.super_speed.as_deref() == Some(port))?;
        match &socket.super_speed {
            Some(fast) if fast == port && max_speed >= 5000 => Some((fast.clone(), max_speed)),
            _ => Some((socket.high_speed.clone(), max_speed.min(480))),
        }
    }

    /// Bus numbers with their speeds.
    fn buses(&self) -> BTreeMap<u8, u32> {
        let mut buses = BTreeMap::new();
        for port in self.sockets.iter().map(|s| s.high_speed.as_str()).chain(self.fixed.iter().map(|f| f.port.as_str()))
        {
            buses.insert(bus_of(port), 480);
        }
        for port in self.sockets.iter().filter_map(|s| s.super_speed.as_deref()) {
            buses.insert(bus_of(port), 5000);
        }
        buses
    }
}

/// `2-1.4` -> 2
fn bus_of(port: &str) -> u8 {
    port.split('-').next().and_then(|b| b.parse().ok()).unwrap_or_default()
}

fn path_of(port: &str) -> String {
    port.split_once('-').map(|(_, p)| p.to_owned()).unwrap_or_default()
}

fn root_hub(bus: u8, speed: u32) -> HostUsb {
    let (id, product) = match speed {
        5000.. => ("1d6b:0003", "xHCI Host Controller"),
        480.. => ("1d6b:0002", "xHCI Host Controller"),
        _ => ("1d6b:0001", "UHCI Host Controller"),
    };
    HostUsb { bus, dev: 1, path: String::new(), id: id.into(), speed, product: product.into(), serial: None }
}

impl World {
    /// What `lsusb` on a host shows: root hubs and devices in tree order, devices that a guest holds included.
    pub fn host_usb(&self, host: &str) -> Vec<HostUsb> {
        let Some(node) = self.hosts.get(host) else { return Vec::new() };
        let mut rows: Vec<HostUsb> = node.buses().into_iter().map(|(bus, speed)| root_hub(bus, speed)).collect();
        let mut on_bus: BTreeMap<u8, u32> = BTreeMap::new();
        for fixed in &node.fixed {
            let bus = bus_of(&fixed.port);
            let dev = on_bus.entry(bus).and_modify(|n| *n += 1).or_insert(2);
            rows.push(HostUsb {
                bus,
                dev: *dev,
                path: path_of(&fixed.port),
                id: fixed.id.clone(),
                speed: fixed.speed,
                product: fixed.product.clone(),
                serial: None,
            });
        }
        for stick in self.sticks.values().filter(|s| s.present) {
            let Some(place) = stick.at.as_ref().filter(|p| p.host == host) else { continue };
            let Some((port, speed)) = node.landing(&place.port, stick.max_speed) else { continue };
            rows.push(HostUsb {
                bus: bus_of(&port),
                dev: stick.devnum,
                path: path_of(&port),
                id: stick.id().to_owned(),
                speed,
                product: stick.product().to_owned(),
                serial: stick.serial.clone(),
            });
        }
        rows.sort_by_key(|r| (r.bus, r.path.split('.').map(|p| p.parse::<u32>().unwrap_or(0)).collect::<Vec<_>>()));
        rows
    }

    /// The machine that holds a host's device.
    pub fn holder(&self, host: &str, device: &HostUsb) -> Option<u32> {
        let port = device.port();
        self.vms
            .iter()
            .filter(|(_, vm)| vm.node == host)
            .find(|(_, vm)| {
                let held = |a: &Attached| a.host_port == port && a.host_devnum == device.dev;
                vm.running.as_ref().is_some_and(|r| r.usb.values().any(held))
            })
            .map(|(vmid, _)| *vmid)
    }

    /// Lets go of devices that are gone and takes those that fit: QEMU attaches a device whenever it shows up, and the
    /// first process that asks has it.
    pub(super) fn settle_usb(&mut self) {
        let hosts: Vec<String> = self.hosts.keys().cloned().collect();
        for host in hosts {
            let devices = self.host_usb(&host);
            let vmids: Vec<u32> = self.vms.iter().filter(|(_, vm)| vm.node == host).map(|(id, _)| *id).collect();
            for vmid in vmids {
                let Some(running) = self.vms.get_mut(&vmid).and_then(|vm| vm.running.as_mut()) else { continue };
                let plugs = running.plugs.clone();
                running.usb.retain(|key, held| {
                    plugs.contains_key(key)
                        && devices.iter().any(|d| d.port() == held.host_port && d.dev == held.host_devnum)
                });
                let free: Vec<String> = plugs.keys().filter(|k| !running.usb.contains_key(*k)).cloned().collect();
                for key in free {
                    let Some(plug) = plugs.get(&key) else { continue };
                    let fits = |d: &&HostUsb| !d.is_hub() && plug.fits(d) && self.holder(&host, d).is_none();
                    if let Some(device) = devices.iter().find(fits).cloned()
                        && let Some(running) = self.vms.get_mut(&vmid).and_then(|vm| vm.running.as_mut())
                    {
                        running.devnum += 1;
                        let held = Attached {
                            host_port: device.port(),
                            id: device.id,
                            host_devnum: device.dev,
                            devnum: running.devnum,
                        };
                        running.usb.insert(key, held);
                    }
                }
            }
        }
    }

    /// What `lsusb` in a guest shows; empty while the guest is not up.
    pub fn guest_usb(&self, vmid: u32) -> Vec<GuestUsb> {
        let Some(vm) = self.vms.get(&vmid) else { return Vec::new() };
        let Some(running) = vm.running.as_ref().filter(|_| self.guest_up(vmid)) else { return Vec::new() };
        let devices = self.host_usb(&vm.node);
        let (new_style, any_plug) = (vm.new_style_usb(), !running.plugs.is_empty());
        let mut rows = Vec::new();
        if any_plug && (new_style || running.plugs.values().any(|p| p.usb3)) {
            rows.extend([root_hub(1, 480), root_hub(2, 5000)]);
        }
        if any_plug && !new_style && running.plugs.values().any(|p| !p.usb3) {
            rows.push(root_hub(3, 480));
        }
        if vm.config.get("tablet").is_none_or(|t| t != "0") {
            rows.push(root_hub(4, 12));
            rows.push(HostUsb {
                bus: 4,
                dev: 2,
                path: "1".into(),
                id: "0627:0001".into(),
                speed: 12,
                product: "QEMU Tablet".into(),
                serial: None,
            });
        }
        for (key, held) in &running.usb {
            let device = devices.iter().find(|d| d.port() == held.host_port && d.dev == held.host_devnum);
            let (Some(device), Some(index)) = (device, usb_index(key)) else { continue };
            let xhci = new_style || running.plugs.get(key).is_some_and(|p| p.usb3);
            let (bus, speed) = match (xhci, device.speed) {
                (true, 5000..) => (2, device.speed),
                (true, speed) => (1, speed),
                (false, speed) => (3, speed.min(480)),
            };
            rows.push(HostUsb { bus, dev: held.devnum, path: (index + 1).to_string(), speed, ..device.clone() });
        }
        rows.sort_by_key(|r| (r.bus, r.dev));
        rows
    }

    /// Takes a stick out and puts it in elsewhere, or leaves it in the hand. It loses power: a Coral forgets its
    /// firmware.
    ///
    /// # Errors
    /// [`super::LabError::Hands`]
    pub fn move_stick(&mut self, name: &str, place: Option<Place>) -> Result<(), super::LabError> {
        let no = |text: String| super::LabError::Hands(text);
        if let Some(place) = &place {
            let host = self.hosts.get(&place.host).ok_or_else(|| no(self.no_host(&place.host)))?;
            let known: Vec<&str> = host
                .sockets
                .iter()
                .flat_map(|s| [Some(s.high_speed.as_str()), s.super_speed.as_deref()])
                .flatten()
                .collect();
            let speed = self.sticks.get(name).map_or(480, |s| s.max_speed);
            let landing = host.landing(&place.port, speed).ok_or_else(|| {
                no(format!("host `{}` has no socket `{}`; it has: {}", place.host, place.port, known.join(", ")))
            })?;
            let socket = |port: &str| {
                host.sockets.iter().position(|s| s.high_speed == port || s.super_speed.as_deref() == Some(port))
            };
            let taken = self.sticks.iter().find(|(other, s)| {
                other.as_str() != name
                    && s.at.as_ref().is_some_and(|p| p.host == place.host && socket(&p.port) == socket(&landing.0))
            });
            if let Some((other, _)) = taken {
                return Err(no(format!("`{other}` is in that socket")));
            }
        }
        let known: Vec<_> = self.sticks.keys().map(String::as_str).collect();
        let none = format!("there is no stick `{name}`; there are: {}", known.join(", "));
        let stick = self.sticks.get_mut(name).ok_or_else(|| no(none))?;
        stick.at = None;
        stick.state = super::world::StickState::Boot;
        stick.present = true;
        self.settle_usb();
        if let Some(stick) = self.sticks.get_mut(name) {
            stick.at = place;
        }
        self.enumerate(name);
        self.settle_usb();
        Ok(())
    }

    /// What is said of a host that the world does not have.
    pub fn no_host(&self, name: &str) -> String {
        let known: Vec<_> = self.hosts.keys().map(String::as_str).collect();
        format!("there is no host `{name}`; there are: {}", known.join(", "))
    }

    /// Gives a stick a new device number on its bus.
    pub(super) fn enumerate(&mut self, name: &str) {
        let Some(stick) = self.sticks.get_mut(name) else { return };
        let Some(place) = stick.at.as_ref() else { return };
        let Some(host) = self.hosts.get_mut(&place.host) else { return };
        let Some((port, _)) = host.landing(&place.port, stick.max_speed) else { return };
        let bus = bus_of(&port);
        let fixed = host.fixed.iter().filter(|f| bus_of(&f.port) == bus).count();
        let last = host.devnum.entry(bus).or_insert_with(|| 1 + u32::try_from(fixed).unwrap_or_default());
        *last += 1;
        stick.devnum = *last;
    }
}
