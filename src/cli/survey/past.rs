//! What runs that were undone past something have left behind.

use serde::Serialize;

use crate::base::names::StepKey;
use crate::engine::event::Event;
use crate::engine::state::Phase;
use crate::engine::store::RunRead;

use super::super::session::Session;

/// A run that was undone past something, where no other one of its migration came after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Past {
    /// Its id.
    pub(super) run: String,
    /// Its migration.
    pub(super) migration: String,
    /// The steps that were passed.
    pub(super) steps: Vec<String>,
    /// What stays of them, as the undo has told it.
    pub(super) stays: Vec<String>,
    /// What goes on from there.
    pub(super) help: String,
    /// The Talos cluster that it is about.
    #[serde(skip)]
    pub(super) cluster: Option<String>,
}

impl Past {
    /// None where nothing was passed.
    pub(super) fn of(session: &Session, run: &RunRead, migration: &str) -> Option<Self> {
        let passed = |key: &&StepKey| run.state.steps.get(*key).is_some_and(|step| step.passed);
        let keys = run.state.opened.plan.iter().map(|planned| &planned.key);
        let steps: Vec<String> = keys.filter(passed).map(ToString::to_string).collect();
        let told = run.records.iter().filter_map(|record| match &record.event {
            // The first says that it was passed.
            Event::Undone { passed: true, stays, .. } => Some(stays.iter().skip(1).cloned()),
            _ => None,
        });
        let id = &run.id;
        let plan = &run.state.opened.plan;
        let of = |at: &&str| plan.iter().find_map(|planned| planned.step.pointer(at)?.as_str().map(str::to_owned));
        (run.state.phase == Phase::Undone && !steps.is_empty()).then(|| Self {
            run: run.id.clone(),
            migration: migration.to_owned(),
            steps,
            stays: told.flatten().collect(),
            help: if session.site.migrations.contains_key(migration) {
                format!(
                    "`pvemig plan {migration}` shows what a new run would do; `pvemig report {id}` what this one did"
                )
            } else {
                format!("`pvemig report {id}` shows what it did; {migration} is not in the site file any more")
            },
            cluster: ["/planes/cluster", "/swap/old/cluster"].iter().find_map(of),
        })
    }
}
