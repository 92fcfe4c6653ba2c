//! Etcd: learners, alarms, and members that nobody is.

use crate::base::survey::{EtcdMember, EtcdSeat, Node, Survey, TalosCluster};

use super::{BY_ADD, BY_STATUS, Explain, Out, Rule, quoted, talosctl, votes};

pub(super) const RULES: &[Rule] = &[
    Rule {
        number: "L12",
        title: "etcd has two voters",
        explain: Explain {
            wrong: "Two voters need each other: each reboot of either is an outage of the Kubernetes API, and the loss of one is \
                    the loss of the quorum. One voter is safer than two. Talos refuses to upgrade one of two.",
            shows: "`talosctl etcd members` lists two. Everything works, until one of them is away.",
            by_hand: "Add a third control plane (3 voters bear the loss of one), by the blueprint node-replace in the place of one that \
                      is lost, or by cluster-build; take none away before it is there and votes: while it joins, both of the two are \
                      needed. A snapshot first.",
            source: "etcd FAQ, failure tolerance; siderolabs/talos, upgrade checks",
        },
        silences: &[],
        look: |survey, out| each(survey, out, two_voters),
    },
    Rule {
        number: "L13",
        title: "etcd has a member without a vote",
        explain: Explain {
            wrong: "A member joins as a learner and is promoted once it has caught up, which takes seconds to minutes. One that \
                    stays is a control plane that bears no loss, and etcd takes only one learner at a time: the next node \
                    cannot join.",
            shows: "`talosctl etcd members` has `true` under LEARNER.",
            by_hand: "`talosctl logs etcd` on it; where the node is gone for good, `talosctl etcd remove-member ID` on another, which \
                      takes a majority. Remove no voter to make room for it: of two voters and a learner both voters are needed.",
            source: "etcd learner design; siderolabs/talos `internal/pkg/etcd` (promotes by itself)",
        },
        silences: &[],
        look: |survey, out| each(survey, out, learner),
    },
    Rule {
        number: "L14",
        title: "etcd has raised an alarm",
        explain: Explain {
            wrong: "NOSPACE: its data has reached its quota (2 GiB unless configured), and it takes no more writes. CORRUPT: a \
                    member's data differs from the others'.",
            shows: "Writes fail with `etcdserver: mvcc: database space exceeded`; `talosctl etcd alarm list`.",
            by_hand: "NOSPACE: `talosctl etcd defrag` on each member, one after the other, then `talosctl etcd alarm disarm`. \
                      CORRUPT: a snapshot of a sound member first; then that member alone is removed and joins anew, where a majority \
                      stays without it.",
            source: "etcd maintenance guide, space quota",
        },
        silences: &[],
        look: |survey, out| each(survey, out, alarms),
    },
    Rule {
        number: "L15",
        title: "etcd has a member that is no node",
        explain: Explain {
            wrong: "A member whose machine is gone still counts: with it three voters need two, and one more loss ends the \
                    quorum. One that was added and never started counts as soon as it is a voter.",
            shows: "`talosctl etcd members` has a name that `kubectl get nodes` has not, or none.",
            by_hand: "See first that nobody is it: no machine answers at the member's peer address (`talosctl etcd members`). Then \
                      `talosctl etcd snapshot FILE`, and `talosctl etcd remove-member ID`, both on a member that is well.",
            source: "etcd runtime reconfiguration guide; siderolabs/talos issues 9789, 9153",
        },
        silences: &[],
        look: |survey, out| each(survey, out, nobody),
    },
    Rule {
        number: "L16",
        title: "a member of etcd sees no leader, or errors",
        explain: Explain {
            wrong: "A member that sees no leader while others do does not hear them: its vote does not help, and what asks it gets \
                    no answer. Where none sees one for longer than an election, the majority is lost (L37).",
            shows: "`talosctl etcd status` has no leader or text under ERRORS.",
            by_hand: "`talosctl logs etcd` on it, then its network and its disk. Neither reset nor remove it for that: its data is whole, \
                      and it may be the copy that is needed.",
            source: "etcd runtime reconfiguration guide; etcd, Status",
        },
        silences: &[],
        look: |survey, out| each(survey, out, sick),
    },
];

/// Looks at every Talos cluster.
pub(super) fn each(survey: &Survey, out: &mut Out, look: impl Fn(&Survey, &TalosCluster, &mut Out) -> Option<()>) {
    for cluster in &survey.talos {
        let _ = look(survey, cluster, out);
    }
}

/// The seats that are known, and the reasons why others are not where none is.
fn seats<'s>(survey: &'s Survey, cluster: &'s TalosCluster, out: &mut Out) -> Vec<(&'s Node, &'s EtcdSeat)> {
    let nodes: Vec<&Node> = survey.talos_nodes(&cluster.name).collect();
    let seats: Vec<_> = nodes.iter().filter_map(|node| Some((*node, node.seat()?))).collect();
    if seats.is_empty() {
        nodes.iter().filter_map(|node| node.etcd.reason()).take(1).for_each(|reason| out.cannot(&cluster.name, reason));
    }
    seats
}

/// The members as one that has a leader sees them, with who told.
fn members<'s>(survey: &'s Survey, cluster: &'s TalosCluster, out: &mut Out) -> Option<(&'s Node, &'s [EtcdMember])> {
    let mut seats = seats(survey, cluster, out);
    seats.sort_by_key(|(_, seat)| seat.leader.is_none());
    let told = seats.iter().find_map(|(node, seat)| Some((*node, seat.members.known()?.as_slice())));
    if told.is_none() {
        seats
            .iter()
            .filter_map(|(_, seat)| seat.members.reason())
            .take(1)
            .for_each(|reason| out.cannot(&cluster.name, reason));
    }
    told
}

/// The node that a member is.
fn node_of<'s>(survey: &'s Survey, cluster: &'s TalosCluster, member: &EtcdMember) -> Option<&'s Node> {
    let own = |node: &&Node| node.seat().is_some_and(|seat| seat.id == member.id);
    let named = |node: &&Node| {
        !member.name.is_empty()
            && [&node.name, &node.node_name].iter().any(|name| name.eq_ignore_ascii_case(&member.name))
    };
    survey.talos_nodes(&cluster.name).find(own).or_else(|| survey.talos_nodes(&cluster.name).find(named))
}

fn called(member: &EtcdMember) -> String {
    if member.name.is_empty() {
        format!("{} (it never started)", member.id)
    } else {
        format!("{} ({})", member.name, member.id)
    }
}

fn two_voters(survey: &Survey, cluster: &TalosCluster, out: &mut Out) -> Option<()> {
    let (_, members) = members(survey, cluster, out)?;
    let names: Vec<&str> = members.iter().filter(|m| !m.learner).map(|m| m.name.as_str()).collect();
    // With a learner the third is on its way, or stuck: another rule's.
    if names.len() != 2 || members.len() != 2 {
        return None;
    }
    let text = format!("{} are its only voters: the Kubernetes API stops with the reboot of either", quoted(&names));
    // Where one is about to vote again, nothing is to be added.
    let about_to = survey.talos_nodes(&cluster.name).find_map(|node| match (&node.held_off, &node.waiting) {
        (Some(held), _) => Some(format!("{} is {held}", node.name)),
        (None, Some(_)) => {
            Some(format!("{} waits for its configuration, and may vote again with it: {BY_STATUS}", node.name))
        }
        (None, None) => None,
    });
    let help = about_to.unwrap_or_else(|| format!("a third control plane gives it one to spare: {BY_ADD}"));
    out.find(&cluster.name, text, help);
    Some(())
}

fn learner(survey: &Survey, cluster: &TalosCluster, out: &mut Out) -> Option<()> {
    let (teller, members) = members(survey, cluster, out)?;
    let voters = members.iter().filter(|member| !member.learner).count();
    for member in members.iter().filter(|member| member.learner) {
        let Some(node) = node_of(survey, cluster, member) else { continue };
        let text = format!(
            "its member of etcd ({}) is a learner and has no vote; there are {voters} voters beside it",
            member.id
        );
        // That Talos cannot be asked is no proof that the member is gone: it may refuse us alone, and catch up meanwhile.
        let gone = node.talos_silent && node.kubelet().is_some_and(|kubelet| !kubelet.ready);
        let help = if node.talos().is_some() {
            talosctl(node, "logs etcd")
        } else if gone {
            let remove = talosctl(teller, &format!("etcd remove-member {}", member.id));
            format!("start {}; where that machine is gone for good, {remove}", node.name)
        } else {
            format!("why Talos cannot be asked there, says {}", talosctl(node, "version"))
        };
        out.find(&node.name, text, help);
    }
    Some(())
}

fn alarms(survey: &Survey, cluster: &TalosCluster, out: &mut Out) -> Option<()> {
    let seats = seats(survey, cluster, out);
    let told = seats.iter().find_map(|(node, seat)| Some((*node, seat.alarms.known()?)));
    let Some((teller, alarms)) = told else {
        seats
            .iter()
            .filter_map(|(_, seat)| seat.alarms.reason())
            .take(1)
            .for_each(|reason| out.cannot(&cluster.name, reason));
        return None;
    };
    for alarm in alarms {
        let mut members = seats.iter().filter_map(|(_, seat)| seat.members.known()).flatten();
        let node = members.find(|member| member.id == alarm.member).and_then(|m| node_of(survey, cluster, m));
        let what = node.map_or(cluster.name.as_str(), |node| &node.name);
        let on = node.unwrap_or(teller);
        let (text, help) = match alarm.alarm.as_str() {
            "NOSPACE" => (
                format!("etcd member {} has the alarm NOSPACE: it takes no more writes", alarm.member),
                talosctl(on, "etcd defrag") + ", on the other members too, then " + &talosctl(on, "etcd alarm disarm"),
            ),
            other => {
                let sound = seats.iter().find(|(_, seat)| seat.id != alarm.member).map_or(on, |(node, _)| node);
                let text = format!("etcd member {} has the alarm {other}: its data is not to be trusted", alarm.member);
                (
                    text,
                    "before anything else, a snapshot of another member: ".to_owned()
                        + &talosctl(sound, "etcd snapshot etcd.db"),
                )
            }
        };
        out.find(what, text, help);
    }
    Some(())
}

fn nobody(survey: &Survey, cluster: &TalosCluster, out: &mut Out) -> Option<()> {
    let (teller, members) = members(survey, cluster, out)?;
    let unknown: Vec<&EtcdMember> =
        members.iter().filter(|member| node_of(survey, cluster, member).is_none()).collect();
    if unknown.is_empty() {
        return None;
    }
    if survey.partial {
        out.cannot(&cluster.name, "only some of the site's nodes were asked for");
        return None;
    }
    // A member goes by its machine's host name, which may be neither of a node's names: it may be one of these.
    let dark: Vec<&Node> = survey.talos_nodes(&cluster.name).filter(|node| node.etcd.is_unknown()).collect();
    if !dark.is_empty() {
        dark.iter().filter_map(|node| node.etcd.reason()).for_each(|reason| out.cannot(&cluster.name, reason));
        return None;
    }
    // A node of the cluster that only the site does not know is no stranger to etcd.
    let kubernetes = survey.kubernetes.iter().find(|kubernetes| kubernetes.name == cluster.kubernetes)?;
    let strangers = out.need(&cluster.name, &kubernetes.strangers)?;
    for member in unknown {
        if !member.name.is_empty() && strangers.iter().any(|other| other.name.eq_ignore_ascii_case(&member.name)) {
            continue;
        }
        let voters = members.iter().filter(|other| !other.learner).count();
        let counts = if member.learner {
            "it has no vote".to_owned()
        } else {
            format!("it counts as one of {voters} voters, of which {} must be there", voters / 2 + 1)
        };
        let text = format!("its member {} is no node of the site or of Kubernetes; {counts}", called(member));
        let remove = talosctl(teller, &format!("etcd remove-member {}", member.id));
        let help =
            format!("where no machine answers at its peer address ({}), {remove}", talosctl(teller, "etcd members"));
        out.find(&cluster.name, text, help);
    }
    Some(())
}

fn sick(survey: &Survey, cluster: &TalosCluster, out: &mut Out) -> Option<()> {
    let seats = seats(survey, cluster, out);
    for (node, seat) in &seats {
        // That nobody sees a leader is told of the cluster.
        if votes::is_leaderless(survey, node) {
            continue;
        }
        // Alarms are told among the errors as well.
        let alarm = |error: &str| ["alarm", "NOSPACE", "CORRUPT"].iter().any(|word| error.contains(word));
        let errors: Vec<&String> = seat.errors.iter().filter(|error| !alarm(error)).collect();
        let mut wrong = Vec::new();
        if seat.leader.is_none() {
            wrong.push("sees no leader".to_owned());
        }
        if !errors.is_empty() {
            wrong.push(format!("says {}", quoted(&errors)));
        }
        if !wrong.is_empty() {
            let text = format!("its etcd {}{}", wrong.join(" and "), votes::sum(survey, node));
            out.find(&node.name, text, talosctl(node, "logs etcd"));
        }
    }
    Some(())
}
