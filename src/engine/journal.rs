//! The append-only file of a run: one JSON object a line, each with a checksum that chains to the line before.
//!
//! A line is one `write_all`, never buffered. A torn last line (a crash while writing) is cut off with a notice; any
//! other bad line stops everything: the journal is the only memory of what is owed, and a guess would cost data.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::event::{Event, FORMAT, Record};
use super::recorder::whole;

/// Why a journal cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file system refused.
    #[error("{path}: {what}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        what: &'static str,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// A line other than the last does not hold.
    #[error("{path}, line {line}: {rule}")]
    BadLine {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
        /// What it violates.
        rule: String,
    },
    /// A line of another format: the journal is whole, and of another version of pvemig.
    #[error("{path}, line {line}: journal format {found} is not known to this version of pvemig (it knows {FORMAT})")]
    Format {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
        /// The format that it has.
        found: u32,
    },
    /// An earlier write failed; the file is not touched again by this process.
    #[error("{path}: an earlier write failed, so nothing more is written: {first}")]
    Poisoned {
        /// The file.
        path: PathBuf,
        /// What failed first.
        first: String,
    },
}

impl JournalError {
    fn io(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), what, source }
    }
}

#[derive(Serialize)]
struct Body<'a> {
    v: u32,
    seq: u64,
    at: jiff::Timestamp,
    event: &'a Event,
}

#[derive(Deserialize)]
struct Version {
    v: u32,
}

/// The first 16 hex digits of SHA-256 over the sum of the line before and this line's body.
fn sum(previous: &str, body: &str) -> String {
    let digest = Sha256::digest(format!("{previous}{body}").as_bytes());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

const SUM_KEY: &str = ",\"sum\":\"";

/// What a journal file holds.
#[derive(Debug)]
pub struct Read {
    /// Its good lines.
    pub records: Vec<Record>,
    /// A notice about a torn last line that was left out.
    pub torn: Option<String>,
    /// The length of the good part, in bytes.
    good: u64,
    last_sum: String,
}

/// Reads a journal without changing it.
///
/// # Errors
/// The file cannot be read, or a line other than the last is bad.
pub fn read(path: &Path) -> Result<Read, JournalError> {
    match scan(path)? {
        (read, None) => Ok(read),
        (_, Some(bad)) => Err(bad),
    }
}

/// The good lines of a journal, and what is wrong with the first one that is not.
///
/// # Errors
/// The file cannot be read.
pub(super) fn scan(path: &Path) -> Result<(Read, Option<JournalError>), JournalError> {
    let bytes = std::fs::read(path).map_err(JournalError::io(path, "cannot read the journal"))?;
    Ok(read_bytes(path, &bytes))
}

/// As [`scan`], of what was read; open to tests alone.
#[doc(hidden)]
pub fn read_bytes(path: &Path, bytes: &[u8]) -> (Read, Option<JournalError>) {
    let mut out = Read { records: Vec::new(), torn: None, good: 0, last_sum: String::new() };
    let mut rest = bytes;
    let mut line = 0;
    while !rest.is_empty() {
        line += 1;
        let end = rest.iter().position(|b| *b == b'\n');
        let (text, after) = end.map_or((rest, &[][..]), |at| (&rest[..at], &rest[at + 1..]));
        match (end, parse(text, &out.last_sum, out.records.len() as u64)) {
            (Some(_), Ok((record, sum))) => {
                out.records.push(record);
                out.last_sum = sum;
                out.good += text.len() as u64 + 1;
            }
            (_, Err(Bad::Version(found))) => {
                return (out, Some(JournalError::Format { path: path.to_owned(), line, found }));
            }
            // A line that is whole was durable: where it does not hold it was changed, and what it said is lost.
            (_, parsed) if after.is_empty() && (end.is_none() || serde_json::from_slice::<Value>(text).is_err()) => {
                let why = match parsed {
                    Ok(_) => "it has no end".to_owned(),
                    Err(Bad::Rule(rule) | Bad::Sum(rule)) => rule,
                    Err(Bad::Version(v)) => format!("format {v}"),
                };
                out.torn = Some(format!("line {line} of {} was torn and is left out: {why}", path.display()));
            }
            (_, Err(Bad::Rule(rule) | Bad::Sum(rule))) => {
                return (out, Some(JournalError::BadLine { path: path.to_owned(), line, rule }));
            }
            (None, Ok(_)) => {}
        }
        rest = after;
    }
    (out, None)
}

enum Bad {
    Rule(String),
    Sum(String),
    Version(u32),
}

fn parse(text: &[u8], previous: &str, seq: u64) -> Result<(Record, String), Bad> {
    let text = std::str::from_utf8(text).map_err(|_| Bad::Rule("not UTF-8".into()))?;
    let at = text.rfind(SUM_KEY).ok_or_else(|| Bad::Rule("no checksum".into()))?;
    let body = format!("{}}}", &text[..at]);
    let written = text[at + SUM_KEY.len()..].strip_suffix("\"}").ok_or_else(|| Bad::Rule("no checksum".into()))?;
    let version: Version = serde_json::from_str(&body).map_err(|e| Bad::Rule(e.to_string()))?;
    if version.v != FORMAT {
        return Err(Bad::Version(version.v));
    }
    let expected = sum(previous, &body);
    if written != expected {
        return Err(Bad::Sum("the checksum does not match: the line was changed, or one before it is missing".into()));
    }
    let record: Record = serde_json::from_str(&body).map_err(|e| Bad::Rule(e.to_string()))?;
    if record.seq != seq {
        return Err(Bad::Rule(format!("it has number {} and should have {seq}", record.seq)));
    }
    Ok((record, expected))
}

/// A journal that is open for appending by the one changing run.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    seq: u64,
    last_sum: String,
    /// The first failure.
    poisoned: Option<String>,
    unsynced: bool,
}

impl Journal {
    /// Makes the file, which must not exist, and makes its directory entry durable.
    ///
    /// # Errors
    /// The file system refused.
    pub fn create(path: &Path) -> Result<Self, JournalError> {
        let file = private(OpenOptions::new().append(true).create_new(true))
            .open(path)
            .map_err(JournalError::io(path, "cannot create the journal"))?;
        if let Some(parent) = path.parent() {
            sync_dir(parent)?;
        }
        Ok(Self { path: path.to_owned(), file, seq: 0, last_sum: String::new(), poisoned: None, unsynced: false })
    }

    /// Opens an existing one for appending; a torn last line is cut off.
    ///
    /// # Errors
    /// As [`read`], or the file system refused.
    pub fn open(path: &Path) -> Result<(Self, Read), JournalError> {
        let held = read(path)?;
        let file =
            OpenOptions::new().append(true).open(path).map_err(JournalError::io(path, "cannot open the journal"))?;
        if held.torn.is_some() {
            file.set_len(held.good).map_err(JournalError::io(path, "cannot cut off the torn line"))?;
            file.sync_all().map_err(JournalError::io(path, "cannot make the cut durable"))?;
        }
        let journal = Self {
            path: path.to_owned(),
            file,
            seq: held.records.len() as u64,
            last_sum: held.last_sum.clone(),
            poisoned: None,
            unsynced: false,
        };
        Ok((journal, held))
    }

    /// Appends one line; durable before it returns, where the event asks for it.
    ///
    /// # Errors
    /// The write or the sync failed. After that the journal refuses every further line: a failed sync must not be
    /// repeated as if nothing had happened.
    pub fn append(&mut self, at: jiff::Timestamp, event: Event) -> Result<Record, JournalError> {
        if let Some(first) = &self.poisoned {
            return Err(JournalError::Poisoned { path: self.path.clone(), first: first.clone() });
        }
        let record = Record { v: FORMAT, seq: self.seq, at, event };
        let body = Body { v: FORMAT, seq: record.seq, at, event: &record.event };
        let body = serde_json::to_string(&body).map_err(|e| JournalError::Io {
            path: self.path.clone(),
            what: "cannot write a line",
            source: e.into(),
        })?;
        let sum = sum(&self.last_sum, &body);
        let line = format!("{}{SUM_KEY}{sum}\"}}\n", &body[..body.len() - 1]);
        self.put(line.as_bytes(), record.event.durable()).inspect_err(|error| self.poisoned = Some(whole(error)))?;
        self.seq += 1;
        self.last_sum = sum;
        Ok(record)
    }

    fn put(&mut self, line: &[u8], durable: bool) -> Result<(), JournalError> {
        self.file.write_all(line).map_err(JournalError::io(&self.path, "cannot write a line"))?;
        self.unsynced = true;
        if durable {
            self.file.sync_data().map_err(JournalError::io(&self.path, "cannot make a line durable"))?;
            self.unsynced = false;
        }
        Ok(())
    }

    /// As when the disk is full from here on.
    #[cfg(test)]
    pub(super) fn fill(&mut self) {
        self.file = File::open(&self.path).unwrap();
    }

    /// The number of the next line.
    pub(super) fn next_seq(&self) -> u64 {
        self.seq
    }

    /// Makes the lines durable that could wait, at the end of a process.
    ///
    /// # Errors
    /// The sync failed.
    pub fn finish(&mut self) -> Result<(), JournalError> {
        if self.unsynced && self.poisoned.is_none() {
            self.file.sync_data().map_err(JournalError::io(&self.path, "cannot make a line durable"))?;
            self.unsynced = false;
        }
        Ok(())
    }
}

/// Mode 0600: journals and run files are their owner's alone.
pub(super) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600)
}

/// Makes a directory's entries durable.
pub(super) fn sync_dir(path: &Path) -> Result<(), JournalError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(JournalError::io(path, "cannot make the directory durable"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::names::StepKey;

    fn event(n: usize) -> Event {
        Event::Undoing { key: StepKey::from(format!("{n:02}-x").as_str()) }
    }

    fn filled(dir: &Path, lines: usize) -> PathBuf {
        let path = dir.join("journal.jsonl");
        let mut journal = Journal::create(&path).unwrap();
        for n in 0..lines {
            journal.append(jiff::Timestamp::UNIX_EPOCH, event(n)).unwrap();
        }
        path
    }

    #[test]
    fn a_cut_at_every_byte_of_the_last_line_loses_that_line_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = filled(dir.path(), 3);
        let whole = std::fs::read(&path).unwrap();
        let last = whole[..whole.len() - 1].iter().rposition(|b| *b == b'\n').unwrap() + 1;
        let mut cuts = 0;
        for end in last..whole.len() {
            std::fs::write(&path, &whole[..end]).unwrap();
            let held = read(&path).unwrap();
            assert_eq!(held.records.len(), 2);
            assert_eq!(held.torn.is_some(), end > last, "cut at {end}");
            let (mut journal, _) = Journal::open(&path).unwrap();
            journal.append(jiff::Timestamp::UNIX_EPOCH, event(2)).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), whole, "cut at {end}");
            cuts += 1;
        }
        assert!(cuts > 80, "{cuts}");
    }

    #[test]
    fn any_other_bad_line_stops_everything() {
        let dir = tempfile::tempdir().unwrap();
        let path = filled(dir.path(), 3);
        let whole = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = whole.lines().collect();
        let missing = format!("{}\n{}\n", lines[0], lines[2]);
        let changed = whole.replacen("01-x", "01-y", 1);
        let newer = whole.replacen("\"v\":1", "\"v\":7", 1);
        let last = whole.replacen("02-x", "02-y", 1);
        let cases = [
            (missing + lines[2] + "\n", 2, "checksum"),
            (changed, 2, "checksum"),
            (last, 3, "checksum"),
            (newer, 1, "format 7"),
        ];
        assert!(cases.iter().all(|(text, ..)| *text != whole));
        for (text, line, word) in cases {
            std::fs::write(&path, text).unwrap();
            match read(&path) {
                Err(error @ (JournalError::BadLine { line: at, .. } | JournalError::Format { line: at, .. })) => {
                    assert_eq!(at, line);
                    assert!(error.to_string().contains(word), "{error}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn after_a_failed_write_nothing_more_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = filled(dir.path(), 1);
        let mut journal = Journal::open(&path).unwrap().0;
        journal.fill();
        assert!(matches!(journal.append(jiff::Timestamp::UNIX_EPOCH, event(1)), Err(JournalError::Io { .. })));
        let again = journal.append(jiff::Timestamp::UNIX_EPOCH, event(1)).unwrap_err();
        assert!(matches!(again, JournalError::Poisoned { .. }));
        assert!(again.to_string().contains("cannot write a line: "), "{again}");
    }
}
