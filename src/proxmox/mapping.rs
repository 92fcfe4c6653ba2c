//! Cluster-wide USB mappings: one name, an entry for each node. The way to USB that is open to tokens.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::base::names::{UsbId, UsbPort};
use crate::base::permit::{Note, Permit, System};

use super::api::Proxmox;
use super::config::Props;
use super::error::Error;
use super::wire::{Call, seg};
use reqwest::Method;

/// A node's entry of a mapping, `node=still-fawn,id=18d1:9302,path=2-1`. Keys that are not known here are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MapEntry(pub Props);

impl MapEntry {
    /// A device at a node, by id and, where it is to be tied to a socket, by port.
    pub fn new(node: &str, id: UsbId, path: Option<&UsbPort>) -> Self {
        let props = Props::default().with("node", node).with("id", id.to_string());
        Self(match path {
            Some(path) => props.with("path", path.to_string()),
            None => props,
        })
    }

    /// The node.
    pub fn node(&self) -> Option<&str> {
        self.0.get("node")
    }

    /// The device's id; None where it does not parse.
    pub fn id(&self) -> Option<UsbId> {
        self.0.get("id")?.parse().ok()
    }

    /// The port; None where there is none or it does not parse.
    pub fn path(&self) -> Option<UsbPort> {
        self.0.get("path")?.parse().ok()
    }
}

impl fmt::Display for MapEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A mapping.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct UsbMapping {
    /// Its name, as in `mapping=NAME`.
    pub id: String,
    /// Its description.
    #[serde(default)]
    pub description: Option<String>,
    /// An entry for each node.
    #[serde(default)]
    pub map: Vec<MapEntry>,
    /// SHA-1 over all mappings; for writing.
    #[serde(default)]
    pub digest: Option<String>,
    /// What the node that was asked about says; empty also where none was asked about.
    #[serde(default)]
    pub errors: Vec<MappingProblem>,
}

impl UsbMapping {
    /// The entry of a node.
    pub fn entry(&self, node: &str) -> Option<&MapEntry> {
        self.map.iter().find(|entry| entry.node() == Some(node))
    }
}

/// A finding of the node's check of a mapping.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct MappingProblem {
    /// `error` or `warning`.
    #[serde(default)]
    pub severity: String,
    /// `Invalid configuration: usb device '2-1' not found`.
    #[serde(default)]
    pub message: String,
}

fn path(id: &str) -> String {
    format!("/cluster/mapping/usb/{}", seg(id))
}

fn target(id: &str) -> String {
    format!("usb mapping `{id}`")
}

impl Proxmox {
    /// `GET /cluster/mapping/usb`: the mappings that the caller may see. With `check_node` that node holds them against
    /// its hardware and fills `errors`: a look at the hardware without Sys.Modify.
    ///
    /// # Errors
    /// Those of any question.
    pub async fn usb_mappings(&self, check_node: Option<&str>) -> Result<Vec<UsbMapping>, Error> {
        let mut call = Call::get("/cluster/mapping/usb", "");
        if let Some(node) = check_node {
            call = call.query("check-node", node);
        }
        self.read(&call).await
    }

    /// `POST /cluster/mapping/usb`. Needs Mapping.Modify on `/mapping/usb`.
    ///
    /// # Errors
    /// [`Error::MappingExists`], and those of any change.
    pub async fn create_usb_mapping(&self, id: &str, map: &[MapEntry], permit: &Permit) -> Result<(), Error> {
        let map: Vec<String> = map.iter().map(ToString::to_string).collect();
        let call = Call::new(Method::POST, "/cluster/mapping/usb", target(id)).json(json!({ "id": id, "map": map }));
        let note = Note::safe(System::Proxmox, format!("{} id={id} map={}", call.line(), map.join(" ")));
        self.change(&call, note, permit).await.map(|_| ())
    }

    /// Sets one node's entry of a mapping, or takes it out, and leaves the other nodes' entries as they are: the server
    /// replaces the whole list, so it is read first and written back under its digest. Reading and writing are one
    /// call here; the write alone is noted.
    ///
    /// # Errors
    /// [`Error::NoSuchMapping`], [`Error::DigestMismatch`], and those of any change.
    pub async fn set_usb_mapping(
        &self,
        id: &str,
        node: &str,
        entry: Option<&MapEntry>,
        permit: &Permit,
    ) -> Result<(), Error> {
        let mapping = self.usb_mappings(None).await?.into_iter().find(|mapping| mapping.id == id);
        let mapping = mapping.ok_or_else(|| Error::NoSuchMapping { at: self.at(&target(id)) })?;
        let place = mapping.map.iter().position(|e| e.node() == Some(node)).unwrap_or(mapping.map.len());
        let mut map: Vec<String> =
            mapping.map.iter().filter(|e| e.node() != Some(node)).map(ToString::to_string).collect();
        if let Some(entry) = entry {
            map.insert(place.min(map.len()), entry.to_string());
        }
        let mut body = json!({ "map": map });
        if let (Some(digest), Some(fields)) = (mapping.digest, body.as_object_mut()) {
            fields.insert("digest".into(), digest.into());
        }
        let call = Call::new(Method::PUT, path(id), target(id)).json(body);
        let note = Note::safe(System::Proxmox, format!("{} map={}", call.line(), map.join(" ")));
        self.change(&call, note, permit).await.map(|_| ())
    }

    /// `DELETE /cluster/mapping/usb/{id}`; no error where there is none. VMs that use it do not start any more.
    ///
    /// # Errors
    /// Those of any change.
    pub async fn delete_usb_mapping(&self, id: &str, permit: &Permit) -> Result<(), Error> {
        let call = Call::new(Method::DELETE, path(id), target(id));
        let note = Note::safe(System::Proxmox, call.line());
        self.change(&call, note, permit).await.map(|_| ())
    }
}
