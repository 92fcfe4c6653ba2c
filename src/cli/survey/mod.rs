//! `pvemig survey [NODE]...`: every node across all layers, what is wrong with it, and the next command.

mod cells;
mod hardware;
mod held;
mod mended;
mod past;
mod runs;
#[cfg(test)]
mod said;
mod screen;
mod waiting;

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use console::{Term, measure_text_width};
use serde::Serialize;

use crate::base::clock::Clock;
use crate::base::survey::{Ballot, Survey};
use crate::base::wait::pause;
use crate::lint::{self, Blind, Finding};

use super::args::{Global, SurveyArgs};
use super::exit::Exit;
use super::fail::{self, Words};
use super::out::Out;
use super::plan::stopped;
use super::session::{Session, plural};

use mended::Next;
use past::Past;
use runs::{Open, Runs};
use screen::Paper;

/// Looks once, or again and again. It changes nothing, makes nothing, and waits for nobody's lock.
pub(super) async fn survey(global: &Global, args: &SurveyArgs, out: &Out) -> anyhow::Result<Exit> {
    let session = Session::surveying(global, out)?;
    let estate = &session.estate;
    // A signal is how a watch ends.
    let ended = tokio::select! {
        ended = look(&session, args, out) => ended,
        () = stopped() => {
            write(left_behind(args.watch, Stage::of(out).terminal && !out.json))?;
            Ok(Exit::Interrupted)
        }
    };
    estate.farewell().await;
    ended
}

/// What is written last: on a terminal the prompt would stand on the foot of a page that is drawn over.
fn left_behind(watch: Option<u64>, terminal: bool) -> &'static str {
    if watch.is_some() && terminal { "\r\n" } else { "" }
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

async fn look(session: &Session, args: &SurveyArgs, out: &Out) -> anyhow::Result<Exit> {
    if args.hardware {
        return hardware::hardware(session, args, out).await;
    }
    known(session, &args.nodes)?;
    rounds(session, args, out).await
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
        let mut survey = survey.map_err(fail::failure)?;
        let mut runs = Runs::of(session);
        runs.keep_off(&session.site, &mut survey);
        runs.see(&survey);
        let mut looked = lint::look(&survey);
        let notes = mended::by_our_runs(session, &survey, &mut looked.findings);
        mended::by_migrations(session, &survey, &mut looked.findings);
        runs.judge(&session.site, &survey, &mut looked.findings);
        let etcd: Vec<Ballot> = survey.talos.iter().flat_map(|cluster| survey.ballots(cluster)).collect();
        let mut waiting = mended::next_of_waiting(&session.site, &survey, |node| runs.in_hand(node));
        runs.next(&survey, &mut waiting);
        mended::by_waiting(&mut looked.findings, &waiting);
        // A terminal may have been given another size meanwhile.
        let stage = Stage::of(out);
        let not_looked_at = looked.blind();
        let findings = &looked.findings;
        let (past, runs_unknown) = (runs.past(), runs.unknown);
        let shown = Shown {
            runs: runs.open,
            past,
            runs_unknown,
            survey: &survey,
            etcd,
            waiting,
            findings,
            not_looked_at,
            notes,
        };
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
    /// The runs of this site that are open.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    runs: Vec<Open>,
    /// Those that were undone past something, which stays.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    past: Vec<Past>,
    /// Why not all of the runs is known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    runs_unknown: Vec<String>,
    #[serde(flatten)]
    survey: &'a Survey,
    /// The votes of each etcd of Talos'.
    etcd: Vec<Ballot>,
    /// What is next for the machines that wait for their first configuration (of each `waiting` in `nodes` has more).
    waiting: Vec<Next>,
    findings: &'a [Finding],
    /// Rules that could not look, with the reason.
    not_looked_at: Vec<Blind>,
    /// What is as it is because a run is at work.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
}

impl Shown<'_> {
    fn text(&self, out: &Out, width: usize) -> String {
        let mut paper = Paper::new(*out, width);
        paper.survey(
            self.survey,
            (&self.runs, &self.past, &self.runs_unknown),
            self.findings,
            &self.etcd,
            &self.waiting,
        );
        // Without a node nothing was looked at.
        if !self.survey.nodes.is_empty() {
            paper.findings(self.findings, &self.not_looked_at);
            paper.notes(&self.notes);
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

    /// Over what was there before; false where nobody reads any more.
    fn redraw(&self, text: &str, seconds: u64, first: bool) -> io::Result<bool> {
        write(&self.page(text, seconds, first))
    }

    /// What is drawn of a text: as much as the terminal is high.
    fn page(&self, text: &str, seconds: u64, first: bool) -> String {
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
        page
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of a page on a terminal, without what moves and colours.
    fn rows(page: &str) -> Vec<String> {
        let plain = console::strip_ansi_codes(page);
        plain.trim_end_matches('\r').split("\r\n").map(str::to_owned).collect()
    }

    #[test]
    fn a_page_is_no_higher_than_the_terminal_and_says_what_it_leaves_out() {
        let of = |height: usize, text: &str| rows(&Stage { terminal: true, width: 40, height }.page(text, 2, true));
        let text: String = (1..=9).map(|n| format!("line {n}\n")).collect();
        let whole = of(24, &text);
        assert_eq!((whole.len(), whole[8].as_str(), whole[9].as_str()), (10, "line 9", "every 2 s; Ctrl-C ends it"));
        // One row for the foot, and one that stays free.
        for (height, shown, cut) in
            [(11, 9, None), (10, 8, Some("1 line")), (5, 3, Some("6 lines")), (0, 1, Some("8 lines"))]
        {
            let page = of(height, &text);
            assert_eq!(page.len(), shown + 1, "{height}: {page:?}");
            let foot = cut.map(|cut| format!("… {cut} more below; every 2 s; Ctrl-C ends it"));
            assert_eq!(page[shown], foot.unwrap_or_else(|| whole[9].clone()), "{height}");
            assert!(height == 0 || page.len() < height, "{height}");
        }
        // What is longer than a line takes more of them, and is not shown by halves.
        let long = format!("line 1\n{}\nline 3\n", "x".repeat(81));
        assert_eq!(of(6, &long), ["line 1", &"x".repeat(81), "… 1 line more below; every 2 s; Ctrl-C ends it"]);
        // What colours a line takes no room.
        let colour = console::style("y".repeat(39)).red().bold().force_styling(true);
        assert_eq!(of(4, &format!("{colour}\n{colour}\n")), ["y".repeat(39), "y".repeat(39), whole[9].clone()]);
        assert_eq!(of(5, &long), ["line 1", "… 2 lines more below; every 2 s; Ctrl-C ends it"]);
    }

    #[test]
    fn a_prompt_comes_below_the_last_page() {
        let cases = [(Some(2), true, "\r\n"), (Some(2), false, ""), (None, true, "")];
        for (watch, terminal, wanted) in cases {
            assert_eq!(left_behind(watch, terminal), wanted, "{watch:?} {terminal}");
        }
    }

    #[test]
    fn a_page_is_drawn_over_the_one_before_and_leaves_nothing_of_it() {
        let stage = Stage { terminal: true, width: 40, height: 24 };
        let (first, next) = (stage.page("a\nb\n", 2, true), stage.page("a\nb\n", 2, false));
        assert_eq!(first.strip_prefix("\x1b[2J"), Some(next.as_str()));
        assert!(next.starts_with("\x1b[Ha\x1b[K\r\nb\x1b[K\r\n") && next.ends_with("\x1b[K\x1b[J\r"), "{next:?}");
    }
}
