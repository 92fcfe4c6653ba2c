//! What a journal says, step by step.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::base::check::{Change, route_of};
use crate::base::fault::Effect;
use crate::base::names::StepKey;
use crate::base::permit::{Again, System};
use crate::engine::event::{Event, Opened, Record};
use crate::engine::fold::Fold;
use crate::engine::state::{Illegal, Phase, RunState};
use crate::engine::step::Risk;

use super::downtime::Outage;
use super::track::{Tracked, between};

/// A run as its journal tells it.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The run's id.
    pub run: String,
    /// The migration's name in the site file; None for a step that got its parameters by flags.
    pub migration: Option<String>,
    /// The blueprint.
    pub blueprint: String,
    /// Its version.
    pub blueprint_version: u32,
    /// The site's name.
    pub site: String,
    /// The SHA-256 of the site file.
    pub site_digest: String,
    /// The tool's version.
    pub tool: String,
    /// The machine.
    pub host: String,
    /// The command line.
    pub argv: Vec<String>,
    /// A plan of one step.
    pub single: bool,
    /// When it was opened.
    pub began: Timestamp,
    /// When the last line was written.
    pub last: Timestamp,
    /// How it stands.
    pub standing: Standing,
    /// Why it was given up, in the operator's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// A row for each step of the plan, in order.
    pub steps: Vec<Row>,
    /// What the operator consented to lose.
    pub consents: Vec<String>,
    /// What is gone for good: steps that destroy, were applied and are not undone.
    pub destroyed: Vec<String>,
    /// What the undo left: step and why.
    pub stays: Vec<String>,
    /// Holds that are still up.
    pub holds_up: Vec<String>,
    /// Changing calls for each system.
    pub calls: BTreeMap<System, u32>,
    /// The times in which what the run stops was down. Who knows the steps fills it in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outages: Vec<Outage>,
    /// The ways into guests and hosts that answered, each with the steps that used it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub routes: BTreeMap<String, Vec<String>>,
    /// What a person was asked for, and when it was there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub by_hand: Vec<ByHand>,
    /// What others must say by now, or their next apply undoes it. Who knows the blueprint fills it in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fold_back: Vec<Fold>,
    /// The commands that are possible now.
    pub next: Vec<String>,
}

/// Something that a person was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ByHand {
    /// The step.
    pub step: String,
    /// What for.
    pub ask: String,
    /// When it was asked first.
    pub asked: Timestamp,
    /// When the step was settled after it; None: the journal does not say that it was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub there: Option<Timestamp>,
    /// The undo took it off the list before it was seen to be there.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub undone: bool,
}

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Every step is applied or was already so.
    Done,
    /// Everything is back as it was.
    Undone,
    /// It stopped at a failure.
    Failed,
    /// It waits for a person.
    Asked,
    /// The operator interrupted it.
    Interrupted,
    /// The journal ends in the middle: it is at work, or it was killed.
    Open,
    /// Its undo is not finished.
    Undoing,
    /// An undo went wrong.
    Stuck,
    /// Given up.
    Abandoned,
}

impl Standing {
    /// The words for it.
    pub fn words(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Undone => "undone",
            Self::Failed => "failed",
            Self::Asked => "waiting for a person",
            Self::Interrupted => "interrupted",
            Self::Open => "not finished",
            Self::Undoing => "undo not finished",
            Self::Stuck => "stuck",
            Self::Abandoned => "abandoned",
        }
    }
}

/// Where a step stands, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Word {
    /// Done by this run.
    Done,
    /// Nothing had to be done.
    AlreadySo,
    /// A hold that is not up because nothing needs it, or a step that nobody asked anything of.
    NotNeeded,
    /// Begun, and not known to be done.
    Begun,
    /// The run stopped here.
    Failed,
    /// A person was asked and has not acted yet.
    Asked,
    /// Its turn has not come.
    Pending,
    /// Its undo is begun.
    Undoing,
    /// Back as it was.
    Undone,
    /// Its undo went wrong.
    UndoFailed,
}

impl Word {
    /// The words for it.
    pub fn words(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::AlreadySo => "already so",
            Self::NotNeeded => "not needed",
            Self::Begun => "begun",
            Self::Failed => "failed",
            Self::Asked => "asked",
            Self::Pending => "not begun",
            Self::Undoing => "undo begun",
            Self::Undone => "undone",
            Self::UndoFailed => "undo failed",
        }
    }
}

/// A step.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Its key.
    pub key: String,
    /// Its title.
    pub title: String,
    /// What it may do.
    pub risk: Risk,
    /// The step that takes its effect back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holds_until: Option<String>,
    /// Where it stands.
    pub word: Word,
    /// Its undo was passed: what it did stays.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub passed: bool,
    /// From when its turn came to when it was done, failed or last heard of.
    #[serde(rename = "elapsed_ms", serialize_with = "millis", skip_serializing_if = "Option::is_none")]
    pub elapsed: Option<std::time::Duration>,
    /// What its checks said besides, each line once.
    pub notes: Vec<String>,
    /// What it set out to change.
    pub changes: Vec<Change>,
    /// Its changing calls.
    pub calls: Vec<CallRow>,
    /// What a person was asked.
    pub asks: Vec<String>,
    /// Its run files.
    pub files: Vec<String>,
    /// When it fell, for a hold that somebody else took down.
    pub fell: Vec<Fell>,
    /// Every failure, oldest first; the last one stands where the word says so.
    pub troubles: Vec<Trouble>,
}

/// A changing call.
#[derive(Debug, Clone, Serialize)]
pub struct CallRow {
    /// Its number in the run.
    pub number: u64,
    /// Where it went.
    pub system: System,
    /// What it was.
    pub text: String,
    /// Whether it may be sent again.
    pub again: Again,
    /// Made while undoing.
    pub undo: bool,
    /// What it left: kind and value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<(String, String)>,
}

/// A hold that was taken down by somebody else.
#[derive(Debug, Clone, Serialize)]
pub struct Fell {
    /// When it was found out.
    pub at: Timestamp,
    /// What was different.
    pub changes: Vec<Change>,
    /// Who, as far as it can be seen.
    pub notes: Vec<String>,
    /// It was done because the run had asked for it. Who knows the steps fills it in.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub as_asked: bool,
}

/// A failure.
#[derive(Debug, Clone, Serialize)]
pub struct Trouble {
    /// When.
    pub at: Timestamp,
    /// The error and its causes, outermost first.
    pub error: Vec<String>,
    /// What the failing call may have changed; None for a failed undo.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
    /// What to do next.
    pub help: Vec<String>,
}

pub(super) fn millis<S: serde::Serializer>(elapsed: &Option<std::time::Duration>, to: S) -> Result<S::Ok, S::Error> {
    match elapsed {
        Some(elapsed) => to.serialize_u64(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)),
        None => to.serialize_none(),
    }
}

impl Report {
    /// What the records of a run say; None for an empty journal.
    ///
    /// # Errors
    /// [`Illegal`] names the first line that breaks a rule.
    pub fn of(run: &str, records: &[Record]) -> Result<Option<Self>, Illegal> {
        let Some(state) = RunState::fold(records)? else { return Ok(None) };
        let mut rows: Vec<Tracked> = state.opened.plan.iter().map(Tracked::new).collect();
        let mut before = state.since;
        let mut calls = BTreeMap::new();
        let mut comment = None;
        for record in records {
            if let Event::Call { note, .. } = &record.event {
                *calls.entry(note.system).or_insert(0) += 1;
            }
            if let Event::Abandoned { comment: why } = &record.event {
                comment = Some(why.clone());
            }
            let row = record.event.key().and_then(|key| rows.iter_mut().find(|row| row.row.key == key.as_str()));
            if let Some(row) = row {
                row.take(record, before);
            }
            before = record.at;
        }
        let failed = state.failure.as_ref().map(|(key, _)| key);
        let steps: Vec<Row> = rows.into_iter().map(|row| row.finish(&state, failed)).collect();
        let opened = Opened::clone(&state.opened);
        let stays: Vec<_> = stays(records).collect();
        let done = |row: &Row| matches!(row.word, Word::Done | Word::Begun | Word::Failed);
        let destroyed = steps
            .iter()
            .filter(|row| row.risk == Risk::Destroys && (done(row) || row.passed))
            .filter(|row| !row.calls.is_empty())
            .map(|row| format!("{}: {}", row.key, row.title))
            .collect();
        Ok(Some(Self {
            run: run.to_owned(),
            migration: opened.migration,
            blueprint: opened.blueprint,
            blueprint_version: opened.blueprint_version,
            site: opened.site,
            site_digest: opened.site_digest,
            tool: opened.tool,
            host: opened.host,
            argv: opened.argv,
            single: opened.single,
            began: state.since,
            last: state.last,
            standing: standing(&state, &steps, records),
            comment,
            consents: state.consents.iter().map(ToString::to_string).collect(),
            destroyed,
            stays: stays.iter().map(|(key, why)| format!("{key}: {why}")).collect(),
            holds_up: state.holds_up().into_iter().map(ToString::to_string).collect(),
            calls,
            outages: Vec::new(),
            routes: routes(&steps),
            by_hand: by_hand(records),
            fold_back: Vec::new(),
            next: next_commands(run, &state),
            steps,
        }))
    }

    /// How long it took, from the first line to the last.
    pub fn elapsed(&self) -> std::time::Duration {
        between(self.began, self.last)
    }
}

/// What the guests' notes say of the ways that answered.
fn routes(steps: &[Row]) -> BTreeMap<String, Vec<String>> {
    let mut routes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in steps {
        for route in row.notes.iter().filter_map(|note| route_of(note)) {
            routes.entry(route.to_owned()).or_default().push(row.key.clone());
        }
    }
    routes
}

fn by_hand(records: &[Record]) -> Vec<ByHand> {
    /// An ask of a step; `back`: of its undo.
    struct Of<'a> {
        key: &'a StepKey,
        back: bool,
        by: ByHand,
    }
    let mut all: Vec<Of<'_>> = Vec::new();
    // A check is written right before what it asks for, and says whether it was the undo's.
    let mut undo = false;
    for record in records {
        let Some(key) = record.event.key() else { continue };
        let open = |of: &&mut Of<'_>| of.key == key && of.by.there.is_none() && !of.by.undone;
        match &record.event {
            Event::Checked { back, .. } => undo = *back,
            Event::Asked { ask, .. } => {
                // Asked again after a resume, it is the same.
                let known = all.iter_mut().filter(open).any(|of| of.by.ask == *ask && of.back == undo);
                if !known {
                    let by = ByHand {
                        step: key.to_string(),
                        ask: ask.clone(),
                        asked: record.at,
                        there: None,
                        undone: false,
                    };
                    all.push(Of { key, back: undo, by });
                }
            }
            Event::Applied { .. } | Event::AlreadySo { .. } => {
                all.iter_mut().filter(open).for_each(|of| of.by.there = Some(record.at));
            }
            // Where the run asked, the undo has found that nothing is owed: that is no sign that anybody did it.
            Event::Undone { passed, .. } => all.iter_mut().filter(open).for_each(|of| match (of.back, passed) {
                (true, false) => of.by.there = Some(record.at),
                _ => of.by.undone = true,
            }),
            _ => {}
        }
    }
    all.into_iter().map(|of| of.by).collect()
}

/// What an undo left as it is.
pub fn stays(records: &[Record]) -> impl Iterator<Item = (&StepKey, &str)> {
    records.iter().flat_map(|record| {
        let (key, stays) = match &record.event {
            // Before that was a field of its own, it stood in the notes.
            Event::Undone { key, stays, passed: true, notes } if stays.is_empty() => (Some(key), notes.as_slice()),
            Event::Undone { key, stays, .. } => (Some(key), stays.as_slice()),
            _ => (None, Default::default()),
        };
        stays.iter().filter_map(move |note| Some((key?, note.as_str())))
    })
}

/// The commands that are possible with a run as it stands.
pub fn next_commands(run: &str, state: &RunState) -> Vec<String> {
    let resume = format!("pvemig resume {run}");
    let undo = format!("pvemig undo {run}");
    let abandon = format!("pvemig abandon {run} --comment TEXT");
    match state.phase {
        Phase::Forward if state.changed || state.steps.values().any(|step| step.owes()) => vec![resume, undo, abandon],
        Phase::Forward => vec![resume, abandon],
        Phase::Done if state.steps.values().any(|step| step.owes()) => vec![undo],
        Phase::Undoing | Phase::Stuck => vec![undo, abandon],
        Phase::Done | Phase::Undone | Phase::Abandoned => Vec::new(),
    }
}

fn standing(state: &RunState, steps: &[Row], records: &[Record]) -> Standing {
    match state.phase {
        Phase::Done => Standing::Done,
        Phase::Undone => Standing::Undone,
        Phase::Abandoned => Standing::Abandoned,
        Phase::Stuck => Standing::Stuck,
        Phase::Undoing => Standing::Undoing,
        Phase::Forward if state.failure.is_some() => Standing::Failed,
        Phase::Forward if matches!(records.last().map(|r| &r.event), Some(Event::Interrupted { .. })) => {
            Standing::Interrupted
        }
        Phase::Forward => {
            let at = steps.iter().find(|row| !matches!(row.word, Word::Done | Word::AlreadySo | Word::NotNeeded));
            if at.is_some_and(|row| row.word == Word::Asked) { Standing::Asked } else { Standing::Open }
        }
    }
}
