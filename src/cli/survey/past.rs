//! What runs that are over have left behind: one that was undone past something, one that was given up behind what cannot be
//! undone.

use serde::Serialize;
use serde_json::Value;

use crate::base::survey::Survey;
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
    /// What one of these steps has installed.
    #[serde(skip)]
    installed: Option<Installed>,
}

/// A disk that a step has installed a node on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Installed {
    /// The step.
    step: String,
    node: String,
    /// The disk's serial number.
    disk: String,
    /// What is told of that step.
    lines: Vec<String>,
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
        let told = |step: Option<&str>| {
            let told = run.records.iter().filter_map(move |record| match &record.event {
                // The first says that it was passed.
                Event::Undone { key, passed: true, stays, .. } if step.is_none_or(|step| key.as_str() == step) => {
                    Some(stays.iter().skip(1).cloned())
                }
                _ => None,
            });
            told.flatten().collect::<Vec<String>>()
        };
        let mut stays = told(None);
        let mut ended = "undone";
        if run.state.phase == Phase::Abandoned {
            let files = session.store.dir().join("runs").join(&run.id).join("files");
            stays = vec![format!("what it kept is in {}", files.display())];
            ended = "abandoned";
        }
        let id = &run.id;
        let plan = &run.state.opened.plan;
        let of = |at: &&str| plan.iter().find_map(|planned| planned.step.pointer(at)?.as_str().map(str::to_owned));
        let text = |step: &Value, at: &str| step.pointer(at)?.as_str().map(str::to_owned);
        let installed = run.state.opened.plan.iter().filter(left).find_map(|planned| {
            let (node, disk) =
                (text(&planned.step, "/anew/bare/machine/name")?, text(&planned.step, "/anew/bare/disk")?);
            // Of several with the same fields it is the one that may destroy that disk.
            let own = planned.risk == Risk::Destroys;
            let step = planned.key.to_string();
            own.then(|| Installed { lines: told(Some(&step)), step, node, disk })
        });
        (!steps.is_empty()).then(|| Self {
            ended,
            installed,
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

    /// Leaves out what was installed where the node is seen to run from another disk; false where nothing is left then.
    pub(super) fn still_so(&mut self, survey: &Survey) -> bool {
        let runs_from = |name: &str| {
            let talos = survey.node(name)?.talos()?;
            let (system, disks) = (talos.system_disk.known()?, talos.disks.known()?);
            disks.iter().find(|disk| disk.id == system.id).map(|disk| disk.serial.clone())
        };
        if let Some(it) = &self.installed
            && runs_from(&it.node).is_some_and(|serial| !serial.is_empty() && serial != it.disk)
        {
            self.steps.retain(|step| *step != it.step);
            self.stays.retain(|line| !it.lines.contains(line));
        }
        !self.steps.is_empty()
    }
}
