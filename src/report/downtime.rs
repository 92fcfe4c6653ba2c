//! How long what a run stopped was down, by the journal's own times.

use jiff::Timestamp;
use serde::Serialize;

use crate::base::check::ends_with_node;
use crate::base::names::StepKey;
use crate::engine::event::{Event, Record};

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
    /// When it was seen again, or given back; None: the journal does not say so.
    pub until: Option<Timestamp>,
    /// From one to the other; while it lasts, to the journal's last line.
    #[serde(rename = "elapsed_ms", serialize_with = "millis")]
    pub elapsed: std::time::Duration,
    /// How it ended.
    pub end: End,
    /// Somebody took the hold down in between: it may have been up for a part of this time.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub fell: bool,
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
    /// The stopper failed before it was seen down, at `until`: it may have been down, from then on as well.
    Unsure,
}

fn millis<S: serde::Serializer>(elapsed: &std::time::Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

/// The outages of `what`, which the step `stopper` stops until the step with the id `closer` is done. What it sent and
/// what then failed may have stopped it or not: that is certain once the stopper is applied, or its undo has something to
/// send. Where it goes to work anew before that, the time is counted anew.
pub fn outages(records: &[Record], what: &str, stopper: &StepKey, closer: &str) -> Vec<Outage> {
    let mut all: Vec<Outage> = Vec::new();
    let (mut down, mut undoing, mut sure) = (false, false, false);
    let mut failed = None;
    for record in records {
        let Some(key) = record.event.key() else { continue };
        let own = key == stopper;
        let closes = key.id() == closer && key.instance() == stopper.instance();
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
                    until: None,
                    elapsed: std::time::Duration::ZERO,
                    end: End::Down,
                    fell: false,
                });
                continue;
            }
            Event::Failed { .. } | Event::Interrupted { .. } if own && !undoing => {
                failed = failed.or(Some(record.at));
                continue;
            }
            Event::Applied { .. } if own => {
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
    let last = records.last().map(|record| record.at);
    for outage in &mut all {
        outage.elapsed = outage.until.or(last).map(|until| between(outage.from, until)).unwrap_or_default();
    }
    all
}

/// The outages of pods that a hold ended and that can be nowhere but on its node: by its notes.
pub fn ended(records: &[Record], stopper: &StepKey, closer: &str) -> Vec<Outage> {
    let mut pods: Vec<&str> = Vec::new();
    for record in records {
        let Event::Checked { key, notes, .. } = &record.event else { continue };
        let named = notes.iter().filter_map(|note| ends_with_node(note)).filter(|_| key == stopper);
        for pod in named {
            if !pods.contains(&pod) {
                pods.push(pod);
            }
        }
    }
    let mut all: Vec<_> =
        pods.iter().flat_map(|pod| outages(records, &format!("pod {pod}"), stopper, closer)).collect();
    for outage in &mut all {
        if let End::Ready(by) = &outage.end {
            outage.end = End::LetBack(by.clone());
        }
    }
    all
}
