//! `pvemig run MIGRATION`.

use std::sync::Arc;

use super::args::{Global, RunArgs};
use super::exit::Exit;
use super::fail::{self, Words};
use super::foot::Foot;
use super::live::Live;
use super::out::Out;
use super::plan;
use super::session::Session;
use super::work::refuse_consents;

/// Runs a migration from its beginning. Refuses while another run of the site is open.
pub(super) async fn run(global: &Global, args: &RunArgs, out: &Out) -> anyhow::Result<Exit> {
    let session = Session::open_private(global, out)?;
    let (blueprint, steps) = session.migration(&args.migration)?;
    refuse_consents(&session, &steps, None, &args.going.destroy)?;
    session.refuse_beside_another(None)?;
    if !args.yes {
        if !out.asks {
            let help = format!("add `--yes`; `pvemig plan {}` shows what would be done", args.migration);
            return Err(Words::usage("nobody can be asked here whether to begin", help).into());
        }
        let (name, consents) = (Some(args.migration.as_str()), &args.going.destroy);
        let lines = plan::look(&session, blueprint, name, &steps, consents).await?;
        out.say(&plan::text(&lines, *out));
        // Waiting will not help: there is nothing to begin, and no run that would have to be given up.
        let barred = plan::barred(&lines);
        if !barred.is_empty() {
            return Ok(fail::not_begun(out, &barred));
        }
        let foot = Foot::of_plan(&session, blueprint, Some(&args.migration), &steps, &lines);
        out.say(&format!("\n{}", foot.text(*out).trim_end()));
        if !out.ask("Begin?")? {
            out.say("nothing was changed");
            return Ok(Exit::Interrupted);
        }
    }
    let opened = session.opened(blueprint, Some(&args.migration), &steps, false)?;
    let live = Arc::new(Live::new(*out, session.clock));
    let lock = session.lock_for_new()?;
    // While the question stood somebody may have answered it in another terminal.
    session.refuse_beside_another(None)?;
    let work = session.begin(lock, opened, steps, None, &args.going, live)?;
    work.go(None).await
}
