//! What can be said of a step before its turn, from its fields alone: the short end of a plan is made of it.

use serde::Serialize;

use crate::base::permit::{System, Thing};

/// What a step would do if its turn came and it had everything to do. Nothing is asked for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
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
    /// What does not work from its beginning until its closer is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stops: Option<String>,
    /// What begins empty by it. The former content is kept, and what is written from then on is lost by an undo.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub empties: Vec<Thing>,
    /// What its undo leaves as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stays: Option<String>,
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

    /// It does this where it has to.
    #[must_use]
    pub fn maybe(mut self, what: impl Into<String>) -> Self {
        self.maybe = Some(what.into());
        self
    }

    /// Something does not work until its closer is done.
    #[must_use]
    pub fn stops(mut self, what: impl Into<String>) -> Self {
        self.stops = Some(what.into());
        self
    }
}
