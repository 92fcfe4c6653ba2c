//! Where words go: data to stdout, everything else to stderr. A closed pipe is no error.

use std::io::{self, IsTerminal, Write};

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

    /// A text with the options of this command line in every command that it names.
    pub(super) fn commands(self, text: &str) -> String {
        with_options(text, self.options)
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
        if self.unbroken {
            return usize::MAX;
        }
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
