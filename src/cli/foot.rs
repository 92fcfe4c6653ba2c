//! What a plan comes to, below its steps: for somebody who is tired, and has one hand in a chassis.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::base::check::{Answer, bytes};
use crate::base::permit::{System, Thing};
use crate::base::wait::show;
use crate::blueprint::BoxedStep;
use crate::engine::outlook::Outlook;
use crate::engine::plan::{Line, Said};
use crate::engine::state::{Phase, RunState};
use crate::engine::step::Risk;
use crate::engine::store::{RunRead, StoreError};
use crate::report;

use super::out::Out;
use super::plan::{done, number};
use super::session::{Session, plural};
use super::status::whole_text;
use super::words::lay;

/// A wait that is shorter than this is nothing to plan an evening by.
const WORTH_SAYING: Duration = Duration::from_secs(120);

/// What a plan, or an undo, comes to.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Foot {
    /// All steps, and those that have nothing to do.
    steps: usize,
    done: usize,
    /// A plan of one step.
    #[serde(skip)]
    one: bool,
    /// The things that change, by system.
    changes: BTreeMap<System, Vec<String>>,
    /// What happens only where the world asks for it.
    maybe: Vec<By>,
    /// Steps whose effects cannot be brought back.
    destroys: Vec<By>,
    /// What begins empty, with what stays behind.
    empties: Vec<Emptied>,
    /// What a person is asked for.
    by_hand: Vec<By>,
    /// What is held, and until when.
    holds: Vec<Held>,
    down: Option<Down>,
    /// What an undo would lose, ask for, and leave.
    undo_destroys: Vec<Thing>,
    undo_by_hand: Vec<By>,
    undo_stays: Vec<By>,
}

/// Something that a step does.
#[derive(Debug, Serialize)]
struct By {
    step: String,
    what: String,
}

#[derive(Debug, Serialize)]
struct Emptied {
    thing: Thing,
    /// What is on the former one; None: not measured.
    bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Held {
    step: String,
    until: String,
}

/// What does not work meanwhile.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Down {
    what: String,
    from: String,
    until: String,
    /// The steps in between that may wait long by themselves, each with its limit in seconds.
    limits: Vec<(String, u64)>,
    /// The steps in between that wait for a person.
    hands: Vec<String>,
    /// How long it was the last time that a run of this migration got through.
    last: Option<Last>,
    /// Why that cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    untold: Option<String>,
    /// The command that ends it, where this plan does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_by: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Last {
    run: String,
    elapsed_ms: u64,
}

impl Foot {
    /// Of a plan whose lines were asked.
    pub(super) fn of_plan(session: &Session, migration: Option<&str>, steps: &[BoxedStep], lines: &[Line]) -> Self {
        let left: Vec<_> = steps.iter().zip(lines).filter(|(_, line)| !done(line)).collect();
        let mut foot = Self { steps: lines.len(), done: lines.len() - left.len(), ..Self::default() };
        // What the preflight measured; where it is content, nothing else is left behind.
        let preflight = lines.iter().find(|line| line.key.id().starts_with("00-"));
        let measured = preflight.and_then(|line| match &line.said {
            Said::Answer(check) => Some((&check.sizes, check.is_done())),
            _ => None,
        });
        let likely = preflight.and_then(|line| match &line.said {
            Said::Answer(check) => Some(&check.likely),
            _ => None,
        });
        let stays = |thing: &Thing| measured.is_none_or(|(sizes, all)| !all || sizes.contains_key(thing));
        let size = |thing: &Thing| measured.and_then(|(sizes, _)| sizes.get(thing).copied().flatten());
        for (step, line) in &left {
            let mut outlook = step.outlook(&session.estate);
            if let Some(words) = likely.and_then(|likely| likely.get(step.id())) {
                outlook.maybe = outlook.maybe.map(|_| words.clone());
            }
            let manual = match &line.said {
                Said::Answer(check) => match &check.answer {
                    Answer::Manual { ask, .. } => Some(ask.clone()),
                    _ => None,
                },
                _ => None,
            };
            foot.take(&***step, &outlook, manual);
            for thing in outlook.empties.iter().filter(|thing| stays(thing)) {
                foot.empties.push(Emptied { thing: thing.clone(), bytes: size(thing) });
                foot.undo_destroys.push(thing.clone());
            }
            if let Some(until) = step.holds_until().filter(|_| outlook.holds) {
                foot.holds.push(Held { step: number(step.id()).to_owned(), until: number(until).to_owned() });
            }
        }
        foot.down = down(session, steps, &left.iter().map(|(step, _)| *step).collect::<Vec<_>>());
        if let (Some(down), Some(migration)) = (&mut foot.down, migration) {
            match last_time(session, migration) {
                Ok(last) => down.last = last,
                Err(error) => down.untold = Some(whole_text(&error)),
            }
        }
        foot
    }

    fn take(
        &mut self,
        step: &dyn crate::engine::step::AnyStep<crate::estate::Estate>,
        outlook: &Outlook,
        manual: Option<String>,
    ) {
        let by = |what: String| By { step: number(step.id()).to_owned(), what };
        for (system, thing) in &outlook.changes {
            let things = self.changes.entry(*system).or_default();
            if !things.contains(thing) {
                things.push(thing.clone());
            }
        }
        self.maybe.extend(outlook.maybe.clone().map(by));
        if step.risk() == Risk::Destroys {
            self.destroys.push(by(step.title()));
        }
        self.by_hand.extend(manual.or_else(|| outlook.asks.clone()).map(by));
        self.undo_by_hand.extend(outlook.asks_back.clone().map(by));
        self.undo_stays.extend(outlook.stays.clone().map(by));
    }

    /// For a single step with its preflight.
    pub(super) fn of_one(mut self) -> Self {
        self.one = true;
        self
    }

    /// The short end, a paragraph for each thing that one wants to know.
    pub(super) fn text(&self, out: Out) -> String {
        let mut text = String::new();
        for (head, words) in self.lines() {
            let head = format!("  {head:<10} ");
            for part in lay(&head, &out.commands(&words), head.chars().count(), out.width()) {
                text += &format!("{part}\n");
            }
        }
        text
    }

    fn lines(&self) -> Vec<(&'static str, String)> {
        let left = self.steps - self.done;
        if left == 0 {
            return vec![("to do", format!("nothing: {}", all_done(self.steps)))];
        }
        let mut lines = Vec::new();
        if !self.one {
            lines.push(("to do", format!("{left} of {}", plural(self.steps, "step"))));
        }
        let things: usize = self.changes.values().map(Vec::len).sum();
        let each =
            self.changes.iter().map(|(system, things)| format!("{}: {}", report::system(*system), things.join(", ")));
        lines.push(match things {
            0 => ("changes", "nothing".to_owned()),
            _ => ("changes", format!("{} ({})", plural(things, "thing"), each.collect::<Vec<_>>().join("; "))),
        });
        lines.extend(self.maybe.iter().map(|by| ("may be", by.sentence())));
        lines.push(("destroyed", self.destroyed()));
        lines.extend(self.empties().map(|words| ("empty", words)));
        let hands: Vec<_> = self.by_hand.iter().map(By::sentence).collect();
        lines.push(("by hand", if hands.is_empty() { "nothing".into() } else { hands.join("; ") }));
        let holds: Vec<_> = self.holds.iter().map(|held| format!("{} until {}", held.step, held.until)).collect();
        if !holds.is_empty() {
            lines.push(("held", holds.join(", ")));
        }
        lines.extend(self.down.iter().map(|down| ("down", down.sentence())));
        lines.push(("undo", self.undo()));
        lines
    }

    fn destroyed(&self) -> String {
        if self.destroys.is_empty() {
            return "nothing".to_owned();
        }
        let each: Vec<_> = self.destroys.iter().map(By::sentence).collect();
        format!("{}; each asks for its own `--destroy`", each.join("; "))
    }

    fn empties(&self) -> Option<String> {
        let each: Vec<_> = self.empties.iter().map(Emptied::sentence).collect();
        let them =
            if each.len() == 1 { "it begins empty; what was in it" } else { "they begin empty; what was in them" };
        (!each.is_empty()).then(|| format!("{}: {them} is kept, and not copied", each.join(", ")))
    }

    fn undo(&self) -> String {
        // Without an id an undo takes the newest run that is whole or open: one step's run is named at its end.
        let undo = if self.one { "pvemig undo RUN" } else { "pvemig undo" };
        let what = if self.destroys.is_empty() { "takes everything back" } else { "stops at what is destroyed" };
        let mut said = vec![format!("`{undo}` {what}")];
        if self.one {
            said.push("RUN is shown with the end of it".to_owned());
        }
        if !self.undo_destroys.is_empty() {
            let things: Vec<_> = self.undo_destroys.iter().map(|thing| format!("`--destroy {thing}`")).collect();
            said.push(format!("what was written meanwhile is lost then, so it asks for {}", things.join(" ")));
        }
        said.extend(self.undo_by_hand.iter().map(|by| format!("{} needs you: {}", by.step, by.what)));
        said.extend(self.undo_stays.iter().map(|by| format!("{} leaves {}", by.step, by.what)));
        said.join("; ")
    }
}

fn all_done(steps: usize) -> String {
    format!("all {} are done already", plural(steps, "step"))
}

impl By {
    fn sentence(&self) -> String {
        format!("{}: {}", self.step, self.what)
    }
}

impl Emptied {
    fn sentence(&self) -> String {
        match self.bytes {
            Some(size) => format!("{} ({} stay behind)", self.thing, bytes(size)),
            None => format!("{} (how much stays behind is not known)", self.thing),
        }
    }
}

impl Down {
    /// Nothing is promised: what is known is who is waited for, how long a step waits at most, and how it was before.
    fn sentence(&self) -> String {
        let Self { what, from, until, .. } = self;
        let mut said = vec![format!("{what}, from {from} until {until} finds it at work")];
        if !self.hands.is_empty() {
            said.push(format!("as long as you take for {}", self.hands.join(" and ")));
        }
        let mut by_limit: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
        for (step, limit) in &self.limits {
            by_limit.entry(*limit).or_default().push(step);
        }
        let waits = by_limit
            .iter()
            .rev()
            .map(|(limit, steps)| format!("{} in {}", show(Duration::from_secs(*limit)), steps.join(" and ")));
        let waits: Vec<_> = waits.collect();
        if !waits.is_empty() {
            said.push(format!("at the longest it waits {}", waits.join(", ")));
        }
        said.push(match (&self.last, &self.ended_by) {
            (_, None) if self.untold.is_some() => {
                let why = self.untold.as_deref().unwrap_or_default();
                format!("how long it really takes cannot be told: {why}")
            }
            (_, Some(command)) => format!("this does not bring it back: `{command}` does"),
            (Some(last), _) => format!("in run {} it was {}", last.run, show(Duration::from_millis(last.elapsed_ms))),
            (None, _) => "how long it really takes no run has shown yet".to_owned(),
        });
        said.join("; ")
    }
}

/// What stops from a step on until its closer, and what is waited for in between.
fn down(session: &Session, steps: &[BoxedStep], left: &[&BoxedStep]) -> Option<Down> {
    let stops = |step: &&&BoxedStep| step.outlook(&session.estate).stops.is_some();
    let stopper = left.iter().find(stops)?;
    let closer = stopper.holds_until()?;
    let at = steps.iter().position(|step| step.key() == stopper.key())?;
    let end = steps.iter().position(|step| step.id() == closer);
    let ended_by = end.is_none().then(|| format!("pvemig step {closer}"));
    let end = end.unwrap_or(at);
    let between = steps.get(at..=end)?.iter().filter(|step| left.iter().any(|l| l.key() == step.key()));
    let (mut limits, mut hands) = (Vec::new(), Vec::new());
    for step in between {
        let outlook = step.outlook(&session.estate);
        let limit = step.limit().saturating_add(outlook.longest);
        if outlook.asks.is_some() {
            hands.push(number(step.id()).to_owned());
        } else if limit >= WORTH_SAYING {
            limits.push((number(step.id()).to_owned(), limit.as_secs()));
        }
    }
    let (from, until) = (number(stopper.id()).to_owned(), number(closer).to_owned());
    Some(Down {
        what: stopper.outlook(&session.estate).stops?,
        from,
        until,
        limits,
        hands,
        last: None,
        untold: None,
        ended_by,
    })
}

/// The newest run of the migration that got through, and how long its workload was down.
fn last_time(session: &Session, migration: &str) -> Result<Option<Last>, StoreError> {
    let (runs, _) = session.store.every_run()?;
    let whole = |run: &&RunRead| {
        let opened = &run.state.opened;
        run.state.phase == Phase::Done && !opened.single && opened.migration.as_deref() == Some(migration)
    };
    Ok(runs.iter().rev().filter(whole).find_map(|run| {
        let outages = session.outages(run);
        let ready = outages.iter().rev().find(|outage| matches!(outage.end, report::End::Ready(_)))?;
        Some(Last { run: run.id.clone(), elapsed_ms: u64::try_from(ready.elapsed.as_millis()).ok()? })
    }))
}

/// What an undo destroys, and what it does not begin without.
fn destroyed(asked: &[Thing], consented: &[Thing]) -> String {
    let mut said = Vec::new();
    if !consented.is_empty() {
        let things: Vec<_> = consented.iter().map(ToString::to_string).collect();
        said.push(format!("what was written since in {} (consented to)", things.join(", ")));
    }
    if !asked.is_empty() {
        let things: Vec<_> = asked.iter().map(|thing| format!("`--destroy {thing}`")).collect();
        let what = if consented.is_empty() { "what was written since; it" } else { "it" };
        said.push(format!("{what} does not begin without {}", things.join(" ")));
    }
    if said.is_empty() { "nothing".to_owned() } else { said.join("; ") }
}

/// What an undo comes to.
pub(super) struct Back {
    /// What is lost by it, without the consents that are there.
    destroys: Vec<Thing>,
    /// What is lost by it with a consent.
    consented: Vec<Thing>,
    by_hand: Vec<By>,
    stays: Vec<By>,
    down: Option<String>,
}

impl Back {
    /// Of a run's undo that passes the steps `past`.
    pub(super) fn of(
        session: &Session,
        state: &RunState,
        steps: &[BoxedStep],
        past: &[String],
        given: &[String],
    ) -> anyhow::Result<Self> {
        let owes = |step: &&BoxedStep| state.steps.get(&step.key()).is_some_and(|s| s.owes());
        let (passed, owed): (Vec<_>, Vec<_>) =
            steps.iter().filter(owes).partition(|step| past.iter().any(|id| id == step.id()));
        let mut back =
            Self { destroys: Vec::new(), consented: Vec::new(), by_hand: Vec::new(), stays: Vec::new(), down: None };
        for step in &owed {
            let by = |what: String| By { step: number(step.id()).to_owned(), what };
            let outlook = step.outlook(&session.estate);
            if let Some(before) = state.steps.get(&step.key()).and_then(|s| s.before.as_ref()) {
                back.destroys.extend(step.undo_destroys(before).map_err(super::fail::failure)?);
            }
            back.by_hand.extend(outlook.asks_back.map(by));
            back.stays.extend(outlook.stays.map(by));
        }
        let all = std::mem::take(&mut back.destroys);
        (back.consented, back.destroys) =
            all.into_iter().partition(|thing| state.consents.contains(thing) || given.contains(&thing.0));
        back.stays.extend(passed.iter().map(|step| By { step: number(step.id()).to_owned(), what: step.title() }));
        // What is taken back behind a hold is taken back under it.
        back.down = steps.iter().enumerate().find_map(|(at, step)| {
            let what = step.outlook(&session.estate).stops?;
            let end = steps.iter().position(|s| Some(s.id()) == step.holds_until())?;
            let between = steps.get(at..end)?.iter().any(|s| owed.iter().any(|o| o.key() == s.key()));
            between.then(|| format!("{what}, until {} is undone", number(step.id())))
        });
        Ok(back)
    }

    /// The short end.
    pub(super) fn say(&self, out: Out) {
        let mut lines = Vec::new();
        lines.push(("destroyed", destroyed(&self.destroys, &self.consented)));
        let hands: Vec<_> = self.by_hand.iter().map(By::sentence).collect();
        lines.push(("by hand", if hands.is_empty() { "nothing".into() } else { hands.join("; ") }));
        lines.extend(self.down.iter().map(|down| ("down", down.clone())));
        let stays: Vec<_> = self.stays.iter().map(By::sentence).collect();
        if !stays.is_empty() {
            lines.push(("stays", stays.join("; ")));
        }
        for (head, words) in lines {
            let head = format!("  {head:<10} ");
            out.tell(&head, &words, head.chars().count());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_destroyed_by_an_undo_is_named_whether_consented_to_or_not() {
        let (a, b) = (Thing("pvc/a".into()), Thing("pvc/b".into()));
        assert_eq!(destroyed(&[], &[]), "nothing");
        assert_eq!(destroyed(&[], &[a.clone(), b.clone()]), "what was written since in pvc/a, pvc/b (consented to)");
        assert_eq!(
            destroyed(std::slice::from_ref(&b), &[a]),
            "what was written since in pvc/a (consented to); it does not begin without `--destroy pvc/b`"
        );
        assert_eq!(destroyed(&[b], &[]), "what was written since; it does not begin without `--destroy pvc/b`");
    }

    #[test]
    fn how_long_it_takes_is_told_by_runs_and_else_why_it_is_not() {
        let down = |last: Option<Last>, untold: Option<&str>| {
            let (what, from, until) = ("w".to_owned(), "00d".to_owned(), "10".to_owned());
            let (limits, hands, untold) = (Vec::new(), Vec::new(), untold.map(str::to_owned));
            Down { what, from, until, limits, hands, last, untold, ended_by: None }.sentence()
        };
        assert!(down(None, None).ends_with("no run has shown yet"));
        let last = Last { run: "7k2".into(), elapsed_ms: 61_000 };
        assert!(down(Some(last), None).contains("in run 7k2 it was"));
        let why = "/state: cannot list the runs: denied";
        assert!(down(None, Some(why)).ends_with(&format!("cannot be told: {why}")));
    }

    #[test]
    fn the_undo_of_one_step_names_its_run() {
        let foot = Foot { steps: 1, ..Foot::default() };
        assert!(foot.undo().starts_with("`pvemig undo` takes everything back"));
        assert!(foot.of_one().undo().starts_with("`pvemig undo RUN` takes everything back"));
    }
}
