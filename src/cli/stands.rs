//! Where a run stands, and the command that goes on with it.

use std::collections::BTreeSet;

use crate::base::names::StepKey;
use crate::blueprint;
use crate::engine::event::{Event, Outcome, Planned, Record};
use crate::engine::state::{Phase, RunState, Stage, StepState};
use crate::engine::step::Risk;
use crate::engine::store::RunRead;

use super::plan::number;

/// What a person was asked for last and nobody has seen since.
pub(super) struct Asks<'r> {
    pub(super) key: &'r StepKey,
    pub(super) ask: &'r str,
    /// By the undo.
    back: bool,
}

/// What a run waits for a person to do.
pub(super) fn asks(run: &RunRead) -> Option<Asks<'_>> {
    let (mut back, mut open) = (false, None);
    for record in &run.records {
        match &record.event {
            // A check is written right before what it asks for, and says whether it was the undo's.
            Event::Checked { key, answer, back: undo, .. } => {
                back = *undo;
                open = open.filter(|asks: &Asks<'_>| asks.key != key || answer == "manual");
            }
            Event::Asked { key, ask, .. } => open = Some(Asks { key, ask, back }),
            // Whoever stops the waiting has not done it.
            Event::Interrupted { .. } | Event::Consented { .. } => {}
            _ => open = None,
        }
    }
    open
}

/// Whether the undo of a run that is done was begun and stopped before it took anything back. Where another run came
/// later, nobody goes on with it.
pub(super) fn undo_stopped(runs: &[RunRead], run: &RunRead) -> bool {
    let closed = |r: &Record| matches!(r.event, Event::Closed { outcome: Outcome::Done });
    let Some(at) = run.records.iter().rposition(closed) else { return false };
    let stop = |r: &Record| matches!(r.event, Event::Asked { .. } | Event::Failed { .. } | Event::Interrupted { .. });
    let tried = run.records.iter().skip(at).any(stop);
    run.state.phase == Phase::Done && tried && !runs.iter().any(|other| other.state.since > run.state.last)
}

/// Whether the undo of a run that is not done was begun last, and stopped before it took anything back: it has asked the
/// steps backwards, or put up again a hold that stands.
pub(super) fn undo_tried(run: &RunRead) -> bool {
    let Some(turn) = at(run) else { return false };
    // At the end of a hold the way forwards may ask it once more.
    let guards = |key: &StepKey| {
        let closer = run.state.opened.plan.iter().find(|p| p.key == *key).and_then(|p| p.holds_until.as_deref());
        closer.is_some_and(|closer| closer != turn.id())
    };
    let (mut up, mut tried): (BTreeSet<&StepKey>, bool) = (BTreeSet::new(), false);
    for record in &run.records {
        match &record.event {
            Event::Checked { back: true, .. } => tried = true,
            Event::Checked { key, .. } if key == turn && !up.contains(key) => tried = false,
            Event::Applying { key, .. } if up.contains(key) => tried |= guards(key),
            Event::Applied { key, .. } | Event::AlreadySo { key, needless: false, .. } => {
                tried &= !up.insert(key);
            }
            Event::Applying { .. } | Event::AlreadySo { .. } => tried = false,
            Event::HoldFell { key, .. } | Event::Undone { key, .. } => {
                up.remove(key);
            }
            _ => {}
        }
    }
    tried
}

/// A line that says where it stands, for a run that can go on.
pub(super) fn line(run: &RunRead) -> Option<String> {
    let line = stands(run)?;
    Some(if undo_tried(run) { format!("its undo was begun, and has taken nothing back yet: {line}") } else { line })
}

fn stands(run: &RunRead) -> Option<String> {
    let phase = run.state.phase;
    if let Some(Asks { key, ask, back }) = asks(run) {
        let who = if back { "its undo waits" } else { "waits" };
        return Some(format!("{who} at {} for you: {ask}", number(key.id())));
    }
    if let Some((key, error)) = &run.state.failure {
        let who = if phase == Phase::Done { "its undo " } else { "" };
        return Some(format!("{who}stopped at {key}: {error}"));
    }
    match phase {
        Phase::Forward => at(run).map(|key| match last_asked(run, key) {
            Some(ask) => format!("goes on at {key}, which has asked you: {ask}"),
            None => format!("goes on at {key}"),
        }),
        Phase::Done => Some("its undo was begun, and took nothing back yet".to_owned()),
        Phase::Undoing | Phase::Stuck | Phase::Undone | Phase::Abandoned => None,
    }
}

/// What a step has asked for last: it was on its way, as far as is written, and nobody has seen it there.
fn last_asked<'r>(run: &'r RunRead, key: &StepKey) -> Option<&'r str> {
    run.records.iter().rev().find_map(|record| match &record.event {
        Event::Asked { key: of, ask, .. } if of == key => Some(ask.as_str()),
        _ => None,
    })
}

/// The step whose turn it is; None where the run does not go forward.
pub(super) fn at(run: &RunRead) -> Option<&StepKey> {
    let open = |key: &&StepKey| !matches!(run.state.stage(key), Stage::Applied | Stage::Already);
    let mut keys = run.state.opened.plan.iter().map(|p| &p.key);
    keys.find(open).filter(|_| run.state.phase == Phase::Forward)
}

/// What goes on with it.
pub(super) fn command(run: &RunRead) -> String {
    let id = &run.id;
    match run.state.phase {
        Phase::Forward if undo_tried(run) => {
            format!("`pvemig undo {id}` goes on with its undo, `pvemig resume {id}` goes forwards again")
        }
        Phase::Forward => {
            let back = takes_back(&run.state).map(|what| format!(", `pvemig undo {id}` {what}")).unwrap_or_default();
            format!("`pvemig resume {id}` goes on with it{back}")
        }
        _ => format!("`pvemig undo {id}` goes on with its undo"),
    }
}

/// What an undo of a run comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Undo {
    /// Nothing: the run has changed nothing, or what it did stays whatever is undone.
    Nothing,
    /// Everything.
    Whole,
    /// All but what these steps did.
    But(Vec<StepKey>),
    /// What comes after this step, which cannot be undone.
    UpTo(StepKey),
}

/// What an undo of a run comes to, by its journal.
pub(super) fn undo_of(state: &RunState) -> Undo {
    let owes = |p: &&Planned| state.steps.get(&p.key).is_some_and(StepState::owes);
    let owed: Vec<&Planned> = state.opened.plan.iter().filter(owes).collect();
    let blueprint = blueprint::named(&state.opened.blueprint);
    let row = |p: &Planned| blueprint.and_then(|b| b.rows.iter().find(|row| row.id == p.key.id()));
    // A step that only asked has nothing to bring back where it kept nothing of how it was.
    let begun = |p: &Planned| {
        let step = state.steps.get(&p.key);
        step.is_some_and(|s| s.before.is_some() || s.asked.as_ref().is_some_and(|asked| !asked.is_null()))
    };
    let stays = |p: &&&Planned| row(p).is_some_and(|row| row.stays);
    if let Some(lost) = owed.iter().rfind(|p| p.risk == Risk::Destroys) {
        return Undo::UpTo(lost.key.clone());
    }
    let left: Vec<StepKey> = owed.iter().filter(stays).map(|p| p.key.clone()).collect();
    let comes_back = owed.iter().any(|p| !stays(&p) && begun(p));
    match (comes_back, left.is_empty()) {
        (false, _) => Undo::Nothing,
        (true, true) => Undo::Whole,
        (true, false) => Undo::But(left),
    }
}

/// What an undo of a run does; None: nothing that would be worth it.
pub(super) fn takes_back(state: &RunState) -> Option<String> {
    match undo_of(state) {
        Undo::Nothing => None,
        Undo::Whole => Some("takes it back".to_owned()),
        Undo::But(stays) => {
            let stays: Vec<_> = stays.iter().map(ToString::to_string).collect();
            Some(format!("takes back what of it can be: what {} did stays", stays.join(", ")))
        }
        Undo::UpTo(key) => {
            Some(format!("takes back what of it can be, and asks first what {key} did: that is not taken back"))
        }
    }
}

/// Whether an undo of a run is worth to be offered: over and destroyed is over.
pub(super) fn offers_undo(state: &RunState) -> bool {
    match undo_of(state) {
        Undo::Nothing => false,
        Undo::UpTo(_) => state.phase != Phase::Done,
        Undo::Whole | Undo::But(_) => true,
    }
}

/// How many of its steps are done, and not taken back.
pub(super) fn settled(run: &RunRead) -> usize {
    run.state.steps.values().filter(|s| matches!(s.stage, Stage::Applied | Stage::Already)).count()
}

#[cfg(test)]
mod tests {
    use super::super::left::tests::{CLOSED, asked, done, failed, run, undone};
    use super::*;

    const STEPS: &[&str] = &["01-one", "02-two", "03-look"];

    fn of(events: &[Vec<Event>]) -> RunRead {
        run("ka2", 0, STEPS, &events.concat())
    }

    #[test]
    fn a_run_says_what_it_waits_for_and_what_goes_on() {
        let open = of(&[done("01-one"), done("02-two"), asked("03-look", false)]);
        assert_eq!(line(&open).unwrap(), "waits at 03 for you: plug it in");
        assert!(command(&open).starts_with("`pvemig resume ka2`"));
        let stopped = vec![Event::Interrupted { key: "03-look".into() }];
        let interrupted = of(&[done("01-one"), done("02-two"), asked("03-look", false), stopped]);
        assert!(line(&interrupted).unwrap().starts_with("waits at 03"));
        assert_eq!(line(&of(&[done("01-one")])).unwrap(), "goes on at 02-two");
        assert_eq!(line(&of(&[done("01-one"), vec![failed("02-two")]])).unwrap(), "stopped at 02-two: no answer");
        // Whoever was killed while it was on its way knows no more than what was asked.
        let waiting = Event::Checked { key: "03-look".into(), answer: "waiting".into(), back: false, notes: vec![] };
        let killed = of(&[done("01-one"), done("02-two"), asked("03-look", false), vec![waiting]]);
        assert!(asks(&killed).is_none());
        assert_eq!(line(&killed).unwrap(), "goes on at 03-look, which has asked you: plug it in");
        let there = vec![Event::AlreadySo { key: "03-look".into(), needless: false, notes: Vec::new() }];
        assert!(asks(&of(&[asked("03-look", false), there])).is_none());
    }

    #[test]
    fn an_undo_that_has_taken_nothing_back_says_so_and_comes_first() {
        const HELD: &[&str] = &["00b-hold!", "01-one", "02-two", "10-close"];
        let of = |events: &[Vec<Event>]| run("ka2", 0, HELD, &events.concat());
        let waits = || [done("00b-hold"), done("01-one"), asked("02-two", false)].concat();
        let said = |events: &[Vec<Event>]| (undo_tried(&of(events)), line(&of(events)).unwrap(), command(&of(events)));
        assert_eq!(
            said(&[waits()]),
            (
                false,
                "waits at 02 for you: plug it in".into(),
                "`pvemig resume ka2` goes on with it, `pvemig undo ka2` takes it back".into()
            )
        );
        // The undo puts up again what guards the way back, and a person has to help.
        let (tried, line, next) = said(&[waits(), vec![done("00b-hold")[0].clone()], asked("00b-hold", false)]);
        assert!(tried);
        assert_eq!(line, "its undo was begun, and has taken nothing back yet: waits at 00b for you: plug it in");
        assert_eq!(next, "`pvemig undo ka2` goes on with its undo, `pvemig resume ka2` goes forwards again");
        // It stands again, and the step is asked backwards.
        let there = [waits(), done("00b-hold")];
        assert!(said(&there).0 && said(&[there.concat(), asked("02-two", true)]).0);
        // Forwards again.
        assert!(!said(&[there.concat(), asked("02-two", false)]).0);
        // A hold that somebody took down is put up again on the way forwards.
        let fell = vec![Event::HoldFell { key: "00b-hold".into(), changes: vec![], notes: vec![] }];
        assert!(!said(&[waits(), fell, done("00b-hold")]).0);
        // At its end the way forwards may ask it once more.
        assert!(!said(&[done("00b-hold"), done("01-one"), done("02-two"), done("00b-hold")]).0);
    }

    #[test]
    fn an_undo_that_stopped_at_its_start_is_not_forgotten() {
        let all = [done("01-one"), done("02-two"), done("03-look"), vec![CLOSED]].concat();
        let with = |more: Vec<Event>| of(&[all.clone(), more]);
        assert!(!undo_stopped(&[], &with(Vec::new())));
        let waits = with(asked("01-one", true));
        assert!(undo_stopped(&[], &waits));
        assert_eq!(line(&waits).unwrap(), "its undo waits at 01 for you: plug it in");
        assert_eq!(command(&waits), "`pvemig undo ka2` goes on with its undo");
        let fails = with(vec![failed("02-two")]);
        assert!(undo_stopped(&[], &fails));
        assert_eq!(line(&fails).unwrap(), "its undo stopped at 02-two: no answer");
        let later = [run("b", 1000, STEPS, &[])];
        assert!(!undo_stopped(&later, &fails));
    }

    #[test]
    fn the_count_goes_down_while_it_is_undone() {
        let all = [done("01-one"), done("02-two"), vec![failed("03-look")]].concat();
        assert_eq!(settled(&of(std::slice::from_ref(&all))), 2);
        assert_eq!(settled(&of(&[all, undone("02-two")])), 1);
    }
}
