//! What a node does to itself in Kubernetes before it goes down for long: it is cordoned, and its pods are evicted. Up
//! again it takes back a cordon of its own, and none of anybody else's.

use std::time::Duration;

use super::event::{Step, What};
use super::life::Due;
use super::node::Going;
use crate::lab::World;
use crate::lab::agenda::Event;
use crate::lab::kube;

/// How long pods have to go (siderolabs/talos `pkg/kubernetes`, `DrainTimeout`).
const LIMIT: Duration = Duration::from_secs(5 * 60);
/// How often it looks, in lab milliseconds.
const LOOK: u64 = 1_000;

impl World {
    /// A node that has just begun a sequence drains itself first; false where Kubernetes has no such node.
    pub(super) fn talos_drain(&mut self, name: &str) -> bool {
        kube::tell_time(self);
        let host = self.talos_host(name).to_owned();
        if !self.kube.talos_cordon(&host) {
            return false;
        }
        let limit = self.now + LIMIT;
        let Some(run) = self.talos.nodes.get_mut(name).and_then(|node| node.run.as_mut()) else { return false };
        run.draining = Some(limit);
        run.log.push(What::Phase { name: "drain", ended: false });
        run.log.push(What::Task { name: "cordonAndDrainNode", ended: false });
        let (node, boot_id) = (name.to_owned(), run.boot_id.clone());
        self.later(0, Event::Talos { node, boot_id, due: Due::Drained });
        true
    }

    /// A node that drains looks again.
    pub(super) fn talos_drains(&mut self, name: &str) {
        kube::tell_time(self);
        let host = self.talos_host(name).to_owned();
        let left = self.kube.talos_evict(&host);
        let now = self.now;
        let Some(run) = self.talos.nodes.get_mut(name).and_then(|node| node.run.as_mut()) else { return };
        let Some(limit) = run.draining else { return };
        let (node, boot_id) = (name.to_owned(), run.boot_id.clone());
        if left > 0 && now < limit {
            self.later(LOOK, Event::Talos { node, boot_id, due: Due::Drained });
            return;
        }
        run.draining = None;
        run.log.push(What::Task { name: "cordonAndDrainNode", ended: true });
        // A node that is to go off does so all the same.
        match run.going {
            Some(Going::Upgrading | Going::Resetting) if left > 0 => {
                let text = "error running phase 1 in sequence: task 1/1: failed, error draining node: context deadline exceeded";
                self.talos_failed(name, text);
            }
            _ => self.talos_stop(name),
        }
    }

    /// A sequence has failed for good: the node reboots.
    pub(super) fn talos_failed(&mut self, name: &str, text: &str) {
        let Some(run) = self.talos.nodes.get_mut(name).and_then(|node| node.run.as_mut()) else { return };
        let sequence = match run.going {
            Some(Going::Upgrading) => "upgrade",
            Some(Going::Resetting) => "reset",
            Some(Going::Installing) => "install",
            _ => "boot",
        };
        (run.writing, run.wiping) = (None, None);
        run.log.sequence(sequence, Step::Fatal(text.to_owned()));
        self.talos_sequence(name, "reboot", Going::Rebooting { kexec: false }, true, false);
    }

    /// Nodes that are up again take back their own cordons; true where one did.
    pub(in crate::lab) fn talos_uncordon(&mut self) -> bool {
        let up = |name: &&String| {
            let run = self.talos.nodes.get(*name).and_then(|node| node.run.as_ref());
            run.is_some_and(|run| run.booted && run.going.is_none())
                && !self.talos_halting(name)
                && self.talos_kubelet_ready(name) == Some(true)
                && self.talos_kubelet(name).is_some()
        };
        let names = self.talos.nodes.keys().filter(up).map(|name| self.talos_host(name).to_owned());
        let names: Vec<String> = names.collect();
        names.iter().filter(|name| self.kube.talos_uncordon(name)).count() > 0
    }
}
