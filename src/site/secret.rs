//! Secrets by reference, looked up when they are needed and not before.

use std::path::PathBuf;
use std::process::Stdio;

use crate::base::fault::{Effect, Fault};
use crate::base::private::{self, PrivateError};
use crate::base::redact;
use crate::base::secret::Secret;
use crate::base::wait::{limit, within};

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// In an environment variable.
    Env(String),
    /// In a file that only its owner may read.
    File(PathBuf),
    /// On the standard output of a command (`pass show proxmox`).
    Command(Vec<String>),
}

/// Why a secret could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The variable is not set.
    #[error("the environment variable {0} is not set")]
    NotSet(String),
    /// There is nothing in it.
    #[error("{0} is empty")]
    Empty(String),
    /// It is not UTF-8.
    #[error("{0} is not text")]
    NotText(String),
    /// The file cannot be read, or others may read it.
    #[error(transparent)]
    File(#[from] PrivateError),
    /// The command cannot be started.
    #[error("`{program}` cannot be started")]
    NotStarted {
        /// The first word of the command.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// The command ended with an error. Its output stays out of the message; of what it said of it the end is there.
    #[error("`{program}` ended with {status}{}", if said.is_empty() { String::new() } else { format!(": {said}") })]
    Failed {
        /// The first word of the command.
        program: String,
        /// The exit status in words.
        status: String,
        /// The end of its standard error, without what has the look of a secret.
        said: String,
    },
    /// The command did not end in time.
    #[error("`{program}` gave nothing within {}", crate::base::wait::show(limit::LOOK))]
    Late {
        /// The first word of the command.
        program: String,
    },
}

impl Fault for SecretError {
    fn effect(&self) -> Effect {
        Effect::None
    }

    fn help(&self) -> Option<String> {
        Some(match self {
            Self::NotSet(name) => format!("set {name}, or change the reference in the site file"),
            Self::Empty(what) | Self::NotText(what) => format!("put the secret into {what}"),
            Self::File(error) => return error.help(),
            Self::NotStarted { program, .. } | Self::Failed { program, .. } | Self::Late { program } => {
                format!("run `{program}` by hand with the arguments of the site file and see what it says")
            }
        })
    }
}

impl SecretRef {
    /// Looks the secret up. One line break at its end is not part of it, unless it has several lines (a key file).
    ///
    /// # Errors
    /// [`SecretError`]; never with the secret in it.
    pub async fn resolve(&self) -> Result<Secret, SecretError> {
        let (what, bytes) = match self {
            Self::Env(name) => (format!("${name}"), variable(name)?.into_bytes()),
            Self::File(path) => (path.display().to_string(), private::read(path)?),
            Self::Command(command) => {
                let program = command.first().cloned().unwrap_or_default();
                (format!("the output of `{program}`"), run(&program, command.get(1..).unwrap_or_default()).await?)
            }
        };
        let text = String::from_utf8(bytes).map_err(|_| SecretError::NotText(what.clone()))?;
        let single = text.trim_end_matches(['\n', '\r']);
        let text = if single.contains('\n') { text.as_str() } else { single };
        if text.is_empty() { Err(SecretError::Empty(what)) } else { Ok(Secret::new(text)) }
    }

    /// What can be said without running anything: the variable is set, the file is there and private.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn look(&self) -> Result<(), SecretError> {
        match self {
            Self::Env(name) => variable(name).map(drop),
            Self::File(path) => Ok(private::look(path)?),
            Self::Command(_) => Ok(()),
        }
    }

    /// The reference in words: `$NAME`, the path, the command's first word.
    pub fn shown(&self) -> String {
        match self {
            Self::Env(name) => format!("${name}"),
            Self::File(path) => path.display().to_string(),
            Self::Command(command) => format!("`{} ..`", command.first().map_or("", String::as_str)),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a reference of the site file to the environment")]
fn variable(name: &str) -> Result<String, SecretError> {
    std::env::var(name).map_err(|error| match error {
        std::env::VarError::NotPresent => SecretError::NotSet(name.to_owned()),
        std::env::VarError::NotUnicode(_) => SecretError::NotText(format!("${name}")),
    })
}

/// Runs a command of the site file. What it prints to stderr may be anything, and is not looked at.
pub(super) async fn run(program: &str, args: &[String]) -> Result<Vec<u8>, SecretError> {
    #[expect(
        clippy::disallowed_methods,
        reason = "a command that the site file declares: for a secret, or to see whether a machine is on"
    )]
    let mut command = tokio::process::Command::new(program);
    // A group of its own: what it has started ends with it.
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command.process_group(0);
    let not_started = |source| SecretError::NotStarted { program: program.to_owned(), source };
    let child = command.spawn().map_err(not_started)?;
    let group = Group(child.id());
    let output = within(limit::LOOK, child.wait_with_output())
        .await
        .map_err(|_| SecretError::Late { program: program.to_owned() })?
        .map_err(not_started)?;
    drop(group);
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = ending(&String::from_utf8_lossy(&output.stderr));
    Err(SecretError::Failed { program: program.to_owned(), status: output.status.to_string(), said })
}

/// The processes of a command, which are ended with this value.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let pid = self.0.and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        // There may be none any more.
        let _ended = pid.map(|pid| rustix::process::kill_process_group(pid, rustix::process::Signal::KILL));
    }
}

/// The last lines, in one, not too long, and without what has the look of a secret.
fn ending(said: &str) -> String {
    const LINES: usize = 3;
    const LONGEST: usize = 300;
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default().join("; ");
    let clean: String = redact::text(&last).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match clean.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}..", clean.get(..at).unwrap_or_default()),
        None => clean,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> SecretRef {
        SecretRef::Command(["sh", "-c", script].map(str::to_owned).into())
    }

    #[tokio::test]
    async fn a_command_that_fails_is_told_with_its_own_words_and_leaves_nobody_behind() {
        let failed = shell("echo the-secret-itself; echo no key >&2; echo 'Failed to get the data key' >&2; exit 3");
        let error = failed.resolve().await.unwrap_err().to_string();
        assert!(
            error.contains("no key; Failed to get the data key") && !error.contains("the-secret-itself"),
            "{error}"
        );
        let key = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";
        let error = shell(&format!("echo tried {key} >&2; exit 1")).resolve().await.unwrap_err().to_string();
        assert!(!error.contains("GQ9778"), "{error}");
        // A child that outlives its parent is ended: the file that it would write is never there.
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let left = format!("sleep 600 >/dev/null 2>&1 & echo $! > {}; echo good", pid.display());
        assert_eq!(shell(&left).resolve().await.unwrap().expose(), "good");
        let id: i32 = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
        let alive = || {
            let state = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            state.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim().starts_with(['Z', 'X']))
        };
        let (clock, from) = (crate::base::clock::Clock::real(), crate::base::clock::Clock::real().instant());
        while alive() && clock.instant() - from < std::time::Duration::from_secs(5) {
            std::thread::yield_now();
        }
        assert!(!alive(), "process {id} lives on");
    }
}
