//! The lock file of a site: held by its one changing run, read by whoever wants to know which one that is.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::journal::private;
use super::store::{StoreError, io};

/// How often a lock is tried for again that only a reader's look was in the way of.
const LOOKS: u32 = 1000;

/// Who holds a site: the lock file's contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The run; `(beginning)` before it has an id.
    pub run: String,
    /// The process.
    pub pid: u32,
    /// The machine.
    pub host: String,
    /// Since when.
    pub since: String,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "run {}, process {} on {}, since {}", self.run, self.pid, self.host, self.since)
    }
}

/// The lock of a site; released when dropped or when the process ends, however it ends.
#[derive(Debug)]
pub struct SiteLock {
    file: File,
    path: PathBuf,
}

impl Drop for SiteLock {
    /// A program that is being started at this moment has the file open too, up to its `exec`: closing it here would not
    /// release the lock. Where the unlocking fails, closing it does so a moment later.
    fn drop(&mut self) {
        let _released_by_closing = self.file.unlock();
    }
}

impl SiteLock {
    /// Says who holds it.
    ///
    /// # Errors
    /// The file system refused.
    pub fn name(&self, holder: &Holder) -> Result<(), StoreError> {
        let refused = || io(&self.path, "cannot write the lock file");
        let text = serde_json::to_string(holder).map_err(|e| refused()(e.into()))?;
        let mut file = &self.file;
        file.set_len(0).map_err(refused())?;
        file.rewind().map_err(refused())?;
        file.write_all(text.as_bytes()).map_err(refused())
    }
}

/// Takes the lock; the inner error is who has it.
pub(super) fn take(path: &Path, holder: &Holder) -> Result<Result<SiteLock, Holder>, StoreError> {
    let mut file = private(OpenOptions::new().read(true).write(true).create(true).truncate(false))
        .open(path)
        .map_err(io(path, "cannot open the lock file"))?;
    let refused = |source| io(path, "cannot lock the lock file")(source);
    for _ in 0..LOOKS {
        match file.try_lock() {
            Ok(()) => {
                let lock = SiteLock { file, path: path.to_owned() };
                lock.name(holder)?;
                return Ok(Ok(lock));
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(source)) => return Err(refused(source)),
        }
        // A reader looks under a shared lock, for a moment. Where that can be had as well, no run is in the way.
        match file.try_lock_shared() {
            Ok(()) => file.unlock().map_err(refused)?,
            Err(TryLockError::WouldBlock) => break,
            Err(TryLockError::Error(source)) => return Err(refused(source)),
        }
        std::thread::yield_now();
    }
    Ok(Err(named(path, &mut file)?))
}

/// Who holds the lock at this moment.
pub(super) fn holder(path: &Path) -> Result<Option<Holder>, StoreError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(path, "cannot open the lock file")(error)),
    };
    match file.try_lock_shared() {
        // What the file says then is of a run that is over.
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => named(path, &mut file).map(Some),
        Err(TryLockError::Error(source)) => Err(io(path, "cannot lock the lock file")(source)),
    }
}

/// What the file says; question marks where its holder has not said it yet.
fn named(path: &Path, file: &mut File) -> Result<Holder, StoreError> {
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(io(path, "cannot read the lock file"))?;
    let unknown = Holder { run: "?".into(), pid: 0, host: "?".into(), since: "?".into() };
    Ok(serde_json::from_str(&text).unwrap_or(unknown))
}
