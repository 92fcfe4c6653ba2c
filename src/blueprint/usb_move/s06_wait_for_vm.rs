//! 06: the target's guest is up, and Kubernetes speaks of this boot.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Check, Problem};
use crate::base::fault::{Failure, Fault};
use crate::blueprint::node::not_yet;
use crate::engine::step::{Risk, Seen, Step};
use crate::estate::Estate;
use crate::guest::{self, AgentFacts, Fact, Facts};

use super::device::Vm;
use super::params::KubeNode;

/// Waits until the guest answers and its node is Ready since this boot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WaitForVm {
    /// The VM.
    pub vm: Vm,
    /// Its node.
    pub node: KubeNode,
}

/// Nothing is owed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {}

impl Step<Estate> for WaitForVm {
    const ID: &'static str = "06-wait-for-vm";
    const RISK: Risk = Risk::Reads;
    // An agent that does not run yet keeps its caller for seconds, on each way to it.
    const CUT_SHORT: bool = true;
    type Before = Before;

    fn title(&self) -> String {
        format!("the guest of vm {} answers and node {} is Ready", self.vm.vmid, self.node.name)
    }

    fn why(&self) -> Vec<String> {
        vec![
            "A node stays Ready for up to a minute after its power-off: only its boot id tells which boot it means."
                .into(),
            "The agent is three things: its channel (needs a cold start), its answer, and the right to run programs."
                .into(),
            format!(
                "By hand: `kubectl get node {} -o jsonpath='{{.status.nodeInfo.bootID}}'` and \
                 `cat /proc/sys/kernel/random/boot_id` in the guest.",
                self.node.name
            ),
        ]
    }

    /// A guest that checks its disks, and a kubelet that waits for its network.
    fn limit(&self) -> Duration {
        Duration::from_secs(600)
    }

    async fn check(&self, cx: &Estate, _seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let guest = cx.guest(&self.vm.node).await?;
        let boot = match guest.boot_id().await {
            Ok(boot) => boot,
            Err(error) => return self.unreachable(cx, error).await,
        };
        let node = match cx.kubernetes(&self.node.cluster).await?.node(&self.node.name).await {
            Ok(Some(node)) => node,
            Ok(None) => {
                let text = format!("kubernetes `{}` does not know node {} yet", self.node.cluster, self.node.name);
                return Ok(Check::waiting(text).notes(boot.notes));
            }
            // The API server may run on this very VM.
            Err(error) if error.retryable() => {
                return Ok(Check::waiting(Failure::from(error).to_string()).notes(boot.notes));
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(reason) = not_yet(&node, "the guest", &boot.value) {
            return Ok(Check::waiting(reason).notes(boot.notes));
        }
        let facts = facts(&guest.facts().await);
        Ok(Check::done().notes(boot.notes).notes(facts))
    }

    async fn stir(&self, cx: &Estate, _seen: Seen<'_, Before>) -> Result<(), Failure> {
        Ok(cx.kubernetes(&self.node.cluster).await?.stir_of_node(&self.node.name).await?)
    }
}

impl WaitForVm {
    /// No route answered: because the VM is off, for a reason that a person has to mend, or not yet.
    async fn unreachable(&self, cx: &Estate, error: guest::Error) -> Result<Check<Before>, Failure> {
        let lasting = error.is_lasting();
        let failure = Failure::from(error);
        let (text, help) = (failure.to_string(), failure.fault().help());
        match self.power(cx).await {
            Ok(state) if state != "running" => {
                let help = format!("`pvemig step 05-reboot-vm --vmid {}` starts it", self.vm.vmid);
                let problem = Problem::new(format!("vm {} is {state}", self.vm.vmid), help);
                Ok(Check::blocked(vec![problem.mended_by("05-reboot-vm")]))
            }
            state => {
                let unknown = state.err().map(|e| format!("whether vm {} runs is not known: {e}", self.vm.vmid));
                let check = if lasting {
                    let help = help.unwrap_or_else(|| "see the ways into this node in the site file".into());
                    Check::blocked(vec![Problem::new(text, help)])
                } else {
                    Check::waiting(text)
                };
                Ok(check.notes(unknown))
            }
        }
    }

    async fn power(&self, cx: &Estate) -> Result<String, Failure> {
        Ok(self.vm.status(cx).await?.2.status)
    }
}

/// What is known of the ways in, a line each.
fn facts(facts: &Facts) -> Vec<String> {
    let word = |fact: &Fact| match fact {
        Fact::Yes => "yes".to_owned(),
        Fact::No(why) => format!("no ({why})"),
        Fact::Unknown(why) => format!("not known ({why})"),
    };
    let mut lines = Vec::new();
    lines.extend(facts.ssh.as_ref().map(|ssh| format!("ssh: {}", word(ssh))));
    if let Some(AgentFacts { channel, ping, exec }) = &facts.agent {
        lines.push(format!(
            "agent: channel {}, answers {}, may run programs {}",
            word(channel),
            word(ping),
            word(exec)
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ways_in_are_told_one_by_one() {
        let agent = AgentFacts { channel: Fact::Yes, ping: Fact::Yes, exec: Fact::No("forbidden".into()) };
        let lines = facts(&Facts { ssh: Some(Fact::No("refused".into())), agent: Some(agent) });
        assert_eq!(lines, ["ssh: no (refused)", "agent: channel yes, answers yes, may run programs no (forbidden)"]);
        assert!(facts(&Facts { ssh: None, agent: None }).is_empty());
    }
}
