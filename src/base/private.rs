//! Files with secrets: only their owner may read them, or they are not used.

use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::fault::{Effect, Fault};

/// Why a secret file is not used.
#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    /// There is none.
    #[error("the secret file {} cannot be read: there is no such file", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It is a link to nothing.
    #[error("the secret file {} cannot be read: it is a link to {}, which is not there", path.display(), to.display())]
    Dangling {
        /// The file.
        path: PathBuf,
        /// What it names.
        to: PathBuf,
    },
    /// It is something else than a file.
    #[error("the secret file {} cannot be read: it is {what}", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// The system does not let us read it.
    #[error("the secret file {} cannot be read{}", path.display(), owner.map(|uid| format!(" (it belongs to user id {uid})")).unwrap_or_default())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// To whom it belongs, where that can be seen.
        owner: Option<u32>,
        /// Why.
        source: std::io::Error,
    },
    /// Others may read it.
    #[error("the secret file {} can be read by others (mode {mode:04o})", path.display())]
    Wide {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

impl PrivateError {
    /// True where the file is there and others may read it.
    pub fn is_wide(&self) -> bool {
        matches!(self, Self::Wide { .. })
    }
}

impl Fault for PrivateError {
    fn effect(&self) -> Effect {
        Effect::None
    }

    fn help(&self) -> Option<String> {
        Some(match self {
            Self::Missing { path } => format!("create {} with mode 0600, or correct the path", path.display()),
            Self::Dangling { path, .. } => format!("correct the link {}, or the path", path.display()),
            Self::NotAFile { .. } => "name the file itself".into(),
            Self::Unreadable { path, .. } => {
                format!(
                    "run pvemig as the user whose file it is, or put a copy of {} beside the site file",
                    path.display()
                )
            }
            // k3s writes its kubeconfig anew, with this mode, whenever it starts (`k3s server --write-kubeconfig-mode`).
            Self::Wide { path, .. } if path.starts_with("/etc/rancher") => format!(
                "copy it: `install -m 600 {} k3s.yaml`, and name the copy; where it stays, `chmod 600 {0}`, and take \
                 `write-kubeconfig-mode` out of the settings of k3s, which widens it again",
                path.display()
            ),
            Self::Wide { path, .. } => format!("chmod 600 {}", path.display()),
        })
    }
}

/// Looks at a secret file without reading it.
///
/// # Errors
/// [`PrivateError`].
pub fn look(path: &Path) -> Result<(), PrivateError> {
    open(path).map(drop)
}

/// Reads a secret file.
///
/// # Errors
/// [`PrivateError`].
pub fn read(path: &Path) -> Result<Vec<u8>, PrivateError> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes).map_err(|source| unreadable(path, source))?;
    Ok(bytes)
}

/// Puts a secret file in its place as a whole, for its owner alone: whoever reads it has the former or this one. A link
/// stays one, and what was there keeps its owner and what its owner may.
///
/// # Errors
/// The directory or the file cannot be written, or would belong to somebody else than before.
pub fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let place = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let name = place.file_name().ok_or_else(|| std::io::Error::other("it names no file"))?.to_string_lossy();
    let dir = place.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let draft = dir.join(format!(".{name}.{}", std::process::id()));
    let former = match std::fs::metadata(&place) {
        Ok(former) => Some(former),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let mode = former.as_ref().map_or(0o600, |former| former.mode() & 0o700);
    let written = (|| {
        // One of a process that died, with this number, is not to be added to.
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        if let Some(former) = &former {
            keep_owner(&file, former)?;
        }
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&draft, &place)?;
        std::fs::File::open(dir)?.sync_all()
    })();
    if written.is_err() {
        // What it could not write is of no use to anybody.
        drop(std::fs::remove_file(&draft));
    }
    written
}

/// Whoever writes it for another one (by sudo) leaves it that one's. A group has no rights there, so that it may stay ours.
fn keep_owner(file: &std::fs::File, former: &std::fs::Metadata) -> std::io::Result<()> {
    let own = file.metadata()?;
    if (own.uid(), own.gid()) == (former.uid(), former.gid()) {
        return Ok(());
    }
    match std::os::unix::fs::fchown(file, Some(former.uid()), Some(former.gid())) {
        Err(error) if own.uid() != former.uid() => Err(error),
        _ => Ok(()),
    }
}

/// Opens the file and looks at the mode of what was opened, so that nobody can swap it in between.
fn open(path: &Path) -> Result<std::fs::File, PrivateError> {
    let found = std::fs::metadata(path).map_err(|error| absent(path, error))?;
    // To open a pipe would wait for somebody who writes.
    if !found.is_file() {
        let what = if found.is_dir() { "a directory" } else { "neither a file nor a directory" };
        return Err(PrivateError::NotAFile { path: path.to_owned(), what });
    }
    let file = std::fs::File::open(path).map_err(|source| unreadable(path, source))?;
    let mode = file.metadata().map_err(|source| unreadable(path, source))?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 { Err(PrivateError::Wide { path: path.to_owned(), mode }) } else { Ok(file) }
}

fn absent(path: &Path, error: std::io::Error) -> PrivateError {
    if error.kind() != std::io::ErrorKind::NotFound {
        return unreadable(path, error);
    }
    match std::fs::read_link(path) {
        Ok(to) => PrivateError::Dangling { path: path.to_owned(), to },
        Err(_) => PrivateError::Missing { path: path.to_owned() },
    }
}

fn unreadable(path: &Path, source: std::io::Error) -> PrivateError {
    let owner = std::fs::metadata(path).ok().map(|found| found.uid());
    PrivateError::Unreadable { path: path.to_owned(), owner, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_for_group_or_others_is_one_too_many() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "x").unwrap();
        let mut refused = 0;
        for mode in 0..0o1000 {
            // Root reads what nobody may; a mode without the owner's own bit is no matter here.
            if mode & 0o400 == 0 {
                continue;
            }
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            match look(&path) {
                Ok(()) => assert_eq!(mode & 0o077, 0, "{mode:o}"),
                Err(error) => {
                    assert!(error.is_wide() && mode & 0o077 != 0, "{mode:o}: {error}");
                    assert_eq!(error.help().unwrap(), format!("chmod 600 {}", path.display()));
                    refused += 1;
                }
            }
        }
        assert_eq!(refused, 256 - 4);
    }

    #[test]
    fn a_file_is_written_as_a_whole_and_for_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("config"), dir.path().join("link"));
        std::fs::write(&path, "former").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for (at, text) in [(&path, "a"), (&link, "b")] {
            write(at, text.as_bytes()).unwrap();
            assert_eq!((read(&path).unwrap(), std::fs::read_link(&link).unwrap()), (text.into(), path.clone()));
        }
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(left.len(), 2);
        // Who has made it read-only for himself finds it so; only root may give a file away.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
        let own = std::fs::metadata(&path).unwrap().uid();
        let other = if std::os::unix::fs::chown(&path, Some(1_234), Some(1_234)).is_ok() { 1_234 } else { own };
        write(&path, b"c").unwrap();
        let found = std::fs::metadata(&path).unwrap();
        assert_eq!((found.mode() & 0o7777, found.uid()), (0o400, other));
        assert!(write(&dir.path().join("none/config"), b"x").is_err());
    }

    #[test]
    fn what_is_no_file_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("dir")).unwrap();
        std::fs::write(at("wide"), "x").unwrap();
        std::fs::set_permissions(at("wide"), std::fs::Permissions::from_mode(0o644)).unwrap();
        std::fs::write(at("good"), "x").unwrap();
        std::fs::set_permissions(at("good"), std::fs::Permissions::from_mode(0o600)).unwrap();
        for (from, to) in [("to-good", "good"), ("to-wide", "wide"), ("to-none", "none")] {
            std::os::unix::fs::symlink(at(to), at(from)).unwrap();
        }
        let cases = [
            ("none", "there is no such file"),
            ("dir", "it is a directory"),
            ("to-none", "it is a link to"),
            ("to-wide", "can be read by others (mode 0644)"),
            ("wide/x", "cannot be read"),
        ];
        for (name, words) in cases {
            let error = look(&at(name)).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
            assert!(error.help().is_some() && error.to_string().contains(name));
        }
        assert_eq!((cases.len(), read(&at("to-good")).unwrap()), (5, b"x".to_vec()));
        let k3s = PrivateError::Wide { path: "/etc/rancher/k3s/k3s.yaml".into(), mode: 0o644 };
        assert!(k3s.help().unwrap().contains("write-kubeconfig-mode"));
    }
}
