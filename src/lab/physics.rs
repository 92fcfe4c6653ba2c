//! Consequences: what follows from a change, at once or later. Power, boots, shutdowns, re-enumeration.

use std::time::Duration;

use sha2::{Digest, Sha256};

use super::agenda::Event;
use super::clock::LabTime;
use super::kube;
use super::world::{Firmware, Running, StickState, World};

impl World {
    /// Brings a freshly read world to life: machines that are `running` have been so for a while. One that lives
    /// already only gets another clock.
    pub(super) fn begin(&mut self, now: LabTime, zero: i64) {
        (self.now, self.zero) = (self.now.max(now), zero);
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let names: Vec<String> = self.sticks.keys().cloned().collect();
        for name in names {
            self.enumerate(&name);
        }
        let up = now.saturating_sub(Duration::from_secs(7_200));
        let vmids: Vec<u32> = self.vms.iter().filter(|(_, vm)| vm.running.is_some()).map(|(id, _)| *id).collect();
        for vmid in vmids {
            if let Err(error) = self.power_on(vmid, up) {
                tracing::warn!(vmid, error, "the world says running, but it cannot run");
            }
            // Real guests as well: the lab does not start before they are up.
            if let Some(running) = self.vms.get_mut(&vmid).and_then(|vm| vm.running.as_mut()) {
                (running.up_at, running.ssh_at, running.agent_at) = (up, up, up);
            }
        }
        self.talos_begin(up);
        self.settle();
        self.talos_lose();
        self.settle();
    }

    /// Lets everything happen that is due by `now`. True where something did.
    pub fn tick(&mut self, now: LabTime) -> bool {
        let mut changed = false;
        // A controller that asks to be called again at once could hold the lock for ever; the ticker comes back soon.
        for _ in 0..1_000 {
            let Some(due) = self.due().filter(|due| *due <= now) else { break };
            self.now = self.now.max(due);
            while let Some((_, event)) = self.agenda.take(self.now) {
                self.happen(event);
            }
            self.settle();
            changed = true;
        }
        self.now = self.now.max(now);
        kube::tell_time(self);
        changed
    }

    /// When [`World::tick`] has something to do next.
    pub fn due(&self) -> Option<LabTime> {
        [self.agenda.due(), kube::due(self)].into_iter().flatten().min()
    }

    /// What follows at once from any change.
    pub(super) fn settle(&mut self) {
        self.settle_usb();
        // A node that takes its cordon back gives the scheduler something to do, and an etcd that has a leader again all
        // controllers.
        for _ in 0..3 {
            for _ in 0..100 {
                if !kube::tick(self, self.now) {
                    break;
                }
                self.settle_usb();
            }
            let served = self.kube_serving();
            self.talos_settle();
            if !self.talos_uncordon() && self.kube_serving() == served {
                break;
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Work(upid) => self.work(&upid),
            Event::TimeUp(upid) => self.time_up(&upid),
            Event::GuestOff { vmid, pid } => self.guest_off(vmid, pid),
            Event::Restart { vmid, user } => self.restart(vmid, &user),
            Event::HaStep(vmid) => self.ha_step(vmid),
            Event::StickBack(name) => {
                if let Some(stick) = self.sticks.get_mut(&name) {
                    stick.present = true;
                    stick.state = StickState::Run;
                }
                self.enumerate(&name);
            }
            Event::Talos { node, boot_id, due } => self.talos_due(&node, &boot_id, due),
            Event::Look => {}
        }
    }

    /// Adds an event `ms` lab milliseconds from now.
    pub fn later(&mut self, ms: u64, event: Event) {
        self.agenda.at(self.now + Duration::from_millis(ms), event);
    }

    /// Starts a machine's process with its config as it stands.
    ///
    /// # Errors
    /// The text of the pve task's error.
    pub(super) fn power_on(&mut self, vmid: u32, at: LabTime) -> Result<(), String> {
        let (pid, uuid) = (self.new_pid(), self.uuid());
        let vm = self.vms.get(&vmid).ok_or_else(|| format!("VM {vmid} does not exist"))?;
        let configured = vm.config.get("machine").map_or("pc", String::as_str);
        let machine = full_machine(configured);
        let ostype = vm.config.get("ostype").map_or("other", String::as_str);
        let plugs = self.plugs(&vm.node, &vm.config, super::usb::new_style(&machine, ostype))?;
        let passed = self.passed(vmid)?;
        let agent_port = vm.config.get("agent").is_some_and(|a| agent_on(a));
        let running = Running {
            pid,
            since: at,
            machine,
            agent_port,
            boot_id: uuid,
            plugs,
            devnum: Running::FIRST_DEVNUM,
            ..Running::default()
        };
        if let Some(vm) = self.vms.get_mut(&vmid) {
            vm.running = Some(running);
        }
        self.hand_on(vmid, &passed);
        self.boot(vmid, at);
        self.settle_usb();
        Ok(())
    }

    /// Lets the guest of a running process boot, at `at`.
    fn boot(&mut self, vmid: u32, at: LabTime) {
        let ms = Duration::from_millis;
        let (boot, ssh, agent) = (ms(self.timing.boot), ms(self.timing.ssh), ms(self.timing.agent));
        let vm_is_real = self.is_real(vmid);
        self.talos_vm_boot(vmid, at);
        let Some(running) = self.vms.get_mut(&vmid).and_then(|vm| vm.running.as_mut()) else { return };
        running.boot = at;
        running.up_at = at + boot;
        running.ssh_at = at + boot + ssh;
        running.agent_at = at + boot + agent;
        running.halting = false;
        running.execs.clear();
        if vm_is_real {
            (running.up_at, running.ssh_at, running.agent_at) = (LabTime::MAX, LabTime::MAX, LabTime::MAX);
            return;
        }
        for time in [running.up_at, running.ssh_at, running.agent_at] {
            self.agenda.at(time, Event::Look);
        }
    }

    /// True where a real guest plays a machine: when it is up and when it goes off is for it to say.
    fn is_real(&self, vmid: u32) -> bool {
        self.vms.get(&vmid).is_some_and(|vm| vm.guest.image.is_some())
    }

    /// The real guest of this process is up.
    pub(super) fn guest_came_up(&mut self, vmid: u32, pid: u32, boot_id: &str) {
        let now = self.now;
        let running = self.vms.get_mut(&vmid).and_then(|vm| vm.running.as_mut());
        if let Some(running) = running.filter(|running| running.pid == pid) {
            boot_id.clone_into(&mut running.boot_id);
            // One that the world began with has been up for a while.
            let was = |at: LabTime| at.min(now);
            (running.up_at, running.ssh_at, running.agent_at) =
                (was(running.up_at), was(running.ssh_at), was(running.agent_at));
        }
    }

    /// A real guest has reset itself; the boot id that stands for the new boot until it is up.
    pub(super) fn guest_reboots(&mut self, vmid: u32) -> Option<String> {
        self.reset(vmid);
        Some(self.vms.get(&vmid)?.running.as_ref()?.boot_id.clone())
    }

    /// The process of a real guest has ended.
    pub(super) fn guest_went_off(&mut self, vmid: u32, pid: u32) {
        if let Some(running) = self.vms.get_mut(&vmid).and_then(|vm| vm.running.as_mut()) {
            running.halting = true;
        }
        self.guest_off(vmid, pid);
    }

    /// Resets the guest: same process, another boot. Pending config stays pending.
    pub(super) fn reset(&mut self, vmid: u32) {
        let uuid = self.uuid();
        if let Some(running) = self.vms.get_mut(&vmid).and_then(|vm| vm.running.as_mut()) {
            running.boot_id = uuid;
        }
        self.boot(vmid, self.now);
    }

    /// Ends a machine's process.
    pub(super) fn power_off(&mut self, vmid: u32) {
        if let Some(vm) = self.vms.get_mut(&vmid) {
            vm.running = None;
        }
        self.talos_vm_off(vmid);
        self.settle_usb();
    }

    /// Tells a guest to power off. A guest that is not up, or that does not listen, never does.
    pub(super) fn ask_to_halt(&mut self, vmid: u32) {
        if !self.guest_up(vmid) || self.is_real(vmid) {
            return;
        }
        let default = self.timing.shutdown;
        let Some(vm) = self.vms.get_mut(&vmid) else { return };
        if vm.guest.ignores_shutdown {
            return;
        }
        let takes = vm.guest.shutdown_ms.unwrap_or(default);
        let Some(running) = vm.running.as_mut() else { return };
        running.halting = true;
        let pid = running.pid;
        self.later(takes, Event::GuestOff { vmid, pid });
        if let Some(node) = self.talos_in(vmid) {
            let host = self.talos_host(&node).to_owned();
            self.kube.talos_cordon(&host);
        }
    }

    /// True while a guest is in user space: from the end of its boot until it is told to go down.
    pub fn guest_up(&self, vmid: u32) -> bool {
        self.vms.get(&vmid).and_then(|vm| vm.running.as_ref()).is_some_and(|r| !r.halting && self.now >= r.up_at)
    }

    /// True while a guest's sshd listens.
    pub fn guest_ssh_up(&self, vmid: u32) -> bool {
        let running = self.vms.get(&vmid).and_then(|vm| vm.running.as_ref());
        self.guest_up(vmid) && running.is_some_and(|r| self.now >= r.ssh_at)
    }

    /// True while a guest's agent answers.
    pub fn agent_up(&self, vmid: u32) -> bool {
        let Some(vm) = self.vms.get(&vmid) else { return false };
        let manner = vm.guest.agent;
        let running = vm.running.as_ref().is_some_and(|r| r.agent_port && self.now >= r.agent_at);
        self.guest_up(vmid) && running && manner.installed && manner.enabled && !manner.silent
    }

    /// True where a machine's process was started with the agent's channel.
    pub fn agent_port(&self, vmid: u32) -> bool {
        self.vms.get(&vmid).and_then(|vm| vm.running.as_ref()).is_some_and(|r| r.agent_port)
    }

    /// A guest's boot id; none while it is not up.
    pub fn boot_id(&self, vmid: u32) -> Option<String> {
        let running = self.vms.get(&vmid)?.running.as_ref()?;
        self.guest_up(vmid).then(|| running.boot_id.clone())
    }

    /// The machine whose guest is a Kubernetes node.
    pub fn vm_of_node(&self, node: &str) -> Option<u32> {
        self.vms.iter().find(|(_, vm)| vm.guest.node.as_deref() == Some(node)).map(|(vmid, _)| *vmid)
    }

    /// A program in a guest uses the Corals that it sees: each whose firmware is not loaded drops off the bus and
    /// comes back with its other identity. Returns how many were seen.
    pub fn use_coral(&mut self, vmid: u32) -> usize {
        let Some(vm) = self.vms.get(&vmid).filter(|_| self.guest_up(vmid)) else { return 0 };
        let (Some(running), Some(host)) = (vm.running.as_ref(), self.hosts.get(&vm.node)) else { return 0 };
        let mut fresh = Vec::new();
        let mut count = 0;
        for (name, stick) in self.sticks.iter().filter(|(_, s)| s.present) {
            let Firmware::Coral { .. } = &stick.firmware else { continue };
            let Some(place) = stick.at.as_ref().filter(|p| p.host == vm.node) else { continue };
            let Some((port, _)) = host.landing(&place.port, stick.max_speed) else { continue };
            if running.usb.values().any(|a| a.host_port == port && a.host_devnum == stick.devnum) {
                count += 1;
                if stick.state == StickState::Boot {
                    fresh.push(name.clone());
                }
            }
        }
        for name in fresh {
            if let Some(stick) = self.sticks.get_mut(&name) {
                stick.present = false;
            }
            self.later(self.timing.reenumerate, Event::StickBack(name));
        }
        self.settle_usb();
        count
    }

    /// A UUID that nothing else in this world has.
    pub fn uuid(&mut self) -> String {
        self.counter += 1;
        let digest = Sha256::digest(format!("{} {} {}", self.name, self.zero, self.counter));
        let hex: String = digest.iter().take(16).map(|b| format!("{b:02x}")).collect();
        let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
        format!("{}-{}-4{}-8{}-{}", part(0, 8), part(8, 12), part(13, 16), part(17, 20), part(20, 32))
    }
}

/// `agent=` says that the agent is on.
pub fn agent_on(value: &str) -> bool {
    value.split(',').any(|p| matches!(p, "1" | "on" | "yes" | "true" | "enabled=1"))
}

/// The machine type that a process gets: an unversioned one is the newest.
fn full_machine(configured: &str) -> String {
    match configured.split(',').next().unwrap_or_default() {
        "q35" => "pc-q35-10.1+pve0".into(),
        "" | "pc" => "pc-i440fx-10.1+pve0".into(),
        versioned => versioned.to_owned(),
    }
}
