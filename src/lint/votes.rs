//! The votes of etcd: a majority that is lost, one that bears no further loss, and members whose machine is gone.

use crate::base::survey::{Ballot, Majority, Member, Node, Presence, Seat, Survey, TalosCluster, Voice};

use super::etcd::each;
use super::{Explain, Out, Rule, start, talosctl};

pub(super) const RULES: &[Rule] = &[
    Rule {
        number: "L37",
        title: "etcd has lost its majority",
        explain: Explain {
            wrong: "Less than a majority of the voters is there, so nothing is written any more: the Kubernetes API answers with \
                    timeouts, no pod is placed, no member can be added or removed, and a learner never gets its vote. What is in \
                    etcd is still whole on each voter that is left, and that is what can be destroyed now: by a reset, a bootstrap \
                    on another node (a second, empty cluster), or a machine that is configured anew.",
            shows: "`talosctl etcd status` has no leader on any node; `talosctl etcd members` says `etcdserver: no leader`; kubectl \
                    says `etcdserver: request timed out`.",
            by_hand: "First bring back a voter that is only away, with its disk: that loses nothing. Before anything else is tried, a \
                      copy from each voter that is left: `talosctl cp /var/lib/etcd/member/snap/db DIR`. Only where the others are \
                      gone for good: the blueprint quorum-recover, which begins etcd again from such a copy, and wipes none before \
                      it holds one. Never `talosctl bootstrap` and never `talosctl reset` by themselves.",
            source: "etcd FAQ, failure tolerance, and disaster recovery; Talos, disaster recovery",
        },
        silences: &[],
        look: |survey, out| each(survey, out, lost),
    },
    Rule {
        number: "L38",
        title: "etcd can spare no member, because one is not well",
        explain: Explain {
            wrong: "With as many healthy voters as a majority takes, the next loss stops the Kubernetes API: that of a machine, and a \
                    reboot too. An upgrade or a reboot test refuses to begin.",
            shows: "`talosctl etcd status` of each member: one is behind, or is not the member that the others know.",
            by_hand: "Mend that member first (`talosctl logs etcd` there); reboot and remove nothing else meanwhile.",
            source: "etcd FAQ, failure tolerance",
        },
        silences: &[],
        look: |survey, out| each(survey, out, none_to_spare),
    },
    Rule {
        number: "L39",
        title: "a voter of etcd is on a machine that is gone",
        explain: Explain {
            wrong: "Its vote still counts: with it three voters need two, so that there is none to spare, for as long as its member is \
                    in the list. A machine that waits for a configuration has no data of its member any more.",
            shows: "`talosctl etcd members` has it, and neither Talos nor its kubelet has been heard of for minutes; or its machine \
                    shows `maintenance` on its console.",
            by_hand: "Where it is only off: switch it on, with its disk. Where it is gone: the blueprint node-replace; by hand \
                      `talosctl etcd remove-member ID` on a member that is well, then another machine. Its old disk must not be \
                      started again.",
            source: "etcd runtime reconfiguration guide (remove a dead member before another is added)",
        },
        silences: &["L32"],
        look: |survey, out| each(survey, out, gone),
    },
    Rule {
        number: "L40",
        title: "the nodes of one cluster are in two etcds",
        explain: Explain {
            wrong: "Nodes that see no member in common are two clusters: one was bootstrapped that should have joined. Each has data \
                    of its own, and what is written to one is not in the other. Which of them has the objects is not told by which \
                    was begun last.",
            shows: "`talosctl etcd members` differs from node to node, without an id in common.",
            by_hand: "Reset nothing yet. Of each a snapshot first: `talosctl -n NODE etcd snapshot NODE.db`. Then find out which has the \
                      objects (`talosctl -n NODE etcd status` for raft index and size; `etcdutl snapshot status`; kubectl against \
                      each API server). Only then, with both copies kept on another machine, a node of the other one is reset and \
                      joins.",
            source: "etcd runtime reconfiguration guide; siderolabs/talos, Bootstrap",
        },
        silences: &["L38", "L41"],
        look: |survey, out| each(survey, out, two),
    },
    Rule {
        number: "L41",
        title: "etcd has one voter, and other control planes have no vote",
        explain: Explain {
            wrong: "All that the cluster knows is on the disk of one machine, and the Kubernetes API is away whenever that machine is: \
                    with each reboot of it, and for good with its disk. So it stands right after a recovery from a lost majority, and \
                    it is not to stay so.",
            shows: "`talosctl etcd members` lists one; `kubectl get nodes` has more control planes, not Ready.",
            by_hand: "A snapshot first, to another machine. Then another control plane: by the blueprint node-replace in the place of each \
                      that is lost, or by cluster-build. Each joins by itself, as a learner before it votes; with two voters both are \
                      needed, so go on to three. A lost machine must not be started with its old disk.",
            source: "etcd FAQ, failure tolerance, and disaster recovery",
        },
        silences: &[],
        look: |survey, out| each(survey, out, only_one),
    },
];

/// What helps where the majority is gone for good; a site's own migration is named in its place.
pub const BY_RECOVER: &str = "write a migration of the blueprint quorum-recover (`pvemig explain quorum-recover`)";
/// What helps where a node is gone for good; a site's own migration is named in its place.
pub const BY_REPLACE: &str = "write a migration of the blueprint node-replace (`pvemig explain node-replace`)";

/// What gives a cluster another control plane; a site's own migration is named in its place.
pub const BY_ADD: &str = "write a migration of the blueprint node-replace, which puts a machine in the place of one that is lost, or of \
                          cluster-build, which adds one (`pvemig explain node-replace`)";

/// Where it is known what becomes of a machine that waits; what is next for it is said in its place.
pub const BY_STATUS: &str = "`pvemig status` says whether a run installs it";

/// The etcd of a node, of those that its cluster has.
fn ballot_of(survey: &Survey, node: &Node) -> Option<Ballot> {
    let cluster = survey.talos.iter().find(|cluster| node.talos_cluster.as_ref() == Some(&cluster.name))?;
    let mut all = survey.ballots(cluster);
    let at = all.iter().position(|ballot| ballot.member_of(&node.name).is_some())?;
    Some(all.swap_remove(at))
}

/// The node of the site that a member is.
fn node_of<'s>(survey: &'s Survey, member: &Member) -> Option<&'s Node> {
    survey.node(member.node.as_deref()?)
}

/// The etcd of this node's cluster has lost its majority.
pub(super) fn is_lost(survey: &Survey, node: &Node) -> bool {
    ballot_of(survey, node).is_some_and(|ballot| ballot.majority == Majority::Lost)
}

/// No member of this node's etcd knows a leader.
pub(super) fn is_leaderless(survey: &Survey, node: &Node) -> bool {
    ballot_of(survey, node).is_some_and(|ballot| matches!(ballot.majority, Majority::Lost | Majority::Electing))
}

/// What a voter's loss comes to, to be said behind it: nothing where the node has no vote, or nobody tells the members.
pub(super) fn sum(survey: &Survey, node: &Node) -> String {
    let sum = ballot_of(survey, node).and_then(|ballot| {
        let voter = ballot.member_of(&node.name).is_some_and(Member::votes);
        (voter && ballot.majority == Majority::Held).then(|| ballot.sum()).filter(|sum| !sum.is_empty())
    });
    sum.map(|sum| format!("; etcd has {sum}")).unwrap_or_default()
}

fn lost(survey: &Survey, cluster: &TalosCluster, out: &mut Out) -> Option<()> {
    for ballot in survey.ballots(cluster) {
        match ballot.majority {
            Majority::Lost => {}
            Majority::Unknown => {
                let nodes = survey.talos_nodes(&cluster.name);
                nodes.filter_map(|node| node.etcd.reason()).take(1).for_each(|why| out.cannot(&cluster.name, why));
                continue;
            }
            _ => continue,
        }
        let here = |member: &&Member| node_of(survey, member).is_some_and(|node| node.seat().is_some());
        let left: Vec<String> = ballot
            .members
            .iter()
            .filter(here)
            .map(|m| if m.seat == Some(Seat::Learner) { format!("{} (a learner)", m.name) } else { m.name.clone() })
            .collect();
        let missing: Vec<String> = ballot
            .members
            .iter()
            .filter(|member| !here(member))
            .map(|m| format!("{} ({})", m.name, m.voice.why().unwrap_or_default()))
            .collect();
        let missing = if missing.is_empty() {
            "all of them answer here, and do not hear each other".to_owned()
        } else {
            format!("not there: {}", missing.join(", "))
        };
        let text = format!(
            "{}; nothing is written any more; there: {}; {missing}. Reset, bootstrap and remove nothing: the data is whole on the \
             voters that are left",
            ballot.lost_sum(),
            left.join(", "),
        );
        out.find(&cluster.name, text, way_out(survey, &ballot));
    }
    Some(())
}

/// What brings a majority back, the cheapest first.
fn way_out(survey: &Survey, ballot: &Ballot) -> String {
    let all = || ballot.members.iter().filter_map(|member| node_of(survey, member));
    let nodes = || all().filter(|node| node.held_off.is_none());
    // Somebody may have a hand in those.
    let held: Vec<String> =
        all().filter_map(|node| Some(format!("{} is {}", node.name, node.held_off.as_ref()?))).collect();
    let and_held = held.iter().map(|held| format!("; {held}")).collect::<String>();
    let off: Vec<String> = nodes().filter_map(|node| Some(format!("{} ({})", start(node)?, node.name))).collect();
    if !off.is_empty() {
        return format!(
            "a voter that comes back with its disk loses nothing: {}; where it is gone for good, {BY_RECOVER}{and_held}",
            off.join(", ")
        );
    }
    let away = |presence: Presence| matches!(presence, Presence::Dead { .. } | Presence::Unheard);
    let away: Vec<&str> =
        nodes().filter(|node| away(node.presence(survey.at))).map(|node| node.name.as_str()).collect();
    if !away.is_empty() {
        return format!(
            "a voter that comes back with its disk loses nothing: switch on {}; where that machine is gone for good, {BY_RECOVER}{and_held}",
            away.join(" or ")
        );
    }
    if !held.is_empty() {
        return format!("a voter that comes back with its disk loses nothing: {}", held.join("; "));
    }
    let waits = nodes().any(|node| node.waiting.is_some());
    match nodes().find(|node| node.seat().is_some()) {
        Some(node) if !waits => format!("why they do not hear each other, says {}", talosctl(node, "logs etcd")),
        _ => BY_RECOVER.to_owned(),
    }
}

fn none_to_spare(survey: &Survey, cluster: &TalosCluster, out: &mut Out) -> Option<()> {
    for ballot in survey.ballots(cluster) {
        let Some(votes) =
            ballot.votes.filter(|votes| ballot.majority == Majority::Held && votes.healthy < votes.voters)
        else {
            continue;
        };
        if votes.left().is_some_and(|left| left > 0) {
            continue;
        }
        if survey.partial {
            out.cannot(&cluster.name, "only some of the site's nodes were asked for");
            continue;
        }
        let unknown: Vec<&Member> =
            ballot.voters().filter(|member| matches!(member.voice, Voice::Unknown(_))).collect();
        for member in &unknown {
            match node_of(survey, member).and_then(|node| Some((node, node.etcd.reason()?))) {
                Some((node, why)) => out.cannot(&node.name, why),
                None => out.cannot(&cluster.name, format!("how {} is in etcd is not known", member.name)),
            }
        }
        if !unknown.is_empty() {
            continue;
        }
        // Of the others their own rules tell: the VM is off, the machine is gone, never started, no leader, errors.
        let told = |member: &&Member| {
            let seat = node_of(survey, member).and_then(Node::seat);
            let own = seat.filter(|seat| member.id.as_deref() == Some(seat.id.as_str()));
            matches!(member.voice, Voice::Away(_) | Voice::Well | Voice::Unstarted)
                || own.is_some_and(|seat| seat.leader.is_none() || !seat.errors.is_empty())
        };
        let odd: Vec<&Member> = ballot.voters().filter(|member| !told(member)).collect();
        let Some(first) = odd.first() else { continue };
        let said: Vec<String> =
            odd.iter().map(|member| format!("{}: {}", member.name, member.voice.why().unwrap_or_default())).collect();
        let help = match node_of(survey, first) {
            Some(node) => format!("reboot nothing else before it is well: {}", talosctl(node, "logs etcd")),
            None => "let it start, or remove it: `talosctl etcd members` on a member that is well names it".to_owned(),
        };
        out.find(&cluster.name, format!("{}; {}", ballot.sum(), said.join("; ")), help);
    }
    Some(())
}

fn gone(survey: &Survey, cluster: &TalosCluster, out: &mut Out) -> Option<()> {
    for ballot in survey.ballots(cluster).iter().filter(|ballot| ballot.majority == Majority::Held) {
        for member in ballot.voters() {
            let (Voice::Away(presence), Some(name), Some(id)) = (&member.voice, &member.node, &member.id) else {
                continue;
            };
            let (what, help) = match presence {
                // Of a VM that is off another rule tells.
                Presence::Dead { .. } => (
                    presence.to_string(),
                    format!("switch it on, with its disk; where it is gone for good, {BY_REPLACE}"),
                ),
                Presence::Waits => (format!("{presence}: what its member had is lost"), BY_REPLACE.to_owned()),
                _ => continue,
            };
            let text = format!("{what}; its vote in etcd ({id}) still counts: {}", ballot.sum());
            out.find(name, text, help);
        }
    }
    Some(())
}

fn only_one(survey: &Survey, cluster: &TalosCluster, out: &mut Out) -> Option<()> {
    for ballot in survey.ballots(cluster).iter().filter(|ballot| ballot.majority == Majority::Held) {
        // With a learner the second one is on its way, or stuck: another rule's.
        let [only] = ballot.members.as_slice() else { continue };
        if survey.partial {
            out.cannot(&cluster.name, "only some of the site's nodes were asked for");
            continue;
        }
        let others = survey.talos_nodes(&cluster.name).filter(|node| ballot.member_of(&node.name).is_none());
        let others: Vec<&str> = others
            .filter(|node| out.need(&node.name, &node.kubelet).is_some_and(|k| k.registered && k.control_plane))
            .map(|node| node.name.as_str())
            .collect();
        if others.is_empty() {
            continue;
        }
        let are = if others.len() == 1 { "is a control plane" } else { "are control planes" };
        let text = format!(
            "{} is its only voter, and none can be spared: all data of the cluster is on that machine alone; {} {are} without a vote",
            only.name,
            others.join(", ")
        );
        out.find(
            &cluster.name,
            text,
            format!("a snapshot of etcd first (`pvemig etcd snapshot --to DIR`), then {BY_ADD}"),
        );
    }
    Some(())
}

fn two(survey: &Survey, cluster: &TalosCluster, out: &mut Out) -> Option<()> {
    let all = survey.ballots(cluster);
    if all.len() < 2 {
        return None;
    }
    let told: Vec<String> = all
        .iter()
        .map(|ballot| {
            let names: Vec<&str> = ballot.members.iter().map(|member| member.name.as_str()).collect();
            format!("{} ({})", names.join(", "), ballot.sum())
        })
        .collect();
    let snapshots: Vec<String> = all
        .iter()
        .filter_map(|ballot| survey.node(ballot.seen_by.as_deref()?))
        .map(|node| talosctl(node, &format!("etcd snapshot {}.db", node.name)))
        .collect();
    let text = format!("its nodes are in {} etcds with no member in common: {}", all.len(), told.join(" and "));
    out.find(
        &cluster.name,
        text,
        format!(
            "reset nothing: a snapshot of each first: {}; then find out which has the objects",
            snapshots.join(", ")
        ),
    );
    Some(())
}
