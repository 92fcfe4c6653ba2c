//! What the preflight finds, one line each, with the step that it is about.

use std::collections::BTreeSet;

use crate::base::check::{Check, Problem};
use crate::base::fault::Failure;
use crate::base::permit::System;
use crate::blueprint::Known;

use super::known;

pub(super) use super::super::on;

/// An answer, or why there is none: unknown is not no, and it keeps no other question from being asked.
pub(super) type Asked<T> = Result<T, Unknown>;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unknown {
    /// The failure with its causes, in one line.
    pub(super) text: String,
    /// The next thing to do.
    pub(super) help: Option<String>,
}

impl From<Failure> for Unknown {
    fn from(failure: Failure) -> Self {
        Self { text: failure.to_string(), help: failure.fault().help() }
    }
}

/// Keeps a failure as an answer.
pub(super) fn asked<T, E: Into<Failure>>(result: Result<T, E>) -> Asked<T> {
    result.map_err(|error| Unknown::from(error.into()))
}

/// A line: a problem where it has help, else a note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    /// Its name, where it is a problem.
    pub(super) known: Option<&'static Known>,
    /// The step that it is about.
    pub(super) step: &'static str,
    /// The system that was asked.
    pub(super) system: System,
    /// What was found.
    pub(super) text: String,
    /// What to do; None: nothing has to be done.
    pub(super) help: Option<String>,
}

impl Finding {
    fn problem(self) -> Problem {
        let problem = Problem::new(self.text, self.help.unwrap_or_default()).protects(self.step);
        Problem { finding: self.known.map(|known| known.name.to_owned()), ..problem }
    }
}

/// The findings of one system.
#[derive(Debug)]
pub(super) struct Findings {
    system: System,
    /// The lines.
    pub(super) all: Vec<Finding>,
}

impl Findings {
    /// None yet, of a system.
    pub(super) fn of(system: System) -> Self {
        Self { system, all: Vec::new() }
    }

    /// Something that has a name keeps a step from doing its work.
    pub(super) fn problem(
        &mut self,
        known: &'static Known,
        step: &'static str,
        text: impl Into<String>,
        help: impl Into<String>,
    ) {
        let (text, help) = (text.into(), Some(help.into()));
        self.all.push(Finding { known: Some(known), step, system: self.system, text, help });
    }

    /// A problem that another step words.
    pub(super) fn borrowed(&mut self, known: &'static Known, step: &'static str, problem: Problem) {
        self.problem(known, step, problem.text, problem.help);
    }

    /// Something to know.
    pub(super) fn note(&mut self, step: &'static str, text: impl Into<String>) {
        self.all.push(Finding { known: None, step, system: self.system, text: text.into(), help: None });
    }

    /// A question without an answer, which a step needs.
    pub(super) fn unknown(&mut self, step: &'static str, what: &str, why: &Unknown) {
        let help = why.help.clone().unwrap_or_else(|| "ask again once that is mended".to_owned());
        self.problem(&known::CANNOT_ASK, step, format!("cannot ask {what}: {}", why.text), help);
    }

    /// The answer, or a problem of a step that needs it.
    pub(super) fn need<'a, T>(&mut self, step: &'static str, what: &str, asked: &'a Asked<T>) -> Option<&'a T> {
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
pub(super) fn check<B>(mut findings: Vec<Finding>) -> Check<B> {
    findings.sort_by_key(|f| (f.step, f.system));
    let mut said = BTreeSet::new();
    findings.retain(|f| said.insert((f.step, f.text.clone())));
    let (problems, notes): (Vec<_>, Vec<_>) = findings.into_iter().partition(|f| f.help.is_some());
    let problems: Vec<Problem> = problems.into_iter().map(Finding::problem).collect();
    let check = if problems.is_empty() { Check::done() } else { Check::blocked(problems) };
    check.notes(notes.into_iter().map(|f| f.text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::check::Answer;

    #[test]
    fn all_lines_at_once_by_step_then_by_system() {
        let mut kube = Findings::of(System::Kubernetes);
        kube.problem(&known::NODE_CORDONED, on::DEPLOY, "last", "x");
        kube.problem(&known::WORKLOAD_MISSING, on::RETAIN, "first", "x");
        kube.problem(&known::WORKLOAD_MISSING, on::RETAIN, "first", "x");
        kube.note(on::ADD, "second note");
        let mut pve = Findings::of(System::Proxmox);
        pve.note(on::ADD, "first note");
        let why = Unknown { text: "silence".into(), help: None };
        assert_eq!(pve.need::<()>(on::REMOVE, "vm 105", &Err(why)), None);
        kube.all.extend(pve.all);
        let check: Check<()> = check(kube.all);
        assert_eq!(check.notes, ["first note", "second note"]);
        let Answer::Blocked { problems } = check.answer else { panic!() };
        let shown: Vec<_> =
            problems.iter().map(|p| (p.text.as_str(), p.protects.as_ref().map(|k| k.as_str()))).collect();
        assert_eq!(
            shown,
            [("first", Some(on::RETAIN)), ("cannot ask vm 105: silence", Some(on::REMOVE)), ("last", Some(on::DEPLOY))]
        );
        assert!(super::check::<()>(Vec::new()).is_done());
    }

    #[test]
    fn the_ids_sort_as_the_numbers_do() {
        let ids = [
            on::RETAIN,
            on::SUSPEND,
            on::SCALE,
            on::REMOVE,
            on::UNLABEL,
            on::HOST,
            on::ADD,
            on::DRAIN,
            on::REBOOT,
            on::WAIT,
            on::GUEST,
            on::DRIVERS,
            on::LABEL,
            on::MANIFESTS,
            on::DEPLOY,
            on::CLAIMS,
        ];
        assert!(ids.is_sorted(), "{ids:?}");
    }
}
