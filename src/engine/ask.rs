//! Asking: one question, or a question repeated until there is an answer to act on.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::base::check::{Answer, Check};
use crate::base::fault::{Effect, Failure};
use crate::base::names::StepKey;
use crate::base::wait::{Backoff, show};

use super::event::Event;
use super::recorder::RecordError;
use super::run::{Besides, Engine, Hand, Memory, Question, Reach, Why, failed};
use super::step::{AnyStep, Risk, Settle};
use super::stir::{Listening, Stir};

/// What ends the asking, besides Done, a limit, and what stops the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// Any answer that needs somebody: Todo, Manual, Blocked. Nobody is asked and nothing is written of it; it is given
    /// as a Todo with nothing in it.
    Turn,
    /// Todo.
    Todo,
    /// Nothing else: a Todo is an effect that is not visible yet.
    So,
}

/// What is waited for; each has its own limit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wait {
    Effect,
    Lock,
    Person,
}

impl Wait {
    fn of<B>(answer: &Answer<B>) -> Self {
        match answer {
            Answer::Manual { .. } => Self::Person,
            Answer::Waiting { foreign: true, .. } => Self::Lock,
            _ => Self::Effect,
        }
    }
}

impl<Cx: Settle> Engine<'_, Cx> {
    /// For a run of one step: the preflight's problems that protect it.
    pub(super) async fn guarded(&self, step: &dyn AnyStep<Cx>) -> Result<Option<Why>, RecordError> {
        let Some(guard) = self.guard else { return Ok(None) };
        let seen = Memory { since: None, got: Vec::new(), held: BTreeMap::new() };
        let check = match guard.check(self.cx, seen.seen(&self.info)).await {
            Ok(check) => check,
            Err(failure) => return Ok(Some(failed(&failure))),
        };
        let Answer::Blocked { problems } = check.answer else { return Ok(None) };
        let problems: Vec<_> =
            problems.into_iter().filter(|p| p.bars(&step.key(), step.risk() != Risk::Reads)).collect();
        // Nothing has to be protected where nothing will be done.
        if problems.is_empty() || self.is_so(step).await? {
            return Ok(None);
        }
        Ok(Some(Why::Blocked(problems)))
    }

    /// Asks until there is an answer to act on.
    pub(super) async fn reach(
        &self,
        step: &dyn AnyStep<Cx>,
        question: Question<'_>,
        until: Until,
    ) -> Result<Reach, RecordError> {
        let key = step.key();
        let clock = self.recorder.clock();
        let back = matches!(question, Question::Back(_));
        let (mut pauses, mut since) = (Backoff::poll(clock), clock.instant());
        // An answer that flickers gets no new time; only a person's act begins anew.
        let (mut spent, mut last_wait) = (BTreeMap::<Wait, Duration>::new(), Wait::Effect);
        let (mut last_word, mut last_why) = ("", String::new());
        let mut stir = Stir::new(clock);
        loop {
            if self.recorder.interrupted() {
                return Ok(Reach::Stop(Why::Interrupted));
            }
            let asked = clock.instant();
            let ask = self.ask(step, question);
            let check = if step.cut_short() { stir.unless_heard(ask).await } else { Some(stir.beside(ask).await) };
            let Some(check) = check else {
                stir.pause(&mut pauses, asked, || self.listening(step)).await;
                continue;
            };
            let check = match check? {
                Ok(check) => check,
                Err(failure) => {
                    self.checked(&key, "error", back, failure.chain())?;
                    return Ok(Reach::Stop(failed(&failure)));
                }
            };
            if until == Until::Turn && !matches!(check.answer, Answer::Done | Answer::Waiting { .. }) {
                return Ok(Reach::Todo { changes: Vec::new(), before: Value::Null });
            }
            let (word, notes, stays) = (check.word(), check.notes.clone(), check.stays.clone());
            let fresh = word != last_word;
            let wait = Wait::of(&check.answer);
            if fresh {
                pauses = if wait == Wait::Person { Backoff::hands(clock) } else { Backoff::poll(clock) };
            }
            if (wait == Wait::Person) == (last_wait == Wait::Person) {
                *spent.entry(last_wait).or_default() += since.elapsed();
            } else {
                spent.clear();
            }
            (since, last_wait) = (clock.instant(), wait);
            let spent = spent.get(&wait).copied().unwrap_or_default();
            let late = check.late.filter(|(after, _)| spent >= clock.scaled(*after)).map(|(_, advice)| advice);
            let (why, limit) = match check.answer {
                Answer::Done => {
                    self.checked(&key, word, back, notes.clone())?;
                    return Ok(Reach::Done(Besides { notes, stays }));
                }
                Answer::Todo { changes, before } if until != Until::So => {
                    self.checked(&key, word, back, notes)?;
                    return Ok(Reach::Todo { changes, before });
                }
                Answer::Todo { changes, .. } => {
                    let lines: Vec<_> = changes.iter().map(ToString::to_string).collect();
                    (lines.join("; "), Some(self.limit(step)))
                }
                Answer::Blocked { problems } => {
                    let problems = if back { problems } else { self.still_in_the_way(problems).await? };
                    if problems.is_empty() {
                        self.checked(&key, "done", back, notes.clone())?;
                        return Ok(Reach::Done(Besides { notes, stays }));
                    }
                    let problems = if back { problems } else { self.with_what_bars(problems).await? };
                    self.checked(&key, word, back, notes)?;
                    return Ok(Reach::Stop(Why::Blocked(problems)));
                }
                Answer::Manual { ask, hint, hands, before } => {
                    if fresh || ask != last_why {
                        self.checked(&key, word, back, notes.clone())?;
                        let asked = (ask.clone(), hint.clone(), hands.clone());
                        let (ask, hint, hands) = asked;
                        self.recorder.write(Event::Asked { key: key.clone(), ask, hint, hands, before })?;
                    }
                    match self.policy.hand {
                        Hand::Stop => return Ok(Reach::Stop(Why::Manual { ask, hint, hands })),
                        Hand::WaitFor(limit) if spent > limit => {
                            return Ok(Reach::Stop(Why::Manual { ask, hint, hands }));
                        }
                        Hand::Wait | Hand::WaitFor(_) => (ask, None),
                    }
                }
                Answer::Waiting { reason, foreign } => {
                    let reason = late.map_or(reason.clone(), |advice| format!("{reason}; {advice}"));
                    (reason, Some(if foreign { self.policy.patience } else { self.limit(step) }))
                }
            };
            if fresh || why != last_why {
                if word != "manual" {
                    // Who else keeps it from going on belongs into the report; its own waits are its usual course.
                    let foreign = (wait == Wait::Lock).then(|| format!("waited: {why}"));
                    self.checked(&key, word, back, notes.into_iter().chain(foreign).collect())?;
                }
                self.recorder.ear().waiting(&key, word, &why);
            }
            if let Some(limit) = limit.filter(|limit| spent > *limit) {
                let error = vec![format!("still not so after {}: {why}", show(limit))];
                let help = vec!["look at the system named above; `pvemig resume` asks again".to_owned()];
                return Ok(Reach::Stop(Why::Failed { error, effect: Effect::Maybe, help }));
            }
            (last_word, last_why) = (word, why);
            if wait == Wait::Person || back {
                pauses.pause().await;
                continue;
            }
            stir.pause(&mut pauses, asked, || self.listening(step)).await;
            if let Some(line) = stir.complaint() {
                self.checked(&key, word, back, vec![line])?;
            }
        }
    }

    fn listening<'e>(&'e self, step: &'e dyn AnyStep<Cx>) -> Listening<'e> {
        Box::pin(async move {
            match self.memory(step) {
                Ok(memory) => step.stir(self.cx, memory.seen(&self.info)).await,
                // The next look says it.
                Err(_) => std::future::pending().await,
            }
        })
    }

    pub(super) async fn ask(
        &self,
        step: &dyn AnyStep<Cx>,
        question: Question<'_>,
    ) -> Result<Result<Check<Value>, Failure>, RecordError> {
        let memory = self.memory(step)?;
        let seen = memory.seen(&self.info);
        Ok(match question {
            Question::Check => step.check(self.cx, seen).await,
            Question::Back(before) => {
                let check = step.back(self.cx, before, seen).await;
                check.and_then(|check| check.try_map(|()| Ok::<_, Failure>(Value::Null)))
            }
        })
    }

    /// Whether a step's check says Done, now or a moment ago.
    pub(super) async fn is_so(&self, step: &dyn AnyStep<Cx>) -> Result<bool, RecordError> {
        // What cannot be asked may have something to do: unknown is not no.
        Ok(matches!(self.ask_once(step).await?, Ok(check) if check.is_done()))
    }

    /// A step's check; where it said Done a moment ago, that.
    pub(super) async fn ask_once(&self, step: &dyn AnyStep<Cx>) -> Result<Result<Check<Value>, Failure>, RecordError> {
        if let Some(check) = self.found(step)? {
            return Ok(Ok(check));
        }
        let (change, at) = (self.recorder.change()?, self.recorder.clock().instant());
        let check = self.ask(step, Question::Check).await?;
        if let Ok(check) = &check {
            self.lately.keep(step.key(), change, at, check);
        }
        Ok(check)
    }

    /// What a step's check said a moment ago, where that was Done.
    pub(super) fn found(&self, step: &dyn AnyStep<Cx>) -> Result<Option<Check<Value>>, RecordError> {
        Ok(self.lately.found(&step.key(), self.recorder.change()?, self.recorder.clock().instant()))
    }

    pub(super) fn memory(&self, step: &dyn AnyStep<Cx>) -> Result<Memory, RecordError> {
        Ok(Memory::of(&self.recorder.state()?, self.steps, &step.key()))
    }

    pub(super) fn checked(&self, key: &StepKey, word: &str, back: bool, notes: Vec<String>) -> Result<(), RecordError> {
        self.recorder.write(Event::Checked { key: key.clone(), answer: word.to_owned(), back, notes }).map(|_| ())
    }
}
