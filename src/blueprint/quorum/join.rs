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
            return Join::Wait(learner(&member.name(), &peer, etcd).text);
        }
        match host {
            Some((peer, Said::View(_))) => problems.extend(amiss(&peer.name, etcd)),
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
    let why = format!("{node} must not join etcd now: it has {votes}; with {node} {then}");
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
        assert!(matches!(join("n4", &learns), Join::Wait(why) if why.contains("n3 of etcd is a learner")));
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
