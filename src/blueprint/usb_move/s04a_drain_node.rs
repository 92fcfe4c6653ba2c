//! 04a: nothing that can run elsewhere runs on the target node when its VM is switched off.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::Check;
use crate::base::fault::Failure;
use crate::base::permit::Permit;
use crate::engine::step::{Outlook, Risk, Seen, Step};
use crate::estate::Estate;

use super::cordon::{Drain, PATIENCE};
use super::device::Vm;
use super::params::KubeNode;
use super::s05_reboot_vm::{Cycle, needs_power_cycle};

pub(super) use super::cordon::Former as Before;

/// The other way out, where a pod will not go.
pub(super) const OTHERWISE: &str = ", or set `drain: false` in the site file";

/// Cordons and drains the target node until 06a.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DrainNode {
    /// The VM that is going to be power-cycled.
    pub vm: Vm,
    /// Its node.
    pub node: KubeNode,
    /// `drain:` of the site.
    pub drain: bool,
}

impl Step<Estate> for DrainNode {
    const ID: &'static str = "04a-drain-node";
    const RISK: Risk = Risk::Reverts;
    const HOLDS_UNTIL: Option<&'static str> = Some("06a-uncordon-node");
    type Before = Before;

    fn title(&self) -> String {
        format!("node {} is cordoned and drained", self.node.name)
    }

    fn why(&self) -> Vec<String> {
        vec![
            "A power-off kills what runs on the node; an eviction lets it end, and asks the budgets first.".into(),
            format!("By hand: `kubectl drain {} --ignore-daemonsets --delete-emptydir-data`.", self.node.name),
            "Data in emptyDir volumes goes with their pods; pods that nothing makes anew are not touched.".into(),
            "A stopped VM is not drained: its pods do not run, and no kubelet is there to end them.".into(),
            "`drain: false` in the site file leaves the pods to the reboot.".into(),
        ]
    }

    fn limit(&self) -> Duration {
        PATIENCE
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        let drained = format!("node {} is drained, where its VM is to be power-cycled", self.node.name);
        if self.drain { Outlook::default().maybe(drained).longest(PATIENCE) } else { Outlook::default().holds(false) }
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        match self.needless(cx).await? {
            Some(why) => Ok(Check::done().note(why)),
            None => self.hold().check(cx, &seen).await,
        }
    }

    async fn stir(&self, cx: &Estate, _seen: Seen<'_, Before>) -> Result<(), Failure> {
        self.hold().stir(cx).await
    }

    async fn apply(&self, cx: &Estate, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        match self.needless(cx).await? {
            Some(_) => Ok(()),
            None => self.hold().apply(cx, &seen, permit).await,
        }
    }

    async fn back(&self, cx: &Estate, before: &Before, seen: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        self.hold().back(cx, before, seen.run).await
    }

    async fn undo(&self, cx: &Estate, before: &Before, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        self.hold().undo(cx, before, seen.run, permit).await
    }
}

impl DrainNode {
    fn hold(&self) -> Drain<'_> {
        Drain { otherwise: OTHERWISE, ..Drain::of(&self.node) }
    }

    /// Why there is nothing to drain for.
    async fn needless(&self, cx: &Estate) -> Result<Option<String>, Failure> {
        if !self.drain {
            return Ok(Some("`drain: false` in the site file: the pods are left to the reboot".into()));
        }
        Ok(match self.vm.there(cx, needs_power_cycle).await?.2 {
            Cycle::NotNeeded => Some(format!("vm {} needs no power cycle, so nothing has to leave", self.vm.vmid)),
            Cycle::Start(state) => {
                Some(format!("vm {} is {state}: its pods do not run, and start again with it", self.vm.vmid))
            }
            Cycle::Restart(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_state_in_the_mark_is_that_of_the_step() {
        let before = Before { unschedulable: true };
        assert_eq!(serde_json::to_value(before).unwrap(), json!({"unschedulable": true}));
    }
}
