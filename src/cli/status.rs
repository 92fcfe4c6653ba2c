//! `pvemig status`: the runs, how they stand, the holds that are up.

use crate::engine::state::{Phase, Stage};
use crate::engine::store::RunRead;

use super::args::{Common, StatusArgs};
use super::exit::Exit;
use super::out::Out;
use super::session::Session;

pub(super) fn status(common: &Common, args: &StatusArgs, out: &Out) -> anyhow::Result<Exit> {
    let session = Session::open(common, out)?;
    let runs = session.store.runs()?;
    let open = |run: &&RunRead| matches!(run.state.phase, Phase::Forward | Phase::Undoing | Phase::Stuck);
    let shown: Vec<_> = if args.all { runs.iter().collect() } else { runs.iter().filter(open).collect() };
    if out.json {
        let line = |run: &&RunRead| {
            let holds: Vec<_> = run.state.holds_up().iter().map(ToString::to_string).collect();
            serde_json::json!({
                "run": run.id, "migration": run.state.opened.migration, "since": run.state.since,
                "last": run.state.last, "stands": word(run), "settled": settled(run),
                "steps": run.state.opened.plan.len(), "holds": holds, "failure": run.state.failure,
            })
        };
        let lines: Vec<_> = shown.iter().map(line).collect();
        out.data(&format!("{}\n", serde_json::Value::from(lines)))?;
        return Ok(Exit::Done);
    }
    if shown.is_empty() {
        let over =
            if runs.is_empty() { String::new() } else { format!("; {} are over (`--all` shows them)", runs.len()) };
        out.data(&format!("site {}: no run is open{over}\n", session.site.name))?;
        return Ok(Exit::Done);
    }
    let mut text = String::new();
    for run in shown {
        let what = run.state.opened.migration.clone().unwrap_or_else(|| run.state.opened.blueprint.clone());
        let what = if run.state.opened.single {
            run.state.opened.plan.first().map(|p| format!("{what}, step {} alone", p.key)).unwrap_or(what)
        } else {
            what
        };
        let since = run.state.since.strftime("%Y-%m-%d %H:%M UTC");
        let (settled, all) = (settled(run), run.state.opened.plan.len());
        text.push_str(&format!("{:<5} {:<10} {settled:>2}/{all:<2} {since}  {what}\n", run.id, word(run)));
        if let Some((key, error)) = &run.state.failure {
            text.push_str(&format!("      stopped at {key}: {error}\n"));
        }
        let up: Vec<_> = run.state.holds_up().iter().map(ToString::to_string).collect();
        if !up.is_empty() {
            text.push_str(&format!("      still held: {}\n", up.join(", ")));
        }
        if let Some(torn) = &run.torn {
            text.push_str(&format!("      notice: {torn}\n"));
        }
    }
    out.data(&text)?;
    Ok(Exit::Done)
}

fn word(run: &RunRead) -> &'static str {
    match run.state.phase {
        Phase::Forward => "open",
        Phase::Done => "done",
        Phase::Undoing => "undoing",
        Phase::Stuck => "stuck",
        Phase::Undone => "undone",
        Phase::Abandoned => "abandoned",
    }
}

fn settled(run: &RunRead) -> usize {
    run.state.steps.values().filter(|s| matches!(s.stage, Stage::Applied | Stage::Already | Stage::Undone)).count()
}
