//! `pvemig undo [RUN]`.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::base::permit::Thing;
use crate::engine::event::{Event, Planned, Record};
use crate::engine::state::{Phase, RunState};
use crate::engine::store::RunRead;
use crate::engine::undo::{lacking, left_by, undo_order};

use super::args::{Global, UndoArgs};
use super::exit::Exit;
use super::fail::{Told, Words, flags};
use super::foot::Back;
use super::left;
use super::live::Live;
use super::out::Out;
use super::session::{Session, plural};

/// What an undo passes, resolved.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// Keys of steps of the run that cannot be undone.
    pub(super) steps: Vec<String>,
    /// Ids of runs that came after.
    pub(super) runs: Vec<String>,
    /// The consents that were given with it.
    destroy: Vec<String>,
    /// Nobody was to be asked.
    yes: bool,
}

impl Past {
    /// As it was given, in full.
    pub(super) fn given(&self) -> Vec<String> {
        self.steps.iter().chain(&self.runs).cloned().collect()
    }

    /// The same, where the undo has come past steps by now: none is named again.
    pub(super) fn left(&self, state: &RunState) -> Self {
        let owes = |step: &&String| state.steps.get(&step.as_str().into()).is_some_and(|step| step.owes());
        let steps = self.steps.iter().filter(owes).cloned().collect();
        Self { steps, runs: self.runs.clone(), destroy: self.destroy.clone(), yes: self.yes }
    }

    /// The command once more, with all that was given, and with what is wanted besides.
    pub(super) fn again(&self, run: &str, past: &[String], things: &[String]) -> String {
        let things: BTreeSet<_> = self.destroy.iter().chain(things).collect();
        let things: String = things.iter().map(|thing| format!(" --destroy {thing}")).collect();
        let yes = if self.yes { " --yes" } else { "" };
        format!("pvemig undo {run}{}{things}{yes}", flags(&[self.given().as_slice(), past].concat()))
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
    refuse_unnamed(args, &run, &session)?;
    let mut past = resolve(&session, &run, &args.past)?;
    (past.destroy, past.yes) = (args.going.destroy.clone(), args.yes);
    refuse_under_others(&run, &session.store.runs()?, &past)?;
    let owed: Vec<_> =
        run.state.opened.plan.iter().filter(|p| run.state.steps.get(&p.key).is_some_and(|s| s.owes())).collect();
    if !args.yes {
        if !out.asks {
            let help = format!("add `--yes`; `pvemig report {id}` shows what it did");
            return Err(Words::usage("nobody can be asked here whether to undo", help).into());
        }
        out.say(&format!("to take back, in this order ({} of run {id}):", plural(owed.len(), "step")));
        let (_, steps) = session.steps_of(&run.state)?;
        for key in undo_order(&steps).into_iter().map(|at| steps[at].key()) {
            let Some(planned) = owed.iter().find(|planned| planned.key == key) else { continue };
            let head = format!("  ↶ {:<24} ", planned.key.to_string());
            out.tell(&head, &planned.title, head.chars().count());
        }
        out.say("");
        let info = session.store.info(&id, &session.host)?;
        let mut passed = Vec::new();
        for step in steps.iter().filter(|step| past.steps.iter().any(|key| key == step.key().as_str())) {
            let left = left_by(&session.estate, &steps, (&run.state, &info), &**step).await;
            passed.push((step.key().to_string(), left));
        }
        let back = Back::of(&session, (&run.state, &info), &steps, &passed, &args.going.destroy).await?;
        back.say(*out);
        for left in left::beside(&session.store.every_run()?.0, &run) {
            out.tell("  not back   ", &left.sentence(), 13);
        }
        // As the undo itself would say it, before anybody is asked whether to begin.
        let granted = args.going.destroy.iter().cloned().map(Thing).collect();
        let passed = past.steps.iter().cloned().collect();
        let lacks = lacking(&session.estate, &steps, (&run.state, &info), &passed, &granted).await;
        if let Some(stop) = lacks {
            session.estate.farewell().await;
            out.say("");
            return Told { session: &session, state: &run.state, id: &id, past: &past, back: true }.ended(&stop);
        }
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

/// Each `--past` is an applied step of the run that cannot be undone or whose undo was tried and stopped there (by key,
/// or by id or number where that is one step), or another run.
fn resolve(session: &Session, run: &RunRead, given: &[String]) -> anyhow::Result<Past> {
    let mut past = Past::default();
    for name in given {
        let called = |p: &&Planned| {
            let id = p.key.id();
            p.key.as_str() == name || id == name || id.split('-').next() == Some(name.as_str())
        };
        let found: Vec<_> = run.state.opened.plan.iter().filter(called).collect();
        let passable: Vec<_> = found.iter().filter(|p| run.state.may_be_passed(p)).collect();
        if let [step] = passable.as_slice() {
            past.steps.push(step.key.to_string());
            continue;
        }
        if let Some(first) = found.first() {
            let owes = |p: &&&Planned| run.state.steps.get(&p.key).is_some_and(|s| s.owes());
            let (why, help) = if passable.is_empty() {
                let why = match found.iter().find(owes) {
                    Some(_) => "was not tried to be taken back yet, so it is not passed",
                    None => "did nothing that is still there",
                };
                (why.to_owned(), format!("leave `--past {name}` out"))
            } else {
                let each: Vec<_> = passable.iter().map(|p| format!("`--past {}`", p.key)).collect();
                ("may be passed for more than one node".to_owned(), each.join(" or "))
            };
            let step = if let [only] = found.as_slice() { only.key.as_str() } else { first.key.id() };
            return Err(Words::usage(format!("step {step} of run {} {why}", run.id), help).into());
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

/// A run that is over is taken back unasked only where it was named: the newest one may not be the one that is meant.
fn refuse_unnamed(args: &UndoArgs, run: &RunRead, session: &Session) -> anyhow::Result<()> {
    if args.run.is_some() || !args.yes || run.state.phase != Phase::Done {
        return Ok(());
    }
    let text = "no run is open, and without its name `--yes` takes back no run that is done";
    let mut help =
        vec![format!("the newest is run {} ({}): `pvemig undo {} --yes`", run.id, Session::called(run), run.id)];
    // It may have found everything done by another one.
    let (runs, _) = session.store.every_run()?;
    help.extend(
        left::beside(&runs, run).into_iter().map(|left| format!("not taken back by that: {}", left.sentence())),
    );
    Err(Words::new(Exit::Usage, text.to_owned(), help).into())
}

/// Runs that changed something during the life of this one are undone first, or passed. Not one that only holds what
/// this undo needs held and does not hold itself: it is taken back after it.
fn refuse_under_others(run: &RunRead, runs: &[RunRead], past: &Past) -> anyhow::Result<()> {
    // What was passed when this undo took its first step back is passed: it is half-way by now.
    let began = run.records.iter().find(|record| matches!(record.event, Event::Undoing { .. })).map(|record| record.at);
    let during = |other: &&RunRead| {
        if run.state.phase != Phase::Done && began.is_some_and(|began| other.state.since < began) {
            return false;
        }
        let open = !matches!(other.state.phase, Phase::Undone | Phase::Abandoned);
        // Also one that was begun before, and changed something since.
        let changes = |record: &Record| matches!(record.event, Event::Applying { .. } | Event::Call { .. });
        let later =
            other.id != run.id && other.records.iter().any(|record| changes(record) && record.at > run.state.since);
        later && open && other.state.changed && !past.runs.contains(&other.id) && !only_holds(&other.state, &run.state)
    };
    let others: Vec<_> = runs.iter().filter(during).collect();
    if others.is_empty() {
        return Ok(());
    }
    let ids: Vec<_> = others.iter().map(|other| other.id.clone()).collect();
    let each: Vec<_> = others.iter().map(|other| format!("{} ({})", other.id, Session::called(other))).collect();
    let word = if others.len() == 1 { "run" } else { "runs" };
    let text = format!("{word} {} changed something after run {} began", each.join(", "), run.id);
    let first: Vec<_> = ids.iter().rev().map(|id| format!("`pvemig undo {id}`")).collect();
    let help = vec![
        format!("{} first", first.join(", then ")),
        format!(
            "or leave what {} did: `{}`",
            if others.len() == 1 { "it" } else { "they" },
            past.again(&run.id, &ids, &[])
        ),
    ];
    Err(Words::new(Exit::Blocked, text, help).into())
}

/// Whether all that another run still owes are holds which `run` has not among its own steps.
fn only_holds(other: &RunState, run: &RunState) -> bool {
    let owed = |p: &&Planned| other.steps.get(&p.key).is_some_and(|s| s.owes());
    let hold = |p: &Planned| p.holds_until.is_some() && !run.steps.contains_key(&p.key);
    let mut owed = other.opened.plan.iter().filter(owed).peekable();
    owed.peek().is_some() && owed.all(hold)
}

#[cfg(test)]
mod tests {
    use super::super::left::tests::{CLOSED, done, run, undone};
    use super::*;

    fn refused(of: &str, runs: &[RunRead], past: &[&str]) -> Option<String> {
        let past = Past { runs: past.iter().map(|id| (*id).to_owned()).collect(), ..Past::default() };
        let run = runs.iter().find(|run| run.id == of).unwrap();
        refuse_under_others(run, runs, &past).err().map(|error| error.to_string())
    }

    #[test]
    fn what_changed_something_during_the_life_of_a_run_comes_first_or_is_passed() {
        let whole = run("old", 100, &["01-one", "02-two"], &[done("01-one"), done("02-two"), vec![CLOSED]].concat());
        let later = run("new", 200, &["02-two"], &[done("02-two"), vec![CLOSED]].concat());
        // Begun before it, and gone on with after it.
        let mut early = run("ear", 50, &["03b-three"], &[done("03b-three"), vec![CLOSED]].concat());
        early.records.iter_mut().skip(1).for_each(|record| record.at += jiff::SignedDuration::from_secs(200));
        let before = run("bef", 0, &["04-four"], &[done("04-four"), vec![CLOSED]].concat());
        let back = run("bac", 300, &["05-five"], &[done("05-five"), vec![CLOSED], undone("05-five")].concat());
        let mut runs = vec![before, early, whole, later];
        runs.iter_mut().for_each(|run| run.state.changed = true);
        let text = refused("old", &runs, &[]).unwrap();
        assert!(text.starts_with("runs ear (coral, step 03b-three alone), new (coral, step 02-two alone)"), "{text}");
        assert!(refused("old", &runs, &["new"]).unwrap().contains("run ear"), "each is passed by its name");
        assert_eq!(refused("old", &runs, &["new", "ear"]), None);
        assert_eq!(refused("new", &runs[3..], &[]), None);
        // One that is being taken back still stands; one that is back is no matter.
        runs.push(back);
        runs[4].state.changed = true;
        assert!(refused("new", &runs[3..], &[]).unwrap().contains("run bac"));
        runs[4].state.phase = Phase::Undone;
        assert_eq!(refused("new", &runs[3..], &[]), None);
    }
}
