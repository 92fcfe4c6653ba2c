//! A machine that installs itself, by a document of its configuration (siderolabs/talos
//! `pkg/machinery/resources/runtime/unattended_install_status.go`).

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct UnattendedInstall {
    /// The image that the document names; empty where it names none.
    pub image: String,
    /// How far.
    #[serde(deserialize_with = "phase")]
    pub phase: InstallPhase,
    /// What went wrong, or what it waits for.
    pub error: String,
}

/// How far an installation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InstallPhase {
    /// Not begun: no disk is the one that is meant.
    #[default]
    Pending,
    /// At work.
    Installing,
    /// Done: by the boot before this one, or by this one where it does not reboot by itself.
    Installed,
    /// Done, and it is about to reboot.
    WaitingForReboot,
    /// It failed; Talos tries again by itself.
    Failed,
    /// Anything else.
    Unknown,
}

/// By its word, or by its number.
fn phase<'de, D: Deserializer<'de>>(value: D) -> Result<InstallPhase, D::Error> {
    use InstallPhase::{Failed, Installed, Installing, Pending, Unknown, WaitingForReboot};
    let known = [
        ("pending", Pending),
        ("installing", Installing),
        ("installed", Installed),
        ("waiting-for-reboot", WaitingForReboot),
        ("failed", Failed),
    ];
    let at = match Value::deserialize(value)? {
        Value::Null => Some(0),
        Value::String(word) => known.iter().position(|(name, _)| *name == word),
        other => other.as_u64().and_then(|number| usize::try_from(number).ok()),
    };
    Ok(at.and_then(|at| known.get(at)).map_or(Unknown, |(_, phase)| *phase))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_is_read_as_word_and_as_number() {
        let cases = [
            ("{}", InstallPhase::Pending),
            ("phase: waiting-for-reboot", InstallPhase::WaitingForReboot),
            ("phase: 1", InstallPhase::Installing),
            ("phase: 4", InstallPhase::Failed),
            ("phase: null", InstallPhase::Pending),
            ("phase: resting", InstallPhase::Unknown),
            ("phase: 9", InstallPhase::Unknown),
        ];
        for (text, phase) in cases {
            assert_eq!(serde_saphyr::from_str::<UnattendedInstall>(text).unwrap().phase, phase, "{text}");
        }
    }
}
