//! How the control planes of a cluster stand, asked side by side, and what of it keeps anybody from wiping.

use std::path::Path;
use std::time::Duration;

use futures::future::{Either, join_all, select};
use jiff::Timestamp;

use crate::base::check::bytes;
use crate::base::fault::Failure;
use crate::base::private;
use crate::base::wait::{pause, show};
use crate::blueprint::machine::Machine;
use crate::blueprint::quorum::{Etcd, Peer, Said, Votes, discovered, living, look, votes};
use crate::engine::step::RunInfo;
use crate::estate::Estate;
use crate::talos::bolt::{Content, copied};
use crate::talos::{Error, EtcdStatus};

use super::lost::{Gone, Shell, shell, stand};
use super::{Planes, copies};

/// How long what etcd has of its nodes is waited for.
const HAD: Duration = Duration::from_secs(120);

/// Where etcd has its files.
pub(super) const ETCD: &str = "/var/lib/etcd";

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
    pub(super) living: Option<String>,
    /// Control planes that discovery knows, by their host names.
    pub(super) seen: Vec<String>,
    /// Whose discovery could not be asked, though it answers else, and why.
    pub(super) unseen: Vec<(Machine, Failure)>,
}

/// Asks all of them.
pub(super) async fn gather(cx: &Estate, planes: &Planes) -> Facts {
    let here = join_all(planes.stay().map(|machine| async move { (machine.clone(), here(cx, machine).await) }));
    let gone = join_all(planes.lost.iter().map(|machine| async move {
        let (gone, shell) = futures::join!(stand(cx, machine), shell(cx, machine));
        (machine.clone(), gone, shell)
    }));
    let seen = join_all(planes.stay().map(|machine| async move { (machine.clone(), seen(cx, machine).await) }));
    let (etcd, here, gone, seen) = futures::join!(look(cx, &planes.cluster, &planes.peers), here, gone, seen);
    let living = if votes(&etcd).is_some() { None } else { living(cx, &planes.from.node.cluster).await };
    let mut facts = Facts { etcd, here, gone, living, seen: Vec::new(), unseen: Vec::new() };
    for (machine, told) in seen {
        match told {
            Ok(names) => facts.seen.extend(names),
            // That it does not answer at all is told by itself.
            Err(_) if matches!(facts.of(&machine.name), Some(Here::Silent(_)) | None) => {}
            Err(failure) => facts.unseen.push((machine, failure)),
        }
    }
    facts.seen.sort();
    facts.seen.dedup();
    facts
}

/// The same, and whether the VMs that are off are those that the lost nodes ran in: what etcd has of those says it.
/// `given`: what it is to begin from.
pub(super) async fn gather_shown(cx: &Estate, planes: &Planes, run: &RunInfo, given: Option<&Path>) -> Facts {
    let mut facts = gather(cx, planes).await;
    let off = |(_, gone, shell): &(_, Gone, Shell)| *gone == Gone::Silent && matches!(shell, Shell::Off(_));
    if facts.led().is_some() || !facts.gone.iter().any(off) {
        return facts;
    }
    let had = had(cx, planes, &facts, run, given);
    let had = match select(Box::pin(had), Box::pin(pause(cx.clock(), HAD))).await {
        Either::Left((had, _)) => had,
        Either::Right(_) => Err(format!("what etcd has was not read within {}", show(HAD))),
    };
    for (machine, _, shell) in &mut facts.gone {
        if let Shell::Off(off) = shell {
            off.compare(&machine.node.name, had.as_deref());
        }
    }
    facts
}

/// What etcd had of the nodes: in the copies of the run, in what it is to begin from, else in what a survivor has.
async fn had(
    cx: &Estate,
    planes: &Planes,
    facts: &Facts,
    run: &RunInfo,
    given: Option<&Path>,
) -> Result<Vec<Content>, String> {
    if let Some(held) = copies::held(run).map_err(|failure| failure.to_string())? {
        return Ok(held.into_iter().map(|copy| copy.content).collect());
    }
    let own = facts.holders().filter(|(machine, _)| machine.name == planes.from.name);
    let others = facts.holders().filter(|(machine, _)| machine.name != planes.from.name);
    let mut why = "nobody has data of etcd".to_owned();
    for (machine, holds) in own.chain(others) {
        let taken = copies::taken(cx, machine, holds).await.map_err(|failure| failure.to_string());
        match taken.and_then(|(content, _)| copied(&content)) {
            Ok(found) => return Ok(vec![found.content]),
            Err(error) => why = format!("what {} has of etcd cannot be read: {error}", machine.name),
        }
    }
    let Some(given) = given else { return Err(why) };
    let content = private::read(given).map_err(|error| error.to_string())?;
    Ok(vec![copied(&content)?.content])
}

/// The control planes that a node's discovery knows.
async fn seen(cx: &Estate, machine: &Machine) -> Result<Vec<String>, Failure> {
    Ok(discovered(machine.open(cx).await?.as_ref()).await?)
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
    if let Some(error) = file.as_ref().and_then(|file| file.error.as_ref()) {
        let text = format!("{} cannot look at the database of its etcd: {error}", machine.name);
        return Err(Failure::plain(text, Some("see `talosctl dmesg` for what its disk says".into())));
    }
    let status = talos.etcd_status().await.map_err(|error| error.to_string());
    let (size, written) = file.map_or((None, None), |file| (Some(file.size), file.modified));
    Ok(Here::Holds(Holds { size, written, status }))
}

impl Facts {
    /// The votes where etcd has its majority, in words.
    pub(super) fn led(&self) -> Option<Votes> {
        votes(&self.etcd)
    }

    /// How etcd is where it has its majority: its voters, and who has no vote yet.
    pub(super) fn there(&self, votes: &Votes) -> String {
        let (voters, learners) = self.etcd.by_vote();
        let learn =
            if learners.is_empty() { String::new() } else { format!("; without a vote yet: {}", learners.join(", ")) };
        format!("etcd has {votes}: {}{learn}", voters.join(", "))
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
}
