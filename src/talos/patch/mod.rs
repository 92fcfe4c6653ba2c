//! Patches of a machine configuration: what it is to hold, set-merged into its text.
//!
//! Twice is the same as once: members of lists are known by their keys (a module's name, a link's name, a mount's
//! destination), and what is there already is left alone. Everything else keeps its bytes, comments and order. What is
//! new goes where the configuration has its like: into the v1alpha1 document or into documents of their own. An upgraded
//! cluster keeps its old form, so that the version of Talos says nothing about it. (`talosctl patch`, in contrast,
//! appends to lists: siderolabs/talos `pkg/machinery/config/merge`.)

mod draft;
mod mask;
mod merge;

use serde::{Deserialize, Serialize};

use crate::base::check::Change;
use crate::base::fault::{Effect, Fault};
use crate::base::yaml::YamlError;

use draft::Draft;

pub(super) use mask::said;
pub use mask::{Mask, diff};

/// One thing that a machine configuration is to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Patch {
    /// A kernel module is loaded. A dash in a name is the same as an underscore.
    KernelModule {
        /// `nvidia`
        name: String,
        /// With exactly these parameters. None: with those that it has, or without any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parameters: Option<Vec<String>>,
    },
    /// A kernel parameter has a value; another one is replaced.
    Sysctl {
        /// `vm.nr_hugepages`
        name: String,
        /// Its value.
        value: String,
    },
    /// The node has a label; another value is replaced.
    NodeLabel {
        /// `openebs.io/engine`
        name: String,
        /// Its value.
        value: String,
    },
    /// The installer of a first install; an upgrade takes its own.
    InstallImage(String),
    /// The disk of a first install; whatever else named one goes.
    InstallDisk(InstallDisk),
    /// The host name, in place of another one or of an automatic one.
    Hostname(String),
    /// A link has these addresses and no others; what else is set for it stays.
    Addresses {
        /// Its name, or its alias; in the v1alpha1 document also the hardware address by which it is selected.
        link: String,
        /// With their prefix lengths: `10.10.0.11/24`.
        addresses: Vec<String>,
    },
    /// A user volume is made of a disk. What is not said here stays as it is.
    UserVolume {
        /// `data`: it is mounted at `/var/mnt/data`.
        name: String,
        /// The disk, as a CEL expression over `disk`.
        disk: String,
        /// `100GiB`
        #[serde(default, skip_serializing_if = "Option::is_none")]
        min_size: Option<String>,
        /// `1TiB`
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_size: Option<String>,
        /// It takes all the room that there is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grow: Option<bool>,
    },
    /// The kubelet sees a directory of the host. Another source for the destination is refused: who put it there wants
    /// it there. Options are added.
    KubeletMount {
        /// Where it is seen.
        destination: String,
        /// What is seen there.
        source: String,
        /// `bind`, `rshared`, `rw`
        options: Vec<String>,
    },
}

/// How the disk of a first install is named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum InstallDisk {
    /// By a device path, or a link to one.
    Path(String),
    /// By its serial number.
    Serial(String),
    /// By its world wide name.
    Wwid(String),
    /// By a CEL expression over `disk`; the v1alpha1 document has no place for one.
    Match(String),
}

/// A configuration with what was asked for in it.
#[derive(Clone, PartialEq, Eq)]
pub struct Patched {
    /// All documents of it, with the cluster's secrets.
    pub text: String,
    /// What differs, a line each; what must not be shown is masked.
    pub changes: Vec<Change>,
    /// It held all that already: the text is that which was given.
    pub same: bool,
}

impl std::fmt::Debug for Patched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Patched").field("changes", &self.changes).field("same", &self.same).finish_non_exhaustive()
    }
}

/// A place in a machine configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Kind and name of its document; empty for the v1alpha1 document.
    pub document: String,
    /// The keys to it; empty for the whole document.
    pub path: String,
    /// The line on which it stands, or would, from 1 on.
    pub line: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.document.as_str(), self.path.as_str()) {
            ("", "") => write!(f, "the machine configuration"),
            ("", path) => write!(f, "`{path}` (line {})", self.line),
            (document, "") => write!(f, "{document} (line {})", self.line),
            (document, path) => write!(f, "`{path}` of {document} (line {})", self.line),
        }
    }
}

/// Why a machine configuration is not patched. No value of it is quoted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// Its text cannot be read.
    #[error("the machine configuration cannot be read as YAML: {why}")]
    NotYaml {
        /// Why, with the place.
        why: String,
    },
    /// It is YAML and no machine configuration.
    #[error("this is no machine configuration: {why}")]
    NotAMachineConfig {
        /// Why.
        why: String,
    },
    /// It is written in a way that cannot be edited with everything else kept (through an alias).
    #[error("{place} cannot be edited: {why}")]
    NotEditable {
        /// Where.
        place: Place,
        /// Why.
        why: String,
    },
    /// The form of this configuration has no place for it.
    #[error("{place} cannot hold it: {why}")]
    NotInThisForm {
        /// Where.
        place: Place,
        /// Why.
        why: String,
    },
    /// Something else is there that somebody wants there.
    #[error("{place} is something else already: {why}")]
    Conflict {
        /// Where.
        place: Place,
        /// Why.
        why: String,
    },
}

impl From<YamlError> for PatchError {
    fn from(error: YamlError) -> Self {
        match error {
            YamlError::NotYaml { why } => Self::NotYaml { why },
            YamlError::NotEditable { path, why } => {
                Self::NotEditable { place: Place { document: String::new(), path, line: 1 }, why }
            }
        }
    }
}

impl Fault for PatchError {
    fn effect(&self) -> Effect {
        Effect::None
    }

    fn help(&self) -> Option<String> {
        Some(match self {
            Self::NotYaml { .. } | Self::NotAMachineConfig { .. } => {
                "look at it with `talosctl get machineconfig -o yaml`".into()
            }
            Self::NotEditable { .. } | Self::Conflict { .. } => {
                "change this value by hand with `talosctl edit machineconfig`".into()
            }
            Self::NotInThisForm { .. } => "name the disk by its serial number, or the link by its own name".into(),
        })
    }
}

/// A configuration with all of `patches` in it. Nothing is asked and nothing is sent.
///
/// # Errors
/// [`PatchError`].
pub fn patch(config: &str, patches: &[Patch]) -> Result<Patched, PatchError> {
    let mut draft = Draft::read(config)?;
    for patch in patches {
        merge::merge(&mut draft, patch)?;
    }
    draft.finish()
}

#[cfg(test)]
mod tests;
