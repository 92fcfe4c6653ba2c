//! Programs in guests and on hosts: a closed set, each reading and changing the world as the real one would. A program
//! that is not in the set is "not found".

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::json;

use super::nvme;
use super::pve::agent::told;
use super::reading::Looker;
use super::usb::HostUsb;
use super::world::World;

/// What a command said and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOutcome {
    /// Exit code.
    pub exit: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// True where it is not one of the reading commands, whether or not it changed anything.
    pub changed: bool,
    /// True where there is no such program: a shell says 127, an agent that it cannot be started.
    pub missing: bool,
    /// How long it takes in lab time; the effect is there at once, the caller holds back the outcome.
    pub took: Duration,
}

impl ExecOutcome {
    pub(super) fn out(text: impl Into<String>) -> Self {
        Self { stdout: text.into().into_bytes(), ..Self::default() }
    }

    pub(super) fn fail(exit: i32, text: impl Into<String>) -> Self {
        Self { exit, stderr: text.into().into_bytes(), ..Self::default() }
    }

    pub(super) fn not_found(program: &str) -> Self {
        Self { missing: true, ..Self::fail(127, format!("sh: 1: {program}: not found\n")) }
    }
}

/// Where a command runs.
#[derive(Debug, Clone, Copy)]
enum Seat<'a> {
    Guest(u32),
    Host(&'a str),
}

impl World {
    /// Runs a command in a guest, as root. `argv[0]` is the program; no shell unless it is one. A guest that is not up
    /// says nothing: ask [`World::guest_up`] first.
    pub fn guest_exec(&mut self, vmid: u32, argv: &[String], stdin: &[u8]) -> ExecOutcome {
        let changed = !self.reads_only(argv);
        let line = argv.join(" ");
        let answer = self.vms.get(&vmid).and_then(|vm| vm.guest.answers.get(&line)).cloned();
        let outcome = match answer {
            Some(a) => ExecOutcome {
                exit: a.exit,
                stdout: a.stdout.into_bytes(),
                stderr: a.stderr.into_bytes(),
                took: Duration::from_millis(a.took_ms),
                ..ExecOutcome::default()
            },
            // The one program that does something with what it is given.
            None if argv == ["cat"] => ExecOutcome { stdout: stdin.to_vec(), ..ExecOutcome::default() },
            None => self.run(Seat::Guest(vmid), argv),
        };
        ExecOutcome { changed, ..outcome }
    }

    /// Runs a command on a Proxmox node, as root.
    pub fn host_exec(&mut self, host: &str, argv: &[String], _stdin: &[u8]) -> ExecOutcome {
        let changed = !self.reads_only(argv);
        ExecOutcome { changed, ..self.run(Seat::Host(host), argv) }
    }

    fn run(&mut self, seat: Seat<'_>, argv: &[String]) -> ExecOutcome {
        let words: Vec<&str> = argv.iter().map(String::as_str).collect();
        let Some((program, args)) = words.split_first() else { return ExecOutcome::fail(2, "no command\n") };
        let name = program.rsplit('/').next().unwrap_or_default();
        match (name, args) {
            ("sh" | "bash" | "dash", ["-c", script, ..]) => self.script(seat, script),
            ("sudo" | "nice" | "env" | "timeout" | "nohup", _) => {
                let rest = bare(argv);
                if rest.len() == argv.len() { ExecOutcome::fail(2, "usage\n") } else { self.run(seat, rest) }
            }
            ("apt-get" | "apt", _) => self.apt(seat, args),
            ("reboot" | "poweroff", []) | ("systemctl", ["reboot" | "poweroff"]) => {
                self.leave(seat, name == "reboot" || args == ["reboot"])
            }
            ("qm", _) => match seat {
                Seat::Host(host) => self.qm(host, args),
                Seat::Guest(_) => ExecOutcome::not_found(program),
            },
            _ => match self.looker(seat) {
                Some(looker) => looker.run(name, args).unwrap_or_else(|| ExecOutcome::not_found(program)),
                None => ExecOutcome::not_found(program),
            },
        }
    }

    /// Commands of a shell line, joined by `;`, `&&` and `||`. Pipes and the like are not modelled and say so.
    fn script(&mut self, seat: Seat<'_>, script: &str) -> ExecOutcome {
        let mut whole = ExecOutcome::default();
        for (join, command) in super::words::commands(script) {
            let skip = match join {
                "&&" => whole.exit != 0,
                "||" => whole.exit == 0,
                _ => false,
            };
            if skip {
                continue;
            }
            let (words, quiet) = match super::words::words(&command, self.looker(seat).as_ref()) {
                Ok(split) => split,
                Err(text) => return ExecOutcome::fail(2, format!("sh: 1: {text}\n")),
            };
            if words.is_empty() {
                continue;
            }
            let next = self.run(seat, &words);
            whole.exit = next.exit;
            whole.stdout.extend(next.stdout);
            if !quiet {
                whole.stderr.extend(next.stderr);
            }
            whole.took += next.took;
        }
        whole
    }

    fn apt(&mut self, seat: Seat<'_>, args: &[&str]) -> ExecOutcome {
        let Seat::Guest(vmid) = seat else { return ExecOutcome::fail(100, "E: not on a host\n") };
        let took = Duration::from_millis(self.timing.install);
        let mut plain = args.iter().filter(|a| !a.starts_with('-'));
        let verb = plain.next().copied().unwrap_or_default();
        let packages: Vec<&str> = plain.copied().collect();
        let Some(vm) = self.vms.get_mut(&vmid) else { return ExecOutcome::not_found("apt-get") };
        let guest = &mut vm.guest;
        let mut text = String::from("Reading package lists...\n");
        match verb {
            "update" => return ExecOutcome { took, ..ExecOutcome::out(text) },
            "install" => {
                for package in &packages {
                    if guest.installed.contains(*package) {
                        text += &format!("{package} is already the newest version.\n");
                    } else if !guest.available.contains(*package) {
                        return ExecOutcome::fail(100, format!("E: Unable to locate package {package}\n"));
                    }
                }
                for package in packages {
                    if guest.installed.insert(package.to_owned()) {
                        text += &format!("Setting up {package} ...\n");
                    }
                }
            }
            "remove" | "purge" => {
                for package in packages {
                    if guest.installed.remove(package) {
                        guest.available.insert(package.to_owned());
                        text += &format!("Removing {package} ...\n");
                    } else {
                        text += &format!("Package '{package}' is not installed, so not removed\n");
                    }
                }
            }
            other => return ExecOutcome::fail(100, format!("E: Invalid operation {other}\n")),
        }
        ExecOutcome { took, ..ExecOutcome::out(text) }
    }

    /// A reboot from inside is a reset of the same process; a power-off ends it, and nobody starts it again.
    fn leave(&mut self, seat: Seat<'_>, again: bool) -> ExecOutcome {
        let Seat::Guest(vmid) = seat else { return ExecOutcome::fail(1, "refused: hosts stay on\n") };
        if again {
            self.reset(vmid);
        } else {
            self.ask_to_halt(vmid);
        }
        ExecOutcome::default()
    }

    /// `qm` on a node (qemu-server `PVE/CLI/qm.pm`).
    fn qm(&mut self, host: &str, args: &[&str]) -> ExecOutcome {
        let vmid: Option<u32> = args.iter().find_map(|a| a.parse().ok());
        let here = vmid.filter(|id| self.vms.get(id).is_some_and(|vm| vm.node == host));
        let Some(id) = here else {
            let vmid = vmid.unwrap_or_default();
            return ExecOutcome::fail(
                2,
                format!("Configuration file 'nodes/{host}/qemu-server/{vmid}.conf' does not exist\n"),
            );
        };
        match args {
            ["status", _] => {
                let running = self.vms.get(&id).is_some_and(|vm| vm.running.is_some());
                ExecOutcome::out(if running { "status: running\n" } else { "status: stopped\n" })
            }
            ["config", _, ..] => {
                let lines = self.vms.get(&id).map(|vm| {
                    let mut config = vm.config.clone();
                    config.extend(vm.pending.clone());
                    config.retain(|key, _| !vm.pending_delete.contains_key(key));
                    config.iter().map(|(k, v)| format!("{k}: {v}\n")).collect::<String>()
                });
                ExecOutcome::out(lines.unwrap_or_default())
            }
            ["agent", _, "ping"] | ["guest", "cmd", _, "ping"] => match self.agent_says(id) {
                Ok(()) => ExecOutcome::out(""),
                Err(refusal) => refusal,
            },
            ["guest", "exec", _, rest @ ..] => {
                let at = rest.iter().position(|a| *a == "--");
                let (flags, argv) = at.map_or((&[][..], rest), |i| (&rest[..i], &rest[i + 1..]));
                let limit =
                    flags.windows(2).find(|w| w[0] == "--timeout").and_then(|w| w[1].parse().ok()).unwrap_or(30);
                self.qm_exec(id, argv, Duration::from_secs(limit))
            }
            _ => ExecOutcome::fail(255, format!("ERROR: unknown command 'qm {}'\n", args.join(" "))),
        }
    }

    fn agent_says(&self, vmid: u32) -> Result<(), ExecOutcome> {
        let Some(vm) = self.vms.get(&vmid) else { return Err(ExecOutcome::fail(255, "no such machine\n")) };
        if !vm.config.contains_key("agent") {
            return Err(ExecOutcome::fail(255, "No QEMU guest agent configured\n"));
        }
        if vm.running.is_none() {
            return Err(ExecOutcome::fail(255, format!("VM {vmid} is not running\n")));
        }
        if vm.guest.agent_socket.is_some() {
            return Err(ExecOutcome::fail(255, "the lab hands a real agent on to the API alone\n"));
        }
        if !self.agent_up(vmid) {
            let refusal = ExecOutcome::fail(255, "QEMU guest agent is not running\n");
            return Err(ExecOutcome { took: Duration::from_secs(3), ..refusal });
        }
        Ok(())
    }

    fn qm_exec(&mut self, vmid: u32, argv: &[&str], limit: Duration) -> ExecOutcome {
        if let Err(refusal) = self.agent_says(vmid) {
            return refusal;
        }
        if self.vms.get(&vmid).is_some_and(|vm| !vm.guest.agent.exec_allowed) {
            return ExecOutcome::fail(255, "Agent error: Command guest-exec has been disabled\n");
        }
        let words: Vec<String> = argv.iter().map(|a| (*a).to_owned()).collect();
        let outcome = self.guest_exec(vmid, &words, &[]);
        if outcome.missing {
            let program = argv.first().copied().unwrap_or_default();
            return ExecOutcome::fail(
                255,
                format!(
                    "Agent error: Guest agent command failed, error was 'Failed to execute child process “{program}” (No such file or directory)'\n"
                ),
            );
        }
        let pid = self.new_pid();
        if outcome.took > limit {
            let text = format!("{:#}\n", json!({ "pid": pid }));
            return ExecOutcome {
                took: limit,
                stderr: b"timeout reached, returning pid\n".to_vec(),
                ..ExecOutcome::out(text)
            };
        }
        let said = told(outcome.exit, &outcome.stdout, &outcome.stderr);
        ExecOutcome { took: outcome.took, ..ExecOutcome::out(format!("{said:#}\n")) }
    }

    /// A guest's file, `/proc` and `/sys` included.
    pub fn guest_file(&self, vmid: u32, path: &str) -> Option<String> {
        self.looker(Seat::Guest(vmid))?.files.get(path).cloned()
    }

    /// Whether a path exists in a guest.
    pub fn guest_path(&self, vmid: u32, path: &str) -> bool {
        self.looker(Seat::Guest(vmid)).is_some_and(|l| l.exists(path))
    }

    /// What `pycoral`'s `list_edge_tpus()` prints in a guest, or in a container that sees the guest's USB devices.
    pub fn edge_tpus(&self, vmid: u32) -> String {
        let seen: Vec<String> = self
            .guest_usb(vmid)
            .iter()
            .filter(|d| matches!(d.id.as_str(), "1a6e:089a" | "18d1:9302"))
            .map(|d| format!("{{'type': 'usb', 'path': '/sys/bus/usb/devices/{}'}}", d.port()))
            .collect();
        format!("[{}]\n", seen.join(", "))
    }

    fn looker(&self, seat: Seat<'_>) -> Option<Looker> {
        let time = self.unix(self.now);
        match seat {
            Seat::Guest(vmid) => {
                let vm = self.vms.get(&vmid)?;
                let running = vm.running.as_ref()?;
                let guest = &vm.guest;
                let mut files = guest.files.clone();
                files.insert("/proc/sys/kernel/random/boot_id".into(), format!("{}\n", running.boot_id));
                let up = self.now.saturating_sub(running.boot).as_secs_f64();
                let usb = self.guest_usb(vmid);
                let (drives, nodes) = nvme::shown(&guest.drives);
                files.extend(drives);
                let looker = Looker {
                    hostname: guest.hostname.clone(),
                    kernel: "6.1.0-37-amd64".into(),
                    paths: guest.paths.iter().chain(nodes.keys()).cloned().collect(),
                    nodes,
                    installed: guest.installed.clone(),
                    used: guest.used.clone(),
                    ..Looker::default()
                };
                Some(looker.with(files, usb, up, time))
            }
            Seat::Host(name) => {
                let host = self.hosts.get(name)?;
                let looker = Looker {
                    hostname: name.to_owned(),
                    kernel: "6.17.4-1-pve".into(),
                    paths: host.paths.clone(),
                    installed: BTreeSet::from(["pve-manager".to_owned(), "qemu-server".to_owned()]),
                    ..Looker::default()
                };
                let mut files = host.files.clone();
                files.extend(self.host_drives(name));
                Some(looker.with(files, self.host_usb(name), self.now.as_secs_f64() + 1_814_400.0, time))
            }
        }
    }

    /// Whether a command only reads: in the closed list, or declared so by the site.
    pub fn reads_only(&self, argv: &[String]) -> bool {
        let declared = |prefix: &Vec<String>| !prefix.is_empty() && argv.starts_with(prefix);
        self.reading_commands.iter().any(declared) || super::reading::reads_only(argv)
    }
}

/// A command without what is put in front of it: `sudo -n`, `timeout -k 1 5`, `env A=b`.
pub(super) fn bare(argv: &[String]) -> &[String] {
    let Some((program, rest)) = argv.split_first() else { return argv };
    let skip = match program.rsplit('/').next().unwrap_or_default() {
        "sudo" | "nice" | "nohup" => rest.iter().take_while(|a| a.starts_with('-')).count(),
        "env" => rest.iter().take_while(|a| a.starts_with('-') || a.contains('=')).count(),
        "timeout" => {
            let mut skip = 0;
            while let Some(arg) = rest.get(skip).filter(|a| a.starts_with('-')) {
                skip += if matches!(arg.as_str(), "-k" | "-s") { 2 } else { 1 };
            }
            skip + 1
        }
        _ => return argv,
    };
    rest.get(skip..).unwrap_or_default()
}

/// The folder `/sys/bus/usb/devices` for a list of devices.
pub(super) fn usb_files(devices: &[HostUsb]) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for device in devices {
        let (vendor, product) = device.id.split_once(':').unwrap_or_default();
        let mut put = |name: &str, text: String| {
            files.insert(format!("/sys/bus/usb/devices/{}/{name}", device.port()), format!("{text}\n"));
        };
        put("idVendor", vendor.to_owned());
        put("idProduct", product.to_owned());
        put("speed", device.speed.to_string());
        put("busnum", device.bus.to_string());
        put("devnum", device.dev.to_string());
        if !device.product.is_empty() {
            put("product", device.product.clone());
        }
        if let Some(serial) = &device.serial {
            put("serial", serial.clone());
        }
    }
    files
}
