//! What befell some nodes of a world an hour before it begins: the others have gone on without them since.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::life::Way;
use super::node::Slot;
use super::serving::Serving;
use crate::lab::World;
use crate::lab::kube;

/// How long ago that was.
const SINCE: Duration = Duration::from_secs(3_600);

/// What befell a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Loss {
    /// It is off.
    Dead,
    /// It is off, and its disks are blank.
    Gone,
    /// Its disks are blank, and it was booted from an image to install from: it waits for a configuration.
    Wiped,
}

impl World {
    /// Lets that happen, once the world has come to rest.
    pub(in crate::lab) fn talos_lose(&mut self) {
        let lost = std::mem::take(&mut self.talos.lost);
        if lost.is_empty() {
            return;
        }
        let then = self.now.saturating_sub(SINCE);
        for (name, loss) in lost {
            let Some(node) = self.talos.nodes.get_mut(&name) else { continue };
            if loss != Loss::Dead {
                node.disks.iter_mut().filter(|disk| disk.live.is_none()).for_each(|disk| {
                    disk.system = false;
                    disk.wipe();
                });
                node.slots.clear();
                node.images.clear();
                node.config.clear();
                (node.boots, node.member) = (Slot::default(), None);
            }
            (node.run, node.off) = (None, loss != Loss::Wiped && node.vmid.is_none());
            let vmid = node.vmid;
            match (loss, vmid) {
                (Loss::Wiped, _) => self.talos_boot(&name, then, Way::Firmware),
                (_, Some(vmid)) => self.power_off(vmid),
                (_, None) => {}
            }
        }
        self.talos_settle();
        let etcd = &mut self.talos.etcd;
        etcd.quiet = etcd.quiet.map(|_| then);
        match self.kube_serving() {
            Serving::Well => kube::relive(self, then),
            _ => kube::stand_still(self, then),
        }
    }
}
