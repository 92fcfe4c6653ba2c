//! What went wrong in real nights: each trouble is a world or a fault, and each says who tells it and in which words.
//!
//! The list is `incidents!` in the modules; the last test counts it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic, and says its counts")]

/// Tests with a list of their names.
macro_rules! incidents {
    ($($name:ident: $told:expr;)*) => {
        pub(crate) const NAMES: &[&str] = &[$(stringify!($name)),*];
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $told.await;
            }
        )*
    };
}

mod gitops;
mod power;
mod state;
mod usb;
mod volumes;
mod ways;

use crate::harness::estate::{Rig, at_rest};
use crate::harness::same::assert_done;
use crate::harness::{How, Run, notes};
use pvemig::engine::run::{Ended, Why};
use pvemig::lab::World;
use serde_json::Value;

const TARGET: &str = "k3s-vm-still-fawn";
const SOURCE: &str = "k3s-vm-pumped-piglet";

/// The steps of the device and its VM.
const DEVICE: &[&str] = &["01-", "03-", "04-", "05-", "06-", "07-", "08-"];

/// An estate in which something is wrong from the beginning, with the steps that matter (all where none is named).
async fn rig(world: &str, keep: &[&str], wrong: impl FnOnce(&mut World)) -> Rig {
    rig_of(world, keep, wrong, |_| {}).await
}

async fn rig_of(world: &str, keep: &[&str], wrong: impl FnOnce(&mut World), site: impl FnOnce(&mut Value)) -> Rig {
    let mut world = at_rest(world);
    wrong(&mut world);
    let mut rig = Rig::of(world, site).await;
    let wanted = |id: &str| keep.is_empty() || keep.iter().any(|k| id.starts_with(k));
    rig.steps.retain(|step| wanted(step.id()));
    assert!(rig.steps.len() >= keep.len(), "{keep:?}");
    rig
}

async fn go(rig: &Rig) -> Run {
    rig.forward(None, &How::default()).await
}

/// The run ends, and each of `steps` has noted each of `parts`.
fn assert_noted(run: &Run, steps: &[&str], parts: &[&str]) {
    assert_done(run, "noted");
    for step in steps {
        let notes = notes(run, step);
        for part in parts {
            assert!(notes.contains(part), "{step} does not say `{part}`:\n{notes}");
        }
    }
}

/// The run stops at `step`, and what it says has each of `parts`.
fn assert_stopped(run: &Run, step: &str, parts: &[&str]) {
    let Ok(Ended::Stopped(stop)) = &run.ended else { panic!("{step} was to stop it: {:#?}", run.ended) };
    let text = match &stop.why {
        Why::Blocked(problems) => problems.iter().map(|p| format!("blocked: {}\nhelp: {}\n", p.text, p.help)).collect(),
        Why::Failed { error, help, .. } => format!("failed: {}\nhelp: {}\n", error.join("\n"), help.join("\n")),
        Why::HoldFell { holder, changes, notes } => {
            let changes: Vec<_> = changes.iter().map(ToString::to_string).collect();
            format!("fell: {holder}: {}\n{}", changes.join("\n"), notes.join("\n"))
        }
        other => format!("{other:?}"),
    };
    assert!(stop.key.as_str().starts_with(step), "{} stopped it, not {step}:\n{text}", stop.key);
    for part in parts {
        assert!(text.contains(part), "{step} does not say `{part}`:\n{text}");
    }
}

#[test]
fn the_incidents_are_counted() {
    let all = [gitops::NAMES, power::NAMES, state::NAMES, usb::NAMES, volumes::NAMES, ways::NAMES].concat();
    println!("{} incidents: {}", all.len(), all.join(", "));
    assert_eq!(all.len(), 53);
}
