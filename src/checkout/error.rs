//! What can go wrong with a checkout, by what a person can do about it.

use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::fault::{Effect, Fault};
use crate::base::permit::Refused;

/// A failure of a checkout or of an edit. URLs in it carry no passwords.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutError {
    /// `git` is not installed.
    #[error("`git` cannot be started")]
    NoGit(#[source] std::io::Error),
    /// The path is not a git checkout.
    #[error("{} is not a git checkout: {text}", path.display())]
    NotACheckout {
        /// The path of the site file.
        path: PathBuf,
        /// What git said.
        text: String,
    },
    /// The checkout has no such remote.
    #[error("the checkout {} has no remote `{remote}`", path.display())]
    NoRemote {
        /// The path of the site file.
        path: PathBuf,
        /// The remote of the site file.
        remote: String,
    },
    /// The remote has no such branch.
    #[error("{url} has no branch `{branch}`")]
    NoBranch {
        /// The remote's URL.
        url: String,
        /// The branch of the site file.
        branch: String,
    },
    /// The remote cannot be reached.
    #[error("{url} cannot be reached: {text}")]
    Unreachable {
        /// The remote's URL.
        url: String,
        /// The checkout that names it.
        path: PathBuf,
        /// What git said.
        text: String,
    },
    /// The remote does not let us in.
    #[error("{url} does not let us in: {text}")]
    NoAccess {
        /// The remote's URL.
        url: String,
        /// The checkout that names it.
        path: PathBuf,
        /// What git said.
        text: String,
    },
    /// git did not end in time.
    #[error("`git {command}` for {place} did not end within {}", crate::base::wait::show(*limit))]
    Late {
        /// The git command.
        command: String,
        /// What it was about.
        place: String,
        /// The deadline.
        limit: Duration,
        /// What may have happened.
        effect: Effect,
    },
    /// git was started, and what it came to is not known.
    #[error("`git {command}` was started, and its answer was lost")]
    AnswerLost {
        /// The git command.
        command: String,
        /// What may have happened.
        effect: Effect,
        /// Why.
        source: std::io::Error,
    },
    /// Somebody pushed since we fetched.
    #[error("branch `{branch}` of {url} has moved on; commit {commit} was not pushed")]
    NotFastForward {
        /// The remote's URL.
        url: String,
        /// The branch.
        branch: String,
        /// Our commit.
        commit: String,
    },
    /// The remote refused the push (a protected branch, a hook).
    #[error("{url} refused commit {commit}: {text}")]
    PushRefused {
        /// The remote's URL.
        url: String,
        /// Our commit.
        commit: String,
        /// The remote's reason.
        text: String,
    },
    /// The push ended with an error that does not say whether the remote took it.
    #[error("it is not known whether {url} took commit {commit}: {text}")]
    PushUnknown {
        /// The remote's URL.
        url: String,
        /// Our commit.
        commit: String,
        /// What git said.
        text: String,
    },
    /// The site does not let pvemig push.
    #[error("the site file does not let pvemig push to {url}")]
    PushNotAllowed {
        /// The remote's URL.
        url: String,
        /// How a person pushes instead.
        by_hand: String,
    },
    /// The file is not at the revision.
    #[error("{file} is not in commit {revision}")]
    NoFile {
        /// The file.
        file: String,
        /// The revision.
        revision: String,
    },
    /// What is there is no text file.
    #[error("{file} in commit {revision} is {what}")]
    NotAFile {
        /// The file.
        file: String,
        /// The revision.
        revision: String,
        /// What it is.
        what: &'static str,
    },
    /// The file cannot be read as YAML.
    #[error("{file} cannot be read as YAML: {why}")]
    NotYaml {
        /// The file.
        file: String,
        /// Why.
        why: String,
    },
    /// The object is not in the file.
    #[error("{object} is not in {file}")]
    MissingObject {
        /// The file.
        file: String,
        /// The object.
        object: String,
    },
    /// The object is in the file more than once.
    #[error("{object} is in {file} more than once")]
    Ambiguous {
        /// The file.
        file: String,
        /// The object.
        object: String,
    },
    /// The value is written in a way that cannot be edited with everything else kept.
    #[error("`{path}` in {file} cannot be edited: {why}")]
    NotEditable {
        /// The file.
        file: String,
        /// The path of the value.
        path: String,
        /// Why.
        why: String,
    },
    /// The text to be replaced is not there.
    #[error("`{path}` in {file} holds neither `{from}` nor `{to}`")]
    NothingToReplace {
        /// The file.
        file: String,
        /// The path of the value.
        path: String,
        /// What was to be replaced.
        from: String,
        /// With what.
        to: String,
    },
    /// Somebody changed what we changed.
    #[error("{} changed since commit {commit}", files.join(", "))]
    ChangedSince {
        /// Our commit.
        commit: String,
        /// The files that are neither as we made them nor as they were before.
        files: Vec<String>,
    },
    /// Another failure of git.
    #[error("`git {command}` failed: {text}")]
    Git {
        /// The git command.
        command: String,
        /// What git said.
        text: String,
    },
    /// The clone under the state directory cannot be written.
    #[error("the clone {} cannot be written", path.display())]
    State {
        /// The clone.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The engine refused the change.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It was done and could not be written down.
    #[error("commit {commit} was made or pushed, and that could not be written down")]
    NotRecorded {
        /// Our commit.
        commit: String,
        /// Why not.
        #[source]
        source: Refused,
    },
}

impl Fault for CheckoutError {
    fn effect(&self) -> Effect {
        match self {
            Self::PushUnknown { .. } => Effect::Maybe,
            Self::Late { effect, .. } | Self::AnswerLost { effect, .. } => *effect,
            Self::Refused(refused) => refused.effect(),
            Self::NotRecorded { .. } => Effect::Partial,
            _ => Effect::None,
        }
    }

    fn retryable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Late { effect: Effect::None, .. })
    }

    fn help(&self) -> Option<String> {
        Some(match self {
            Self::NoGit(_) => "install git".into(),
            Self::NotACheckout { path, .. } => {
                format!("correct `path` in the site file, or clone into {}", path.display())
            }
            Self::NoRemote { path, .. } => {
                format!("`git -C {} remote` lists them; correct `remote` in the site file", path.display())
            }
            Self::NoBranch { .. } => "correct `branch` in the site file".into(),
            Self::Unreachable { path, .. } => format!("try `git -C {} ls-remote`", quoted(path)),
            Self::Late { command, place, .. } if matches!(command.as_str(), "fetch" | "push") => {
                format!("try `git -C {} ls-remote`", quoted(Path::new(place)))
            }
            Self::Late { place, .. } => format!("see what keeps git in {place}: a slow disk, another process"),
            Self::NoAccess { path, .. } => {
                let path = quoted(path);
                format!(
                    "pvemig uses your git and ssh configuration and never asks for a password: try `git -C {path} fetch` and `git -C {path} push --dry-run`"
                )
            }
            Self::NotFastForward { .. } => "resume: the edits are made again on top of the new tip".into(),
            Self::PushRefused { .. } => {
                "push it as the remote wants it (a merge request), then resume; or set `push: false` in the site file"
                    .into()
            }
            Self::PushUnknown { .. } | Self::AnswerLost { effect: Effect::Maybe, .. } => {
                "resume looks at the branch first".into()
            }
            Self::PushNotAllowed { by_hand, .. } => by_hand.clone(),
            Self::NoFile { .. } | Self::MissingObject { .. } => {
                "correct `file` and `object` under `manifests` in the site file".into()
            }
            Self::NotAFile { .. } => "name the file itself under `manifests` in the site file".into(),
            Self::NotYaml { .. } => {
                "templates cannot be edited: name the file that holds the plain object, or edit it by hand".into()
            }
            Self::Ambiguous { .. } => "give the namespace, or edit the file by hand".into(),
            Self::NotEditable { .. } => "edit this value by hand and push; the step sees it".into(),
            Self::NothingToReplace { .. } => "correct `replace` in the site file, or edit the value by hand".into(),
            Self::ChangedSince { commit, .. } => {
                format!("take back what remains of {commit} by hand and push; the step sees it")
            }
            Self::Git { .. } | Self::AnswerLost { .. } => return None,
            Self::State { path, source } => {
                // What was to be made is not there to be looked at: what it is to be made in is.
                let there = quoted(path.ancestors().find(|path| path.exists()).unwrap_or(path));
                match source.kind() {
                    ErrorKind::StorageFull | ErrorKind::QuotaExceeded => format!("make room: `df -h {there}`"),
                    ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                        format!("it must be yours to write: `ls -ld {there}`")
                    }
                    _ => format!("make room or rights for it: `df -h {there}`, `ls -ld {there}`"),
                }
            }
            Self::Refused(refused) | Self::NotRecorded { source: refused, .. } => return refused.help(),
        })
    }
}

/// What git said, where that is about writing into our own clone: no remote has to do with it.
pub(super) fn unwritable(clone: &Path, err: &str, complaint: &str) -> Option<CheckoutError> {
    let (all, path) = (err.to_ascii_lowercase(), clone.display().to_string().to_ascii_lowercase());
    let has = |words: &[&str]| words.iter().any(|word| all.contains(word));
    let kind = if has(&["no space left on device"]) {
        ErrorKind::StorageFull
    } else if has(&["disk quota exceeded"]) {
        ErrorKind::QuotaExceeded
    } else if has(&["read-only file system"]) {
        ErrorKind::ReadOnlyFilesystem
    } else if has(&["insufficient permission for adding an object"])
        || (has(&["permission denied"]) && all.contains(&path))
    {
        ErrorKind::PermissionDenied
    } else {
        return None;
    };
    Some(CheckoutError::State { path: clone.to_owned(), source: Error::new(kind, complaint.to_owned()) })
}

/// A path as a shell takes it.
pub(super) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+=@%,:".contains(c));
    if plain { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_that_cannot_be_written_is_no_remote_that_cannot_be_reached() {
        let clone = Path::new("/state/home/gitops.git");
        let cases = [
            ("fatal: unable to write loose object file: No space left on device", Some("`df -h /`")),
            (
                "error: insufficient permission for adding an object to repository database ./objects",
                Some("`ls -ld /`"),
            ),
            ("error: cannot lock ref: '/state/home/gitops.git/x.lock': Permission denied", Some("`ls -ld /`")),
            ("fatal: unable to create file: Read-only file system", Some("`ls -ld /`")),
            ("git@git.lan: Permission denied (publickey).", None),
            ("fatal: unable to access 'https://git.lan/ops.git/': Connection refused", None),
        ];
        for (err, wanted) in cases {
            let error = unwritable(clone, err, err);
            let help = error.as_ref().and_then(Fault::help);
            match wanted {
                Some(words) => assert!(help.is_some_and(|help| help.contains(words)), "{err}"),
                None => assert!(error.is_none(), "{err}"),
            }
            let text = error.map(|error| error.to_string()).unwrap_or_default();
            assert!(
                !text.contains("reached") && (text.is_empty() || text.contains("/state/home/gitops.git")),
                "{text}"
            );
        }
        assert_eq!(cases.len(), 6);
    }
}
