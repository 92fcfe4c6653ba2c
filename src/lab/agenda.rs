//! What is due later, in lab time.

use std::collections::BTreeMap;

use super::clock::LabTime;
use super::talos::Due;

/// Something that happens by itself at its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A pve task's worker reaches the point where it acts.
    Work(String),
    /// A pve task's patience ends.
    TimeUp(String),
    /// The guest of this process powers off.
    GuestOff {
        /// Virtual machine.
        vmid: u32,
        /// Only if it is still this process.
        pid: u32,
    },
    /// The event daemon starts a machine again after a reboot.
    Restart {
        /// Virtual machine.
        vmid: u32,
        /// In whose name.
        user: String,
    },
    /// The high-availability daemon makes the state so.
    HaStep(u32),
    /// A stick comes back to the bus with its other identity.
    StickBack(String),
    /// Something is due on a Talos node.
    Talos {
        /// Its name.
        node: String,
        /// Only if it is still this boot.
        boot_id: String,
        /// What.
        due: Due,
    },
    /// Nothing by itself: something reads differently from here on (a guest is up), and waiters must look.
    Look,
}

/// Events by time; equal times keep their order.
#[derive(Debug, Clone, Default)]
pub struct Agenda {
    entries: BTreeMap<(LabTime, u64), Event>,
    next: u64,
}

impl Agenda {
    /// Adds an event.
    pub fn at(&mut self, time: LabTime, event: Event) {
        self.next += 1;
        self.entries.insert((time, self.next), event);
    }

    /// The time of the earliest event.
    pub fn due(&self) -> Option<LabTime> {
        self.entries.keys().next().map(|(time, _)| *time)
    }

    /// Takes the earliest event where it is due by `now`.
    pub fn take(&mut self, now: LabTime) -> Option<(LabTime, Event)> {
        let first = self.entries.first_entry()?;
        if first.key().0 > now {
            return None;
        }
        let ((time, _), event) = first.remove_entry();
        Some((time, event))
    }
}
