//! What a preflight finds, one line each, with the step that it is about.

use std::collections::BTreeSet;

use crate::base::check::{Check, Problem};
use crate::base::fault::Failure;
use crate::base::names::StepKey;
use crate::base::permit::{System, Thing};

use super::{Known, known};

/// An answer, or why there is none: unknown is not no, and it keeps no other question from being asked.
pub type Asked<T> = Result<T, Unknown>;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// The failure with its causes, in one line.
    pub text: String,
    /// The next thing to do.
    pub help: Option<String>,
}

impl From<Failure> for Unknown {
    fn from(failure: Failure) -> Self {
        Self { text: failure.to_string(), help: failure.fault().help() }
    }
}

/// Keeps a failure as an answer.
pub fn asked<T, E: Into<Failure>>(result: Result<T, E>) -> Asked<T> {
    result.map_err(|error| Unknown::from(error.into()))
}

/// A line: a problem where it has help, else a note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its name, where it is a problem.
    pub known: Option<&'static Known>,
    /// The step that it is about.
    pub step: StepKey,
    /// The system that was asked.
    pub system: System,
    /// What was found.
    pub text: String,
    /// What to do; None: nothing has to be done.
    pub help: Option<String>,
    /// Somebody else is at work (see [`Problem::foreign`]).
    pub foreign: bool,
    /// The word that counts no longer (see [`Problem::voids`]).
    pub voids: Option<Box<Thing>>,
}

impl Finding {
    fn problem(self) -> Problem {
        let problem = Problem::new(self.text, self.help.unwrap_or_default()).protects(self.step);
        let finding = self.known.map(|known| known.name.into());
        Problem { finding, foreign: self.foreign, voids: self.voids, ..problem }
    }
}

/// The findings of one system.
#[derive(Debug)]
pub struct Findings {
    system: System,
    /// The lines.
    pub all: Vec<Finding>,
}

impl Findings {
    /// None yet, of a system.
    pub fn of(system: System) -> Self {
        Self { system, all: Vec::new() }
    }

    /// Something that has a name keeps a step from doing its work.
    pub fn problem(
        &mut self,
        known: &'static Known,
        step: impl Into<StepKey>,
        text: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.borrowed(known, step, Problem::new(text, help));
    }

    /// A problem that another step words.
    pub fn borrowed(&mut self, known: &'static Known, step: impl Into<StepKey>, problem: Problem) {
        let Problem { text, help, foreign, voids, .. } = problem;
        let (known, step, help) = (Some(known), step.into(), Some(help));
        self.all.push(Finding { known, step, system: self.system, text, help, foreign, voids });
    }

    /// Something to know.
    pub fn note(&mut self, step: impl Into<StepKey>, text: impl Into<String>) {
        self.all.push(Finding {
            known: None,
            step: step.into(),
            system: self.system,
            text: text.into(),
            help: None,
            foreign: false,
            voids: None,
        });
    }

    /// A question without an answer, which a step needs.
    pub fn unknown(&mut self, step: impl Into<StepKey>, what: &str, why: &Unknown) {
        let help = why.help.clone().unwrap_or_else(|| "ask again once that is mended".to_owned());
        self.problem(&known::CANNOT_ASK, step, format!("cannot ask {what}: {}", why.text), help);
    }

    /// The answer, or a problem of a step that needs it.
    pub fn need<'a, T>(&mut self, step: impl Into<StepKey>, what: &str, asked: &'a Asked<T>) -> Option<&'a T> {
        match asked {
            Ok(answer) => Some(answer),
            Err(why) => {
                self.unknown(step, what, why);
                None
            }
        }
    }
}

/// The answer of the step: by step number, then by system, then in the order found; no line twice.
pub fn check<B>(mut findings: Vec<Finding>) -> Check<B> {
    findings.sort_by(|a, b| (&a.step, a.system).cmp(&(&b.step, b.system)));
    let mut said = BTreeSet::new();
    findings.retain(|f| said.insert((f.step.clone(), f.text.clone())));
    let (problems, notes): (Vec<_>, Vec<_>) = findings.into_iter().partition(|f| f.help.is_some());
    let problems: Vec<Problem> = problems.into_iter().map(Finding::problem).collect();
    let check = if problems.is_empty() { Check::done() } else { Check::blocked(problems) };
    check.notes(notes.into_iter().map(|f| f.text))
}
