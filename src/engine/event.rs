//! The journal's lines.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::check::{Change, Hands};
use crate::base::fault::Effect;
use crate::base::names::StepKey;
use crate::base::permit::{CallId, Handle, Note, Thing};

/// The version of the journal's format. A change of it comes with a fixture of the old one.
pub const FORMAT: u32 = 1;

/// One line: an event with its place and time. The checksum lives in the file only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The format's version.
    pub v: u32,
    /// The line's number, from 0.
    pub seq: u64,
    /// When it was written. Never used to decide anything but where to look for a lost pve task.
    pub at: jiff::Timestamp,
    /// What happened.
    pub event: Event,
}

/// One step of a plan as the journal keeps it: enough to rebuild the step without the site's parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// Its key in this plan.
    pub key: StepKey,
    /// Its title, with the real names.
    pub title: String,
    /// What it may do.
    pub risk: super::step::Risk,
    /// The id of the step that takes its effect back, for a hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holds_until: Option<String>,
    /// The step's own fields.
    pub step: Value,
}

/// The first line of a journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Opened {
    /// The tool's version.
    pub tool: String,
    /// The site's name.
    pub site: String,
    /// The SHA-256 of the site file.
    pub site_digest: String,
    /// The migration's name in the site, or none for a step that got all its parameters by flags.
    pub migration: Option<String>,
    /// The blueprint's name.
    pub blueprint: String,
    /// The blueprint's version.
    pub blueprint_version: u32,
    /// True for `pvemig step`: a plan of one.
    pub single: bool,
    /// The command line.
    pub argv: Vec<String>,
    /// The machine.
    pub host: String,
    /// The whole plan, in order.
    pub plan: Vec<Planned>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Every step is applied or was already so. It can be undone.
    Done,
    /// Everything is back as it was before.
    Undone,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Event {
    /// The run began; always the first line, and only there.
    Opened(Box<Opened>),
    /// The operator consented to the loss of a thing.
    Consented {
        /// The thing.
        thing: Thing,
    },
    /// A check (or, `back`, its undo twin) answered.
    Checked {
        /// The step.
        key: StepKey,
        /// The word of the answer, or `error`.
        answer: String,
        /// True where the question was `back`.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        back: bool,
        /// What it said besides.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        notes: Vec<String>,
    },
    /// Nothing had to be done, and nothing is owed to undo.
    AlreadySo {
        /// The step.
        key: StepKey,
        /// True for a hold that is not up because nothing needs it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        needless: bool,
        /// What the check said besides.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        notes: Vec<String>,
    },
    /// Intent: from here on undo owes a restore to `before`. The first one of a step wins.
    Applying {
        /// The step.
        key: StepKey,
        /// What undo restores.
        before: Value,
        /// What will be different.
        changes: Vec<Change>,
    },
    /// A changing request is about to go out.
    Call {
        /// The step.
        key: StepKey,
        /// The call's number in this run, from 1.
        call: CallId,
        /// What it is.
        note: Note,
    },
    /// What a call left to be recognised by.
    Got {
        /// The step.
        key: StepKey,
        /// The call.
        call: CallId,
        /// The UPID, uid, commit or token.
        handle: Handle,
    },
    /// A run file was stored.
    Filed {
        /// The step.
        key: StepKey,
        /// The file's name below the run's `files/KEY/`.
        name: String,
        /// Its SHA-256, hex.
        sha256: String,
        /// Its length.
        bytes: u64,
    },
    /// The step's check says Done, and we changed something.
    Applied {
        /// The step.
        key: StepKey,
        /// What the check said besides.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        notes: Vec<String>,
    },
    /// A person was asked to act.
    Asked {
        /// The step.
        key: StepKey,
        /// What for.
        ask: String,
        /// What helps.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
        /// The act as data.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hands: Option<Hands>,
        /// What the step's `back` needs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        before: Option<Value>,
    },
    /// A hold was found down, by somebody else's doing.
    HoldFell {
        /// The holding step.
        key: StepKey,
        /// The differences that its check found.
        changes: Vec<Change>,
        /// Who, as far as it can be seen.
        notes: Vec<String>,
    },
    /// The run stopped at a step.
    Failed {
        /// The step.
        key: StepKey,
        /// The error and its causes, outermost first.
        error: Vec<String>,
        /// What may have been changed by the failing call.
        effect: Effect,
        /// What to do next.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        help: Vec<String>,
        /// The consents that count no longer by what was seen.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        voids: Vec<Thing>,
    },
    /// The operator interrupted the run.
    Interrupted {
        /// The step that was at work.
        key: StepKey,
    },
    /// Intent to undo.
    Undoing {
        /// The step.
        key: StepKey,
    },
    /// The step's `back` says Done, or the operator let it pass.
    Undone {
        /// The step.
        key: StepKey,
        /// True where it was passed: what it did stays.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        passed: bool,
        /// What `back` said besides.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        notes: Vec<String>,
        /// Those of the notes that say what is left as it is.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        stays: Vec<String>,
    },
    /// The undo of a step went wrong after it had begun: the run is stuck.
    UndoFailed {
        /// The step.
        key: StepKey,
        /// The error and its causes, outermost first.
        error: Vec<String>,
        /// What may have been changed by the failing call.
        #[serde(default = "maybe")]
        effect: Effect,
        /// What to do next.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        help: Vec<String>,
    },
    /// The operator gave the run up; nothing moves it any more.
    Abandoned {
        /// Why, in the operator's words.
        comment: String,
    },
    /// The run ended.
    Closed {
        /// How.
        outcome: Outcome,
    },
}

fn maybe() -> Effect {
    Effect::Maybe
}

impl Event {
    /// Whether the line must be on the disk before the engine goes on.
    pub fn durable(&self) -> bool {
        !matches!(self, Self::Checked { .. } | Self::AlreadySo { .. } | Self::Asked { .. })
    }

    /// The step that it belongs to, if any.
    pub fn key(&self) -> Option<&StepKey> {
        match self {
            Self::Opened(_) | Self::Consented { .. } | Self::Abandoned { .. } | Self::Closed { .. } => None,
            Self::Checked { key, .. }
            | Self::AlreadySo { key, .. }
            | Self::Applying { key, .. }
            | Self::Call { key, .. }
            | Self::Got { key, .. }
            | Self::Filed { key, .. }
            | Self::Applied { key, .. }
            | Self::Asked { key, .. }
            | Self::HoldFell { key, .. }
            | Self::Failed { key, .. }
            | Self::Interrupted { key }
            | Self::Undoing { key }
            | Self::Undone { key, .. }
            | Self::UndoFailed { key, .. } => Some(key),
        }
    }

    /// The event's name, as in the journal.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Opened(_) => "opened",
            Self::Consented { .. } => "consented",
            Self::Checked { .. } => "checked",
            Self::AlreadySo { .. } => "already-so",
            Self::Applying { .. } => "applying",
            Self::Call { .. } => "call",
            Self::Got { .. } => "got",
            Self::Filed { .. } => "filed",
            Self::Applied { .. } => "applied",
            Self::Asked { .. } => "asked",
            Self::HoldFell { .. } => "hold-fell",
            Self::Failed { .. } => "failed",
            Self::Interrupted { .. } => "interrupted",
            Self::Undoing { .. } => "undoing",
            Self::Undone { .. } => "undone",
            Self::UndoFailed { .. } => "undo-failed",
            Self::Abandoned { .. } => "abandoned",
            Self::Closed { .. } => "closed",
        }
    }
}
