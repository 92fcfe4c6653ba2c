//! State is a fold over events by one transition function. An illegal line is an error that names line and rule.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use crate::base::fault::Effect;
use crate::base::names::StepKey;
use crate::base::permit::{Again, CallId, Handle, Note, Thing};

use super::event::{Event, Opened, Outcome, Planned, Record};
use super::step::{Got, Lost, Risk, Standing};

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Nothing was done.
    Pending,
    /// Nothing had to be done.
    Already,
    /// Begun, and not known to be done.
    Begun,
    /// Done by us.
    Applied,
    /// Its undo is begun.
    Undoing,
    /// Back as it was.
    Undone,
    /// Its undo went wrong.
    UndoFailed,
}

/// A call and what came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Called {
    /// Its number in the run.
    pub id: CallId,
    /// What it was.
    pub note: Note,
    /// When it was noted.
    pub at: jiff::Timestamp,
    /// What it left.
    pub handle: Option<Handle>,
}

/// One step's state.
#[derive(Debug, Clone, PartialEq)]
pub struct StepState {
    /// Where it stands.
    pub stage: Stage,
    /// The first before-image; later ones do not count.
    pub before: Option<Value>,
    /// A reading step that asked a person: what its `back` needs (null where it needs nothing).
    pub asked: Option<Value>,
    /// A hold that was found down and was not put up again.
    pub fallen: bool,
    /// A hold that is up by this run's doing, as far as is known: from its intent until it is proved released.
    pub up: bool,
    /// A hold that was not put up because nothing needed it.
    pub needless: bool,
    /// Its undo was passed by the operator: what it did stays.
    pub passed: bool,
    /// Its calls since it was last applied or settled, and before.
    pub calls: Vec<Called>,
    /// The number of calls that are over: up to there nothing has to be settled.
    over: usize,
}

impl StepState {
    /// The handles that its calls left, oldest first.
    pub fn got(&self) -> Vec<Got> {
        let got = |c: &Called| Some(Got { note: c.note.clone(), handle: c.handle.clone()?, at: c.at });
        self.calls.iter().filter_map(got).collect()
    }

    /// The calls whose end was not seen and that have to be over before anything else is done, oldest first: each that
    /// is a pve task, however safe it is to send again, because it goes on by itself; and the last one that must not be
    /// sent twice.
    pub fn lost(&self) -> Vec<Lost> {
        let calls = self.calls.get(self.over..).unwrap_or_default();
        let last = calls.iter().rev().find(|c| c.note.again == Again::Once).map(|c| c.id);
        let lost = |c: &&Called| c.note.task.is_some() || Some(c.id) == last;
        let call = |c: &Called| Lost { note: c.note.clone(), handle: c.handle.clone(), at: c.at };
        calls.iter().filter(lost).map(call).collect()
    }

    /// Whether undo owes it a restore.
    pub fn owes(&self) -> bool {
        match self.stage {
            Stage::Begun | Stage::Applied | Stage::Undoing | Stage::UndoFailed => true,
            Stage::Pending | Stage::Already => self.asked.is_some(),
            Stage::Undone => false,
        }
    }
}

/// How the run as a whole stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It can be resumed or undone.
    Forward,
    /// Every step is done; it can be undone.
    Done,
    /// Undo has begun; it can only be undone further, or abandoned.
    Undoing,
    /// An undo went wrong: stuck.
    Stuck,
    /// Everything is back.
    Undone,
    /// Given up.
    Abandoned,
}

/// A line that the transition table does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {rule}")]
pub struct Illegal {
    /// The line's number, from 1.
    pub line: u64,
    /// The rule.
    pub rule: String,
}

/// The state of a run.
#[derive(Debug, Clone)]
pub struct RunState {
    /// The first line; shared, because the state is copied with every line.
    pub opened: Arc<Opened>,
    /// When it was opened.
    pub since: jiff::Timestamp,
    /// When the last line was written.
    pub last: jiff::Timestamp,
    /// What was ever consented to; an undo goes by those of its own process alone.
    pub consents: BTreeSet<Thing>,
    /// Every step of the plan.
    pub steps: BTreeMap<StepKey, StepState>,
    /// How it stands.
    pub phase: Phase,
    /// The last failure's first line, while it stands.
    pub failure: Option<(StepKey, String)>,
    /// Whether anything was ever changed.
    pub changed: bool,
    next_call: u64,
}

impl RunState {
    /// The fold over a whole journal; None for an empty one.
    ///
    /// # Errors
    /// [`Illegal`] names the first line that breaks a rule.
    pub fn fold(records: &[Record]) -> Result<Option<Self>, Illegal> {
        let mut records = records.iter();
        let Some(first) = records.next() else { return Ok(None) };
        let mut state = Self::open(first)?;
        for record in records {
            state.apply(record)?;
        }
        Ok(Some(state))
    }

    /// The state after the first line.
    ///
    /// # Errors
    /// The line is not `opened`, or its plan names a step twice.
    pub fn open(first: &Record) -> Result<Self, Illegal> {
        let Event::Opened(opened) = &first.event else {
            return Err(Illegal { line: 1, rule: "a journal begins with `opened`".into() });
        };
        let fresh = StepState {
            stage: Stage::Pending,
            before: None,
            asked: None,
            fallen: false,
            up: false,
            needless: false,
            passed: false,
            calls: Vec::new(),
            over: 0,
        };
        let mut steps = BTreeMap::new();
        for planned in &opened.plan {
            if steps.insert(planned.key.clone(), fresh.clone()).is_some() {
                return Err(Illegal { line: 1, rule: format!("the plan names {} twice", planned.key) });
            }
        }
        Ok(Self {
            opened: Arc::new((**opened).clone()),
            since: first.at,
            last: first.at,
            consents: BTreeSet::new(),
            steps,
            phase: Phase::Forward,
            failure: None,
            changed: false,
            next_call: 1,
        })
    }

    /// The number of the next call.
    pub fn next_call(&self) -> CallId {
        CallId(self.next_call)
    }

    /// A step's stage; Pending for a key that the plan does not have.
    pub fn stage(&self, key: &StepKey) -> Stage {
        self.steps.get(key).map_or(Stage::Pending, |step| step.stage)
    }

    /// What a failure at a step may have left behind, by what the failure itself `said`: a step that is begun and has
    /// sent something never changed nothing, and one that is not begun has only looked.
    pub fn effect(&self, key: &StepKey, said: Effect) -> Effect {
        if matches!(self.stage(key), Stage::Pending | Stage::Already) {
            return Effect::None;
        }
        let begun =
            self.steps.get(key).filter(|s| matches!(s.stage, Stage::Begun | Stage::Undoing | Stage::UndoFailed));
        match said {
            Effect::None if begun.is_some_and(|step| !step.calls.is_empty()) => Effect::Partial,
            said => said,
        }
    }

    /// Whether an undo may go past a step and leave what it did: where that cannot come back, or where an undo was
    /// tried and stopped there. Not past a hold: that is released, or the run is abandoned.
    pub fn may_be_passed(&self, planned: &Planned) -> bool {
        let Some(step) = self.steps.get(&planned.key).filter(|step| step.owes()) else { return false };
        let stopped = self.failure.as_ref().is_some_and(|(key, _)| *key == planned.key)
            && matches!(step.stage, Stage::Applied | Stage::Undoing | Stage::UndoFailed);
        planned.risk == Risk::Destroys || (stopped && planned.holds_until.is_none())
    }

    /// How other runs should see this one.
    pub fn standing(&self) -> Standing {
        match self.phase {
            Phase::Forward => Standing::Open,
            Phase::Undoing | Phase::Stuck => Standing::Undoing,
            Phase::Done | Phase::Undone => Standing::Closed,
            Phase::Abandoned => Standing::Abandoned,
        }
    }

    /// The holds that are up by this run's doing, in list order: from their `applying` until their closer is applied
    /// (or was already so), or they are undone. What an undo puts up counts as well.
    pub fn holds_up(&self) -> Vec<&StepKey> {
        let up = |key: &&StepKey| self.steps.get(*key).is_some_and(|step| step.up);
        self.opened.plan.iter().map(|planned| &planned.key).filter(up).collect()
    }

    /// True of a step that a hold of this run guards, where that is up and its closer not settled.
    fn is_held(&self, key: &StepKey) -> bool {
        let plan = &self.opened.plan;
        let Some(here) = plan.iter().position(|planned| planned.key == *key) else { return false };
        plan.iter().take(here).any(|holder| {
            let closer = plan.iter().position(|p| closes(&p.key, holder));
            let open =
                |at: usize| plan.get(at).is_some_and(|p| matches!(self.stage(&p.key), Stage::Pending | Stage::Begun));
            let up = matches!(self.stage(&holder.key), Stage::Applied | Stage::Already);
            up && closer.is_some_and(|at| here < at && open(at))
        })
    }

    /// True where the step that takes this hold back is settled.
    fn closed(&self, holder: &Planned) -> bool {
        let closer = self.opened.plan.iter().find(|p| closes(&p.key, holder));
        closer.is_some_and(|closer| matches!(self.stage(&closer.key), Stage::Applied | Stage::Already))
    }

    /// One step of the fold: the only transition function, live and on reading.
    ///
    /// # Errors
    /// [`Illegal`]; the state is then unchanged.
    pub fn apply(&mut self, record: &Record) -> Result<(), Illegal> {
        let line = record.seq + 1;
        let illegal = |rule: String| Err(Illegal { line, rule });
        let name = record.event.name();
        if matches!(self.phase, Phase::Undone | Phase::Abandoned) {
            return illegal(format!("nothing may follow the end of a run, `{name}` does"));
        }
        match &record.event {
            Event::Opened(_) => return illegal("`opened` is the first line and only that".into()),
            Event::Consented { thing } => {
                self.consents.insert(thing.clone());
            }
            Event::Abandoned { .. } => {
                if self.phase == Phase::Done {
                    return illegal("a run that is done cannot be abandoned".into());
                }
                self.phase = Phase::Abandoned;
            }
            Event::Closed { outcome: Outcome::Done } => {
                if self.phase != Phase::Forward {
                    return illegal("`closed done` follows a run forwards only".into());
                }
                let open = self.steps.iter().find(|(_, s)| !matches!(s.stage, Stage::Applied | Stage::Already));
                if let Some((key, step)) = open {
                    return illegal(format!("`closed done` while {key} is {:?}", step.stage));
                }
                self.phase = Phase::Done;
                self.failure = None;
            }
            Event::Closed { outcome: Outcome::Undone } => {
                if let Some((key, _)) = self.steps.iter().find(|(_, s)| s.owes()) {
                    return illegal(format!("`closed undone` while {key} is owed"));
                }
                self.phase = Phase::Undone;
                self.failure = None;
            }
            event => {
                let Some(key) = event.key() else { return illegal(format!("`{name}` needs a step")) };
                let Some(step) = self.steps.get(key) else { return illegal(format!("the plan has no step {key}")) };
                let mut step = step.clone();
                let hold = self.opened.plan.iter().find(|p| p.key == *key && p.holds_until.is_some());
                let way = (hold.is_some(), self.is_held(key));
                let mut phase = match next(self.phase, &mut step, event, record.at, self.next_call, way) {
                    Ok(phase) => phase,
                    Err(rule) => return illegal(format!("{key}: {rule}")),
                };
                // A hold is put up behind its closer for an undo only: the run is open again.
                if let (Some(hold), Event::Applying { .. }, Phase::Forward | Phase::Done) = (hold, event, phase)
                    && self.closed(hold)
                {
                    phase = Phase::Undoing;
                }
                if matches!(event, Event::Call { .. }) {
                    self.next_call += 1;
                    self.changed = true;
                }
                match event {
                    Event::Failed { error, .. } | Event::UndoFailed { error, .. } => {
                        if let Event::Failed { voids, .. } = event {
                            self.consents.retain(|thing| !voids.contains(thing));
                        }
                        self.failure = Some((key.clone(), error.first().cloned().unwrap_or_default()));
                    }
                    Event::Applying { .. }
                    | Event::Applied { .. }
                    | Event::Undoing { .. }
                    | Event::Undone { .. }
                    | Event::AlreadySo { .. } => {
                        self.failure = None;
                    }
                    Event::HoldFell { .. } => {
                        self.failure = Some((key.clone(), "the hold does not stand any more".into()));
                    }
                    _ => {}
                }
                match event {
                    Event::Applying { .. } => step.up = hold.is_some(),
                    Event::Undone { .. } => step.up = false,
                    Event::Applied { .. } | Event::AlreadySo { .. } => {
                        for holder in self.opened.plan.iter().filter(|holder| closes(key, holder)) {
                            if let Some(holder) = self.steps.get_mut(&holder.key) {
                                holder.up = false;
                            }
                        }
                    }
                    _ => {}
                }
                self.steps.insert(key.clone(), step);
                self.phase = phase;
            }
        }
        self.last = record.at;
        Ok(())
    }
}

/// Whether the step `key` takes the hold back.
fn closes(key: &StepKey, holder: &Planned) -> bool {
    holder.holds_until.as_deref() == Some(key.id()) && holder.key.instance() == key.instance()
}

/// The transition table of one step. Returns the phase that follows.
fn next(
    phase: Phase,
    step: &mut StepState,
    event: &Event,
    at: jiff::Timestamp,
    call: u64,
    (hold, held): (bool, bool),
) -> Result<Phase, String> {
    use Stage::{Already, Applied, Begun, Pending, UndoFailed, Undoing, Undone};
    let forward = phase == Phase::Forward;
    let refuse = |step: &StepState| Err(format!("`{}` while it is {:?} ({phase:?})", event.name(), step.stage));
    match (event, step.stage) {
        // The end of a failing call was seen unless it may have changed something.
        (Event::Failed { effect: Effect::None | Effect::Partial, .. }, Begun | Undoing | UndoFailed) => {
            step.over = step.calls.len();
        }
        (Event::Checked { .. } | Event::Failed { .. } | Event::Interrupted { .. }, _) => {}
        (Event::AlreadySo { needless, .. }, Pending) if forward => {
            step.stage = Already;
            step.needless = *needless;
        }
        // A hold that is not ours and fell was put up again by somebody.
        (Event::AlreadySo { .. }, Already) if hold => step.fallen = false,
        // A hold may be put up again after it fell, and before the undo of what it guards. What it guards may be begun
        // again as long as it is not to be closed.
        (Event::Applying { before, .. }, Pending | Already | Begun | Applied) => {
            let settled = matches!(step.stage, Already | Applied);
            if !forward && step.stage == Pending {
                return refuse(step);
            }
            if settled && !(hold || held && forward) {
                return refuse(step);
            }
            step.before.get_or_insert_with(|| before.clone());
            step.stage = Begun;
            step.needless = false;
            // What was lost before was settled before.
            step.over = step.calls.len();
        }
        (Event::Call { call: id, note, .. }, Begun | Undoing) => {
            if id.0 != call {
                return Err(format!("call {} should have number {call}", id.0));
            }
            step.calls.push(Called { id: *id, note: note.clone(), at, handle: None });
        }
        (Event::Got { call: id, handle, .. }, Begun | Undoing) => {
            let Some(called) = step.calls.iter_mut().find(|c| c.id == *id) else {
                return Err(format!("`got` for call {}, which is not one of its calls", id.0));
            };
            called.handle = Some(handle.clone());
        }
        (Event::Filed { .. }, Begun | Undoing) => {}
        (Event::Applied { .. }, Begun) => {
            step.stage = Applied;
            step.fallen = false;
            step.over = step.calls.len();
        }
        (Event::Asked { before, .. }, stage) if stage != Undone => {
            if matches!(stage, Pending) && step.asked.is_none() {
                step.asked = Some(before.clone().unwrap_or(Value::Null));
            }
        }
        (Event::HoldFell { .. }, Already | Applied) if hold => step.fallen = true,
        (Event::Undoing { .. }, Begun | Applied | Undoing | UndoFailed) => {
            step.stage = Undoing;
            step.over = step.calls.len();
            return Ok(Phase::Undoing);
        }
        (Event::Undoing { .. }, Pending | Already) if step.asked.is_some() => {
            step.stage = Undoing;
            return Ok(Phase::Undoing);
        }
        (Event::Undone { passed, .. }, Begun | Applied | Undoing | UndoFailed) => {
            step.stage = Undone;
            step.passed = *passed;
            step.over = step.calls.len();
            return Ok(Phase::Undoing);
        }
        (Event::Undone { .. }, Pending | Already) if step.asked.is_some() => {
            step.stage = Undone;
            return Ok(Phase::Undoing);
        }
        (Event::UndoFailed { effect, .. }, Undoing) => {
            step.stage = UndoFailed;
            if *effect != Effect::Maybe {
                step.over = step.calls.len();
            }
            return Ok(Phase::Stuck);
        }
        _ => return refuse(step),
    }
    Ok(phase)
}

#[cfg(test)]
mod tests;
