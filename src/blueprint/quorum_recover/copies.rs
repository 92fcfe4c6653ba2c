//! The copies of etcd's data that are held before anything is wiped.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::base::check::bytes;
use crate::base::digest::sha256;
use crate::base::fault::Failure;
use crate::base::names::StepKey;
use crate::engine::step::RunInfo;
use crate::talos::bolt::copied;

use super::on;

/// The list of them, among the run's files.
const LIST: &str = "copies.json";
/// By which name the given one is kept.
const GIVEN: &str = "given.db";

/// Where copies come from and go to, besides the run's files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copies {
    /// What etcd begins from in place of what the survivor has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<PathBuf>,
    /// A directory that gets them too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saves: Option<PathBuf>,
}

/// A copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    /// Its name among the run's files.
    pub(super) file: String,
    /// Whose it is; None: the one that was given.
    pub(super) node: Option<String>,
    /// In bytes.
    pub(super) size: u64,
    /// Of all of it.
    pub(super) sha256: String,
    /// etcd made it, with a digest behind; else it is the raw file.
    pub(super) digest: bool,
    /// The last transaction in it.
    pub(super) transaction: u64,
}

impl Held {
    /// A copy that was looked at.
    ///
    /// # Errors
    /// Why it is of no use.
    pub(super) fn of(node: Option<&str>, content: &[u8]) -> Result<Self, String> {
        let found = copied(content)?;
        let file = match (node, found.digest) {
            (None, _) => GIVEN.to_owned(),
            (Some(node), true) => format!("{node}.snapshot"),
            (Some(node), false) => format!("{node}.db"),
        };
        Ok(Self {
            file,
            node: node.map(str::to_owned),
            size: content.len() as u64,
            sha256: sha256(content),
            digest: found.digest,
            transaction: found.transaction,
        })
    }

    /// In words.
    pub(super) fn words(&self) -> String {
        let whose = self.node.as_deref().unwrap_or("the given one");
        let kind = if self.digest { "snapshot" } else { "raw file" };
        format!("{whose}: {kind} of {}, transaction {}, sha256 {}", bytes(self.size), self.transaction, self.sha256)
    }
}

fn key() -> StepKey {
    StepKey::new(on::SAVE, None)
}

/// How the list is written.
///
/// # Errors
/// Never in practice.
pub(super) fn list(all: &[Held]) -> Result<(&'static str, Vec<u8>), Failure> {
    let text = serde_json::to_vec_pretty(all).map_err(|error| Failure::plain(error.to_string(), None))?;
    Ok((LIST, text))
}

/// What this run holds, each read back and held against its digest; none where 01 has not come to its end.
///
/// # Errors
/// One that is gone, or is not what 01 wrote.
pub(super) fn held(run: &RunInfo) -> Result<Option<Vec<Held>>, Failure> {
    let bad = |name: &str, why: String| {
        let text = format!("the copy {}/{name} cannot be used: {why}", key());
        let help = "nothing is wiped without it: look at the disk of this machine, `pvemig abandon` this run, and begin another \
                    one, which takes the copies anew";
        Failure::plain(text, Some(help.into()))
    };
    let Some(text) = run.file(&key(), LIST).map_err(|error| bad(LIST, error.to_string()))? else { return Ok(None) };
    let all: Vec<Held> = serde_json::from_slice(&text).map_err(|error| bad(LIST, error.to_string()))?;
    for copy in &all {
        read(run, copy).map_err(|why| bad(&copy.file, why))?;
    }
    Ok(Some(all))
}

/// The content of a copy.
///
/// # Errors
/// Why it is not what 01 wrote.
pub(super) fn read(run: &RunInfo, copy: &Held) -> Result<Vec<u8>, String> {
    let content = run.file(&key(), &copy.file).map_err(|error| error.to_string())?.ok_or("it is not there")?;
    let now = Held::of(copy.node.as_deref(), &content)?;
    if now == *copy { Ok(content) } else { Err("it is not what was written".into()) }
}

/// Where a copy is.
pub(super) fn place(run: &RunInfo, copy: &Held) -> Option<PathBuf> {
    Some(run.files.as_ref()?.join(key().as_str()).join(&copy.file))
}

/// The one that etcd begins from: the given one, else that of the survivor.
pub(super) fn chosen<'c>(all: &'c [Held], from: &str) -> Option<&'c Held> {
    let given = all.iter().find(|copy| copy.node.is_none());
    given.or_else(|| all.iter().find(|copy| copy.node.as_deref() == Some(from)))
}
