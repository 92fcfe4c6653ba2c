//! Real machines: where a guest of the world names an image, a QEMU process plays it.
//!
//! The world stays the one model. It says which machines run, what they are told to do and which USB devices they
//! hold; a [`Player`] for each real machine makes its process do so, and tells the world what only the real guest
//! knows: when it is up, its boot id, that it has gone off. Agent calls go to the guest's agent, logins to its sshd,
//! which stands behind the port that the lab has for it.

mod process;
pub(super) mod qga;
mod qmp;
mod redir;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use russh::keys::{PrivateKey, ssh_key::private::KeypairData};
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::task::JoinSet;

use super::files::Keys;
use super::nvme::NvmeDrive;
use super::usb::HostUsb;
use super::world::{Attached, SshManner, World};
use super::{Fronts, LabError, Shared, ssh};
use crate::base::wait::within;
use process::{Hardware, Process};
use qga::Agent;
use redir::Device;

/// How long Proxmox waits for an agent's ping before it presses the power button instead.
const PING: Duration = Duration::from_secs(3);
/// How long a guest may take to let go of a USB device.
const UNPLUG: Duration = Duration::from_secs(5);

/// A device that a process holds, and the kind of controller.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    attached: Attached,
    usb: HostUsb,
    xhci: bool,
}

/// What the world wants of a machine that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Want {
    pid: u32,
    boot_id: String,
    usb: BTreeMap<String, Held>,
    /// The pve task that waits for the guest to go off.
    shutdown: Option<String>,
    ssh: bool,
}

impl World {
    fn wants(&self, vmid: u32) -> Option<Want> {
        let vm = self.vms.get(&vmid)?;
        let running = vm.running.as_ref()?;
        let (devices, new_style) = (self.host_usb(&vm.node), vm.new_style_usb());
        let held = |(key, attached): (&String, &Attached)| {
            let usb = devices.iter().find(|d| d.port() == attached.host_port && d.dev == attached.host_devnum)?;
            let xhci = new_style || running.plugs.get(key).is_some_and(|plug| plug.usb3);
            Some((key.clone(), Held { attached: attached.clone(), usb: usb.clone(), xhci }))
        };
        Some(Want {
            pid: running.pid,
            boot_id: running.boot_id.clone(),
            usb: running.usb.iter().filter_map(held).collect(),
            shutdown: vm.shutdown.as_ref().map(|shutdown| shutdown.upid.clone()),
            ssh: vm.guest.ssh == SshManner::Serves,
        })
    }
}

/// Starts the processes of the real machines that run, waits until their guests are up, and keeps them in step with the
/// world from then on.
///
/// # Errors
/// [`LabError::Machine`] where a process cannot be started, or its guest does not come up.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    keys: &Keys,
    ports: &ssh::Ports,
    dir: &Path,
    fronts: &mut Fronts,
) -> Result<(), LabError> {
    let real = |world: &World| {
        let vms = world.vms.iter().filter_map(|(id, vm)| {
            let card = vm.config.get("net0").and_then(|line| line.split(['=', ',']).nth(1)).unwrap_or_default();
            Some((*id, vm.guest.image.clone()?, card.to_lowercase(), vm.guest.hostname.clone()))
        });
        vms.collect::<Vec<_>>()
    };
    for (vmid, image, mac, hostname) in shared.read(real) {
        let failed = |error: io::Error| LabError::Machine { vmid, why: error.to_string() };
        let dir = dir.join(format!("vm-{vmid}"));
        std::fs::create_dir_all(&dir)?;
        let (Some(port), Some(key)) = (ports.guests.get(&vmid), keys.guests.get(&vmid)) else { continue };
        let hardware = Hardware { image, dir, port: *port, mac };
        let socket = hardware.agent();
        shared.change(|world| {
            if let Some(vm) = world.vms.get_mut(&vmid) {
                vm.guest.agent_socket = Some(socket);
            }
        });
        let settled = settle(key, &keys.user, &hostname).map_err(failed)?;
        let mut player = Player { shared: shared.clone(), vmid, hardware, settled, machine: None, plugged: 0 };
        player.begin().await.map_err(failed)?;
        fronts.spawn(player.play());
    }
    Ok(())
}

/// What makes a guest that has just booted one of this lab: its name and its keys, as a script.
fn settle(host: &PrivateKey, user: &PrivateKey, hostname: &str) -> io::Result<String> {
    let KeypairData::Ed25519(pair) = host.key_data() else { return Err(io::Error::other("no Ed25519 host key")) };
    // Dropbear's form: the kind, then both halves as one string.
    let kind = b"ssh-ed25519";
    let length = |n: usize| u32::try_from(n).unwrap_or_default().to_be_bytes();
    let key = [&length(kind.len()), &kind[..], &length(64), &pair.private.to_bytes(), &pair.public.0].concat();
    let user = user.public_key().to_openssh().map_err(io::Error::other)?;
    Ok(format!(
        "umask 077 && mkdir -p /root/.ssh /etc/dropbear && echo {} | base64 -d >/etc/dropbear/host && \
         echo '{user}' >/root/.ssh/authorized_keys && hostname {hostname} && cat /proc/sys/kernel/random/boot_id",
        STANDARD.encode(key)
    ))
}

struct Machine {
    process: Process,
    /// The world's number for it.
    pid: u32,
    /// The boot that the world was told of, or has ordered.
    boot_id: String,
    /// Whether sshd was told to run; None before the guest is up.
    ssh: Option<bool>,
    /// The pve task for which the guest was told to go off.
    shutdown: Option<String>,
    usb: BTreeMap<String, (Held, String)>,
    devices: JoinSet<()>,
    /// The guest on its way up, on its own: it takes its turn at the agent as others do. Gives its boot id.
    rising: JoinSet<io::Result<String>>,
}

/// Keeps one process in step with the world.
struct Player {
    shared: Arc<Shared>,
    vmid: u32,
    hardware: Hardware,
    settled: String,
    machine: Option<Machine>,
    /// How many devices were plugged in so far; each gets a name of its own.
    plugged: u32,
}

enum Heard {
    World,
    Up(io::Result<String>),
    Qemu(io::Result<Value>),
    LabEnded,
}

impl Player {
    /// A machine that the world begins with has been up for a while: its guest is resumed and waited for.
    async fn begin(&mut self) -> io::Result<()> {
        let Some(want) = self.wants() else { return Ok(()) };
        let drives = self.drives();
        // QEMU does not save the state of NVMe drives.
        let process =
            if drives.is_empty() { self.hardware.resume().await? } else { self.hardware.start(&drives).await? };
        let mut machine = self.machine(process, &want);
        let boot_id = machine.rising.join_next().await.ok_or(io::ErrorKind::Other)???;
        self.machine = Some(machine);
        self.came_up(boot_id);
        self.follow().await
    }

    async fn play(mut self) {
        let mut changes = self.shared.changes();
        changes.mark_changed();
        loop {
            let heard = match &mut self.machine {
                None => changes.changed().await.map_or(Heard::LabEnded, |()| Heard::World),
                Some(machine) => tokio::select! {
                    biased;
                    event = machine.process.qmp.event() => Heard::Qemu(event),
                    Some(up) = machine.rising.join_next() => Heard::Up(up.unwrap_or_else(|e| Err(io::Error::other(e)))),
                    changed = changes.changed() => changed.map_or(Heard::LabEnded, |()| Heard::World),
                },
            };
            let done = match heard {
                Heard::LabEnded => return,
                Heard::World => self.follow().await,
                Heard::Up(Ok(boot_id)) => {
                    self.came_up(boot_id);
                    self.follow().await
                }
                // A guest that does not come up hangs, as far as the world can know.
                Heard::Up(Err(error)) => Err(error),
                Heard::Qemu(Ok(event)) => self.heard(&event),
                Heard::Qemu(Err(_)) => self.gone().await,
            };
            if let Err(error) = done {
                tracing::error!(vmid = self.vmid, %error, "a real machine does not do what the world says");
            }
        }
    }

    fn wants(&self) -> Option<Want> {
        self.shared.read(|world| world.wants(self.vmid))
    }

    fn drives(&self) -> Vec<NvmeDrive> {
        self.shared.read(|world| world.vms.get(&self.vmid).map(|vm| vm.guest.drives.clone()).unwrap_or_default())
    }

    fn machine(&self, process: Process, want: &Want) -> Machine {
        Machine {
            process,
            pid: want.pid,
            boot_id: want.boot_id.clone(),
            ssh: None,
            shutdown: None,
            usb: BTreeMap::new(),
            devices: JoinSet::new(),
            rising: self.rising(),
        }
    }

    /// Waits for the guest's agent and makes the guest one of this lab.
    fn rising(&self) -> JoinSet<io::Result<String>> {
        let (shared, socket, script) = (self.shared.clone(), self.hardware.agent(), self.settled.clone());
        let mut rising = JoinSet::new();
        rising.spawn(async move {
            drop(process::answer(&socket).await?);
            let said = run(&shared, &socket, &script).await?;
            Ok(said.trim().to_owned())
        });
        rising
    }

    /// The same process boots once more; `boot_id` is the world's word for that until the guest tells its own.
    fn rises_again(&mut self, boot_id: String) {
        let rising = self.rising();
        if let Some(machine) = &mut self.machine {
            (machine.boot_id, machine.ssh, machine.rising) = (boot_id, None, rising);
        }
    }

    fn came_up(&mut self, boot_id: String) {
        let Some(machine) = &mut self.machine else { return };
        machine.boot_id.clone_from(&boot_id);
        machine.ssh = Some(false);
        let pid = machine.pid;
        self.shared.change(|world| world.guest_came_up(self.vmid, pid, &boot_id));
    }

    /// Makes the process what the world wants it to be.
    async fn follow(&mut self) -> io::Result<()> {
        let want = self.wants();
        if self.machine.as_ref().map(|m| m.pid) != want.as_ref().map(|w| w.pid)
            && let Some(machine) = self.machine.take()
        {
            machine.process.end().await;
        }
        let Some(want) = want else { return Ok(()) };
        if self.machine.is_none() {
            let process = self.hardware.start(&self.drives()).await?;
            self.machine = Some(self.machine(process, &want));
        }
        if let Some(machine) = self.machine.as_mut().filter(|machine| machine.boot_id != want.boot_id) {
            machine.process.qmp.ask("system_reset", Value::Null).await?;
            self.rises_again(want.boot_id.clone());
        }
        let Some(machine) = &mut self.machine else { return Ok(()) };
        let gone: Vec<String> = machine
            .usb
            .iter()
            .filter(|(key, (held, _))| want.usb.get(*key) != Some(held))
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            if let Some((_, name)) = machine.usb.remove(&key) {
                unplug(machine, &name).await?;
            }
        }
        for (key, held) in &want.usb {
            if !machine.usb.contains_key(key) {
                self.plugged += 1;
                let name = format!("{key}-{}", self.plugged);
                plug(machine, &self.hardware.dir, &name, held).await?;
                machine.usb.insert(key.clone(), (held.clone(), name));
            }
        }
        if machine.ssh.is_some_and(|running| running != want.ssh) {
            let script = if want.ssh { "dropbear -r /etc/dropbear/host >/dev/null 2>&1" } else { "killall dropbear" };
            run(&self.shared, &self.hardware.agent(), script).await?;
            machine.ssh = Some(want.ssh);
        }
        if want.shutdown.is_some() && machine.shutdown != want.shutdown {
            machine.shutdown.clone_from(&want.shutdown);
            halt(&self.shared, machine, &self.hardware.agent()).await?;
        }
        Ok(())
    }

    fn heard(&mut self, event: &Value) -> io::Result<()> {
        // A reset from inside: the same process, another boot.
        if event["event"] == "RESET" && event["data"]["guest"] == true {
            let boot_id = self.shared.change(|world| world.guest_reboots(self.vmid));
            self.rises_again(boot_id.unwrap_or_default());
        }
        Ok(())
    }

    /// The process has ended, by the guest's own doing unless the world knows of it.
    async fn gone(&mut self) -> io::Result<()> {
        if let Some(machine) = self.machine.take() {
            let pid = machine.pid;
            machine.process.end().await;
            self.shared.change(|world| world.guest_went_off(self.vmid, pid));
        }
        Ok(())
    }
}

/// Gives the process a device, behind a socket of its own.
async fn plug(machine: &mut Machine, dir: &Path, name: &str, held: &Held) -> io::Result<()> {
    let socket: PathBuf = dir.join(name);
    let (listener, device) = (UnixListener::bind(&socket)?, Device::new(&held.usb, held.xhci));
    machine.devices.spawn(async move {
        let served = async {
            let (stream, _) = listener.accept().await?;
            device.serve(stream).await
        };
        // It ends when QEMU lets go of the device.
        if let Err(error) = served.await {
            tracing::debug!(%error, "a USB device was let go of");
        }
    });
    let address = json!({ "type": "unix", "data": { "path": socket } });
    let backend = json!({ "type": "socket", "data": { "addr": address, "server": false } });
    machine.process.qmp.ask("chardev-add", json!({ "id": format!("c-{name}"), "backend": backend })).await?;
    let bus = if held.xhci { "xhci.0" } else { "ehci.0" };
    let device = json!({ "driver": "usb-redir", "id": name, "chardev": format!("c-{name}"), "bus": bus });
    machine.process.qmp.ask("device_add", device).await.map(|_| ())
}

/// Takes a device away and waits until it has gone; its chardev goes with it.
async fn unplug(machine: &mut Machine, name: &str) -> io::Result<()> {
    machine.process.qmp.ask("device_del", json!({ "id": name })).await?;
    let gone = |event: &Value| event["event"] == "DEVICE_DELETED" && event["data"]["device"] == name;
    within(UNPLUG, machine.process.qmp.wait_for(gone)).await.map_err(io::Error::other)?
}

/// Tells a guest to go off: through its agent where that answers, else by the power button.
async fn halt(shared: &Shared, machine: &mut Machine, socket: &Path) -> io::Result<()> {
    let _turn = shared.agents.lock().await;
    let asked = async {
        let mut agent = Agent::open(socket).await?;
        // Its success has no answer.
        agent.send("guest-shutdown", &json!({ "mode": "powerdown" })).await
    };
    match within(PING, asked).await {
        Ok(Ok(())) => Ok(()),
        _ => machine.process.qmp.ask("system_powerdown", Value::Null).await.map(|_| ()),
    }
}

/// Runs a script in a guest; its output.
async fn run(shared: &Shared, socket: &Path, script: &str) -> io::Result<String> {
    let _turn = shared.agents.lock().await;
    let run = async {
        let mut agent = Agent::open(socket).await?;
        let exec = json!({ "path": "/bin/sh", "arg": ["-c", script], "capture-output": true });
        let begun = agent.ask("guest-exec", &exec).await?.map_err(|error| io::Error::other(error.to_string()))?;
        let pid = json!({ "pid": begun["pid"] });
        loop {
            let end = agent.ask("guest-exec-status", &pid).await?;
            let end = end.map_err(|error| io::Error::other(error.to_string()))?;
            if end["exited"] == false {
                continue;
            }
            let text = |name: &str| {
                let bytes = STANDARD.decode(end[name].as_str().unwrap_or_default()).unwrap_or_default();
                String::from_utf8_lossy(&bytes).into_owned()
            };
            if end["exitcode"] == 0 {
                return Ok(text("out-data"));
            }
            return Err(io::Error::other(format!("in the guest: {}{}", end["exitcode"], text("err-data"))));
        }
    };
    within(Duration::from_secs(60), run).await.map_err(io::Error::other)?
}
