//! What the runs of a site say of machines: which must not be started any more with what is on their disks, which are held
//! off for now, and which have been configured anew since.

use serde::de::DeserializeOwned;

use crate::base::names::StepKey;
use crate::engine::event::Planned;
use crate::engine::state::{Phase, RunState, Stage};

use super::node_replace::Swap;
use super::quorum_recover::Planes;

/// Why a machine is not to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// Another one has its place, or is to have it.
    Replaced {
        /// By its name in the site file.
        by: String,
        /// The Talos cluster's name there.
        cluster: String,
        /// The other one has it.
        joined: bool,
    },
    /// Its etcd is one that does not count any more.
    Lost,
}

/// What one run says of machines, by their names in the site file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fate {
    /// Those that must stay off.
    pub off: Vec<(String, Why)>,
    /// Those that have got a configuration: what was said of their names before does not hold.
    pub anew: Vec<String>,
    /// Those that it has switched off and does not hold any more: they may be started.
    pub down: Vec<String>,
    /// Those that it holds off, each with the step that does: it starts them itself, or asks for it. Of one that is over
    /// nobody does.
    pub held: Vec<(String, StepKey)>,
    /// It has done something to machines, and which ones those are cannot be read in its journal.
    pub unread: bool,
}

/// What a run says, by its journal alone.
pub fn fate(state: &RunState) -> Fate {
    let mut fate = match state.opened.blueprint.as_str() {
        "node-replace" => replaced(state),
        "quorum-recover" => recovered(state),
        "cluster-build" => Fate { anew: instances(state, "02-apply-config"), ..Fate::default() },
        _ => Fate::default(),
    };
    for planned in held_off(state) {
        match machine(planned) {
            Some(name) => fate.held.push((name, planned.key.clone())),
            None => fate.unread = true,
        }
    }
    fate
}

/// Whether a run may still go on.
fn goes_on(state: &RunState) -> bool {
    matches!(state.phase, Phase::Forward | Phase::Undoing | Phase::Stuck)
}

/// A step that keeps its machine off as long as it holds.
fn keeps_off(state: &RunState, planned: &Planned) -> bool {
    let rows = super::named(&state.opened.blueprint).map_or(&[][..], |of| of.rows);
    rows.iter().any(|row| row.off && row.id == planned.key.id())
}

/// The holds that keep a machine off and stand: put up by the run, or found so, and not let go. They may be those of a run that
/// was given up, or of a step that was run alone; a run that has ended with nothing done holds nothing.
fn held_off(state: &RunState) -> impl Iterator<Item = &Planned> {
    let left = goes_on(state) || state.phase == Phase::Abandoned;
    state.opened.plan.iter().filter(move |planned| {
        let Some(step) = state.steps.get(&planned.key) else { return false };
        let found = || left && step.stage == Stage::Already && !step.needless && !is_closed(state, planned);
        keeps_off(state, planned) && (step.up || found())
    })
}

/// Whether the step that takes a hold back is done with, or the run goes back.
fn is_closed(state: &RunState, hold: &Planned) -> bool {
    let closer = hold.holds_until.as_deref().map(|id| state.stage(&StepKey::new(id, hold.key.instance())));
    let goes_back = matches!(state.phase, Phase::Undoing | Phase::Stuck | Phase::Undone);
    goes_back || !matches!(closer, Some(Stage::Pending | Stage::Begun))
}

/// The machine of a step, by its name in the site file.
fn machine(planned: &Planned) -> Option<String> {
    Some(planned.step.pointer("/machine/name")?.as_str()?.to_owned())
}

fn replaced(state: &RunState) -> Fate {
    const STEPS: [&str; 4] = ["03-leave-or-remove", "04-shutdown", "06-apply", "07-join"];
    let Some(swap) = field::<Swap>(state, "swap") else {
        return Fate { unread: STEPS.iter().any(|id| changed(state, id)), ..Fate::default() };
    };
    let (old, new) = (swap.old.name.clone(), swap.new.machine.name.clone());
    let comes = ["06-apply", "07-join"];
    let stays = comes.iter().any(|id| passed(state, id));
    let joined = is_so(state, "07-join") || stays;
    let mut fate = Fate::default();
    if comes.iter().any(|id| changed(state, id)) {
        fate.anew.push(new.clone());
    }
    // One that was only switched off is a voter still: a run that ended there holds it no longer.
    let goes_on = goes_on(state);
    let gone = changed(state, "03-leave-or-remove") || (is_so(state, "04-shutdown") && (goes_on || joined));
    if !gone && !goes_on && sent(state, "04-shutdown") {
        fate.down.push(old.clone());
    }
    // Under one name the machine that is meant by it is the new one as soon as that has come.
    let came = comes.iter().any(|id| is_so(state, id));
    if gone && (state.phase != Phase::Undone || stays) && !(came && swap.same_name()) {
        fate.off.push((old, Why::Replaced { by: new, cluster: swap.old.cluster, joined }));
    }
    fate
}

fn recovered(state: &RunState) -> Fate {
    // Beside an etcd that has begun anew theirs would be a second one. Before that the etcd that they have is a way back:
    // it is the open run alone that goes on without them.
    let goes_on = goes_on(state);
    // No undo takes back what 03 has sent.
    if !(changed(state, "03-recover") || sent(state, "03-recover") || (goes_on && changed(state, "02-wipe-etcd"))) {
        return Fate::default();
    }
    let Some(planes) = field::<Planes>(state, "planes") else { return Fate { unread: true, ..Fate::default() } };
    Fate { off: planes.lost.into_iter().map(|machine| (machine.name, Why::Lost)).collect(), ..Fate::default() }
}

/// A field that the steps of a blueprint have in common.
fn field<T: DeserializeOwned>(state: &RunState, name: &str) -> Option<T> {
    state.opened.plan.iter().find_map(|planned| T::deserialize(planned.step.get(name)?).ok())
}

fn of<'s>(state: &'s RunState, id: &str) -> impl Iterator<Item = &'s Planned> {
    let id = id.to_owned();
    state.opened.plan.iter().filter(move |planned| planned.key.id() == id)
}

/// Whether what a step did has not been taken back. One that was begun, and has sent nothing, did nothing.
fn did(state: &RunState, planned: &Planned) -> bool {
    let Some(step) = state.steps.get(&planned.key) else { return false };
    match step.stage {
        Stage::Applied => true,
        Stage::Undone => step.passed && !step.calls.is_empty(),
        Stage::Pending | Stage::Already => false,
        Stage::Begun | Stage::Undoing | Stage::UndoFailed => !step.calls.is_empty(),
    }
}

/// Whether a step has sent anything, whatever was taken back of it.
fn sent(state: &RunState, id: &str) -> bool {
    of(state, id).any(|planned| state.steps.get(&planned.key).is_some_and(|step| !step.calls.is_empty()))
}

/// Whether an undo has left what a step did.
fn passed(state: &RunState, id: &str) -> bool {
    of(state, id).any(|planned| state.steps.get(&planned.key).is_some_and(|step| step.passed && !step.calls.is_empty()))
}

/// Whether a step has changed something that was not taken back.
fn changed(state: &RunState, id: &str) -> bool {
    of(state, id).any(|planned| did(state, planned))
}

/// Whether a step is settled, or has changed something.
fn is_so(state: &RunState, id: &str) -> bool {
    of(state, id).any(|planned| did(state, planned) || state.stage(&planned.key) == Stage::Already)
}

/// For which machines a step has changed something.
fn instances(state: &RunState, id: &str) -> Vec<String> {
    let so = |planned: &&Planned| did(state, planned);
    of(state, id).filter(so).filter_map(|planned| planned.key.instance().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests;
