//! Being woken: while a step waits it may listen ([`super::step::Step::stir`]), so that it is asked again before its
//! next look is due. What it hears decides nothing.

use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, Either, select};

use crate::base::clock::Clock;
use crate::base::fault::Failure;
use crate::base::wait::{Backoff, until};

/// Several changes that come together are looked at once.
const GATHER: Duration = Duration::from_millis(50);

/// However much is to be heard: from one look to the next it is as long as between the first looks of any wait.
const APART: Duration = Duration::from_millis(250);

/// What is listened to.
pub(super) type Listening<'e> = BoxFuture<'e, Result<(), Failure>>;

/// The ears of one wait.
pub(super) struct Stir<'e> {
    clock: Clock,
    listening: Option<Listening<'e>>,
    /// Something was heard since the last look began.
    heard: bool,
    /// The last look was broken off.
    cut: bool,
    /// Nothing can be heard in this wait.
    deaf: bool,
    /// A line was said about a failure.
    told: bool,
    failed: Option<Failure>,
}

impl<'e> Stir<'e> {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, listening: None, heard: false, cut: false, deaf: false, told: false, failed: None }
    }

    /// Does `work` to its end, and listens meanwhile where that has been begun.
    pub(super) async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let Some(listening) = self.listening.take() else { return work.await };
        match select(pin!(work), listening).await {
            Either::Left((done, listening)) => {
                self.listening = Some(listening);
                done
            }
            Either::Right((ended, work)) => {
                self.ended(ended);
                work.await
            }
        }
    }

    /// As [`Stir::beside`], and where something is heard `work` is broken off; it is not heard twice without work
    /// that came to its end in between.
    pub(super) async fn unless_heard<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        if !std::mem::take(&mut self.cut)
            && let Some(listening) = self.listening.take()
        {
            let mut work = pin!(work);
            match select(work.as_mut(), listening).await {
                Either::Left((done, listening)) => {
                    self.listening = Some(listening);
                    return Some(done);
                }
                Either::Right((ended, _)) => self.ended(ended),
            }
            self.cut = self.heard;
            return if self.heard { None } else { Some(work.await) };
        }
        Some(self.beside(work).await)
    }

    fn ended(&mut self, ended: Result<(), Failure>) {
        match ended {
            Ok(()) => self.heard = true,
            Err(failure) => {
                self.deaf = !failure.fault().retryable();
                self.failed = Some(failure);
            }
        }
    }

    fn listen(&mut self, to: &impl Fn() -> Listening<'e>) {
        if self.listening.is_none() && !self.deaf {
            self.listening = Some(to());
        }
    }

    /// Waits until the next look is due, or something was heard after the last one, which began at `asked`.
    pub(super) async fn pause(&mut self, pauses: &mut Backoff, asked: Instant, to: impl Fn() -> Listening<'e>) {
        self.listen(&to);
        let rest = pauses.step();
        if !self.heard {
            let mut due = pin!(until(self.clock.instant() + rest));
            let Some(listening) = self.listening.take() else { return due.await };
            match select(due.as_mut(), listening).await {
                Either::Left(((), listening)) => {
                    self.listening = Some(listening);
                    return;
                }
                Either::Right((ended, _)) => self.ended(ended),
            }
            if !self.heard {
                return due.await;
            }
        }
        // Listening begins anew before the look: what happens from then on wakes again.
        let (gathered, apart) = (self.clock.scaled(GATHER), self.clock.scaled(APART));
        let next = (self.clock.instant() + gathered).max(asked + apart);
        while std::mem::take(&mut self.heard) {
            self.listen(&to);
            self.beside(until(next)).await;
        }
    }

    /// A line about the first failure of a wait.
    pub(super) fn complaint(&mut self) -> Option<String> {
        let failure = self.failed.take()?;
        let first = !std::mem::replace(&mut self.told, true);
        first.then(|| format!("asked again and again, since nobody tells when it is so: {failure}"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::base::fault::{Effect, Fault};
    use crate::base::wait::within;

    const CLOCK: Clock = Clock::fast(1000);
    /// Nobody sees the end of it.
    const FOR_EVER: Duration = Duration::from_secs(1 << 30);
    const SOON: Duration = Duration::from_secs(60);

    #[derive(Debug, thiserror::Error)]
    #[error("no ears")]
    struct Deaf(bool);

    impl Fault for Deaf {
        fn effect(&self) -> Effect {
            Effect::None
        }
        fn retryable(&self) -> bool {
            self.0
        }
    }

    fn pauses(of: Duration) -> Backoff {
        Backoff::new(CLOCK, of, of)
    }

    /// Hears something the first `times`, then nothing any more.
    fn heard<'c>(count: &'c AtomicUsize, times: usize) -> impl Fn() -> Listening<'c> {
        move || {
            let before = count.fetch_add(1, Ordering::SeqCst);
            Box::pin(async move { if before < times { Ok(()) } else { std::future::pending().await } })
        }
    }

    #[tokio::test]
    async fn what_is_heard_ends_the_pause_and_what_is_heard_while_asking_the_next_one() {
        let count = AtomicUsize::new(0);
        let mut stir = Stir::new(CLOCK);
        let (to, mut long) = (heard(&count, 1), pauses(FOR_EVER));
        within(SOON, stir.pause(&mut long, CLOCK.instant(), &to)).await.unwrap();
        // It listens again before the look begins.
        assert_eq!((count.load(Ordering::SeqCst), stir.listening.is_some(), stir.heard), (2, true, false));
        stir.listening = Some(Box::pin(async { Ok(()) }));
        stir.beside(tokio::task::yield_now()).await;
        assert!(stir.heard);
        within(SOON, stir.pause(&mut long, CLOCK.instant(), &to)).await.unwrap();
        assert_eq!((count.load(Ordering::SeqCst), stir.listening.is_some(), stir.heard), (3, true, false));
        // Work that is done beside it is done to its end, and nothing more is heard.
        assert_eq!(stir.beside(async { 7 }).await, 7);
        assert!(!stir.heard && stir.complaint().is_none());
    }

    #[tokio::test]
    async fn a_look_may_be_broken_off_by_what_is_heard_but_not_twice_in_a_row() {
        let count = AtomicUsize::new(0);
        let mut stir = Stir::new(CLOCK);
        let to = heard(&count, usize::MAX);
        let long = || async {
            tokio::task::yield_now().await;
            7
        };
        for expected in [None, Some(7), None, Some(7)] {
            stir.listening = Some(to());
            assert_eq!(stir.unless_heard(long()).await, expected);
            assert!(std::mem::take(&mut stir.heard));
        }
        assert_eq!(stir.unless_heard(async { 8 }).await, Some(8));
        // Ears that fail break nothing off.
        stir.listening = Some(Box::pin(async { Err(Deaf(true).into()) }));
        assert_eq!(stir.unless_heard(long()).await, Some(7));
        assert!(!stir.heard && stir.complaint().is_some());
    }

    #[tokio::test]
    async fn who_cannot_listen_asks_again_and_again_and_says_so_once() {
        for (passes, listened) in [(true, 3), (false, 1)] {
            let count = AtomicUsize::new(0);
            let mut stir = Stir::new(CLOCK);
            let to = || -> Listening<'_> {
                count.fetch_add(1, Ordering::SeqCst);
                Box::pin(async move { Err(Deaf(passes).into()) })
            };
            let mut told = Vec::new();
            for _ in 0..3 {
                let mut short = pauses(Duration::from_millis(1));
                within(SOON, stir.pause(&mut short, CLOCK.instant(), to)).await.unwrap();
                told.extend(stir.complaint());
            }
            assert_eq!(count.load(Ordering::SeqCst), listened);
            assert!(told.len() == 1 && told[0].ends_with(": no ears"), "{told:?}");
        }
    }
}
