//! How long what the runs stop was down: a run that takes over another one's hold did not stop it.

use jiff::Timestamp;

use crate::base::check::{Hands, Symbol};
use crate::base::names::StepKey;
use crate::blueprint::{self, BoxedStep};
use crate::engine::event::{Event, Planned, Record};
use crate::engine::plan::planned;
use crate::engine::store::RunRead;
use crate::report::{self, Began, End, Outage};

use super::left::taken_by;
use super::session::Session;
use super::status::same_subject;

impl Session {
    /// The times in which what a run stops was down, with what `runs` (all of the site, oldest first) know of where that
    /// began and how it went on. None where this version does not know the run's steps.
    pub(super) fn outages(&self, runs: &[RunRead], run: &RunRead) -> Vec<Outage> {
        let Ok((_, steps)) = self.steps_of(&run.state) else { return Vec::new() };
        let own = steps.iter().flat_map(|step| besides(run, step).into_iter().chain(self.outages_of(runs, run, step)));
        let ended = |step: &BoxedStep| {
            let (key, closer) = (step.key(), step.holds_until()?);
            let mut all = report::ended(&run.records, &key, closer);
            for outage in all.iter_mut().filter(|outage| outage.end == End::Down) {
                if let Some((other, at)) = later(runs, run, &key, |other, after| closed(other, &key, closer, after)) {
                    (outage.end, outage.until) = (End::LetBackBy(other.id.clone()), Some(at));
                }
            }
            Some(all)
        };
        own.chain(steps.iter().filter_map(ended).flatten()).collect()
    }

    /// Those of what one step stops.
    fn outages_of(&self, runs: &[RunRead], run: &RunRead, step: &BoxedStep) -> Vec<Outage> {
        let outlook = step.outlook(&self.estate);
        let (Some(what), Some(closer)) = (outlook.stops, outlook.stops_until.or(step.holds_until())) else {
            return Vec::new();
        };
        // What comes back by itself is held by nobody.
        let held = outlook.stops_until.is_none();
        let key = step.key();
        let before = run.state.steps.get(&key).and_then(|step| step.before.as_ref());
        // What cannot be read any more is no proof that nothing was at work.
        if before.is_some_and(|before| matches!(step.was_at_work(before), Ok(false))) {
            return Vec::new();
        }
        let mut all = report::outages(&run.records, &what, &key, closer);
        if !held {
            unseen(&mut all);
        }
        if held
            && found_down(run, &key)
            && !all.is_empty()
            && let Some(planned) = run.state.opened.plan.iter().find(|p| p.key == key)
        {
            let first = all.remove(0);
            let before = runs.partition_point(|other| other.state.since < run.state.since);
            let earlier = runs.get(..before).unwrap_or_default();
            all.insert(0, first.begun(self.down_since(earlier, planned)));
        }
        let fell = |outage: &Outage| {
            let within = move |at: &Timestamp| *at >= outage.from && outage.until.is_none_or(|until| *at <= until);
            let mut fell = fell_at(run, &key).filter(within).peekable();
            fell.peek().is_some() && fell.all(|at| as_asked(run, &key, at))
        };
        for outage in all.iter_mut().filter(|outage| outage.fell) {
            outage.as_asked = fell(outage);
        }
        if let Some(last) = all.last_mut().filter(|outage| held && outage.end == End::Down)
            && let Some((other, at)) = later(runs, run, &key, |other, after| {
                if self.tells(runs, other, &key) { Some(None) } else { seen(other, &key, closer, after).map(Some) }
            })
        {
            (last.end, last.until) = match at {
                None => (End::Elsewhere(other.id.clone()), None),
                Some(at) => (End::SeenBy(other.id.clone()), Some(at)),
            };
        }
        all
    }

    /// Whether the report of a run that took a hold over says how it went on: it found down what that stops.
    fn tells(&self, runs: &[RunRead], run: &RunRead, key: &StepKey) -> bool {
        let own = || {
            let (_, steps) = self.steps_of(&run.state).ok()?;
            let step = steps.iter().find(|step| step.key() == *key)?;
            self.outages_of(runs, run, step).into_iter().next()
        };
        found_down(run, key) && own().is_some_and(|first| first.began != Began::Here)
    }

    /// Which of these runs stopped what a step is to stop, and when, where nobody is known to have brought it back since.
    pub(super) fn down_since(&self, runs: &[RunRead], step: &Planned) -> Option<(String, Timestamp)> {
        runs.iter().rev().find_map(|run| {
            let same = |p: &&Planned| p.key == step.key && same_subject(&p.step, &step.step);
            let theirs = run.state.opened.plan.iter().find(same)?;
            let up = run.state.holds_up().into_iter().any(|key| *key == theirs.key);
            if !up || taken_by(runs, run, &theirs.key).is_some() {
                return None;
            }
            let (_, steps) = self.steps_of(&run.state).ok()?;
            let stopper = steps.iter().find(|step| step.key() == theirs.key)?;
            let last = self.outages_of(runs, run, stopper).pop().filter(|outage| outage.end == End::Down)?;
            match last.began {
                Began::Here => Some((run.id.clone(), last.from)),
                Began::InRun(first) => Some((first, last.from)),
                Began::Before => None,
            }
        })
    }

    /// What runs of this site stopped of what these steps are to stop, and when.
    pub(super) fn down_already(
        &self,
        runs: &[RunRead],
        steps: &[BoxedStep],
        stopper: &StepKey,
    ) -> Option<(String, Timestamp)> {
        let planned = planned(steps).ok()?;
        self.down_since(runs, planned.iter().find(|p| p.key == *stopper)?)
    }
}

/// The first run behind one that took a hold of it over, or back, of which `found` knows something; it is asked from the
/// last word of the run before it on that hold.
fn later<'r, T>(
    runs: &'r [RunRead],
    run: &'r RunRead,
    key: &StepKey,
    found: impl Fn(&RunRead, Timestamp) -> Option<T>,
) -> Option<(&'r RunRead, T)> {
    let mut from = run;
    // Each speaks of it after the one before.
    for _ in runs {
        let after = from.records.iter().rfind(|record| record.event.key() == Some(key))?.at;
        let other = taken_by(runs, from, key)?;
        if let Some(found) = found(other, after) {
            return Some((other, found));
        }
        from = other;
    }
    None
}

/// When a run let go what a hold stops.
fn closed(run: &RunRead, holder: &StepKey, closer: &str, after: Timestamp) -> Option<Timestamp> {
    let closes =
        |key: &StepKey| key.id() == closer && (key.instance().is_none() || key.instance() == holder.instance());
    let is_so = |event: &Event| match event {
        Event::Applied { key, .. } | Event::AlreadySo { key, .. } => closes(key),
        _ => false,
    };
    run.records.iter().find(|record| record.at > after && is_so(&record.event)).map(|record| record.at)
}

/// When a run has seen at work what a hold stops: it had to stop it itself, or its closer found it so.
fn seen(run: &RunRead, holder: &StepKey, closer: &str, after: Timestamp) -> Option<Timestamp> {
    let stops = |event: &Event| matches!(event, Event::Applying { key, .. } if key == holder);
    let own = run.records.iter().find(|record| record.at > after && stops(&record.event)).map(|record| record.at);
    own.filter(|_| !found_down(run, holder)).into_iter().chain(closed(run, holder, closer, after)).min()
}

fn fell_at(run: &RunRead, holder: &StepKey) -> impl Iterator<Item = Timestamp> {
    let fell = move |record: &&Record| matches!(&record.event, Event::HoldFell { key, .. } if key == holder);
    run.records.iter().filter(fell).map(|record| record.at)
}

/// Whether a machine that a hold keeps off was found on at a moment because the run had asked a person to switch it on.
pub(super) fn as_asked(run: &RunRead, holder: &StepKey, at: Timestamp) -> bool {
    let rows = blueprint::named(&run.state.opened.blueprint).map_or(&[][..], |of| of.rows);
    if !rows.iter().any(|row| row.off && row.id == holder.id()) {
        return false;
    }
    let before = run.records.iter().rev().skip_while(|record| record.at >= at);
    let word = before.map(|record| &record.event).find(|event| match event {
        Event::Applied { key, .. } | Event::AlreadySo { key, .. } => key == holder,
        Event::Asked { hands, .. } => matches!(hands, Some(Hands::Drives { on: true, .. })),
        _ => false,
    });
    matches!(word, Some(Event::Asked { .. }))
}

/// Those of what a step's own work took down until its end.
fn besides(run: &RunRead, step: &BoxedStep) -> Vec<Outage> {
    let key = step.key();
    let before = run.state.steps.get(&key).and_then(|step| step.before.as_ref());
    // What cannot be read any more says nothing.
    let Some(Ok(Some(what))) = before.map(|before| step.takes_down(before)) else { return Vec::new() };
    let mut all = report::outages(&run.records, &what, &key, step.id());
    unseen(&mut all);
    all
}

/// It is no undo that brings back what comes back by itself: nobody saw it at work.
fn unseen(all: &mut [Outage]) {
    for outage in all.iter_mut().filter(|outage| matches!(outage.end, End::GivenBack(_))) {
        (outage.end, outage.until, outage.elapsed) = (End::Down, None, None);
    }
}

/// Whether a hold found what it stops down already when it was put up first, and only marked it as its own.
fn found_down(run: &RunRead, key: &StepKey) -> bool {
    let first = run.records.iter().find_map(|record| match &record.event {
        Event::Applying { key: at, changes, .. } if at == key => Some(changes),
        _ => None,
    });
    first.is_some_and(|changes| changes.iter().all(|change| change.symbol == Symbol::Act))
}
