//! What a plan comes to, below its steps: for somebody who is tired, and has one hand in a chassis.

mod back;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::base::check::{Answer, Likely, bytes};
use crate::base::permit::{System, Thing};
use crate::blueprint::{Blueprint, BoxedStep};
use crate::engine::outlook::Outlook;
use crate::engine::plan::{Line, Said};
use crate::engine::step::Risk;
use crate::report;

use super::down::{Down, Ends, already, down, downs, last_times, unstopped};
use super::out::Out;
use super::plan::{done, number};
use super::session::{Session, plural};
use super::usually::Usually;
use super::words::lay;

pub(super) use back::Back;

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
    /// What is blocked, where that is the first that is not done: nothing of what is below happens before it is mended.
    #[serde(skip)]
    until: Option<String>,
    /// The things that change, by system.
    changes: BTreeMap<System, Vec<String>>,
    /// What happens only where the world asks for it.
    maybe: Vec<By>,
    /// What of that is known to happen.
    surely: Vec<By>,
    /// Steps whose effects cannot be brought back.
    destroys: Vec<By>,
    /// What begins empty, with what stays behind.
    empties: Vec<Emptied>,
    /// What a person is asked for.
    by_hand: Vec<By>,
    /// What is held, and until when.
    holds: Vec<Held>,
    down: Vec<Down>,
    /// What goes down besides.
    ends: Vec<Ends>,
    /// What a single step does not stop first.
    unstopped: Option<String>,
    /// How long it usually takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    usually: Option<Usually>,
    /// What an undo would lose, ask for, and leave.
    undo_destroys: Vec<Thing>,
    undo_by_hand: Vec<By>,
    undo_maybe: Vec<By>,
    undo_stays: Vec<By>,
}

/// Something that a step does.
#[derive(Debug, PartialEq, Eq, Serialize)]
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
    /// What it is held for, where the plan has a hold for each of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
}

impl Foot {
    /// Of a plan whose lines were asked.
    pub(super) fn of_plan(
        session: &Session,
        blueprint: &Blueprint,
        migration: Option<&str>,
        steps: &[BoxedStep],
        lines: &[Line],
    ) -> Self {
        let left: Vec<_> = steps.iter().zip(lines).filter(|(_, line)| !done(line)).collect();
        let mut foot = Self { steps: lines.len(), done: lines.len() - left.len(), ..Self::default() };
        foot.until = left.first().and_then(|(step, line)| match &line.said {
            Said::Answer(check) if matches!(check.answer, Answer::Blocked { .. }) => Some(step.key().to_string()),
            _ => None,
        });
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
            let key = step.key();
            let known = likely.and_then(|likely| likely.get(key.as_str()).or_else(|| likely.get(step.id())));
            if let Some(likely) = known.filter(|likely| outlook.maybe.is_some() || likely.what.is_empty()) {
                foot.likely(&***step, &mut outlook, likely);
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
                let instance = step.key().instance().map(str::to_owned);
                foot.holds.push(Held { step: number(step.id()).to_owned(), until: number(until).to_owned(), instance });
            }
        }
        foot.ends.retain(|ends| !ends.what.is_empty());
        let left: Vec<_> = left.iter().map(|(step, _)| *step).collect();
        foot.usually = Usually::of(session, blueprint, migration, &left);
        foot.down = down(session, steps, &left);
        foot.unstopped = migration.and_then(|migration| unstopped(session, migration, steps, &left));
        already(session, steps, lines, &mut foot.down);
        if let Some(migration) = migration {
            last_times(session, migration, &mut foot.down);
        }
        foot
    }

    /// What is known by now of a step that acts only where the world asks for it.
    fn likely(
        &mut self,
        step: &dyn crate::engine::step::AnyStep<crate::estate::Estate>,
        outlook: &mut Outlook,
        likely: &Likely,
    ) {
        if !likely.sure {
            outlook.maybe = Some(likely.what.clone());
            return;
        }
        outlook.maybe = None;
        outlook.maybe_back.clone_from(&likely.back);
        let (from, key) = (number(step.id()).to_owned(), step.key());
        // What is drained is off already when the power goes.
        if likely.what.is_empty() && likely.ends.is_empty() {
            return;
        }
        let instance = key.instance().map(str::to_owned);
        if !self.ends.iter().any(|ends| ends.instance == instance) {
            let until = step.holds_until().map(|until| number(until).to_owned());
            self.ends.push(Ends { from: from.clone(), until, instance, what: likely.ends.clone() });
        }
        if !likely.what.is_empty() {
            self.surely.push(By { step: from, what: likely.what.clone() });
        }
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
        if step.risk() == Risk::Destroys && !outlook.spares {
            let things: Vec<_> = outlook.destroys.iter().map(ToString::to_string).collect();
            self.destroys.push(by(if things.is_empty() { step.title() } else { things.join(", ") }));
        }
        self.by_hand.extend(manual.or_else(|| outlook.asks.clone()).map(by));
        // Two that ask for the same are asked once, by that which is taken back first.
        self.undo_by_hand.retain(|by| Some(&by.what) != outlook.asks_back.as_ref());
        // The last step is taken back first.
        self.undo_by_hand.splice(0..0, outlook.asks_back.clone().map(by));
        self.undo_maybe.extend(outlook.maybe_back.clone().map(by));
        // One that acts on several things leaves the same of each.
        let stays = outlook.stays.clone().map(by).filter(|by| !self.undo_stays.contains(by));
        self.undo_stays.extend(stays);
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
            let then = self.until.as_ref().map(|key| format!(", none of them before {key} is no longer blocked"));
            lines.push(("to do", format!("{left} of {}{}", plural(self.steps, "step"), then.unwrap_or_default())));
        }
        let things: usize = self.changes.values().map(Vec::len).sum();
        let each =
            self.changes.iter().map(|(system, things)| format!("{}: {}", report::system(*system), things.join(", ")));
        lines.push(match things {
            0 => ("changes", "nothing".to_owned()),
            _ => ("changes", format!("{} ({})", plural(things, "thing"), each.collect::<Vec<_>>().join("; "))),
        });
        lines.extend(self.surely.iter().map(|by| ("will be", by.sentence())));
        lines.extend(self.maybe.iter().map(|by| ("may be", by.sentence())));
        lines.push(("destroyed", self.destroyed()));
        lines.extend(self.empties().map(|words| ("empty", words)));
        let hands: Vec<_> = self.by_hand.iter().map(By::sentence).collect();
        lines.push(("by hand", if hands.is_empty() { "nothing".into() } else { hands.join("; ") }));
        lines.extend(self.usually.iter().map(|usually| ("time", usually.sentence())));
        if !self.holds.is_empty() {
            lines.push(("held", held(&self.holds)));
        }
        lines.extend(downs(&self.down).into_iter().map(|sentence| ("down", sentence)));
        lines.extend(self.unstopped.iter().map(|words| ("down", words.clone())));
        lines.extend(self.ends.iter().map(|ends| ("down", ends.sentence())));
        lines.push(("undo", self.undo()));
        lines
    }

    fn destroyed(&self) -> String {
        if self.destroys.is_empty() {
            return "nothing".to_owned();
        }
        let each: Vec<_> = self.destroys.iter().map(By::sentence).collect();
        format!("{}; what has something on it asks for its own `--destroy`", each.join("; "))
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
            said.push("RUN is named at its end, with the whole command".to_owned());
        }
        if !self.undo_destroys.is_empty() {
            let things: Vec<_> = self.undo_destroys.iter().map(|thing| format!("`--destroy {thing}`")).collect();
            said.push(format!("what was written meanwhile is lost then, so it asks for {}", things.join(" ")));
        }
        said.extend(self.undo_by_hand.iter().map(|by| format!("{} needs you: {}", by.step, by.what)));
        said.extend(self.undo_maybe.iter().map(By::sentence));
        said.extend(self.undo_stays.iter().map(|by| format!("{} leaves {}", by.step, by.what)));
        said.join("; ")
    }
}

/// Each hold with its end; holds of one kind together, with what each of them is for.
fn held(holds: &[Held]) -> String {
    let mut kinds: Vec<(&Held, Vec<&str>)> = Vec::new();
    for hold in holds {
        let at = kinds.iter().position(|(kind, _)| (&kind.step, &kind.until) == (&hold.step, &hold.until));
        let at = at.unwrap_or_else(|| {
            kinds.push((hold, Vec::new()));
            kinds.len() - 1
        });
        kinds[at].1.extend(hold.instance.as_deref());
    }
    let sentence = |(kind, of): (&Held, Vec<&str>)| {
        let of = match of.as_slice() {
            [] => String::new(),
            [one] => format!(" at {one}"),
            several => format!(" at {}, one after the other", several.join(", ")),
        };
        format!("{} until {}{of}", kind.step, kind.until)
    };
    kinds.into_iter().map(sentence).collect::<Vec<_>>().join(", ")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_of_one_kind_are_named_once() {
        let hold = |step: &str, until: &str, instance: Option<&str>| Held {
            step: step.into(),
            until: until.into(),
            instance: instance.map(str::to_owned),
        };
        let nodes = ["nuc", "mac"].map(|node| hold("02", "06", Some(node)));
        assert_eq!(held(&nodes), "02 until 06 at nuc, mac, one after the other");
        assert_eq!(held(&nodes[..1]), "02 until 06 at nuc");
        assert_eq!(held(&[hold("00b", "10", None), hold("00d", "10", None)]), "00b until 10, 00d until 10");
    }

    #[test]
    fn the_undo_of_one_step_names_its_run() {
        let foot = Foot { steps: 1, ..Foot::default() };
        assert!(foot.undo().starts_with("`pvemig undo` takes everything back"));
        assert!(foot.of_one().undo().starts_with("`pvemig undo RUN` takes everything back"));
    }
}
