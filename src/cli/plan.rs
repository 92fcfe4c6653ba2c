//! `pvemig plan MIGRATION`: what would be done, without doing it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use console::{style, truncate_str};

use crate::base::check::{Answer, Problem, not_needed};
use crate::base::names::StepKey;
use crate::base::permit::Thing;
use crate::base::wait::{show, within};
use crate::blueprint::{self, Blueprint, BoxedStep};
use crate::engine::lately::Lately;
use crate::engine::plan::{Line, Said};
use crate::engine::recorder::{Recorder, Wiring};
use crate::engine::run::{Engine, Hand, Policy};
use crate::engine::step::RunInfo;

use super::args::{Global, PlanArgs};
use super::exit::Exit;
use super::foot::Foot;
use super::out::Out;
use super::scratch::Scratch;
use super::session::{Session, plural};
use super::words::lay;
use super::work::refuse_consents;

pub(super) async fn plan(global: &Global, args: &PlanArgs, out: &Out) -> anyhow::Result<Exit> {
    let out = &out.for_data();
    let scratch = Scratch::new()?;
    let session = Session::asking(global, out, &scratch)?;
    let (blueprint, steps) = session.migration(&args.migration)?;
    refuse_consents(&session, &steps, None, &args.destroy)?;
    let looked = look(&session, blueprint, Some(&args.migration), &steps, &args.destroy);
    // A signal ends it here, so that the scratch directory goes as well.
    let lines = tokio::select! {
        lines = looked => lines,
        () = stopped() => return Ok(Exit::Interrupted),
    };
    session.estate.farewell().await;
    let lines = lines?;
    let foot = Foot::of_plan(&session, blueprint, Some(&args.migration), &steps, &lines);
    let in_the_way: usize = barred(&lines).iter().map(|(_, problems)| problems.len()).sum();
    if out.json {
        let mut summary = serde_json::to_value(&foot)?;
        summary["blocked"] = in_the_way.into();
        out.data(&format!("{}\n", serde_json::json!({ "steps": json(&lines), "summary": summary })))?;
    } else {
        // The last line is what a small terminal still shows.
        let end = match in_the_way {
            0 => String::new(),
            n => format!("\nblocked: {} above, and nothing begins before that is mended\n", plural(n, "problem")),
        };
        out.data(&format!("{}\n{}{end}", text(&lines, *out), foot.text(*out)))?;
    }
    Ok(if args.exit_code { exit_of(&lines) } else { error_exit(&lines) })
}

/// Ends with the first signal that asks this process to end.
pub(super) async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut int), Ok(mut term)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = int.recv() => {}
        _ = term.recv() => {}
    }
}

/// Asks the steps of a plan; nothing is written anywhere.
pub(super) async fn look(
    session: &Session,
    blueprint: &Blueprint,
    migration: Option<&str>,
    steps: &[BoxedStep],
    consents: &[String],
) -> anyhow::Result<Vec<Line>> {
    let opened = session.opened(blueprint, migration, steps, false)?;
    let recorder = Recorder::scratch(opened, &Wiring { clock: session.clock, ..Wiring::default() })?;
    let given: BTreeSet<_> = consents.iter().map(|thing| Thing(thing.clone())).collect();
    let engine = Engine {
        cx: &session.estate,
        steps,
        guard: None,
        recorder,
        policy: Policy { hand: Hand::Stop, patience: session.site.patience, limit: Some(Duration::ZERO) },
        info: RunInfo {
            migration: migration.map(str::to_owned),
            consents: given.clone(),
            granted: given,
            ..session.store.info("", &session.host)?
        },
        lately: Lately::default(),
    };
    Ok(patiently(session, engine.look()).await?)
}

/// On a terminal it is said that it is still asking, where that takes its time: a system that is away is asked again.
async fn patiently<T>(session: &Session, asked: impl Future<Output = T>) -> T {
    let since = session.clock.instant();
    let mut asked = std::pin::pin!(asked);
    let mut line = Asking { out: session.out, drawn: false };
    loop {
        if let Ok(done) = within(Duration::from_secs(1), &mut asked).await {
            return done;
        }
        line.draw(session.clock.instant().duration_since(since));
    }
}

/// The line that says so. It goes away with the asking, however that ends.
struct Asking {
    out: Out,
    drawn: bool,
}

impl Asking {
    fn draw(&mut self, waited: Duration) {
        if self.out.live && waited >= Duration::from_secs(2) {
            let text = format!("  … asking, {}; -vvv shows every request", show(Duration::from_secs(waited.as_secs())));
            let text = truncate_str(&text, self.out.room(), "…");
            self.out.write(&format!("\r\x1b[2K{}", style(text).for_stderr().dim()));
            self.drawn = true;
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if self.drawn {
            self.out.write("\r\x1b[2K");
        }
    }
}

/// The plan as lines for a person. A title is said only where it is so, or is what the step sets out to do.
pub(super) fn text(lines: &[Line], out: Out) -> String {
    let mut text = String::new();
    let mut line = |head: &str, words: &str, hang: usize| {
        for part in lay(head, &out.commands(words), hang, out.width()) {
            let _infallible = writeln!(text, "{part}");
        }
    };
    for Line { key, title, said } in lines {
        let head = |symbol: &str, word: &str| format!("{symbol} {:<24} {word:<10} ", key.to_string());
        let hang = head("=", "").chars().count();
        match said {
            Said::Answer(check) => match &check.answer {
                // Of a hold that is not put up the notes say why; its title is the state that it would bring about.
                Answer::Done if blueprint::is_hold(key.id()) && !check.notes.is_empty() => {
                    line(head("=", "done").trim_end(), "", hang)
                }
                Answer::Done => match not_needed(&check.notes) {
                    Some(why) => {
                        line(&head("·", "not needed"), &why, hang);
                        continue;
                    }
                    None => line(&head("=", "done"), title, hang),
                },
                Answer::Todo { changes, .. } => {
                    line(&head("~", "to do"), title, hang);
                    changes.iter().for_each(|c| line("      ", &c.to_string(), 8));
                }
                Answer::Manual { ask, hint, .. } => {
                    line(&head("?", "by hand"), ask, hang);
                    hint.iter().for_each(|h| line("      ", h, 8));
                }
                Answer::Waiting { reason, .. } => line(&head("…", "waiting"), reason, hang),
                Answer::Blocked { problems } => {
                    line(head("✗", "blocked").trim_end(), "", hang);
                    for (problem, at) in alike(problems) {
                        let tag = problem.tag().map(|tag| format!(" {tag}")).unwrap_or_default();
                        line("      - ", &format!("{}{at}{tag}", problem.text), 8);
                        line("        help: ", &problem.help, 10);
                    }
                    if problems.iter().any(|problem| problem.finding.is_some()) {
                        line("      ", MORE, 8);
                    }
                }
            },
            Said::NotNeeded => line(&head("·", "not needed"), "nothing that it would guard has to be done", hang),
            Said::After(first) => {
                line(&head("○", &format!("after {}", number(first.id()))), title, hang);
            }
            Said::Failed(failure) => {
                line(&head("✗", "unknown"), &failure.to_string(), hang);
                failure.chain().iter().skip(1).for_each(|cause| line("        caused by: ", cause, 10));
                failure.fault().help().iter().for_each(|h| line("        help: ", h, 10));
            }
        }
        if let Said::Answer(check) = said {
            check.notes.iter().for_each(|n| line("      ", n, 8));
        }
    }
    text
}

/// What stands below findings that have a name.
pub(super) const MORE: &str = "`pvemig explain NAME` says more of what is named in brackets";

/// The number that a step is known by: `04` of `04-add-usb`.
pub(super) fn number(id: &str) -> &str {
    id.split('-').next().unwrap_or(id)
}

/// Problems, of those that are the same at several nodes the first one with all of them.
pub(super) fn alike<'p>(problems: impl IntoIterator<Item = &'p Problem>) -> Vec<(&'p Problem, String)> {
    let mut all: Vec<(&Problem, Vec<&str>)> = Vec::new();
    for problem in problems {
        let key = |p: &'p Problem| (&p.text, &p.help, &p.mended_by, &p.finding);
        let at = problem.protects.as_ref().and_then(|step| step.instance());
        match all.iter_mut().find(|(first, _)| key(first) == key(problem)) {
            Some((_, nodes)) => nodes.extend(at.filter(|at| !nodes.contains(at)).into_iter().collect::<Vec<_>>()),
            None => all.push((problem, at.into_iter().collect())),
        }
    }
    let several =
        |nodes: Vec<&str>| if nodes.len() > 1 { format!(" (at {})", nodes.join(", ")) } else { String::new() };
    all.into_iter().map(|(problem, nodes)| (problem, several(nodes))).collect()
}

/// What a run would stop at: a step with problems that no earlier step of the plan mends.
pub(super) fn barred(lines: &[Line]) -> Vec<(&StepKey, Vec<&Problem>)> {
    let mut barred = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Said::Answer(check) = &line.said else { continue };
        let Answer::Blocked { problems } = &check.answer else { continue };
        let mends = |id: &str| lines.iter().take(at).any(|earlier| earlier.key.id() == id && !done(earlier));
        let stays: Vec<_> = problems.iter().filter(|p| !p.mended_by.as_deref().is_some_and(mends)).collect();
        if !stays.is_empty() {
            barred.push((&line.key, stays));
        }
    }
    barred
}

/// Whether a line has nothing to do.
pub(super) fn done(line: &Line) -> bool {
    match &line.said {
        Said::Answer(check) => check.is_done(),
        Said::NotNeeded => true,
        Said::After(_) | Said::Failed(_) => false,
    }
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
    match lines.iter().find(|l| !done(l)).map(|l| &l.said) {
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

/// Without `--exit-code` what a run would not begin with is blocked, as it is there: whatever else could not be asked for
/// the same cause. Else what could not be asked is a failure.
fn error_exit(lines: &[Line]) -> Exit {
    if !barred(lines).is_empty() {
        Exit::Blocked
    } else if lines.iter().any(|l| matches!(l.said, Said::Failed(_))) {
        Exit::Failed
    } else {
        Exit::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_at_several_nodes_is_said_once() {
        let of = |text: &str, help: &str, node: Option<&str>| {
            let key = node.map(|node| StepKey::new("01-quorum-gate", Some(node)));
            Problem { protects: key, ..Problem::new(text, help) }
        };
        let all = [
            of("a learner", "wait", Some("n1")),
            of("a learner", "wait", Some("n2")),
            of("a learner", "remove it", Some("n3")),
            of("a learner", "wait", Some("n2")),
            of("alone", "x", Some("n1")),
            of("twice", "x", None),
            of("twice", "x", None),
        ];
        let said: Vec<_> = alike(&all).into_iter().map(|(p, at)| format!("{}{at}: {}", p.text, p.help)).collect();
        assert_eq!(said, ["a learner (at n1, n2): wait", "a learner: remove it", "alone: x", "twice: x"]);
    }
}
