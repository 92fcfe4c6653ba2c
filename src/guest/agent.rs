//! The way through the Proxmox API: the guest agent.

use std::time::Duration;

use crate::base::fault::{Effect, Fault};
use crate::base::permit::{Again, Permit};
use crate::proxmox::config::{Props, flag};
use crate::proxmox::{self, AgentCause, AgentResult, Proxmox};

use super::command::{Command, Exit, Output};
use super::error::Error;
use super::look::Look;
use super::ssh::OUTPUT_CAP;

/// Something that was asked for, and what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// It is so.
    Yes,
    /// It is not so, and why.
    No(String),
    /// It could not be asked, and why.
    Unknown(String),
}

impl Fact {
    /// True for [`Fact::Yes`].
    pub fn is_yes(&self) -> bool {
        *self == Self::Yes
    }
}

/// The three facts of a guest agent; none follows from another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentFacts {
    /// The VM was started with the agent's channel.
    pub channel: Fact,
    /// The agent answers a ping.
    pub ping: Fact,
    /// It may run programs and found one to run.
    pub exec: Fact,
}

/// An agent that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentTried {
    /// It answers a ping.
    pub ping: Fact,
    /// It may run programs and found one to run.
    pub exec: Fact,
    /// The kernel's boot id, which that program has told.
    pub boot_id: Option<String>,
}

/// Tries the agent of a VM whose place is known; nothing is changed.
pub async fn try_agent(proxmox: &Proxmox, vm: &proxmox::VmRef) -> AgentTried {
    let ping = try_ping(proxmox, vm).await;
    let (exec, boot_id) = match &ping {
        Fact::Yes => may_exec(proxmox, vm).await,
        Fact::No(why) => (Fact::No(why.clone()), None),
        Fact::Unknown(why) => (Fact::Unknown(why.clone()), None),
    };
    AgentTried { ping, exec, boot_id }
}

/// Whether the agent of a VM whose place is known answers a ping.
pub async fn try_ping(proxmox: &Proxmox, vm: &proxmox::VmRef) -> Fact {
    fact(proxmox.agent_ping(vm).await)
}

pub(super) async fn look(proxmox: &Proxmox, vmid: u32, argv: &[String]) -> Result<Output, Error> {
    let vm = proxmox.locate(vmid).await?;
    let words: Vec<&str> = argv.iter().map(String::as_str).collect();
    Ok(output(proxmox.agent_look(&vm, &words, None).await?))
}

/// Runs a command, after a ping that shows that the agent is there.
pub(super) async fn run(proxmox: &Proxmox, vmid: u32, command: &Command, permit: &Permit) -> Result<Output, Error> {
    // The ping would follow a VM that moved, and the command would not.
    let vm = proxmox.locate_now(vmid).await?;
    proxmox.agent_ping(&vm).await?;
    let words: Vec<&str> = command.argv.iter().map(String::as_str).collect();
    let again = if command.repeatable { Again::Safe } else { Again::Once };
    let limit: Duration = command.limit;
    Ok(output(proxmox.agent_run(&vm, &words, again, limit, permit).await?))
}

pub(super) async fn facts(proxmox: &Proxmox, vmid: u32) -> AgentFacts {
    let vm = match proxmox.locate_now(vmid).await {
        Ok(vm) => vm,
        Err(error) => {
            let unknown = || Fact::Unknown(error.to_string());
            return AgentFacts { channel: unknown(), ping: unknown(), exec: unknown() };
        }
    };
    let channel = match proxmox.running_config(&vm).await {
        Ok(config) => agent_channel(config.get("agent").map(String::as_str)),
        Err(error) => Fact::Unknown(error.to_string()),
    };
    let AgentTried { ping, exec, .. } = try_agent(proxmox, &vm).await;
    AgentFacts { channel, ping, exec }
}

/// What a config's `agent` line says of the agent's channel: `1`, or `enabled=1,fstrim_cloned_disks=1` (qemu-server,
/// default key `enabled`).
pub fn agent_channel(line: Option<&str>) -> Fact {
    let Some(line) = line else { return Fact::No("the VM's config has no `agent`".into()) };
    match line.parse::<Props>().map(|props| props.get_default("enabled").and_then(flag)) {
        Ok(Some(true)) => Fact::Yes,
        Ok(Some(false)) => Fact::No(format!("the VM's config has `agent: {line}`")),
        _ => Fact::Unknown(format!("`agent: {line}` is not understood")),
    }
}

async fn may_exec(proxmox: &Proxmox, vm: &proxmox::VmRef) -> (Fact, Option<String>) {
    match proxmox.agent_info(vm).await {
        Ok(info) if !info.may_exec() => {
            return (Fact::No("the guest's settings forbid guest-exec".into()), None);
        }
        Ok(_) => {}
        Err(error) => return (fact::<()>(Err(error)), None),
    }
    // That it may says nothing of there being any program: Talos has none.
    match Look::BootId.argv() {
        Ok(argv) => {
            let words: Vec<&str> = argv.iter().map(String::as_str).collect();
            let answer = proxmox.agent_look(vm, &words, None).await;
            let told = answer.as_ref().ok().filter(|result| result.exit == 0);
            let boot_id = told.map(|result| String::from_utf8_lossy(&result.stdout).trim().to_owned());
            (fact(answer), boot_id.filter(|id| !id.is_empty()))
        }
        Err(error) => (Fact::Unknown(error.to_string()), None),
    }
}

fn fact<T>(answer: Result<T, proxmox::Error>) -> Fact {
    match answer {
        Ok(_) => Fact::Yes,
        Err(proxmox::Error::Agent { cause: cause @ (AgentCause::TimedOut | AgentCause::ResultLost(_)), .. }) => {
            Fact::Unknown(cause.to_string())
        }
        Err(proxmox::Error::Agent { cause, .. }) => Fact::No(cause.to_string()),
        Err(error) => Fact::Unknown(error.to_string()),
    }
}

/// The agent keeps up to 16 MiB; what is handed on is cut as it is by ssh.
fn output(result: AgentResult) -> Output {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes.get(..OUTPUT_CAP).unwrap_or(bytes)).into_owned();
    Output {
        exit: Exit::Status(result.exit.into()),
        stdout: text(&result.stdout),
        stderr: text(&result.stderr),
        truncated: result.truncated || result.stdout.len() > OUTPUT_CAP || result.stderr.len() > OUTPUT_CAP,
    }
}

impl From<proxmox::Error> for Error {
    fn from(error: proxmox::Error) -> Self {
        match error {
            proxmox::Error::Refused(refused) => Self::Refused(refused),
            error => Self::Agent(Box::new(error)),
        }
    }
}

/// True where waiting does not mend it: the VM's or the guest's settings, or these credentials.
pub(super) fn is_lasting(error: &proxmox::Error) -> bool {
    use proxmox::Error as E;
    match error {
        E::Agent { cause, .. } => {
            matches!(cause, AgentCause::NotConfigured | AgentCause::Disabled(_) | AgentCause::NoProgram(_))
        }
        E::Setup { .. }
        | E::Untrusted { .. }
        | E::AuthFailed { .. }
        | E::SecondFactor { .. }
        | E::NotAuthorized { .. }
        | E::NeedsTicket { .. }
        | E::RootOnly { .. }
        | E::Forbidden { .. }
        | E::NoSuchVm { .. } => true,
        _ => false,
    }
}

/// True where the command may have been started.
pub(super) fn may_have_run(error: &proxmox::Error) -> bool {
    error.effect() != Effect::None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_channel_is_read_from_the_running_config() {
        for line in ["1", "enabled=1", "1,fstrim_cloned_disks=1", "enabled=1,type=virtio"] {
            assert_eq!(agent_channel(Some(line)), Fact::Yes, "{line}");
        }
        for line in [None, Some("0"), Some("enabled=0,type=virtio")] {
            assert!(matches!(agent_channel(line), Fact::No(_)), "{line:?}");
        }
        for line in ["type=virtio", "", "perhaps"] {
            assert!(matches!(agent_channel(Some(line)), Fact::Unknown(_)), "{line}");
        }
    }
}
