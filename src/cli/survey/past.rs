//! What runs that are over have left behind: one that was undone past something, one that was given up behind what cannot be
//! undone.

use serde::Serialize;

use crate::engine::event::{Event, Planned};
use crate::engine::state::{Phase, Stage};
use crate::engine::step::Risk;
use crate::engine::store::RunRead;

use super::super::session::Session;

/// A run that was undone past something, or given up behind what cannot be undone, where no other one of its migration came to
/// its end after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Past {
    /// Its id.
    pub(super) run: String,
    /// Its migration.
    pub(super) migration: String,
    /// How it ended: `undone` or `abandoned`.
    pub(super) ended: &'static str,
    /// The steps that were passed, or are not undone.
    pub(super) steps: Vec<String>,
    /// What stays of them, as the undo has told it; of one that was given up, where its files are.
    pub(super) stays: Vec<String>,
    /// What goes on from there.
    pub(super) help: String,
    /// The Talos cluster that it is about.
    #[serde(skip)]
    pub(super) cluster: Option<String>,
}

impl Past {
    /// None where nothing is left.
    pub(super) fn of(session: &Session, run: &RunRead, migration: &str) -> Option<Self> {
        let steps_of = &run.state.steps;
        let left = |planned: &&Planned| match run.state.phase {
            Phase::Undone => steps_of.get(&planned.key).is_some_and(|step| step.passed),
            Phase::Abandoned if planned.risk == Risk::Destroys => {
                steps_of.get(&planned.key).is_some_and(|step| step.stage != Stage::Undone && !step.calls.is_empty())
            }
            _ => false,
        };
        let steps: Vec<String> = run.state.opened.plan.iter().filter(left).map(|left| left.key.to_string()).collect();
        let told = run.records.iter().filter_map(|record| match &record.event {
            // The first says that it was passed.
            Event::Undone { passed: true, stays, .. } => Some(stays.iter().skip(1).cloned()),
            _ => None,
        });
        let mut stays: Vec<String> = told.flatten().collect();
        let mut ended = "undone";
        if run.state.phase == Phase::Abandoned {
            let files = session.store.dir().join("runs").join(&run.id).join("files");
            stays = vec![format!("what it kept is in {}", files.display())];
            ended = "abandoned";
        }
        let id = &run.id;
        let plan = &run.state.opened.plan;
        let of = |at: &&str| plan.iter().find_map(|planned| planned.step.pointer(at)?.as_str().map(str::to_owned));
        (!steps.is_empty()).then(|| Self {
            ended,
            run: run.id.clone(),
            migration: migration.to_owned(),
            steps,
            stays,
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
