//! What a node tells of itself as it happens.

use std::collections::BTreeMap;

use super::services::{Service, Status};

/// How many events a node keeps (siderolabs/talos `runtime/v1alpha1/v1alpha1_events.go` keeps 1000).
const KEPT: usize = 1_000;

/// One event.
#[derive(Debug, Clone)]
pub struct Happened {
    /// Its number in this boot.
    pub number: u64,
    /// The call that caused it; may be empty.
    pub actor: String,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A sequence: `boot`, `reboot`, ...
    Sequence {
        /// Its name.
        name: &'static str,
        /// What became of it.
        step: Step,
    },
    /// A phase of a sequence.
    Phase {
        /// Its name.
        name: &'static str,
        /// It ended.
        ended: bool,
    },
    /// A part of a phase.
    Task {
        /// Its name.
        name: &'static str,
        /// It ended.
        ended: bool,
    },
    /// A service changed its state.
    Service(Service),
    /// The machine's status changed.
    Status(Status),
}

/// What became of a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// It began.
    Start,
    /// It ended.
    Stop,
    /// It was not begun: another one holds the lock.
    Locked(String),
    /// It failed for good.
    Fatal(String),
}

/// The events of one boot.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// The kept ones, oldest first.
    pub events: Vec<Happened>,
    next: u64,
    actor: String,
    status: Option<Status>,
    services: BTreeMap<String, Service>,
}

impl Log {
    /// From here on events are those of this call.
    pub fn actor(&mut self, actor: &str) {
        actor.clone_into(&mut self.actor);
    }

    /// Writes an event.
    pub fn push(&mut self, what: What) {
        self.next += 1;
        // Services and the status are told by controllers, which know of no call.
        let actor = match what {
            What::Service(_) | What::Status(_) => String::new(),
            _ => self.actor.clone(),
        };
        self.events.push(Happened { number: self.next, actor, what });
        if self.events.len() > KEPT {
            self.events.remove(0);
        }
    }

    /// Writes that a sequence began or ended.
    pub fn sequence(&mut self, name: &'static str, step: Step) {
        self.push(What::Sequence { name, step });
    }

    /// Writes what differs from the last time.
    pub fn compare(&mut self, services: Vec<Service>, status: Status) {
        for service in services {
            if self.services.get(&service.id) != Some(&service) {
                self.services.insert(service.id.clone(), service.clone());
                self.push(What::Service(service));
            }
        }
        if self.status.as_ref() != Some(&status) {
            self.status = Some(status.clone());
            self.push(What::Status(status));
        }
    }
}
