//! `pvemig report [RUN]`.

use std::io::{self, IsTerminal};

use crate::blueprint;
use crate::engine::state::Phase;
use crate::engine::store::{Damaged, RunRead};
use crate::report::{self, Report};

use super::args::{Format, Global, ReportArgs};
use super::damaged;
use super::exit::Exit;
use super::fail::Words;
use super::left::taken_back;
use super::out::Out;
use super::outages::as_asked;
use super::reach::reached;
use super::session::Session;
use super::stands::{Undo, offers_undo, undo_of, undo_tried};
use super::words::{is_drawn, wrap};

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
    let (run, whole, exit) = match &args.run {
        Some(given) => {
            let (run, whole) = damaged::readable(&session, given)?;
            (run, whole, Exit::Done)
        }
        None => newest(&session)?,
    };
    let Some(mut read) = Report::of(&run.id, &run.records)? else { return Ok(Exit::Done) };
    complete(&mut read, &run, &session)?;
    if !whole {
        // It neither goes on nor back by what is left of its journal.
        read.next = vec![format!("pvemig abandon {} --comment TEXT", run.id)];
    }
    if let Some(holder) = session.at_work(&run.id)? {
        out.notice(&format!(
            "process {} on {} is at work on run {}: this is as far as it is by now",
            holder.pid, holder.host, run.id
        ));
        read.next = vec!["pvemig status".to_owned()];
    }
    if undo_tried(&run) {
        // What was wanted comes first.
        read.next.sort_by_key(|command| !command.starts_with("pvemig undo "));
    }
    read.next.iter_mut().for_each(|command| *command = out.commands(command));
    let rendered = match format {
        Format::Text => folded(&reached(&report::text(&read)), *out),
        Format::Markdown => reached(&report::markdown(&read)),
        Format::Json => format!("{}\n", report::json(&read)?),
    };
    out.data(&rendered)?;
    Ok(exit)
}

/// The newest run, as far as its journal can be read, and whether that is all of it. Where a damaged one may be newer, it
/// is not known to be the one that was meant.
fn newest(session: &Session) -> anyhow::Result<(RunRead, bool, Exit)> {
    let (mut runs, mut bad) = session.store.every_run()?;
    let since = |run: &RunRead| run.state.since;
    let good = |run: &Damaged| run.good.as_ref().map(since);
    bad.sort_by_key(good);
    let newest = runs.pop();
    if let Some(damaged) = bad.last()
        && good(damaged).is_some_and(|at| newest.as_ref().is_none_or(|run| at > since(run)))
    {
        let (run, whole) = damaged::readable(session, &damaged.id)?;
        return Ok((run, whole, Exit::Done));
    }
    let unreadable: Vec<_> = bad.into_iter().filter(|run| run.good.is_none()).collect();
    let Some(run) = newest else {
        // What is there is damaged: that is no site without a run.
        return Err(match unreadable.into_iter().next() {
            Some(damaged) => damaged.why.into(),
            None => Words::usage("this site has no run yet", "`pvemig run MIGRATION` begins one").into(),
        });
    };
    let mut exit = Exit::Done;
    for damaged in unreadable {
        session.out.notice(&format!(
            "run {} may be newer: nothing can be read of its journal (`pvemig status`); this is run {}",
            damaged.id, run.id
        ));
        exit = Exit::Failed;
    }
    Ok((run, true, exit))
}

/// What only the blueprint knows of its steps.
fn complete(read: &mut Report, run: &RunRead, session: &Session) -> anyhow::Result<()> {
    let (runs, damaged) = session.store.every_run()?;
    if run.state.phase == Phase::Done && !offers_undo(&run.state)
        || run.state.phase == Phase::Forward && undo_of(&run.state) == Undo::Nothing
    {
        read.next.retain(|command| !command.starts_with("pvemig undo "));
    }
    read.outages = session.outages(&runs, run);
    for row in &mut read.steps {
        let key = row.key.as_str().into();
        row.fell.iter_mut().for_each(|fell| fell.as_asked = as_asked(run, &key, fell.at));
    }
    // What a later run took over, or took back, is not this one's any more.
    read.holds_up.retain(|key| !taken_back(&runs, run, &key.as_str().into()));
    if let Some(blueprint) = blueprint::named(&run.state.opened.blueprint) {
        for other in damaged.iter().filter(|other| other.id != run.id) {
            session.out.notice(&format!(
                "the journal of run {} is damaged: what others must say by that run is left out (`pvemig status`)",
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
        if line.chars().count() < out.width() || is_drawn(words) {
            folded += &format!("{line}\n");
            continue;
        }
        for (n, part) in wrap(words, room).into_iter().enumerate() {
            folded += &format!("{}{part}\n", if n == 0 { head } else { indent.as_str() });
        }
    }
    folded
}
