//! Where words go: data to stdout, everything else to stderr. A closed pipe is no error.

use std::io::{self, IsTerminal, Write};

/// The two streams and how much to say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Out {
    pub(super) json: bool,
    pub(super) verbose: u8,
    /// Stderr is a terminal on which lines may be rewritten.
    pub(super) live: bool,
    /// Stdin and stderr are a terminal: questions can be asked.
    pub(super) asks: bool,
}

impl Out {
    pub(super) fn new(json: bool, verbose: u8) -> Self {
        let live = io::stderr().is_terminal() && !json;
        Self { json, verbose, live, asks: live && io::stdin().is_terminal() }
    }

    /// Data. Once the reader has gone nothing more is written.
    pub(super) fn data(self, text: &str) -> anyhow::Result<()> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Words. What cannot be said is not worth stopping a migration for.
    pub(super) fn say(self, text: &str) {
        let mut stderr = io::stderr().lock();
        let _nobody_listens = writeln!(stderr, "{text}");
    }

    /// Words without an end of line.
    pub(super) fn write(self, text: &str) {
        let mut stderr = io::stderr().lock();
        let _nobody_listens = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
    }

    /// The terminal's width, 80 where there is none.
    pub(super) fn width(self) -> usize {
        if self.live { usize::from(console::Term::stderr().size().1).clamp(40, 160) } else { 80 }
    }

    /// Asks a yes-or-no question; only an answer that begins with y is yes.
    pub(super) fn ask(self, question: &str) -> anyhow::Result<bool> {
        self.write(&format!("{question} [y/N] "));
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        Ok(answer.trim().to_lowercase().starts_with('y'))
    }
}

/// The libraries' own logs, at the third `-v`.
pub(super) fn log_to_stderr(verbose: u8) {
    if verbose < 3 {
        return;
    }
    let filter = tracing_subscriber::EnvFilter::new("info,pvemig=debug");
    let _already = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).try_init();
}
