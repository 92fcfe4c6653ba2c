//! How an error and a stop are told: what, why, whether anything changed, and what to do now.

use console::style;

use crate::base::fault::{Effect, Failure};
use crate::engine::recorder::RecordError;
use crate::engine::run::{Ended, Stop, Why};
use crate::engine::state::{Phase, RunState, Stage};
use crate::engine::store::StoreError;
use crate::site::SiteError;

use super::exit::Exit;
use super::out::Out;
use super::session::Session;

/// An error in words, with its exit code.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(super) struct Words {
    text: String,
    causes: Vec<String>,
    help: Vec<String>,
    exit: Exit,
}

impl Words {
    /// A wrong command line or site file.
    pub(super) fn usage(text: impl Into<String>, help: impl Into<String>) -> Self {
        Self { text: text.into(), causes: Vec::new(), help: vec![help.into()], exit: Exit::Usage }
    }

    /// Anything else.
    pub(super) fn new(exit: Exit, text: impl Into<String>, help: Vec<String>) -> Self {
        Self { text: text.into(), causes: Vec::new(), help, exit }
    }
}

/// A provider's failure outside of a run.
pub(super) fn failure(failure: Failure) -> Words {
    let mut chain = failure.chain().into_iter();
    let text = chain.next().unwrap_or_default();
    Words { text, causes: chain.collect(), help: failure.fault().help().into_iter().collect(), exit: Exit::Failed }
}

/// A site file with problems.
pub(super) fn site_error(error: &SiteError, width: usize) -> Words {
    let (text, causes, help) = match error {
        SiteError::Invalid(invalid) => (invalid.render(width), Vec::new(), Vec::new()),
        SiteError::Unreadable { source, .. } => {
            (error.to_string(), vec![source.to_string()], vec!["`--site FILE` names another".to_owned()])
        }
    };
    Words { text, causes, help, exit: Exit::Usage }
}

/// Prints an error and gives its exit code.
pub(super) fn show(out: &Out, error: &anyhow::Error) -> Exit {
    if let Some(words) = error.downcast_ref::<Words>() {
        tell(out, &words.text, &words.causes, None, &words.help);
        return words.exit;
    }
    if let Some(StoreError::Held { holder, .. }) = error.downcast_ref() {
        let help = vec![
            format!("wait for it, or stop it (process {} on {})", holder.pid, holder.host),
            "`pvemig status` shows how far it is".to_owned(),
        ];
        tell(out, &error.to_string(), &[], None, &help);
        return Exit::Held;
    }
    let causes: Vec<_> = error.chain().skip(1).map(ToString::to_string).collect();
    let help = match (error.downcast_ref::<StoreError>(), error.downcast_ref::<RecordError>()) {
        (Some(StoreError::NoRun { .. } | StoreError::Ambiguous { .. }), _) => {
            vec!["`pvemig status --all` lists the runs".to_owned()]
        }
        (Some(_), _) => vec!["`--state DIR` names another state directory".to_owned()],
        (_, Some(_)) => vec!["nothing is changed without a journal; mend that, then `pvemig resume`".to_owned()],
        _ => Vec::new(),
    };
    tell(out, &error.to_string(), &causes, None, &help);
    match error.downcast_ref::<StoreError>() {
        Some(StoreError::NoRun { .. } | StoreError::Ambiguous { .. }) => Exit::Usage,
        _ => Exit::Failed,
    }
}

fn tell(out: &Out, text: &str, causes: &[String], effect: Option<&str>, help: &[String]) {
    // A site file's problems are rendered whole, each with its own `error:`.
    let text = text.strip_prefix("error: ").unwrap_or(text);
    out.say(&format!("{} {text}", style("error:").for_stderr().red().bold()));
    for cause in causes {
        out.say(&format!("  caused by: {cause}"));
    }
    if let Some(effect) = effect {
        out.say(&format!("  {effect}"));
    }
    for line in help {
        out.say(&format!("  {} {line}", style("help:").for_stderr().cyan()));
    }
}

/// Tells how a run ended in this process and what is possible now; gives the exit code.
pub(super) fn ended(session: &Session, state: &RunState, id: &str, ended: &Ended) -> Exit {
    let Ended::Stopped(stop) = ended else { return Exit::Done };
    let out = &session.out;
    let exit = stopped(out, state, stop);
    let up = state.holds_up();
    if !up.is_empty() {
        let up: Vec<_> = up.iter().map(ToString::to_string).collect();
        out.say(&format!("  still held: {}", up.join(", ")));
    }
    out.say("");
    for line in possible(state.phase, id, &stop.why) {
        out.say(&line);
    }
    exit
}

fn stopped(out: &Out, state: &RunState, stop: &Stop) -> Exit {
    let step = format!("step {}", stop.key);
    match &stop.why {
        Why::Failed { error, effect, help } => {
            tell(out, &format!("{step} failed: {}", stop.title), error, Some(effect_words(*effect)), help);
            Exit::Failed
        }
        Why::Blocked(problems) => {
            let effect = effect_words(state.effect(&stop.key, Effect::None));
            tell(out, &format!("{step} is blocked: {}", stop.title), &[], Some(effect), &[]);
            for problem in problems {
                let first = problem.mended_by.as_ref().map(|id| format!(" (step {id} mends it)")).unwrap_or_default();
                out.say(&format!("  - {}{first}", problem.text));
                out.say(&format!("    {} {}", style("help:").for_stderr().cyan(), problem.help));
            }
            Exit::Blocked
        }
        Why::Manual { ask, hint, .. } => {
            out.say(&format!("{} {step} needs you: {ask}", style("waiting:").for_stderr().yellow().bold()));
            if let Some(hint) = hint {
                out.say(&format!("  {hint}"));
            }
            Exit::Manual
        }
        Why::HoldFell { holder, changes, notes } => {
            let causes: Vec<_> = changes.iter().map(ToString::to_string).chain(notes.iter().cloned()).collect();
            let so = if state.stage(&stop.key) == Stage::Begun { "does not go on" } else { "was not begun" };
            let text = format!("hold {holder} does not stand any more, so {} {so}", stop.key);
            let help = "find out what took it down; the next command below puts it up again".to_owned();
            tell(out, &text, &causes, None, &[help]);
            Exit::Failed
        }
        Why::Stuck { error, help } => {
            tell(out, &format!("the undo of {step} failed"), error, None, help);
            Exit::Stuck
        }
        Why::Consent { past, notes, .. } => {
            let text = match past {
                Some(key) => format!("{key} cannot be undone"),
                None => "the undo would destroy what has been written since".to_owned(),
            };
            tell(out, &text, notes, Some("nothing was changed"), &[]);
            Exit::Blocked
        }
        Why::Interrupted => {
            tell(out, &format!("interrupted in {step}"), &[], Some("what was begun is in the journal"), &[]);
            Exit::Interrupted
        }
    }
}

fn effect_words(effect: Effect) -> &'static str {
    match effect {
        Effect::None => "nothing was changed by it",
        Effect::Maybe => "it may have changed something; resume looks first",
        Effect::Partial => "some of it may have been changed; resume looks first",
    }
}

/// A line that cannot be written: the holds and the possible commands are said all the same.
pub(super) fn unwritten(error: RecordError, state: &RunState, id: &str) -> anyhow::Error {
    let causes = std::iter::successors(std::error::Error::source(&error), |e| e.source()).map(ToString::to_string);
    let mut words = Words::new(Exit::Failed, error.to_string(), Vec::new());
    words.causes = causes.collect();
    if matches!(error, RecordError::Journal(_) | RecordError::File(_)) {
        words.help.push("make room or rights in the state directory; nothing is changed without a journal".to_owned());
    }
    let up: Vec<_> = state.holds_up().iter().map(ToString::to_string).collect();
    if !up.is_empty() {
        words.help.push(format!("still held: {}", up.join(", ")));
    }
    words.help.extend(possible(state.phase, id, &Why::Interrupted).into_iter().map(|line| line.trim().to_owned()));
    words.into()
}

/// The commands that are possible now.
pub(super) fn possible(phase: Phase, id: &str, why: &Why) -> Vec<String> {
    let mut lines = Vec::new();
    if let Why::Consent { things, past, .. } = why {
        let consents: String = things.iter().map(|t| format!(" --destroy {t}")).collect();
        let past = past.as_ref().map(|key| format!(" --past {}", key.id())).unwrap_or_default();
        lines.push(format!("  pvemig undo {id}{consents}{past}"));
    } else {
        if phase == Phase::Forward {
            lines.push(format!("  pvemig resume {id}      go on from here"));
        }
        lines.push(format!("  pvemig undo {id}        take everything back"));
    }
    if phase != Phase::Done {
        lines.push(format!("  pvemig abandon {id} --comment '...'   leave it as it stands"));
    }
    lines
}
