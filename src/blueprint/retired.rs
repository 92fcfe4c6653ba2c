//! What the runs of a site say of machines: which must not be started any more with what is on their disks, and which
//! have been configured anew since.

use serde::de::DeserializeOwned;

use crate::engine::event::Planned;
use crate::engine::state::{Phase, RunState, Stage};

use super::node_replace::Swap;
use super::quorum_recover::Planes;

/// Why a machine is not to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// Another one has its place, or is about to have it.
    Replaced {
        /// By its name in the site file.
        by: String,
        /// The Talos cluster's name there.
        cluster: String,
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
}

/// What a run says, by its journal alone.
pub fn fate(state: &RunState) -> Fate {
    match state.opened.blueprint.as_str() {
        "node-replace" => replaced(state),
        "quorum-recover" => recovered(state),
        "cluster-build" => Fate { off: Vec::new(), anew: instances(state, "02-apply-config") },
        _ => Fate::default(),
    }
}

fn replaced(state: &RunState) -> Fate {
    let Some(swap) = field::<Swap>(state, "swap") else { return Fate::default() };
    let (old, new) = (swap.old.name.clone(), swap.new.machine.name.clone());
    let came = ["06-apply", "07-join"].iter().any(|id| is_so(state, id));
    let mut fate = Fate::default();
    if came {
        fate.anew.push(new.clone());
    }
    // Under one name the machine that is meant by it is the new one as soon as that has come.
    let gone = is_so(state, "04-shutdown") || changed(state, "03-leave-or-remove");
    if gone && state.phase != Phase::Undone && !(came && swap.same_name()) {
        fate.off.push((old, Why::Replaced { by: new, cluster: swap.old.cluster }));
    }
    fate
}

fn recovered(state: &RunState) -> Fate {
    let Some(planes) = field::<Planes>(state, "planes") else { return Fate::default() };
    // From the first wipe on there is no way back to the etcd that they have.
    let begun = changed(state, "02-wipe-etcd") || is_so(state, "03-recover");
    let lost = planes.lost.into_iter().filter(|_| begun);
    Fate { off: lost.map(|machine| (machine.name, Why::Lost)).collect(), anew: Vec::new() }
}

/// A field that the steps of a blueprint have in common.
fn field<T: DeserializeOwned>(state: &RunState, name: &str) -> Option<T> {
    state.opened.plan.iter().find_map(|planned| T::deserialize(planned.step.get(name)?).ok())
}

fn of<'s>(state: &'s RunState, id: &str) -> impl Iterator<Item = &'s Planned> {
    let id = id.to_owned();
    state.opened.plan.iter().filter(move |planned| planned.key.id() == id)
}

/// Whether a step has changed something that was not taken back.
fn changed(state: &RunState, id: &str) -> bool {
    of(state, id).any(|planned| {
        let begun = !matches!(state.stage(&planned.key), Stage::Pending | Stage::Already | Stage::Undone);
        begun || state.steps.get(&planned.key).is_some_and(|step| step.passed)
    })
}

/// Whether a step is settled, or has changed something.
fn is_so(state: &RunState, id: &str) -> bool {
    changed(state, id) || of(state, id).any(|planned| state.stage(&planned.key) == Stage::Already)
}

/// For which machines a step is settled, or has changed something.
fn instances(state: &RunState, id: &str) -> Vec<String> {
    let so = |planned: &&Planned| !matches!(state.stage(&planned.key), Stage::Pending | Stage::Undone);
    of(state, id).filter(so).filter_map(|planned| planned.key.instance().map(str::to_owned)).collect()
}
