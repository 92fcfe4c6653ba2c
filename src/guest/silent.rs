//! Ways in that were silent lately: they are asked last for a while, so that not every question waits for them anew.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::base::clock::Clock;
use crate::base::wait::show;

use super::error::{Error, Phase};

/// How long a way in is asked last after it was silent. A guest that boots is silent for about as long.
const LATELY: Duration = Duration::from_secs(60);

/// When which way in was silent, and in which words. Shared by all guests of an estate.
#[derive(Debug, Clone, Default)]
pub struct Silent(Arc<Mutex<BTreeMap<String, (Instant, String)>>>);

impl Silent {
    /// Keeps what became of a way in: silence at its door is remembered, anything else that it says is a sign of life.
    pub(super) fn heard<T>(&self, route: &str, answer: &Result<T, Error>, clock: Clock) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Err(error @ Error::TimedOut { phase, .. }) if *phase < Phase::Start => {
                known.insert(route.to_owned(), (clock.instant(), error.line()));
            }
            _ => {
                known.remove(route);
            }
        }
    }

    /// Why a way in is asked last; None where it is not.
    pub(super) fn lately(&self, route: &str, clock: Clock) -> Option<String> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, line) = known.get(route)?;
        let ago = clock.instant().saturating_duration_since(*at);
        (ago < LATELY).then(|| format!("{line} ({} ago, so it was left out)", show(ago)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_at_the_door_is_remembered_until_there_is_a_sign_of_life() {
        let (silent, clock) = (Silent::default(), Clock::real());
        let out = |phase| Err::<(), _>(Error::TimedOut { at: "ssh root@a".into(), phase, limit: LATELY });
        let phases = [
            (Phase::Name, true),
            (Phase::Connect, true),
            (Phase::KeyExchange, true),
            (Phase::Login, true),
            (Phase::Start, false),
            (Phase::Command, false),
        ];
        for (phase, counts) in phases {
            silent.heard("ssh root@a", &out(phase), clock);
            assert_eq!(silent.lately("ssh root@a", clock).is_some(), counts, "{phase:?}");
            assert_eq!(silent.lately("ssh root@b", clock), None);
        }
        silent.heard("ssh root@a", &out(Phase::Connect), clock);
        assert!(silent.lately("ssh root@a", clock).is_some_and(|why| why.ends_with("ago, so it was left out)")));
        silent.heard("ssh root@a", &Ok(()), clock);
        assert_eq!(silent.lately("ssh root@a", clock), None);
    }
}
