//! The sockets of a machine that drives are moved between, and the hands that move them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::node::{Disk, Node};
use crate::base::check::DriveMove;
use crate::lab::{LabError, World};

/// A socket of a board.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bay {
    /// Where the kernel has what is in it: `/pci0000:00/0000:00:1d.0/0000:04:00.0/nvme`.
    pub bus: String,
    /// Where a person finds it.
    pub position: String,
    /// How many lanes it has; 0: four.
    pub lanes: u8,
    /// The serial number of a drive whose controller does not come up in it.
    pub dead: Option<String>,
    /// What drives report as their serial number in it, by what is on their label: a bridge between makes one up.
    pub renames: BTreeMap<String, String>,
    /// Its lanes are somebody else's, or the firmware has it off: what is in it is not on PCI.
    pub off: bool,
}

impl Bay {
    /// The address of what is in it: the last one on the way.
    pub fn address(&self) -> &str {
        self.bus.split('/').rfind(|part| part.matches(':').count() == 2).unwrap_or_default()
    }
}

/// The word for what lies beside a machine.
pub const BENCH: &str = "bench";

impl Node {
    /// The bay that a disk is in.
    pub fn bay_of(&self, disk: &Disk) -> Option<&Bay> {
        self.bays.get(&disk.bay).filter(|_| !disk.unplugged)
    }

    /// The machine has a disk at a boot, and it comes up.
    pub fn sees(&self, disk: &Disk) -> bool {
        disk.is_there() && self.bay_of(disk).is_none_or(|bay| !bay.off && bay.dead.as_ref() != Some(&disk.serial))
    }

    /// A disk as it reports itself in the bay that it is in.
    pub fn shown<'a>(&self, disk: &'a Disk) -> Cow<'a, Disk> {
        let Some(bay) = self.bay_of(disk) else { return Cow::Borrowed(disk) };
        let serial = bay.renames.get(&disk.serial).unwrap_or(&disk.serial).clone();
        Cow::Owned(Disk { serial, bus_path: bay.bus.clone(), ..disk.clone() })
    }

    /// The places of the disks in the list, in the order in which the kernel finds them.
    pub(super) fn found_in_order(&self) -> Vec<usize> {
        let mut all: Vec<usize> = (0..self.disks.len()).collect();
        let bus = |at: &usize| self.disks.get(*at).and_then(|disk| self.bay_of(disk)).map(|bay| bay.bus.as_str());
        // What is in no bay comes first, as it is listed.
        all.sort_by_key(|at| bus(at));
        all
    }

    /// It has power: something runs on it, or is on its screen.
    pub fn is_powered(&self) -> bool {
        self.run.is_some() || !self.screen.is_empty()
    }

    /// The place of the drive that is in a bay.
    fn in_bay(&self, bay: &str) -> Option<usize> {
        self.disks.iter().position(|disk| !disk.unplugged && disk.bay == bay)
    }

    /// It is one of those that go into bays.
    fn goes_into_bays(&self, disk: &Disk) -> bool {
        !self.bays.is_empty() && disk.transport == "nvme"
    }

    fn bay_names(&self) -> String {
        self.bays.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    /// Moves drives between bays and the bench, all out before one goes in.
    fn move_drives(&mut self, name: &str, moves: &[DriveMove]) -> Result<(), String> {
        if self.vmid.is_some() {
            return Err(format!("`{name}` is a VM: its drives are in its host"));
        }
        if self.is_powered() {
            return Err(format!("`{name}` is on: drives are moved with the power off"));
        }
        let mut taken: Vec<(usize, Option<&String>)> = Vec::new();
        for one in moves {
            let of_it = |at: &usize| self.disks.get(*at).is_some_and(|disk| disk.serial == one.serial);
            let at = match &one.from {
                Some(bay) if !self.bays.contains_key(bay) => {
                    return Err(format!("`{name}` has no slot `{bay}`; it has: {}", self.bay_names()));
                }
                Some(bay) => {
                    self.in_bay(bay).filter(of_it).ok_or(format!("`{}` is not in {name}:{bay}", one.serial))?
                }
                None => {
                    let lies = |at: &usize| {
                        let disk = self.disks.get(*at);
                        disk.is_some_and(|disk| disk.unplugged && self.goes_into_bays(disk))
                            && !taken.iter().any(|(other, _)| other == at)
                    };
                    let found = (0..self.disks.len()).filter(of_it).find(lies);
                    found.ok_or(format!("`{}` does not lie beside {name}", one.serial))?
                }
            };
            if let Some(bay) = one.to.as_ref().filter(|bay| !self.bays.contains_key(*bay)) {
                return Err(format!("`{name}` has no slot `{bay}`; it has: {}", self.bay_names()));
            }
            taken.push((at, one.to.as_ref()));
        }
        for (at, to) in &taken {
            let Some(bay) = to else { continue };
            let stays = self.in_bay(bay).filter(|other| !taken.iter().any(|(at, _)| at == other));
            let comes = taken.iter().find(|(other, to)| other != at && *to == Some(*bay)).map(|(other, _)| *other);
            if let Some(other) = stays.or(comes).and_then(|at| self.disks.get(at)) {
                return Err(format!("`{}` is in {name}:{bay}", other.serial));
            }
        }
        for (at, to) in taken {
            if let Some(disk) = self.disks.get_mut(at) {
                disk.unplugged = to.is_none();
                disk.bay = to.cloned().unwrap_or_default();
            }
        }
        Ok(())
    }

    /// Puts the stick or ISO with this version in, or takes out what is in.
    fn change_medium(&mut self, name: &str, version: Option<&str>) -> Result<(), String> {
        let wanted = version.map(|version| version.trim_start_matches('v'));
        let is = |disk: &Disk| disk.live.as_ref().is_some_and(|image| Some(image.version.as_str()) == wanted);
        let mut found = wanted.is_none();
        for disk in self.disks.iter_mut().filter(|disk| disk.live.is_some()) {
            disk.unplugged = found || !is(disk);
            found |= !disk.unplugged;
        }
        let there = "no stick with Talos";
        if found { Ok(()) } else { Err(format!("{there} {} lies beside {name}", wanted.unwrap_or_default())) }
    }
}

impl World {
    /// Moves one drive as a person names it: `which` is its serial number or `NODE:SLOT`, `to` a slot of its machine,
    /// `NODE:SLOT` or `bench`. Of a stick of a Talos node, `to` is the node. What was done, in words.
    ///
    /// # Errors
    /// [`LabError::Hands`] where it cannot be told which is meant, the machine is on, or the slot is taken.
    pub fn move_drive(&mut self, which: &str, to: &str) -> Result<String, LabError> {
        let (name, at) = self.find_drive(which).map_err(LabError::Hands)?;
        let unknown = || LabError::Hands(format!("there is no Talos node `{name}`"));
        let node = self.talos.nodes.get_mut(&name).ok_or_else(unknown)?;
        let disk = node.disks.get(at).cloned().unwrap_or_default();
        let slot = match to.split_once(':') {
            Some((other, _)) if other != name => {
                let text =
                    format!("`{which}` is a drive of {name}, and stays with it: name one of its slots, or `bench`");
                return Err(LabError::Hands(text));
            }
            Some((_, slot)) => slot,
            None => to,
        };
        let serial = disk.serial.clone();
        if let Some(from) = disk.in_host {
            let filled = |slot: String| Some(slot).filter(|slot| !slot.is_empty() && slot != BENCH);
            let one = DriveMove { serial: serial.clone(), from: filled(from), to: filled(slot.to_owned()) };
            let place = one.to.clone().unwrap_or_else(|| BENCH.to_owned());
            self.move_in_host(&name, &[one]).map_err(LabError::Hands)?;
            return Ok(format!("{serial} is in the host of {name}, {place}"));
        }
        if !node.goes_into_bays(&disk) {
            let plug = match to {
                BENCH => true,
                to if to == name => false,
                _ => return Err(LabError::Hands(format!("`{serial}` goes into `{name}`, or to the `bench`"))),
            };
            if let Some(disk) = node.disks.get_mut(at) {
                disk.unplugged = plug;
            }
            return Ok(format!("{serial} is {}", if plug { "on the bench" } else { "plugged in" }));
        }
        let slot = Some(slot.to_owned()).filter(|slot| slot != BENCH);
        let from = Some(disk.bay).filter(|_| !disk.unplugged);
        let one = DriveMove { serial: serial.clone(), from, to: slot.clone() };
        node.move_drives(&name, &[one]).map_err(LabError::Hands)?;
        Ok(match slot {
            Some(slot) => format!("{serial} is in {name}, {slot}"),
            None => format!("{serial} is on the bench"),
        })
    }

    /// The node and the place in its list of the drive that a person means.
    fn find_drive(&self, which: &str) -> Result<(String, usize), String> {
        if let Some((name, slot)) = which.split_once(':') {
            let node = self.talos.nodes.get(name).ok_or(format!("there is no Talos node `{name}`"))?;
            let benched: Vec<usize> = (0..node.disks.len())
                .filter(|at| node.disks.get(*at).is_some_and(|d| d.unplugged && node.goes_into_bays(d)))
                .collect();
            let at = match (slot, benched.as_slice()) {
                (BENCH, [one]) => Some(*one),
                (BENCH, all) => return Err(format!("{} drives lie beside {name}, and not one", all.len())),
                _ if !node.bays.contains_key(slot) => {
                    return Err(format!("`{name}` has no slot `{slot}`; it has: {}", node.bay_names()));
                }
                _ => node.in_bay(slot),
            };
            return Ok((name.to_owned(), at.ok_or(format!("nothing is in {name}:{slot}"))?));
        }
        let mut known = Vec::new();
        let mut found = Vec::new();
        for (name, node) in &self.talos.nodes {
            for (at, disk) in node.disks.iter().enumerate() {
                let stick = disk.transport == "usb" && node.vmid.is_none();
                if !stick && !node.goes_into_bays(disk) && disk.in_host.is_none() {
                    continue;
                }
                known.push(disk.serial.as_str());
                if disk.serial == which {
                    found.push((name, at, disk));
                }
            }
        }
        match found.as_slice() {
            [(name, at, _)] => Ok(((*name).clone(), *at)),
            [] => Err(format!("there is no drive `{which}`; there are: {}", known.join(", "))),
            several => {
                let place = |(name, _, disk): &(&String, usize, &Disk)| {
                    format!("{name}:{}", if disk.unplugged { BENCH } else { &disk.bay })
                };
                let places: Vec<String> = several.iter().map(place).collect();
                Err(format!("{} drives have `{which}`: name it by its slot, {}", places.len(), places.join(" or ")))
            }
        }
    }

    /// What a run asks of a person with a screwdriver: drives from slot to slot, the stick in or out, and the power on.
    /// What was done, in words.
    ///
    /// # Errors
    /// [`LabError::Hands`], and nothing was moved.
    pub fn hands_on_drives(
        &mut self,
        name: &str,
        moves: &[DriveMove],
        medium: Option<&str>,
        on: bool,
    ) -> Result<String, LabError> {
        if self.talos.nodes.get(name).is_some_and(|node| node.vmid.is_some()) {
            return self.hands_on_host(name, moves, on);
        }
        let known: Vec<String> = self.talos.nodes.keys().cloned().collect();
        let node =
            self.talos.nodes.get_mut(name).ok_or_else(|| {
                LabError::Hands(format!("there is no Talos node `{name}`; it has: {}", known.join(", ")))
            })?;
        let mut done = Vec::new();
        let before = (node.disks.clone(), node.screen.clone(), node.off);
        // Nothing runs on it, or nothing but what waits for a configuration, and somebody holds its button.
        let waits = node.vmid.is_none() && node.run.as_ref().is_some_and(|run| run.maintenance && run.going.is_none());
        let held = waits && moves.is_empty() && medium.is_none() && !on;
        if held || node.run.is_none() && !node.screen.is_empty() {
            node.run = None;
            node.screen.clear();
            node.off = true;
            done.push("switched off".to_owned());
        }
        if !moves.is_empty() || medium.is_some() {
            let moved = node.move_drives(name, moves).and_then(|()| node.change_medium(name, medium));
            if let Err(error) = moved {
                (node.disks, node.screen, node.off) = before;
                return Err(LabError::Hands(error));
            }
        }
        for one in moves {
            let place = |slot: &Option<String>| slot.clone().unwrap_or_else(|| BENCH.to_owned());
            done.push(format!("{} from {} to {}", one.serial, place(&one.from), place(&one.to)));
        }
        done.extend(medium.map(|version| format!("Talos {version} plugged in")));
        if on && self.press_power(name) {
            done.push("switched on".to_owned());
        }
        let done = if done.is_empty() { "nothing was to be done".to_owned() } else { done.join(", ") };
        Ok(format!("{name}: {done}"))
    }
}
