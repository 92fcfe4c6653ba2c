//! Whether a node of the control plane may go down for a while: etcd must have its majority without it, and be whole
//! besides.
//!
//! What is asked is asked of each node itself, side by side; the judgement is a pure function over the answers. Rules of
//! etcd: a majority is more than half of the voters, and a learner is none (etcd.io, "Frequently Asked Questions" and
//! "Learner").

use std::collections::BTreeSet;

use futures::future::join_all;
use serde::{Deserialize, Serialize};

use crate::base::check::Problem;
use crate::base::fault::Failure;
use crate::base::names::Dial;
use crate::base::survey::{BEHIND, NO_LEADER};
use crate::estate::Estate;
use crate::talos::{Error, EtcdAlarm, EtcdMember, EtcdStatus};

mod join;
mod judge;
mod leave;
mod living;
mod own;

pub use crate::base::survey::Votes;
pub use join::{Join, join, unwell, votes};
pub use judge::{Verdict, judge, pass};
pub use leave::{Leave, leave};
pub use living::{discovered, elsewhere, living};
pub use own::amiss;

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

impl Etcd {
    /// What a node said.
    pub fn said_by(&self, node: &str) -> Option<&Said> {
        self.said.iter().find(|(peer, _)| peer.name == node).map(|(_, said)| said)
    }

    /// A command to a node that can be pasted, in back-quotes.
    pub fn talosctl(&self, node: &str, rest: &str) -> String {
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

#[cfg(test)]
mod tests;
