//! What the ways in said, one after the other.

use crate::base::check::answered;
use crate::base::fault::{Effect, Fault};

use super::command::Seen;
use super::error::Error;
use super::{Entrance, Route};

/// What the routes said so far.
#[derive(Debug, Default)]
pub(super) struct Tried {
    /// By the way that was gone.
    pub(super) failures: Vec<(String, Error)>,
    /// The routes of these.
    routes: Vec<String>,
    /// Routes that are tried last, with the reason.
    pub(super) left_out: Vec<(String, String)>,
}

/// A route's failure in one line, which names the route.
fn line((route, error): &(String, Error)) -> String {
    named(route, &error.line())
}

fn named(route: &str, line: &str) -> String {
    if line.starts_with(route) { line.to_owned() } else { format!("{route}: {line}") }
}

impl Tried {
    pub(super) fn push(&mut self, route: &Entrance, way: &Route, error: Error) {
        self.failures.push((way.label(), error));
        self.routes.push(route.label());
    }

    pub(super) fn seen<T>(self, value: T, route: &Entrance, way: &Route) -> Seen<T> {
        let (own, route) = (route.label(), way.label());
        let untried = |(label, _): &&(String, String)| *label != own && !self.routes.contains(label);
        let left_out = self.left_out.iter().filter(untried).map(|(label, why)| named(label, why));
        let mut notes: Vec<String> = left_out.chain(self.failures.iter().map(line)).collect();
        notes.push(answered(&route));
        Seen { value, route, notes }
    }

    pub(super) fn error(mut self, guest: &str, effect: Effect) -> Error {
        if self.failures.len() < 2 && effect == Effect::None {
            return self.failures.pop().map_or_else(|| Error::NoRoute { guest: guest.to_owned() }, |(_, error)| error);
        }
        Error::AllRoutes {
            guest: guest.to_owned(),
            help: self.failures.iter().find_map(|(_, error)| error.help()),
            each: self.failures.iter().map(|tried| (tried.0.clone(), line(tried))).collect(),
            effect,
            lasting: self.failures.iter().all(|(_, error)| error.is_lasting()),
        }
    }
}
