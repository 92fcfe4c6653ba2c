//! 04: etcd begins, on one machine and once.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Change, Check, Problem};
use crate::base::fault::{Failure, Fault};
use crate::base::permit::{Permit, System};
use crate::base::wait::{Backoff, show};
use crate::blueprint::install::own_etcd::{self, in_the_way};
use crate::blueprint::install::{Bare, Stand};
use crate::blueprint::quorum::{Etcd, Peer, apart, elsewhere, living, look, votes};
use crate::engine::step::{Outlook, Risk, Seen, Step};
use crate::estate::Estate;
use crate::talos::Error;

/// How long an etcd that exists already may take until it tells its members.
const APPEARS: Duration = Duration::from_secs(60);

/// Begins etcd on one machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Bootstrap {
    /// The machine.
    pub bare: Bare,
    /// The other machines of this migration.
    pub others: Vec<Bare>,
    /// All nodes of the cluster.
    pub peers: Vec<Peer>,
}

/// There was no etcd.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {}

impl Step<Estate> for Bootstrap {
    const ID: &'static str = "04-bootstrap";
    const RISK: Risk = Risk::Reverts;
    type Before = Before;

    fn title(&self) -> String {
        format!("etcd of {} has begun, on {}", self.bare.machine.cluster, self.bare.name())
    }

    fn why(&self) -> Vec<String> {
        vec![
            "A second bootstrap on another machine makes a second etcd beside the first, and with it a second cluster of the same \
             name: what one of them has is lost."
                .into(),
            "So every machine of the cluster is asked before, and one that may have an etcd is in the way. A worker has none, nor has a \
             machine that waits for its configuration, is the one that is meant, and has no data but what may be lost."
                .into(),
            "Kubernetes of the site is asked too, and so is the machine's discovery: where one of them knows of control planes that \
             the site file has not, an etcd lives that the machine joins by itself, or that a second one would stand beside."
                .into(),
            "The same machine asked twice refuses the second time (ALREADY_EXISTS): that it has its etcd is then looked at.".into(),
            format!("By hand: {}, once and never again.", self.bare.machine.talosctl("bootstrap")),
        ]
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(600)
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        Outlook {
            changes: vec![(System::Talos, format!("etcd begins on {}", self.bare.name()))],
            stays: Some("etcd as it has begun: an etcd is not taken back, its machines are reset".into()),
            ..Outlook::default()
        }
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let etcd = look(cx, &self.bare.machine.cluster, &self.peers).await;
        if let Some(there) = self.there(&etcd) {
            let apart = apart(&etcd);
            return Ok(match apart.first() {
                None => Check::done().note(there),
                Some(first) if seen.since.is_some() => Check::waiting(first.text.clone()),
                Some(_) => Check::blocked(apart),
            });
        }
        let others = own_etcd::all(cx, &self.others, |thing| seen.run.consents.contains(thing)).await;
        let problems = in_the_way(&self.bare, &etcd, &others);
        if !problems.is_empty() {
            return Ok(Check::blocked(problems));
        }
        let name = self.bare.name();
        let Stand::Ours(talos) = self.bare.stand(cx).await? else {
            let text = format!("{name} has no configuration of this cluster yet, or does not answer");
            return Ok(Check::blocked(vec![
                Problem::new(text, "let it be installed first").mended_by(super::on::APPLY),
            ]));
        };
        let (services, unlisted) = match futures::try_join!(talos.services(), elsewhere(&talos, &self.peers)) {
            Ok(asked) => asked,
            Err(error) if error.is_down() => return Ok(Check::waiting(error.to_string())),
            Err(error) => return Err(error.into()),
        };
        let service = services.into_iter().find(|service| service.id == "etcd");
        // Not listed: services are started after the volumes are mounted.
        let Some(service) = service else {
            return Ok(Check::waiting(format!("{name} has not come to its etcd yet")));
        };
        let change = Change::act(format!("etcd of {} begins on {name}", self.bare.machine.cluster));
        let preparing = service.state == "Preparing";
        let own = if preparing { None } else { talos.etcd_status().await.ok() };
        let joined = own.as_ref().is_some_and(|own| own.is_learner);
        if preparing || joined {
            let mut problems: Vec<Problem> = joined.then(|| self.has_joined()).into_iter().collect();
            problems.extend(unlisted.iter().map(|plane| own_etcd::unlisted(&self.bare, plane)));
            let said = living(cx, &self.bare.machine.node.cluster).await;
            problems.extend(said.map(|said| own_etcd::lives(&self.bare, &said)));
            if !problems.is_empty() {
                return Ok(Check::blocked(problems));
            }
        }
        Ok(match service.state.as_str() {
            "Preparing" => Check::todo(vec![change], Before {}),
            "Initialized" | "Waiting" | "Starting" | "Unknown" => {
                Check::waiting(format!("the etcd of {name} is {}: {}", service.state, service.message))
            }
            state if seen.since.is_some() => {
                Check::waiting(format!("the etcd of {name} is {state}: {}", service.message))
            }
            state => Check::blocked(vec![self.has_one(state, &service.message, own.is_some())]),
        })
    }

    async fn apply(&self, cx: &Estate, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        // Once more, right before it: from here on there is no way back.
        match self.check(cx, seen).await?.answer {
            crate::base::check::Answer::Todo { .. } => {}
            crate::base::check::Answer::Blocked { problems } => {
                let (text, help): (Vec<_>, Vec<_>) = problems.into_iter().map(|p| (p.text, p.help)).unzip();
                return Err(Failure::plain(text.join("; "), help.into_iter().next()));
            }
            _ => return Ok(()),
        }
        match self.bare.machine.open(cx).await?.bootstrap(permit, false, false).await {
            Ok(()) => Ok(()),
            Err(error @ Error::Exists { .. }) => self.exists(cx, &error, permit).await,
            // Not so far yet, and nothing was begun.
            Err(error @ Error::NotReady { .. }) => Err(Failure::plain(error.to_string(), error.help())),
            Err(error) => Err(error.into()),
        }
    }

    async fn back(&self, _: &Estate, _: &Before, _: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        Ok(Check::done().stays(["etcd stays as it has begun".to_owned()]))
    }
}

impl Bootstrap {
    /// It is a learner: nobody begins as one.
    fn has_joined(&self) -> Problem {
        let (name, cluster) = (self.bare.name(), &self.bare.machine.cluster);
        Problem::new(
            format!("{name} has joined an etcd of which the site file names nobody, as a learner that has no vote yet"),
            format!(
                "add the nodes of that etcd to `talos.{cluster}.nodes`, and `pvemig survey` shows its votes; {name} stays as it is \
                 until that is known"
            ),
        )
    }

    /// It has an etcd that tells no members. `runs`: it answers all the same, as it does without a leader.
    fn has_one(&self, state: &str, message: &str, runs: bool) -> Problem {
        let (name, machine) = (self.bare.name(), &self.bare.machine);
        let logs = machine.talosctl("logs etcd");
        let help = if runs {
            format!(
                "it is a voter without a leader: let the others of its etcd answer (`pvemig survey`), and where some are no nodes of \
                 the site file, add them to `talos.{}.nodes`; {logs} says more",
                machine.cluster
            )
        } else {
            let reset = machine.talosctl("reset");
            format!(
                "{logs} says why; where that is the data of an older cluster that nobody needs, and of no member of a living one \
                 (`pvemig survey`): {reset}"
            )
        };
        Problem::new(format!("{name} has an etcd already, which is {state} and tells no members: {message}"), help)
    }

    /// The machine says that its etcd exists already: a former call has begun it, or it has data. The first one shows its
    /// members in a moment.
    async fn exists(&self, cx: &Estate, error: &Error, permit: &Permit) -> Result<(), Failure> {
        let (name, machine) = (self.bare.name(), &self.bare.machine);
        permit.progress(&format!("{name} says that its etcd is there already ({error}): its members are looked for"));
        let (mut pauses, begun) = (Backoff::poll(cx.clock()), cx.clock().instant());
        loop {
            if let Some(there) = self.there(&look(cx, &machine.cluster, &self.peers).await) {
                permit.progress(&there);
                return Ok(());
            }
            if begun.elapsed() > cx.clock().scaled(APPEARS) {
                break;
            }
            permit.go_on()?;
            pauses.pause().await;
        }
        let services = machine.open(cx).await?.services().await?;
        let own = services.into_iter().find(|service| service.id == "etcd");
        let own = own.map_or_else(|| "not listed".to_owned(), |own| format!("{}: {}", own.state, own.message));
        Err(Failure::plain(
            format!("{error}; {} later {name} tells no members, and its etcd is {own}", show(APPEARS)),
            Some(format!(
                "{} and {} say what is there; `pvemig resume` looks again, and begins nothing where it is there already",
                machine.talosctl("logs etcd"),
                machine.talosctl("list /var/lib/etcd/member")
            )),
        ))
    }

    /// Where there are members already, in words.
    fn there(&self, etcd: &Etcd) -> Option<String> {
        let votes = votes(etcd)?;
        let names = etcd.members();
        let own = etcd.knows(self.bare.name());
        let joins =
            if own { String::new() } else { format!("; {} joins it, and begins none of its own", self.bare.name()) };
        Some(format!("etcd is there: {} ({votes}){joins}", names.join(", ")))
    }
}
