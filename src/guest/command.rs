//! What is run in a guest, and what came of it.

use std::fmt;
use std::time::Duration;

/// A command that may change something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Program and arguments; no shell is involved.
    pub argv: Vec<String>,
    /// Twice is the same as once: where its answer is lost it may be sent again, by another route too.
    pub repeatable: bool,
    /// How long it may run.
    pub limit: Duration,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Status(i64),
    /// Killed by this signal (its name over ssh, its number by the agent).
    Signal(String),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "exit {status}"),
            Self::Signal(signal) => write!(f, "killed by signal {signal}"),
        }
    }
}

/// What a command left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub exit: Exit,
    /// Standard output; bytes that are not UTF-8 are replaced.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
    /// Something was cut off: more than 1 MiB on one of the two.
    pub truncated: bool,
}

impl Output {
    /// It ended with status 0.
    pub fn ok(&self) -> bool {
        self.exit == Exit::Status(0)
    }

    /// How it ended and its last line of complaint, for an error text: `exit 100: E: Unable to locate package`.
    pub fn summary(&self) -> String {
        let end = self.exit.to_string();
        let last = |text: &str| text.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned);
        last(&self.stderr).or_else(|| last(&self.stdout)).map_or_else(|| end.clone(), |line| format!("{end}: {line}"))
    }
}

/// An answer, the route that gave it, and what the routes before it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen<T> {
    /// The answer.
    pub value: T,
    /// The route, as it is named in [`Seen::notes`].
    pub route: String,
    /// One line for each route, in order: why it did not serve, or that it answered.
    pub notes: Vec<String>,
}

impl<T> Seen<T> {
    /// The same with another value.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn try_map<U, E>(self, f: impl FnOnce(T) -> Result<U, E>) -> Result<Seen<U>, E> {
        Ok(Seen { value: f(self.value)?, route: self.route, notes: self.notes })
    }
}

/// A command line for a POSIX shell that reads back as exactly these words; `sshd` hands what it gets to the user's
/// shell.
pub fn quote(argv: &[String]) -> String {
    argv.iter().map(|word| quote_word(word)).collect::<Vec<_>>().join(" ")
}

fn quote_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ':' | ',' | '+' | '@' | '%');
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_only_where_a_shell_would_touch_them() {
        let words = ["apt-get", "install", "-y", "a b", "it's", "", "$HOME", "x=1", "~", "a\nb", "*"];
        let words = words.map(str::to_owned);
        assert_eq!(
            quote(&words),
            r"apt-get install -y 'a b' 'it'\''s' '' '$HOME' 'x=1' '~' 'a
b' '*'"
        );
    }

    #[test]
    fn a_summary_ends_with_the_complaint() {
        let output = |exit, stdout: &str, stderr: &str| Output {
            exit,
            stdout: stdout.into(),
            stderr: stderr.into(),
            truncated: false,
        };
        assert_eq!(output(Exit::Status(100), "x", "first\nE: no package\n\n").summary(), "exit 100: E: no package");
        assert_eq!(output(Exit::Status(1), "only out\n", "").summary(), "exit 1: only out");
        assert_eq!(output(Exit::Signal("TERM".into()), "", "").summary(), "killed by signal TERM");
    }
}
