//! The first start of etcd, from nothing or from a snapshot.

use futures::StreamExt;
use tonic::{Status, Streaming};

use super::database::Database;
use super::etcd::{Etcd, Member};
use super::server::Server;
use crate::lab::World;
use crate::talos::proto::common::Data;
use crate::talos::proto::machine::BootstrapRequest;

/// The largest snapshot that the lab keeps.
const LARGEST: usize = 64 << 20;

impl Server {
    /// Whether etcd waits for its first start.
    fn waits(&self) -> Result<bool, Status> {
        self.look(|w, _, _| w.etcd_service(&self.node).state == "Preparing")
    }

    /// Takes a snapshot, whose digest is looked at when etcd is started from it.
    pub(super) async fn take_snapshot(&self, mut pieces: Streaming<Data>) -> Result<(), Status> {
        self.control_plane("etcd recover")?;
        if !self.waits()? {
            return Err(Status::failed_precondition("etcd service is not ready for recovery yet"));
        }
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.next().await {
            bytes.extend(piece?.bytes);
            if bytes.len() > LARGEST {
                return Err(Status::resource_exhausted("the lab has no room for so large a snapshot"));
            }
        }
        self.look(|_, _, _| ())?;
        self.shared.change(|w| {
            if let Some(run) = w.talos.nodes.get_mut(&self.node).and_then(|node| node.run.as_mut()) {
                run.recovery = Some(bytes);
            }
        });
        Ok(())
    }

    /// Starts etcd for the first time. That a snapshot is of no use is told by the service alone.
    pub(super) fn start_etcd(&self, request: BootstrapRequest) -> Result<(), Status> {
        let (control_plane, member, recovery) =
            self.look(|_, node, run| (run.wants.control_plane, node.member, run.recovery.clone()))?;
        if !control_plane {
            return Err(Status::failed_precondition("bootstrap can only be performed on a control plane node"));
        }
        if member.is_some() {
            return Err(Status::already_exists("etcd data directory is not empty"));
        }
        if !self.waits()? {
            return Err(Status::failed_precondition("bootstrap is not available yet"));
        }
        let begins = match (request.recover_etcd, recovery) {
            (false, _) => Ok(Database::default()),
            (true, None) => return Err(Status::failed_precondition("no etcd snapshot was uploaded")),
            (true, Some(bytes)) => Database::recovered(&bytes, request.recover_skip_hash_check),
        };
        self.shared.change(|w| match begins {
            Err(error) => {
                if let Some(run) = w.talos.nodes.get_mut(&self.node).and_then(|node| node.run.as_mut()) {
                    run.etcd_error = Some(error);
                }
            }
            Ok(begins) => w.etcd_found(&self.node, begins),
        });
        Ok(())
    }
}

impl World {
    /// A node becomes the one member of a new etcd, with what is in its database: nothing, or what a snapshot had. Nothing keeps it from that where there is one already: who asks must
    /// look before. The Kubernetes API is that of the first one that has a leader.
    fn etcd_found(&mut self, name: &str, begins: Database) {
        self.counter += 1;
        let id = super::etcd::made_id(&format!("{} {name} {}", self.talos.cluster, self.counter));
        let first = Member { id, name: self.talos_host(name).to_owned(), ..Member::default() };
        let term = self.talos.etcd.term + 1;
        let fresh = Etcd { members: vec![first], leader: Some(id), term, ..self.talos.etcd.clone() };
        let held = |etcd: &Etcd| {
            let mut members = self.talos.nodes.values().filter_map(|node| node.member);
            members.any(|id| etcd.member(id).is_some())
        };
        let (lives, leads) = (held(&self.talos.etcd), self.talos.etcd.leader.is_some());
        self.talos.others.retain(held);
        if lives && leads {
            self.talos.others.push(Etcd { kept: Some(begins), ..fresh });
        } else {
            let (revision, objects) = self.kube.store.contents();
            let mut old = std::mem::replace(&mut self.talos.etcd, fresh);
            old.kept = Some(Database { revision, objects, ..Database::default() });
            self.talos.others.extend(Some(old).filter(|_| lives));
            self.kube.begin_from(begins.revision, begins.objects);
        }
        if let Some(node) = self.talos.nodes.get_mut(name) {
            node.member = Some(id);
            if let Some(run) = node.run.as_mut() {
                (run.etcd_error, run.recovery) = (None, None);
            }
        }
    }
}
