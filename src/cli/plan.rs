//! `pvemig plan MIGRATION`: what would be done, without doing it.

use std::fmt::Write as _;
use std::time::Duration;

use crate::base::check::Answer;
use crate::blueprint::{Blueprint, BoxedStep};
use crate::engine::plan::{Line, Said};
use crate::engine::recorder::{Recorder, Wiring};
use crate::engine::run::{Engine, Hand, Policy};

use super::args::{Global, PlanArgs};
use super::exit::Exit;
use super::out::Out;
use super::session::Session;

pub(super) async fn plan(global: &Global, args: &PlanArgs, out: &Out) -> anyhow::Result<Exit> {
    let session = Session::open(global, out)?;
    let (blueprint, steps) = session.migration(&args.migration)?;
    let lines = look(&session, blueprint, Some(&args.migration), &steps).await?;
    if out.json {
        out.data(&format!("{}\n", json(&lines)))?;
    } else {
        out.data(&text(&lines, out.width()))?;
    }
    Ok(if args.exit_code { exit_of(&lines) } else { error_exit(&lines) })
}

/// Asks the steps of a plan; nothing is written anywhere.
pub(super) async fn look(
    session: &Session,
    blueprint: &Blueprint,
    migration: Option<&str>,
    steps: &[BoxedStep],
) -> anyhow::Result<Vec<Line>> {
    let opened = session.opened(blueprint, migration, steps, false)?;
    let recorder = Recorder::scratch(opened, &Wiring { clock: session.clock, ..Wiring::default() })?;
    let engine = Engine {
        cx: &session.estate,
        steps,
        guard: None,
        recorder,
        policy: Policy { hand: Hand::Stop, patience: session.site.patience, limit: Some(Duration::ZERO) },
        info: session.store.info("", &session.host)?,
    };
    Ok(engine.look().await?)
}

/// The plan as lines for a person.
pub(super) fn text(lines: &[Line], width: usize) -> String {
    let mut text = String::new();
    let mut line = |indent: &str, words: &str| {
        let room = width.saturating_sub(indent.len()).max(20);
        for (n, part) in wrap(words, room).into_iter().enumerate() {
            let lead = if n == 0 { indent.to_owned() } else { " ".repeat(indent.chars().count()) };
            let _infallible = writeln!(text, "{lead}{part}");
        }
    };
    for Line { key, title, said } in lines {
        let head = |symbol: &str, word: &str| format!("{symbol} {:<24} {word:<9} ", key.to_string());
        match said {
            Said::Answer(check) => match &check.answer {
                Answer::Done => line(&head("=", "done"), title),
                Answer::Todo { changes, .. } => {
                    line(&head("~", "to do"), title);
                    changes.iter().for_each(|c| line("      ", &c.to_string()));
                }
                Answer::Manual { ask, hint, .. } => {
                    line(&head("?", "by hand"), ask);
                    hint.iter().for_each(|h| line("      ", h));
                }
                Answer::Waiting { reason, .. } => line(&head("…", "waiting"), reason),
                Answer::Blocked { problems } => {
                    line(&head("✗", "blocked"), title);
                    for problem in problems {
                        let for_step = problem.protects.as_ref().map(|k| format!(" [{k}]")).unwrap_or_default();
                        line("      - ", &format!("{}{for_step}", problem.text));
                        line("        help: ", &problem.help);
                    }
                }
            },
            Said::NotNeeded => line(&head("=", "no need"), title),
            Said::After(first) => {
                let number = first.id().split('-').next().unwrap_or_default();
                line(&head("·", &format!("after {number}")), title);
            }
            Said::Failed(failure) => {
                line(&head("✗", "unknown"), &failure.to_string());
                failure.fault().help().iter().for_each(|h| line("        help: ", h));
            }
        }
        if let Said::Answer(check) = said {
            check.notes.iter().for_each(|n| line("      ", n));
        }
    }
    text
}

/// Breaks at spaces, and in words that are longer than a line.
pub(super) fn wrap(words: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for mut word in words.split_whitespace() {
        let Some(last) = lines.last_mut() else { break };
        if !last.is_empty() && last.chars().count() + 1 + word.chars().count() > room {
            lines.push(String::new());
        } else if !last.is_empty() {
            last.push(' ');
        }
        while let Some((at, _)) = word.char_indices().nth(room) {
            let (head, tail) = word.split_at(at);
            lines.last_mut().into_iter().for_each(|last| last.push_str(head));
            lines.push(String::new());
            word = tail;
        }
        lines.last_mut().into_iter().for_each(|last| last.push_str(word));
    }
    lines
}

fn json(lines: &[Line]) -> serde_json::Value {
    let said = |said: &Said| match said {
        Said::Answer(check) => serde_json::json!({ "answer": check.answer, "notes": check.notes }),
        Said::NotNeeded => serde_json::json!({ "not-needed": true }),
        Said::After(key) => serde_json::json!({ "after": key }),
        Said::Failed(failure) => serde_json::json!({ "error": failure.chain() }),
    };
    let line = |l: &Line| serde_json::json!({ "step": l.key, "title": l.title, "said": said(&l.said) });
    lines.iter().map(line).collect()
}

/// The exit code by the first thing that is not done.
fn exit_of(lines: &[Line]) -> Exit {
    let not_done = |l: &&Line| match &l.said {
        Said::Answer(check) => !check.is_done(),
        Said::NotNeeded => false,
        Said::After(_) | Said::Failed(_) => true,
    };
    match lines.iter().find(not_done).map(|l| &l.said) {
        None => Exit::Done,
        Some(Said::Failed(_)) => Exit::Failed,
        Some(Said::Answer(check)) => match check.answer {
            Answer::Blocked { .. } => Exit::Blocked,
            Answer::Manual { .. } => Exit::Manual,
            _ => Exit::Pending,
        },
        Some(_) => Exit::Pending,
    }
}

/// Without `--exit-code` only what could not be asked is a failure.
fn error_exit(lines: &[Line]) -> Exit {
    if lines.iter().any(|l| matches!(l.said, Said::Failed(_))) { Exit::Failed } else { Exit::Done }
}

#[cfg(test)]
mod tests {
    use super::wrap;

    #[test]
    fn words_are_kept_whole_where_they_fit_and_broken_where_they_do_not() {
        assert_eq!(wrap("vm 108 gets it", 7), ["vm 108", "gets it"]);
        assert_eq!(wrap("~ a/very/long/path x", 6), ["~", "a/very", "/long/", "path x"]);
        assert_eq!(wrap("", 5), [""]);
        assert_eq!(wrap("any length", usize::MAX), ["any length"]);
    }
}
