//! 03: the node has installed itself and runs from its disk.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::Check;
use crate::base::fault::Failure;
use crate::blueprint::install::{Bare, installed};
use crate::engine::step::{Outlook, Risk, Seen, Step};
use crate::estate::Estate;

/// Waits until one node runs from its disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WaitInstalled {
    /// The machine.
    pub bare: Bare,
}

/// Nothing is owed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {}

impl Step<Estate> for WaitInstalled {
    const ID: &'static str = "03-wait-installed";
    const RISK: Risk = Risk::Reads;
    type Before = Before;

    fn instance(&self) -> Option<String> {
        Some(self.bare.name().to_owned())
    }

    fn title(&self) -> String {
        format!("{} runs from disk {}", self.bare.name(), self.bare.disk)
    }

    fn why(&self) -> Vec<String> {
        vec![
            "A machine whose firmware still starts the stick first comes up as empty as before, or not at all; one with an old \
             installation on another disk may boot that."
                .into(),
            "That it is installed shows when it answers with a certificate of the cluster, and names the disk that it runs from."
                .into(),
            "Other disks with an EFI system partition are named: the firmware may still have an entry for them.".into(),
            format!(
                "By hand: {}, {}.",
                self.bare.machine.talosctl("get systemdisk"),
                self.bare.machine.talosctl("get discoveredvolumes")
            ),
        ]
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(1_200)
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        Outlook::default().asks(self.bare.boot_its_disk())
    }

    async fn check(&self, cx: &Estate, _: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        installed::check(cx, &self.bare).await
    }
}
