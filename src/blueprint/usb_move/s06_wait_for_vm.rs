//! 06: the target's guest is up, and Kubernetes speaks of this boot.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Check, Problem};
use crate::base::fault::{Failure, Fault};
use crate::engine::step::{Risk, Seen, Step};
use crate::estate::Estate;
use crate::guest::{self, AgentFacts, Fact, Facts, Seen as Answer};
use crate::k8s::{KubeError, Node};

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
            Err(error) if may_pass(&error) => {
                return Ok(Check::waiting(Failure::from(error).to_string()).notes(boot.notes));
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(reason) = not_yet(&node, &boot) {
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

/// True where the API may answer later by itself.
fn may_pass(error: &KubeError) -> bool {
    error.retryable()
}

/// Why the node is not what the guest is.
fn not_yet(node: &Node, boot: &Answer<String>) -> Option<String> {
    let name = &node.meta.name;
    if node.boot_id != boot.value {
        return Some(format!(
            "node {name} still speaks of boot {}, and the guest is in boot {}: its kubelet has not told yet",
            if node.boot_id.is_empty() { "(none)" } else { &node.boot_id },
            boot.value
        ));
    }
    match &node.ready {
        Some(ready) if ready.is_true() => None,
        Some(ready) => Some(format!("node {name}: {ready}")),
        None => Some(format!("node {name} has no condition Ready")),
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
    fn ready_counts_for_this_boot_only() {
        let ready = |status: &str| crate::k8s::meta::Condition {
            kind: "Ready".into(),
            status: status.into(),
            ..Default::default()
        };
        let node = |boot: &str, status: &str| Node {
            meta: crate::k8s::meta::Meta { name: "n".into(), ..Default::default() },
            unschedulable: true,
            taints: Vec::new(),
            ready: Some(ready(status)),
            conditions: Vec::new(),
            boot_id: boot.into(),
            system_uuid: String::new(),
            os_image: String::new(),
            kubelet: String::new(),
            allocatable: Default::default(),
            capacity: Default::default(),
            runtime_handlers: None,
        };
        let boot = Answer { value: "b2".to_owned(), route: "ssh".into(), notes: Vec::new() };
        assert_eq!(not_yet(&node("b2", "True"), &boot), None);
        let left_over = not_yet(&node("b1", "True"), &boot).unwrap();
        assert!(left_over.contains("b1") && left_over.contains("b2"), "{left_over}");
        assert!(not_yet(&node("b2", "Unknown"), &boot).unwrap().contains("Unknown"));
        let never = Node { ready: None, ..node("b2", "True") };
        assert!(not_yet(&never, &boot).is_some());
    }

    #[test]
    fn the_ways_in_are_told_one_by_one() {
        let agent = AgentFacts { channel: Fact::Yes, ping: Fact::Yes, exec: Fact::No("forbidden".into()) };
        let lines = facts(&Facts { ssh: Some(Fact::No("refused".into())), agent: Some(agent) });
        assert_eq!(lines, ["ssh: no (refused)", "agent: channel yes, answers yes, may run programs no (forbidden)"]);
        assert!(facts(&Facts { ssh: None, agent: None }).is_empty());
    }
}
