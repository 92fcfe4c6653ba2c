//! A journal that cannot be written while a step works.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Change, Check};
use crate::base::fault::{Effect, Failure};
use crate::base::permit::{Note, Permit, System};

use super::event::{Event, Opened};
use super::lately::Lately;
use super::plan::planned;
use super::recorder::{RecordError, Recorder, Wiring};
use super::run::{Ended, Engine, Hand, Policy, Why};
use super::step::{AnyStep, Lost, Risk, RunInfo, Seen, Settle, Settled, Step};
use super::store::{Ids, Store};

/// The disk is full before this many of the step's three calls, or after them.
#[derive(Default)]
struct Disk {
    full_before: usize,
    recorder: OnceLock<Arc<Recorder>>,
    sent: Mutex<usize>,
}

impl Settle for Disk {
    async fn settle(&self, _: &Lost) -> Result<Settled, Failure> {
        Ok(Settled::NoTrace)
    }
}

#[derive(Serialize, Deserialize)]
struct Write;

impl Step<Disk> for Write {
    const ID: &'static str = "01-write";
    const RISK: Risk = Risk::Reverts;
    type Before = ();
    fn title(&self) -> String {
        "write".into()
    }
    fn why(&self) -> Vec<String> {
        Vec::new()
    }
    async fn check(&self, cx: &Disk, _: Seen<'_, ()>) -> Result<Check<()>, Failure> {
        let sent = *cx.sent.lock().unwrap();
        Ok(if sent == 3 { Check::done() } else { Check::todo(vec![Change::act("write")], ()) })
    }
    async fn apply(&self, cx: &Disk, _: Seen<'_, ()>, permit: &Permit) -> Result<(), Failure> {
        for n in 1..=4 {
            if n == cx.full_before {
                cx.recorder.get().unwrap().fill();
            }
            if n < 4 {
                permit.note(&Note::safe(System::Toy, format!("write {n}")))?;
                *cx.sent.lock().unwrap() += 1;
            }
        }
        Ok(())
    }
}

async fn full_before(n: usize) -> (Result<Ended, RecordError>, usize) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), "lab", Ids::Counted).unwrap();
    let steps: Vec<Box<dyn AnyStep<Disk>>> = vec![Box::new(Write)];
    let opened = Opened {
        tool: "test".into(),
        site: "lab".into(),
        site_digest: String::new(),
        migration: None,
        blueprint: "test".into(),
        blueprint_version: 1,
        single: false,
        argv: Vec::new(),
        host: "here".into(),
        plan: planned(&steps).unwrap(),
    };
    let recorder =
        Recorder::create(store.new_run().unwrap(), Event::Opened(Box::new(opened)), &Wiring::default()).unwrap();
    let cx = Disk { full_before: n, ..Disk::default() };
    assert!(cx.recorder.set(recorder.clone()).is_ok());
    let policy = Policy { hand: Hand::Stop, patience: Duration::ZERO, limit: None };
    let engine = Engine {
        cx: &cx,
        steps: &steps,
        guard: None,
        recorder,
        policy,
        info: RunInfo::default(),
        lately: Lately::default(),
    };
    let ended = engine.forward().await;
    let sent = *cx.sent.lock().unwrap();
    (ended, sent)
}

#[tokio::test]
async fn a_full_disk_stops_the_next_change_and_says_so() {
    for (n, sent, said) in [(1, 0, Effect::None), (2, 1, Effect::Partial), (3, 2, Effect::Partial)] {
        let (ended, went_out) = full_before(n).await;
        let Ok(Ended::Stopped(stop)) = ended else { panic!("{ended:?}") };
        let Why::Failed { error, effect, help } = &stop.why else { panic!("{stop:?}") };
        assert_eq!((went_out, *effect, stop.key.as_str()), (sent, said, "01-write"));
        assert!(error[0].contains("the journal cannot be written") && error[0].contains("cannot write a line"));
        assert!(error.last().unwrap().contains("could not be written down"), "{error:?}");
        assert!(help[0].contains("make room"), "{help:?}");
    }
}

#[tokio::test]
async fn a_full_disk_after_the_last_change_is_said_as_what_it_is() {
    let (ended, sent) = full_before(4).await;
    let Err(error @ RecordError::Journal(_)) = ended else { panic!("{ended:?}") };
    assert_eq!(sent, 3);
    assert!(super::recorder::whole(&error).contains("cannot write a line"), "{error}");
    let (ended, _) = full_before(5).await;
    assert!(matches!(ended, Ok(Ended::Done)), "{ended:?}");
}
