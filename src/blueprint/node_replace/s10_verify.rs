//! 10: the cluster is whole with the new machine, and nothing of the old one is left in it.

use std::time::Duration;

use futures::future::join_all;
use serde::{Deserialize, Serialize};

use crate::base::check::Check;
use crate::base::fault::Failure;
use crate::blueprint::install::whole;
use crate::blueprint::machine::Machine;
use crate::blueprint::quorum::look;
use crate::engine::step::{Risk, Seen, Step};
use crate::estate::Estate;

use super::s08_node_object::account;
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
            match known? {
                Err(_) if machine.name != self.swap.new.name() => {
                    notes.push(format!(
                        "{} of the site file is no node of kubernetes: it is not looked at",
                        machine.name
                    ));
                }
                _ => machines.push(machine.clone()),
            }
        }
        let (mut lines, votes) = whole::lacking(cx, cluster, &machines, &self.swap.peers).await?;
        notes.extend(votes);
        if !self.swap.same_name() {
            let (node, lease, etcd) =
                futures::join!(kube.node(host), kube.node_lease(host), look(cx, cluster, &self.swap.peers));
            lines.extend(node?.map(|_| format!("kubernetes has still a node {host}")));
            lines.extend(lease?.map(|_| format!("there is still a lease of {host}")));
            let member = etcd.members().iter().any(|name| name == host);
            lines.extend(member.then(|| format!("{host} is still a member of etcd")));
            notes.extend(account(None, &kube.attachments_of(host).await?));
        }
        Ok(if lines.is_empty() { Check::done().notes(notes) } else { Check::waiting(lines.join("; ")) })
    }
}
