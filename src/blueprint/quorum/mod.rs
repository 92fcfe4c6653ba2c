//! Whether a node of the control plane may go down for a while: etcd must have its majority without it, and be whole
//! besides.
//!
//! What is asked is asked of each node itself, side by side; the judgement is a pure function over the answers. Rules of
//! etcd: a majority is more than half of the voters, and a learner is none (etcd.io, "Frequently Asked Questions" and
//! "Learner").

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde::{Deserialize, Serialize};

use crate::base::check::Problem;
use crate::base::fault::Failure;
use crate::base::names::Dial;
use crate::base::permit::Permit;
use crate::base::survey::{BEHIND, NO_LEADER};
use crate::base::wait::{Backoff, show};
use crate::estate::Estate;
use crate::talos::{Error, EtcdAlarm, EtcdMember, EtcdStatus};

mod join;
mod leave;
mod own;

pub use crate::base::survey::Votes;
pub use join::{Join, join, votes};
pub use leave::{Leave, leave};
pub use own::amiss;

/// How long the election of another leader may take; etcd's own election timeout is a second by default.
const ELECTION: Duration = Duration::from_secs(30);

/// A node of the Talos cluster, as etcd may know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name in the site file.
    pub name: String,
    /// Its name in Kubernetes, which is its host name.
    pub node_name: String,
    /// How `talosctl` gets to it, for what a person types.
    #[serde(default)]
    pub dial: Dial,
}

/// What a node said of etcd.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// It is no control plane: etcd does not run there.
    Worker,
    /// How its own etcd sees things.
    View(View),
    /// It could not be asked, and why.
    Silent(String),
}

/// How a node's own etcd sees things.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// The members that it knows.
    pub members: Vec<EtcdMember>,
    /// How it does itself.
    pub status: EtcdStatus,
    /// The alarms that it knows of, of all members.
    pub alarms: Vec<EtcdAlarm>,
}

/// What all nodes of a Talos cluster said.
#[derive(Debug, Clone, PartialEq)]
pub struct Etcd {
    /// The Talos cluster's name in the site file.
    pub cluster: String,
    /// By node.
    pub said: Vec<(Peer, Said)>,
}

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

/// Asks every node of the cluster, side by side.
pub async fn look(cx: &Estate, cluster: &str, peers: &[Peer]) -> Etcd {
    let one = |peer: &Peer| {
        let peer = peer.clone();
        async move {
            let said = match view(cx, &peer.name).await {
                Ok(Some(view)) => Said::View(view),
                Ok(None) => Said::Worker,
                Err(failure) => Said::Silent(failure.to_string()),
            };
            (peer, said)
        }
    };
    Etcd { cluster: cluster.to_owned(), said: join_all(peers.iter().map(one)).await }
}

/// How a node's own etcd sees things; None on a worker.
async fn view(cx: &Estate, node: &str) -> Result<Option<View>, Failure> {
    let talos = cx.talos(node).await?;
    let members = match talos.etcd_members(true).await {
        Err(Error::NotControlPlane { .. }) => return Ok(None),
        other => other?,
    };
    let (status, alarms) = futures::try_join!(talos.etcd_status(), talos.etcd_alarms())?;
    Ok(Some(View { members, status, alarms }))
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
enum Gate {
    Open,
    Shut,
    /// It leads, and was not told yet to hand that over.
    HandOver,
    /// It was told, and another leader is on its way.
    Wait,
    StillLeads,
}

impl Verdict {
    /// `asked`: how long ago the node was told to hand the leadership over. The election that this begins is borne: while
    /// it lasts the members know no leader, or not the same one.
    fn gate(&self, asked: Option<Duration>) -> Gate {
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

/// Whether a node may go down.
pub fn judge(node: &str, etcd: &Etcd) -> Verdict {
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

impl Etcd {
    /// What a node said.
    pub fn said_by(&self, node: &str) -> Option<&Said> {
        self.said.iter().find(|(peer, _)| peer.name == node).map(|(_, said)| said)
    }

    /// A command to a node that can be pasted, in back-quotes.
    fn talosctl(&self, node: &str, rest: &str) -> String {
        let peer = self.said.iter().map(|(peer, _)| peer).find(|peer| peer.name == node);
        peer.map(|peer| peer.dial.clone()).unwrap_or_default().talosctl(node, rest)
    }

    /// The same to each node of the control plane, by way of one that answers.
    fn everywhere(&self, rest: &str) -> String {
        let all: Vec<&Peer> =
            self.said.iter().filter(|(_, said)| !matches!(said, Said::Worker)).map(|(peer, _)| peer).collect();
        let Some(first) = self.views().map(|(peer, _)| peer).next().or(all.first().copied()) else {
            return format!("`talosctl {rest}`");
        };
        let host = |peer: &&Peer| if peer.dial.host.is_empty() { peer.name.clone() } else { peer.dial.host.clone() };
        let hosts = all.iter().map(host).collect::<Vec<_>>().join(",");
        Dial { host: hosts.clone(), ..first.dial.clone() }.talosctl(&hosts, rest)
    }

    /// The nodes whose etcd answered.
    fn views(&self) -> impl Iterator<Item = (&Peer, &View)> {
        self.said.iter().filter_map(|(peer, said)| match said {
            Said::View(view) => Some((peer, view)),
            Said::Worker | Said::Silent(_) => None,
        })
    }
}

impl Etcd {
    /// The names of all members, as the first that answers knows them.
    pub fn members(&self) -> Vec<String> {
        self.views().next().map(|(_, view)| view.members.iter().map(EtcdMember::name).collect()).unwrap_or_default()
    }

    /// The names of those that have a vote, and of those that have none yet, as the first that answers knows them.
    pub fn by_vote(&self) -> (Vec<String>, Vec<String>) {
        let members = self.views().next().map(|(_, view)| view.members.as_slice()).unwrap_or_default();
        let named =
            |learners: bool| members.iter().filter(|one| one.is_learner == learners).map(EtcdMember::name).collect();
        (named(false), named(true))
    }

    /// The ids of all members, in 16 hexadecimal digits, as the first that answers knows them.
    pub fn member_ids(&self) -> BTreeSet<String> {
        self.views().next().map(|(_, view)| view.members.iter().map(EtcdMember::hex).collect()).unwrap_or_default()
    }

    /// The ids of the members of a host name, in 16 hexadecimal digits.
    pub fn ids_of(&self, host: &str) -> Vec<String> {
        let members = self.views().next().map(|(_, view)| view.members.as_slice()).unwrap_or_default();
        members.iter().filter(|member| member.hostname == host).map(EtcdMember::hex).collect()
    }

    /// A voter that is well, beside this node.
    pub fn voter_beside(&self, node: &str) -> Option<&str> {
        let others = self.views().map(|(peer, _)| peer.name.as_str()).filter(|name| *name != node);
        others.into_iter().find(|name| amiss(name, self).is_none())
    }

    /// The ids of the members; none as long as nobody tells them.
    pub fn ids(&self) -> Vec<u64> {
        self.views().next().map(|(_, view)| view.members.iter().map(|member| member.id).collect()).unwrap_or_default()
    }

    /// Whether a node's own etcd answers.
    pub fn knows(&self, node: &str) -> bool {
        matches!(self.said_by(node), Some(Said::View(_)))
    }

    /// Those that could not be asked, and why.
    pub fn silent(&self) -> impl Iterator<Item = (&str, &str)> {
        self.said.iter().filter_map(|(peer, said)| match said {
            Said::Silent(why) => Some((peer.name.as_str(), why.as_str())),
            Said::Worker | Said::View(_) => None,
        })
    }

    /// Alarms, each once.
    pub fn alarms(&self) -> BTreeSet<String> {
        let all = self.views().flat_map(|(_, view)| &view.alarms);
        all.map(|alarm| format!("etcd has raised the alarm {} ({:016x})", alarm.alarm, alarm.member)).collect()
    }
}

/// What shows that the nodes are not of one etcd: they know other members, or another leader.
pub fn apart(etcd: &Etcd) -> Vec<Problem> {
    let Some((peer, view)) = etcd.views().next() else { return Vec::new() };
    let mut problems = agree(&peer.name, view, etcd);
    problems.extend(leaders(&peer.name, view, etcd));
    problems
}

/// Every etcd must know the same members.
fn agree(node: &str, view: &View, etcd: &Etcd) -> Vec<Problem> {
    let ids = |view: &View| view.members.iter().map(|m| (m.id, m.is_learner)).collect::<BTreeSet<_>>();
    let others = etcd.views().filter(|(peer, other)| peer.name != node && ids(other) != ids(view));
    let problem = |(peer, _): (&Peer, _)| {
        Problem::new(
            format!("{node} and {} do not know the same members of etcd", peer.name),
            format!("compare {}; wait until a change of members is through", etcd.everywhere("etcd members")),
        )
    };
    others.map(problem).collect()
}

/// Every etcd must know the same leader: where it does not, an election is on.
fn leaders(node: &str, view: &View, etcd: &Etcd) -> Vec<Problem> {
    let mut problems = Vec::new();
    if view.status.leader == 0 {
        problems.push(Problem::new(
            format!("etcd has no leader, as {node} sees it"),
            format!("{} shows which of them are up; a majority must be", etcd.everywhere("etcd status")),
        ));
    }
    for (peer, other) in etcd.views().filter(|(peer, _)| peer.name != node) {
        if view.status.leader != 0 && other.status.leader != view.status.leader {
            problems.push(Problem::new(
                format!("{node} and {} do not know the same leader of etcd", peer.name),
                "wait for the end of the election, and look again",
            ));
        }
    }
    problems
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

/// What a member says of itself; alarms and a missing leader have lines of their own.
fn troubles(view: &View) -> Vec<&str> {
    let own = |error: &&str| !error.contains(" alarm:") && *error != NO_LEADER;
    view.status.errors.iter().map(|e| e.trim()).filter(own).collect()
}

fn learner(name: &str, node: &str, etcd: &Etcd) -> Problem {
    Problem::new(
        format!("member {name} of etcd is a learner: it has no vote yet"),
        format!("wait for its vote; where it never comes, {} says why", etcd.talosctl(node, "logs etcd")),
    )
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
        2 => format!("etcd has two voters: while {node} is down, the other one alone is no majority"),
        _ => format!("etcd has {voters} voters: without {node} only {stay} stay, which is no majority"),
    };
    Some(Problem::new(text, "add a control plane first, so that there are three voters"))
}

#[cfg(test)]
mod tests;
