//! `pvemig run MIGRATION`.

use std::sync::Arc;

use crate::engine::state::Phase;

use super::args::{Common, RunArgs};
use super::exit::Exit;
use super::fail::Words;
use super::live::Live;
use super::out::Out;
use super::plan;
use super::session::Session;

/// Runs a migration from its beginning. Refuses while another run of the site is open.
pub(super) async fn run(common: &Common, args: &RunArgs, out: &Out) -> anyhow::Result<Exit> {
    let session = Session::open(common, out)?;
    refuse_beside_another(&session)?;
    let (blueprint, steps) = session.migration(&args.migration)?;
    if !args.going.yes {
        if !out.asks {
            let help = format!("add `--yes`; `pvemig plan {}` shows what would be done", args.migration);
            return Err(Words::usage("nobody can be asked here whether to begin", help).into());
        }
        let lines = plan::look(&session, blueprint, Some(&args.migration), &steps).await?;
        out.say(&plan::text(&lines, out.width()));
        if !out.ask("Begin?")? {
            out.say("nothing was changed");
            return Ok(Exit::Usage);
        }
    }
    let opened = session.opened(blueprint, Some(&args.migration), &steps, false)?;
    let live = Arc::new(Live::new(*out, session.clock));
    let work = session.begin(opened, steps, None, &args.going, live)?;
    let (_, exit) = work.go(None).await?;
    Ok(exit)
}

/// One run of a site at a time: names the three ways out.
pub(super) fn refuse_beside_another(session: &Session) -> anyhow::Result<()> {
    let Some(run) = session.open_runs()?.into_iter().next_back() else { return Ok(()) };
    let what = run.state.opened.migration.clone().unwrap_or_else(|| run.state.opened.blueprint.clone());
    let mut help = vec![
        format!("`pvemig undo {}` takes it back", run.id),
        format!("`pvemig abandon {} --comment '...'` leaves it as it stands", run.id),
    ];
    if run.state.phase == Phase::Forward {
        help.insert(0, format!("`pvemig resume {}` goes on with it", run.id));
    }
    Err(Words::new(Exit::Held, format!("run {} ({what}) of this site is not finished", run.id), help).into())
}
