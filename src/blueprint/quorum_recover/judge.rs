//! What keeps anybody from wiping a member and from beginning anew, and from beginning with what one survivor has.

use std::collections::BTreeSet;

use crate::base::check::Problem;
use crate::base::permit::Thing;
use crate::blueprint::Known;
use crate::blueprint::machine::Machine;
use crate::blueprint::quorum::Said;
use crate::talos::EtcdStatus;

use super::facts::{Facts, Here};
use super::lost::{Gone, Off, Shell};
use super::{Planes, known};

/// A problem and its name.
pub(super) type Named = (&'static Known, Problem);

impl Facts {
    /// What keeps anybody from wiping a member, and from beginning anew: unknown is not gone.
    pub(super) fn in_the_way(&self, planes: &Planes, given: &BTreeSet<Thing>) -> Vec<Named> {
        let mut out: Vec<Named> = Vec::new();
        if let Some(said) = &self.living {
            let text =
                format!("{said}: an etcd with its majority lives, and none of those that answer here knows its leader");
            let help = format!(
                "{} is cut off from the others (port 2380), or they are not gone: find them before anything is wiped",
                planes.from.name
            );
            out.push((&known::LIVING, Problem::new(text, help)));
        }
        let votes = self.at_most();
        if votes.left().is_some() {
            let text = format!(
                "as far as is told etcd has {votes}: those that answer are a majority, and find a leader by themselves"
            );
            let help = "let them reach each other (port 2380), wait for the election, and look again: `pvemig survey`";
            out.push((&known::MAJORITY, Problem::new(text, help)));
        }
        for (machine, here) in &self.here {
            let Here::Silent(why) = here else { continue };
            out.push((
                &known::SILENT,
                Problem::new(
                    format!("{} does not answer: {why}", machine.name),
                    format!(
                        "let it answer: a voter that comes back is the cheapest way out of a lost majority; {}",
                        if machine.name == planes.from.name {
                            "where it is gone for good, name another one in `from`, or a copy by `snapshot`".to_owned()
                        } else {
                            format!("where it is gone for good, put {} under `lost`", machine.name)
                        }
                    ),
                ),
            ));
        }
        for (machine, gone, shell) in &self.gone {
            let Gone::There(how) = gone else {
                out.extend(returns(machine, gone, shell, given));
                continue;
            };
            let problem = Problem::new(
                format!("{} is said to be lost, and answers: {how}", machine.name),
                format!(
                    "let its etcd come up, which may give the majority back ({}); else put it under `nodes`, or switch it off \
                     and take its disk out",
                    machine.talosctl("service etcd")
                ),
            );
            out.push((&known::ALIVE, seen_alive(problem, &machine.name, given)));
        }
        out.extend(self.unlisted(planes));
        out
    }

    /// What of that shows a person's word to be wrong.
    pub(super) fn voided(&self, planes: &Planes, given: &BTreeSet<Thing>) -> Vec<Problem> {
        let all = self.in_the_way(planes, given).into_iter().map(|(_, problem)| problem);
        all.filter(|problem| problem.voids.is_some()).collect()
    }

    /// Control planes that are in none of the lists, and nodes of which nobody knows that they are workers.
    fn unlisted(&self, planes: &Planes) -> Vec<Named> {
        let listed: Vec<&Machine> = planes.stay().chain(&planes.lost).collect();
        let help =
            |name: &str| format!("put {name} under `nodes`, or under `lost` where it is gone; unknown is not gone");
        let mut out: Vec<Named> = Vec::new();
        for (peer, said) in &self.etcd.said {
            if listed.iter().any(|machine| machine.name == peer.name) || *said == Said::Worker {
                continue;
            }
            let why = match said {
                Said::Silent(why) => format!(" ({why})"),
                Said::Worker | Said::View(_) => String::new(),
            };
            let text = format!(
                "{} is a node of {}, no worker as far as it tells{why}, and in none of `from`, `nodes` and `lost`",
                peer.name, planes.cluster
            );
            out.push((&known::UNLISTED, Problem::new(text, help(&peer.name))));
        }
        let known = |name: &String| planes.peers.iter().any(|peer| peer.node_name == *name || peer.name == *name);
        for name in self.seen.iter().filter(|name| !known(name)) {
            let text = format!(
                "{name} is a control plane of {} as discovery knows it, and not in the site file",
                planes.cluster
            );
            let help = format!("add it to `talos.{}.nodes`, and {}", planes.cluster, help(name));
            out.push((&known::UNLISTED, Problem::new(text, help)));
        }
        for (machine, failure) in &self.unseen {
            let text = format!("which control planes {} knows of is not known: {failure}", machine.name);
            let help = format!("{} shows them; one that is named nowhere may live", machine.talosctl("get members"));
            out.push((&known::CANNOT_ASK, Problem::new(text, help)));
        }
        out
    }

    /// Why what the survivor has is not the best that there is. `given`: etcd begins from another file.
    pub(super) fn unfit(&self, planes: &Planes, given: bool) -> Vec<Named> {
        let name = &planes.from.name;
        if given {
            return Vec::new();
        }
        let own = match self.of(name) {
            Some(Here::Holds(own)) => own,
            Some(Here::Empty { .. }) => {
                let text = format!("{name} has no data of etcd: there is nothing that it could begin from");
                let help =
                    "name a copy by `snapshot` in the parameters; an abandoned run has those of its 01 among its files";
                return vec![(&known::EMPTY, Problem::new(text, help))];
            }
            // That it does not answer is told by itself.
            Some(Here::Silent(_)) | None => return Vec::new(),
        };
        let mut out: Vec<Named> = Vec::new();
        let own = match &own.status {
            Ok(own) => own,
            Err(why) => {
                if self.holders().any(|(machine, _)| machine.name != *name) {
                    let text = format!("how far the etcd of {name} is is not known ({why}), and others have data too");
                    let help =
                        format!("let it answer ({}), or name a copy by `snapshot`", planes.from.talosctl("logs etcd"));
                    out.push((&known::BEHIND, Problem::new(text, help)));
                }
                return out;
            }
        };
        if own.is_learner {
            let text = format!("{name} is a learner: what it has may be far behind what etcd had agreed on");
            let help = "name a voter in `from`, or a copy by `snapshot`";
            out.push((&known::LEARNER, Problem::new(text, help)));
        }
        let mut newest: Option<(&Machine, &EtcdStatus)> = None;
        for (machine, holds) in self.holders().filter(|(machine, _)| machine.name != *name) {
            match &holds.status {
                Ok(status) if status.raft_applied > newest.map_or(own.raft_applied, |(_, one)| one.raft_applied) => {
                    newest = Some((machine, status));
                }
                Ok(_) => {}
                Err(why) => {
                    let other = &machine.name;
                    let text = format!(
                        "{other} has data of etcd, and how far it is is not known ({why}): it may have more than {name}"
                    );
                    let help = format!(
                        "let it tell ({}), or name a copy by `snapshot`; where it is of no use, switch it off and put {other} \
                         under `lost`",
                        machine.talosctl("logs etcd")
                    );
                    out.push((&known::BEHIND, Problem::new(text, help)));
                }
            }
        }
        if let Some((machine, status)) = newest {
            let text = format!(
                "{name} is {} entries behind {}, the newest that answers: it has {} of {}",
                status.raft_applied - own.raft_applied,
                machine.name,
                own.raft_applied,
                status.raft_applied
            );
            let help = format!("name {} in `from`, and {name} under `nodes`", machine.name);
            out.push((&known::BEHIND, Problem::new(text, help)));
        }
        out
    }
}

/// What could bring back a machine that does not answer. It is known to be gone where its VM is off; where nobody tells, a
/// person has to.
fn returns(machine: &Machine, gone: &Gone, shell: &Shell, given: &BTreeSet<Thing>) -> Option<Named> {
    let name = &machine.name;
    let silent = *gone == Gone::Silent;
    let only = |why: String| format!("{name} is silent, and that is all that is known: {why}");
    let text = match shell {
        Shell::Runs(vmid) if silent => {
            let text = format!(
                "vm {vmid} of {name} runs, and {name} does not answer: it may come up with its etcd at any moment"
            );
            let help = format!("let it come up; where it is of no use, `qm stop {vmid}`");
            return Some((&known::RETURNS, seen_alive(Problem::new(text, help), name, given)));
        }
        Shell::Off(Off { vmid, kept: true, .. }) => {
            let text = format!("vm {vmid} of {name} is off, and high availability may start it at any moment");
            return Some((&known::RETURNS, Problem::new(text, format!("`ha-manager remove vm:{vmid}`"))));
        }
        Shell::Off(Off { vmid, unshown: Some(why), .. }) if silent => {
            only(format!("vm {vmid} is off, and that {name} ran in it is not shown: {why}"))
        }
        Shell::Unknown(vmid, why) if silent => only(format!("whether vm {vmid} could come back is not known: {why}")),
        Shell::None if silent => only("whether it is off, or cut off from here, nobody can see".to_owned()),
        Shell::None => format!(
            "a machine waits for a configuration at the address of {name}: that it is {name} itself nobody can see from here, and \
             {name} may run on elsewhere"
        ),
        Shell::Runs(_) | Shell::Off(_) | Shell::Unknown(..) => return None,
    };
    let thing = Thing::gone(name);
    let help = format!(
        "look at it; where it never comes back with its disk, add `--destroy {thing}` to the command (with `pvemig resume` too): \
         alive behind another network it is an etcd beside the new one"
    );
    (!given.contains(&thing)).then(|| (&known::UNSEEN, Problem::new(text, help)))
}

/// Whoever said that it never comes back was wrong, or is so by now: that word is asked for anew once it is silent again.
fn seen_alive(mut problem: Problem, name: &str, given: &BTreeSet<Thing>) -> Problem {
    let word = Thing::gone(name);
    if !given.contains(&word) {
        return problem;
    }
    problem.text = format!("{}; what was said of it (`{word}`) counts no longer", problem.text);
    problem.voids(word)
}
