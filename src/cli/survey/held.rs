//! Machines that a run holds off: nobody is to start them beside it, nor where it has left them.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;

use crate::base::survey::{Layer, Node, Survey};
use crate::engine::state::Phase;
use crate::engine::store::RunRead;

use super::super::stands;
use super::runs::is_down_since;

/// Where the drives of a machine are to be before it is started.
const BELONG: &str = "where they belong";

/// By whom a machine is held off.
#[derive(Debug, Clone)]
pub(super) struct Held {
    run: String,
    what: String,
    /// Where that run is, and what is not to be done.
    at: String,
    /// What goes on with it.
    next: String,
    /// Its last moment, of one that is over: it holds off what has not been up since.
    since: Option<Timestamp>,
}

impl Held {
    /// By a run that is open, or is over and has left it off; `what` it is of.
    pub(super) fn by(run: &RunRead, what: &str, at_work: bool) -> Self {
        let id = &run.id;
        let next = match run.state.phase {
            _ if at_work => "`pvemig status` shows how far it is".to_owned(),
            Phase::Forward => format!("`pvemig resume {id}` goes on with it"),
            _ => format!("`pvemig undo {id}` goes on with its undo"),
        };
        if !matches!(run.state.phase, Phase::Forward | Phase::Undoing | Phase::Stuck) {
            let migration = run.state.opened.migration.as_ref().filter(|_| !run.state.opened.single);
            let takes_back = || format!("`pvemig undo {id}` takes that back");
            let takes_over =
                |name: &String| format!("started by hand then, `pvemig run {name}` takes over what is still held");
            let next = migration.map_or_else(takes_back, takes_over);
            let at = format!(", which is over: see that its drives are {BELONG} before you start it");
            return Self { run: id.clone(), what: what.to_owned(), at, next, since: Some(run.state.last) };
        }
        let at = stands::at(run).map_or_else(|| "in its undo".to_owned(), |key| format!("at {key}"));
        let at = format!(" {at}: do not start it but as that run asks");
        Self { run: id.clone(), what: what.to_owned(), at, next, since: None }
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { run, what, at, next, .. } = self;
        write!(f, "held off by run {run} ({what}){at}; {next}")
    }
}

/// Says it of those that are off; `held` by their names in the site file.
pub(super) fn mark(held: &BTreeMap<String, Held>, survey: &mut Survey) {
    let at = survey.at;
    for node in survey.nodes.iter_mut().filter(|node| is_off(node)) {
        let stands = |held: &&Held| held.since.is_none_or(|last| is_down_since(node, at, last));
        let Some(held) = held.get(&node.name).filter(stands).map(ToString::to_string) else { continue };
        // Proxmox hands on what is at an address, whatever that is by now.
        let held = match &node.place {
            Some(place) => {
                held.replace(BELONG, &format!("where its hostpci lines have them (`qm config {}`)", place.vmid))
            }
            None => held,
        };
        node.talos.instead(&held);
        node.etcd.instead(&held);
        before(&mut node.vm, &held);
        before(&mut node.agent, &held);
        node.held_off = Some(held);
    }
    if survey.partial {
        return;
    }
    // Where all of them are off nobody answers for Kubernetes.
    for cluster in survey.talos.clone() {
        let held = |node: &Node| Some(format!("{} is {}", node.name, node.held_off.as_ref()?));
        let all: Option<Vec<String>> = survey.talos_nodes(&cluster.name).map(held).collect();
        if let Some(all) = all.filter(|all| !all.is_empty()) {
            survey.without_an_api(&cluster.kubernetes, &all.join("; "));
        }
    }
}

/// The host of a VM may be off because of it too, or not be asked for another reason.
fn before<T>(layer: &mut Layer<T>, held: &str) {
    let Layer::Unknown { help, .. } = layer else { return };
    let rest = help.take().map(|help| format!("; where its host is not off for that: {help}"));
    *help = Some(format!("{held}{}", rest.unwrap_or_default()));
}

/// Whether it is off as far as is seen: of a VM that is known Proxmox tells, whatever Kubernetes believes of it still; else
/// nothing of it answers.
fn is_off(node: &Node) -> bool {
    node.waiting.is_none() && node.vm().map_or(node.talos_silent, |vm| !vm.is_running())
}
