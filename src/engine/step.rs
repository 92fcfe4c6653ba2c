//! What a step is: typed where people write one, erased where the engine keeps one.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::check::Check;
use crate::base::digest::sha256;
use crate::base::fault::Failure;
use crate::base::names::StepKey;
use crate::base::permit::{Handle, Note, Permit, Thing};

pub use super::outlook::Outlook;
pub use crate::base::settle::{Lost, Settle, Settled};

/// What a step may do to the estate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Risk {
    /// It only looks (and may ask a person to act); its check never answers Todo.
    Reads,
    /// It changes things and can bring them back.
    Reverts,
    /// It changes things that cannot be brought back.
    Destroys,
}

/// A call of this step in this run that left a handle.
#[derive(Debug, Clone, PartialEq)]
pub struct Got {
    /// The call, as noted before it went out.
    pub note: Note,
    /// What it left.
    pub handle: Handle,
    /// When it was noted.
    pub at: jiff::Timestamp,
}

/// How another run of this state directory stands; for the marks of holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It can still go on.
    Open,
    /// It is being taken back, and cannot go on forwards.
    Undoing,
    /// Given up by the operator.
    Abandoned,
    /// Done or undone.
    Closed,
    /// Its journal is empty or damaged: nobody knows.
    Unreadable,
}

/// The run that asks, and the others of its state directory.
#[derive(Debug, Clone, Default)]
pub struct RunInfo {
    /// This run's id; empty where only a plan is shown.
    pub id: String,
    /// The migration's name in the site file; None for a step that got all its parameters by flags.
    pub migration: Option<String>,
    /// This machine.
    pub host: String,
    /// The other runs of the site, by id.
    pub others: BTreeMap<String, Standing>,
    /// Runs of other sites of the same state directory, by id: the site's name.
    pub elsewhere: BTreeMap<String, String>,
    /// The process that is at work on the site at this moment, where it is another one: `process 7 on HOST`, by run.
    pub at_work: Option<(String, String)>,
    /// The machines on which the runs of this state directory were opened, this run's too, by id; none of a run of which
    /// nothing can be read.
    pub hosts: BTreeMap<String, String>,
    /// The run's directory of files, if there is one.
    pub files: Option<PathBuf>,
    /// What the operator consented to lose: for this run, or for the plan that is asked for. Whether it may be destroyed
    /// the permit says, right before the call; this is for what can be said beforehand.
    pub consents: BTreeSet<Thing>,
    /// Those of them that were given to this process: the others are of an earlier day, perhaps.
    pub granted: BTreeSet<Thing>,
    /// The digests (SHA-256, hexadecimal) of the run files that the journal had when the run was opened, by `STEP/NAME`.
    pub filed: BTreeMap<String, String>,
}

impl RunInfo {
    /// Reads a run file of a step of this run; None where there is none.
    ///
    /// # Errors
    /// The file exists and cannot be read, or is not the one of which the journal has the digest.
    pub fn file(&self, key: &StepKey, name: &str) -> std::io::Result<Option<Vec<u8>>> {
        let Some(files) = &self.files else { return Ok(None) };
        match std::fs::read(files.join(key.as_str()).join(name)) {
            Ok(bytes) if self.filed.get(&filed(key, name)).is_some_and(|known| *known != sha256(&bytes)) => {
                Err(std::io::Error::other("it is not what the journal has the digest of"))
            }
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A run file's name for the journal's digests.
pub(super) fn filed(key: &StepKey, name: &str) -> String {
    format!("{key}/{name}")
}

/// What this run remembers, for a check or an apply.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a, B> {
    /// The first before-image of this step in this run; None as long as nothing was begun.
    pub since: Option<&'a B>,
    /// The handles that this step's calls left, oldest first.
    pub got: &'a [Got],
    /// For a closer: the before-images of its holders in this run, by step id.
    pub held: &'a BTreeMap<String, Value>,
    /// The run.
    pub run: &'a RunInfo,
}

/// One numbered, idempotent unit. `Cx` is the estate; the engine does not look into it.
pub trait Step<Cx: Sync>: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Number and slug, never reused or renumbered.
    const ID: &'static str;
    /// What it may do.
    const RISK: Risk;
    /// The id of the step that takes this effect back, if it is a hold.
    const HOLDS_UNTIL: Option<&'static str> = None;
    /// The ids of holds that it does not ask, because an API is down by our own doing. On the way back such a hold is put up
    /// where it can be asked, and passed where it cannot and stands by the journal.
    const BLIND_TO: &'static [&'static str] = &[];
    /// Whether its check may be broken off when it hears something ([`Step::stir`]): it asks nothing that leaves
    /// anything behind where nobody waits for the answer, and what it asks may take long.
    const CUT_SHORT: bool = false;

    /// What undo restores.
    type Before: Serialize + DeserializeOwned + Send + Sync;

    /// The instance, where a plan has several of a kind.
    fn instance(&self) -> Option<String> {
        None
    }

    /// One line with the real names in it.
    fn title(&self) -> String;

    /// Lines for `explain`: what can go wrong, what went wrong last time, what a person would type by hand.
    fn why(&self) -> Vec<String>;

    /// What can be said beforehand, from its fields and the site file; no system is asked.
    fn outlook(&self, _cx: &Cx) -> Outlook {
        Outlook::default()
    }

    /// How long an effect may take to become visible.
    fn limit(&self) -> Duration {
        Duration::from_secs(60)
    }

    /// The one question. Must not change anything (it cannot: it gets no permit).
    fn check(
        &self,
        cx: &Cx,
        seen: Seen<'_, Self::Before>,
    ) -> impl Future<Output = Result<Check<Self::Before>, Failure>> + Send;

    /// While the check says that something is on its way: ends when it is worth asking again before the next look is
    /// due. It only listens, may be broken off at any moment, and decides nothing: the check does. An error of it is
    /// noted, and the looks go on as they would without it. By default it never ends.
    fn stir(&self, _cx: &Cx, _seen: Seen<'_, Self::Before>) -> impl Future<Output = Result<(), Failure>> + Send {
        std::future::pending()
    }

    /// Makes it so. `seen.since` is always there. May be called again after a crash, and looks before each call.
    fn apply(
        &self,
        _cx: &Cx,
        _seen: Seen<'_, Self::Before>,
        _permit: &Permit,
    ) -> impl Future<Output = Result<(), Failure>> + Send {
        async { Err(Failure::plain(format!("{} only reads and cannot be applied", Self::ID), None)) }
    }

    /// The undo twin of check: is everything as `before` says? A step that changes things has its own.
    fn back(
        &self,
        _cx: &Cx,
        _before: &Self::Before,
        _seen: Seen<'_, Self::Before>,
    ) -> impl Future<Output = Result<Check<()>, Failure>> + Send {
        async {
            match Self::RISK {
                Risk::Reads => Ok(Check::done()),
                Risk::Reverts | Risk::Destroys => {
                    Err(Failure::plain(format!("{} cannot say whether it is undone", Self::ID), None))
                }
            }
        }
    }

    /// Restores `before`, from any half-way state, any number of times.
    fn undo(
        &self,
        _cx: &Cx,
        _before: &Self::Before,
        _seen: Seen<'_, Self::Before>,
        _permit: &Permit,
    ) -> impl Future<Output = Result<(), Failure>> + Send {
        async { Err(Failure::plain(format!("{} has nothing to undo", Self::ID), None)) }
    }

    /// What an undo to `before` would destroy for good: each needs the operator's consent, asked before anything.
    fn undo_destroys(&self, _before: &Self::Before) -> Vec<Thing> {
        Vec::new()
    }

    /// Whether what it stops ([`Outlook::stops`]) was at work before.
    fn was_at_work(&self, _before: &Self::Before) -> bool {
        true
    }

    /// What its own work takes down, and finds at work again at its end.
    fn takes_down(&self, _before: &Self::Before) -> Option<String> {
        None
    }
}

/// A step without its types.
#[async_trait]
pub trait AnyStep<Cx: Sync>: Send + Sync {
    /// ID, or ID@INSTANCE.
    fn key(&self) -> StepKey;
    /// See [`Step::ID`].
    fn id(&self) -> &'static str;
    /// See [`Step::title`].
    fn title(&self) -> String;
    /// See [`Step::why`].
    fn why(&self) -> Vec<String>;
    /// See [`Step::RISK`].
    fn risk(&self) -> Risk;
    /// See [`Step::HOLDS_UNTIL`].
    fn holds_until(&self) -> Option<&'static str>;
    /// See [`Step::BLIND_TO`].
    fn blind_to(&self) -> &'static [&'static str];
    /// See [`Step::CUT_SHORT`].
    fn cut_short(&self) -> bool {
        false
    }
    /// See [`Step::limit`].
    fn limit(&self) -> Duration;
    /// See [`Step::outlook`].
    fn outlook(&self, _cx: &Cx) -> Outlook {
        Outlook::default()
    }
    /// The step's fields.
    fn fields(&self) -> Result<Value, Failure>;
    /// See [`Step::check`].
    async fn check(&self, cx: &Cx, seen: Seen<'_, Value>) -> Result<Check<Value>, Failure>;
    /// See [`Step::stir`].
    async fn stir(&self, _cx: &Cx, _seen: Seen<'_, Value>) -> Result<(), Failure> {
        std::future::pending().await
    }
    /// See [`Step::apply`].
    async fn apply(&self, cx: &Cx, seen: Seen<'_, Value>, permit: &Permit) -> Result<(), Failure>;
    /// See [`Step::back`].
    async fn back(&self, cx: &Cx, before: &Value, seen: Seen<'_, Value>) -> Result<Check<()>, Failure>;
    /// See [`Step::undo`].
    async fn undo(&self, cx: &Cx, before: &Value, seen: Seen<'_, Value>, permit: &Permit) -> Result<(), Failure>;
    /// See [`Step::undo_destroys`].
    fn undo_destroys(&self, before: &Value) -> Result<Vec<Thing>, Failure>;
    /// See [`Step::was_at_work`].
    fn was_at_work(&self, before: &Value) -> Result<bool, Failure>;
    /// See [`Step::takes_down`].
    fn takes_down(&self, before: &Value) -> Result<Option<String>, Failure>;
}

fn decode<B: DeserializeOwned>(id: &str, value: &Value) -> Result<B, Failure> {
    B::deserialize(value).map_err(|error| {
        Failure::plain(
            format!("the journal's before-image of {id} does not fit this version of the step: {error}"),
            Some("use the version of pvemig that the journal's first line names".into()),
        )
    })
}

/// The before-image, for an undo. None: a step that asked a person, and was not begun, kept nothing of how it was and has
/// nothing to take back.
fn kept<B: DeserializeOwned>(id: &str, value: &Value) -> Result<Option<B>, Failure> {
    match decode(id, value) {
        Err(_) if value.is_null() => Ok(None),
        decoded => decoded.map(Some),
    }
}

fn encode<B: Serialize>(id: &str, value: &B) -> Result<Value, Failure> {
    serde_json::to_value(value)
        .map_err(|error| Failure::plain(format!("the before-image of {id} cannot be written: {error}"), None))
}

fn retype<'a, B>(seen: Seen<'a, Value>, since: Option<&'a B>) -> Seen<'a, B> {
    Seen { since, got: seen.got, held: seen.held, run: seen.run }
}

#[async_trait]
impl<Cx: Sync, S: Step<Cx>> AnyStep<Cx> for S {
    fn key(&self) -> StepKey {
        StepKey::new(S::ID, self.instance().as_deref())
    }
    fn id(&self) -> &'static str {
        S::ID
    }
    fn title(&self) -> String {
        Step::title(self)
    }
    fn why(&self) -> Vec<String> {
        Step::why(self)
    }
    fn risk(&self) -> Risk {
        S::RISK
    }
    fn holds_until(&self) -> Option<&'static str> {
        S::HOLDS_UNTIL
    }
    fn blind_to(&self) -> &'static [&'static str] {
        S::BLIND_TO
    }
    fn cut_short(&self) -> bool {
        S::CUT_SHORT
    }
    fn limit(&self) -> Duration {
        Step::limit(self)
    }
    fn outlook(&self, cx: &Cx) -> Outlook {
        Step::outlook(self, cx)
    }
    fn fields(&self) -> Result<Value, Failure> {
        encode(S::ID, self)
    }
    async fn check(&self, cx: &Cx, seen: Seen<'_, Value>) -> Result<Check<Value>, Failure> {
        let since = seen.since.map(|v| decode::<S::Before>(S::ID, v)).transpose()?;
        Step::check(self, cx, retype(seen, since.as_ref())).await?.try_map(|before| encode(S::ID, &before))
    }
    async fn stir(&self, cx: &Cx, seen: Seen<'_, Value>) -> Result<(), Failure> {
        let since = seen.since.map(|v| decode::<S::Before>(S::ID, v)).transpose()?;
        Step::stir(self, cx, retype(seen, since.as_ref())).await
    }
    async fn apply(&self, cx: &Cx, seen: Seen<'_, Value>, permit: &Permit) -> Result<(), Failure> {
        let since = seen.since.map(|v| decode::<S::Before>(S::ID, v)).transpose()?;
        Step::apply(self, cx, retype(seen, since.as_ref()), permit).await
    }
    async fn back(&self, cx: &Cx, before: &Value, seen: Seen<'_, Value>) -> Result<Check<()>, Failure> {
        let Some(before) = kept::<S::Before>(S::ID, before)? else { return Ok(Check::done()) };
        Step::back(self, cx, &before, retype(seen, Some(&before))).await
    }
    async fn undo(&self, cx: &Cx, before: &Value, seen: Seen<'_, Value>, permit: &Permit) -> Result<(), Failure> {
        let before = decode::<S::Before>(S::ID, before)?;
        Step::undo(self, cx, &before, retype(seen, Some(&before)), permit).await
    }
    fn undo_destroys(&self, before: &Value) -> Result<Vec<Thing>, Failure> {
        let before = kept::<S::Before>(S::ID, before)?;
        Ok(before.map(|before| Step::undo_destroys(self, &before)).unwrap_or_default())
    }
    fn was_at_work(&self, before: &Value) -> Result<bool, Failure> {
        Ok(Step::was_at_work(self, &decode::<S::Before>(S::ID, before)?))
    }
    fn takes_down(&self, before: &Value) -> Result<Option<String>, Failure> {
        Ok(Step::takes_down(self, &decode::<S::Before>(S::ID, before)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_file_is_held_against_its_digest() {
        let dir = tempfile::tempdir().unwrap();
        let key = StepKey::from("11-recreate-pvcs");
        std::fs::create_dir(dir.path().join(key.as_str())).unwrap();
        let info = RunInfo {
            files: Some(dir.path().to_owned()),
            filed: [(filed(&key, "a.json"), sha256(b"as it was"))].into(),
            ..RunInfo::default()
        };
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(key.as_str()).join(name), text).unwrap();
        assert_eq!(info.file(&key, "a.json").unwrap(), None);
        write("a.json", "as it was");
        assert_eq!(info.file(&key, "a.json").unwrap().as_deref(), Some(&b"as it was"[..]));
        write("a.json", "as it is");
        assert!(info.file(&key, "a.json").unwrap_err().to_string().contains("digest"));
        // One that was written since the run was opened.
        write("b.json", "as it is");
        assert!(info.file(&key, "b.json").unwrap().is_some());
    }
}
