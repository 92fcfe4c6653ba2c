//! Mayastor: its disk pools, and where its volumes have their replicas.
//!
//! Pools are objects of the cluster. Where a volume's replicas are and whether they are in step only Mayastor's own API
//! tells, which is asked through the API server: `services/http:NAME:PORT/proxy`.
//!
//! Sources: openebs/mayastor-control-plane, `k8s/operators/src/pool/diskpool/crd/v1beta2.rs`,
//! `control-plane/rest/openapi-specs/v0_api_spec.yaml` and `control-plane/agents/src/bin/core/volume/registry.rs`;
//! openebs/mayastor-extensions, `chart/templates/mayastor/apis/api-rest-service.yaml`.

use std::collections::BTreeMap;

use http::Method;
use serde::Deserialize;
use serde_json::Value;

use super::api::Kubernetes;
use super::error::KubeError;
use super::meta::Meta;
use super::resource::{SERVICE, escape};

/// The label of the Service behind which Mayastor's API is, by which Mayastor's own tools find it.
pub const API_LABEL: &str = "app=api-rest";

/// How a pool, a volume or a replica is, in Mayastor's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// As it should be.
    Online,
    /// It serves, and not all of it.
    Degraded,
    /// It does not serve.
    Faulted,
    /// Anything else: `Unknown` where its node is off, `Shutdown`, nothing at all, a word of a later version.
    Other(String),
}

impl Health {
    fn of(word: Option<&str>) -> Self {
        match word.unwrap_or_default() {
            "Online" => Self::Online,
            "Degraded" => Self::Degraded,
            "Faulted" => Self::Faulted,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl std::fmt::Display for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Online => "Online",
            Self::Degraded => "Degraded",
            Self::Faulted => "Faulted",
            Self::Other(word) if word.is_empty() => "not told",
            Self::Other(word) => word,
        })
    }
}

/// A pool of disks of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskPool {
    /// Its namespace, which is Mayastor's.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The node that it is on.
    pub node: String,
    /// The disks that it was made of, as they were written; Mayastor takes exactly one.
    pub disks: Vec<String>,
    /// How it is.
    pub health: Health,
    /// Mayastor has made it.
    pub created: bool,
    /// In bytes; 0 where it is not known.
    pub capacity: u64,
    /// Somebody has deleted it.
    pub going: bool,
}

impl DiskPool {
    /// It is made, and serves.
    pub fn is_online(&self) -> bool {
        self.created && self.health == Health::Online && self.capacity > 0 && !self.going
    }

    /// The devices that it was made of, without how Mayastor is to open them: `aio:///dev/sdb?blk_size=512` is `/dev/sdb`.
    pub fn devices(&self) -> impl Iterator<Item = &str> {
        self.disks.iter().map(|disk| {
            let path = disk.split_once("://").map_or(disk.as_str(), |(_, path)| path);
            path.split_once('?').map_or(path, |(path, _)| path)
        })
    }

    fn from_api(value: Value) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Object {
            spec: Spec,
            #[serde(default)]
            status: Option<Status>,
        }
        #[derive(Deserialize)]
        struct Spec {
            node: String,
            disks: Vec<String>,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Status {
            cr_state: Option<String>,
            pool_status: Option<String>,
            capacity: Option<u64>,
        }
        let meta = Meta::of(&value);
        let object: Object = serde_json::from_value(value)?;
        let status = object.status.unwrap_or_default();
        Ok(Self {
            namespace: meta.namespace,
            name: meta.name,
            node: object.spec.node,
            disks: object.spec.disks,
            health: Health::of(status.pool_status.as_deref()),
            created: status.cr_state.as_deref() == Some("Created"),
            capacity: status.capacity.unwrap_or_default(),
            going: meta.deleting.is_some(),
        })
    }
}

/// A volume of Mayastor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MayastorVolume {
    /// Its uuid; the persistent volume of Kubernetes has it as `pvc-UUID`.
    pub uuid: String,
    /// How it is. Of one that is in use nowhere Mayastor tells `Online` by the number of its replicas alone, and so that of
    /// a node that is off counts: see [`MayastorVolume::is_whole`].
    pub health: Health,
    /// How many replicas it is to have.
    pub wanted: u32,
    /// Those that it has.
    pub replicas: Vec<Replica>,
    /// Where it is served, while it is in use.
    pub target: Option<Target>,
}

/// One of the copies of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Its uuid.
    pub id: String,
    /// The node that it is on; None where Mayastor does not tell.
    pub node: Option<String>,
    /// The pool that it is in; None where Mayastor does not tell.
    pub pool: Option<String>,
    /// How it is by itself. That it is there does not say that it is in step with the others.
    pub health: Health,
    /// How the volume's target has it, which knows whether it is in step; None while the volume is in use nowhere.
    pub child: Option<Health>,
    /// How much of it is rebuilt, in percent, while it is.
    pub rebuild: Option<u8>,
}

/// Where a volume is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The node.
    pub node: String,
    /// How it is.
    pub health: Health,
    /// How many rebuilds run.
    pub rebuilds: u32,
}

impl Replica {
    /// It is there and, as far as anybody knows, in step.
    pub fn is_sound(&self) -> bool {
        let in_step = self.child.as_ref().is_none_or(|child| *child == Health::Online);
        self.health == Health::Online && in_step && self.rebuild.is_none()
    }
}

impl MayastorVolume {
    /// A rebuild of one of its replicas runs.
    pub fn rebuilds(&self) -> bool {
        self.target.as_ref().is_some_and(|target| target.rebuilds > 0)
            || self.replicas.iter().any(|replica| replica.rebuild.is_some())
    }

    /// It has all of its replicas, and each is sound.
    pub fn is_whole(&self) -> bool {
        let sound = self.replicas.iter().filter(|replica| replica.is_sound()).count();
        self.health == Health::Online
            && !self.rebuilds()
            && sound == self.replicas.len()
            && sound >= usize::try_from(self.wanted.max(1)).unwrap_or(usize::MAX)
    }

    /// A replica is on this node, or on one that is not told.
    pub fn may_be_on(&self, node: &str) -> bool {
        self.replicas.iter().any(|replica| replica.node.as_deref().is_none_or(|on| on == node))
    }

    /// The sound replicas on other nodes, which serve while this one is off.
    pub fn sound_elsewhere<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Replica> {
        self.replicas.iter().filter(move |one| one.is_sound() && one.node.as_deref().is_some_and(|on| on != node))
    }
}

/// The answer of `GET /v0/volumes`, as far as it is read.
#[derive(Deserialize)]
struct Volumes {
    entries: Vec<Entry>,
    next_token: Option<Value>,
}

#[derive(Deserialize)]
struct Entry {
    spec: Spec,
    state: State,
}

#[derive(Deserialize)]
struct Spec {
    num_replicas: u32,
}

#[derive(Deserialize)]
struct State {
    uuid: String,
    status: String,
    replica_topology: BTreeMap<String, Topology>,
    target: Option<Nexus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Topology {
    node: Option<String>,
    pool: Option<String>,
    state: String,
    child_status: Option<String>,
    rebuild_progress: Option<u8>,
}

#[derive(Deserialize)]
struct Nexus {
    node: String,
    state: String,
    rebuilds: u32,
    children: Vec<Child>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Child {
    rebuild_progress: Option<u8>,
}

impl From<Entry> for MayastorVolume {
    fn from(entry: Entry) -> Self {
        let replica = |(id, one): (String, Topology)| Replica {
            id,
            node: one.node,
            pool: one.pool,
            health: Health::of(Some(&one.state)),
            child: one.child_status.map(|word| Health::of(Some(&word))),
            rebuild: one.rebuild_progress,
        };
        let target = |nexus: Nexus| {
            let under_way = nexus.children.iter().filter(|child| child.rebuild_progress.is_some()).count();
            let rebuilds = nexus.rebuilds.max(u32::try_from(under_way).unwrap_or(u32::MAX));
            Target { node: nexus.node, health: Health::of(Some(&nexus.state)), rebuilds }
        };
        Self {
            uuid: entry.state.uuid,
            health: Health::of(Some(&entry.state.status)),
            wanted: entry.spec.num_replicas,
            replicas: entry.state.replica_topology.into_iter().map(replica).collect(),
            target: entry.state.target.map(target),
        }
    }
}

impl Kubernetes {
    /// All pools of Mayastor; None where the cluster does not know such a kind.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn disk_pools(&self) -> Result<Option<Vec<DiskPool>>, KubeError> {
        let Some(kind) = self.resource("openebs.io", "DiskPool").await? else { return Ok(None) };
        let all: Vec<Value> = self.list(&kind, None, &[]).await?;
        let all: Result<_, _> = all.into_iter().map(|v| self.shape("diskpools", DiskPool::from_api(v))).collect();
        all.map(Some)
    }

    /// All volumes of the Mayastor in a namespace, which is that of its pools.
    ///
    /// # Errors
    /// [`KubeError::NotFound`] where there is no Service of its API, and what keeps that or the cluster's API from
    /// answering.
    pub async fn mayastor_volumes(&self, namespace: &str) -> Result<Vec<MayastorVolume>, KubeError> {
        let (name, port) = self.mayastor_api(namespace).await?;
        let at = format!("http:{}:{port}", escape(&name));
        let path = format!("{}/{at}/proxy/v0/volumes", SERVICE.list_path(Some(namespace)));
        let call = self.call("GET", format!("services/{namespace}/{at}/proxy/v0/volumes"), false);
        // 0: all of them at once.
        let all: Volumes = self.read(call.clone(), Method::GET, format!("{path}?max_entries=0"), None).await?;
        if all.next_token.is_some() {
            return Err(KubeError::BadAnswer { call, text: "only a part of the volumes came".into() });
        }
        Ok(all.entries.into_iter().map(MayastorVolume::from).collect())
    }

    /// Name and port of the Service behind which Mayastor's API is.
    async fn mayastor_api(&self, namespace: &str) -> Result<(String, u16), KubeError> {
        #[derive(Deserialize)]
        struct Service {
            metadata: Named,
            spec: Ports,
        }
        #[derive(Deserialize)]
        struct Named {
            name: String,
        }
        #[derive(Deserialize)]
        struct Ports {
            #[serde(default)]
            ports: Vec<Port>,
        }
        #[derive(Deserialize)]
        struct Port {
            #[serde(default)]
            name: String,
            port: u16,
        }
        let all: Vec<Service> = self.list(&SERVICE, Some(namespace), &[("labelSelector", API_LABEL)]).await?;
        // The one beside it is for TLS with a certificate of its own.
        let with_port = |service: Service| {
            let port = service.spec.ports.iter().find(|port| port.name == "http")?.port;
            Some((service.metadata.name, port))
        };
        let mut found: Vec<(String, u16)> = all.into_iter().filter_map(with_port).collect();
        match (found.pop(), found.len()) {
            (Some(one), 0) => Ok(one),
            (last, more) => {
                let count = more + usize::from(last.is_some());
                let text = format!("{count} Services with the label {API_LABEL} and a port `http` in {namespace}");
                let call = self.call("GET", format!("services/{namespace}"), false);
                Err(if count == 0 { KubeError::NotFound { call, text } } else { KubeError::BadAnswer { call, text } })
            }
        }
    }
}
