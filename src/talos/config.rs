//! A node's machine configuration: read as it is, applied as a whole.

use std::time::Duration;

use prost::Message;

use crate::base::permit::Permit;

use super::api::{MAX_MESSAGE, Talos, machine};
use super::error::Error;
use super::patch::{Mask, said};
use super::proto::definitions::MachineConfigSpec;
use super::proto::machine::{ApplyConfigurationRequest, apply_configuration_request::Mode};

/// A machine configuration, byte for byte. It holds the secrets of the cluster, and `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct MachineConfig {
    /// Counts its changes: another one before a write means that somebody else was there.
    pub version: String,
    text: String,
}

impl MachineConfig {
    /// A text with the version that it was read under.
    pub fn new(version: impl Into<String>, text: impl Into<String>) -> Self {
        Self { version: version.into(), text: text.into() }
    }

    /// The documents, for who changes or stores them.
    pub fn expose(&self) -> &str {
        &self.text
    }
}

impl std::fmt::Debug for MachineConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MachineConfig").field("version", &self.version).finish_non_exhaustive()
    }
}

/// Which of the two configurations of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The one that holds.
    Active,
    /// The one on the disk: ahead of the active one where it is staged, behind it during a trial.
    Persistent,
}

/// How a configuration is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApplyMode {
    /// At once where that is possible. Up to 1.13 it reboots where not; from 1.14 on it never does. The only mode that
    /// every version takes in maintenance.
    Auto,
    /// At once, or not at all. From 1.14 on what takes a reboot simply waits for one.
    NoReboot,
    /// With the next reboot.
    Staged,
    /// At once, not on the disk, and taken back by the node itself after this time.
    Try {
        /// After how long.
        back_after: Duration,
    },
    /// With a reboot now; up to 1.13 only.
    Reboot,
}

impl ApplyMode {
    fn wire(self) -> Mode {
        match self {
            Self::Auto => Mode::Auto,
            Self::NoReboot => Mode::NoReboot,
            Self::Staged => Mode::Staged,
            Self::Try { .. } => Mode::Try,
            Self::Reboot => Mode::Reboot,
        }
    }
}

/// What a node made of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// It reboots, or would: what the automatic mode came to.
    pub reboots: bool,
    /// In the node's words, without what the configuration has of secrets, and without a difference of configurations
    /// ([`diff`](super::patch::diff) makes one that may be shown).
    pub details: String,
    /// What it finds odd (fields that are going to go).
    pub warnings: Vec<String>,
}

impl Talos {
    /// The machine configuration; None on a node that has none. It takes os:admin.
    ///
    /// # Errors
    /// [`Error::Denied`], and those of any question.
    pub async fn machine_config(&self, which: Which) -> Result<Option<MachineConfig>, Error> {
        let id = match which {
            Which::Active => "v1alpha1",
            Which::Persistent => "persistent",
        };
        let kind = "MachineConfigs.config.talos.dev";
        let Some(resource) = self.raw("config", kind, id).await? else { return Ok(None) };
        let bad = |why: &str| self.unreadable(kind, why);
        let version = resource.metadata.map(|metadata| metadata.version).unwrap_or_default();
        // The YAML form of the spec changes from version to version; this one holds the very bytes.
        let spec = resource.spec.ok_or_else(|| bad("there is no spec in it"))?.proto_spec;
        let spec = MachineConfigSpec::decode(spec.as_slice()).map_err(|_| bad("its binary form cannot be read"))?;
        let text = String::from_utf8(spec.yaml_marshalled).map_err(|_| bad("it is no UTF-8"))?;
        if text.trim().is_empty() { Err(bad("it is empty")) } else { Ok(Some(MachineConfig { version, text })) }
    }

    /// What applying a configuration would come to. The node checks it and changes nothing.
    ///
    /// # Errors
    /// [`Error::Invalid`] where it does not take it, and those of any question.
    pub async fn dry_run(&self, config: &str, mode: ApplyMode) -> Result<Applied, Error> {
        let request = self.request(config, mode, true)?;
        let ask = |channel| {
            let request = request.clone();
            async move { Ok(machine(channel).apply_configuration(request).await?.into_inner()) }
        };
        let mask = Mask::of(config);
        let answer = self.read("ApplyConfiguration, dry run", ask).await;
        let answer = answer.and_then(|answer| self.only(answer.messages, |m| m.metadata.as_ref(), false));
        answer.map(|message| applied(message, &mask)).map_err(|error| error.said(|why| said(&mask, why)))
    }

    /// Applies a configuration, all documents of it.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the node does not take it, [`Error::NotReady`] where another one is being applied, and what
    /// else keeps the node from it.
    pub async fn apply_config(&self, permit: &Permit, config: &str, mode: ApplyMode) -> Result<Applied, Error> {
        let text = match mode {
            ApplyMode::Try { back_after } => {
                format!("ApplyConfiguration, mode TRY for {}", crate::base::wait::show(back_after))
            }
            other => format!("ApplyConfiguration, mode {}", other.wire().as_str_name()),
        };
        // The same configuration once more makes no difference, unless it is asked to reboot for it.
        let note = if mode == ApplyMode::Reboot { self.note_once(&text) } else { self.note_safe(&text) };
        let request = self.request(config, mode, false)?;
        let send = |channel| async move { Ok(machine(channel).apply_configuration(request).await?.into_inner()) };
        let mask = Mask::of(config);
        let answer = self.change(permit, self.limits.change, note, send).await;
        let answer = answer.and_then(|(_, answer)| self.only(answer.messages, |m| m.metadata.as_ref(), true));
        answer.map(|message| applied(message, &mask)).map_err(|error| error.said(|why| said(&mask, why)))
    }

    fn request(&self, config: &str, mode: ApplyMode, dry_run: bool) -> Result<ApplyConfigurationRequest, Error> {
        let request = request(config, mode, dry_run);
        match request.encoded_len() {
            size if size > MAX_MESSAGE => Err(Error::TooLarge { at: self.at(), size, most: MAX_MESSAGE }),
            _ => Ok(request),
        }
    }
}

fn request(config: &str, mode: ApplyMode, dry_run: bool) -> ApplyConfigurationRequest {
    let try_mode_timeout = match mode {
        ApplyMode::Try { back_after } => Some(prost_types::Duration {
            seconds: i64::try_from(back_after.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(back_after.subsec_nanos()).unwrap_or_default(),
        }),
        _ => None,
    };
    // The zero of the enum is REBOOT: the mode is set, always.
    let data = config.as_bytes().to_vec();
    ApplyConfigurationRequest { data, mode: mode.wire() as i32, dry_run, try_mode_timeout }
}

/// A node quotes what it was sent: unknown fields with their values, the difference from what it had.
fn applied(message: super::proto::machine::ApplyConfiguration, mask: &Mask) -> Applied {
    let reboots = message.mode() == Mode::Reboot;
    let warnings = message.warnings.iter().map(|warning| said(mask, warning)).collect();
    Applied { reboots, details: said(mask, &message.mode_details), warnings }
}
