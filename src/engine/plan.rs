//! Looking only: what a plan would do, as far as it can be said without doing it.

use crate::base::check::{Answer, Check};
use crate::base::fault::Failure;
use crate::base::names::StepKey;

use serde_json::Value;

use super::event::Planned;
use super::recorder::RecordError;
use super::run::Engine;
use super::step::{AnyStep, Settle};

/// A line of `pvemig plan`.
#[derive(Debug)]
pub struct Line {
    /// The step.
    pub key: StepKey,
    /// Its title.
    pub title: String,
    /// What can be said.
    pub said: Said,
}

/// What can be said about a step.
#[derive(Debug)]
pub enum Said {
    /// Its check's answer.
    Answer(Box<Check<Value>>),
    /// A hold that is not needed: everything that it would guard is done.
    NotNeeded,
    /// Its turn comes after this step, which is not done.
    After(StepKey),
    /// It could not be asked.
    Failed(Failure),
}

/// The plan as the journal keeps it.
///
/// # Errors
/// A step's fields cannot be written.
pub fn planned<Cx: Sync>(steps: &[Box<dyn AnyStep<Cx>>]) -> Result<Vec<Planned>, Failure> {
    let planned = |step: &dyn AnyStep<Cx>| {
        Ok(Planned {
            key: step.key(),
            title: step.title(),
            risk: step.risk(),
            holds_until: step.holds_until().map(str::to_owned),
            step: step.fields()?,
        })
    };
    steps.iter().map(|step| planned(&**step)).collect()
}

impl<Cx: Settle> Engine<'_, Cx> {
    /// The answer of each step up to the first that is not done; the others come after that one, but for those right
    /// behind holds that are done already: a hold changes nothing that they are asked about, nor does a step that only
    /// keeps something for its run ([`Outlook::keeps`](super::outlook::Outlook)). The preflight's problems are always
    /// shown, and the step behind it is asked all the same.
    ///
    /// # Errors
    /// The journal cannot be written (a plan writes to a scratch one).
    pub async fn look(&self) -> Result<Vec<Line>, RecordError> {
        let mut lines = Vec::new();
        let mut first: Option<StepKey> = None;
        // As long as nothing but holds is to be done, or kept for the run.
        let (mut held, mut kept) = (true, true);
        for (at, step) in self.steps.iter().enumerate() {
            let (key, title) = (step.key(), step.title());
            let hold = step.holds_until().is_some();
            let keeps = step.outlook(self.cx).keeps;
            let said = match &first {
                // Where all that it would guard is so, a run would not put it up.
                Some(_) if kept && hold && self.needless_unless_done(&**step).await? => Said::NotNeeded,
                Some(first) if held && !hold => match self.ask_once(&**step).await? {
                    Ok(check) if check.is_done() => Said::Answer(Box::new(check)),
                    _ => Said::After(first.clone()),
                },
                Some(first) => Said::After(first.clone()),
                None => self.say(&**step).await?,
            };
            let done = match &said {
                Said::Answer(check) => check.is_done(),
                Said::NotNeeded => true,
                Said::After(_) | Said::Failed(_) => false,
            };
            // The preflight is no reason not to look further: it lists what is in the way of which step.
            if !done && first.is_none() && at > 0 {
                first = Some(key.clone());
            }
            held &= done || hold || keeps || at == 0;
            kept &= done || keeps || at == 0;
            lines.push(Line { key, title, said });
        }
        Ok(lines)
    }

    async fn say(&self, step: &dyn AnyStep<Cx>) -> Result<Said, RecordError> {
        let mut check = match self.ask_once(step).await? {
            Ok(check) => check,
            Err(failure) => return Ok(Said::Failed(failure)),
        };
        if !check.is_done() && step.holds_until().is_some() && self.needless(step).await? {
            return Ok(Said::NotNeeded);
        }
        if let Answer::Blocked { problems } = check.answer {
            let left = self.still_in_the_way(problems).await?;
            check.answer = if left.is_empty() { Answer::Done } else { Answer::Blocked { problems: left } };
        }
        Ok(Said::Answer(Box::new(check)))
    }
}
