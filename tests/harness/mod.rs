//! Runs a plan against an estate, with a crash, a fault or a hand where a test wants one.

#![allow(unreachable_pub, reason = "the harness is all tests' own")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

pub mod estate;
pub mod faults;
pub mod forwards;
pub mod found;
pub mod odd;
pub mod oneway;
pub mod probe;
pub mod rights;
pub mod same;
pub mod scene;
pub mod story;
pub mod toy;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pvemig::base::check::Hands;
use pvemig::base::clock::Clock;
use pvemig::base::permit::Thing;
use pvemig::engine::event::{Event, Opened, Record};
use pvemig::engine::journal::JournalError;
use pvemig::engine::lately::Lately;
use pvemig::engine::plan::{Line, planned};
use pvemig::engine::point::{Points, Watcher};
use pvemig::engine::recorder::{Ear, RecordError, Recorder, Wiring};
use pvemig::engine::run::{Ended, Engine, Hand, Policy, Why};
use pvemig::engine::step::{AnyStep, Settle};
use pvemig::engine::store::{Ids, RunRead, Store, StoreError};

/// Listens, and lets the estate's hands do what is asked for.
pub struct Hearing {
    pub records: Mutex<Vec<Record>>,
    pub hands: Box<dyn Fn(&Hands) + Send + Sync>,
    pub reader: Option<Reader>,
    pub kill_after: Option<&'static str>,
    pub killed: tokio::sync::Notify,
}

impl Ear for Hearing {
    fn event(&self, record: &Record) {
        self.records.lock().unwrap().push(record.clone());
        if let Some(reader) = &self.reader {
            reader(record);
        }
        if let Event::Asked { hands: Some(hands), .. } = &record.event {
            (self.hands)(hands);
        }
        if self.kill_after == Some(record.event.name()) {
            self.killed.notify_one();
        }
    }
}

/// A state directory with one site.
pub struct Bench {
    pub store: Store,
    /// How long the engine's pauses are.
    pub clock: Clock,
    /// Of what blueprint its runs say that they are.
    pub blueprint: String,
    _dir: tempfile::TempDir,
}

/// What one process of pvemig did.
pub struct Run {
    pub id: String,
    pub ended: Result<Ended, RecordError>,
    pub points: Arc<Points>,
    pub records: Vec<Record>,
}

/// Is told of every line, right after it is written.
pub type Reader = Arc<dyn Fn(&Record) + Send + Sync>;

/// How a process is to behave.
#[derive(Clone, Default)]
pub struct How {
    pub cut_at: Option<u64>,
    /// Sees every point of a process that is not cut.
    pub watcher: Option<Watcher>,
    pub reader: Option<Reader>,
    /// The process is killed right after it has written the first event of this name.
    pub kill_after: Option<&'static str>,
    pub consents: Vec<String>,
    pub past: Vec<String>,
    pub no_hands: bool,
    pub limit: Option<Duration>,
    pub interrupted: Arc<AtomicBool>,
    /// By how much the wall clock of the desk is wrong, in seconds.
    pub ahead: i64,
    /// No answer counts for a later question.
    pub anew: bool,
}

impl Bench {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            store: Store::open(dir.path(), "lab", Ids::Counted).unwrap(),
            clock: Clock::fast(1000),
            blueprint: "test".into(),
            _dir: dir,
        }
    }

    pub fn dir(&self) -> &Path {
        self._dir.path()
    }

    /// Keys and names of the events in a run's durable lines; none where the first was not written.
    pub fn told(&self, id: &str) -> Vec<String> {
        let Ok(read) = self.store.run(id).unwrap().read() else { return Vec::new() };
        let durable = read.records.iter().filter(|r| r.event.durable());
        durable.map(|r| format!("{:?} {}", r.event.key(), r.event.name())).collect()
    }

    pub fn read(&self, id: &str) -> RunRead {
        self.store.run(id).unwrap().read().unwrap()
    }

    /// Starts a run (`id` None) or goes on with one, forwards or backwards.
    pub async fn go<Cx: Settle>(
        &self,
        cx: &Cx,
        steps: &[Box<dyn AnyStep<Cx>>],
        id: Option<&str>,
        back: bool,
        how: &How,
        hands: impl Fn(&Hands) + Send + Sync + 'static,
    ) -> Run {
        let points = match (how.cut_at, &how.watcher) {
            (Some(n), _) => Points::cut(n),
            (None, Some(watcher)) => Points::watched(watcher.clone()),
            (None, None) => Points::count(),
        };
        let points = Arc::new(points);
        let hands: Box<dyn Fn(&Hands) + Send + Sync> = if how.no_hands { Box::new(|_| {}) } else { Box::new(hands) };
        let (records, killed) = (Mutex::default(), tokio::sync::Notify::new());
        let ear = Arc::new(Hearing { records, hands, reader: how.reader.clone(), kill_after: how.kill_after, killed });
        let wiring = Wiring {
            clock: self.clock.ahead(jiff::SignedDuration::from_secs(how.ahead)),
            points: points.clone(),
            ear: ear.clone(),
            interrupted: how.interrupted.clone(),
        };
        let (dir, recorder) = match id {
            Some(id) => {
                let dir = self.store.run(id).unwrap();
                match Recorder::reopen(dir.clone(), &wiring) {
                    Ok((recorder, _)) => (dir, Ok(recorder)),
                    // Cut before the first line was whole: nothing was changed, and the operator starts anew.
                    Err(error) if before_its_first_line(&error) => {
                        let fresh = self.store.new_run().unwrap();
                        (fresh.clone(), Recorder::create(fresh, self.opened(steps), &wiring))
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            None => {
                let dir = self.store.new_run().unwrap();
                (dir.clone(), Recorder::create(dir, self.opened(steps), &wiring))
            }
        };
        let id = dir.id().to_owned();
        let ended = match recorder {
            // Whoever is killed does nothing any more, whatever is on its way.
            Ok(recorder) => tokio::select! {
                biased;
                () = ear.killed.notified() => Err(RecordError::Cut),
                ended = self.drive(cx, steps, recorder, back, how, &id) => ended,
            },
            Err(error) => Err(error),
        };
        let records = ear.records.lock().unwrap().clone();
        Run { id, ended, points, records }
    }

    async fn drive<Cx: Settle>(
        &self,
        cx: &Cx,
        steps: &[Box<dyn AnyStep<Cx>>],
        recorder: Arc<Recorder>,
        back: bool,
        how: &How,
        id: &str,
    ) -> Result<Ended, RecordError> {
        for thing in &how.consents {
            recorder.write(Event::Consented { thing: Thing(thing.clone()) })?;
        }
        let policy = Policy {
            hand: if how.no_hands { Hand::Stop } else { Hand::Wait },
            patience: Duration::from_secs(20),
            limit: how.limit,
        };
        let mut info = self.store.info(id, "here").unwrap();
        info.granted = recorder.granted().unwrap();
        let lately = if how.anew { Lately::within(Duration::ZERO) } else { Lately::default() };
        let engine = Engine { cx, steps, guard: None, recorder, policy, info, lately };
        if back {
            engine.backward(&how.past.iter().cloned().collect::<BTreeSet<_>>()).await
        } else {
            engine.forward().await
        }
    }

    /// What a plan says of the steps.
    pub async fn look<Cx: Settle>(&self, cx: &Cx, steps: &[Box<dyn AnyStep<Cx>>]) -> Vec<Line> {
        let Event::Opened(opened) = self.opened(steps) else { unreachable!() };
        let wiring = Wiring { clock: self.clock, ..Wiring::default() };
        let recorder = Recorder::scratch(*opened, &wiring).unwrap();
        let policy = Policy { hand: Hand::Stop, patience: Duration::ZERO, limit: Some(Duration::ZERO) };
        let (info, lately) = (self.store.info("", "here").unwrap(), Lately::default());
        Engine { cx, steps, guard: None, recorder, policy, info, lately }.look().await.unwrap()
    }

    /// A run is given up.
    pub fn abandon(&self, id: &str) {
        let (recorder, _) = Recorder::reopen(self.store.run(id).unwrap(), &Wiring::default()).unwrap();
        recorder.write(Event::Abandoned { comment: "enough".into() }).unwrap();
    }

    fn opened<Cx: Settle>(&self, steps: &[Box<dyn AnyStep<Cx>>]) -> Event {
        Event::Opened(Box::new(Opened {
            tool: "test".into(),
            site: "lab".into(),
            site_digest: String::new(),
            migration: Some("test".into()),
            blueprint: self.blueprint.clone(),
            blueprint_version: 1,
            single: false,
            argv: vec!["pvemig".into(), "run".into(), "test".into()],
            host: "here".into(),
            plan: planned(steps).unwrap(),
        }))
    }
}

/// No journal, or one without a whole line. Any other error is a journal that the engine wrecked.
fn before_its_first_line(error: &StoreError) -> bool {
    match error {
        StoreError::Empty { .. } => true,
        StoreError::Journal(JournalError::Io { source, .. }) => source.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

/// The number of calls in a run's lines.
pub fn calls(records: &[Record]) -> usize {
    records.iter().filter(|r| matches!(r.event, Event::Call { .. })).count()
}

/// Durable events plus calls: what the number of crash points must be.
pub fn points_expected(records: &[Record]) -> usize {
    records.iter().filter(|r| r.event.durable()).count() + calls(records)
}

/// What a step noted, all its answers together.
pub fn notes(run: &Run, step: &str) -> String {
    let of = |event: &Event| match event {
        Event::Checked { key, notes, .. } | Event::Applied { key, notes } | Event::AlreadySo { key, notes, .. }
            if key.as_str().starts_with(step) =>
        {
            notes.join("\n")
        }
        _ => String::new(),
    };
    run.records.iter().map(|r| of(&r.event) + "\n").collect()
}

/// Where a run stopped, and what was said of it.
pub fn why(run: &Run) -> (&str, String) {
    let Ok(Ended::Stopped(stop)) = &run.ended else { panic!("{:#?}", run.ended) };
    let text = match &stop.why {
        Why::Blocked(problems) => {
            problems.iter().map(|p| format!("{}; {}", p.text, p.help)).collect::<Vec<_>>().join("\n")
        }
        Why::Failed { error, help, .. } => format!("{}\n{}", error.join(": "), help.join("\n")),
        other => format!("{other:?}"),
    };
    (stop.key.as_str(), text)
}

pub fn is_cut(run: &Run) -> bool {
    run.points.is_cut()
}
