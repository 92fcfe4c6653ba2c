//! `pvemig survey [NODE]...`: every node across all layers, what is wrong with it, and the next command.

mod cells;
#[cfg(test)]
mod said;
mod screen;

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use console::{Term, measure_text_width};
use serde::Serialize;

use crate::base::clock::Clock;
use crate::base::survey::Survey;
use crate::base::wait::pause;
use crate::lint::{self, Blind, Finding};

use super::args::{Global, SurveyArgs};
use super::exit::Exit;
use super::fail::{self, Words};
use super::out::Out;
use super::plan::stopped;
use super::session::{Session, plural};

use screen::Paper;

/// Looks once, or again and again. It changes nothing, makes nothing, and waits for nobody's lock.
pub(super) async fn survey(global: &Global, args: &SurveyArgs, out: &Out) -> anyhow::Result<Exit> {
    let session = Session::surveying(global, out)?;
    known(&session, &args.nodes)?;
    let estate = &session.estate;
    // A signal is how a watch ends.
    let ended = tokio::select! {
        ended = rounds(&session, args, out) => ended,
        () = stopped() => Ok(Exit::Interrupted),
    };
    estate.farewell().await;
    ended
}

/// Refuses a name that the site has not.
fn known(session: &Session, names: &[String]) -> anyhow::Result<()> {
    let all: Vec<&String> = session.site.node_names.iter().chain(&session.site.talos_node_names).collect();
    match names.iter().find(|name| !all.contains(name)) {
        None => Ok(()),
        Some(name) => {
            let all: Vec<_> = all.iter().map(|name| format!("`{name}`")).collect();
            let help = if all.is_empty() { "it has none".into() } else { format!("there is {}", all.join(", ")) };
            Err(Words::usage(format!("the site file has no node `{name}`"), help).into())
        }
    }
}

async fn rounds(session: &Session, args: &SurveyArgs, out: &Out) -> anyhow::Result<Exit> {
    let mut before = None;
    loop {
        let first = before.is_none();
        if first && out.live {
            let all = session.site.node_names.len() + session.site.talos_node_names.len();
            let nodes = if args.nodes.is_empty() { all } else { args.nodes.len() };
            out.write(&format!("  … asking {}", plural(nodes, "node")));
        }
        let survey = session.estate.survey(&args.nodes).await;
        if first && out.live {
            out.write("\r\x1b[2K");
        }
        let survey = survey.map_err(fail::failure)?;
        let looked = lint::look(&survey);
        // A terminal may have been given another size meanwhile.
        let stage = Stage::of(out);
        let shown = Shown { survey: &survey, findings: &looked.findings, not_looked_at: looked.blind() };
        let text =
            if out.json { format!("{}\n", serde_json::to_string(&shown)?) } else { shown.text(out, stage.width) };
        let there = match (args.watch, out.json) {
            // What is there is of no round, or not as that has left it.
            (Some(seconds), false) if stage.terminal => stage.redraw(&text, seconds, before != Some(stage))?,
            _ => write(&text)?,
        };
        let Some(seconds) = args.watch.filter(|_| there) else { return Ok(Exit::Done) };
        before = Some(stage);
        pause(Clock::real(), Duration::from_secs(seconds)).await;
    }
}

/// What is told of one round.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Shown<'a> {
    #[serde(flatten)]
    survey: &'a Survey,
    findings: &'a [Finding],
    /// Rules that could not look, with the reason.
    not_looked_at: Vec<Blind>,
}

impl Shown<'_> {
    fn text(&self, out: &Out, width: usize) -> String {
        let mut paper = Paper::new(*out, width);
        paper.survey(self.survey, self.findings);
        // Without a node nothing was looked at.
        if !self.survey.nodes.is_empty() {
            paper.findings(self.findings, &self.not_looked_at);
        }
        paper.text()
    }
}

/// Where it is shown.
#[derive(Clone, Copy, PartialEq)]
struct Stage {
    terminal: bool,
    width: usize,
    height: usize,
}

impl Stage {
    fn of(out: &Out) -> Self {
        let terminal = io::stdout().is_terminal() && !out.json;
        let (height, width) = Term::stdout().size();
        // Elsewhere no line is broken.
        let width = if terminal { usize::from(width).max(40) } else { usize::MAX };
        Self { terminal, width, height: usize::from(height) }
    }

    /// Over what was there before, as far as the terminal is high; false where nobody reads any more.
    fn redraw(&self, text: &str, seconds: u64, first: bool) -> io::Result<bool> {
        let every = format!("every {seconds} s; Ctrl-C ends it");
        let mut lines: Vec<&str> = text.lines().collect();
        let all = lines.len();
        let mut room = self.height.saturating_sub(2).max(1);
        // A long command takes several rows.
        let rows = |line: &str| measure_text_width(line).div_ceil(self.width).max(1);
        let fits = |line: &&&str| {
            let left = room.checked_sub(rows(line));
            room = left.unwrap_or(0);
            left.is_some()
        };
        let count = lines.iter().take_while(fits).count();
        lines.truncate(count);
        let cut = all - lines.len();
        let foot = if cut > 0 { format!("… {} more below; {every}", plural(cut, "line")) } else { every };
        let mut page = String::from(if first { "\x1b[2J\x1b[H" } else { "\x1b[H" });
        for line in lines {
            page.push_str(&format!("{line}\x1b[K\r\n"));
        }
        page.push_str(&format!("{}\x1b[K\x1b[J\r", console::style(foot).dim()));
        write(&page)
    }
}

/// False where nobody reads any more.
fn write(text: &str) -> io::Result<bool> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}
