//! 10: the cluster is whole with the new machine, and nothing of the old one is left in it.

use std::time::Duration;

use futures::future::join_all;
use serde::{Deserialize, Serialize};

use crate::base::check::{Check, Problem};
use crate::base::fault::Failure;
use crate::blueprint::install::{bare::waits, whole};
use crate::blueprint::machine::Machine;
use crate::blueprint::quorum::look;
use crate::engine::step::{Risk, Seen, Step};
use crate::estate::Estate;

use super::s08_node_object::account;
use super::shell::kubectl;
use super::sight::{Life, life};
use super::swap::Swap;

/// Looks at all nodes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VerifyCluster {
    /// What goes and what comes.
    pub swap: Swap,
    /// The nodes of the cluster in the site file, but for the old one.
    pub machines: Vec<Machine>,
}

/// Nothing is owed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {}

impl Step<Estate> for VerifyCluster {
    const ID: &'static str = "10-verify";
    const RISK: Risk = Risk::Reads;
    type Before = Before;

    fn title(&self) -> String {
        format!("{} is whole, with {}", self.swap.old.cluster, self.swap.new.name())
    }

    fn why(&self) -> Vec<String> {
        vec![
            "Stage, readiness, services and static pods of each node by Talos; Ready by its kubelet, for the boot that it is in; a \
             vote in etcd, no alarm, and one leader that all of them know."
                .into(),
            "Under a name of its own: no member of etcd, no Node object and no lease of the old name is left, and volumes that still \
             name it are told."
                .into(),
            "That the new node comes back from a reboot is what `node-reboot-test` shows: a migration of its own.".into(),
            "By hand: `talosctl health`, `kubectl get nodes`, `talosctl etcd members`; or `pvemig survey`.".into(),
        ]
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(600)
    }

    async fn check(&self, cx: &Estate, _: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let (host, cluster) = (self.swap.host(), &self.swap.old.cluster);
        let kube = cx.kubernetes(&self.swap.old.node.cluster).await?;
        // A machine of the site file that is no part of the cluster yet is none of ours.
        let known = join_all(self.machines.iter().map(|machine| machine.node.find(cx))).await;
        let (mut machines, mut notes) = (Vec::new(), Vec::new());
        for (machine, known) in self.machines.iter().zip(known) {
            let (name, comes) = (&machine.name, machine.name == self.swap.new.name());
            match known? {
                Err(_) if !comes => {
                    notes.push(format!("{name} of the site file is no node of kubernetes: it is not looked at"));
                }
                // Another one that was lost, and has its own turn.
                Ok(_) if !comes && waits(cx, machine).await? => notes.push(format!(
                    "{name} waits for a configuration: it is no part of {cluster} until a `node-replace` puts it in its own place"
                )),
                _ => machines.push(machine.clone()),
            }
        }
        if !self.swap.same_name()
            && let Some(problem) = self.is_back(cx).await?
        {
            return Ok(Check::blocked(vec![problem]));
        }
        let (mut lines, votes) = whole::lacking(cx, cluster, &machines, &self.swap.peers).await?;
        notes.extend(votes);
        if !self.swap.same_name() {
            lines.extend(kube.node_lease(host).await?.map(|_| format!("there is still a lease of {host}")));
            notes.push(format!(
                "{} is not there any more: take it out of `nodes` in the site file, and this migration too",
                self.swap.goer()
            ));
            notes.extend(account(cx, &self.swap, None, &kube.attachments_of(host).await?));
        }
        Ok(if lines.is_empty() { Check::done().notes(notes) } else { Check::waiting(lines.join("; ")) })
    }
}

impl VerifyCluster {
    /// The old machine has been started again since, and has joined: nothing of that goes away by itself.
    async fn is_back(&self, cx: &Estate) -> Result<Option<Problem>, Failure> {
        let (host, peers) = (self.swap.host(), &self.swap.peers);
        let kube = cx.kubernetes(&self.swap.old.node.cluster).await?;
        let (node, etcd) = futures::join!(kube.node(host), look(cx, &self.swap.old.cluster, peers));
        let (node, ids) = (node?.is_some(), etcd.ids_of(host));
        if !node && ids.is_empty() {
            return Ok(None);
        }
        let by = etcd.voter_beside(self.swap.old()).and_then(|name| peers.iter().find(|peer| peer.name == name));
        let by =
            |rest: &str| by.map_or_else(|| format!("`talosctl {rest}`"), |peer| peer.dial.talosctl(&peer.name, rest));
        let mut help: Vec<String> = match life(cx, &self.swap).await? {
            life if life.is_down() => Vec::new(),
            Life::Alive(_) => vec![format!("switch it off: {}", self.swap.old.talosctl("shutdown --force"))],
            _ => vec!["switch it off".into()],
        };
        help.extend(ids.iter().map(|id| by(&format!("etcd remove-member {id}"))));
        help.extend(node.then(|| kubectl(cx, &self.swap, &format!("delete node {host}"))));
        let is = match (ids.is_empty(), node) {
            (false, true) => "a member of etcd and a node",
            (false, false) => "a member of etcd",
            _ => "a node",
        };
        Ok(Some(Problem::new(
            format!("{host} is {is} of {} again: its machine was started with its old disk", self.swap.old.cluster),
            format!("{}; then wipe its disk before it is started again, and `pvemig resume`", help.join(", then ")),
        )))
    }
}
