//! Cluster-wide PCI mappings: one name, an entry for each node. The way to PCI that is open to tokens.

use std::fmt;

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::base::names::BadName;
use crate::base::permit::{Note, Permit, System};

use super::api::Proxmox;
use super::config::Props;
use super::error::Error;
use super::lenient;
use super::passthrough::{PciPlace, places};
use super::wire::{Call, seg};

/// A node's entry of a mapping, `node=still-fawn,path=0000:04:00.0,id=144d:a80a,iommugroup=15,subsystem-id=144d:a801`. Keys
/// that are not known here are kept.
///
/// At each start of a VM Proxmox holds `id`, `subsystem-id` and `iommugroup` against what is at `path`
/// (pve-guest-common `PVE/Mapping/PCI.pm`, `assert_valid`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PciEntry(pub Props);

impl PciEntry {
    /// The node.
    pub fn node(&self) -> Option<&str> {
        self.0.get("node")
    }

    /// The functions.
    ///
    /// # Errors
    /// It has none that can be read.
    pub fn places(&self) -> Result<Vec<PciPlace>, BadName> {
        places(self.0.get("path").unwrap_or_default())
    }

    /// `144d:a80a`
    pub fn id(&self) -> Option<&str> {
        self.0.get("id")
    }

    /// The group of the IOMMU that it was made with: that goes by the slot.
    pub fn iommugroup(&self) -> Option<&str> {
        self.0.get("iommugroup")
    }
}

impl fmt::Display for PciEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A mapping.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PciMapping {
    /// Its name, as in `mapping=NAME`.
    pub id: String,
    /// An entry for each node; a node may have several, of which a start takes any that is free.
    #[serde(default)]
    pub map: Vec<PciEntry>,
    /// SHA-1 over all mappings; for writing.
    #[serde(default, deserialize_with = "lenient::text_opt")]
    pub digest: Option<String>,
}

impl PciMapping {
    /// The entries of a node.
    pub fn entries<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a PciEntry> {
        self.map.iter().filter(move |entry| entry.node() == Some(node))
    }
}

impl Proxmox {
    /// `GET /cluster/mapping/pci`: the mappings that the caller may see.
    ///
    /// # Errors
    /// Those of any question.
    pub async fn pci_mappings(&self) -> Result<Vec<PciMapping>, Error> {
        self.read(&Call::get("/cluster/mapping/pci", "")).await
    }

    /// `PUT /cluster/mapping/pci/{id}`: puts `new` in the place of `old`, and leaves all other entries as they were read. The
    /// server replaces the whole list, so it is written under the digest that came with it: what anybody else has changed
    /// since refuses it. Needs Mapping.Modify on `/mapping/pci/{id}`.
    ///
    /// # Errors
    /// [`Error::NoSuchMapping`] where it has no such entry, or came without a digest; [`Error::DigestMismatch`], and those of
    /// any change.
    pub async fn set_pci_entry(
        &self,
        mapping: &PciMapping,
        old: &PciEntry,
        new: &PciEntry,
        permit: &Permit,
    ) -> Result<(), Error> {
        let target = format!("pci mapping `{}`", mapping.id);
        let missing = || Error::NoSuchMapping { at: self.at(&target) };
        let at = mapping.map.iter().position(|entry| entry == old).ok_or_else(missing)?;
        let digest = mapping.digest.as_ref().ok_or_else(missing)?;
        let text = |(n, entry): (usize, &PciEntry)| if n == at { new.to_string() } else { entry.to_string() };
        let map: Vec<String> = mapping.map.iter().enumerate().map(text).collect();
        let path = format!("/cluster/mapping/pci/{}", seg(&mapping.id));
        let call = Call::new(Method::PUT, path, target).json(json!({ "map": map, "digest": digest }));
        let note = Note::safe(System::Proxmox, format!("{} map={}", call.line(), map.join(" ")));
        self.change(&call, note, permit).await.map(|_| ())
    }
}
