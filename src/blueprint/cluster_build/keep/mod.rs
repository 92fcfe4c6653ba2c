//! What must not be lost: each thing with its place, whether it is what it claims to be, and what makes it where it is not.

mod age_key;
mod config;
mod files;
mod snapshot;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::blueprint::param::{Param, keys};
use crate::site::Site;
use crate::site::fields::Item;

pub(super) use config::{configs, secrets};
pub(super) use files::{kubeconfig, site, talosconfig};
pub(super) use snapshot::snapshot;

/// How it is written.
pub(super) const KEEP: &[Param] = &[
    Param::may("to", "a directory that copies are put into", "./safe", "nothing is copied"),
    Param::may("age-key", "the age key that opens what is encrypted", "~/.config/sops/age/keys.txt", "not looked for"),
    Param::may("secrets", "the secrets that the configurations were made from", "./talsecret.yaml", "not looked for"),
    Param::may("snapshots", "where `pvemig etcd snapshot` keeps its files", "./snapshots", "not looked for"),
];

/// What the parameters say of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Keep {
    /// Where copies are put.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<PathBuf>,
    /// The age key that opens what is encrypted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_key: Option<PathBuf>,
    /// The secrets that the configurations were made from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secrets: Option<PathBuf>,
    /// Where snapshots of etcd are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<PathBuf>,
}

impl Keep {
    /// Reads it; what is wrong goes into the item's sink.
    pub(super) fn read(site: &Site, item: &Item<'_>) -> Option<Self> {
        let fields = item.fields(&keys(KEEP));
        let place = |key: &str| fields.get(key).map_or(Some(None), |item| site.place(&item).map(Some));
        let keep = Self {
            to: place("to")?,
            age_key: place("age-key")?,
            secrets: place("secrets")?,
            snapshots: place("snapshots")?,
        };
        if keep.to.is_some() && keep.to == keep.snapshots {
            item.problem("`to` and `snapshots` are one directory", "give the copies one of their own");
            return None;
        }
        Some(keep)
    }
}

/// One thing that must not be lost.
pub(super) struct Kept {
    /// How it was found.
    pub(super) found: Found,
    /// What is put into the directory of copies.
    pub(super) copy: Option<Copied>,
}

/// How a thing was found.
pub(super) enum Found {
    /// It is there and what it claims to be, in words.
    Good(String),
    /// It is not, and what a person does about it.
    Amiss {
        /// With its place.
        why: String,
        /// In the imperative.
        ask: String,
    },
    /// Whoever knows does not answer yet.
    Yet(String),
}

/// A copy.
pub(super) struct Copied {
    /// Its name in the directory.
    pub(super) name: String,
    /// Its content, which may be secret.
    pub(super) bytes: Vec<u8>,
    /// Where it is from, in words.
    pub(super) from: String,
}

impl Kept {
    fn good(text: impl Into<String>) -> Self {
        Self { found: Found::Good(text.into()), copy: None }
    }

    fn amiss(why: impl Into<String>, ask: impl Into<String>) -> Self {
        Self { found: Found::Amiss { why: why.into(), ask: ask.into() }, copy: None }
    }

    /// With more to say of what is good or amiss.
    fn besides(mut self, more: Option<String>) -> Self {
        if let (Found::Good(text) | Found::Amiss { why: text, .. }, Some(more)) = (&mut self.found, more) {
            text.push_str("; beside it ");
            text.push_str(&more);
        }
        self
    }

    fn copied(mut self, name: impl Into<String>, bytes: Vec<u8>, from: impl Into<String>) -> Self {
        self.copy = Some(Copied { name: name.into(), bytes, from: from.into() });
        self
    }
}

/// The age key.
pub(super) fn age_key(keep: &Keep) -> Option<(Kept, Option<String>)> {
    keep.age_key.as_deref().map(age_key::look)
}
