//! `pvemig resume [RUN]`.

use std::sync::Arc;

use crate::engine::state::Phase;

use super::args::{Common, ResumeArgs};
use super::exit::Exit;
use super::fail::Words;
use super::live::Live;
use super::out::Out;
use super::session::Session;

/// Goes on with a run at its first step that is not settled.
pub(super) async fn resume(common: &Common, args: &ResumeArgs, out: &Out) -> anyhow::Result<Exit> {
    let session = Session::open(common, out)?;
    let run = session.the_run(args.run.as_deref())?;
    let id = &run.id;
    let refuse = |exit, text: String, help: String| Err(Words::new(exit, text, vec![help]).into());
    match run.state.phase {
        Phase::Forward => {}
        Phase::Done => {
            return refuse(Exit::Usage, format!("run {id} is done"), format!("`pvemig report {id}` shows it"));
        }
        Phase::Undone => {
            return refuse(Exit::Usage, format!("run {id} is undone"), "begin a new one with `pvemig run`".into());
        }
        Phase::Abandoned => {
            return refuse(Exit::Usage, format!("run {id} was abandoned"), "begin a new one with `pvemig run`".into());
        }
        Phase::Undoing | Phase::Stuck => {
            let help = format!("`pvemig undo {id}` goes on with the undo");
            return refuse(Exit::Stuck, format!("run {id} is being undone and cannot go forwards any more"), help);
        }
    }
    if run.state.opened.site_digest != session.site.digest {
        out.say("notice: the site file was changed since this run began; its plan stays as it was");
    }
    let live = Arc::new(Live::new(*out, session.clock));
    live.titles(run.state.opened.plan.iter().map(|p| (p.key.clone(), p.title.clone())));
    let work = session.reopen(&run, &args.going, live)?;
    out.say(&format!("run {id} goes on"));
    let (_, exit) = work.go(None).await?;
    Ok(exit)
}
