//! Holds: when one is needed, when one must be asked, and when one is put up again.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::base::check::{Answer, Change, Check, Problem};
use crate::base::fault::Effect;
use crate::base::names::StepKey;

use super::event::Event;
use super::recorder::RecordError;
use super::run::{Ended, Engine, Question, Why, failed, stopped};
use super::state::{RunState, Stage};
use super::step::{AnyStep, Settle};

impl<Cx: Settle> Engine<'_, Cx> {
    /// On a resume: holds that were found taken down, or are down now, are put up again by their own apply.
    pub(super) async fn put_up_fallen(&self) -> Result<Option<Ended>, RecordError> {
        let state = self.recorder.state()?;
        for (at, holder) in self.steps.iter().enumerate() {
            let key = holder.key();
            let Some(closer) = self.closer(at) else { continue };
            let open = state.stage(&self.steps[closer].key()) == Stage::Pending;
            let ours = matches!(state.stage(&key), Stage::Applied | Stage::Already);
            let fallen = state.steps.get(&key).is_some_and(|s| s.fallen);
            if !(open && ours && (fallen || state.stage(&key) == Stage::Applied)) {
                continue;
            }
            let up = match self.ask(&**holder, Question::Check).await? {
                Ok(check) => check,
                // A hold that cannot be asked stops the next apply, with its reason; a begun step goes on without.
                Err(_) => continue,
            };
            if up.is_done() {
                continue;
            }
            if !fallen {
                self.fell(&key, &up)?;
            }
            if let Some(why) = self.make_so(&**holder, &[]).await? {
                return Ok(Some(stopped(&**holder, why)));
            }
        }
        Ok(None)
    }

    /// (b) Every hold that is open around this step is asked right before its apply.
    pub(super) async fn holds_stand(&self, step: &dyn AnyStep<Cx>, blind: &[&str]) -> Result<Option<Why>, RecordError> {
        let state = self.recorder.state()?;
        let Some(here) = self.position(&step.key()) else { return Ok(None) };
        for at in 0..here {
            let holder = &self.steps[at];
            let Some(closer) = self.closer(at) else { continue };
            let up = matches!(state.stage(&holder.key()), Stage::Applied | Stage::Already);
            if here >= closer || !up || blind.contains(&holder.id()) {
                continue;
            }
            match self.ask(&**holder, Question::Check).await? {
                Ok(check) if check.is_done() => {}
                Ok(check) => {
                    let (changes, notes) = self.fell(&holder.key(), &check)?;
                    return Ok(Some(Why::HoldFell { holder: holder.key(), changes, notes }));
                }
                Err(failure) if state.stage(&step.key()) == Stage::Begun => {
                    let note = format!("hold {} could not be asked: {failure}", holder.key());
                    self.checked(&step.key(), "todo", false, vec![note])?;
                }
                Err(failure) => {
                    let Why::Failed { mut error, help, .. } = failed(&failure) else { return Ok(None) };
                    error.insert(0, format!("hold {} cannot be asked, so nothing is begun", holder.key()));
                    let why = Why::Failed { error, effect: Effect::None, help };
                    return self.stop(&step.key(), why).map(Some);
                }
            }
        }
        Ok(None)
    }

    fn fell(&self, key: &StepKey, check: &Check<Value>) -> Result<(Vec<Change>, Vec<String>), RecordError> {
        let (changes, mut notes) = match &check.answer {
            Answer::Todo { changes, .. } => (changes.clone(), Vec::new()),
            Answer::Blocked { problems } => (Vec::new(), problems.iter().map(|p| p.text.clone()).collect()),
            Answer::Manual { ask, .. } => (Vec::new(), vec![ask.clone()]),
            Answer::Waiting { reason, .. } => (Vec::new(), vec![reason.clone()]),
            Answer::Done => (Vec::new(), Vec::new()),
        };
        notes.extend(check.notes.iter().cloned());
        self.recorder.write(Event::HoldFell { key: key.clone(), changes: changes.clone(), notes: notes.clone() })?;
        Ok((changes, notes))
    }

    /// (a) True where the hold is not up and every step that it would guard is done.
    pub(super) async fn needless_unless_done(&self, holder: &dyn AnyStep<Cx>) -> Result<bool, RecordError> {
        if matches!(self.ask(holder, Question::Check).await?, Ok(check) if check.is_done()) {
            return Ok(false);
        }
        self.needless(holder).await
    }

    pub(super) async fn needless(&self, holder: &dyn AnyStep<Cx>) -> Result<bool, RecordError> {
        let Some(at) = self.position(&holder.key()) else { return Ok(false) };
        let Some(closer) = self.closer(at) else { return Ok(false) };
        let state = self.recorder.state()?;
        let instance = holder.key().instance().map(str::to_owned);
        for between in &self.steps[at + 1..closer] {
            let key = between.key();
            if between.holds_until().is_some() || (instance.is_some() && key.instance() != instance.as_deref()) {
                continue;
            }
            if matches!(state.stage(&key), Stage::Applied | Stage::Already) {
                continue;
            }
            // What cannot be asked may have something to do: unknown is not no.
            if !matches!(self.ask(&**between, Question::Check).await?, Ok(check) if check.is_done()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Drops the problems that protect a step that is done, has begun, or is a hold that is not needed.
    pub(super) async fn still_in_the_way(&self, problems: Vec<Problem>) -> Result<Vec<Problem>, RecordError> {
        let state = self.recorder.state()?;
        let mut settled: BTreeMap<StepKey, bool> = BTreeMap::new();
        let mut left = Vec::new();
        for problem in problems {
            let step = problem.protects.as_ref().and_then(|key| self.steps.iter().find(|s| s.key() == *key));
            if let Some(step) = step {
                let key = step.key();
                if !settled.contains_key(&key) {
                    let over = state.stage(&key) != Stage::Pending
                        || matches!(self.ask(&**step, Question::Check).await?, Ok(check) if check.is_done())
                        || (step.holds_until().is_some() && self.needless(&**step).await?);
                    settled.insert(key.clone(), over);
                }
                if settled.get(&key) == Some(&true) {
                    continue;
                }
            }
            left.push(problem);
        }
        Ok(left)
    }

    pub(super) fn position(&self, key: &StepKey) -> Option<usize> {
        self.steps.iter().position(|s| s.key() == *key)
    }

    /// The position of the closer of the hold at `at`; None where it is no hold or the plan has no closer.
    pub(super) fn closer(&self, at: usize) -> Option<usize> {
        let holder = self.steps.get(at)?;
        let key = StepKey::new(holder.holds_until()?, holder.key().instance());
        self.position(&key)
    }
}

/// The before-images of the holders that `closer` closes, by step id.
pub(super) fn held<Cx: Sync>(
    state: &RunState,
    steps: &[Box<dyn AnyStep<Cx>>],
    closer: &StepKey,
) -> BTreeMap<String, Value> {
    let ours =
        |step: &&dyn AnyStep<Cx>| step.holds_until() == Some(closer.id()) && step.key().instance() == closer.instance();
    let before = |step: &dyn AnyStep<Cx>| Some((step.id().to_owned(), state.steps.get(&step.key())?.before.clone()?));
    steps.iter().map(|s| &**s).filter(ours).filter_map(before).collect()
}
