//! Holds: when one is needed, when one must be asked, and when one is put up again.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use serde_json::Value;

use crate::base::check::{Answer, Change, Check, Problem};
use crate::base::fault::Effect;
use crate::base::names::StepKey;

use super::ask::Until;
use super::event::Event;
use super::recorder::RecordError;
use super::run::{Ended, Engine, Question, Reach, Why, failed, stopped};
use super::state::{RunState, Stage};
use super::step::{AnyStep, Risk, Settle};

impl<Cx: Settle> Engine<'_, Cx> {
    /// On a resume: holds that were found taken down, or are down now, are put up again by their own apply. One that
    /// guards nothing any more is left down: what a step between told a person to do may be what took it down.
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
            // What waits or is barred has not fallen; it is asked again right before the next apply.
            if up.is_done() || !(fallen || matches!(up.answer, Answer::Todo { .. })) {
                continue;
            }
            if self.needless(&**holder).await? {
                continue;
            }
            if let (false, Answer::Todo { changes, .. }) = (fallen, up.answer) {
                self.fell(&key, changes, up.notes)?;
            }
            if let Some(stop) = self.make_so(&**holder, &[]).await? {
                return Ok(Some(stop));
            }
        }
        Ok(None)
    }

    /// On a resume: where the step whose turn it is closes a hold, and is barred by what that hold or steps behind it mend,
    /// those are asked again, from the first that mends something on. They were done, and are not any more. What destroys is
    /// never begun again.
    pub(super) async fn ask_what_mends(&self) -> Result<Option<Ended>, RecordError> {
        let state = self.recorder.state()?;
        let settled = |step: &dyn AnyStep<Cx>| matches!(state.stage(&step.key()), Stage::Applied | Stage::Already);
        let Some(here) = self.steps.iter().position(|step| !settled(&**step)) else { return Ok(None) };
        let holders = || (0..here).filter(|at| self.closer(*at) == Some(here));
        let Some(first) = holders().next() else { return Ok(None) };
        // What cannot be asked stops the run when its turn comes.
        let Ok(Check { answer: Answer::Blocked { problems }, .. }) =
            self.ask(&*self.steps[here], Question::Check).await?
        else {
            return Ok(None);
        };
        let instance = self.steps[here].key().instance().map(str::to_owned);
        let mends = |problem: &Problem| {
            (first..here).find(|at| {
                let step = &self.steps[*at];
                problem.mended_by.as_deref() == Some(step.id()) && step.key().instance() == instance.as_deref()
            })
        };
        let Some(from) = problems.iter().map(mends).collect::<Option<Vec<_>>>().and_then(|all| all.into_iter().min())
        else {
            return Ok(None);
        };
        // What a step that has begun lets go is not to be put up behind its back.
        if state.stage(&self.steps[here].key()) == Stage::Begun {
            for at in holders().filter(|at| *at < from) {
                if !self.ask(&*self.steps[at], Question::Check).await?.is_ok_and(|check| check.is_done()) {
                    return Ok(None);
                }
            }
        }
        let again = &self.steps[from..here];
        if again.iter().any(|step| step.risk() == Risk::Destroys) {
            return Ok(None);
        }
        for step in again.iter().map(|step| &**step) {
            let stop = match self.reach(step, Question::Check, Until::Todo).await? {
                Reach::Done(_) => None,
                Reach::Stop(why) => self.stop(step, why)?,
                Reach::Todo { changes, before } => self.make_so_from(step, step.blind_to(), changes, before).await?,
            };
            if stop.is_some() {
                return Ok(stop);
            }
        }
        Ok(None)
    }

    /// (b) Every hold that is open around this step is asked right before its apply. One that was not needed and is
    /// now is put up.
    pub(super) async fn holds_stand(
        &self,
        step: &dyn AnyStep<Cx>,
        blind: &[&str],
    ) -> Result<Option<Ended>, RecordError> {
        let state = self.recorder.state()?;
        let Some(here) = self.position(&step.key()) else { return Ok(None) };
        for at in 0..here {
            let holder = &*self.steps[at];
            let Some(closer) = self.closer(at) else { continue };
            let up = matches!(state.stage(&holder.key()), Stage::Applied | Stage::Already);
            if here >= closer || !up || blind.contains(&holder.id()) {
                continue;
            }
            let check = match self.ask(holder, Question::Check).await? {
                Ok(check) => check,
                Err(failure) if state.stage(&step.key()) == Stage::Begun => {
                    let note = format!("hold {} could not be asked: {failure}", holder.key());
                    self.checked(&step.key(), "todo", false, vec![note])?;
                    continue;
                }
                Err(failure) => {
                    let Why::Failed { mut error, help, .. } = failed(&failure) else { return Ok(None) };
                    error.insert(0, format!("hold {} cannot be asked, so nothing is begun", holder.key()));
                    return self.stop(step, Why::Failed { error, effect: Effect::None, help });
                }
            };
            if check.is_done() {
                continue;
            }
            if state.steps.get(&holder.key()).is_some_and(|s| s.needless) {
                if let Some(stop) = Box::pin(self.make_so(holder, blind)).await? {
                    return Ok(Some(stop));
                }
                continue;
            }
            let notes = check.notes.clone();
            let (changes, notes) = match check.answer {
                Answer::Todo { changes, .. } => (changes, notes),
                // What is on its way is waited for.
                _ => match self.reach(holder, Question::Check, Until::Todo).await? {
                    Reach::Done(_) => continue,
                    Reach::Todo { changes, .. } => (changes, notes),
                    Reach::Stop(why) => return self.stop(step, of_hold(&holder.key(), why)),
                },
            };
            self.fell(&holder.key(), changes.clone(), notes.clone())?;
            return Ok(Some(stopped(step, Why::HoldFell { holder: holder.key(), changes, notes })));
        }
        Ok(None)
    }

    /// (e) The holds to be put up before a step is taken back: those around it that guard its instance, or all, and that
    /// this undo has not seen up yet (`stood`).
    pub(super) fn holds_around(
        &self,
        step: &dyn AnyStep<Cx>,
        stood: &BTreeSet<StepKey>,
    ) -> Result<Vec<usize>, RecordError> {
        let key = step.key();
        let Some(here) = self.position(&key).filter(|_| step.holds_until().is_none()) else { return Ok(Vec::new()) };
        let state = self.recorder.state()?;
        let around = |at: &usize| {
            let holder = self.steps[*at].key();
            let guards = holder.instance().is_none() || holder.instance() == key.instance();
            let ours = matches!(state.stage(&holder), Stage::Applied | Stage::Already | Stage::Begun);
            guards && ours && !stood.contains(&holder) && self.closer(*at).is_some_and(|closer| here < closer)
        };
        Ok((0..here).filter(around).collect())
    }

    /// Puts a hold up for an undo, where it is not, by the holder's apply.
    pub(super) async fn put_up(&self, holder: &dyn AnyStep<Cx>) -> Result<Option<Ended>, RecordError> {
        match self.ask(holder, Question::Check).await? {
            Ok(check) if check.is_done() => Ok(None),
            Ok(_) => self.make_so(holder, &[]).await,
            Err(failure) => self.stop(holder, failed(&failure)),
        }
    }

    fn fell(&self, key: &StepKey, changes: Vec<Change>, notes: Vec<String>) -> Result<(), RecordError> {
        self.recorder.write(Event::HoldFell { key: key.clone(), changes, notes }).map(|_| ())
    }

    /// (a) True where the hold is not up and every step that it would guard is done.
    pub(super) async fn needless_unless_done(&self, holder: &dyn AnyStep<Cx>) -> Result<bool, RecordError> {
        if self.is_so(holder).await? {
            return Ok(false);
        }
        self.needless(holder).await
    }

    pub(super) async fn needless(&self, holder: &dyn AnyStep<Cx>) -> Result<bool, RecordError> {
        let Some(at) = self.position(&holder.key()) else { return Ok(false) };
        let Some(closer) = self.closer(at) else { return Ok(false) };
        let state = self.recorder.state()?;
        let instance = holder.key().instance().map(str::to_owned);
        let guarded = |step: &&dyn AnyStep<Cx>| {
            let key = step.key();
            let ours = instance.is_none() || key.instance() == instance.as_deref();
            let settled = matches!(state.stage(&key), Stage::Applied | Stage::Already);
            step.holds_until().is_none() && ours && !settled
        };
        let between: Vec<_> = self.steps[at + 1..closer].iter().map(|step| &**step).filter(guarded).collect();
        let Some((first, rest)) = between.split_first() else { return Ok(true) };
        if !self.is_so(*first).await? {
            return Ok(false);
        }
        // Where the first is so, all may be: a run with nothing to do. They are asked side by side, and none is broken
        // off: a command or a fetch that is killed in the middle leaves something behind.
        let so = join_all(rest.iter().map(|step| self.is_so(*step))).await;
        so.into_iter().try_fold(true, |all, so| Ok(all && so?))
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
                        || self.is_so(&**step).await?
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

    /// With what a hold mends that is up by the journal, why it cannot be put up where it is barred: a resume would be promised
    /// in vain.
    pub(super) async fn with_what_bars(&self, mut problems: Vec<Problem>) -> Result<Vec<Problem>, RecordError> {
        let state = self.recorder.state()?;
        let mut bars = Vec::new();
        for (at, holder) in self.steps.iter().enumerate() {
            let key = holder.key();
            let ours = matches!(state.stage(&key), Stage::Applied | Stage::Already) && self.closer(at).is_some();
            if !ours || !problems.iter().any(|problem| problem.mended_by.as_deref() == Some(holder.id())) {
                continue;
            }
            // What it waits for, or cannot ask, its own turn says.
            if let Ok(Check { answer: Answer::Blocked { problems }, .. }) = self.ask(&**holder, Question::Check).await?
            {
                let told = |problem: Problem| {
                    let text = format!("{key} cannot do that as long as this is so: {}", problem.text);
                    Problem { text, ..problem }
                };
                bars.extend(problems.into_iter().map(told));
            }
        }
        problems.extend(bars);
        Ok(problems)
    }

    pub(super) fn position(&self, key: &StepKey) -> Option<usize> {
        self.steps.iter().position(|s| s.key() == *key)
    }

    /// The position of the closer of the hold at `at`; None where it is no hold or the plan has no closer.
    pub(super) fn closer(&self, at: usize) -> Option<usize> {
        closer(self.steps, at)
    }
}

/// The position of the closer of the hold at `at`; None where it is no hold or the plan has no closer.
pub(super) fn closer<Cx: Sync>(steps: &[Box<dyn AnyStep<Cx>>], at: usize) -> Option<usize> {
    let holder = steps.get(at)?;
    let key = StepKey::new(holder.holds_until()?, holder.key().instance());
    steps.iter().position(|step| step.key() == key)
}

/// A stop at a step that comes from a hold around it.
fn of_hold(holder: &StepKey, why: Why) -> Why {
    match why {
        Why::Failed { mut error, help, .. } => {
            error.insert(0, format!("hold {holder} does not stand"));
            Why::Failed { error, effect: Effect::None, help }
        }
        Why::Blocked(mut problems) => {
            for problem in &mut problems {
                problem.text = format!("hold {holder}: {}", problem.text);
            }
            Why::Blocked(problems)
        }
        other => other,
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
