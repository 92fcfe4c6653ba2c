//! Where snapshots are kept: their names, how one comes there whole or not at all, and which ones go.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Seek};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use sha2::{Digest, Sha256};

use super::press::Pressed;
use crate::base::digest::hex;
use crate::base::shelf::{self, DIGEST, SEALED, begins_sealed, look, stamp};
use crate::cli::exit::Exit;
use crate::cli::fail::Words;
use crate::cli::words::quoted;

const PARTIAL: &str = ".partial";

/// The snapshots of one cluster in a directory. What is not named exactly as ours are is never touched.
pub(super) struct Shelf {
    dir: PathBuf,
    cluster: String,
}

/// What `--keep` made of a shelf.
#[derive(Debug, Default)]
pub(super) struct Tidied {
    /// Newest first.
    pub(super) kept: Vec<String>,
    pub(super) removed: Vec<String>,
    /// Of our names, and no whole snapshot: not counted, and left alone.
    pub(super) broken: Vec<String>,
    /// Whole, and of another etcd: not counted, and left alone.
    pub(super) foreign: Vec<String>,
    /// Dated after the new one, as by a clock that was ahead: not counted, and left alone.
    pub(super) ahead: Vec<String>,
    pub(super) failed: Vec<(String, io::Error)>,
}

/// What the system says of a place on the disk, with what may help.
pub(super) fn disk(what: &str, dir: &Path, error: &io::Error) -> Words {
    let at = quoted(&dir.to_string_lossy());
    let help = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            format!("make room (`df -h {at}`), or keep fewer with `--keep`")
        }
        ErrorKind::FileTooLarge => "files may not be so large here: `ulimit -f`".to_owned(),
        ErrorKind::PermissionDenied => format!("give yourself the right to write there: `ls -ld {at}`, `id`"),
        ErrorKind::ReadOnlyFilesystem => format!("it is mounted read-only: `findmnt -T {at}`"),
        _ => format!("look at what is mounted there: `findmnt -T {at}`"),
    };
    Words::new(Exit::Failed, format!("{what}: {error}"), vec![help])
}

impl Shelf {
    /// Refuses what is no directory: it is not made, because it may be where nothing is mounted yet.
    pub(super) fn open(dir: &Path, cluster: &str) -> anyhow::Result<Self> {
        let shown = dir.display();
        let help = || format!("`mkdir -p -m 700 {}` makes it; is its disk mounted?", quoted(&dir.to_string_lossy()));
        match std::fs::metadata(dir) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(Words::usage(format!("{shown} is no directory"), "name one with `--to`").into()),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(Words::usage(format!("there is no directory {shown}"), help()).into());
            }
            Err(error) => return Err(disk(&format!("{shown} cannot be looked at"), dir, &error).into()),
        }
        let dir = std::path::absolute(dir).map_err(|error| disk(&format!("{shown} cannot be used"), dir, &error))?;
        Ok(Self { dir, cluster: cluster.to_owned() })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            // A link of our name is somebody else's.
            if entry.file_type()?.is_file() {
                names.extend(entry.file_name().into_string());
            }
        }
        Ok(names)
    }

    /// Takes away what killed attempts have left: their names are ours alone, and a live one holds its lock.
    pub(super) fn sweep(&self) -> io::Result<Vec<String>> {
        let mut swept = Vec::new();
        for name in self.names()? {
            let inner = name.strip_prefix('.').and_then(|name| name.strip_suffix(PARTIAL));
            if inner.and_then(|inner| stamp(&self.cluster, inner)).is_none() {
                continue;
            }
            let path = self.dir.join(&name);
            let Ok(file) = File::open(&path) else { continue };
            // Whoever cannot tell, as on a file system without locks, leaves it.
            if file.try_lock().is_ok() && std::fs::remove_file(&path).is_ok() {
                swept.push(name);
            }
        }
        Ok(swept)
    }

    /// A new file under a name of its own, that no other attempt has.
    pub(super) fn begin(&self, now: Timestamp, sealed: bool) -> anyhow::Result<Partial> {
        let failed =
            |error: &io::Error| disk(&format!("{} cannot be written to", self.dir.display()), &self.dir, error);
        let mut at = now.to_zoned(TimeZone::UTC).datetime();
        loop {
            let name = shelf::name(&self.cluster, at, sealed);
            let path = self.dir.join(format!(".{name}{PARTIAL}"));
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true).mode(0o600);
            let taken = self.dir.join(&name).symlink_metadata().is_ok();
            match if taken { Err(ErrorKind::AlreadyExists.into()) } else { options.open(&path) } {
                Ok(file) => {
                    let partial = Partial { file, path, name, dir: self.dir.clone(), whole: false };
                    // Where there are no locks nobody sweeps either.
                    let _held = partial.file.try_lock();
                    // Somebody may have swept it before it was locked.
                    if partial.is_there() {
                        return Ok(partial);
                    }
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed(&error).into()),
            }
            // Another one of this second: the next name is the next second's.
            at = at.saturating_add(1.second());
        }
    }

    /// Removes the oldest where there are more than `keep`, never `new`. Those that are not encrypted are read to their end: one
    /// counts where it is whole and names one of `members`, those of the etcd that was just copied, and none goes that names
    /// none of them. Of an encrypted one only the head can be looked at.
    pub(super) fn tidy(&self, new: &str, keep: Option<u32>, members: &[u64]) -> io::Result<Tidied> {
        let mut tidied = Tidied { kept: vec![new.to_owned()], ..Tidied::default() };
        let at = |name: &str| stamp(&self.cluster, name).map(str::to_owned);
        let mut others: Vec<String> =
            self.names()?.into_iter().filter(|name| name != new && at(name).is_some()).collect();
        others.sort_by_key(|name| std::cmp::Reverse(at(name)));
        let keep = keep.map(|keep| usize::try_from(keep).unwrap_or(usize::MAX).max(1));
        for name in others {
            let path = self.dir.join(&name);
            if at(&name) > at(new) {
                tidied.ahead.push(name);
                continue;
            }
            if std::fs::symlink_metadata(&path)?.len() <= DIGEST {
                tidied.broken.push(name);
                continue;
            }
            let Some(keep) = keep else {
                tidied.kept.push(name);
                continue;
            };
            let room = tidied.kept.len() < keep;
            let read = |file: File| -> io::Result<(bool, bool)> {
                if is_sealed(&name) {
                    return Ok((begins_sealed(file)?, true));
                }
                let look = look(file, members)?;
                Ok((look.broken.is_none(), look.names_one))
            };
            let (whole, own) = match File::open(&path).and_then(read) {
                Ok(looked) => looked,
                // Another attempt was faster.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => {
                    tidied.failed.push((name, error));
                    continue;
                }
            };
            if !whole && (room || !own) {
                tidied.broken.push(name);
            } else if !own {
                tidied.foreign.push(name);
            } else if room {
                tidied.kept.push(name);
            } else {
                match std::fs::remove_file(&path) {
                    Ok(()) => tidied.removed.push(name),
                    // Another attempt was faster.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => tidied.failed.push((name, error)),
                }
            }
        }
        Ok(tidied)
    }
}

/// Whether it is encrypted, by its name.
pub(super) fn is_sealed(name: &str) -> bool {
    name.ends_with(SEALED)
}

/// A file that is no snapshot yet. It goes with this value, unless it was made one.
pub(super) struct Partial {
    /// Locked for as long as this is there.
    file: File,
    path: PathBuf,
    /// Of the snapshot that it will be.
    pub(super) name: String,
    dir: PathBuf,
    whole: bool,
}

impl Partial {
    /// For one attempt alone: what an attempt that failed has still in hand would be written into the next one's.
    pub(super) fn writer(&self) -> io::Result<tokio::fs::File> {
        Ok(tokio::fs::File::from_std(self.file.try_clone()?))
    }

    /// Whether it is still what stands under its name.
    fn is_there(&self) -> bool {
        let of = |found: std::fs::Metadata| (found.dev(), found.ino());
        let there = std::fs::symlink_metadata(&self.path).map(of);
        matches!((there, self.file.metadata().map(of)), (Ok(a), Ok(b)) if a == b)
    }

    /// Gives it its name once all of it is on the disk and is what was written; where it is then.
    pub(super) fn keep(mut self, pressed: &Pressed) -> io::Result<PathBuf> {
        self.file.sync_all()?;
        self.file.rewind()?;
        let mut hash = Hashed(Sha256::new());
        io::copy(&mut self.file, &mut hash)?;
        if hex(&hash.0.finalize()) != pressed.sha256 {
            return Err(io::Error::new(ErrorKind::InvalidData, "what is on the disk is not what was written to it"));
        }
        let path = self.dir.join(&self.name);
        if !self.is_there() {
            return Err(io::Error::new(ErrorKind::NotFound, "somebody removed it meanwhile"));
        }
        std::fs::rename(&self.path, &path)?;
        self.whole = true;
        // Only with that is the name on the disk as well.
        File::open(&self.dir)?.sync_all()?;
        Ok(path)
    }
}

/// A digest to write to.
struct Hashed(Sha256);

impl io::Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.whole
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!("{} stays: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests;
