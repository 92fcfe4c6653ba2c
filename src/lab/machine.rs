//! The machines of the model: VMs, what their processes have, and what is inside their guests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::clock::LabTime;
use super::nvme::NvmeDrive;

/// A virtual machine.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Vm {
    /// The Proxmox node that has it.
    pub node: String,
    /// The config's first section: what the running process has, once it runs.
    pub config: BTreeMap<String, String>,
    /// The config's pending section.
    pub pending: BTreeMap<String, String>,
    /// Keys whose deletion is pending; the value says whether by force.
    pub pending_delete: BTreeMap<String, bool>,
    /// The process, if there is one.
    pub running: Option<Running>,
    /// Lock flag: `backup`, `migrate`, ...
    pub lock: Option<String>,
    /// Somebody holds the config's file lock until then.
    pub flock_until: Option<LabTime>,
    /// A shutdown that a pve task waits for.
    pub shutdown: Option<Shutdown>,
    /// What runs inside.
    pub guest: Guest,
}

/// The UPID of the waiting pve task, and whether a start follows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Shutdown {
    /// UPID.
    pub upid: String,
    /// True for `reboot`.
    pub start_again: bool,
}

/// A QEMU process and the operating system in it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Running {
    /// Process id on the host.
    pub pid: u32,
    /// When the process started.
    pub since: LabTime,
    /// The machine type that it runs, `pc-q35-9.2+pve1`.
    pub machine: String,
    /// True where it was started with the agent's virtio port.
    pub agent_port: bool,
    /// The guest's boot id.
    pub boot_id: String,
    /// When this boot of the guest began.
    pub boot: LabTime,
    /// When this boot reaches user space.
    pub up_at: LabTime,
    /// When sshd listens.
    pub ssh_at: LabTime,
    /// When the agent answers.
    pub agent_at: LabTime,
    /// The guest is going down.
    pub halting: bool,
    /// USB passthrough that the process was told of, by config key.
    pub plugs: BTreeMap<String, Plug>,
    /// USB devices that the process holds, by config key.
    pub usb: BTreeMap<String, Attached>,
    /// The functions of its host's PCI that the process holds.
    pub pci: BTreeSet<String>,
    /// The highest USB device number in the guest.
    pub devnum: u32,
    /// Programs that the agent started, by pid.
    pub execs: BTreeMap<u32, AgentExec>,
}

/// What a QEMU process was told to pass through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plug {
    /// Takes the first free device with this `VID:PID`.
    #[serde(default)]
    pub id: Option<String>,
    /// Takes what is at this `BUS-PORT`.
    #[serde(default)]
    pub port: Option<String>,
    /// `usb3=1`
    #[serde(default)]
    pub usb3: bool,
}

/// A host device in the hands of a QEMU process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// `BUS-PORT` on the host.
    pub host_port: String,
    /// Identity at the time.
    pub id: String,
    /// Device number on the host at the time.
    pub host_devnum: u32,
    /// Device number in the guest.
    pub devnum: u32,
}

/// A program that the guest agent started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AgentExec {
    /// Exit code.
    pub exit: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// When it ends.
    pub done_at: LabTime,
}

/// The operating system of a virtual machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Guest {
    /// Host name.
    pub hostname: String,
    /// The Kubernetes node that it is.
    pub node: Option<String>,
    /// Its address on the estate's network.
    pub ip: String,
    /// The ssh server.
    pub ssh: SshManner,
    /// The guest agent.
    pub agent: AgentManner,
    /// The socket of a real agent, which then answers the agent calls instead of the simulated one.
    pub agent_socket: Option<PathBuf>,
    /// The folder with `vmlinux` and `initrd.cpio` of a real guest: a QEMU process plays this machine.
    pub image: Option<PathBuf>,
    /// NVMe drives, as they are from its next start on.
    pub drives: Vec<NvmeDrive>,
    /// Files by path.
    pub files: BTreeMap<String, String>,
    /// Installed packages.
    pub installed: BTreeSet<String>,
    /// Packages that its repositories offer.
    pub available: BTreeSet<String>,
    /// Paths that exist without content: device nodes, folders.
    pub paths: BTreeSet<String>,
    /// Bytes used below a path, for `du` and `stat`.
    pub used: BTreeMap<String, u64>,
    /// Never powers off on request.
    pub ignores_shutdown: bool,
    /// Powers off this late instead of after [`Timing::shutdown`].
    pub shutdown_ms: Option<u64>,
    /// A program keeps a USB device busy: hot-unplug is not acknowledged.
    pub holds_usb: bool,
    /// Commands with an answer of their own: the whole command line joined with spaces.
    pub answers: BTreeMap<String, Answer>,
}

/// What a command says.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Answer {
    /// Exit code.
    pub exit: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How long it takes.
    pub took_ms: u64,
}

/// How an ssh server behaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SshManner {
    /// As it should.
    #[default]
    Serves,
    /// Nothing listens.
    Refuses,
    /// Accepts the connection and stays silent.
    Silent,
    /// Sends its banner and stays silent.
    BannerOnly,
    /// Refuses every key.
    RefusesKeys,
    /// Shows another host key than known_hosts has.
    OtherHostKey,
    /// Cuts the session in the middle of a command.
    Cuts,
}

/// How a guest agent behaves.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentManner {
    /// The program is there.
    pub installed: bool,
    /// The service is on.
    pub enabled: bool,
    /// Takes requests and never answers.
    pub silent: bool,
    /// `guest-exec` is not disabled.
    pub exec_allowed: bool,
}
impl Default for AgentManner {
    fn default() -> Self {
        Self { installed: true, enabled: true, silent: false, exec_allowed: true }
    }
}

impl Default for Guest {
    fn default() -> Self {
        Self {
            hostname: "guest".into(),
            node: None,
            ip: "192.168.4.200".into(),
            ssh: SshManner::default(),
            agent: AgentManner::default(),
            agent_socket: None,
            image: None,
            drives: Vec::new(),
            files: BTreeMap::new(),
            installed: BTreeSet::new(),
            available: BTreeSet::new(),
            paths: BTreeSet::new(),
            used: BTreeMap::new(),
            ignores_shutdown: false,
            shutdown_ms: None,
            holds_usb: false,
            answers: BTreeMap::new(),
        }
    }
}

impl Vm {
    /// The name in its config.
    pub fn name(&self) -> &str {
        self.config.get("name").map_or("", String::as_str)
    }
}
