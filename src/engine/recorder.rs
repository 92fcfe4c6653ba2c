//! The one writer of a run: journal, fold, crash points and the display's ear in one place.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::base::clock::Clock;
use crate::base::digest;
use crate::base::names::StepKey;
use crate::base::permit::{CallId, Handle, Ledger, Note, Refused, Thing};

use super::event::{Event, Record};
use super::journal::{Journal, JournalError};
use super::point::{Points, Side};
use super::state::{Illegal, Phase, RunState};
use super::store::{RunDir, StoreError};

/// Hears what happens. The display, the event stream of `--json`, and the hands of a rehearsal are ears.
pub trait Ear: Send + Sync {
    /// A line was written.
    fn event(&self, _record: &Record) {}
    /// Something moved on inside a call (a pve task's log line).
    fn progress(&self, _key: &StepKey, _line: &str) {}
    /// The engine waits: the step, the word of the answer (`waiting`, `manual`, `todo`), and why.
    fn waiting(&self, _key: &StepKey, _word: &'static str, _why: &str) {}
}

/// An ear that hears nothing.
#[derive(Debug, Default)]
pub struct Deaf;

impl Ear for Deaf {}

/// Why a line could not be written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The journal.
    #[error("the journal cannot be written")]
    Journal(#[from] JournalError),
    /// The engine tried a transition that the table does not allow: a defect, and nothing was written.
    #[error("a defect of the engine: {0}")]
    Illegal(#[from] Illegal),
    /// A run file.
    #[error("a run file cannot be written")]
    File(#[from] StoreError),
    /// A crash point cut the run.
    #[error("the run was cut at a crash point")]
    Cut,
    /// A plan that is only looked at tried to change something: a defect.
    #[error("nothing can be changed while only a plan is shown")]
    Scratch,
    /// Another thread panicked while writing.
    #[error("a writer of the journal panicked")]
    Poisoned,
}

struct Inner {
    /// None for a plan that is only looked at.
    journal: Option<Journal>,
    seq: u64,
    /// The last line that told of a change; lines about looks alone do not count.
    change: u64,
    state: RunState,
    /// The consents that were given to this process.
    granted: BTreeSet<Thing>,
}

/// The writer.
pub struct Recorder {
    inner: Mutex<Inner>,
    dir: RunDir,
    clock: Clock,
    points: Arc<Points>,
    ear: Arc<dyn Ear>,
    interrupted: Arc<AtomicBool>,
}

/// What a recorder is made with besides the journal.
#[derive(Clone)]
pub struct Wiring {
    /// The clock.
    pub clock: Clock,
    /// Crash points.
    pub points: Arc<Points>,
    /// Who listens.
    pub ear: Arc<dyn Ear>,
    /// Set by the signal handler.
    pub interrupted: Arc<AtomicBool>,
}

impl Default for Wiring {
    fn default() -> Self {
        Self {
            clock: Clock::real(),
            points: Arc::new(Points::count()),
            ear: Arc::new(Deaf),
            interrupted: Arc::new(AtomicBool::new(false)),
        }
    }
}

impl Recorder {
    /// Opens a new journal with its first line.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn create(dir: RunDir, first: Event, wiring: &Wiring) -> Result<Arc<Self>, RecordError> {
        if !wiring.points.pass("run", first.name(), Side::Before) {
            return Err(RecordError::Cut);
        }
        let mut journal = Journal::create(&dir.journal())?;
        let record = journal.append(wiring.clock.now(), first)?;
        let state = RunState::open(&record)?;
        wiring.ear.event(&record);
        Ok(Self::wired(dir, Some(journal), 1, state, wiring))
    }

    /// Keeps everything in memory: for `plan`, which looks and never applies. Its permits refuse every note.
    ///
    /// # Errors
    /// The plan names a step twice.
    pub fn scratch(first: super::event::Opened, wiring: &Wiring) -> Result<Arc<Self>, RecordError> {
        let event = Event::Opened(Box::new(first));
        let state = RunState::open(&Record { v: super::event::FORMAT, seq: 0, at: wiring.clock.now(), event })?;
        Ok(Self::wired(RunDir::nowhere(), None, 1, state, wiring))
    }

    /// Goes on with an existing journal.
    ///
    /// # Errors
    /// The journal cannot be read, or breaks a rule.
    pub fn reopen(dir: RunDir, wiring: &Wiring) -> Result<(Arc<Self>, Option<String>), StoreError> {
        let (journal, read) = Journal::open(&dir.journal())?;
        let state = RunState::fold(&read.records)
            .map_err(|source| StoreError::Illegal { path: dir.journal(), source })?
            .ok_or_else(|| StoreError::Empty { run: dir.id().to_owned() })?;
        let seq = journal.next_seq();
        Ok((Self::wired(dir, Some(journal), seq, state, wiring), read.torn))
    }

    fn wired(dir: RunDir, journal: Option<Journal>, seq: u64, state: RunState, wiring: &Wiring) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(Inner { journal, seq, change: seq, state, granted: BTreeSet::new() }),
            dir,
            clock: wiring.clock,
            points: wiring.points.clone(),
            ear: wiring.ear.clone(),
            interrupted: wiring.interrupted.clone(),
        })
    }

    fn lock(&self) -> Result<MutexGuard<'_, Inner>, RecordError> {
        self.inner.lock().map_err(|_| RecordError::Poisoned)
    }

    /// The state now.
    ///
    /// # Errors
    /// A writer panicked.
    pub fn state(&self) -> Result<RunState, RecordError> {
        Ok(self.lock()?.state.clone())
    }

    /// The number of the last line that told of more than a look.
    pub(super) fn change(&self) -> Result<u64, RecordError> {
        Ok(self.lock()?.change)
    }

    /// The run's directory.
    pub fn dir(&self) -> &RunDir {
        &self.dir
    }

    /// The clock.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// The display's ear.
    pub fn ear(&self) -> &dyn Ear {
        &*self.ear
    }

    /// True once the operator interrupted.
    pub fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }

    /// Writes a line: transition first (an illegal one is never written), then the file, then the ear.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn write(&self, event: Event) -> Result<Record, RecordError> {
        let mut inner = self.lock()?;
        self.write_locked(&mut inner, event)
    }

    fn write_locked(&self, inner: &mut Inner, event: Event) -> Result<Record, RecordError> {
        let key = event.key().map_or_else(|| "run".to_owned(), ToString::to_string);
        if self.points.is_cut() || (event.durable() && !self.points.pass(&key, event.name(), Side::Before)) {
            return Err(RecordError::Cut);
        }
        let at = self.clock.now();
        let mut after = inner.state.clone();
        let record = Record { v: super::event::FORMAT, seq: inner.seq, at, event };
        after.apply(&record)?;
        let record = match &mut inner.journal {
            Some(journal) => journal.append(at, record.event)?,
            None if record.event.durable() => return Err(RecordError::Scratch),
            None => record,
        };
        // Also where a person was asked to act.
        if record.event.durable() || matches!(record.event, Event::Asked { .. }) {
            inner.change = inner.seq;
        }
        inner.seq += 1;
        inner.state = after;
        if let Event::Consented { thing } = &record.event {
            inner.granted.insert(thing.clone());
        }
        self.ear.event(&record);
        Ok(record)
    }

    /// The consents that were given to this process. An undo goes by these alone: what was consented to for an earlier
    /// one, which perhaps changed nothing, may hold other data by now.
    ///
    /// # Errors
    /// The recorder broke.
    pub fn granted(&self) -> Result<BTreeSet<Thing>, RecordError> {
        Ok(self.lock()?.granted.clone())
    }

    /// Makes what could wait durable.
    ///
    /// # Errors
    /// The sync failed.
    pub fn finish(&self) -> Result<(), RecordError> {
        if self.points.is_cut() {
            return Err(RecordError::Cut);
        }
        if let Some(journal) = &mut self.lock()?.journal {
            journal.finish()?;
        }
        Ok(())
    }

    /// As when the disk is full from here on.
    #[cfg(test)]
    pub(super) fn fill(&self) {
        if let Some(journal) = &mut self.lock().unwrap().journal {
            journal.fill();
        }
    }

    /// A permit for one step. Called by `run.rs` and `undo.rs` only, like the minting itself.
    pub(super) fn desk(self: &Arc<Self>, key: &StepKey, may_destroy: bool) -> Arc<dyn Ledger> {
        Arc::new(Desk { recorder: self.clone(), key: key.clone(), may_destroy })
    }
}

/// A step's side of the recorder.
struct Desk {
    recorder: Arc<Recorder>,
    key: StepKey,
    may_destroy: bool,
}

impl Desk {
    fn write(&self, event: Event) -> Result<Record, Refused> {
        self.recorder.write(event).map_err(|error| Refused::Journal(whole(&error)))
    }
}

pub(super) fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

impl Ledger for Desk {
    fn note(&self, note: &Note) -> Result<CallId, Refused> {
        if self.recorder.interrupted() {
            return Err(Refused::Interrupted);
        }
        // The number is taken and the line written under one lock: calls may overlap.
        let mut inner = self.recorder.lock().map_err(|error| Refused::Journal(whole(&error)))?;
        let call = inner.state.next_call();
        let event = Event::Call { key: self.key.clone(), call, note: note.clone() };
        self.recorder.write_locked(&mut inner, event).map_err(|error| Refused::Journal(whole(&error)))?;
        drop(inner);
        if !self.recorder.points.pass(self.key.as_str(), "call", Side::Sent) {
            return Err(Refused::Journal(whole(&RecordError::Cut)));
        }
        Ok(call)
    }

    fn got(&self, call: CallId, handle: &Handle) -> Result<(), Refused> {
        self.write(Event::Got { key: self.key.clone(), call, handle: handle.clone() }).map(|_| ())
    }

    fn progress(&self, line: &str) {
        self.recorder.ear.progress(&self.key, line);
    }

    fn file(&self, name: &str, bytes: &[u8]) -> Result<(), Refused> {
        if self.recorder.points.is_cut() {
            return Err(Refused::Journal(whole(&RecordError::Cut)));
        }
        let stored = self.recorder.dir.store_file(&self.key, name, bytes);
        stored.map_err(|error| Refused::Journal(whole(&error)))?;
        let sha256 = digest::sha256(bytes);
        let event = Event::Filed { key: self.key.clone(), name: name.to_owned(), sha256, bytes: bytes.len() as u64 };
        self.write(event).map(|_| ())
    }

    fn may_destroy(&self, thing: &Thing) -> Result<(), Refused> {
        let inner = self.recorder.lock().map_err(|error| Refused::Journal(whole(&error)))?;
        let backwards = matches!(inner.state.phase, Phase::Undoing | Phase::Stuck);
        let consents = if backwards { &inner.granted } else { &inner.state.consents };
        if self.may_destroy && consents.contains(thing) {
            return Ok(());
        }
        Err(Refused::NotConsented { thing: thing.clone(), declared: self.may_destroy })
    }

    fn interrupted(&self) -> bool {
        self.recorder.interrupted()
    }
}
