//! The one clock. Nothing else in the crate asks for the time.

#![expect(clippy::disallowed_methods, reason = "this is the clock that the lint sends everybody to")]

use std::time::{Duration, Instant};

/// A clock whose pauses may be shorter than they say.
///
/// Rehearsals and tests poll faster than a real estate deserves; deadlines stay in real time, because a busy
/// machine is as slow there as anywhere.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    speed: u32,
    /// By how much the wall clock is wrong.
    ahead: jiff::SignedDuration,
}

impl Default for Clock {
    fn default() -> Self {
        Self::real()
    }
}

impl Clock {
    /// Pauses are as long as they say.
    pub const fn real() -> Self {
        Self { speed: 1, ahead: jiff::SignedDuration::ZERO }
    }

    /// Pauses are `speed` times shorter (at least 1 ms); `speed` 0 counts as 1.
    pub const fn fast(speed: u32) -> Self {
        Self { speed: if speed == 0 { 1 } else { speed }, ahead: jiff::SignedDuration::ZERO }
    }

    /// The same clock with a wall time that is wrong by so much: that of a desk whose time has jumped. Deadlines are
    /// as they were.
    #[must_use]
    pub const fn ahead(self, by: jiff::SignedDuration) -> Self {
        Self { ahead: by, ..self }
    }

    /// Wall-clock time, for records and for how old one is, in another process too. Deadlines go by [`Clock::instant`].
    pub fn now(&self) -> jiff::Timestamp {
        let now = jiff::Timestamp::now();
        now.checked_add(self.ahead).unwrap_or(now)
    }

    /// Monotonic time, for deadlines and elapsed times.
    pub fn instant(&self) -> Instant {
        Instant::now()
    }

    /// How long a pause of `duration` really is on this clock.
    pub fn scaled(&self, duration: Duration) -> Duration {
        if self.speed == 1 { duration } else { (duration / self.speed).max(Duration::from_millis(1)) }
    }

    /// The factor by which pauses are shortened.
    pub fn speed(&self) -> u32 {
        self.speed
    }
}
