//! What the fronts share: the world under its lock, the clock, the log, the fault rules, and word of every change.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::LabError;
use super::clock::{LabClock, LabTime};
use super::fault::{FaultEffect, FaultRule};
use super::log::RequestLog;
use super::wire::{Class, Front, Remembered};
use super::world::World;
use crate::base::wait;

/// The state of a lab, shared by its fronts.
#[derive(Debug)]
pub struct Shared {
    world: Mutex<World>,
    /// Lab time.
    pub clock: LabClock,
    /// `requests.jsonl`
    pub log: RequestLog,
    faults: Mutex<Vec<FaultRule>>,
    remembered: Mutex<BTreeMap<String, Remembered>>,
    changed: watch::Sender<u64>,
    /// Wakes the ticker when the agenda has a new first entry.
    poke: Notify,
    stop: watch::Sender<bool>,
    /// Held by whoever talks to a real guest agent.
    pub(super) agents: tokio::sync::Mutex<()>,
}

/// A moment of a lab, to go back to.
#[derive(Debug, Clone)]
pub struct Moment {
    world: World,
    at: LabTime,
}

fn open<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Starts the clock.
    ///
    /// # Errors
    /// [`LabError::Io`] where the log cannot be made.
    pub fn new(mut world: World, speed: u32, log: &Path) -> Result<Self, LabError> {
        let clock = LabClock::start(speed);
        world.begin(clock.now(), clock.timestamp(LabTime::ZERO).as_second());
        Ok(Self {
            world: Mutex::new(world),
            clock,
            log: RequestLog::create(log)?,
            faults: Mutex::default(),
            remembered: Mutex::default(),
            changed: watch::Sender::new(0),
            poke: Notify::new(),
            stop: watch::Sender::new(false),
            agents: tokio::sync::Mutex::default(),
        })
    }

    /// Reads the world as it is now: what has fallen due has happened.
    pub fn read<T>(&self, look: impl FnOnce(&World) -> T) -> T {
        let mut world = open(&self.world);
        if world.tick(self.clock.now()) {
            self.tell();
        }
        look(&world)
    }

    /// Changes the world, lets follow what follows, and wakes those who wait. A change is one piece: no other front
    /// sees half of it.
    pub fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let mut world = open(&self.world);
        world.tick(self.clock.now());
        let result = change(&mut world);
        world.settle();
        world.tick(self.clock.now());
        drop(world);
        self.tell();
        self.poke.notify_one();
        result
    }

    /// The world and its time as they are now.
    pub fn moment(&self) -> Moment {
        let world = open(&self.world);
        Moment { world: world.clone(), at: self.clock.now() }
    }

    /// Makes world and time what they were at `moment`; fault rules and kept answers are gone. The files of the lab,
    /// its repository among them, are the caller's affair.
    pub fn go_back(&self, moment: &Moment) {
        let mut world = open(&self.world);
        self.clock.set_back(moment.at);
        *world = moment.world.clone();
        drop(world);
        self.clear_faults();
        open(&self.remembered).clear();
        self.tell();
        self.poke.notify_one();
    }

    fn tell(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    /// A receiver that is marked at every change of the world.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Waits until `look` finds something, at most for `limit` of lab time.
    pub async fn until<T>(&self, limit: Duration, mut look: impl FnMut(&World) -> Option<T>) -> Option<T> {
        let mut changes = self.changes();
        let end = self.clock.now() + limit;
        loop {
            if let Some(found) = self.read(&mut look) {
                return Some(found);
            }
            let left = self.clock.instant(end).saturating_duration_since(crate::base::clock::Clock::real().instant());
            if left.is_zero() || wait::within(left, changes.changed()).await.is_err() {
                return self.read(&mut look);
            }
        }
    }

    /// Adds a fault rule; the first that hits a request decides.
    pub fn add_fault(&self, rule: FaultRule) {
        open(&self.faults).push(rule);
    }

    /// Removes all fault rules; returns them with their counts.
    pub fn clear_faults(&self) -> Vec<FaultRule> {
        std::mem::take(&mut *open(&self.faults))
    }

    /// Counts a request at the rules up to the first that hits it; that one's effect.
    pub fn meet_fault(&self, front: Front, method: &str, path: &str, class: Class) -> Option<FaultEffect> {
        open(&self.faults).iter_mut().find_map(|rule| rule.meet(front, method, path, class))
    }

    /// Whether answers of this front are kept for a stale rule.
    pub(super) fn remembers(&self, front: Front) -> bool {
        open(&self.faults).iter().any(|r| r.front == front && r.effect == FaultEffect::Stale)
    }

    pub(super) fn remember(&self, key: String, answer: Remembered) {
        open(&self.remembered).insert(key, answer);
    }

    pub(super) fn remembered(&self, key: &str) -> Option<Remembered> {
        open(&self.remembered).get(key).cloned()
    }

    /// Asks the lab to stop.
    pub fn ask_to_stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until somebody asked the lab to stop.
    pub async fn stopped(&self) {
        let mut stop = self.stop.subscribe();
        // Err is impossible while `self` lives, which has the sender.
        let _stopped = stop.wait_for(|stop| *stop).await;
    }
}

/// Lets things happen at their time: sleeps exactly until the next one is due or the agenda changes.
pub(super) async fn keep_time(shared: Arc<Shared>) {
    loop {
        let due = shared.read(World::due);
        let poked = shared.poke.notified();
        match due {
            None => poked.await,
            Some(at) => {
                futures::future::select(Box::pin(poked), Box::pin(wait::until(shared.clock.instant(at)))).await;
            }
        }
    }
}
