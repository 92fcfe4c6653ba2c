//! What a drive is for, as a person writes it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::base::names::BadName;

/// What a drive is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Purpose {
    /// The node is installed on it.
    System,
    /// A user volume of Talos of this name is on it.
    UserVolume(String),
    /// A raw volume of Talos of this name is on it.
    RawVolume(String),
    /// It is this pool of Mayastor.
    Mayastor(String),
    /// This local persistent volume of Kubernetes is on it.
    Local(String),
    /// Nothing.
    Spare,
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("system"),
            Self::UserVolume(name) => write!(f, "user-volume {name}"),
            Self::RawVolume(name) => write!(f, "raw-volume {name}"),
            Self::Mayastor(name) => write!(f, "mayastor {name}"),
            Self::Local(name) => write!(f, "local {name}"),
            Self::Spare => f.write_str("spare"),
        }
    }
}

impl Purpose {
    /// The label of the partition that Talos makes for a volume (siderolabs/talos, `constants.UserVolumePrefix`,
    /// `RawVolumePrefix`); None for what is no volume of its own making.
    pub fn label(&self) -> Option<String> {
        match self {
            Self::UserVolume(name) => Some(format!("u-{name}")),
            Self::RawVolume(name) => Some(format!("r-{name}")),
            Self::System | Self::Mayastor(_) | Self::Local(_) | Self::Spare => None,
        }
    }
}

impl FromStr for Purpose {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let expected = "`system`, `user-volume NAME`, `raw-volume NAME`, `mayastor POOL`, `local VOLUME` or `spare`";
        let bad = || BadName { value: text.to_owned(), expected };
        let (word, name) = text.split_once(' ').map_or((text, ""), |(word, name)| (word, name.trim()));
        let name_of = || (!name.is_empty()).then(|| name.to_owned()).ok_or_else(bad);
        Ok(match word {
            "system" if name.is_empty() => Self::System,
            "spare" if name.is_empty() => Self::Spare,
            "user-volume" => Self::UserVolume(name_of()?),
            "raw-volume" => Self::RawVolume(name_of()?),
            "mayastor" => Self::Mayastor(name_of()?),
            "local" => Self::Local(name_of()?),
            _ => return Err(bad()),
        })
    }
}

impl TryFrom<String> for Purpose {
    type Error = BadName;
    fn try_from(text: String) -> Result<Self, BadName> {
        text.parse()
    }
}

impl From<Purpose> for String {
    fn from(purpose: Purpose) -> Self {
        purpose.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purpose_is_read_as_it_is_written() {
        let name = || "pool-1".to_owned();
        let all = [
            Purpose::System,
            Purpose::UserVolume(name()),
            Purpose::RawVolume(name()),
            Purpose::Mayastor(name()),
            Purpose::Local(name()),
            Purpose::Spare,
        ];
        assert_eq!(all.len(), 6);
        for purpose in all {
            assert_eq!(purpose.to_string().parse(), Ok(purpose.clone()));
            assert_eq!(serde_json::from_str::<Purpose>(&serde_json::to_string(&purpose).unwrap()).unwrap(), purpose);
        }
        for bad in ["", "system x", "spare 2", "mayastor", "mayastor ", "user-volume", "pool p", "System"] {
            assert!(bad.parse::<Purpose>().unwrap_err().to_string().contains("`mayastor POOL`"), "{bad}");
        }
    }
}
