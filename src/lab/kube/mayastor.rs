//! Mayastor as a cluster with it shows itself: pools as `DiskPool` objects, volumes behind its REST API (openebs
//! mayastor-control-plane `control-plane/rest/openapi-specs/v0_api_spec.yaml`), which is asked through the API server.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::call::{Call, Target};
use super::control::Round;
use super::fields::Writer;
use super::json::{self as at, list, text};
use super::kinds;
use super::status::{Outcome, Refusal};
use crate::lab::World;
use crate::lab::clock::LabTime;

/// What a rebuild takes.
const REBUILD: Duration = Duration::from_secs(30);
/// After this the core agent calls a node that is silent offline, and its pools unknown.
const SILENT: Duration = Duration::from_secs(10);
const OPERATOR: Writer<'static> = Writer::new("operator-diskpool");

/// What a world has of Mayastor beside the objects of its cluster.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mayastor {
    /// Where it is installed; empty: nowhere.
    pub namespace: String,
    /// How long a rebuild takes, in seconds; 0: half a minute.
    pub rebuild: u64,
    /// Volumes by uuid.
    pub volumes: BTreeMap<String, Volume>,
}

/// A volume.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Volume {
    /// In bytes.
    pub size: u64,
    /// The node that its target is on; empty: nobody uses it.
    pub on: String,
    /// The pools of its replicas, by their uuids.
    pub replicas: BTreeMap<String, String>,
    /// Those that lag behind, as the world begins.
    pub stale: BTreeSet<String>,
}

/// Volumes, and how far their replicas are.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    given: Mayastor,
    /// Pools that are online.
    online: BTreeSet<String>,
    /// Replicas that missed something, and since when they are rebuilt.
    stale: BTreeMap<String, Option<LabTime>>,
}

impl State {
    pub(crate) fn of(given: &Mayastor) -> Self {
        let stale = given.volumes.values().flat_map(|volume| &volume.stale).map(|id| (id.clone(), None)).collect();
        Self { given: given.clone(), online: BTreeSet::new(), stale }
    }

    /// It can be read, and nothing is missing on it.
    fn is_whole(&self, replica: &str, pool: &str) -> bool {
        self.online.contains(pool) && !self.stale.contains_key(replica)
    }

    /// `Online`, `Degraded`, `Faulted`.
    fn status(&self, volume: &Volume) -> &'static str {
        let whole = volume.replicas.iter().filter(|(id, pool)| self.is_whole(id, pool)).count();
        match whole {
            0 => "Faulted",
            n if n == volume.replicas.len() => "Online",
            _ => "Degraded",
        }
    }

    fn takes(&self) -> Duration {
        if self.given.rebuild == 0 { REBUILD } else { Duration::from_secs(self.given.rebuild) }
    }

    /// The percentage of what is being rebuilt.
    fn progress(&self, replica: &str, now: LabTime) -> Option<u128> {
        let since = (*self.stale.get(replica)?)?;
        Some((now.saturating_sub(since).as_millis() * 100 / self.takes().as_millis()).min(99))
    }
}

impl Round<'_> {
    /// What its operator and its core agent do.
    pub(super) fn mayastor(&mut self) {
        if self.kube.mayastor.given.namespace.is_empty() {
            return;
        }
        let mut online = BTreeSet::new();
        for pool in self.kube.store.all(kinds::disk_pools()) {
            let name = at::name(&pool).to_owned();
            if self.pool_is_there(&pool) || !self.held(&format!("silent/{name}"), SILENT) && self.was_online(&name) {
                online.insert(name);
            }
            self.tell_of_pool(&pool, online.contains(at::name(&pool)));
        }
        self.kube.mayastor.online = online;
        self.rebuild();
    }

    fn was_online(&self, pool: &str) -> bool {
        self.kube.mayastor.online.contains(pool)
    }

    /// Its node runs, and its disk is in it.
    fn pool_is_there(&self, pool: &Value) -> bool {
        let Some(machine) = self.facts.machines.get(text(pool, "/spec/node")) else { return false };
        let disk = text(pool, "/spec/disks/0");
        machine.boot.is_some() && machine.disks.contains_key(disk)
    }

    fn tell_of_pool(&mut self, pool: &Value, online: bool) {
        let name = at::name(pool).to_owned();
        let size = self.facts.machines.get(text(pool, "/spec/node")).and_then(|machine| {
            let size = machine.disks.get(text(pool, "/spec/disks/0"))?;
            // SPDK rounds down to clusters of 4 MiB, and keeps some.
            Some((size >> 22).saturating_sub(4) << 22)
        });
        let known = text(pool, "/status/pool_status");
        let word = if online { "Online" } else { "Unknown" };
        if known == word {
            return;
        }
        let volumes = self.kube.mayastor.given.volumes.values();
        let used: u64 = volumes.filter(|v| v.replicas.values().any(|pool| *pool == name)).map(|v| v.size).sum();
        let capacity =
            size.unwrap_or_else(|| at::int(pool, "/status/capacity").and_then(|n| n.try_into().ok()).unwrap_or(0));
        self.kube.store.edit(kinds::disk_pools(), pool, OPERATOR, |pool| {
            let status = json!({ "cr_state": "Created", "pool_status": word, "capacity": capacity, "used": used,
                "available": capacity.saturating_sub(used) });
            at::set(pool, &["status"], status);
        });
    }

    /// A replica that is away while another one is written to lags behind, and is rebuilt once it is back.
    fn rebuild(&mut self) {
        let volumes = self.kube.mayastor.given.volumes.clone();
        let takes = self.kube.mayastor.takes();
        for volume in volumes.values() {
            let state = &self.kube.mayastor;
            let whole = volume.replicas.iter().filter(|(id, pool)| state.is_whole(id, pool)).count();
            for (id, pool) in &volume.replicas {
                let state = &self.kube.mayastor;
                let there = state.online.contains(pool);
                let stale = state.stale.get(id).copied();
                let rebuilt = there && whole > 0 && stale.is_some();
                let next = match stale {
                    // What nobody writes to misses nothing.
                    None if there || whole == 0 => continue,
                    Some(_) if rebuilt && self.held(&format!("rebuild/{id}"), takes) => {
                        self.kube.mayastor.stale.remove(id);
                        continue;
                    }
                    Some(since) if rebuilt => Some(since.unwrap_or(self.now)),
                    _ => None,
                };
                self.kube.mayastor.stale.insert(id.clone(), next);
            }
        }
    }
}

/// What is behind `services/NAME/proxy`.
pub(super) fn asked(world: &World, target: &Target, call: &Call) -> Outcome<Value> {
    let store = &world.kube.store;
    // `http:NAME:PORT`, of which the name alone has to be there.
    let parts: Vec<&str> = target.name().split(':').collect();
    let (scheme, name, port) = match parts.as_slice() {
        [name] => ("", *name, ""),
        [name, port] => ("", *name, *port),
        [scheme, name, port] => (*scheme, *name, *port),
        _ => return Err(Refusal::bad(format!("invalid service request {:?}", target.name()))),
    };
    let namespace = target.space();
    let service = store
        .get(kinds::services(), namespace, name)
        .ok_or_else(|| Refusal::new(404, "NotFound", format!("services {name:?} not found")))?;
    let open =
        |ports: &Value| text(ports, "/name") == port || at::int(ports, "/port").is_some_and(|n| n.to_string() == port);
    let served = list(service, "/spec/ports").iter().any(open);
    let selector = at::map(service, "/spec/selector").cloned().unwrap_or_default();
    let ready = store.list(kinds::pods(), Some(namespace)).any(|pod| {
        let meant = selector.iter().all(|(key, value)| at::label(pod, key) == value.as_str());
        meant && !selector.is_empty() && at::holds(pod, "Ready")
    });
    if !served || !ready {
        let text = if served { "no endpoints available for service" } else { "no service port" };
        return Err(Refusal::new(503, "ServiceUnavailable", format!("{text} {name:?}")));
    }
    let is_api = selector.get("app").and_then(Value::as_str) == Some("api-rest");
    if !is_api || scheme == "https" {
        let text = "error trying to reach service: EOF";
        return Err(Refusal::new(503, "ServiceUnavailable", text));
    }
    let path = call.path.iter().skip_while(|part| *part != "proxy").skip(1).map(String::as_str).collect::<Vec<_>>();
    match path.as_slice() {
        ["v0", "volumes"] => Ok(json!({ "entries": volumes(world), "next_token": Value::Null })),
        ["v0", "volumes", id] => volumes(world)
            .into_iter()
            .find(|volume| text(volume, "/spec/uuid") == *id)
            .ok_or_else(|| Refusal::new(404, "NotFound", format!("Volume {id:?} not found"))),
        _ => Err(Refusal::new(404, "NotFound", "")),
    }
}

/// All of them, as the API writes them.
fn volumes(world: &World) -> Vec<Value> {
    let state = &world.kube.mayastor;
    let node_of = |pool: &str| {
        let pool = world.kube.store.get(kinds::disk_pools(), &state.given.namespace, pool);
        pool.map_or("", |pool| text(pool, "/spec/node")).to_owned()
    };
    let one = |(uuid, volume): (&String, &Volume)| {
        let mut topology = serde_json::Map::new();
        let mut children = Vec::new();
        for (id, pool) in &volume.replicas {
            let there = state.online.contains(pool);
            let progress = state.progress(id, world.now);
            let child = if state.is_whole(id, pool) {
                "Online"
            } else if there {
                "Degraded"
            } else {
                "Faulted"
            };
            let mut replica = json!({ "node": node_of(pool), "pool": pool, "state": if there { "Online" } else { "Unknown" },
                "usage": { "capacity": volume.size, "allocated": volume.size, "allocated_snapshots": 0,
                    "allocated_all_snapshots": 0 } });
            if !volume.on.is_empty() {
                replica["child-status"] = json!(child);
                let mut one = json!({ "uri": format!("nvmf://{}:8420/nqn.2019-05.io.openebs:{id}", node_of(pool)), "state": child });
                if let Some(progress) = progress {
                    replica["rebuild-progress"] = json!(u64::try_from(progress).unwrap_or(99));
                    one["rebuildProgress"] = replica["rebuild-progress"].clone();
                }
                children.push(one);
            }
            topology.insert(id.clone(), replica);
        }
        let status = state.status(volume);
        let mut told = json!({ "uuid": uuid, "size": volume.size, "status": status, "replica_topology": topology });
        if !volume.on.is_empty() {
            let rebuilds = volume.replicas.keys().filter(|id| state.progress(id, world.now).is_some()).count();
            told["target"] = json!({ "uuid": uuid, "node": volume.on, "state": status, "protocol": "nvmf", "size": volume.size,
                "rebuilds": rebuilds, "children": children,
                "deviceUri": format!("nvmf://{}:8420/nqn.2019-05.io.openebs:{uuid}", volume.on) });
        }
        json!({ "spec": { "uuid": uuid, "size": volume.size, "num_replicas": volume.replicas.len(), "status": "Created",
            "policy": { "self_heal": true }, "thin": false }, "state": told })
    };
    state.given.volumes.iter().map(one).collect()
}

/// The replicas as they are compared: whether each is whole.
pub(super) fn compared(world: &World) -> BTreeMap<String, bool> {
    let state = &world.kube.mayastor;
    let all = state.given.volumes.values().flat_map(|volume| &volume.replicas);
    all.map(|(id, pool)| (id.clone(), state.is_whole(id, pool))).collect()
}
