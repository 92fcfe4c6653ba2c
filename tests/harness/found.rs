//! Every finding of a blueprint's preflight is met once by its name, in an estate that has it, with nothing changed.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic, and names what it misses")]

use std::collections::{BTreeMap, BTreeSet};

use pvemig::base::check::{Answer, Problem};
use pvemig::base::permit::Thing;
use pvemig::blueprint;
use pvemig::engine::step::{RunInfo, Seen};

use super::estate::Rig;

/// The findings that were met, of a blueprint.
pub struct Met {
    blueprint: &'static str,
    names: BTreeSet<String>,
}

impl Met {
    pub fn none(blueprint: &'static str) -> Self {
        Self { blueprint, names: BTreeSet::new() }
    }

    /// The preflight of an estate finds `name` in these words, and protects a step that the finding is for. `run`: by whom
    /// it is asked.
    pub async fn of(&mut self, rig: &Rig, run: &RunInfo, name: &str, words: &[&str]) {
        let (before, step) = (rig.changes(), rig.steps.first().unwrap());
        assert_eq!(step.id(), "00-preflight");
        let (held, whole) = (BTreeMap::new(), blueprint::named(self.blueprint).unwrap());
        let check = step.check(&rig.estate, Seen { since: None, got: &[], held: &held, run }).await.unwrap();
        assert_eq!(rig.changes(), before, "{name}: looking changed something");
        let Answer::Blocked { problems } = &check.answer else { panic!("{name}: {check:#?}") };
        let is = |problem: &&Problem| {
            let text = format!("{}; {}", problem.text, problem.help);
            problem.finding.as_deref() == Some(name) && words.iter().all(|word| text.contains(word))
        };
        let found: Vec<&Problem> = problems.iter().filter(is).collect();
        assert_eq!(found.len(), 1, "{name} in the words {words:?}: {problems:#?}");
        let known = whole.findings.iter().find(|known| known.name == name).unwrap();
        let protects = found[0].protects.as_ref().unwrap_or_else(|| panic!("{name} protects nothing")).as_str();
        let of = |step: &&&str| protects.split('@').next() == Some(**step);
        assert!(known.steps.is_empty() || known.steps.iter().any(|step| of(&step)), "{name} protects {protects}");
        self.names.insert(name.to_owned());
    }

    /// The same, asked by a plan with these consents.
    pub async fn with(&mut self, rig: &Rig, consents: &[String], name: &str, words: &[&str]) {
        let consents = consents.iter().cloned().map(Thing).collect();
        self.of(rig, &RunInfo { consents, ..RunInfo::default() }, name, words).await;
    }

    /// There is no finding that was not met.
    pub fn assert_all(self) {
        let all = blueprint::named(self.blueprint).unwrap().findings;
        let missed: Vec<&str> = all.iter().map(|known| known.name).filter(|name| !self.names.contains(*name)).collect();
        assert!(missed.is_empty(), "never met: {missed:?}");
        assert!(all.len() > 10, "{}", all.len());
        assert_eq!(self.names.len(), all.len());
    }
}
