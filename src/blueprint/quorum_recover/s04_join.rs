//! 04: a control plane that was wiped has its vote in the new etcd, and is booted through.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Check, Problem};
use crate::base::fault::Failure;
use crate::blueprint::machine::Machine;
use crate::blueprint::quorum::{amiss, apart, look, votes};
use crate::blueprint::stand::missing;
use crate::engine::step::{Risk, Seen, Step};
use crate::estate::Estate;
use crate::talos::kind;

use super::{Planes, on};

/// Waits until one control plane is part of etcd again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Rejoin {
    /// The control plane.
    pub machine: Machine,
    /// All control planes.
    pub planes: Planes,
}

/// Nothing is owed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {}

impl Step<Estate> for Rejoin {
    const ID: &'static str = "04-join";
    const RISK: Risk = Risk::Reads;
    type Before = Before;

    fn instance(&self) -> Option<String> {
        Some(self.machine.name.clone())
    }

    fn title(&self) -> String {
        format!("{} has its vote in the new etcd", self.machine.name)
    }

    fn why(&self) -> Vec<String> {
        vec![
            "A control plane without data of etcd joins by itself as soon as one that it finds (discovery, the endpoint) has it: as a \
             learner first, with its vote when it has caught up."
                .into(),
            "Several that wait do not get in at once: etcd refuses a second learner (`too many learner members in cluster`), and \
             Talos asks again for up to 30 minutes. Where that was not enough, a reboot has it ask again."
                .into(),
            format!("By hand: {}, {}.", self.machine.talosctl("service etcd"), self.planes.from.talosctl("etcd members")),
        ]
    }

    /// As long as Talos asks.
    fn limit(&self) -> Duration {
        Duration::from_secs(1_800)
    }

    async fn check(&self, cx: &Estate, _: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let name = &self.machine.name;
        let etcd = look(cx, &self.planes.cluster, &self.planes.peers).await;
        let Some(votes) = votes(&etcd) else {
            let text = format!("{name} joins once etcd has begun again, and nobody tells its members");
            return Ok(Check::blocked(vec![Problem::new(text, "let it begin on one first").mended_by(on::RECOVER)]));
        };
        let talos = self.machine.open(cx).await?;
        let asked = futures::try_join!(talos.single(&kind::MACHINE_STATUS), talos.services());
        let (status, services) = match asked {
            Err(error) if error.is_down() => {
                return Ok(Check::waiting(format!(
                    "{error}; where {name} is gone for good, `pvemig abandon` this run: etcd has begun again without it, and \
                     `node-replace` puts a machine in its place"
                )));
            }
            other => other?,
        };
        if let Some(problem) = apart(&etcd).into_iter().next() {
            return Ok(Check::waiting(problem.text));
        }
        if let Some(service) = services.iter().find(|service| service.id == "etcd" && service.state == "Failed") {
            return Ok(Check::blocked(vec![Problem::new(
                format!("the etcd of {name} has given up to join: {}", service.message),
                format!("{} has it ask again; then `pvemig resume`", self.machine.talosctl("reboot")),
            )]));
        }
        if let Some(problem) = amiss(name, &etcd) {
            return Ok(Check::waiting(problem.text));
        }
        let status = status.map(|status| status.spec).unwrap_or_default();
        let lines = missing(&self.machine, &status, &services);
        if !lines.is_empty() {
            return Ok(Check::waiting(lines.join("; ")));
        }
        Ok(Check::done().note(format!("etcd has {votes}")))
    }
}
