//! What an undo comes to, at its short end.

use crate::base::check::Answer;
use crate::base::names::StepKey;
use crate::base::permit::Thing;
use crate::blueprint::BoxedStep;
use crate::engine::state::RunState;
use crate::engine::step::RunInfo;
use crate::engine::undo::{back_of, undo_order};

use super::super::out::Out;
use super::super::plan::number;
use super::super::session::Session;
use super::By;

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

fn key_at(steps: &[BoxedStep], at: usize) -> Option<StepKey> {
    steps.get(at).map(|step| step.key())
}

/// What a person is asked for by the undo of a step, as things are now: nothing where it is back already. What cannot be
/// asked now, or comes only once another step is taken back, is what its fields tell.
async fn by_hand(
    session: &Session,
    run: (&RunState, &RunInfo),
    steps: &[BoxedStep],
    step: &BoxedStep,
    told: Option<String>,
) -> Option<String> {
    match back_of(&session.estate, steps, run, &**step).await {
        Ok(check) => match check.answer {
            Answer::Done => None,
            Answer::Manual { ask, hands: Some(_), .. } => Some(ask),
            _ => told,
        },
        Err(_) => told,
    }
}

/// What an undo comes to.
pub(in crate::cli) struct Back {
    /// What is lost by it, without the consents that are there.
    destroys: Vec<Thing>,
    /// What is lost by it with a consent.
    consented: Vec<Thing>,
    by_hand: Vec<By>,
    maybe: Vec<By>,
    stays: Vec<By>,
    down: Option<String>,
}

impl Back {
    /// Of a run's undo that passes the steps `past`.
    pub(in crate::cli) async fn of(
        session: &Session,
        (state, info): (&RunState, &RunInfo),
        steps: &[BoxedStep],
        past: &[(String, Vec<String>)],
        given: &[String],
    ) -> anyhow::Result<Self> {
        let owes = |step: &&BoxedStep| state.steps.get(&step.key()).is_some_and(|s| s.owes());
        let said = |step: &&BoxedStep| past.iter().find(|(key, _)| key == step.key().as_str());
        let (passed, owed): (Vec<_>, Vec<_>) = steps.iter().filter(owes).partition(|step| said(step).is_some());
        let mut back = Self {
            destroys: Vec::new(),
            consented: Vec::new(),
            by_hand: Vec::new(),
            maybe: Vec::new(),
            stays: Vec::new(),
            down: None,
        };
        let turns = undo_order(steps);
        for step in turns.iter().filter_map(|at| owed.iter().find(|step| Some(step.key()) == key_at(steps, *at))) {
            let by = |what: String| By { step: number(step.id()).to_owned(), what };
            let mut outlook = step.outlook(&session.estate);
            if outlook.asks_back.is_some() {
                outlook.asks_back = by_hand(session, (state, info), steps, step, outlook.asks_back).await;
            }
            if let Some(before) = state.steps.get(&step.key()).and_then(|s| s.before.as_ref()) {
                back.destroys.extend(step.undo_destroys(before).map_err(super::super::fail::failure)?);
            }
            back.by_hand.retain(|by| Some(&by.what) != outlook.asks_back.as_ref());
            back.by_hand.extend(outlook.asks_back.map(by));
            back.maybe.extend(outlook.maybe_back.map(by));
            let stays = outlook.stays.map(by).filter(|by| !back.stays.contains(by));
            back.stays.extend(stays);
        }
        (back.consented, back.destroys) =
            std::mem::take(&mut back.destroys).into_iter().partition(|thing| given.contains(&thing.0));
        back.stays.extend(passed.iter().map(|step| {
            let left = said(step).map(|(_, left)| left.join("; ")).filter(|left| !left.is_empty());
            By { step: number(step.id()).to_owned(), what: left.unwrap_or_else(|| step.title()) }
        }));
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
    pub(in crate::cli) fn say(&self, out: Out) {
        let mut lines = Vec::new();
        lines.push(("destroyed", destroyed(&self.destroys, &self.consented)));
        let hands: Vec<_> = self.by_hand.iter().map(By::sentence).collect();
        lines.push(("by hand", if hands.is_empty() { "nothing".into() } else { hands.join("; ") }));
        lines.extend(self.maybe.iter().map(|by| ("may be", by.sentence())));
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
}
