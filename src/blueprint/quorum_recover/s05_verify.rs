//! 05: etcd and Kubernetes are whole on what is left, and what is still missing is named.

use std::time::Duration;

use futures::future::join_all;
use serde::{Deserialize, Serialize};

use crate::base::check::{Check, Problem};
use crate::base::fault::Failure;
use crate::blueprint::machine::Machine;
use crate::blueprint::quorum::{amiss, apart};
use crate::blueprint::stand::{kubelet, may_pass, missing};
use crate::engine::step::{Risk, Seen, Step};
use crate::estate::Estate;
use crate::k8s::Node;
use crate::talos::kind;

use super::facts::{Facts, gather};
use super::lost::Gone;
use super::s00_preflight::still_member;
use super::{Planes, names, on};

/// Looks at all of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VerifyRecovery {
    /// The control planes.
    pub planes: Planes,
}

/// Nothing is owed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {}

impl Step<Estate> for VerifyRecovery {
    const ID: &'static str = "05-verify";
    const RISK: Risk = Risk::Reads;
    type Before = Before;

    fn title(&self) -> String {
        let (stay, all) = (self.planes.stay().count(), self.planes.stay().chain(&self.planes.lost).count());
        let of = if stay == all { String::new() } else { format!(", {stay} of {all} control planes") };
        format!("{} runs again on {}{of}", self.planes.cluster, names(self.planes.stay()))
    }

    fn why(&self) -> Vec<String> {
        vec![
            "One leader that all know, a vote for each that stays, none for one that is lost; stage, services and kubelet of each; \
             the nodes of Kubernetes."
                .into(),
            "A lost machine that comes back with its old disk has a member of an etcd that is no more. It is harmless alone, and \
             with the other lost ones it may be a majority of the old one: wipe its disk before it is switched on again."
                .into(),
            "By hand: `talosctl etcd status`, `talosctl health`, `kubectl get nodes`; or `pvemig survey`, which shows all of it."
                .into(),
        ]
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(600)
    }

    async fn check(&self, cx: &Estate, _: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let facts = gather(cx, &self.planes).await;
        let Some(votes) = facts.led() else {
            let text = "etcd has no leader: nobody tells its members";
            return Ok(Check::blocked(vec![Problem::new(text, "let it begin again first").mended_by(on::RECOVER)]));
        };
        let there = facts.there(&votes);
        let lost = facts.lost_members(&self.planes);
        if !lost.is_empty() {
            return Ok(Check::blocked(vec![still_member(&there, &lost)]));
        }
        let back: Vec<Problem> = facts
            .gone
            .iter()
            .filter_map(|(machine, gone, _)| match gone {
                Gone::There(how) => Some(Problem::new(
                    format!(
                        "{} has come back ({how}), and is no member of this etcd: it may have its old one",
                        machine.name
                    ),
                    format!(
                        "switch it off; its disk is wiped before it becomes a node again: {}",
                        machine.talosctl("reset")
                    ),
                )),
                Gone::Silent | Gone::Waits => None,
            })
            .collect();
        if !back.is_empty() {
            return Ok(Check::blocked(back).note(there));
        }
        let kube = cx.kubernetes(&self.planes.from.node.cluster).await?;
        let nodes = match kube.nodes().await {
            Ok(nodes) => nodes,
            Err(error) => {
                let failure = Failure::from(error);
                return if may_pass(&failure) { Ok(Check::waiting(failure.to_string())) } else { Err(failure) };
            }
        };
        let mut lines = Vec::new();
        let stay: Vec<&Machine> = self.planes.stay().collect();
        let each = join_all(stay.iter().map(|machine| lacking(cx, machine, &nodes))).await;
        for (machine, found) in stay.iter().zip(each) {
            match found {
                Ok(found) => lines.extend(found),
                Err(failure) if may_pass(&failure) => lines.push(failure.to_string()),
                Err(failure) => return Err(failure),
            }
            lines.extend(amiss(&machine.name, &facts.etcd).map(|problem| problem.text));
        }
        let lost = |node: &&Node| self.planes.lost.iter().any(|machine| machine.node.name == node.meta.name);
        lines.extend(nodes.iter().filter(lost).filter(|node| node.is_ready()).map(|node| {
            format!(
                "the Node {} is Ready as it was in the copy: whether its kubelet is heard is judged anew",
                node.meta.name
            )
        }));
        lines.extend(apart(&facts.etcd).into_iter().map(|problem| problem.text));
        lines.extend(facts.etcd.alarms());
        if !lines.is_empty() {
            return Ok(Check::waiting(lines.join("; ")));
        }
        Ok(Check::done().note(there).notes(self.missed(&nodes, &facts)))
    }
}

impl VerifyRecovery {
    /// What is still to be done about those that are lost.
    fn missed(&self, nodes: &[Node], facts: &Facts) -> Vec<String> {
        let of = |machine: &Machine| facts.gone.iter().find(|(of, ..)| of.name == machine.name);
        let one = |machine: &Machine| {
            let (name, node) = (&machine.name, &machine.node.name);
            let object = match nodes.iter().find(|known| known.meta.name == *node) {
                Some(_) => format!(
                    "the Node {node} is still there: `node-replace` puts a machine in its place (`pvemig explain node-replace`), \
                     `kubectl delete node {node}` gives it up"
                ),
                None => format!(
                    "there is no Node {node} any more: `node-replace` puts a machine in its place (`pvemig explain node-replace`)"
                ),
            };
            let keep = match of(machine) {
                // Its uuid says that it is the very one.
                Some((_, Gone::Waits, _)) if machine.vm.is_some() => {
                    return format!("{name} is lost: {object}; it waits for a configuration, with empty disks");
                }
                Some((_, Gone::Silent, shell)) => shell.keep_off(),
                _ => None,
            };
            let keep = keep.unwrap_or_else(|| {
                format!("where {name} is still there, its disk is wiped or taken out before it is switched on")
            });
            format!("{name} is lost: {object}; nothing may come back with its old disk: {keep}")
        };
        let mut out: Vec<String> = self.planes.lost.iter().map(one).collect();
        let lost = |node: &&Node| self.planes.lost.iter().any(|machine| machine.node.name == node.meta.name);
        let stay: Vec<&Node> = nodes.iter().filter(|node| !lost(node)).collect();
        let ready = stay.iter().filter(|node| node.is_ready()).count();
        out.insert(
            0,
            format!("Kubernetes has {} nodes; of {} that are not lost {ready} are Ready", nodes.len(), stay.len()),
        );
        out
    }
}

/// What one node misses.
async fn lacking(cx: &Estate, machine: &Machine, nodes: &[Node]) -> Result<Vec<String>, Failure> {
    let talos = machine.open(cx).await?;
    let (status, services, boot) =
        futures::try_join!(talos.single(&kind::MACHINE_STATUS), talos.services(), talos.this_boot())?;
    let status = status.map(|status| status.spec).unwrap_or_default();
    let mut lines = missing(machine, &status, &services);
    let node = nodes.iter().find(|node| node.meta.name == machine.node.name);
    lines.extend(kubelet(machine, node, &boot));
    Ok(lines)
}
