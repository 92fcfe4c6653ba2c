//! `pvemig status`: the runs, how they stand, the holds that are up.

use std::io::{self, IsTerminal};

use serde_json::Value;

use crate::base::names::StepKey;
use crate::engine::event::Planned;
use crate::engine::state::{Phase, Stage};
use crate::engine::store::{Holder, RunRead, StoreError};

use super::args::{Global, StatusArgs};
use super::damaged;
use super::exit::Exit;
use super::left::taken_back;
use super::out::Out;
use super::session::{Session, outrun};
use super::stands::{self, asks, settled, undo_stopped};
use super::words::lay;

pub(super) fn status(global: &Global, args: &StatusArgs, out: &Out) -> anyhow::Result<Exit> {
    let session = Session::looking(global, out)?;
    // Looked at first: of a process that ends meanwhile the journal says how.
    let at_work = session.store.at_work()?;
    let works = |run: &RunRead| at_work.as_ref().filter(|holder| holder.run == run.id);
    let (runs, bad) = session.store.every_run()?;
    // Nothing is missing from the list where only a run without a line is not in it.
    let whole = bad.iter().all(|run| matches!(run.why, StoreError::Empty { .. }));
    let exit = if whole { Exit::Done } else { Exit::Failed };
    let goes_on = |run: &RunRead| matches!(run.state.phase, Phase::Forward | Phase::Undoing | Phase::Stuck);
    let open = |run: &&RunRead| (goes_on(run) && !outrun(&runs, run)) || undo_stopped(&runs, run);
    let held = |run: &RunRead| -> Vec<String> {
        let still = |key: &&StepKey| !taken_back(&runs, run, key);
        run.state.holds_up().into_iter().filter(still).map(ToString::to_string).collect()
    };
    let lost = |run: &RunRead| run.is_lost() && !outlived(&runs, run, &session);
    // It was refused before it began anything, and another one came after it.
    let stands = |run: &RunRead| if outrun(&runs, run) { "refused" } else { word(run) };
    let shown = |run: &&RunRead| args.all || open(run) || !held(run).is_empty() || lost(run);
    let shown: Vec<_> = runs.iter().filter(shown).collect();
    if out.json {
        let line = |run: &&RunRead| {
            serde_json::json!({
                "run": run.id, "migration": run.state.opened.migration, "since": run.state.since,
                "last": run.state.last, "stands": stands(run), "settled": settled(run),
                "steps": run.state.opened.plan.len(), "not-needed": not_needed(run).collect::<Vec<_>>(), "holds": held(run), "holds-known": !lost(run),
                "at-work": works(run), "failure": run.state.failure,
                "asks": asks(run).map(|asks| serde_json::json!({ "step": asks.key, "ask": asks.ask })),
            })
        };
        let bad = bad.iter().map(|run| {
            let error = whole_text(&run.why);
            serde_json::json!({ "run": run.id, "stands": "damaged", "failure": error, "help": damaged::help(&run.why) })
        });
        let lines: Vec<_> = shown.iter().map(line).chain(bad).collect();
        out.data(&format!("{}\n", serde_json::Value::from(lines)))?;
        return Ok(exit);
    }
    if shown.is_empty() && bad.is_empty() {
        let over = match runs.len() {
            // A directory that was mistyped is none that has no run.
            0 if !session.store.dir().exists() => {
                format!("; there is no directory {}: nothing was begun with it", session.store.dir().display())
            }
            0 => String::new(),
            1 => "; one is over (`--all` shows it)".to_owned(),
            n => format!("; {n} are over (`--all` shows them)"),
        };
        out.data(&format!("site {}: no run is open{over}\n", session.site.name))?;
        return Ok(Exit::Done);
    }
    let mut text = String::new();
    let room = if io::stdout().is_terminal() { out.width() } else { usize::MAX };
    for run in shown {
        let what = Session::called(run);
        let since = run.state.since.strftime("%Y-%m-%d %H:%M UTC");
        let (settled, all) = (settled(run), run.state.opened.plan.len());
        let head = format!("{:<5} {:<10} {settled:>2}/{all:<2} {since}  ", run.id, stands(run));
        text.push_str(&laid(&head, &what, out, room));
        let mut line = |head: &str, words: &str| text.push_str(&laid(head, words, out, room));
        match works(run).filter(|_| open(&run)) {
            Some(holder) => {
                let Holder { pid, host, since, .. } = holder;
                line("      ", &format!("process {pid} on {host} is at work on it since {since}"));
            }
            None if open(&run) => line("      ", "no process is at work on it"),
            None => {}
        }
        if open(&run) {
            stands::line(run).iter().for_each(|words| line("      ", words));
            if works(run).is_none() {
                line("      ", &stands::command(run));
            }
        } else if let Some((key, error)) = &run.state.failure {
            line("      ", &format!("stopped at {key}: {error}"));
        }
        let needless: Vec<_> = not_needed(run).collect();
        if !needless.is_empty() {
            line("      not needed: ", &needless.join(", "));
        }
        let up = held(run);
        if !up.is_empty() {
            // A hold may have been taken down by hand since.
            line("      still held: ", &format!("{}, by what is written down; no system was asked", up.join(", ")));
        }
        if lost(run) {
            let words = format!("not known, as its journal was damaged: `{}` shows the marks", damaged::MARKS);
            line("      what it holds: ", &words);
        }
        if let Some(torn) = &run.torn {
            line("      notice: ", torn);
        }
    }
    for run in bad {
        text.push_str(&laid(&format!("{:<5} {:<10} ", run.id, "damaged"), &whole_text(&run.why), out, room));
        for help in damaged::help(&run.why) {
            text.push_str(&laid("      help: ", &help, out, room));
        }
    }
    out.data(&text)?;
    Ok(exit)
}

/// Whether each migration that a lost run may have been of was gone through to its end since, with all that is known to
/// have been held: that takes over what it left. An undo may have ended before it came to a hold.
fn outlived(runs: &[RunRead], run: &RunRead, session: &Session) -> bool {
    let covered = |later: &RunRead, hold: &Planned| {
        later.state.opened.plan.iter().any(|p| p.key == hold.key && same_subject(&p.step, &hold.step))
    };
    let through = |name: &String| {
        runs.iter().any(|later| {
            let of = &later.state.opened;
            let whole = later.state.phase == Phase::Done && !of.single && of.migration.as_ref() == Some(name);
            let mut holds = run.state.opened.plan.iter().filter(|p| p.holds_until.is_some());
            later.state.since > run.state.last && whole && holds.all(|hold| covered(later, hold))
        })
    };
    match &run.state.opened.migration {
        Some(name) => through(name),
        None => !session.site.migrations.is_empty() && session.site.migrations.keys().all(through),
    }
}

/// Words behind their head, laid out for the terminal.
fn laid(head: &str, words: &str, out: &Out, room: usize) -> String {
    lay(head, &out.commands(words), 8, room).iter().map(|line| format!("{line}\n")).collect()
}

/// An error with its causes in one line.
pub(super) fn whole_text(error: &StoreError) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    let mut texts: Vec<_> = causes.map(ToString::to_string).collect();
    texts.dedup();
    texts.join(": ")
}

/// Two steps are about the same thing where the fields that both have are equal, and there is one.
pub(super) fn same_subject(a: &Value, b: &Value) -> bool {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else { return false };
    let mut both = a.iter().filter_map(|(name, value)| Some((value, b.get(name)?))).peekable();
    both.peek().is_some() && both.all(|(a, b)| is_same(a, b))
}

/// Equal but for `dial`: how a machine is reached is no part of which one it is.
fn is_same(a: &Value, b: &Value) -> bool {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else { return a == b };
    let of = |map: &serde_json::Map<String, Value>| map.keys().filter(|key| *key != "dial").count();
    let mut parts = a.iter().filter(|(key, _)| *key != "dial");
    of(a) == of(b) && parts.all(|(key, value)| b.get(key).is_some_and(|other| is_same(value, other)))
}

/// How a run stands, in a word.
pub(super) fn word(run: &RunRead) -> &'static str {
    match run.state.phase {
        Phase::Forward => "open",
        Phase::Done => "done",
        Phase::Undoing => "undoing",
        Phase::Stuck => "stuck",
        Phase::Undone => "undone",
        Phase::Abandoned => "abandoned",
    }
}

/// Holds that are not up because nothing needs them: settled, and yet what their titles say is not so.
fn not_needed(run: &RunRead) -> impl Iterator<Item = String> {
    let needless = |p: &&Planned| run.state.steps.get(&p.key).is_some_and(|s| s.stage == Stage::Already && s.needless);
    run.state.opened.plan.iter().filter(needless).map(|p| p.key.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_machine_is_the_same_however_it_is_reached() {
        let step = |name: &str, at: &str| json!({"machine": {"name": name, "dial": {"address": at}}, "since": at});
        let mut own = step("talos-mac", "192.168.4.49");
        own["repair"] = json!(true);
        let cases = [
            (step("talos-mac", "192.168.4.49"), true),
            (json!({"machine": {"name": "talos-mac", "dial": {"address": "10.0.0.9"}}}), true),
            (json!({"machine": {"name": "talos-vm", "dial": {"address": "192.168.4.49"}}}), false),
            (json!({"machine": {"name": "talos-mac", "vm": 105}}), false),
            (json!({"vm": 105}), false),
        ];
        for (other, same) in &cases {
            assert_eq!(same_subject(&own, other), *same, "{other}");
            assert_eq!(same_subject(other, &own), *same, "{other}");
        }
        assert_eq!(cases.len(), 5);
    }
}
