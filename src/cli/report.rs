//! `pvemig report [RUN]`.

use std::io::{self, IsTerminal};

use crate::blueprint;
use crate::engine::store::RunRead;
use crate::report::{self, Report};

use super::args::{Format, Global, ReportArgs};
use super::damaged;
use super::exit::Exit;
use super::fail::Words;
use super::out::Out;
use super::session::Session;
use super::words::wrap;

/// Renders a run's journal on stdout.
pub(super) fn report(global: &Global, args: &ReportArgs, out: &Out) -> anyhow::Result<Exit> {
    let format = match args.format {
        Some(Format::Text | Format::Markdown) if out.json => {
            return Err(Words::usage("`--json` is a format of its own", "leave `--json` or `--format` out").into());
        }
        None if out.json => Format::Json,
        given => given.unwrap_or(Format::Text),
    };
    let session = Session::looking(global, out)?;
    let (run, whole) = match &args.run {
        Some(given) => damaged::readable(&session, given)?,
        None => {
            let none = || Words::usage("this site has no run yet", "`pvemig run MIGRATION` begins one");
            (session.store.every_run()?.0.into_iter().next_back().ok_or_else(none)?, true)
        }
    };
    let Some(mut read) = Report::of(&run.id, &run.records)? else { return Ok(Exit::Done) };
    complete(&mut read, &run, &session)?;
    if !whole {
        // It neither goes on nor back by what is left of its journal.
        read.next = vec![format!("pvemig abandon {} --comment TEXT", run.id)];
    }
    read.next.iter_mut().for_each(|command| *command = out.commands(command));
    let rendered = match format {
        Format::Text => folded(&report::text(&read), *out),
        Format::Markdown => report::markdown(&read),
        Format::Json => format!("{}\n", report::json(&read)?),
    };
    out.data(&rendered)?;
    Ok(Exit::Done)
}

/// What only the blueprint knows of its steps.
fn complete(read: &mut Report, run: &RunRead, session: &Session) -> anyhow::Result<()> {
    read.outages = session.outages(run);
    if let Some(blueprint) = blueprint::named(&run.state.opened.blueprint) {
        let (runs, damaged) = session.store.every_run()?;
        for other in damaged.iter().filter(|other| other.id != run.id) {
            session.out.notice(&format!(
                "the journal of run {} does not hold: what others must say by that run is left out (`pvemig status`)",
                other.id
            ));
        }
        let others = runs.iter().filter(|other| other.id != run.id && other.state.opened.blueprint == blueprint.name);
        let others: Vec<_> = others.map(|other| &other.state).collect();
        read.fold_back = blueprint.fold_back(&run.state, &others);
    }
    Ok(())
}

/// After a rehearsal: its estate is gone, and so is what could be done about it.
pub(super) fn rehearsed(run: &RunRead, session: &Session, out: Out) -> anyhow::Result<String> {
    let Some(mut read) = Report::of(&run.id, &run.records)? else { return Ok(String::new()) };
    complete(&mut read, run, session)?;
    read.next.clear();
    Ok(folded(&report::text(&read), out))
}

/// On a terminal, lines that are too long are broken and go on below their own words.
fn folded(text: &str, out: Out) -> String {
    if !io::stdout().is_terminal() {
        return text.to_owned();
    }
    let mut folded = String::new();
    for line in text.lines() {
        let words = line.trim_start_matches([' ', '├', '└', '│']);
        let head = &line[..line.len() - words.len()];
        let indent = head.replace('├', "│").replace('└', " ") + if head.is_empty() { "" } else { "  " };
        let room = out.width().saturating_sub(indent.chars().count() + 1).max(20);
        if line.chars().count() < out.width() {
            folded += &format!("{line}\n");
            continue;
        }
        for (n, part) in wrap(words, room).into_iter().enumerate() {
            folded += &format!("{}{part}\n", if n == 0 { head } else { indent.as_str() });
        }
    }
    folded
}
