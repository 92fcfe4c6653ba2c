//! Backwards: back, undo, back, in the order that the holds ask for.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::base::check::{Answer, Check, Problem, Symbol};
use crate::base::fault::{Effect, Failure};
use crate::base::names::StepKey;
use crate::base::permit::{Permit, Thing};

use super::ask::Until;
use super::event::{Event, Outcome};
use super::hold::closer;
use super::recorder::RecordError;
use super::run::{Besides, Ended, Engine, Memory, Question, Reach, Why, broke_off, failed, passable, stopped};
use super::settle::LOOKS_AGAIN;
use super::state::RunState;
use super::step::{AnyStep, Risk, RunInfo, Settle};

impl<Cx: Settle> Engine<'_, Cx> {
    /// Undoes everything that is owed, last first; `past` has the keys of steps that cannot be undone and may be passed.
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
        let state = self.recorder.state()?;
        for step in self.steps.iter().filter(|step| past.contains(step.key().as_str())) {
            let key = step.key();
            let owed = state.steps.get(&key).is_some_and(|step| step.owes());
            let planned = state.opened.plan.iter().find(|planned| planned.key == key);
            if !owed || planned.is_some_and(|planned| state.may_be_passed(planned)) {
                continue;
            }
            let text = format!("{} can be undone, so it is not passed", step.key());
            let problem = Problem::new(text, format!("leave `--past {}` out", step.key()));
            return Ok(stopped(&**step, Why::Blocked(vec![problem])));
        }
        if let Some(ended) = self.settle_lost(past).await? {
            return Ok(ended);
        }
        if let Some(ended) = self.consents_needed(past).await? {
            return Ok(ended);
        }
        let mut stood = BTreeSet::new();
        for step in undo_order(self.steps).into_iter().map(|at| &*self.steps[at]) {
            // Asked anew for each: a hold that was somebody else's is owed once this undo has put it up.
            if !self.recorder.state()?.steps.get(&step.key()).is_some_and(|s| s.owes()) {
                continue;
            }
            if let Some(stop) = self.take_back(step, past, &mut stood).await? {
                return Ok(stop);
            }
        }
        self.recorder.write(Event::Closed { outcome: Outcome::Undone })?;
        Ok(Ended::Undone)
    }

    async fn consents_needed(&self, past: &BTreeSet<String>) -> Result<Option<Ended>, RecordError> {
        let (state, granted) = (self.recorder.state()?, self.recorder.granted()?);
        Ok(lacking(self.cx, self.steps, (&state, &self.info), past, &granted).await)
    }

    /// One step's turn; `stood` are the holds that this undo has seen up.
    async fn take_back(
        &self,
        step: &dyn AnyStep<Cx>,
        past: &BTreeSet<String>,
        stood: &mut BTreeSet<StepKey>,
    ) -> Result<Option<Ended>, RecordError> {
        let key = step.key();
        let state = self.recorder.state()?;
        if past.contains(step.key().as_str()) {
            let mut notes = vec![format!("passed by `--past {}`: what it did stays", step.key())];
            notes.extend(left_by(self.cx, self.steps, (&state, &self.info), step).await);
            self.recorder.write(Event::Undoing { key: key.clone() })?;
            self.recorder.write(Event::Undone { key, passed: true, stays: notes.clone(), notes })?;
            return Ok(None);
        }
        let before = before_of(&state, step);
        let question = Question::Back(&before);
        // (e) Where there is something to take back, what guards the step goes up first. What only waits needs nobody.
        let holds = self.holds_around(step, stood)?;
        if !holds.is_empty() {
            match self.reach(step, question, Until::Turn).await? {
                Reach::Done(Besides { notes, stays }) => {
                    self.recorder.write(Event::Undone { key, passed: false, notes, stays })?;
                    return Ok(None);
                }
                Reach::Stop(why) => return self.stop(step, why),
                Reach::Todo { .. } => {}
            }
        }
        for holder in holds.into_iter().map(|at| &*self.steps[at]) {
            // Its API may be down by our own doing. Only one that this run knows to stand is passed for that.
            let stands = state.steps.get(&holder.key()).is_some_and(|held| held.up);
            if stands
                && step.blind_to().contains(&holder.id())
                && let Err(failure) = self.ask(holder, Question::Check).await?
            {
                let note = format!("hold {} could not be asked: {failure}", holder.key());
                self.checked(&key, "todo", true, vec![note])?;
                continue;
            }
            if let Some(stop) = self.put_up(holder).await? {
                return Ok(Some(stop));
            }
            stood.insert(holder.key());
        }
        let mut reach = self.reach(step, question, Until::Todo).await?;
        let mut looks = LOOKS_AGAIN;
        let Besides { notes, stays } = loop {
            match reach {
                Reach::Done(besides) => break besides,
                Reach::Stop(why) => return self.stop(step, why),
                Reach::Todo { .. } => {}
            }
            if self.recorder.interrupted() {
                return self.stop(step, Why::Interrupted);
            }
            self.recorder.write(Event::Undoing { key: key.clone() })?;
            let destroys = step.undo_destroys(&before).is_ok_and(|things| !things.is_empty());
            let permit = Permit::mint(self.recorder.desk(&key, destroys || step.risk() == Risk::Destroys));
            let memory = self.memory(step)?;
            let Err(failure) = step.undo(self.cx, &before, memory.seen(&self.info), &permit).await else {
                match self.reach(step, question, Until::So).await? {
                    Reach::Done(besides) => break besides,
                    Reach::Todo { .. } => break Besides { notes: Vec::new(), stays: Vec::new() },
                    Reach::Stop(why @ (Why::Manual { .. } | Why::Interrupted)) => return self.stop(step, why),
                    Reach::Stop(why) => return self.stuck(step, why),
                }
            };
            if !failure.fault().stale() || looks == 0 {
                return match broke_off(&failure) {
                    why @ Why::Interrupted => self.stop(step, why),
                    why => self.stuck(step, why),
                };
            }
            looks -= 1;
            reach = self.look_again(step, question, &failure).await?;
        };
        self.recorder.write(Event::Undone { key, passed: false, notes, stays })?;
        Ok(None)
    }

    fn stuck(&self, step: &dyn AnyStep<Cx>, why: Why) -> Result<Option<Ended>, RecordError> {
        let (mut error, effect, help): (Vec<String>, _, Vec<String>) = match why {
            Why::Failed { mut error, help, effect } => {
                let said = if effect == Effect::None {
                    "nothing was changed by the failing call"
                } else {
                    "something may have been changed"
                };
                error.push(said.to_owned());
                (error, effect, help)
            }
            Why::Blocked(problems) => {
                let (error, help) = problems.into_iter().map(|p| (p.text, p.help)).unzip();
                (error, Effect::Partial, help)
            }
            other => return Ok(Some(stopped(step, other))),
        };
        let help = passable(self.recorder.state()?.phase, help);
        let event = Event::UndoFailed { key: step.key(), error: error.clone(), effect, help: help.clone() };
        self.write_failure(event, &mut error)?;
        Ok(Some(stopped(step, Why::Stuck { error, help })))
    }
}

/// The steps in the order in which they are undone: last first, but holders with the same closer are released together, in list order, when everything behind
/// the first of them is undone (owners first, replicas last).
pub fn undo_order<Cx: Sync>(steps: &[Box<dyn AnyStep<Cx>>]) -> Vec<usize> {
    let mut order = Vec::new();
    for at in (0..steps.len()).rev() {
        let Some(end) = closer(steps, at) else {
            order.push(at);
            continue;
        };
        let group: Vec<usize> = (0..steps.len()).filter(|i| closer(steps, *i) == Some(end)).collect();
        if group.first() == Some(&at) {
            order.extend(group);
        }
    }
    order
}

/// Everything that an undo would destroy is named before anything is begun, and so is a step that cannot be undone: the
/// stop that it comes to without more consents than those `granted`. None: nothing is lacking.
pub async fn lacking<Cx: Sync>(
    cx: &Cx,
    steps: &[Box<dyn AnyStep<Cx>>],
    (state, info): (&RunState, &RunInfo),
    past: &BTreeSet<String>,
    granted: &BTreeSet<Thing>,
) -> Option<Ended> {
    let (mut things, mut notes, mut first) = (Vec::new(), Vec::new(), None);
    let owed = |at: &usize| {
        let key = steps[*at].key();
        state.steps.get(&key).is_some_and(|s| s.owes()) && !past.contains(key.as_str())
    };
    for step in undo_order(steps).into_iter().filter(owed).map(|at| &*steps[at]) {
        let before = before_of(state, step);
        let destroyed = match step.undo_destroys(&before) {
            Ok(destroyed) => destroyed,
            Err(failure) => return Some(stopped(step, failed(&failure))),
        };
        let missing: Vec<_> = destroyed.into_iter().filter(|t| !granted.contains(t)).collect();
        let lost = step.risk() == Risk::Destroys;
        if missing.is_empty() && !lost {
            continue;
        }
        match step.back(cx, &before, Memory::of(state, steps, &step.key()).seen(info)).await {
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
            return Some(stopped(step, Why::Consent { things: Vec::new(), past: Some(step.key()), notes }));
        }
        things.extend(missing);
        first.get_or_insert(step);
    }
    first.map(|first| stopped(first, Why::Consent { things, past: None, notes }))
}

/// How a step's undo stands now, by its own account.
///
/// # Errors
/// What keeps it from being asked.
pub async fn back_of<Cx: Sync>(
    cx: &Cx,
    steps: &[Box<dyn AnyStep<Cx>>],
    (state, info): (&RunState, &RunInfo),
    step: &dyn AnyStep<Cx>,
) -> Result<Check<()>, Failure> {
    let before = before_of(state, step);
    step.back(cx, &before, Memory::of(state, steps, &step.key()).seen(info)).await
}

/// What a step leaves where an undo passes it, by its own account of what is not as before.
pub async fn left_by<Cx: Sync>(
    cx: &Cx,
    steps: &[Box<dyn AnyStep<Cx>>],
    (state, info): (&RunState, &RunInfo),
    step: &dyn AnyStep<Cx>,
) -> Vec<String> {
    let check = match back_of(cx, steps, (state, info), step).await {
        Ok(check) => check,
        Err(failure) => return vec![format!("how it stands could not be asked: {failure}")],
    };
    let mut lines = check.notes;
    match check.answer {
        Answer::Todo { changes, .. } => lines.extend(changes.iter().map(|change| {
            // What happened has a sentence of its own, and no sign before it.
            if change.symbol == Symbol::Act { change.what.clone() } else { change.to_string() }
        })),
        Answer::Blocked { problems } => lines.extend(problems.into_iter().map(|problem| problem.text)),
        Answer::Waiting { reason, .. } => lines.push(reason),
        Answer::Manual { ask, .. } => lines.push(ask),
        Answer::Done => {}
    }
    lines
}

/// What a step's `back` is asked with: the before-image, or for a reading step what it said when it asked.
pub(super) fn before_of<Cx: Sync>(state: &RunState, step: &dyn AnyStep<Cx>) -> Value {
    let own = state.steps.get(&step.key());
    own.and_then(|s| s.before.clone().or_else(|| s.asked.clone())).unwrap_or(Value::Null)
}
