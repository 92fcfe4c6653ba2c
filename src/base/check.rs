//! The answer to the one question that a step has: is it so, and if not, what then?

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::names::StepKey;
use super::permit::Thing;
use super::redact;

/// What a check found, with the notes that belong into the journal (route used, what other routes said).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check<B> {
    /// The answer itself.
    pub answer: Answer<B>,
    /// Lines for the journal and the report; never secret.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Those of the notes that say what an undo leaves as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stays: Vec<String>,
    /// How many bytes are on what would be left behind; None: that could not be measured. For who sums up a plan.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sizes: BTreeMap<Thing, Option<u64>>,
    /// What is known by now of a step that acts only where the world asks for it, by its key, or by its id where that is one
    /// step. For who sums up a plan.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub likely: BTreeMap<String, Likely>,
    /// What a person is told besides where it waits for longer than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late: Option<(Duration, String)>,
}

/// What is known of a step that acts only where the world asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Likely {
    /// What it will do, or may; empty where that is nothing, or known anyhow.
    pub what: String,
    /// It will for certain.
    pub sure: bool,
    /// What stops with it and does not go on elsewhere: pods, by `NAMESPACE/NAME`.
    pub ends: Vec<String>,
    /// What its undo does besides, where it is sure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back: Option<String>,
}

/// The note of a pod that goes with its node and comes back with nothing but that node.
pub fn with_node(pod: impl fmt::Display, why: &str) -> String {
    format!("pod {pod}{WITH_NODE}{why}")
}

/// The pod that a note says comes back with its node only.
pub fn ends_with_node(note: &str) -> Option<&str> {
    note.strip_prefix("pod ")?.split_once(WITH_NODE).map(|(pod, _)| pod)
}

const WITH_NODE: &str = " comes back with this node only: ";

/// The note of a way into a guest or host that answered.
pub fn answered(route: &str) -> String {
    format!("{route}{ANSWERED}")
}

/// The way that a note says has answered.
pub fn route_of(note: &str) -> Option<&str> {
    note.strip_suffix(ANSWERED).filter(|route| !route.contains('\n'))
}

const ANSWERED: &str = ": answered";

const NOT_NEEDED: &str = "not needed: ";

/// Why a step that is done has nothing to do at all, so that its title, which is a wish, is not said to be so: the notes
/// of [`Check::not_needed`].
pub fn not_needed(notes: &[String]) -> Option<String> {
    let first = notes.first()?.strip_prefix(NOT_NEEDED)?;
    Some(std::iter::once(first).chain(notes.iter().skip(1).map(String::as_str)).collect::<Vec<_>>().join("; "))
}

/// A number of bytes as people write it: `39.0 GiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: &[(&str, u64)] = &[("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, unit)| bytes >= *unit) {
        Some((unit, size)) => format!("{}.{} {unit}", bytes / size, bytes % size * 10 / size),
        None => format!("{bytes} bytes"),
    }
}

/// The five answers. "Could not ask" is not among them: that is an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum Answer<B> {
    /// It is so.
    Done,
    /// It is not so, and the step's apply can make it so.
    Todo {
        /// What would be different afterwards.
        changes: Vec<Change>,
        /// What undo would restore.
        before: B,
    },
    /// A person must act; the engine polls and goes on by itself when the world shows it.
    Manual {
        /// One sentence in the imperative: what to do.
        ask: String,
        /// What helps to do it (where the thing is, what was seen instead).
        hint: Option<String>,
        /// The act as data, so that a rehearsal's hands can do it.
        hands: Option<Hands>,
        /// What the `back` of a reading step needs to bring the world back; None where nothing is owed.
        before: Option<B>,
    },
    /// It is on its way by itself.
    Waiting {
        /// What is waited for.
        reason: String,
        /// True where the wait is for somebody else's lock: the site's own patience counts, not the step's limit.
        foreign: bool,
    },
    /// Waiting will not help.
    Blocked {
        /// Everything that is in the way, at once.
        problems: Vec<Problem>,
    },
}

/// One line of difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What kind of difference.
    pub symbol: Symbol,
    /// What it is about, with its real name (`vm 108 usb0`).
    pub what: String,
    /// The value now; None where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The value afterwards; None where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// The symbol of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Symbol {
    /// `+`: appears.
    Add,
    /// `-`: disappears.
    Remove,
    /// `~`: gets another value.
    Change,
    /// `!`: happens (a reboot, a reconcile).
    Act,
}

/// A reason why a step cannot go on, with its way out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What is wrong, with the real names.
    pub text: String,
    /// What to do next.
    pub help: String,
    /// The step id of the same plan that would mend it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mended_by: Option<Box<str>>,
    /// Preflight only: its name, which `explain` knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<Box<str>>,
    /// Preflight only: the step that this problem protects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protects: Option<StepKey>,
    /// Preflight only: a run that is not known here is at work on what this one needs, so that no step of it changes
    /// anything, one that stands alone neither.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub foreign: bool,
    /// The word of a person that this shows to be wrong, or to be so no more: given before, it counts no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voids: Option<Box<Thing>>,
}

/// A manual act as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "do")]
pub enum Hands {
    /// Plug a device into a host (out of wherever it is now).
    Plug {
        /// The device's name in the site file.
        device: String,
        /// Its USB ids, `vvvv:pppp`, any of which it may show.
        ids: Vec<String>,
        /// Its serial number where the site knows it.
        serial: Option<String>,
        /// The host's Proxmox node name.
        host: String,
        /// The port, `BUS-PATH`, where one is asked for.
        port: Option<String>,
    },
    /// Push a commit that was made in a checkout.
    Push {
        /// The checkout's name in the site file.
        checkout: String,
        /// The branch to push to.
        branch: String,
        /// The commit id.
        commit: String,
        /// The repository on this machine that has it, on a branch.
        from: String,
    },
    /// Put another machine in the place of one, and start it from a Talos stick or ISO.
    Swap {
        /// The node that goes, by its name in the site file.
        old: String,
        /// The node that comes; the same name where it takes over that too.
        new: String,
    },
    /// Move drives of a machine that is off, then switch it on.
    Drives {
        /// The node, by its name in the site file.
        node: String,
        /// Each drive that goes somewhere else. All come out before one goes in.
        moves: Vec<DriveMove>,
        /// The version of Talos on the stick or ISO that is to be in the machine; none: none is.
        medium: Option<String>,
        /// It is switched on at the end.
        on: bool,
    },
}

/// One drive on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriveMove {
    /// The serial number on its label.
    pub serial: String,
    /// The slot that it is in; none: it lies beside the machine.
    pub from: Option<String>,
    /// The slot that it goes into; none: it stays outside.
    pub to: Option<String>,
}

impl<B> Check<B> {
    /// It is so.
    pub fn done() -> Self {
        Self::of(Answer::Done)
    }

    /// Nothing has to be so: nobody asked for it, and its title is not meant.
    pub fn not_needed(why: impl AsRef<str>) -> Self {
        Self::done().note(format!("{NOT_NEEDED}{}", why.as_ref()))
    }

    /// It can be made so; `before` is what undo restores.
    pub fn todo(changes: Vec<Change>, before: B) -> Self {
        Self::of(Answer::Todo { changes, before })
    }

    /// A person must act.
    pub fn manual(ask: impl Into<String>, hint: Option<String>, hands: Option<Hands>) -> Self {
        let hint = hint.map(|hint| redact::text(&hint));
        Self::of(Answer::Manual { ask: clean(ask), hint, hands, before: None })
    }

    /// On its way by itself.
    pub fn waiting(reason: impl Into<String>) -> Self {
        Self::of(Answer::Waiting { reason: clean(reason), foreign: false })
    }

    /// On its way once somebody else lets go of a lock.
    pub fn waiting_for_lock(reason: impl Into<String>) -> Self {
        Self::of(Answer::Waiting { reason: clean(reason), foreign: true })
    }

    /// Waiting will not help.
    pub fn blocked(problems: Vec<Problem>) -> Self {
        Self::of(Answer::Blocked { problems })
    }

    /// An answer without notes.
    pub fn of(answer: Answer<B>) -> Self {
        Self {
            answer,
            notes: Vec::new(),
            stays: Vec::new(),
            sizes: BTreeMap::new(),
            likely: BTreeMap::new(),
            late: None,
        }
    }

    /// What a person may do where it still waits after so long. It is one part of the reason, never cut short.
    #[must_use]
    pub fn late(mut self, after: Duration, advice: impl Into<String>) -> Self {
        self.late = Some((after, clean(advice)));
        self
    }

    /// Adds a note.
    #[must_use]
    pub fn note(mut self, line: impl Into<String>) -> Self {
        self.notes.push(clean(line));
        self
    }

    /// Adds notes of what an undo leaves as it is.
    #[must_use]
    pub fn stays(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        for line in lines.into_iter().map(clean) {
            self.stays.push(line.clone());
            self.notes.push(line);
        }
        self
    }

    /// Adds notes.
    #[must_use]
    pub fn notes(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        self.notes.extend(lines.into_iter().map(clean));
        self
    }

    /// Adds how much is on things that would be left behind.
    #[must_use]
    pub fn sizes(mut self, sizes: impl IntoIterator<Item = (Thing, Option<u64>)>) -> Self {
        self.sizes.extend(sizes);
        self
    }

    /// Adds what is known of steps that act only where the world asks for it.
    #[must_use]
    pub fn likely<S: Into<String>>(mut self, steps: impl IntoIterator<Item = (S, Likely)>) -> Self {
        let cleaned = |likely: Likely| Likely { what: clean(likely.what), ..likely };
        self.likely.extend(steps.into_iter().map(|(id, likely)| (id.into(), cleaned(likely))));
        self
    }

    /// True for [`Answer::Done`].
    pub fn is_done(&self) -> bool {
        matches!(self.answer, Answer::Done)
    }

    /// The word for the answer: `done`, `todo`, `manual`, `waiting`, `blocked`.
    pub fn word(&self) -> &'static str {
        match self.answer {
            Answer::Done => "done",
            Answer::Todo { .. } => "todo",
            Answer::Manual { .. } => "manual",
            Answer::Waiting { .. } => "waiting",
            Answer::Blocked { .. } => "blocked",
        }
    }

    /// The same answer with another kind of before.
    pub fn try_map<C, E>(self, mut f: impl FnMut(B) -> Result<C, E>) -> Result<Check<C>, E> {
        let answer = match self.answer {
            Answer::Done => Answer::Done,
            Answer::Todo { changes, before } => Answer::Todo { changes, before: f(before)? },
            Answer::Manual { ask, hint, hands, before } => {
                Answer::Manual { ask, hint, hands, before: before.map(f).transpose()? }
            }
            Answer::Waiting { reason, foreign } => Answer::Waiting { reason, foreign },
            Answer::Blocked { problems } => Answer::Blocked { problems },
        };
        let Self { notes, stays, sizes, likely, late, .. } = self;
        Ok(Check { answer, notes, stays, sizes, likely, late })
    }
}

impl Change {
    /// Something appears.
    pub fn add(what: impl Into<String>, to: impl Into<String>) -> Self {
        Self { symbol: Symbol::Add, what: clean(what), from: None, to: Some(clean(to)) }
    }

    /// Something disappears.
    pub fn remove(what: impl Into<String>, from: impl Into<String>) -> Self {
        Self { symbol: Symbol::Remove, what: clean(what), from: Some(clean(from)), to: None }
    }

    /// Something gets another value.
    pub fn set(what: impl Into<String>, from: impl Into<String>, to: impl Into<String>) -> Self {
        Self { symbol: Symbol::Change, what: clean(what), from: Some(clean(from)), to: Some(clean(to)) }
    }

    /// Something happens.
    pub fn act(what: impl Into<String>) -> Self {
        Self { symbol: Symbol::Act, what: clean(what), from: None, to: None }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let symbol = match self.symbol {
            Symbol::Add => '+',
            Symbol::Remove => '-',
            Symbol::Change => '~',
            Symbol::Act => '!',
        };
        write!(f, "{symbol} {}", self.what)?;
        match (&self.from, &self.to) {
            (None, None) => Ok(()),
            (None, Some(to)) => write!(f, ": {to}"),
            (Some(from), None) => write!(f, ": {from}"),
            (Some(from), Some(to)) => write!(f, ": {from} -> {to}"),
        }
    }
}

impl Problem {
    /// A problem with its help line.
    pub fn new(text: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            text: clean(text),
            help: clean(help),
            mended_by: None,
            finding: None,
            protects: None,
            foreign: false,
            voids: None,
        }
    }

    /// What stands behind it in brackets: the number of the step that it protects, and its name. Without
    /// blanks, so that it is never broken.
    pub fn tag(&self) -> Option<String> {
        let number = self.protects.as_ref().and_then(|key| key.id().split('-').next());
        let parts: Vec<_> = number.into_iter().chain(self.finding.as_deref()).collect();
        (!parts.is_empty()).then(|| format!("[{}]", parts.join("·")))
    }

    /// Names the step of the same plan that would mend it.
    #[must_use]
    pub fn mended_by(mut self, id: impl Into<Box<str>>) -> Self {
        self.mended_by = Some(id.into());
        self
    }

    /// Says that somebody else is at work.
    #[must_use]
    pub fn foreign(mut self) -> Self {
        self.foreign = true;
        self
    }

    /// Says that a person's word counts no longer.
    #[must_use]
    pub fn voids(mut self, word: Thing) -> Self {
        self.voids = Some(Box::new(word));
        self
    }

    /// Whether this problem of a preflight keeps a step from its work that stands alone.
    pub fn bars(&self, key: &StepKey, changes: bool) -> bool {
        self.protects.as_ref() == Some(key) || (self.foreign && changes)
    }

    /// Names the step that it protects.
    #[must_use]
    pub fn protects(mut self, key: impl Into<StepKey>) -> Self {
        self.protects = Some(key.into());
        self
    }
}

/// What is said here is shown and kept: it carries no secret.
fn clean(text: impl Into<String>) -> String {
    redact::text(&text.into())
}
