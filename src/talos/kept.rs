//! A machine configuration as it was: the text in a run file, its digest in the journal.

use serde::{Deserialize, Serialize};

use crate::base::digest::sha256;
use crate::base::fault::{Effect, Fault};
use crate::base::permit::{Permit, Refused};

use super::config::MachineConfig;

/// What a step records of the configuration that it is going to change; undo applies its very bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptConfig {
    /// The run file with its text.
    pub file: String,
    /// The version of the resource that it was read under.
    pub version: String,
    /// The SHA-256 of the text, hexadecimal.
    pub sha256: String,
}

/// Why a kept configuration is not applied back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeptError {
    /// The run has no such file: nothing was changed before it was stored.
    #[error("the run file {file} with the former machine configuration is not there")]
    Missing {
        /// The file.
        file: String,
    },
    /// What is in the file is something else.
    #[error("the run file {file} is not the former machine configuration: its digest is another one")]
    Other {
        /// The file.
        file: String,
    },
}

impl Fault for KeptError {
    fn effect(&self) -> Effect {
        Effect::None
    }

    fn help(&self) -> Option<String> {
        Some("apply the former configuration by hand with `talosctl apply-config`".into())
    }
}

impl MachineConfig {
    /// How it is recorded; `file` is the name that its run file is to have.
    pub fn kept(&self, file: &str) -> KeptConfig {
        KeptConfig { file: file.to_owned(), version: self.version.clone(), sha256: sha256(self.expose().as_bytes()) }
    }
}

impl KeptConfig {
    /// True where a configuration has the same bytes.
    pub fn is(&self, config: &MachineConfig) -> bool {
        self.sha256 == sha256(config.expose().as_bytes())
    }

    /// Stores the text in the run file (mode 0600), before the first change. A step is called again after a crash, when
    /// the node may have another configuration already: that one is not stored, and the answer is false.
    ///
    /// # Errors
    /// [`Refused::Journal`].
    pub fn store(&self, permit: &Permit, config: &MachineConfig) -> Result<bool, Refused> {
        let same = self.is(config);
        if same {
            permit.file(&self.file, config.expose().as_bytes())?;
        }
        Ok(same)
    }

    /// The configuration from the bytes of the run file, to be applied back.
    ///
    /// # Errors
    /// [`KeptError`].
    pub fn restore(&self, bytes: Option<Vec<u8>>) -> Result<MachineConfig, KeptError> {
        let bytes = bytes.ok_or_else(|| KeptError::Missing { file: self.file.clone() })?;
        let other = || KeptError::Other { file: self.file.clone() };
        if sha256(&bytes) != self.sha256 {
            return Err(other());
        }
        let text = String::from_utf8(bytes).map_err(|_| other())?;
        Ok(MachineConfig::new(self.version.clone(), text))
    }
}
