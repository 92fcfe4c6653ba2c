//! The named places at which a run can be cut, for the proof that any cut can be resumed and undone.
//!
//! There is one right before each durable line is written (what came before has happened, the line has not), and one
//! right after each `Call` line (written down, not sent). So their number equals durable events plus calls.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Where a point is relative to its journal line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Before the line is written.
    Before,
    /// After a `Call` line is durable and before its request is sent.
    Sent,
}

/// A named point: the step (or `run`), the event and the how-manieth of its kind in this process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    /// The step's key, or `run`.
    pub key: String,
    /// The event's name.
    pub event: &'static str,
    /// Which side of the line.
    pub side: Side,
    /// The point's number in this process, from 0.
    pub n: u64,
}

/// Is told of every point while the run stands still there.
#[derive(Clone)]
pub struct Watcher(Arc<dyn Fn(&Point) + Send + Sync>);

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watcher")
    }
}

impl Watcher {
    /// `look` may take a picture of everything outside the process: it is what a crash at this point would leave.
    pub fn new(look: impl Fn(&Point) + Send + Sync + 'static) -> Self {
        Self(Arc::new(look))
    }
}

/// The point at which a process ends itself.
#[derive(Debug)]
enum Last {
    /// By its number in this process.
    Number(u64),
    /// By its step, event and side, and the how-manieth of these it is.
    Named(String, String, Side, usize),
}

impl Last {
    fn is(&self, point: &Point, before: &[Point]) -> bool {
        match self {
            Self::Number(n) => *n == point.n,
            Self::Named(key, event, side, nth) => {
                let like = |p: &Point| *key == p.key && *event == p.event && *side == p.side;
                like(point) && before.iter().filter(|p| like(p)).count() + 1 == *nth
            }
        }
    }
}

/// Counts points, and cuts at one of them.
///
/// A cut makes every later write fail, so that the process can neither write nor change anything any more: what a
/// crash looks like from outside.
#[derive(Debug, Default)]
pub struct Points {
    next: AtomicU64,
    cut_at: Option<u64>,
    kill_at: Option<Last>,
    watcher: Option<Watcher>,
    seen: Mutex<Vec<Point>>,
}

impl Points {
    /// Never cuts; remembers the points that it passed.
    pub fn count() -> Self {
        Self::default()
    }

    /// Cuts at point number `n`.
    pub fn cut(n: u64) -> Self {
        Self { cut_at: Some(n), ..Self::default() }
    }

    /// Kills the whole process at a point, as a power cut would: a number, or `STEP EVENT before` and `STEP call sent`, of
    /// several such points the Nth with ` N`. None where it is neither.
    pub fn kill(at: &str) -> Option<Self> {
        let words: Vec<&str> = at.split(' ').collect();
        let side = |word| [("before", Side::Before), ("sent", Side::Sent)].into_iter().find(|(name, _)| *name == word);
        let last = match words[..] {
            [n] => Last::Number(n.parse().ok()?),
            [key, event, word] => Last::Named(key.to_owned(), event.to_owned(), side(word)?.1, 1),
            [key, event, word, nth] => Last::Named(key.to_owned(), event.to_owned(), side(word)?.1, nth.parse().ok()?),
            _ => return None,
        };
        Some(Self { kill_at: Some(last), ..Self::default() })
    }

    /// Never cuts; the watcher sees each point.
    pub fn watched(watcher: Watcher) -> Self {
        Self { watcher: Some(watcher), ..Self::default() }
    }

    /// The points that were passed.
    pub fn passed(&self) -> Vec<Point> {
        self.seen.lock().map(|seen| seen.clone()).unwrap_or_default()
    }

    /// True once the cut has happened.
    pub fn is_cut(&self) -> bool {
        self.cut_at.is_some_and(|n| self.next.load(Ordering::SeqCst) > n)
    }

    /// Passes a point; false where the run is cut here, or was before.
    pub(super) fn pass(&self, key: &str, event: &'static str, side: Side) -> bool {
        if self.is_cut() {
            return false;
        }
        let n = self.next.fetch_add(1, Ordering::SeqCst);
        let point = Point { key: key.to_owned(), event, side, n };
        if let Some(Watcher(look)) = &self.watcher {
            look(&point);
        }
        if let Ok(mut seen) = self.seen.lock() {
            if self.kill_at.as_ref().is_some_and(|last| last.is(&point, &seen)) {
                die();
            }
            seen.push(point);
        }
        self.cut_at != Some(n)
    }
}

/// Ends this process by a SIGKILL, which nothing can catch or tidy up after.
fn die() -> ! {
    let _dead = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    std::process::abort()
}
