//! The controllers: each looks at the objects and the machines as they are, and does what is next.
//!
//! Everything is decided by level. "After a while" is [`Round::held`]: a condition that has held for so long. So a
//! controller that is asked twice does a thing once.

mod budget;
mod daemon;
mod deploy;
mod facts;
mod garbage;
mod kubelet;
mod local;
mod node;
mod note;
mod pods;
mod register;
mod replica;
mod schedule;
mod start;
mod stateful;
mod statics;
mod volume;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::Kube;
use super::json::{self, text};
use super::kinds::{self, Kind};
use crate::lab::World;
use crate::lab::clock::LabTime;
use crate::lab::talos::Serving;
pub(crate) use facts::Facts;
pub(crate) use local::path as local_path;

/// What the controllers remember between rounds.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    /// When a condition will have held long enough.
    timers: BTreeMap<String, LabTime>,
    /// Timers that the present round asked for.
    asked: BTreeSet<String>,
    /// The last round: what it saw, where it changed nothing.
    quiet: Option<(u64, Facts, LabTime)>,
    /// The boot in which a pod's containers were started, by pod uid.
    boots: BTreeMap<String, String>,
    /// Nodes whose kubelet is at work.
    alive: BTreeSet<String>,
    /// The boot in which a kubelet last saw that it has a Node object, by node.
    registered: BTreeMap<String, String>,
    /// Nodes that have had no network for pods yet.
    unwired: BTreeSet<String>,
    /// When the API ceased to take what controllers and kubelets write; none: it does.
    frozen: Option<jiff::Timestamp>,
    /// The world has been brought to rest once.
    settled: bool,
    /// The revision before the last pass of a controller that looks at objects alone.
    passed: BTreeMap<&'static str, u64>,
    /// It is being brought to rest: what programs write now has been there for long.
    pub(crate) settling: bool,
}

/// What a controller does to the machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// A folder with this many bytes in it.
    Fill { vmid: u32, path: String, bytes: u64 },
    /// The folder and what is in it is gone.
    Wipe { vmid: u32, path: String },
    /// A program uses the Corals that it sees.
    UseCoral { vmid: u32 },
}

/// One round of all controllers.
pub(crate) struct Round<'a> {
    pub(crate) kube: &'a mut Kube,
    pub(crate) facts: &'a Facts,
    pub(crate) now: LabTime,
    pub(crate) effects: Vec<Effect>,
}

impl Round<'_> {
    /// True once the caller's condition has held for `delay`: it asks in every round in which it holds.
    pub(crate) fn held(&mut self, what: &str, delay: Duration) -> bool {
        let state = &mut self.kube.control;
        state.asked.insert(what.to_owned());
        *state.timers.entry(what.to_owned()).or_insert(self.now + delay) <= self.now
    }

    /// Whether the kubelet of a node is at work.
    pub(crate) fn alive(&self, node: &str) -> bool {
        self.kube.control.alive.contains(node)
    }

    /// Lets a controller that decides by objects of these kinds alone look again where one of them has changed.
    fn at(&mut self, who: &'static str, kinds: &[&'static Kind], pass: impl FnOnce(&mut Self)) {
        let revision = self.kube.store.revision();
        let last = self.kube.control.passed.insert(who, revision);
        if last.is_none_or(|last| self.kube.store.changed_since(last, kinds)) {
            pass(self);
        }
    }

    fn run(&mut self) {
        self.kube.control.asked.clear();
        self.nodes();
        self.static_pods();
        let (sets, pods) = (kinds::replicasets(), kinds::pods());
        self.at("deployments", &[kinds::deployments(), sets, pods], Self::deployments);
        self.at("replicasets", &[sets, pods], Self::replica_sets);
        self.at("statefulsets", &[kinds::statefulsets(), kinds::claims(), pods], Self::stateful_sets);
        self.at("daemonsets", &[kinds::daemonsets(), kinds::nodes(), pods], Self::daemon_sets);
        self.claims();
        self.volumes();
        self.detach();
        self.provision();
        self.schedule();
        self.kubelets();
        self.mayastor();
        self.budgets();
        self.collect();
        super::flux::reconcile(self);
        let state = &mut self.kube.control;
        let asked = std::mem::take(&mut state.asked);
        state.timers.retain(|what, _| asked.contains(what));
    }
}

impl State {
    /// What was seen of the objects is of no use any more.
    pub(crate) fn begin_anew(&mut self) {
        self.timers.clear();
        self.passed.clear();
        self.quiet = None;
    }

    /// When a timer ends next.
    pub(crate) fn due(&self) -> Option<LabTime> {
        if self.frozen.is_some() {
            return None;
        }
        let last = self.quiet.as_ref().map_or(LabTime::ZERO, |(_, _, at)| *at);
        self.timers.values().filter(|at| **at > last).min().copied()
    }

    /// An object as it is answered; see [`Kube::presented`].
    pub(crate) fn presented(&self, object: &Arc<Value>, now: jiff::Timestamp) -> Arc<Value> {
        let now = self.frozen.unwrap_or(now);
        let name = json::name(object);
        if !self.alive.contains(name) {
            return object.clone();
        }
        let stamp = |every: i64| {
            let second = now.as_second() - now.as_second().rem_euclid(every);
            jiff::Timestamp::from_second(second).unwrap_or(now)
        };
        match text(object, "/kind") {
            "Lease" if json::namespace(object) == "kube-node-lease" => {
                let mut fresh = Value::clone(object);
                json::set(&mut fresh, &["spec", "renewTime"], format!("{:.6}", stamp(10)));
                Arc::new(fresh)
            }
            "Node" => {
                let mut fresh = Value::clone(object);
                let beat = stamp(10).to_string();
                for condition in
                    fresh.pointer_mut("/status/conditions").and_then(Value::as_array_mut).into_iter().flatten()
                {
                    json::set(condition, &["lastHeartbeatTime"], beat.as_str());
                }
                Arc::new(fresh)
            }
            _ => object.clone(),
        }
    }
}

/// See [`super::tick`].
pub(crate) fn tick(world: &mut World, now: LabTime) -> bool {
    if !world.kube.control.settled && world.kube.store.revision() > 0 {
        world.kube.control.settled = true;
        settle(world, now);
    }
    if world.kube_serving() != Serving::Well {
        let now = super::time(world);
        world.kube.control.frozen.get_or_insert(now);
        return false;
    }
    if world.kube.control.frozen.take().is_some() {
        // Whoever counted the time begins anew with the next connection.
        world.kube.control.timers.clear();
        world.kube.control.quiet = None;
    }
    if std::mem::take(&mut world.kube.empty) {
        world.kube.control.settled = true;
        super::tell_time(world);
        register::manifests(&mut world.kube);
    }
    let facts = Facts::of(world);
    let state = &world.kube.control;
    if let Some((revision, seen, at)) = &state.quiet
        && *revision == world.kube.store.revision()
        && *seen == facts
        && !state.timers.values().any(|t| t > at && *t <= now)
    {
        return false;
    }
    round(world, &facts, now)
}

/// How far before the beginning a world comes to rest, and how long it is given.
const BEFORE: Duration = Duration::from_secs(3 * 3_600);
const REST: Duration = Duration::from_secs(15 * 60);

/// Lets a fresh world come to rest in its own past: pods start, claims bind, Flux applies.
fn settle(world: &mut World, now: LabTime) {
    world.kube.control.settling = true;
    live(world, now.saturating_sub(BEFORE), now);
    world.kube.control.settling = false;
    world.kube.store.compact();
}

/// Lets the controllers work from `then` on, until there is nothing to do for a while. What they wait for then is as far
/// away from now.
fn live(world: &mut World, then: LabTime, now: LabTime) {
    let mut at = then;
    let mut rounds = 0;
    loop {
        let facts = Facts::of(world);
        while round(world, &facts, at) && rounds < 20_000 {
            rounds += 1;
        }
        match world.kube.control.due() {
            Some(next) if next <= then + REST && rounds < 20_000 => at = next,
            _ => break,
        }
    }
    for time in world.kube.control.timers.values_mut().filter(|time| **time > at) {
        *time += now.saturating_sub(at);
    }
}

/// Lets the controllers meet what befell the machines at `then`.
pub(crate) fn relive(world: &mut World, then: LabTime) {
    let now = world.now;
    live(world, then, now);
    world.kube.store.compact();
}

/// Nobody has written anything since `then`.
pub(crate) fn stand_still(world: &mut World, then: LabTime) {
    let since = jiff::SignedDuration::try_from(world.now.saturating_sub(then)).unwrap_or_default();
    let now = super::time(world);
    world.kube.control.frozen = Some(now.checked_sub(since).unwrap_or(now));
}

/// A moment as objects write it.
pub(super) fn stamp(world: &World, at: LabTime) -> String {
    let since = jiff::SignedDuration::try_from(at).unwrap_or_default();
    let zero = jiff::Timestamp::from_second(world.zero).unwrap_or_default();
    let stamp = zero.checked_add(since).unwrap_or(zero);
    jiff::Timestamp::from_second(stamp.as_second()).unwrap_or(stamp).to_string()
}

fn round(world: &mut World, facts: &Facts, now: LabTime) -> bool {
    let stamp = stamp(world, now);
    let mut kube = std::mem::take(&mut world.kube);
    kube.store.now = stamp;
    let before = kube.store.revision();
    let mut round = Round { kube: &mut kube, facts, now, effects: Vec::new() };
    round.run();
    let effects = std::mem::take(&mut round.effects);
    let after = kube.store.revision();
    world.kube = kube;
    // What a controller does again and again (a program that uses its Coral) changes something only once.
    let moved = effects.into_iter().filter(|effect| apply(world, effect)).count() > 0;
    let changed = before != after || moved;
    // A round that changed something is followed by another one: a controller early in the list sees it only then.
    world.kube.control.quiet = (!changed).then(|| (after, facts.clone(), now));
    changed
}

/// True where it changed something.
fn apply(world: &mut World, effect: &Effect) -> bool {
    match effect {
        Effect::Fill { vmid, path, bytes } => {
            world.vms.get_mut(vmid).is_some_and(|vm| vm.guest.used.insert(path.clone(), *bytes) != Some(*bytes))
        }
        Effect::Wipe { vmid, path } => world.vms.get_mut(vmid).is_some_and(|vm| vm.guest.used.remove(path).is_some()),
        Effect::UseCoral { vmid } => {
            let absent = |w: &World| w.sticks.values().filter(|s| !s.present).count();
            let before = absent(world);
            world.use_coral(*vmid);
            absent(world) != before
        }
    }
}
