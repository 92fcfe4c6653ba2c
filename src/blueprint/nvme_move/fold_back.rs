//! What the site file must say once the drives are where they belong: the next migration of the node begins there.

use serde::Deserialize;

use crate::engine::fold::{Fold, SITE_FILE};
use crate::engine::state::{Phase, RunState, Stage};
use crate::engine::step::Step;
use crate::estate::Estate;

use super::MoveDrives;

/// The layout that is, and which slots have no port yet. Nothing of a run that has not come to its end.
pub(super) fn fold_back(state: &RunState, _others: &[&RunState]) -> Vec<Fold> {
    let planned = state.opened.plan.iter().find(|planned| planned.key.id() == <MoveDrives as Step<Estate>>::ID);
    let (Phase::Done, false, Some(planned)) = (state.phase, state.opened.single, planned) else { return Vec::new() };
    let there = state.steps.get(&planned.key).is_some_and(|step| matches!(step.stage, Stage::Applied | Stage::Already));
    // Fields of another version say nothing here; everything else of the report is there all the same.
    let step = MoveDrives::deserialize(&planned.step).ok().filter(|_| there);
    let migration = state.opened.migration.as_deref().unwrap_or("MIGRATION");
    step.iter().map(|step| fold(step, migration)).collect()
}

fn fold(step: &MoveDrives, migration: &str) -> Fold {
    let (name, plan) = (&step.machine.name, &step.plan);
    let new: Vec<&String> = plan.drives.iter().filter(|(_, wanted)| wanted.new).map(|(drive, _)| drive).collect();
    let unknown: Vec<&str> =
        plan.slots.iter().filter(|slot| slot.port.is_none()).map(|slot| slot.name.as_str()).collect();
    let mut why = vec![format!(
        "{migration} is done: take it out, or make it the next one of {name}, which begins with this `current` (the same as its \
         `target` it is refused)"
    )];
    if let Some(anew) = &step.anew {
        why.insert(0, format!(
            "pull the stick with Talos {} out of {name}: its firmware may start it again. The disk that came out still boots: keep it \
             out, and apart",
            anew.medium
        ));
    }
    if !new.is_empty() {
        let all = new.iter().map(|drive| drive.as_str()).collect::<Vec<_>>().join(", ");
        why.push(format!("no drive of `current` is `new: true` any more: {all}"));
    }
    if !unknown.is_empty() {
        why.push(format!(
            "these slots of {name} have no `port:` there: {}. The notes of {} have those that this run has learned, \
             `pvemig survey --hardware {name}` the port of each drive",
            unknown.join(", "),
            super::on::VERIFY
        ));
    }
    let mut lines =
        vec!["migrations:".to_owned(), format!("  {migration}:"), "    params:".into(), "      current:".into()];
    lines.extend(plan.target.iter().map(|(slot, drive)| format!("        {slot}: {drive}")));
    Fold { owner: format!("{SITE_FILE} ({name})"), why, language: "yaml", lines }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::drives::{Plan, Scenario, Slot, Wanted};
    use crate::base::names::Dial;
    use crate::blueprint::machine::Machine;
    use crate::blueprint::node::KubeNode;

    #[test]
    fn the_next_migration_begins_with_what_is_in_the_slots_now() {
        let node = KubeNode { cluster: "k".into(), name: "n1".into() };
        let machine = Machine { cluster: "c".into(), name: "n1".into(), node, vm: None, dial: Dial::default() };
        let slot =
            |(name, port): (&str, &str)| Slot { name: name.into(), position: String::new(), port: port.parse().ok() };
        let wanted = |(name, new): (&str, bool)| (name.to_owned(), Wanted { new, ..Wanted::default() });
        let in_slots = |all: &[(&str, &str)]| all.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let plan = Plan {
            slots: [("1", "0000:00:1b.0"), ("2", "")].map(slot).into(),
            drives: [("sys", false), ("fresh", true)].map(wanted).into(),
            current: in_slots(&[("1", "sys")]),
            target: in_slots(&[("1", "sys"), ("2", "fresh")]),
            scenario: Scenario::Data,
        };
        let step = MoveDrives { machine, peers: Vec::new(), plan, medium: None, anew: None, seen: Arc::default() };
        let fold = fold(&step, "nuc-drives");
        assert_eq!(fold.owner, "the site file (n1)");
        let lines = "migrations:\n  nuc-drives:\n    params:\n      current:\n        1: sys\n        2: fresh";
        assert_eq!(fold.lines.join("\n"), lines);
        let why = fold.why.join("\n");
        for words in [
            "no drive of `current` is `new: true` any more: fresh",
            "these slots of n1 have no `port:` there: 2. The notes of 05-verify-disks",
        ] {
            assert!(why.contains(words), "{words}: {why}");
        }
        assert_eq!(fold.why.len(), 3, "{why}");
    }
}
