//! Lab time: how far a world has come, at a speed of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::base::clock::Clock;
use crate::base::wait;

/// A moment of lab time, as the distance from [`LabClock`]'s zero, which lies [`LabClock::HISTORY`] before the start:
/// a world begins with machines that have been up for a while.
pub type LabTime = Duration;

/// The clock of one lab: `speed` lab seconds pass in one real second.
#[derive(Debug, Clone)]
pub struct LabClock {
    started: Instant,
    zero: jiff::Timestamp,
    speed: u32,
    /// By how much it was set back since, in lab nanoseconds.
    back: Arc<AtomicU64>,
}

impl LabClock {
    /// What lies before the start: lab time is `HISTORY` when the lab starts.
    pub const HISTORY: Duration = Duration::from_secs(86_400);

    /// A clock that starts now. `speed` 0 counts as 1.
    pub fn start(speed: u32) -> Self {
        let real = Clock::real();
        let history = jiff::SignedDuration::from_secs(Self::HISTORY.as_secs().cast_signed());
        let now = real.now();
        // Whole seconds, so that the seconds in a UPID and in a Kubernetes time stamp are the same ones.
        let whole = jiff::Timestamp::from_second(now.as_second()).unwrap_or(now);
        let zero = whole.checked_sub(history).unwrap_or(whole);
        Self { started: real.instant(), zero, speed: speed.max(1), back: Arc::default() }
    }

    /// The present lab time.
    pub fn now(&self) -> LabTime {
        Self::HISTORY + (self.started.elapsed() * self.speed).saturating_sub(self.back())
    }

    fn back(&self) -> Duration {
        Duration::from_nanos(self.back.load(Ordering::SeqCst))
    }

    /// Sets the clock back to `at`; a time that has not come is left alone.
    pub(super) fn set_back(&self, at: LabTime) {
        let by = u64::try_from(self.now().saturating_sub(at).as_nanos()).unwrap_or(0);
        self.back.fetch_add(by, Ordering::SeqCst);
    }

    /// Lab seconds in one real second.
    pub fn speed(&self) -> u32 {
        self.speed
    }

    /// The wall-clock time of a lab time. It runs ahead of the real one where `speed` is above 1, so what happens
    /// after a real moment never bears an earlier time stamp than that moment.
    pub fn timestamp(&self, at: LabTime) -> jiff::Timestamp {
        jiff::SignedDuration::try_from(at).ok().and_then(|d| self.zero.checked_add(d).ok()).unwrap_or(self.zero)
    }

    /// When lab time `at` comes, in real time.
    pub fn instant(&self, at: LabTime) -> Instant {
        self.started + at.saturating_sub(Self::HISTORY).saturating_add(self.back()) / self.speed
    }

    /// Waits for `duration` of lab time.
    pub async fn pause(&self, duration: Duration) {
        wait::until(self.instant(self.now() + duration)).await;
    }
}
