//! A line for each request that goes out, for `-vvv`: what, how it ended, how long it took. Never a body, a header or
//! a query.

use std::fmt::Display;
use std::time::Instant;

use super::clock::Clock;
use super::wait::show;

/// A request on its way. Dropped before it [`ended`](Self::ended) it says so: its deadline passed.
pub struct Request {
    line: String,
    clock: Clock,
    since: Instant,
    told: bool,
}

impl Request {
    /// `to` is the system as its errors name it, `line` as `GET /nodes/still-fawn/qemu/108/config`.
    pub fn begin(clock: Clock, to: impl Display, line: impl Display) -> Self {
        Self { line: format!("{to}: {line}"), clock, since: clock.instant(), told: false }
    }

    /// It ended: with a status, or with what went wrong.
    pub fn ended(mut self, how: impl Display) {
        self.tell(&how.to_string());
    }

    fn tell(&mut self, how: &str) {
        self.told = true;
        let took = show(self.clock.instant().duration_since(self.since));
        tracing::debug!("{}", super::redact::text(&format!("{}: {how}, {took}", self.line)));
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if !self.told {
            self.tell("no answer");
        }
    }
}
