//! What can be said of a step before its turn, from its fields alone: the short end of a plan is made of it.

use std::time::Duration;

use serde::Serialize;

use crate::base::permit::{System, Thing};

/// What a step would do if its turn came and it had everything to do. Nothing is asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outlook {
    /// The things that it changes, each with the system that has it, by the names that people know them by.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<(System, String)>,
    /// What it does only where the world asks for it (a restart).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maybe: Option<String>,
    /// What a person may be asked for, in the imperative.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asks: Option<String>,
    /// What a person may be asked for when it is undone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asks_back: Option<String>,
    /// What its undo does besides, only where the world asks for it (a restart).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maybe_back: Option<String>,
    /// What does not work from its beginning until its closer is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stops: Option<String>,
    /// The id of the step that finds that at work again, for one that is no hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stops_until: Option<&'static str>,
    /// Whether what its plan stops before it would feel it, were it not stopped.
    #[serde(skip)]
    pub hits: bool,
    /// What begins empty by it. The former content is kept, and what is written from then on is lost by an undo.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub empties: Vec<Thing>,
    /// What it may destroy: where there is something to lose it takes the operator's consent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destroys: Vec<Thing>,
    /// The kinds of things besides for which it may ask that consent once it has looked (`pv`): which ones, its fields do
    /// not tell.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub may_destroy: &'static [&'static str],
    /// What a person may have to vouch for, by the same flag: that a machine is off, or gone for good.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<Thing>,
    /// By its fields it destroys nothing, whatever its kind of step may do.
    #[serde(skip)]
    pub spares: bool,
    /// It keeps something for its run (a backup, a measurement), in each run anew, and changes nothing that a later step
    /// is asked about: `plan` asks on behind it.
    #[serde(skip)]
    pub keeps: bool,
    /// What its undo leaves as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stays: Option<String>,
    /// How long its work itself may wait, before the wait for the effect ([`super::step::Step::limit`]) begins.
    #[serde(skip)]
    pub longest: Duration,
    /// For a hold: whether its fields let it go up at all.
    #[serde(skip)]
    pub holds: bool,
}

impl Default for Outlook {
    fn default() -> Self {
        Self {
            changes: Vec::new(),
            maybe: None,
            asks: None,
            asks_back: None,
            maybe_back: None,
            stops: None,
            stops_until: None,
            hits: false,
            empties: Vec::new(),
            destroys: Vec::new(),
            may_destroy: &[],
            words: Vec::new(),
            spares: false,
            keeps: false,
            stays: None,
            longest: Duration::ZERO,
            holds: true,
        }
    }
}

impl Outlook {
    /// It changes these things of a system.
    pub fn changes(system: System, things: impl IntoIterator<Item = String>) -> Self {
        Self { changes: things.into_iter().map(|thing| (system, thing)).collect(), ..Self::default() }
    }

    /// It asks a person.
    #[must_use]
    pub fn asks(mut self, what: impl Into<String>) -> Self {
        self.asks = Some(what.into());
        self
    }

    /// Its undo asks a person.
    #[must_use]
    pub fn asks_back(mut self, what: impl Into<String>) -> Self {
        self.asks_back = Some(what.into());
        self
    }

    /// Its undo does this where it has to.
    #[must_use]
    pub fn maybe_back(mut self, what: impl Into<String>) -> Self {
        self.maybe_back = Some(what.into());
        self
    }

    /// It does this where it has to.
    #[must_use]
    pub fn maybe(mut self, what: impl Into<String>) -> Self {
        self.maybe = Some(what.into());
        self
    }

    /// Its work may wait so long by itself.
    #[must_use]
    pub fn longest(mut self, wait: Duration) -> Self {
        self.longest = wait;
        self
    }

    /// Whether it holds at all.
    #[must_use]
    pub fn holds(mut self, holds: bool) -> Self {
        self.holds = holds;
        self
    }

    /// It takes something away from what is at work.
    #[must_use]
    pub fn hits(mut self) -> Self {
        self.hits = true;
        self
    }

    /// Something does not work until the step with this id has found it at work again, though nothing is held.
    #[must_use]
    pub fn stops_until(mut self, what: impl Into<String>, id: &'static str) -> Self {
        self.stops = Some(what.into());
        self.stops_until = Some(id);
        self
    }

    /// Something does not work until its closer is done.
    #[must_use]
    pub fn stops(mut self, what: impl Into<String>) -> Self {
        self.stops = Some(what.into());
        self
    }
}
