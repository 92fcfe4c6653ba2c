//! 00: everything that can be known beforehand to keep a node from its turn, of all nodes at once.

mod ask;
mod find;
pub(super) mod known;
mod likely;

use serde::{Deserialize, Serialize};

use crate::base::check::Check;
use crate::base::fault::Failure;
use crate::blueprint::finding;
use crate::blueprint::machine::Machine;
use crate::blueprint::quorum::Peer;
use crate::engine::step::{Risk, Seen, Step};
use crate::estate::Estate;

use super::params::Params;

/// Looks at everything that the turns of all nodes need.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Preflight {
    /// The Talos cluster's name in the site file.
    pub cluster: String,
    /// The nodes, in the order of their turns.
    pub nodes: Vec<Machine>,
    /// All nodes of the cluster.
    pub peers: Vec<Peer>,
    /// Whether what is wrong is mended.
    pub repair: bool,
    /// Whether a machine configuration that is staged may come into effect.
    #[serde(default)]
    pub staged: bool,
    /// Installer images by node.
    pub images: std::collections::BTreeMap<String, String>,
}

/// Nothing is owed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {}

impl From<&Params> for Preflight {
    fn from(p: &Params) -> Self {
        Self {
            cluster: p.cluster.clone(),
            nodes: p.nodes.clone(),
            peers: p.peers.clone(),
            repair: p.repair,
            staged: p.staged,
            images: p.images.clone(),
        }
    }
}

impl Step<Estate> for Preflight {
    const ID: &'static str = "00-preflight";
    const RISK: Risk = Risk::Reads;
    type Before = Before;

    fn title(&self) -> String {
        let names: Vec<&str> = self.nodes.iter().map(|machine| machine.name.as_str()).collect();
        format!("nothing is in the way of rebooting {}", names.join(", "))
    }

    fn why(&self) -> Vec<String> {
        vec![
            "What is found half-way is found with a node drained, and etcd one voter short.".into(),
            "Every problem names the step and the node that it protects; where that step has begun, it is dropped."
                .into(),
            "What 03 mends is only noted, with what it will do.".into(),
            "Nothing is changed: rights are asked for by reviews, and no eviction is tried.".into(),
        ]
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let facts = ask::gather(self, cx).await;
        if let (Err(kube), true) = (&facts.kube, facts.talos.iter().all(Result::is_err)) {
            let why = facts.talos.iter().find_map(|talos| talos.as_ref().err()).unwrap_or(kube);
            let text = format!("neither Talos nor Kubernetes can be asked: {}; {}", why.text, kube.text);
            return Err(Failure::plain(text, why.help.clone().or(kube.help.clone())));
        }
        Ok(finding::check(find::all(self, &facts, seen.run)).likely(likely::all(self, &facts)))
    }
}
