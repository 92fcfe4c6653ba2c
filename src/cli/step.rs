//! `pvemig step STEP`: one step alone, journaled, resumable, undoable.

use std::sync::Arc;

use anyhow::anyhow;
use serde_json::{Value, json};

use crate::base::check::Answer;
use crate::blueprint::{self, Blueprint, BoxedStep, Given, Row};
use crate::engine::plan::Said;
use crate::engine::step::Risk;

use super::args::{Global, StepArgs};
use super::down::unstopped;
use super::exit::Exit;
use super::explain::known_steps;
use super::fail::{self, Words};
use super::foot::Foot;
use super::live::Live;
use super::out::Out;
use super::plan;
use super::session::{Session, begun, is_preflight};
use super::work::refuse_consents;

/// A step that fits, with its migration and the migration's preflight.
struct Fit {
    /// None: the flags gave everything.
    migration: Option<String>,
    step: BoxedStep,
    guard: Option<BoxedStep>,
}

pub(super) async fn step(global: &Global, args: &StepArgs, out: &Out) -> anyhow::Result<Exit> {
    let session = Session::open_private(global, out)?;
    let (blueprint, row) = find(&session, args)?;
    let mut fit = choose(&session, args, blueprint, row)?;
    let changes = fit.step.risk() != Risk::Reads;
    if out.typed && !out.asks && !args.yes && changes {
        let help = format!("add `--yes`, or let stderr be the terminal; `pvemig explain {}` says what it does", row.id);
        return Err(Words::usage("nobody can be asked here whether to begin", help).into());
    }
    if out.asks && !args.yes && changes {
        let (asked, exit) = ask(&session, blueprint, fit, &args.going.destroy).await?;
        fit = asked;
        if let Some(exit) = exit {
            return Ok(exit);
        }
    } else if let Some(migration) = &fit.migration {
        // Who is not asked is told at least this.
        let alone = std::slice::from_ref(&fit.step);
        if let Some(words) = unstopped(&session, migration, alone, &[&fit.step]) {
            out.notice(&format!("down: {words}"));
        }
    }
    let lock = session.lock_for_new()?;
    for run in session.open_runs()?.iter().filter(|run| begun(&run.state)) {
        if run.state.holds_up().iter().any(|k| k.id() == fit.step.id()) {
            let text = format!("run {} holds {} already", run.id, fit.step.id());
            let help = vec![format!("`pvemig resume {}` or `pvemig undo {}`", run.id, run.id)];
            return Err(Words::new(Exit::Held, text, help).into());
        }
        out.notice(&format!("run {} of this site is not finished; this step goes beside it", run.id));
    }
    if fit.migration.is_none() {
        let from = row.flags.iter().any(|(flag, ..)| *flag == "from") && args.from.is_none();
        let from = if from { "; without `--from` nobody looks whether another VM still has the device" } else { "" };
        out.notice(&format!("by flags alone, so no preflight comes before it{from}"));
    }
    let steps = vec![fit.step];
    refuse_consents(&session, &steps, fit.migration.as_deref(), &args.going.destroy)?;
    let opened = session.opened(blueprint, fit.migration.as_deref(), &steps, true)?;
    let live = Arc::new(Live::new(*out, session.clock));
    let work = session.begin(lock, opened, steps, fit.guard, &args.going, live)?;
    work.go(None).await
}

/// On a terminal nothing is changed unasked. Gives the step back, and how it ends where it does not begin.
async fn ask(
    session: &Session,
    blueprint: &Blueprint,
    fit: Fit,
    consents: &[String],
) -> anyhow::Result<(Fit, Option<Exit>)> {
    let Fit { migration, step, guard } = fit;
    let out = &session.out;
    let (own, changes) = (step.key(), step.risk() != Risk::Reads);
    let mut both: Vec<_> = guard.into_iter().chain([step]).collect();
    let mut lines = plan::look(session, blueprint, migration.as_deref(), &both, consents).await?;
    let foot = Foot::of_plan(session, blueprint, migration.as_deref(), &both, &lines).of_one();
    let (step, guard) = (both.pop(), both.pop());
    let step = step.ok_or_else(|| anyhow!("the step went missing"))?;
    let fit = Fit { migration, step, guard };
    // Of the preflight only what protects this step counts, as when it is at work.
    for line in lines.iter_mut().filter(|line| line.key != own) {
        if let Said::Answer(check) = &mut line.said
            && let Answer::Blocked { problems } = &mut check.answer
        {
            problems.retain(|problem| problem.bars(&own, changes));
        }
    }
    let nothing_to_do = matches!(lines.last().map(|l| &l.said), Some(Said::Answer(check)) if check.is_done());
    if nothing_to_do {
        return Ok((fit, None));
    }
    let barred = plan::barred(&lines);
    if !barred.is_empty() {
        return Ok((fit, Some(fail::not_begun(out, &barred))));
    }
    let last = lines.len().saturating_sub(1);
    out.say(&format!("{}\n{}", plan::text(&lines.split_off(last), *out), foot.text(*out).trim_end()));
    let exit = if out.ask("Begin?")? {
        None
    } else {
        out.say("nothing was changed");
        Some(Exit::Interrupted)
    };
    Ok((fit, exit))
}

/// The step that a name means: where several blueprints call one so, that of the migration, else of the one blueprint
/// that the site has migrations of.
fn find(session: &Session, args: &StepArgs) -> anyhow::Result<(&'static Blueprint, &'static Row)> {
    let name = &args.step;
    let mut found = blueprint::called(name);
    if found.len() > 1 {
        let named = |migration: &String| args.migration.as_ref().is_none_or(|m| m == migration);
        let migrations = session.site.migrations.iter().filter(|(migration, _)| named(migration));
        let used: Vec<&str> = migrations.map(|(_, migration)| migration.blueprint.as_str()).collect();
        let there = |b: &Blueprint| used.contains(&b.name);
        if found.iter().any(|(b, _)| there(b)) {
            found.retain(|(b, _)| there(b));
        }
        // Else the one that has what was given.
        if found.len() > 1 {
            let given = given_flags(args);
            let fits = |row: &Row| given.iter().all(|(name, _)| row.flags.iter().any(|(flag, ..)| flag == name));
            if !given.is_empty() && found.iter().any(|(_, row)| fits(row)) {
                found.retain(|(_, row)| fits(row));
            }
        }
    }
    match found.as_slice() {
        [one] => Ok(*one),
        [] => {
            let used: Vec<&str> = session.site.migrations.values().map(|of| of.blueprint.as_str()).collect();
            Err(Words::usage(format!("there is no step `{name}`"), known_steps(name, &used)).into())
        }
        several => {
            let each: Vec<_> = several.iter().map(|(b, row)| format!("{} of {}", row.id, b.name)).collect();
            let text = format!("several blueprints have a step `{name}`: {}", each.join(", "));
            Err(Words::usage(text, "write its whole name, or name a migration with `-m`").into())
        }
    }
}

/// The step of the migration that was named, else of the only one that has it and matches the flags, else by flags
/// alone.
fn choose(session: &Session, args: &StepArgs, blueprint: &Blueprint, row: &Row) -> anyhow::Result<Fit> {
    let flags = flags(args, row)?;
    let mut fitting = Vec::new();
    let mut others = Vec::new();
    let named = |name: &&String| args.migration.as_ref().is_none_or(|m| m == *name);
    if let Some(name) = args.migration.as_ref().filter(|m| !session.site.migrations.contains_key(*m)) {
        session.migration(name)?;
    }
    for name in session.site.migrations.keys().filter(named) {
        let (of, steps) = session.migration(name)?;
        if of.name != blueprint.name {
            continue;
        }
        let mut guard = None;
        for step in steps {
            let fields = step.fields().map_err(fail::failure)?;
            if is_preflight(&*step) {
                guard = Some(step);
            } else if step.id() == row.id && agrees(&fields, &flags) {
                let step = switched(step, args, blueprint, row)?;
                let guard: Option<BoxedStep> = guard.take();
                fitting.push(Fit { migration: Some(name.clone()), step, guard });
            } else if step.id() == row.id {
                others.push(describe(name, row, &fields));
            }
        }
        // The preflight asked for by its own name.
        if let Some(guard) = guard.take().filter(|g| g.id() == row.id) {
            fitting.push(Fit { migration: Some(name.clone()), step: guard, guard: None });
        }
    }
    match (fitting.pop(), fitting.len()) {
        (Some(fit), 0) => Ok(fit),
        (None, _) => {
            let mut help = vec![if others.is_empty() {
                "the site file has no migration with this step".to_owned()
            } else {
                format!("the site file has {}", others.join("; "))
            }];
            if args.migration.is_none() {
                match blueprint.alone(&session.site, row.id, &given(args)) {
                    Ok(step) => {
                        return Ok(Fit { migration: None, step: switched(step, args, blueprint, row)?, guard: None });
                    }
                    Err(problems) => help.push(format!("by flags alone: {}", problems.join("; "))),
                }
            }
            Err(Words::new(Exit::Usage, format!("no migration has step {} with these flags", row.id), help).into())
        }
        (Some(last), _) => {
            let of_one = fitting.iter().all(|f| f.migration == last.migration);
            if of_one && let Some(migration) = &last.migration {
                let all = fitting.iter().chain([&last]);
                let keys: Vec<_> = all.map(|f| f.step.key().instance().unwrap_or_default().to_owned()).collect();
                let text = format!("migration {migration} has step {} for {}", row.id, keys.join(", "));
                return Err(Words::usage(text, "name one with `--node`").into());
            }
            let mut names: Vec<_> = fitting.iter().filter_map(|f| f.migration.clone()).collect();
            names.extend(last.migration);
            let text = format!("several migrations have step {}: {}", row.id, names.join(", "));
            Err(Words::usage(text, "name one with `-m`").into())
        }
    }
}

/// The flags that were given, by name.
fn given_flags(args: &StepArgs) -> Vec<(&'static str, Value)> {
    [
        ("vmid", args.vmid.map(Value::from)),
        ("device", args.device.clone().map(Value::from)),
        ("node", args.node.clone().map(Value::from)),
        ("namespace", args.namespace.clone().map(Value::from)),
        ("workload", args.workload.clone().map(Value::from)),
        ("attach", args.attach.clone().map(Value::from)),
        ("from", args.from.map(Value::from)),
        ("label", args.label.as_deref().map(label)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}

/// The flags that were given, as JSON pointers and values; one that the step does not have is refused.
fn flags(args: &StepArgs, row: &Row) -> anyhow::Result<Vec<(&'static str, Value)>> {
    let mut flags = Vec::new();
    for (name, value) in given_flags(args) {
        let Some((_, pointer, _)) = row.flags.iter().find(|(flag, ..)| *flag == name) else {
            let own: Vec<_> = row.flags.iter().map(|(flag, ..)| format!("--{flag}")).collect();
            let help = if own.is_empty() { "it has none".into() } else { format!("it has {}", own.join(", ")) };
            return Err(Words::usage(format!("step {} has no flag --{name}", row.id), help).into());
        };
        flags.push((*pointer, value));
    }
    let forces = |row: &Row| row.switches.iter().any(|(flag, ..)| *flag == FORCE_OFF);
    if args.force_off && !forces(row) {
        let own: Vec<_> = blueprint::ALL.iter().flat_map(|b| b.rows).filter(|r| forces(r)).map(|r| r.id).collect();
        return Err(Words::usage(format!("--{FORCE_OFF} belongs to {}", own.join(", ")), "leave it out").into());
    }
    Ok(flags)
}

/// A label as the steps keep it: a key, or key and value.
fn label(text: &str) -> Value {
    text.split_once('=').map_or_else(|| text.into(), |(key, value)| json!({ "key": key, "value": value }))
}

/// The only switch so far.
const FORCE_OFF: &str = "force-off";

/// The flags for a step that no migration gives.
fn given(args: &StepArgs) -> Given {
    Given {
        vmid: args.vmid,
        from: args.from,
        device: args.device.clone(),
        node: args.node.clone(),
        attach: args.attach.clone(),
        label: args.label.clone(),
    }
}

fn agrees(fields: &Value, flags: &[(&str, Value)]) -> bool {
    flags.iter().all(|(pointer, value)| fields.pointer(pointer) == Some(value))
}

fn describe(migration: &str, row: &Row, fields: &Value) -> String {
    let show = |(flag, pointer, _): &blueprint::Flag| Some(format!("--{flag} {}", plain(fields.pointer(pointer)?)));
    let own: Vec<_> = row.flags.iter().filter_map(show).collect();
    format!("{migration}: {}", own.join(" "))
}

fn plain(value: &Value) -> String {
    if let (Some(key), Some(value)) = (value.get("key"), value.get("value")) {
        return format!("{}={}", plain(key), plain(value));
    }
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The step with its switches as given.
fn switched(step: BoxedStep, args: &StepArgs, blueprint: &Blueprint, row: &Row) -> anyhow::Result<BoxedStep> {
    let mut fields = step.fields().map_err(fail::failure)?;
    for (_, pointer, _) in row.switches.iter().filter(|(flag, ..)| *flag == FORCE_OFF && args.force_off) {
        if let Some(field) = fields.pointer_mut(pointer) {
            *field = true.into();
        }
    }
    Ok(blueprint.rebuild(row.id, &fields).map_err(fail::failure)?)
}
