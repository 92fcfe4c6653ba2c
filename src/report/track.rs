//! One step's row, filled line by line from the journal.

use jiff::Timestamp;

use crate::base::check::not_needed;
use crate::base::names::StepKey;
use crate::engine::event::{Event, Planned, Record};
use crate::engine::state::{RunState, Stage};

use super::model::{CallRow, Fell, Row, Trouble, Word};

/// A row while the journal is read.
pub(super) struct Tracked {
    pub(super) row: Row,
    /// When its turn came.
    began: Option<Timestamp>,
    /// When it was last heard of before it was done; what comes later (a hold's repeated check) does not count.
    ended: Option<Timestamp>,
    over: bool,
    undoing: bool,
}

impl Tracked {
    pub(super) fn new(planned: &Planned) -> Self {
        let row = Row {
            key: planned.key.to_string(),
            title: planned.title.clone(),
            risk: planned.risk,
            holds_until: planned.holds_until.clone(),
            word: Word::Pending,
            passed: false,
            elapsed: None,
            notes: Vec::new(),
            changes: Vec::new(),
            calls: Vec::new(),
            asks: Vec::new(),
            files: Vec::new(),
            fell: Vec::new(),
            troubles: Vec::new(),
        };
        Self { row, began: None, ended: None, over: false, undoing: false }
    }

    pub(super) fn take(&mut self, record: &Record, before: Timestamp) {
        if !self.over {
            self.began.get_or_insert(before);
            self.ended = Some(record.at);
        }
        let row = &mut self.row;
        match &record.event {
            Event::Checked { notes, .. } => once(&mut row.notes, notes),
            Event::AlreadySo { notes, .. } | Event::Applied { notes, .. } => {
                once(&mut row.notes, notes);
                self.over = true;
            }
            Event::Undone { notes, .. } => once(&mut row.notes, notes),
            Event::Applying { changes, .. } => {
                for change in changes.iter().filter(|change| !row.changes.contains(change)).cloned().collect::<Vec<_>>()
                {
                    row.changes.push(change);
                }
            }
            Event::Call { call, note, .. } => row.calls.push(CallRow {
                number: call.0,
                system: note.system,
                text: note.text.clone(),
                again: note.again,
                undo: self.undoing,
                left: None,
            }),
            Event::Got { call, handle, .. } => {
                if let Some(found) = row.calls.iter_mut().find(|row| row.number == call.0) {
                    found.left = Some((handle.kind.clone(), handle.value.clone()));
                }
            }
            Event::Filed { name, .. } => once(&mut row.files, std::slice::from_ref(name)),
            Event::Asked { ask, hint, .. } => {
                let line = match hint {
                    // A drawing stands by itself.
                    Some(hint) if hint.contains('\n') => format!("{ask}\n{hint}"),
                    Some(hint) => format!("{ask} ({hint})"),
                    None => ask.clone(),
                };
                once(&mut row.asks, &[line]);
            }
            Event::HoldFell { changes, notes, .. } => {
                row.fell.push(Fell { at: record.at, changes: changes.clone(), notes: notes.clone(), as_asked: false });
            }
            Event::Failed { error, effect, help, .. } => row.troubles.push(Trouble {
                at: record.at,
                error: error.clone(),
                effect: Some(*effect),
                help: help.clone(),
            }),
            Event::UndoFailed { error, help, .. } => {
                row.troubles.push(Trouble { at: record.at, error: error.clone(), effect: None, help: help.clone() });
            }
            Event::Undoing { .. } => self.undoing = true,
            Event::Opened(_)
            | Event::Consented { .. }
            | Event::Interrupted { .. }
            | Event::Abandoned { .. }
            | Event::Closed { .. } => {}
        }
    }

    pub(super) fn finish(mut self, state: &RunState, failed: Option<&StepKey>) -> Row {
        let stands = failed.is_some_and(|key| key.as_str() == self.row.key);
        let key = StepKey::from(self.row.key.as_str());
        let stage = state.stage(&key);
        let step = state.steps.get(&key);
        // Passed by the undo: it is through with it, and nothing of it came back.
        self.row.passed = step.is_some_and(|step| step.passed);
        self.row.word = match stage {
            Stage::UndoFailed => Word::UndoFailed,
            Stage::Undone => Word::Undone,
            Stage::Undoing => Word::Undoing,
            Stage::Already if step.is_some_and(|step| step.needless) => Word::NotNeeded,
            Stage::Already if not_needed(&self.row.notes).is_some() => Word::NotNeeded,
            Stage::Already => Word::AlreadySo,
            Stage::Applied => Word::Done,
            Stage::Begun | Stage::Pending if stands => Word::Failed,
            Stage::Begun => Word::Begun,
            Stage::Pending if !self.row.asks.is_empty() => Word::Asked,
            Stage::Pending => Word::Pending,
        };
        self.row.elapsed = self.began.zip(self.ended).map(|(began, ended)| between(began, ended));
        self.row
    }
}

/// What was not said before. A difference may well have a line twice: what comes together is not looked at.
fn once(lines: &mut Vec<String>, more: &[String]) {
    let new: Vec<_> = more.iter().filter(|line| !lines.contains(line)).cloned().collect();
    lines.extend(new);
}

/// Never negative: a clock that was set back is no reason for a negative length.
pub(super) fn between(from: Timestamp, to: Timestamp) -> std::time::Duration {
    std::time::Duration::try_from(to.duration_since(from)).unwrap_or_default()
}
