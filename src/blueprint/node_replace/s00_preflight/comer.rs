//! The machine that comes: whether it is the one that is meant, and no part of the cluster yet.

use crate::base::permit::Thing;
use crate::blueprint::finding::Findings;
use crate::blueprint::install::asked::unconsented as disk_unconsented;
use crate::blueprint::quorum::{Leave, leave};
use crate::engine::step::RunInfo;

use super::super::sight::Life;
use super::super::swap::Swap;
use super::super::{known, on};
use super::ask::{Facts, New};
use super::find::guarded;

/// The new machine.
pub(super) fn machine(swap: &Swap, facts: &Facts, run: &RunInfo, out: &mut Findings) {
    let bare = &swap.new;
    let Some(new) = out.need(on::SWAP, &format!("{} how it stands", swap.comer()), &facts.new) else { return };
    let given = run.consents.contains(&Thing::disk(&bare.disk));
    let consent = |out: &mut Findings| {
        if !given {
            let text =
                format!("the disk {} of {} is wiped by its installation, whatever is on it", bare.disk, bare.name());
            out.problem(
                &known::CONSENT,
                on::APPLY,
                text,
                format!("add `--destroy {}` where it may be", Thing::disk(&bare.disk)),
            );
        }
    };
    match new {
        New::In(_) => {}
        New::Away => {
            consent(out);
            out.note(on::SWAP, format!("{} does not answer yet: 05 asks for it", swap.comer()));
        }
        New::Elsewhere(disk) => out.problem(
            &known::ELSEWHERE,
            on::SWAP,
            format!("{} is a node already, and runs from {disk}, not from disk {}", bare.name(), bare.disk),
            "take another machine; only where this one is no node yet, correct `disk` of `new`",
        ),
        New::Foreign(problem) => out.borrowed(&known::ELSEWHERE, on::SWAP, problem.clone()),
        New::Waits(waits) => {
            for problem in &waits.another {
                out.borrowed(&known::ANOTHER, on::SWAP, problem.clone());
            }
            match &waits.disk {
                Err(problem) => out.borrowed(&known::DISK, on::SWAP, problem.clone()),
                Ok(chosen) => {
                    let lacks = disk_unconsented(bare, chosen, |thing| run.consents.contains(thing));
                    lacks.into_iter().for_each(|problem| out.borrowed(&known::CONSENT, on::APPLY, problem));
                }
            }
            if let Some(problem) = &waits.image {
                out.borrowed(&known::IMAGE, on::APPLY, problem.clone());
            }
            match &waits.trial {
                Ok(warnings) => {
                    warnings.iter().for_each(|line| out.note(on::APPLY, format!("{}: {line}", bare.name())))
                }
                Err(why) => out.problem(
                    &known::REFUSED,
                    on::APPLY,
                    format!("{} would not take its configuration: {why}", bare.name()),
                    format!("correct {}", bare.source.shown()),
                ),
            }
        }
    }
}

/// What comes must not be a part of the cluster already that is counted on, nor what goes.
pub(super) fn beside(swap: &Swap, facts: &Facts, out: &mut Findings) {
    let (name, key) = (swap.new.name(), guarded(swap, facts));
    let members = facts.etcd.members();
    let is_member = |name: &str| members.iter().any(|member| member == name);
    if let Ok(New::In(differs)) = &facts.new
        && !swap.same_name()
    {
        let lives = matches!(facts.life, Ok(Life::Alive(_) | Life::Going | Life::Unknown(_)));
        let left = members.iter().filter(|member| *member != swap.host()).count();
        let counted = is_member(&swap.new.machine.node.name);
        let ready = differs.is_none() && facts.disk_of.is_empty() && counted;
        // What 03 is asked: whether the others can do without it.
        let open = || matches!(leave(swap.old(), swap.host(), false, &facts.etcd), Leave::Open { .. });
        if ready && is_member(swap.host()) && lives {
            let text = format!(
                "{name} is in its place already, and {} is a member of etcd again: it was started with its old disk",
                swap.goer()
            );
            let help = format!(
                "switch it off ({}), and run this migration again: it takes its member out",
                swap.old.talosctl("shutdown --force")
            );
            out.problem(&known::PART, key, text, help);
        } else if ready && is_member(swap.host()) && facts.life.as_ref().is_ok_and(Life::is_down) {
            // Where the others cannot do without it their votes say so.
            if open() {
                let text = format!(
                    "{name} is in its place already, and {} is a member of etcd again, and down: its member is taken out, {left} \
                     are left",
                    swap.goer()
                );
                out.note(key, text);
            }
        } else if is_member(swap.host()) || lives {
            let text = if counted {
                format!(
                    "{name} is a voter of {} already: with {} gone {left} are left",
                    swap.old.cluster, swap.old.name
                )
            } else {
                format!(
                    "{name} is a node of {} already: nothing comes in the place of {}",
                    swap.old.cluster, swap.old.name
                )
            };
            out.problem(&known::PART, key, text, "take another machine as `new`, one that is no node yet");
        }
        if let Some(problem) = differs {
            out.borrowed(&known::PART, key, problem.clone());
        }
    }
    for owner in &facts.disk_of {
        out.problem(
            &known::PART,
            key,
            format!("{} is a disk of {owner}, not of the machine that comes", swap.new.disk),
            "correct `disk` of `new` in the parameters: the serial number of a disk of the new machine",
        );
    }
}
