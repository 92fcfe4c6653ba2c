//! The only place that sleeps, and the one table of deadlines.

#![expect(clippy::disallowed_methods, reason = "this is the place that the lint sends everybody to")]

use std::future::Future;
use std::time::{Duration, Instant};

use super::clock::Clock;

/// Deadlines for calls and waits. Each has one name and one reason; a step's own `limit` is in the step.
pub mod limit {
    use std::time::Duration;

    /// TCP connect and TLS handshake to an API.
    pub const CONNECT: Duration = Duration::from_secs(5);
    /// One reading call to an API, its retries included. The Proxmox proxy itself gives up after 30 s.
    pub const READ: Duration = Duration::from_secs(35);
    /// One changing call; the Proxmox proxy answers 596 after 30 s, so a longer silence is a lost answer.
    pub const CHANGE: Duration = Duration::from_secs(40);
    /// After this silence the kernel asks whether the other end of a connection is there: a VM that is reset says no word.
    pub const PROBE: Duration = Duration::from_secs(10);
    /// How long it waits for each of [`PROBES`] answers.
    pub const PROBE_AGAIN: Duration = Duration::from_secs(5);
    /// How many go unanswered before the connection is given up.
    pub const PROBES: u32 = 3;
    /// A node pulls an image and writes it; the call of Talos before 1.13 returns after that.
    pub const IMAGE: Duration = Duration::from_secs(900);
    /// A copy of etcd's data over the net, in either direction; its default quota is 2 GiB.
    pub const SNAPSHOT: Duration = Duration::from_secs(600);
    /// Connect, key exchange and authentication of one ssh route, before the command starts.
    pub const SSH_LOGIN: Duration = Duration::from_secs(8);
    /// Opening a channel on an ssh connection that is kept: a machine that was powered off says nothing, and a fresh
    /// login is tried after this.
    pub const SSH_CHANNEL: Duration = Duration::from_secs(3);
    /// A node that has begun to send a snapshot and then says nothing: another member may be sound.
    pub const SILENCE: Duration = Duration::from_secs(60);
    /// A reading command in a guest or on a host, over any route.
    pub const LOOK: Duration = Duration::from_secs(20);
    /// A question of a survey or a plan, its retries included: a person waits for the screen, and what does not answer
    /// by then is shown as unknown.
    pub const SURVEY: Duration = Duration::from_secs(8);
    /// All questions of a survey's layer together, those that wait for the answer to another one too.
    pub const SURVEY_LAYER: Duration = Duration::from_secs(20);
    /// Measuring bytes in a volume: preflight goes on without the figure after this.
    pub const MEASURE: Duration = Duration::from_secs(10);
    /// `git fetch` or `git push`.
    pub const GIT: Duration = Duration::from_secs(60);
    /// A command that the site declares (driver install), unless it names its own.
    pub const COMMAND: Duration = Duration::from_secs(900);
}

/// A deadline passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no answer within {}", show(*.0))]
pub struct Elapsed(pub Duration);

/// What is said of a question to which no try has brought an answer.
pub fn no_answer(limit: Duration, tries: usize) -> String {
    format!("none within {} ({tries} {})", show(limit), if tries == 1 { "try" } else { "tries" })
}

/// A duration as people write it: `250 ms`, `8 s`, `5 min`, `1 h 10 min`.
pub fn show(duration: Duration) -> String {
    let ms = duration.as_millis();
    let s = duration.as_secs();
    match s {
        0 => format!("{ms} ms"),
        1..=119 if ms.is_multiple_of(1000) || s >= 10 => format!("{s} s"),
        1..=119 => format!("{}.{} s", s, (ms % 1000) / 100),
        120..=3599 if s.is_multiple_of(60) => format!("{} min", s / 60),
        120..=3599 => format!("{} min {} s", s / 60, s % 60),
        _ => format!("{} h {} min", s / 3600, (s % 3600) / 60),
    }
}

/// Runs `work` under a deadline.
pub async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Result<T, Elapsed> {
    tokio::time::timeout(limit, work).await.map_err(|_| Elapsed(limit))
}

/// Sleeps for `duration` on `clock`.
pub async fn pause(clock: Clock, duration: Duration) {
    tokio::time::sleep(clock.scaled(duration)).await;
}

/// Sleeps until `instant`; for servers that play a delay.
pub async fn until(instant: Instant) {
    tokio::time::sleep_until(instant.into()).await;
}

/// Pauses that grow from one length to another.
#[derive(Debug, Clone)]
pub struct Backoff {
    clock: Clock,
    next: Duration,
    max: Duration,
    /// Each pause is longer than the one before by this part of it.
    part: u32,
}

impl Backoff {
    /// Between tries of what failed: first pause `first`, each next one half as long again, never above `max`.
    pub fn new(clock: Clock, first: Duration, max: Duration) -> Self {
        Self { clock, next: first, max, part: 2 }
    }

    /// Between looks at what is on its way: the pauses grow with the age of the wait, each about a twentieth of it, so
    /// that an end is seen late by a fortieth of the wait on average, and never by more than `max`.
    pub fn by_age(clock: Clock, first: Duration, max: Duration) -> Self {
        Self { clock, next: first, max, part: 20 }
    }

    /// The pauses of a poll for an effect: 250 ms to 1 s, by age.
    pub fn poll(clock: Clock) -> Self {
        Self::by_age(clock, Duration::from_millis(250), Duration::from_secs(1))
    }

    /// The pauses of a poll for what a person does: 250 ms to 2 s, by age.
    pub fn hands(clock: Clock) -> Self {
        Self::by_age(clock, Duration::from_millis(250), Duration::from_secs(2))
    }

    /// The length of the next pause in real time; advances.
    pub fn step(&mut self) -> Duration {
        let this = self.next;
        self.next = (this + this / self.part).min(self.max);
        self.clock.scaled(this)
    }

    /// Sleeps for the next pause.
    pub async fn pause(&mut self) {
        let this = self.step();
        tokio::time::sleep(this).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poll_by_age_is_late_by_a_small_part_of_the_wait() {
        let (first, max) = (Duration::from_millis(50), Duration::from_secs(1));
        let (mut pauses, mut age, mut looks) = (Backoff::by_age(Clock::real(), first, max), Duration::ZERO, 0);
        while age < Duration::from_secs(120) {
            let pause = pauses.step();
            assert!(pause >= first && pause <= max && pause <= first + age / 20, "{pause:?} at {age:?}");
            (age, looks) = (age + pause, looks + 1);
        }
        // Dense where it is young, and one a second from then on.
        assert!((150..180).contains(&looks), "{looks}");
    }
}
