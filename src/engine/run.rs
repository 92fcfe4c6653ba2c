//! Forwards: each step's check, its apply, and its check again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::base::check::{Change, Hands, Problem};
use crate::base::fault::{Effect, Failure};
use crate::base::names::StepKey;
use crate::base::permit::{Permit, Refused, Thing};

use super::ask::Until;
use super::event::{Event, Outcome};
use super::hold::held;
use super::lately::Lately;
use super::recorder::{RecordError, Recorder, whole};
use super::settle::LOOKS_AGAIN;
use super::state::{Phase, RunState, Stage};
use super::step::{AnyStep, Got, Risk, RunInfo, Seen, Settle};

/// What the engine does where a person must act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hand {
    /// Stop at once and say what is asked for.
    Stop,
    /// Wait for as long as it takes.
    Wait,
    /// Wait for so long.
    WaitFor(Duration),
}

/// How long the engine waits for what.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Where a person must act.
    pub hand: Hand,
    /// For somebody else's lock (the site's `patience`).
    pub patience: Duration,
    /// In place of every step's own limit; for tests that want a limit to pass.
    pub limit: Option<Duration>,
}

/// Why a run stopped before its end.
#[derive(Debug, Clone)]
pub enum Why {
    /// A call or a question failed, or an effect did not become visible in time.
    Failed {
        /// The error and its causes, outermost first.
        error: Vec<String>,
        /// What may have been changed.
        effect: Effect,
        /// What to do next.
        help: Vec<String>,
    },
    /// Waiting will not help.
    Blocked(Vec<Problem>),
    /// A person must act.
    Manual {
        /// What for.
        ask: String,
        /// What helps.
        hint: Option<String>,
        /// The act as data.
        hands: Option<Hands>,
    },
    /// A hold does not stand any more, by somebody else's doing.
    HoldFell {
        /// The holding step.
        holder: StepKey,
        /// What its check found.
        changes: Vec<Change>,
        /// Who, as far as it can be seen.
        notes: Vec<String>,
    },
    /// The undo of a step went wrong.
    Stuck {
        /// The error and its causes, outermost first.
        error: Vec<String>,
        /// What to do next.
        help: Vec<String>,
    },
    /// Undo would destroy these, or pass this step; nothing was begun.
    Consent {
        /// The things that the operator has to name.
        things: Vec<Thing>,
        /// An applied step that cannot be undone.
        past: Option<StepKey>,
        /// What the steps say about them (bytes, what cannot come back).
        notes: Vec<String>,
    },
    /// The operator interrupted.
    Interrupted,
}

/// A stop: where and why.
#[derive(Debug, Clone)]
pub struct Stop {
    /// The step.
    pub key: StepKey,
    /// Its title.
    pub title: String,
    /// Why.
    pub why: Why,
}

/// How a run ended in this process.
#[derive(Debug, Clone)]
pub enum Ended {
    /// Every step is done.
    Done,
    /// Everything is back.
    Undone,
    /// It stopped.
    Stopped(Box<Stop>),
}

/// A plan at work: steps, estate, recorder.
pub struct Engine<'a, Cx: Settle> {
    /// The estate.
    pub cx: &'a Cx,
    /// The plan's steps, in order.
    pub steps: &'a [Box<dyn AnyStep<Cx>>],
    /// For a run of one step: the blueprint's preflight, whose problems that protect the step are asked first.
    pub guard: Option<&'a dyn AnyStep<Cx>>,
    /// The run's writer.
    pub recorder: Arc<Recorder>,
    /// How long to wait for what.
    pub policy: Policy,
    /// This run and the others.
    pub info: RunInfo,
    /// What was found a moment ago.
    pub lately: Lately,
}

/// Which question is asked.
#[derive(Clone, Copy)]
pub(super) enum Question<'q> {
    Check,
    Back(&'q Value),
}

pub(super) enum Reach {
    Done(Besides),
    Todo { changes: Vec<Change>, before: Value },
    Stop(Why),
}

/// What is said besides that it is so.
pub(super) struct Besides {
    pub(super) notes: Vec<String>,
    /// Those of the notes that say what an undo leaves as it is.
    pub(super) stays: Vec<String>,
}

pub(super) struct Memory {
    pub(super) since: Option<Value>,
    pub(super) got: Vec<Got>,
    pub(super) held: BTreeMap<String, Value>,
}

impl Memory {
    /// What a run knows of a step.
    pub(super) fn of<Cx: Sync>(state: &RunState, steps: &[Box<dyn AnyStep<Cx>>], key: &StepKey) -> Self {
        let own = state.steps.get(key);
        Self {
            since: own.and_then(|s| s.before.clone()),
            got: own.map(|s| s.got()).unwrap_or_default(),
            held: held(state, steps, key),
        }
    }

    pub(super) fn seen<'m>(&'m self, info: &'m RunInfo) -> Seen<'m, Value> {
        Seen { since: self.since.as_ref(), got: &self.got, held: &self.held, run: info }
    }
}

pub(super) fn failed(failure: &Failure) -> Why {
    Why::Failed {
        error: failure.chain(),
        effect: failure.fault().effect(),
        help: failure.fault().help().into_iter().collect(),
    }
}

/// What ended an apply or undo: the interrupt only where that is what kept the next change from going out.
pub(super) fn broke_off(failure: &Failure) -> Why {
    if failure.chain().contains(&Refused::Interrupted.to_string()) { Why::Interrupted } else { failed(failure) }
}

impl<Cx: Settle> Engine<'_, Cx> {
    /// Runs the plan from its first step that is not settled, to its end or to the first stop.
    ///
    /// # Errors
    /// The journal cannot be written; nothing is changed from there on.
    pub async fn forward(&self) -> Result<Ended, RecordError> {
        let ended = self.forward_steps().await;
        let finished = self.recorder.finish();
        let ended = ended?;
        finished?;
        Ok(ended)
    }

    async fn forward_steps(&self) -> Result<Ended, RecordError> {
        if let Some(stop) = self.settle_lost(&BTreeSet::new()).await? {
            return Ok(stop);
        }
        if let Some(stop) = self.put_up_fallen().await? {
            return Ok(stop);
        }
        if let Some(stop) = self.ask_what_mends().await? {
            return Ok(stop);
        }
        for step in self.steps {
            let stage = self.recorder.state()?.stage(&step.key());
            if matches!(stage, Stage::Applied | Stage::Already) {
                continue;
            }
            if let Some(stop) = self.turn(&**step, stage).await? {
                return Ok(stop);
            }
            // It was begun by an earlier resume, perhaps once more: what comes behind it may be so no more.
            if stage == Stage::Begun
                && let Some(stop) = self.ask_what_mends().await?
            {
                return Ok(stop);
            }
        }
        if self.recorder.state()?.phase == Phase::Forward {
            self.recorder.write(Event::Closed { outcome: Outcome::Done })?;
        }
        Ok(Ended::Done)
    }

    /// One step's turn. None: it is settled.
    async fn turn(&self, step: &dyn AnyStep<Cx>, stage: Stage) -> Result<Option<Ended>, RecordError> {
        let key = step.key();
        if stage == Stage::Pending {
            if let Some(why) = self.guarded(step).await? {
                return self.stop(step, why);
            }
            if step.holds_until().is_some() && self.needless_unless_done(step).await? {
                let notes = vec!["not needed: nothing that it would guard has to be done".to_owned()];
                self.recorder.write(Event::AlreadySo { key, needless: true, notes })?;
                return Ok(None);
            }
        }
        // A hold before it may have asked it a moment ago; a no is asked again.
        let found = if stage == Stage::Pending { self.found(step)? } else { None };
        let reached = match found {
            Some(check) => {
                self.checked(&key, check.word(), false, check.notes.clone())?;
                Reach::Done(Besides { notes: check.notes, stays: check.stays })
            }
            None => self.reach(step, Question::Check, Until::Todo).await?,
        };
        match reached {
            Reach::Done(Besides { notes, .. }) => {
                let event = if stage == Stage::Pending {
                    Event::AlreadySo { key, needless: false, notes }
                } else {
                    Event::Applied { key, notes }
                };
                self.recorder.write(event)?;
                Ok(None)
            }
            Reach::Stop(why) => self.stop(step, why),
            Reach::Todo { .. } if step.risk() == Risk::Reads => {
                let error = vec![format!("{key} only reads and has something to do: a defect of the step")];
                self.stop(step, Why::Failed { error, effect: Effect::None, help: Vec::new() })
            }
            Reach::Todo { changes, before } => self.make_so_from(step, step.blind_to(), changes, before).await,
        }
    }

    /// Asks and applies: for a hold that is put up again.
    pub(super) async fn make_so(&self, step: &dyn AnyStep<Cx>, blind: &[&str]) -> Result<Option<Ended>, RecordError> {
        match self.reach(step, Question::Check, Until::Todo).await? {
            Reach::Done(Besides { notes, .. }) => {
                // Somebody put it up between two looks; the fall is over. It is ours where it was ours before.
                let key = step.key();
                if let Some(before) = self.memory(step)?.since {
                    self.recorder.write(Event::Applying { key: key.clone(), before, changes: Vec::new() })?;
                    self.recorder.write(Event::Applied { key, notes })?;
                } else {
                    self.recorder.write(Event::AlreadySo { key, needless: false, notes })?;
                }
                Ok(None)
            }
            Reach::Stop(why) => self.stop(step, why),
            Reach::Todo { changes, before } => self.make_so_from(step, blind, changes, before).await,
        }
    }

    pub(super) async fn make_so_from(
        &self,
        step: &dyn AnyStep<Cx>,
        blind: &[&str],
        mut changes: Vec<Change>,
        mut before: Value,
    ) -> Result<Option<Ended>, RecordError> {
        let key = step.key();
        let mut looks = LOOKS_AGAIN;
        loop {
            if let Some(stop) = self.holds_stand(step, blind).await? {
                return Ok(Some(stop));
            }
            if self.recorder.interrupted() {
                return self.stop(step, Why::Interrupted);
            }
            self.recorder.write(Event::Applying { key: key.clone(), before, changes })?;
            let permit = Permit::mint(self.recorder.desk(&key, step.risk() == Risk::Destroys));
            let memory = self.memory(step)?;
            let Err(failure) = step.apply(self.cx, memory.seen(&self.info), &permit).await else { break };
            if !failure.fault().stale() || looks == 0 {
                return self.stop_voiding(step, broke_off(&failure), failure.fault().voids());
            }
            looks -= 1;
            match self.look_again(step, Question::Check, &failure).await? {
                Reach::Done(Besides { notes, .. }) => {
                    self.recorder.write(Event::Applied { key, notes })?;
                    return Ok(None);
                }
                Reach::Stop(why) => return self.stop(step, why),
                Reach::Todo { changes: now, before: found } => (changes, before) = (now, found),
            }
        }
        match self.reach(step, Question::Check, Until::So).await? {
            Reach::Done(Besides { notes, .. }) => {
                self.recorder.write(Event::Applied { key, notes })?;
                Ok(None)
            }
            Reach::Stop(why) => self.stop(step, why),
            Reach::Todo { .. } => Ok(None),
        }
    }

    /// Writes the stop down and hands it on. What went wrong is said even where it cannot be written.
    pub(super) fn stop(&self, step: &dyn AnyStep<Cx>, why: Why) -> Result<Option<Ended>, RecordError> {
        self.stop_voiding(step, why, &[])
    }

    /// The same, with the words that what went wrong has shown to count no longer.
    fn stop_voiding(
        &self,
        step: &dyn AnyStep<Cx>,
        mut why: Why,
        voided: &[Thing],
    ) -> Result<Option<Ended>, RecordError> {
        let key = step.key();
        let state = self.recorder.state()?;
        match &mut why {
            Why::Failed { error, effect, help } => {
                *effect = state.effect(&key, *effect);
                *help = passable(state.phase, std::mem::take(help));
                let (effect, help, voids) = (*effect, help.clone(), voided.to_vec());
                self.write_failure(Event::Failed { key, error: error.clone(), effect, help, voids }, error)?;
            }
            Why::Blocked(problems) => {
                let effect = state.effect(&key, Effect::None);
                problems.iter_mut().for_each(|p| p.help = passable_line(state.phase, &p.help));
                let (error, help) = problems.iter().map(|p| (p.text.clone(), p.help.clone())).unzip();
                let voids = problems.iter().filter_map(|p| p.voids.as_deref().cloned()).collect();
                self.recorder.write(Event::Failed { key, error, effect, help, voids })?;
            }
            Why::Interrupted => {
                self.recorder.write(Event::Interrupted { key })?;
            }
            Why::Manual { .. } | Why::HoldFell { .. } | Why::Stuck { .. } | Why::Consent { .. } => {}
        }
        Ok(Some(stopped(step, why)))
    }

    /// A journal that cannot be written must not hide the failure: its own trouble becomes one more line.
    pub(super) fn write_failure(&self, event: Event, error: &mut Vec<String>) -> Result<(), RecordError> {
        match self.recorder.write(event) {
            Ok(_) => Ok(()),
            Err(journal @ RecordError::Journal(_)) => {
                error.push(format!("this failure could not be written down: {}", whole(&journal)));
                Ok(())
            }
            Err(other) => Err(other),
        }
    }

    pub(super) fn limit(&self, step: &dyn AnyStep<Cx>) -> Duration {
        self.policy.limit.unwrap_or_else(|| step.limit())
    }
}

/// A help as it can be followed: a run that is being undone cannot go forwards any more.
pub(super) fn passable_line(phase: Phase, help: &str) -> String {
    if matches!(phase, Phase::Undoing | Phase::Stuck) {
        help.replace("pvemig resume", "pvemig undo")
    } else {
        help.to_owned()
    }
}

pub(super) fn passable(phase: Phase, help: Vec<String>) -> Vec<String> {
    help.iter().map(|line| passable_line(phase, line)).collect()
}

pub(super) fn stopped<Cx: Sync>(step: &dyn AnyStep<Cx>, why: Why) -> Ended {
    Ended::Stopped(Box::new(Stop { key: step.key(), title: step.title(), why }))
}
