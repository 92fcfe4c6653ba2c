//! 07: every volume is ready again, on the drive that has its partition, and mounted where it was.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::Check;
use crate::base::drives::Plan;
use crate::base::fault::Failure;
use crate::blueprint::machine::Machine;
use crate::blueprint::stand::may_pass;
use crate::engine::step::{Risk, Seen, Step};
use crate::estate::Estate;
use crate::talos::patch::Patch;

use super::params::Params;
use super::volumes;

/// Looks at each volume before pods are let onto the node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VerifyVolumes {
    /// The node.
    pub machine: Machine,
    /// What is to become of its drives.
    pub plan: Plan,
    /// The names of the user volumes that are new.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
}

/// Nothing is owed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {}

impl From<&Params> for VerifyVolumes {
    fn from(p: &Params) -> Self {
        Self { machine: p.machine.clone(), plan: p.plan.clone(), volumes: names(&p.volumes) }
    }
}

/// The names of the user volumes among patches.
pub(super) fn names(patches: &[Patch]) -> Vec<String> {
    let of = |patch: &Patch| match patch {
        Patch::UserVolume { name, .. } => Some(name.clone()),
        _ => None,
    };
    patches.iter().filter_map(of).collect()
}

impl Step<Estate> for VerifyVolumes {
    const ID: &'static str = "07-verify-volumes";
    const RISK: Risk = Risk::Reads;
    type Before = Before;

    fn title(&self) -> String {
        format!("each volume of {} is ready, on its own drive", self.machine.name)
    }

    fn why(&self) -> Vec<String> {
        vec![
            "A pod that is let onto a node before its volume is mounted writes into the empty directory below it.".into(),
            "Talos finds a volume by the label of its partition, wherever its drive is; that it is the partition of before its uuid \
             shows. There is no `mount` to be run on the node, and no fstab: what is not mounted says why in its status."
                .into(),
            format!(
                "By hand: {}, {}, {}, and `kubectl get diskpools -A` where there is Mayastor.",
                self.machine.talosctl("get volumestatus"),
                self.machine.talosctl("get discoveredvolumes"),
                self.machine.talosctl("mounts")
            ),
        ]
    }

    /// A file system that is checked, a pool that is imported.
    fn limit(&self) -> Duration {
        Duration::from_secs(600)
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        match Box::pin(volumes::look(cx, &self.machine, &self.plan, &self.volumes, seen.run)).await {
            Err(failure) if may_pass(&failure) => Ok(Check::waiting(failure.to_string())),
            other => Ok(other?.check()),
        }
    }
}
