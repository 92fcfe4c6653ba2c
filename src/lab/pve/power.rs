//! What the workers of pve tasks do: start, stop, shutdown, reboot, reset, and the daemons behind them.

use serde_json::json;

use crate::lab::agenda::Event;
use crate::lab::world::{Shutdown, World};

/// How long anybody waits for a config's file lock.
pub(super) const FLOCK_SECONDS: i64 = 10;

/// What is said when that was in vain.
pub(super) fn flock_text(vmid: u32) -> String {
    format!("can't lock file '/var/lock/qemu-server/lock-{vmid}.conf' - got timeout")
}

impl World {
    /// Forks a worker for a machine: the task begins now and acts a little later. Returns its UPID.
    pub fn fork(&mut self, kind: &str, vmid: u32, user: &str, order: serde_json::Value) -> String {
        let node = self.vms.get(&vmid).map(|vm| vm.node.clone()).unwrap_or_default();
        let upid = self.begin_task(&node, kind, &vmid.to_string(), user, order);
        self.later(self.timing.process, Event::Work(upid.clone()));
        upid
    }

    /// A worker reaches the point where it acts.
    pub(in crate::lab) fn work(&mut self, upid: &str) {
        let Some(task) = self.task(upid).filter(|t| t.end.is_none()) else { return };
        let (kind, user, order) = (task.kind.clone(), task.user.clone(), task.order.clone());
        let Ok(vmid) = task.id.parse::<u32>() else { return };
        if kind.starts_with("qm") && self.flock_held(vmid, upid) {
            let waited = self.unix(self.now) - self.task(upid).map_or(0, |t| t.starttime);
            if waited >= FLOCK_SECONDS {
                return self.end_task(upid, Err(flock_text(vmid)));
            }
            return self.later(250, Event::Work(upid.to_owned()));
        }
        let locked = self.vms.get(&vmid).and_then(|vm| vm.lock.clone());
        if let Some(lock) = locked {
            return self.end_task(upid, Err(format!("VM is locked ({lock})")));
        }
        match kind.as_str() {
            "qmstart" => {
                let outcome = self.start_now(vmid);
                let outcome = outcome.and_then(|()| self.warn_of_firmware(upid, vmid));
                self.end_task(upid, outcome);
            }
            "qmstop" => {
                self.power_off(vmid);
                self.after_stop(vmid);
                self.end_task(upid, Ok(()));
            }
            "qmreset" => {
                self.reset(vmid);
                self.end_task(upid, Ok(()));
            }
            "qmshutdown" | "qmreboot" => self.begin_shutdown(upid, vmid, kind == "qmreboot", &order),
            "qmconfig" => {
                let outcome = super::config::work(self, vmid, &user, &order);
                self.end_task(upid, outcome);
            }
            "hastart" | "hastop" => {
                self.log_task(upid, format!("Requesting HA {} for VM {vmid}", kind.trim_start_matches("ha")));
                self.ha.insert(vmid, if kind == "hastart" { "started".into() } else { "stopped".into() });
                self.later(5_000, Event::HaStep(vmid));
                self.end_task(upid, Ok(()));
            }
            _ => self.end_task(upid, Err(format!("unknown worker '{kind}'"))),
        }
    }

    /// Somebody interrupts the pve task that waits for a machine's shutdown; the guest may power off all the same.
    pub(super) fn interrupt_shutdown(&mut self, vmid: u32) {
        if let Some(waiting) = self.vms.get_mut(&vmid).and_then(|vm| vm.shutdown.take()) {
            self.end_task(&waiting.upid, Err("received interrupt".into()));
        }
    }

    /// Whether the file lock of a machine's config is held by somebody else than the pve task `upid`.
    pub(super) fn flock_held(&self, vmid: u32, upid: &str) -> bool {
        self.vms.get(&vmid).is_some_and(|vm| {
            vm.shutdown.as_ref().is_some_and(|s| s.upid != upid) || vm.flock_until.is_some_and(|until| until > self.now)
        })
    }

    fn start_now(&mut self, vmid: u32) -> Result<(), String> {
        let vm = self.vms.get(&vmid).ok_or_else(|| format!("VM {vmid} does not exist"))?;
        if vm.running.is_some() {
            return Err(format!("VM {vmid} already running"));
        }
        super::config::apply_pending(self, vmid);
        self.power_on(vmid, self.now)
    }

    /// A machine with UEFI and no disk for its variables starts, and its pve task ends with a warning
    /// (qemu-server's `QemuServer/OVMF.pm`).
    fn warn_of_firmware(&mut self, upid: &str, vmid: u32) -> Result<(), String> {
        let Some(vm) = self.vms.get(&vmid) else { return Ok(()) };
        if vm.config.get("bios").map(String::as_str) != Some("ovmf") || vm.config.contains_key("efidisk0") {
            return Ok(());
        }
        self.log_task(upid, "WARN: no efidisk configured! Using temporary efivars disk.");
        Err("WARNINGS: 1".into())
    }

    fn begin_shutdown(&mut self, upid: &str, vmid: u32, start_again: bool, order: &serde_json::Value) {
        let Some(vm) = self.vms.get_mut(&vmid) else { return };
        if vm.running.is_none() {
            return self.end_task(upid, Ok(()));
        }
        vm.shutdown = Some(Shutdown { upid: upid.to_owned(), start_again });
        let default = vm
            .config
            .get("startup")
            .and_then(|s| s.split(',').find_map(|p| p.strip_prefix("down=")).and_then(|d| d.parse::<u64>().ok()));
        let seconds = order.get("timeout").and_then(serde_json::Value::as_u64).or(default).unwrap_or(60);
        self.ask_to_halt(vmid);
        self.later(seconds.saturating_mul(1_000), Event::TimeUp(upid.to_owned()));
    }

    /// The patience of a shutdown ends: by force where it was asked for, else the pve task fails, and the guest may
    /// still power off later and stay off.
    pub(in crate::lab) fn time_up(&mut self, upid: &str) {
        let Some(task) = self.task(upid).filter(|t| t.end.is_none()) else { return };
        let force = task.order.get("forceStop").and_then(serde_json::Value::as_bool).unwrap_or(false);
        let Ok(vmid) = task.id.parse::<u32>() else { return };
        if force {
            self.log_task(upid, "VM quit/powerdown failed - terminating now with SIGTERM");
            self.power_off(vmid);
            return self.after_stop(vmid);
        }
        if let Some(vm) = self.vms.get_mut(&vmid) {
            vm.shutdown = None;
        }
        self.end_task(upid, Err("VM quit/powerdown failed - got timeout".into()));
    }

    /// A guest has powered off.
    pub(in crate::lab) fn guest_off(&mut self, vmid: u32, pid: u32) {
        let same = self.vms.get(&vmid).and_then(|vm| vm.running.as_ref()).is_some_and(|r| r.pid == pid && r.halting);
        if same {
            self.power_off(vmid);
            self.after_stop(vmid);
        }
    }

    /// The process is gone: whoever waited for that is told. A reboot's start is another pve task, made by a daemon.
    fn after_stop(&mut self, vmid: u32) {
        let waiting = self.vms.get_mut(&vmid).and_then(|vm| vm.shutdown.take());
        if let Some(Shutdown { upid, start_again }) = waiting {
            let user = self.task(&upid).map(|t| t.user.clone()).unwrap_or_default();
            self.end_task(&upid, Ok(()));
            if start_again {
                return self.later(self.timing.restart, Event::Restart { vmid, user });
            }
        }
        if self.ha.get(&vmid).is_some_and(|state| state == "started") {
            self.later(5_000, Event::HaStep(vmid));
        }
    }

    /// The event daemon starts a machine after a reboot.
    pub(in crate::lab) fn restart(&mut self, vmid: u32, user: &str) {
        if self.vms.get(&vmid).is_some_and(|vm| vm.running.is_none()) {
            self.fork("qmstart", vmid, user, json!({}));
        }
    }

    /// The high-availability daemon looks at a machine and makes it as requested.
    pub(in crate::lab) fn ha_step(&mut self, vmid: u32) {
        let running = self.vms.get(&vmid).is_some_and(|vm| vm.running.is_some());
        match (self.ha.get(&vmid).map(String::as_str), running) {
            (Some("started"), false) => {
                self.fork("qmstart", vmid, "root@pam", json!({}));
            }
            (Some("stopped"), true) => {
                self.fork("qmshutdown", vmid, "root@pam", json!({}));
            }
            _ => {}
        }
    }
}
