//! Which drive is which, after they were moved.
//!
//! The rules go from what proves most to what proves least. Each takes its drives out of what is left, and none overrules an
//! earlier one. Kernel names and places are never looked at, but by the one rule whose answer says so ([`By::Place`]).

use crate::base::survey::Layer;

use super::{Drive, Odd, Port};

#[cfg(test)]
mod tests;

/// A drive that is looked for.
#[derive(Debug, Clone)]
pub struct Known<'a> {
    /// The operator's name for it.
    pub name: &'a str,
    /// What is known of it.
    pub drive: &'a Drive,
    /// It was not in the machine before.
    pub new: bool,
    /// The ports where it was and where it belongs, as far as they are known.
    pub ports: Vec<Port>,
}

/// What a drive was recognised by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// Its serial number.
    Serial,
    /// The uuids of its partitions, with model and size.
    Partitions {
        /// The serial number that it reports now.
        said: String,
    },
    /// Its World Wide Name, with model and size.
    Wwid,
    /// It is new, the plan has no serial number of it, and it is the only one that is left of its model and size.
    Kind,
    /// It is the only one of its model and size that is left, and it is where it was or belongs. Nothing on it proves it.
    Place,
}

/// A drive that was recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The operator's name for it.
    pub name: String,
    /// Its index among the live ones.
    pub at: usize,
    /// What it was recognised by.
    pub by: By,
    /// The slot that it is in, where that can be told.
    pub slot: Option<String>,
    /// What is worth to be said of it.
    pub notes: Vec<String>,
}

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sight {
    /// The drives that were recognised, in the order of the known ones.
    pub found: Vec<Found>,
    /// What is not as it should be.
    pub odd: Vec<Odd>,
}

impl Sight {
    /// Where a drive is, if it was recognised.
    pub fn of(&self, name: &str) -> Option<&Found> {
        self.found.iter().find(|found| found.name == name)
    }
}

/// What is on a drive could not be asked, and the answer hangs on it: unknown is not no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("what is on {drive} is not known: {reason}")]
pub struct Unasked {
    /// The kernel's name of the drive, or the operator's.
    pub drive: String,
    /// Why.
    pub reason: String,
}

/// What is left to be recognised.
struct Left<'a> {
    known: &'a [Known<'a>],
    live: &'a [Drive],
    of_known: Vec<bool>,
    of_live: Vec<bool>,
    sight: Sight,
}

/// Recognises drives among those that a machine has now.
///
/// 1. A serial number that one known and one live drive have, of the same model and size.
/// 2. All partition uuids of a known drive on one live drive, and on no other that is left; the same model and size. Where
///    that tells all but one of those with one serial number apart, the last one has its serial number for itself.
/// 3. A World Wide Name that is not made from the serial number, once on each side; the same model and size.
/// 4. A new drive without a serial number in the plan, and one live blank one of its model and size.
/// 5. One blank drive of a model and size on each side, in a place where it was or belongs.
///
/// What is left then is odd: alike, missing, or a stranger. The result does not depend on the order of the live drives.
///
/// # Errors
/// What is on a drive would have to be known, and is not.
pub fn recognise(known: &[Known<'_>], live: &[Drive]) -> Result<Sight, Unasked> {
    let mut left = Left {
        known,
        live,
        of_known: vec![true; known.len()],
        of_live: vec![true; live.len()],
        sight: Sight::default(),
    };
    left.by_serial(false)?;
    left.all_asked()?;
    left.by_partitions();
    left.by_serial(true)?;
    left.by_wwid();
    left.by_kind();
    left.by_place();
    left.alike();
    left.rest();
    let order = |name: &str| known.iter().position(|one| one.name == name);
    left.sight.found.sort_by_key(|found| order(&found.name));
    Ok(left.sight)
}

/// The same text but for the blanks around it; one that is empty says nothing.
fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.trim(), b.trim());
    a.is_empty() || b.is_empty() || a == b
}

/// Model and size do not contradict each other.
fn fits(a: &Drive, b: &Drive) -> bool {
    same(&a.model, &b.model) && (a.size == 0 || b.size == 0 || a.size == b.size)
}

/// A World Wide Name that says more than the serial number. Where a drive has none the kernel makes one up of vendor, serial
/// number and model, `nvme.VID-SERIAL-MODEL-NSID` (Linux `drivers/nvme/host/sysfs.c`, `wwid_show`).
fn wwid(drive: &Drive) -> Option<&str> {
    let wwid = drive.wwid.trim();
    (!wwid.is_empty() && !wwid.starts_with("nvme.")).then_some(wwid)
}

/// The one of an iterator, if it is only one.
fn only(mut all: impl Iterator<Item = usize>) -> Option<usize> {
    let first = all.next()?;
    all.next().is_none().then_some(first)
}

impl<'a> Left<'a> {
    fn known_left(&self) -> impl Iterator<Item = (usize, &'a Known<'a>)> {
        self.known.iter().enumerate().filter(|(at, _)| self.of_known.get(*at) == Some(&true))
    }

    fn live_left(&self) -> impl Iterator<Item = (usize, &'a Drive)> {
        self.live.iter().enumerate().filter(|(at, _)| self.of_live.get(*at) == Some(&true))
    }

    /// The pairs for which `fit` holds between one known and one live drive of those that are left, and no other.
    fn pairs(&self, fit: impl Fn(&Known<'_>, &Drive) -> bool) -> Vec<(usize, usize)> {
        let of = |known: &Known<'_>| only(self.live_left().filter(|(_, live)| fit(known, live)).map(|(at, _)| at));
        let back = |live: &Drive| only(self.known_left().filter(|(_, known)| fit(known, live)).map(|(at, _)| at));
        self.known_left()
            .filter_map(|(at, known)| Some((at, of(known)?)))
            .filter(|(at, live)| self.live.get(*live).and_then(back) == Some(*at))
            .collect()
    }

    fn take(&mut self, known: usize, live: usize, by: By, notes: Vec<String>) {
        clear(&mut self.of_known, known);
        clear(&mut self.of_live, live);
        if let Some(one) = self.known.get(known) {
            self.sight.found.push(Found { name: one.name.to_owned(), at: live, by, slot: None, notes });
        }
    }

    /// `again`: others with that serial number were told apart since.
    fn by_serial(&mut self, again: bool) -> Result<(), Unasked> {
        // Once on each side whatever the model: two makers count from 0001 as well.
        let pairs = self.pairs(|known, live| !live.serial().is_empty() && known.drive.serial() == live.serial());
        for (at, live_at) in pairs {
            let (Some(known), Some(live)) = (self.known.get(at), self.live.get(live_at)) else { continue };
            // What was blank and is not any more is no proof of a serial number that others have too.
            if !fits(known.drive, live) || (again && known.drive.is_blank() && !live.is_blank()) {
                continue;
            }
            let mut notes = Vec::new();
            if let Some(marks) = marked(known) {
                let now = asked(live)?;
                if !marks.iter().any(|mark| now.contains(mark)) {
                    self.sight.odd.push(Odd::Wiped { name: known.name.to_owned(), live: live_at });
                }
                let others = self.live.iter().enumerate().filter(|(other, _)| *other != live_at);
                for (_, other) in others.filter(|(_, other)| other.marks().is_some_and(|all| shares(&all, &marks))) {
                    notes.push(format!("{} has partitions with the same uuids: a copy", other.id));
                }
            }
            self.take(at, live_at, By::Serial, notes);
        }
        Ok(())
    }

    /// What is on the drives that are left is known on both sides, or there is nothing left to be told apart.
    fn all_asked(&self) -> Result<(), Unasked> {
        if self.known_left().next().is_none() || self.live_left().next().is_none() {
            return Ok(());
        }
        for (_, live) in self.live_left() {
            asked(live)?;
        }
        for (_, known) in self.known_left() {
            if let Layer::Unknown { reason, .. } = &known.drive.parts {
                return Err(Unasked { drive: known.name.to_owned(), reason: reason.clone() });
            }
        }
        Ok(())
    }

    fn by_partitions(&mut self) {
        let shared = |known: &Known<'_>, live: &Drive| {
            marked(known).zip(live.marks()).is_some_and(|(marks, now)| shares(&marks, &now))
        };
        // One uuid on two drives: whichever is the copy, no uuid tells.
        let copied: Vec<(String, Vec<usize>)> = self
            .known_left()
            .map(|(_, known)| {
                let live = self.live_left().filter(|(_, live)| shared(known, live)).map(|(at, _)| at).collect();
                (known.name.to_owned(), live)
            })
            .filter(|(_, live): &(String, Vec<usize>)| live.len() > 1)
            .collect();
        for (name, live) in copied {
            live.iter().for_each(|at| clear(&mut self.of_live, *at));
            if let Some(at) = self.known.iter().position(|known| known.name == name) {
                clear(&mut self.of_known, at);
            }
            self.sight.odd.push(Odd::TwoOfOne { name, live });
        }
        for (at, live_at) in self.pairs(shared) {
            let (Some(known), Some(live)) = (self.known.get(at), self.live.get(live_at)) else { continue };
            let (marks, now) = (marked(known).unwrap_or_default(), live.marks().unwrap_or_default());
            if !fits(known.drive, live) || !marks.iter().all(|mark| now.contains(mark)) {
                continue;
            }
            let note = if known.drive.serial() == live.serial() {
                format!("told apart by its {}: others have its serial number", uuids(marks.len()))
            } else {
                let or_none =
                    |serial: &str| if serial.is_empty() { "no serial number".into() } else { serial.to_owned() };
                format!(
                    "was {} and reports {}: recognised by its {}, model and size",
                    or_none(known.drive.serial()),
                    or_none(live.serial()),
                    uuids(marks.len()),
                )
            };
            // Without a serial number on either side there is nothing to say.
            let silent = known.drive.serial().is_empty() && live.serial().is_empty();
            let notes = if silent { Vec::new() } else { vec![note] };
            self.take(at, live_at, By::Partitions { said: live.serial().to_owned() }, notes);
        }
    }

    fn by_wwid(&mut self) {
        let pairs = self.pairs(|known, live| wwid(live).is_some() && wwid(known.drive) == wwid(live));
        for (at, live_at) in pairs {
            let (Some(known), Some(live)) = (self.known.get(at), self.live.get(live_at)) else { continue };
            if !fits(known.drive, live) {
                continue;
            }
            let had = known.drive.marks().unwrap_or_default();
            if !had.is_empty() && !shares(&had, &live.marks().unwrap_or_default()) {
                self.sight.odd.push(Odd::Wiped { name: known.name.to_owned(), live: live_at });
            }
            let note = format!("reports the serial number `{}`: recognised by its World Wide Name", live.serial());
            let notes = if same(known.drive.serial(), live.serial()) { Vec::new() } else { vec![note] };
            self.take(at, live_at, By::Wwid, notes);
        }
    }

    fn by_kind(&mut self) {
        let pairs = self.pairs(|known, live| {
            known.new && known.drive.serial().is_empty() && kind(known.drive, live) && live.is_blank()
        });
        for (at, live_at) in pairs {
            let serial = self.live.get(live_at).map(Drive::shown).unwrap_or_default();
            let note =
                format!("taken to be {serial}: the only blank drive of its model and size that is not another one");
            self.take(at, live_at, By::Kind, vec![note]);
        }
    }

    fn by_place(&mut self) {
        let pairs = self.pairs(|known, live| known.drive.is_blank() && live.is_blank() && kind(known.drive, live));
        for (at, live_at) in pairs {
            let (Some(known), Some(live)) = (self.known.get(at), self.live.get(live_at)) else { continue };
            if live.port().is_some_and(|port| known.ports.contains(&port)) {
                let note = format!(
                    "taken to be {}: it is where that belongs or was, and nothing on it proves it",
                    live.shown()
                );
                self.take(at, live_at, By::Place, vec![note]);
            }
        }
    }

    /// Those with one serial number, or none, that nothing tells apart.
    fn alike(&mut self) {
        let alike = |a: &Drive, b: &Drive| a.serial() == b.serial() && fits(a, b);
        loop {
            let next = self.known_left().find_map(|(_, known)| {
                let live = self.live_left().filter(|(_, live)| alike(known.drive, live)).map(|(at, _)| at);
                Some((known.drive, live.collect::<Vec<usize>>())).filter(|(_, live)| !live.is_empty())
            });
            let Some((one, live)) = next else { break };
            let same: Vec<(usize, &Known<'_>)> =
                self.known_left().filter(|(_, other)| alike(one, other.drive)).collect();
            let names = same.iter().map(|(_, known)| known.name.to_owned()).collect();
            for (at, _) in same {
                clear(&mut self.of_known, at);
            }
            live.iter().for_each(|at| clear(&mut self.of_live, *at));
            self.sight.odd.push(Odd::Alike { names, live });
        }
    }

    fn rest(&mut self) {
        let missing: Vec<Odd> = self.known_left().map(|(_, known)| Odd::missing(known.name)).collect();
        let strangers: Vec<Odd> = self
            .live_left()
            .filter(|(_, live)| live.transport == "nvme")
            .map(|(at, live)| {
                let now = live.marks().unwrap_or_default();
                let of = |(_, known): &(usize, &Known<'_>)| known.drive.marks().is_some_and(|all| shares(&all, &now));
                Odd::Stranger { live: at, parts_of: self.known_left().find(of).map(|(_, known)| known.name.to_owned()) }
            })
            .collect();
        self.sight.odd.extend(missing);
        self.sight.odd.extend(strangers);
    }
}

fn clear(all: &mut [bool], at: usize) {
    if let Some(left) = all.get_mut(at) {
        *left = false;
    }
}

/// Model and size are known on both sides, and the same.
fn kind(a: &Drive, b: &Drive) -> bool {
    !a.model.trim().is_empty() && a.model.trim() == b.model.trim() && a.size != 0 && a.size == b.size
}

/// The uuids of what was on it, where there was anything.
fn marked<'d>(known: &Known<'d>) -> Option<Vec<&'d str>> {
    known.drive.marks().filter(|marks| !marks.is_empty())
}

fn shares(a: &[&str], b: &[&str]) -> bool {
    a.iter().any(|mark| b.contains(mark))
}

fn uuids(count: usize) -> String {
    if count == 1 { "1 partition".into() } else { format!("{count} partitions") }
}

/// The uuids of what is on a live drive.
fn asked(live: &Drive) -> Result<Vec<&str>, Unasked> {
    live.marks().ok_or_else(|| Unasked {
        drive: live.id.clone(),
        reason: live.parts.reason().unwrap_or("it was not asked").to_owned(),
    })
}
