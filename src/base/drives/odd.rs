//! What is not as it should be with the drives of a machine, and the words for it.

use super::{Inventory, Plan};

/// Something that is not as it should be. `live` are indices of the inventory that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Odd {
    /// A drive is not seen.
    Missing {
        /// Its name.
        name: String,
        /// Where it belongs.
        slot: Option<String>,
        /// The port of that slot is known, and nothing is on it.
        known: bool,
        /// The drive that is in that slot.
        holds: Option<String>,
    },
    /// In the slot where a drive belongs is a controller that has brought up no drive.
    Dead {
        /// Its name.
        name: String,
        /// Where it belongs.
        slot: String,
        /// The controller's address.
        controller: String,
    },
    /// A drive is in another slot than it belongs into.
    WrongSlot {
        /// Its name.
        name: String,
        /// Where it is.
        is: String,
        /// Where it belongs.
        should: String,
    },
    /// A drive is in the machine that belongs out of it.
    StillIn {
        /// Its name.
        name: String,
        /// Where it is, where that can be told.
        is: Option<String>,
    },
    /// In which slot a drive is cannot be told.
    NoPlace {
        /// Its name.
        name: String,
        /// Which it is.
        live: usize,
    },
    /// Nothing tells these apart.
    Alike {
        /// The names that they may be.
        names: Vec<String>,
        /// Which they are.
        live: Vec<usize>,
    },
    /// It is the drive, and nothing that was on it is on it any more.
    Wiped {
        /// Its name.
        name: String,
        /// Which it is.
        live: usize,
    },
    /// A drive that nobody named.
    Stranger {
        /// Which it is.
        live: usize,
        /// The missing drive of which it has a partition, by the uuid.
        parts_of: Option<String>,
    },
    /// What is on a drive is on two.
    TwoOfOne {
        /// Its name.
        name: String,
        /// Which they are.
        live: Vec<usize>,
    },
}

impl Odd {
    /// A drive that is not seen, wherever it belongs.
    pub fn missing(name: &str) -> Self {
        Self::Missing { name: name.to_owned(), slot: None, known: false, holds: None }
    }

    /// The drives that it is about, by the operator's names.
    pub fn names(&self) -> Vec<&str> {
        match self {
            Self::Missing { name, .. }
            | Self::Dead { name, .. }
            | Self::WrongSlot { name, .. }
            | Self::StillIn { name, .. }
            | Self::NoPlace { name, .. }
            | Self::Wiped { name, .. }
            | Self::TwoOfOne { name, .. } => vec![name],
            Self::Alike { names, .. } => names.iter().map(String::as_str).collect(),
            Self::Stranger { .. } => Vec::new(),
        }
    }

    /// What is wrong, in one line.
    pub fn text(&self, plan: &Plan, live: &Inventory) -> String {
        let called = |name: &str| match plan.drives.get(name).map(|wanted| wanted.serial.trim()) {
            Some(serial) if !serial.is_empty() => format!("{name} ({serial})"),
            _ => name.to_owned(),
        };
        let drive = |at: &usize| match live.drives.get(*at) {
            Some(drive) => format!("{} ({})", drive.id, drive.shown()),
            None => "a drive".to_owned(),
        };
        let list = |all: &[usize]| all.iter().map(drive).collect::<Vec<_>>().join(" and ");
        match self {
            Self::Missing { name, slot: None, .. } => format!("{} is not in the machine", called(name)),
            Self::Missing { name, slot: Some(slot), holds: Some(other), .. } => {
                format!("{} is nowhere: in {slot} is {other}", called(name))
            }
            Self::Missing { name, slot: Some(slot), known: true, .. } => {
                format!("{} is nowhere: {slot} is empty, and nothing is on its PCI port", called(name))
            }
            Self::Missing { name, slot: Some(slot), .. } => {
                format!("{} is nowhere: it is not in the machine, or is not seen in {slot}", called(name))
            }
            Self::Dead { name, slot, controller } => {
                format!(
                    "{} does not come up in {slot}: its controller {controller} is there without a disk",
                    called(name)
                )
            }
            Self::WrongSlot { name, is, should } => format!("{} is in {is} and belongs into {should}", called(name)),
            Self::StillIn { name, is: Some(is) } => format!("{} is still in {is} and belongs out of it", called(name)),
            Self::StillIn { name, is: None } => {
                format!("{} is still in the machine and belongs out of it", called(name))
            }
            Self::NoPlace { name, live: at } => {
                let path = live.drives.get(*at).map_or("", |drive| drive.bus_path.as_str());
                let path = if path.is_empty() { "nothing".to_owned() } else { format!("`{path}`") };
                format!("in which slot {} is cannot be told: the kernel gives {path} as its place", called(name))
            }
            Self::Alike { names, live: at } => {
                let serial = at.first().and_then(|at| live.drives.get(*at)).map_or("", |drive| drive.serial());
                let serial =
                    if serial.is_empty() { "no serial number".into() } else { format!("the serial number {serial}") };
                match names.as_slice() {
                    [one] if at.len() == 1 => {
                        format!(
                            "whether {} is {one} cannot be told: {serial} is all that they have in common",
                            list(at)
                        )
                    }
                    [one] => format!("which of {} is {one} cannot be told: all have {serial}", list(at)),
                    all => {
                        let each = if all.len() == 2 { "both" } else { "all" };
                        let all = all.join(" and ");
                        format!(
                            "{all} cannot be told apart: {each} have {serial}, and nothing that is known is on them"
                        )
                    }
                }
            }
            Self::Wiped { name, live: at } => {
                format!("{} is {}, and none of its partitions is on it any more", called(name), drive(at))
            }
            Self::Stranger { live: at, parts_of: None } => format!("{} is in no plan", drive(at)),
            Self::Stranger { live: at, parts_of: Some(name) } => {
                let other = live.drives.get(*at).map_or("", |drive| drive.model.trim());
                format!("{} has a partition of {name}, and is another model or size ({other})", drive(at))
            }
            Self::TwoOfOne { name, live: at } => {
                format!("{} may be {}: the same partition uuid is on each, one is a copy", called(name), list(at))
            }
        }
    }

    /// What a person does about it.
    pub fn help(&self, plan: &Plan) -> String {
        let at = |slot: &str| match plan.slots.iter().find(|info| info.name == slot) {
            Some(info) if !info.position.is_empty() => format!("{slot} ({})", info.position),
            _ => slot.to_owned(),
        };
        match self {
            Self::Missing { slot: None, .. } => "put it in, or take it out of the plan".into(),
            Self::Missing { slot: Some(slot), .. } => {
                format!("with the machine off, put it into {} until it sits", at(slot))
            }
            Self::Dead { slot, .. } => {
                format!("with the machine off, seat it in {} again; then try it in the slot where it was", at(slot))
            }
            Self::WrongSlot { should, .. } => format!("with the machine off, put it into {}", at(should)),
            Self::StillIn { .. } => "with the machine off, take it out".into(),
            Self::NoPlace { .. } => {
                "only a drive of NVMe has a PCI port of its own; `nvme_core.multipath=N` keeps the kernel from hiding it".into()
            }
            Self::Alike { .. } => {
                "give each a `partition:` in the site file (`talosctl get discoveredvolumes -o yaml` has the uuids)".into()
            }
            Self::Wiped { .. } => "do not go on: find out what has emptied it, and whether it is the drive that is meant".into(),
            Self::Stranger { .. } => "name it in `drives`, `current` and `target`, or take it out".into(),
            Self::TwoOfOne { .. } => "take the copy out of the machine".into(),
        }
    }
}
