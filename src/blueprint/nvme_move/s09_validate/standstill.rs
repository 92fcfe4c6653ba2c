//! Since when nothing has come nearer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What was the nearest to the end, and when that came about: of this process alone.
#[derive(Debug, Clone, Default)]
pub(super) struct Standstill(Arc<Mutex<Option<Mark>>>);

#[derive(Debug, Clone)]
struct Mark {
    progress: String,
    least: usize,
    at: Instant,
}

impl Standstill {
    /// For how long it stands still: no rebuild got further, and no fewer things are waited for. None: it does not.
    pub(super) fn stands(&self, now: Instant, progress: &str, waits: usize) -> Option<Duration> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match known.as_mut().filter(|mark| mark.progress == progress && mark.least <= waits) {
            Some(mark) => Some(now.saturating_duration_since(mark.at)),
            None => {
                *known = Some(Mark { progress: progress.to_owned(), least: waits, at: now });
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;

    #[test]
    fn a_rebuild_that_goes_on_and_fewer_waits_are_progress_and_more_waits_are_none() {
        let (still, begun) = (Standstill::default(), Clock::real().instant());
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        assert_eq!(still.stands(at(0), "a 10 %", 2), None);
        assert_eq!(still.stands(at(60), "a 10 %", 2), Some(Duration::from_secs(60)));
        assert_eq!(still.stands(at(70), "a 10 %", 3), Some(Duration::from_secs(70)));
        assert_eq!(still.stands(at(80), "a 20 %", 3), None);
        assert_eq!(still.stands(at(90), "a 20 %", 1), None);
        assert_eq!(still.stands(at(100), "a 20 %", 2), Some(Duration::from_secs(10)));
        // One that flickers between two is no nearer at the same count.
        assert_eq!(still.clone().stands(at(2_000), "a 20 %", 1), Some(Duration::from_secs(1_910)));
    }
}
