//! `pvemig undo [RUN]`.

use std::sync::Arc;

use crate::engine::event::Planned;
use crate::engine::state::Phase;
use crate::engine::store::RunRead;

use super::args::{Global, UndoArgs};
use super::exit::Exit;
use super::fail::{Words, flags};
use super::foot::Back;
use super::live::Live;
use super::out::Out;
use super::session::{Session, plural};

/// What an undo passes, resolved.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// Ids of steps of the run that cannot be undone.
    pub(super) steps: Vec<String>,
    /// Ids of runs that came after.
    pub(super) runs: Vec<String>,
}

impl Past {
    /// As it was given, in full.
    pub(super) fn given(&self) -> Vec<String> {
        self.steps.iter().chain(&self.runs).cloned().collect()
    }
}

/// Takes back what a run has done, last step first.
pub(super) async fn undo(global: &Global, args: &UndoArgs, out: &Out) -> anyhow::Result<Exit> {
    let session = Session::open_private(global, out)?;
    let run = match &args.run {
        Some(given) => session.store.run(given)?.read()?,
        None => newest_that_changed(session.store.runs()?)?,
    };
    let id = run.id.clone();
    refuse(&run)?;
    let past = resolve(&session, &run, &args.past)?;
    refuse_under_others(&run, &session.store.runs()?, &past)?;
    let owed: Vec<_> =
        run.state.opened.plan.iter().filter(|p| run.state.steps.get(&p.key).is_some_and(|s| s.owes())).collect();
    if !args.yes {
        if !out.asks {
            let help = format!("add `--yes`; `pvemig report {id}` shows what it did");
            return Err(Words::usage("nobody can be asked here whether to undo", help).into());
        }
        out.say(&format!("to take back, last first ({} of run {id}):", plural(owed.len(), "step")));
        for planned in owed.iter().rev() {
            let head = format!("  ↶ {:<24} ", planned.key.to_string());
            out.tell(&head, &planned.title, head.chars().count());
        }
        let (_, steps) = session.steps_of(&run.state)?;
        out.say("");
        Back::of(&session, &run.state, &steps, &past.steps, &args.going.destroy)?.say(*out);
        if !out.ask("Undo?")? {
            out.say("nothing was changed");
            return Ok(Exit::Interrupted);
        }
    }
    let lock = session.lock(&id)?;
    // While the question stood another process may have gone on with it, or begun something else.
    let now = session.store.run(&id)?.read()?;
    refuse(&now)?;
    refuse_under_others(&now, &session.store.runs()?, &past)?;
    if now.records.len() != run.records.len() {
        let help = format!("`pvemig report {id}` shows what it did; then `pvemig undo {id}` again");
        return Err(Words::new(Exit::Held, format!("run {id} went on in the meantime"), vec![help]).into());
    }
    let live = Arc::new(Live::new(*out, session.clock));
    live.titles(now.state.opened.plan.iter().map(|p| (p.key.clone(), p.title.clone())));
    let work = session.reopen(lock, &now, &args.going, live)?;
    work.go(Some(&past)).await
}

fn refuse(run: &RunRead) -> Result<(), Words> {
    let id = &run.id;
    match run.state.phase {
        Phase::Undone => Err(Words::usage(format!("run {id} is undone already"), "nothing is left to do")),
        Phase::Abandoned => {
            let help = format!("what it left stays; `pvemig report {id}` shows what that is");
            Err(Words::usage(format!("run {id} was abandoned"), help))
        }
        Phase::Forward | Phase::Done | Phase::Undoing | Phase::Stuck => Ok(()),
    }
}

/// Each `--past` is an applied step of the run that cannot be undone or whose undo was tried and stopped there (by id or
/// number), or another run.
fn resolve(session: &Session, run: &RunRead, given: &[String]) -> anyhow::Result<Past> {
    let mut past = Past::default();
    for name in given {
        let is = |p: &&Planned| p.key.id() == name || p.key.id().split('-').next() == Some(name.as_str());
        let step = run.state.opened.plan.iter().find(is);
        if let Some(step) = step {
            let owed = run.state.steps.get(&step.key).is_some_and(|s| s.owes());
            if run.state.may_be_passed(step) {
                past.steps.push(step.key.id().to_owned());
                continue;
            }
            let why = if owed {
                "was not tried to be taken back yet, so it is not passed"
            } else {
                "did nothing that is still there"
            };
            let help = format!("leave `--past {name}` out");
            return Err(Words::usage(format!("step {} of run {} {why}", step.key, run.id), help).into());
        }
        match session.store.run(name) {
            Ok(other) if other.id() != run.id => past.runs.push(other.id().to_owned()),
            _ => {
                let text = format!("`--past {name}` is neither a step of run {} nor another run", run.id);
                let help = format!("`pvemig report {}` lists its steps, `pvemig status --all` the runs", run.id);
                return Err(Words::usage(text, help).into());
            }
        }
    }
    Ok(past)
}

/// The newest run of a whole migration that changed something and is not undone; else the newest single step.
fn newest_that_changed(runs: Vec<RunRead>) -> anyhow::Result<RunRead> {
    let owes = |r: &RunRead| {
        let open = !matches!(r.state.phase, Phase::Undone | Phase::Abandoned);
        open && r.state.steps.values().any(|s| s.owes())
    };
    let (single, whole): (Vec<_>, Vec<_>) = runs.into_iter().filter(owes).partition(|r| r.state.opened.single);
    let none = || Words::usage("no run of this site has anything to undo", "`pvemig status --all` lists the runs");
    Ok(whole.into_iter().next_back().or_else(|| single.into_iter().next_back()).ok_or_else(none)?)
}

/// A run that changed something during the life of this one is undone first, or passed.
fn refuse_under_others(run: &RunRead, runs: &[RunRead], past: &Past) -> anyhow::Result<()> {
    for other in runs {
        let during = other.id != run.id && other.state.since > run.state.since;
        let open = !matches!(other.state.phase, Phase::Undone | Phase::Abandoned);
        if during && open && other.state.changed && !past.runs.contains(&other.id) {
            let help = vec![
                format!("`pvemig undo {}` first", other.id),
                format!("or leave what it did: `pvemig undo {}{} --past {}`", run.id, flags(&past.given()), other.id),
            ];
            let what = Session::called(other);
            let text = format!("run {} ({what}) changed something after run {} began", other.id, run.id);
            return Err(Words::new(Exit::Blocked, text, help).into());
        }
    }
    Ok(())
}
