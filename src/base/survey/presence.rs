//! Whether a machine is there: that it does not answer is no proof that it is not.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Disk, Layer, Node, Volume};
use crate::base::wait::show;

/// For how long nothing must have been heard of a machine until it is called dead: a reboot is over by then.
const DEAD_AFTER_S: i64 = 300;

/// What a machine that waits for its first configuration says of itself. Nobody vouches for it: neither side has shown who
/// it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Waiting {
    /// The version of Talos that it was booted with: `v1.11.5`.
    pub version: Layer<String>,
    /// Disks that can be written to, without loop devices and CD drives.
    pub disks: Layer<Vec<Disk>>,
    /// What is found on disks and their partitions.
    pub volumes: Layer<Vec<Volume>>,
    /// The uuid of its firmware, in lower case.
    pub system_uuid: Layer<String>,
}

/// What is known of whether a machine is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It answers, or says no.
    There,
    /// It waits for its first configuration.
    Waits,
    /// Its VM does not run.
    Off,
    /// Nobody has heard of it for a while: Talos does not answer us, nor has its kubelet reported to Kubernetes.
    Dead {
        /// For how long.
        unheard: Duration,
    },
    /// It does not answer us; what that means is not known.
    Unheard,
}

impl Presence {
    /// It is known that nobody is there who could vote.
    pub fn is_away(self) -> bool {
        matches!(self, Self::Waits | Self::Off | Self::Dead { .. })
    }
}

impl fmt::Display for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::There => f.write_str("it answers"),
            Self::Waits => f.write_str("its machine waits for a configuration"),
            Self::Off => f.write_str("its VM is off"),
            Self::Dead { unheard } => {
                // Nobody knows it to the second.
                let minutes = Duration::from_secs(unheard.as_secs() / 60 * 60);
                write!(f, "dead, nothing heard of it for {}", show(minutes))
            }
            Self::Unheard => f.write_str("it does not answer"),
        }
    }
}

impl Node {
    /// Whether its machine is there, as far as is known at that time. A machine of its own is dead where neither Talos
    /// answers nor its kubelet has reported for some minutes; of a VM Proxmox knows whether it runs.
    pub fn presence(&self, at: Timestamp) -> Presence {
        if self.waiting.is_some() {
            return Presence::Waits;
        }
        if !self.talos_silent {
            // Who was not asked for a reason on our side is not heard either.
            return if self.talos.is_unknown() && self.etcd.is_unknown() { Presence::Unheard } else { Presence::There };
        }
        match self.vm() {
            Some(vm) if !vm.is_running() => return Presence::Off,
            // It runs, and hangs: its console says more.
            _ if !self.vm.is_absent() => return Presence::Unheard,
            _ => {}
        }
        let since = self.kubelet().filter(|kubelet| kubelet.registered && !kubelet.ready).and_then(|k| k.unheard_since);
        let unheard = since.map(|since| at.duration_since(since).as_secs()).filter(|s| *s >= DEAD_AFTER_S);
        match unheard.and_then(|s| u64::try_from(s).ok()) {
            Some(s) => Presence::Dead { unheard: Duration::from_secs(s) },
            None => Presence::Unheard,
        }
    }
}
