//! A step whose answers and calls a test gives, for the engine's laws that no natural toy step shows.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use pvemig::base::check::{Change, Check, Problem};
use pvemig::base::fault::{Effect, Failure, Fault};
use pvemig::base::permit::{Note, Permit, Refused, System, Thing};
use pvemig::engine::step::{AnyStep, Lost, Risk, Seen, Settle, Settled, Step};
use serde::{Deserialize, Serialize};

/// What a question is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Say {
    /// By the world: whether the step's mark is there.
    World,
    Todo,
    Waiting,
    Foreign,
    Manual,
    Blocked,
    /// Barred by what `03-first` mends.
    Mended,
    /// It cannot be asked.
    Error,
}

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// It happens.
    Happens,
    /// It is refused, and nothing happens.
    Refused,
    /// It is refused because the world changed since the look.
    Stale,
    /// Its effect happens and the answer is lost.
    Lost,
    /// The answer is lost, and nothing happens.
    Gone,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("probe: {0} was refused")]
    Refused(String),
    #[error("probe: {0} came too late")]
    Stale(String),
    #[error("probe: no answer to {0}")]
    Lost(String),
    #[error("probe: cannot be asked")]
    Unasked,
    #[error(transparent)]
    Permit(#[from] Refused),
}

impl Fault for Error {
    fn effect(&self) -> Effect {
        if matches!(self, Self::Lost(_)) { Effect::Maybe } else { Effect::None }
    }
    fn stale(&self) -> bool {
        matches!(self, Self::Stale(_))
    }
    fn help(&self) -> Option<String> {
        matches!(self, Self::Stale(_)).then(|| "`pvemig resume` looks again".into())
    }
}

/// The world: which steps' marks are there, and what is to be answered next.
#[derive(Default)]
pub struct Bed {
    pub on: Mutex<std::collections::BTreeSet<String>>,
    /// For `KEY` or `KEY back`: the answers to come; then the world answers.
    pub says: Mutex<Vec<(String, VecDeque<Say>)>>,
    /// For `KEY` or `KEY back`: what each call does; then all happen.
    pub calls: Mutex<Vec<(String, VecDeque<Call>)>>,
    pub sent: Mutex<Vec<String>>,
    pub asked: Mutex<Vec<String>>,
    /// The holds that were up when each call was sent.
    pub around: Mutex<Vec<(String, Vec<String>)>>,
    /// Nobody can tell what became of a lost call, or asking it fails.
    pub settle_fails: AtomicBool,
    /// The question what became of a lost call is never answered; this is set as soon as it is put.
    pub settle_hangs: Mutex<Option<Arc<AtomicBool>>>,
    pub settled: Mutex<u32>,
    /// Set as soon as this call was sent.
    pub interrupt_at: Mutex<Option<(String, Arc<AtomicBool>)>>,
}

impl Bed {
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    pub fn say(&self, what: &str, says: &[Say]) {
        self.says.lock().unwrap().push((what.to_owned(), says.iter().copied().collect()));
    }

    pub fn calls(&self, what: &str, calls: &[Call]) {
        self.calls.lock().unwrap().push((what.to_owned(), calls.iter().copied().collect()));
    }

    pub fn set(&self, key: &str, on: bool) {
        if on {
            self.on.lock().unwrap().insert(key.to_owned());
        } else {
            self.on.lock().unwrap().remove(key);
        }
    }

    pub fn is(&self, key: &str) -> bool {
        self.on.lock().unwrap().contains(key)
    }

    pub fn sent(&self) -> Vec<String> {
        self.sent.lock().unwrap().clone()
    }

    fn answer(&self, what: &str, key: &str, wanted: bool) -> Result<Check<bool>, Failure> {
        self.asked.lock().unwrap().push(what.to_owned());
        let say = next(&self.says, what).unwrap_or(Say::World);
        let is = self.is(key);
        let todo = || Check::todo(vec![Change::act(format!("turn {key}"))], is);
        Ok(match say {
            Say::World if is == wanted => Check::done(),
            Say::World | Say::Todo => todo(),
            Say::Waiting => Check::waiting("it comes"),
            Say::Foreign => Check::waiting_for_lock("somebody's lock"),
            Say::Manual => Check::manual("turn it", None, None),
            Say::Blocked => Check::blocked(vec![Problem::new("it is barred", "unbar it")]),
            Say::Mended => {
                Check::blocked(vec![Problem::new("it is barred", "turn the first again").mended_by("03-first")])
            }
            Say::Error => return Err(Error::Unasked.into()),
        })
    }

    fn call(&self, what: &str, note: Note, permit: &Permit, effect: impl FnOnce()) -> Result<(), Error> {
        permit.note(&note)?;
        self.sent.lock().unwrap().push(note.text.clone());
        let up = self.on.lock().unwrap().iter().filter(|key| key.starts_with("02")).cloned().collect();
        self.around.lock().unwrap().push((note.text.clone(), up));
        if let Some((_, interrupted)) = self.interrupt_at.lock().unwrap().as_ref().filter(|(t, _)| *t == note.text) {
            interrupted.store(true, Ordering::SeqCst);
        }
        match next(&self.calls, what).unwrap_or(Call::Happens) {
            Call::Happens => effect(),
            Call::Refused => return Err(Error::Refused(note.text)),
            Call::Stale => return Err(Error::Stale(note.text)),
            Call::Lost => {
                effect();
                return Err(Error::Lost(note.text));
            }
            Call::Gone => return Err(Error::Lost(note.text)),
        }
        Ok(())
    }
}

fn next<T: Copy>(list: &Mutex<Vec<(String, VecDeque<T>)>>, what: &str) -> Option<T> {
    list.lock().unwrap().iter_mut().find(|(w, left)| w == what && !left.is_empty())?.1.pop_front()
}

impl Settle for Bed {
    async fn settle(&self, _: &Lost) -> Result<Settled, Failure> {
        *self.settled.lock().unwrap() += 1;
        if self.settle_fails.load(Ordering::SeqCst) {
            return Err(Error::Unasked.into());
        }
        let hangs = self.settle_hangs.lock().unwrap().clone();
        if let Some(put) = hangs {
            put.store(true, Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
        Ok(Settled::Unknown("nobody can tell".into()))
    }
}

/// Two calls forwards, the last of them once; one call back, once.
macro_rules! probe {
    ($name:ident, $id:literal, $risk:ident, $until:expr, $blind:expr) => {
        #[derive(Debug, Clone, Serialize, Deserialize)]
        pub struct $name;

        impl Step<Bed> for $name {
            const ID: &'static str = $id;
            const RISK: Risk = Risk::$risk;
            const HOLDS_UNTIL: Option<&'static str> = $until;
            const BLIND_TO: &'static [&'static str] = $blind;
            type Before = bool;
            fn title(&self) -> String {
                format!("turn {}", Self::ID)
            }
            fn why(&self) -> Vec<String> {
                Vec::new()
            }
            async fn check(&self, cx: &Bed, _: Seen<'_, bool>) -> Result<Check<bool>, Failure> {
                cx.answer($id, $id, true)
            }
            async fn apply(&self, cx: &Bed, _: Seen<'_, bool>, permit: &Permit) -> Result<(), Failure> {
                if Self::RISK == Risk::Destroys {
                    permit.may_destroy(&Thing("pv/old".into()))?;
                }
                cx.call($id, Note::safe(System::Toy, concat!("ready ", $id)), permit, || {})?;
                // The closer takes down what the hold put up.
                let held = $until.is_none().then_some("02-hold").filter(|_| $id == "05-close");
                Ok(cx.call($id, Note::once(System::Toy, concat!("turn ", $id)), permit, || {
                    cx.set($id, true);
                    held.into_iter().for_each(|held| cx.set(held, false));
                })?)
            }
            async fn back(&self, cx: &Bed, before: &bool, _: Seen<'_, bool>) -> Result<Check<()>, Failure> {
                cx.answer(concat!($id, " back"), $id, *before)?.try_map(|_| Ok(()))
            }
            async fn undo(&self, cx: &Bed, before: &bool, _: Seen<'_, bool>, p: &Permit) -> Result<(), Failure> {
                let note = Note::once(System::Toy, concat!("return ", $id));
                Ok(cx.call(concat!($id, " back"), note, p, || cx.set($id, *before))?)
            }
            fn undo_destroys(&self, _: &bool) -> Vec<Thing> {
                if $id == "04-claim" { vec![Thing("pvc/new".into())] } else { Vec::new() }
            }
        }
    };
}

const NONE: Option<&'static str> = None;
probe!(Keep, "01-keep", Reverts, NONE, &[]);
probe!(Hold, "02-hold", Reverts, Some("05-close"), &[]);
probe!(Pause, "02b-pause", Reverts, Some("05-close"), &[]);
probe!(First, "03-first", Reverts, NONE, &[]);
probe!(Claim, "04-claim", Reverts, NONE, &[]);
probe!(Blind, "04-blind", Reverts, NONE, &["02-hold"]);
probe!(Burn, "04-burn", Destroys, NONE, &[]);
probe!(Close, "05-close", Reverts, NONE, &[]);

/// A step that a plan has once for each node.
macro_rules! of_a_node {
    ($name:ident, $id:literal, $until:expr) => {
        #[derive(Debug, Clone, Serialize, Deserialize)]
        pub struct $name(pub String);

        impl Step<Bed> for $name {
            const ID: &'static str = $id;
            const RISK: Risk = Risk::Reverts;
            const HOLDS_UNTIL: Option<&'static str> = $until;
            type Before = bool;
            fn instance(&self) -> Option<String> {
                Some(self.0.clone())
            }
            fn title(&self) -> String {
                format!("turn {}", self.at())
            }
            fn why(&self) -> Vec<String> {
                Vec::new()
            }
            async fn check(&self, cx: &Bed, _: Seen<'_, bool>) -> Result<Check<bool>, Failure> {
                cx.answer(&self.at(), &self.at(), true)
            }
            async fn apply(&self, cx: &Bed, _: Seen<'_, bool>, permit: &Permit) -> Result<(), Failure> {
                let note = Note::once(System::Toy, format!("turn {}", self.at()));
                let held = (Self::ID == "05-close").then(|| format!("02-hold@{}", self.0));
                Ok(cx.call(&self.at(), note, permit, || {
                    cx.set(&self.at(), true);
                    held.into_iter().for_each(|held| cx.set(&held, false));
                })?)
            }
            async fn back(&self, cx: &Bed, before: &bool, _: Seen<'_, bool>) -> Result<Check<()>, Failure> {
                cx.answer(&format!("{} back", self.at()), &self.at(), *before)?.try_map(|_| Ok(()))
            }
            async fn undo(&self, cx: &Bed, before: &bool, _: Seen<'_, bool>, p: &Permit) -> Result<(), Failure> {
                let note = Note::once(System::Toy, format!("return {}", self.at()));
                Ok(cx.call(&format!("{} back", self.at()), note, p, || cx.set(&self.at(), *before))?)
            }
        }

        impl $name {
            fn at(&self) -> String {
                format!("{}@{}", Self::ID, self.0)
            }
        }
    };
}

of_a_node!(NodeHold, "02-hold", Some("05-close"));
of_a_node!(NodeFirst, "03-first", NONE);
of_a_node!(NodeClose, "05-close", NONE);

/// Claim, as an earlier version kept its before-image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OldClaim;

impl Step<Bed> for OldClaim {
    const ID: &'static str = "04-claim";
    const RISK: Risk = Risk::Reverts;
    type Before = String;
    fn title(&self) -> String {
        "turn 04-claim".into()
    }
    fn why(&self) -> Vec<String> {
        Vec::new()
    }
    async fn check(&self, cx: &Bed, _: Seen<'_, String>) -> Result<Check<String>, Failure> {
        let on = cx.is("04-claim");
        Ok(if on { Check::done() } else { Check::todo(vec![Change::act("turn")], "off".to_owned()) })
    }
    /// And it has no `back`.
    async fn apply(&self, cx: &Bed, _: Seen<'_, String>, permit: &Permit) -> Result<(), Failure> {
        Ok(cx.call("04-claim", Note::safe(System::Toy, "turn 04-claim"), permit, || cx.set("04-claim", true))?)
    }
}

pub fn boxed(step: impl Step<Bed>) -> Box<dyn AnyStep<Bed>> {
    Box::new(step)
}
