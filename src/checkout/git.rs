//! Running `git`, with an environment of our own and a deadline.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::base::clock::Clock;
use crate::base::fault::Effect;
use crate::base::redact;
use crate::base::request::Request;
use crate::base::wait::{limit, within};

use super::error::CheckoutError;

/// The variables that git may see: where programs and configuration are, how to log in, how to get out.
const KEPT: [&str; 14] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "XDG_CONFIG_HOME",
    "SSH_AUTH_SOCK",
    "GIT_SSH_COMMAND",
    "GIT_CONFIG_GLOBAL",
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "no_proxy",
    "NO_PROXY",
    "SSL_CERT_FILE",
];

/// The name under which git gets a remote's URL; see [`Git::remote`].
pub(super) const REMOTE: &str = "pvemig-remote";

/// Where `git` is, found once. A program that is named by its path is started without a copy of this process.
fn program() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        #[expect(clippy::disallowed_methods, reason = "git is the person's: where they would find it")]
        let path = std::env::var_os("PATH").unwrap_or_default();
        let there = std::env::split_paths(&path).map(|dir| dir.join("git")).find(|file| file.is_file());
        there.unwrap_or_else(|| "git".into())
    })
}

/// One call of git.
#[derive(Debug)]
pub(super) struct Git {
    /// The directory in which it runs.
    dir: PathBuf,
    args: Vec<OsString>,
    env: Vec<(&'static str, OsString)>,
    input: Option<Vec<u8>>,
    limit: Duration,
    effect: Effect,
}

/// What a call of git gave.
#[derive(Debug)]
pub(super) struct Output {
    /// The exit status was 0.
    pub(super) good: bool,
    /// Standard output.
    pub(super) out: Vec<u8>,
    /// Standard error, without secrets.
    pub(super) err: String,
}

impl Output {
    /// Standard output as text without the last line break.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).trim_end_matches('\n').to_owned()
    }

    /// What git complained about, in one line.
    pub(super) fn complaint(&self) -> String {
        let lines: Vec<&str> =
            self.err.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("hint:")).collect();
        let fatal = lines.iter().find_map(|line| line.strip_prefix("fatal: ").or(line.strip_prefix("error: ")));
        fatal.or(lines.last().copied()).unwrap_or("it said nothing").to_owned()
    }
}

impl Git {
    /// A call that reads.
    pub(super) fn new(dir: &Path, args: &[&str]) -> Self {
        let args = args.iter().map(OsString::from).collect();
        Self { dir: dir.to_owned(), args, env: Vec::new(), input: None, limit: limit::GIT, effect: Effect::None }
    }

    /// Adds an argument that is a path.
    pub(super) fn arg(mut self, arg: &OsStr) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// Sets a variable.
    pub(super) fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    /// Names a remote by its URL, as [`REMOTE`]: on a command line everybody on this machine could read it.
    pub(super) fn remote(self, url: &str) -> Self {
        self.env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", format!("remote.{REMOTE}.url"))
            .env("GIT_CONFIG_VALUE_0", url)
    }

    /// Gives it something to read.
    pub(super) fn input(mut self, bytes: Vec<u8>) -> Self {
        self.input = Some(bytes);
        self
    }

    /// What may have happened when its answer is lost.
    pub(super) fn effect(mut self, effect: Effect) -> Self {
        self.effect = effect;
        self
    }

    /// Runs it; a bad exit status is an answer.
    pub(super) async fn run(self) -> Result<Output, CheckoutError> {
        let command = self.command();
        #[expect(clippy::disallowed_methods, reason = "the one place that spawns git")]
        let mut git = tokio::process::Command::new(program());
        git.env_clear();
        for name in KEPT {
            #[expect(
                clippy::disallowed_methods,
                reason = "git needs the person's programs, configuration and ssh agent"
            )]
            if let Ok(value) = std::env::var(name) {
                git.env(name, value);
            }
        }
        git.env("LC_ALL", "C").env("GIT_TERMINAL_PROMPT", "0").env("GIT_OPTIONAL_LOCKS", "0");
        git.envs(self.env.iter().map(|(name, value)| (name, value)));
        // Hooks are the person's, for their own commits and pushes.
        git.args(["-c", "core.hooksPath=/dev/null", "-c", "gc.auto=0", "-c", "maintenance.auto=false"]);
        git.args(["-c", "advice.detachedHead=false"]);
        git.current_dir(&self.dir).args(&self.args);
        let stdin = if self.input.is_some() { Stdio::piped() } else { Stdio::null() };
        git.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let asked = Request::begin(Clock::real(), "checkout", format_args!("git {command} in {}", self.dir.display()));
        let work = async {
            let mut child = git.spawn()?;
            // Small inputs only (one file): git reads them before it writes anything.
            if let (Some(input), Some(mut stdin)) = (&self.input, child.stdin.take()) {
                stdin.write_all(input).await?;
            }
            child.wait_with_output().await
        };
        let output = within(self.limit, work)
            .await
            .map_err(|_| CheckoutError::Late {
                command: command.clone(),
                place: self.dir.display().to_string(),
                limit: self.limit,
                effect: self.effect,
            })?
            .map_err(CheckoutError::NoGit)?;
        asked.ended(output.status);
        let err = redact::text(&String::from_utf8_lossy(&output.stderr));
        Ok(Output { good: output.status.success(), out: output.stdout, err })
    }

    /// Runs it; a bad exit status is an error.
    pub(super) async fn good(self) -> Result<Output, CheckoutError> {
        let command = self.command();
        let output = self.run().await?;
        if output.good { Ok(output) } else { Err(CheckoutError::Git { command, text: output.complaint() }) }
    }

    fn command(&self) -> String {
        self.args
            .iter()
            .find(|arg| !arg.as_encoded_bytes().starts_with(b"-"))
            .map_or_else(String::new, |arg| arg.to_string_lossy().into_owned())
    }
}
