//! `pvemig undo [RUN]`.

use std::sync::Arc;

use crate::engine::state::Phase;
use crate::engine::store::RunRead;

use super::args::{Common, UndoArgs};
use super::exit::Exit;
use super::fail::Words;
use super::live::Live;
use super::out::Out;
use super::session::Session;

/// Takes back what a run has done, last step first.
pub(super) async fn undo(common: &Common, args: &UndoArgs, out: &Out) -> anyhow::Result<Exit> {
    let session = Session::open(common, out)?;
    let runs = session.store.runs()?;
    let run = match &args.run {
        Some(given) => session.store.run(given)?.read()?,
        None => newest_that_changed(runs_again(&session)?)?,
    };
    let id = run.id.clone();
    match run.state.phase {
        Phase::Undone => {
            return Err(Words::usage(format!("run {id} is undone already"), "nothing is left to do").into());
        }
        Phase::Abandoned => {
            let help = "what it left stays; `pvemig report` shows what that is";
            return Err(Words::usage(format!("run {id} was abandoned"), help).into());
        }
        Phase::Forward | Phase::Done | Phase::Undoing | Phase::Stuck => {}
    }
    refuse_under_others(&run, &runs, &args.past)?;
    let owed: Vec<_> =
        run.state.opened.plan.iter().filter(|p| run.state.steps.get(&p.key).is_some_and(|s| s.owes())).collect();
    if !args.going.yes {
        if !out.asks {
            let help = format!("add `--yes`; `pvemig report {id}` shows what it did");
            return Err(Words::usage("nobody can be asked here whether to undo", help).into());
        }
        out.say(&format!("to take back, last first ({} steps of run {id}):", owed.len()));
        owed.iter().rev().for_each(|p| out.say(&format!("  ↶ {:<24} {}", p.key.to_string(), p.title)));
        if !out.ask("Undo?")? {
            out.say("nothing was changed");
            return Ok(Exit::Usage);
        }
    }
    let live = Arc::new(Live::new(*out, session.clock));
    live.titles(run.state.opened.plan.iter().map(|p| (p.key.clone(), p.title.clone())));
    let work = session.reopen(&run, &args.going, live)?;
    out.say(&format!("run {id} is being undone"));
    let (_, exit) = work.go(Some(&args.past)).await?;
    Ok(exit)
}

fn runs_again(session: &Session) -> anyhow::Result<Vec<RunRead>> {
    Ok(session.store.runs()?)
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
fn refuse_under_others(run: &RunRead, runs: &[RunRead], past: &[String]) -> anyhow::Result<()> {
    for other in runs {
        let during = other.id != run.id && other.state.since > run.state.since;
        let open = !matches!(other.state.phase, Phase::Undone | Phase::Abandoned);
        if during && open && other.state.changed && !past.contains(&other.id) {
            let help = vec![
                format!("`pvemig undo {}` first", other.id),
                format!("or leave what it did: `pvemig undo {} --past {}`", run.id, other.id),
            ];
            let text = format!("run {} changed something after run {} began", other.id, run.id);
            return Err(Words::new(Exit::Blocked, text, help).into());
        }
    }
    Ok(())
}
