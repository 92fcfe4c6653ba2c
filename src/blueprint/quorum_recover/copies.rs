//! The copies of etcd's data that are held before anything is wiped.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::check::{Problem, bytes};
use crate::base::digest::sha256;
use crate::base::fault::Failure;
use crate::base::names::StepKey;
use crate::blueprint::machine::Machine;
use crate::engine::step::{RunInfo, Standing};
use crate::estate::Estate;
use crate::talos::bolt::{Content, copied};
use crate::talos::{EtcdStatus, Talos};

use super::facts::{Facts, Holds};
use super::{Planes, on};

/// The list of them, among the run's files.
const LIST: &str = "copies.json";
/// By which name the given one is kept.
const GIVEN: &str = "given.db";
/// How often a file is read that is another one each time.
const READS: usize = 4;

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
    /// What is in it: read with the file itself.
    #[serde(skip)]
    pub(super) content: Content,
}

/// How far a member is, where its etcd tells. Talos tells nothing of the cluster that it is a member of: that is in its data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stood {
    /// Its id: what began anew meanwhile is another member, as a rule.
    #[serde(default)]
    pub(super) member: Option<u64>,
    /// Entries of its log that it has taken in, and their term.
    #[serde(default)]
    pub(super) raft: Option<(u64, u64)>,
}

impl Stood {
    pub(super) fn of(holds: &Holds) -> Self {
        let status = holds.status.as_ref().ok();
        Self {
            member: status.map(|status| status.member),
            raft: status.map(|status| (status.raft_applied, status.raft_term)),
        }
    }

    /// What a member has that it had not when it was copied; None where one of the two did not tell.
    fn more(&self, now: &EtcdStatus) -> Option<Result<(), String>> {
        if let Some(then) = self.member.filter(|then| *then != now.member) {
            return Some(Err(format!(
                "another etcd: its member is {:016x}, and the copy is of {then:016x}",
                now.member
            )));
        }
        let (then, term) = self.raft?;
        let (now, now_term) = (now.raft_applied, now.raft_term);
        // Less is no part of the copy either: a log that begins low is that of an etcd which began anew.
        let same = now == then && now_term >= term;
        Some(if same {
            Ok(())
        } else {
            Err(format!("entry {now} of term {now_term}, and the copy has entry {then} of term {term}"))
        })
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
            content: found.content,
        })
    }

    /// In words.
    pub(super) fn words(&self) -> String {
        let whose = self.node.as_deref().unwrap_or("the given one");
        let kind = if self.digest { "snapshot" } else { "raw file (without its WAL)" };
        format!("{whose}: {kind} of {}, transaction {}, sha256 {}", bytes(self.size), self.transaction, self.sha256)
    }
}

/// The members that have more than their copies, and what. Where an etcd does not tell how far it is, what is in its file
/// does: one that starts over and over writes it each time, and adds nothing.
pub(super) async fn newer(cx: &Estate, held: &[Held], facts: &Facts) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for (machine, holds) in facts.holders() {
        let Some(copy) = held.iter().find(|copy| copy.node.as_deref() == Some(&machine.name)) else { continue };
        let told = holds.status.as_ref().ok().and_then(|status| copy.stood.more(status));
        let same = match told {
            Some(told) => told,
            None => file_of(cx, machine).await.and_then(|now| {
                let same = now.content.sha256 == copy.content.sha256;
                same.then_some(()).ok_or_else(|| {
                    "its etcd does not tell how far it is, and its file has another content than the copy".to_owned()
                })
            }),
        };
        if let Err(more) = same {
            out.push((machine.name.clone(), more));
        }
    }
    out
}

async fn file_of(cx: &Estate, machine: &Machine) -> Result<Held, String> {
    let read = async { raw(&*machine.open(cx).await?).await };
    let unknown = |why: String| {
        format!("as much as nobody can tell: its etcd does not say how far it is, nor does its file ({why})")
    };
    let content = read.await.map_err(|failure| unknown(failure.to_string()))?;
    Held::of(Some(&machine.name), &content).map_err(unknown)
}

/// The file of an etcd that is not at work, or stands still: what is written while it is read is of no use.
pub(super) async fn raw(talos: &Talos) -> Result<Vec<u8>, Failure> {
    let mut last = None;
    for _ in 0..READS {
        let content = talos.etcd_database().await?;
        let sum = sha256(&content);
        if last.as_ref() == Some(&sum) {
            return Ok(content);
        }
        last = Some(sum);
    }
    let name = &talos.node().name;
    let text = format!("the file of the etcd of {name} was another one each of {READS} times that it was read");
    let help = format!(
        "its etcd starts over and over: let it come up, or switch {name} off and put it under `lost`; then `pvemig run` anew"
    );
    Err(Failure::plain(text, Some(help)))
}

/// What a survivor has, a snapshot of a voter, else its file; and why it is no snapshot.
pub(super) async fn taken(cx: &Estate, machine: &Machine, holds: &Holds) -> Result<(Vec<u8>, Option<String>), Failure> {
    let talos = machine.open(cx).await?;
    let why = match &holds.status {
        Ok(status) if status.is_learner => "it is a learner".to_owned(),
        Ok(_) => {
            let mut content = Vec::new();
            match talos.etcd_snapshot_into(&mut content, Path::new(&machine.name)).await {
                Ok(_) => return Ok((content, None)),
                Err(error) => error.to_string(),
            }
        }
        Err(why) => why.clone(),
    };
    Ok((raw(&talos).await?, Some(why)))
}

/// Which of those that were copied are of another etcd than what is to be begun from. Their indices do not compare.
pub(super) fn strangers(held: &[Held], facts: &Facts, planes: &Planes) -> Vec<Problem> {
    let Some(base) = chosen(held, &planes.from.name) else { return Vec::new() };
    let whose = base.node.as_deref().unwrap_or("the given copy");
    let of_it = |copy: &Held| match copy.stood.member {
        Some(member) => base.content.knows(member),
        None => copy.content.members.iter().any(|member| base.content.knows(*member)),
    };
    let others: Vec<&Held> = held.iter().filter(|copy| copy.node.is_some() && copy.file != base.file).collect();
    // Whoever names a file has said which of them it is to be.
    if base.node.is_none() && others.iter().any(|copy| of_it(copy)) {
        return Vec::new();
    }
    let there = |name: &str| facts.holders().any(|(machine, _)| machine.name == name);
    let amiss = |copy: &&&Held| !of_it(copy) && copy.node.as_deref().is_some_and(there);
    let problem = |copy: &&Held| {
        let other = copy.node.as_deref().unwrap_or_default();
        Problem::new(
            format!(
                "{other} is of another etcd than {whose}, whose members {} do not have its own among them: which has more no index tells",
                ids(&base.content)
            ),
            format!(
                "find out which of them was at work last; the other one is put under `lost` and switched off, or a copy is named \
                 by `snapshot` that is of the right one ({other} is wiped only where it is under `nodes`)"
            ),
        )
    };
    others.iter().filter(amiss).map(problem).collect()
}

/// The members that a database knows, as etcd shows them.
pub(super) fn ids(content: &Content) -> String {
    let all: Vec<String> = content.members.iter().map(|id| format!("{id:016x}")).collect();
    if all.is_empty() { "(none)".to_owned() } else { all.join(", ") }
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
    let mut all: Vec<Held> = serde_json::from_slice(&text).map_err(|error| bad(LIST, error.to_string()))?;
    for copy in &mut all {
        let content = read(run, copy).map_err(|why| bad(&copy.file, why))?;
        copy.content = copied(&content).map_err(|why| bad(&copy.file, why))?.content;
    }
    Ok(Some(all))
}

/// The content of a copy.
///
/// # Errors
/// Why it is not what 01 wrote.
pub(super) fn read(run: &RunInfo, copy: &Held) -> Result<Vec<u8>, String> {
    let content = run.file(&key(), &copy.file).map_err(|error| error.to_string())?.ok_or("it is not there")?;
    let same = content.len() as u64 == copy.size && sha256(&content) == copy.sha256;
    if same { Ok(content) } else { Err("it is not what was written".into()) }
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

/// Which of those runs is open: it may have wiped already, and goes on from what it holds.
pub(super) fn open(kept: &[(String, PathBuf)], run: &RunInfo) -> Vec<Problem> {
    let open = kept.iter().filter(|(id, _)| run.others.get(id) == Some(&Standing::Open));
    let problem = |(id, path): &(String, PathBuf)| {
        Problem::new(
            format!("run {id} of this site is open, and has what etcd is to begin from: {}", path.display()),
            format!(
                "`pvemig resume {id}` goes on with it; whatever does not answer may be in the middle of its reboot"
            ),
        )
    };
    open.map(problem).collect()
}

/// What other runs of the site hold for etcd to begin from: the run, and the file; the newest first.
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
    let copied = |path: &PathBuf| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    out.sort_by_key(|(id, path)| (std::cmp::Reverse(copied(path)), id.clone()));
    out
}
