//! Whether a member may go from etcd for good, and what that comes to in votes.

use super::{Etcd, Peer, Said, View, Votes, agree, amiss, leaders, learner, votes};
use crate::base::check::Problem;
use crate::talos::EtcdMember;

/// Whether a member may go now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leave {
    /// Nobody who answers tells the members.
    NoCluster,
    /// There is no member of that name.
    NoMember,
    /// It may.
    Open {
        /// The member.
        member: EtcdMember,
        /// The arithmetic before and after.
        sum: String,
        /// How it is afterwards.
        then: Votes,
    },
    /// It may not before this is mended.
    Shut(Vec<Problem>),
}

/// Whether the member of the node `name`, which goes by `host` in etcd, may go. `up`: its machine is up, so that its own
/// vote counts among the healthy ones. All others must be well: what is done with a member too few cannot be taken back.
pub fn leave(name: &str, host: &str, up: bool, etcd: &Etcd) -> Leave {
    let Some(votes) = votes(etcd) else { return Leave::NoCluster };
    let Some((first, view)) = etcd.views().find(|(peer, _)| peer.name != name).or_else(|| etcd.views().next()) else {
        return Leave::NoCluster;
    };
    let named: Vec<&EtcdMember> = view.members.iter().filter(|member| member.hostname == host).collect();
    let member = match named.as_slice() {
        [] => return Leave::NoMember,
        [one] => (*one).clone(),
        several => {
            let ids: Vec<String> = several.iter().map(|member| member.hex()).collect();
            return Leave::Shut(vec![Problem::new(
                format!("etcd has {} members of the name {host}: {}", several.len(), ids.join(", ")),
                format!("see which of them is the machine's own: {}", etcd.everywhere("etcd status")),
            )]);
        }
    };
    let voter = usize::from(!member.is_learner);
    let healthy = votes.healthy.saturating_sub(if up { voter } else { 0 });
    let then = Votes { voters: votes.voters.saturating_sub(voter), healthy };
    let sum =
        format!("etcd has {votes}; without {name} {}", if then.voters == 0 { "none".into() } else { then.to_string() });
    let mut problems = others(&member, (first, view), etcd);
    if votes.left().is_none() {
        let help = "switch a voter on again if you can: it is the cheapest way out. Where they are gone for good, \
                    `pvemig explain quorum-recover`";
        problems.push(Problem::new("etcd has no majority: it changes nothing, its members neither", help));
    } else if voter == 1 && (then.voters < 2 || then.left().is_none()) {
        let grown = Votes { voters: votes.voters + 1, healthy: votes.healthy + 1 };
        let text = match votes.voters {
            1 => format!("{name} is the only voter of etcd: without it there is none"),
            2 => {
                format!("etcd has two voters: without {name} one is left, and nothing to spare while another one joins")
            }
            _ => format!("without {name} etcd has no majority"),
        };
        let help = format!(
            "add a control plane first, as a node of a `cluster-build`: with it etcd has {grown}; then let {name} go"
        );
        problems.push(Problem::new(text, help));
    }
    if problems.is_empty() {
        return Leave::Open { member, sum, then };
    }
    problems.insert(0, Problem::new(format!("{name} must not leave etcd now: {sum}"), "mend what is below first"));
    problems.dedup_by(|a, b| a.text == b.text);
    Leave::Shut(problems)
}

/// What is wrong with all the others.
fn others(member: &EtcdMember, (first, view): (&Peer, &View), etcd: &Etcd) -> Vec<Problem> {
    let mut problems = agree(&first.name, view, etcd);
    problems.extend(leaders(&first.name, view, etcd));
    for other in view.members.iter().filter(|other| other.id != member.id) {
        let name = other.name();
        let host = etcd.said.iter().find(|(peer, _)| peer.node_name == name || peer.name == name);
        if other.is_unstarted() {
            problems.push(Problem::new(
                format!("member {} of etcd was added and has never started", other.hex()),
                format!(
                    "let it start, or {}",
                    etcd.talosctl(&first.name, &format!("etcd remove-member {}", other.hex()))
                ),
            ));
            continue;
        }
        if other.is_learner {
            problems.push(learner(&name, host.map_or(name.as_str(), |(peer, _)| &peer.name), etcd));
            continue;
        }
        match host {
            Some((peer, Said::View(_))) => problems.extend(amiss(&peer.name, etcd)),
            Some((peer, Said::Silent(why))) => problems.push(Problem::new(
                format!("{} has a vote in etcd and cannot be asked: {why}", peer.name),
                format!("let {} answer first", peer.name),
            )),
            Some((_, Said::Worker)) | None => problems.push(Problem::new(
                format!("{name} ({}) has a vote in etcd and is on no control plane that is known", other.hex()),
                "where that machine is gone its member is left behind: remove it, or add its node to the site file",
            )),
        }
    }
    problems.extend(etcd.alarms().into_iter().map(|alarm| Problem::new(alarm, "`pvemig survey` says what to do")));
    problems
}

#[cfg(test)]
mod tests {
    use super::super::tests::{etcd, every};
    use super::*;

    fn sum(leave: &Leave) -> &str {
        match leave {
            Leave::Open { sum, .. } => sum,
            Leave::Shut(problems) => &problems[0].text,
            other => panic!("{other:?}"),
        }
    }

    /// As of a machine that is off.
    fn silent(etcd: &mut Etcd, at: usize) {
        etcd.said[at].1 = Said::Silent("no route".into());
    }

    #[test]
    fn one_of_three_goes_alive_or_dead() {
        let alive = leave("n3", "n3", true, &etcd());
        assert!(matches!(&alive, Leave::Open { member, then, .. } if member.id == 3 && then.healthy == 2));
        let text = "etcd has 3 voters, 3 healthy, 2 needed: 1 to spare; without n3 2 voters, 2 healthy, 2 needed: none to spare";
        assert_eq!(sum(&alive), text);
        let mut dead = etcd();
        silent(&mut dead, 2);
        let text = "etcd has 3 voters, 2 healthy, 2 needed: none to spare; without n3 2 voters, 2 healthy, 2 needed: none to spare";
        assert_eq!(sum(&leave("n3", "n3", false, &dead)), text);
        assert_eq!(leave("n4", "n4", false, &etcd()), Leave::NoMember);
        (0..3).for_each(|at| silent(&mut dead, at));
        assert_eq!(leave("n3", "n3", false, &dead), Leave::NoCluster);
    }

    #[test]
    fn none_goes_where_what_is_left_is_no_majority_or_is_not_well() {
        let shut = |what: &str, change: &dyn Fn(&mut Etcd), up: bool, parts: &[&str]| {
            let mut etcd = etcd();
            change(&mut etcd);
            let Leave::Shut(problems) = leave("n3", "n3", up, &etcd) else { panic!("{what}") };
            assert!(problems.iter().all(|problem| !problem.help.is_empty()), "{what}: {problems:?}");
            let all: String = problems.iter().map(|p| format!("{}; {}\n", p.text, p.help)).collect();
            assert!(parts.iter().all(|part| all.contains(part)), "{what}: {all}");
        };
        let two = |etcd: &mut Etcd| {
            every(etcd, |view| drop(view.members.remove(1)));
            etcd.said.remove(1);
        };
        let parts = [
            "2 voters, 2 healthy, 2 needed: none to spare; without n3 1 voter",
            "two voters",
            "add a control plane first",
        ];
        shut("two voters", &two, true, &parts);
        let dead = |etcd: &mut Etcd| {
            two(etcd);
            silent(etcd, 1);
        };
        shut("one of two is dead", &dead, false, &["2 voters, 1 healthy, 2 needed: no majority", "quorum-recover"]);
        let one = |etcd: &mut Etcd| {
            every(etcd, |view| view.members.retain(|m| m.id == 3));
            etcd.said.drain(..2);
        };
        shut("the only one", &one, true, &["only voter", "without n3 none"]);
        let parts = [
            "3 voters, 2 healthy",
            "without n3 2 voters, 1 healthy, 2 needed: no majority",
            "n2 has a vote in etcd and cannot be asked",
        ];
        shut("another one is silent", &|etcd| silent(etcd, 1), true, &parts);
        shut("a learner", &|etcd| every(etcd, |v| v.members[1].is_learner = true), true, &["n2 of etcd is a learner"]);
        let twice = |etcd: &mut Etcd| every(etcd, |view| view.members[1].hostname = "n3".into());
        shut("two of a name", &twice, true, &["2 members of the name n3"]);
        let alarm = crate::talos::EtcdAlarm { member: 1, alarm: "NOSPACE".into() };
        shut("an alarm", &|etcd| every(etcd, |view| view.alarms.push(alarm.clone())), true, &["NOSPACE"]);
    }
}
