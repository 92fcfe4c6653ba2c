//! What machines are made of, as a file for people and for later: what `pvemig survey --hardware` writes.
//!
//! Nothing in it is secret. What could not be asked is there with its reason, never left out and never a value.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Controller, Drive, Inventory, Link, Part, Port, Purpose, Slot};
use crate::base::survey::Layer;

/// The version of the file's form.
pub const FORMAT: u32 = 1;
/// What is said of a slot in which nothing is.
pub const NONE: &str = "none";

/// A value, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Told<T> {
    /// It could not be asked.
    Not(Why),
    /// It was asked, and this is the answer.
    Is(T),
}

/// Why something is not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Why {
    /// The reason, with the name of what was asked.
    pub unknown: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl<T> Told<T> {
    /// Not known for this reason.
    pub fn not(reason: impl Into<String>) -> Self {
        Self::Not(Why { unknown: reason.into(), help: None })
    }

    /// The answer, where there is one.
    ///
    /// # Errors
    /// Why there is none.
    pub fn get(&self) -> Result<&T, &Why> {
        match self {
            Self::Is(value) => Ok(value),
            Self::Not(why) => Err(why),
        }
    }

    /// The same with another kind of answer.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Told<U> {
        match self {
            Self::Is(value) => Told::Is(f(value)),
            Self::Not(why) => Told::Not(why),
        }
    }
}

impl<T> From<Layer<T>> for Told<T> {
    /// What is absent is what the version of the system that was asked does not tell.
    fn from(layer: Layer<T>) -> Self {
        match layer {
            Layer::Known(value) => Self::Is(value),
            Layer::Unknown { reason, help } => Self::Not(Why { unknown: reason, help }),
            Layer::Absent => Self::not("it does not tell"),
        }
    }
}

impl<T> From<Told<T>> for Layer<T> {
    fn from(told: Told<T>) -> Self {
        match told {
            Told::Is(value) => Self::Known(value),
            Told::Not(why) => Self::Unknown { reason: why.unknown, help: why.help },
        }
    }
}

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Sheet {
    /// [`FORMAT`].
    pub pvemig: u32,
    /// The site's name.
    pub site: String,
    /// When the first question was asked.
    pub taken: Timestamp,
    /// Talos nodes, by their names in the site file.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub nodes: BTreeMap<String, Told<Machine>>,
    /// Proxmox hosts, by their names in the site file.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hosts: BTreeMap<String, Told<Bays>>,
}

/// A Talos node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Machine {
    /// The running version: `v1.11.5`.
    pub talos: String,
    /// Its board.
    pub board: Told<Board>,
    /// Its processors.
    pub cpu: Told<Vec<Cpu>>,
    /// Its memory.
    pub memory: Memory,
    /// Its slots and drives.
    #[serde(flatten)]
    pub bays: Bays,
}

/// A board, as its firmware tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Board {
    /// Who made the machine.
    pub manufacturer: String,
    /// Its model.
    pub product: String,
    /// Its maker's version of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Its serial number; empty where the firmware has none.
    pub serial: String,
    /// Its uuid; of a VM that of its SMBIOS.
    pub uuid: String,
}

/// A processor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Cpu {
    /// Where it sits.
    pub socket: String,
    /// What it is.
    pub product: String,
    /// Its cores.
    pub cores: u32,
    /// Its threads.
    pub threads: u32,
}

/// Memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Memory {
    /// What the kernel counts, in bytes.
    pub bytes: Told<u64>,
    /// What is plugged in.
    pub modules: Told<Vec<Module>>,
}

/// A memory module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Module {
    /// Where it sits.
    pub slot: String,
    /// In MiB; 0: the place is empty.
    pub size_mib: u32,
    /// In million transfers a second; 0 where it does not tell.
    pub speed: u32,
    /// What it is.
    pub product: String,
    /// Its serial number.
    pub serial: String,
}

/// The slots of a machine and the drives in them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Bays {
    /// Its slots, in the order of the site file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slots: Vec<Seat>,
    /// Its drives, in the kernel's order.
    pub drives: Told<Vec<Row>>,
    /// NVMe controllers that have brought up no drive.
    pub controllers_without_a_disk: Told<Vec<Controller>>,
    /// Why the port of such a controller is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_ports: Option<String>,
    /// What could not be asked of what the drives are for: then none is called spare, and one without a purpose may have
    /// one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_asked: Vec<String>,
    /// What is in use by its Kubernetes and on none of the drives, a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_no_drive: Vec<String>,
}

/// A slot with what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Seat {
    /// Its name on the board.
    pub slot: String,
    /// Where a person finds it.
    pub position: String,
    /// Its port, where the site file has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Port>,
    /// The serial number of the drive in it, or [`NONE`].
    pub drive: Told<String>,
}

/// A drive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Row {
    /// Its serial number; empty where it has none.
    pub serial: String,
    /// Its model.
    pub model: String,
    /// In bytes.
    pub size: u64,
    /// What it is for.
    pub purpose: Vec<Purpose>,
    /// The version of its firmware; not there where a drive of its kind tells none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<Told<String>>,
    /// The World Wide Name; empty where it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub wwid: String,
    /// The NVMe uuid; empty where it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uuid: String,
    /// `nvme`, `sata`, `usb`, ...
    pub transport: String,
    /// Where it is plugged in, as the kernel has it.
    pub bus: String,
    /// The same without what changes when a neighbouring slot is filled: what `port:` of a slot in the site file takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Port>,
    /// How fast its link goes; of NVMe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Told<Link>>,
    /// The kernel's name at that moment, which means another drive after the next boot.
    pub kernel: String,
    /// What is on it.
    pub parts: Told<Vec<Part>>,
    /// Its names below `/dev/disk`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<String>,
}

impl Row {
    /// Of a drive, with what its firmware and link are or why that is not known.
    pub fn of(drive: Drive, firmware: Option<Told<String>>, link: Option<Told<Link>>) -> Self {
        Self {
            port: drive.port(),
            serial: drive.serial().to_owned(),
            model: drive.model.trim().to_owned(),
            size: drive.size,
            purpose: drive.purposes,
            firmware,
            wwid: drive.wwid,
            uuid: drive.uuid,
            transport: drive.transport,
            bus: drive.bus_path,
            link,
            kernel: drive.id,
            parts: drive.parts.into(),
            links: drive.symlinks,
        }
    }

    /// The drive.
    pub fn drive(&self) -> Drive {
        let firmware = self.firmware.as_ref().and_then(|told| told.get().ok()).cloned();
        Drive {
            id: self.kernel.clone(),
            model: self.model.clone(),
            serial: self.serial.clone(),
            wwid: self.wwid.clone(),
            uuid: self.uuid.clone(),
            firmware: firmware.unwrap_or_default(),
            size: self.size,
            transport: self.transport.clone(),
            bus_path: self.bus.clone(),
            symlinks: self.links.clone(),
            parts: self.parts.clone().into(),
            link: self.link.as_ref().and_then(|told| told.get().ok()).cloned(),
            purposes: self.purpose.clone(),
        }
    }
}

impl Bays {
    /// What is known, for who matches drives.
    ///
    /// # Errors
    /// The drives, or the controllers without one, could not be asked.
    pub fn inventory(&self) -> Result<Inventory, &Why> {
        Ok(Inventory {
            drives: self.drives.get()?.iter().map(Row::drive).collect(),
            controllers_without_a_disk: self.controllers_without_a_disk.get()?.clone(),
            not_asked: self.not_asked.clone(),
        })
    }
}

/// What is in the slots.
///
/// `no_ports`: why it is not known where controllers hang that have no port.
pub fn seats(
    slots: &[Slot],
    drives: &Told<Vec<Row>>,
    controllers: &Told<Vec<Controller>>,
    no_ports: Option<&str>,
) -> Vec<Seat> {
    let why = no_ports.map(|why| format!(": {why}")).unwrap_or_default();
    let of = |slot: &Slot| Seat {
        slot: slot.name.clone(),
        position: slot.position.clone(),
        port: slot.port.clone(),
        drive: seat(slot, drives, controllers, &why),
    };
    slots.iter().map(of).collect()
}

fn seat(slot: &Slot, drives: &Told<Vec<Row>>, controllers: &Told<Vec<Controller>>, why: &str) -> Told<String> {
    let Some(port) = &slot.port else {
        let help = "write the `port` of the drive that is in it (see below) into the site file, as `port: \"..\"`";
        return Told::Not(Why { unknown: "the site file has no port of it".into(), help: Some(help.into()) });
    };
    let rows = match drives.get() {
        Ok(rows) => rows,
        Err(why) => return Told::Not(why.clone()),
    };
    if let Some(row) = rows.iter().find(|row| row.port.as_ref() == Some(port)) {
        return Told::Is(row.drive().shown());
    }
    let idle = match controllers.get() {
        Ok(idle) => idle,
        Err(why) => return Told::Not(why.clone()),
    };
    let here = idle.iter().find(|one| one.port.as_ref() == Some(port));
    let somewhere = idle.iter().find(|one| one.port.is_none());
    let placeless = rows.iter().find(|row| row.transport == "nvme" && row.port.is_none());
    match (here, somewhere, placeless) {
        (Some(one), ..) => Told::not(format!("its controller {} is there without a disk", one.address)),
        (None, Some(one), _) => {
            let address = &one.address;
            Told::not(format!("controller {address} is without a disk, and its port is not known{why}"))
        }
        (None, None, Some(row)) => Told::not(format!("{} does not tell where it is plugged in", row.kernel)),
        (None, None, None) => Told::Is(NONE.into()),
    }
}

#[cfg(test)]
mod tests;
