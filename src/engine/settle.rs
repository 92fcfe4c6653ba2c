//! What a crash or somebody else left in the air: calls whose end was not seen, and answers that were out of date.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, select};

use crate::base::fault::{Effect, Failure};
use crate::base::wait::{Backoff, show};

use super::ask::Until;
use super::recorder::RecordError;
use super::run::{Ended, Engine, Question, Reach, Why, failed};
use super::state::Stage;
use super::step::{AnyStep, Lost, Settle, Settled};
use super::undo::before_of;

/// How often a step looks again where what it had seen was out of date by the time of its change.
pub(super) const LOOKS_AGAIN: u32 = 3;

impl<Cx: Settle> Engine<'_, Cx> {
    /// Law 5: calls whose end was not seen are settled before anything else is asked or changed. What the steps in
    /// `past` left is passed with them.
    pub(super) async fn settle_lost(&self, past: &BTreeSet<String>) -> Result<Option<Ended>, RecordError> {
        let state = self.recorder.state()?;
        for step in self.steps.iter().filter(|step| !past.contains(step.key().as_str())) {
            for lost in state.steps.get(&step.key()).map(|s| s.lost()).unwrap_or_default() {
                if let Some(why) = self.settle(&**step, &lost).await? {
                    return self.stop(&**step, why);
                }
            }
        }
        Ok(None)
    }

    async fn settle(&self, step: &dyn AnyStep<Cx>, lost: &Lost) -> Result<Option<Why>, RecordError> {
        let key = step.key();
        let state = self.recorder.state()?;
        self.recorder.ear().waiting(&key, "settling", &lost.note.text);
        let Some(settled) = self.unless_interrupted(self.cx.settle(lost)).await else {
            return Ok(Some(Why::Interrupted));
        };
        let note = match settled {
            Err(failure) => {
                // It stays lost, whatever became of the question.
                let Why::Failed { error, help, .. } = failed(&failure) else { return Ok(None) };
                return Ok(Some(Why::Failed { error, effect: Effect::Maybe, help }));
            }
            Ok(Settled::Over(how)) => format!("settled `{}`: {how}", lost.note.text),
            Ok(Settled::NoTrace) => format!("settled `{}`: there is no trace of it", lost.note.text),
            Ok(Settled::Unknown(why)) => {
                // Nobody can tell, so the world is watched for as long as the effect may take to show.
                let undoing = matches!(state.stage(&key), Stage::Undoing | Stage::UndoFailed);
                let before = before_of(&state, step);
                let question = if undoing { Question::Back(&before) } else { Question::Check };
                let Some(watched) = self.watch_until_done(step, question).await? else {
                    return Ok(Some(Why::Interrupted));
                };
                format!("could not settle `{}`: {why}; watched for {}", lost.note.text, show(watched))
            }
        };
        self.checked(&key, "settled", false, vec![note])?;
        Ok(None)
    }

    /// What a question comes to that may be waited for long; None where the operator interrupted. It only looks, so it
    /// can be broken off.
    async fn unless_interrupted<T>(&self, question: impl Future<Output = T>) -> Option<T> {
        let (mut question, mut pauses) = (pin!(question), Backoff::poll(self.recorder.clock()));
        loop {
            match select(question.as_mut(), pin!(pauses.pause())).await {
                Either::Left((answer, _)) => return Some(answer),
                Either::Right(_) if self.recorder.interrupted() => return None,
                Either::Right(_) => {}
            }
        }
    }

    /// How long it was watched; None where the operator interrupted.
    async fn watch_until_done(
        &self,
        step: &dyn AnyStep<Cx>,
        question: Question<'_>,
    ) -> Result<Option<Duration>, RecordError> {
        let clock = self.recorder.clock();
        let (start, mut pauses) = (clock.instant(), Backoff::poll(clock));
        while start.elapsed() < self.limit(step) {
            if self.recorder.interrupted() {
                return Ok(None);
            }
            if matches!(self.ask(step, question).await?, Ok(check) if check.is_done()) {
                break;
            }
            pauses.pause().await;
        }
        Ok(Some(start.elapsed()))
    }

    /// After a change that was refused because what it went by was out of date: nothing was changed by it, so the step
    /// is asked again.
    pub(super) async fn look_again(
        &self,
        step: &dyn AnyStep<Cx>,
        question: Question<'_>,
        failure: &Failure,
    ) -> Result<Reach, RecordError> {
        let back = matches!(question, Question::Back(_));
        self.checked(&step.key(), "again", back, vec![format!("looked again: {failure}")])?;
        Backoff::poll(self.recorder.clock()).pause().await;
        self.reach(step, question, Until::Todo).await
    }
}
