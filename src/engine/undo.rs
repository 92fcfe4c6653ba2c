//! Backwards: back, undo, back, in the order that the holds ask for.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::base::check::Answer;
use crate::base::fault::Effect;
use crate::base::permit::Permit;

use super::event::{Event, Outcome};
use super::recorder::RecordError;
use super::run::{Ended, Engine, Question, Reach, Why, failed, stopped};
use super::state::{RunState, Stage};
use super::step::{AnyStep, Risk, Settle};

impl<Cx: Settle> Engine<'_, Cx> {
    /// Undoes everything that is owed, last first; `past` names steps that cannot be undone and may be passed.
    ///
    /// # Errors
    /// The journal cannot be written; nothing is changed from there on.
    pub async fn backward(&self, past: &BTreeSet<String>) -> Result<Ended, RecordError> {
        let ended = self.backward_steps(past).await;
        let finished = self.recorder.finish();
        let ended = ended?;
        finished?;
        Ok(ended)
    }

    async fn backward_steps(&self, past: &BTreeSet<String>) -> Result<Ended, RecordError> {
        if let Some(ended) = self.consents_needed(past).await? {
            return Ok(ended);
        }
        if let Some(ended) = self.put_up_for_undo().await? {
            return Ok(ended);
        }
        for at in self.undo_order(&self.recorder.state()?) {
            let step = &*self.steps[at];
            if let Some(why) = self.take_back(step, past).await? {
                return Ok(stopped(step, why));
            }
        }
        self.recorder.write(Event::Closed { outcome: Outcome::Undone })?;
        Ok(Ended::Undone)
    }

    /// The owed steps: last first, but holders with the same closer are released together, in list order, when
    /// everything behind the first of them is undone (owners first, replicas last).
    pub fn undo_order(&self, state: &RunState) -> Vec<usize> {
        let owed = |at: usize| state.steps.get(&self.steps[at].key()).is_some_and(|s| s.owes());
        let mut order = Vec::new();
        for at in (0..self.steps.len()).rev() {
            let Some(closer) = self.closer(at) else {
                order.push(at);
                continue;
            };
            let group: Vec<usize> = (0..self.steps.len()).filter(|i| self.closer(*i) == Some(closer)).collect();
            if group.first() == Some(&at) {
                order.extend(group);
            }
        }
        order.retain(|at| owed(*at));
        order
    }

    /// Everything that the undo would destroy is named before anything is begun.
    async fn consents_needed(&self, past: &BTreeSet<String>) -> Result<Option<Ended>, RecordError> {
        let state = self.recorder.state()?;
        let (mut things, mut notes, mut first) = (Vec::new(), Vec::new(), None);
        for at in self.undo_order(&state) {
            let step = &*self.steps[at];
            let before = before_of(&state, step);
            let Ok(destroyed) = step.undo_destroys(&before) else { continue };
            let missing: Vec<_> = destroyed.into_iter().filter(|t| !state.consents.contains(t)).collect();
            let passed = past.contains(step.id());
            let lost = step.risk() == Risk::Destroys && !passed;
            if (missing.is_empty() || passed) && !lost {
                continue;
            }
            match self.ask(step, Question::Back(&before)).await? {
                Ok(check) if check.is_done() => continue,
                Ok(check) => {
                    notes.extend(check.notes);
                    if let Answer::Todo { changes, .. } = &check.answer {
                        notes.extend(changes.iter().map(ToString::to_string));
                    }
                }
                Err(failure) => notes.push(format!("{}: {failure}", step.key())),
            }
            if lost {
                let why = Why::Consent { things: Vec::new(), past: Some(step.key()), notes };
                return Ok(Some(stopped(step, why)));
            }
            things.extend(missing);
            first.get_or_insert(at);
        }
        let Some(first) = first else { return Ok(None) };
        Ok(Some(stopped(&*self.steps[first], Why::Consent { things, past: None, notes })))
    }

    /// (e) Where something that a hold guards is to be undone, the hold is put up first by the holder's apply.
    async fn put_up_for_undo(&self) -> Result<Option<Ended>, RecordError> {
        for at in 0..self.steps.len() {
            let Some(closer) = self.closer(at) else { continue };
            let holder = &*self.steps[at];
            let state = self.recorder.state()?;
            if !matches!(state.stage(&holder.key()), Stage::Applied | Stage::Begun) {
                continue;
            }
            let mut something = false;
            for between in self.steps[at + 1..closer].iter().filter(|s| s.holds_until().is_none()) {
                let owed = state.steps.get(&between.key()).is_some_and(|s| s.owes());
                if owed && !self.is_back(&**between, &state).await? {
                    something = true;
                    break;
                }
            }
            if !something {
                continue;
            }
            match self.ask(holder, Question::Check).await? {
                Ok(check) if check.is_done() => continue,
                Ok(_) => {}
                Err(failure) => {
                    let why = self.stop(&holder.key(), failed(&failure))?;
                    return Ok(Some(stopped(holder, why)));
                }
            }
            if let Some(why) = self.make_so(holder, &[]).await? {
                return Ok(Some(stopped(holder, why)));
            }
        }
        Ok(None)
    }

    /// True where `back` says Done; what cannot be asked is not.
    async fn is_back(&self, step: &dyn AnyStep<Cx>, state: &RunState) -> Result<bool, RecordError> {
        let before = before_of(state, step);
        Ok(matches!(self.ask(step, Question::Back(&before)).await?, Ok(check) if check.is_done()))
    }

    async fn take_back(&self, step: &dyn AnyStep<Cx>, past: &BTreeSet<String>) -> Result<Option<Why>, RecordError> {
        let key = step.key();
        let state = self.recorder.state()?;
        if past.contains(step.id()) {
            let notes = vec![format!("passed by `--past {}`: what it did stays", step.id())];
            self.recorder.write(Event::Undoing { key: key.clone() })?;
            self.recorder.write(Event::Undone { key, notes })?;
            return Ok(None);
        }
        if let Some(why) = self.settle_lost(step).await? {
            return self.stop(&key, why).map(Some);
        }
        let before = before_of(&state, step);
        let notes = match self.reach(step, Question::Back(&before), true).await? {
            Reach::Done(notes) => notes,
            Reach::Stop(why) => return self.stop(&key, why).map(Some),
            Reach::Todo { .. } => {
                if self.recorder.interrupted() {
                    return self.stop(&key, Why::Interrupted).map(Some);
                }
                self.recorder.write(Event::Undoing { key: key.clone() })?;
                let destroys = step.undo_destroys(&before).is_ok_and(|things| !things.is_empty());
                let permit = Permit::mint(self.recorder.desk(&key, destroys || step.risk() == Risk::Destroys));
                let memory = self.memory(step)?;
                if let Err(failure) = step.undo(self.cx, &before, memory.seen(&self.info), &permit).await {
                    if self.recorder.interrupted() {
                        return self.stop(&key, Why::Interrupted).map(Some);
                    }
                    return self.stuck(step, failed(&failure)).map(Some);
                }
                match self.reach(step, Question::Back(&before), false).await? {
                    Reach::Done(notes) => notes,
                    Reach::Todo { .. } => Vec::new(),
                    Reach::Stop(why @ (Why::Manual { .. } | Why::Interrupted)) => {
                        return self.stop(&key, why).map(Some);
                    }
                    Reach::Stop(why) => return self.stuck(step, why).map(Some),
                }
            }
        };
        self.recorder.write(Event::Undone { key, notes })?;
        Ok(None)
    }

    fn stuck(&self, step: &dyn AnyStep<Cx>, why: Why) -> Result<Why, RecordError> {
        let (error, help) = match why {
            Why::Failed { error, help, effect } => {
                let said = if effect == Effect::None {
                    "nothing was changed by the failing call"
                } else {
                    "something may have been changed"
                };
                (error.into_iter().chain([said.to_owned()]).collect(), help)
            }
            Why::Blocked(problems) => problems.into_iter().map(|p| (p.text, p.help)).unzip(),
            other => return Ok(other),
        };
        let (key, e, h): (_, Vec<String>, Vec<String>) = (step.key(), error, help);
        self.recorder.write(Event::UndoFailed { key, error: e.clone(), help: h.clone() })?;
        Ok(Why::Stuck { error: e, help: h })
    }
}

/// What a step's `back` is asked with: the before-image, or for a reading step what it said when it asked.
fn before_of<Cx: Sync>(state: &RunState, step: &dyn AnyStep<Cx>) -> Value {
    let own = state.steps.get(&step.key());
    own.and_then(|s| s.before.clone().or_else(|| s.asked.clone())).unwrap_or(Value::Null)
}
