//! What was found to be so a moment ago: one look answers every question that is put in its time.
//!
//! A step's answer is wanted by its own turn, by each hold around it, and by the preflight's problems that protect it.
//! Only "it is so" is kept, for a few seconds, and until the run writes that it changes something: whatever will be
//! changed has been looked at right before.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::base::check::Check;
use crate::base::names::StepKey;

/// How old a look may be. The end of a list of steps is reached later than that after its first one anyway.
const FRESH: Duration = Duration::from_secs(10);

/// The answers of the last seconds.
#[derive(Debug)]
pub struct Lately {
    fresh: Duration,
    found: Mutex<BTreeMap<StepKey, Found>>,
}

impl Default for Lately {
    fn default() -> Self {
        Self::within(FRESH)
    }
}

#[derive(Debug)]
struct Found {
    /// The last line that told of a change, when the question was put.
    change: u64,
    at: Instant,
    check: Check<Value>,
}

impl Lately {
    /// Answers that are younger than this; with zero every question is asked anew.
    pub fn within(fresh: Duration) -> Self {
        Self { fresh, found: Mutex::default() }
    }

    /// The answer, where it was "it is so", is young enough at `now`, and nothing was changed since.
    pub(super) fn found(&self, key: &StepKey, change: u64, now: Instant) -> Option<Check<Value>> {
        let kept = self.found.lock().ok()?;
        let found = kept.get(key)?;
        let young = now.saturating_duration_since(found.at) < self.fresh;
        (young && found.change == change).then(|| found.check.clone())
    }

    /// Keeps an answer to a question that was put at `at`.
    pub(super) fn keep(&self, key: StepKey, change: u64, at: Instant, check: &Check<Value>) {
        let Ok(mut kept) = self.found.lock() else { return };
        if check.is_done() {
            kept.insert(key, Found { change, at, check: check.clone() });
        } else {
            kept.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_young_yes_with_no_change_since_is_an_answer() {
        let (lately, at, key) =
            (Lately::default(), crate::base::clock::Clock::real().instant(), StepKey::from("07-look"));
        let done = Check::done();
        lately.keep(key.clone(), 4, at, &done);
        assert_eq!(lately.found(&key, 4, at), Some(done.clone()));
        assert_eq!(lately.found(&key, 4, at + FRESH / 2), Some(done.clone()));
        assert_eq!(lately.found(&key, 4, at + FRESH), None, "too old");
        assert_eq!(lately.found(&key, 5, at), None, "something was changed");
        assert_eq!(lately.found(&"08-other".into(), 4, at), None);
        let anew = Lately::within(Duration::ZERO);
        anew.keep(key.clone(), 4, at, &done);
        assert_eq!(anew.found(&key, 4, at), None);
        lately.keep(key.clone(), 4, at, &Check::todo(Vec::new(), Value::Null));
        assert_eq!(lately.found(&key, 4, at), None, "a no is asked again, and ends the yes before it");
    }
}
