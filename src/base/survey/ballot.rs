//! The votes of etcd, counted from what the nodes of a survey tell of it.

use super::votes::{NOT_ASKED, SEES_NO_LEADER};
use super::{
    Ballot, EtcdMember, EtcdSeat, Majority, Member, Node, Presence, Seat, Survey, Talos, TalosCluster, Voice, Votes,
};

/// By how many entries a voter may be behind the others: answers of a cluster at work are some milliseconds apart, and
/// its log grows by hundreds of entries in a second.
pub const BEHIND: u64 = 1_000;

/// What etcd's status says among its errors as long as there is no leader.
pub const NO_LEADER: &str = "etcdserver: no leader";

/// The service whose health check fails where there is no majority for longer than an election takes.
const SERVICE: &str = "etcd";
/// How Talos says of itself that the check has failed.
pub const NOT_HEALTHY: &str = "etcd not healthy";

impl Survey {
    /// The etcds of a Talos cluster: one, unless its nodes know no member in common.
    pub fn ballots(&self, cluster: &TalosCluster) -> Vec<Ballot> {
        let nodes: Vec<&Node> = self.talos_nodes(&cluster.name).collect();
        let mut seats: Vec<(&Node, &EtcdSeat)> = nodes.iter().filter_map(|node| Some((*node, node.seat()?))).collect();
        // Who knows a leader tells the members; the largest view comes first.
        let known = |seat: &EtcdSeat| seat.members.known().map_or(0, Vec::len);
        seats.sort_by_key(|(_, seat)| (seat.leader.is_none(), std::cmp::Reverse(known(seat))));
        let mut views: Vec<(&Node, &[EtcdMember])> = Vec::new();
        for (node, seat) in &seats {
            let Some(members) = seat.members.known().filter(|members| !members.is_empty()) else { continue };
            let shares = |view: &[EtcdMember]| {
                members.iter().any(|member| view.iter().any(|other| other.id == member.id))
                    || view.iter().any(|other| other.id == seat.id)
            };
            if !views.iter().any(|(_, view)| shares(view)) {
                views.push((*node, members.as_slice()));
            }
        }
        let several = views.len() > 1;
        let of = |(teller, members): (&Node, &[EtcdMember])| {
            let of_view: Vec<_> =
                seats.iter().copied().filter(|(_, seat)| members.iter().any(|member| member.id == seat.id)).collect();
            let newest = of_view.iter().map(|(_, seat)| seat.raft_applied).max().unwrap_or_default();
            let all = members.iter().map(|member| self.member(member, &nodes, newest)).collect();
            let majority = majority(&of_view);
            Ballot::told(cluster, majority, all, several.then(|| teller.name.clone()))
        };
        if views.is_empty() {
            vec![self.without_members(cluster, &nodes, &seats)]
        } else {
            views.into_iter().map(of).collect()
        }
    }

    /// A member that is told.
    fn member(&self, member: &EtcdMember, nodes: &[&Node], newest: u64) -> Member {
        let own = nodes.iter().find(|node| node.seat().is_some_and(|seat| seat.id == member.id));
        let named = |node: &&&Node| {
            let names = [&node.name, &node.node_name];
            !member.name.is_empty() && names.iter().any(|name| name.eq_ignore_ascii_case(&member.name))
        };
        let node = own.or_else(|| nodes.iter().find(named)).copied();
        let voice = match node {
            _ if member.name.is_empty() && own.is_none() => Voice::Unstarted,
            Some(node) => self.voice(node, &member.id, newest),
            None if self.partial => Voice::Unknown(NOT_ASKED.into()),
            None => Voice::Unknown("no node of the site file".into()),
        };
        let leads = node.and_then(Node::seat).is_some_and(|seat| seat.id == member.id && seat.seat == Seat::Leader);
        Member {
            id: Some(member.id.clone()),
            name: node
                .map(|node| &node.name)
                .or(Some(&member.name).filter(|name| !name.is_empty()))
                .unwrap_or(&member.id)
                .clone(),
            node: node.map(|node| node.name.clone()),
            seat: Some(match (member.learner, leads) {
                (true, _) => Seat::Learner,
                (false, true) => Seat::Leader,
                (false, false) => Seat::Voter,
            }),
            voice,
        }
    }

    /// How it stands with a node's member.
    fn voice(&self, node: &Node, id: &str, newest: u64) -> Voice {
        match node.seat() {
            Some(seat) if seat.id == id => amiss(seat, newest).map_or(Voice::Well, Voice::Amiss),
            Some(_) => Voice::Amiss("another member runs on its node".into()),
            None => match node.presence(self.at) {
                away if away.is_away() => Voice::Away(away),
                Presence::Unheard => Voice::Unknown("it does not answer, which is not known to be more".into()),
                _ if node.etcd.is_absent() => Voice::Unknown("no etcd runs on its node".into()),
                _ => Voice::Unknown("its etcd could not be asked".into()),
            },
        }
    }

    /// Nobody tells the members.
    fn without_members(&self, cluster: &TalosCluster, nodes: &[&Node], seats: &[(&Node, &EtcdSeat)]) -> Ballot {
        let one = |node: &&Node| {
            let seat = node.seat();
            // A node on which etcd does not run is a worker.
            if seat.is_none() && node.etcd.is_absent() && node.waiting.is_none() {
                return None;
            }
            let voice = match seat {
                Some(seat) => amiss(seat, seat.raft_applied).map_or(Voice::Well, Voice::Amiss),
                None => self.voice(node, "", 0),
            };
            let (id, seat) = (seat.map(|seat| seat.id.clone()), seat.map(|seat| seat.seat));
            Some(Member { id, name: node.name.clone(), node: Some(node.name.clone()), seat, voice })
        };
        let all: Vec<Member> = nodes.iter().filter_map(one).collect();
        let waiting = !nodes.is_empty() && nodes.iter().all(|node| node.waiting.is_some());
        let majority = match (seats.is_empty(), waiting) {
            (true, true) if !self.partial => Majority::NotBegun,
            (true, _) => Majority::Unknown,
            (false, _) => majority(seats),
        };
        Ballot { cluster: cluster.name.clone(), majority, votes: None, members: all, seen_by: None }
    }
}

impl Ballot {
    fn told(cluster: &TalosCluster, majority: Majority, members: Vec<Member>, seen_by: Option<String>) -> Self {
        let voters = members.iter().filter(|member| member.votes());
        let healthy = voters.clone().filter(|member| member.voice == Voice::Well).count();
        let votes = Some(Votes { voters: voters.count(), healthy });
        Self { cluster: cluster.name.clone(), majority, votes, members, seen_by }
    }
}

/// Whether those who answer have a majority. An election is over within seconds, and Talos' check of the service takes
/// longer to fail.
fn majority(seats: &[(&Node, &EtcdSeat)]) -> Majority {
    if seats.iter().any(|(_, seat)| seat.leader.is_some()) {
        return Majority::Held;
    }
    let failed = |node: &Node| {
        let service = |talos: &Talos| {
            let all = talos.services.known().into_iter().flatten();
            all.clone().any(|service| service.id == SERVICE && service.healthy == Some(false))
        };
        node.talos().is_some_and(|talos| service(talos) || talos.unmet.iter().any(|unmet| unmet.reason == NOT_HEALTHY))
    };
    if seats.iter().any(|(node, _)| failed(node)) { Majority::Lost } else { Majority::Electing }
}

/// What is amiss with a member that answers. One with an alarm votes all the same.
fn amiss(seat: &EtcdSeat, newest: u64) -> Option<String> {
    if seat.leader.is_none() {
        return Some(SEES_NO_LEADER.into());
    }
    let own = |error: &&String| !error.contains(" alarm:") && *error != NO_LEADER;
    let errors: Vec<&str> = seat.errors.iter().filter(own).map(String::as_str).collect();
    if !errors.is_empty() {
        return Some(errors.join("; "));
    }
    let behind = newest.saturating_sub(seat.raft_applied);
    (behind > BEHIND).then(|| format!("{behind} entries behind the others"))
}
