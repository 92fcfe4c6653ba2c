//! A VM, its agent and its guest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A VM as Proxmox tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Vm {
    /// The Proxmox node that it is on.
    pub host: String,
    /// Its name there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `running` or `stopped`.
    pub power: String,
    /// QEMU's word where it runs: `running`, `paused`, `io-error`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qemu: Option<String>,
    /// Since when it runs, in seconds; None where it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime_s: Option<u64>,
    /// Who holds its lock: `backup`, `migrate`, `suspended`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    /// High availability starts and stops it.
    pub ha: bool,
    /// What the next power cycle changes; a value that could be secret is `…`.
    pub pending: Vec<PendingChange>,
    /// It was started with the agent's channel, or is stopped and would be.
    pub agent: bool,
    /// It will have the agent's channel after the next power cycle.
    pub agent_configured: bool,
    /// Memory in MiB, as configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// The least memory that ballooning leaves it, in MiB; 0 where it is switched off, None where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balloon_mib: Option<u64>,
    /// The type of CPU, as configured (`host`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// The boot order, as configured (`order=scsi0`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// The uuid of its firmware (`smbios1`), in lower case: the one that it runs with, or that it would start with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smbios_uuid: Option<String>,
    /// Its `usbN` lines, as they will be after the next power cycle.
    pub usb: BTreeMap<String, String>,
    /// Its `hostpciN` lines, likewise.
    pub hostpci: BTreeMap<String, String>,
    /// Its drive lines (`scsi0`, `virtio1`, ...), likewise.
    pub drives: BTreeMap<String, String>,
}

/// One key of a VM's config that the next power cycle changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingChange {
    /// `usb0`.
    pub key: String,
    /// What holds now; None where it is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<String>,
    /// What will hold; None where it goes away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<String>,
}

impl Vm {
    /// There is a QEMU process, paused or not.
    pub fn is_running(&self) -> bool {
        self.power == "running"
    }

    /// It runs and its CPUs do too.
    pub fn is_at_work(&self) -> bool {
        self.is_running() && self.qemu.as_deref().is_none_or(|word| word == "running")
    }

    /// The serial number that a drive line gives its disk.
    pub fn serials(&self) -> impl Iterator<Item = (&str, &str)> {
        self.drives.iter().filter_map(|(slot, line)| {
            let serial = line.split(',').find_map(|part| part.strip_prefix("serial="))?;
            Some((slot.as_str(), serial))
        })
    }

    /// What is not as it should be.
    pub fn wrong(&self) -> Vec<String> {
        let mut lines = Vec::new();
        match &self.qemu {
            _ if !self.is_running() => lines.push(self.power.clone()),
            Some(word) if word != "running" => lines.push(word.clone()),
            _ => {}
        }
        if let Some(lock) = &self.lock {
            lines.push(format!("locked ({lock})"));
        }
        if !self.pending.is_empty() && self.is_running() {
            let keys: Vec<_> = self.pending.iter().map(|change| change.key.as_str()).collect();
            lines.push(format!("pending until its next power cycle: {}", keys.join(", ")));
        }
        lines
    }
}

/// Something that was asked for, and what was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum Fact {
    /// It is so.
    Yes,
    /// It is not so.
    No {
        /// Why.
        why: String,
    },
    /// It could not be asked.
    Unknown {
        /// Why.
        why: String,
    },
    /// It was not asked, as the answer is of no use.
    NotAsked {
        /// Why.
        why: String,
    },
}

impl Fact {
    /// True for [`Fact::Yes`].
    pub fn is_yes(&self) -> bool {
        *self == Self::Yes
    }

    /// True for [`Fact::No`].
    pub fn is_no(&self) -> bool {
        matches!(self, Self::No { .. })
    }

    /// Why it could not be asked.
    pub fn unknown(&self) -> Option<&str> {
        match self {
            Self::Unknown { why } => Some(why),
            Self::Yes | Self::No { .. } | Self::NotAsked { .. } => None,
        }
    }

    /// Why it is not so.
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Yes => None,
            Self::No { why } | Self::Unknown { why } | Self::NotAsked { why } => Some(why),
        }
    }
}

/// The guest agent; none of the three follows from another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// The VM was started with the agent's channel.
    pub channel: Fact,
    /// The agent answers a ping.
    pub ping: Fact,
    /// It may run programs and found one to run. Not asked of Talos, which has none.
    pub exec: Fact,
}

impl Agent {
    /// Why what of it is not known could not be asked, each reason once.
    pub fn unknown(&self) -> Vec<&str> {
        let mut reasons: Vec<&str> = Vec::new();
        for reason in [&self.channel, &self.ping, &self.exec].into_iter().filter_map(Fact::unknown) {
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        reasons
    }

    /// What is not as it should be: a channel that nobody answers on. A VM without a channel may be meant so.
    pub fn wrong(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.channel.is_yes() {
            if let Fact::No { why } = &self.ping {
                lines.push(format!("no answer: {why}"));
            } else if let Fact::No { why } = &self.exec {
                lines.push(format!("runs no programs: {why}"));
            }
        }
        lines
    }
}

/// A guest that answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Guest {
    /// The first route of the site that answered: `ssh`, `agent` or `host-ssh`.
    pub route: String,
    /// The kernel's boot id; another one after each boot.
    pub boot_id: String,
    /// What the routes before it said.
    pub others: Vec<String>,
}
