//! `pvemig abandon [RUN] --comment '...'`.

use crate::base::names::StepKey;
use crate::blueprint;
use crate::engine::event::Event;
use crate::engine::recorder::{Recorder, Wiring};
use crate::engine::state::Phase;

use super::args::{AbandonArgs, Global};
use super::damaged;
use super::exit::Exit;
use super::fail::Words;
use super::out::Out;
use super::session::Session;
use super::stands::{offers_undo, takes_back};

/// Gives a run up. What it did stays, and what is still held is said.
pub(super) fn abandon(global: &Global, args: &AbandonArgs, out: &Out) -> anyhow::Result<Exit> {
    if args.comment.trim().is_empty() {
        return Err(Words::usage("the comment is empty", "say why, for whoever finds the estate like this").into());
    }
    let session = Session::open(global, out)?;
    if let Some(given) = &args.run
        && let Some(exit) = damaged::abandon(&session, given, &args.comment, out)?
    {
        return Ok(exit);
    }
    let run = session.the_run(args.run.as_deref())?;
    let _lock = session.lock(&run.id)?;
    // Read under the lock: until here another process may have gone on with it.
    let run = session.store.run(&run.id)?.read()?;
    let over = match run.state.phase {
        Phase::Forward | Phase::Undoing | Phase::Stuck => None,
        Phase::Done => Some((
            "done",
            match takes_back(&run.state).filter(|_| offers_undo(&run.state)) {
                Some(what) => format!("`pvemig undo {}` {what}", run.id),
                None => format!("nothing of it can be taken back; `pvemig report {}` shows what it did", run.id),
            },
        )),
        Phase::Undone => Some(("undone", "nothing is left to do".to_owned())),
        Phase::Abandoned => Some(("abandoned already", "nothing is left to do".to_owned())),
    };
    if let Some((word, help)) = over {
        return Err(Words::usage(format!("run {} is {word}", run.id), help).into());
    }
    let (recorder, torn) = Recorder::reopen(session.store.run(&run.id)?, &Wiring::default())?;
    if let Some(torn) = torn {
        out.notice(&torn);
    }
    let up: Vec<StepKey> = run.state.holds_up().into_iter().cloned().collect();
    let record = recorder.write(Event::Abandoned { comment: args.comment.clone() })?;
    if out.json {
        out.data(&format!("{}\n", serde_json::to_string(&record)?))?;
    }
    let left = if run.state.changed { "what it did stays" } else { "it had changed nothing" };
    out.say(&format!("run {} is abandoned; {left}", run.id));
    if !up.is_empty() {
        out.say("  still held, and nobody takes it back:");
        for planned in run.state.opened.plan.iter().filter(|planned| up.contains(&planned.key)) {
            out.tell(&format!("    {}: ", planned.key), &planned.title, 6);
        }
        let off = blueprint::named(&run.state.opened.blueprint)
            .is_some_and(|of| of.rows.iter().any(|row| row.off && up.iter().any(|key| key.id() == row.id)));
        let first = if off { "once what is off is on again, with its drives where they belong, " } else { "" };
        let new = run.state.opened.migration.as_ref();
        let new = new.map_or("a new run of the same migration".to_owned(), |name| format!("`pvemig run {name}`"));
        out.tell("  ", &format!("{first}{new} takes these holds over"), 4);
    }
    Ok(Exit::Done)
}
