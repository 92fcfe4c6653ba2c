//! How long what the runs stop was down: a run that takes over another one's hold did not stop it.

use jiff::Timestamp;

use crate::base::check::Symbol;
use crate::base::names::StepKey;
use crate::blueprint::BoxedStep;
use crate::engine::event::{Event, Planned};
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
        let ended = |step: &BoxedStep| Some(report::ended(&run.records, &step.key(), step.holds_until()?));
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
        if let Some(last) = all.last_mut().filter(|outage| held && outage.end == End::Down)
            && let Some(other) = taken_by(runs, run, &key)
        {
            last.end = End::Elsewhere(other.id.clone());
        }
        all
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
