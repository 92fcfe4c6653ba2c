//! Secrets by reference, looked up when they are needed and not before.

use std::path::PathBuf;
use std::process::Stdio;

use crate::base::fault::{Effect, Fault};
use crate::base::private::{self, PrivateError};
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
    /// The command ended with an error. Its output stays out of the message.
    #[error("`{program}` ended with {status}")]
    Failed {
        /// The first word of the command.
        program: String,
        /// The exit status in words.
        status: String,
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

async fn run(program: &str, args: &[String]) -> Result<Vec<u8>, SecretError> {
    #[expect(clippy::disallowed_methods, reason = "a command that the site file declares for a secret")]
    let mut command = tokio::process::Command::new(program);
    command.args(args).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = within(limit::LOOK, command.output())
        .await
        .map_err(|_| SecretError::Late { program: program.to_owned() })?
        .map_err(|source| SecretError::NotStarted { program: program.to_owned(), source })?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(SecretError::Failed { program: program.to_owned(), status: output.status.to_string() })
    }
}
