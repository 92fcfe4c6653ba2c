//! Where words go: data to stdout, everything else to stderr. A closed pipe is no error.

use std::io::{self, IsTerminal, Write};

use super::reach::reached;
use super::words::{lay, with_options};

/// The two streams and how much to say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Out {
    pub(super) json: bool,
    pub(super) verbose: u8,
    /// Stderr is a terminal on which lines may be rewritten.
    pub(super) live: bool,
    /// Stdin and stderr are a terminal: questions can be asked.
    pub(super) asks: bool,
    /// Stdin is a terminal: a person typed this, whoever reads what is said.
    pub(super) typed: bool,
    /// `--site` and `--state` as they were given, for the commands that are suggested.
    options: &'static str,
    /// Lines are not broken.
    unbroken: bool,
}

impl Out {
    /// `options` are those of this command line that a suggested command needs as well.
    pub(super) fn new(json: bool, verbose: u8, options: String) -> Self {
        let terminal = io::stderr().is_terminal() && !json;
        let typed = io::stdin().is_terminal();
        // One command line a process: it lasts as long as that.
        let options = options.leak();
        Self {
            json,
            verbose,
            live: terminal && moves_cursor(),
            asks: terminal && typed,
            typed,
            options,
            unbroken: false,
        }
    }

    /// The same for what goes to stdout: where that is read by a program, a name is never broken.
    pub(super) fn for_data(self) -> Self {
        Self { unbroken: !io::stdout().is_terminal(), ..self }
    }

    /// Whether `--site` or `--state` was given on this command line.
    pub(super) fn chooses(self) -> bool {
        !self.options.is_empty()
    }

    /// A text with the options of this command line in every command that it names, and the cluster in those of others.
    pub(super) fn commands(self, text: &str) -> String {
        with_options(&reached(text), self.options)
    }

    /// Words behind a head, broken where a terminal would break them; what follows the first line hangs `hang` columns
    /// in.
    pub(super) fn tell(self, head: &str, text: &str, hang: usize) {
        lay(head, &self.commands(text), hang, self.room()).iter().for_each(|line| self.say(line));
    }

    /// What is worth knowing, and is no error.
    pub(super) fn notice(self, text: &str) {
        self.tell("notice: ", text, 2);
    }

    /// How wide a line may be: on a terminal so wide that nothing is broken by it.
    pub(super) fn room(self) -> usize {
        if self.live { self.width().saturating_sub(1) } else { usize::MAX }
    }

    /// Data. Once the reader has gone nothing more is written.
    pub(super) fn data(self, text: &str) -> anyhow::Result<()> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(anyhow::Error::new(error).context("standard output cannot be written"))
            }
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
        if self.unbroken {
            return usize::MAX;
        }
        if self.live { usize::from(console::Term::stderr().size().1).clamp(40, 160) } else { 80 }
    }

    /// Asks a yes-or-no question; only an answer that begins with y is yes, and Ctrl-C is a no.
    pub(super) fn ask(self, question: &str) -> anyhow::Result<bool> {
        // Before the question can be read: who is asked may be quick.
        let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
        self.write(&format!("{question} [y/N] "));
        let (send, answer) = tokio::sync::oneshot::channel();
        // Nothing ends a read that has begun: a thread of its own goes with the process.
        std::thread::spawn(move || {
            let mut line = String::new();
            let _nobody_waits_any_more = send.send(io::stdin().read_line(&mut line).map(|_| line));
        });
        let answered = async {
            tokio::select! {
                answer = answer => answer.map(Some),
                _ = interrupt.recv() => Ok(None),
            }
        };
        let answered = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(answered))?;
        let Some(answer) = answered.transpose()? else {
            self.say("");
            return Ok(false);
        };
        Ok(answer.trim().to_lowercase().starts_with('y'))
    }
}

/// Whether the terminal can do more than print: `TERM=dumb` says that it cannot.
fn moves_cursor() -> bool {
    #[expect(clippy::disallowed_methods, reason = "cli reads the environment")]
    let term = std::env::var_os("TERM");
    term.is_none_or(|term| term != "dumb")
}

/// Every request, and what the libraries say, at the third `-v`.
pub(super) fn log_to_stderr(verbose: u8) {
    if verbose < 3 {
        return;
    }
    let filter = tracing_subscriber::EnvFilter::new("info,pvemig=debug");
    let _already = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Quiet).try_init();
}

/// Stderr, whose end is no error: a log is not worth a panic.
struct Quiet;

impl Write for Quiet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _nobody_listens = io::stderr().write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _nobody_listens = io::stderr().flush();
        Ok(())
    }
}
