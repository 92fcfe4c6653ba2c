//! `node-reboot-test` on the lab: what keeps a node from its turn, what is mended, and that it is rebooted once.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod alone;
mod applying;
mod budgets;
mod commands;
mod configs;
mod firmware;
mod images;
mod locked;
mod mending;
mod off;
mod power;
mod preflight;
mod quorum;
mod turns;
mod worlds;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::harness::estate::{Rig, at_rest};
use crate::harness::{How, Run};
use pvemig::base::check::{Answer, Check, Problem};
use pvemig::base::fault::Failure;
use pvemig::engine::event::{Event, Record};
use pvemig::engine::run::{Ended, Stop};
use pvemig::engine::step::Seen;
use pvemig::lab::World;
use serde_json::{Value, json};

/// `talos-three` after `change`, with these nodes in the plan.
async fn rig(world: &str, nodes: &[&str], change: impl FnOnce(&mut World)) -> Rig {
    let mut world = at_rest(world);
    change(&mut world);
    Rig::of(world, |site| site["migrations"]["reboots"]["params"]["nodes"] = json!(nodes)).await
}

/// What a step of the plan answers before anything was begun; nothing is changed by it.
async fn ask(rig: &Rig, key: &str) -> Result<Check<Value>, Failure> {
    let before = rig.changes();
    let info = rig.bench.store.info("", "here").unwrap();
    let held = BTreeMap::new();
    let seen = Seen { since: None, got: &[], held: &held, run: &info };
    let step = rig.steps.iter().find(|step| step.key().as_str() == key).unwrap();
    let check = step.check(&rig.estate, seen).await;
    assert_eq!(rig.changes(), before, "looking changed something");
    check
}

async fn problems(rig: &Rig, key: &str) -> Vec<Problem> {
    match ask(rig, key).await.unwrap().answer {
        Answer::Blocked { problems } => problems,
        other => panic!("{key}: {other:#?}"),
    }
}

fn stop(run: &Run) -> &Stop {
    match &run.ended {
        Ok(Ended::Stopped(stop)) => stop,
        other => panic!("{other:#?}"),
    }
}

/// How often each machine was started.
fn starts(rig: &Rig) -> BTreeMap<String, u32> {
    rig.lab.shared().read(|w| w.talos.nodes.iter().map(|(name, node)| (name.clone(), node.starts)).collect())
}

/// The calls of a run, in order.
fn calls(run: &Run) -> Vec<String> {
    let of = |record: &Record| match &record.event {
        Event::Call { note, .. } => Some(note.text.clone()),
        _ => None,
    };
    run.records.iter().filter_map(of).collect()
}

/// A run that is told of by `reader` as it goes.
async fn told(rig: &Rig, reader: impl Fn(&Record) + Send + Sync + 'static) -> Run {
    rig.forward(None, &How { reader: Some(Arc::new(reader)), ..How::default() }).await
}
