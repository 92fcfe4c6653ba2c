//! Where the machine configuration of a node comes from, and what it comes to.
//!
//! The file is one of talosctl or talhelper, read as it is or through a command that decrypts it (sops). What the site
//! says of the node is set-merged into it: the disk by its serial number, the host name, and the patches.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::fault::{Failure, Fault};
use crate::base::survey::MachineConfig as Facts;
use crate::estate::read_config;
use crate::site::SecretRef;
use crate::talos::patch::{InstallDisk, Patch, diff, patch};

/// A file, how it is read, and what is merged into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The file, absolute.
    pub file: PathBuf,
    /// The command that prints it decrypted, without the file's name; empty: it is plain.
    pub decrypt: Vec<String>,
    /// What is merged into it.
    pub patches: Vec<Patch>,
}

/// A configuration as a node is to have it. It holds the secrets of the cluster.
#[derive(Clone)]
pub struct Wanted {
    text: String,
    /// The few fields that are looked at.
    pub facts: Facts,
    /// `cluster.id`, which all nodes of a cluster share.
    pub cluster: Option<String>,
    /// `cluster.controlPlane.endpoint`.
    pub endpoint: Option<String>,
    /// The certificate of the authority that the node's API will be of, in PEM.
    pub ca: Option<String>,
    /// That of the Kubernetes API, as it stands there and in a kubeconfig.
    pub kube_ca: Option<String>,
}

impl std::fmt::Debug for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wanted").field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl Source {
    /// In words: the file, and the program that decrypts it.
    pub fn shown(&self) -> String {
        match self.decrypt.first() {
            None => self.file.display().to_string(),
            Some(program) => format!("{} (by `{program}`)", self.file.display()),
        }
    }

    /// Whether it is known, without a command being run, to be that of a worker.
    pub fn is_of_a_worker(&self) -> bool {
        let text = if self.decrypt.is_empty() { std::fs::read_to_string(&self.file).ok() } else { None };
        let kind = text
            .and_then(|text| main_document(&text)?.pointer("/machine/type").and_then(Value::as_str).map(str::to_owned));
        kind.as_deref() == Some("worker")
    }

    /// The configuration for a node of this name, installed on the disk with this serial number.
    ///
    /// # Errors
    /// The file cannot be read or decrypted, or is no machine configuration; no value of it is quoted.
    pub async fn wanted(&self, node: &str, disk: &str) -> Result<Wanted, Failure> {
        let from = if self.decrypt.is_empty() {
            SecretRef::File(self.file.clone())
        } else {
            SecretRef::Command(self.decrypt.iter().cloned().chain([self.file.display().to_string()]).collect())
        };
        let text = from.resolve().await.map_err(|error| {
            let why = Failure::from(error);
            let text = format!("the machine configuration {} cannot be read: {why}", self.shown());
            Failure::plain(text, why.fault().help())
        })?;
        self.merged(text.expose(), node, disk)
    }

    /// As [`Source::wanted`], of its text.
    fn merged(&self, text: &str, node: &str, disk: &str) -> Result<Wanted, Failure> {
        let bad = |why: String, help: Option<String>| {
            let help =
                help.unwrap_or_else(|| format!("look at {}: `talosctl validate -m metal -c FILE`", self.shown()));
            Failure::plain(format!("{}: {why}", self.shown()), Some(help))
        };
        if let Some(word) = encrypted(text) {
            let help = "add `decrypt: [sops, --decrypt]` to the parameters, or the command that opens it";
            return Err(bad(format!("it is encrypted ({word})"), Some(help.into())));
        }
        let own = [Patch::InstallDisk(InstallDisk::Serial(disk.to_owned())), Patch::Hostname(node.to_owned())];
        let all: Vec<Patch> = own.into_iter().chain(self.patches.iter().cloned()).collect();
        let patched = patch(text, &all).map_err(|error| bad(error.to_string(), Fault::help(&error)))?;
        let facts = read_config(&patched.text).map_err(|why| bad(why, None))?;
        let main = main_document(&patched.text);
        let at = |pointer: &str| main.as_ref()?.pointer(pointer)?.as_str().map(str::to_owned);
        Ok(Wanted {
            cluster: at("/cluster/id"),
            endpoint: at("/cluster/controlPlane/endpoint"),
            ca: at("/machine/ca/crt").and_then(|crt| pem(&crt)),
            kube_ca: at("/cluster/ca/crt"),
            facts,
            text: patched.text,
        })
    }
}

impl Wanted {
    /// All documents of it, for who sends them.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// Whether the node votes in etcd.
    pub fn is_control_plane(&self) -> bool {
        self.facts.machine_type == "controlplane"
    }

    /// What another configuration has otherwise, secrets masked; None: they say the same, whatever their form.
    ///
    /// # Errors
    /// The other one is no YAML.
    pub fn differs(&self, other: &str) -> Result<Option<String>, String> {
        let all = |text: &str| serde_saphyr::from_multiple::<Value>(text).map_err(|_| "it is no YAML".to_owned());
        if all(&self.text)? == all(other)? {
            return Ok(None);
        }
        diff(other, &self.text).map(Some).map_err(|error| error.to_string())
    }
}

/// What a file was encrypted with, where it was.
pub fn encrypted(text: &str) -> Option<&'static str> {
    let line = |start: &str| text.lines().any(|line| line.starts_with(start));
    if text.starts_with("-----BEGIN AGE ENCRYPTED FILE-----") || text.starts_with("age-encryption.org/") {
        Some("age")
    } else if line("sops:") || line("\"sops\":") {
        Some("sops")
    } else {
        None
    }
}

/// The v1alpha1 document.
fn main_document(text: &str) -> Option<Value> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text).ok()?;
    all.into_iter().find(|document| document.is_object() && document.get("kind").is_none())
}

/// What stands in a configuration as base64.
fn pem(text: &str) -> Option<String> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text.trim()).ok()?;
    String::from_utf8(bytes).ok()
}
