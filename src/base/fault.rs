//! What every error of a provider answers besides its text: may something have changed, and what now?

use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::check::Problem;
use super::permit::Thing;

/// What a failed call may have left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// Never sent, or refused: nothing was changed.
    None,
    /// Sent, and no usable answer: it may have happened.
    Maybe,
    /// Some of it happened.
    Partial,
}

/// An error that knows what it may have left behind. One enum per provider implements it.
pub trait Fault: Error + Send + Sync + 'static {
    /// What may have been changed.
    fn effect(&self) -> Effect;

    /// True where asking the same again later may answer otherwise. Providers retry reads only.
    fn retryable(&self) -> bool {
        false
    }

    /// True where a change was refused because what it was decided by had changed meanwhile: nothing was changed by it,
    /// and after another look it may be decided anew.
    fn stale(&self) -> bool {
        false
    }

    /// The next thing to do, in one line.
    fn help(&self) -> Option<String> {
        None
    }

    /// The words of a person that it shows to be wrong (see [`Problem::voids`]).
    fn voids(&self) -> &[Thing] {
        &[]
    }
}

/// Any fault, for signatures that cross provider borders.
pub struct Failure(Box<dyn Fault>);

impl Failure {
    /// The fault itself.
    pub fn fault(&self) -> &dyn Fault {
        &*self.0
    }

    /// The fault as the concrete type `T`, where it is one.
    pub fn downcast_ref<T: Fault>(&self) -> Option<&T> {
        let error: &(dyn Error + 'static) = &*self.0;
        error.downcast_ref::<T>()
    }

    /// A fault that is only a sentence; for what has no provider (a broken before-image, an unknown step).
    pub fn plain(text: impl Into<String>, help: Option<String>) -> Self {
        Self(Box::new(Plain { text: text.into(), help, voids: Vec::new() }))
    }

    /// What was in the way right before a change, which was not sent for it: all of it, what helps first, and the words
    /// that count no longer.
    pub fn barred(problems: Vec<Problem>) -> Self {
        let voids = problems.iter().filter_map(|problem| problem.voids.as_deref().cloned()).collect();
        let (text, help): (Vec<_>, Vec<_>) = problems.into_iter().map(|problem| (problem.text, problem.help)).unzip();
        Self(Box::new(Plain { text: text.join("; "), help: help.into_iter().next(), voids }))
    }

    /// The fault's text and those of its sources, outermost first; no text twice in a row, and no secret in any.
    pub fn chain(&self) -> Vec<String> {
        let mut lines = vec![self.0.to_string()];
        let mut source = self.0.source();
        while let Some(error) = source {
            let text = error.to_string();
            if lines.last() != Some(&text) {
                lines.push(text);
            }
            source = error.source();
        }
        lines.iter().map(|line| super::redact::text(line)).collect()
    }
}

impl<F: Fault> From<F> for Failure {
    fn from(fault: F) -> Self {
        Self(Box::new(fault))
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.chain().join(": "))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct Plain {
    text: String,
    help: Option<String>,
    voids: Vec<Thing>,
}

impl Fault for Plain {
    fn effect(&self) -> Effect {
        Effect::None
    }
    fn help(&self) -> Option<String> {
        self.help.clone()
    }
    fn voids(&self) -> &[Thing] {
        &self.voids
    }
}
