//! What other runs did and nobody took back: an undo of one run does not bring that back.

use crate::base::names::StepKey;
use crate::engine::event::{Event, Planned, Record};
use crate::engine::state::{Phase, RunState, StepState};
use crate::engine::store::RunRead;

use super::plan::number;
use super::session::Session;
use super::status::same_subject;

/// A run with what of it stands.
pub(super) struct Left<'r> {
    run: &'r RunRead,
    steps: Vec<&'r StepKey>,
}

impl Left<'_> {
    /// The run's id.
    pub(super) fn run(&self) -> &String {
        &self.run.id
    }

    /// Which steps of which run, and what takes them back.
    pub(super) fn sentence(&self) -> String {
        let numbers: Vec<_> = self.steps.iter().map(|key| number(key.id())).collect();
        let (id, what) = (&self.run.id, Session::called(self.run));
        let head = format!("{} of run {id} ({what}", numbers.join(", "));
        match self.run.state.phase {
            Phase::Abandoned => {
                format!("{head}, abandoned): no undo takes that back any more; `pvemig report {id}` shows what it is")
            }
            // A reboot, or a cordon that is gone, is not taken back.
            _ => format!("{head}): `pvemig undo {id}` takes back what of that can be"),
        }
    }
}

/// The runs, newest first, that did something of what `run` is about, which stands: `run` found it so, or did not ask.
pub(super) fn beside<'r>(runs: &'r [RunRead], run: &RunRead) -> Vec<Left<'r>> {
    let left = |other: &'r RunRead| {
        let plan = other.state.opened.plan.iter();
        let stands = plan.filter(|p| of_one(&run.state, &other.state, p) && stands(runs, other, p));
        let steps: Vec<_> = stands.map(|p| &p.key).collect();
        (!steps.is_empty()).then_some(Left { run: other, steps })
    };
    runs.iter().rev().filter(|other| other.id != run.id).filter_map(left).collect()
}

/// Whether a step of another run is of the same migration. A step from flags alone knows none: its title has the real
/// names.
fn of_one(run: &RunState, other: &RunState, step: &Planned) -> bool {
    let (ours, theirs) = (&run.opened, &other.opened);
    let same = |p: &Planned| p.key == step.key && p.title == step.title;
    (ours.migration.is_some() && ours.migration == theirs.migration) || ours.plan.iter().any(same)
}

fn stands(runs: &[RunRead], run: &RunRead, step: &Planned) -> bool {
    let Some(state) = run.state.steps.get(&step.key) else { return false };
    if step.holds_until.is_some() {
        return state.up && !taken_back(runs, run, &step.key);
    }
    // Another one that had it to do later found that it was not so any more.
    let again = |other: &RunRead| {
        let same = |p: &&Planned| p.key == step.key && p.title == step.title;
        let theirs = other.state.opened.plan.iter().find(same).and_then(|p| other.state.steps.get(&p.key));
        other.id != run.id && other.state.since > run.state.since && theirs.is_some_and(begun)
    };
    let done = state.before.is_some() || state.asked.as_ref().is_some_and(|asked| !asked.is_null());
    done && state.owes() && !runs.iter().any(again)
}

fn begun(step: &StepState) -> bool {
    step.before.is_some() || step.asked.is_some()
}

/// Whether a hold of a run is not its own any more: a later run took it over, or took it back by its closer, about the
/// same thing.
pub(super) fn taken_back(runs: &[RunRead], run: &RunRead, holder: &StepKey) -> bool {
    taken_by(runs, run, holder).is_some()
}

/// The first run that did so.
pub(super) fn taken_by<'r>(runs: &'r [RunRead], run: &RunRead, holder: &StepKey) -> Option<&'r RunRead> {
    let hold = run.state.opened.plan.iter().find(|p| p.key == *holder)?;
    let up = run.records.iter().rfind(|r| r.event.key() == Some(holder)).map(|r| r.at)?;
    let takes = |other: &RunRead, p: &Planned| {
        let closes = Some(p.key.id()) == hold.holds_until.as_deref();
        let over = p.key == hold.key && p.holds_until.is_some();
        let does = |r: &&Record| match &r.event {
            Event::Applied { key, .. } | Event::AlreadySo { key, .. } => closes && *key == p.key,
            Event::Applying { key, .. } => over && *key == p.key,
            _ => false,
        };
        (closes || over) && same_subject(&p.step, &hold.step) && other.records.iter().filter(does).any(|r| r.at > up)
    };
    let mut others = runs.iter().filter(|other| other.id != run.id);
    others.find(|other| other.state.opened.plan.iter().any(|p| takes(other, p)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::base::fault::Effect;
    use crate::engine::event::{FORMAT, Opened, Outcome};
    use crate::engine::step::Risk;
    use serde_json::{Value, json};

    /// `02-drain` is a step of two blueprints: what holds a node for the one is not the other's.
    #[test]
    fn a_hold_of_one_blueprint_is_none_of_another() {
        let replace = json!({"swap": {"old": {"name": "n1"}}});
        assert!(!same_subject(&replace, &json!({"machine": {"name": "n1"}})));
        assert!(same_subject(&replace, &replace.clone()));
    }

    /// A run of steps (`!`: a hold until 10) whose lines are a second apart, from second `at` on.
    pub(crate) fn run(id: &str, at: i64, steps: &[&str], events: &[Event]) -> RunRead {
        let plan = steps.iter().map(|step| Planned {
            key: step.trim_end_matches('!').into(),
            title: (*step).to_owned(),
            risk: if step.starts_with("03") { Risk::Reads } else { Risk::Reverts },
            holds_until: step.ends_with('!').then(|| "10-close".into()),
            step: json!({"work": "w"}),
        });
        let opened = Opened {
            tool: "test".into(),
            site: "lab".into(),
            site_digest: String::new(),
            migration: Some("coral".into()),
            blueprint: "usb-move".into(),
            blueprint_version: 1,
            single: steps.len() == 1,
            argv: Vec::new(),
            host: "here".into(),
            plan: plan.collect(),
        };
        let all = std::iter::once(Event::Opened(Box::new(opened))).chain(events.iter().cloned());
        let record = |(n, event): (usize, Event)| {
            let at = jiff::Timestamp::from_second(at + i64::try_from(n).unwrap()).unwrap();
            Record { v: FORMAT, seq: n as u64, at, event }
        };
        let records: Vec<_> = all.enumerate().map(record).collect();
        let state = RunState::fold(&records).unwrap().unwrap();
        RunRead { id: id.into(), records, state, torn: None }
    }

    pub(crate) fn done(key: &str) -> Vec<Event> {
        let before = json!(key);
        vec![
            Event::Applying { key: key.into(), before, changes: Vec::new() },
            Event::Applied { key: key.into(), notes: Vec::new() },
        ]
    }

    pub(crate) fn asked(key: &str, back: bool) -> Vec<Event> {
        let before = Some(Value::from("2-1")).filter(|_| !back);
        vec![
            Event::Checked { key: key.into(), answer: "manual".into(), back, notes: Vec::new() },
            Event::Asked { key: key.into(), ask: "plug it in".into(), hint: None, hands: None, before },
        ]
    }

    pub(crate) fn undone(key: &str) -> Vec<Event> {
        vec![
            Event::Undoing { key: key.into() },
            Event::Undone { key: key.into(), passed: false, notes: Vec::new(), stays: Vec::new() },
        ]
    }

    pub(crate) fn failed(key: &str) -> Event {
        Event::Failed {
            key: key.into(),
            error: vec!["no answer".into()],
            effect: Effect::None,
            help: Vec::new(),
            voids: Vec::new(),
        }
    }

    fn already(key: &str) -> Event {
        Event::AlreadySo { key: key.into(), needless: false, notes: Vec::new() }
    }

    pub(crate) const CLOSED: Event = Event::Closed { outcome: Outcome::Done };

    fn sentences(runs: &[RunRead], of: &str) -> Vec<String> {
        let run = runs.iter().find(|run| run.id == of).unwrap();
        beside(runs, run).iter().map(Left::sentence).collect()
    }

    #[test]
    fn what_an_abandoned_run_and_single_steps_did_is_not_back() {
        let single = run("d23", 0, &["01-one"], &[done("01-one"), vec![CLOSED]].concat());
        let steps = ["00b-hold!", "01-one", "02-two", "03-look", "10-close"];
        let given_up = [
            done("00b-hold"),
            vec![already("01-one")],
            done("02-two"),
            asked("03-look", false),
            vec![Event::Abandoned { comment: "x".into() }],
        ];
        let given_up = run("jv2", 100, &steps, &given_up.concat());
        let taken_over = [done("00b-hold"), vec![already("01-one"), already("02-two"), already("03-look")]].concat();
        let last = run("k69", 200, &steps, &taken_over);
        let runs = [single, given_up, last];
        let said = sentences(&runs, "k69");
        // The hold was taken over: it is the last run's.
        assert!(said[0].starts_with("02, 03 of run jv2 (coral, abandoned): no undo"), "{said:?}");
        assert_eq!(
            said[1],
            "01 of run d23 (coral, step 01-one alone): `pvemig undo d23` takes back what of that can be"
        );
        assert_eq!(said.len(), 2);
    }

    #[test]
    fn what_was_taken_back_or_done_again_is_no_other_runs() {
        let first = [done("01-one"), undone("01-one"), vec![Event::Closed { outcome: Outcome::Undone }]].concat();
        let first = run("a", 0, &["01-one"], &first);
        let left = [done("02-two"), vec![Event::Abandoned { comment: "x".into() }]].concat();
        let left = run("b", 100, &["02-two"], &left);
        let again = run("c", 200, &["01-one", "02-two"], &[done("01-one"), done("02-two"), vec![CLOSED]].concat());
        let runs = [first, left, again];
        assert_eq!(sentences(&runs, "c"), Vec::<String>::new());
        // Seen from the one before, the later one stands.
        assert_eq!(sentences(&runs, "b"), ["01, 02 of run c (coral): `pvemig undo c` takes back what of that can be"]);
    }

    #[test]
    fn a_hold_that_a_later_run_took_over_is_not_the_former_ones() {
        let up = || [done("00b-hold"), vec![Event::Abandoned { comment: "x".into() }]].concat();
        let key: StepKey = "00b-hold".into();
        let beside = |events: &[Event]| {
            let first = run("a", 0, &["00b-hold!", "10-close"], &up());
            let runs = [first, run("b", 100, &["00b-hold!", "10-close"], events)];
            taken_back(&runs, &runs[0], &key)
        };
        assert!(!beside(&[already("00b-hold")]));
        assert!(beside(&[done("00b-hold"), undone("00b-hold")].concat()));
        assert!(beside(&[already("00b-hold"), already("10-close")]));
    }
}
