//! A QEMU process: its command line, its start, cold or from a saved state, and its end.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::process::{Child, Command};

use super::qga::Agent;
use super::qmp::Qmp;
use crate::base::clock::Clock;
use crate::base::wait::{Backoff, within};
use crate::lab::nvme::NvmeDrive;

const QEMU: &str = "qemu-system-x86_64";
/// How long a process may take until it can be spoken to, and until it has written its memory to a file.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a kernel may take to its agent; under emulation on a busy machine.
const BOOT: Duration = Duration::from_secs(240);
/// How long one answer of an agent may take while it is coming up.
const TRY: Duration = Duration::from_secs(1);

/// What a machine is made of.
#[derive(Debug, Clone)]
pub(super) struct Hardware {
    /// The folder with `vmlinux` and `initrd.cpio`; saved states are kept there as well.
    pub(super) image: PathBuf,
    /// The folder of its sockets and its console.
    pub(super) dir: PathBuf,
    /// The port of 127.0.0.1 that leads to its sshd.
    pub(super) port: u16,
    /// Of its network card.
    pub(super) mac: String,
}

/// A running process.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    pub(super) qmp: Qmp,
}

impl Hardware {
    pub(super) fn agent(&self) -> PathBuf {
        self.dir.join("agent")
    }

    /// Both kinds of USB controller are always there: what is on which is said when a device is plugged in.
    fn arguments(&self, dir: &str, port: u16, drives: &[NvmeDrive]) -> Vec<String> {
        let file = |name: &str| self.image.join(name).display().to_string();
        let (kernel, initrd) = (file("vmlinux"), file("initrd.cpio"));
        let console = format!("file,id=console,path={dir}/console.log");
        let qmp = format!("unix:{dir}/qmp,server=on,wait=off");
        let agent = format!("socket,id=agent,path={dir}/agent,server=on,wait=off");
        let user = format!("user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22");
        let card = format!("virtio-net-pci,netdev=net0,mac={}", self.mac);
        let words: [&[&str]; 10] = [
            &["-nodefaults", "-no-user-config", "-display", "none", "-machine", "pc,accel=tcg", "-cpu", "max"],
            &["-smp", "1", "-m", "256", "-kernel", &kernel, "-initrd", &initrd],
            &["-append", "console=ttyS0 quiet panic=-1"],
            &["-chardev", &console, "-serial", "chardev:console"],
            &["-qmp", &qmp],
            &["-chardev", &agent, "-device", "virtio-serial"],
            &["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"],
            &["-device", "qemu-xhci,id=xhci"],
            &["-device", "usb-ehci,id=ehci"],
            &["-netdev", &user, "-device", &card],
        ];
        let drives = drives.iter().enumerate().flat_map(|(number, drive)| {
            // A comma in a value is written twice.
            let escaped = |text: &str| text.replace(',', ",,");
            let (file, serial) = (escaped(&drive.file.display().to_string()), escaped(&drive.serial));
            let device = format!("nvme,serial={serial},addr={:#04x}", drive.addr);
            let devices = if drive.name.is_empty() {
                vec![format!("{device},drive=nvme-{number}")]
            } else {
                // A name is a subsystem's, and a controller of one takes its drive as a namespace alone (`hw/nvme/ctrl.c`).
                vec![
                    format!("nvme-subsys,id=name-{number},nqn={}", escaped(&drive.name)),
                    format!("{device},id=nvme-at-{number},subsys=name-{number}"),
                    format!("nvme-ns,drive=nvme-{number},bus=nvme-at-{number},shared=off"),
                ]
            };
            let mut words = vec!["-drive".to_owned(), format!("if=none,id=nvme-{number},format=raw,file={file}")];
            words.extend(devices.into_iter().flat_map(|device| ["-device".to_owned(), device]));
            words
        });
        words.concat().into_iter().map(str::to_owned).chain(drives).collect()
    }

    /// Starts the process with a kernel that boots.
    pub(super) async fn start(&self, drives: &[NvmeDrive]) -> io::Result<Process> {
        self.launch(&self.dir, self.arguments(&self.dir.display().to_string(), self.port, drives)).await
    }

    /// Starts the process with a guest that has booted once already, for all who have the same hardware: the first who
    /// asks boots it and saves its memory beside the image. A machine with NVMe drives has to be started: QEMU does not
    /// save those.
    pub(super) async fn resume(&self) -> io::Result<Process> {
        let state = self.state().await?;
        if !state.exists() {
            self.save(&state).await?;
        }
        let source = format!("exec:cat '{}'", state.display());
        let mut arguments = self.arguments(&self.dir.display().to_string(), self.port, &[]);
        arguments.extend(["-incoming".to_owned(), source]);
        let mut process = self.launch(&self.dir, arguments).await?;
        let mut pauses = Backoff::new(Clock::real(), Duration::from_millis(10), Duration::from_millis(100));
        let incoming = async {
            while process.qmp.ask("query-status", Value::Null).await?["status"] == "inmigrate" {
                pauses.pause().await;
            }
            process.qmp.ask("cont", Value::Null).await
        };
        within(PATIENCE, incoming).await.map_err(io::Error::other)??;
        Ok(process)
    }

    /// The file of the saved state: another one for another image, QEMU or command line.
    async fn state(&self) -> io::Result<PathBuf> {
        let version = qemu().arg("--version").stdout(Stdio::piped()).output().await.map_err(missing)?.stdout;
        let stamp = std::fs::read(self.image.join("stamp"))?;
        let line = self.arguments("", 0, &[]).join(" ");
        let digest = Sha256::digest([version, stamp, line.into_bytes()].concat());
        let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Ok(self.image.join(format!("state-{name}")))
    }

    async fn save(&self, state: &Path) -> io::Result<()> {
        let dir = self.dir.join("saving");
        std::fs::create_dir_all(&dir)?;
        // Port 0: nobody logs in.
        let mut process = self.launch(&dir, self.arguments(&dir.display().to_string(), 0, &[])).await?;
        answer(&dir.join("agent")).await?;
        let fresh = self.image.join(format!("saving-{}", std::process::id()));
        let target = format!("exec:cat > '{}'", fresh.display());
        let saved = async {
            process.qmp.ask("stop", Value::Null).await?;
            process.qmp.ask("migrate", json!({ "uri": target })).await?;
            let mut pauses = Backoff::new(Clock::real(), Duration::from_millis(20), Duration::from_millis(200));
            loop {
                let now = process.qmp.ask("query-migrate", Value::Null).await?;
                match now["status"].as_str() {
                    Some("completed") => return Ok(()),
                    Some("failed" | "cancelled") => return Err(io::Error::other(now.to_string())),
                    _ => pauses.pause().await,
                }
            }
        };
        within(PATIENCE, saved).await.map_err(io::Error::other)??;
        process.end().await;
        std::fs::rename(fresh, state)
    }

    async fn launch(&self, dir: &Path, arguments: Vec<String>) -> io::Result<Process> {
        for left in ["qmp", "agent"] {
            match std::fs::remove_file(dir.join(left)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let errors = std::fs::File::create(dir.join("qemu.log"))?;
        let mut command = qemu();
        command.args(arguments).stderr(errors);
        let mut child = command.spawn().map_err(missing)?;
        let mut pauses = Backoff::new(Clock::real(), Duration::from_millis(10), Duration::from_millis(100));
        let spoken = async {
            loop {
                match Qmp::open(&dir.join("qmp")).await {
                    Ok(qmp) => return Ok(qmp),
                    Err(error) => {
                        if let Some(status) = child.try_wait()? {
                            let said = std::fs::read_to_string(dir.join("qemu.log")).unwrap_or_default();
                            return Err(io::Error::other(format!("{QEMU} ended ({status}): {said}")));
                        }
                        tracing::trace!(%error, "no answer from QEMU yet");
                        pauses.pause().await;
                    }
                }
            }
        };
        let qmp = within(PATIENCE, spoken).await.map_err(io::Error::other)??;
        Ok(Process { child, qmp })
    }
}

impl Process {
    /// Ends the process and waits for that: its ports and files are free then.
    pub(super) async fn end(mut self) {
        let asked = within(Duration::from_secs(2), async {
            // An error means that it is going already.
            let _going = self.qmp.ask("quit", Value::Null).await;
            self.child.wait().await
        });
        if asked.await.is_err()
            && let Err(error) = self.child.kill().await
        {
            tracing::error!(%error, "a QEMU process cannot be killed");
        }
    }
}

/// Waits until an agent answers.
pub(super) async fn answer(socket: &Path) -> io::Result<Agent> {
    let mut pauses = Backoff::new(Clock::real(), Duration::from_millis(50), Duration::from_millis(250));
    let up = async {
        loop {
            if let Ok(Ok(agent)) = within(TRY, Agent::open(socket)).await {
                return agent;
            }
            pauses.pause().await;
        }
    };
    within(BOOT, up).await.map_err(io::Error::other)
}

#[expect(clippy::disallowed_methods, reason = "a machine of the lab is played by this program")]
fn qemu() -> Command {
    let mut command = Command::new(QEMU);
    command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    command
}

fn missing(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{QEMU} (Debian package qemu-system-x86): {error}"))
}
