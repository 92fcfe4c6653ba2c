//! How the control planes of a cluster stand, asked side by side, and what of it keeps anybody from wiping.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::{Either, join_all, select};
use jiff::Timestamp;

use crate::base::check::{Problem, bytes};
use crate::base::fault::Failure;
use crate::base::permit::Thing;
use crate::base::wait::{pause, show};
use crate::blueprint::Known;
use crate::blueprint::machine::Machine;
use crate::blueprint::quorum::{Etcd, Peer, Said, Votes, look, votes};
use crate::estate::Estate;
use crate::talos::{Error, EtcdStatus, kind};

use super::lost::{Gone, Off, Shell, shell, stand};
use super::{Planes, known};

/// How long Kubernetes is waited for: an API without etcd says so after seven seconds, and one that is not there nothing.
const KUBERNETES: Duration = Duration::from_secs(10);

/// Where etcd has its files.
const ETCD: &str = "/var/lib/etcd";

/// What a control plane says that is to stay.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Here {
    /// It has data of etcd.
    Holds(Holds),
    /// It has none, and its service is so.
    Empty { state: String, message: String },
    /// It could not be asked, and why.
    Silent(String),
}

/// Data of etcd on a node.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Holds {
    /// The size of its file.
    pub(super) size: Option<u64>,
    /// When that was written last.
    pub(super) written: Option<Timestamp>,
    /// What its etcd says, or why it says nothing.
    pub(super) status: Result<EtcdStatus, String>,
}

impl Holds {
    /// In words, at a moment.
    fn words(&self, name: &str, now: Timestamp) -> String {
        let size = self.size.map_or_else(|| "data of a size that is not known".into(), |size| bytes(size).to_string());
        let ago = |at: Timestamp| std::time::Duration::try_from(now.duration_since(at)).unwrap_or_default();
        let age = self.written.map_or_else(
            || "when it was written last is not known".into(),
            |at| format!("written last {} ago ({at})", show(std::time::Duration::from_secs(ago(at).as_secs()))),
        );
        let etcd = match &self.status {
            Ok(status) => format!(
                "entry {} of term {}, {}",
                status.raft_applied,
                status.raft_term,
                if status.is_learner { "a learner without a vote" } else { "a voter" }
            ),
            Err(why) => format!("how far it is is not known ({why})"),
        };
        format!("{name} has {size} of etcd, {etcd}; {age}")
    }

    fn votes(&self) -> bool {
        self.status.as_ref().is_ok_and(|status| !status.is_learner)
    }
}

/// All that was asked.
pub(super) struct Facts {
    pub(super) etcd: Etcd,
    pub(super) here: Vec<(Machine, Here)>,
    pub(super) gone: Vec<(Machine, Gone, Shell)>,
    /// What Kubernetes told, where nobody knows a leader: it has it from one.
    living: Option<String>,
    /// Control planes that discovery knows, by their host names.
    seen: Vec<String>,
}

/// A problem and its name.
pub(super) type Named = (&'static Known, Problem);

/// Asks all of them.
pub(super) async fn gather(cx: &Estate, planes: &Planes) -> Facts {
    let here = join_all(planes.stay().map(|machine| async move { (machine.clone(), here(cx, machine).await) }));
    let gone = join_all(planes.lost.iter().map(|machine| async move {
        let (gone, shell) = futures::join!(stand(cx, machine), shell(cx, machine));
        (machine.clone(), gone, shell)
    }));
    let (etcd, here, gone, seen) =
        futures::join!(look(cx, &planes.cluster, &planes.peers), here, gone, seen(cx, &planes.from));
    let living = if votes(&etcd).is_some() { None } else { living(cx, planes).await };
    Facts { etcd, here, gone, living, seen }
}

/// What Kubernetes tells of its nodes. It reads them from an etcd that has its leader, so an answer proves that one lives,
/// whoever can be reached from here; that it does not answer proves nothing.
async fn living(cx: &Estate, planes: &Planes) -> Option<String> {
    let cluster = &planes.from.node.cluster;
    let asked = async { Ok::<_, Failure>(cx.kubernetes(cluster).await?.nodes().await?.len()) };
    match select(Box::pin(asked), Box::pin(pause(cx.clock(), KUBERNETES))).await {
        Either::Left((Ok(nodes), _)) => Some(format!("kubernetes `{cluster}` answers, and has {nodes} nodes")),
        Either::Left((Err(_), _)) | Either::Right(_) => None,
    }
}

/// What discovery knows; a node that is down knows nothing, which [`Here`] tells.
async fn seen(cx: &Estate, from: &Machine) -> Vec<String> {
    let asked = async { Ok::<_, Failure>(from.open(cx).await?.list(&kind::MEMBERS).await?) };
    let members = asked.await.unwrap_or_default().into_iter();
    let planes = members.filter(|member| matches!(member.spec.machine_type.as_str(), "controlplane" | "init"));
    planes.map(|member| if member.spec.hostname.is_empty() { member.id } else { member.spec.hostname }).collect()
}

/// One that is to stay.
pub(super) async fn here(cx: &Estate, machine: &Machine) -> Here {
    asked(cx, machine).await.unwrap_or_else(|failure| Here::Silent(failure.to_string()))
}

async fn asked(cx: &Estate, machine: &Machine) -> Result<Here, Failure> {
    let talos = machine.open(cx).await?;
    let none = |error| match error {
        Error::NotFound { .. } => Ok(Vec::new()),
        other => Err(other),
    };
    let (services, inside) = futures::try_join!(talos.services(), async { talos.dir(ETCD).await.or_else(none) })?;
    let Some(service) = services.into_iter().find(|service| service.id == "etcd") else {
        let text = format!("{} has no service etcd: it is a worker, or has not come so far yet", machine.name);
        return Err(Failure::plain(text, None));
    };
    if !inside.iter().any(|entry| entry.name == "member") {
        return Ok(Here::Empty { state: service.state, message: service.message });
    }
    let files = talos.dir(&format!("{ETCD}/member/snap")).await.or_else(none)?;
    let file = files.into_iter().find(|entry| entry.name == "db");
    let status = talos.etcd_status().await.map_err(|error| error.to_string());
    let (size, written) = file.map_or((None, None), |file| (Some(file.size), file.modified));
    Ok(Here::Holds(Holds { size, written, status }))
}

impl Facts {
    /// The votes where etcd has its majority, in words.
    pub(super) fn led(&self) -> Option<Votes> {
        votes(&self.etcd)
    }

    /// What one of those says that stay.
    pub(super) fn of(&self, name: &str) -> Option<&Here> {
        self.here.iter().find(|(machine, _)| machine.name == name).map(|(_, here)| here)
    }

    /// The machines that have data of etcd.
    pub(super) fn holders(&self) -> impl Iterator<Item = (&Machine, &Holds)> {
        self.here.iter().filter_map(|(machine, here)| match here {
            Here::Holds(holds) => Some((machine, holds)),
            Here::Empty { .. } | Here::Silent(_) => None,
        })
    }

    /// The votes as far as they can be told without a leader: whoever does not say otherwise may have one.
    pub(super) fn at_most(&self) -> Votes {
        let healthy = self.holders().filter(|(_, holds)| holds.votes()).count();
        let learners = self.holders().filter(|(_, holds)| holds.status.as_ref().is_ok_and(|s| s.is_learner)).count();
        // One that is named nowhere may have a vote too.
        let named = |peer: &Peer| {
            let mut all =
                self.here.iter().map(|(machine, _)| machine).chain(self.gone.iter().map(|(machine, ..)| machine));
            all.any(|machine| machine.name == peer.name)
        };
        let others = self.etcd.said.iter().filter(|(peer, said)| *said != Said::Worker && !named(peer)).count();
        Votes { voters: self.here.len() + self.gone.len() + others - learners, healthy }
    }

    /// What each member holds, in words.
    pub(super) fn words(&self, now: Timestamp) -> Vec<String> {
        let one = |(machine, here): &(Machine, Here)| match here {
            Here::Holds(holds) => holds.words(&machine.name, now),
            Here::Empty { state, .. } => format!("{} has no data of etcd, which is {state}", machine.name),
            Here::Silent(why) => format!("{} does not tell: {why}", machine.name),
        };
        self.here.iter().map(one).collect()
    }

    /// Members of an etcd that has its majority which are said to be gone.
    pub(super) fn lost_members(&self, planes: &Planes) -> Vec<String> {
        let members = self.etcd.members();
        let is = |machine: &&Machine| members.iter().any(|name| *name == machine.node.name || *name == machine.name);
        planes.lost.iter().filter(is).map(|machine| machine.name.clone()).collect()
    }

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
            out.push((
                &known::ALIVE,
                Problem::new(
                    format!("{} is said to be lost, and answers: {how}", machine.name),
                    format!(
                        "let its etcd come up, which may give the majority back ({}); else put it under `nodes`, or switch it off \
                         and take its disk out",
                        machine.talosctl("service etcd")
                    ),
                ),
            ));
        }
        out.extend(self.unlisted(planes));
        out
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
                    let help = format!("let it tell ({}), or name a copy by `snapshot`", machine.talosctl("logs etcd"));
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
    let why = match shell {
        Shell::Runs(vmid) if silent => {
            let text = format!(
                "vm {vmid} of {name} runs, and {name} does not answer: it may come up with its etcd at any moment"
            );
            let help = format!("let it come up; where it is of no use, `qm stop {vmid}`");
            return Some((&known::RETURNS, Problem::new(text, help)));
        }
        Shell::Off(Off { vmid, kept: true, .. }) => {
            let text = format!("vm {vmid} of {name} is off, and high availability may start it at any moment");
            return Some((&known::RETURNS, Problem::new(text, format!("`ha-manager remove vm:{vmid}`"))));
        }
        Shell::Unknown(vmid, why) if silent => format!("whether vm {vmid} could come back is not known: {why}"),
        Shell::None if silent => "whether it is off, or cut off from here, nobody can see".to_owned(),
        Shell::Runs(_) | Shell::Off(_) | Shell::Unknown(..) | Shell::None => return None,
    };
    let thing = Thing::gone(name);
    let text = format!("{name} is silent, and that is all that is known: {why}");
    let help = format!(
        "look at it; where it never comes back with its disk, add `--destroy {thing}` to the command (with `pvemig resume` too): \
         alive behind another network it is an etcd beside the new one"
    );
    (!given.contains(&thing)).then(|| (&known::UNSEEN, Problem::new(text, help)))
}
