//! `pvemig resume [RUN]`.

use std::sync::Arc;

use crate::engine::state::{Phase, Stage};
use crate::engine::store::RunRead;

use super::args::{Global, ResumeArgs};
use super::exit::Exit;
use super::fail::Words;
use super::live::Live;
use super::out::Out;
use super::session::{Session, begun};
use super::work::refuse_consents;

/// Goes on with a run at its first step that is not settled. Asks nobody: what it goes on with was begun on purpose.
pub(super) async fn resume(global: &Global, args: &ResumeArgs, out: &Out) -> anyhow::Result<Exit> {
    let session = Session::open_private(global, out)?;
    let run = session.the_run(args.run.as_deref())?;
    let id = &run.id;
    refuse(&run)?;
    let migration = run.state.opened.migration.as_deref();
    refuse_consents(&session, &session.steps_of(&run.state)?.1, migration, &args.going.destroy)?;
    let lock = session.lock(id)?;
    // Until here another process may have gone on with it.
    let run = session.store.run(id)?.read()?;
    refuse(&run)?;
    if !run.state.opened.single && !begun(&run.state) {
        session.refuse_beside_another(Some(id))?;
    }
    let live = Arc::new(Live::new(*out, session.clock));
    live.titles(run.state.opened.plan.iter().map(|p| (p.key.clone(), p.title.clone())));
    live.asked(run.state.steps.iter().filter(|(_, step)| step.asked.is_some()).map(|(key, _)| key.clone()));
    let work = session.reopen(lock, &run, &args.going, live.clone())?;
    out.say(&format!("run {id} goes on"));
    let settled = |stage| matches!(stage, Stage::Applied | Stage::Already);
    if let Some(first) = run.state.opened.plan.iter().find(|p| !settled(run.state.stage(&p.key))) {
        live.looks(&first.key);
    }
    work.go(None).await
}

/// Only a run that is on its way forwards can be resumed.
fn refuse(run: &RunRead) -> Result<(), Words> {
    let id = &run.id;
    let backwards = || {
        let text = format!("run {id} is being undone and cannot go forwards any more");
        (text, format!("`pvemig undo {id}` goes on with the undo"))
    };
    let (exit, (text, help)) = match run.state.phase {
        Phase::Forward => return Ok(()),
        Phase::Done => (Exit::Usage, (format!("run {id} is done"), format!("`pvemig report {id}` shows it"))),
        Phase::Undone => (Exit::Usage, (format!("run {id} is undone"), "begin a new one with `pvemig run`".into())),
        Phase::Abandoned => {
            (Exit::Usage, (format!("run {id} was abandoned"), "begin a new one with `pvemig run`".into()))
        }
        Phase::Undoing => (Exit::Usage, backwards()),
        Phase::Stuck => (Exit::Stuck, backwards()),
    };
    Err(Words::new(exit, text, vec![help]))
}
