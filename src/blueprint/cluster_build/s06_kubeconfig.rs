//! 06: the kubeconfig of the site leads to the cluster.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Check, Problem};
use crate::base::digest::sha256;
use crate::base::fault::Failure;
use crate::base::names::StepKey;
use crate::base::permit::{Handle, Note, Permit, System};
use crate::base::private;
use crate::blueprint::machine::Machine;
use crate::engine::step::{Outlook, Risk, RunInfo, Seen, Step};
use crate::estate::Estate;
use crate::talos::Error;

use super::kubeconfig::{Entry, has, merge, other};

/// The run files: what was there, and what was written.
const FORMER: &str = "kubeconfig-before";
const WRITTEN: &str = "kubeconfig-written";

/// Merges the cluster's kubeconfig into the site's.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MergeKubeconfig {
    /// The control plane that is asked for it.
    pub machine: Machine,
    /// The file, absolute.
    pub file: PathBuf,
    /// The context in it.
    pub context: String,
}

/// What was there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {
    /// SHA-256 of the file; None: there was none.
    pub digest: Option<String>,
}

impl Step<Estate> for MergeKubeconfig {
    const ID: &'static str = "06-kubeconfig";
    const RISK: Risk = Risk::Reverts;
    type Before = Before;

    fn title(&self) -> String {
        format!("context {} of {} leads to {}", self.context, self.file.display(), self.machine.cluster)
    }

    fn why(&self) -> Vec<String> {
        vec![
            "Talos makes an administrator's certificate for whoever may ask (os:admin). It is merged into the file that the site names; \
             other clusters in it stay as they are."
                .into(),
            "A context that leads to the same server, of the same authority, is left alone, and one that leads to another cluster is in \
             the way. The former file is a run file, and an undo puts it back; comments do not survive the merge."
                .into(),
            "A certificate from there holds for a year: `pvemig survey` warns before.".into(),
            format!("By hand: {}.", self.machine.talosctl(&format!("kubeconfig {}", self.file.display()))),
        ]
    }

    /// The API server starts some time after etcd.
    fn limit(&self) -> Duration {
        Duration::from_secs(600)
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        Outlook::changes(System::Local, [self.file.display().to_string()])
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let entry = match self.fetched(cx).await? {
            Ok(entry) => entry,
            Err(why) => return Ok(Check::waiting(why)),
        };
        let now = self.now()?;
        let bad = |why: String| self.unusable(&why);
        if let Some(text) = &now
            && has(text, &self.context, &entry).map_err(bad)?
        {
            return Ok(Check::done());
        }
        if let Some(problem) = self.taken(now.as_deref(), &entry)? {
            return Ok(Check::blocked(vec![problem]));
        }
        let merged = merge(now.as_deref(), &self.context, &entry).map_err(bad)?;
        let digest = now.as_deref().map(|text| sha256(text.as_bytes()));
        let before = seen.since.cloned().unwrap_or(Before { digest });
        Ok(Check::todo(merged.changes, before))
    }

    async fn apply(&self, cx: &Estate, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let Some(since) = seen.since else { return Ok(()) };
        let entry = self.fetched(cx).await?.map_err(|why| Failure::plain(why, None))?;
        let now = self.now()?;
        let bad = |why: String| self.unusable(&why);
        if let Some(text) = &now
            && has(text, &self.context, &entry).map_err(bad)?
        {
            return Ok(());
        }
        if let Some(problem) = self.taken(now.as_deref(), &entry)? {
            return Err(Failure::plain(problem.text, Some(problem.help)));
        }
        let key = StepKey::new(Self::ID, None);
        // The first one counts: what is there by now may be half of this step's own work.
        if stored(seen.run, &key, FORMER)?.is_none() {
            if now.as_deref().map(|text| sha256(text.as_bytes())) != since.digest {
                let text = format!("somebody changed {} just now", self.file.display());
                return Err(Failure::plain(text, Some("`pvemig resume` looks again".into())));
            }
            permit.file(FORMER, now.as_deref().unwrap_or_default().as_bytes())?;
        } else if !self.is_known(seen.run, &key, since, now.as_deref())? {
            let text = format!("somebody changed {} since this run wrote to it", self.file.display());
            return Err(Failure::plain(text, Some("`pvemig undo` says what is there, and what was".into())));
        }
        let merged = merge(now.as_deref(), &self.context, &entry).map_err(bad)?;
        permit.file(WRITTEN, merged.text.as_bytes())?;
        self.write(merged.text.as_bytes(), permit)?;
        // Who was asked with the former file asks anew.
        cx.forget_kubernetes(&self.machine.node.cluster).await;
        Ok(())
    }

    async fn back(&self, _: &Estate, before: &Before, seen: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        let (key, now) = (StepKey::new(Self::ID, None), self.now()?.map(|text| sha256(text.as_bytes())));
        if now == before.digest {
            return Ok(Check::done());
        }
        let written = stored(seen.run, &key, WRITTEN)?.map(|bytes| sha256(&bytes));
        let file = self.file.display();
        if now.is_some() && now != written {
            return Ok(Check::blocked(vec![Problem::new(
                format!(
                    "{file} is neither what it was before this run nor what this run wrote: somebody else has changed it since"
                ),
                format!(
                    "take context {} out by hand: `kubectl config delete-context {0} --kubeconfig {file}`, then go past it with \
                         `--past {key}`",
                    self.context
                ),
            )]));
        }
        let what = if before.digest.is_some() { "as it was before this run" } else { "not there, as before this run" };
        Ok(Check::todo(vec![crate::base::check::Change::set(file.to_string(), "what this run wrote", what)], ()))
    }

    async fn undo(&self, cx: &Estate, before: &Before, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let key = StepKey::new(Self::ID, None);
        match (&before.digest, stored(seen.run, &key, FORMER)?) {
            (None, _) => {
                let call = permit.note(&Note::safe(System::Local, format!("remove {}", self.file.display())))?;
                match std::fs::remove_file(&self.file) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(self.unwritten(&error)),
                    _ => permit.got(call, &Handle::new("removed", self.file.display().to_string()))?,
                }
            }
            (Some(_), Some(former)) => self.write(&former, permit)?,
            (Some(_), None) => return Err(Failure::plain(format!("the run's file {key}/{FORMER} is gone"), None)),
        }
        cx.forget_kubernetes(&self.machine.node.cluster).await;
        Ok(())
    }
}

impl MergeKubeconfig {
    /// The context is somebody else's: it leads to another cluster, or to an older one of that name.
    fn taken(&self, now: Option<&str>, entry: &Entry) -> Result<Option<Problem>, Failure> {
        let Some(text) = now else { return Ok(None) };
        let found = other(text, &self.context, entry).map_err(|why| self.unusable(&why))?;
        Ok(found.map(|server| {
            let (context, file) = (&self.context, self.file.display());
            Problem::new(
                format!("context {context} of {file} leads to another cluster ({server}): its authority is another one"),
                format!(
                    "where that cluster is gone: `kubectl --kubeconfig {file} config delete-context {context}`; else name another \
                     `context` for {} in the site file",
                    self.machine.node.cluster
                ),
            )
        }))
    }

    /// Whether the file is what it was before this run, or what this run wrote.
    fn is_known(&self, run: &RunInfo, key: &StepKey, since: &Before, now: Option<&str>) -> Result<bool, Failure> {
        let now = now.map(|text| sha256(text.as_bytes()));
        let written = stored(run, key, WRITTEN)?.map(|bytes| sha256(&bytes));
        Ok(now == since.digest || now == written)
    }

    /// The cluster's own entries; or why they are not there yet.
    async fn fetched(&self, cx: &Estate) -> Result<Result<Entry, String>, Failure> {
        let talos = self.machine.open(cx).await?;
        match talos.kubeconfig().await {
            Ok(text) => Entry::read(text.expose()).map(Ok).map_err(|why| {
                Failure::plain(format!("the kubeconfig that {} gives cannot be used: {why}", self.machine.name), None)
            }),
            Err(error @ Error::NotReady { .. }) => Ok(Err(error.to_string())),
            Err(error) if error.is_down() => Ok(Err(error.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    fn now(&self) -> Result<Option<String>, Failure> {
        match private::read(&self.file) {
            Ok(bytes) => String::from_utf8(bytes).map(Some).map_err(|_| self.unusable("it is not text")),
            Err(private::PrivateError::Missing { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn write(&self, bytes: &[u8], permit: &Permit) -> Result<(), Failure> {
        let call = permit.note(&Note::safe(System::Local, format!("write {}", self.file.display())))?;
        private::write(&self.file, bytes).map_err(|error| self.unwritten(&error))?;
        permit.got(call, &Handle::new("sha256", sha256(bytes)))?;
        Ok(())
    }

    fn unusable(&self, why: &str) -> Failure {
        let help = "correct it, or name another file by `kubeconfig` of the cluster in the site file";
        Failure::plain(format!("{} cannot be used: {why}", self.file.display()), Some(help.into()))
    }

    fn unwritten(&self, error: &std::io::Error) -> Failure {
        let help = format!("make {} a place that you may write", self.file.parent().unwrap_or(&self.file).display());
        Failure::plain(format!("{} cannot be written: {error}", self.file.display()), Some(help))
    }
}

fn stored(run: &RunInfo, key: &StepKey, name: &str) -> Result<Option<Vec<u8>>, Failure> {
    run.file(key, name)
        .map_err(|error| Failure::plain(format!("the run's file {key}/{name} cannot be read: {error}"), None))
}
