//! How long what a run stopped was down, by the journal's own times.

use jiff::Timestamp;
use serde::Serialize;

use crate::base::check::ends_with_node;
use crate::base::names::StepKey;
use crate::engine::event::{Event, Record};

use super::model::millis;
use super::track::between;

/// A time in which it was down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outage {
    /// What was down.
    pub what: String,
    /// The step that stopped it.
    pub by: String,
    /// When the first change of that step was about to go out.
    pub from: Timestamp,
    /// Whose change that was.
    pub began: Began,
    /// When it was seen again, or given back; None: the journal does not say so.
    pub until: Option<Timestamp>,
    /// From one to the other; None where one of them is not written: a journal's last line is no end.
    #[serde(rename = "elapsed_ms", serialize_with = "millis")]
    pub elapsed: Option<std::time::Duration>,
    /// How it ended.
    pub end: End,
    /// Somebody took the hold down in between: it may have been up for a part of this time.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub fell: bool,
    /// That somebody did what the run had asked for. Who knows the steps fills it in.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub as_asked: bool,
}

/// Where an outage began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "is", content = "run")]
pub enum Began {
    /// In this run.
    Here,
    /// In this earlier run, whose hold was taken over; `from` is of its journal.
    InRun(String),
    /// Before this run, which found it down and held; since when is not known. `from` is when it was taken over.
    Before,
}

/// How an outage ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "is", content = "by")]
pub enum End {
    /// The closer found it at work again.
    Ready(String),
    /// The closer let it back; when it was at work again the journal does not say.
    LetBack(String),
    /// An undo gave it back; when it was at work again the journal does not say.
    GivenBack(String),
    /// As far as the journal goes it is down.
    Down,
    /// This later run took the hold over, or took it back: its journal goes on.
    Elsewhere(String),
    /// This later run found it at work again, at `until`; since when is not known.
    SeenBy(String),
    /// This later run let it back, at `until`; when it was at work again the journal does not say.
    LetBackBy(String),
    /// The stopper failed before it was seen down, at `until`: it may have been down, from then on as well.
    Unsure,
}

impl Outage {
    /// The same as another run's journal tells where it began; None: that is not known.
    pub fn begun(mut self, earlier: Option<(String, Timestamp)>) -> Self {
        self.began = match earlier {
            Some((run, from)) => {
                self.from = from;
                Began::InRun(run)
            }
            None => Began::Before,
        };
        self.counted()
    }

    fn counted(mut self) -> Self {
        let until = self.until.filter(|_| self.began != Began::Before);
        self.elapsed = until.map(|until| between(self.from, until));
        self
    }
}

/// The outages of `what`, which the step `stopper` stops until the step with the id `closer` is done; it may be its own. What it sent and
/// what then failed may have stopped it or not: that is certain once the stopper is applied, or its undo has something to
/// send. Where it goes to work anew before that, the time is counted anew.
pub fn outages(records: &[Record], what: &str, stopper: &StepKey, closer: &str) -> Vec<Outage> {
    let mut all: Vec<Outage> = Vec::new();
    let (mut down, mut undoing, mut sure) = (false, false, false);
    let mut failed = None;
    for record in records {
        let Some(key) = record.event.key() else { continue };
        let own = key == stopper;
        // One that has no instance is of all of them.
        let closes = key.id() == closer && (key.instance().is_none() || key.instance() == stopper.instance());
        let end = match &record.event {
            Event::Applying { .. } if own => {
                undoing = false;
                if down && !sure {
                    down = false;
                    // Without a stop in between it was refused, or its process died: what it had to do is still to do.
                    if let (Some(mut outage), Some(at)) = (all.pop(), failed) {
                        (outage.until, outage.end) = (Some(at), End::Unsure);
                        all.push(outage);
                    }
                }
                continue;
            }
            Event::Undoing { .. } if own => {
                undoing = true;
                continue;
            }
            Event::Call { .. } if own && undoing => {
                sure = true;
                continue;
            }
            Event::Call { .. } if own && !down => {
                (down, sure, failed) = (true, false, None);
                all.push(Outage {
                    what: what.to_owned(),
                    by: key.to_string(),
                    from: record.at,
                    began: Began::Here,
                    until: None,
                    elapsed: None,
                    end: End::Down,
                    fell: false,
                    as_asked: false,
                });
                continue;
            }
            Event::Failed { .. } | Event::Interrupted { .. } if own && !undoing => {
                failed = failed.or(Some(record.at));
                continue;
            }
            Event::Applied { .. } if own && !closes => {
                sure = true;
                continue;
            }
            Event::HoldFell { .. } if own => {
                all.last_mut().into_iter().filter(|_| down).for_each(|outage| outage.fell = true);
                continue;
            }
            Event::Applied { .. } | Event::AlreadySo { .. } if closes => End::Ready(key.to_string()),
            Event::Undone { passed: false, .. } if own && (sure || failed.is_none()) => End::GivenBack(key.to_string()),
            _ => continue,
        };
        if let Some(outage) = all.last_mut().filter(|_| down) {
            (outage.until, outage.end, down) = (Some(record.at), end, false);
        }
    }
    if let (Some(outage), Some(at), false) = (all.last_mut().filter(|_| down), failed, sure) {
        (outage.until, outage.end) = (Some(at), End::Unsure);
    }
    all.into_iter().map(Outage::counted).collect()
}

/// The outages of pods that a hold ended and that can be nowhere but on its node: by its notes.
pub fn ended(records: &[Record], stopper: &StepKey, closer: &str) -> Vec<Outage> {
    let mut all: Vec<Outage> = Vec::new();
    let (mut over, mut unsure): (Option<Timestamp>, Vec<&str>) = (None, Vec::new());
    // Each belongs to the time in which it was evicted: what came in its place has another name.
    for window in outages(records, "", stopper, closer) {
        let mut pods = std::mem::take(&mut unsure);
        for record in records {
            let within =
                over.is_none_or(|over| record.at > over) && window.until.is_none_or(|until| record.at <= until);
            let Event::Checked { key, notes, .. } = &record.event else { continue };
            for pod in notes.iter().filter_map(|note| ends_with_node(note)).filter(|_| within && key == stopper) {
                if !pods.contains(&pod) {
                    pods.push(pod);
                }
            }
        }
        over = window.until;
        all.extend(pods.iter().map(|pod| Outage { what: format!("pod {pod}"), ..window.clone() }));
        // What a drain that failed has ended is as far away in the next one.
        if window.end == End::Unsure {
            unsure = pods;
        }
    }
    for outage in &mut all {
        if let End::Ready(by) = &outage.end {
            outage.end = End::LetBack(by.clone());
        }
    }
    all
}
