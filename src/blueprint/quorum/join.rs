//! Whether another member may join etcd, and what that comes to in votes.

use super::{Etcd, Said, agree, amiss, learner};
use crate::base::check::Problem;
use crate::base::survey::Votes;

/// Whether another member may join now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Join {
    /// Nobody who answers has members: there is no cluster that could be joined.
    NoCluster,
    /// It may; the arithmetic before and after.
    Open(String),
    /// Something is on its way: a learner that has no vote yet, an election.
    Wait(String),
    /// It may not before this is mended.
    Shut(Vec<Problem>),
}

/// The votes, as those who answer count them; None where nobody has members.
pub fn votes(etcd: &Etcd) -> Option<Votes> {
    let (_, view) = etcd.views().next()?;
    let voters = view.members.iter().filter(|member| !member.is_learner);
    let healthy = voters.clone().filter(|member| {
        let own = etcd.views().find(|(_, view)| view.status.member == member.id);
        own.is_some_and(|(peer, _)| amiss(&peer.name, etcd).is_none())
    });
    Some(Votes { voters: voters.count(), healthy: healthy.count() })
}

/// What keeps etcd from being whole, whichever nodes one is about: a lost majority, a voter that is not well or is on no
/// node of the site file, and whoever has no vote yet.
pub fn unwell(etcd: &Etcd) -> Vec<String> {
    let (Some(votes), Some((_, view))) = (votes(etcd), etcd.views().next()) else { return Vec::new() };
    let mut lines: Vec<String> = votes.left().is_none().then(|| format!("etcd has {votes}")).into_iter().collect();
    for member in &view.members {
        let (name, id) = (member.name(), member.hex());
        let host = etcd.said.iter().find(|(peer, _)| peer.node_name == name || peer.name == name);
        let own = etcd.views().find(|(_, view)| view.status.member == member.id);
        lines.extend(match (own, host) {
            _ if member.is_unstarted() => Some(format!("member {id} of etcd was added and has never started")),
            _ if member.is_learner => Some(learner(&name, host.map_or(&name, |(peer, _)| &peer.name), etcd).text),
            (Some((peer, _)), _) => amiss(&peer.name, etcd).map(|problem| problem.text),
            (None, Some((peer, Said::Silent(why)))) => {
                Some(format!("{} has a vote in etcd and cannot be asked: {why}", peer.name))
            }
            (None, Some((peer, Said::View(_) | Said::Worker))) => {
                Some(format!("member {name} ({id}) of etcd is not one that runs on {}: a left-over", peer.name))
            }
            (None, None) => Some(format!(
                "member {name} ({id}) of etcd has a vote and is on no node of Talos cluster {} in the site file",
                etcd.cluster
            )),
        });
    }
    lines
}

/// Whether `node` may join: every voter must be well, and no learner may wait, because of two that are added at once a
/// majority may never be had (etcd.io, "Learner": one at a time).
pub fn join(node: &str, etcd: &Etcd) -> Join {
    let Some(votes) = votes(etcd) else { return Join::NoCluster };
    let Some((first, view)) = etcd.views().next() else { return Join::NoCluster };
    let mut problems = agree(&first.name, view, etcd);
    for member in &view.members {
        if member.is_unstarted() {
            problems.push(Problem::new(
                format!("member {} of etcd was added and has never started", member.hex()),
                format!(
                    "let it start, or {}",
                    etcd.talosctl(&first.name, &format!("etcd remove-member {}", member.hex()))
                ),
            ));
            continue;
        }
        let host = etcd.said.iter().find(|(peer, _)| peer.node_name == member.name() || peer.name == member.name());
        if member.is_learner {
            let peer = host.map_or(member.name(), |(peer, _)| peer.name.clone());
            let then = Votes { voters: votes.voters + 1, healthy: votes.healthy + 1 };
            let why = learner(&member.name(), &peer, etcd).text;
            return Join::Wait(format!("etcd has {votes}; with {node} {then}: {why}"));
        }
        match host {
            Some((peer, Said::View(_))) => problems.extend(amiss(&peer.name, etcd)),
            Some((peer, Said::Silent(_))) if peer.name == node => {
                let gone = Votes { voters: votes.voters.saturating_sub(1), healthy: votes.healthy };
                problems.push(Problem::new(
                    format!(
                        "{node} has a vote in etcd already, as member {}: that of its former installation, which is not there any \
                         more; without it etcd has {gone}; with {node} anew {}",
                        member.hex(),
                        Votes { voters: gone.voters + 1, healthy: gone.healthy + 1 }
                    ),
                    format!(
                        "where that installation is gone for good, its member goes first: {}; `node-replace` is the migration that \
                         leads through it. Where its disk is still whole, start it from that, and it has its vote back",
                        etcd.talosctl(&first.name, &format!("etcd remove-member {}", member.hex()))
                    ),
                ));
            }
            Some((peer, Said::Silent(why))) => problems.push(Problem::new(
                format!("{} has a vote in etcd and cannot be asked: {why}", peer.name),
                format!("let {} answer first", peer.name),
            )),
            Some((_, Said::Worker)) | None => problems.push(Problem::new(
                format!(
                    "{} ({}) has a vote in etcd and is on no control plane that is known",
                    member.name(),
                    member.hex()
                ),
                "where that machine is gone its member is left behind: remove it, or add its node to the site file",
            )),
        }
    }
    for (peer, view) in etcd.views() {
        for alarm in &view.alarms {
            problems.push(Problem::new(
                format!("etcd has raised the alarm {}, as {} tells", alarm.alarm, peer.name),
                "`pvemig survey` names the member and what to do",
            ));
        }
    }
    let then = Votes { voters: votes.voters + 1, healthy: votes.healthy + 1 };
    if problems.is_empty() {
        return Join::Open(format!("etcd has {votes}; with {node} {then}"));
    }
    let own = |member: &super::EtcdMember| {
        let host = etcd.said.iter().find(|(peer, _)| peer.node_name == member.name() || peer.name == member.name());
        host.is_some_and(|(peer, _)| peer.name == node)
    };
    // It would be one more only where it is not counted yet.
    let why = if view.members.iter().any(own) {
        format!("{node} must not join etcd now: it has {votes}")
    } else {
        format!("{node} must not join etcd now: it has {votes}; with {node} {then}")
    };
    problems.insert(0, Problem::new(why, "mend what is below first"));
    problems.dedup_by(|a, b| a.text == b.text);
    Join::Shut(problems)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{etcd, every};
    use super::*;

    #[test]
    fn another_one_joins_where_all_is_well_and_nobody_else_is_joining() {
        let open =
            "etcd has 3 voters, 3 healthy, 2 needed: 1 to spare; with n4 4 voters, 4 healthy, 3 needed: 1 to spare";
        assert_eq!(join("n4", &etcd()), Join::Open(open.into()));
        let mut none = etcd();
        none.said.iter_mut().for_each(|(_, said)| *said = Said::Silent("no connection".into()));
        assert_eq!((join("n4", &none), votes(&none)), (Join::NoCluster, None));
        let mut learns = etcd();
        every(&mut learns, |view| view.members[2].is_learner = true);
        let wait = "etcd has 2 voters, 2 healthy, 2 needed: none to spare; with n4 3 voters, 3 healthy, 2 needed: 1 to spare: \
                    member n3 of etcd is a learner: it has no vote yet";
        assert_eq!(join("n4", &learns), Join::Wait(wait.into()));
    }

    #[test]
    fn etcd_is_not_whole_with_a_voter_that_nobody_knows_or_a_learner() {
        let of = |change: &dyn Fn(&mut Etcd)| {
            let mut etcd = etcd();
            change(&mut etcd);
            unwell(&etcd)
        };
        assert_eq!(of(&|_| {}), Vec::<String>::new());
        let learns = of(&|etcd| every(etcd, |view| view.members[2].is_learner = true));
        assert_eq!(learns, ["member n3 of etcd is a learner: it has no vote yet"]);
        let stranger = of(&|etcd| drop(etcd.said.pop()));
        let unknown = |name: &str, id: u64| {
            format!(
                "member {name} ({id:016x}) of etcd has a vote and is on no node of Talos cluster homelab in the site file"
            )
        };
        assert_eq!(stranger, [unknown("n3", 3)]);
        // Only one of four is known, and well: nothing of its own is amiss.
        let lost = of(&|etcd| etcd.said.truncate(1));
        let sum = "etcd has 3 voters, 1 healthy, 2 needed: no majority".to_owned();
        assert_eq!(lost, [sum, unknown("n2", 2), unknown("n3", 3)]);
        let dead = of(&|etcd| etcd.said[2].1 = Said::Silent("no route".into()));
        assert_eq!(dead, ["n3 has a vote in etcd and cannot be asked: no route"]);
        let anew = of(&|etcd| {
            if let Said::View(view) = &mut etcd.said[2].1 {
                view.status.member = 9;
            }
        });
        assert_eq!(anew, ["member n3 (0000000000000003) of etcd is not one that runs on n3: a left-over"]);
        let unstarted = of(&|etcd| every(etcd, |view| view.members[2].hostname.clear()));
        assert!(unstarted[0].contains("never started") && unstarted.len() == 1, "{unstarted:?}");
    }

    #[test]
    fn nobody_joins_an_etcd_that_is_not_well() {
        let shut = |change: &dyn Fn(&mut Etcd)| {
            let mut etcd = etcd();
            change(&mut etcd);
            let Join::Shut(problems) = join("n4", &etcd) else { panic!("{:?}", join("n4", &etcd)) };
            assert!(problems.len() >= 2 && problems.iter().all(|problem| !problem.help.is_empty()));
            (problems[0].text.clone(), problems[1].text.clone())
        };
        let (sum, why) = shut(&|etcd| etcd.said[2].1 = Said::Silent("no route".into()));
        assert!(
            sum.contains(
                "3 voters, 2 healthy, 2 needed: none to spare; with n4 4 voters, 3 healthy, 3 needed: none to spare"
            ),
            "{sum}"
        );
        assert!(why.contains("n3 has a vote in etcd and cannot be asked: no route"), "{why}");
        // A machine that was made anew under its own name has its own vote to lose first.
        let mut anew = etcd();
        anew.said[2].1 = Said::Silent("it waits for its configuration".into());
        let Join::Shut(problems) = join("n3", &anew) else { panic!("{anew:?}") };
        assert_eq!(problems[0].text, "n3 must not join etcd now: it has 3 voters, 2 healthy, 2 needed: none to spare");
        let own = problems.iter().find(|problem| problem.text.contains("has a vote in etcd already")).unwrap();
        assert!(
            own.text
                .contains("without it etcd has 2 voters, 2 healthy, 2 needed: none to spare; with n3 anew 3 voters")
        );
        assert!(
            own.help.contains("etcd remove-member 0000000000000003") && own.help.contains("node-replace"),
            "{own:?}"
        );
        let (_, why) = shut(&|etcd| every(etcd, |view| view.status.leader = 0));
        assert!(why.contains("no leader"), "{why}");
        let (_, why) = shut(&|etcd| drop(etcd.said.pop()));
        assert!(why.contains("n3 (0000000000000003) has a vote in etcd and is on no control plane"), "{why}");
        let (_, why) = shut(&|etcd| {
            every(etcd, |view| {
                view.members.push(crate::talos::EtcdMember {
                    id: 9,
                    hostname: String::new(),
                    ..view.members[0].clone()
                })
            });
        });
        assert!(why.contains("never started"), "{why}");
        let alarm = crate::talos::EtcdAlarm { member: 1, alarm: "NOSPACE".into() };
        let (_, why) = shut(&|etcd| every(etcd, |view| view.alarms.push(alarm.clone())));
        assert!(why.contains("NOSPACE"), "{why}");
    }
}
