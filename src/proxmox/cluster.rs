//! Questions about the cluster as a whole: nodes, quorum, which guest is where, what these credentials may do.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::base::fault::Effect;

use super::api::Proxmox;
use super::error::Error;
use super::lenient;
use super::wire::Call;

/// The version of the node that answered.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Version {
    /// `9.1.4`.
    pub version: String,
    /// `9.1`.
    #[serde(default)]
    pub release: String,
}

impl Version {
    /// The major version; None where it is not a number.
    pub fn major(&self) -> Option<u32> {
        self.version.split('.').next()?.parse().ok()
    }
}

/// A node as the cluster lists it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Node {
    /// Its name.
    pub node: String,
    /// `online`, `offline` or `unknown`.
    #[serde(default)]
    pub status: String,
    /// SHA-256 of its certificate, `AA:BB:..`.
    #[serde(default)]
    pub ssl_fingerprint: Option<String>,
    /// Seconds since boot.
    #[serde(default, deserialize_with = "lenient::number_opt")]
    pub uptime: Option<u64>,
}

/// Quorum and members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterStatus {
    /// The cluster's own name; None for a lone host.
    pub name: Option<String>,
    /// Whether it can write. A lone host always can.
    pub quorate: bool,
    /// Its members.
    pub nodes: Vec<ClusterNode>,
}

/// A member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterNode {
    /// Its name.
    pub name: String,
    /// Whether the others see it.
    pub online: bool,
    /// Whether it is the one that answered.
    pub local: bool,
    /// Its address, where the cluster knows it.
    pub ip: Option<String>,
}

/// A guest in the cluster's list. All but its place may be ten seconds old.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Resource {
    /// `qemu` or `lxc`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The guest's number.
    #[serde(deserialize_with = "lenient::number")]
    pub vmid: u32,
    /// Where it is.
    pub node: String,
    /// Its name.
    #[serde(default, deserialize_with = "lenient::text_opt")]
    pub name: Option<String>,
    /// `running`, `stopped`, `unknown`.
    #[serde(default)]
    pub status: String,
    /// The lock flag.
    #[serde(default)]
    pub lock: Option<String>,
    /// Whether it is a template.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub template: bool,
    /// The state in which high availability keeps it.
    #[serde(default)]
    pub hastate: Option<String>,
}

/// A guest under high availability.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct HaResource {
    /// `vm:108`.
    pub sid: String,
    /// The requested state.
    #[serde(default)]
    pub state: Option<String>,
}

/// What the caller may do: path, privilege, and whether it is handed down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permissions(pub BTreeMap<String, BTreeMap<String, bool>>);

impl Permissions {
    /// Whether `privilege` is held on exactly this path. Ask [`Proxmox::permissions`] with the path: the answer then
    /// includes what is inherited.
    pub fn has(&self, path: &str, privilege: &str) -> bool {
        self.0.get(path).is_some_and(|held| held.contains_key(privilege))
    }
}

impl Proxmox {
    /// `GET /version`.
    ///
    /// # Errors
    /// Those of any question.
    pub async fn version(&self) -> Result<Version, Error> {
        self.read(&Call::get("/version", "")).await
    }

    /// `GET /nodes`, filtered by what the caller may see.
    ///
    /// # Errors
    /// Those of any question.
    pub async fn nodes(&self) -> Result<Vec<Node>, Error> {
        self.read(&Call::get("/nodes", "")).await
    }

    /// `GET /cluster/status`. Needs Sys.Audit on `/`.
    ///
    /// # Errors
    /// Those of any question.
    pub async fn cluster_status(&self) -> Result<ClusterStatus, Error> {
        #[derive(Deserialize)]
        struct Row {
            #[serde(rename = "type")]
            kind: String,
            name: String,
            #[serde(default, deserialize_with = "lenient::flag")]
            quorate: bool,
            #[serde(default, deserialize_with = "lenient::flag")]
            online: bool,
            #[serde(default, deserialize_with = "lenient::flag")]
            local: bool,
            #[serde(default)]
            ip: Option<String>,
        }
        let rows: Vec<Row> = self.read(&Call::get("/cluster/status", "")).await?;
        // No cluster row: a lone host, which needs nobody's vote.
        let mut status = ClusterStatus { name: None, quorate: true, nodes: Vec::new() };
        for row in rows {
            match row.kind.as_str() {
                "cluster" => (status.name, status.quorate) = (Some(row.name), row.quorate),
                "node" => {
                    status.nodes.push(ClusterNode { name: row.name, online: row.online, local: row.local, ip: row.ip })
                }
                _ => {}
            }
        }
        Ok(status)
    }

    /// `GET /cluster/resources?type=vm`: every guest that the caller may see (VM.Audit).
    ///
    /// # Errors
    /// Those of any question.
    pub async fn resources(&self) -> Result<Vec<Resource>, Error> {
        let rows: Vec<Resource> = self.read(&Call::get("/cluster/resources", "").query("type", "vm")).await?;
        self.places.learn(&rows);
        Ok(rows)
    }

    /// `GET /access/permissions`: what these credentials may do, on one path or wherever something is granted.
    ///
    /// # Errors
    /// Those of any question.
    pub async fn permissions(&self, path: Option<&str>) -> Result<Permissions, Error> {
        let mut call = Call::get("/access/permissions", "");
        if let Some(path) = path {
            call = call.query("path", path);
        }
        let rows: BTreeMap<String, BTreeMap<String, Value>> = match self.ask(&call).await?.data {
            // An empty hash of Perl may arrive as an empty list.
            Value::Array(empty) if empty.is_empty() => BTreeMap::new(),
            data => self.shape(&call, data, Effect::None)?,
        };
        let on = |v: &Value| v.as_u64() == Some(1) || v.as_str() == Some("1") || v.as_bool() == Some(true);
        let held = |privileges: BTreeMap<String, Value>| privileges.into_iter().map(|(k, v)| (k, on(&v))).collect();
        Ok(Permissions(rows.into_iter().map(|(path, privileges)| (path, held(privileges))).collect()))
    }

    /// `GET /cluster/ha/resources`. Needs Sys.Audit on `/`.
    ///
    /// # Errors
    /// Those of any question.
    pub async fn ha_resources(&self) -> Result<Vec<HaResource>, Error> {
        self.read(&Call::get("/cluster/ha/resources", "")).await
    }
}
