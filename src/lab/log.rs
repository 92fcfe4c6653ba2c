//! `requests.jsonl`: one line for each request that a front saw.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use super::wire::{Class, Front};

/// One request.
#[derive(Debug, Clone, Serialize)]
pub struct Entry<'a> {
    /// Where.
    pub front: Front,
    /// What it is to the estate.
    pub class: Class,
    /// HTTP method; `exec` on the ssh front, `push` on the checkout.
    pub method: &'a str,
    /// Path with query; the machine and the command on the ssh front, the node and the call on that of Talos.
    #[serde(rename = "path")]
    pub what: &'a str,
    /// HTTP status, on the Talos front the one that stands for gRPC's code, or exit code; 0 where no answer was made.
    pub status: u16,
    /// The fault rule's effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<&'a str>,
}

/// A request as it was counted.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its number, in order of arrival over all fronts.
    pub seq: u64,
    /// Where.
    pub front: Front,
    /// What it is to the estate.
    pub class: Class,
    /// `METHOD path`
    pub line: String,
    /// HTTP status or exit code; 0 where no answer was made.
    pub status: u16,
}

#[derive(Serialize)]
struct Line<'a> {
    seq: u64,
    time: String,
    #[serde(flatten)]
    entry: &'a Entry<'a>,
}

/// The log of all fronts.
#[derive(Debug)]
pub struct RequestLog {
    next: AtomicU64,
    file: Mutex<File>,
    seen: Mutex<Vec<Seen>>,
}

impl RequestLog {
    /// Starts `path` anew.
    ///
    /// # Errors
    /// Those of creating a file.
    pub fn create(path: &Path) -> std::io::Result<Self> {
        File::create(path)?;
        // The bare repository's hook writes to it too.
        let file = File::options().append(true).open(path)?;
        Ok(Self { next: AtomicU64::new(1), file: Mutex::new(file), seen: Mutex::default() })
    }

    /// The number of a request that arrives now.
    pub fn next(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Writes a request's line; it is there before the answer goes out.
    pub fn write(&self, seq: u64, time: jiff::Timestamp, entry: &Entry<'_>) {
        let line = Line { seq, time: format!("{time:.3}"), entry };
        let written = serde_json::to_vec(&line).map_err(std::io::Error::from).and_then(|mut bytes| {
            bytes.push(b'\n');
            self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&bytes)
        });
        if let Err(error) = written {
            tracing::error!(%error, seq, "the request log cannot be written");
        }
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(Seen {
            seq,
            front: entry.front,
            class: entry.class,
            line: format!("{} {}", entry.method, entry.what),
            status: entry.status,
        });
    }

    /// Everything seen so far, in order of completion.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many requests of a class a front has seen.
    pub fn count(&self, front: Front, class: Class) -> usize {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .filter(|s| s.front == front && s.class == class)
            .count()
    }
}
