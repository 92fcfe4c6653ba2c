//! Boots, reboots, shutdowns and upgrades of Talos nodes, and what follows from any change.

use std::collections::BTreeSet;
use std::time::Duration;

use super::config::{Config, Wants};
use super::event::{Log, Step, What};
use super::firmware::{HALTS, Outcome};
use super::node::{Going, Image, Node, Run, Slot, Source};
use super::reset::Wiped;
use super::services::Service;
use crate::lab::World;
use crate::lab::agenda::Event;
use crate::lab::clock::LabTime;
use crate::lab::machine::AgentManner;

/// What is due on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// All services have stopped: what it is about to do happens.
    Gone,
    /// It looks whether its pods are gone.
    Drained,
    /// The image is written.
    Written,
    /// The first image is written.
    Installed,
    /// `startAllServices` gives up.
    Stuck,
    /// A configuration that was on trial goes.
    TryOver(u64),
}

/// How a node is to come up again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::lab) enum Way {
    /// By the running kernel.
    Kexec,
    /// Through the firmware.
    Firmware,
    /// By what the world says that it has booted, long ago.
    Before,
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// What follows from a configuration's text; nothing where it cannot be read.
fn wants(text: &str, image: &Image) -> Wants {
    let config = Config::read(text.as_bytes(), image.minor().1);
    config.map(|config| config.wants()).unwrap_or_default()
}

impl World {
    /// The Talos node that runs in a VM.
    pub(in crate::lab) fn talos_in(&self, vmid: u32) -> Option<String> {
        self.talos.nodes.iter().find(|(_, node)| node.vmid == Some(vmid)).map(|(name, _)| name.clone())
    }

    /// Brings the nodes of a fresh world to life; those in VMs have been by [`World::talos_boot`].
    pub(in crate::lab) fn talos_begin(&mut self, up: LabTime) {
        self.etcd_begin();
        let on = |node: &Node| node.vmid.is_none() && !node.off;
        let names: Vec<String> = self.talos.nodes.iter().filter(|(_, n)| on(n)).map(|(name, _)| name.clone()).collect();
        for name in names {
            self.talos_boot(&name, up, Way::Before);
        }
        let worker = |node: &Node| !wants(&node.config, &node.image()).control_plane;
        for (name, _) in self.talos.nodes.iter().filter(|(_, node)| worker(node)) {
            self.kube.talos_worker(name);
        }
    }

    /// A node's kernel starts at `at`. One whose image does not come up falls back to the other.
    pub(in crate::lab) fn talos_boot(&mut self, name: &str, at: LabTime, way: Way) {
        let uuid = self.uuid();
        let timing = self.talos.timing.clone();
        let now = self.now;
        let Some(node) = self.talos.nodes.get_mut(name) else { return };
        let in_vm = node.vmid.and_then(|vmid| self.vms.get(&vmid)).and_then(|vm| vm.running.as_ref());
        let boot_id = in_vm.map_or(uuid, |running| running.boot_id.clone());
        node.run = None;
        node.screen.clear();
        node.follow_drives();
        let vm = node.vmid.and_then(|vmid| self.vms.get(&vmid));
        let source = match way {
            Way::Before if !node.slots.is_empty() => Source::Slot,
            // The loader of its own disk says which kernel.
            Way::Kexec if !node.slots.is_empty() => node.comes_up(Source::Slot),
            _ => match node.boot_by_firmware(vm) {
                Outcome::Boots(source) => source,
                Outcome::Stays(why) => {
                    node.starts += u32::from(why == HALTS);
                    why.clone_into(&mut node.screen);
                    return;
                }
            },
        };
        let starts = |image: &Image| node.starts(image);
        if !node.slots.get(&node.boots).is_some_and(starts) && node.slots.contains_key(&node.boots.other()) {
            node.boots = node.boots.other();
        }
        if node.starts > 0 {
            // Right after a boot memory is in one piece.
            node.huge_pages = None;
        }
        node.starts += 1;
        let maintenance = node.config.is_empty() || source != Source::Slot && !node.is_installed();
        let names = node.name_disks();
        let mut run = Run {
            boot_id: boot_id.clone(),
            since: at,
            api_at: at + ms(timing.api),
            services_at: at + ms(timing.services),
            kubelet_at: at + ms(timing.kubelet),
            slot: node.boots,
            kexec: way == Way::Kexec,
            source,
            maintenance,
            names,
            booted: false,
            going: None,
            active: node.config.clone(),
            wants: wants(&node.config, &node.image_of(source, node.boots)),
            loaded: BTreeSet::new(),
            generation: 1,
            trying: None,
            writing: None,
            draining: None,
            wiping: None,
            left_etcd: false,
            recovery: None,
            etcd_error: None,
            log: Log::default(),
        };
        node.disks.iter_mut().for_each(|disk| disk.late = false);
        for slow in node.disks.iter().map(|disk| disk.slow).filter(|slow| *slow > 0) {
            self.agenda.at(at + ms(slow), Event::Look);
        }
        if maintenance {
            run.log.sequence("initialize", Step::Start);
            self.agenda.at(run.api_at, Event::Look);
            node.run = Some(run);
            return;
        }
        for (name, step) in [("initialize", Step::Start), ("initialize", Step::Stop), ("boot", Step::Start)] {
            run.log.sequence(name, step);
        }
        run.log.push(What::Task { name: "startAllServices", ended: false });
        for time in [run.api_at, run.services_at, run.kubelet_at] {
            self.agenda.at(time, Event::Look);
        }
        // One that the world began with has been waiting for a part of that time.
        let stuck = (at + ms(timing.stuck)).max(now + ms(timing.stuck / 2));
        self.agenda.at(stuck, Event::Talos { node: name.to_owned(), boot_id, due: Due::Stuck });
        node.run = Some(run);
    }

    /// The VM of a node has booted: by a start, by a reset, or because the node rebooted itself.
    pub(in crate::lab) fn talos_vm_boot(&mut self, vmid: u32, at: LabTime) {
        let Some(name) = self.talos_in(vmid) else { return };
        let going = self.talos.nodes.get(&name).and_then(|node| node.run.as_ref()).and_then(|run| run.going);
        let (way, delay) = match going {
            Some(Going::Rebooting { kexec: true }) => (Way::Kexec, self.talos.timing.kexec),
            Some(_) => (Way::Firmware, self.talos.timing.firmware),
            None => (Way::Firmware, 0),
        };
        self.talos_boot(&name, at + ms(delay), way);
    }

    /// The process of a node's VM is gone.
    pub(in crate::lab) fn talos_vm_off(&mut self, vmid: u32) {
        let Some(name) = self.talos_in(vmid) else { return };
        if let Some(node) = self.talos.nodes.get_mut(&name) {
            node.run = None;
        }
    }

    /// Begins a sequence; the actor's id. Where another one holds the lock, that is only told as an event.
    pub(super) fn talos_sequence(
        &mut self,
        name: &str,
        sequence: &'static str,
        going: Going,
        takeover: bool,
        drain: bool,
    ) -> String {
        let actor = self.uuid();
        let Some(run) = self.talos.nodes.get_mut(name).and_then(|node| node.run.as_mut()) else { return actor };
        run.log.actor(&actor);
        if run.going.is_some() && !takeover {
            run.log.sequence(sequence, Step::Locked("locked: another sequence is in progress".into()));
            return actor;
        }
        // One that is booting, for as long as a service keeps it so, gives way (`sequenceTakeOver` in siderolabs/talos
        // `internal/app/machined/pkg/runtime/sequencer.go`).
        (run.going, run.draining) = (Some(going), None);
        run.log.sequence(sequence, Step::Start);
        if !drain || !self.talos_drain(name) {
            self.talos_stop(name);
        }
        actor
    }

    /// The services of a node that goes down stop; one that is reset for good leaves etcd before.
    pub(super) fn talos_stop(&mut self, name: &str) {
        if let Some(error) = self.talos_leave(name) {
            self.talos_failed(name, &error);
            return;
        }
        let timing = &self.talos.timing;
        let (stop, write, pull) = (timing.stop, timing.write, timing.pull);
        let Some(run) = self.talos.nodes.get_mut(name).and_then(|node| node.run.as_mut()) else { return };
        let (after, due) = match run.going {
            Some(Going::Upgrading) => (write, Due::Written),
            Some(Going::Installing) => (pull + write, Due::Installed),
            Some(Going::Rebooting { .. } | Going::ShuttingDown | Going::Resetting) => (stop, Due::Gone),
            None => return,
        };
        if due != Due::Installed {
            run.log.push(What::Phase { name: "cleanup", ended: false });
            run.log.push(What::Task { name: "stopAllServices", ended: false });
        }
        let (boot_id, node) = (run.boot_id.clone(), name.to_owned());
        self.later(after, Event::Talos { node, boot_id, due });
    }

    /// The node reboots, by kexec or through the firmware. Nothing is drained.
    pub fn talos_reboot(&mut self, name: &str, kexec: bool) -> String {
        self.talos_sequence(name, "reboot", Going::Rebooting { kexec }, false, false)
    }

    /// The node powers off; unless by force it is cordoned and drained before.
    pub fn talos_shutdown(&mut self, name: &str, force: bool) -> String {
        self.talos_sequence(name, "shutdown", Going::ShuttingDown, true, !force)
    }

    /// Something falls due on a node, if it is still the same boot.
    pub(in crate::lab) fn talos_due(&mut self, name: &str, boot_id: &str, due: Due) {
        let Some(node) = self.talos.nodes.get_mut(name) else { return };
        let (vmid, can_kexec) = (node.vmid, node.can_kexec());
        let Some(run) = node.run.as_mut().filter(|run| run.boot_id == boot_id) else { return };
        match (due, run.going) {
            (Due::Gone, Some(Going::ShuttingDown)) => self.talos_off(name, vmid),
            (Due::Gone, Some(Going::Rebooting { kexec })) => {
                let kexec = kexec && can_kexec;
                run.going = Some(Going::Rebooting { kexec });
                self.talos_again(name, vmid, kexec);
            }
            (Due::Gone, Some(Going::Resetting)) => match self.talos_wipe(name) {
                Wiped::Reboots => self.talos_again(name, vmid, false),
                Wiped::GoesOff => self.talos_off(name, vmid),
            },
            (Due::Drained, Some(_)) if run.draining.is_some() => self.talos_drains(name),
            (Due::Installed, Some(Going::Installing)) => self.talos_installed(name),
            (Due::Written, Some(Going::Upgrading)) => {
                let Some((image, kexec)) = run.writing.take() else { return };
                run.log.push(What::Phase { name: "kexec", ended: false });
                run.going = Some(Going::Rebooting { kexec });
                let (node, boot_id) = (name.to_owned(), boot_id.to_owned());
                self.later(self.talos.timing.stop, Event::Talos { node, boot_id, due: Due::Gone });
                self.talos_write(name, image);
            }
            (Due::Stuck, None) if !run.booted => {
                let text = "error running phase 13 in boot sequence: task 1/1: failed, context deadline exceeded";
                run.log.sequence("boot", Step::Fatal(text.into()));
                self.talos_sequence(name, "reboot", Going::Rebooting { kexec: false }, true, false);
            }
            (Due::TryOver(generation), _) if run.trying == Some(generation) => {
                run.trying = None;
                let text = node.config.clone();
                self.talos_activate(name, &text);
            }
            _ => {}
        }
    }

    /// A node whose services have stopped comes up again.
    fn talos_again(&mut self, name: &str, vmid: Option<u32>, kexec: bool) {
        let Some(vmid) = vmid else {
            let (way, delay) = match kexec {
                true => (Way::Kexec, self.talos.timing.kexec),
                false => (Way::Firmware, self.talos.timing.firmware),
            };
            let at = self.now + ms(delay);
            self.talos_boot(name, at, way);
            return;
        };
        self.reset(vmid);
    }

    fn talos_off(&mut self, name: &str, vmid: Option<u32>) {
        let Some(vmid) = vmid else {
            if let Some(node) = self.talos.nodes.get_mut(name) {
                (node.run, node.off) = (None, true);
            }
            return;
        };
        let Some(running) = self.vms.get_mut(&vmid).and_then(|vm| vm.running.as_mut()) else { return };
        running.halting = true;
        let pid = running.pid;
        self.guest_off(vmid, pid);
    }

    /// Makes a configuration the one in effect.
    pub(super) fn talos_activate(&mut self, name: &str, text: &str) {
        let Some(node) = self.talos.nodes.get_mut(name) else { return };
        let image = node.image();
        if let Some(run) = node.run.as_mut() {
            run.wants = wants(text, &image);
            text.clone_into(&mut run.active);
            run.generation += 1;
        }
    }

    /// Writes an image to the slot that is not booted; it is the one that is booted next.
    pub(super) fn talos_write(&mut self, name: &str, image: Image) {
        let Some(node) = self.talos.nodes.get_mut(name) else { return };
        let slot = node.run.as_ref().map_or(node.boots, |run| run.slot).other();
        node.slots.insert(slot, image);
        node.boots = slot;
    }

    /// The boot loader takes the other slot next; false where nothing is in it.
    pub(super) fn talos_revert(&mut self, name: &str) -> bool {
        let Some(node) = self.talos.nodes.get_mut(name) else { return false };
        let booted: Slot = node.run.as_ref().map_or(node.boots, |run| run.slot);
        let there = node.slots.contains_key(&booted.other());
        if there {
            node.boots = booted.other();
        }
        there
    }

    /// What follows at once from any change: modules, disks that were plugged in, etcd, the end of a boot, and what the
    /// nodes tell of all that.
    pub(in crate::lab) fn talos_settle(&mut self) {
        if self.talos.nodes.is_empty() {
            return;
        }
        self.etcd_settle();
        let names: Vec<String> = self.talos.nodes.keys().cloned().collect();
        for name in names {
            self.talos_guest(&name);
            if let Some(node) = self.talos.nodes.get_mut(&name) {
                let loadable = node.loadable();
                let mut known = node.run.as_ref().map(|run| run.names.clone()).unwrap_or_default();
                known.retain(|at, _| node.disks.get(*at).is_some_and(|disk| !disk.unplugged));
                let up = node.run.as_ref().map_or(0, |run| self.now.saturating_sub(run.since).as_millis());
                node.name_more(&mut known, u64::try_from(up).unwrap_or(u64::MAX));
                if let Some(run) = node.run.as_mut() {
                    run.loaded.extend(loadable);
                    run.names = known;
                }
            }
            self.talos_provision(&name);
            self.talos_tell(&name);
        }
    }

    /// The guest agent of a VM is one of the image's extensions; it runs no programs.
    fn talos_guest(&mut self, name: &str) {
        let Some(node) = self.talos.nodes.get(name) else { return };
        // Where nothing comes up no agent does.
        let there = node.image().has("qemu-guest-agent") && node.screen.is_empty();
        if let Some(vm) = node.vmid.and_then(|vmid| self.vms.get_mut(&vmid)) {
            vm.guest.agent = AgentManner { installed: there, enabled: there, silent: false, exec_allowed: false };
        }
    }

    fn talos_tell(&mut self, name: &str) {
        let services = self.talos_services(name);
        let Some(run) = self.talos.nodes.get(name).and_then(|node| node.answering(self.now)) else { return };
        let booting = !run.booted && !run.maintenance && run.going.is_none();
        if booting && services.iter().all(Service::is_up) {
            let Some(run) = self.talos.nodes.get_mut(name).and_then(|node| node.run.as_mut()) else { return };
            run.booted = true;
            run.log.push(What::Task { name: "startAllServices", ended: true });
            run.log.sequence("boot", Step::Stop);
        }
        let Some(status) = self.talos_status(name) else { return };
        if let Some(run) = self.talos.nodes.get_mut(name).and_then(|node| node.run.as_mut()) {
            run.log.compare(services, status);
        }
    }
}
