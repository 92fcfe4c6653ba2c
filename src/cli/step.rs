//! `pvemig step STEP`: one step alone, journaled, resumable, undoable.

use std::sync::Arc;

use serde_json::Value;

use crate::base::fault::Failure;
use crate::blueprint::{self, BoxedStep, Row};
use crate::engine::step::Standing;

use super::args::{Common, StepArgs};
use super::exit::Exit;
use super::explain::known_steps;
use super::fail::{self, Words};
use super::live::Live;
use super::out::Out;
use super::session::Session;

/// A step that fits, with its migration and the migration's preflight.
struct Fit {
    migration: String,
    step: BoxedStep,
    guard: Option<BoxedStep>,
}

pub(super) async fn step(common: &Common, args: &StepArgs, out: &Out) -> anyhow::Result<Exit> {
    let session = Session::open(common, out)?;
    let fit = choose(&session, args)?;
    let blueprint = &session.site.migrations[&fit.migration].blueprint;
    let Some(blueprint) = blueprint::named(blueprint) else {
        return Err(Words::usage(format!("there is no blueprint `{blueprint}`"), known_steps()).into());
    };
    for run in session.open_runs()? {
        let holds = run.state.holds_up().iter().any(|k| k.id() == fit.step.id());
        if holds && run.state.standing() == Standing::Open {
            let text = format!("run {} holds {} already", run.id, fit.step.id());
            let help = vec![format!("`pvemig resume {}` or `pvemig undo {}`", run.id, run.id)];
            return Err(Words::new(Exit::Held, text, help).into());
        }
        out.say(&format!("notice: run {} of this site is not finished; this step goes beside it", run.id));
    }
    let steps = vec![fit.step];
    let opened = session.opened(blueprint, Some(&fit.migration), &steps, true)?;
    let live = Arc::new(Live::new(*out, session.clock));
    let work = session.begin(opened, steps, fit.guard, &args.going, live)?;
    let (_, exit) = work.go(None).await?;
    Ok(exit)
}

/// The step of the migration that was named, else of the only one that has it and matches the flags.
fn choose(session: &Session, args: &StepArgs) -> anyhow::Result<Fit> {
    let row = blueprint::ALL.iter().find_map(|b| b.row(&args.step));
    let Some(row) = row else {
        return Err(Words::usage(format!("there is no step `{}`", args.step), known_steps()).into());
    };
    let flags = flags(args, row)?;
    let mut fitting = Vec::new();
    let mut others = Vec::new();
    let named = |name: &&String| args.migration.as_ref().is_none_or(|m| m == *name);
    if let Some(name) = args.migration.as_ref().filter(|m| !session.site.migrations.contains_key(*m)) {
        session.migration(name)?;
    }
    for name in session.site.migrations.keys().filter(named) {
        let (_, steps) = session.migration(name)?;
        let mut guard = None;
        for step in steps {
            let fields = step.fields().map_err(fail::failure)?;
            if step.id().starts_with("00-") {
                guard = Some(step);
            } else if step.id() == row.id && agrees(&fields, &flags) {
                let step = with_force(step, args)?;
                fitting.push(Fit { migration: name.clone(), step, guard: guard.take() });
            } else if step.id() == row.id {
                others.push(describe(name, row, &fields));
            }
        }
        // The preflight asked for by its own name.
        if let Some(guard) = guard.take().filter(|g| g.id() == row.id) {
            fitting.push(Fit { migration: name.clone(), step: guard, guard: None });
        }
    }
    match (fitting.pop(), fitting.len()) {
        (Some(fit), 0) => Ok(fit),
        (None, _) => {
            let help = if others.is_empty() {
                "the site file has no migration with this step".to_owned()
            } else {
                format!("the site file has {}", others.join("; "))
            };
            Err(Words::usage(format!("no migration has step {} with these flags", row.id), help).into())
        }
        (Some(last), _) => {
            let mut names: Vec<_> = fitting.iter().map(|f| f.migration.clone()).collect();
            names.push(last.migration);
            let text = format!("several migrations have step {}: {}", row.id, names.join(", "));
            Err(Words::usage(text, "name one with `-m`").into())
        }
    }
}

/// The flags that were given, as JSON pointers and values; one that the step does not have is refused.
fn flags(args: &StepArgs, row: &Row) -> anyhow::Result<Vec<(&'static str, Value)>> {
    let given = [
        ("vmid", args.vmid.map(Value::from)),
        ("device", args.device.clone().map(Value::from)),
        ("node", args.node.clone().map(Value::from)),
        ("namespace", args.namespace.clone().map(Value::from)),
    ];
    let mut flags = Vec::new();
    for (name, value) in given {
        let Some(value) = value else { continue };
        let Some((_, pointer, _)) = row.flags.iter().find(|(flag, ..)| *flag == name) else {
            let own: Vec<_> = row.flags.iter().map(|(flag, ..)| format!("--{flag}")).collect();
            let help = if own.is_empty() { "it has none".into() } else { format!("it has {}", own.join(", ")) };
            return Err(Words::usage(format!("step {} has no flag --{name}", row.id), help).into());
        };
        flags.push((*pointer, value));
    }
    if args.force_off && row.id != "05-reboot-vm" {
        return Err(Words::usage("--force-off belongs to 05-reboot-vm", "leave it out").into());
    }
    Ok(flags)
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
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn with_force(step: BoxedStep, args: &StepArgs) -> anyhow::Result<BoxedStep> {
    if !args.force_off {
        return Ok(step);
    }
    let mut fields = step.fields().map_err(fail::failure)?;
    if let Some(fields) = fields.as_object_mut() {
        fields.insert("force_off".into(), true.into());
    }
    let rebuilt: Result<_, Failure> = blueprint::ALL
        .iter()
        .find(|b| b.row(step.id()).is_some())
        .map_or_else(|| Ok(step), |b| b.rebuild("05-reboot-vm", &fields));
    Ok(rebuilt.map_err(fail::failure)?)
}
