//! A file of the operator's that a step writes: what was there and what was written are run files, so that nobody's later
//! change is lost, forwards or backwards.

use std::path::Path;

use crate::base::check::{Change, Problem};
use crate::base::digest::sha256;
use crate::base::fault::Failure;
use crate::base::names::StepKey;
use crate::base::permit::{Handle, Note, Permit, System};
use crate::base::private::{self, PrivateError};
use crate::engine::step::RunInfo;

/// A file, and the step that writes it.
pub(super) struct OwnFile<'a> {
    /// Where it is, absolute.
    pub(super) path: &'a Path,
    /// The step.
    pub(super) key: StepKey,
    /// What it is called among the run's files.
    pub(super) name: &'a str,
}

impl OwnFile<'_> {
    /// What is there now; only its owner may read it.
    ///
    /// # Errors
    /// It cannot be read, or others may.
    pub(super) fn now(&self) -> Result<Option<Vec<u8>>, Failure> {
        match private::read(self.path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(PrivateError::Missing { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes it. `since`: the digest of what was there when this run looked at it first.
    ///
    /// # Errors
    /// Somebody has changed it meanwhile, or it cannot be written.
    pub(super) fn put(&self, run: &RunInfo, since: Option<&str>, bytes: &[u8], permit: &Permit) -> Result<(), Failure> {
        let (path, now) = (self.path.display(), self.now()?);
        let digest = now.as_deref().map(sha256);
        // The first one counts: what is there by now may be half of this step's own work.
        if self.stored(run, "before")?.is_none() {
            if digest.as_deref() != since {
                let text = format!("somebody changed {path} just now");
                return Err(Failure::plain(text, Some("`pvemig resume` looks again".into())));
            }
            permit.file(&self.filed("before"), now.as_deref().unwrap_or_default())?;
        } else if digest.as_deref() != since && digest != self.written(run)? {
            let text = format!("somebody changed {path} since this run wrote to it");
            return Err(Failure::plain(text, Some("`pvemig undo` says what is there, and what was".into())));
        }
        permit.file(&self.filed("written"), bytes)?;
        self.write(bytes, permit)
    }

    /// What an undo would do: nothing, a change, or a problem where somebody else has changed it. `by_hand`: the way past
    /// that.
    ///
    /// # Errors
    /// It, or a run file, cannot be read.
    pub(super) fn back(
        &self,
        run: &RunInfo,
        before: Option<&str>,
        by_hand: &str,
    ) -> Result<Result<Option<Change>, Problem>, Failure> {
        let now = self.now()?.map(|bytes| sha256(&bytes));
        if now.as_deref() == before {
            return Ok(Ok(None));
        }
        let path = self.path.display();
        if now.is_some() && now != self.written(run)? {
            return Ok(Err(Problem::new(
                format!(
                    "{path} is neither what it was before this run nor what this run wrote: somebody else has changed it since"
                ),
                format!("{by_hand}, then go past it with `--past {}`", self.key),
            )));
        }
        let what = if before.is_some() { "as it was before this run" } else { "not there, as before this run" };
        Ok(Ok(Some(Change::set(path.to_string(), "what this run wrote", what))))
    }

    /// Brings back what was there, where it is not there already.
    ///
    /// # Errors
    /// It cannot be written, or the run's file is gone.
    pub(super) fn undo(&self, run: &RunInfo, before: Option<&str>, permit: &Permit) -> Result<(), Failure> {
        if self.now()?.map(|bytes| sha256(&bytes)).as_deref() == before {
            return Ok(());
        }
        if before.is_none() {
            let call = permit.note(&Note::safe(System::Local, format!("remove {}", self.path.display())))?;
            return match std::fs::remove_file(self.path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(self.unwritten(&error)),
                _ => Ok(permit.got(call, &Handle::new("removed", self.path.display().to_string()))?),
            };
        }
        let former = self.stored(run, "before")?;
        let gone = || Failure::plain(format!("the run's file {}/{} is gone", self.key, self.filed("before")), None);
        self.write(&former.ok_or_else(gone)?, permit)
    }

    fn write(&self, bytes: &[u8], permit: &Permit) -> Result<(), Failure> {
        let call = permit.note(&Note::safe(System::Local, format!("write {}", self.path.display())))?;
        private::write(self.path, bytes).map_err(|error| self.unwritten(&error))?;
        permit.got(call, &Handle::new("sha256", sha256(bytes)))?;
        Ok(())
    }

    fn written(&self, run: &RunInfo) -> Result<Option<String>, Failure> {
        Ok(self.stored(run, "written")?.map(|bytes| sha256(&bytes)))
    }

    fn filed(&self, which: &str) -> String {
        format!("{}-{which}", self.name)
    }

    fn stored(&self, run: &RunInfo, which: &str) -> Result<Option<Vec<u8>>, Failure> {
        let name = self.filed(which);
        let unread =
            |error| Failure::plain(format!("the run's file {}/{name} cannot be read: {error}", self.key), None);
        run.file(&self.key, &name).map_err(unread)
    }

    fn unwritten(&self, error: &std::io::Error) -> Failure {
        let help = format!("make {} a place that you may write", self.path.parent().unwrap_or(self.path).display());
        Failure::plain(format!("{} cannot be written: {error}", self.path.display()), Some(help))
    }
}
