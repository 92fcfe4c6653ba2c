//! What the runs of the site say of what is seen: one that is open comes before all else, and a machine that must not be
//! started any more is none that anybody is to switch on.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::base::survey::{Majority, Node, Presence, Survey, Vm};
use crate::blueprint::retired::{Why, fate};
use crate::engine::event::Planned;
use crate::engine::state::Phase;
use crate::engine::store::RunRead;
use crate::lint::{BY_REPLACE, Finding};
use crate::site::Site;

use super::super::left::taken_back;
use super::super::session::{Session, begun};
use super::super::stands;
use super::super::words::one_line;
use super::cells::Mark;
use super::held::{self, Held};
use super::mended::{self, Next};
use super::past::Past;
use super::screen::Paper;

/// A run that has begun something and is not at its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Open {
    /// Its id.
    pub(super) run: String,
    /// Its migration; None: a step from flags alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) migration: Option<String>,
    /// What it is of, for a person.
    pub(super) what: String,
    /// Where it stands.
    pub(super) stands: String,
    /// The command that goes on with it.
    pub(super) command: String,
    /// What else can be done.
    pub(super) help: String,
    /// A process is at work on it.
    pub(super) at_work: bool,
    /// The machines that it has in hand: it holds them off, or installs them.
    #[serde(skip)]
    machines: Vec<String>,
}

/// Why a machine is not to be started.
#[derive(Debug, Clone)]
struct Off {
    run: String,
    what: String,
    /// How that run goes on, where it is open.
    goes_on: Option<String>,
    why: Why,
}

/// What all runs say.
#[derive(Debug, Default)]
pub(super) struct Runs {
    pub(super) open: Vec<Open>,
    /// By migration.
    past: BTreeMap<String, Past>,
    /// By the machine's name in the site file.
    off: BTreeMap<String, Off>,
    /// What a run holds off that is open or was left, by the machine's name in the site file.
    held: BTreeMap<String, Held>,
    /// What a run has switched off and does not hold any more: the run and its last moment, by the machine's name in the site
    /// file.
    down: BTreeMap<String, (String, Timestamp)>,
    /// What takes over, or back, the holds of a run that is over, by its id.
    left: BTreeMap<String, String>,
    /// Why not all of it is known.
    pub(super) unknown: Vec<String>,
}

/// The rules that tell to start a machine, or what runs on it.
const START: [&str; 6] = ["L13", "L27", "L28", "L32", "L36", "L39"];
/// The rule of a lost majority.
const LOST: &str = "L37";

impl Runs {
    pub(super) fn of(session: &Session) -> Self {
        let mut said = Self::default();
        let (runs, damaged) = match session.store.every_run() {
            Ok(all) => all,
            Err(error) => {
                said.unknown.push(format!("which runs of this site are open is not known: {error}"));
                return said;
            }
        };
        for run in damaged {
            said.unknown.push(format!(
                "the journal of run {} is damaged, so what it did is not known: `pvemig status`",
                run.id
            ));
        }
        let at_work = match session.store.at_work() {
            Ok(holder) => holder.map(|holder| holder.run),
            Err(error) => {
                said.unknown.push(format!("whether a run of this site is at work is not known: {error}"));
                None
            }
        };
        for run in &runs {
            said.take(run, &runs, at_work.as_ref().map(|at| *at == run.id));
            said.left.extend(left_hold(session, run).map(|help| (run.id.clone(), help)));
            let Some(name) = run.state.opened.migration.as_ref().filter(|_| begun(&run.state)) else { continue };
            // What another one came to in its place.
            if !run.state.opened.single && matches!(run.state.phase, Phase::Done | Phase::Undone) {
                said.past.remove(name);
            }
            said.past.extend(Past::of(session, run, name).map(|past| (name.clone(), past)));
        }
        said
    }

    /// Those that were undone past something, by migration.
    pub(super) fn past(&self) -> Vec<Past> {
        self.past.values().cloned().collect()
    }

    /// `busy`: a process is at work on the site; with whether it is on this run.
    fn take(&mut self, run: &RunRead, all: &[RunRead], busy: Option<bool>) {
        let at_work = busy == Some(true);
        let (id, what) = (run.id.clone(), Session::called(run));
        let open = matches!(run.state.phase, Phase::Forward | Phase::Undoing | Phase::Stuck);
        let verb = if run.state.phase == Phase::Forward { "resume" } else { "undo" };
        let goes_on = format!("pvemig {verb} {id}");
        // Who is at work holds the site: nothing begins beside it.
        let command = if busy.is_some() { "pvemig status".to_owned() } else { goes_on.clone() };
        let fate = fate(&run.state);
        if fate.unread {
            self.unknown.push(format!(
                "what run {id} ({what}) says of machines cannot be read, so whether one of them must stay off is not known: \
                 `pvemig report {id}`"
            ));
        }
        for name in fate.anew {
            self.off.remove(&name);
            self.down.remove(&name);
            self.held.remove(&name);
        }
        // What another run has said of one that must stay off holds on.
        for name in fate.down.into_iter().filter(|name| !self.off.contains_key(name)) {
            self.down.insert(name, (format!("run {id} ({what})"), run.state.last));
        }
        for (name, why) in fate.off {
            // A step of it that was run alone in between knows nothing of what came then.
            let place = |why: &Why| match why {
                Why::Replaced { by, joined, .. } => Some((by.clone(), *joined)),
                Why::Lost => None,
            };
            let is = self.off.get(&name).and_then(|off| place(&off.why));
            if is.is_some_and(|(by, joined)| joined && place(&why) == Some((by, false))) {
                continue;
            }
            let goes_on = if at_work { format!("is at work (`{command}`)") } else { format!("goes on by `{goes_on}`") };
            self.down.remove(&name);
            self.off.insert(name, Off { run: id.clone(), what: what.clone(), goes_on: open.then_some(goes_on), why });
        }
        let machines = installs(run).chain(fate.held.iter().map(|(name, _)| name.clone())).collect();
        // One that another run has taken over, or back, is held by that one, if at all.
        for (name, _) in fate.held.into_iter().filter(|(_, holder)| !taken_back(all, run, holder)) {
            self.held.insert(name, Held::by(run, &what, at_work));
        }
        if !(open && begun(&run.state)) {
            return;
        }
        self.open.push(Open {
            migration: run.state.opened.migration.clone().filter(|_| !run.state.opened.single),
            what,
            stands: stands::line(run).unwrap_or_else(|| "its undo is not at its end".to_owned()),
            help: if at_work { "`pvemig status` shows how far it is".to_owned() } else { stands::command(run) },
            command,
            at_work,
            machines,
            run: id,
        });
    }

    /// Leaves out what a run has installed where the node is seen to run from another disk by now.
    pub(super) fn see(&mut self, survey: &Survey) {
        self.past.retain(|_, past| past.still_so(survey));
    }

    /// What is next for a machine that waits where an open run has it in hand.
    pub(super) fn in_hand(&self, node: &str) -> Option<String> {
        let open = self.open.iter().rfind(|open| open.machines.iter().any(|name| name == node))?;
        Some(format!("run {} ({}), which is open, has it in hand: {}", open.run, open.what, open.help))
    }

    /// Whether a machine that does not answer is to be started is what the runs say that have to do with it. Of one that an
    /// etcd with its majority counts among its members they say nothing: it was let in again since. One without proves
    /// nothing: it may be the old one, which counts those that must never meet again.
    pub(super) fn keep_off(&mut self, site: &Site, survey: &mut Survey) {
        let etcd: Vec<_> = survey.talos.iter().flat_map(|cluster| survey.ballots(cluster)).collect();
        let is_in = |name: &str| etcd.iter().any(|it| it.majority == Majority::Held && it.member_of(name).is_some());
        self.off.retain(|name, _| !is_in(name));
        self.held.retain(|name, _| !self.off.contains_key(name));
        held::mark(&self.held, survey);
        let at = survey.at;
        for node in survey.nodes.iter_mut().filter(|node| node.held_off.is_none() && is_away(node)) {
            let instead = match (self.off.get(&node.name), self.down.get(&node.name)) {
                (Some(off), _) => off.help(site, node),
                (None, Some((run, last))) if is_down_since(node, at, *last) => {
                    let start = node.place.as_ref().map(|at| format!("`qm start {}`", at.vmid));
                    let start = start.unwrap_or_else(|| "its power button".to_owned());
                    format!("{run} switched it off and is over: where nobody has done so since, {start} starts it")
                }
                _ => continue,
            };
            node.talos.instead(&instead);
            node.etcd.instead(&instead);
        }
    }

    /// Says what the runs have to do with what was found.
    pub(super) fn judge(&self, site: &Site, survey: &Survey, findings: &mut [Finding]) {
        for finding in &mut *findings {
            if let Some(held) = survey.node(&finding.what).and_then(|node| node.held_off.as_ref())
                && START.contains(&finding.rule)
            {
                finding.help.clone_from(held);
            } else if let Some(node) = survey.node(&finding.what)
                && let Some(off) =
                    self.off.get(&finding.what).filter(|_| START.contains(&finding.rule) && is_away(node))
            {
                finding.help = off.help(site, node);
            }
            // In the middle of a recovery no voter of those that count any more brings that majority back.
            let lost = |off: &&Off| off.why == Why::Lost;
            if finding.rule == LOST
                && let Some(goes_on) = survey
                    .talos_nodes(&finding.what)
                    .find_map(|node| self.off.get(&node.name).filter(lost)?.goes_on.as_ref())
            {
                finding.help = format!("the recovery {goes_on}");
            }
            self.of_holds(survey, finding);
            let of = survey.node(&finding.what).and_then(|node| node.talos_cluster.as_deref());
            self.first(&mut finding.help, of.unwrap_or(&finding.what));
        }
    }

    /// The same for what is next.
    pub(super) fn next(&self, survey: &Survey, next: &mut [Next]) {
        for next in next {
            let of = next.nodes.first().and_then(|name| survey.node(name)?.talos_cluster.clone());
            self.first(&mut next.help, &of.unwrap_or_default());
        }
    }

    /// A cordon of a run that is known here is taken back by that run, or taken over from it.
    fn of_holds(&self, survey: &Survey, finding: &mut Finding) {
        let mark =
            survey.node(&finding.what).and_then(Node::kubelet).and_then(|kubelet| kubelet.cordon_mark.as_deref());
        if finding.rule != mended::CORDONED {
            return;
        }
        let of = |run: &str| mark.is_some_and(|mark| mark.starts_with(&format!("run {run} on ")));
        if let Some(open) = self.open.iter().find(|open| of(&open.run)) {
            finding.help = format!("it is a hold of that run, which is open: {}", open.help);
        } else if let Some((_, left)) = self.left.iter().find(|(run, _)| of(run)) {
            // No run begins with a machine that is off.
            let off = survey.node(&finding.what).is_some_and(|node| node.held_off.is_some());
            finding.help = format!("{left}{}", if off { ", once the machine is on again" } else { "" });
        }
    }

    /// No plan comes before the end of an open run. `cluster`: of what the help is for.
    fn first(&self, help: &mut String, cluster: &str) {
        const PLAN: &str = "`pvemig plan ";
        const GONE: &str = "gone for good, ";
        let Some(newest) = self.open.last() else {
            // What it left behind is what is to be dealt with.
            if let Some(past) = self.past.values().find(|past| past.cluster.as_deref() == Some(cluster))
                && (by_hand(help) || (help.contains(PLAN) && !help.contains(&format!("{PLAN}{}`", past.migration))))
            {
                let instead =
                    format!("first what run {} ({}) has left, which stands above; then ", past.run, past.migration);
                help.insert_str(0, &instead);
            }
            return;
        };
        let then = format!(
            "first the end of run {} ({}), which is open: `{}`; then ",
            newest.run, newest.what, newest.command
        );
        let Some((before, rest)) = help.split_once(PLAN) else {
            if by_hand(help) {
                help.insert_str(0, &then);
            }
            return;
        };
        let Some((name, behind)) = rest.split_once('`') else { return };
        let own = self.open.iter().find(|open| open.migration.as_deref() == Some(name));
        *help = match own {
            // A plan shows; that goes on at once.
            Some(open) if behind == " shows what becomes of it" && open.command.starts_with("pvemig resume") => {
                format!(
                    "{before}`{}` goes on with run {} of {name}, which is open, and asks nobody",
                    open.command, open.run
                )
            }
            Some(open) => format!("{before}`{}` (run {} of {name} is open){behind}", open.command, open.run),
            // What loses nothing is done at once, and stands before it.
            None => {
                let (at_once, before) = before.split_at(before.rfind(GONE).map_or(0, |at| at + GONE.len()));
                format!("{at_once}{then}{before}{PLAN}{name}`{behind}")
            }
        };
    }
}

impl Paper {
    /// What is half done stands before what is seen: that is as it is because of it. So does what nobody knows of it.
    pub(super) fn runs(&mut self, open: &[Open], past: &[Past], unknown: &[String]) {
        for text in unknown {
            let head = format!("{} ", Mark::Unknown.style().apply_to(Mark::Unknown.row()));
            self.laid(&head, text, 4);
        }
        for it in past {
            let head = format!("{} ", Mark::Wrong.style().apply_to(Mark::Wrong.row()));
            let text = format!(
                "run {} ({}) was {}, and what {} did stays",
                it.run,
                it.migration,
                it.ended,
                it.steps.join(", ")
            );
            self.laid(&head, &text, 4);
            it.stays.iter().for_each(|line| self.laid("    ", line, 4));
            self.help(&it.help);
        }
        for run in open {
            let (mark, at_work) =
                if run.at_work { (Mark::Noted, ", a process is at work on it") } else { (Mark::Wrong, "") };
            let head = format!("{} ", mark.style().apply_to(mark.row()));
            self.laid(&head, &format!("run {} ({}) is open{at_work}: {}", run.run, run.what, one_line(&run.stands)), 4);
            self.help(&run.help);
        }
    }
}

/// The machines that a run installs.
fn installs(run: &RunRead) -> impl Iterator<Item = String> {
    let name = |planned: &Planned| Some(planned.step.pointer("/anew/bare/machine/name")?.as_str()?.to_owned());
    run.state.opened.plan.iter().filter_map(name).take(1)
}

/// What is to be done about the holds that a run has left, where there are any.
fn left_hold(session: &Session, run: &RunRead) -> Option<String> {
    if run.state.holds_up().is_empty() {
        return None;
    }
    let (id, opened) = (&run.id, &run.state.opened);
    match run.state.phase {
        Phase::Done => Some(format!("it is a hold of that run, which is done: `pvemig undo {id}` takes it back")),
        Phase::Abandoned => {
            let name = opened.migration.as_ref().filter(|name| session.site.migrations.contains_key(*name))?;
            Some(format!("it is a hold of that run, which was abandoned: `pvemig run {name}` takes it over"))
        }
        Phase::Forward | Phase::Undoing | Phase::Stuck | Phase::Undone => None,
    }
}

/// Whether a help is a command that changes a node in passing.
fn by_hand(help: &str) -> bool {
    [" patch mc ", " patch machineconfig ", " upgrade --image "].iter().any(|command| help.contains(command))
}

/// Whether it was asked, and nothing of it answers.
fn is_away(node: &Node) -> bool {
    node.waiting.is_none() && node.talos_silent && node.kubelet().is_none_or(|kubelet| !kubelet.ready)
}

/// Whether nothing shows that it was up after a moment.
pub(super) fn is_down_since(node: &Node, at: Timestamp, last: Timestamp) -> bool {
    // Its kubelet reports until it ends, and a lease is written down a while later.
    const LATE: SignedDuration = SignedDuration::from_mins(2);
    let runs = node.vm().is_some_and(Vm::is_running);
    let heard_since = match node.presence(at) {
        Presence::Dead { unheard } => SignedDuration::try_from(unheard).is_ok_and(|unheard| at - unheard > last + LATE),
        _ => false,
    };
    !runs && !heard_since
}

impl Off {
    fn help(&self, site: &Site, node: &Node) -> String {
        let Self { run, what, goes_on, why } = self;
        let name = &node.name;
        let vm = node.place.as_ref().map(|place| {
            let on = node.vm().map_or("its Proxmox host", |vm| vm.host.as_str());
            format!(" (on {on}: `qm set {} --onboot 0`, so that it does not start with its host)", place.vmid)
        });
        let vm = vm.unwrap_or_default();
        if let (Some(on), Some(place)) = (node.vm().filter(|vm| vm.is_running()), &node.place) {
            let then = goes_on.as_ref().map(|goes_on| format!("; that run {goes_on}")).unwrap_or_default();
            return format!(
                "by run {run} ({what}) {name} must not run from its old disk, and vm {} runs: where it was started from a Talos medium, \
                 or is being switched off, leave it; where it is {name} with that disk, `qm stop {}` on {}{then}",
                place.vmid, place.vmid, on.host
            );
        }
        match (why, goes_on) {
            (Why::Replaced { by, .. }, Some(goes_on)) if by == name => {
                format!("not from its old disk: run {run} ({what}) takes it in from a Talos medium, and {goes_on}")
            }
            (Why::Replaced { by, .. }, Some(goes_on)) => {
                format!("leave it off: run {run} ({what}) is to put {by} in its place, and {goes_on}")
            }
            (Why::Replaced { by, joined: false, .. }, None) => {
                let next = mended::replace(site, name).unwrap_or_else(|| BY_REPLACE.to_owned());
                format!(
                    "leave it off{vm} unless etcd names it as a member: run {run} ({what}) was to take it out, and ended without {by} \
                     in its place; for that {next}"
                )
            }
            (Why::Replaced { by, cluster, joined: true }, None) => format!(
                "leave it off{vm}: run {run} ({what}) has put {by} in its place; take {name} out of the site file \
                 (talos.{cluster}.nodes), and the migrations that name it"
            ),
            (Why::Lost, Some(goes_on)) => {
                format!("leave it off{vm}: run {run} ({what}) lets etcd begin anew without it, and {goes_on}")
            }
            (Why::Lost, None) => {
                let next = mended::replace(site, name).unwrap_or_else(|| BY_REPLACE.to_owned());
                format!(
                    "leave it off{vm}: by run {run} ({what}) it must not come back with its old disk; for another in its place {next}"
                )
            }
        }
    }
}
