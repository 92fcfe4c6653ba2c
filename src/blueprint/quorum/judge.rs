//! The judgement whether a node may go down, and the gate right before the call that takes it down.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::{BEHIND, Etcd, EtcdMember, Peer, Said, View, agree, amiss, leaders, learner, look, troubles, votes};
use crate::base::check::Problem;
use crate::base::fault::Failure;
use crate::base::permit::Permit;
use crate::base::survey::Votes;
use crate::base::wait::{Backoff, show};
use crate::estate::Estate;

/// How long the election of another leader may take; etcd's own election timeout is a second by default.
pub(super) const ELECTION: Duration = Duration::from_secs(30);

/// What helps where a majority would be lost.
const THREE: &str = "add a control plane first, so that there are three voters";

/// The judgement about one node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// What is in the way of its going down; none: it may.
    pub problems: Vec<Problem>,
    /// All that is in the way is an election, whose end is waited for.
    pub electing: bool,
    /// It leads: that is handed over first.
    pub leads: bool,
    /// It is no control plane.
    pub worker: bool,
    /// What there is to know.
    pub notes: Vec<String>,
}

/// Asks whether a node may go down, and lets it hand its leadership over where it leads. For right before the call that
/// takes it down.
///
/// # Errors
/// It may not, or it still leads after the handing over.
pub async fn pass(cx: &Estate, cluster: &str, node: &str, peers: &[Peer], permit: &Permit) -> Result<(), Failure> {
    let mut pauses = Backoff::poll(cx.clock());
    let mut asked: Option<Instant> = None;
    loop {
        let etcd = look(cx, cluster, peers).await;
        let verdict = judge(node, &etcd);
        match verdict.gate(asked.map(|at| at.elapsed())) {
            Gate::Open => return Ok(()),
            Gate::Shut => {
                let (text, help): (Vec<_>, Vec<_>) = verdict.problems.into_iter().map(|p| (p.text, p.help)).unzip();
                let text = format!("{node} must not go down now: {}", text.join("; "));
                return Err(Failure::plain(text, help.into_iter().next()));
            }
            Gate::StillLeads => {
                let text = format!("{node} still leads etcd {} after it was told to hand that over", show(ELECTION));
                return Err(Failure::plain(
                    text,
                    Some(format!("see {}; `pvemig resume` asks again", etcd.everywhere("etcd status"))),
                ));
            }
            Gate::HandOver => {
                cx.talos(node).await?.etcd_forfeit(permit).await?;
                asked = Some(cx.clock().instant());
            }
            Gate::Wait => {}
        }
        permit.go_on()?;
        pauses.pause().await;
    }
}

/// What a verdict comes to right before the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    Open,
    Shut,
    /// It leads, and was not told yet to hand that over.
    HandOver,
    /// It was told, and another leader is on its way.
    Wait,
    StillLeads,
}

impl Verdict {
    /// What is in the way besides that a majority would be lost: for who takes the cluster down with its node, and knows it.
    pub fn without_majority(self) -> Vec<Problem> {
        self.problems.into_iter().filter(|problem| problem.help != THREE).collect()
    }

    /// `asked`: how long ago the node was told to hand the leadership over. The election that this begins is borne: while
    /// it lasts the members know no leader, or not the same one.
    pub(super) fn gate(&self, asked: Option<Duration>) -> Gate {
        let in_time = asked.is_some_and(|ago| ago <= ELECTION);
        match (self.problems.is_empty(), self.leads) {
            (false, _) if self.electing && in_time => Gate::Wait,
            (false, _) => Gate::Shut,
            (true, false) => Gate::Open,
            (true, true) if asked.is_none() => Gate::HandOver,
            (true, true) if in_time => Gate::Wait,
            (true, true) => Gate::StillLeads,
        }
    }
}

/// Whether a node may go down. A refusal has the sum: before the words on the majority, else before the first.
pub fn judge(node: &str, etcd: &Etcd) -> Verdict {
    let mut verdict = judged(node, etcd);
    if let (false, Some(sum)) = (verdict.problems.is_empty(), sum(node, etcd)) {
        let of = verdict.problems.iter().position(|problem| problem.help == THREE).unwrap_or_default();
        if let Some(problem) = verdict.problems.get_mut(of) {
            problem.text = format!("{sum}: {}", problem.text);
        }
    }
    verdict
}

/// The votes, with the node and while it is down; None where nobody tells them, and of who has none.
fn sum(node: &str, etcd: &Etcd) -> Option<String> {
    let now = votes(etcd)?;
    let counted = match etcd.said_by(node)? {
        Said::View(_) => amiss(node, etcd).is_none(),
        Said::Silent(_) => false,
        Said::Worker => return None,
    };
    let then = Votes { voters: now.voters, healthy: now.healthy.saturating_sub(usize::from(counted)) };
    Some(format!("etcd has {now}; while {node} is down {then}"))
}

fn judged(node: &str, etcd: &Etcd) -> Verdict {
    let view = match etcd.said_by(node) {
        Some(Said::View(view)) => view,
        Some(Said::Worker) => {
            let notes = vec![format!("{node} is no control plane: etcd does not run on it")];
            return Verdict { worker: true, notes, ..Verdict::default() };
        }
        Some(Said::Silent(why)) => {
            let text = format!("how etcd is on {node} is not known: {why}");
            return refused(vec![Problem::new(text, format!("{} tells more", etcd.talosctl(node, "service etcd")))]);
        }
        None => {
            let text = format!("{node} is no node of Talos cluster {} in the site file", etcd.cluster);
            return refused(vec![Problem::new(text, format!("add it to `talos.{}.nodes`", etcd.cluster))]);
        }
    };
    let mut problems = agree(node, view, etcd);
    let election = leaders(node, view, etcd);
    let views: BTreeMap<u64, (&Peer, &View)> =
        etcd.views().map(|(peer, view)| (view.status.member, (peer, view))).collect();
    let newest = views.values().map(|(_, view)| view.status.raft_applied).max().unwrap_or_default();
    let names: BTreeMap<u64, String> = view.members.iter().map(|member| (member.id, member.name())).collect();
    for member in &view.members {
        problems.extend(member_problem(node, member, (&views, newest), etcd));
    }
    problems.extend(alarms(node, etcd, &names));
    problems.extend(majority(node, view));
    let electing = problems.is_empty() && !election.is_empty();
    problems.extend(election);
    let leads = view.status.leads();
    let notes = names.get(&view.status.leader).map(|leader| format!("{leader} leads etcd")).into_iter().collect();
    Verdict { problems, electing, leads, worker: false, notes }
}

fn refused(problems: Vec<Problem>) -> Verdict {
    Verdict { problems, ..Verdict::default() }
}

/// What is wrong with one member.
fn member_problem(
    node: &str,
    member: &EtcdMember,
    (views, newest): (&BTreeMap<u64, (&Peer, &View)>, u64),
    etcd: &Etcd,
) -> Option<Problem> {
    let (name, id) = (member.name(), member.hex());
    let remove = || etcd.talosctl(node, &format!("etcd remove-member {id}"));
    if member.is_unstarted() {
        return Some(Problem::new(
            format!("member {id} of etcd was added and has never started"),
            format!("let it start, or {}", remove()),
        ));
    }
    // A learner answers little more than its status, so its own word is not waited for.
    if member.is_learner {
        let host = etcd.said.iter().map(|(peer, _)| peer).find(|peer| peer.node_name == name);
        return Some(learner(&name, host.map_or(name.as_str(), |peer| &peer.name), etcd));
    }
    let Some((peer, view)) = views.get(&member.id) else {
        let host = etcd.said.iter().find(|(peer, _)| peer.node_name == name || peer.name == name);
        return Some(match host {
            Some((peer, Said::Silent(why))) => Problem::new(
                format!("member {name} of etcd cannot be asked: {why}"),
                format!("let {} answer first: {}", peer.name, etcd.talosctl(&peer.name, "service etcd")),
            ),
            Some((peer, Said::Worker)) => Problem::new(
                format!("{} is a member of etcd ({id}) and says that it is no control plane", peer.name),
                format!("a machine that has gone leaves its member behind: {}", remove()),
            ),
            Some((peer, Said::View(view))) => Problem::new(
                format!(
                    "member {name} ({id}) of etcd is not the one that runs on {} ({:016x})",
                    peer.name, view.status.member
                ),
                format!("the older one is a left-over: {}, once that is certain", remove()),
            ),
            None => Problem::new(
                format!(
                    "member {name} ({id}) of etcd is on no node of Talos cluster {} in the site file",
                    etcd.cluster
                ),
                format!("add its node to `talos.{}.nodes`; where the machine is gone, {}", etcd.cluster, remove()),
            ),
        });
    };
    if view.status.is_learner {
        return Some(learner(&name, &peer.name, etcd));
    }
    let errors = troubles(view);
    if !errors.is_empty() {
        return Some(Problem::new(
            format!("member {name} of etcd is not healthy: {}", errors.join("; ")),
            format!("{} tells more", etcd.talosctl(&peer.name, "logs etcd")),
        ));
    }
    let behind = newest.saturating_sub(view.status.raft_applied);
    (behind > BEHIND).then(|| {
        Problem::new(
            format!("member {name} of etcd is {behind} entries behind the others"),
            format!(
                "wait until it has caught up; where it does not, see its disk: {}",
                etcd.talosctl(&peer.name, "logs etcd")
            ),
        )
    })
}

/// Alarms, each once, whoever told of it.
fn alarms(node: &str, etcd: &Etcd, names: &BTreeMap<u64, String>) -> Vec<Problem> {
    let all: BTreeSet<(u64, &str)> =
        etcd.views().flat_map(|(_, view)| &view.alarms).map(|alarm| (alarm.member, alarm.alarm.as_str())).collect();
    let problem = |(member, alarm): (u64, &str)| {
        let name = names.get(&member).cloned().unwrap_or_else(|| format!("{member:016x}"));
        let help = match alarm {
            "NOSPACE" => format!(
                "make room ({} for each member in turn), then {}",
                etcd.talosctl(node, "etcd defrag"),
                etcd.talosctl(node, "etcd alarm disarm")
            ),
            _ => "its data may be damaged: take a snapshot of a healthy member, and mend that first".to_owned(),
        };
        Problem::new(format!("member {name} of etcd has raised the alarm {alarm}"), help)
    };
    all.into_iter().map(problem).collect()
}

/// More than half of the voters must stay.
fn majority(node: &str, view: &View) -> Option<Problem> {
    let voters = view.members.iter().filter(|member| !member.is_learner).count();
    let stay = view.members.iter().filter(|m| !m.is_learner && m.id != view.status.member).count();
    if stay > voters / 2 {
        return None;
    }
    let text = match voters {
        0 | 1 => {
            format!("{node} is the only voter of etcd: without it there is no Kubernetes API to take the node back")
        }
        2 => format!("while {node} is down, the other voter alone is no majority"),
        _ => format!("without {node} only {stay} of {voters} voters stay, which is no majority"),
    };
    Some(Problem::new(text, THREE))
}
