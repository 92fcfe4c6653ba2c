//! The copies of etcd's data that are held before anything is wiped.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::base::check::{Problem, bytes};
use crate::base::digest::sha256;
use crate::base::fault::{Failure, Fault};
use crate::base::names::StepKey;
use crate::base::private;
use crate::base::wait::show;
use crate::blueprint::machine::Machine;
use crate::engine::step::RunInfo;
use crate::talos::bolt::copied;

use super::facts::{Facts, Holds};
use super::{Planes, on};

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
    /// How far its member was right before it was copied; nothing of the given one.
    #[serde(default)]
    pub(super) stood: Stood,
}

/// How far a member is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stood {
    /// Its id, where its etcd tells: what began anew meanwhile is another member, as a rule.
    #[serde(default)]
    pub(super) member: Option<u64>,
    /// Entries of its log that it has taken in, and their term, where its etcd tells.
    #[serde(default)]
    pub(super) raft: Option<(u64, u64)>,
    /// When its file was written last.
    #[serde(default)]
    pub(super) written: Option<Timestamp>,
}

impl Stood {
    pub(super) fn of(holds: &Holds) -> Self {
        let raft = holds.status.as_ref().ok().map(|status| (status.raft_applied, status.raft_term));
        Self { member: holds.status.as_ref().ok().map(|status| status.member), raft, written: holds.written }
    }

    /// What a member has that it had not when it was copied; where its etcd does not tell, its file does.
    fn more(&self, now: &Self) -> Option<String> {
        if let (Some(then), Some(now)) = (self.member, now.member)
            && then != now
        {
            return Some(format!("another etcd: its member is {now:016x}, and the copy is of {then:016x}"));
        }
        match (self.raft, now.raft, self.written, now.written) {
            (Some((then, term)), Some((now, now_term)), ..) =>
            // Less is no part of the copy either: a log that begins low is that of an etcd which began anew.
            {
                (now != then || now_term < term)
                    .then(|| format!("entry {now} of term {now_term}, and the copy has entry {then} of term {term}"))
            }
            (_, _, Some(then), Some(now)) => {
                (now != then).then(|| format!("a file written at {now}, and the copy is of one written at {then}"))
            }
            _ => Some("as much as nobody can tell: neither its etcd nor its file says how far it is".to_owned()),
        }
    }
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
            stood: Stood::default(),
        })
    }

    /// In words.
    pub(super) fn words(&self) -> String {
        let whose = self.node.as_deref().unwrap_or("the given one");
        let kind = if self.digest { "snapshot" } else { "raw file" };
        format!("{whose}: {kind} of {}, transaction {}, sha256 {}", bytes(self.size), self.transaction, self.sha256)
    }
}

/// The members that have more than their copies, and what.
pub(super) fn newer(held: &[Held], facts: &Facts) -> Vec<(String, String)> {
    let more = |(machine, holds): (&Machine, &Holds)| {
        let copy = held.iter().find(|copy| copy.node.as_deref() == Some(&machine.name))?;
        Some((machine.name.clone(), copy.stood.more(&Stood::of(holds))?))
    };
    facts.holders().filter_map(more).collect()
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
    let now = Held { stood: copy.stood.clone(), ..Held::of(copy.node.as_deref(), &content)? };
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

/// What other runs of the site hold for etcd to begin from: the run, and the file.
pub(super) fn of_others(site: &Path, own: &str, from: &str) -> Vec<(String, PathBuf)> {
    let mut out = Vec::new();
    for run in std::fs::read_dir(site.join("runs")).into_iter().flatten().flatten() {
        let id = run.file_name().to_string_lossy().into_owned();
        let files = run.path().join("files").join(key().as_str());
        let Ok(text) = std::fs::read(files.join(LIST)) else { continue };
        let Ok(all) = serde_json::from_slice::<Vec<Held>>(&text) else { continue };
        if let Some(copy) = chosen(&all, from).filter(|_| id != own) {
            out.push((id, files.join(&copy.file)));
        }
    }
    out.sort();
    out
}

/// Looks at the file that is given to begin from: what is to be known of it, else why it is of no use. It is of this cluster
/// where it names a member that somebody has here, or has the Node of one of its control planes.
pub(super) fn given(path: &Path, facts: &Facts, planes: &Planes, now: Timestamp) -> Result<Vec<String>, Problem> {
    let shown = path.display();
    let unusable = |why: String, help: Option<String>| {
        let named = "name a file as `pvemig etcd snapshot` or `talosctl etcd snapshot` wrote it; an encrypted one is decrypted \
                     before: `age -d -i KEYFILE -o etcd.snapshot FILE.age`";
        Problem::new(
            format!("{shown}, which etcd is to begin from, cannot be used: {why}"),
            help.unwrap_or_else(|| named.to_owned()),
        )
    };
    let content = private::read(path).map_err(|error| unusable(error.to_string(), error.help()))?;
    let copy = Held::of(None, &content).map_err(|why| unusable(why, None))?;
    let written = std::fs::metadata(path).ok().and_then(|meta| Timestamp::try_from(meta.modified().ok()?).ok());
    let age = written.map_or_else(
        || "when it was written is not known".to_owned(),
        |at| {
            format!(
                "written {} ago ({at:.0})",
                show(Duration::from_secs(now.duration_since(at).as_secs().max(0).unsigned_abs()))
            )
        },
    );
    let mut notes =
        vec![format!("etcd is to begin from {shown}: {}, {age}; what was written since is lost", copy.words())];
    let has = |text: String| content.windows(text.len()).any(|part| part == text.as_bytes());
    let ids: Vec<u64> = facts.holders().filter_map(|(_, holds)| Some(holds.status.as_ref().ok()?.member)).collect();
    let machines = || planes.stay().chain(&planes.lost);
    let ours = ids.iter().any(|id| has(format!("{id:x}")))
        || machines().any(|machine| has(format!("/registry/minions/{}", machine.node.name)));
    if !ours && ids.is_empty() {
        notes.push(format!(
            "whether {shown} is of {} is not known: no member of its etcd is left to compare",
            planes.cluster
        ));
    } else if !ours {
        let text = "it is of another cluster: it names no member of this etcd, and has none of its Nodes".to_owned();
        return Err(unusable(text, Some(format!("name a snapshot of {}", planes.cluster))));
    }
    Ok(notes)
}
