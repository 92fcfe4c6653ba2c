//! Running `git`, with an environment of our own and a deadline.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
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

use super::error::{CheckoutError, unwritable};

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
        find(&path).unwrap_or_else(|| "git".into())
    })
}

/// The first `git` of absolute entries that can be run. A relative entry is another place in the checkout, where git is
/// started, than here.
fn find(path: &OsStr) -> Option<PathBuf> {
    let runs = |file: &PathBuf| {
        std::fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(path).filter(|dir| dir.is_absolute()).map(|dir| dir.join("git")).find(runs)
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
            let mut child = git.spawn().map_err(CheckoutError::NoGit)?;
            let lost = |source| CheckoutError::AnswerLost { command: command.clone(), effect: self.effect, source };
            // Small inputs only (one file): git reads them before it writes anything.
            if let (Some(input), Some(mut stdin)) = (&self.input, child.stdin.take()) {
                stdin.write_all(input).await.map_err(lost)?;
            }
            child.wait_with_output().await.map_err(lost)
        };
        let output = within(self.limit, work).await.map_err(|_| CheckoutError::Late {
            command: command.clone(),
            place: self.dir.display().to_string(),
            limit: self.limit,
            effect: self.effect,
        })??;
        asked.ended(output.status);
        let err = redact::text(&String::from_utf8_lossy(&output.stderr));
        Ok(Output { good: output.status.success(), out: output.stdout, err })
    }

    /// Runs it; a bad exit status is an error.
    pub(super) async fn good(self) -> Result<Output, CheckoutError> {
        let command = self.command();
        let dir = self.dir.clone();
        let output = self.run().await?;
        if output.good {
            return Ok(output);
        }
        let text = output.complaint();
        Err(unwritable(&dir, &output.err, &text).unwrap_or(CheckoutError::Git { command, text }))
    }

    fn command(&self) -> String {
        self.args
            .iter()
            .find(|arg| !arg.as_encoded_bytes().starts_with(b"-"))
            .map_or_else(String::new, |arg| arg.to_string_lossy().into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::fault::Fault;

    #[test]
    fn git_is_a_program_at_an_absolute_place() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, mode: u32| {
            let at = dir.path().join(name);
            std::fs::create_dir(&at).unwrap();
            std::fs::write(at.join("git"), "").unwrap();
            std::fs::set_permissions(at.join("git"), std::fs::Permissions::from_mode(mode)).unwrap();
            at
        };
        let (plain, good) = (write("plain", 0o644), write("good", 0o755));
        std::fs::create_dir_all(dir.path().join("folder/git")).unwrap();
        let of = |dirs: &[&Path]| find(&std::env::join_paths(dirs).unwrap());
        assert_eq!(of(&[&dir.path().join("folder"), &plain, &good]), Some(good.join("git")));
        assert_eq!(of(&[&plain]), None);
        // From here it is another place than from the checkout.
        let mut up = PathBuf::new();
        std::env::current_dir().unwrap().components().skip(1).for_each(|_| up.push(".."));
        let relative = up.join(good.strip_prefix("/").unwrap());
        assert!(relative.join("git").is_file());
        assert_eq!(of(&[&relative]), None);
        assert_eq!(of(&[&relative, Path::new(""), &good]), Some(good.join("git")));
    }

    #[tokio::test]
    async fn what_breaks_after_the_start_may_have_had_an_effect() {
        let dir = tempfile::tempdir().unwrap();
        // It ends without reading what it is given.
        let input = vec![b'x'; 4 << 20];
        let git = Git::new(dir.path(), &["version"]).input(input).effect(Effect::Maybe);
        let error = git.run().await.unwrap_err();
        assert_eq!(error.effect(), Effect::Maybe, "{error:?}");
        assert!(!matches!(error, CheckoutError::NoGit(_)) && error.help().is_some(), "{error:?}");
        let none = dir.path().join("none");
        let error = Git::new(&none, &["version"]).effect(Effect::Maybe).run().await.unwrap_err();
        assert!(matches!(error, CheckoutError::NoGit(_)) && error.effect() == Effect::None, "{error:?}");
    }
}
