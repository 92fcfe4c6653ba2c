//! The judgement over made-up answers: each refusal by itself.

use std::time::Duration;

use super::judge::{ELECTION, Gate};
use super::*;

const NAMES: [&str; 3] = ["n1", "n2", "n3"];

fn peer(name: &str) -> Peer {
    let host = format!("10.0.0.{name}");
    Peer { name: name.into(), node_name: name.into(), dial: Dial { endpoint: host.clone(), host, ..Dial::default() } }
}

/// Every command to a node says where it is.
fn can_be_pasted(help: &str) {
    for command in help.split("`talosctl ").skip(1) {
        assert!(command.starts_with("-e 10.0.0.") && command.contains(" -n 10.0.0."), "{help}");
    }
}

fn member(id: u64, name: &str) -> EtcdMember {
    EtcdMember { id, hostname: name.into(), peer_urls: Vec::new(), client_urls: Vec::new(), is_learner: false }
}

fn status(member: u64) -> EtcdStatus {
    EtcdStatus {
        member,
        leader: 1,
        is_learner: false,
        raft_term: 7,
        raft_index: 5_000,
        raft_applied: 5_000,
        size: 1,
        size_in_use: 1,
        errors: Vec::new(),
        version: "3.6.5".into(),
    }
}

/// Three voters, all well; n1 leads.
pub(super) fn etcd() -> Etcd {
    let members: Vec<EtcdMember> = NAMES.iter().zip(1..).map(|(name, id)| member(id, name)).collect();
    let said = NAMES.iter().zip(1..).map(|(name, id)| {
        let view = View { members: members.clone(), status: status(id), alarms: Vec::new() };
        (peer(name), Said::View(view))
    });
    Etcd { cluster: "homelab".into(), said: said.collect() }
}

pub(super) fn every(etcd: &mut Etcd, change: impl Fn(&mut View)) {
    for (_, said) in &mut etcd.said {
        if let Said::View(view) = said {
            change(view);
        }
    }
}

fn texts(node: &str, change: impl Fn(&mut Etcd)) -> Vec<String> {
    let mut etcd = etcd();
    change(&mut etcd);
    let verdict = judge(node, &etcd);
    assert!(verdict.problems.iter().all(|problem| !problem.help.is_empty()));
    verdict.problems.iter().for_each(|problem| can_be_pasted(&problem.help));
    verdict.problems.into_iter().map(|problem| problem.text).collect()
}

#[test]
fn a_command_to_all_goes_by_one_that_answers() {
    let mut etcd = etcd();
    etcd.said[0].1 = Said::Silent("no route".into());
    etcd.said.push((peer("w"), Said::Worker));
    let said = "`talosctl -e 10.0.0.n2 -n 10.0.0.n1,10.0.0.n2,10.0.0.n3 etcd status`";
    assert_eq!(etcd.everywhere("etcd status"), said);
    let problem = judge("n1", &etcd).problems.remove(0);
    assert!(problem.help.starts_with("`talosctl -e 10.0.0.n1 -n 10.0.0.n1 service etcd`"), "{}", problem.help);
}

#[test]
fn of_three_that_are_well_one_may_go() {
    for node in NAMES {
        let verdict = judge(node, &etcd());
        assert_eq!((verdict.problems.len(), verdict.leads, verdict.worker), (0, node == "n1", false), "{node}");
        assert_eq!(verdict.notes, ["n1 leads etcd"]);
    }
    let mut with_worker = etcd();
    with_worker.said.push((peer("w"), Said::Worker));
    assert!(judge("w", &with_worker).worker && judge("n2", &with_worker).problems.is_empty());
}

#[test]
fn an_election_is_borne_by_who_began_it_and_only_so_long() {
    let of = |change: &dyn Fn(&mut Etcd)| {
        let mut etcd = etcd();
        change(&mut etcd);
        judge("n1", &etcd)
    };
    let none = |e: &mut Etcd| {
        every(e, |view| {
            view.status.leader = 0;
            view.status.errors = vec!["etcdserver: no leader".into()];
        });
    };
    let apart = |e: &mut Etcd| {
        if let Said::View(view) = &mut e.said[2].1 {
            view.status.leader = 2;
        }
    };
    let (soon, late) = (Some(Duration::from_secs(1)), Some(ELECTION + Duration::from_secs(1)));
    for (what, verdict) in [("none", of(&none)), ("apart", of(&apart))] {
        assert!(verdict.electing && verdict.problems.len() == 1, "{what}: {verdict:?}");
        assert_eq!([None, soon, late].map(|asked| verdict.gate(asked)), [Gate::Shut, Gate::Wait, Gate::Shut], "{what}");
    }
    // Anything besides is no election.
    let sick = of(&|e| {
        none(e);
        every(e, |view| view.alarms = vec![EtcdAlarm { member: 2, alarm: "CORRUPT".into() }]);
    });
    assert!(!sick.electing && sick.gate(soon) == Gate::Shut, "{sick:?}");
    let leads = of(&|_| {});
    assert_eq!([None, soon, late].map(|asked| leads.gate(asked)), [Gate::HandOver, Gate::Wait, Gate::StillLeads]);
    assert_eq!(judge("n2", &etcd()).gate(None), Gate::Open);
}

#[test]
fn each_refusal_has_a_text_of_its_own() {
    let of = |etcd: &mut Etcd, n: usize, change: &dyn Fn(&mut View)| {
        if let Some((_, Said::View(view))) = etcd.said.get_mut(n) {
            change(view);
        }
    };
    let drop_third = |etcd: &mut Etcd| {
        etcd.said.truncate(2);
        every(etcd, |view| view.members.truncate(2));
    };
    let cases: Vec<(Vec<String>, &str)> = vec![
        (texts("n2", drop_third), "while n2 is down, the other voter alone is no majority"),
        (
            texts("n1", |e| {
                e.said.truncate(1);
                every(e, |view| view.members.truncate(1));
            }),
            "n1 is the only voter of etcd",
        ),
        (
            texts("n2", |e| {
                every(e, |view| view.members[2].is_learner = true);
                of(e, 2, &|view| view.status.is_learner = true);
            }),
            "member n3 of etcd is a learner",
        ),
        (texts("n2", |e| e.said[2].1 = Said::Silent("no route".into())), "member n3 of etcd cannot be asked: no route"),
        (
            texts("n2", |e| of(e, 2, &|view| view.status.errors = vec!["corrupt index".into()])),
            "member n3 of etcd is not healthy: corrupt index",
        ),
        (
            texts("n2", |e| of(e, 2, &|view| view.status.raft_applied = 100)),
            "member n3 of etcd is 4900 entries behind the others",
        ),
        (
            texts("n2", |e| {
                let alarm = EtcdAlarm { member: 3, alarm: "NOSPACE".into() };
                every(e, |view| view.alarms = vec![alarm.clone()]);
                every(e, |view| view.status.errors = vec!["memberID:3 alarm:NOSPACE ".into()]);
            }),
            "member n3 of etcd has raised the alarm NOSPACE",
        ),
        (
            texts("n2", |e| every(e, |view| view.members.push(member(9, "old")))),
            "member old (0000000000000009) of etcd is on no node of Talos cluster homelab",
        ),
        (
            texts("n2", |e| every(e, |view| view.members.push(member(9, "")))),
            "member 0000000000000009 of etcd was added and has never started",
        ),
        (texts("n2", |e| of(e, 2, &|view| view.members.truncate(2))), "n2 and n3 do not know the same members of etcd"),
        (texts("n2", |e| of(e, 2, &|view| view.status.leader = 2)), "n2 and n3 do not know the same leader of etcd"),
        (texts("n2", |e| of(e, 1, &|view| view.status.leader = 0)), "etcd has no leader, as n2 sees it"),
        (texts("n2", |e| e.said[1].1 = Said::Silent("refused".into())), "how etcd is on n2 is not known: refused"),
        (texts("n4", |_| {}), "n4 is no node of Talos cluster homelab"),
    ];
    assert_eq!(cases.len(), 14);
    let mut sums = 0;
    for (said, part) in cases {
        // A learner of three leaves two voters, which is a refusal of its own.
        let others = said
            .iter()
            .skip(1)
            .filter(|text| !(part.ends_with("learner") && text.contains("the other voter alone")))
            .count();
        assert!(others == 0 && said[0].contains(part), "{part}: {said:?}");
        // Voters, healthy, needed and left, now and then; of no node of the cluster there is no sum.
        let with =
            |text: &&String| text.starts_with("etcd has ") && text.contains(" needed: ") && text.contains(" is down ");
        let sum = said.iter().filter(with).count() == 1;
        assert!(sum || part.starts_with("n4 is no node"), "{said:?}");
        sums += usize::from(sum);
    }
    assert_eq!(sums, 13);
    // A member that is missing in a count of four leaves a majority of two short.
    let four = texts("n1", |e| {
        every(e, |view| view.members.push(member(4, "n4")));
        e.said.push((peer("n4"), Said::Silent("off".into())));
    });
    let sum = "etcd has 4 voters, 3 healthy, 3 needed: none to spare; while n1 is down 4 voters, 2 healthy, 3 needed: no majority";
    assert_eq!(four, [format!("{sum}: member n4 of etcd cannot be asked: off")]);
    // All that is wrong at once.
    let both = texts("n2", |e| {
        drop_third(e);
        every(e, |view| view.alarms = vec![EtcdAlarm { member: 1, alarm: "CORRUPT".into() }]);
    });
    assert_eq!(both.len(), 2, "{both:?}");
}

#[test]
fn a_member_is_whole_whatever_the_others_are() {
    let of = |n: usize, change: &dyn Fn(&mut View)| {
        let mut etcd = etcd();
        match &mut etcd.said[n].1 {
            Said::View(view) => change(view),
            other => panic!("{other:?}"),
        }
        etcd
    };
    let two = {
        let mut etcd = etcd();
        etcd.said.truncate(2);
        every(&mut etcd, |view| view.members.truncate(2));
        etcd
    };
    let silent = |n: usize| {
        let mut etcd = etcd();
        etcd.said[n].1 = Said::Silent("no route".into());
        etcd
    };
    let alarmed = |view: &mut View| view.alarms.push(EtcdAlarm { member: 3, alarm: "NOSPACE".into() });
    let well = [etcd(), two, silent(2), of(2, &|view| view.status.raft_applied = 100), of(1, &alarmed)];
    assert_eq!(well.len(), 5);
    for (n, etcd) in well.iter().enumerate() {
        assert_eq!(amiss("n2", etcd), None, "{n}");
    }
    // All but the first of them keep it from going down.
    assert_eq!(well.iter().filter(|etcd| judge("n2", etcd).problems.is_empty()).count(), 1);
    let mut with_worker = etcd();
    with_worker.said.push((peer("w"), Said::Worker));
    assert_eq!(amiss("w", &with_worker), None);
    let cases = [
        (silent(1), "how etcd is on n2 is not known: no route"),
        (of(1, &|view| view.members.retain(|member| member.id != 2)), "none of the members that it knows"),
        (of(1, &|view| view.members[1].hostname.clear()), "none of the members that it knows"),
        (of(1, &|view| view.members[1].is_learner = true), "n2 of etcd is a learner"),
        (of(1, &|view| view.status.leader = 0), "etcd has no leader, as n2 sees it"),
        (of(1, &|view| view.status.errors = vec!["corrupt index".into()]), "n2 of etcd is not healthy: corrupt index"),
        (of(1, &|view| view.status.raft_applied = 100), "member n2 of etcd is 4900 entries behind"),
    ];
    assert_eq!(cases.len(), 7);
    for (etcd, part) in cases {
        let problem = amiss("n2", &etcd).unwrap();
        assert!(problem.text.contains(part) && !problem.help.is_empty(), "{part}: {problem:?}");
    }
    assert!(amiss("n9", &etcd()).is_some());
}
