//! `Reset`: what goes, and what the node is afterwards.

use tonic::Status;

use super::node::{Disk, Going, Wiped as Lost};
use super::server::Server;
use super::volumes;
use crate::lab::World;
use crate::talos::proto::machine::ResetRequest;
use crate::talos::proto::machine::reset_request::WipeMode;

/// What a reset takes away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wiping {
    /// The whole system disk.
    pub system: bool,
    /// Volumes of it.
    pub volumes: Vec<String>,
    /// Other disks, by their place in the list.
    pub disks: Vec<usize>,
    /// It leaves etcd before.
    pub leaves: bool,
    /// It comes up again.
    pub reboot: bool,
}

/// What a node does after it has lost what it had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wiped {
    Reboots,
    GoesOff,
}

impl Server {
    /// Begins the sequence `reset`; the actor's id. What is looked at before is that of siderolabs/talos
    /// `v1alpha1_server.go`; its errors are none of gRPC's.
    pub(super) fn wipe(&self, request: &ResetRequest) -> Result<String, Status> {
        let mode = WipeMode::try_from(request.mode).map_err(|_| Status::unknown("incorrect wipe mode"))?;
        let no = |text: String| Err(Status::unknown(text));
        let labels: Vec<String> =
            request.system_partitions_to_wipe.iter().filter(|p| p.wipe).map(|p| p.label.clone()).collect();
        let invalid = "reset failed: invalid input, wipe mode";
        if mode == WipeMode::SystemDisk && !request.user_disks_to_wipe.is_empty() {
            return no(format!("{invalid} SYSTEM_DISK doesn't support UserDisksToWipe parameter"));
        }
        if mode == WipeMode::UserDisks && !request.system_partitions_to_wipe.is_empty() {
            return no(format!("{invalid} USER_DISKS doesn't support SystemPartitionsToWipe parameter"));
        }
        let found = self.look(|_, node, run| {
            let mut disks = Vec::new();
            for path in &request.user_disks_to_wipe {
                let place = run.names.iter().find(|(_, name)| format!("/dev/{name}") == *path).map(|(at, _)| *at);
                match place.and_then(|at| Some((at, node.disks.get(at)?))) {
                    None => return Err(format!("the disk {path} wasn't found")),
                    Some((_, Disk { system: true, .. })) => {
                        return Err(format!("the disk {path} is the system disk, it can't be wiped as a user disk"));
                    }
                    Some((at, _)) => disks.push(at),
                }
            }
            if let Some(label) = labels.iter().find(|label| !volumes::is_volume(node, label)) {
                return Err(format!("failed to get volume status with label {label:?}: resource doesn't exist"));
            }
            Ok((disks, run.wants.control_plane))
        })?;
        let (disks, control_plane) = found.map_err(Status::unknown)?;
        let system = mode != WipeMode::UserDisks && request.system_partitions_to_wipe.is_empty();
        let leaves = request.graceful && control_plane;
        let wiping = Wiping { system, volumes: labels, disks, leaves, reboot: request.reboot };
        Ok(self.shared.change(|w| {
            let node = w.talos.nodes.get_mut(&self.node);
            if let Some(run) = node.and_then(|node| node.run.as_mut()).filter(|run| run.going.is_none()) {
                run.wiping = Some(wiping);
            }
            w.talos_sequence(&self.node, "reset", Going::Resetting, false, request.graceful)
        }))
    }
}

impl World {
    /// A node that is reset leaves etcd, where it is to; the error where it may not.
    pub(super) fn talos_leave(&mut self, name: &str) -> Option<String> {
        let node = self.talos.nodes.get_mut(name)?;
        let member = node.member;
        let run = node.run.as_mut().filter(|run| run.going == Some(Going::Resetting))?;
        let leaves = run.wiping.as_ref().is_some_and(|wiping| wiping.leaves);
        let id = member.filter(|_| leaves && !run.left_etcd)?;
        if let Err(no) = self.etcd_remove(name, id) {
            return Some(format!("error running phase 2 in reset sequence: task 1/1: failed, {}", no.text()));
        }
        let node = self.talos.nodes.get_mut(name)?;
        node.member = None;
        if let Some(run) = node.run.as_mut() {
            run.left_etcd = true;
        }
        None
    }

    /// What was to go goes. Without its STATE a node has no configuration, without its EPHEMERAL no data of etcd, and
    /// without a boot partition no image.
    pub(super) fn talos_wipe(&mut self, name: &str) -> Wiped {
        let Some(node) = self.talos.nodes.get_mut(name) else { return Wiped::GoesOff };
        let Some(wiping) = node.run.as_mut().and_then(|run| run.wiping.take()) else { return Wiped::Reboots };
        let goes = |label: &str| wiping.system || wiping.volumes.iter().any(|volume| volume == label);
        for (at, disk) in node.disks.iter().enumerate() {
            let held = match disk.system {
                true if wiping.system => disk.held(),
                true => wiping.volumes.clone(),
                false if wiping.disks.contains(&at) => disk.held(),
                false => continue,
            };
            if disk.system && !wiping.system && held.is_empty() {
                continue;
            }
            self.talos.wiped.push(Lost { node: name.to_owned(), serial: disk.serial.clone(), by: "reset", held });
        }
        if goes("STATE") {
            node.config.clear();
        }
        if goes(if node.etcd_volume { "ETCD" } else { "EPHEMERAL" }) {
            node.member = None;
        }
        if goes("EPHEMERAL") {
            node.images.clear();
            node.data.clear();
        }
        if goes("EFI") || goes("BOOT") {
            node.slots.clear();
            node.boots = super::node::Slot::default();
        }
        if wiping.system {
            node.disks.iter_mut().for_each(|disk| disk.system = false);
        }
        for at in &wiping.disks {
            if let Some(disk) = node.disks.get_mut(*at) {
                disk.wipe();
            }
        }
        if wiping.reboot { Wiped::Reboots } else { Wiped::GoesOff }
    }
}
