//! The Talos front: apid and machined of each node, as 1.11 to 1.14 answer, and etcd behind them.
//!
//! Stages, services, readiness and etcd's majority follow from what the nodes are; see [`services`] and [`etcd`].

mod access;
mod apply;
pub mod bay;
mod board;
mod bootstrap;
pub mod certificates;
pub mod config;
pub mod database;
pub mod disk;
mod drain;
mod efivars;
pub mod etcd;
mod etcd_calls;
mod etcd_real;
pub mod event;
mod files;
pub mod firmware;
mod front;
mod hardware;
mod install;
pub mod kinds;
mod life;
pub mod lost;
pub mod made;
mod modules;
pub mod node;
mod power;
pub mod reset;
mod resources;
mod sensors;
mod server;
pub mod services;
mod serving;
mod state;
mod stream;
mod swap;
mod upgrade;
pub mod volumes;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use prost_types::Timestamp;
use serde_json::{Value, json};
use tonic::service::Routes;

use super::clock::LabTime;
use super::world::World;
use super::{Fronts, LabError, Shared};
use crate::talos::proto::cosi::resource::state_server::StateServer;
use crate::talos::proto::machine::image_service_server::ImageServiceServer;
use crate::talos::proto::machine::lifecycle_service_server::LifecycleServiceServer;
use crate::talos::proto::machine::machine_service_server::MachineServiceServer;

pub use life::Due;
pub use node::Talos;
pub use serving::Serving;

/// The largest message that Talos takes or sends.
const MESSAGE: usize = 32 << 20;

/// What others need to reach the front.
#[derive(Clone, Default)]
pub struct Reach {
    /// Where each node listens.
    pub nodes: BTreeMap<String, SocketAddr>,
    /// The text of a talosconfig; empty where there are no nodes.
    pub talosconfig: String,
    /// Name, text and mode of the files that `talosctl gen config` made.
    pub made: Vec<(String, String, u32)>,
}

impl std::fmt::Debug for Reach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reach").field("nodes", &self.nodes).finish_non_exhaustive()
    }
}

/// A lab time as messages write it.
fn stamp(shared: &Shared, at: LabTime) -> Timestamp {
    let at = shared.clock.timestamp(at);
    Timestamp { seconds: at.as_second(), nanos: at.subsec_nanosecond() }
}

/// Starts a listener for each node on a port of its own. `kubeconfig` is what control planes give out, `kubernetes` the
/// authority of the API that it leads to.
///
/// # Errors
/// [`LabError`] where no port can be had or no certificate can be made.
pub async fn serve(
    shared: &Arc<Shared>,
    kubeconfig: &str,
    kubernetes: &super::wire::Authority,
    fronts: &mut Fronts,
) -> Result<Reach, LabError> {
    let nodes = shared.read(|w| w.talos.nodes.clone());
    if nodes.is_empty() {
        return Ok(Reach::default());
    }
    let (authority, other) = (certificates::Authority::make()?, certificates::Authority::make()?);
    shared.change(|w| w.talos.authority = authority.written().0);
    let routes = nodes.keys().map(|node| (node.clone(), services_of(shared, node, kubeconfig))).collect();
    let post = Arc::new(front::Post { shared: shared.clone(), routes });
    let mut addresses = BTreeMap::new();
    for (name, node) in &nodes {
        let doors = front::Doors {
            members: authority.acceptor(name, node)?,
            everybody: certificates::Authority::maintenance(name, node)?,
            strangers: other.acceptor(name, node)?,
        };
        addresses.insert(name.clone(), front::listen(&post, name, doors, fronts).await?);
    }
    let talosconfig = authority.talosconfig(&addresses)?;
    let (made, cluster, version) =
        shared.read(|w| (w.talos.made.clone(), w.talos.cluster.clone(), w.kube.version.clone()));
    let known = nodes.values().find_map(|node| made::Known::of(&node.config));
    let made = match made {
        Some(made) => made.files(&cluster, &version, known.as_ref(), &authority, kubernetes)?,
        None => Vec::new(),
    };
    Ok(Reach { nodes: addresses, talosconfig, made })
}

fn services_of(shared: &Arc<Shared>, node: &str, kubeconfig: &str) -> Routes {
    let server = server::Server { shared: shared.clone(), node: node.to_owned(), kubeconfig: kubeconfig.into() };
    let machine = MachineServiceServer::new(server.clone());
    let state = StateServer::new(server.clone());
    Routes::new(machine.max_decoding_message_size(MESSAGE).max_encoding_message_size(MESSAGE))
        .add_service(state.max_decoding_message_size(MESSAGE).max_encoding_message_size(MESSAGE))
        .add_service(ImageServiceServer::new(server.clone()))
        .add_service(LifecycleServiceServer::new(server))
        .prepare()
}

impl World {
    /// The Talos side as it is compared; see `lab::compare`.
    pub(super) fn talos_compared(&self) -> Value {
        let node = |(name, node): (&String, &node::Node)| {
            let run = node.run.as_ref().map(|run| {
                json!({ "image": node.slots.get(&run.slot), "config": run.active, "modules": run.loaded, "booted": run.booted, "maintenance": run.maintenance,
                    "left_etcd": run.left_etcd })
            });
            let it = json!({
                "boots": node.slots.get(&node.boots), "disks": node.disks, "config": node.config, "data": node.data,
                "member": node.member.is_some(), "off": node.off, "run": run,
            });
            (name.clone(), it)
        };
        let nodes: BTreeMap<String, Value> = self.talos.nodes.iter().map(node).collect();
        let etcd = &self.talos.etcd;
        let members: BTreeMap<&String, Value> =
            etcd.members.iter().map(|m| (&m.name, json!({ "learner": m.learner, "alarm": m.alarm }))).collect();
        json!({ "nodes": nodes, "members": members, "led": etcd.leader.is_some(), "clusters": self.etcd_clusters() })
    }
}
