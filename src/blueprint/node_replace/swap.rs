//! What goes and what comes.

use serde::{Deserialize, Serialize};

use crate::base::permit::Thing;
use crate::blueprint::install::Bare;
use crate::blueprint::machine::Machine;
use crate::blueprint::quorum::Peer;

/// What goes and what comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swap {
    /// The node that goes.
    pub old: Machine,
    /// The machine that comes.
    pub new: Bare,
    /// All nodes of their cluster.
    pub peers: Vec<Peer>,
    /// The file of the new node is plain, and that of a worker: then the old one is one too, which the preflight holds it
    /// against. For what is said of the steps alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub worker: bool,
}

impl Swap {
    /// Whether the new machine takes the old one's name over, and with it its Node object.
    pub fn same_name(&self) -> bool {
        self.old.name == self.new.machine.name
    }

    /// The old node's name in the site file.
    pub(super) fn old(&self) -> &str {
        &self.old.name
    }

    /// The old node's name in Kubernetes and in etcd.
    pub(super) fn host(&self) -> &str {
        &self.old.node.name
    }

    /// The consent to the end of the old member of etcd.
    pub(super) fn member(&self) -> Thing {
        Thing::member(self.host())
    }

    /// The consent to the end of the old Node object.
    pub(super) fn node(&self) -> Thing {
        Thing::node(self.host())
    }

    /// The word of a person that the old machine is off.
    pub(super) fn off(&self) -> Thing {
        Thing::off(self.host())
    }

    /// That word again, of a machine that was heard after it was given: of what was seen of it last.
    pub(super) fn off_since(&self, mark: &str) -> Thing {
        Thing::off(&format!("{}@{mark}", self.host()))
    }

    /// The new machine in a sentence: by its disk, where the name says nothing.
    pub(super) fn comer(&self) -> String {
        if self.same_name() {
            format!("the new {} (disk {})", self.new.machine.name, self.new.disk)
        } else {
            self.new.machine.name.clone()
        }
    }

    /// The old one in a sentence.
    pub(super) fn goer(&self) -> String {
        if self.same_name() { format!("the old {}", self.old()) } else { self.old().to_owned() }
    }
}
