//! Runs whose journal does not hold: what can still be read of them, and how they are given up.
//!
//! Nobody knows what such a run owes, so nothing goes by it any more; only an operator who has looked gives it up.

use std::path::PathBuf;

use super::event::{Event, FORMAT, Opened, Record};
use super::journal::{self, Journal, JournalError, sync_dir};
use super::state::RunState;
use super::store::{RunDir, RunRead, StoreError, io};

/// In the comment of a run whose journal was damaged when it was given up.
const NOT_KNOWN: &str = "what it did is not known in full";

impl RunRead {
    /// Whether the run was given up with a damaged journal: what it held then is not known in full.
    pub fn is_lost(&self) -> bool {
        let abandoned = |event: &Event| matches!(event, Event::Abandoned { comment } if comment.contains(NOT_KNOWN));
        self.records.last().is_some_and(|record| abandoned(&record.event))
    }
}

/// A run whose journal cannot be read as a whole.
#[derive(Debug)]
pub struct Damaged {
    /// Its id.
    pub id: String,
    /// What is wrong.
    pub why: StoreError,
    /// The run as it was before the first line that does not hold.
    pub good: Option<RunRead>,
}

/// A damaged run that was given up.
#[derive(Debug)]
pub struct GivenUp {
    /// Where the damaged journal is kept; None where there was none.
    pub kept: Option<PathBuf>,
    /// The line that ends the run.
    pub record: Record,
}

impl StoreError {
    /// True where a journal's own lines do not hold: not where it cannot be read, nor where it is of another version.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Empty { .. } | Self::Illegal { .. } | Self::Journal(JournalError::BadLine { .. }))
    }
}

impl RunDir {
    /// The run as it was before the first line that does not hold; None where not even the first one does.
    pub fn good_part(&self) -> Option<RunRead> {
        let mut records = journal::scan(&self.journal()).ok()?.0.records;
        let rule = |records: &[Record]| RunState::fold(records).map_err(|illegal| illegal.line);
        if let Err(line) = rule(&records) {
            records.truncate(usize::try_from(line).ok()?.saturating_sub(1));
        }
        let state = rule(&records).ok()??;
        Some(RunRead { id: self.id().to_owned(), records, state, torn: None })
    }

    /// Gives a damaged run up: the journal is set aside and a new one takes its place, with the lines that hold (or
    /// `stand_in`, where there are none) and the operator's comment. None where the journal holds after all.
    ///
    /// # Errors
    /// It is not damaged but cannot be read, or the file system refused.
    pub fn give_up(&self, at: jiff::Timestamp, stand_in: Opened, comment: &str) -> Result<Option<GivenUp>, StoreError> {
        let why = match self.read() {
            Ok(_) => return Ok(None),
            Err(why) if why.is_damage() => why,
            Err(why) => return Err(why),
        };
        let comment = format!("{comment} ({NOT_KNOWN}: {why})");
        let abandoned = Event::Abandoned { comment };
        let mut records = self.good_part().map(|good| good.records).unwrap_or_default();
        // A run that was over went on in the lines that are lost.
        while !records.is_empty() && !may_end(&records, at, &abandoned) {
            records.pop();
        }
        if records.is_empty() {
            records.push(Record { v: FORMAT, seq: 0, at, event: Event::Opened(Box::new(stand_in)) });
        }
        let draft = self.path.join(".journal.jsonl");
        if draft.exists() {
            std::fs::remove_file(&draft).map_err(io(&draft, "cannot remove an earlier draft"))?;
        }
        let mut journal = Journal::create(&draft)?;
        for record in records {
            journal.append(record.at, record.event)?;
        }
        let record = journal.append(at, abandoned)?;
        journal.finish()?;
        let kept = self.set_aside()?;
        std::fs::rename(&draft, self.journal()).map_err(io(&draft, "cannot put the journal in its place"))?;
        sync_dir(&self.path)?;
        Ok(Some(GivenUp { kept, record }))
    }

    /// Renames the journal to a name that is free.
    fn set_aside(&self) -> Result<Option<PathBuf>, StoreError> {
        let path = self.journal();
        if !path.exists() {
            return Ok(None);
        }
        let name =
            |n: u32| self.path.join(if n == 1 { "journal.damaged".into() } else { format!("journal.damaged-{n}") });
        let Some(free) = (1..1000).map(name).find(|path| !path.exists()) else {
            return Err(io(&path, "cannot set the damaged journal aside")(std::io::ErrorKind::AlreadyExists.into()));
        };
        std::fs::rename(&path, &free).map_err(io(&path, "cannot set the damaged journal aside"))?;
        Ok(Some(free))
    }
}

/// Whether a run of these lines may be abandoned.
fn may_end(records: &[Record], at: jiff::Timestamp, abandoned: &Event) -> bool {
    let end = Record { v: FORMAT, seq: records.len() as u64, at, event: abandoned.clone() };
    let Ok(Some(mut state)) = RunState::fold(records) else { return false };
    state.apply(&end).is_ok()
}
