//! Steps with something odd about them.

use std::time::Duration;

use pvemig::base::check::Check;
use pvemig::base::fault::Failure;
use pvemig::base::names::StepKey;
use pvemig::base::permit::{Permit, Thing};
use pvemig::blueprint::BoxedStep;
use pvemig::engine::step::{AnyStep, Risk, Seen};
use pvemig::estate::Estate;
use serde_json::Value;

use super::estate::Rig;

/// What is odd about a step.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It applies and undoes everything twice.
    Twice,
    /// It fails instead of applying.
    NoApply,
    /// It cannot ask.
    NoCheck,
}

/// A step with something odd about it.
struct Odd {
    step: BoxedStep,
    way: Way,
}

#[async_trait::async_trait]
impl AnyStep<Estate> for Odd {
    fn key(&self) -> StepKey {
        self.step.key()
    }
    fn id(&self) -> &'static str {
        self.step.id()
    }
    fn title(&self) -> String {
        self.step.title()
    }
    fn why(&self) -> Vec<String> {
        self.step.why()
    }
    fn risk(&self) -> Risk {
        self.step.risk()
    }
    fn holds_until(&self) -> Option<&'static str> {
        self.step.holds_until()
    }
    fn blind_to(&self) -> &'static [&'static str] {
        self.step.blind_to()
    }
    fn limit(&self) -> Duration {
        self.step.limit()
    }
    fn fields(&self) -> Result<Value, Failure> {
        self.step.fields()
    }
    async fn check(&self, cx: &Estate, seen: Seen<'_, Value>) -> Result<Check<Value>, Failure> {
        if self.way == Way::NoCheck {
            return Err(Failure::plain("made to fail", None));
        }
        self.step.check(cx, seen).await
    }
    async fn apply(&self, cx: &Estate, seen: Seen<'_, Value>, permit: &Permit) -> Result<(), Failure> {
        match self.way {
            Way::Twice => self.step.apply(cx, again(&seen), permit).await?,
            Way::NoApply => return Err(Failure::plain("made to fail", None)),
            Way::NoCheck => {}
        }
        self.step.apply(cx, seen, permit).await
    }
    async fn back(&self, cx: &Estate, before: &Value, seen: Seen<'_, Value>) -> Result<Check<()>, Failure> {
        self.step.back(cx, before, seen).await
    }
    async fn undo(&self, cx: &Estate, before: &Value, seen: Seen<'_, Value>, permit: &Permit) -> Result<(), Failure> {
        if self.way == Way::Twice {
            self.step.undo(cx, before, again(&seen), permit).await?;
        }
        self.step.undo(cx, before, seen, permit).await
    }
    fn was_at_work(&self, before: &Value) -> Result<bool, Failure> {
        self.step.was_at_work(before)
    }
    fn takes_down(&self, before: &Value) -> Result<Option<String>, Failure> {
        self.step.takes_down(before)
    }
    fn undo_destroys(&self, before: &Value) -> Result<Vec<Thing>, Failure> {
        self.step.undo_destroys(before)
    }
}

fn again<'a>(seen: &Seen<'a, Value>) -> Seen<'a, Value> {
    Seen { since: seen.since, got: seen.got, held: seen.held, run: seen.run }
}

/// Makes the steps of which `which` is true odd.
pub fn make_odd(rig: &mut Rig, way: Way, which: impl Fn(usize) -> bool) {
    let steps = std::mem::take(&mut rig.steps).into_iter().enumerate();
    let wrap = |(n, step)| if which(n) { Box::new(Odd { step, way }) as BoxedStep } else { step };
    rig.steps = steps.map(wrap).collect();
}
