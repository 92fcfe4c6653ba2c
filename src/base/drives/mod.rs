//! Drives and the slots that they sit in: what is known of each, and which is which after they were moved.
//!
//! Values and rules alone, without any asking. A drive is known by its serial number, or by what is on it, never by the
//! kernel's name (`nvme0n1`), which goes by the order in which drives answer. A slot is known by its [`Port`].

mod acts;
pub mod boot_entry;
mod drawing;
pub mod gpt;
mod layout;
mod matching;
mod odd;
mod place;
mod port;
mod predicted;
mod purpose;
mod roles;
pub mod sheet;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::check::bytes;
use super::survey::Layer;

pub use acts::{Act, acts};
pub use drawing::drawing;
pub use layout::Wrong;
pub use matching::{By, Found, Known, Sight, Unasked, recognise};
pub use odd::Odd;
pub use place::{name, placed, ports};
pub use port::{Port, pci_address};
pub use predicted::predicted;
pub use purpose::Purpose;
pub use roles::{Homeless, Uses, assign};

/// Which drive is in which slot: names of drives by names of slots. A slot that is not in it is empty.
pub type Layout = BTreeMap<String, String>;

/// A partition of a drive, or what takes the whole of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Part {
    /// The partition's own uuid in lower case; of what takes the whole drive, that of the file system. Empty where it has
    /// none.
    pub uuid: String,
    /// The partition's label: `EPHEMERAL`, `u-media`.
    pub label: String,
    /// Its number in the table; 0 is what takes the whole drive, where that is no table.
    pub index: u32,
    /// In bytes.
    pub size: u64,
    /// What is on it: `xfs`; empty where nothing is known.
    pub content: String,
}

/// How fast a drive's PCI link goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// As the kernel writes it: `8.0 GT/s PCIe`.
    pub speed: String,
    /// Lanes.
    pub width: u32,
}

/// A drive, as far as it is known. An empty text is what it does not tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Drive {
    /// The kernel's name at the moment: `nvme0n1`.
    pub id: String,
    /// The model.
    pub model: String,
    /// The serial number.
    pub serial: String,
    /// The World Wide Name.
    pub wwid: String,
    /// The NVMe uuid.
    pub uuid: String,
    /// The version of its firmware.
    pub firmware: String,
    /// In bytes; 0 where it is not known.
    pub size: u64,
    /// `nvme`, `sata`, `usb`, ...
    pub transport: String,
    /// Where it is plugged in, as the kernel has it below `/sys/devices`.
    pub bus_path: String,
    /// Its names below `/dev/disk`.
    pub symlinks: Vec<String>,
    /// What is on it, in the order of the table.
    pub parts: Layer<Vec<Part>>,
    /// How fast its link goes, where that was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Link>,
    /// What it is for; [`Purpose::Spare`] alone or not at all.
    pub purposes: Vec<Purpose>,
}

impl Default for Drive {
    /// Nothing is known of it, and nothing is on it.
    fn default() -> Self {
        let text = String::new;
        Self {
            id: text(),
            model: text(),
            serial: text(),
            wwid: text(),
            uuid: text(),
            firmware: text(),
            size: 0,
            transport: text(),
            bus_path: text(),
            symlinks: Vec::new(),
            parts: Layer::Known(Vec::new()),
            link: None,
            purposes: Vec::new(),
        }
    }
}

impl Drive {
    /// The serial number without the blanks around it: NVMe fills the field up with them (NVM Express base specification,
    /// Identify Controller, bytes 4 to 23).
    pub fn serial(&self) -> &str {
        self.serial.trim()
    }

    /// Where it is plugged in. None where that cannot be told: only a drive of NVMe is alone on its port, and with
    /// `nvme_core.multipath` the kernel may show it below `/devices/virtual`.
    pub fn port(&self) -> Option<Port> {
        (self.transport == "nvme").then(|| Port::of(&self.bus_path)).flatten()
    }

    /// The uuids of what is on it, where that is known.
    pub(crate) fn marks(&self) -> Option<Vec<&str>> {
        let parts = self.parts.known()?;
        Some(parts.iter().map(|part| part.uuid.as_str()).filter(|uuid| !uuid.is_empty()).collect())
    }

    /// Nothing is on it that anybody knows. A pool of Mayastor has no table and no file system that the node would see.
    pub fn is_blank(&self) -> bool {
        let used = self.purposes.iter().any(|purpose| *purpose != Purpose::Spare);
        !used && self.parts.known().is_some_and(Vec::is_empty)
    }

    /// By what a person knows it: its serial number, else its model and size.
    pub fn shown(&self) -> String {
        match (self.serial(), self.model.trim()) {
            ("", "") => format!("{}, no serial number", bytes(self.size)),
            ("", model) => format!("{model}, {}, no serial number", bytes(self.size)),
            (serial, _) => serial.to_owned(),
        }
    }
}

/// An NVMe controller on PCI.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Controller {
    /// `0000:03:00.0`.
    pub address: String,
    /// Where it is plugged in; None where the kernel's path of it was not read (the address alone does not tell).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Port>,
}

/// The drives that a machine has at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Inventory {
    /// All of them, in the kernel's order.
    pub drives: Vec<Drive>,
    /// NVMe controllers on PCI that have brought up no drive.
    pub controllers_without_a_disk: Vec<Controller>,
    /// What could not be asked of what the drives are for, a line each. Then no drive is called spare, and one without a
    /// purpose may have one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_asked: Vec<String>,
}

/// What is to become of the drives of one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Its slots, in the order of the drawing.
    pub slots: Vec<Slot>,
    /// The drives by names of the operator's, which tell two with one serial number apart.
    pub drives: BTreeMap<String, Wanted>,
    /// How they are before.
    pub current: Layout,
    /// How they are to be. A drive of `current` that is not here leaves the machine.
    pub target: Layout,
    /// What happens to the system disk.
    pub scenario: Scenario,
}

/// A slot, as the board calls it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// `M2_1`.
    pub name: String,
    /// Where a person finds it: `under the battery`.
    pub position: String,
    /// Its port, where the site file has it; else it is learned from what is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Port>,
}

/// A drive, as a plan names it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Wanted {
    /// Its serial number; empty where it has none.
    pub serial: String,
    /// Its model; empty where nobody wrote it.
    pub model: String,
    /// In bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The uuid of a partition on it, where its serial number does not tell it apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// What it is for.
    pub purposes: Vec<Purpose>,
    /// It is not in the machine yet.
    #[serde(default)]
    pub new: bool,
}

impl Wanted {
    /// What the plan alone knows of it.
    pub fn drive(&self) -> Drive {
        Drive {
            model: self.model.clone(),
            serial: self.serial.clone(),
            size: self.size.unwrap_or_default(),
            transport: "nvme".into(),
            parts: match &self.partition {
                Some(uuid) => Layer::Known(vec![Part { uuid: uuid.to_lowercase(), index: 1, ..Part::default() }]),
                // Of a new one nothing is expected; at another one nobody has looked.
                None if self.new => Layer::Known(Vec::new()),
                None => Layer::Absent,
            },
            purposes: self.purposes.clone(),
            ..Drive::default()
        }
    }
}

/// What happens to the system disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// It stays where it is.
    Data,
    /// It goes into another slot, with all that is on it.
    SystemMoved,
    /// Another drive becomes the system disk.
    SystemReplaced,
}

impl Scenario {
    /// The word for it in the site file.
    pub fn word(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::SystemMoved => "system-moved",
            Self::SystemReplaced => "system-replaced",
        }
    }
}

impl Plan {
    /// The drive that the node runs from in a layout. One that is only to become it is none for as long as the former one is
    /// in the machine.
    pub fn system_in<'p>(&'p self, layout: &Layout) -> Option<(&'p str, &'p Wanted)> {
        let is =
            |name: &String| self.drives.get_key_value(name).filter(|(_, one)| one.purposes.contains(&Purpose::System));
        let all: Vec<(&String, &Wanted)> = layout.values().filter_map(is).collect();
        let only = all.len() == 1;
        let found = all.into_iter().find(|(name, _)| only || Self::slot_of(&self.target, name).is_none());
        found.map(|(name, wanted)| (name.as_str(), wanted))
    }

    /// The slot in which a drive is to be in a layout.
    pub fn slot_of<'l>(layout: &'l Layout, name: &str) -> Option<&'l str> {
        layout.iter().find(|(_, drive)| *drive == name).map(|(slot, _)| slot.as_str())
    }
}
