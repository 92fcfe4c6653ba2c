//! How a machine stands: what it, its kubelet and its etcd say, against what they should.

use crate::base::fault::{Failure, Fault};
use crate::blueprint::machine::Machine;
use crate::blueprint::node::not_yet;
use crate::blueprint::quorum::{Peer, amiss, look};
use crate::estate::Estate;
use crate::k8s::{KubeError, Node, Pod};
use crate::talos::kind::{self, MachineStatus, Stage};
use crate::talos::{Error, Service, Talos};

/// Whether the node is on its way down, or being written to.
///
/// # Errors
/// What keeps it from answering.
pub async fn is_on_its_way(talos: &Talos) -> Result<bool, Error> {
    match goes_down(talos).await {
        Err(error) if error.is_down() => Ok(true),
        other => other,
    }
}

/// As [`is_on_its_way`], by its own word alone.
///
/// # Errors
/// What keeps it from answering, that it is gone already too.
pub async fn goes_down(talos: &Talos) -> Result<bool, Error> {
    let status = talos.single(&kind::MACHINE_STATUS).await?;
    let stage = status.map(|status| status.spec.stage).unwrap_or_default();
    Ok(matches!(stage, Stage::Rebooting | Stage::ShuttingDown | Stage::Upgrading | Stage::Resetting))
}

/// Whether a question may be answered once a machine is up: the API server may run on this very one.
pub fn may_pass(failure: &Failure) -> bool {
    failure.downcast_ref::<Error>().is_some_and(Error::is_down)
        || failure.downcast_ref::<KubeError>().is_some_and(Fault::retryable)
}

/// What is missing until a machine is up as far as others need it: kubelet and its own member of etcd. None: nothing.
///
/// # Errors
/// What keeps it, or Kubernetes, from answering.
pub async fn up_again(cx: &Estate, machine: &Machine, peers: &[Peer]) -> Result<Option<String>, Failure> {
    let talos = machine.open(cx).await?;
    if is_on_its_way(&talos).await? {
        return Ok(Some(format!("{} is going down", machine.name)));
    }
    let boot = talos.this_boot().await?;
    let node = cx.kubernetes(&machine.node.cluster).await?.node(&machine.node.name).await?;
    if let Some(why) = kubelet(machine, node.as_ref(), &boot) {
        return Ok(Some(why));
    }
    Ok(amiss(&machine.name, &look(cx, &machine.cluster, peers).await).map(|problem| problem.text))
}

/// What Talos itself misses: all of it, or nothing.
pub fn missing(machine: &Machine, status: &MachineStatus, services: &[Service]) -> Vec<String> {
    let name = &machine.name;
    let mut lines = Vec::new();
    if status.stage != Stage::Running {
        lines.push(format!("{name} is {}", stage(status.stage)));
    }
    // In all other stages it says ready, whatever is.
    if matches!(status.stage, Stage::Booting | Stage::Running) {
        let unmet = status.status.unmet_conditions.iter().map(|c| format!("{name}: {}: {}", c.name, c.reason));
        lines.extend(unmet);
        if !status.status.ready && status.status.unmet_conditions.is_empty() {
            lines.push(format!("{name} is not ready"));
        }
    }
    let waits = services.iter().filter(|s| s.is_pending() || s.healthy == Some(false));
    lines.extend(waits.map(|s| format!("{name}: service {} is {}: {}", s.id, s.state, s.message)));
    lines
}

/// Why the kubelet does not speak for this boot. None: it does, and is Ready.
pub fn kubelet(machine: &Machine, node: Option<&Node>, boot: &str) -> Option<String> {
    let name = &machine.node.name;
    let Some(node) = node else { return Some(format!("kubernetes `{}` has no node {name} yet", machine.node.cluster)) };
    not_yet(node, &machine.name, boot)
}

/// The static pods of a node that are not ready: its part of the control plane.
pub fn static_pods(pods: &[Pod]) -> Vec<String> {
    let waits = pods.iter().filter(|pod| pod.is_mirror() && !pod.is_ready() && pod.phase != "Succeeded");
    waits.map(|pod| format!("pod {}/{}: {}", pod.meta.namespace, pod.meta.name, pod.trouble().join(", "))).collect()
}

fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Booting => "booting",
        Stage::Installing => "installing",
        Stage::Maintenance => "in maintenance mode",
        Stage::Running => "running",
        Stage::Rebooting => "rebooting",
        Stage::ShuttingDown => "shutting down",
        Stage::Resetting => "resetting",
        Stage::Upgrading => "upgrading",
        Stage::Unknown => "in no stage that is known",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::names::Dial;
    use crate::blueprint::node::KubeNode;
    use crate::talos::kind::{Readiness, UnmetCondition};

    fn machine() -> Machine {
        let node = KubeNode { cluster: "k".into(), name: "n1".into() };
        Machine { cluster: "c".into(), name: "n1".into(), node, vm: None, dial: Dial::default() }
    }

    fn status(stage: Stage, ready: bool, unmet: &[(&str, &str)]) -> MachineStatus {
        let of = |(name, reason): &(&str, &str)| UnmetCondition { name: (*name).into(), reason: (*reason).into() };
        MachineStatus { stage, status: Readiness { ready, unmet_conditions: unmet.iter().map(of).collect() } }
    }

    fn service(id: &str, state: &str, healthy: Option<bool>, message: &str) -> Service {
        Service { id: id.into(), state: state.into(), healthy, message: message.into() }
    }

    #[test]
    fn what_is_unmet_counts_while_it_boots_and_runs_alone() {
        let unmet = [("services", "etcd is not up"), ("nodeReady", "NotReady")];
        let told = ["n1: services: etcd is not up", "n1: nodeReady: NotReady"];
        let cases = [
            (Stage::Running, None, true),
            (Stage::Booting, Some("n1 is booting"), true),
            (Stage::Installing, Some("n1 is installing"), false),
            (Stage::Maintenance, Some("n1 is in maintenance mode"), false),
            (Stage::Rebooting, Some("n1 is rebooting"), false),
            (Stage::ShuttingDown, Some("n1 is shutting down"), false),
            (Stage::Resetting, Some("n1 is resetting"), false),
            (Stage::Upgrading, Some("n1 is upgrading"), false),
            (Stage::Unknown, Some("n1 is in no stage that is known"), false),
        ];
        for (stage, said, counts) in cases {
            let said = || said.map(str::to_owned);
            // In the others it is always ready, and says what was unmet before.
            for ready in [true, false] {
                let wanted: Vec<String> =
                    said().into_iter().chain(told.map(str::to_owned).into_iter().filter(|_| counts)).collect();
                assert_eq!(missing(&machine(), &status(stage, ready, &unmet), &[]), wanted, "{stage:?} {ready}");
            }
            assert_eq!(missing(&machine(), &status(stage, true, &[]), &[]), Vec::from_iter(said()), "{stage:?}");
            let unready = said().into_iter().chain(counts.then(|| "n1 is not ready".to_owned()));
            assert_eq!(missing(&machine(), &status(stage, false, &[]), &[]), Vec::from_iter(unready), "{stage:?}");
        }
    }

    #[test]
    fn a_service_is_missing_where_it_waits_or_is_not_healthy() {
        let missing = |services: &[Service]| missing(&machine(), &status(Stage::Running, true, &[]), services);
        let through = ["Running", "Finished", "Skipped"];
        for state in through {
            for healthy in [None, Some(true)] {
                assert_eq!(missing(&[service("etcd", state, healthy, "")]), Vec::<String>::new(), "{state}");
            }
            let said = missing(&[service("etcd", state, Some(false), "no leader")]);
            assert_eq!(said, [format!("n1: service etcd is {state}: no leader")]);
        }
        let pending = ["Initialized", "Preparing", "Waiting", "Starting", "Stopping", "Failed", "Unknown", ""];
        for state in pending {
            for healthy in [None, Some(true), Some(false)] {
                let said = missing(&[service("etcd", state, healthy, "why")]);
                assert_eq!(said, [format!("n1: service etcd is {state}: why")]);
            }
        }
        let several = [
            service("ext-a", "Waiting", None, "for a file"),
            service("kubelet", "Running", Some(true), ""),
            service("etcd", "Running", Some(false), "alarm"),
        ];
        let said = missing(&several);
        assert_eq!(said, ["n1: service ext-a is Waiting: for a file", "n1: service etcd is Running: alarm"]);
        // Behind what the machine says.
        let both = super::missing(&machine(), &status(Stage::Booting, false, &[]), &several[..1]);
        assert_eq!(both, ["n1 is booting", "n1 is not ready", "n1: service ext-a is Waiting: for a file"]);
    }
}
