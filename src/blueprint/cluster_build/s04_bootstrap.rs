//! 04: etcd begins, on one machine and once.

use std::time::Duration;

use futures::future::join_all;
use serde::{Deserialize, Serialize};

use crate::base::check::{Change, Check, Problem};
use crate::base::fault::{Failure, Fault};
use crate::base::permit::{Permit, System};
use crate::blueprint::quorum::{Etcd, Peer, look, votes};
use crate::engine::step::{Outlook, Risk, Seen, Step};
use crate::estate::Estate;
use crate::talos::{Error, Talos};

use super::bare::{Bare, Stand};

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

/// What a machine says of an etcd of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Own {
    /// It has none, and is so far that it could begin one.
    Ready,
    /// It has none.
    No,
    /// It has none yet that could begin: it is on its way.
    NotYet(String),
    /// It has one.
    Yes(String),
    /// It does not tell.
    Untold(String),
}

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
            "So every machine of the cluster is asked before, and one that has an etcd of its own, or does not tell, is in the way. \
             Only a machine that waits for its configuration certainly has none."
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
            return Ok(Check::done().note(there));
        }
        let machines: Vec<&Bare> = self.others.iter().collect();
        let (own, others) =
            futures::join!(own(cx, &self.bare), join_all(machines.iter().map(|bare| own_named(cx, bare))));
        let problems = self.in_the_way(&etcd, &others);
        if !problems.is_empty() {
            return Ok(Check::blocked(problems));
        }
        let name = self.bare.name();
        Ok(match own {
            Own::Ready => Check::todo(
                vec![Change::act(format!("etcd of {} begins on {name}", self.bare.machine.cluster))],
                Before {},
            ),
            Own::Yes(how) if seen.since.is_some() => Check::waiting(format!("etcd on {name} is {how}")),
            Own::Yes(how) => Check::blocked(vec![Problem::new(
                format!("{name} has an etcd already, which is {how} and knows no members"),
                format!(
                    "{} says why; with data of an older cluster on it: {}",
                    self.bare.machine.talosctl("logs etcd"),
                    self.bare.machine.talosctl("reset")
                ),
            )]),
            Own::NotYet(why) | Own::Untold(why) => Check::waiting(format!("{name} is not so far: {why}")),
            Own::No => Check::blocked(vec![
                Problem::new(
                    format!("{name} is no control plane: etcd cannot begin on it"),
                    "put a control plane first in `nodes` of the parameters",
                )
                .mended_by(super::on::APPLY),
            ]),
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
            // Whether that is the etcd that was to begin the check sees.
            Ok(()) | Err(Error::Exists { .. }) => Ok(()),
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
    /// Where there are members already, in words.
    fn there(&self, etcd: &Etcd) -> Option<String> {
        let votes = votes(etcd)?;
        let names = etcd.members();
        let own = etcd.knows(self.bare.name());
        let joins =
            if own { String::new() } else { format!("; {} joins it, and begins none of its own", self.bare.name()) };
        Some(format!("etcd is there: {} ({votes}){joins}", names.join(", ")))
    }

    /// Every other machine of the cluster that has an etcd, or may have one.
    fn in_the_way(&self, etcd: &Etcd, others: &[(String, Own)]) -> Vec<Problem> {
        let mut problems = Vec::new();
        let cluster = &self.bare.machine.cluster;
        for (name, own) in others {
            let text = match own {
                Own::Ready | Own::No | Own::NotYet(_) => continue,
                Own::Yes(how) => format!(
                    "{name} has an etcd already, which is {how}: a second one would be a second cluster {cluster}"
                ),
                Own::Untold(why) => format!(
                    "whether {name} has an etcd is not known ({why}): a second one would be a second cluster {cluster}"
                ),
            };
            problems.push(Problem::new(
                text,
                format!("let {name} answer, or wait for its first configuration; where it has an old etcd, reset it"),
            ));
        }
        let known = |name: &str| name == self.bare.name() || others.iter().any(|(other, _)| other == name);
        for (name, why) in etcd.silent().filter(|(name, _)| !known(name)) {
            problems.push(Problem::new(
                format!("{name} is a node of {cluster} in the site file and does not answer ({why}): whether it has an etcd is not known"),
                format!("let {name} answer; where it is no node any more, take it out of `talos.{cluster}.nodes`"),
            ));
        }
        problems
    }
}

async fn own_named(cx: &Estate, bare: &Bare) -> (String, Own) {
    (bare.name().to_owned(), own(cx, bare).await)
}

/// What a machine says of an etcd of its own.
async fn own(cx: &Estate, bare: &Bare) -> Own {
    match bare.stand(cx).await {
        Ok(Stand::Waits(_)) => Own::NotYet("it waits for its configuration".into()),
        Ok(Stand::Foreign) => Own::Untold("it is of another cluster".into()),
        Ok(Stand::Silent(why)) => Own::Untold(why.to_string()),
        Ok(Stand::Ours(talos)) => service(&talos).await,
        Err(failure) => Own::Untold(failure.to_string()),
    }
}

/// By its service: `Preparing` stands before any data is there (siderolabs/talos `internal/app/machined/pkg/system/services`,
/// `etcd.go`).
async fn service(talos: &Talos) -> Own {
    let services = match talos.services().await {
        Ok(services) => services,
        Err(error) => return Own::Untold(error.to_string()),
    };
    match services.into_iter().find(|service| service.id == "etcd") {
        None => Own::No,
        Some(service) => match service.state.as_str() {
            "Preparing" => Own::Ready,
            "Initialized" | "Waiting" | "Starting" | "Unknown" => {
                Own::NotYet(format!("its etcd is {}: {}", service.state, service.message))
            }
            state => Own::Yes(format!("{state}: {}", service.message)),
        },
    }
}
